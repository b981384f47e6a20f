"""A trained network as something that others serve."""
