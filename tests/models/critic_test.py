"""Tests of zoo/models/critic.py."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

import harness
import zoo
from zoo.models import critic
from zoo.models.critic import CriticRecipe

TINY = {"base_filters": 4, "levels": 2}


def test_contract(tmp_path, monkeypatch, two_replicas):
    harness.run_translator_test(
        "critic",
        TINY,
        lambda count, seed: harness.batch_of(32, count, seed),
        tmp_path,
        monkeypatch,
        two_replicas,
    )


def test_the_layers_are_those_of_the_docstring():
    network = critic.critic(CriticRecipe(), 1)
    plan = [(1, 16, 3), (16, 32, 4), (32, 32, 3), (32, 64, 4), (64, 64, 3), (64, 64, 4)]
    plan.append((64, 64, 3))
    assert network.count_params() == sum(k * k * a * b + b for a, b, k in plan) + 64
    assert network(np.zeros((2, 40, 24, 1), np.float32)).shape == (2, 1)


@pytest.mark.parametrize("steep, expected", [(3.0, 4.0), (0.5, 0.0)])
def test_the_penalty_is_one_sided_and_of_no_size(steep, expected):
    """The mean over an image of n pixels has the slope 1, by root mean squares."""
    model = harness.build("critic", TINY)
    model.critic = lambda x: steep * tf.reduce_mean(x, (1, 2))
    for size in (8, 24):
        batch = harness.batch_of(size, 2)
        found = model.penalty(batch["target"], batch["source"], batch["seed"])
        assert float(found) == pytest.approx(expected, abs=1e-4)


def test_what_is_served_is_a_step_down():
    model = harness.build("critic", TINY)
    image = harness.batch_of(16, 1)["source"]
    values = model.source.scale(image)
    with tf.GradientTape() as tape:
        tape.watch(values)
        score = model.critic(values)
    down = tape.gradient(score, values)
    expected = model.target.decode(values - model.length * 16**2 * down)
    np.testing.assert_allclose(model(image), expected, rtol=1e-4, atol=0.01)


def test_it_learns_which_images_are_right_and_stays_flat():
    model = harness.build("critic", TINY | {"base_filters": 8, "learning_rate": 3e-3, "clip": 0.2})
    model.compile()
    rng = np.random.default_rng(0)
    true = np.repeat(np.repeat(rng.uniform(-700, 700, (32, 4, 4, 1)), 8, 1), 8, 2)
    quick = true + rng.normal(0, 150, true.shape)
    pairs = {"source": quick.astype("float32"), "target": true.astype("float32")}
    train, held = ({k: v[at] for k, v in pairs.items()} for at in (slice(24), slice(24, 32)))
    model.fit(train, epochs=60, batch_size=8, verbose=0)
    high, low = (model.source.scale(held[key]) for key in ("source", "target"))
    apart = np.sqrt(np.mean((high - low) ** 2, (1, 2, 3)))
    rise = (model.critic(high) - model.critic(low))[:, 0] / apart
    assert rise.numpy().min() > 0.25 and rise.numpy().max() < 1.2
    quality = [np.std(image - held["target"]) for image in (held["source"], model(held["source"]))]
    assert quality[1] < 0.95 * quality[0]


def test_images_of_two_kinds_are_refused():
    other = dataclasses.replace(harness.HU, window=(0.0, 100.0))
    with pytest.raises(ValueError, match="dataset: expected quick and true images .*Received: "):
        zoo.load("critic", source=harness.HU, target=other)
