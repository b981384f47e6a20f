"""`mr_ct`: magnetic resonance and CT of the same patient."""
