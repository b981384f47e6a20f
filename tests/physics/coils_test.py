"""zoo.physics.coils: maps that are known, found from noisy k-space."""

import numpy as np
import pytest

from zoo.physics import coils, fourier


def test_maps_are_found_from_the_middle_of_kspace():
    size, count = 40, 5
    rng = np.random.default_rng(0)
    v, u = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    turns = np.arange(count)[:, None, None] * 2 * np.pi / count
    away = (v - 1.2 * np.sin(turns)) ** 2 + (u - 1.2 * np.cos(turns)) ** 2
    maps = np.exp(-away / 1.5 + 1j * (turns + v * np.cos(turns)))
    maps /= np.sqrt((np.abs(maps) ** 2).sum(0))
    inside = (v**2 + u**2 < 0.5) * (1 + (u > 0.2))
    noise = rng.standard_normal((2, count, size, size))
    kspace = fourier.to_kspace(maps * inside) + 1e-3 * (noise[0] + 1j * noise[1])
    kspace[:, ::2] *= np.abs(np.arange(0, size, 2) - 20)[:, None] < 10  # 20 lines, then every other
    found = coils.espirit(kspace, calibration=20, kernel=5)
    well = v**2 + u**2 < 0.45
    likeness = np.abs((found.conj() * maps).sum(0))[well]
    assert likeness.min() > 0.999
    np.testing.assert_allclose((np.abs(found) ** 2).sum(0)[well], 1, atol=1e-5)
    assert np.abs(np.angle(found[0][well])).max() < 1e-5  # the phase is that to the first coil
    assert not found[:, 0, 0].any()


def test_a_middle_smaller_than_the_kernel_is_refused():
    with pytest.raises(ValueError, match=r"calibration.*Received: \(2, 8, 8\), 4, 6"):
        coils.espirit(np.ones((2, 8, 8)), calibration=4)
