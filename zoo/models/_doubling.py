"""Convolutions of images that are doubled or halved in the same operation."""

from typing import Any

import keras
import tensorflow as tf


def doubling_kernel(kernel: tf.Tensor) -> tf.Tensor:
    """The kernel of stride 2, `[h + 1, w + 1, ...]`, that also doubles or halves its images.

    As a transposed convolution it does what nearest-neighbour doubling and then a transposed one
    with `kernel`, `[h, w, ...]`, do; as a convolution four times what convolving and averaging do.
    """
    # Padding, because the gradient of a slice is slow.
    none = [0, 0]
    kernel = tf.pad(kernel, [[0, 1], none, none, none]) + tf.pad(kernel, [[1, 0], none, none, none])
    return tf.pad(kernel, [none, [0, 1], none, none]) + tf.pad(kernel, [none, [1, 0], none, none])


class DoublingConv2D(keras.layers.Conv2DTranspose):
    """Images whose pixels are doubled each way, and then a 3 × 3 convolution, in one operation.

    Args:
        filters, **kwargs: as `keras.layers.Conv2DTranspose` takes them. There is no bias, and the
            kernel is a transposed convolution's, `[3, 3, filters, inputs]`, turned by 180 degrees.
    """

    def __init__(self, filters: int, **kwargs: Any):
        super().__init__(filters, 3, strides=2, padding="same", use_bias=False, **kwargs)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        n, (height, width) = tf.shape(x)[0], x.shape[1:3]
        shape = [n, 2 * height, 2 * width, self.filters]
        return tf.nn.conv2d_transpose(x, doubling_kernel(self.kernel), shape, 2)
