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


def test_patience_says_when_it_stops_and_not_at_which_image():
    beam, y = scan()
    seen = {}
    options = SMALL | {"stop": "holdout", "iterations": 120}
    found, record = zoo.reconstruct(
        y, beam, "dip", **options, patience=120,
        watch=lambda done, image: seen.setdefault(done, image),
    )  # fmt: skip
    # It looked at each tenth image, the last one too, and took one of them.
    assert list(seen) == list(range(10, 121, 10)) == [done for done, _ in record.tried]
    np.testing.assert_array_equal(found, seen[record.iterations])
    best = min(record.tried, key=lambda look: look[1])
    assert record.iterations == best[0]
    # With less patience it is the best image until it stops, of the same ones.
    early, other = zoo.reconstruct(y, beam, "dip", **options, patience=10)
    assert other.tried == record.tried[: len(other.tried)]
    np.testing.assert_array_equal(early, seen[other.iterations])


def test_without_an_image_as_near_as_the_noise_it_takes_the_steadiest():
    beam, y = scan()
    options = SMALL | {"iterations": 120, "patience": 120, "sigma": SIGMA / 20}
    steadiest, known = zoo.reconstruct(y, beam, "dip", stop="variance", **options)
    found, record = zoo.reconstruct(y, beam, "dip", stop="discrepancy", **options)
    np.testing.assert_array_equal(found, steadiest)
    assert record.iterations == known.iterations
    assert any("as near as the noise" in note for note in record.notes)
    assert record.tried[-1][1] > np.count_nonzero(y)


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
