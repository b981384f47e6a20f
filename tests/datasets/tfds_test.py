"""zoo_datasets as TFDS sees it: names, configs, folders."""

import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow_datasets as tfds

import zoo_datasets
from zoo import registry

ROOT = Path(zoo_datasets.__file__).parent
NAMES = sorted(
    name
    for name, fields in registry.index()["datasets"].items()
    if fields["module"].startswith("zoo_datasets.")
)


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_importing_the_package_is_light():
    done = run(
        "import sys, time, zoo_datasets\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)\n"
        "import tensorflow_datasets as tfds\n"
        "from tensorflow_datasets.core import registered\n"
        f"assert set({NAMES!r}) <= set(registered._DATASET_REGISTRY)\n"
        "print(time.process_time())"
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 3  # about 1 s on an idle machine, TFDS itself included


def test_worker_processes_import_no_builder():
    from zoo_datasets import workers

    (modules,) = workers.map_in_order(_imported, [None], workers=1)
    assert "zoo_datasets" in modules
    builders = [name for name in modules if name.endswith("_dataset_builder")]
    assert not [name for name in builders if name.startswith("zoo_datasets.")]


def _imported(_):
    return sorted(sys.modules)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_known_to_tfds(name):
    builder_cls = tfds.builder_cls(name)
    assert builder_cls.__module__ == f"zoo_datasets.{name}.{name}_dataset_builder"
    configs = [config.name for config in builder_cls.BUILDER_CONFIGS]
    if name != "folder":  # its configs are made from the user's files
        assert configs == registry.index()["datasets"][name]["configs"]


@pytest.mark.parametrize("name", NAMES)
def test_the_folder_is_what_tfds_expects(name):
    folder = ROOT / name
    assert (folder / "README.md").read_text(encoding="utf-8").strip()
    assert (folder / "CITATIONS.bib").is_file() and (folder / "TAGS.txt").is_file()
    metadata = tfds.builder_cls(name).get_metadata()
    from tensorflow_datasets.core import dataset_metadata

    assert metadata.tags and not set(metadata.tags) - set(dataset_metadata.valid_tags())


def test_load_after_import(tmp_path):
    dataset, info = tfds.load(
        "ldct/phantom_tiny", split="train", data_dir=tmp_path, with_info=True, try_gcs=False
    )
    assert info.full_name == "ldct/phantom_tiny/1.0.0"
    assert len(dataset) == 24


def test_no_name_is_one_of_tfds_own():
    done = run(
        "import tensorflow_datasets as tfds\n"
        "print('\\n'.join(tfds.list_builders(with_community_datasets=False)))"
    )
    assert done.returncode == 0, done.stderr
    theirs = set(done.stdout.split())
    assert len(theirs) > 300 and "mnist" in theirs
    assert not theirs & set(NAMES)


def test_tfds_own_command_builds(tmp_path):
    command = [sys.executable, "-m", "tensorflow_datasets.scripts.cli.main", "build"]
    command += ["mri_recon/phantom_tiny", "--imports=zoo_datasets", f"--data_dir={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    built = tfds.builder("mri_recon/phantom_tiny", data_dir=tmp_path)
    assert built.info.splits["train"].num_examples == 24
