"""pix2pix: image-to-image translation with a conditional GAN.

Isola, Zhu, Zhou, Efros: Image-to-Image Translation with Conditional Adversarial Networks,
CVPR 2017, arXiv:1611.07004.

    generator (U-Net 256)   C64-C128-C256-C512-C512-C512-C512-C512, 4×4 stride 2, LeakyReLU 0.2,
                            mirrored by transposed convolutions with skips, tanh
    discriminator (70×70)   C64-C128-C256-C512(s1)-C1(s1) on concat(source, target)

Input and output `[N, H, W, C]` in physical units; the intensity windows map them to [-1, 1].
H and W are free: images are padded to a multiple of 2^levels and cropped back.

    python cli.py --model=pix2pix --dataset=ldct train

On `ldct/phantom` the small preset takes quarter-dose slices about 6 dB nearer to the normal-dose
ones in a quarter of an hour on two CPU cores. In that time its small discriminator learns little:
nearly all of the gain is the L1 loss's.

What differs from the paper, and why:

    here                                      paper             why
    random crop and flip, no change of size   286 -> 256 pixels pixel spacing carries meaning
    dropout off at test (`test_dropout`)      on                a measurement must be repeatable
    batch statistics of each image alone      of the batch      the same at the paper's batch of
    at test (`test_statistics`)                                 1, and no image depends on others
    `output="residual"` in the small preset,  an image          values beyond the window pass
    where source and target share a window                      through; learns in minutes
    `norm="none"` in the small preset         batch             tiles agree with whole images
    `lambda_gan=0.01` in the small preset     1                 the full weight makes the output
                                                                as noisy as a noisy target
    `refine` in the small preset: two 3x3     none              the paper's decoder has no
    convolutions at full resolution                             nonlinear layer there; fine noise
                                                                and edges need one
"""

import dataclasses
from typing import Any, ClassVar, Literal

import keras
import tensorflow as tf
from keras import layers

from zoo.imaging.windows import Domain
from zoo.layers import Dropout, LinearDecay, Norm, step_seeds
from zoo.recipe import Recipe
from zoo.registry import register
from zoo.translator import Phase, Translator, example_seeds, forward_flops, scaled


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pix2PixRecipe(Recipe):
    """Defaults are the paper's (§3.3 and §6.2), for about 1000 training images of 256².

    Attributes:
        steps: the paper trains 200 epochs; the second half decays the rate linearly to zero.
        base_filters: channels of the generator's first layer; doubled up to 8 times that.
        levels: stride-2 layers of the generator; 8 reach 1×1 at 256².
        refine: channels of two 3×3 convolutions at full resolution before the output, on the
            decoder's result and the input; 0, as in the paper, has none.
        norm: normalisation in the generator.
        dropout: rate on the three widest decoder layers.
        discriminator_filters: channels of the discriminator's first layer.
        discriminator_rate: its learning rate; 0, as in the paper, takes `learning_rate`.
        discriminator_layers: stride-2 layers of the PatchGAN; 3 see 70×70 pixels.
        lambda_l1: weight of the L1 loss, in units of the window mapped to [-1, 1].
        lambda_gan: weight of the adversarial loss.
        output: "image", or "residual": the network's tanh is a correction to its input; "auto"
            takes the residual where source and target share modality, unit and window.
        test_statistics: batch normalisation outside training.
        test_dropout: keep dropout on at test, as the paper does.
    """

    steps: int = 200_000
    crop: int = 256
    flip: bool = True
    base_filters: int = 64
    levels: int = 8
    refine: int = 0
    norm: Literal["batch", "instance", "none"] = "batch"
    dropout: float = 0.5
    discriminator_filters: int = 64
    discriminator_layers: int = 3
    discriminator_rate: float = 0.0
    lambda_l1: float = 100.0
    lambda_gan: float = 1.0
    output: Literal["image", "residual", "auto"] = "image"
    test_statistics: Literal["moving", "image"] = "image"
    test_dropout: bool = False

    SMALL: ClassVar[dict[str, Any]] = {
        "steps": 5200,
        "batch_size": 4,
        "crop": 128,
        "base_filters": 16,
        "levels": 5,
        "refine": 32,
        "norm": "none",
        "dropout": 0.0,
        "learning_rate": 1e-3,
        "discriminator_filters": 8,
        "discriminator_rate": 2e-4,
        "lambda_gan": 0.01,
        "output": "auto",
        "image_every": 500,
        "checkpoint_every": 250,
    }


def unet(channels: int, outputs: int, recipe: Pix2PixRecipe) -> keras.Model:
    """The generator: `[N, H, W, channels]` to `[N, H, W, outputs]` in [-1, 1]."""
    init = keras.initializers.RandomNormal(0.0, 0.02)
    biased = recipe.norm != "batch"  # batch normalisation's offset makes a bias useless
    width = [recipe.base_filters * min(2**level, 8) for level in range(recipe.levels)]

    def norm(x):
        if recipe.norm == "none":
            return x
        return Norm(recipe.norm, inference=recipe.test_statistics)(x)

    inputs = keras.Input((None, None, channels))
    x, skips = inputs, []
    for level, filters in enumerate(width):
        if level:
            x = layers.LeakyReLU(0.2)(x)
        x = layers.Conv2D(
            filters, 4, 2, "same", use_bias=biased, kernel_initializer=init, name=f"down{level}"
        )(x)
        if 0 < level < recipe.levels - 1:
            x = norm(x)
        skips.append(x)
    x = skips.pop()
    for level in reversed(range(1, recipe.levels)):
        x = layers.ReLU()(x)
        x = layers.Conv2DTranspose(
            width[level - 1],
            4,
            2,
            "same",
            use_bias=biased,
            kernel_initializer=init,
            name=f"up{level}",
        )(x)
        x = norm(x)
        if recipe.dropout and 3 < level < recipe.levels - 1:  # the widest after the innermost
            x = Dropout(recipe.dropout, always=recipe.test_dropout)(x)
        x = layers.Concatenate()([skips.pop(), x])
    x = layers.ReLU()(x)
    last = recipe.refine or outputs
    x = layers.Conv2DTranspose(last, 4, 2, "same", kernel_initializer=init, name="up0")(x)
    if recipe.refine:
        x = layers.Concatenate()([inputs, x])
        for _ in range(2):
            x = layers.ReLU()(layers.Conv2D(recipe.refine, 3, padding="same")(x))
        x = layers.Conv2D(outputs, 3, padding="same", kernel_initializer=init)(x)
    x = layers.Activation("tanh", dtype="float32")(x)
    return keras.Model(inputs, x, name="generator")


def patch_gan(channels: int, filters: int, depth: int) -> keras.Model:
    """The discriminator: `[N, H, W, channels]` to logits, one for each patch (30×30 at 256²)."""
    init = keras.initializers.RandomNormal(0.0, 0.02)

    def convolution(x, filters, stride, bias):
        x = layers.ZeroPadding2D(1)(x)  # "same" would give 32×32 and shift the patches
        return layers.Conv2D(filters, 4, stride, use_bias=bias, kernel_initializer=init)(x)

    inputs = keras.Input((None, None, channels))
    x = layers.LeakyReLU(0.2)(convolution(inputs, filters, 2, True))
    for level in range(1, depth + 1):
        x = convolution(x, filters * min(2**level, 8), 2 if level < depth else 1, False)
        x = layers.LeakyReLU(0.2)(Norm("batch")(x))
    x = layers.Activation("linear", dtype="float32")(convolution(x, 1, 1, True))
    return keras.Model(inputs, x, name="discriminator")


def bce(logits: tf.Tensor, real: bool) -> tf.Tensor:
    """Mean binary cross-entropy of logits against all-real or all-fake."""
    labels = tf.ones_like(logits) if real else tf.zeros_like(logits)
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits))


@register("pix2pix")
class Pix2Pix(Translator):
    """pix2pix with its U-Net generator and PatchGAN discriminator.

    Example:
        >>> model = zoo.load("pix2pix", base_filters=8, levels=4)
        >>> model.translate(np.zeros([2, 100, 80], "float32")).shape
        (2, 100, 80)
    """

    recipe_class = Pix2PixRecipe

    def __init__(self, recipe: Pix2PixRecipe, source: Domain, target: Domain, **kwargs: Any):
        super().__init__(recipe, source, target, **kwargs)
        self.network = unet(source.channels, target.channels, recipe)
        self.discriminator = patch_gan(
            source.channels + target.channels,
            recipe.discriminator_filters,
            recipe.discriminator_layers,
        )

    @property
    def size_multiple(self) -> int:
        return 2**self.recipe.levels

    @property
    def tile_margin(self) -> int:
        # Half the receptive field; the paper's 8 levels see all of a tile, whatever its size.
        return min(4 * 2**self.recipe.levels, 256)

    @property
    def residual(self) -> bool:
        return self.residual_output(self.recipe.output)

    def compile(self, **kwargs: Any) -> None:
        super().compile(**kwargs)

        def adam(network: keras.Model, rate: float) -> keras.Optimizer:
            schedule = LinearDecay(rate, self.recipe.steps)
            optimizer = keras.optimizers.Adam(schedule, beta_1=0.5, beta_2=0.999, epsilon=1e-8)
            optimizer.build(network.trainable_variables)
            return optimizer

        rate = self.recipe.learning_rate
        self.generator_optimizer = adam(self.network, rate)
        self.discriminator_optimizer = adam(
            self.discriminator, self.recipe.discriminator_rate or rate
        )

    def train_step(self, batch: dict) -> dict[str, tf.Tensor]:
        """One step of each network, discriminator first (the paper's eq. 4; its loss halved)."""
        seeds = example_seeds(batch, batch["source"], self.generator_optimizer.iterations)
        source = self.source.encode(batch["source"])
        real = self.target_values(batch["target"])
        g_weights = self.network.trainable_variables
        d_weights = self.discriminator.trainable_variables

        def judge(values):
            return self.discriminator(tf.concat([source, values], axis=-1), training=True)

        with tf.GradientTape() as g_tape:
            with step_seeds(seeds):
                fake = self.values(batch["source"], training=True)
            with tf.GradientTape() as d_tape:
                d_loss = 0.5 * (bce(judge(real), True) + bce(judge(tf.stop_gradient(fake)), False))
                d_share = scaled(d_loss)
            self.discriminator_optimizer.apply(d_tape.gradient(d_share, d_weights), d_weights)
            g_gan = bce(judge(fake), True)
            l1 = tf.reduce_mean(tf.abs(fake - real))
            g_share = scaled(self.recipe.lambda_gan * g_gan + self.recipe.lambda_l1 * l1)
        self.generator_optimizer.apply(g_tape.gradient(g_share, g_weights), g_weights)
        mae = l1 * (self.target.span / 2)
        return {"d_loss": d_loss, "g_gan": g_gan, "mae": mae}

    def training_flops(self, phase: Phase, size: int) -> float:
        channels = self.source.channels, self.target.channels
        generator = forward_flops(self.network, (size, size, channels[0]))
        discriminator = forward_flops(self.discriminator, (size, size, sum(channels)))
        return phase.batch_size * (3 * generator + 8 * discriminator)
