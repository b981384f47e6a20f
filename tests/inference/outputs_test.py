"""How translations are written."""

import os

import nibabel
import numpy as np
import PIL.Image
import PIL.PngImagePlugin
import pydicom
import pytest
import skimage.io
import tifffile

from dicom_files import bundled, enhanced, frames, series
from stand_in import CT, MR, Model, translate
from zoo.imaging.dicom import write
from zoo.imaging.files import open_volume


def test_values_are_rounded_and_saturated_never_wrapped(tmp_path, mixed):
    translate(Model(plus=-40.4), mixed, tmp_path / "low")
    translate(Model(plus=60_000.0), mixed, tmp_path / "high")
    old = tifffile.imread(mixed / "pages.tif").astype(float)
    low = tifffile.imread(tmp_path / "low/pages.tif")
    assert low.dtype == np.uint8
    np.testing.assert_array_equal(low, np.clip(np.rint(old - 40.4), 0, 255))
    assert (tifffile.imread(tmp_path / "high/pages.tif") == 255).all()
    old = skimage.io.imread(mixed / "grey.png").astype(float)
    high = skimage.io.imread(tmp_path / "high/grey.png")
    np.testing.assert_array_equal(high, np.clip(old + 60_000, 0, 65_535))


def test_every_output_says_where_it_is_from(tmp_path, mixed):
    model = Model(precision="bfloat16")
    report = translate(model, mixed, tmp_path / "out", description="for a test")
    texts = {
        ".dcm": lambda path: pydicom.dcmread(path).DerivationDescription,
        ".gz": lambda path: nibabel.load(path).header["descrip"].item().decode(),
        ".png": lambda path: PIL.Image.open(path).info["Description"],
        ".tif": lambda path: tifffile.TiffFile(path).pages[0].description,
    }
    seen = set()
    for path in report.outputs:
        if path.suffix in texts:
            text = texts[path.suffix](path)
            for part in ("stand-in", "cd" * 8, "bfloat16", "for a test"):
                assert part in text, path.name
            seen.add(path.suffix)
    assert seen == set(texts)


def test_whole_multi_frame_goes_to_one_file(tmp_path):
    report = translate(Model(plus=2.0), frames(tmp_path / "frames.dcm"), tmp_path / "out")
    assert len(report.outputs) == 1
    result = open_volume(report.outputs[0])
    assert result.length == 3
    np.testing.assert_array_equal(result.read(2), open_volume(bundled("MR_small")).read(0) + 2)


def test_a_series_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    series(tmp_path / "in", 4)
    monkeypatch.setattr(write, "_save", interrupted_after(2, write._save))
    with pytest.raises(KeyboardInterrupt):
        translate(Model(), tmp_path / "in", tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def interrupted_after(count, function):
    calls = iter(range(count))

    def changed(*arguments):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return function(*arguments)

    return changed


def test_a_failing_model_leaves_no_half_written_file(tmp_path, mixed):
    class Broken(Model):
        def translate(self, images, batch_size=1):
            if self.shapes:
                raise KeyboardInterrupt
            return super().translate(images, batch_size)

    for name in ("brain.nii.gz", "pages.tif", "ct", "array.npy"):
        with pytest.raises(KeyboardInterrupt):
            translate(Broken(), mixed / name, tmp_path / "out")
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_a_pair_of_files_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    data = np.zeros((8, 8, 3), np.int16)
    nibabel.save(nibabel.Nifti1Pair(data, np.eye(4)), tmp_path / "a.hdr")
    report = translate(Model(), tmp_path / "a.hdr", tmp_path / "out/b.hdr")
    assert {path.name for path in report.outputs} == {"b.hdr", "b.img"}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["b.hdr", "b.img"]
    replace, calls = os.replace, []

    def full(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    report = translate(Model(), tmp_path / "a.hdr", tmp_path / "c")
    assert len(report.skipped) == 1
    assert not list((tmp_path / "c").iterdir())


def test_a_header_that_cannot_be_written_costs_its_slice(tmp_path, monkeypatch):
    folder = series(tmp_path / "in", 3)
    header = pydicom.dcmread(folder / "1.dcm")
    header.add_new("ContributingEquipmentSequence", "LO", "text")
    header.save_as(folder / "1.dcm")
    report = translate(Model(), folder, tmp_path / "out")
    assert [problem.path.name for problem in report.skipped] == ["1.dcm"]
    assert report.skipped[0].reason == (
        "ContributingEquipmentSequence: expected a sequence. Received: an element of VR LO"
    )
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.dcm", "2.dcm"]
    assert (report.done, report.slices) == (1, 2)
    monkeypatch.setenv("ZOO_DEBUG", "1")
    with pytest.raises(ValueError, match="ContributingEquipmentSequence"):
        translate(Model(), folder, tmp_path / "debug")


def test_deidentified_frames_of_another_modality(tmp_path):
    path, _ = enhanced(tmp_path)
    dataset = pydicom.dcmread(path)
    dataset.PatientName, dataset.StudyDescription = "Doe^Jane", "of Doe"
    dataset.ProtocolName = "for Doe"
    dataset.save_as(path)
    report = translate(Model(source=CT, target=MR), path, tmp_path / "out", deidentify=True)
    names = [p.relative_to(tmp_path / "out").as_posix() for p in report.outputs]
    assert names == [f"SE_0001/IM_000{k}.dcm" for k in (1, 2, 3)]
    headers = [pydicom.dcmread(p) for p in report.outputs]
    for output, header in zip(report.outputs, headers, strict=True):
        assert b"Doe" not in output.read_bytes()
        assert (header.Modality, header.PatientID) == ("MR", "ANON0001")
    assert len({header.StudyInstanceUID for header in headers}) == 1
    # frames lie from top to bottom, and refer to the one file with its new UID
    sources = [header.SourceImageSequence[0] for header in headers]
    assert [source.ReferencedFrameNumber for source in sources] == [3, 2, 1]
    uids = {source.ReferencedSOPInstanceUID for source in sources}
    assert len(uids) == 1
    assert dataset.SOPInstanceUID not in uids
