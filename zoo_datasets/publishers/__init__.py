"""Trees of files as their publishers lay them out."""
