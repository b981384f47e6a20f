"""The deep image prior: it stops in time, at an image better than the quick one."""

import functools

import numpy as np
import pytest

import zoo
from zoo.physics import fourier, mri, tomography

SIZE, SIGMA = 24, 0.2
SMALL = {"levels": 3, "base_filters": 8, "rate": 1e-2}


def disc(size):
    axis = np.linspace(-1, 1, size)
    return 0.02 * (np.hypot(axis, axis[:, None]) < 0.7)


@functools.cache
def scan():
    beam = tomography.ParallelBeam(SIZE, 8.0, 12)
    y = beam.forward(disc(SIZE)).numpy()
    return beam, y + np.random.default_rng(0).normal(0, SIGMA, y.shape)


@pytest.mark.parametrize("stop", ["discrepancy", "holdout", "variance"])
def test_a_fitted_network_stops_in_time(stop):
    beam, y = scan()
    told = []
    sigma = SIGMA if stop == "discrepancy" else None
    found, record = zoo.reconstruct(
        y, beam, "dip", stop=stop, sigma=sigma, iterations=150, **SMALL,
        progress=lambda done, value: told.append(done),
    )  # fmt: skip
    quick, _ = zoo.reconstruct(y, beam, "fbp")
    assert np.std(found - disc(SIZE)) < 0.7 * np.std(quick - disc(SIZE))
    assert found.dtype == np.float32 and found.min() >= 0
    assert record.why.startswith(stop) and 0 < record.iterations <= told[-1]
    assert told == [done for done, _ in record.tried]
    if stop == "discrepancy":
        # What the noise makes of it: its variance, for each value.
        assert record.tried[-1][1] <= np.count_nonzero(y) * 1.01 and record.converged


def test_complex_images_the_seed_and_too_few_iterations():
    lines = fourier.random_lines(16, 2, 0, 0.2)
    operator = mri.CartesianMRI(lines)
    image = disc(16) * 50 * np.exp(1j * np.linspace(0, 1, 16))
    y = operator.forward(image).numpy()
    (found, record), (again, _) = (
        zoo.reconstruct(y, operator, "dip", iterations=50, **SMALL, seed=3) for _ in range(2)
    )
    np.testing.assert_array_equal(found, again)
    assert found.dtype == np.complex64
    assert not record.converged and "50 iterations" in record.notes[0]


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(stop="soon"), "stop: expected one of discrepancy.*soon"),
        (dict(stop="discrepancy"), "stop: expected .* sigma or photons"),
        (dict(iterations=3), "iterations: expected 10 or more. Received: 3"),
    ],
)
def test_bad_options_are_refused(options, words):
    beam, y = scan()
    with pytest.raises(ValueError, match=words):
        zoo.reconstruct(y, beam, "dip", **options)
