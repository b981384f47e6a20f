"""TFDS builders, one folder a data set; `registry.yaml` names them.

    import tensorflow_datasets as tfds
    import zoo_datasets

    pairs = tfds.load("ldct/phantom", split="train")

Importing the package imports every builder, which puts its name into TFDS's register. None of them
imports TensorFlow, which TFDS itself does at the first use.
"""

import importlib
import multiprocessing
from pathlib import Path

# Worker processes read and draw cases, and need no names for that.
if multiprocessing.parent_process() is None:
    for _path in sorted(Path(__file__).parent.glob("*/*_dataset_builder.py")):
        importlib.import_module(f"{__name__}.{_path.parent.name}.{_path.stem}")
