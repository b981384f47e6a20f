"""The package as pip installs it: built from the checkout, used where no checkout is."""

import email
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest

import zoo
from zoo import registry

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PARTS = PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]


def run(*command: str | Path, cwd: Path) -> str:
    """What a program prints; it sees no checkout and no network."""
    own = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    env = {name: value for name, value in os.environ.items() if name not in own}
    env |= {"PYTHONNOUSERSITE": "1", "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    env |= {"PIP_NO_CACHE_DIR": "1", "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> Path:
    """Built from a copy, in which nothing is a link, as it is where Bazel runs."""
    folder = tmp_path_factory.mktemp("sdist")
    copy = folder / "checkout"
    copy.mkdir()
    hidden = shutil.ignore_patterns("__pycache__")
    for part in ("pyproject.toml", "README.md", "LICENSE", *(part[1:] for part in PARTS)):
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, copy / part, ignore=hidden, dirs_exist_ok=True)
        else:
            shutil.copy(ROOT / part, copy / part)
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder, cwd=copy)
    (path,) = folder.glob("*.tar.gz")
    return path


@pytest.fixture(scope="module")
def wheel(sdist) -> Path:
    """Built from the sdist, which so holds all that it needs."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    run(*command, "--wheel-dir", sdist.parent, sdist, cwd=sdist.parent)
    (path,) = sdist.parent.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def programs(wheel, tmp_path_factory) -> Path:
    """The programs of an environment that holds the wheel, and sees what it depends on."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-compile"]
    run(*pip, "--no-deps", wheel, cwd=folder)
    # A line of a .pth file adds a folder alone: the .pth file inside, of the checkout, is not read.
    packages = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text("\n".join(sorted(packages)) + "\n")
    return folder / "bin"


def test_the_wheel_holds_what_the_code_reads_and_nothing_else(wheel):
    expected = {
        path.relative_to(ROOT).as_posix(): path
        for package in ("zoo", "zoo_datasets")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    expected["zoo/registry.yaml"] = ROOT / "registry.yaml"
    archive = zipfile.ZipFile(wheel)
    held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == set(expected)
    assert {"zoo/py.typed", "zoo_datasets/py.typed"} <= held
    for name in ("zoo/registry.yaml", "zoo/weights/pix2pix_ldct.weights.h5"):
        assert archive.read(name) == expected[name].read_bytes()


def test_the_sdist_holds_the_tests_and_the_documents(sdist):
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "SECURITY.md",
        "CITATION.cff",
    }
    assert wanted | {"registry.yaml", "cli.py", "tests/package_test.py"} <= held


def test_the_metadata_is_what_the_project_states(wheel):
    archive = zipfile.ZipFile(wheel)
    (info,) = {name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name}
    metadata = email.message_from_bytes(archive.read(f"{info}/METADATA"))
    assert metadata["Name"] == PROJECT["project"]["name"]
    assert metadata["Version"] == zoo.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert archive.read(f"{info}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    urls = dict(line.split(", ", 1) for line in metadata.get_all("Project-URL"))
    assert urls == PROJECT["project"]["urls"]
    required = [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]
    assert len(required) == len(PROJECT["project"]["dependencies"])
    points = archive.read(f"{info}/entry_points.txt").decode()
    assert points.split() == ["[console_scripts]", "zoo", "=", "zoo.command_line:main"]


def test_the_version_is_the_citations_and_has_its_changes():
    assert f"\nversion: {zoo.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert headings[0] == "Unreleased"
    for heading in headings[1:]:
        assert re.fullmatch(r"\d+\.\d+\.\d+ - \d{4}-\d\d-\d\d", heading), heading
    if headings[1:]:
        assert headings[1].split()[0] == zoo.__version__


def test_the_command_works_where_no_checkout_is(programs, tmp_path):
    code = "import zoo, zoo_datasets; print(zoo.__file__, zoo_datasets.__file__)"
    places = run(programs / "python", "-c", code, cwd=tmp_path).split()
    assert all(place.startswith(str(programs.parent)) for place in places), places
    assert run(programs / "zoo", "--version", cwd=tmp_path) == f"zoo-medical {zoo.__version__}\n"

    listed = run(programs / "zoo", "list", cwd=tmp_path)
    for rows in registry.index().values():
        for name, row in rows.items():
            assert row["owner"] != "zoo" or name in listed, name
    assert "sha256" in run(programs / "zoo", "describe", "srcnn_mri_x2", cwd=tmp_path)

    image = np.linspace(0, 1000, 24 * 32, dtype=np.float32).reshape(24, 32)
    np.save(tmp_path / "image.npy", image)
    files = ["--input=image.npy", "--output=larger"]
    run(programs / "zoo", "--model=srcnn_mri_x2", *files, "predict", cwd=tmp_path)
    larger = np.load(tmp_path / "larger" / "image.npy")
    # The network was trained to give back what its input was averaged from.
    np.testing.assert_allclose(larger.reshape(24, 2, 32, 2).mean((1, 3)), image, atol=40)
