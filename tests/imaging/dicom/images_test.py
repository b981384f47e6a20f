"""zoo.imaging.dicom.images: which objects are images that can be read."""

import shutil

import pydicom
import pytest

from dicom_files import bundled, item, single
from stand_in import Model, translate, with_peak
from zoo.imaging.files import find, open_volume

STORAGE = "1.2.840.10008.5.1.4.1.1"


@pytest.mark.parametrize(
    "change",
    [
        {"SOPClassUID": f"{STORAGE}.66.7"},  # Label Map Segmentation
        {"SOPClassUID": f"{STORAGE}.66.99"},
        {"SOPClassUID": f"{STORAGE}.30"},
        {"SOPClassUID": f"{STORAGE}.481.2"},
        {"SOPClassUID": f"{STORAGE}.11.99"},
        {"SOPClassUID": f"{STORAGE}.9.1.1"},
        {"SegmentationType": "LABELMAP"},
        {"SegmentSequence": [item(SegmentNumber=1)]},
        {"DoseGridScaling": 0.001},
    ],
)
def test_what_is_no_image_is_harmless(tmp_path, change):
    single(tmp_path, **change)
    found = find(tmp_path)
    assert not found.volumes
    assert found.problems[0].harmless


@pytest.mark.parametrize("uid", [f"{STORAGE}.481.1", f"{STORAGE}.2", f"{STORAGE}.999"])
def test_images_of_radiotherapy_and_of_new_classes_are_images(tmp_path, uid):
    assert open_volume(single(tmp_path, SOPClassUID=uid)).shape == (128, 128)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_header_that_asks_for_gigabytes_asks_in_vain(tmp_path, compressed):
    dataset = pydicom.dcmread(bundled("MR_small_RLE" if compressed else "MR_small"))
    dataset.Rows = dataset.Columns = 65_535
    dataset.save_as(tmp_path / "bad.dcm")
    found, peak = with_peak(lambda: find(tmp_path))
    assert not found.volumes
    assert "bytes can hold" in found.problems[0].reason
    assert peak < 20e6


def test_a_volume_side_by_side_in_one_image_is_refused(tmp_path):
    kind = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
    single(tmp_path, "mosaic.dcm", Modality="MR", ImageType=kind)
    single(tmp_path, "slice.dcm")
    report = translate(Model(), tmp_path, tmp_path / "out")
    assert report.done == 1
    ((path, reason),) = report.skipped
    assert (path.name, "ImageType" in reason) == ("mosaic.dcm", True)


def test_files_that_hold_no_usable_image(tmp_path):
    for name in ("rtstruct", "test-SR", "rtdose", "SC_rgb_rle", "examples_palette"):
        shutil.copy(bundled(name), tmp_path)
    shutil.copy(bundled("CT_small"), tmp_path)
    single(tmp_path, "slope.dcm", RescaleSlope=0)
    single(tmp_path, "rows.dcm", Rows=None)
    (tmp_path / "nothing").write_bytes(b"")
    (tmp_path / "garbage.dcm").write_bytes(b"\x08\x00" + bytes(range(256)) * 9)
    (tmp_path / "text.dcm").write_text("not an image\n" * 50)
    found = find(tmp_path)
    assert [volume.name for volume in found.volumes] == ["CT_small.dcm"]
    reasons = {problem.path.name: problem.reason for problem in found.problems}
    assert reasons["rtstruct.dcm"] == "not an image (RT Structure Set Storage)"
    assert "not an image" in reasons["test-SR.dcm"]
    assert "not an image" in reasons["rtdose.dcm"]
    assert "colour" in reasons["SC_rgb_rle.dcm"]
    assert "PALETTE" in reasons["examples_palette.dcm"]
    assert "RescaleSlope" in reasons["slope.dcm"]
    assert {"garbage.dcm", "text.dcm"} <= set(reasons)
    harmless = {problem.path.name for problem in found.problems if problem.harmless}
    assert harmless == {"rtstruct.dcm", "test-SR.dcm", "rtdose.dcm"}
    assert reasons["nothing"] == "not a DICOM file"
