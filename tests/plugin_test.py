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


def listed(site: Path) -> tuple[str, str]:
    """What `list` says where a plugin is broken: its exit code is 0 and the rest is there."""
    done = python(site, str(ROOT / "cli.py"), "list")
    assert done.returncode == 0, done.stderr
    assert "pix2pix_ldct" in done.stdout
    return done.stdout, done.stderr.strip()


def test_a_name_of_the_zoo_stays_its_own(copy):
    index = copy / "tiny_zoo_plugin" / "registry.yaml"
    index.write_text(index.read_text().replace("tiny_identity:", "pix2pix:"))
    _, errors = listed(copy)
    assert errors == (
        "warning: the name 'pix2pix' is claimed by two packages: zoo and tiny_zoo_plugin."
    )
    code = "import zoo; print(zoo.describe('pix2pix')['owner'])"
    assert python(copy, "-c", code).stdout.strip() == "zoo"


def add_plugin(site: Path, name: str, index: str, value: str = "", init: str = "") -> None:
    """A second package with an entry point, as pip would leave it."""
    (site / name).mkdir()
    (site / name / "__init__.py").write_text(init)
    (site / name / "registry.yaml").write_text(index)
    info = site / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[zoo.plugins]\n{name} = {value or name}\n")


def test_of_two_plugins_with_one_name_neither_has_it(copy):
    index = (copy / "tiny_zoo_plugin" / "registry.yaml").read_text()
    add_plugin(copy, "other_plugin", index)
    text, errors = listed(copy)
    assert "tiny_identity" not in text
    assert errors == (
        "warning: the name 'tiny_identity' is claimed by two packages: "
        "other_plugin and tiny_zoo_plugin."
    )
    done = python(copy, str(ROOT / "cli.py"), "describe", "tiny_identity")
    assert done.returncode == 2
    assert "claimed by two packages" in done.stderr.splitlines()[-2]


BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nmodels: *b\n"
FIELDS = "{module: m, data: paired, tasks: [denoising], summary: s}"
BROKEN = {
    "malformed": ("models: [1, {\n", "", ""),
    "sections": ("models: [a]\n", "", ""),
    "no_fields": ("models: {a: }\n", "", ""),
    "number_names": (f"models: {{7: {FIELDS}}}\n", "", ""),
    "tasks": (f"models: {{a: {FIELDS.replace('[denoising]', '1')}}}\n", "", ""),
    "aliases": (BOMB, "", ""),
    "deep": ("[" * 50_000, "", ""),
    "a_tag": ("models: !!python/object/apply:os.getcwd []\n", "", ""),
    "is_gone": ("", "not_there_at_all", ""),
    "parent_gone": ("", "not_there.sub", ""),
    "it_raises": ("", "it_raises.sub", "raise RuntimeError('boom')"),
    "it_exits": ("", "it_exits.sub", "raise SystemExit(3)"),
}


def test_a_broken_plugin_costs_one_line_and_no_command(tmp_path):
    for name, (index, value, init) in BROKEN.items():
        add_plugin(tmp_path, name, index, value, init)
    text, errors = listed(tmp_path)
    assert "pix2pix" in text
    lines = errors.splitlines()
    assert len(lines) == len(BROKEN), errors
    for name, line in zip(sorted(BROKEN), sorted(lines), strict=True):
        assert line.startswith(f"warning: plugin {name!r} is left out: "), line
    assert "boom" in errors


def test_what_only_a_broken_plugin_could_have_is_its_own_error(copy):
    shutil.rmtree(copy / "tiny_zoo_plugin")
    done = python(copy, str(ROOT / "cli.py"), "describe", "tiny_identity")
    assert done.returncode == 2
    error = done.stderr.splitlines()[-2]
    assert error.startswith("error: no name is called 'tiny_identity'.")
    expected = (
        "plugin 'tiny' is left out: expected an importable package. Received: tiny_zoo_plugin"
    )
    assert error.endswith(expected)


def test_an_import_that_fails_harms_its_own_model_alone(copy):
    module = copy / "tiny_zoo_plugin" / "identity.py"
    module.write_text("import a_package_that_is_not_there\n")
    # Other names are not harmed by it.
    assert python(copy, "-c", "import zoo; zoo.names()").returncode == 0
    done = python(copy, "-c", "import zoo; zoo.describe('tiny_identity')")
    assert done.returncode == 1
    assert f'File "{module}", line 1' in done.stderr  # its own traceback
    done = python(copy, str(ROOT / "cli.py"), "describe", "tiny_identity")
    assert done.returncode == 1
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("error: ")
    assert "tiny_zoo_plugin.identity" in line
    assert "No module named 'a_package_that_is_not_there'" in line
