import numpy as np
import pytest
import tensorflow as tf

import harness
from zoo import loading
from zoo.domain import Domain

SIGNAL = Domain(modality="MR", unit="signal", window=(0.0, 200.0))
TINY = {"base_filters": 4, "blocks": 1, "crop": 32}
TINY |= {"discriminator_filters": 4, "discriminator_layers": 1}

pytestmark = pytest.mark.parametrize("name", ["cyclegan", "unit"])


def test_either_direction_can_be_served(name, tmp_path):
    there = harness.build(name, TINY, harness.HU, SIGNAL)
    back = harness.build(name, TINY | {"direction": "BtoA", "seed": 1}, harness.HU, SIGNAL)
    assert (back.source, back.target) == (SIGNAL, harness.HU)
    twin = type(back).from_config(back.get_config())
    assert (twin.source, twin.domain_a) == (SIGNAL, harness.HU)
    assert twin.get_config() == back.get_config()
    sha256 = there.save_network(tmp_path / "net.weights.h5")
    loading.load_network(back, tmp_path / "net.weights.h5", sha256)
    network = there.network
    image = np.random.default_rng(0).uniform(0, 200, (1, 32, 32, 1)).astype("float32")
    values = network.decoder_a(network.encoder_b(SIGNAL.encode(image)))
    np.testing.assert_allclose(back.translate(image), harness.HU.decode(values), atol=0.01)
    values = network.decoder_b(network.encoder_a(harness.HU.encode(image)))
    np.testing.assert_allclose(there.translate(image), SIGNAL.decode(values), atol=0.01)


def test_test_step_measures_the_direction_that_is_served(name):
    back = harness.build(name, TINY | {"direction": "BtoA"}, harness.HU, SIGNAL)
    batch = {"source": tf.fill([1, 32, 32, 1], -500.0), "target": tf.fill([1, 32, 32, 1], 50.0)}
    error = np.abs(back(batch["target"]).numpy() + 500.0).mean()
    assert float(back.test_step(batch)["mae"]) == pytest.approx(error, rel=1e-5)


def test_picture_shows_both_ways_and_back(name):
    residual = {"output": "residual"} if name == "cyclegan" else {}  # of UNIT there is none
    for overrides, target in (({}, SIGNAL), (residual, harness.HU)):
        model = harness.build(name, TINY | overrides, harness.HU, target)
        example = {"source": np.zeros((37, 50, 1), "float32"), "target": np.ones((41, 40, 1), "f4")}
        picture = model.picture([example] * 2)
        assert picture.dtype == np.uint8
        assert picture.shape[1] >= 6 * 100


def test_served_weights_are_the_moving_average(name):
    harness.served_weights_are_the_moving_average(name, TINY, harness.batch_of(32, 2), "trained")
