"""Tests of what the generators of zoo/models and their discriminators are made of."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from zoo.models._discriminator import diff_augment, lazy_r1
from zoo.models._doubling import DoublingConv2D
from zoo.models._generator import Noise

SEEDS = np.array([[3, k] for k in range(6)], "int32")


def test_doubling_convolution_is_nearest_neighbour_then_convolution():
    layer = DoublingConv2D(5)
    x = tf.random.stateless_normal([2, 4, 6, 3], [1, 2])
    y = layer(x)
    assert layer.compute_output_shape(x.shape) == y.shape == (2, 8, 12, 5)
    doubled = np.asarray(x).repeat(2, axis=1).repeat(2, axis=2)
    kernel = np.asarray(layer.kernel)[::-1, ::-1].transpose(0, 1, 3, 2)
    np.testing.assert_allclose(y, tf.nn.conv2d(doubled, kernel, 1, "SAME"), atol=1e-5)


def test_noise_is_none_at_first_and_then_white_and_the_latents_own():
    keras.utils.set_random_seed(0)
    layer = Noise(16)
    x = tf.random.stateless_normal([8, 32, 32, 2], [1, 2])
    latents = tf.random.stateless_normal([8, 100], [3, 4])
    np.testing.assert_array_equal(layer([x, latents]), x)
    layer.strength.assign(np.tile([0.5, 0.0], (16, 1)))
    noise = (layer([x, latents]) - x).numpy()
    assert np.abs(noise[..., 1]).max() == 0
    noise = noise[..., 0]
    # Sixteen pictures, each with a factor N(0, 1), half of each.
    assert abs(np.std(noise) / (0.5 * 4) - 1) < 0.2
    neighbours = [noise[:, 1:] * noise[:, :-1], noise[:, :, 1:] * noise[:, :, :-1]]
    assert max(abs(n.mean()) for n in neighbours) < 0.05 * np.var(noise)
    alike = np.corrcoef(noise.reshape(8, -1)) - np.eye(8)
    assert np.abs(alike).max() < 0.8
    # Of other batches the same.
    again = layer([x[2:3], latents[2:3]]) - x[2:3]
    np.testing.assert_allclose(again[0, ..., 0], noise[2], atol=1e-5)


def test_augmentation_moves_lights_and_cuts_with_a_gradient():
    images = tf.fill([6, 32, 32, 1], 0.0)
    with tf.GradientTape() as tape:
        tape.watch(images)
        changed = diff_augment(images, SEEDS, 1)
    gradient = tape.gradient(changed, images).numpy()
    changed = changed.numpy()
    for image, slope in zip(changed[..., 0], gradient[..., 0], strict=True):
        # Grey between black, the brightness of which is one number, as is the slope.
        grey = image[image > -1]
        assert 0.4 < grey.size / image.size < 1 and np.ptp(grey) < 1e-6 and abs(grey[0]) <= 0.25
        assert (slope > 0).sum() == grey.size and np.ptp(slope[slope > 0]) < 1e-6
    assert np.unique(changed[:, 16, 16]).size > 3
    # Each example's own, in whichever batch and replica.
    np.testing.assert_array_equal(changed[4:], diff_augment(images[4:], SEEDS[4:], 1))
    assert not np.array_equal(changed, diff_augment(images, SEEDS, 2))
    np.testing.assert_array_equal(diff_augment(images - 1, SEEDS, 1), images - 1)  # black stays
    small = images[:, :4, :4]
    assert diff_augment(small, SEEDS, 1) is small


def test_augmentation_shifts_by_whole_pixels_and_at_most_an_eighth():
    ramp = tf.range(32.0)[None, :, None, None] * 100 + tf.range(32.0)[None, None, :, None]
    images = tf.tile(ramp / 10_000, [6, 1, 1, 1])
    changed = diff_augment(images, SEEDS, 1).numpy()[..., 0]
    for image in changed.astype(float):
        # A plane through what is left tells its brightness, and where it lies.
        rows, columns = np.nonzero(image > -1)
        places = np.stack([rows, columns, np.ones(rows.size)], axis=1)
        (down, right, start), *_ = np.linalg.lstsq(places, image[rows, columns], rcond=None)
        assert abs(down / right - 100) < 0.1
        lit = 10_000 * right - 1
        moved_down, moved_right = divmod(round((start - lit) / right) + 50, 100)
        assert abs(moved_down) <= 4 and abs(moved_right - 50) <= 4


@pytest.mark.parametrize("every", [1, 3])
def test_r1_is_the_squared_gradient_at_real_images_now_and_then(every):
    weights = np.random.default_rng(0).normal(0, 1, (6, 7, 2)).astype("float32")
    strength = tf.Variable(2.0)
    real = tf.random.stateless_normal([3, 6, 7, 2], [1, 2])

    @tf.function
    def step(seen):
        with tf.GradientTape() as tape:
            judge = lambda x: strength * tf.reduce_sum(x * weights, axis=[1, 2, 3])  # noqa: E731
            penalty = lazy_r1(judge, real, every, seen)
        return penalty, tape.gradient(penalty, strength)

    square = np.sum(weights**2)
    for seen in range(7):
        times = every if seen % every == 0 else 0
        penalty, gradient = step(tf.constant(seen, tf.int64))
        np.testing.assert_allclose(penalty, times * 0.5 * 4 * square, rtol=1e-5)
        np.testing.assert_allclose(gradient, times * 2 * square, rtol=1e-5)
