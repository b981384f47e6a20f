"""Forward operators, their adjoints and pseudo-inverses, and noise models."""
