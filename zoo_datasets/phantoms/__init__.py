"""Simulated anatomy and scanners, from which the data sets make their examples."""
