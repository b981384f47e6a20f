"""Volumes that go through a network a few slices at a time, from file to file."""

import nibabel
import numpy as np
import pytest
import skimage.transform
from hypothesis import given, settings
from hypothesis import strategies as st

import zoo
from stand_in import Model, translate, with_peak
from zoo.domain import Domain
from zoo.imaging.files import open_volume
from zoo.imaging.geometry import Grid
from zoo.imaging.resampling import Regridded

HU = Domain(modality="CT", unit="HU", window=(-1000.0, 1000.0))


def save(path, shape, steps=(1.0, 1.0, 1.0), dtype=np.float32):
    """A NIfTI volume of random values, its axes columns, rows, slices."""
    values = np.random.default_rng(0).uniform(-500, 500, shape).astype(dtype)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([*steps, 1.0])), path)
    return open_volume(path)


@settings(max_examples=12, deadline=None)
@given(
    depth=st.integers(4, 14),
    steps=st.tuples(*[st.sampled_from([0.7, 1.0, 2.5])] * 3),
    scale=st.integers(1, 2),
    nearest=st.booleans(),
    slab=st.integers(1, 5),
)
def test_slab_by_slab_is_resampled_as_the_whole(
    tmp_path_factory, depth, steps, scale, nearest, slab
):
    volume = save(tmp_path_factory.mktemp("volume") / "a.nii", (9, 12, depth), steps)
    grid = Grid(scale=scale, depth=scale)
    regridded = Regridded(volume, volume.read, 1.0, grid, nearest=nearest)
    stacked = np.stack([volume.read(i) for i in range(volume.length)])
    sides = (volume.slice_spacing, *volume.spacing)
    shape = tuple(round(n * step) for n, step in zip(stacked.shape, sides, strict=True))
    assert regridded.shape == shape

    def resized(image, wanted, order=1):
        return skimage.transform.resize(
            image, wanted, order, "edge", anti_aliasing=order == 1, preserve_range=True
        )

    starts = range(0, shape[0], slab)
    parts = [regridded.read(i, min(i + slab, shape[0])) for i in starts]
    np.testing.assert_allclose(np.concatenate(parts), resized(stacked, shape), atol=0.05)
    made = np.random.default_rng(1).normal(size=[side * scale for side in shape])
    made = made.astype(np.float32)
    finer = tuple(side * scale for side in stacked.shape)
    expected = resized(made, finer, 0 if nearest else 1)
    if shape == stacked.shape:
        expected = made
    back = np.stack(list(regridded.back(iter(made))))
    np.testing.assert_allclose(back, expected, atol=1e-4)


def _network(**fields):
    recipe = {"dimensions": 3, "base_filters": 2, "levels": 2, "precision": "float32"}
    recipe |= {"output": "residual"}
    model = zoo.load("encoder_decoder", source=HU, target=HU, **recipe | fields)
    rng = np.random.default_rng(0)
    for weight in model.network.variables:
        weight.assign(weight + 0.1 * rng.standard_normal(weight.shape))
    return model


@pytest.mark.parametrize("spacing", [0.0, 1.0])
def test_a_file_is_translated_as_its_whole_volume(tmp_path, spacing):
    """Written slice by slice, from tiles that equal the whole, resampled or not."""
    volume = save(tmp_path / "a.nii.gz", (40, 44, 60), (0.9, 0.9, 1.5))
    model = _network(tile=(72, 512, 512), spacing=spacing)
    translate(model, tmp_path / "a.nii.gz", tmp_path / "b.nii.gz")
    stacked = np.stack([volume.read(i) for i in range(volume.length)])
    regridded = Regridded(volume, volume.read, spacing, Grid())
    whole = _network(spacing=spacing).translate(regridded.read(0, regridded.shape[0]))
    expected = np.stack(list(regridded.back(iter(whole))))
    result = open_volume(tmp_path / "b.nii.gz")
    written = np.stack([result.read(i) for i in range(result.length)])
    assert written.shape == stacked.shape
    np.testing.assert_allclose(written, expected, atol=0.05)


def test_memory_does_not_grow_with_the_slices(tmp_path):
    """NumPy's; the network's own is that of one tile."""
    model = _network(tile=(16, 64, 64))

    def peak(count):
        path = tmp_path / f"{count}.nii.gz"
        save(path, (64, 64, count), (1.0, 1.0, 1.0), np.int16)
        return with_peak(lambda: translate(model, path, tmp_path / f"out{count}.nii.gz"))[1]

    peak(20)  # traced
    assert peak(120) < 1.2 * peak(60)


def test_a_volume_whose_slices_cannot_all_be_read_leaves_no_file(tmp_path, monkeypatch):
    save(tmp_path / "a.nii", (16, 16, 40))
    volume = type(open_volume(tmp_path / "a.nii"))
    read = volume.read

    def broken(self, index):
        if index == 35:
            raise ValueError("cannot decode")
        return read(self, index)

    monkeypatch.setattr(volume, "read", broken)
    report = translate(_network(tile=(8, 16, 16)), tmp_path / "a.nii", tmp_path / "b.nii")
    (problem,) = report.skipped
    assert problem.reason.startswith("slices: expected a volume without gaps. Received: a.nii")
    assert not (tmp_path / "b.nii").exists()


def test_a_model_of_somebodys_own_gets_the_whole_volume(tmp_path):
    save(tmp_path / "a.nii", (6, 5, 4))
    model = Model(dimensions=3)
    translate(model, tmp_path / "a.nii", tmp_path / "b.nii")
    assert model.shapes == [(1, 4, 6, 5, 1)]
