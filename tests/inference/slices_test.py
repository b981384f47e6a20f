"""How slices go through a model."""

import threading

import nibabel
import numpy as np
import pytest

from dicom_files import series
from stand_in import CT, Model, translate
from zoo.imaging.files import find
from zoo.imaging.geometry import Grid
from zoo.inference import slices


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_neighbouring_slices_are_channels(tmp_path, batch_size):
    np.save(tmp_path / "a.npy", np.arange(1.0, 5)[:, None, None] * np.ones((4, 3, 3)))
    model = Model(slices=3)
    translate(model, tmp_path / "a.npy", tmp_path / "b.npy", batch_size=batch_size)
    centre = np.load(tmp_path / "b.npy")[:, 1, 1]
    assert centre.tolist() == [10102, 10203, 20304, 30404]
    assert model.shapes[0] == (min(batch_size, 4), 3, 3, 3)


def test_the_next_slice_is_read_and_translated_while_one_is_written(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", np.arange(6.0)[:, None, None] * np.ones((6, 3, 3)))
    (volume,) = find(tmp_path).volumes
    read, made = ([threading.Event() for _ in range(6)] for _ in "rm")
    calm = type(volume).read

    def reading(self, index):
        read[index].set()
        return calm(self, index)

    class Waiting(Model):
        def translate(self, images, batch_size=1):
            number = int(images.flat[0])
            assert all(event.wait(60) for event in read[: number + 2])
            made[number].set()
            return super().translate(images, batch_size)

    monkeypatch.setattr(type(volume), "read", reading)
    grid, done = Grid(scale=1, depth=1), lambda: None
    for index, _ in slices.one_by_one(Waiting(), volume, grid, 1, lambda *_: None, done):
        assert all(event.wait(60) for event in made[: index + 2])


def test_an_unreadable_slice_is_skipped_and_its_neighbour_stands_in(tmp_path):
    folder = series(tmp_path / "in", 4)
    content = (folder / "1.dcm").read_bytes()
    (folder / "1.dcm").write_bytes(content[:-9000])
    for count in (1, 3):
        model = Model(slices=count, source=CT, target=CT)
        out = tmp_path / f"out{count}"
        report = translate(model, folder, out)
        assert [problem.path.name for problem in report.skipped] == ["1.dcm"]
        assert "cannot decode" in report.skipped[0].reason
        assert sorted(path.name for path in report.outputs) == ["0.dcm", "2.dcm", "3.dcm"]
        assert sorted(path.name for path in out.iterdir()) == ["0.dcm", "2.dcm", "3.dcm"]


def test_numbers_that_are_not_finite_are_refused_in_every_format(tmp_path, mixed):
    report = translate(Model(plus=np.nan), mixed, tmp_path / "out")
    reasons = {problem.reason.removesuffix(" (a series of 3 files)") for problem in report.skipped}
    assert reasons == {"model: expected finite numbers. Received: NaN or infinity"}
    assert (report.done, len(report.skipped)) == (0, 5)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


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
