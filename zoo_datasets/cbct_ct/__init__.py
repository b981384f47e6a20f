"""`cbct_ct`: cone-beam-like and planning CT of the same simulated patient."""
