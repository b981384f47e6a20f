"""tools/reconstruction_stability.py: what it looks for, against what is known of linear maps."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tools import reconstruction_methods as methods
from tools import reconstruction_stability as stability
from zoo.physics import mri, tomography

SIZE = 24


def ray_case():
    beam = tomography.ParallelBeam(12, 8.0, 8)
    axis = np.linspace(-1, 1, 12)
    target = np.where(np.hypot(axis, axis[:, None]) < 0.8, 0.0, -1000.0)
    y = beam.forward(0.0192 * (target / 1000 + 1)).numpy()
    return methods.Case(y, beam, 0.01, target.astype(np.float32))


def test_the_worst_change_of_a_linear_map_is_its_first_singular_vector():
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(9, 12)).astype(np.float32)
    source = tf.constant(rng.normal(size=(12, 1)), tf.float32)

    def image(values):
        return tf.linalg.matvec(matrix, values[:, 0])

    change = stability.climbed(image, source, steps=60)
    assert float(tf.norm(change) / tf.norm(source)) == pytest.approx(0.01, rel=1e-4)
    gain = np.linalg.norm(matrix, 2) * np.linalg.norm(source) / np.linalg.norm(image(source))
    assert stability.changed(image, source, change) == pytest.approx(0.01 * gain, rel=1e-2)


def test_what_was_not_measured_is_not_changed():
    source = tf.constant(np.arange(8.0).reshape(4, 2) * [[0], [1], [0], [1]], tf.float32)
    change = stability.climbed(lambda values: values * 3, source, steps=2)
    assert (change.numpy().any(-1) == [False, True, False, True]).all()


def test_an_image_without_gradients_is_asked_by_its_answers():
    """Of the transpose, the way there is the power method on A A*."""
    case = ray_case()

    def image(source):
        return case.operator.adjoint(source[..., 0])

    source = stability.source_of(case)
    noise = tf.random.stateless_normal(source.shape, [1, 1])
    start = 0.01 * tf.norm(source) * noise / tf.norm(noise)
    found = stability.answered(image, case, start, steps=12)
    gain = case.operator.norm() * tf.norm(source) / tf.norm(image(source))
    assert found == pytest.approx(0.01 * float(gain), rel=0.02)
    assert found > 2 * stability.changed(image, source, start)


@pytest.mark.parametrize("kept", [1.0, 0.3])
def test_the_share_of_a_disc_that_is_left(kept):
    lines = np.ones(SIZE, bool)
    axis = np.linspace(-1, 1, SIZE)
    target = (np.hypot(axis, axis[:, None]) < 0.9).astype(np.float32)
    operator = mri.CartesianMRI(lines)
    case = methods.Case(operator.forward(target).numpy(), operator, 0.01, target)

    def image(source):
        whole = operator.adjoint(tf.complex(source[..., 0], source[..., 1]))
        return kept * tf.math.abs(whole)

    assert stability.disc_left(image, case, 0.1) == pytest.approx(kept, rel=1e-3)


def test_models_are_tried_from_the_amount_that_they_learned_from(monkeypatch):
    monkeypatch.setattr(methods, "SPARSE", dataclasses.replace(methods.SPARSE, size=32))
    for subject in stability.SUBJECTS.values():
        cases = [subject.case(amount) for amount in list(subject.amounts.values())[:2]]
        np.testing.assert_array_equal(cases[0].target, cases[1].target)
        apart = [np.count_nonzero(case.measured) for case in cases]
        noise = [np.mean(case.sigma) for case in cases]
        assert apart[1] > apart[0] or noise[1] < noise[0]
