"""`lung_nodule`: patches of lung CT with and without a nodule, simulated."""
