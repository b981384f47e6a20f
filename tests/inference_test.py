"""Tests of zoo.inference."""

import json
import shutil

import nibabel
import numpy as np
import PIL.Image
import pydicom
import pytest
import skimage.io
import tifffile

from dicom_files import bundled, series
from stand_in import Model
from zoo import inference
from zoo.imaging.files import find, open_volume
from zoo.imaging.windows import Domain


def translate(model, source, target, **options):
    return inference.translate(model, source, target, progress=False, **options)


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
    with pytest.raises(ValueError, match=r"expected a .nii.gz file, as the input"):
        translate(Model(), mixed / "brain.nii.gz", tmp_path / "new.png")


def test_deidentified_names_and_headers(tmp_path, mixed):
    (mixed / "grey.png").rename(mixed / "Doe_Jane.png")
    (mixed / "ct").rename(mixed / "Doe")
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


def test_memory_does_not_grow_with_the_volume(tmp_path):
    import tracemalloc

    def peak(count):
        data = np.zeros((128, 128, count), np.int16)
        nibabel.save(nibabel.Nifti1Image(data, np.eye(4)), tmp_path / f"{count}.nii.gz")
        del data
        tracemalloc.start()
        translate(Model(), tmp_path / f"{count}.nii.gz", tmp_path / f"out{count}.nii.gz")
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result

    peak(2)
    assert peak(64) < 1.2 * peak(8)


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
    paths = inference.generate(model, 5, tmp_path / "png", seed=3, batch_size=2)
    assert [path.name for path in paths[:2]] == ["image_00001.png", "image_00002.png"]
    assert len(list((tmp_path / "png").iterdir())) == len(paths) == 7
    arrays = inference.generate(model, 5, tmp_path / "npy", seed=3, batch_size=2, format="npy")
    note = json.loads((tmp_path / "png/images.json").read_text())
    assert (note["unit"], note["window"], note["seed"]) == ("HU", [-1000, 400], 3)
    assert note["weights_sha256"] == model.weights_hash
    images = []
    for png, npy in zip(paths[:5], arrays[:5], strict=True):
        levels = skimage.io.imread(png)
        assert levels.dtype == np.uint16
        images.append(np.load(npy)[..., 0])
        np.testing.assert_allclose(-1000 + levels / 65535 * 1400, images[-1], atol=0.011)
    assert len({image.tobytes() for image in images}) == 5
    assert skimage.io.imread(tmp_path / "png/contact_sheet.png").shape == (12, 15)
    with pytest.raises(FileExistsError):
        inference.generate(model, 1, tmp_path / "png")
    again = inference.generate(model, 5, tmp_path / "png", seed=3, batch_size=3, overwrite=True)
    assert [p.read_bytes() for p in again] == [p.read_bytes() for p in paths]


@pytest.mark.parametrize("change", [{"n": 0}, {"format": "jpg"}, {"batch_size": 0}])
def test_generate_refuses_bad_arguments(tmp_path, change):
    arguments = {"n": 1, "output": tmp_path / "out"} | change
    with pytest.raises(ValueError, match="Received"):
        inference.generate(Model(), **arguments)
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
