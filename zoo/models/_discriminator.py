"""What keeps the discriminator of a generator from images in check: R1, and augmentation."""

from typing import Any

import tensorflow as tf

from zoo.losses import squared_gradient
from zoo.step import random_uniform


def lazy_r1(judge: Any, real: tf.Tensor, every: int, seen: tf.Tensor) -> tf.Tensor:
    """Half the mean squared gradient at real images, now and then, and as many times as large.

    R1 (Mescheder, Geiger and Nowozin 2018, arXiv:1801.04406, eq. 9), which costs as much as the
    rest of an update, at every so-manieth only (Karras et al. 2020, arXiv:1912.04958, appendix B).
    A replica's mean and not yet its share, as `mean_gradient_penalty`.

    Args:
        judge: the discriminator, images to scores.
        real: `[N, H, W, C]`.
        every: updates between two that are penalised.
        seen: updates until now; the first one, 0, is penalised.
    """

    def penalty() -> tf.Tensor:
        return 0.5 * every * tf.reduce_mean(squared_gradient(judge, real))

    if every == 1:
        return penalty()
    return tf.cond(tf.equal(seen % every, 0), penalty, lambda: tf.constant(0.0))


def diff_augment(images: tf.Tensor, seeds: tf.Tensor, purpose: int) -> tf.Tensor:
    """Images moved by up to an eighth of their side, with a square cut out, brighter or darker.

    Real and generated images alike, before the discriminator, which so cannot learn the training
    images by heart, and through which the generator does not learn the changes (Zhao, Liu, Lin, Zhu
    and Han 2020, arXiv:2006.10738).

    Args:
        images: `[N, H, W, C]` in [-1, 1], H and W known; below 8 pixels they stay as they are.
        seeds, purpose: of the changes, as `zoo.step.random_uniform` takes them.
    """
    height, width = images.shape[1:3]
    if min(height, width) < 8:  # nothing to move or to cut
        return images
    drawn = random_uniform(seeds, (5,), purpose)
    # Brightness: half of the paper's range, and black stays black, which is air here.
    lit = images + 0.5 * (drawn[:, 0, None, None, None] - 0.5) * (images + 1.0)
    # Whole pixels, black moved in.
    rows = _moved(tf.range(height), drawn[:, 1], height)
    columns = _moved(tf.range(width), drawn[:, 2], width)
    padded = tf.pad(lit + 1.0, [[0, 0], [1, 1], [1, 1], [0, 0]]) - 1.0
    moved = tf.gather(padded, rows, axis=1, batch_dims=1)
    moved = tf.gather(moved, columns, axis=2, batch_dims=1)
    # A square of a quarter of the side is black, wherever its centre falls.
    outside = _outside(height, drawn[:, 3])[:, :, None] | _outside(width, drawn[:, 4])[:, None]
    return tf.where(outside[..., None], moved, -1.0)


def _moved(places: tf.Tensor, drawn: tf.Tensor, side: int) -> tf.Tensor:
    """Where each place's pixel comes from in images with a margin of one pixel, `[N, side]`."""
    shift = tf.cast(tf.round((drawn - 0.5) * (side // 4)), tf.int32)
    return tf.clip_by_value(places[None] + shift[:, None] + 1, 0, side + 1)


def _outside(side: int, drawn: tf.Tensor) -> tf.Tensor:
    """Which rows or columns a cut-out square does not hold, `[N, side]`."""
    centre = tf.cast(drawn * side, tf.int32)
    return tf.abs(tf.range(side)[None] - centre[:, None]) > side // 8
