"""Layers and schedules that more than one architecture uses."""

import contextlib
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
