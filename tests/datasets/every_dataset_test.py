"""Every data set trains a model that suits it, for a step: those that no other test trains on.

And no simulation imports TensorFlow.
"""

import subprocess
import sys
from pathlib import Path

import pytest

import zoo
import zoo_datasets
from runs import RUNS
from zoo import registry, training

# Data set: a model that suits.
SINGLE = {"brain_mri": "dcgan", "chest_xray": "dcgan", "liver_lesion": "dcgan"}
ELSEWHERE = {"ct_recon", "folder", "mr_ct", "pet_ct"}  # their own tests train on them


def test_none_is_forgotten():
    trained = {dataset.split("/")[0] for dataset, *_ in RUNS.values()}
    own = {n for n, row in registry.index()["datasets"].items() if row["owner"] == "zoo"}
    assert trained | set(SINGLE) | ELSEWHERE == own


@pytest.mark.parametrize("name", SINGLE)
def test_trains_a_model(name, tmp_path):
    model = SINGLE[name]
    assert model in registry.fitting(name)
    overrides = {"steps": 1, "batch_size": 2, "base_filters": 4, "discriminator_filters": 4}
    entry = zoo.lookup(model, f"{name}/phantom_tiny", "small", overrides)
    record = training.train(entry, tmp_path / "run", data_dir=tmp_path / "data")
    assert record["state"] == "done"
    assert len(list((tmp_path / "run" / "samples").glob("*.png"))) == 1


def test_simulations_import_no_tensorflow():
    """So that the worker processes that draw patients start quickly."""
    root = Path(zoo_datasets.__file__).parent
    files = [*root.glob("phantoms/*.py"), *root.glob("*/phantom.py"), *root.glob("*/varied.py")]
    assert len(files) > 20
    names = [".".join(path.relative_to(root.parent).with_suffix("").parts) for path in files]
    code = f"import sys, {', '.join(names)}\n"
    code += "sys.exit(bool({'keras', 'tensorflow'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
