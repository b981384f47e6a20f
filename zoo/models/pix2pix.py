"""pix2pix: image-to-image translation with a conditional GAN.

Isola, Zhu, Zhou, Efros: Image-to-Image Translation with Conditional Adversarial Networks,
CVPR 2017, arXiv:1611.07004.

    generator (U-Net 256)   C64-C128-C256-C512-C512-C512-C512-C512, 4×4 stride 2, LeakyReLU 0.2,
                            mirrored by transposed convolutions with skips, tanh
    discriminator (70×70)   C64-C128-C256-C512(s1)-C1(s1) on concat(source, target)

Input and output `[N, H, W, C]` in physical units; the intensity windows map them to [-1, 1].
H and W are free: images are padded to a multiple of 2^levels and cropped back. Where the target
holds classes the generator gives each pixel's logits, the discriminator sees their softmax, and
focal cross-entropy and Dice stand for L1; the output is a label map.

    python cli.py --model=pix2pix --dataset=ldct train

On `ldct/phantom` the small preset takes quarter-dose slices about 6 dB nearer to the normal-dose
ones in a quarter of an hour on two CPU cores. In that time its small discriminator learns little:
nearly all of the gain is the L1 loss's.

What differs from the paper, and why:

    here                                      paper             why
    the rate falls to zero over the second    constant          what most compare with: the
    half of the steps                                           authors' later PyTorch code
    dropout on the 2nd to 4th decoder layer   1st to 3rd        the same
    random crop and flip, no change of size   286 -> 256 pixels pixel spacing carries meaning
    dropout off at test (`test_dropout`)      on                a measurement must be repeatable
    batch statistics of each image alone      of the batch      the same at the paper's batch of
    at test (`test_statistics`)                                 1, and no image depends on others
    `output="residual"` in the small preset,  an image          values beyond the window pass
    where source and target share a window                      through; learns in minutes
    `norm="none"` in the small preset         batch             tiles agree with whole images
    `lambda_gan=0.01` in the small preset     1                 the full weight makes the output
                                                                as noisy as a noisy target
    `equivariant`, `relative`                 none              noise of any level at any HU
    `refine` in the small preset: two 3x3     none              the paper's decoder has no
    convolutions at full resolution                             nonlinear layer there; fine noise
                                                                and edges need one
"""

import dataclasses
from typing import Any, ClassVar, Literal

import keras
import tensorflow as tf
from keras import layers

from zoo import losses
from zoo.domain import Domain
from zoo.layers import (
    Dropout,
    LinearDecay,
    Norm,
    patch_gan,
    step_seeds,
    without_level,
)
from zoo.recipe import Phase, Recipe
from zoo.registry import register
from zoo.step import example_seeds, forward_flops, random_uniform, scaled, unscaled
from zoo.translator import Translator

MIXING = 1  # purpose of the random numbers of the gradient penalty


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pix2PixRecipe(Recipe):
    """Defaults are those of the authors' PyTorch code, for about 1000 training images of 256².

    They are the paper's (§3.3 and §6.2) but for rate and dropout, as the table above says.

    Attributes:
        steps: the paper trains 200 epochs; here the second half takes the rate linearly to zero.
        base_filters: channels of the generator's first layer; doubled up to 8 times that.
        levels: stride-2 layers of the generator; 8 reach 1×1 at 256².
        refine: channels of two 3×3 convolutions at full resolution before the output, on the
            decoder's result and the input; 0, as in the paper, has none.
        norm: normalisation in the generator.
        equivariant: as the encoder-decoder's: no biases, first kernels of mean 0, and no tanh.
        relative: divide an example's values by its input's mean absolute error before the losses
            and the discriminator see them, which sees them less the source's mean: weak noise
            counts as much as strong, and shows. Source and target share a window.
        dropout: rate on the three decoder layers after the innermost, of 8 levels.
        discriminator_filters: channels of the discriminator's first layer.
        discriminator_rate: its learning rate; 0, as in the paper, takes `learning_rate`.
        discriminator_layers: stride-2 layers of the PatchGAN; 3 see 70×70 pixels.
        discriminator_norm: normalisation in the discriminator.
        spectral_norm: divide the discriminator's kernels by their spectral norm.
        adversarial: kind of adversarial loss; "wgan" adds the gradient penalty of weight 10.
        lambda_l1: weight of the L1 loss, in units of the window mapped to [-1, 1]; of classes,
            that of the cross-entropy and Dice.
        lambda_gan: weight of the adversarial loss.
        lambda_perceptual: weight of the perceptual loss.
        extractor: whose features that compares: "vgg19", "hed" or a file of weights.
        lambda_sharpness: weight of the sharpness loss (Yi and Babyn 2018, arXiv:1708.06453, who
            use a trained sharpness detector; here a fixed edge map stands for it).
        classes: of a data set that does not say it: the target is a label map of so many.
        label_names: of the classes; the data's own where this is left empty.
        focal_gamma: exponent of the focal cross-entropy of classes; 0 is cross-entropy.
        lambda_dice: weight of the soft Dice loss of classes.
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
    equivariant: bool = False
    relative: bool = False
    dropout: float = 0.5
    discriminator_filters: int = 64
    discriminator_layers: int = 3
    discriminator_rate: float = 0.0
    discriminator_norm: Literal["batch", "instance", "none"] = "batch"
    spectral_norm: bool = False
    adversarial: Literal["bce", "lsgan", "hinge", "wgan"] = "bce"
    lambda_l1: float = 100.0
    lambda_gan: float = 1.0
    lambda_perceptual: float = 0.0
    extractor: str = "vgg19"
    lambda_sharpness: float = 0.0
    classes: int = 0
    label_names: tuple[str, ...] = ()
    focal_gamma: float = 2.0
    lambda_dice: float = 1.0
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

    def __post_init__(self):
        super().__post_init__()
        if self.adversarial == "wgan" and self.discriminator_norm == "batch":
            raise ValueError(
                "discriminator_norm: expected instance or none with adversarial=wgan, whose "
                "penalty is of one image at a time. Received: batch"
            )

    @property
    def size_multiple(self) -> int:
        return 2**self.levels


def unet(
    channels: int, outputs: int, recipe: Pix2PixRecipe, activation: str = "tanh"
) -> keras.Model:
    """The generator: `[N, H, W, channels]` to `[N, H, W, outputs]`, with tanh in [-1, 1]."""
    init = start = keras.initializers.RandomNormal(0.0, 0.02)
    bias = not recipe.equivariant
    biased = bias and recipe.norm != "batch"  # whose offset makes a bias useless
    if recipe.equivariant:
        activation, start = "linear", "he_normal"
    width = [recipe.base_filters * min(2**level, 8) for level in range(recipe.levels)]

    def norm(x):
        if recipe.norm == "none":
            return x
        return Norm(recipe.norm, inference=recipe.test_statistics)(x)

    inputs = keras.Input((None, None, channels))
    first, skips = inputs, []
    if recipe.equivariant:
        first = without_level(inputs, recipe.base_filters)
    x = first
    for level, filters in enumerate(width):
        if level:
            x = layers.LeakyReLU(0.2)(x)
        x = layers.Conv2D(
            filters, 4, 2, "same", use_bias=biased, kernel_initializer=start, name=f"down{level}"
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
            kernel_initializer=start,
            name=f"up{level}",
        )(x)
        x = norm(x)
        if recipe.dropout and 3 < level < recipe.levels - 1:  # the widest after the innermost
            x = Dropout(recipe.dropout, always=recipe.test_dropout)(x)
        x = layers.Concatenate()([skips.pop(), x])
    x = layers.ReLU()(x)
    last = {"padding": "same", "use_bias": bias, "kernel_initializer": init}
    exact = {"activation": activation, "dtype": "float32"}  # whatever the layers before it have
    if recipe.refine:
        x = layers.Conv2DTranspose(recipe.refine, 4, 2, name="up0", **last)(x)
        x = layers.Concatenate()([first, x])
        for _ in range(2):
            x = layers.ReLU()(layers.Conv2D(recipe.refine, 3, padding="same", use_bias=bias)(x))
        x = layers.Conv2D(outputs, 3, **last, **exact)(x)
    else:
        x = layers.Conv2DTranspose(outputs, 4, 2, name="up0", **last, **exact)(x)
    return keras.Model(inputs, x, name="generator")


@register("pix2pix")
class Pix2Pix(Translator):
    """pix2pix with its U-Net generator and PatchGAN discriminator.

    Example:
        >>> model = zoo.load("pix2pix", base_filters=8, levels=4)
        >>> model.translate(np.zeros([2, 100, 80], "float32")).shape
        (2, 100, 80)
    """

    recipe_class = Pix2PixRecipe
    optimizers = ("generator_optimizer", "discriminator_optimizer")
    classifies = True

    def __init__(self, recipe: Pix2PixRecipe, source: Domain, target: Domain, **kwargs: Any):
        super().__init__(recipe, source, target, **kwargs)
        if recipe.relative:
            self.require_one_domain("relative")
        outputs = self.classes or target.channels
        activation = "linear" if self.classes else "tanh"
        self.network = unet(source.channels, outputs, recipe, activation)
        self.discriminator = patch_gan(
            source.channels + outputs,
            recipe.discriminator_filters,
            recipe.discriminator_layers,
            norm=recipe.discriminator_norm,
            spectral_norm=recipe.spectral_norm,
        )

    @property
    def tile_margin(self) -> int:
        # Half the receptive field; the paper's 8 levels see all of a tile, whatever its size.
        return min(4 * 2**self.recipe.levels, 256)

    @property
    def residual(self) -> bool:
        return self.residual_output(self.recipe.output)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        super().compile(*args, **kwargs)

        def adam(network: keras.Model, rate: float) -> keras.Optimizer:
            schedule = LinearDecay(rate, self.recipe.steps)
            optimizer = keras.optimizers.Adam(schedule, beta_1=0.5, beta_2=0.999, epsilon=1e-8)
            optimizer.build(network.trainable_variables)
            return optimizer

        recipe, rate = self.recipe, self.recipe.learning_rate
        self.generator_optimizer = adam(self.network, rate)
        self.discriminator_optimizer = adam(self.discriminator, recipe.discriminator_rate or rate)
        self.adversarial = losses.adversarial(recipe.adversarial)
        if self.classes:
            terms = losses.classification(recipe.focal_gamma, recipe.lambda_dice)
            self.terms = [(recipe.lambda_l1 * weight, loss) for weight, loss in terms]
        else:
            self.terms = [(recipe.lambda_l1, losses.L1())]
            if recipe.lambda_sharpness:
                self.terms.append((recipe.lambda_sharpness, losses.Sharpness()))
            if recipe.lambda_perceptual:
                features = losses.Perceptual(losses.feature_extractor(recipe.extractor))
                self.terms.append((recipe.lambda_perceptual, features))

    def train_step(self, batch: dict) -> dict[str, tf.Tensor]:
        """One step of each network, discriminator first (the paper's eq. 4; its loss halved)."""
        seeds = example_seeds(
            batch, batch["source"], self.generator_optimizer.iterations, self.recipe.seed
        )
        source = self.source.encode(batch["source"])
        real = self.target_values(batch["target"])
        g_weights = self.network.trainable_variables
        d_weights = self.discriminator.trainable_variables

        level, error = 0.0, 1.0
        if self.recipe.relative:
            level = tf.reduce_mean(source, [1, 2, 3], keepdims=True)
            error = losses.input_error(source, real)

        def judge(values):
            pair = (tf.concat([source, values], axis=-1) - level) / error
            return self.discriminator(pair, training=True)

        with tf.GradientTape() as g_tape:
            with step_seeds(seeds):
                output = self.values(batch["source"], training=True)
            fake = tf.nn.softmax(output) if self.classes else output
            still = tf.stop_gradient(fake)
            with tf.GradientTape() as d_tape:
                d_loss = self.adversarial.real(judge(real)) + self.adversarial.fake(judge(still))
                d_loss = 0.5 * d_loss
                if self.recipe.adversarial == "wgan":
                    mixed = real + (still - real) * random_uniform(seeds, (1, 1, 1), MIXING)
                    penalty = losses.gradient_penalty(judge, mixed)
                    d_loss += 10.0 * scaled(tf.reduce_mean(penalty))
            self.discriminator_optimizer.apply(d_tape.gradient(d_loss, d_weights), d_weights)
            g_gan = self.adversarial.generator(judge(fake))
            g_loss = self.recipe.lambda_gan * g_gan
            g_loss += sum(
                weight * loss(real / error, output / error) for weight, loss in self.terms
            )
        self.generator_optimizer.apply(g_tape.gradient(g_loss, g_weights), g_weights)
        logs = {"d_loss": unscaled(d_loss), "g_gan": unscaled(g_gan)}
        return logs | self.pixel_logs(output, real)

    def training_flops(self, phase: Phase, size: int) -> float:
        channels = self.source.channels, self.target.channels
        generator = forward_flops(self.network, (size, size, channels[0]))
        judged = channels[0] + (self.classes or channels[1])
        discriminator = forward_flops(self.discriminator, (size, size, judged))
        return phase.batch_size * (3 * generator + 8 * discriminator)
