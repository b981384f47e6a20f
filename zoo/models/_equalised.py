"""What the progressively grown GAN is built of: equalised layers, resampling, normalisations.

Karras, Aila, Laine and Lehtinen 2018, arXiv:1710.10196. Images are `[N, H, W, C]`, H and W known.
"""

import math
from typing import Any, Literal

import keras
import tensorflow as tf

from zoo.layers import SpectralNorm
from zoo.models._doubling import doubling_kernel

GAIN = math.sqrt(2)  # He's, for layers that LeakyReLU follows


class Equalised(keras.layers.Layer):
    """Weights drawn from N(0, 1) and scaled at run time by He's constant (§4.1).

    Adam moves all weights equally fast; so scaled, all layers learn at
    the same rate. With `spectral_norm` the constant is 1 over the kernel's largest singular value
    instead, which keeps that property; `training=True` improves its estimate.

    Args:
        kernel: its shape.
        fan_in: inputs that an output is the sum of.
        bias: number of outputs.
        gain: of the activation that follows.
        spectral_norm: see above.
    """

    def __init__(
        self,
        kernel: tuple[int, ...],
        fan_in: int,
        bias: int,
        gain: float,
        spectral_norm: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.scale = gain / math.sqrt(fan_in)
        # Every replica holds the same values: the moving average may take the first one's.
        shared = {"aggregation": "only_first_replica"}
        self.kernel = self.add_weight(
            shape=kernel, initializer=keras.initializers.RandomNormal(0.0, 1.0), **shared
        )
        self.bias = self.add_weight(shape=(bias,), initializer="zeros", **shared)
        self.spectral = SpectralNorm(kernel[-1]) if spectral_norm else None
        self.built = True

    def scaled_kernel(self, training: bool) -> tf.Tensor:
        """The kernel as it is applied."""
        if self.spectral is None:
            return self.kernel * self.scale
        kernel = tf.convert_to_tensor(self.kernel)
        return tf.cast(self.spectral(kernel, training=training), self.compute_dtype)


class Dense(Equalised):
    """`[N, inputs]` to `[N, outputs]`, or to `[N, 4, 4, outputs]` with `spread`."""

    def __init__(
        self, inputs: int, outputs: int, gain: float = GAIN, spread: bool = False, **kwargs: Any
    ):
        places = 16 if spread else 1
        super().__init__((inputs, outputs * places), inputs, outputs, gain, **kwargs)
        self.spread = spread

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        x = tf.matmul(x, self.scaled_kernel(training))
        if self.spread:
            x = tf.reshape(x, [-1, 4, 4, self.bias.shape[0]])
        return tf.nn.bias_add(x, self.bias)


class Conv(Equalised):
    """A convolution; `resample` "up" doubles height and width before it, "down" halves them after.

    Nearest-neighbour doubling and averaging are part of the kernel: a 3 x 3 kernel summed over the
    four shifts by one pixel is 4 x 4, with stride 2.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int = 3,
        gain: float = GAIN,
        resample: Literal["", "up", "down"] = "",
        **kwargs: Any,
    ):
        # A transposed convolution's kernel is [H, W, outputs, inputs].
        channels = (outputs, inputs) if resample == "up" else (inputs, outputs)
        super().__init__((size, size, *channels), size * size * inputs, outputs, gain, **kwargs)
        self.resample = resample

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        kernel = self.scaled_kernel(training)
        if self.resample == "down":
            kernel *= 0.25
        if self.resample:
            kernel = doubling_kernel(kernel)
        if self.resample == "up":
            n, h, w, _ = x.shape
            n = tf.shape(x)[0] if n is None else n
            shape = [n, 2 * h, 2 * w, self.bias.shape[0]]
            x = tf.nn.conv2d_transpose(x, kernel, shape, 2)
        else:
            x = tf.nn.conv2d(x, kernel, 2 if self.resample else 1, "SAME")
        return tf.nn.bias_add(x, self.bias)


def leaky(x: tf.Tensor) -> tf.Tensor:
    """LeakyReLU with slope 0.2."""
    return tf.nn.leaky_relu(x, 0.2)


def blend(old: tf.Tensor, new: tf.Tensor, alpha: tf.Tensor) -> tf.Tensor:
    """Fade from `old` (alpha 0) to `new` (alpha 1)."""
    return old + (new - old) * tf.cast(alpha, new.dtype)


def pixel_norm(x: tf.Tensor) -> tf.Tensor:
    """Divide the channels at each pixel by their root mean square (§4.2)."""
    wide = tf.cast(x, tf.float32)
    mean = tf.reduce_mean(tf.square(wide), axis=-1, keepdims=True)
    return tf.cast(wide * tf.math.rsqrt(mean + 1e-8), x.dtype)


def upsample(x: tf.Tensor) -> tf.Tensor:
    """Each pixel to 2 x 2 pixels."""
    return tf.repeat(tf.repeat(x, 2, axis=1), 2, axis=2)


def downsample(x: tf.Tensor) -> tf.Tensor:
    """The mean of 2 x 2 pixels."""
    return tf.nn.avg_pool2d(x, 2, 2, "VALID")


def minibatch_stddev(x: tf.Tensor, group: int = 4) -> tf.Tensor:
    """`[N, H, W, C]` with one more channel: how much the images of a group differ (§3).

    The standard deviation over each `group` neighbours in the batch,
    averaged over pixels and channels. Where N is not a multiple, the group is its largest divisor.
    """
    n, (height, width) = tf.shape(x)[0], x.shape[1:3]
    sizes = tf.range(1, group + 1)
    group = tf.reduce_max(tf.where(n % sizes == 0, sizes, 1))
    y = tf.reshape(tf.cast(x, tf.float32), [-1, group, height * width * x.shape[3]])
    deviation = tf.sqrt(tf.math.reduce_variance(y, axis=1) + 1e-8)
    y = tf.repeat(tf.reduce_mean(deviation, axis=1), group)
    y = tf.ones([1, height, width, 1]) * tf.reshape(y, [-1, 1, 1, 1])
    return tf.concat([x, tf.cast(y, x.dtype)], axis=-1)


def attach(network: keras.Model, **groups: list[keras.layers.Layer]) -> None:
    """Give a network its layers, as lists and one by one: a checkpoint does not look into lists."""
    for name, layers in groups.items():
        setattr(network, name, layers)
        for n, layer in enumerate(layers):
            setattr(network, f"{name}_{n}", layer)
