"""Total variation against CVXPY: the same objective, by another solver."""

import numpy as np
import pytest

import zoo
from zoo.physics import fourier, mri, tomography
from zoo.reconstruction import tv

pytestmark = pytest.mark.physics


def dense(operator):
    units = np.eye(int(np.prod(operator.domain_shape))).reshape(-1, *operator.domain_shape)
    return operator.forward(units).numpy().reshape(len(units), -1).T


def disc(size):
    axis = np.linspace(-1, 1, size)
    return (np.hypot(axis, axis[:, None]) < 0.7) + 0.3 * (np.hypot(axis - 0.2, axis[:, None]) < 0.3)


def solved(size, misfit, lam, upper, real):
    """The least misfit(x) + lam TV(x) over the box, x as a vector by rows."""
    import cvxpy

    parts = [cvxpy.Variable((size, size)) for _ in range(1 if real else 2)]
    edges = []
    for part in parts:
        down = cvxpy.vstack([part[1:] - part[:-1], np.zeros((1, size))])
        right = cvxpy.hstack([part[:, 1:] - part[:, :-1], np.zeros((size, 1))])
        edges += [cvxpy.vec(down, order="C"), cvxpy.vec(right, order="C")]
    variation = cvxpy.sum(cvxpy.norm(cvxpy.vstack(edges), 2, axis=0))
    vectors = [cvxpy.vec(part, order="C") for part in parts]
    if real:
        bounds = [parts[0] >= 0, parts[0] <= upper]
    else:
        bounds = [cvxpy.norm(cvxpy.vstack(vectors), 2, axis=0) <= upper]
    problem = cvxpy.Problem(cvxpy.Minimize(misfit(*vectors) + lam * variation), bounds)
    return problem.solve(solver=cvxpy.CLARABEL)


@pytest.mark.parametrize("name", ["l2", "poisson", "l1"])
def test_ct_has_the_objective_of_cvxpy(name):
    import cvxpy

    size, photons = 32, 1e4
    beam = tomography.ParallelBeam(size, 10.0, 12, dtype="float64")
    p = beam.forward(0.02 * disc(size)).numpy()
    counts = np.random.default_rng(0).poisson(photons * np.exp(-p))
    y = np.log(photons / np.maximum(counts, 1))
    matrix = dense(beam)
    seen = matrix.sum(1) > 0
    matrix, flat = matrix[seen], y.ravel()[seen]
    n = photons * np.exp(-flat)

    def misfit(x):
        away = matrix @ x - flat
        if name == "l2":
            return 0.5 * cvxpy.sum_squares(cvxpy.multiply(np.sqrt(n), away))
        if name == "l1":
            return cvxpy.sum(cvxpy.multiply(np.sqrt(n), cvxpy.abs(away)))
        return cvxpy.sum(cvxpy.multiply(n, cvxpy.exp(-away) - 1 + away))

    expected = solved(size, misfit, 800.0, 0.05, True)
    _, record = zoo.reconstruct(
        y, beam, lam=800.0, fidelity=name, photons=photons, upper=0.05, tolerance=6e-5
    )
    assert record.converged
    assert record.objective == pytest.approx(expected, rel=1e-4)
    assert record.objective * (1 - record.gap) <= expected * (1 + 1e-6)


def test_mri_has_the_objective_of_cvxpy():
    import cvxpy

    size = 32
    operator = mri.CartesianMRI(fourier.random_lines(size, 3, 0, 0.1), dtype="float64")
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((2, size, size))
    image = disc(size) * np.exp(1j * np.linspace(0, 1, size))
    y = operator.forward(image).numpy() + 0.05 * (noise[0] + 1j * noise[1]) * operator.mask
    matrix = dense(operator)[operator.mask.ravel()]
    flat = y[operator.mask]

    def misfit(real, imaginary):
        first = matrix.real @ real - matrix.imag @ imaginary - flat.real
        second = matrix.real @ imaginary + matrix.imag @ real - flat.imag
        return (cvxpy.sum_squares(first) + cvxpy.sum_squares(second)) / (2 * 0.05**2)

    expected = solved(size, misfit, 10.0, 3.0, False)
    found, record = zoo.reconstruct(y, operator, lam=10.0, sigma=0.05, upper=3.0, tolerance=3e-5)
    assert record.objective == pytest.approx(expected, rel=1e-4)
    assert float(tv.total_variation(found)) < float(tv.total_variation(operator.adjoint(y)))
