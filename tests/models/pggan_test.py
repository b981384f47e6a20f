"""Tests of zoo/models/pggan.py."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import harness
from zoo.domain import Domain
from zoo.losses import gradient_penalty
from zoo.models import pggan
from zoo.models.pggan import PGGAN, PgganRecipe
from zoo.recipe import DataFacts

DOMAIN = Domain(modality="MG", unit="signal", window=(0.0, 4000.0))
TINY = {"latent": 8, "fmap_base": 32, "fmap_max": 8, "batch_sizes": (4,), "resolution": 16}
TINY |= {"images": 1}  # the last level gets no more than the others


def make(policy="float32", steps=40, **fields) -> PGGAN:
    keras.utils.set_random_seed(0)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = PGGAN(PgganRecipe(**TINY | {"steps": steps} | fields), DOMAIN, DOMAIN)
    finally:
        keras.config.set_dtype_policy(before)
    model.compile()
    return model


def batches(size: int, count: int, n: int = 4, start: int = 0, channels: int = 1):
    for i in range(start, start + count):
        rng = np.random.default_rng([5, i])
        image = rng.uniform(0, 4000, [n, size, size, channels]).astype("float32")
        seed = np.stack([np.zeros(n), i * n + np.arange(n)], 1).astype("int32")
        yield {"image": tf.constant(image), "seed": tf.constant(seed)}


def phase_named(model: PGGAN, name: str):
    return next(phase for phase in model.recipe.phases() if phase.name == name)


def start(model: PGGAN, name: str, begin=True):
    phase = phase_named(model, name)
    model.enter(phase)
    if begin:
        model.begin(phase)
    return tf.function(model.train_step, autograph=False)


def values(variables) -> list[np.ndarray]:
    return [np.array(v) for v in variables]


def count(network, level: int) -> int:
    parts = network.parts(level, fading=False)
    return sum(int(np.prod(v.shape)) for part in parts for v in part.trainable_variables)


def leaves(network) -> list[keras.layers.Layer]:
    return [layer for layer in network._flatten_layers(include_self=False) if layer.weights]


def test_parameter_counts_are_the_papers():
    recipe = PgganRecipe()
    generator, critic = pggan.GrowingGenerator(recipe, 3), pggan.Critic(recipe, 3)
    # A level's network is the network of that resolution, with its own toRGB and fromRGB only.
    assert (count(generator, 8), count(critic, 8)) == (23_071_507, 23_077_137)
    assert (count(generator, 6), count(critic, 6)) == (23_036_995, 23_042_625)
    widths = [recipe.width(level) for level in range(9)]
    assert widths == [512, 512, 512, 512, 256, 128, 64, 32, 16]


def test_up_convolution_is_nearest_neighbour_then_convolution():
    layer = pggan.Conv(3, 5, resample="up", gain=1.0)
    layer.bias.assign(np.arange(5.0))
    x = tf.random.stateless_normal([2, 4, 4, 3], [1, 2])
    doubled = np.asarray(x).repeat(2, axis=1).repeat(2, axis=2)
    # A transposed convolution is a convolution with the kernel turned by 180 degrees.
    kernel = np.asarray(layer.kernel)[::-1, ::-1].transpose(0, 1, 3, 2) / np.sqrt(27)
    expected = tf.nn.conv2d(doubled, kernel, 1, "SAME") + np.arange(5.0, dtype="float32")
    np.testing.assert_allclose(layer(x), expected, atol=1e-5)


def test_down_convolution_is_convolution_then_average():
    layer = pggan.Conv(3, 5, resample="down", gain=1.0)
    x = tf.random.stateless_normal([2, 8, 8, 3], [1, 2])
    full = tf.nn.conv2d(x, np.asarray(layer.kernel) / np.sqrt(27), 1, "SAME")
    expected = np.asarray(full).reshape(2, 4, 2, 4, 2, 5).mean((2, 4))
    np.testing.assert_allclose(layer(x), expected, atol=1e-5)


@pytest.mark.parametrize("gain", [1.0, 2.0**0.5])
def test_equalised_layers_keep_variance(gain):
    keras.utils.set_random_seed(1)
    convolution = pggan.Conv(64, 64, gain=gain)
    dense = pggan.Dense(256, 512, gain=gain)
    assert np.std(convolution.kernel) == pytest.approx(1.0, rel=0.02)  # scaled at run time only
    x = tf.random.stateless_normal([8, 16, 16, 64], [1, 2])
    inside = convolution(x)[:, 1:-1, 1:-1]
    assert np.var(inside) == pytest.approx(gain**2, rel=0.05)
    y = dense(tf.random.stateless_normal([64, 256], [3, 4]))
    assert np.var(y) == pytest.approx(gain**2, rel=0.05)


def test_pixel_norm_has_unit_root_mean_square():
    x = 7.0 * tf.random.stateless_normal([2, 3, 3, 16], [1, 2])
    y = np.asarray(pggan.pixel_norm(x))
    np.testing.assert_allclose(np.mean(y**2, axis=-1), 1.0, rtol=1e-5)
    assert pggan.pixel_norm(tf.cast(x, tf.bfloat16)).dtype == tf.bfloat16


@pytest.mark.parametrize(("n", "group"), [(8, 4), (4, 4), (6, 3), (14, 2), (5, 1)])
def test_minibatch_stddev(n, group):
    x = np.random.default_rng(0).normal(size=(n, 4, 4, 3)).astype("float32")
    y = np.asarray(pggan.minibatch_stddev(tf.constant(x)))
    np.testing.assert_array_equal(y[..., :3], x)
    for i in range(n):
        mates = x[i // group * group : i // group * group + group]
        expected = np.sqrt(mates.var(axis=0) + 1e-8).mean()
        np.testing.assert_allclose(y[i, ..., 3], expected, rtol=1e-4)


@pytest.mark.parametrize("resample", ["", "down"])
def test_gradient_of_the_penalty_is_its_finite_difference(resample):
    # Without LeakyReLU: across its kinks the penalty jumps, and differences see the jumps.
    keras.utils.set_random_seed(0)
    layer = pggan.Conv(1, 3, gain=1.0, resample=resample)
    x = tf.random.stateless_normal([4, 8, 8, 1], [3, 4])
    weights = tf.random.stateless_normal(layer(x).shape[1:], [7, 8])

    def penalty():
        score = lambda x: tf.reduce_sum(tf.square(layer(x)) * weights, axis=[1, 2, 3])  # noqa: E731
        return tf.reduce_mean(gradient_penalty(score, x))

    with tf.GradientTape() as tape:
        value = penalty()
    gradient = tape.gradient(value, layer.kernel.value)
    kernel, direction = tf.identity(layer.kernel), gradient / tf.norm(gradient)
    layer.kernel.assign(kernel + 1e-2 * direction)
    above = penalty()
    layer.kernel.assign(kernel - 1e-2 * direction)
    np.testing.assert_allclose(tf.norm(gradient), (above - penalty()) / 2e-2, rtol=0.01)


def test_fade_in_is_continuous():
    model = make()
    z = tf.random.stateless_normal([3, 8], [1, 2])
    old, new = (model.generator.images(z, level, None) for level in (1, 2))
    fresh = model.generator.images(z, 2, tf.constant(0.0))
    np.testing.assert_array_equal(fresh, np.asarray(old).repeat(2, axis=1).repeat(2, axis=2))
    np.testing.assert_allclose(model.generator.images(z, 2, tf.constant(1.0)), new, atol=1e-6)

    x = tf.random.stateless_normal([4, 16, 16, 1], [1, 2])
    small = np.asarray(x).reshape(4, 8, 2, 8, 2, 1).mean((2, 4))
    scores = model.critic.scores
    expected = scores(tf.constant(small), 1, None)
    np.testing.assert_allclose(scores(x, 2, tf.constant(0.0)), expected, atol=1e-5)
    np.testing.assert_allclose(scores(x, 2, tf.constant(1.0)), scores(x, 2, None), atol=1e-5)


@pytest.mark.parametrize("name", ["8x8 fade", "8x8"])
def test_a_step_runs_and_changes_only_its_levels(name):
    model = make()
    step = start(model, name)
    level, fading = model.phase.level, "fade" in name
    networks = (model.generator, model.critic)
    inside = [p for n in networks for p in n.parts(level, fading)]
    outside = [p for n in networks for p in leaves(n) if p not in inside]
    assert outside
    before = [values(part.variables) for part in outside + inside]
    average = values(model.network.variables)
    first, *rest = batches(4 << level, 3)
    graph = step.get_concrete_function(first).graph
    captured = {id(handle) for handle, _ in graph.captures}
    assert not any(id(v.value.handle) in captured for part in outside for v in part.variables)
    assert any(id(v.value.handle) in captured for part in inside for v in part.variables)
    for batch in (first, *rest):  # alpha is 0 in the first step of a fade: the new block waits
        logs = step(batch)
    assert set(logs) == {"critic", "wasserstein", "penalty", "generator"}
    assert all(np.isfinite(float(value)) for value in logs.values())
    after = [values(part.variables) for part in outside + inside]
    same = [
        all(np.array_equal(a, b) for a, b in zip(x, y, strict=True))
        for x, y in zip(before, after, strict=True)
    ]
    assert all(same[: len(outside)]) and not any(same[len(outside) :])
    served = {id(v) for p in model.network.parts(level, fading) for v in p.variables}
    for variable, value in zip(model.network.variables, average, strict=True):
        if id(variable) not in served and variable.name not in ("level", "alpha"):
            np.testing.assert_array_equal(variable, value)


@pytest.mark.parametrize("name", ["8x8 fade", "8x8"])
def test_the_logistic_loss_with_r1_trains_all_its_level(name):
    model = make(adversarial="bce", r1=2.0, r1_every=2, diff_augment=True)
    step = start(model, name)
    parts = [
        part
        for network in (model.generator, model.critic)
        for part in network.parts(1, "fade" in name)
    ]
    before = [values(part.variables) for part in parts]
    for batch in batches(8, 3):
        logs = step(batch)
    assert set(logs) == {"critic", "generator"}
    assert all(np.isfinite(float(value)) for value in logs.values())
    for part, old in zip(parts, before, strict=True):
        for new, a in zip(part.variables, old, strict=True):
            assert part is model.critic.score or not np.array_equal(new, a)


def test_served_weights_are_the_moving_average():
    model = make(ema=0.9)
    step = start(model, "8x8")
    old = values(model.network.second[1].variables)
    for batch in batches(8, 1):
        step(batch)
    new = values(model.generator.second[1].variables)
    for average, a, b in zip(model.network.second[1].variables, old, new, strict=True):
        np.testing.assert_allclose(average, 0.9 * a + 0.1 * b, atol=1e-6)


def test_alpha_follows_the_iterations_of_the_level():
    model = make()
    step = start(model, "8x8 fade")
    fade = model.phase.fade
    assert fade > 2 and float(model.network.alpha) == 0.0
    for i, batch in enumerate(batches(8, fade)):
        assert float(model.network.alpha) == pytest.approx(i / fade)
        step(batch)
    assert float(model.network.alpha) == 1.0
    assert step.experimental_get_tracing_count() == 1


def test_a_new_level_resets_the_optimizers_and_a_stable_phase_does_not():
    model = make()
    step = start(model, "8x8 fade")
    for batch in batches(8, 2):
        step(batch)
    model.begin(phase_named(model, "8x8"))
    assert int(model.critic_optimizer.iterations) == 2
    model.begin(phase_named(model, "16x16 fade"))
    for optimizer in (model.generator_optimizer, model.critic_optimizer):
        assert float(optimizer.learning_rate) == pytest.approx(1e-3)
        for variable in optimizer.variables:
            if variable is not optimizer.learning_rate:
                assert not np.any(variable)


def test_a_checkpoint_continues_exactly(tmp_path):
    model = make()
    step = start(model, "8x8 fade")
    stream = list(batches(8, 4))
    for batch in stream[:2]:
        step(batch)
    path = tf.train.Checkpoint(model=model).write(str(tmp_path / "checkpoint"))
    for batch in stream[2:]:
        step(batch)

    keras.utils.set_random_seed(99)
    other = PGGAN(model.recipe, DOMAIN, DOMAIN)
    other.compile()
    tf.train.Checkpoint(model=other).read(path).assert_consumed()
    step = start(other, "8x8 fade", begin=False)
    assert int(other.network.level) == 1 and int(other.generator_optimizer.iterations) == 2
    for batch in stream[2:]:
        step(batch)
    pairs = [
        (model.variables, other.variables),
        (model.generator_optimizer.variables, other.generator_optimizer.variables),
        (model.critic_optimizer.variables, other.critic_optimizer.variables),
    ]
    for ours, theirs in pairs:
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)


def phases_of(**fields) -> list[pggan.Growth]:
    return PgganRecipe(**TINY | {"resolution": 64} | fields).phases()


@pytest.mark.parametrize("images", [1, 12_000_000])
@pytest.mark.parametrize("steps", [5, 6, 17, 200, 4001])
def test_phases_share_the_steps(steps, images):
    phases = phases_of(steps=steps, images=images)
    assert sum(phase.steps for phase in phases) == steps
    assert list(dict.fromkeys(phase.size for phase in phases)) == [4, 8, 16, 32, 64]
    assert all(phase.steps > 0 for phase in phases)
    assert [phase.size for phase in phases if phase.first] == [4, 8, 16, 32, 64]
    assert phases[0].fade == 0 and all(phase.fade in (0, phase.steps) for phase in phases)


def test_phases_follow_the_image_counts():
    phases = phases_of(steps=900, images=1)
    assert [phase.steps for phase in phases] == [100] * 9
    sizes = phases_of(batch_sizes=(8, 4, 2))
    assert [phase.batch_size for phase in sizes if phase.first] == [8, 4, 2, 2, 2]
    assert {phase.batch_size for phase in phases_of(batch_size=7, n_critic=2)} == {14}


def test_the_papers_schedule():
    recipe = PgganRecipe()
    assert recipe.steps == round(sum(recipe.level_steps()))
    assert [recipe.level_images(n) for n in range(9)] == [600_000, *[1_200_000] * 7, 3_000_000]
    assert [recipe.batch(n) for n in range(9)] == [16] * 6 + [14, 6, 3]
    assert recipe.level_steps()[:2] == [37_500.0, 75_000.0]
    small = PgganRecipe.preset("small")
    assert small.side == 64 and small.levels == 5


def test_resolve_takes_what_the_data_allow():
    resolve = lambda recipe, shape: recipe.resolve(DataFacts(target_shape=shape))  # noqa: E731
    assert resolve(PgganRecipe(), (300, 500)).resolution == 256
    assert resolve(PgganRecipe(), (4000, 3000)).resolution == 1024
    assert resolve(PgganRecipe(resolution=64), (300, 500)).resolution == 64
    resolved = resolve(PgganRecipe(), (256, 256))
    assert resolved.steps == round(sum(resolved.level_steps())) < PgganRecipe().steps
    assert resolve(PgganRecipe(steps=123), (256, 256)).steps == 123
    with pytest.raises(ValueError, match="resolution: expected .* differ in size"):
        resolve(PgganRecipe(), None)
    assert resolve(PgganRecipe(resolution=64), None).resolution == 64
    with pytest.raises(ValueError, match="at most 32, which fits .* Received: 64"):
        resolve(PgganRecipe(resolution=64), (63, 256))
    with pytest.raises(ValueError, match="images of 4 x 4"):
        resolve(PgganRecipe(), (3, 256))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"resolution": 48}, "power of two from 4 to 1024. Received: 48"),
        ({"resolution": 2048}, "Received: 2048"),
        ({"steps": 8}, "at least 9, one a level"),
        ({"batch_sizes": ()}, "batch_sizes"),
    ],
)
def test_bad_recipes_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        PgganRecipe(**fields)


def test_generated_images_depend_on_seed_and_number_alone():
    model = make()
    ten = model.generate(10, seed=3)
    assert ten.shape == (10, 16, 16, 1) and ten.dtype == np.float32
    assert ten.min() >= 0.0 and ten.max() <= 4000.0
    np.testing.assert_array_equal(ten[:3], model.generate(3, seed=3))
    np.testing.assert_array_equal(ten[4:6], model.generate(2, seed=3, first=4))
    assert not np.array_equal(ten, model.generate(10, seed=4))
    assert len(np.unique(ten.reshape(10, -1), axis=0)) == 10
    with pytest.raises(ValueError, match="Received: n=0"):
        model.generate(0)
    with pytest.raises(ValueError, match="label: expected none. Received: 0"):
        model.generate(1, label=0)


def test_a_weights_file_knows_how_far_training_came(tmp_path):
    model = make()
    assert model.generate(1).shape[1] == 16
    model.begin(phase_named(model, "8x8 fade"))
    model.network.alpha.assign(0.25)
    expected = model.generate(2)
    assert expected.shape[1] == 8
    z = tf.random.stateless_normal([2, 8], [1, 2])
    faded = DOMAIN.clip(DOMAIN.decode(model.generator.images(z, 1, tf.constant(0.25))))
    np.testing.assert_allclose(model(z), faded, atol=1e-2)

    path = tmp_path / "pggan.weights.h5"
    model.save_network(path)
    other = PGGAN(model.recipe, DOMAIN, DOMAIN)
    other.network.load_weights(path)
    np.testing.assert_array_equal(other.generate(2), expected)
    assert other.weights_hash == model.weights_hash


def test_the_served_call_exports(tmp_path):
    model = make()
    archive = keras.export.ExportArchive()
    archive.track(model)
    spec = tf.TensorSpec([None, 8], tf.float32)
    archive.add_endpoint("serving_default", tf.function(model.call, input_signature=[spec]))
    archive.write_out(str(tmp_path / "saved"), verbose=False)
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    z = tf.random.stateless_normal([3, 8], [1, 2])
    np.testing.assert_allclose(loaded.serving_default(z), model(z), atol=1e-2)


def test_config_round_trip():
    model = make()
    again = PGGAN.from_config(model.get_config())
    assert again.recipe == model.recipe and again.target == DOMAIN


def test_bfloat16_trains_with_float32_images_and_losses():
    model = make("mixed_bfloat16")
    step = start(model, "8x8 fade")
    for batch in batches(8, 2):
        logs = step(batch)
    assert all(v.dtype == tf.float32 and np.isfinite(float(v)) for v in logs.values())
    assert model.generator.second[1].compute_dtype == "bfloat16"
    assert model.generator.second[1].kernel.dtype == "float32"
    assert model(tf.zeros([1, 8])).dtype == tf.float32


def test_three_channels_and_several_critic_updates():
    colour = Domain(channels=3)
    model = PGGAN(PgganRecipe(**TINY, steps=40, n_critic=2), colour, colour)
    model.compile()
    step = start(model, "4x4")
    for batch in batches(4, 2, n=8, channels=3):
        step(batch)
    assert int(model.critic_optimizer.iterations) == 4
    assert int(model.generator_optimizer.iterations) == 2
    assert model.generate(1).shape == (1, 4, 4, 3)


def test_what_it_does_not_do_it_refuses():
    model = make()
    with pytest.raises(TypeError, match="does not translate"):
        model.translate(np.zeros([16, 16]))
    with pytest.raises(TypeError, match="no reference"):
        model.test_step({})
    start(model, "8x8")
    with pytest.raises(ValueError, match=r"expected 8 x 8 .* Received: shape \(4, 16, 16, 1\)"):
        model.train_step(next(batches(16, 1)))


def test_flops_grow_with_the_level():
    model = make()
    flops = [model.training_flops(phase_named(model, n), 16) for n in ("4x4", "8x8", "16x16")]
    assert 0 < flops[0] < flops[1] < flops[2]


def unused(model):
    """toRGB and fromRGB of the levels below, which a faded-in level leaves out."""
    layers = model.generator.to_rgb[:-1] + model.critic.from_rgb[:-1]
    # The last bias shifts real and fake scores alike: only the small drift term sees it.
    return [v for layer in layers for v in layer.trainable_variables]


def test_contract(tmp_path, monkeypatch, two_replicas):
    # A group of the minibatch deviation must fit into a replica's share.
    options = TINY | {"resolution": 8, "batch_sizes": (16,), "n_critic": 2, "spectral_norm": True}
    harness.run_translator_test(
        "pggan",
        options,
        lambda count, seed: harness.singles_of(8, max(count, 16), seed),
        tmp_path,
        monkeypatch,
        two_replicas,
        unused=unused,
    )


def test_the_critics_kernels_are_normalised_where_asked():
    model = make(resolution=8, spectral_norm=True)
    step = start(model, "8x8")
    for batch in batches(8, 12):
        step(batch)
    layer = model.critic.first[1]
    kernel = np.asarray(layer.scaled_kernel(False)).reshape(-1, layer.kernel.shape[-1])
    assert np.linalg.norm(kernel, 2) == pytest.approx(1.0, rel=0.1)
    assert make(resolution=8).critic.first[1].spectral is None
