"""`brain_mri`: single magnetic resonance images of the brain, simulated and real."""
