"""A plugin: its `registry.yaml` says what it adds to the zoo."""
