"""From a data set and a recipe to batches of images."""
