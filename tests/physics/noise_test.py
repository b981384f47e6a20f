"""zoo.physics.noise: the statistics of simulated photons and of noise inserted into slices."""

import numpy as np
import pytest

from zoo.physics import noise, radon
from zoo.physics.noise import added_variance, low_dose_sinogram, simulate_low_dose, tube_current


def water(size: int = 64, spacing: float = 4.0, radius: float = 100.0) -> np.ndarray:
    axis = (np.arange(size) - (size - 1) / 2) * spacing
    return np.where(np.hypot(axis, axis[:, None]) < radius, 0.0, -1000.0).astype(np.float32)


@pytest.mark.parametrize(
    "p, photons, electronic", [(0.0, 2e3, 0.0), (4.0, 1e5, 10.0), (5.0, 1e5, 15.0)]
)
def test_sinogram_noise_has_the_expected_mean_and_variance(p, photons, electronic):
    draws = low_dose_sinogram(np.full(200_000, p), photons, electronic, 0)
    n = photons * np.exp(-p)
    variance = 1 / n + (electronic / n) ** 2
    assert draws.dtype == np.float32
    assert np.var(draws) == pytest.approx(variance, rel=0.03)
    # The logarithm's own offset is half the variance.
    assert np.mean(draws) == pytest.approx(p + variance / 2, abs=5 * np.sqrt(variance / 200_000))


def test_starved_rays_stop_at_the_floor():
    draws = low_dose_sinogram(np.full(1000, 30.0), 1e4, 10.0, 0)
    assert np.isfinite(draws).all()
    assert draws.max() == pytest.approx(np.log(1e4 / 10.0), rel=1e-5)


def test_added_variance_is_the_difference_of_two_scans():
    p, photons, electronic, dose = 3.0, 5e4, 8.0, 0.25
    full = low_dose_sinogram(np.full(400_000, p), photons, electronic, 1).var()
    low = low_dose_sinogram(np.full(400_000, p), dose * photons, electronic, 2).var()
    assert added_variance(p, dose, photons, electronic) == pytest.approx(low - full, rel=0.03)
    assert added_variance(p, 1.0, photons, electronic) == 0
    assert np.isfinite(added_variance(50.0, dose, photons, electronic))


def test_tube_current_follows_the_root_of_the_attenuation():
    p = np.zeros((2, 3, 5), np.float32)
    p[:, 1, 2], p[:, 2, 2] = 5.0, 7.0
    photons = tube_current(p, 1000.0)
    assert photons.shape == (2, 3, 1)
    np.testing.assert_allclose(photons[0, :, 0], 1000 * np.exp([-2.5, 0.0, 1.0]), rtol=1e-5)


def test_inserted_noise_has_mean_zero_and_scales_with_the_dose():
    hu = np.repeat(water()[None], 24, 0)
    centre = (slice(None), slice(20, 44), slice(20, 44))
    variance = {}
    for dose in (0.5, 0.25, 0.125):
        change = simulate_low_dose(hu, 4.0, dose, electronic=0.0, views=64, rng=3) - hu
        variance[dose] = change[centre].var()
        per_slice = change[centre].mean((1, 2))
        assert abs(per_slice.mean()) < 4 * per_slice.std() / np.sqrt(24)
    # Without electronic noise the added variance goes as (1 - a) / a: 1, 3, 7.
    assert variance[0.25] / variance[0.5] == pytest.approx(3, rel=0.1)
    assert variance[0.125] / variance[0.5] == pytest.approx(7, rel=0.1)
    grown = simulate_low_dose(hu, 4.0, 0.25, electronic=60.0, views=64, rng=3) - hu
    assert grown[centre].var() > 1.2 * variance[0.25]


def test_inserted_noise_has_the_variance_of_filtered_back_projection():
    """Against sigma^2 = (pi / views)^2 sum_k var(p_k at the ray) sum_j h_j^2, at the centre."""
    size, spacing, views, dose = 64, 4.0, 64, 0.25
    hu = water(size, spacing)
    noisy = simulate_low_dose(
        np.repeat(hu[None], 80, 0), spacing, dose, views=views, filter="ramp", rng=5
    )
    measured = noisy[:, 30:34, 30:34].var()
    path = 2 * 100.0 * radon.MU_WATER
    photons = noise.PHOTONS * np.exp((path - 5) / 2)
    n, s = photons * np.exp(-path), noise.ELECTRONIC
    ray = (1 / (dose * n) + (s / (dose * n)) ** 2) - (1 / n + (s / n) ** 2)
    # The band-limited ramp: sum_j h_j^2 = 1 / (12 spacing^2).
    expected = (np.pi**2 / views) * ray / (12 * spacing**2) * (1000 / radon.MU_WATER) ** 2
    assert measured == pytest.approx(expected, rel=0.1)


def test_seed_decides_the_noise():
    hu = water(32, 8.0)
    first, again, other = (simulate_low_dose(hu, 8.0, 0.25, views=32, rng=r) for r in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1
    np.testing.assert_array_equal(simulate_low_dose(hu, 8.0, 1.0, views=32), hu)


def test_any_shape_and_padding():
    hu = water(64)[8:50]
    hu[:5, :5] = -3024
    hu[-5:, -5:] = -2000
    noisy = simulate_low_dose(hu, 4.0, 0.25, views=64)
    assert noisy.shape == (42, 64) and noisy.dtype == np.float32
    np.testing.assert_array_equal(noisy[:5, :5], -3024)
    np.testing.assert_array_equal(noisy[-5:, -5:], -2000)
    air = np.where(hu < -1500, -1000, hu)
    np.testing.assert_array_equal(noisy[10:30], simulate_low_dose(air, 4.0, 0.25, views=64)[10:30])


@pytest.mark.parametrize(
    "change",
    [
        {"dose": 0.0},
        {"dose": 1.5},
        {"hu": np.zeros(5)},
        {"hu": np.full((8, 8), np.nan)},
        {"spacing_mm": 0.0},
        {"views": 10},
        {"filter": "none"},
        {"photons": 0.0},
        {"electronic": -1.0},
    ],
)
def test_bad_input(change):
    arguments = {"hu": water(16, 10.0), "spacing_mm": 10.0, "dose": 0.25, "views": 16} | change
    with pytest.raises(ValueError, match="Received"):
        simulate_low_dose(**arguments)


def test_the_noise_of_a_sinogram_is_told_from_itself():
    axis = np.linspace(-1, 1, 80)
    clean = 6 * np.sqrt(np.maximum(1 - axis**2 / 0.8, 0)) * np.linspace(0.7, 1, 6)[:, None]
    clean = clean.astype(np.float32)
    photons, electronic = noise.tube_current(clean, 2e4), 7.0
    draws = np.stack(
        [noise.low_dose_sinogram(clean, photons, electronic, seed) for seed in range(400)]
    )
    found = np.mean([noise.deviation(draw, 2e4, electronic) for draw in draws[:20]], 0)
    inner = np.abs(axis) < 0.8  # at an edge the smoothed sinogram is too low
    np.testing.assert_allclose(found[:, inner], draws.std(0)[:, inner], rtol=0.2)
    assert abs(np.mean(found / draws.std(0)) - 1) < 0.03
    with pytest.raises(ValueError, match="Received"):
        noise.deviation(clean, -1.0, 0.0)
