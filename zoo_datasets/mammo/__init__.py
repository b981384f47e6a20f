"""`mammo`: mammograms, simulated (the default) or from CBIS-DDSM."""
