"""Variational network: MR images from undersampled k-space, by steps of descent that learn.

Hammernik et al.: Learning a Variational Network for Reconstruction of Accelerated MRI Data, Magn.
Reson. Med. 79 (2018), arXiv:1704.00447, as Sriram et al. made it in k-space ("end to end"), MICCAI
2020, arXiv:2004.06688. With y the k-space measured, M its mask, F the Fourier transform and S the
coils' sensitivities, `cascades` times

    k <- k - eta M (k - y) - F S G(S* F* k),

eta learned and G a U-Net of real and imaginary part, another each time; the image is |S* F* k|.
What was measured is held by the second term, and so the network invents less than one that sees
the zero-filled image alone.

Input `[N, H, W, 2 C]`, real and imaginary part of each of C coils, zero where not measured: the
mask is what is not zero in all coils. Output `[N, H, W, 1]`, the magnitude, in the target's unit;
H and W are free. Everything is divided by the zero-filled image's root mean square first, so that
the scale of k-space does not matter. The sensitivities of several coils come from the middle of
k-space, where it is fully sampled: images of low resolution, divided by the root of their sum of
squares.

    python cli.py --model=varnet --dataset=mri_recon train

What differs from the second paper, and why:

    here                                     paper     why
    sensitivities are what the middle of     a U-Net   no weights that one coil does not train
    k-space shows
    the loss is the mean absolute error      SSIM      any size of image; `loss=structure` is near
    the small preset has 4 cascades, 10      12, 18    learns in minutes on two cores
    channels
"""

import dataclasses
from typing import Annotated, Any, ClassVar, Literal

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import zoo
from zoo import losses, ranges, step
from zoo.domain import Domain
from zoo.layers import constant, pad_to_multiple, scheduled
from zoo.models._measured import MeasuredRecipe
from zoo.models._unet import unet
from zoo.physics import fourier
from zoo.step import descend, ready, unscaled
from zoo.translator import Translator

LOSSES: dict[str, Any] = {"l1": losses.L1, "l2": losses.L2, "structure": losses.Structure}


@dataclasses.dataclass(frozen=True, kw_only=True)
class VarNetRecipe(MeasuredRecipe):
    """Defaults are the second paper's.

    Attributes:
        cascades: steps of descent.
        base_filters: channels of the first level of the U-Nets; each level doubles them.
        levels: resolutions of the U-Nets.
        norm: normalisation of the U-Nets.
        calibration: share of k-space's rows and columns, in the middle, that sensitivities of
            several coils come from.
        loss: of values scaled to [-1, 1]; see `zoo.losses`.
    """

    steps: ranges.Count = 50_000
    batch_size: ranges.Batch = 4
    learning_rate: ranges.Rate = 1e-3
    cascades: Annotated[int, ranges.Range(1, 64)] = 12
    base_filters: ranges.Filters = 18
    levels: ranges.Levels = 5
    norm: Literal["none", "batch", "instance"] = "instance"
    calibration: Annotated[float, ranges.Range(0.001, 1)] = 0.08
    loss: Literal["l1", "l2", "structure"] = "l1"

    SMALL: ClassVar[dict[str, Any]] = {
        "steps": 600,
        "cascades": 4,
        "base_filters": 10,
        "levels": 3,
        "rate_schedule": "cosine",
        "image_every": 200,
        "checkpoint_every": 200,
    }

    GOOD: ClassVar[dict[str, Any]] = {
        "steps": 30_000,
        "cascades": 8,
        "levels": 4,
        "rate_schedule": "cosine",
    }


# K-space and images as channels, (real, imaginary) of each coil.


def _complex(channels: tf.Tensor) -> tf.Tensor:
    """`[N, H, W, 2 C]` to complex `[N, C, H, W]`."""
    shape = tf.shape(channels)
    coils = channels.shape[-1] // 2
    pairs = tf.reshape(channels, [shape[0], shape[1], shape[2], coils, 2])
    return fourier.from_channels(tf.transpose(pairs, [0, 3, 1, 2, 4]))


def _channels(values: tf.Tensor) -> tf.Tensor:
    """The inverse of `_complex`."""
    shape = tf.shape(values)
    pairs = tf.transpose(fourier.to_channels(values), [0, 2, 3, 1, 4])
    return tf.reshape(pairs, [shape[0], shape[2], shape[3], 2 * values.shape[1]])


def combined(kspace: tf.Tensor, maps: tf.Tensor) -> tf.Tensor:
    """S* F* k: `[N, H, W, 2 C]` and maps of that shape to the image `[N, H, W, 2]`."""
    images = fourier.from_kspace(_complex(kspace)) * tf.math.conj(_complex(maps))
    return _channels(tf.reduce_sum(images, 1, keepdims=True))


def spread(image: tf.Tensor, maps: tf.Tensor) -> tf.Tensor:
    """F S x: the image `[N, H, W, 2]` and maps `[N, H, W, 2 C]` to k-space of that shape."""
    return _channels(fourier.to_kspace(_complex(image) * _complex(maps)))


def sensitivities(kspace: tf.Tensor, calibration: float) -> tf.Tensor:
    """Maps `[N, H, W, 2 C]` of the coils, whose squares sum to 1; of one coil 1.

    Args:
        kspace: `[N, H, W, 2 C]`.
        calibration: share of rows and of columns, in the middle, that is fully sampled.
    """
    if kspace.shape[-1] == 2:
        return tf.concat([tf.ones_like(kspace[..., :1]), tf.zeros_like(kspace[..., 1:])], -1)
    windows = []
    for axis in (1, 2):
        n = tf.shape(kspace)[axis]
        place = tf.cast(tf.range(n) - n // 2, tf.float32)
        width = tf.maximum(calibration * tf.cast(n, tf.float32), 2.0)
        hann = 0.5 + 0.5 * tf.cos(2 * np.pi * place / width)
        windows.append(tf.where(tf.abs(place) < width / 2, hann, 0.0))
    middle = kspace * windows[0][:, None, None] * windows[1][:, None]
    images = _channels(fourier.from_kspace(_complex(middle)))
    total = tf.reduce_sum(images**2, -1, keepdims=True)
    return images * tf.math.rsqrt(tf.maximum(total, 1e-20))


@keras.saving.register_keras_serializable(package="zoo")
class Normalised(layers.Layer):
    """k-space `[N, H, W, 2 C]` to itself over the root mean square of its image, mask, maps, scale.

    Args:
        calibration: as of `sensitivities`.
    """

    def __init__(self, calibration: float, **kwargs: Any):
        super().__init__(**{"dtype": "float32"} | kwargs)
        self.calibration = calibration

    def call(self, kspace: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        seen = tf.reduce_any(kspace != 0, -1, keepdims=True)
        # The transform keeps sums of squares.
        power = tf.reduce_sum(kspace**2, -1, keepdims=True)
        size = tf.sqrt(tf.reduce_mean(power, [1, 2], keepdims=True) + 1e-20)
        maps = sensitivities(kspace, self.calibration)
        return kspace / size, tf.cast(seen, tf.float32), maps, size

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"calibration": self.calibration}


@keras.saving.register_keras_serializable(package="zoo")
class Cascade(layers.Layer):
    """One step of descent: (k, y, mask, maps) to k, `[N, H, W, 2 C]` but for the mask's 1.

    Args:
        base_filters, levels, norm: of the U-Net.
    """

    def __init__(self, base_filters: int, levels: int, norm: str, **kwargs: Any):
        super().__init__(**{"dtype": "float32"} | kwargs)
        self.fields: dict[str, Any] = {"base_filters": base_filters, "levels": levels, "norm": norm}
        self.prior = unet(2, 2, **self.fields)
        self.eta = self.add_weight(name="eta", shape=(), initializer="ones")

    def call(self, kspace, measured, mask, maps) -> tf.Tensor:
        image = combined(kspace, maps)
        padded = pad_to_multiple(image, 2 ** (self.fields["levels"] - 1))
        found = self.prior(padded)[:, : tf.shape(image)[1], : tf.shape(image)[2]]
        return kspace - self.eta * mask * (kspace - measured) - spread(found, maps)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | self.fields


@keras.saving.register_keras_serializable(package="zoo")
class Magnitude(layers.Layer):
    """|S* F* k| times a scale, less 1: `[N, H, W, 1]`."""

    def __init__(self, **kwargs: Any):
        super().__init__(**{"dtype": "float32"} | kwargs)

    def call(self, kspace, maps, size) -> tf.Tensor:
        power = tf.reduce_sum(combined(kspace, maps) ** 2, -1, keepdims=True)
        # A square root has no gradient at 0.
        return tf.sqrt(power + 1e-12) * size - 1.0


def varnet(channels: int, recipe: VarNetRecipe) -> keras.Model:
    """The network: `[N, H, W, 2 C]`, k-space in half spans of the target, to `[N, H, W, 1]`.

    Args:
        channels: 2 C.
        recipe: widths.
    """
    inputs = keras.Input((None, None, channels))
    measured, mask, maps, size = Normalised(recipe.calibration)(inputs)
    kspace = measured
    for k in range(recipe.cascades):
        cascade = Cascade(recipe.base_filters, recipe.levels, recipe.norm, name=f"cascade{k}")
        kspace = cascade(kspace, measured, mask, maps)
    return keras.Model(inputs, Magnitude()(kspace, maps, size), name="varnet")


@zoo.register("varnet")
class VarNet(Translator):
    """The variational network: undersampled k-space to images.

    Example:
        >>> kspace = Domain(modality="MR", unit="k-space", window=(-16, 16), channels=2)
        >>> model = zoo.load("varnet", cascades=2, base_filters=8, levels=2, source=kspace)
        >>> model.translate(np.zeros([5, 32, 48, 2], "float32")).shape
        (5, 32, 48, 1)
    """

    recipe_class = VarNetRecipe
    recipe: VarNetRecipe
    takes = ("k-space",)

    def __init__(self, recipe: VarNetRecipe, source: Domain, target: Domain, **kwargs: Any):
        super().__init__(recipe, source, target, **kwargs)
        if source.channels % 2 or target.channels != 1:
            raise ValueError(
                "source: expected k-space, two channels a coil, and one image. "
                f"Received: {source.channels} channels to {target.channels}"
            )
        self.network = varnet(source.channels, recipe)

    @property
    def tiles(self) -> bool:
        return False  # a sample of k-space belongs to the whole image

    def compile(self, *args: Any, **kwargs: Any) -> None:
        super().compile(*args, **kwargs)
        if self.optimizer is None:
            rate = scheduled(self.recipe, self.recipe.learning_rate, constant)
            self.optimizer = step.Adam(rate)
        self.network_optimizer = ready(self, self.network.trainable_variables, self.optimizer)

    def train_step(self, batch: dict) -> dict[str, tf.Tensor]:
        """One step on the recipe's loss of values scaled to [-1, 1]."""
        target = self.target.encode(tf.cast(batch["target"], tf.float32))
        with tf.GradientTape() as tape:
            values = self.values(tf.cast(batch["source"], tf.float32), training=True)
            share = LOSSES[self.recipe.loss]()(target, values)
        descend(self.network_optimizer, tape, share, self.network.trainable_variables)
        return {"loss": unscaled(share)} | self.pixel_logs(values, target)

    def values(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        # Not clipped, and what is 0 stays so. A magnitude is counted from 0, the window's middle
        # half a span above its lower end.
        span, low = self.target.span, self.target.window[0]
        found = self.network(tf.cast(images, tf.float32) * (2 / span), training=training)
        return found - 2 * low / span
