"""`mri_contrast`: T1- and T2-weighted magnetic resonance of the same simulated brain."""
