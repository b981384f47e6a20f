"""Derivatives of a BIDS dataset, by their names and sidecars, and by the validator."""

import json
import shutil
import subprocess

import nibabel
import numpy as np
import pytest

from stand_in import MR, Model
from zoo import averaging, command_line
from zoo.inference import bids

VALIDATOR = shutil.which("bids-validator-deno")
ADDING = Model(plus=7.0, source=MR, target=MR, name="adding_7")


@pytest.fixture
def dataset(tmp_path):
    """Two subjects, one of them with sessions, and another pipeline's derivatives."""
    raw = tmp_path / "raw"
    images = {}
    for name in ("sub-01/anat/sub-01_T1w", "sub-02/ses-a/anat/sub-02_ses-a_run-1_T1w"):
        images[name] = np.random.default_rng(0).uniform(0, 800, (6, 5, 4)).astype("float32")
    images["sub-01/anat/sub-01_FLAIR"] = images["derivatives/x/sub-01/anat/sub-01_T1w"] = images[
        "sub-01/anat/sub-01_T1w"
    ]
    for name, values in images.items():
        path = raw / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nifti = nibabel.Nifti1Image(values, np.diag([1, 1, 2, 1]))
        nifti.header.set_xyzt_units("mm", "sec")
        nifti.to_filename(path)
    (raw / "sub-01" / "anat" / "sub-01_T1w.json").write_text('{"SkullStripped": true}')
    return raw


MADE = (
    "sub-01/anat/sub-01_desc-adding7_T2w",
    "sub-02/ses-a/anat/sub-02_ses-a_run-1_desc-adding7_T2w",
)


def names(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_command_writes_a_derivative_dataset(dataset, monkeypatch, capsys):
    monkeypatch.setattr(averaging, "build", lambda entries, tta: ADDING)
    output = dataset / "derivatives" / "zoo"
    words = ["--model=pix2pix_ldct", "--engine=keras", f"--input={dataset}", f"--output={output}"]
    assert command_line.main(["zoo", "predict", *words, "--bids=T1w:T2w"]) == 0
    assert "Translated 2 files, 8 slices" in capsys.readouterr().out
    wanted = {f"{name}{end}" for name in MADE for end in (".nii.gz", ".json")}
    assert names(output) == wanted | {"dataset_description.json", "README"}
    source = nibabel.load(dataset / "sub-01/anat/sub-01_T1w.nii.gz")
    made = nibabel.load(output / f"{MADE[0]}.nii.gz")
    np.testing.assert_allclose(made.get_fdata(), source.get_fdata() + 7, atol=0.02)
    np.testing.assert_allclose(made.affine, source.affine)
    told = [json.loads((output / f"{name}.json").read_text()) for name in MADE]
    assert told[0]["Sources"] == ["bids:raw:sub-01/anat/sub-01_T1w.nii.gz"]
    assert [each["SkullStripped"] for each in told] == [True, False]
    described = json.loads((output / "dataset_description.json").read_text())
    assert described["DatasetType"] == "derivative"
    assert described["DatasetLinks"]["raw"] == dataset.resolve().as_uri()
    assert described["GeneratedBy"][0]["Name"] == "zoo-medical"
    # A second run replaces nothing unless it is told to.
    assert command_line.main(["zoo", "predict", *words, "--bids=T1w:T2w"]) == 1
    assert command_line.main(["zoo", "predict", *words, "--bids=T1w:T2w", "--overwrite"]) == 0


def test_finer_images_say_their_resolution(dataset, tmp_path):
    finer = Model(source=MR, target=MR, name="twice", scale=2)
    bids.translate(finer, dataset, tmp_path / "out", "FLAIR", progress=False)
    (path,) = (tmp_path / "out").rglob("sub-*.json")
    assert path.name == "sub-01_res-x2_desc-twice_FLAIR.json"
    assert "2 times" in json.loads(path.read_text())["Resolution"]


def test_what_is_wrong_with_an_image_is_no_other_ones(dataset, tmp_path):
    anat = dataset / "sub-01" / "anat"
    (anat / "sub-01_T1w.json").write_text("[1]")
    (anat / "sub-01_run-2_T1w.nii.gz").symlink_to("nowhere")
    report = bids.translate(ADDING, dataset, tmp_path / "out", "T1w", progress=False)
    assert [(each.path.name, each.reason) for each in report.skipped] == [
        ("sub-01_T1w.nii.gz", "sub-01_T1w.json: expected a JSON object. Received: [1]"),
        ("sub-01_run-2_T1w.nii.gz", "a link to a file that is not there"),
    ]
    made = "sub-02/ses-a/anat/sub-02_ses-a_run-1_desc-adding7_T1w"
    described = {"dataset_description.json", "README"}
    assert names(tmp_path / "out") == {f"{made}.nii.gz", f"{made}.json"} | described


def test_two_images_of_one_name_are_refused_before_any_is_made(dataset, tmp_path):
    path = dataset / "sub-01" / "anat" / "sub-01_T1w.nii.gz"
    shutil.copy(path, path.with_name("sub-01_desc-preproc_T1w.nii.gz"))
    with pytest.raises(ValueError, match="differ by more than desc-.*sub-01_desc-preproc_T1w"):
        bids.translate(ADDING, dataset, tmp_path / "out", "T1w", overwrite=True)
    assert not (tmp_path / "out").exists()


def test_what_is_no_such_dataset_is_refused(dataset, tmp_path):
    for suffixes in ("", "T1w:T2w:T1w", "../x", "T1w:a_b"):
        with pytest.raises(ValueError, match="bids: expected SUFFIX"):
            bids.translate(ADDING, dataset, tmp_path / "out", suffixes)
    with pytest.raises(ValueError, match=r"input: expected a BIDS dataset with sub-…_bold.nii.gz"):
        bids.translate(ADDING, dataset, tmp_path / "out", "bold")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.skipif(VALIDATOR is None, reason="pip install bids-validator-deno")
@pytest.mark.parametrize(("scale", "suffixes"), [(1, "T1w:T2w"), (2, "T1w")])
def test_the_validator_accepts_it(dataset, tmp_path, scale, suffixes):
    model = Model(source=MR, target=MR, name="adding_7", scale=scale)
    bids.translate(model, dataset, tmp_path / "out", suffixes, progress=False)
    command = [VALIDATOR, "--format", "json", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    issues = json.loads(done.stdout)["issues"]["issues"]
    assert not [issue for issue in issues if issue["severity"] == "error"], issues
