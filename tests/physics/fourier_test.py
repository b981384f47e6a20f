"""zoo.physics.fourier and resample: SciPy, analytic signals, properties of the operators."""

import numpy as np
import pytest
import scipy.fft
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.physics import fourier, resolution


def noise(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


@settings(deadline=None, max_examples=25)
@given(height=st.integers(1, 17), width=st.integers(1, 17), seed=st.integers(0, 99))
def test_transform_is_unitary(height, width, seed):
    x, y = noise(2, height, width, seed=seed), noise(2, height, width, seed=seed + 100)
    fx, gy = fourier.to_kspace(x), fourier.from_kspace(y)
    assert fx.dtype == gy.dtype == np.complex64
    np.testing.assert_allclose(fourier.from_kspace(fx), x, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(fx), np.linalg.norm(x), rtol=1e-5)  # Parseval
    np.testing.assert_allclose(np.vdot(y, fx), np.vdot(gy, x), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("shape", [(6, 9), (8, 5)])
def test_transform_is_the_centred_sum_of_its_definition(shape):
    x = noise(*shape)
    r, c = (np.arange(n) - n // 2 for n in shape)
    rows = np.exp(-2j * np.pi * np.outer(r, r) / shape[0])
    columns = np.exp(-2j * np.pi * np.outer(c, c) / shape[1])
    expected = rows @ x @ columns / np.sqrt(x.size)
    np.testing.assert_allclose(fourier.to_kspace(x), expected, atol=1e-5)
    shifted = scipy.fft.fftshift(scipy.fft.fft2(scipy.fft.ifftshift(x), norm="ortho"))
    np.testing.assert_allclose(fourier.to_kspace(x), shifted, atol=1e-5)


def test_tensors_and_arrays_agree():
    import tensorflow as tf

    x = noise(2, 6, 9)
    operator = fourier.Cartesian(fourier.random_lines(6, 2, 0))
    for function in (fourier.to_kspace, fourier.from_kspace, operator.forward, operator.adjoint):
        found = function(tf.constant(x))
        assert tf.is_tensor(found)
        np.testing.assert_allclose(found, function(x), atol=1e-5)
    channels = fourier.to_channels(x)
    np.testing.assert_array_equal(fourier.to_channels(tf.constant(x)), channels)
    np.testing.assert_array_equal(fourier.from_channels(tf.constant(channels)), x)
    traced = tf.function(fourier.zero_filled, input_signature=[tf.TensorSpec((None, None, 9, 2))])
    np.testing.assert_allclose(traced(channels), fourier.zero_filled(channels), atol=1e-5)


def test_channels():
    x = noise(2, 3, 4)
    channels = fourier.to_channels(x)
    assert channels.shape == (2, 3, 4, 2) and channels.dtype == np.float32
    np.testing.assert_array_equal(channels[..., 1], x.imag)
    np.testing.assert_array_equal(fourier.from_channels(channels), x)
    with pytest.raises(ValueError, match=r"real and imaginary part. Received: \(2, 3, 4\)"):
        fourier.from_channels(x.real)


def test_zero_filling_of_full_kspace_is_the_image():
    image = np.abs(noise(3, 8, 10))
    kspace = fourier.to_channels(fourier.to_kspace(image))
    np.testing.assert_allclose(fourier.zero_filled(kspace)[..., 0], image, atol=1e-5)


@pytest.mark.parametrize("make", [fourier.random_lines, fourier.equispaced_lines])
def test_lines(make):
    for n, acceleration in ((64, 2.5), (63, 4), (128, 8), (32, 1)):
        lines = make(n, acceleration, 7)
        assert lines.shape == (n,) and lines.dtype == bool
        assert lines.sum() == round(n / acceleration)
        inner = round(0.08 * n)
        assert lines[n // 2 - inner // 2 :][:inner].all()
        np.testing.assert_array_equal(lines, make(n, acceleration, np.random.default_rng(7)))
    assert (make(64, 4, 1) != make(64, 4, 2)).any()
    with pytest.raises(ValueError, match="Received: 64, 0.5, 0.08"):
        make(64, 0.5, 0)
    with pytest.raises(ValueError, match="centre: expected no more lines"):
        make(64, 8, 0, centre=0.5)


def test_density_of_the_lines():
    random = np.mean([fourier.random_lines(64, 4, seed) for seed in range(300)], 0)
    assert random[20:28].mean() > 2 * random[4:12].mean() > 0  # falls outwards
    assert abs(random[4:30].mean() - random[35:61].mean()) < 0.05  # on both sides alike
    gaps = np.diff(np.flatnonzero(fourier.equispaced_lines(240, 4, 3)))
    assert np.ptp(gaps[:18]) <= 1  # even steps up to the middle


@settings(deadline=None, max_examples=15)
@given(height=st.integers(2, 20), width=st.integers(1, 12), seed=st.integers(0, 99))
def test_cartesian_adjoint_and_projection(height, width, seed):
    operator = fourier.Cartesian(fourier.random_lines(height, 2, seed, centre=0))
    x, y = noise(2, height, width, seed=seed), noise(2, height, width, seed=seed + 100)
    ax, ay = operator.forward(x), operator.adjoint(y)
    np.testing.assert_allclose(np.vdot(y, ax), np.vdot(ay, x), rtol=1e-4, atol=1e-3)
    assert (ax[:, ~operator.lines] == 0).all()
    # A A* A = A: the adjoint is the pseudo-inverse.
    np.testing.assert_allclose(operator.forward(operator.adjoint(ax)), ax, atol=1e-5)
    assert operator.acceleration == height / operator.lines.sum()


def test_cartesian_refuses():
    with pytest.raises(ValueError, match="at least one True"):
        fourier.Cartesian(np.zeros(8, bool))
    with pytest.raises(ValueError, match=r"expected shape \(\.\.\., 8, W\). Received: \(4, 8\)"):
        fourier.Cartesian(np.ones(8, bool)).forward(np.zeros((4, 8)))


def blob(shape, centre, width):
    """A Gaussian sampled at the pixels' centres."""
    axes = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    r2 = sum((a - c) ** 2 for a, c in zip(axes, centre, strict=True))
    return np.exp(-r2 / (2 * width**2)).astype(np.float32)


def centroid(image, scale):
    """Centre of mass in pixels of the full grid."""
    axes = np.meshgrid(*(np.arange(n) for n in image.shape), indexing="ij")
    return [np.average(a, weights=image) * scale + (scale - 1) / 2 for a in axes]


@pytest.mark.parametrize("reduce", [resolution.block_mean, resolution.crop_kspace])
@pytest.mark.parametrize("scale, rank", [(1, 2), (2, 2), (4, 2), (8, 2), (2, 3), (4, 3)])
def test_low_resolution_keeps_the_mean_and_the_place(reduce, scale, rank):
    shape = tuple(n * scale for n in (20, 24, 28)[-rank:])
    centre = tuple(c * scale for c in (9.3, 12.6, 13.1)[-rank:])
    image = blob(shape, centre, 2.0 * scale)
    axes = tuple(range(-rank, 0))
    low = reduce(np.stack([image, 2 * image]), scale, axes)
    assert low.shape == (2, *(n // scale for n in shape)) and low.dtype == np.float32
    np.testing.assert_allclose(low[0].mean(), image.mean(), rtol=1e-4)
    np.testing.assert_allclose(low[1], 2 * low[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(centroid(low[0], scale), centre, atol=2e-3 * scale)


@pytest.mark.parametrize("n, scale", [(32, 2), (48, 4), (30, 2), (48, 8), (45, 3)])
def test_cropping_keeps_low_frequencies_exactly_and_cuts_high_ones(n, scale):
    m = n // scale
    at = np.arange(n)
    fine = np.arange(m) * scale + (scale - 1) / 2  # where the low-resolution pixels lie
    wave = lambda k, x: np.cos(2 * np.pi * k * x / n + 0.7)  # noqa: E731
    low, high = (m - 1) // 2, m // 2 + 1
    image = 5 + wave(low, at)[:, None] * wave(1, at) + wave(high, at)[:, None]
    expected = 5 + wave(low, fine)[:, None] * wave(1, fine)
    np.testing.assert_allclose(resolution.crop_kspace(image, scale), expected, atol=1e-4)
    # The aperture damps by its sinc instead, sampled: sin(s w / 2) / (s sin(w / 2)).
    damped = lambda k: np.sin(np.pi * k * scale / n) / (scale * np.sin(np.pi * k / n))  # noqa: E731
    expected = 5 + damped(low) * damped(1) * wave(low, fine)[:, None] * wave(1, fine)
    expected = expected + damped(high) * wave(high, fine)[:, None]
    np.testing.assert_allclose(resolution.block_mean(image, scale), expected, atol=1e-4)


def test_low_resolution_takes_chosen_axes_and_refuses_others():
    image = np.arange(4 * 6 * 3, dtype=np.int16).reshape(4, 6, 3)
    expected = image.reshape(2, 2, 3, 2, 3).mean((1, 3))
    np.testing.assert_allclose(resolution.block_mean(image, 2, (0, 1)), expected)
    assert resolution.crop_kspace(image, 2, (0, 1)).shape == (2, 3, 3)
    for reduce in (resolution.block_mean, resolution.crop_kspace):
        with pytest.raises(ValueError, match=r"divides the sizes \[4, 6\]. Received: 4"):
            reduce(image, 4, (0, 1))
        with pytest.raises(ValueError, match="Received: 0"):
            reduce(image, 0, (0, 1))
