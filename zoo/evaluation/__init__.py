"""Measures a model, and writes what was found."""
