"""`mri_recon`: undersampled k-space and the images behind it, simulated."""
