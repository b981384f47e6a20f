"""SRGAN: super-resolution with a residual network, at last trained against a discriminator.

Ledig et al.: Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial Network,
CVPR 2017, arXiv:1609.04802. For volumes, with `dimensions=3`, the same layers in three dimensions,
as Sánchez and Vilaplana do for brain MRI (arXiv:1812.11440).

    generator       9×9-64, PReLU
    (SRResNet)      16 × (3×3-64, BN, PReLU, 3×3-64, BN, + skip)
                    3×3-64, BN, + skip from the first PReLU
                    log2(scale) × (3×3-256, pixel shuffle ×2, PReLU);  9×9-C
    discriminator   3×3: 64, 64 s2, 128, 128 s2, 256, 256 s2, 512, 512 s2; BN but for the first,
                    LeakyReLU 0.2; dense 1024, LeakyReLU, dense 1

Input `[N, H, W, C]` or `[N, D, H, W, C]`, output `scale` times the sides, in physical units. The
intensity windows map the input to [0, 1] and the output to [-1, 1], as in the paper. The
generator takes any size; the discriminator's dense layer takes crops of one size.

A run has two phases. First the generator alone learns the mean squared error (the paper's
SRResNet) or the mean absolute one; then generator and discriminator learn in turn, the content loss
being the distance of VGG19's features. Each phase has optimizers of its own, so the second begins
with fresh moments.

    python cli.py --model=srgan --dataset=sr train

VGG19's weights are downloaded once; offline, set `extractor` to a local file or to "hed", or
`content=mse`. The features are of natural images: they make textures that look right, not right
ones, and a finding must not rest on them.

On `sr/phantom_ct` at scale 2 the small preset reaches 40.9 dB of PSNR where bicubic interpolation
has 33.6, in some four minutes on two CPU cores: 40.4 dB after the first phase, and the rest by more
steps on the pixel loss. In that time its small discriminator stays at chance and changes little.

What differs from the paper, and why:

    here                                      paper             why
    random crops of what the data set calls   bicubic           scanners average over their pixels
    low resolution
    PReLU begins at 0.25                      not said          He et al.'s (arXiv:1502.01852)
    `spectral_norm` in place of the           none              steadier training
    discriminator's batch normalisation
    in the small preset: the content loss     VGG19's features  works offline
    is the mean squared error
    in the small preset: a correction to the  an image, with    learns in minutes; tiles agree with
    interpolated image, no normalisation, 5   BN, 16 blocks of  whole images
    blocks of 32 channels                     64
"""

import dataclasses
import math
from typing import Annotated, Any, ClassVar, Literal, Self

import keras
import tensorflow as tf
from keras import layers

import zoo
from zoo import ranges, step
from zoo.domain import Domain
from zoo.extractors import feature_extractor
from zoo.layers import (
    LinearDecay,
    Norm,
    PixelShuffle,
    constant,
    convolution,
    dense,
    scheduled,
)
from zoo.losses import L1, L2, Perceptual, adversarial
from zoo.recipe import DataFacts, Phase, Recipe
from zoo.step import descend, forward_flops, ready, unscaled
from zoo.translator import Translator

_LEVELS = 4  # stride-2 layers of the discriminator


@dataclasses.dataclass(frozen=True, kw_only=True)
class SrganRecipe(Recipe):
    """Defaults are the paper's (§3.2).

    Attributes:
        steps: of the whole run; given alone it keeps the shares of both phases.
        pretrain_steps: of these the first, on the error of pixels alone; a run of no more steps
            than these trains SRResNet only.
        pretrain_loss: that error, mean squared or mean absolute; the latter counts faint errors,
            such as ringing in a dark background, more.
        learning_rate: of the first phase, and of the first half of the second.
        fine_rate: of the second half of the second phase.
        decay: "constant" as above; "linear" takes the rate of each phase to zero over its
            second half, and leaves `fine_rate` unused.
        crop: sides of the discriminator's images, multiples of 16 and of the scale.
        scale: output pixels along one input pixel: 2, 4 or 8.
        dimensions: 2 for images, 3 for volumes.
        base_filters: channels of the generator's residual blocks.
        blocks: their number.
        norm: normalisation in the generator; batch normalisation serves with moving statistics.
        bias: False leaves the generator's biases out. Without normalisation, and where both
            windows begin at 0, it then gives, of an image times any number, its output times that
            number (Mohan et al. 2020, arXiv:1906.05478): right for MR, whose signal has no unit.
        discriminator_filters: channels of the discriminator's first layer, at most 8 times that.
        discriminator_units: of its first dense layer.
        spectral_norm: normalise the discriminator's kernels by their largest singular value, in
            place of its batch normalisation.
        adversarial: loss of the second phase; "wgan" needs `spectral_norm`.
        lambda_adversarial: its weight.
        content: content loss of the second phase, on features or on pixels.
        extractor: network whose features they are: vgg19, hed, or a file of weights.
        layer: of the extractor; "" takes its own usual one, VGG19's block5_conv4.
        feature_scale: divides the features.
        output: "image", or "residual": the generator's output is a correction to the interpolated
            image; "auto" takes the residual where source and target share modality, unit and
            window.
    """

    steps: ranges.Count = 1_200_000
    pretrain_steps: Annotated[int, ranges.Range(0, below=10**12)] = 1_000_000
    pretrain_loss: Literal["mse", "l1"] = "mse"
    batch_size: ranges.Batch = 16
    learning_rate: ranges.Rate = 1e-4
    fine_rate: ranges.Rate = 1e-5
    decay: Literal["constant", "linear"] = "constant"
    crop: ranges.Sides = 96
    scale: Literal[2, 4, 8] = 4
    dimensions: Literal[2, 3] = 2
    base_filters: ranges.Filters = 64
    blocks: ranges.Blocks = 16
    norm: Literal["batch", "none"] = "batch"
    bias: bool = True
    discriminator_filters: ranges.Filters = 64
    discriminator_units: Annotated[int, ranges.Range(1, 65536)] = 1024
    spectral_norm: bool = False
    adversarial: Literal["bce", "lsgan", "hinge", "wgan"] = "bce"
    lambda_adversarial: ranges.Weight = 1e-3
    content: Literal["features", "mse", "l1"] = "features"
    extractor: str = "vgg19"
    layer: str = ""
    feature_scale: Annotated[float, ranges.Range(1e-6, 1e6)] = 12.75
    output: Literal["image", "residual", "auto"] = "image"

    SMALL: ClassVar[dict[str, Any]] = {
        "steps": 1400,
        "pretrain_steps": 1000,
        "batch_size": 8,
        "learning_rate": 1e-3,
        "decay": "linear",
        "crop": 64,
        "flip": True,
        "scale": 2,
        "base_filters": 32,
        "blocks": 5,
        "norm": "none",
        "discriminator_filters": 8,
        "discriminator_units": 64,
        "content": "mse",
        "output": "auto",
        "image_every": 200,
        "checkpoint_every": 200,
    }

    GOOD: ClassVar[dict[str, Any]] = {
        "steps": 80_000,
        "pretrain_steps": 72_000,
        "batch_size": 16,
        "learning_rate": 5e-4,
        "rate_schedule": "cosine",
        "crop": 64,
        "flip": True,
        "scale": 2,
        "base_filters": 64,
        "blocks": 16,
        "norm": "none",
        "discriminator_filters": 32,
        "discriminator_units": 256,
        "spectral_norm": True,
        "lambda_adversarial": 1e-2,
        "content": "mse",
        "output": "auto",
    }

    def __post_init__(self):
        super().__post_init__()
        if not self.crop or any(side % 2**_LEVELS for side in self.crop_sides):
            raise ValueError(
                f"crop: expected a multiple of {2**_LEVELS}, because the discriminator takes "
                f"images of one size and halves it {_LEVELS} times. Received: {self.crop}"
            )
        if self.adversarial == "wgan" and not self.spectral_norm:
            raise ValueError(
                "adversarial: wgan needs a Lipschitz discriminator, spectral_norm=true. "
                f"Received: spectral_norm={self.spectral_norm}"
            )

    def changed(self, **fields: Any) -> Self:
        """As every recipe's; `steps` alone keeps both phases' shares of the run."""
        if "steps" in fields and "pretrain_steps" not in fields:
            steps = super().changed(steps=fields["steps"]).steps
            share = min(self.pretrain_steps, self.steps) / self.steps
            fields["pretrain_steps"] = round(share * steps)
        return super().changed(**fields)

    def resolve(self, facts: DataFacts) -> Self:
        """The recipe itself; a ValueError for images smaller than its crop."""
        shape = facts.target_shape or self.crop_sides
        if any(side < taken for side, taken in zip(shape, self.crop_sides, strict=True)):
            most = min(shape) if isinstance(self.crop, int) else "that along each axis"
            raise ValueError(
                f"crop: expected at most {most}, because the images have "
                f"{'x'.join(map(str, shape))} pixels. Received: {self.crop}"
            )
        return self

    @property
    def chooses_by(self) -> str:
        """Of both phases the likeness of sets: PSNR falls as soon as the discriminator joins."""
        return "sliced_wasserstein" if self.steps > self.pretrain_steps else ""

    def phases(self) -> list[Phase]:
        """SRResNet, then SRGAN; one that has no steps is left out."""
        first = min(self.pretrain_steps, self.steps)
        steps = {"SRResNet": first, "SRGAN": self.steps - first}
        return [Phase(name, n, self.batch_size) for name, n in steps.items() if n]


def srresnet(channels: int, outputs: int, recipe: SrganRecipe) -> keras.Model:
    """The generator: `[N, (D,) H, W, channels]` in [-1, 1] to `[N, (sD,) sH, sW, outputs]`."""
    rank, filters = recipe.dimensions, recipe.base_filters

    def conv(x, filters, size=3, use_bias=recipe.bias, **options):
        layer = convolution(filters, size, rank=rank, padding="same", use_bias=use_bias, **options)
        return layer(x)

    def prelu(x):
        start = keras.initializers.Constant(0.25)
        return layers.PReLU(start, shared_axes=list(range(1, rank + 1)))(x)

    def normalised(x):
        if recipe.norm == "none":
            return conv(x, filters)
        return Norm("batch")(conv(x, filters, use_bias=False))  # its offset makes a bias useless

    inputs = keras.Input((None,) * rank + (channels,))
    # In float32: near 0 bfloat16 is fine, near -1 it would leave a low signal a few levels.
    x = first = prelu(conv(layers.Rescaling(0.5, 0.5, dtype="float32")(inputs), filters, 9))
    for _ in range(recipe.blocks):
        x = layers.Add()([x, normalised(prelu(normalised(x)))])
    x = layers.Add()([first, normalised(x)])
    for _ in range(round(math.log2(recipe.scale))):
        x = prelu(PixelShuffle(2)(conv(x, 2**rank * filters)))
    # A correction starts from none; an image from small weights.
    start = keras.initializers.RandomNormal(0.0, 0.001)
    x = conv(x, outputs, 9, kernel_initializer=start, dtype="float32")
    return keras.Model(inputs, x, name="generator")


def discriminator(channels: int, recipe: SrganRecipe) -> keras.Model:
    """Images or volumes with sides of `recipe.crop`, `[N, ..., channels]`, to scores `[N, 1]`."""
    rank, spectral = recipe.dimensions, recipe.spectral_norm
    inputs = x = keras.Input((*recipe.crop_sides, channels))
    for level in range(_LEVELS):
        for stride in (1, 2):
            plain = spectral or x is inputs
            filters = recipe.discriminator_filters * 2**level
            options = {"padding": "same", "use_bias": plain}
            layer = convolution(filters, 3, stride, rank=rank, spectral_norm=spectral, **options)
            x = layer(x)
            x = layers.LeakyReLU(0.2)(x if plain else Norm("batch")(x))
    x = layers.LeakyReLU(0.2)(dense(recipe.discriminator_units, spectral)(layers.Flatten()(x)))
    x = dense(1, spectral, dtype="float32")(x)
    return keras.Model(inputs, x, name="discriminator")


@zoo.register("srgan")
class SRGAN(Translator):
    """SRGAN, of images or volumes: SRResNet first, then adversarial training.

    A fresh model is in its last phase: `fit` without phases trains adversarially.

    Example:
        >>> model = zoo.load("srgan", scale=2, blocks=2, base_filters=8)
        >>> model.translate(np.zeros([50, 40], "float32")).shape
        (100, 80)
    """

    recipe_class = SrganRecipe
    recipe: SrganRecipe
    optimizers = ("pretrain_optimizer", "generator_optimizer", "discriminator_optimizer")

    def __init__(self, recipe: SrganRecipe, source: Domain, target: Domain, **kwargs: Any):
        super().__init__(recipe, source, target, **kwargs)
        self.network = srresnet(source.channels, target.channels, recipe)
        self.discriminator = discriminator(target.channels, recipe)
        self.adversarial_loss = adversarial(recipe.adversarial)
        self.phase = recipe.phases()[-1]

    @property
    def tile_margin(self) -> int:
        # Half the receptive field, in pixels of the input.
        up = sum(2.0**-level for level in range(round(math.log2(self.scale))))
        return math.ceil(4 + 2 * self.recipe.blocks + 1 + up + 4 / self.scale)

    def enter(self, phase: Phase) -> None:
        """What `train_step` does is chosen in Python, so each phase has its graph."""
        self.phase = phase

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Three Adam optimizers: one checkpoint structure for the whole run.

        Raises:
            FileNotFoundError: where the feature extractor's weights cannot be had.
        """
        super().compile(*args, **kwargs)
        recipe, steps = self.recipe, {phase.name: phase.steps for phase in self.recipe.phases()}

        def fine(rate: float, count: int) -> keras.optimizers.schedules.LearningRateSchedule:
            return keras.optimizers.schedules.PiecewiseConstantDecay(
                [count // 2 - 1], [rate, recipe.fine_rate]
            )

        def adam(network: keras.Model, phase: str) -> keras.Optimizer:
            own = {"linear": LinearDecay, "constant": fine if phase == "SRGAN" else constant}
            rate = recipe.learning_rate
            rate = scheduled(recipe, rate, own[recipe.decay], steps.get(phase, 1))
            return ready(self, network.trainable_variables, step.Adam(rate))

        self.pretrain_optimizer = adam(self.network, "SRResNet")
        self.generator_optimizer = adam(self.network, "SRGAN")
        self.discriminator_optimizer = adam(self.discriminator, "SRGAN")
        self.pretrain_loss: keras.losses.Loss = L1() if recipe.pretrain_loss == "l1" else L2()
        self.content_loss: keras.losses.Loss = L1() if recipe.content == "l1" else L2()
        if recipe.content == "features" and "SRGAN" in steps:
            extractor = feature_extractor(recipe.extractor, recipe.layer)
            self.content_loss = Perceptual(extractor, scale=recipe.feature_scale)

    def train_step(self, batch: dict) -> dict[str, tf.Tensor]:
        """One step of the phase that was entered."""
        target = self.target_values(batch["target"])
        step = self._pretrain if self.phase.name == "SRResNet" else self._adversarial
        logs, output = step(batch["source"], target)
        logs = {name: unscaled(share) for name, share in logs.items()}
        return logs | self.pixel_logs(output, target)

    def _pretrain(self, source: tf.Tensor, target: tf.Tensor) -> tuple[dict, tf.Tensor]:
        with tf.GradientTape() as tape:
            output = self.values(source, training=True)
            loss = self.pretrain_loss(target, output)
        descend(self.pretrain_optimizer, tape, loss, self.network.trainable_variables)
        return {self.recipe.pretrain_loss: loss}, output

    def _adversarial(self, source: tf.Tensor, target: tf.Tensor) -> tuple[dict, tf.Tensor]:
        """The discriminator's update and then the generator's (eq. 2, 3 and 6)."""
        judge = lambda images: self.discriminator(images, training=True)  # noqa: E731
        loss = self.adversarial_loss
        with tf.GradientTape() as g_tape:
            output = self.values(source, training=True)
            with g_tape.stop_recording():
                with tf.GradientTape() as d_tape:
                    d_loss = loss.real(judge(target)) + loss.fake(judge(output))
                weights = self.discriminator.trainable_variables
                descend(self.discriminator_optimizer, d_tape, d_loss, weights)
            g_gan = loss.generator(judge(output))
            content = self.content_loss(target, output)
            g_loss = content + self.recipe.lambda_adversarial * g_gan
        descend(self.generator_optimizer, g_tape, g_loss, self.network.trainable_variables)
        return {"d_loss": d_loss, "g_gan": g_gan, "content": content}, output

    def training_flops(self, phase: Phase, sides: tuple[int, ...]) -> float:
        flops = super().training_flops(phase, sides)
        if phase.name == "SRGAN":
            shape = self.discriminator.input_shape[1:]
            flops += 9.0 * phase.batch_size * forward_flops(self.discriminator, shape)
            if self.recipe.content == "features":  # VGG19 makes about 0.8 million a pixel
                flops += 3.0 * phase.batch_size * 0.8e6 * math.prod(shape[:-1])
        return flops
