"""`liver_lesion`: patches of liver CT with and without a lesion, simulated or of LiTS."""
