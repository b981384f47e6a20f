"""Every command of the README and of docs/guide.md, in order, on small data.

`make demo`, `make test` and the installation are CI's.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pydicom.data
import pytest

from zoo import command_line

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "docs" / "guide.md"]
TINY = {
    "pix2pix": ["crop=32", "levels=4", "base_filters=4", "discriminator_filters=4"],
    "encoder_decoder": ["crop=32", "levels=3", "base_filters=4"],
    "pggan": ["resolution=8", "fmap_base=64", "fmap_max=8", "latent=8", "batch_size=4"],
}


def commands() -> list[list[str]]:
    """Each command once, split into words, in the order of the pages."""
    found = []
    for page in PAGES:
        blocks = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
        for line in "\n".join(blocks).splitlines():
            words = shlex.split(line, comments=True)
            if words and words[0] not in ("make", "pip") and words not in found:
                found.append(words)
    return found


def series(folder: Path, slices: int) -> None:
    """A DICOM series of one patient, from pydicom's CT image."""
    folder.mkdir()
    scan = pydicom.dcmread(pydicom.data.get_testdata_file("CT_small.dcm"))
    for i in range(slices):
        scan.SOPInstanceUID = scan.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
        scan.InstanceNumber = i + 1
        scan.ImagePositionPatient = [-158.1, -179.0, 5.0 * i]
        scan.save_as(folder / f"{i:03d}.dcm")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    """Where the commands have run, one after the other."""
    folder = tmp_path_factory.mktemp("workspace")
    series(folder / "ct_series", 14)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TFDS_DATA_DIR", str(folder / "data"))
        # The folder of pairs, which the guide explains before it shows how to make one.
        for words in sorted(commands(), key=lambda words: words[0] != "python"):
            if words[0] == "zoo":
                code = command_line.main(["zoo", *small(words[1:])])
            else:
                command = [sys.executable, str(ROOT / words[1]), *words[2:]]
                code = subprocess.run(command, check=False).returncode
            assert code == 0, " ".join(words)
    return folder


def small(words: list[str]) -> list[str]:
    """The same command on the smallest data set and network."""
    words = [re.sub(r"^(--dataset=(?:ldct|mammo))$", r"\1/phantom_tiny", word) for word in words]
    if "train" in words and any(word.startswith("--init=") for word in words):
        words += ["--steps=2", "--set=crop=32", "--batch_size=1", "--workdir=runs/tuned"]
        words += ["--set=allow_shared_patients=true"]
    elif "train" in words:
        model = next(word for word in words if word.startswith("--model=")).split("=")[1]
        words += ["--steps=6", *(f"--set={field}" for field in TINY[model])]
        dataset = next(word for word in words if word.startswith("--dataset=")).split("=")[1]
        words += [f"--workdir=runs/{model}-{dataset.split('/')[0]}"]
        if dataset == "folder":
            words += ["--set=allow_shared_patients=true"]
    elif "evaluate" in words:
        words += ["--workdir=runs/pix2pix-ldct"]
    return words


def test_training_leaves_what_the_readme_says(workspace):
    for run in ("pix2pix-ldct", "pggan-mammo", "encoder_decoder-folder"):
        folder = workspace / "runs" / run
        record = json.loads((folder / "run.json").read_text())
        assert record["state"] == "done"
        planned = run.endswith("-folder")  # of the user's own files
        assert record["preset"] == ("plan" if planned else "small")
        assert (folder / "plan.json").exists() == planned
        assert {"recipe", "versions", "seed", "metrics", "dataset_version"} <= set(record)
        for name in ("samples", "tensorboard", "checkpoints", "weights"):
            assert list((folder / name).iterdir())


def test_fine_tuning_begins_from_the_pretrained_network(workspace):
    record = json.loads((workspace / "runs" / "tuned" / "run.json").read_text())
    assert record["state"] == "done" and record["model"] == "pix2pix"
    assert record["recipe"]["learning_rate"] == 1e-4
    assert len(list((workspace / "denoised_test").rglob("*.dcm"))) == 12


def test_evaluation_is_of_the_test_split_in_hounsfield_units(workspace):
    results = json.loads(
        (workspace / "runs" / "pix2pix-ldct" / "evaluation" / "metrics.json").read_text()
    )
    assert results["unit"] == "HU"
    assert results["dataset"]["split"] == "test"
    assert results["patients"] == 2
    assert (workspace / "runs" / "pix2pix-ldct" / "evaluation" / "report.html").exists()
    record = json.loads((workspace / "runs" / "pix2pix-ldct" / "run.json").read_text())
    assert record["metrics"]["test"]["images"] == results["images"]


def test_prediction_is_a_derived_series(workspace):
    assert len(list((workspace / "denoised").rglob("*.dcm"))) == 14
    written = sorted((workspace / "translated").rglob("*.dcm"))
    assert len(written) == 14
    one, source = pydicom.dcmread(written[3]), pydicom.dcmread(workspace / "ct_series" / "003.dcm")
    assert one.ImageType[0] == "DERIVED"
    assert one.SeriesInstanceUID != source.SeriesInstanceUID
    assert one.ImagePositionPatient == source.ImagePositionPatient
    assert "pix2pix" in one.DerivationDescription


def test_sixteen_generated_images(workspace):
    assert len(list((workspace / "generated").glob("*.png"))) >= 16


def test_export_has_a_version_folder(workspace):
    version = workspace / "served" / "ldct" / "1"
    assert (version / "saved_model.pb").exists()
    assert json.loads((version / "assets.extra" / "intensity.json").read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_python_example_runs(workspace, monkeypatch, page):
    monkeypatch.chdir(workspace)
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    names: dict = {}
    exec(code, names)
    assert names["denoised"].shape == (3, 512, 512)
    assert np.isfinite(names["denoised"]).all()


def test_one_bad_file_among_good_ones(workspace, tmp_path, capsys):
    bad = tmp_path / "mixed"
    shutil.copytree(workspace / "ct_series", bad)
    (bad / "000.dcm").write_bytes(b"no image at all")
    run = f"--model={workspace}/runs/pix2pix-ldct"
    code = command_line.main(["zoo", "predict", run, f"--input={bad}", f"--output={tmp_path}/out"])
    assert code == 1
    assert "000.dcm" in capsys.readouterr().err
    assert len(list((tmp_path / "out").rglob("*.dcm"))) == 13


def test_a_generator_is_measured_against_held_out_images(workspace, monkeypatch):
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("TFDS_DATA_DIR", str(workspace / "data"))
    assert command_line.main(["zoo", "evaluate", "--model=pggan"]) == 0
    results = json.loads(
        (workspace / "runs" / "pggan-mammo" / "evaluation" / "metrics.json").read_text()
    )
    assert results["memorisation"]["training_images"] > 0
    assert "generated" in results["sliced_wasserstein"]
