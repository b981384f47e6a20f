"""One architecture, one file; `registry.yaml` names them."""
