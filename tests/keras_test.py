"""Keras's own conventions are kept or refused, and never ignored."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import harness
import zoo
from runs import RUNS
from zoo import loading
from zoo.step import example_seeds, random_normal, random_uniform

TINY = {"base_filters": 2, "levels": 2}


def arrays() -> tuple[np.ndarray, np.ndarray]:
    pairs = harness.batch_of(16, 6)
    return pairs["source"].numpy(), pairs["target"].numpy()


def rate(learning_rate: float) -> keras.optimizers.Optimizer:
    return keras.optimizers.SGD(learning_rate)


@pytest.fixture
def model():
    return harness.build("encoder_decoder", TINY)


def moved(model, **options) -> float:
    before = [v.numpy() for v in model.network.variables]
    model.fit(*arrays(), batch_size=3, verbose=0, **options)
    after = model.network.variables
    return max(np.abs(v.numpy() - old).max() for v, old in zip(after, before, strict=True))


def test_a_given_optimizer_is_the_one_that_is_used(model):
    model.compile(rate(0.0))
    assert moved(model) == 0
    model.compile(optimizer=rate(1e-3))
    assert moved(model) > 0
    assert int(model.optimizer.iterations.numpy()) == 2
    model.compile("adam")
    assert isinstance(model.optimizer, keras.optimizers.Adam)
    model.compile()
    moved(model)
    assert int(model.optimizer.iterations.numpy()) == 2  # the recipe's is the model's optimizer


def test_a_learning_rate_callback_sets_the_rate_that_is_used(model):
    still = keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.0)
    model.compile(rate(1.0))
    assert moved(model, callbacks=[still]) == 0
    plateau = keras.callbacks.ReduceLROnPlateau(
        "val_mae", 0.5, patience=1, mode="min", min_delta=1e9
    )
    model.compile(rate(1e-9))
    model.fit(*arrays(), validation_data=arrays(), callbacks=plateau, epochs=4, verbose=0)
    assert float(model.optimizer.learning_rate) < 1e-9


def test_a_callback_that_would_be_ignored_is_refused(model):
    still = keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.0)
    model.compile()
    with pytest.raises(ValueError, match=r"callbacks: .* recipe's schedule; compile\(optimizer="):
        model.fit(*arrays(), callbacks=[still], verbose=0)
    gan = harness.build("pix2pix", {"base_filters": 2, "levels": 3, "discriminator_filters": 2})
    gan.compile()
    with pytest.raises(ValueError, match="callbacks: pix2pix has 2 optimizers"):
        gan.fit(*arrays(), callbacks=[still], verbose=0)


@pytest.mark.parametrize("name", ["cyclegan", "dcgan", "pggan", "srcnn", "srgan", "unit"])
def test_several_optimizers_are_the_recipes(name):
    fields = [f for f in RUNS[name][1:] if not f.startswith("conditional")]
    model = loading.build(zoo.lookup(name, preset="small", assignments=fields))
    with pytest.raises(ValueError, match="loss: expected none"):
        model.compile(loss="mse")
    with pytest.raises(ValueError, match="optimizer: expected none, because .* made from its rec"):
        model.compile("sgd")
    model.compile()
    assert all(getattr(model, name).built for name in model.optimizers)


def test_metrics_weights_and_other_data_are_refused(model):
    for field in ("loss", "metrics", "weighted_metrics", "loss_weights"):
        with pytest.raises(ValueError, match=f"^{field}: expected none"):
            model.compile(**{field: ["mae"]})
    model.compile()
    for field in ("class_weight", "sample_weight"):
        with pytest.raises(ValueError, match=f"^{field}: expected none"):
            model.fit(*arrays(), **{field: {0: 1.0}})
    with pytest.raises(ValueError, match="sample_weight"):
        model.fit(*arrays(), validation_data=(*arrays(), np.ones(6)))
    tuples = tf.data.Dataset.from_tensor_slices(arrays()).batch(2)
    with pytest.raises(ValueError, match="x: expected dictionaries with source and target"):
        model.fit(tuples)
    with pytest.raises(ValueError, match="source and target. Received: .'image'"):
        model.evaluate({"image": arrays()[0]})
    with pytest.raises(ValueError, match="x: expected dictionaries"):
        model.fit(arrays()[0])


def test_evaluate_measures_all_images_and_not_the_last_batch(model):
    model.compile(run_eagerly=True)
    source, target = arrays()
    expected = np.abs(model.predict(source, verbose=0) - target).mean()
    last = np.abs(model.predict(source[4:], verbose=0) - target[4:]).mean()
    for _ in range(2):  # and begins anew
        figures = model.evaluate(source, target, batch_size=4, verbose=0, return_dict=True)
        assert float(figures["mae"]) == pytest.approx(expected, rel=1e-5)
    assert abs(last - expected) > 1e-3 * expected
    model.compile()
    pairs = {"source": source, "target": target}
    history = model.fit(pairs, batch_size=3, validation_data=pairs, verbose=0).history
    after = model.evaluate(pairs, batch_size=2, verbose=0, return_dict=True)
    assert history["val_mae"][0] == pytest.approx(after["mae"], rel=1e-4)
    assert not [v for v in model.network.variables if "mae" in v.path]


def test_no_two_seeds_numbers_or_purposes_share_their_draws():
    seeds = tf.constant([[seed, number] for seed in range(3) for number in (0, 1, 7919, 7920)])
    draws = [random_normal(seeds, (8,), purpose).numpy() for purpose in range(3)]
    assert len(np.unique(np.concatenate(draws).round(4), axis=0)) == 36
    again = random_normal(seeds[5:6], (8,), 1)
    np.testing.assert_array_equal(again[0], draws[1][5])  # of its own seed alone
    uniform = random_uniform(seeds, (500,), 0).numpy()
    assert 0 <= uniform.min() < uniform.max() < 1
    steps = [
        example_seeds({}, tf.zeros([4, 1]), tf.constant(step), seed).numpy()
        for seed in (0, 1)
        for step in (0, 1)
    ]
    assert len(np.unique(np.concatenate(steps), axis=0)) == 16
