"""Layers and schedules that more than one architecture uses."""

import contextlib
import math
import threading
from typing import Any, Literal

import keras
import tensorflow as tf

from zoo.translator import random_uniform

_EPSILON = 1.001e-5  # the fused kernel takes nothing below
_step = threading.local()


@contextlib.contextmanager
def step_seeds(seeds: tf.Tensor):
    """Within it, `Dropout` draws its masks from `seeds`, int32 `[N, 2]`, one an example.

    A mask that depends on the example alone is the same on one replica and on many, and the same
    again when a run resumes; Keras's own dropout has a state that is neither.
    """
    _step.seeds, _step.count = seeds, 0
    try:
        yield
    finally:
        del _step.seeds


@keras.saving.register_keras_serializable(package="zoo")
class Dropout(keras.layers.Layer):
    """Dropout whose masks come from the enclosing `step_seeds`.

    Args:
        rate: fraction of values set to zero; the others grow by 1 / (1 - rate).
        always: drop at inference too, as pix2pix does.
    """

    def __init__(self, rate: float, always: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.rate, self.always = rate, always

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        if not self.rate or not (training or self.always):
            return x
        if hasattr(_step, "seeds"):
            _step.count += 1
            noise = random_uniform(_step.seeds, tuple(x.shape[1:]), 100 + _step.count)
        else:
            noise = tf.random.uniform(tf.shape(x))
        return x * tf.cast(noise >= self.rate, x.dtype) / (1.0 - self.rate)

    def compute_output_shape(self, shape: tuple) -> tuple:
        return shape

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"rate": self.rate, "always": self.always}


@keras.saving.register_keras_serializable(package="zoo")
class Norm(keras.layers.Layer):
    """Batch or instance normalisation of `[N, H, W, C]` by TensorFlow's fused kernel.

    Several times faster than Keras's own layers in bfloat16; statistics are float32 throughout.
    Under several replicas batch statistics are those of the global batch, as on one device.

    Args:
        kind: "batch", or "instance", which has no scale, offset or state.
        inference: what batch normalisation uses outside training: its "moving" statistics, or
            those of each "image" alone.
        momentum: of the moving statistics.
    """

    def __init__(
        self,
        kind: Literal["batch", "instance"],
        inference: Literal["moving", "image"] = "moving",
        momentum: float = 0.9,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.kind, self.inference, self.momentum = kind, inference, momentum

    def build(self, shape: tuple) -> None:
        if self.kind == "instance":
            return

        def weight(name: str, initializer: Any, trainable: bool) -> keras.Variable:
            return self.add_weight(
                name=name,
                shape=(shape[-1],),
                initializer=initializer,
                trainable=trainable,
                autocast=False,
                aggregation="none" if trainable else "mean",
            )

        # N(1, 0.02), as every GAN of the DCGAN line has it.
        self.gamma = weight("gamma", keras.initializers.RandomNormal(1.0, 0.02), True)
        self.beta = weight("beta", "zeros", True)
        self.moving_mean = weight("moving_mean", "zeros", False)
        self.moving_variance = weight("moving_variance", "ones", False)

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        if self.kind == "instance" or (not training and self.inference == "image"):
            return self._each_image(x)
        if training and tf.distribute.get_strategy().num_replicas_in_sync > 1:
            y, mean, variance = self._global_batch(x)
        else:
            y, mean, variance = self._fused(x, training)
        if training:
            m = self.momentum
            self.moving_mean.assign(self.moving_mean * m + mean * (1 - m))
            self.moving_variance.assign(self.moving_variance * m + variance * (1 - m))
        return y

    def _fused(self, x: tf.Tensor, training: bool) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        return tf.compat.v1.nn.fused_batch_norm(
            x,
            tf.convert_to_tensor(self.gamma),
            tf.convert_to_tensor(self.beta),
            mean=None if training else tf.convert_to_tensor(self.moving_mean),
            variance=None if training else tf.convert_to_tensor(self.moving_variance),
            epsilon=_EPSILON,
            is_training=bool(training),
        )

    def _global_batch(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        values = tf.cast(x, tf.float32)
        moments = [tf.reduce_mean(v, axis=[0, 1, 2]) for v in (values, tf.square(values))]
        mean, square = tf.distribute.get_replica_context().all_reduce("MEAN", moments)
        variance = square - tf.square(mean)
        y = tf.nn.batch_normalization(values, mean, variance, self.beta, self.gamma, _EPSILON)
        count = tf.cast(tf.size(x[..., 0]), tf.float32)
        count *= tf.distribute.get_strategy().num_replicas_in_sync
        # The fused kernel's moving variance has Bessel's correction.
        return tf.cast(y, x.dtype), mean, variance * count / tf.maximum(count - 1.0, 1.0)

    def _each_image(self, x: tf.Tensor) -> tf.Tensor:
        shape = tf.shape(x)
        n, h, w, c = shape[0], shape[1], shape[2], x.shape[-1]
        # One image of N·C channels, whose batch statistics are each image's own.
        merged = tf.reshape(tf.transpose(x, [1, 2, 0, 3]), [1, h, w, n * c])
        if self.kind == "instance":
            scale, offset = tf.ones([n * c]), tf.zeros([n * c])
        else:
            scale, offset = tf.tile(self.gamma, [n]), tf.tile(self.beta, [n])
        y, _, _ = tf.compat.v1.nn.fused_batch_norm(
            merged, scale, offset, epsilon=_EPSILON, is_training=True
        )
        y = tf.transpose(tf.reshape(y, [h, w, n, c]), [2, 0, 1, 3])
        return tf.ensure_shape(y, x.shape)

    def compute_output_shape(self, shape: tuple) -> tuple:
        return shape

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "kind": self.kind,
            "inference": self.inference,
            "momentum": self.momentum,
        }


@keras.saving.register_keras_serializable(package="zoo")
class PixelShuffle(keras.layers.Layer):
    """`[N, H, W, 4C]` to `[N, 2H, 2W, C]` (Shi et al. 2016)."""

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return tf.nn.depth_to_space(x, 2)

    def compute_output_shape(self, shape: tuple) -> tuple:
        n, h, w, c = shape
        return n, h and 2 * h, w and 2 * w, c // 4


# Equalised weights and resampling, of the progressively grown GAN.

GAIN = math.sqrt(2)  # He's, for layers that LeakyReLU follows


class Equalised(keras.layers.Layer):
    """Weights drawn from N(0, 1) and scaled at run time by He's constant.

    Karras et al. 2018, §4.1. Adam moves all weights equally fast; so scaled, all layers learn at
    the same rate.
    """

    def __init__(self, kernel: tuple[int, ...], fan_in: int, bias: int, gain: float, **kwargs):
        super().__init__(**kwargs)
        self.scale = gain / math.sqrt(fan_in)
        # Every replica holds the same values: the moving average may take the first one's.
        shared = {"aggregation": "only_first_replica"}
        self.kernel = self.add_weight(
            shape=kernel, initializer=keras.initializers.RandomNormal(0.0, 1.0), **shared
        )
        self.bias = self.add_weight(shape=(bias,), initializer="zeros", **shared)
        self.built = True


class Dense(Equalised):
    """[N, inputs] to [N, outputs], or to [N, 4, 4, outputs] with `spread`."""

    def __init__(self, inputs: int, outputs: int, gain: float = GAIN, spread=False, **kw):
        super().__init__((inputs, outputs * (16 if spread else 1)), inputs, outputs, gain, **kw)
        self.spread = spread

    def call(self, x: tf.Tensor) -> tf.Tensor:
        x = tf.matmul(x, self.kernel * self.scale)
        if self.spread:
            x = tf.reshape(x, [-1, 4, 4, self.bias.shape[0]])
        return tf.nn.bias_add(x, self.bias)


class Conv(Equalised):
    """A convolution; `resample` "up" doubles height and width before it, "down" halves them after.

    Nearest-neighbour doubling and averaging are part of the kernel: a 3 x 3 kernel summed over the
    four shifts by one pixel is 4 x 4, with stride 2.
    """

    def __init__(self, inputs: int, outputs: int, size=3, gain=GAIN, resample="", **kw):
        # A transposed convolution's kernel is [H, W, outputs, inputs].
        channels = (outputs, inputs) if resample == "up" else (inputs, outputs)
        super().__init__((size, size, *channels), size * size * inputs, outputs, gain, **kw)
        self.resample = resample

    def call(self, x: tf.Tensor) -> tf.Tensor:
        kernel = self.kernel * (self.scale * (0.25 if self.resample == "down" else 1.0))
        if self.resample:
            kernel = tf.pad(kernel, [[1, 1], [1, 1], [0, 0], [0, 0]])
            kernel = kernel[1:] + kernel[:-1]
            kernel = kernel[:, 1:] + kernel[:, :-1]
        if self.resample == "up":
            n, h, w, _ = x.shape
            n = tf.shape(x)[0] if n is None else n
            shape = [n, 2 * h, 2 * w, self.bias.shape[0]]
            x = tf.nn.conv2d_transpose(x, kernel, shape, 2)
        else:
            x = tf.nn.conv2d(x, kernel, 2 if self.resample else 1, "SAME")
        return tf.nn.bias_add(x, self.bias)


def pixel_norm(x: tf.Tensor) -> tf.Tensor:
    """Divide the channels at each pixel by their root mean square (Karras et al. 2018, §4.2)."""
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
    """[N, H, W, C] with one more channel: how much the images of a group differ.

    Karras et al. 2018, §3. The standard deviation over each `group` neighbours in the batch,
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


@keras.saving.register_keras_serializable(package="zoo")
class LinearDecay(keras.optimizers.schedules.LearningRateSchedule):
    """A constant rate for the first half of the steps, then a line down to zero."""

    def __init__(self, rate: float, steps: int):
        self.rate, self.steps = rate, steps

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        done = tf.cast(step, tf.float32) / self.steps
        return self.rate * tf.clip_by_value(2.0 - 2.0 * done, 0.0, 1.0)

    def get_config(self) -> dict[str, Any]:
        return {"rate": self.rate, "steps": self.steps}
