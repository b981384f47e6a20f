"""`chest_xray`: frontal chest radiographs, simulated (the default) or of NIH ChestX-ray14."""
