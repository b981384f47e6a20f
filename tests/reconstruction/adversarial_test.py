"""The critic's method, against linear systems that a linear critic makes of it."""

import functools
import itertools
import json

import numpy as np
import pytest
import tensorflow as tf

import harness
import zoo
from zoo import command_line
from zoo.domain import Domain
from zoo.physics import mri, radon, tomography
from zoo.reconstruction import adversarial, weight
from zoo.reconstruction.fidelity import Fidelity

SIZE, SIGMA = 16, 0.02
TINY = {"base_filters": 4, "levels": 1}


def discs(count, seed):
    """Attenuation `[count, n, n]` of discs."""
    rng, axis = np.random.default_rng(seed), np.linspace(-1, 1, SIZE)
    images = np.zeros((count, SIZE, SIZE))
    for image, _ in itertools.product(images, range(3)):
        r, c = rng.uniform(-0.4, 0.4, 2)
        image[np.hypot(axis[:, None] - r, axis - c) < rng.uniform(0.2, 0.5)] = rng.uniform(0, 0.03)
    return images


@functools.cache
def beam(dtype="float32"):
    return tomography.ParallelBeam(SIZE, 10.0, 32, dtype=dtype)


def measured(count, seed, views=beam):
    """Images, and their measurements with noise."""
    images = discs(count, seed)
    y = views().forward(images).numpy()
    return images, y + np.random.default_rng(seed).normal(0, SIGMA, y.shape)


def untrained(**fields):
    return harness.build("critic", TINY | fields)


def rms(values):
    """Of an image each, `[N, 1]`."""
    return tf.sqrt(tf.reduce_mean(tf.square(values), (1, 2)) + 1e-12)


def linear(model, steep=1.0):
    """The same model with a critic of this slope everywhere."""
    model.critic = lambda values: steep * tf.reduce_mean(values, (1, 2))
    return model


@pytest.mark.parametrize("kind", ["CT", "MR"])
def test_the_prior_is_nowhere_steeper_than_one_in_the_operators_unit(kind):
    operator = beam() if kind == "CT" else mri.CartesianMRI(np.arange(SIZE) % 3 > 0)
    domain = Domain(modality="MR", unit="signal", window=(0.0, 4.0), quick="zero-filled")
    kinds = (domain, domain) if operator.dtype.is_complex else ()
    model = linear(harness.build("critic", TINY, *kinds))
    image = tf.cast(0.5 + discs(1, 0)[0], operator.dtype)
    slope, way = adversarial.prior(model, operator, image)
    height, down = slope(image)
    assert float(tf.norm(tf.abs(down))) == pytest.approx(1, rel=1e-4)
    further, _ = slope(image + tf.cast(0.01, operator.dtype) * down)
    assert float(further - height) == pytest.approx(0.01, rel=0.02)
    # The way is that of the step that is served.
    half = model.source.span / 2 * (1.0 if kinds else radon.MU_WATER / 1000)
    assert way == pytest.approx(SIZE * half * model.length, rel=1e-5)


def test_a_first_step_is_the_solution_of_a_linear_system():
    """(A* W A + rho) x' = A* W y + rho x - lam R'(x)."""
    _, (y,) = measured(1, 1)
    x = beam().pseudo_inverse(y, "hann")
    slope, _ = adversarial.prior(linear(untrained()), beam(), x)
    lam, length = 3e5, 0.01
    fidelity = Fidelity("l2", tf.cast(y, tf.float32), tf.fill(y.shape, 1 / SIGMA**2))
    first = next(adversarial.descent(beam(), fidelity, slope, lam, length, x))
    units = np.eye(SIZE**2).reshape(-1, SIZE, SIZE).astype("float32")
    a = beam().forward(units).numpy().reshape(SIZE**2, -1).T.astype(float) / SIGMA
    system = a.T @ a + lam / length * np.eye(SIZE**2)
    right = a.T @ (y.ravel() / SIGMA) + lam / length * np.ravel(x) - lam * np.ravel(slope(x)[1])
    expected = np.linalg.solve(system, right).reshape(SIZE, SIZE)
    assert np.std(first.x - expected) < 0.02 * np.std(expected - x)
    height = float(slope(first.x)[0])
    misfit = np.sum((beam().forward(first.x).numpy() - y) ** 2) / SIGMA**2
    assert first.objective == pytest.approx(misfit / 2 + lam * height, rel=1e-3)


def test_the_objective_falls_from_each_iterate_to_the_next():
    _, (y,) = measured(1, 1)
    x = beam().pseudo_inverse(y, "hann")
    slope, way = adversarial.prior(untrained(), beam(), x)
    fidelity = Fidelity("l2", tf.cast(y, tf.float32), tf.fill(y.shape, 1 / SIGMA**2))
    start = float(fidelity.value(beam().forward(x))) + 1e3 * float(slope(x)[0])
    steps = adversarial.descent(beam(), fidelity, slope, 1e3, 50 * way, x)
    values = [start, *(step.objective for step in itertools.islice(steps, 10))]
    assert (np.diff(values) < 0).all() and len(values) > 1


def test_it_ends_where_nothing_lower_is_near():
    x = tf.constant(discs(1, 0)[0], tf.float32)
    y = beam().forward(x)

    def slope(image):  # rises wherever one goes
        return tf.norm(image - x), tf.ones_like(image) / SIZE

    fidelity = Fidelity("l2", y, tf.fill(y.shape, 1 / SIGMA**2))
    assert list(adversarial.descent(beam(), fidelity, slope, 1e3, 0.01, x)) == []


def test_the_weight_is_what_noise_pulls():
    _, (y,) = measured(1, 1)
    options = {"critic": untrained(), "sigma": SIGMA, "iterations": 3}
    _, record = zoo.reconstruct(y, beam(), "adversarial", **options)
    noise = np.random.default_rng(5).normal(0, SIGMA, (50, *y.shape))
    pulls = np.linalg.norm(beam().adjoint(noise / SIGMA**2), axis=(1, 2))
    assert record.lam == pytest.approx(pulls.mean(), rel=0.1)
    assert record.why.startswith("noise: stopped by holdout at a misfit of ")


def test_a_critic_that_knows_the_image_leads_to_it():
    (image,), (y,) = measured(1, 9)
    right, errors = radon.attenuation_to_hu(image), []
    for steep in (0.0, 1.0):
        model = untrained()
        true = tf.constant(model.source.scale(right), tf.float32)[None, ..., None]
        far = lambda values, steep=steep, true=true: steep * rms(values - true)  # noqa: E731
        model.critic = far
        found, _ = zoo.reconstruct(y, beam(), "adversarial", critic=model, sigma=SIGMA)
        errors.append(np.std(found - image))
    assert errors[1] < 0.5 * errors[0]


def test_the_stops():
    _, (y,) = measured(1, 3)
    options = {"critic": untrained(), "sigma": SIGMA}
    _, record = zoo.reconstruct(y, beam(), "adversarial", **options)
    values = [value for _, value in record.tried]
    assert record.converged and record.iterations == 1 + int(np.argmin(values))
    weights = weight.of_noise(tf.cast(y, tf.float32), beam(), SIGMA, None)
    image, record = zoo.reconstruct(y, beam(), "adversarial", stop="discrepancy", **options)
    misfit = np.sum(weights * (beam().forward(image).numpy() - y) ** 2)
    assert misfit == pytest.approx(record.tried[record.iterations - 1][1], rel=1e-3)
    assert misfit <= np.count_nonzero(weights) < min([v for _, v in record.tried[:-1]], default=1e9)
    _, record = zoo.reconstruct(y, beam(), "adversarial", iterations=1, **options)
    assert not record.converged and "stopped after 1 iterations" in record.notes[-1]


@pytest.mark.parametrize(
    "options, words",
    [
        ({"critic": "encoder_decoder_ldct"}, "critic: expected a model of critic"),
        ({"sigma": None}, "lam: expected a number, or sigma"),
        ({"lam": -1.0}, "lam: expected a number above 0"),
        ({"lam": "sure"}, "lam: expected a number above 0"),
        ({"stop": "variance"}, "stop: expected one of holdout, disc"),
        ({"lam": 1.0, "sigma": None, "stop": "discrepancy"}, "stop: expected one of"),
        ({"iterations": 0}, "iterations: expected 1 or more"),
        ({"patience": 0}, "patience: expected 1 or more"),
    ],
)
def test_bad_options_are_refused(options, words):
    _, (y,) = measured(1, 3)
    options = {"critic": untrained(), "sigma": SIGMA} | options
    with pytest.raises(ValueError, match=words) as error:
        zoo.reconstruct(y, beam(), "adversarial", **options)
    assert "Received: " in str(error.value) and "\n" not in str(error.value)


def test_a_critic_of_another_unit_is_refused():
    _, (y,) = measured(1, 3)
    signal = Domain(modality="MR", unit="signal", window=(0.0, 4.0))
    model = harness.build("critic", TINY, signal, signal)
    with pytest.raises(ValueError, match="model: expected one of images in HU. Received: signal"):
        zoo.reconstruct(y, beam(), "adversarial", critic=model, sigma=SIGMA)


def test_on_the_command_line(data_dir, tmp_path, capsys):
    base = ["zoo", "reconstruct", "--dataset=ct_recon/phantom_tiny", f"--data_dir={data_dir}",
            "--limit=1", "--method=adversarial", "--sigma=data", "--iterations=2"]  # fmt: skip
    assert command_line.main([*base, f"--output={tmp_path / 'none'}"]) == 2
    assert "adversarial: expected --critic. Received: none" in capsys.readouterr().err
    fields = ["--set=base_filters=4", "--set=levels=1", "--set=crop=32", "--steps=2"]
    run = f"--workdir={tmp_path / 'run'}"
    train = ["zoo", "train", "--model=critic", "--dataset=ct_recon/phantom_fbp_tiny", run]
    assert command_line.main([*train, f"--data_dir={data_dir}", *fields]) == 0
    given = [f"--critic={tmp_path / 'run'}", f"--output={tmp_path / 'out'}"]
    assert command_line.main([*base, *given]) in (0, 1)
    (found,) = json.loads((tmp_path / "out" / "records.json").read_text())["images"]
    assert found["method"] == "adversarial" and found["iterations"] in (1, 2)
    assert found["psnr"] > 20 and found["lam"] > 0
