import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import harness
from zoo import loading, losses
from zoo.domain import Domain
from zoo.models import unit
from zoo.models.unit import UnitRecipe
from zoo.step import descend

TINY = {"base_filters": 4, "blocks": 1, "crop": 32, "discriminator_filters": 4}
TINY |= {"discriminator_layers": 2, "discriminator_scales": 2}
SIGNAL = Domain(modality="MR", unit="signal", window=(0.0, 200.0))


def trainable(*networks: keras.Model) -> int:
    return sum(int(np.prod(v.shape)) for n in networks for v in n.trainable_variables)


def test_networks_have_the_published_number_of_parameters():
    recipe = UnitRecipe()
    block = functools.partial(unit.residual_block, 256, "instance")
    halves = unit.encoder(3, recipe, block()), unit.decoder(3, recipe, block())
    assert trainable(*halves) == 11_140_483
    assert trainable(unit.multiscale_discriminator(3, recipe)) == 8_271_171


def test_contract(tmp_path, monkeypatch, two_replicas):
    batch = functools.partial(harness.batch_of, 32)
    # Small weights: steps of plain descent with the authors' are long enough to be chaotic.
    options = TINY | {"lambda_reconstruction": 1.0, "lambda_cycle": 1.0}
    harness.run_translator_test("unit", options, batch, tmp_path, monkeypatch, two_replicas)


def test_shared_weights_are_one_block_in_each_half(tmp_path):
    apart, shared = (harness.build("unit", TINY | {"share_weights": s}) for s in (False, True))
    block = trainable(unit.residual_block(16, "instance"))
    assert trainable(apart.network) - trainable(shared.network) == 2 * block
    network = shared.network
    for halves in ((network.encoder_a, network.encoder_b), (network.decoder_a, network.decoder_b)):
        ids = [{id(v) for v in half.trainable_variables} for half in halves]
        assert len(ids[0] & ids[1]) == 4
    sha256 = shared.save_network(tmp_path / "net.weights.h5")
    twin = type(shared).from_config(shared.get_config())
    loading.load_network(twin, tmp_path / "net.weights.h5", sha256)
    assert twin.weights_hash == shared.weights_hash


def test_codes_have_noise_of_each_examples_own_in_training_only():
    model = harness.build("unit", TINY)
    code = tf.zeros([4, 8, 8, 16])
    seeds = tf.constant([[0, 1], [0, 2], [0, 1], [1, 1]])
    noise = model._noisy(code, seeds, 0).numpy()
    assert abs(noise.std() - 1.0) < 0.05
    np.testing.assert_array_equal(noise[0], noise[2])
    assert all(np.abs(noise[0] - noise[i]).max() > 0 for i in (1, 3))
    assert np.abs(noise - model._noisy(code, seeds, 1)).max() > 0
    image = np.random.default_rng(0).uniform(-900, 900, (32, 32)).astype("float32")
    np.testing.assert_array_equal(model.translate(image), model.translate(image))


def test_weight_decay_is_added_to_the_gradient():
    model = harness.build("unit", TINY | {"weight_decay": 0.1})
    weight = tf.Variable([2.0, -3.0])
    optimizer = keras.optimizers.SGD(0.5)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(4.0 * weight)
    descend(optimizer, tape, loss, [weight], model.recipe.weight_decay)
    np.testing.assert_allclose(weight, [2 - 0.5 * (4 + 0.2), -3 - 0.5 * (4 - 0.3)], rtol=1e-6)


def test_learning_rate_is_halved():
    model = harness.build("unit", TINY | {"learning_rate": 1e-4, "halve_every": 10})
    model.compile()
    schedule = model.generator_optimizer._learning_rate
    rates = [float(schedule(step)) for step in (0, 9, 10, 25)]
    np.testing.assert_allclose(rates, [1e-4, 1e-4, 5e-5, 2.5e-5], rtol=1e-5)


def test_discriminators_judge_the_image_and_its_averages():
    judge = unit.multiscale_discriminator(1, UnitRecipe(discriminator_filters=4))
    assert [s.shape for s in judge(tf.zeros([1, 128, 64, 1]))] == [
        (1, 8, 4, 1),
        (1, 4, 2, 1),
        (1, 2, 1, 1),
    ]
    with pytest.raises(ValueError, match="crop: 3 discriminators of 4 layers need 64 or more"):
        UnitRecipe(crop=32)


def test_perceptual_loss_ignores_the_features_contrast(monkeypatch):
    inputs = keras.Input((None, None, 1))
    extractor = keras.Model(inputs, keras.layers.Conv2D(4, 3, use_bias=False)(inputs))
    monkeypatch.setattr(losses, "feature_extractor", lambda *_: extractor)
    model = harness.build("unit", TINY | {"lambda_perceptual": 1.0})
    model.compile()
    image = tf.random.normal([1, 32, 32, 1], seed=0)
    assert float(model.perceptual(image, 0.5 * image + 0.1)) < 1e-3
    assert float(model.perceptual(image, tf.roll(image, 3, 1))) > 0.1
    assert "perceptual" in model.train_step(harness.batch_of(32, 1))
    with pytest.raises(ValueError, match="lambda_perceptual: source and target need as many"):
        harness.build("unit", TINY | {"lambda_perceptual": 1.0}, target=Domain(channels=3))


def test_discriminators_have_a_rate_of_their_own():
    model = harness.build("unit", TINY | {"learning_rate": 1e-3, "discriminator_rate": 4e-3})
    model.compile()
    assert float(model.discriminator_optimizer.learning_rate) == pytest.approx(4e-3)
    assert float(model.generator_optimizer.learning_rate) == pytest.approx(1e-3)


def test_images_without_norm_do_not_begin_saturated():
    model = harness.build("unit", TINY | {"norm": "none"})
    values = model.decoded(
        "b", 3 * tf.random.normal([2, 8, 8, 16], seed=0), tf.zeros([2, 32, 32, 1])
    )
    assert np.mean(np.abs(values) < 0.99) > 0.9
