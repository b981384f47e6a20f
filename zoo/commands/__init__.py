"""The commands, each a function that returns its exit code."""
