"""Layers that architectures share, a learning-rate schedule, and changes of an image's size."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import keras
import tensorflow as tf

from zoo.recipe import Recipe
from zoo.step import random_uniform

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
    """Batch or instance normalisation of images or volumes by TensorFlow's fused kernel.

    `[N, H, W, C]` or `[N, D, H, W, C]`, the statistics over all axes but the channels (and, for
    "instance", the examples).

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
        if x.shape.rank == 4:
            return self._images(x, training)
        # The kernel knows images only, and which voxel is whose neighbour does not matter to it.
        shape = tf.shape(x)
        tall = tf.reshape(x, [shape[0], shape[1] * shape[2], shape[3], x.shape[-1]])
        return tf.ensure_shape(tf.reshape(self._images(tall, training), shape), x.shape)

    def _images(self, x: tf.Tensor, training: bool) -> tf.Tensor:
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
        mean = variance = None  # the batch's own
        if not training:
            mean = tf.convert_to_tensor(self.moving_mean)
            variance = tf.convert_to_tensor(self.moving_variance)
        scale, offset = tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta)
        options = {"epsilon": _EPSILON, "is_training": bool(training)}
        return tf.compat.v1.nn.fused_batch_norm(x, scale, offset, mean, variance, **options)

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
    """Channels to space: `[N, H, W, f²C]` to `[N, fH, fW, C]` (Shi et al. 2016, arXiv:1609.05158).

    Volumes likewise: `[N, D, H, W, f³C]` to `[N, fD, fH, fW, C]`. The channels are ordered by
    place within the block, rows (slices) first, then by output channel, as in
    `tf.nn.depth_to_space`.
    """

    def __init__(self, factor: int = 2, **kwargs: Any):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, x: tf.Tensor) -> tf.Tensor:
        if x.shape.rank == 4:
            return tf.nn.depth_to_space(x, self.factor)
        f, (n, d, h, w, _) = self.factor, tf.unstack(tf.shape(x))
        channels = x.shape[-1] // f**3
        y = tf.reshape(x, [n * d, h, w, f, f, f * channels])
        y = tf.transpose(y, [0, 3, 1, 4, 2, 5])
        y = tf.reshape(y, [n, d * f, h * f, w * f, channels])
        return tf.ensure_shape(y, self.compute_output_shape(x.shape))

    def compute_output_shape(self, shape: tuple) -> tuple:
        f, (n, *space, channels) = self.factor, tuple(shape)
        return (n, *(size and f * size for size in space), channels // f ** len(space))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"factor": self.factor}


@keras.saving.register_keras_serializable(package="zoo")
class ReflectionPadding(keras.layers.Layer):
    """`n` pixels more at every edge of an image or volume, mirrored without the edge itself."""

    def __init__(self, n: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.n = n

    def call(self, x: tf.Tensor) -> tf.Tensor:
        space = [[self.n, self.n]] * (x.shape.rank - 2)
        return tf.pad(x, [[0, 0], *space, [0, 0]], "REFLECT")

    def compute_output_shape(self, shape: tuple) -> tuple:
        first, *space, last = shape
        return (first, *(size and size + 2 * self.n for size in space), last)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"n": self.n}


@keras.saving.register_keras_serializable(package="zoo")
class Conv2DTranspose(keras.layers.Conv2DTranspose):
    """Keras's of kernel 3 and stride 2, less the first row and column: sides are doubled.

    It is the adjoint of a convolution whose images are padded by one pixel at each edge, so that
    pixels stay where they were.
    """

    def __init__(self, filters: int, **kwargs: Any):
        fixed = {"kernel_size": 3, "strides": 2, "padding": "valid"}
        super().__init__(filters, **kwargs | fixed)

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        if not training:  # formats that models are exported to have no such padding
            return super().call(x)[:, 1:, 1:]
        # Nothing is made that is then cut off, nor its gradient filled up with zeros.
        shape = tf.shape(x)
        sides = [shape[0], 2 * shape[1], 2 * shape[2], self.filters]
        padding = [[0, 0], [1, 0], [1, 0], [0, 0]]
        kernel = tf.convert_to_tensor(self.kernel)
        y = tf.nn.conv2d_transpose(x, kernel, sides, 2, padding)
        return tf.nn.bias_add(y, tf.convert_to_tensor(self.bias))

    def compute_output_shape(self, shape: tuple) -> tuple:
        first, *sides, _ = shape
        return (first, *(side and 2 * side for side in sides), self.filters)


class _ZeroMeanConvolution(keras.layers.Layer):
    """Over a Keras convolution: no bias, and kernels less their mean, so that a constant gives 0.

    Unpadded, and in float32: it takes a level away that bfloat16 would round small changes to.
    """

    def __init__(self, filters: int, kernel_size: int, **kwargs: Any):
        super().__init__(filters, kernel_size, **kwargs | {"use_bias": False, "dtype": "float32"})

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        space = list(range(kernel.shape.rank - 2))
        mean = tf.reduce_mean(kernel, axis=space, keepdims=True)
        return super().convolution_op(inputs, kernel - mean)


@keras.saving.register_keras_serializable(package="zoo")
class ZeroMeanConv2D(_ZeroMeanConvolution, keras.layers.Conv2D):
    """`keras.layers.Conv2D` without bias, its kernels less their mean."""


@keras.saving.register_keras_serializable(package="zoo")
class ZeroMeanConv3D(_ZeroMeanConvolution, keras.layers.Conv3D):
    """`keras.layers.Conv3D` without bias, its kernels less their mean."""


def without_level(x: tf.Tensor, filters: int) -> tf.Tensor:
    """Features `[N, H, W, filters]`, or of a volume, that no constant added to `x` changes."""
    x = ReflectionPadding(1, dtype="float32")(x)
    layer = ZeroMeanConv2D if len(x.shape) == 4 else ZeroMeanConv3D
    return layer(filters, 3, kernel_initializer="he_normal")(x)


# Spectral normalisation.


@keras.saving.register_keras_serializable(package="zoo")
class SpectralNorm(keras.layers.Layer):
    """A kernel divided by its largest singular value, so that the layer is 1-Lipschitz or nearly.

    Miyato et al. 2018, arXiv:1802.05957, algorithm 1: one power iteration each time a training
    step runs it, from where the last one ended; the gradient flows through the singular value,
    with both singular vectors held constant. The kernel is taken as the matrix [-1, outputs].

    `keras.layers.SpectralNormalization` instead overwrites the trained kernel with the normalised
    one whenever it runs in training, the generator's turn included. Its gradient is that of the
    normalised kernel alone, without the term through the singular value (the paper's eq. 12), and
    the optimizer's moments are those of a kernel that has since changed.

    Args:
        outputs: size of the kernel's last axis.
    """

    def __init__(self, outputs: int, **kwargs: Any):
        super().__init__(**{"dtype": "float32"} | kwargs)
        self.outputs = outputs
        self.u = self.add_weight(
            name="u",
            shape=(outputs,),
            initializer=keras.initializers.RandomNormal(),
            trainable=False,
            aggregation="only_first_replica",  # all replicas compute the same
        )
        self.built = True

    def call(self, kernel: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The kernel over its largest singular value, float32; `training` improves the estimate."""
        matrix = tf.reshape(kernel, [-1, self.outputs])
        u, constant = tf.convert_to_tensor(self.u), tf.stop_gradient(matrix)
        v = tf.math.l2_normalize(tf.linalg.matvec(constant, u))
        if training:
            u = tf.math.l2_normalize(tf.linalg.matvec(constant, v, transpose_a=True))
            self.u.assign(u)
        else:
            u = tf.math.l2_normalize(u)
        sigma = tf.tensordot(v, tf.linalg.matvec(matrix, u), 1)
        # A kernel of zeros stays one.
        return kernel / tf.maximum(sigma, 1e-12)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"outputs": self.outputs}


class _SpectralConvolution(keras.layers.Layer):
    """Over a Keras convolution or dense layer: its kernel, not its bias, is normalised."""

    # Of the layer that a subclass inherits besides.
    kernel: keras.Variable
    bias: keras.Variable | None
    activation: Callable[[tf.Tensor], tf.Tensor] | None
    convolution_op: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

    def build(self, shape: tuple) -> None:
        super().build(shape)
        self.spectral = SpectralNorm(self.kernel.shape[-1])

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        kernel = self.spectral(tf.convert_to_tensor(self.kernel), training=training)
        y = self.convolution_op(inputs, tf.cast(kernel, inputs.dtype))
        if self.bias is not None:
            y += tf.cast(self.bias, y.dtype)
        return y if self.activation is None else self.activation(y)


@keras.saving.register_keras_serializable(package="zoo")
class SpectralConv2D(_SpectralConvolution, keras.layers.Conv2D):
    """`keras.layers.Conv2D` with its kernel normalised by `SpectralNorm`."""


@keras.saving.register_keras_serializable(package="zoo")
class SpectralConv3D(_SpectralConvolution, keras.layers.Conv3D):
    """`keras.layers.Conv3D` with its kernel normalised by `SpectralNorm`."""


@keras.saving.register_keras_serializable(package="zoo")
class SpectralDense(_SpectralConvolution, keras.layers.Dense):
    """`keras.layers.Dense` with its kernel normalised by `SpectralNorm`."""

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return keras.ops.matmul(inputs, kernel)


def ranked(name: str, rank: int) -> type[keras.layers.Layer]:
    """Keras's layer for images (`rank` 2) or volumes (3): `ranked("MaxPooling{}D", 3)`."""
    return getattr(keras.layers, name.format(rank))


def convolution(
    filters: int,
    size: int,
    stride: int = 1,
    *,
    rank: int = 2,
    spectral_norm: bool = False,
    **kwargs: Any,
) -> keras.layers.Layer:
    """A convolution of images (`rank` 2) or volumes (3).

    Args:
        filters, size, stride: channels of the result, side of the kernel, step.
        rank: 2 for `[N, H, W, C]`, 3 for `[N, D, H, W, C]`.
        spectral_norm: normalise the kernel by `SpectralNorm`.
        **kwargs: what Keras's layer takes besides, such as `padding` ("valid" where not given).

    Raises:
        ValueError: for another rank.
    """
    if rank not in (2, 3):
        raise ValueError(f"rank: expected 2 or 3. Received: {rank}")
    layer = ranked("Conv{}D", rank)
    if spectral_norm:
        layer = {2: SpectralConv2D, 3: SpectralConv3D}[rank]
    return layer(filters, size, stride, **kwargs)


def dense(units: int, spectral_norm: bool = False, **kwargs: Any) -> keras.layers.Layer:
    """A fully connected Keras layer; `spectral_norm` normalises its kernel by `SpectralNorm`."""
    return (SpectralDense if spectral_norm else keras.layers.Dense)(units, **kwargs)


def patch_gan(
    channels: int,
    filters: int,
    depth: int,
    *,
    rank: int = 2,
    norm: Literal["batch", "instance", "none"] = "batch",
    spectral_norm: bool = False,
) -> keras.Model:
    """The PatchGAN discriminator: C64-C128-C256-C512(s1)-C1(s1) for 64 filters and depth 3.

    Isola et al. 2017 (arXiv:1611.07004, §6.1.2); depth 3 judges 70×70 patches. CycleGAN's has
    instance norm.

    Args:
        channels: of the images judged, those of the condition included.
        filters: channels of the first layer; doubled up to 8 times that.
        depth: stride-2 layers.
        rank: 2 for images, 3 for volumes, with cubes for patches.
        norm: normalisation of all layers but the first and last. Without it the kernels start
            from He's distribution: the papers' N(0, 0.02²) would let hardly anything through.
        spectral_norm: normalise every kernel by `SpectralNorm`.

    Returns:
        `[N, H, W, channels]`, or volumes, to float32 scores (logits), one for each patch (30×30 at
        256²).
    """
    init = keras.initializers.RandomNormal(0.0, 0.02)
    if norm == "none":
        init = keras.initializers.HeNormal()
    biased = norm != "batch"  # batch normalisation's offset makes a bias useless

    def layer(x, filters, stride, bias, **options):
        # "same" would give 32×32 and shift the patches.
        x = ranked("ZeroPadding{}D", rank)(1)(x)
        options |= dict(spectral_norm=spectral_norm, use_bias=bias, kernel_initializer=init)
        return convolution(filters, 4, stride, rank=rank, **options)(x)

    inputs = keras.Input((None,) * rank + (channels,))
    x = keras.layers.LeakyReLU(0.2)(layer(inputs, filters, 2, True))
    for level in range(1, depth + 1):
        x = layer(x, filters * min(2**level, 8), 2 if level < depth else 1, biased)
        x = x if norm == "none" else Norm(norm)(x)
        x = keras.layers.LeakyReLU(0.2)(x)
    x = layer(x, 1, 1, True, dtype="float32")
    return keras.Model(inputs, x, name="discriminator")


def least_patch(depth: int) -> int:
    """Pixels along each axis of which `patch_gan` of so many stride-2 layers gives a score."""
    return 3 * 2**depth


def require_patches(sides: Sequence[int], depth: int, shrink: int = 1) -> None:
    """A ValueError where images are too small for `patch_gan` to give a score.

    Args:
        sides: of the images that are trained on.
        depth: the discriminator's.
        shrink: pixels of an image along one of what is judged.
    """
    least = least_patch(depth) * shrink
    if any(side < least for side in sides):
        raise ValueError(
            f"crop: expected {least} or more along each axis, which a discriminator of {depth} "
            "stride-2 layers needs; take a larger crop or fewer discriminator_layers. "
            f"Received: {','.join(map(str, sides))}"
        )


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


Schedule = Callable[[float, int], Any]  # from a rate and a number of updates


def constant(rate: float, steps: int) -> float:
    """The rate itself."""
    return rate


def scheduled(recipe: Recipe, rate: float, own: Schedule, steps: int = 0) -> Any:
    """A learning rate as an optimizer takes it, by the recipe's `rate_schedule`.

    Args:
        rate: the rate at the start.
        own: the model's own schedule.
        steps: updates that the optimizer makes; 0: the recipe's.
    """
    cosine = keras.optimizers.schedules.CosineDecay
    schedules = {"own": own, "constant": constant, "linear": LinearDecay, "cosine": cosine}
    return schedules[recipe.rate_schedule](rate, steps or recipe.steps)


@contextlib.contextmanager
def float32_judge(penalised: bool) -> Iterator[None]:
    """Within it, layers are float32 where they would be float16 and their gradient is penalised.

    The gradient of a critic's scores for one pixel is small, and its own gradient, times the loss
    scale, large: float16 holds not both. bfloat16 does.
    """
    before = keras.config.dtype_policy()
    if penalised and before.name == "mixed_float16":
        keras.config.set_dtype_policy("float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def pad_to_multiple(images: tf.Tensor, multiple: int) -> tf.Tensor:
    """Reflect `[N, H, W, C]`, or volumes, at its far edges until its sides are multiples."""
    if multiple == 1:
        return images

    def reflected(size: tf.Tensor) -> tf.Tensor:
        # Of no negative number: converters round its quotient the other way.
        missing = (multiple - size % multiple) % multiple
        index = tf.range(size + missing) % (2 * size)
        return tf.minimum(index, 2 * size - 1 - index)

    for axis in range(1, images.shape.rank - 1):
        images = tf.gather(images, reflected(tf.shape(images)[axis]), axis=axis)
    return images
