"""Registration inside a training step: pairs whose target does not lie quite on its source.

Kong, Lian, Huang et al.: Breaking the Dilemma of Medical Image-to-image Translation, NeurIPS 2021,
arXiv:2110.06465 (RegGAN). A small network R sees the output x' and the target y and predicts a
displacement u for each pixel; the pixel loss compares y with the output moved by it,

    (x' ∘ u)(p) = x'(p + u(p)),   R minimises  L1(y, x' ∘ u) + λ (|∇u|² + |u|² / 100).

The network of the translation never has to guess how a target is displaced, and learns sharp images
that lie on their sources. R is of use in training only: it is in checkpoints, and not in what is
served.

What differs from the paper, and why: R learns from its own loss alone and the translation from a
displacement that it takes as given, so that neither can help the other to an easier image. The
small weight on u itself keeps output and displacement from drifting together: a shift that all
outputs share costs R something in every example and gains nothing, so the mean of all displacements
stays at zero and the output on its source, as far as displacements have no direction of their own.
R sees the images at half their resolution, which suffices for a smooth field at a quarter of the
cost. For the first quarter of the run the translation learns from the pairs as they lie, whose
displacements have no direction on average: R then has blurred but unmoved images to start from. And
λ is large: a field that may bend wherever it likes hides errors of the translation, such as bone
that is too thick, which then stay.
"""

import keras
import tensorflow as tf

from zoo import losses
from zoo.layers import pad_to_multiple
from zoo.models._unet import unet
from zoo.step import descend, scaled
from zoo.translator import Translator

_LEVELS = 4  # resolutions of R, the first of which is half the image's
_ANCHOR = 0.01  # of the weight: that of |u|² beside |∇u|²
_START = 0.25  # of the run: from then on the translation is compared where R sees the target


def network(model: Translator) -> keras.Model:
    """R, for the outputs of a model of images; `displacement` is what it predicts.

    Returns:
        `[N, H, W, 2 * channels]` to float32 `[N, H, W, 2]`.

    Raises:
        ValueError: for a model of volumes, or of classes, which have no values between them.
    """
    if model.dimensions != 2 or model.classes:
        received = f"{model.classes} classes" if model.classes else "volumes"
        raise ValueError(
            f"registration: expected images of intensities, two axes each. Received: {received}"
        )
    return unet(
        2 * model.target.channels,
        2,
        base_filters=16,
        levels=_LEVELS,
        skips="add",
        downsampling="stride",
        upsampling="resize",
    )


def displacement(registration: keras.Model, moving: tf.Tensor, fixed: tf.Tensor) -> tf.Tensor:
    """Where R finds what the fixed image shows in the moving one.

    Args:
        registration: R.
        moving, fixed: `[N, H, W, C]` in [-1, 1].

    Returns:
        float32 `[N, H, W, 2]`, rows and columns in pixels.
    """
    height, width = tf.unstack(tf.shape(moving)[1:3])
    images = pad_to_multiple(tf.concat([moving, fixed], -1), 2**_LEVELS)
    field = registration(tf.nn.avg_pool2d(images, 2, 2, "VALID"), training=True)
    return tf.image.resize(field, tf.shape(images)[1:3])[:, :height, :width]


def warp(images: tf.Tensor, field: tf.Tensor) -> tf.Tensor:
    """Images at displaced places: what lies at p + u(p) comes to p.

    Bilinear; beyond the border the pixel of the border.

    Args:
        images: `[N, H, W, C]`.
        field: u, `[N, H, W, 2]`, rows and columns in pixels.

    Returns:
        float32 `[N, H, W, C]`.
    """
    images = tf.cast(images, tf.float32)
    count, height, width, channels = tf.unstack(tf.shape(images))
    # Each place's upper left pixel, and how far it is from there.
    last = tf.cast(tf.stack([height, width]) - 1, tf.float32)
    rows, columns = tf.range(height), tf.range(width)
    grid = tf.cast(tf.stack(tf.meshgrid(rows, columns, indexing="ij"), -1), tf.float32)
    place = tf.clip_by_value(grid + tf.cast(field, tf.float32), 0.0, last)
    low = tf.minimum(tf.floor(place), tf.maximum(last - 1.0, 0.0))
    share = place - low
    corner = tf.cast(low, tf.int32)
    flat = tf.reshape(images, [count, height * width, channels])

    def at(down: int, right: int) -> tf.Tensor:
        row = tf.minimum(corner[..., 0] + down, height - 1)
        column = tf.minimum(corner[..., 1] + right, width - 1)
        return tf.gather(flat, row * width + column, batch_dims=1)

    down, right = share[..., :1], share[..., 1:]
    above = at(0, 0) * (1.0 - right) + at(0, 1) * right
    below = at(1, 0) * (1.0 - right) + at(1, 1) * right
    moved = above * (1.0 - down) + below * down
    return tf.ensure_shape(moved, images.shape)


def roughness(field: tf.Tensor) -> tf.Tensor:
    """|∇u|² + |u|² / 100 of each field `[N, H, W, 2]`, means over its pixels: `[N]`."""
    axes = [1, 2, 3]
    steps = field[:, 1:] - field[:, :-1], field[:, :, 1:] - field[:, :, :-1]
    slope = sum(tf.reduce_mean(tf.square(step), axes) for step in steps)
    return slope + _ANCHOR * tf.reduce_mean(tf.square(field), axes)


def register(
    registration: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    weight: float,
    steps: int,
    output: tf.Tensor,
    target: tf.Tensor,
) -> tf.Tensor:
    """One step of R, and the output where R, before the step, saw the target.

    In the first quarter of the run it is the output as it is.

    Args:
        registration: R.
        optimizer: its own.
        weight: λ.
        steps: of the run.
        output, target: `[N, H, W, C]` in [-1, 1].

    Returns:
        float32 `[N, H, W, C]`, whose gradient reaches the output and not R.
    """
    still = tf.stop_gradient(output)
    with tf.GradientTape() as tape:
        field = displacement(registration, still, target)
        share = losses.L1()(target, warp(still, field))
        share += scaled(weight * tf.reduce_mean(roughness(field)))
    begun = optimizer.iterations >= int(_START * steps)
    descend(optimizer, tape, share, registration.trainable_variables)
    return tf.where(begun, warp(output, tf.stop_gradient(field)), tf.cast(output, tf.float32))
