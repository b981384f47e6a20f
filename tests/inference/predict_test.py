"""What `predict` does with a folder of files, good and bad."""

import resource
import shutil

import nibabel
import numpy as np
import PIL.Image
import PIL.PngImagePlugin
import pydicom
import pytest
from tensorflow.errors import ResourceExhaustedError

from dicom_files import bundled, series
from stand_in import Model, translate, with_peak
from zoo.imaging.files import find


def test_identity_over_every_format(tmp_path, mixed):
    report = translate(Model(), mixed, tmp_path / "out", batch_size=2)
    assert (report.done, len(report.outputs), report.skipped) == (5, 7, [])
    before, after = find(mixed).volumes, find(tmp_path / "out").volumes
    assert [v.name for v in before] == [v.name for v in after]
    for old, new in zip(before, after, strict=True):
        assert (old.length, old.shape, old.spacing) == (new.length, new.shape, new.spacing)
        for i in range(old.length):
            np.testing.assert_array_equal(old.read(i), new.read(i), old.name)
    assert not [p for p in (tmp_path / "out").rglob("*") if p.name.startswith(".")]


def test_one_bad_file_among_many_does_not_stop_the_run(tmp_path, mixed):
    (mixed / "broken.nii").write_bytes(b"nothing")
    PIL.Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(mixed / "colour.png")
    shutil.copy(bundled("rtstruct"), mixed)
    report = translate(Model(), mixed, tmp_path / "out")
    assert report.done == 5
    reasons = {problem.path.name: problem.reason for problem in report.skipped}
    assert sorted(reasons) == ["broken.nii", "colour.png"]
    assert "colour" in reasons["colour.png"]
    assert [problem.path.name for problem in report.ignored] == ["rtstruct.dcm"]


class Panic(BaseException):
    """What a decoder written in Rust raises."""


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MemoryError("no memory\nat all"), "no memory"),
        (KeyError("x"), "KeyError: 'x'"),
        (Panic("p"), "p"),
        (ResourceExhaustedError(None, None, "OOM when allocating\n\nhint"), "OOM when allocating"),
    ],
)
def test_whatever_one_volume_throws_the_others_go_on(tmp_path, mixed, error, told, monkeypatch):
    class Failing(Model):
        def translate(self, images, batch_size=1):
            if images.shape[1:3] == (12, 10):  # the PNG
                raise error
            return super().translate(images, batch_size)

    report = translate(Failing(), mixed, tmp_path / "out")
    (problem,) = report.skipped
    assert (problem.path.name, problem.reason) == ("grey.png", f"model: {told}")
    assert (report.done, report.series, report.slices) == (4, 1, 3 + 4 + 3 + 2)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.name.startswith(".")]
    assert not (tmp_path / "out/grey.png").exists()
    monkeypatch.setenv("ZOO_DEBUG", "1")
    with pytest.raises(ValueError, match="model: ") as raised:
        translate(Failing(), mixed, tmp_path / "debug")
    assert raised.value.__cause__ is error


def test_a_file_that_goes_away_is_reported(tmp_path, mixed):
    class Deleting(Model):
        def translate(self, images, batch_size=1):
            for path in mixed.glob("*.png"):
                path.unlink()
            (mixed / "ct/2.dcm").unlink(missing_ok=True)
            return super().translate(images, batch_size)

    report = translate(Deleting(), mixed, tmp_path / "out")
    skipped = [problem.path.name for problem in report.skipped]
    assert sorted(skipped) == ["2.dcm", "grey.png"]
    assert report.done == 4
    assert (tmp_path / "out/ct/1.dcm").exists()


def test_where_every_file_is_bad_each_is_named(tmp_path):
    for name in ("a.png", "b.nii.gz", "c.dcm"):
        (tmp_path / name).write_bytes(b"\0nothing")
    (tmp_path / "README").write_text("notes")
    report = translate(Model(), tmp_path, tmp_path / "out")
    assert [problem.path.name for problem in report.skipped] == ["a.png", "b.nii.gz", "c.dcm"]
    assert (report.done, len(report.ignored)) == (0, 1)
    assert not (tmp_path / "out").exists()


def test_nothing_to_translate(tmp_path):
    with pytest.raises(FileNotFoundError, match="input"):
        translate(Model(), tmp_path / "none", tmp_path / "out")
    (tmp_path / "in").mkdir()
    with pytest.raises(ValueError, match="input: expected image files"):
        translate(Model(), tmp_path / "in", tmp_path / "out")
    with pytest.raises(ValueError, match="batch_size"):
        translate(Model(), tmp_path / "in", tmp_path / "out", batch_size=0)


def test_output_inside_the_input_is_not_translated_again(tmp_path, mixed):
    for overwrite in (False, True):
        report = translate(Model(), mixed, mixed / "out", overwrite=overwrite)
        assert report.done == 5
    assert not (mixed / "out" / "out").exists()


def test_memory_does_not_grow_with_the_volume(tmp_path):
    def peak(count):
        data = np.zeros((128, 128, count), np.int16)
        nibabel.save(nibabel.Nifti1Image(data, np.eye(4)), tmp_path / f"{count}.nii.gz")
        del data
        source, target = (tmp_path / f"{name}{count}.nii.gz" for name in ("", "out"))
        return with_peak(lambda: translate(Model(), source, target))[1]

    peak(2)
    assert peak(64) < 1.2 * peak(8)


def test_without_room_on_the_disk_a_series_is_reported_and_what_fits_goes_on(tmp_path):
    series(tmp_path / "in/large", 3)
    header = pydicom.dcmread(bundled("CT_small"))
    header.SeriesInstanceUID = "1.2.99"
    header.save_as(tmp_path / "in/small.dcm")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # the three slices in float32 take twice as much
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        report = translate(Model(), tmp_path / "in", tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    (problem,) = report.skipped
    assert problem.path.parent.name == "large"
    assert problem.reason.startswith("output: ")
    assert problem.reason.endswith(" (a series of 3 files)")
    assert [path.name for path in report.outputs] == ["small.dcm"]
    assert [path.name for path in (tmp_path / "out").rglob("*.*")] == ["small.dcm"]
