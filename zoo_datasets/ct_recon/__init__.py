"""`ct_recon`: CT images from few and noisy parallel-beam projections."""
