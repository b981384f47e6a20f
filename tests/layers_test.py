import keras
import numpy as np
import pytest
import tensorflow as tf

from zoo import layers
from zoo.losses import gradient_penalty
from zoo.models import _equalised

RNG = np.random.default_rng(0)


def values(*shape: int) -> np.ndarray:
    return RNG.normal(0.5, 2, shape).astype("float32")


def trainable(network) -> int:
    return sum(int(np.prod(v.shape)) for v in network.trainable_variables)


def again(layer, x: np.ndarray):
    """A twin of a layer, by its config and weights."""
    twin = type(layer).from_config(layer.get_config())
    twin(x)
    twin.set_weights(layer.get_weights())
    return twin


# Normalisation.

SHAPES = [(3, 6, 5, 4), (3, 4, 6, 5, 4)]


@pytest.mark.parametrize("shape", SHAPES)
def test_batch_norm_is_keras_own(shape):
    ours = layers.Norm("batch")
    theirs = keras.layers.BatchNormalization(momentum=0.9, epsilon=1.001e-5)
    x = values(*shape)
    ours(x), theirs(x)
    theirs.gamma.assign(ours.gamma)
    for _ in range(2):
        x = values(*shape)
        np.testing.assert_allclose(ours(x, training=True), theirs(x, training=True), atol=1e-5)
    np.testing.assert_allclose(ours.moving_mean, theirs.moving_mean, atol=1e-5)
    # The fused kernel's has Bessel's correction, n / (n - 1).
    n = x[..., 0].size
    moved = (theirs.moving_variance.numpy() - 0.81) * n / (n - 1) + 0.81
    np.testing.assert_allclose(ours.moving_variance, moved, rtol=1e-5)
    theirs.moving_variance.assign(ours.moving_variance)
    np.testing.assert_allclose(ours(x), theirs(x), atol=1e-5)
    np.testing.assert_array_equal(again(ours, x)(x), ours(x))


@pytest.mark.parametrize("shape", SHAPES)
def test_instance_norm_is_keras_own(shape):
    ours = layers.Norm("instance")
    theirs = keras.layers.GroupNormalization(-1, epsilon=1.001e-5, center=False, scale=False)
    x = values(*shape)
    for training in (False, True):
        np.testing.assert_allclose(ours(x, training=training), theirs(x), atol=2e-5)
    assert not ours.variables


@pytest.mark.parametrize("shape", SHAPES)
def test_statistics_of_each_image_do_not_mix_the_batch(shape):
    norm = layers.Norm("batch", inference="image")
    x = values(*shape)
    alone = np.concatenate([norm(x[k : k + 1]) for k in range(len(x))])
    np.testing.assert_allclose(norm(x), alone, atol=1e-5)


def test_norm_takes_free_sizes():
    for kind in ("batch", "instance"):
        inputs = keras.Input((None, None, None, 2))
        model = keras.Model(inputs, layers.Norm(kind)(inputs))
        assert model.output_shape == (None, None, None, None, 2)
        assert model(values(1, 3, 4, 5, 2)).shape == (1, 3, 4, 5, 2)


# Sampling and padding.


def test_pixel_shuffle_of_images_is_tensorflows():
    x = values(2, 3, 4, 18)
    np.testing.assert_array_equal(layers.PixelShuffle(3)(x), tf.nn.depth_to_space(x, 3))
    np.testing.assert_array_equal(
        layers.PixelShuffle()(x[..., :8]), tf.nn.depth_to_space(x[..., :8], 2)
    )


@pytest.mark.parametrize("factor", [2, 3])
def test_pixel_shuffle_of_volumes_puts_each_channel_in_its_place(factor):
    f, channels = factor, 2
    x = values(2, 3, 4, 2, f**3 * channels)
    y = layers.PixelShuffle(f)(x).numpy()
    assert y.shape == (2, 3 * f, 4 * f, 2 * f, channels)
    for d, h, w, c in np.ndindex(f, f, f, channels):
        expected = x[..., ((d * f + h) * f + w) * channels + c]
        np.testing.assert_array_equal(y[:, d::f, h::f, w::f, c], expected)


@pytest.mark.parametrize("rank", [2, 3])
def test_sizes_of_functional_models_are_known(rank):
    inputs = keras.Input((*[8] * (rank - 1), None, 16))
    model = keras.Model(inputs, layers.ReflectionPadding(3)(layers.PixelShuffle()(inputs)))
    assert model.output_shape == (None, *[22] * (rank - 1), None, 16 // 2**rank)
    twin = keras.Model.from_config(model.get_config())
    x = values(2, *[8] * (rank - 1), 5, 16)
    assert model(x).shape == (2, *[22] * (rank - 1), 16, 16 // 2**rank)
    np.testing.assert_array_equal(twin(x), model(x))


@pytest.mark.parametrize("shape", [(2, 4, 5, 1), (2, 4, 5, 6, 1)])
def test_reflection_padding_is_numpys(shape):
    x = values(*shape)
    width = [(0, 0), *[(3, 3)] * (len(shape) - 2), (0, 0)]
    np.testing.assert_array_equal(layers.ReflectionPadding(3)(x), np.pad(x, width, "reflect"))


# Spectral normalisation.


def largest(kernel) -> float:
    kernel = np.asarray(kernel, "float64")
    return np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]), compute_uv=False)[0]


SPECTRAL = {
    "2d": (lambda: layers.convolution(6, 3, 2, spectral_norm=True, padding="same"), (2, 8, 8, 3)),
    "3d": (lambda: layers.convolution(5, 3, rank=3, spectral_norm=True), (2, 4, 5, 6, 2)),
    "dense": (lambda: layers.dense(6, spectral_norm=True, activation="relu"), (3, 7)),
}


@pytest.mark.parametrize("kind", SPECTRAL)
def test_spectral_norm_divides_the_kernel_by_its_largest_singular_value(kind):
    make, shape = SPECTRAL[kind]
    keras.utils.set_random_seed(0)  # how fast the iteration converges depends on the kernel
    layer, x = make(), values(*shape)
    layer(x)
    layer.kernel.assign(5 * layer.kernel)
    layer.bias.assign(values(*layer.bias.shape))
    start = layer.spectral.u.numpy()
    layer(x)
    np.testing.assert_array_equal(layer.spectral.u, start)  # inference learns nothing
    kernel = layer.kernel.numpy()
    for _ in range(100):
        layer(x, training=True)
    np.testing.assert_array_equal(layer.kernel, kernel)
    assert largest(kernel) > 2
    for training in (False, True):
        np.testing.assert_allclose(largest(layer.spectral(kernel, training=training)), 1, rtol=1e-3)
    # The same as the plain layer with that kernel, its bias left alone.
    config = {k: v for k, v in layer.get_config().items() if k != "name"}
    plain = type(layer).__mro__[2].from_config(config)
    plain(x)
    plain.set_weights([kernel / largest(kernel), layer.bias.numpy()])
    np.testing.assert_allclose(layer(x), plain(x), rtol=1e-3, atol=1e-3)
    assert layer.compute_output_shape(shape) == tuple(layer(x).shape)
    assert trainable(layer) == trainable(plain)
    np.testing.assert_array_equal(again(layer, x)(x), layer(x))


def test_plain_layers_are_keras_own():
    assert type(layers.convolution(2, 3)) is keras.layers.Conv2D
    assert type(layers.convolution(2, 3, rank=3, padding="same")) is keras.layers.Conv3D
    assert type(layers.dense(2)) is keras.layers.Dense
    with pytest.raises(ValueError, match="rank: expected 2 or 3. Received: 1"):
        layers.convolution(2, 3, rank=1)


def test_the_gradient_flows_through_the_singular_value():
    layer, x = layers.dense(4, spectral_norm=True, use_bias=False), values(5, 6)
    layer(x)
    for _ in range(200):
        layer(x, training=True)
    weights, target = layer.kernel.numpy().astype("float64"), values(5, 4)

    def loss(kernel):
        return np.sum((x @ (kernel / largest(kernel)) - target) ** 2)

    with tf.GradientTape() as tape:
        value = tf.reduce_sum(tf.square(layer(x, training=True) - target))
    gradient = tape.gradient(value, layer.trainable_variables[0].value).numpy()
    for place in np.ndindex(weights.shape):
        step = np.zeros_like(weights)
        step[place] = 1e-5
        slope = (loss(weights + step) - loss(weights - step)) / 2e-5
        np.testing.assert_allclose(gradient[place], slope, rtol=1e-2, atol=1e-2)
    # A longer kernel is the same function.
    np.testing.assert_allclose(np.sum(gradient * weights), 0, atol=1e-2)


def test_spectral_norm_in_bfloat16_and_of_zeros():
    layer = layers.convolution(4, 3, spectral_norm=True, dtype="mixed_bfloat16")
    x = values(1, 6, 6, 2)
    assert layer(x, training=True).dtype == tf.bfloat16
    assert layer.spectral.u.dtype == "float32"
    zero = layers.dense(3, spectral_norm=True, kernel_initializer="zeros")
    with tf.GradientTape() as tape:
        y = tf.reduce_sum(zero(values(2, 5), training=True))
    assert np.isfinite(tape.gradient(y, zero.trainable_variables[0].value)).all()
    np.testing.assert_array_equal(zero(values(2, 5)), np.zeros((2, 3)))


def test_spectral_state_is_saved(tmp_path):
    model = layers.patch_gan(1, 2, 1, norm="none", spectral_norm=True)
    x = values(1, 16, 16, 1)
    for _ in range(3):
        model(x, training=True)
    model.save_weights(tmp_path / "d.weights.h5")
    twin = layers.patch_gan(1, 2, 1, norm="none", spectral_norm=True)
    twin.load_weights(tmp_path / "d.weights.h5")
    np.testing.assert_array_equal(twin(x), model(x))
    saved = tf.train.Checkpoint(model=model).save(str(tmp_path / "d"))
    third = layers.patch_gan(1, 2, 1, norm="none", spectral_norm=True)
    tf.train.Checkpoint(model=third).restore(saved).assert_consumed()
    np.testing.assert_array_equal(third(x), model(x))
    model.save(tmp_path / "d.keras")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "d.keras")(x), model(x))


def test_spectrally_normalised_training_is_the_same_on_two_replicas(two_replicas):
    data = values(12, 6, 6, 1)
    results = []
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        keras.utils.set_random_seed(0)
        with strategy.scope():
            inputs = keras.Input((6, 6, 1))
            x = layers.convolution(4, 3, 2, spectral_norm=True, activation="tanh")(inputs)
            x = layers.dense(1, spectral_norm=True)(keras.layers.Flatten()(x))
            model = keras.Model(inputs, x)
            optimizer = keras.optimizers.SGD(0.05)
            optimizer.build(model.trainable_variables)
        count = strategy.num_replicas_in_sync

        def step(x, model=model, optimizer=optimizer, count=count):
            judge = lambda x: model(x, training=True)  # noqa: E731
            with tf.GradientTape() as tape:
                penalty = tf.reduce_mean(gradient_penalty(judge, x))
                loss = (tf.reduce_mean(tf.square(judge(x) - 1)) + penalty) / count
            weights = model.trainable_variables
            optimizer.apply(tape.gradient(loss, weights), weights)

        run = tf.function(lambda x, step=step, strategy=strategy: strategy.run(step, args=(x,)))
        start = [v.numpy() for v in model.variables]
        dataset = tf.data.Dataset.from_tensor_slices(data).batch(4, drop_remainder=True)
        for x in strategy.experimental_distribute_dataset(dataset):
            run(x)
        results.append((start, [v.numpy() for v in model.variables]))
    (start, one), (start_two, two) = results
    for a, b, s, t in zip(one, two, start, start_two, strict=True):
        np.testing.assert_array_equal(s, t)
        assert np.abs(a - s).max() > 1e-3
        np.testing.assert_allclose(b, a, atol=2e-6)
    states = [v.value for v in model.non_trainable_variables]
    assert len(states) == 2
    for state in states:
        first, second = (part.numpy() for part in state.values)
        np.testing.assert_array_equal(first, second)


# The discriminator and the equalised layers.


@pytest.mark.parametrize(
    ("channels", "norm", "count"),
    [
        (6, "batch", 2_768_705),
        (2, "batch", 2_764_609),
        (3, "instance", 2_764_737),
        (1, "instance", 2_762_689),
        (3, "none", 2_764_737),
    ],
)
def test_patch_gan_has_the_published_number_of_parameters(channels, norm, count):
    model = layers.patch_gan(channels, 64, 3, norm=norm)
    assert trainable(model) == count
    assert model.compute_output_shape((None, 256, 256, channels)) == (None, 30, 30, 1)


@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
def test_spectral_norm_adds_no_parameters_to_patch_gan(norm):
    plain, spectral = (
        layers.patch_gan(2, 4, 2, norm=norm, spectral_norm=on) for on in (False, True)
    )
    assert trainable(spectral) == trainable(plain)
    names = [v.path for v in spectral.variables if v.path.endswith("/u")]
    assert len(names) == 4
    x = values(2, 32, 32, 2)
    assert spectral(x).dtype == tf.float32
    assert np.isfinite(spectral(x, training=True)).all()


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda on: _equalised.Dense(5, 3, spectral_norm=on), (2, 5)),
        (lambda on: _equalised.Dense(5, 3, spread=True, spectral_norm=on), (2, 5)),
        (lambda on: _equalised.Conv(2, 3, spectral_norm=on), (2, 8, 8, 2)),
        (lambda on: _equalised.Conv(2, 3, resample="down", spectral_norm=on), (2, 8, 8, 2)),
        (lambda on: _equalised.Conv(2, 3, resample="up", spectral_norm=on), (2, 8, 8, 2)),
    ],
)
def test_equalised_layers_may_be_normalised(make, shape):
    x, plain, normal = values(*shape), make(False), make(True)
    assert len(plain.variables) == 2
    assert trainable(plain) == trainable(normal)
    assert len(normal.variables) == 3
    start = normal.spectral.u.numpy()
    normal(x)
    np.testing.assert_array_equal(normal.spectral.u, start)
    for _ in range(60):
        normal(x, training=True)
    sigma = largest(normal.kernel)
    np.testing.assert_allclose(largest(normal.scaled_kernel(False)), 1, rtol=1e-3)
    # The plain layer with a kernel that its constant makes the same.
    plain.kernel.assign(normal.kernel / (sigma * plain.scale))
    np.testing.assert_allclose(normal(x), plain(x), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("side", [(4, 6), (1, 3)])
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_a_doubling_convolution_is_keras_own_cropped(side, policy):
    ours = layers.Conv2DTranspose(5, bias_initializer="normal", dtype=policy)
    x = tf.constant(values(2, *side, 3))
    cropped = keras.layers.Conv2DTranspose(5, 3, 2, dtype=policy)
    ours(x), cropped(x)
    cropped.set_weights(ours.get_weights())
    weight = values(2, 2 * side[0], 2 * side[1], 5)
    found = []
    for images in (
        lambda: cropped(x)[:, 1:, 1:],
        lambda: ours(x),
        lambda: ours(x, training=True),
    ):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.cast(images(), tf.float32)
            loss = tf.reduce_sum(weight * y)
        layer = cropped if not found else ours
        found.append([y, *tape.gradient(loss, [x, *layer.trainable_variables])])
    assert found[0][0].shape == ours.compute_output_shape(x.shape)
    tolerance = {"rtol": 1e-5, "atol": 1e-4} if policy == "float32" else {"rtol": 0.03, "atol": 0.6}
    for each in found[1:]:
        for one, wanted in zip(each, found[0], strict=True):
            np.testing.assert_allclose(one, wanted, **tolerance)
    np.testing.assert_array_equal(again(ours, x)(x), ours(x))
