"""Tests of zoo.imaging.raster and zoo.imaging.files."""

import numpy as np
import PIL.Image
import pytest
import skimage.io
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from zoo.imaging import raster
from zoo.imaging.files import find, open_volume


def copy(volume, path):
    raster.write(volume, path, ((i, volume.read(i)) for i in range(volume.length)))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png_round_trip_keeps_bit_depth(tmp_path, dtype):
    high = np.iinfo(dtype).max
    image = np.random.default_rng(0).integers(0, high, (11, 7), dtype, endpoint=True)
    PIL.Image.fromarray(image).save(tmp_path / "a.png")
    volume = open_volume(tmp_path / "a.png")
    assert (volume.length, volume.shape, volume.channels, volume.unit) == (1, (11, 7), 1, "1")
    assert volume.read(0).dtype == np.float32
    np.testing.assert_array_equal(volume.read(0), image)
    copy(volume, tmp_path / "b.png")
    result = skimage.io.imread(tmp_path / "b.png")
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, image)


def test_rgb_png_round_trip(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (5, 6, 3), np.uint8)
    PIL.Image.fromarray(image).save(tmp_path / "a.png")
    volume = open_volume(tmp_path / "a.png")
    assert volume.channels == 3
    copy(volume, tmp_path / "b.png")
    np.testing.assert_array_equal(skimage.io.imread(tmp_path / "b.png"), image)
    with pytest.raises(ValueError, match="slices need one-channel images"):
        volume.stack(0, 3)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_tiff_pages_are_slices(tmp_path, dtype):
    pages = np.random.default_rng(0).integers(0, 120, (4, 6, 5)).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", pages, photometric="minisblack")
    volume = open_volume(tmp_path / "a.tif")
    assert (volume.length, volume.shape) == (4, (6, 5))
    np.testing.assert_array_equal(volume.read(2), pages[2])
    copy(volume, tmp_path / "b.tif")
    result = tifffile.imread(tmp_path / "b.tif")
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, pages)


@pytest.mark.parametrize("shape", [(6, 5), (3, 6, 5), (1, 6, 5)])
def test_npy_round_trip_is_float32_of_the_same_shape(tmp_path, shape):
    array = np.random.default_rng(0).normal(size=shape)
    np.save(tmp_path / "a.npy", array)
    volume = open_volume(tmp_path / "a.npy")
    assert volume.length == (shape[0] if len(shape) == 3 else 1)
    copy(volume, tmp_path / "b.npy")
    result = np.load(tmp_path / "b.npy")
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, array.astype(np.float32))


@given(st.lists(st.floats(-1e9, 1e9, width=32), min_size=1), st.sampled_from(["u1", "u2", "i2"]))
def test_saturate_rounds_and_never_wraps(values, dtype):
    limits = np.iinfo(dtype)
    result = raster.saturate(np.array(values, np.float32), dtype)
    assert result.dtype == dtype
    for value, stored in zip(values, result.tolist(), strict=True):
        assert abs(min(max(value, limits.min), limits.max) - stored) <= 0.5


def test_tiff_with_slices_outside_its_pages_is_refused(tmp_path):
    data = np.zeros((5, 8, 9), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", data, photometric="minisblack", imagej=True)
    assert open_volume(tmp_path / "a.tif").length == 5
    # ImageJ writes stacks above 4 GiB as one page, with the other slices behind it
    content = "ImageJ=1.53\nimages=5\nslices=5\n"
    with tifffile.TiffWriter(tmp_path / "b.tif") as file:
        file.write(data[0], photometric="minisblack", description=content, metadata=None)
    with open(tmp_path / "b.tif", "ab") as file:
        file.write(data[1:].tobytes())
    with pytest.raises(ValueError, match="slices without pages"):
        open_volume(tmp_path / "b.tif")


def test_stack_repeats_the_ends(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(4.0)[:, None, None] * np.ones((4, 2, 2)))
    volume = open_volume(tmp_path / "a.npy")
    assert volume.stack(0, 5)[0, 0].tolist() == [0, 0, 0, 1, 2]
    assert volume.stack(2, 3)[0, 0].tolist() == [1, 2, 3]
    assert volume.stack(3, 1).shape == (2, 2, 1)
    with pytest.raises(ValueError, match="odd number. Received: 2"):
        volume.stack(0, 2)


def test_find_lists_volumes_by_name_and_tells_problems(tmp_path):
    (tmp_path / "sub" / "deeper").mkdir(parents=True)
    (tmp_path / ".hidden").mkdir()
    for name in ("b.png", "sub/a.PNG", "sub/deeper/c.png", ".hidden/d.png"):
        PIL.Image.fromarray(np.zeros((3, 3), np.uint8)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "odd.xyz").write_text("hello")
    (tmp_path / "cut.png").write_bytes((tmp_path / "b.png").read_bytes()[:-25])
    (tmp_path / "empty.dcm").write_bytes(b"")
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "four.npy", np.zeros((2, 2, 2, 2)))
    PIL.Image.fromarray(np.zeros((3, 3, 4), np.uint8)).save(tmp_path / "alpha.png")
    tifffile.imwrite(tmp_path / "mixed.tif", np.zeros((4, 4), np.uint8))
    tifffile.imwrite(tmp_path / "mixed.tif", np.zeros((5, 4), np.uint8), append=True)
    found = find(tmp_path)
    assert [v.name for v in found.volumes] == ["b.png", "sub/a.PNG", "sub/deeper/c.png"]
    reasons = {p.path.name: p.reason for p in found.problems if not p.harmless}
    assert sorted(reasons) == [
        "alpha.png", "cut.png", "empty.dcm", "four.npy", "mixed.tif", "objects.npy", "odd.xyz",
    ]  # fmt: skip
    assert "RGBA" in reasons["alpha.png"]
    assert "[2, 2, 2, 2]" in reasons["four.npy"]
    assert "page 1" in reasons["mixed.tif"]
    assert [v.name for v in find(tmp_path, exclude=tmp_path / "sub").volumes] == ["b.png"]


def test_open_volume_wants_exactly_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="Received: .*missing"):
        open_volume(tmp_path / "missing")
    with pytest.raises(ValueError, match="expected one volume. Received: 0"):
        open_volume(tmp_path)
