"""Gradients on their way to an optimizer: accumulation, clipping, loss scaling, schedules."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import harness
import zoo
from harness import checkpointed, gradient_sums, gradient_sums_agree
from zoo import training
from zoo.recipe import DataFacts
from zoo.step import Adam, batches_seen, descend, ready, require_ready

JUDGE = {"discriminator_filters": 4, "discriminator_layers": 2, "discriminator_norm": "none"}
# Without batch normalisation, which sees each batch alone: dcgan has it.
MODELS = {
    "automap": {"n": 16, "variant": "dautomap", "filters": 4},
    "critic": {"crop": 32, "base_filters": 4, "levels": 2},
    "cyclegan": {"crop": 32, "base_filters": 4, "blocks": 1, "norm": "none", **JUDGE},
    "encoder_decoder": {"base_filters": 4, "levels": 2},
    "learned_primal_dual": {"n": 16, "views": 8, "iterations": 2, "filters": 4},
    "pggan": {"resolution": 8, "fmap_base": 64, "fmap_max": 8, "latent": 8},
    "pix2pix": {"base_filters": 4, "levels": 3, "norm": "none", "dropout": 0.3, **JUDGE},
    "srcnn": {"deviation": 0.05, "filters1": 4, "filters2": 4},
    "srgan": {"crop": 32, "scale": 2, "base_filters": 4, "blocks": 1, "norm": "none",
              "pretrain_steps": 10, "steps": 10},
    "unit": {"crop": 32, "base_filters": 4, "blocks": 1, "norm": "none", "discriminator_layers": 3,
             "discriminator_filters": 4, "discriminator_scales": 1},
    "varnet": {"cascades": 2, "base_filters": 4, "levels": 2},
}  # fmt: skip
DCGAN = {"base_filters": 4, "discriminator_filters": 4, "adversarial": "wgan"}
COUNT = 8  # images in an update


def build(name, compiled=True, **fields):
    fields = MODELS.get(name, {}) | fields
    model = harness.build(name, fields, harness.MEASURED.get(name, harness.HU))
    if compiled:
        model.compile()
    return model


def batch(model, count=COUNT):
    """Images for one step, and for models of none two sizes alike."""
    name, recipe = model.name, model.recipe
    if model.generates:
        return harness.singles_of(recipe.side, count)
    if name in harness.MEASURED:
        return harness.measured_of(model, count)
    if recipe.scale > 1:
        return harness.enlarged_of((20, 20) if name == "srcnn" else (16, 16), 2, count)
    return harness.batch_of(32, count)


@pytest.mark.parametrize("amsgrad", [False, True])
def test_adam_is_keras_own(amsgrad, two_replicas):
    rng = np.random.default_rng(0)
    start = rng.normal(size=(3, 4)).astype("float32")
    given = [rng.normal(0, 10.0**-k, (3, 4)).astype("float32") for k in range(6)]
    rate = keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)
    options = {"beta_1": 0.5, "beta_2": 0.99, "epsilon": 1e-8, "amsgrad": amsgrad}

    def after(kind, strategy):
        with strategy.scope():
            weight = keras.Variable(start)
            optimizer = kind(rate, **options)
            optimizer.build([weight])
        # A gradient is on its weight's device.
        update = lambda g: optimizer.apply([g + 0 * weight], [weight])  # noqa: E731
        for gradient in given:
            share = tf.constant(gradient / strategy.num_replicas_in_sync)
            strategy.run(tf.function(update, autograph=False), args=(share,))
        return [v.numpy() for v in (weight, *optimizer.variables)]

    wanted = after(keras.optimizers.Adam, tf.distribute.get_strategy())
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        for found, theirs in zip(after(Adam, strategy), wanted, strict=True):
            np.testing.assert_allclose(found, theirs, rtol=2e-6, atol=1e-7)
    assert np.abs(wanted[0] - start).min() > 0.01
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(Adam(0.1, **options))
    )
    assert type(again) is Adam and again.amsgrad is amsgrad and again.beta_1 == 0.5


def halves(whole):
    count = len(whole["seed"]) // 2
    first = {key: value[:count] for key, value in whole.items()}
    return first, {key: value[count:] for key, value in whole.items()}


def state(model) -> list[np.ndarray]:
    """The model's variables and those of its optimizers, with what is kept between batches."""
    found = list(model.variables)
    for optimizer in vars(model).values():
        if isinstance(optimizer, keras.optimizers.Optimizer):
            found += optimizer.variables
            found += getattr(getattr(optimizer, "transform", None), "variables", [])
    return [keras.ops.convert_to_numpy(variable) for variable in found]


def close(one, two, within=1e-4):
    largest = max(np.abs(a).max() for _, a in one)
    assert largest > 0
    for (path, a), (_, b) in zip(one, two, strict=True):
        assert np.abs(a - b).max() <= within * np.abs(a).max() + 2e-6 * largest, path


@pytest.mark.parametrize("name", MODELS)
def test_two_batches_learn_as_one_twice_as_large_and_a_resumed_run_as_any(
    name, monkeypatch, tmp_path
):
    harness.use_sgd(monkeypatch)
    whole, parts = build(name), build(name, accumulate=2)
    images = batch(whole)
    whole.train_step(images)
    before = [v.numpy() for v in parts.trainable_variables]
    first, second = halves(images)
    parts.train_step(first)
    for weight, old in zip(parts.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(weight, old)
    saved = tf.train.Checkpoint(model=parts).save(str(tmp_path / "half"))
    resumed = build(name, accumulate=2)
    tf.train.Checkpoint(model=resumed).restore(saved).assert_existing_objects_matched()
    for a, b in zip(state(parts), state(resumed), strict=True):
        np.testing.assert_array_equal(a, b)
    for model in (parts, resumed):
        model.train_step(second)
        close(gradient_sums(whole), gradient_sums(model))


@pytest.mark.parametrize("name", ["cyclegan", "dcgan", "pggan", "unit"])
def test_moving_averages_and_schedules_count_updates(name):
    fields = DCGAN if name == "dcgan" else {}
    model = build(name, accumulate=2, ema=0.9, **fields)
    images = batch(model, 4)
    trained = model.trained if name in ("cyclegan", "unit") else model.generator
    grown = ("network/level", "network/alpha")
    averages = [v for v in model.network.variables if v.path not in grown]
    pairs = list(zip(averages, trained.variables, strict=True))
    before = [average.numpy() for average, _ in pairs]
    model.train_step(images)
    for (average, _), old in zip(pairs, before, strict=True):
        np.testing.assert_array_equal(average, old)
    assert int(model.generator_optimizer.iterations) == 0
    model.train_step(images)
    assert int(model.generator_optimizer.iterations) == 1
    assert int(batches_seen(model.generator_optimizer)) == 2
    moved = 0.0
    for (average, weight), old in zip(pairs, before, strict=True):
        np.testing.assert_allclose(average, 0.9 * old + 0.1 * weight.numpy(), atol=1e-6)
        moved += np.abs(weight.numpy() - old).sum()
    assert moved > 0


def test_pggan_fades_in_over_updates():
    fields = {"accumulate": 2, "images": 60_000, "fade_images": 30_000, "stable_images": 30_000}
    model = build("pggan", **fields)
    alone = build("pggan", **fields | {"accumulate": 1})
    sums = [sum(m.recipe.level_steps()) for m in (model, alone)]
    assert sums[0] == sums[1] / 2  # so many images are shown in half of the updates
    phase = next(p for p in model.recipe.phases() if p.fade > 1)
    model.enter(phase)
    model.begin(phase)
    images = harness.singles_of(phase.size, 4)
    alphas = []
    for _ in range(4):
        model.train_step(images)
        alphas.append(float(model.network.alpha))
    np.testing.assert_allclose(alphas, np.array([0, 1, 1, 2]) / phase.fade, rtol=1e-6)


@pytest.mark.parametrize("fields", [{}, {"accumulate": 2}])
def test_the_norm_of_all_gradients_is_clipped(fields, monkeypatch):
    harness.use_sgd(monkeypatch)
    free, images = build("encoder_decoder"), batch(build("encoder_decoder", compiled=False))
    free.train_step(images)
    gradients = dict(gradient_sums(free))
    norm = np.sqrt(sum(np.sum(np.square(g, dtype=float)) for g in gradients.values()))
    for clip, factor in ((norm / 5, 0.2), (norm * 5, 1.0)):
        model = build("encoder_decoder", clip=float(clip), **fields)
        for part in halves(images) if fields else (images,):
            model.train_step(part)
        close([(p, factor * g) for p, g in gradients.items()], dict(gradient_sums(model)).items())


def test_a_decay_is_added_to_the_clipped_gradient(monkeypatch):
    harness.use_sgd(monkeypatch)
    sums = {}
    for clip in (0.0, 1e-3):
        model = build("unit", clip=clip, weight_decay=0.5)
        start = {v.path: v.numpy() for v in model.trainable_variables}
        model.train_step(batch(model, 2))
        sums[clip] = dict(gradient_sums(model))
    judged = [path for path in sums[0.0] if "discriminator" in path]
    plain = {path: sums[0.0][path] - 0.5 * start[path] for path in judged}
    norm = np.sqrt(sum(np.sum(np.square(g, dtype=float)) for g in plain.values()))
    for path in judged:
        expected = plain[path] * 1e-3 / norm + 0.5 * start[path]
        np.testing.assert_allclose(sums[1e-3][path], expected, atol=2e-4)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("encoder_decoder", {"accumulate": 2, "clip": 1e-3}),
        ("encoder_decoder", {"precision": "float16", "accumulate": 2}),
        ("pggan", {"accumulate": 2, "clip": 1e-2}),
    ],
)
def test_two_replicas_equal_one(name, fields, monkeypatch, two_replicas):
    harness.use_sgd(monkeypatch)
    results = []
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        with strategy.scope():
            model = build(name, **fields)
        images = batch(model, 2 * COUNT)
        dataset = tf.data.Dataset.from_tensor_slices(images).batch(COUNT)

        @tf.function(autograph=False)
        def step(part, model=model, strategy=strategy):
            return strategy.run(model.train_step, args=(part,))

        run = step if name == "encoder_decoder" else step.python_function
        for part in strategy.experimental_distribute_dataset(dataset):
            run(part)
        averages = [v.numpy() for v in model.network.variables]
        results.append((gradient_sums(model), averages))
    (one, average), (two, other) = results
    close(one, two, 1e-2 if "precision" in fields else 1e-3)
    for a, b in zip(average, other, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_float16_trains_float32_weights_and_serves_float32():
    model = build("encoder_decoder", precision="float16", learning_rate=3e-3)
    assert model.precision == "float16"
    assert {v.dtype for v in model.variables} == {"float32"}
    images = batch(model, 2)
    step = tf.function(model.train_step, autograph=False)
    losses = [float(step(images)["loss"]) for _ in range(40)]
    assert losses[-1] < 0.5 * losses[0]
    assert all(np.isfinite(v).all() for v in state(model))
    output = model.network(tf.zeros([1, 8, 8, 1]))
    assert output.dtype == model(images["source"]).dtype == tf.float32
    transform = model.network_optimizer.transform
    assert float(transform.scale) == 2.0**15 and int(transform.good) == 40


@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_overflow_is_left_out_and_halves_the_scale(accumulate):
    model = build("encoder_decoder", precision="float16", accumulate=accumulate, clip=1.0)
    optimizer, images = model.network_optimizer, batch(model, 2)
    transform, weights = optimizer.transform, model.network.trainable_variables
    before = [w.numpy() for w in weights]
    transform.scale.assign(2.0**40)
    model.train_step(images)  # the first batch of an accumulation, or the only one
    for scale in [2.0**15] * (accumulate - 1):
        transform.scale.assign(scale)
        model.train_step(images)
    for weight, old in zip(weights, before, strict=True):
        np.testing.assert_array_equal(weight, old)
    assert int(optimizer.iterations) == 0 and int(batches_seen(optimizer)) == accumulate
    assert float(transform.scale) == (2.0**24 if accumulate == 1 else 2.0**14)
    # It goes on from there, and the scale grows again after 2000 good updates.
    transform.scale.assign(2.0**10)
    transform.good.assign(1999)
    for _ in range(accumulate):
        model.train_step(images)
    assert int(optimizer.iterations) == 1
    assert float(transform.scale) == 2.0**11 and int(transform.good) == 0
    pairs = zip(weights, before, strict=True)
    assert all(np.isfinite(w).all() and np.any(w != old) for w, old in pairs)


@pytest.mark.parametrize("name", ["encoder_decoder", "srcnn", "pix2pix"])
def test_gradients_in_float16_are_those_in_float32(name, monkeypatch):
    """But for its rounding; half of the smallest ones would be 0 without the scale."""
    harness.use_sgd(monkeypatch)
    sums = {}
    for precision in ("float32", "float16"):
        model = build(name, precision=precision)
        if name == "srcnn" and precision == "float16":  # whose loss is a sum over pixels
            model.hidden_optimizer.transform.scale.assign(2.0**6)
        model.train_step(batch(model, 2))
        sums[precision] = np.concatenate([g.ravel() for _, g in gradient_sums(model)])
    exact, half = sums.values()
    assert np.linalg.norm(half - exact) < 0.05 * np.linalg.norm(exact)


@pytest.mark.parametrize(
    ("name", "fields", "judge"),
    [
        ("pggan", {}, "float32"),
        ("dcgan", DCGAN, "float32"),
        ("dcgan", DCGAN | {"adversarial": "hinge"}, "float16"),
        ("pix2pix", {"adversarial": "wgan"}, "float32"),
        ("cyclegan", {}, "float16"),
        ("cyclegan", {"adversarial": "wgan"}, "float32"),
    ],
)
def test_what_has_a_gradient_penalty_is_float32_beside_float16(name, fields, judge):
    model = build(name, precision="float16", **fields)
    critic = model.discriminator_a if name == "cyclegan" else getattr(model, "critic", None)
    critic = critic or model.discriminator
    inner = [layer for layer in critic._flatten_layers() if "conv" in layer.name][0]
    assert inner.compute_dtype == judge
    served = [layer.compute_dtype for layer in model.network._flatten_layers()]
    assert "float16" in served
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.parametrize("name", [*MODELS, "dcgan"])
def test_a_schedule_is_taken_by_every_optimizer(name):
    fields = DCGAN if name == "dcgan" else {}
    if name == "pggan":
        with pytest.raises(ValueError, match="rate_schedule: expected own.*Received: cosine"):
            zoo.lookup(name, overrides={"rate_schedule": "cosine"}).recipe.resolve(DataFacts())
        return
    fields |= {"steps": 10, "rate_schedule": "cosine", "learning_rate": 1e-3}
    if name == "srgan":
        fields |= {"pretrain_steps": 10}
    model = build(name, **fields)
    rates = {}
    for name in model.optimizers[:1]:
        for step in (0, 5, 10):
            getattr(model, name).iterations.assign(step)
            rates[step] = float(getattr(model, name).learning_rate)
    np.testing.assert_allclose(list(rates.values()), [1e-3, 5e-4, 0.0], atol=1e-9)


def test_a_run_of_two_batches_a_step_is_that_of_one(tmp_path, data_dir, monkeypatch):
    """The same images in the same order, the same schedules, as many steps."""
    harness.use_sgd(monkeypatch)
    fields = {"steps": 3, "filters1": 2, "filters2": 2, "checkpoint_every": 2}
    for folder, batches in (
        ("one", {"batch_size": 4}),
        ("two", {"batch_size": 2, "accumulate": 2}),
    ):
        entry = zoo.lookup("srcnn", "sr/phantom_tiny", "small", fields | batches)
        record = training.train(entry, tmp_path / folder, data_dir=data_dir)
        assert record["step"] == 3
    one, two = (checkpointed(tmp_path / folder) for folder in ("one", "two"))
    shared = {key: value for key, value in two.items() if "transform" not in key}
    assert len(shared) < len(two)
    gradient_sums_agree(one, shared)


def test_optimizers_that_are_not_made_ready_are_refused(monkeypatch):
    model = build("encoder_decoder", clip=1.0)
    require_ready(model)
    model.optimizer = keras.optimizers.SGD()
    with pytest.raises(ValueError, match="zoo.step.ready. Received: 1 and 1"):
        require_ready(model)


def test_a_users_optimizer_is_clipped_too_and_a_saved_model_loads(tmp_path):
    model = build("encoder_decoder", compiled=False, clip=1e-3)
    model.compile(keras.optimizers.SGD(1.0))
    start = [w.numpy() for w in model.network.trainable_variables]
    images = batch(model, 4)
    model.fit(images, batch_size=4, verbose=0)
    moved = [w.numpy() - s for w, s in zip(model.network.trainable_variables, start, strict=True)]
    norm = np.sqrt(sum(np.sum(np.square(m)) for m in moved))
    np.testing.assert_allclose(norm, 1e-3, rtol=1e-3)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(again(images["source"]), model(images["source"]))


def test_without_options_nothing_is_added():
    model = build("encoder_decoder")
    assert not hasattr(model.network_optimizer, "transform")
    with tf.GradientTape() as tape:
        share = tf.reduce_sum(tf.square(model.network.trainable_variables[0]))
    weights = model.network.trainable_variables[:1]
    assert descend(ready(model, weights, keras.optimizers.SGD()), tape, share, weights) is True
