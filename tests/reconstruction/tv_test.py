"""Total variation: conjugates, certificate and weights, against definitions and closed forms."""

import functools
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import zoo
from zoo.physics import fourier, mri, separable, tomography
from zoo.reconstruction import tv, weight
from zoo.reconstruction.fidelity import NAMES, Fidelity

SIZE, PHOTONS = 24, 1e4


def heads(size):
    """Nested discs, 0 to 1."""
    axis = np.linspace(-1, 1, size)
    r = np.hypot(axis * 1.2, axis[:, None])
    small = np.hypot(axis - 0.3, axis[:, None] - 0.1) < 0.3
    return (r < 0.9) * 0.8 + (r < 0.75) * 0.2 - 0.5 * small


@functools.cache
def scan():
    """A beam, an image in 1/mm, and noisy line integrals of it."""
    beam = tomography.ParallelBeam(SIZE, 8.0, 16)
    image = 0.02 * heads(SIZE)
    counts = np.random.default_rng(0).poisson(PHOTONS * np.exp(-beam.forward(image)))
    return beam, image, np.log(PHOTONS / np.maximum(counts, 1)).astype(np.float32)


def psnr(found, image):
    return -10 * np.log10(np.mean(np.abs(found - image) ** 2) / np.abs(image).max() ** 2)


def fidelity(name, kind="float64"):
    rng = np.random.default_rng(0)
    y, weights = rng.uniform(0.5, 2, 40), rng.uniform(50, 200, 40)
    weights[:5] = 0
    if kind == "complex128":
        y = y + 1j * rng.uniform(-1, 1, 40)
    return Fidelity(name, tf.constant(y), tf.constant(weights), 300.0), rng


@pytest.mark.parametrize("name", NAMES)
def test_conjugates_and_their_steps(name):
    """f* is the largest p t - f(t), and the step the least f*(q) + (q - p)^2 / (2 sigma)."""
    f, rng = fidelity(name)
    sigma = tf.constant(rng.uniform(50, 500, 40))
    p = tf.constant(rng.normal(0, 100, 40))
    q = f.step(p, sigma)
    t = np.linspace(-3, 9, 60001)[:, None] + np.zeros(40)
    largest = tf.reduce_max(q * t - f._each(t), 0)
    np.testing.assert_allclose(f.conjugate(q), tf.reduce_sum(largest), rtol=1e-4, atol=0.1)
    # By Moreau, the step and the proximal step of f add up to p.
    values = f._each(t) + 0.5 * sigma * (t - p / sigma) ** 2
    of_f = t[np.argmin(values, 0), 0]
    np.testing.assert_allclose(q / sigma + of_f, p / sigma, atol=3e-4)
    assert not q[:5].numpy().any()
    assert float(f.value(f.y)) == pytest.approx(0)


@pytest.mark.parametrize("name", ["l2", "l1"])
def test_a_complex_fidelity_turns_with_its_values(name):
    f, rng = fidelity(name, "complex128")
    turned = Fidelity(name, f.y * 1j, f.weights)
    p = tf.constant(rng.normal(0, 100, 40) + 1j * rng.normal(0, 100, 40))
    sigma = tf.ones(40, tf.float64)
    q = f.step(p, sigma)
    np.testing.assert_allclose(turned.step(p * 1j, sigma), q * 1j, atol=1e-9)
    np.testing.assert_allclose(turned.conjugate(q * 1j), f.conjugate(q))
    np.testing.assert_allclose(turned.value(p * 1j), f.value(p))


def test_gradient_and_its_adjoint():
    rng = np.random.default_rng(0)
    x, q = rng.standard_normal((5, 7)), rng.standard_normal((2, 5, 7))
    np.testing.assert_allclose(tv.gradient(x)[0, :-1], np.diff(x, axis=0))
    np.testing.assert_allclose(tv.gradient(x)[1, :, :-1], np.diff(x, axis=1))
    np.testing.assert_allclose(np.vdot(tv.gradient(x), q), np.vdot(x, tv.gradient_adjoint(q)))
    step = np.zeros((4, 6))
    step[:, 3:] = 2.5
    assert float(tv.total_variation(tf.constant(step))) == 4 * 2.5


@pytest.mark.parametrize("turn", [1, 1j])
def test_two_halves_come_nearer_by_the_weight(turn):
    """Of halves of 2 and 5, each of w columns, the best move by lam / w towards each other."""
    y = np.full((6, 8), 2.0)
    y[:, 4:] = 5.0
    if turn == 1:
        operator = separable.Separable(np.eye(6), np.eye(8), "float64")
    else:
        operator = mri.CartesianMRI(np.ones(6, bool), 8, dtype="float64")
        y = operator.forward(y * turn).numpy()
    found, record = zoo.reconstruct(y, operator, lam=0.8, sigma=1.0, tolerance=1e-8, upper=9.0)
    expected = np.where(np.arange(8) < 4, 2.2, 4.8) * turn
    np.testing.assert_allclose(found, np.tile(expected, (6, 1)), atol=1e-3)
    assert record.objective == pytest.approx(0.5 * 48 * 0.2**2 + 0.8 * 6 * 2.6, rel=1e-6)
    assert record.gap <= 1e-8 and record.converged and not record.notes


@pytest.mark.parametrize("name", NAMES)
def test_no_image_is_better_than_the_certificate_says(name):
    beam, image, y = scan()
    weights = tf.constant(PHOTONS * np.exp(-y))
    problem = tv.TotalVariation(beam, Fidelity(name, tf.constant(y), weights, PHOTONS), 0.05)
    found = problem.solve(3000.0, problem.start(), 3e-3, 600)
    assert 0 <= found.gap <= 3e-3
    bound = found.objective * (1 - found.gap)

    def objective(x):
        x = tf.constant(x, tf.float32)
        misfit = problem.fidelity.value(beam.forward(x))
        return float(misfit + 3000.0 * tv.total_variation(x))

    x = found.state.x.numpy()
    assert x.min() >= 0 and x.max() <= 0.05
    assert objective(x) == pytest.approx(found.objective, rel=1e-4)
    rng = np.random.default_rng(0)
    quick = np.clip(beam.pseudo_inverse(y).numpy(), 0, 0.05)
    others = [image, 0 * x, quick, 0.99 * x, 1.01 * x, x + 1e-4 * rng.standard_normal(x.shape)]
    assert min(map(objective, others)) > bound
    # Any dual variables, however bad, bound it too.
    for share in (0.0, 0.5, 2.0):
        p = problem.fidelity.step(share * found.state.p, problem.problem.rays)
        state = found.state._replace(p=p, q=share / 2 * found.state.q)
        gap, _ = problem._gap(state._replace(g=problem._slope(state)), 3000.0)
        assert gap >= found.gap - 1e-6


@pytest.mark.parametrize("rule, decibels", [("discrepancy", 0.5), ("sure", 0.3), ("holdout", 0.5)])
def test_weights_are_found_without_the_image(rule, decibels):
    """Near the best of a sweep that knows the image."""
    beam, image, y = scan()
    found, record = zoo.reconstruct(y, beam, lam=rule, photons=PHOTONS, tolerance=2e-4)
    assert psnr(found, image) > best_weight()[0] - decibels
    assert psnr(found, image) > psnr(zoo.reconstruct(y, beam, "fbp", filter="hann")[0], image) + 3
    assert rule in record.why and len(record.tried) > 1 and record.lam > 0
    if rule == "discrepancy":
        seen = beam.forward(np.ones((SIZE, SIZE))).numpy() > 0
        misfit = PHOTONS * np.exp(-y) * (beam.forward(found).numpy() - y) ** 2
        # With what the image took of the noise it is what noise makes of it; without, less.
        total = min(record.tried, key=lambda pair: abs(pair[0] - record.lam))[1]
        assert total == pytest.approx(np.count_nonzero(seen), rel=0.03)
        assert misfit[seen].sum() < 0.9 * total


def test_what_is_held_out_of_a_beam_are_whole_views():
    """One of each tenth, so that the others see the image all the same."""
    beam = tomography.ParallelBeam(16, 4.0, 40)
    weights = tf.random.uniform(beam.range_shape, 0.5, 1.0, seed=1)
    held, kept = weight.held_out(beam, weights, np.random.default_rng(0))
    np.testing.assert_array_equal(held + kept, weights)
    views = np.flatnonzero((held.numpy() > 0).any(1))
    assert (views // 10).tolist() == [0, 1, 2, 3]
    assert (held.numpy()[views] > 0).all()


def test_held_out_views_ask_for_the_strongest_prior_that_fits_as_well():
    """Of a finer grid's rays the least misfit lets what the model gets wrong in, as structure."""
    views, size = 40, 24
    beam = tomography.ParallelBeam(size, 8.0, views)
    fine = tomography.ParallelBeam(2 * size, 4.0, views, 2 * beam.detectors, 4.0)
    image = 0.02 * heads(2 * size)
    y = fine.forward(image).numpy().reshape(views, -1, 2).mean(-1)
    y += np.random.default_rng(0).normal(0, 5e-3, y.shape)
    truth = image.reshape(size, 2, size, 2).mean((1, 3))
    options = {"sigma": 5e-3, "tolerance": 1e-3, "iterations": 300}
    found, record = zoo.reconstruct(y, beam, **options)
    least = min(record.tried, key=lambda pair: pair[1])[0]
    assert least < record.lam < max(lam for lam, _ in record.tried)
    assert psnr(found, truth) > psnr(zoo.reconstruct(y, beam, lam=least, **options)[0], truth)


@pytest.mark.parametrize("rule", ["discrepancy", "sure"])
def test_noise_that_is_not_as_stated_is_told(rule):
    """More values than pixels, and an error a hundred times the noise that is stated."""
    beam = tomography.ParallelBeam(8, 8.0, 24)
    y = beam.forward(0.02 * heads(8)).numpy()
    y = y + np.random.default_rng(0).normal(0, 0.1, y.shape)
    options = {"tolerance": 1e-2, "iterations": 40}
    _, record = zoo.reconstruct(y, beam, lam=rule, sigma=1e-3, **options)
    assert any("is it as stated?" in note for note in record.notes)
    if rule == "discrepancy":  # the strongest prior of those that leave about as little
        least = min(total for _, total in record.tried)
        enough = [lam for lam, total in record.tried if total <= 1.1 * least]
        assert record.lam == pytest.approx(max(enough))


@functools.cache
def best_weight():
    beam, image, y = scan()
    found = []
    for lam in 250 * 2.0 ** np.arange(6):
        result, _ = zoo.reconstruct(y, beam, lam=lam, photons=PHOTONS, tolerance=1e-3)
        found.append((psnr(result, image), lam))
    return max(found)


def test_kspace_with_coils_and_unknown_noise():
    size = 24
    axis = np.linspace(-1, 1, size)
    maps = np.stack([np.exp(-((axis - s) ** 2) + 1j * axis[:, None] * s) for s in (-1, 0, 1)])
    lines = fourier.random_lines(size, 2, 0, 0.15)
    operator = mri.CartesianMRI(lines, maps=maps)
    image = heads(size) * np.exp(1j * axis)
    noise = np.random.default_rng(0).normal(0, 0.03, (2, *operator.range_shape))
    y = operator.forward(image).numpy() + (noise[0] + 1j * noise[1]) * operator.mask
    found, record = zoo.reconstruct(y, operator, tolerance=1e-3)
    assert "holdout" in record.why and record.converged
    filled, _ = zoo.reconstruct(y, operator, "zero_filled")
    assert psnr(found, image) > psnr(filled, image) + 3


def test_an_image_that_reaches_its_bound_and_too_few_iterations_are_told():
    beam, _, y = scan()
    told = []
    _, record = zoo.reconstruct(
        y, beam, lam=1000.0, photons=PHOTONS, upper=0.01, iterations=20, tolerance=1e-9,
        progress=lambda done, gap: told.append((done, gap)),
    )  # fmt: skip
    assert not record.converged and record.iterations == 20
    assert "bound of 0.01" in record.notes[0] and "20 iterations" in record.notes[1]
    assert told == [(20, record.gap)]
    assert record.to_dict()["why"] == "as given"


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(lam="discrepancy"), "lam: expected sigma or photons"),
        (dict(lam="best", photons=1e4), "lam: expected a number or discrepancy.*'best'"),
        (dict(lam=-1.0), "lam: .*-1"),
        (dict(lam=np.inf), "lam: .*inf"),
        (dict(fidelity="poisson"), "fidelity: expected photons"),
        (dict(fidelity="l3"), "fidelity: .*'l3'"),
        (dict(sigma=0.0), "sigma: expected positive"),
        (dict(sigma=np.ones(3)), "sigma: "),
        (dict(sigma=1.0, photons=1e4), "sigma, photons: expected one"),
        (dict(photons=-1.0), "photons: .*-1"),
        (dict(upper=0.0), "upper: "),
        (dict(lam=1.0, iterations=0), "iterations: "),
    ],
)
def test_bad_options_are_refused(options, words):
    beam, _, y = scan()
    with pytest.raises(ValueError, match=words) as error:
        zoo.reconstruct(y, beam, **options)
    assert "Received: " in str(error.value) and "\n" not in str(error.value)


def test_a_slice_of_air_is_air():
    beam, _, y = scan()
    image, record = zoo.reconstruct(0 * y, beam, lam=1.0, photons=PHOTONS)
    assert not image.any() and record.converged and record.gap == 0


def test_bad_methods_and_shapes_are_refused():
    beam, _, y = scan()
    with pytest.raises(zoo.UnknownName, match="no method is called 'tw'"):
        zoo.reconstruct(y, beam, "tw")
    with pytest.raises(ValueError, match=r"measured: expected shape \(16, 34\).*\(16, 33\)"):
        zoo.reconstruct(y[:, 1:], beam)
    with pytest.raises(ValueError, match="operator: expected rays for fbp. Received: Separable"):
        zoo.reconstruct(np.eye(4), separable.Separable(np.eye(4), np.eye(4)), "fbp")


def test_the_example_of_the_docs_runs(capsys):
    page = Path(__file__).parents[2] / "docs" / "reconstruction.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    names: dict = {}
    exec(code, names)
    assert "holdout: " in capsys.readouterr().out
    true = np.where(names["disc"], 0, -1000).reshape(64, 2, 64, 2).mean((1, 3))
    quick = names["radon"].attenuation_to_hu(names["quick"])
    assert np.std(names["hu"] - true) < 0.5 * np.std(quick - true)
