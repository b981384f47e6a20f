"""A package of its own joins through the entry point group `zoo.plugins`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The plugin as pip installs it, without the network."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(ROOT / "tests" / "plugin_package", folder / "source")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--no-compile", "--disable-pip-version-check"]
    command += ["--target", folder / "site", folder / "source"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "site"


@pytest.fixture
def copy(installed, tmp_path):
    return Path(shutil.copytree(installed, tmp_path / "site"))


def python(site: Path, *arguments: str) -> subprocess.CompletedProcess:
    path = os.pathsep.join([str(site), str(ROOT)])
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "-1"},
        cwd=site,
        capture_output=True,
        text=True,
    )


def test_its_model_is_listed_and_loads_like_any_other(installed):
    code = """
import numpy as np
import zoo

assert "tiny_identity" in zoo.names(task="denoising"), zoo.names()
assert "pix2pix" in zoo.names()
ct = zoo.Domain(modality="CT", unit="HU", window=(-1000.0, 1000.0))
model = zoo.load("tiny_identity", gain=1.0, source=ct, target=ct)
image = np.linspace(-900, 900, 30 * 20).reshape(30, 20)
np.testing.assert_allclose(model.translate(image), image, atol=0.01)
assert zoo.describe("tiny_identity")["owner"] == "tiny_zoo_plugin"
"""
    done = python(installed, "-c", code)
    assert done.returncode == 0, done.stderr


def test_the_command_line_lists_it(installed):
    done = python(installed, str(ROOT / "cli.py"), "list")
    assert done.returncode == 0, done.stderr
    assert "tiny_identity" in done.stdout
    assert "tiny_identity" not in python(ROOT, str(ROOT / "cli.py"), "list").stdout


def test_a_clash_of_names_names_both_owners(copy):
    index = copy / "tiny_zoo_plugin" / "registry.yaml"
    index.write_text(index.read_text().replace("tiny_identity:", "pix2pix:"))
    done = python(copy, "-c", "import zoo; zoo.names()")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last == (
        "ValueError: the name 'pix2pix' is claimed by two packages: zoo and tiny_zoo_plugin."
    )


def test_an_import_that_fails_shows_its_own_traceback(copy):
    module = copy / "tiny_zoo_plugin" / "identity.py"
    module.write_text("import a_package_that_is_not_there\n")
    # Other names are not harmed by it.
    assert python(copy, "-c", "import zoo; zoo.names()").returncode == 0
    done = python(copy, "-c", "import zoo; zoo.describe('tiny_identity')")
    assert done.returncode == 1
    assert f'File "{module}", line 1' in done.stderr
    assert "No module named 'a_package_that_is_not_there'" in done.stderr


def test_a_plugin_without_its_package_is_named(copy):
    shutil.rmtree(copy / "tiny_zoo_plugin")
    done = python(copy, "-c", "import zoo; zoo.names()")
    assert done.returncode == 1
    assert "plugin 'tiny': expected an importable package. Received: tiny_zoo_plugin" in done.stderr
