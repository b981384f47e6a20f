"""What of an image is measured: against dense matrices and their pseudo-inverses."""

import numpy as np
import pytest

from zoo.physics import mri, separable, tomography
from zoo.reconstruction import unseen


def dense(operator) -> np.ndarray:
    """The matrix of an operator, a column for each pixel."""
    size = int(np.prod(operator.domain_shape))
    pixels = np.eye(size).reshape(size, *operator.domain_shape)
    return operator.forward(pixels).numpy().reshape(size, -1).T


def operators():
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(2, 6, 7)) + 1j * rng.normal(size=(2, 6, 7))
    mask = np.arange(6) % 3 == 0
    return {
        "few views": tomography.ParallelBeam(6, 2.0, 3, dtype="float64"),
        "lines": mri.CartesianMRI(np.repeat(mask[:, None], 7, 1), dtype="float64"),
        "coils": mri.CartesianMRI(np.repeat(mask[:, None], 7, 1), maps=maps, dtype="float64"),
        "coarse": separable.block_mean((8, 8), 2, dtype="float64"),
    }


@pytest.mark.parametrize("name", ["few views", "lines", "coils", "coarse"])
def test_null_space_is_that_of_the_dense_matrix(name):
    operator = operators()[name]
    rng = np.random.default_rng(1)
    image = rng.normal(size=operator.domain_shape)
    truth = rng.normal(size=operator.domain_shape)
    if operator.dtype.is_complex:
        image = image + 1j * rng.normal(size=image.shape)
    measured = operator.forward(truth).numpy()
    measured += 0.3 * rng.normal(size=measured.shape) * (measured != 0)
    matrix = dense(operator)
    added = (image - operator.pseudo_inverse(measured).numpy()).ravel()
    row_space = np.linalg.pinv(matrix, rcond=1e-6) @ (matrix @ added)
    found = unseen.visible(image.astype(operator.dtype.as_numpy_dtype), operator, 1e-7)
    expected = np.linalg.pinv(matrix, rcond=1e-6) @ (matrix @ image.ravel())
    np.testing.assert_allclose(found.numpy().ravel(), expected, atol=1e-5)
    # The figures themselves.
    figures = unseen.figures(image, measured, operator, sigma=0.3)
    share = np.linalg.norm(added - row_space) ** 2 / np.linalg.norm(added) ** 2
    assert figures["null_space"] == pytest.approx(share, abs=0.01)
    energy = np.linalg.norm(added) ** 2 / np.linalg.norm(image) ** 2
    assert figures["added"] == pytest.approx(energy)
    away = (matrix @ image.ravel()).reshape(measured.shape) - measured
    away = away[measured != 0]
    assert figures["misfit"] == pytest.approx(np.linalg.norm(away) / np.linalg.norm(measured))
    parts = 2 if operator.dtype.is_complex else 1
    noise = np.sqrt((np.abs(away) ** 2).sum() / (parts * away.size)) / 0.3
    assert figures["misfit_noise"] == pytest.approx(noise)
    assert unseen.figures(image, measured, operator)["misfit_noise"] is None


def test_of_the_truth_noise_is_left_and_what_is_drawn_between_views_is_unseen():
    beam = tomography.ParallelBeam(12, 2.0, 5, dtype="float64")
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.01, 0.03, (12, 12))
    exact = beam.forward(truth).numpy()
    y = exact + rng.normal(0, 0.05, exact.shape)
    figures = unseen.figures(truth, y, beam, sigma=0.05)
    assert figures["misfit_noise"] == pytest.approx(1, abs=0.15)
    quick = beam.pseudo_inverse(y).numpy()
    same = unseen.figures(quick, y, beam)
    assert same["added"] == 0 and same["null_space"] is None
    # Something that no view shows, added to the quick image.
    ghost = rng.normal(size=(12, 12))
    matrix = dense(beam)
    ghost -= (np.linalg.pinv(matrix, rcond=1e-6) @ (matrix @ ghost.ravel())).reshape(12, 12)
    drawn = unseen.figures(quick + ghost, y, beam)
    assert drawn["null_space"] == pytest.approx(1, abs=1e-3)
    assert drawn["misfit"] == pytest.approx(same["misfit"], abs=1e-5)
