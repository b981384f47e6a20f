"""Reading and writing medical images, intensity windows and tiling."""
