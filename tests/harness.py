"""`run_translator_test`: what every model must do, in one call."""

import keras
import numpy as np
import tensorflow as tf

from zoo import registry, translator
from zoo.imaging.windows import Domain

HU = Domain(modality="CT", unit="HU", window=(-1000.0, 1000.0))


def build(name: str, overrides: dict, source: Domain = HU, target: Domain = HU):
    entry = registry.lookup(name, overrides={"precision": "float32"} | overrides)
    return translator.build(entry, source, target)


def batch_of(size: int, count: int, seed: int = 0, source: Domain = HU) -> dict[str, tf.Tensor]:
    rng = np.random.default_rng(seed)
    clean = rng.uniform(-800, 800, [count, size, size, 1]).astype("float32")
    seeds = np.stack([np.full(count, seed), np.arange(count)], 1).astype("int32")
    noisy = clean + rng.normal(0, 50, clean.shape).astype("float32")
    noisy = np.repeat(noisy, source.channels, axis=-1)
    return {k: tf.constant(v) for k, v in dict(source=noisy, target=clean, seed=seeds).items()}


def run_translator_test(name, overrides, size, tmp_path, monkeypatch, two_replicas) -> None:
    """Shapes, gradients, round trips and one replica against two, for a paired model.

    Args:
        name: registered name.
        overrides: recipe fields that make it small.
        size: side of the training images.
        tmp_path, monkeypatch, two_replicas: the fixtures.
    """
    model = build(name, overrides)
    _translates_any_size(model)
    _every_weight_learns(build(name, overrides), batch_of(size, 2))
    _round_trips(model, tmp_path)
    _two_replicas_equal_one(name, overrides, size, monkeypatch, two_replicas)


def _translates_any_size(model) -> None:
    rng = np.random.default_rng(0)
    for shape in [(37, 51), (2, 64, 40), (1, 33, 33, 1)]:
        images = rng.uniform(-500, 500, shape).astype("float32")
        output = model.translate(images)
        assert output.shape == shape
        assert output.dtype == np.float32
        assert np.isfinite(output).all()


def _every_weight_learns(model, batch) -> None:
    model.compile()
    before = [v.numpy().copy() for v in model.trainable_variables]
    assert before
    for _ in range(2):
        losses = model.train_step(batch)
    assert all(np.isfinite(float(v)) for v in losses.values())
    still = [
        v.path
        for v, old in zip(model.trainable_variables, before, strict=True)
        if np.array_equal(v.numpy(), old)
    ]
    assert not still, f"no gradient reaches {still}"


def _round_trips(model, tmp_path) -> None:
    images = np.random.default_rng(1).uniform(-500, 500, (1, 32, 32, 1)).astype("float32")
    expected = model(images).numpy()
    path = tmp_path / f"{model.name}.weights.h5"
    sha256 = model.save_network(path)
    twin = type(model).from_config(model.get_config())
    assert twin.get_config() == model.get_config()
    translator.load_network(twin, path, sha256)
    np.testing.assert_array_equal(twin(images).numpy(), expected)
    assert twin.weights_hash == model.weights_hash
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(again(images).numpy(), expected)


def _two_replicas_equal_one(name, overrides, size, monkeypatch, two_replicas) -> None:
    # Adam divides by the gradient's size, so that a wrong scale would not show.
    sgd = lambda *_, **__: keras.optimizers.SGD(1e-2)  # noqa: E731
    monkeypatch.setattr(keras.optimizers, "Adam", sgd)
    batches = [batch_of(size, 4, seed) for seed in range(3)]
    results = []
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        with strategy.scope():
            model = build(name, overrides)
            model.compile()
        start = [v.numpy().copy() for v in model.trainable_variables]

        @tf.function
        def step(batch, strategy=strategy, model=model):
            losses = strategy.run(model.train_step, args=(batch,))
            return {k: strategy.reduce("MEAN", v, axis=None) for k, v in losses.items()}

        dataset = tf.data.Dataset.from_tensor_slices(
            {k: tf.concat([b[k] for b in batches], 0) for k in batches[0]}
        ).batch(4, drop_remainder=True)
        for batch in strategy.experimental_distribute_dataset(dataset):
            losses = step(batch)
        weights = [v.numpy() for v in model.trainable_variables]
        results.append((weights, start, {k: float(v) for k, v in losses.items()}))
    (one, start, losses_one), (two, start_two, losses_two) = results
    for a, b, s, t in zip(one, two, start, start_two, strict=True):
        np.testing.assert_array_equal(s, t)
        moved = np.abs(a - s).max()
        assert np.abs(a - b).max() <= 1e-3 * moved + 1e-6
    for key, value in losses_one.items():
        np.testing.assert_allclose(losses_two[key], value, rtol=1e-3)
