"""Tests of zoo.imaging.tiling."""

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st

from stand_in import with_peak
from zoo.imaging.tiling import tiled


def convolution(radius: int, seed: int = 0):
    """A dense two-dimensional convolution of the given radius, as a tiled function."""
    size = 2 * radius + 1
    kernel = np.random.default_rng(seed).normal(size=(size, size))

    def function(batch):
        return np.stack(
            [scipy.ndimage.convolve(image[..., 0], kernel, mode="reflect") for image in batch]
        )[..., None]

    return function


@pytest.mark.parametrize("margin", [None, 8])
@pytest.mark.parametrize("shape", [(97, 130), (64, 200), (40, 33), (33, 150)])
def test_convolution_has_no_seams(shape, margin):
    image = np.random.default_rng(1).normal(size=(2, *shape, 1)).astype(np.float32)
    radius = 4 if margin is None else 8
    function = convolution(radius)
    whole = function(image)
    result = tiled(function, image, tile=48, overlap=16, margin=margin, batch_size=3)
    inside = (slice(None), slice(radius, -radius), slice(radius, -radius))
    # reflect padding of a whole image and of its padded tile agree at the border as well
    np.testing.assert_allclose(result[inside], whole[inside], atol=1e-4)
    assert result.shape == (2, *shape, 1)
    assert result.dtype == np.float32


def test_keras_network_with_strides_has_no_seams():
    import keras

    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [
            keras.layers.Conv2D(4, 3, padding="same", activation="relu"),
            keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu"),
            keras.layers.Conv2DTranspose(3, 4, strides=2, padding="same"),
        ]
    )
    image = np.random.default_rng(0).normal(size=(1, 90, 134, 1)).astype(np.float32)
    shapes = set()

    def function(batch):
        shapes.add(batch.shape)
        return np.asarray(network(batch))

    result = tiled(function, image, tile=32, overlap=24, multiple=2, batch_size=2)
    whole = np.asarray(network(image))
    np.testing.assert_allclose(result[:, 6:-6, 6:-6], whole[:, 6:-6, 6:-6], atol=1e-5)
    assert shapes == {(2, 32, 32, 1)}


def test_a_constant_offset_between_tiles_is_blended_without_a_jump():
    image = np.zeros((1, 64, 256, 1), np.float32)
    level = iter(range(100))

    def function(batch):  # as a network with instance norm might: every tile has its own level
        return np.stack([np.full((64, 64, 1), next(level), np.float32) for _ in batch])

    result = tiled(function, image, tile=64, overlap=32)
    assert np.abs(np.diff(result[0, :, :, 0], axis=1)).max() < 0.07
    assert result.max() - result.min() > 4


def test_ignored_pixels_of_a_tile_do_not_count():
    image = np.ones((1, 100, 100, 1), np.float32)

    def function(batch):
        batch = batch.copy()
        batch[:, :3, 3:-3] = np.nan  # within the margin, but for the image's own border
        return batch

    result = tiled(function, image, tile=40, overlap=16)
    np.testing.assert_allclose(result[:, 4:], 1, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    tile=st.integers(1, 32),
    overlap=st.integers(0, 31),
    multiple=st.integers(1, 8),
    batch=st.integers(1, 5),
)
def test_identity_returns_the_image(height, width, tile, overlap, multiple, batch):
    tile = -(-tile // multiple) * multiple
    overlap = min(overlap, tile - multiple)
    image = np.random.default_rng(0).normal(size=(1, height, width, 2)).astype(np.float32)
    result = tiled(
        lambda x: x, image, tile=tile, overlap=overlap, multiple=multiple, batch_size=batch
    )
    np.testing.assert_allclose(result, image, atol=1e-5)


def enlarged(images, scale):
    """Every pixel as a block of scale x scale (x scale) pixels."""
    for axis in range(1, images.ndim - 1):
        images = images.repeat(scale, axis)
    return images


@settings(max_examples=40, deadline=None)
@given(
    shape=st.lists(st.integers(1, 40), min_size=2, max_size=2)
    | st.lists(st.integers(1, 14), min_size=3, max_size=3),
    tile=st.integers(1, 12),
    overlap=st.integers(0, 11),
    multiple=st.integers(1, 4),
    batch=st.integers(1, 5),
    scale=st.integers(1, 3),
)
def test_a_function_of_single_pixels_is_undisturbed(shape, tile, overlap, multiple, batch, scale):
    tile = -(-tile // multiple) * multiple
    overlap = min(overlap, tile - multiple)
    image = np.random.default_rng(0).normal(size=(2, *shape, 2)).astype(np.float32)
    result = tiled(
        lambda x: enlarged(x * 3 - 1, scale), image,
        tile=tile, overlap=overlap, multiple=multiple, batch_size=batch, scale=scale,
    )  # fmt: skip
    np.testing.assert_allclose(result, enlarged(image * 3 - 1, scale), atol=1e-4)
    assert result.dtype == np.float32


@pytest.mark.parametrize(
    ("shape", "scale", "tile"),
    [((75, 90), 2, 32), ((33, 64), 3, 32), ((22, 31, 9), 1, 16), ((25, 20, 40), 2, 16)],
)
def test_an_enlarging_filter_has_no_seams(shape, scale, tile):
    """A filter after the enlargement: it looks across the pixels of the input."""
    image = np.random.default_rng(2).normal(size=(1, *shape, 1)).astype(np.float32)
    kernel = np.random.default_rng(3).normal(size=[2 * scale + 1] * len(shape))
    kernel /= np.abs(kernel).sum()

    def function(batch):
        batch = enlarged(batch, scale)
        results = [scipy.ndimage.convolve(x[..., 0], kernel, mode="reflect") for x in batch]
        return np.stack(results)[..., None]

    result = tiled(function, image, tile=tile, overlap=4, margin=1, batch_size=2, scale=scale)
    # Reflection of the enlarged image's edge is that of the whole as well.
    np.testing.assert_allclose(result, function(image), atol=1e-5)


def test_tiles_of_a_thin_volume_are_not_padded_to_cubes():
    shapes = set()

    def function(batch):
        shapes.add(batch.shape)
        return batch

    image = np.random.default_rng(0).normal(size=(1, 3, 40, 20, 1)).astype(np.float32)
    result = tiled(function, image, tile=16, overlap=8, multiple=2, batch_size=3)
    np.testing.assert_allclose(result, image, atol=1e-6)
    assert shapes == {(3, 4, 16, 16, 1)}


def test_memory_is_that_of_the_result_and_one_batch():
    image = np.zeros((1, 60, 70, 80, 1), np.float32)
    options = {"tile": 16, "overlap": 4, "batch_size": 2, "scale": 2}
    result, peak = with_peak(lambda: tiled(lambda x: enlarged(x, 2), image, **options))
    assert peak < result.nbytes + 2 * 8 * 2 * 32**3 * 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"overlap": 32}, "overlap"),
        ({"overlap": -1}, "overlap"),
        ({"margin": 9}, "margin"),
        ({"tile": 0}, "tile"),
        ({"scale": 0}, "tile, multiple, batch_size, scale"),
        ({"scale": 2}, "function: expected a result of .1, 64, 64, 'C'."),
        ({"images": np.zeros((4, 4))}, "images"),
        ({"function": lambda x: x[:, 1:]}, "function"),
    ],
)
def test_bad_arguments(change, message):
    arguments = {
        "function": lambda x: x,
        "images": np.zeros((1, 8, 8, 1), np.float32),
        "tile": 32,
        "overlap": 16,
    } | change
    with pytest.raises(ValueError, match=f"^{message}.*Received"):
        tiled(arguments.pop("function"), arguments.pop("images"), **arguments)
