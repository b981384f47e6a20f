"""`brain_seg`: T1-weighted magnetic resonance of simulated brains, and their tissue maps."""
