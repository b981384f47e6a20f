"""TFDS builders, one folder a data set; `registry.yaml` names them."""
