"""Where translations go."""

import os

import nibabel
import numpy as np
import PIL.Image
import PIL.PngImagePlugin
import pydicom
import pytest
import tifffile

from dicom_files import bundled, frames
from stand_in import TO_CT, Model, translate


def test_single_file_to_file(tmp_path, mixed):
    report = translate(Model(), mixed / "brain.nii.gz", tmp_path / "new.nii.gz")
    assert report.outputs == [tmp_path / "new.nii.gz"]
    dicom = translate(Model(), mixed / "ct/0.dcm", tmp_path / "slice.ima")
    assert dicom.outputs == [tmp_path / "slice.ima"]
    with pytest.raises(ValueError, match=r"expected a DICOM file, as the input"):
        translate(Model(), mixed / "ct/0.dcm", tmp_path / "slice.png")
    with pytest.raises(ValueError, match=r"expected a .nii.gz file, as the input"):
        translate(Model(), mixed / "brain.nii.gz", tmp_path / "new.png")


def test_output_is_never_an_input(tmp_path, mixed):
    content = {path: path.read_bytes() for path in mixed.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match="another folder than the input"):
        translate(Model(), mixed, mixed, overwrite=True)
    with pytest.raises(ValueError, match="would replace an input"):
        translate(Model(), mixed / "grey.png", mixed, overwrite=True)
    with pytest.raises(ValueError, match="would replace an input"):
        translate(Model(), mixed / "grey.png", mixed / "grey.png", overwrite=True)
    assert content == {path: path.read_bytes() for path in content}


def test_existing_files_are_kept(tmp_path, mixed):
    translate(Model(), mixed, tmp_path / "out")
    with pytest.raises(FileExistsError, match="overwrite"):
        translate(Model(plus=1), mixed, tmp_path / "out")
    translate(Model(plus=1.0), mixed, tmp_path / "out", overwrite=True)
    assert np.load(tmp_path / "out/array.npy").mean() > 0.5


def test_an_output_that_cannot_be_written_is_found_first(tmp_path, mixed):
    (tmp_path / "file").write_text("")
    model = Model()
    for place in ("file", "file/out"):
        with pytest.raises(ValueError, match="output: expected a folder. Received: .*lies in one"):
            translate(model, mixed, tmp_path / place)
    assert model.shapes == []


def test_no_link_leads_out_of_the_output_folder(tmp_path, mixed):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/ct").symlink_to(tmp_path / "elsewhere")
    report = translate(Model(), mixed, tmp_path / "out")
    (problem,) = report.skipped
    assert problem.reason.startswith("output: expected a folder within ")
    assert report.done == 4
    assert not list((tmp_path / "elsewhere").iterdir())
    # the folder itself may be a link
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    assert translate(Model(), mixed, tmp_path / "link").done == 5


def test_a_file_behind_a_link_is_not_written_over(tmp_path, mixed):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/grey.png").symlink_to(tmp_path / "precious")
    with pytest.raises(FileExistsError):
        translate(Model(), mixed, tmp_path / "out")
    assert translate(Model(), mixed, tmp_path / "out", overwrite=True).done == 5
    assert (tmp_path / "precious").read_text() == "precious"


def test_names_as_long_as_the_system_takes(tmp_path):
    for number, name in enumerate(("n" * 251 + ".dcm", "a.dcm", "1.2.840." + "1" * 20)):
        frames(tmp_path / name, f"1.2.{number}")
    report = translate(TO_CT, tmp_path, tmp_path / "out")
    assert report.skipped == []
    expected = {f"a-{k}.dcm" for k in (1, 2, 3)}
    expected |= {"1.2.840." + "1" * 20 + f"-{k}" for k in (1, 2, 3)}
    expected |= {"n" * 249 + f"-{k}.dcm" for k in (1, 2, 3)}
    assert {path.name for path in report.outputs} == expected


def test_a_name_is_given_once(tmp_path):
    dataset = pydicom.dcmread(bundled("MR_small"))
    dataset.SeriesInstanceUID = "1.2.1"
    dataset.save_as(tmp_path / "a-2.dcm")
    frames(tmp_path / "a.dcm")
    report = translate(TO_CT, tmp_path, tmp_path / "out")
    (problem,) = report.skipped
    assert problem.path.name == "a.dcm"
    assert problem.reason == "output: expected a name of its own. Received: a-2.dcm again"
    assert [path.name for path in report.outputs] == ["a-2.dcm"]


def test_names_that_are_not_utf_8(tmp_path, mixed):
    for path in [mixed / "ct/1.dcm", *mixed.glob("*.*")]:
        path.rename(path.with_name(os.fsdecode(b"\xff\xe9") + path.name))
    (mixed / "ct").rename(mixed / os.fsdecode(b"ct\xfc"))
    (mixed / os.fsdecode(b"bad\xff.png")).write_bytes(b"nothing")
    report = translate(Model(), mixed, tmp_path / "out")
    assert report.done == 5
    assert [os.fsencode(problem.path.name) for problem in report.skipped] == [b"bad\xff.png"]
    assert len(report.outputs) == 7
    assert (tmp_path / "out" / os.fsdecode(b"ct\xfc") / "0.dcm").exists()


def test_deidentified_names_and_headers(tmp_path, mixed):
    (mixed / "grey.png").rename(mixed / "Doe_Jane.png")
    (mixed / "ct").rename(mixed / "Doe")
    note = PIL.PngImagePlugin.PngInfo()
    note.add_text("Comment", "Doe")
    with PIL.Image.open(mixed / "Doe_Jane.png") as picture:
        picture.save(mixed / "Doe_Jane.png", pnginfo=note)
    pages = tifffile.imread(mixed / "pages.tif")
    tifffile.imwrite(mixed / "pages.tif", pages, photometric="minisblack", description="Doe")
    image = nibabel.load(mixed / "brain.nii.gz")
    image.header["descrip"] = b"Doe"
    nibabel.save(image, mixed / "brain.nii.gz")
    report = translate(Model(), mixed, tmp_path / "out", deidentify=True)
    names = sorted(p.relative_to(tmp_path / "out").as_posix() for p in report.outputs)
    assert names == [
        "IM_0002.png", "IM_0003.npy", "IM_0004.nii.gz", "IM_0005.tif",
        "SE_0001/IM_0001.dcm", "SE_0001/IM_0002.dcm", "SE_0001/IM_0003.dcm",
    ]  # fmt: skip
    for path in report.outputs:
        assert b"Doe" not in path.read_bytes()
        assert "Doe" not in str(path.relative_to(tmp_path))
    headers = [pydicom.dcmread(p) for p in report.outputs if p.suffix == ".dcm"]
    assert len({header.StudyInstanceUID for header in headers}) == 1
    assert (
        b"Doe"
        not in nibabel.load(next(p for p in report.outputs if p.name.endswith("gz")))
        .header["descrip"]
        .item()
    )
