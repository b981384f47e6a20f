"""Bicubic enlargement: TensorFlow's operation, or convolutions where an engine has no such one."""

import contextlib
import threading
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

_state = threading.local()
_REACH = 2  # pixels on either side of one that its block is made of


@contextlib.contextmanager
def by_convolutions() -> Iterator[None]:
    """Within it `enlarge` traces convolutions, which the converters of OpenVINO and LiteRT know."""
    _state.convolutions = True
    try:
        yield
    finally:
        _state.convolutions = False


def enlarge(images: tf.Tensor, factor: int) -> tf.Tensor:
    """Bicubic interpolation (Keys 1981, a = -1/2) to `factor` times every side.

    Args:
        images: float32 `[N, H, W, C]` or `[N, D, H, W, C]`. A pixel becomes the block of
            `factor` pixels a side that covers it.
    """
    if images.shape.rank == 4 and getattr(_state, "convolutions", False):
        return _convolved(images, factor)
    if images.shape.rank == 4:
        height, width = (factor * tf.shape(images)[axis] for axis in (1, 2))
        return tf.image.resize(images, [height, width], method="bicubic")
    n, d, h, w = tf.unstack(tf.shape(images)[:4])
    channels = images.shape[4]
    planes = tf.reshape(images, [n * d, h, w, channels])
    planes = tf.image.resize(planes, [factor * h, factor * w], method="bicubic")
    depth = tf.reshape(planes, [n, d, factor * h * factor * w, channels])
    depth = tf.image.resize(depth, [factor * d, factor * h * factor * w], method="bicubic")
    return tf.reshape(depth, [n, factor * d, factor * h, factor * w, channels])


def _convolved(images: tf.Tensor, factor: int) -> tf.Tensor:
    """The same, to rounding, of images `[N, H, W, C]`."""
    weights = _weights(factor)
    kernel = np.einsum("ap,bq->abpq", weights, weights).reshape(*2 * [len(weights)], 1, -1)

    def finer(plane: tf.Tensor) -> tf.Tensor:
        return tf.nn.depth_to_space(tf.nn.conv2d(plane, kernel, 1, "SAME"), factor)

    # Beyond an edge there is nothing, and the weights of what there is add up to one.
    present = finer(tf.ones_like(images[:1, :, :, :1]))
    planes = [finer(plane) / present for plane in tf.split(images, images.shape[-1], axis=-1)]
    return tf.concat(planes, axis=-1)


def _weights(factor: int) -> np.ndarray:
    """What each pixel of a block is made of: float32 `[5, factor]`, by neighbour and place."""
    places = (np.arange(factor) + 0.5) / factor - 0.5
    places = np.round(places * 1024) / 1024  # as fine as TensorFlow's table of them
    away = np.abs(np.arange(-_REACH, _REACH + 1)[:, None] - places)
    near = 1.5 * away**3 - 2.5 * away**2 + 1
    far = -0.5 * away**3 + 2.5 * away**2 - 4 * away + 2
    return np.select([away < 1, away < 2], [near, far]).astype(np.float32)
