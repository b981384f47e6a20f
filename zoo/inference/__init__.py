"""Translates a user's files, and writes generated images."""
