"""`sr`: images and volumes with their low-resolution scans, simulated."""
