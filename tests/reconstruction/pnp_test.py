"""Plug and play, against a linear system that a linear denoiser makes of it."""

import functools

import numpy as np
import pytest
import tensorflow as tf

import zoo
from zoo.physics import mri, tomography
from zoo.reconstruction import pnp

SIZE = 12


def blurred(x):
    """A symmetric blur whose largest singular value is 1, at a constant image."""
    padded = tf.pad(x, [[1, 1], [1, 1]], "SYMMETRIC")
    x = 0.5 * x + 0.25 * (padded[:-2, 1:-1] + padded[2:, 1:-1])
    padded = tf.pad(x, [[1, 1], [1, 1]], "SYMMETRIC")
    return 0.5 * x + 0.25 * (padded[1:-1, :-2] + padded[1:-1, 2:])


def overdone(x):
    """Takes more than all of the detail away: its largest singular value is 2.2."""
    return blurred(x) - 2.2 * (x - blurred(x))


def sharpened(x):
    return x + 0.5 * (x - blurred(x))


def matrix(function, shape, dtype="float64"):
    """A linear function of images as a matrix."""
    count = int(np.prod(shape))
    units = np.eye(count).reshape(count, *shape).astype(dtype)
    return np.stack([np.ravel(function(tf.constant(unit))) for unit in units], -1)


@functools.cache
def scan():
    beam = tomography.ParallelBeam(SIZE, 8.0, 9, dtype="float64")
    axis = np.linspace(-1, 1, SIZE)
    image = 0.02 * (np.hypot(axis, axis[:, None]) < 0.7)
    y = beam.forward(image).numpy()
    return beam, image, y + np.random.default_rng(0).normal(0, 0.05, y.shape)


@pytest.mark.parametrize("function", [blurred, overdone])
def test_the_lipschitz_constant_is_the_largest_singular_value(function):
    x = tf.constant(np.random.default_rng(0).uniform(size=(SIZE, SIZE)))
    true = np.linalg.norm(matrix(function, x.shape), 2)
    assert pnp.lipschitz(function, x) == pytest.approx(true, rel=0.02)


@pytest.mark.parametrize("function, lam", [(blurred, 300.0), (overdone, 100.0)])
def test_a_linear_denoiser_gives_the_solution_of_a_linear_system(function, lam):
    """Damped or not: (A* A + lam (1 - D)) x = A* y, over variance 1."""
    beam, _, y = scan()
    a, d = matrix(beam.forward, (SIZE, SIZE)), matrix(function, (SIZE, SIZE))
    system = a.T @ a + lam * (np.eye(SIZE**2) - d)
    true = np.linalg.solve(system, a.T @ y.ravel()).reshape(SIZE, SIZE)
    found, record = zoo.reconstruct(
        y, beam, "pnp", denoiser=function, lam=lam, tolerance=1e-7, iterations=400
    )
    np.testing.assert_allclose(found, true, atol=2e-3 * true.max())
    assert record.converged and record.change <= 1e-7
    assert (record.damping < 1) == (function is overdone)
    assert record.damping == pytest.approx(1 / max(record.lipschitz, 1.0))


def test_a_denoiser_that_runs_away_is_told():
    beam, image, y = scan()
    found, record = zoo.reconstruct(y, beam, "pnp", denoiser=sharpened, lam=1e4, iterations=40)
    assert not record.converged and np.abs(found).max() < 100 * image.max()
    assert "before it ran away" in record.notes[0]


def test_a_weight_by_rule_and_a_model_of_the_zoo():
    beam, image, y = scan()
    found, record = zoo.reconstruct(y, beam, "pnp", lam="holdout", iterations=10)
    assert "holdout" in record.why and record.lipschitz > 0 and len(record.tried) > 2
    quick, _ = zoo.reconstruct(y, beam, "fbp")
    assert np.std(found - image) < np.std(quick - image)
    # Its pixels are larger than any that the model has seen.
    assert any("encoder_decoder: spacing" in note for note in record.notes)


def test_complex_images_keep_their_phase():
    axis = np.linspace(-1, 1, SIZE)
    image = (np.hypot(axis, axis[:, None]) < 0.7) * np.exp(1j * (1 + axis))
    operator = mri.CartesianMRI(np.arange(SIZE) % 3 > 0)
    y = operator.forward(image).numpy()
    found, record = zoo.reconstruct(y, operator, "pnp", denoiser=blurred, lam=0.05)
    assert found.dtype == np.complex64 and record.converged
    inside = np.abs(image) > 0
    assert np.abs(np.angle(found * image.conj())[inside]).mean() < 0.2


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(denoiser="automap_mri"), "model: expected one of images in HU.*signal"),
        (dict(denoiser="cyclegan_cbct_ct", lam=-1.0), "lam: expected a number, 0 or more"),
        (dict(denoiser=blurred, lam="discrepancy"), "lam: expected sigma or photons"),
        (dict(denoiser=blurred, sigma=-1.0), "sigma: expected positive"),
    ],
)
def test_bad_options_are_refused(options, words):
    beam, _, y = scan()
    with pytest.raises(ValueError, match=words) as error:
        zoo.reconstruct(y, beam, "pnp", **options)
    assert "Received: " in str(error.value) and "\n" not in str(error.value)
