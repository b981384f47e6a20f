"""tools/judges: the measures that are its own."""

import numpy as np
import pydicom
import pydicom.data
import pytest
from scipy import ndimage

from tools import scans
from tools.judges import astra_noise, denoising, low_dose, unpaired


def test_noise_power_of_white_noise_is_its_variance():
    image = 7 * np.random.default_rng(0).standard_normal((256, 256))
    spectrum = low_dose.noise_power(image, low_dose.flat_places(image))
    assert spectrum.shape == (15,)
    # The fitted planes take some of the lowest frequencies with them.
    np.testing.assert_allclose(spectrum[3:], 49, rtol=0.3)
    assert low_dose.decades(spectrum, 10 * spectrum) == pytest.approx(1)


def test_edges_correlate_where_they_are():
    image = np.zeros((64, 64))
    image[20:40, 24:50] = 300.0
    correlation = unpaired.edge_correlation
    assert correlation(image, 0.5 * image - 40) == pytest.approx(1)
    assert correlation(image, np.roll(image, 4, 1)) < 0.8


def test_noise_of_the_level_asked_for():
    head = pydicom.dcmread(pydicom.data.get_testdata_file("J2K_pixelrep_mismatch.dcm"))
    image = np.clip(head.pixel_array[128:384, 128:384], -1024, 3071).astype("float32")
    scan = scans.Slice(
        name="head",
        patient="somebody",
        region="head",
        contrast="none",
        image=image,
        spacing=(0.43, 0.43),
        source="pydicom",
    )
    source = low_dose.noisy(scan, 30, 0.25, "hann")
    body = scan.image > -500
    assert (source - scan.image)[body].std() == pytest.approx(30, rel=0.03)
    np.testing.assert_array_equal(source, low_dose.noisy(scan, 30, 0.25, "hann"))


def test_structure_is_what_follows_the_edges():
    rng = np.random.default_rng(0)
    axis = np.arange(128) - 63.5
    full = np.where(np.hypot(axis, axis[:, None]) < 40, 60.0, 20.0).astype(np.float32)
    blurred, even = ndimage.gaussian_filter(full, 2.0), full + rng.normal(0, 5, full.shape)
    assert denoising.structure(blurred, full)["structure"] > 0.7
    assert abs(denoising.structure(even, full)["structure"]) < 0.05


def test_edges_off_are_told_through_even_noise():
    rng = np.random.default_rng(0)
    full = ndimage.gaussian_filter(rng.normal(0, 3000, (256, 256)), 3.0).astype(np.float32)
    moved = ndimage.shift(full, (0, 0.5), order=3, mode="wrap")
    noise = rng.normal(0, 10, full.shape)
    off, noisy = (denoising.structure(each, full)["edges"] for each in (moved, moved + noise))
    # Half a pixel along one axis of two.
    assert off == pytest.approx(0.5 / np.sqrt(2), rel=0.2)
    assert noisy == pytest.approx(off, rel=0.15)


def test_noise_left_is_the_share_of_its_power():
    full = np.zeros((128, 128), np.float32)
    noise = np.random.default_rng(0).normal(0, 30, full.shape)
    np.testing.assert_allclose(denoising.noise_left(full + noise / 2, full + noise, full), 0.25)
    smooth = ndimage.gaussian_filter(noise, 1.5)
    low, *_, high = denoising.noise_left(full + smooth, full + noise, full)
    assert low > 0.7 and high < 0.02


def test_a_flat_fan_is_rebinned_to_parallel_rays():
    """Chords of a disc, which both beams know by themselves."""
    size, x, y, radius = 128, 20.0, -30.0, 25.0
    rays = int(np.ceil(size * np.sqrt(2) / 2)) * 2
    views, distance = astra_noise.VIEWS, astra_noise.SOURCE * size
    u = np.arange(2 * rays) - (2 * rays - 1) / 2
    gamma = np.arctan(u / distance)
    beta = np.arange(2 * views)[:, None] * np.pi / views

    def chord(angle, ray):
        away = ray - x * np.cos(angle) - y * np.sin(angle)
        return 2 * np.sqrt(np.maximum(radius**2 - away**2, 0))

    # ASTRA's rays turn the other way than its detector counts.
    fan = chord(beta - gamma, distance * np.sin(gamma))
    found = astra_noise.parallel(fan, size)
    angles = np.arange(views)[:, None] * np.pi / views
    expected = chord(angles, np.arange(rays) - (rays - 1) / 2)
    assert np.abs(found - expected).mean() < 0.05 < 5 < expected.mean()
