"""zoo.physics.radon against analytic integrals, scikit-image and the definition of an adjoint."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, map_coordinates
from skimage.transform import iradon, radon

from zoo.physics.radon import MU_WATER, ParallelBeam, attenuation_to_hu, hu_to_attenuation


def disc(size: int, spacing: float, radius: float, x: float = 0.0, y: float = 0.0) -> np.ndarray:
    """Coverage of a disc (mm), by 8 x 8 supersampling."""
    axis = ((np.arange(8 * size) + 0.5) / 8 - size / 2) * spacing
    inside = (axis - x) ** 2 + (axis[:, None] - y) ** 2 < radius**2
    return inside.reshape(size, 8, size, 8).mean((1, 3)).astype(np.float32)


def smooth_image(size: int, seed: int = 0) -> np.ndarray:
    """A smooth random object inside the inscribed circle."""
    rng = np.random.default_rng(seed)
    image = gaussian_filter(rng.standard_normal((size, size)), 3) + 0.1
    return gaussian_filter(image * disc(size, 1.0, 0.4 * size), 2).astype(np.float32)


@settings(deadline=None, max_examples=15)
@given(
    size=st.integers(1, 24),
    views=st.integers(1, 6).map(lambda n: 4 * n),
    detectors=st.one_of(st.none(), st.integers(1, 40)),
    pitch=st.floats(0.3, 3.0),
    seed=st.integers(0, 1000),
)
def test_adjoint(size, views, detectors, pitch, seed):
    beam = ParallelBeam(size, 0.8, views, detectors, pitch)
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, size, size)).astype(np.float32)
    y = rng.standard_normal((2, views, beam.detectors)).astype(np.float32)
    ax, aty = beam.forward(x).astype(float), beam.adjoint(y).astype(float)
    scale = np.linalg.norm(ax) * np.linalg.norm(y) + np.linalg.norm(x) * np.linalg.norm(aty)
    assert abs(np.vdot(ax, y) - np.vdot(x, aty)) <= 1e-5 * scale + 1e-6


def test_disc_has_its_chord_lengths():
    x, y, radius = 9.0, -14.0, 30.0
    beam = ParallelBeam(128, 0.9, 60)
    sinogram = beam.forward(0.02 * disc(128, 0.9, radius, x, y))
    s = (np.arange(beam.detectors) - (beam.detectors - 1) / 2) * beam.detector_mm
    centre = x * np.cos(beam.angles) + y * np.sin(beam.angles)
    from_centre = s - centre[:, None]
    chord = 0.02 * 2 * np.sqrt(np.maximum(radius**2 - from_centre**2, 0))
    inside = np.abs(from_centre) < radius - 4
    np.testing.assert_allclose(sinogram[inside], chord[inside], rtol=0.02)
    assert np.abs(sinogram[np.abs(from_centre) > radius + 2]).max() == 0


@pytest.mark.parametrize("octant", range(8))
def test_every_mirrored_view_is_its_own_line_integral(octant):
    image = smooth_image(64, seed=octant)
    beam = ParallelBeam(64, 1.0, 32, detectors=64)
    k = octant * 4 + 1
    theta = beam.angles[k]
    s, t = np.arange(64)[:, None] - 31.5, np.arange(-50, 50, 0.25)
    u = s * np.cos(theta) - t * np.sin(theta) + 31.5
    v = s * np.sin(theta) + t * np.cos(theta) + 31.5
    expected = map_coordinates(image, [v, u], order=1).sum(1) * 0.25
    error = np.abs(beam.forward(image)[k] - expected).max()
    assert error < 0.01 * np.abs(expected).max()


def test_agrees_with_scikit_image():
    size, views = 97, 120  # odd: scikit-image's centre is the pixel size // 2
    image = smooth_image(size)
    beam = ParallelBeam(size, 1.0, views, detectors=size)
    degrees = -np.rad2deg(beam.angles)  # scikit-image turns the other way
    theirs = radon(image, degrees, circle=True)
    assert np.linalg.norm(beam.forward(image) - theirs.T) < 0.01 * np.linalg.norm(theirs)
    back = iradon(theirs, degrees, filter_name="hann", circle=True)
    circle = disc(size, 1.0, 46.0) == 1
    difference = (beam.fbp(theirs.T, "hann") - back)[circle]
    assert np.linalg.norm(difference) < 0.03 * np.linalg.norm(back[circle])


def test_fbp_recovers_hu_without_bias():
    size, spacing = 128, 2.0
    beam = ParallelBeam(size, spacing, 256)
    water = disc(size, spacing, 90.0)
    hu = -1000.0 + 1000.0 * water + 60.0 * disc(size, spacing, 30.0, 20.0, 10.0)
    axis = (np.arange(size) - (size - 1) / 2) * spacing
    r = np.hypot(axis, axis[:, None])
    insert = np.hypot(axis - 20, axis[:, None] - 10)
    for name, ripple in (("hann", 1.0), ("ramp", 6.0)):
        found = attenuation_to_hu(beam.fbp(beam.forward(hu_to_attenuation(hu)), name))
        flat, inner = (r < 80) & (insert > 38), insert < 22
        assert abs(found[flat].mean()) < 1.0
        assert abs(found[inner].mean() - 60.0) < 1.0
        assert found[flat].std() < ripple  # no rings or moire; the bare ramp overshoots at edges
        assert abs(found[(r > 100) & (r < 120)].mean() + 1000) < 2.0


def test_batch_and_detector_pitch():
    image = np.stack([smooth_image(48, seed) for seed in range(3)])[None]
    beam = ParallelBeam(48, 1.0, 64, detector_mm=0.7)
    sinogram = beam.forward(image)
    assert sinogram.shape == (1, 3, 64, beam.detectors) and sinogram.dtype == np.float32
    np.testing.assert_allclose(sinogram[0, 1], beam.forward(image[0, 1]), atol=1e-5)
    found = beam.fbp(sinogram)
    np.testing.assert_allclose(found, image, atol=0.05 * np.abs(image).max())


def test_operator_too_large_to_keep_is_the_same(monkeypatch):
    image = smooth_image(32)
    kept = ParallelBeam(32, 1.0, 16).forward(image)
    monkeypatch.setattr("zoo.physics.radon._KEEP", 0)
    beam = ParallelBeam(32, 1.0, 16)
    np.testing.assert_array_equal(beam.forward(image), kept)
    assert not beam._kept


def test_hu():
    np.testing.assert_allclose(hu_to_attenuation([-3024, -1000, 0, 1000]),
                               [0, 0, MU_WATER, 2 * MU_WATER], rtol=1e-6)  # fmt: skip
    hu = np.linspace(-1000, 3000, 9)
    np.testing.assert_allclose(attenuation_to_hu(hu_to_attenuation(hu)), hu, atol=1e-3)


@pytest.mark.parametrize("arguments", [(16, 1.0, 6), (16, 1.0, 0), (0, 1.0, 8), (16, 0.0, 8)])
def test_bad_geometry(arguments):
    with pytest.raises(ValueError, match="Received"):
        ParallelBeam(*arguments)


def test_bad_input():
    beam = ParallelBeam(16, 1.0, 8)
    with pytest.raises(ValueError, match=r"image: expected shape \(\.\.\., 16, 16\)"):
        beam.forward(np.zeros((16, 15)))
    with pytest.raises(ValueError, match="filter: expected ramp or hann"):
        beam.fbp(np.zeros((8, beam.detectors)), "cosine")


def test_parts_of_the_views_add_up_to_all():
    beam = ParallelBeam(24, 1.0, 48)
    sinograms = np.random.default_rng(0).standard_normal((2, 48, beam.detectors), np.float32)
    parts = beam.split_fbp(sinograms, 3, "hann")
    assert parts.shape == (2, 3, 24, 24)
    np.testing.assert_allclose(parts.mean(1), beam.fbp(sinograms, "hann"), atol=1e-4)
    # A set knows its own views alone.
    others = sinograms.copy()
    others[:, np.arange(48) % 3 != 1] = 7
    np.testing.assert_array_equal(beam.split_fbp(others, 3, "hann")[:, 1], parts[:, 1])


@pytest.mark.parametrize("parts", [1, 5])
def test_parts_that_do_not_divide_the_views_are_refused(parts):
    beam = ParallelBeam(8, 1.0, 16)
    with pytest.raises(ValueError, match=f"parts: expected 2 or more.*Received: {parts}"):
        beam.split_fbp(np.zeros((16, beam.detectors)), parts)


@pytest.mark.parametrize("name", ["linear", "nearest"])
def test_back_projection_interpolates_as_it_is_told(name):
    """Against one pixel after another, and the ramp as a sum in space."""
    beam = ParallelBeam(8, 1.0, 8)
    sinogram = np.random.default_rng(0).standard_normal((8, beam.detectors)).astype(np.float32)
    n = np.subtract.outer(np.arange(beam.detectors), np.arange(beam.detectors)).astype(float)
    kernel = np.where(n % 2 == 1, -1 / (np.pi * np.where(n == 0, 1, n)) ** 2, 0.0)
    np.fill_diagonal(kernel, 0.25)
    axis = np.arange(8) - 3.5
    expected = np.zeros((8, 8))
    for view, angle in zip(sinogram @ kernel, beam.angles, strict=True):
        place = axis * np.cos(angle) + axis[:, None] * np.sin(angle) + (beam.detectors - 1) / 2
        place = np.floor(place * 8 + 0.5) / 8  # eighths of a detector, as `fbp` has them
        if name == "nearest":
            place = np.ceil(place - 0.5)
        expected += np.interp(place, np.arange(beam.detectors), view) * np.pi / 8
    np.testing.assert_allclose(beam.fbp(sinogram, interpolation=name), expected, atol=2e-3)
    with pytest.raises(ValueError, match="interpolation: .*nearest. Received: 'cubic'"):
        beam.fbp(sinogram, interpolation="cubic")
