"""SRCNN: super-resolution by three convolutions on the enlarged image.

Dong, Loy, He, Tang: Image Super-Resolution Using Deep Convolutional Networks, TPAMI 2016,
arXiv:1501.00092.

    input            bicubic interpolation to `scale` times the sides
    patch extraction 64 9×9, ReLU
    mapping          32 f×f, ReLU        f = 1, 3 or 5: the networks 9-1-5, 9-3-5, 9-5-5
    reconstruction   C 5×5, linear

Input `[N, H, W, C]`, output `[N, scale H, scale W, C]`, both in physical units; the convolutions
work on [0, 1], as the paper's do, to which the intensity windows are mapped. H and W are free.

The convolutions have no padding. In training the loss is that of the centre, where every value is
the image's own; in serving the enlarged image is mirrored at its edges first, so that the output
is whole and has no dark frame. Further inside the two are equal.

    python cli.py --model=srcnn --dataset=sr train

The paper's training needs millions of steps: its small weights and rates learn very slowly, and
for long the output is worse than its input. The small preset learns a correction instead: on
`sr/phantom_ct` at scale 2 its output has 37.9 dB of PSNR where bicubic interpolation has 33.6,
after some three minutes on two CPU cores.

What differs from the paper, and why:

    here                                      paper             why
    crops of 40 pixels, 4 at each edge only   33 pixels of the  interpolation near a crop's edge
    for the interpolation: 32 remain          enlarged image    would not be the whole image's
    crops anywhere                            every 14 pixels   more of them
    what the data set calls low resolution    blurred and       scanners average over their pixels
                                              subsampled
    all channels together                     luminance         medical images are grey
    mirrored edges in serving                 zeros, or a       an output as large as the target
                                              smaller output
    in the small preset: a correction to the  an image,         minutes in place of days
    interpolated image, Adam, He's weights    SGD, N(0, 0.001)
"""

import dataclasses
from typing import Annotated, Any, ClassVar, Literal, Self

import keras
import tensorflow as tf
from keras import layers

import zoo
from zoo import ranges, step
from zoo.bicubic import enlarge
from zoo.domain import Domain
from zoo.layers import LinearDecay, constant, scheduled
from zoo.losses import L2
from zoo.recipe import DataFacts, Phase, Recipe
from zoo.step import apply, forward_flops, gradients, ready, unscaled
from zoo.translator import Translator

_REACH = 2  # pixels of the small image on either side that bicubic interpolation looks at


@dataclasses.dataclass(frozen=True, kw_only=True)
class SrcnnRecipe(Recipe):
    """Defaults are the paper's (§4.1); batch size and momentum are its authors' Caffe files'.

    Attributes:
        steps: the paper back-propagates 8·10^8 sub-images.
        batch_size: sub-images in a step.
        learning_rate: of the first two layers.
        last_rate: of the last layer; 0 takes `learning_rate`.
        crop: what is interpolated, 2·scale at each edge more than the paper's sub-images of about
            33 pixels: 40, 45, 48, 64 for the scales 2, 3, 4, 8. A multiple of the scale.
        scale: output pixels along one input pixel: 2, 3, 4 or 8.
        filters1, filters2: channels of the two hidden layers.
        middle: side of the second layer's kernels: 1, 3 or 5.
        optimizer: "sgd" with `momentum`, at constant rates; "adam" decays them to zero over the
            second half of the run.
        momentum: Keras's and Caffe's are the same, v <- momentum v - rate gradient, w <- w + v.
        bias: False leaves the biases out. Where both windows begin at 0 the network then gives, of
            an image times any number, its output times that number (Mohan et al. 2020,
            arXiv:1906.05478): right for MR, whose signal has no unit.
        deviation: of the Gaussian that all weights are drawn from; 0 draws the hidden layers'
            as He et al. do and only the last one's from N(0, 0.001).
        output: "image", or "residual": the network's output is a correction to the interpolated
            image; "auto" takes the residual where source and target share modality, unit and
            window.
    """

    steps: ranges.Count = 6_250_000
    batch_size: ranges.Batch = 128
    learning_rate: ranges.Rate = 1e-4
    last_rate: ranges.Rate = 1e-5
    crop: ranges.Sides = 40
    scale: Literal[2, 3, 4, 8] = 2
    filters1: ranges.Filters = 64
    filters2: ranges.Filters = 32
    middle: Literal[1, 3, 5] = 1
    optimizer: Literal["sgd", "adam"] = "sgd"
    momentum: ranges.Fraction = 0.9
    bias: bool = True
    deviation: Annotated[float, ranges.Range(0, 1000)] = 0.001
    output: Literal["image", "residual", "auto"] = "image"

    SMALL: ClassVar[dict[str, Any]] = {
        "steps": 2400,
        "batch_size": 16,
        "learning_rate": 1e-3,
        "last_rate": 0.0,
        "crop": 64,
        "flip": True,
        "optimizer": "adam",
        "deviation": 0.0,
        "output": "auto",
        "image_every": 400,
        "checkpoint_every": 400,
    }

    GOOD: ClassVar[dict[str, Any]] = {
        "steps": 200_000,
        "batch_size": 32,
        "learning_rate": 5e-4,
        "last_rate": 0.0,
        "rate_schedule": "cosine",
        "crop": 64,
        "flip": True,
        "middle": 3,
        "optimizer": "adam",
        "deviation": 0.0,
        "output": "auto",
    }

    @property
    def border(self) -> int:
        """Pixels that the three convolutions take off at each edge: 6, 7 or 8."""
        return 4 + self.middle // 2 + 2

    def resolve(self, facts: DataFacts) -> Self:
        """The recipe itself.

        Raises:
            ValueError: for crops, or images, too small to have a centre.
        """
        least = 2 * (self.border + _REACH * self.scale) + 1
        shape = facts.target_shape or (least,)
        if min((*shape, *self.crop_sides)) < least:
            raise ValueError(
                f"crop: expected crops and images of {least} pixels or more at scale "
                f"{self.scale}. Received: crop {self.crop}, images of {'x'.join(map(str, shape))}"
            )
        return self


def srcnn(channels: int, outputs: int, recipe: SrcnnRecipe, residual: bool = False) -> keras.Model:
    """`[N, H, W, channels]`, enlarged and in [-1, 1], to `[N, H - 2b, W - 2b, outputs]`.

    b is `recipe.border`. The output is about [-1, 1] or, of a residual, about 0.
    """

    def convolution(x, filters, size, name, last=False):
        start = keras.initializers.RandomNormal(0.0, recipe.deviation or 0.001)
        if not recipe.deviation and not last:
            start = "he_normal"
        options = {"dtype": "float32"} if last else {}
        layer = layers.Conv2D(
            filters, size, use_bias=recipe.bias, kernel_initializer=start, name=name, **options
        )
        return layer(x)

    inputs = keras.Input((None, None, channels))
    # In float32: near 0 bfloat16 is fine, near -1 it would leave a low signal a few levels.
    x = layers.Rescaling(0.5, 0.5, dtype="float32")(inputs)
    x = layers.ReLU()(convolution(x, recipe.filters1, 9, "extraction"))
    x = layers.ReLU()(convolution(x, recipe.filters2, recipe.middle, "mapping"))
    x = convolution(x, outputs, 5, "reconstruction", last=True)
    x = layers.Rescaling(2.0, 0.0 if residual else -1.0, dtype="float32")(x)
    return keras.Model(inputs, x, name="srcnn")


@zoo.register("srcnn")
class SRCNN(Translator):
    """SRCNN: takes the low-resolution image and enlarges it itself.

    Example:
        >>> model = zoo.load("srcnn", scale=2)
        >>> model.translate(np.zeros([100, 80], "float32")).shape
        (200, 160)
    """

    recipe_class = SrcnnRecipe
    recipe: SrcnnRecipe
    optimizers = ("hidden_optimizer", "last_optimizer")

    def __init__(self, recipe: SrcnnRecipe, source: Domain, target: Domain, **kwargs: Any):
        super().__init__(recipe, source, target, **kwargs)
        self.network = srcnn(source.channels, target.channels, recipe, self.residual)

    @property
    def tile_margin(self) -> int:
        return _REACH - (-self.recipe.border // self.scale)

    def values(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Values of the target's scale, `scale` times the sides of the physical images.

        The enlarged image is mirrored at its edges by what the convolutions take off.
        """
        n = self.recipe.border
        enlarged = enlarge(images, self.scale)
        return self._centre(tf.pad(enlarged, [[0, 0], [n, n], [n, n], [0, 0]], "REFLECT"))

    def _centre(self, enlarged: tf.Tensor) -> tf.Tensor:
        """Values of the centre of physical images that were enlarged."""
        values = self.network(self.source.encode(enlarged))
        if self.residual:
            values += self.unclipped(_without_edge(enlarged, self.recipe.border))
        return values

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Two optimizers, because the last layer has a rate of its own."""
        super().compile(*args, **kwargs)
        recipe = self.recipe
        rates = {"hidden": recipe.learning_rate, "last": recipe.last_rate or recipe.learning_rate}
        for name, rate in rates.items():
            if recipe.optimizer == "adam":
                optimizer = step.Adam(scheduled(recipe, rate, LinearDecay))
            else:
                rate = scheduled(recipe, rate, constant)
                optimizer = keras.optimizers.SGD(rate, momentum=recipe.momentum)
            setattr(self, f"{name}_optimizer", ready(self, self._weights()[name], optimizer))

    def _weights(self) -> dict[str, list[keras.Variable]]:
        weights = self.network.trainable_variables
        last = 2 if self.recipe.bias else 1  # kernel and bias
        return {"hidden": weights[:-last], "last": weights[-last:]}

    def train_step(self, batch: dict) -> dict[str, tf.Tensor]:
        """One step on the squared error of the centre: eq. 4, the sum over a sub-image's pixels."""
        edge = _REACH * self.scale
        enlarged = _without_edge(enlarge(batch["source"], self.scale), edge)
        target = _without_edge(self.target_values(batch["target"]), edge + self.recipe.border)
        weights = self._weights()
        with tf.GradientTape() as tape:
            output = self._centre(enlarged)
            mse = L2()(target, output) / 4.0  # of values in [0, 1]
            loss = mse * tf.cast(tf.size(target[0]), tf.float32)
        hidden, last = weights["hidden"], weights["last"]
        both = self.hidden_optimizer, self.last_optimizer
        given = gradients(tape, loss, hidden + last, *both)
        apply(self.hidden_optimizer, given[: len(hidden)], hidden)
        apply(self.last_optimizer, given[len(hidden) :], last)
        return {"mse": unscaled(mse)} | self.pixel_logs(output, target)

    def training_flops(self, phase: Phase, sides: tuple[int, ...]) -> float:
        edge = 2 * _REACH * self.scale
        shape = (*(side - edge for side in sides), self.source.channels)
        return 3.0 * phase.batch_size * forward_flops(self.network, shape)


def _without_edge(images: tf.Tensor, n: int) -> tf.Tensor:
    """`[N, H, W, C]` without `n` pixels at each edge."""
    return images[:, n:-n, n:-n]
