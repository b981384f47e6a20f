"""Tests of zoo.inference.predict."""

import json
import os
import resource
import shutil

import nibabel
import numpy as np
import PIL.Image
import PIL.PngImagePlugin
import pydicom
import pytest
import skimage.io
import tifffile

from dicom_files import bundled, enhanced, series
from stand_in import Model, translate, with_peak
from zoo.domain import Domain
from zoo.imaging.dicom import write
from zoo.imaging.files import find, open_volume
from zoo.inference import generate


@pytest.fixture
def mixed(tmp_path):
    """A folder with one image of each kind."""
    folder = tmp_path / "in"
    series(folder / "ct", 3)
    rng = np.random.default_rng(0)
    volume = rng.integers(0, 900, (9, 8, 4)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([1, 2, 3, 1.0])), folder / "brain.nii.gz")
    pixels = rng.integers(10, 60_000, (12, 10)).astype(np.uint16)
    PIL.Image.fromarray(pixels).save(folder / "grey.png")
    pages = rng.integers(10, 90, (3, 7, 6)).astype(np.uint8)
    tifffile.imwrite(folder / "pages.tif", pages, photometric="minisblack")
    np.save(folder / "array.npy", rng.normal(size=(2, 5, 4)))
    return folder


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


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_neighbouring_slices_are_channels(tmp_path, batch_size):
    np.save(tmp_path / "a.npy", np.arange(1.0, 5)[:, None, None] * np.ones((4, 3, 3)))
    model = Model(slices=3)
    translate(model, tmp_path / "a.npy", tmp_path / "b.npy", batch_size=batch_size)
    centre = np.load(tmp_path / "b.npy")[:, 1, 1]
    assert centre.tolist() == [10102, 10203, 20304, 30404]
    assert model.shapes[0] == (min(batch_size, 4), 3, 3, 3)


def test_an_unreadable_slice_is_skipped_and_its_neighbour_stands_in(tmp_path):
    folder = series(tmp_path / "in", 4)
    content = (folder / "1.dcm").read_bytes()
    (folder / "1.dcm").write_bytes(content[:-9000])
    domain = Domain(modality="CT", unit="HU", window=(-1000, 1000))
    for slices in (1, 3):
        model = Model(slices=slices, source=domain, target=domain)
        out = tmp_path / f"out{slices}"
        report = translate(model, folder, out)
        assert [problem.path.name for problem in report.skipped] == ["1.dcm"]
        assert "cannot decode" in report.skipped[0].reason
        assert sorted(path.name for path in report.outputs) == ["0.dcm", "2.dcm", "3.dcm"]
        assert sorted(path.name for path in out.iterdir()) == ["0.dcm", "2.dcm", "3.dcm"]


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


@pytest.mark.parametrize("error", [MemoryError("no memory\nat all"), KeyError("x"), Panic("p")])
def test_whatever_one_volume_throws_the_others_go_on(tmp_path, mixed, error, monkeypatch):
    class Failing(Model):
        def translate(self, images, batch_size=1):
            if images.shape[1:3] == (12, 10):  # the PNG
                raise error
            return super().translate(images, batch_size)

    report = translate(Failing(), mixed, tmp_path / "out")
    (problem,) = report.skipped
    assert problem.path.name == "grey.png"
    assert problem.reason.startswith("model: ")
    assert "\n" not in problem.reason
    assert (report.done, report.series, report.slices) == (4, 1, 3 + 4 + 3 + 2)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.name.startswith(".")]
    assert not (tmp_path / "out/grey.png").exists()
    monkeypatch.setenv("ZOO_DEBUG", "1")
    with pytest.raises(ValueError, match="model: ") as raised:
        translate(Failing(), mixed, tmp_path / "debug")
    assert raised.value.__cause__ is error


def test_numbers_that_are_not_finite_are_refused_in_every_format(tmp_path, mixed):
    report = translate(Model(plus=np.nan), mixed, tmp_path / "out")
    reasons = {problem.reason.removesuffix(" (a series of 3 files)") for problem in report.skipped}
    assert reasons == {"model: expected finite numbers. Received: NaN or infinity"}
    assert (report.done, len(report.skipped)) == (0, 5)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_memory_that_tensorflow_does_not_have(tmp_path, mixed):
    import tensorflow as tf

    class Large(Model):
        def translate(self, images, batch_size=1):
            if images.shape[1:3] == (12, 10):
                raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating\n\nhint")
            return super().translate(images, batch_size)

    report = translate(Large(), mixed, tmp_path / "out")
    assert [problem.reason for problem in report.skipped] == ["model: OOM when allocating"]
    assert report.done == 4


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


def test_a_wrong_pixel_spacing_is_refused_before_memory_is_asked_for(tmp_path):
    (tmp_path / "in").mkdir()
    image = nibabel.Nifti1Image(np.zeros((64, 64, 3), np.int16), np.eye(4))
    nibabel.save(image, tmp_path / "in/good.nii")
    image = nibabel.Nifti1Image(np.zeros((64, 64, 3), np.int16), np.diag([150, 150, 1, 1]))
    nibabel.save(image, tmp_path / "in/large.nii")
    image = nibabel.Nifti1Image(np.zeros((64, 64, 3), np.int16), np.diag([1e-3, 1e-3, 1, 1]))
    nibabel.save(image, tmp_path / "in/small.nii")
    report = translate(Model(spacing=1.0), tmp_path / "in", tmp_path / "out")
    assert [path.name for path in report.outputs] == ["good.nii"]
    reasons = {problem.path.name: problem.reason for problem in report.skipped}
    assert reasons == {
        "large.nii": "spacing: expected up to 67108864 pixels at the model's 1 mm. "
        "Received: 9600 x 9600 of a file with 150 x 150 mm",
        "small.nii": "spacing: expected an image of two or more pixels at the model's 1 mm. "
        "Received: 1 x 1 of a file with 0.001 x 0.001 mm",
    }


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


def test_an_output_that_cannot_be_written_is_found_first(tmp_path, mixed):
    (tmp_path / "file").write_text("")
    model = Model()
    with pytest.raises(OSError, match="file"):
        translate(model, mixed, tmp_path / "file/out")
    assert model.shapes == []


def test_names_as_long_as_the_system_takes(tmp_path):
    dataset = pydicom.dcmread(bundled("MR_small"))
    dataset.NumberOfFrames = 3
    dataset.PixelData = dataset.PixelData * 3
    inputs = ("n" * 251 + ".dcm", "a.dcm", "1.2.840." + "1" * 20)
    for number, name in enumerate(inputs):
        dataset.SeriesInstanceUID = f"1.2.{number}"
        dataset.save_as(tmp_path / name)
    model = Model(
        source=Domain(modality="MR", unit="signal", window=(0, 800)),
        target=Domain(modality="CT", unit="HU", window=(-1000, 1000)),
    )
    report = translate(model, tmp_path, tmp_path / "out")
    assert report.skipped == []
    expected = {f"a-{k}.dcm" for k in (1, 2, 3)}
    expected |= {"1.2.840." + "1" * 20 + f"-{k}" for k in (1, 2, 3)}
    expected |= {"n" * 249 + f"-{k}.dcm" for k in (1, 2, 3)}
    assert {path.name for path in report.outputs} == expected


def test_a_name_is_given_once(tmp_path):
    dataset = pydicom.dcmread(bundled("MR_small"))
    dataset.SeriesInstanceUID = "1.2.1"
    dataset.save_as(tmp_path / "a-2.dcm")
    dataset.NumberOfFrames = 3
    dataset.PixelData = dataset.PixelData * 3
    dataset.SeriesInstanceUID = "1.2.2"
    dataset.save_as(tmp_path / "a.dcm")
    model = Model(
        source=Domain(modality="MR", unit="signal", window=(0, 800)),
        target=Domain(modality="CT", unit="HU", window=(-1000, 1000)),
    )
    report = translate(model, tmp_path, tmp_path / "out")
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


def test_series_numbers_are_new_and_in_range(tmp_path):
    numbers = [3, 1003, 2**31 - 1, None, "7\\8"]
    for index, number in enumerate(numbers):
        dataset = pydicom.dcmread(bundled("CT_small"))
        dataset.SeriesInstanceUID = f"1.2.{index}"
        with pydicom.config.disable_value_validation():
            dataset.SeriesNumber = number
        dataset.save_as(tmp_path / f"{index}.dcm")
    report = translate(Model(), tmp_path, tmp_path / "out")
    assert report.skipped == []
    found = [pydicom.dcmread(path).SeriesNumber for path in report.outputs]
    assert len({*found, 3, 1003, 2**31 - 1}) == 8
    assert found[0] == 1004
    assert all(0 < number < 2**31 for number in found)


TO_CT = Model(
    source=Domain(modality="MR", unit="signal", window=(0, 800)),
    target=Domain(modality="CT", unit="HU", window=(-1000, 1000)),
)


@pytest.mark.parametrize("model", [Model(), TO_CT])
def test_echoes_that_become_another_modality_are_series_of_their_own(tmp_path, model):
    for echo in (1, 2):
        for place in (0, 1, 2):
            dataset = pydicom.dcmread(bundled("MR_small"))
            dataset.EchoNumbers, dataset.InstanceNumber = echo, 2 * place + echo
            dataset.SOPInstanceUID = f"1.2.{echo}.{place}"
            dataset.ImagePositionPatient = [0, 0, place]
            dataset.save_as(tmp_path / f"{echo}-{place}.dcm")
    report = translate(model, tmp_path, tmp_path / "out")
    assert (report.done, report.series, report.slices) == (1, 1, 6)
    headers = [pydicom.dcmread(path) for path in report.outputs]
    places = {(h.SeriesInstanceUID, h.InstanceNumber, *h.ImagePositionPatient) for h in headers}
    assert len(places) == 6
    count = 2 if model is TO_CT else 1
    assert len({header.SeriesInstanceUID for header in headers}) == count
    assert len({header.SeriesNumber for header in headers}) == count


def test_frames_of_two_echoes_that_become_another_modality_are_two_series(tmp_path):
    path, _ = enhanced(tmp_path, frames=6)
    dataset = pydicom.dcmread(path)
    for number, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        group.PlanePositionSequence[0].ImagePositionPatient = [0, 0, number // 2]
        echo = pydicom.Dataset()
        echo.EffectiveEchoTime = 10.0 + number % 2
        group.MREchoSequence = [echo]
    dataset.Modality = "MR"
    dataset.save_as(path)
    report = translate(TO_CT, path, tmp_path / "out")
    headers = [pydicom.dcmread(path) for path in report.outputs]
    frames = {}
    for header in headers:
        number = header.SourceImageSequence[0].ReferencedFrameNumber
        frames.setdefault(header.SeriesInstanceUID, []).append((header.InstanceNumber, number))
    assert sorted(frames.values()) == [[(1, 1), (2, 3), (3, 5)], [(1, 2), (2, 4), (3, 6)]]


def test_patients_whose_series_have_one_uid_get_two(tmp_path):
    for patient in ("a", "b"):
        dataset = pydicom.dcmread(bundled("CT_small"))
        dataset.PatientID = patient
        dataset.save_as(tmp_path / f"{patient}.dcm")
    report = translate(Model(), tmp_path, tmp_path / "out")
    assert report.series == 2
    assert len({pydicom.dcmread(path).SeriesInstanceUID for path in report.outputs}) == 2


def test_neighbours_that_lie_apart_are_said(tmp_path):
    folder = series(tmp_path / "in", 5)
    (folder / "2.dcm").unlink()
    domain = Domain(modality="CT", unit="HU", window=(-1000, 1000))
    report = translate(Model(slices=3, source=domain, target=domain), folder, tmp_path / "a")
    text = "slices: expected equal distances from each to the next. Received: from 1 to 2 mm"
    assert [warning.reason for warning in report.warnings] == [text]
    header = pydicom.dcmread(report.outputs[0])
    assert f"Warning: {text}." in header.DerivationDescription
    assert translate(Model(), folder, tmp_path / "b").warnings == []


def test_slices_whose_neighbours_are_not_known_are_said(tmp_path):
    folder = series(tmp_path / "in", 4)
    for path in sorted(folder.iterdir())[1:3]:  # taken again, and nothing tells when
        dataset = pydicom.dcmread(path)
        dataset.SOPInstanceUID += ".9"
        dataset.save_as(path.with_stem(f"again{path.stem}"))
    report = translate(Model(slices=3), folder, tmp_path / "out")
    assert (report.series, report.slices) == (1, 6)
    assert len(report.warnings) == 6
    assert "neighbours are not known" in report.warnings[0].reason
    assert "neighbours" in pydicom.dcmread(report.outputs[0]).DerivationDescription
    assert not translate(Model(), folder, tmp_path / "out2").warnings


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


def test_an_image_of_another_modality_is_refused(tmp_path):
    model = Model(source=Domain(modality="CT", unit="HU", window=(-1000, 1000)))
    report = translate(model, bundled("MR_small"), tmp_path / "out")
    assert report.done == 0
    assert report.skipped[0].reason == "modality: the model takes CT images. Received: MR"
    assert not list((tmp_path / "out").glob("*"))


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


def test_resampling_returns_to_the_original_grid(tmp_path):
    y, x = np.mgrid[:41, :60]
    image = (np.sin(y / 7) + np.cos(x / 9)).astype(np.float32)[:, :, None] * np.ones(2, "f4")
    nibabel.save(nibabel.Nifti1Image(image, np.diag([2.0, 1.5, 5, 1])), tmp_path / "a.nii")
    model = Model(spacing=1.0, plus=3.0)
    translate(model, tmp_path / "a.nii", tmp_path / "b.nii")
    assert model.shapes[0] == (1, 82, 90, 1)
    result = nibabel.load(tmp_path / "b.nii")
    assert result.shape == image.shape
    np.testing.assert_array_equal(result.affine, np.diag([2.0, 1.5, 5, 1]))
    # a half pixel of misplacement would be an error of 0.07
    inside = (slice(1, -1), slice(1, -1))
    np.testing.assert_allclose(result.get_fdata()[inside] - 3, image[inside], atol=0.01)


def test_output_is_never_an_input(tmp_path, mixed):
    content = {path: path.read_bytes() for path in mixed.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match="another folder than the input"):
        translate(Model(), mixed, mixed, overwrite=True)
    with pytest.raises(ValueError, match="would replace an input"):
        translate(Model(), mixed / "grey.png", mixed, overwrite=True)
    with pytest.raises(ValueError, match="would replace an input"):
        translate(Model(), mixed / "grey.png", mixed / "grey.png", overwrite=True)
    assert content == {path: path.read_bytes() for path in content}


def test_output_inside_the_input_is_not_translated_again(tmp_path, mixed):
    for overwrite in (False, True):
        report = translate(Model(), mixed, mixed / "out", overwrite=overwrite)
        assert report.done == 5
    assert not (mixed / "out" / "out").exists()


def test_existing_files_are_kept(tmp_path, mixed):
    translate(Model(), mixed, tmp_path / "out")
    with pytest.raises(FileExistsError, match="overwrite"):
        translate(Model(plus=1), mixed, tmp_path / "out")
    translate(Model(plus=1.0), mixed, tmp_path / "out", overwrite=True)
    assert np.load(tmp_path / "out/array.npy").mean() > 0.5


def test_single_file_to_file(tmp_path, mixed):
    report = translate(Model(), mixed / "brain.nii.gz", tmp_path / "new.nii.gz")
    assert report.outputs == [tmp_path / "new.nii.gz"]
    dicom = translate(Model(), mixed / "ct/0.dcm", tmp_path / "slice.ima")
    assert dicom.outputs == [tmp_path / "slice.ima"]
    with pytest.raises(ValueError, match=r"expected a DICOM file, as the input"):
        translate(Model(), mixed / "ct/0.dcm", tmp_path / "slice.png")
    with pytest.raises(ValueError, match=r"expected a .nii.gz file, as the input"):
        translate(Model(), mixed / "brain.nii.gz", tmp_path / "new.png")


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


def test_deidentified_frames_of_another_modality(tmp_path):
    path, _ = enhanced(tmp_path)
    dataset = pydicom.dcmread(path)
    dataset.PatientName, dataset.StudyDescription = "Doe^Jane", "of Doe"
    dataset.ProtocolName = "for Doe"
    dataset.save_as(path)
    model = Model(
        source=Domain(modality="CT", unit="HU", window=(-1000, 1000)),
        target=Domain(modality="MR", unit="signal", window=(0, 800)),
    )
    report = translate(model, path, tmp_path / "out", deidentify=True)
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


def test_memory_does_not_grow_with_the_volume(tmp_path):
    def peak(count):
        data = np.zeros((128, 128, count), np.int16)
        nibabel.save(nibabel.Nifti1Image(data, np.eye(4)), tmp_path / f"{count}.nii.gz")
        del data
        source, target = (tmp_path / f"{name}{count}.nii.gz" for name in ("", "out"))
        return with_peak(lambda: translate(Model(), source, target))[1]

    peak(2)
    assert peak(64) < 1.2 * peak(8)


def test_where_every_file_is_bad_each_is_named(tmp_path):
    for name in ("a.png", "b.nii.gz", "c.dcm"):
        (tmp_path / name).write_bytes(b"\0nothing")
    (tmp_path / "README").write_text("notes")
    report = translate(Model(), tmp_path, tmp_path / "out")
    assert [problem.path.name for problem in report.skipped] == ["a.png", "b.nii.gz", "c.dcm"]
    assert (report.done, len(report.ignored)) == (0, 1)
    assert not (tmp_path / "out").exists()


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


def test_nothing_to_translate(tmp_path):
    with pytest.raises(FileNotFoundError, match="input"):
        translate(Model(), tmp_path / "none", tmp_path / "out")
    (tmp_path / "in").mkdir()
    with pytest.raises(ValueError, match="input: expected image files"):
        translate(Model(), tmp_path / "in", tmp_path / "out")
    with pytest.raises(ValueError, match="batch_size"):
        translate(Model(), tmp_path / "in", tmp_path / "out", batch_size=0)


def test_generated_images(tmp_path):
    model = Model(target=Domain(modality="CT", unit="HU", window=(-1000, 400)))
    paths = generate.generate(model, 5, tmp_path / "png", seed=3, batch_size=2)
    assert [path.name for path in paths[:2]] == ["image_00001.png", "image_00002.png"]
    assert len(list((tmp_path / "png").iterdir())) == len(paths) == 7
    arrays = generate.generate(model, 5, tmp_path / "npy", seed=3, batch_size=2, format="npy")
    note = json.loads((tmp_path / "png/images.json").read_text())
    assert (note["unit"], note["window"], note["seed"]) == ("HU", [-1000, 400], 3)
    assert (note["weights_sha256"], note["precision"]) == (model.weights_hash, "float32")
    images = []
    for png, npy in zip(paths[:5], arrays[:5], strict=True):
        levels = skimage.io.imread(png)
        assert levels.dtype == np.uint16
        images.append(np.load(npy)[..., 0])
        np.testing.assert_allclose(-1000 + levels / 65535 * 1400, images[-1], atol=0.011)
    assert len({image.tobytes() for image in images}) == 5
    assert skimage.io.imread(tmp_path / "png/contact_sheet.png").shape == (12, 15)
    with pytest.raises(FileExistsError):
        generate.generate(model, 1, tmp_path / "png")
    again = generate.generate(model, 5, tmp_path / "png", seed=3, batch_size=3, overwrite=True)
    assert [p.read_bytes() for p in again] == [p.read_bytes() for p in paths]


@pytest.mark.parametrize("change", [{"n": 0}, {"format": "jpg"}, {"batch_size": 0}])
def test_generate_refuses_bad_arguments(tmp_path, change):
    arguments = {"n": 1, "output": tmp_path / "out"} | change
    with pytest.raises(ValueError, match="Received"):
        generate.generate(Model(), **arguments)
    assert not (tmp_path / "out").exists()


def test_whole_multi_frame_goes_to_one_file(tmp_path):
    dataset = pydicom.dcmread(bundled("MR_small"))
    dataset.NumberOfFrames = 3
    dataset.PixelData = dataset.PixelData * 3
    dataset.save_as(tmp_path / "frames.dcm")
    report = translate(Model(plus=2.0), tmp_path / "frames.dcm", tmp_path / "out")
    assert len(report.outputs) == 1
    result = open_volume(report.outputs[0])
    assert result.length == 3
    np.testing.assert_array_equal(result.read(2), open_volume(bundled("MR_small")).read(0) + 2)
