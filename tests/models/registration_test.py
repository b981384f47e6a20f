"""zoo.models._registration: the warp, what R finds, and models that train with it."""

import functools
import shutil

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage
from skimage.registration import phase_cross_correlation

import harness
from zoo import command_line, domain, loading
from zoo.models import _registration
from zoo.step import adam
from zoo_datasets.phantoms import displaced

TINY = {"base_filters": 4, "levels": 3, "crop": 32, "registration": True}
GAN = TINY | {"levels": 4, "discriminator_filters": 4}


def blobs(count: int, size: int, seed: int = 0) -> np.ndarray:
    """Smooth random images in [-1, 1], float32 `[count, size, size]`."""
    white = np.random.default_rng(seed).standard_normal((count, size, size))
    smooth = ndimage.gaussian_filter(white, (0, 2.5, 2.5), mode="nearest")
    return (smooth / np.abs(smooth).max((1, 2), keepdims=True)).astype("float32")


def test_warp_is_scipys_interpolation():
    rng = np.random.default_rng(0)
    images = rng.standard_normal((2, 13, 17, 3)).astype("float32")
    field = rng.uniform(-6, 6, (2, 13, 17, 2)).astype("float32")
    field[0, 0, 0] = (100, -100)  # far outside
    field[1] = np.rint(field[1])  # exact pixels
    moved = _registration.warp(images, field).numpy()
    for i in range(2):
        place = np.indices((13, 17)) + field[i].transpose(2, 0, 1)
        for channel in range(3):
            expected = ndimage.map_coordinates(
                images[i, ..., channel], place, order=1, mode="nearest"
            )
            np.testing.assert_allclose(moved[i, ..., channel], expected, atol=1e-5)


def test_nothing_moves_where_the_field_is_zero():
    images = tf.constant(blobs(1, 9)[..., None])
    np.testing.assert_array_equal(_registration.warp(images, tf.zeros([1, 9, 9, 2])), images)
    half = _registration.warp(tf.cast(images, tf.bfloat16), tf.zeros([1, 9, 9, 2], tf.bfloat16))
    assert half.dtype == tf.float32


def test_gradients_of_the_warp_are_those_of_differences():
    rng = np.random.default_rng(1)
    images = tf.constant(rng.standard_normal((1, 6, 7, 1)), tf.float32)
    # Within pixels: bilinear interpolation has kinks between them.
    field = tf.constant(
        rng.integers(-1, 2, (1, 6, 7, 2)) + rng.uniform(0.2, 0.8, (1, 6, 7, 2)), tf.float32
    )
    weights = tf.constant(rng.standard_normal((1, 6, 7, 1)), tf.float32)

    def value(images, field):
        return tf.reduce_sum(weights * _registration.warp(images, field))

    with tf.GradientTape() as tape:
        tape.watch([images, field])
        result = value(images, field)
    for number, gradient in enumerate(tape.gradient(result, [images, field])):
        way = tf.constant(rng.standard_normal(gradient.shape), tf.float32)
        ends = []
        for sign in (-1, 1):
            arguments = [images, field]
            arguments[number] = arguments[number] + sign * 1e-2 * way
            ends.append(float(value(*arguments)))
        expected = (ends[1] - ends[0]) / 2e-2
        assert float(tf.reduce_sum(gradient * way)) == pytest.approx(expected, abs=2e-2, rel=1e-2)


def test_averages_are_weighted_gaussian_averages():
    rng = np.random.default_rng(2)
    values = rng.standard_normal((1, 20, 23, 2)).astype("float32")
    weights = rng.uniform(0.1, 1, (1, 20, 23, 1)).astype("float32")
    found = _registration.smoothed(values, weights, 2.0).numpy()

    def average(image):
        return ndimage.gaussian_filter(image, 2.0, mode="constant", radius=6)

    for channel in range(2):
        expected = average((values * weights)[0, ..., channel]) / average(weights[0, ..., 0])
        np.testing.assert_allclose(found[0, ..., channel], expected, atol=1e-5)


def test_edges_weigh_where_an_image_changes():
    image = np.full((1, 32, 32, 1), -1, "float32")
    image[:, :, 16:] = 1
    weights = _registration.edges(tf.constant(image)).numpy()[0, :, :, 0]
    assert weights.min() > 0
    assert weights.mean() == pytest.approx(1, abs=0.01)
    assert weights[:, 14:18].sum() > 0.8 * weights.sum()
    assert weights[:, 0].max() < 0.01  # the border is no edge


def test_random_displacements_are_smooth_and_of_any_length_to_the_longest():
    seeds = tf.stack([tf.zeros(200, tf.int32), tf.range(200)], 1)
    fields = _registration.drawn(seeds, 40, 32).numpy()
    longest = np.linalg.norm(fields, axis=-1).max((1, 2))
    assert longest.max() <= 10.001
    assert abs(longest.mean() - 5) < 0.6
    assert abs(fields.mean()) < 0.2  # no direction is preferred
    steps = np.abs(np.diff(fields, axis=1)).max((1, 2, 3))
    assert (steps < 0.35 * longest + 0.1).all()
    np.testing.assert_array_equal(fields[7], _registration.drawn(seeds[7:8], 40, 32)[0])


def test_registration_finds_a_shift_that_it_never_saw(monkeypatch):
    """What it learns from are targets that were displaced at random: no other image is given."""
    monkeypatch.setattr(_registration, "_LARGEST", 5.0)
    model = harness.build("encoder_decoder", TINY)
    network = model.registration
    optimizer = adam(model, network.trainable_variables, 2e-3)
    targets = blobs(64, 48)[..., None]
    rng = np.random.default_rng(3)

    @tf.function
    def step(seeds, target):
        return _registration.register(network, optimizer, 1000, seeds, target, target, target)

    for number in range(250):
        seeds = tf.stack([tf.fill([4], number), tf.range(4)], 1)
        step(seeds, tf.constant(targets[rng.integers(0, 64, 4)]))
    moving = blobs(8, 48, seed=5)
    fixed = np.stack([ndimage.shift(image, (-3, 3), mode="nearest") for image in moving])
    pair = tf.constant(moving[..., None]), tf.constant(fixed[..., None])
    found = network.smooth_displacement(*pair).numpy()[:, 8:-8, 8:-8].mean((0, 1, 2))
    np.testing.assert_allclose(found, (3, -3), atol=1.8)


@pytest.mark.parametrize(("name", "options"), [("encoder_decoder", TINY), ("pix2pix", GAN)])
def test_contract(name, options, tmp_path, monkeypatch, two_replicas):
    batch = functools.partial(harness.batch_of, 32)
    more = {"norm": "none", "output": "image"}
    harness.run_translator_test(name, options | more, batch, tmp_path, monkeypatch, two_replicas)


@pytest.mark.parametrize(("name", "options"), [("encoder_decoder", TINY), ("pix2pix", GAN)])
def test_what_is_served_does_not_know_of_it(name, options, tmp_path):
    plain = harness.build(name, options | {"registration": False})
    model = harness.build(name, options)
    assert len(model.variables) > len(plain.variables)
    plain.save_network(tmp_path / "plain.weights.h5")
    loading.load_network(model, tmp_path / "plain.weights.h5", "")
    model.save_network(tmp_path / "network.weights.h5")
    loading.load_network(plain, tmp_path / "network.weights.h5", "")
    assert model.weights_hash == plain.weights_hash
    assert not hasattr(plain, "registration")


@pytest.mark.parametrize("loss", ["l2", "structure"])
def test_half_precision_and_other_losses_take_the_moved_output(loss):
    model = harness.build("encoder_decoder", TINY | {"precision": "bfloat16", "loss": loss})
    model.compile()
    before = [v.numpy() for v in model.registration.trainable_variables]
    logs = model.train_step(harness.batch_of(32, 2))
    assert all(np.isfinite(float(value)) for value in logs.values())
    after = [v.numpy() for v in model.registration.trainable_variables]
    assert all((a != b).any() for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("name", ["encoder_decoder", "pix2pix"])
def test_volumes_are_refused(name):
    with pytest.raises(ValueError, match="registration: expected images.*Received: volumes"):
        harness.build(name, (TINY if name == "encoder_decoder" else GAN) | {"dimensions": 3})


def test_classes_are_refused():
    classes = domain.Domain(modality="SEG", unit="class", window=(0, 2))
    with pytest.raises(ValueError, match="registration: expected images of intensities"):
        harness.build("encoder_decoder", TINY, target=classes)


@pytest.mark.slow
def test_output_stays_on_its_source():
    """Targets that are displaced at random: what is learned is sharp, and lies on the source."""
    model = harness.build(
        "encoder_decoder",
        TINY | {"base_filters": 8, "learning_rate": 3e-3, "output": "image", "steps": 160},
    )
    model.compile()
    step = tf.function(model.train_step)
    rng = np.random.default_rng(0)
    images = 800 * blobs(64, 40)
    fields = [displaced.field(rng, 40, (2, 4)) for _ in images]
    targets = np.stack([displaced.moved(*each) for each in zip(-images, fields, strict=True)])
    for _ in range(160):
        chosen = rng.integers(0, 64, 8)
        arrays = {"source": images[chosen, ..., None], "target": targets[chosen, ..., None]}
        step(harness.tensors(arrays, 0))
    held_out = 800 * blobs(8, 40, seed=9)
    output = model.translate(held_out)
    shifts = [
        phase_cross_correlation(-out[4:-4, 4:-4], truth[4:-4, 4:-4], upsample_factor=50)[0]
        for out, truth in zip(output, held_out, strict=True)
    ]
    assert np.abs(np.mean(shifts, 0)).max() < 0.3
    assert np.abs(output + held_out).mean() < 0.35 * np.abs(held_out).mean()


@pytest.mark.slow
def test_a_run_goes_on_with_its_registration(tmp_path, data_dir):
    """Stopped after a checkpoint and resumed, R and its optimizer included."""
    options = [
        *("--model=encoder_decoder", "--dataset=mr_ct/phantom_misaligned_tiny", "--steps=4"),
        *(f"--set={k}={v}" for k, v in TINY.items()),
        *(
            "--set=checkpoint_every=2",
            "--set=batch_size=2",
            "--set=precision=float32",
            f"--data_dir={data_dir}",
        ),
    ]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert command_line.main(["zoo", "train", *options, f"--workdir={whole}"]) == 0
    shutil.copytree(whole, broken)
    for path in (broken / "checkpoints").glob("ckpt-4.*"):
        path.unlink()
    shutil.rmtree(broken / "weights")
    assert command_line.main(["zoo", "train", *options, f"--workdir={broken}"]) == 0
    one, two = harness.checkpointed(whole, "ckpt-4"), harness.checkpointed(broken, "ckpt-4")
    held = [key for key in one if key.startswith("model/registration_optimizer/")]
    assert sum("_trainable_variables/" in key for key in held) > 20  # R's weights
    for key, value in one.items():
        np.testing.assert_array_equal(value, two[key], key)
