"""pix2pix: image-to-image translation with a conditional GAN.

Isola, Zhu, Zhou, Efros: Image-to-Image Translation with Conditional Adversarial Networks,
CVPR 2017, arXiv:1611.07004.

    generator (U-Net 256)   C64-C128-C256-C512-C512-C512-C512-C512, 4×4 stride 2, LeakyReLU 0.2,
                            mirrored by transposed convolutions with skips, tanh
    discriminator (70×70)   C64-C128-C256-C512(s1)-C1(s1) on concat(source, target)

Input and output `[N, H, W, C]` in physical units; the intensity windows map them to [-1, 1].
H and W are free: images are padded to a multiple of 2^levels and cropped back. Where the target
holds classes the generator gives each pixel's logits, the discriminator sees their softmax, and
focal cross-entropy and Dice stand for L1; the output is a label map. With `dimensions=3` all of it
has a third axis, `[N, D, H, W, C]`.

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
    `registration`                            none              pairs that do not lie quite on
                                                                each other
    `quantiles`                               none              where the output may be wrong, and
                                                                by how much
    `refine` in the small preset: two 3x3     none              the paper's decoder has no
    convolutions at full resolution                             nonlinear layer there; fine noise
                                                                and edges need one
"""

import dataclasses
from typing import Annotated, Any, ClassVar, Literal, Self

import tensorflow as tf

import zoo
from zoo import losses, ranges
from zoo.domain import Domain
from zoo.layers import LinearDecay, float32_judge, patch_gan, require_patches, scheduled, step_seeds
from zoo.models import _quantiles, _registration
from zoo.models._unet import strided_unet
from zoo.recipe import DataFacts, Phase, Recipe
from zoo.step import (
    adam,
    batches_seen,
    descend,
    example_seeds,
    forward_flops,
    scaled,
    unscaled,
)

MIXING = 1  # purpose of the random numbers of the gradient penalty


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pix2PixRecipe(Recipe):
    """Defaults are those of the authors' PyTorch code, for about 1000 training images of 256².

    They are the paper's (§3.3 and §6.2) but for rate and dropout, as the table above says.

    Attributes:
        steps: the paper trains 200 epochs; here the second half takes the rate linearly to zero.
        dimensions: 2 for images, 3 for volumes.
        base_filters: channels of the generator's first layer; doubled up to 8 times that.
        levels: stride-2 layers of the generator; 8 reach 1×1 at 256².
        refine: channels of two 3×3 convolutions at full resolution before the output, on the
            decoder's result and the input; 0, as in the paper, has none.
        norm: normalisation in the generator.
        equivariant: as the encoder-decoder's: no biases, first kernels of mean 0, and no tanh.
        relative: divide an example's values by its input's mean absolute error before the losses
            and the discriminator see them, which sees them less the source's mean: weak noise
            counts as much as strong, and shows. Source and target share a window; "auto" does it
            where they are one domain.
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
        registration: let a small network predict how each target is displaced from the output, and
            compare them there (RegGAN, Kong et al. 2021, arXiv:2110.06465): for pairs that do not
            lie quite on each other. It is thrown away after training.
        quantiles: let the generator give a lower and an upper bound of each pixel beside it, by the
            pinball loss, weighted by `lambda_l1`; the discriminator does not see them, and
            `calibrate` scales what lies between them to intervals.
        output: "image", or "residual": the network's tanh is a correction to its input; "auto"
            takes the residual where source and target share modality, unit and window.
        test_statistics: batch normalisation outside training.
        test_dropout: keep dropout on at test, as the paper does.
    """

    steps: ranges.Count = 200_000
    crop: ranges.Sides = 256
    flip: bool = True
    dimensions: Literal[2, 3] = 2
    base_filters: ranges.Filters = 64
    levels: ranges.Levels = 8
    refine: Annotated[int, ranges.Range(0, 8192)] = 0
    norm: Literal["batch", "instance", "none"] = "batch"
    equivariant: bool = False
    relative: Literal[False, True, "auto"] = False
    dropout: ranges.Fraction = 0.5
    discriminator_filters: ranges.Filters = 64
    discriminator_layers: ranges.Layers = 3
    discriminator_rate: ranges.Rate = 0.0
    discriminator_norm: Literal["batch", "instance", "none"] = "batch"
    spectral_norm: bool = False
    adversarial: Literal["bce", "lsgan", "hinge", "wgan"] = "bce"
    lambda_l1: ranges.Weight = 100.0
    lambda_gan: ranges.Weight = 1.0
    lambda_perceptual: ranges.Weight = 0.0
    extractor: str = "vgg19"
    lambda_sharpness: ranges.Weight = 0.0
    classes: ranges.Classes = 0
    label_names: tuple[str, ...] = ()
    focal_gamma: Annotated[float, ranges.Range(0, 100)] = 2.0
    lambda_dice: ranges.Weight = 1.0
    registration: bool = False
    quantiles: bool = False
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

    GOOD: ClassVar[dict[str, Any]] = {
        "steps": 100_000,
        "batch_size": 8,
        "crop": 128,
        "base_filters": 48,
        "levels": 5,
        "refine": 32,
        "norm": "none",
        "dropout": 0.0,
        "relative": "auto",
        "learning_rate": 5e-4,
        "rate_schedule": "cosine",
        "discriminator_filters": 16,
        "discriminator_norm": "none",
        "discriminator_rate": 2e-4,
        "spectral_norm": True,
        "lambda_gan": 0.1,
        "output": "auto",
    }

    def __post_init__(self):
        super().__post_init__()
        _quantiles.check_recipe(self)
        if self.adversarial == "wgan" and self.discriminator_norm == "batch":
            raise ValueError(
                "discriminator_norm: expected instance or none with adversarial=wgan, whose "
                "penalty is of one image at a time. Received: batch"
            )

    @property
    def size_multiple(self) -> int:
        return 2**self.levels

    def resolve(self, facts: DataFacts) -> Self:
        """The recipe itself; a ValueError for images that the discriminator is too deep for."""
        require_patches(self.crop_sides or facts.target_shape or (), self.discriminator_layers)
        return self


@zoo.register("pix2pix")
class Pix2Pix(_quantiles.WithQuantiles):
    """pix2pix with its U-Net generator and PatchGAN discriminator.

    Example:
        >>> model = zoo.load("pix2pix", base_filters=8, levels=4)
        >>> model.translate(np.zeros([2, 100, 80], "float32")).shape
        (2, 100, 80)
    """

    recipe_class = Pix2PixRecipe
    recipe: Pix2PixRecipe
    optimizers = ("generator_optimizer", "discriminator_optimizer")
    classifies = True

    def __init__(self, recipe: Pix2PixRecipe, source: Domain, target: Domain, **kwargs: Any):
        super().__init__(recipe, source, target, **kwargs)
        self.relative = self.of_one_domain("relative")
        outputs = self.classes or target.channels
        self.network = strided_unet(
            source.channels,
            self.outputs(),
            base_filters=recipe.base_filters,
            levels=recipe.levels,
            dimensions=recipe.dimensions,
            activation="linear" if self.classes else "tanh",
            refine=recipe.refine,
            norm=recipe.norm,
            equivariant=recipe.equivariant,
            dropout=recipe.dropout,
            test_statistics=recipe.test_statistics,
            test_dropout=recipe.test_dropout,
        )
        with float32_judge(recipe.adversarial == "wgan"):
            self.discriminator = patch_gan(
                source.channels + outputs,
                recipe.discriminator_filters,
                recipe.discriminator_layers,
                rank=recipe.dimensions,
                norm=recipe.discriminator_norm,
                spectral_norm=recipe.spectral_norm,
            )
        if recipe.registration:
            self.registration = _registration.Registration(self)

    @property
    def tile_margin(self) -> int:
        # Half the receptive field; the paper's 8 levels see all of a tile, whatever its size.
        return min(4 * 2**self.recipe.levels, 256)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        super().compile(*args, **kwargs)

        recipe = self.recipe
        rate = scheduled(recipe, recipe.learning_rate, LinearDecay)
        judging = recipe.discriminator_rate or recipe.learning_rate
        judging = scheduled(recipe, judging, LinearDecay)
        self.generator_optimizer = adam(self, self.network.trainable_variables, rate)
        self.discriminator_optimizer = adam(self, self.discriminator.trainable_variables, judging)
        if recipe.registration:
            weights = self.registration.trainable_variables
            self.registration_optimizer = adam(self, weights, _registration.RATE)
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
        recipe = self.recipe
        seen = batches_seen(self.generator_optimizer)
        seeds = example_seeds(batch, batch["source"], seen, recipe.seed)
        source = self.source.encode(batch["source"])
        real = self.target_values(batch["target"])
        level, error = 0.0, 1.0  # what is subtracted before the losses, and then divided by
        if self.relative:
            level = tf.reduce_mean(source, list(range(1, len(source.shape))), keepdims=True)
            error = losses.input_error(source, real)

        def judge(values):
            pair = (tf.concat([source, values], axis=-1) - level) / error
            return self.discriminator(pair, training=True)

        with tf.GradientTape() as g_tape:
            with step_seeds(seeds):
                heads = self.heads(batch["source"], training=True)
            output = self.estimate(heads)
            if recipe.registration:  # what the discriminator sees lies where the target does
                learner, images = self.registration_optimizer, (source, output, real)
                output = _registration.register(
                    self.registration, learner, recipe.steps, seeds, *images
                )
            fake = tf.nn.softmax(output) if self.classes else output
            # The discriminator.
            still = tf.stop_gradient(fake)
            with tf.GradientTape() as d_tape:
                d_loss = self.adversarial.real(judge(real)) + self.adversarial.fake(judge(still))
                d_loss = 0.5 * d_loss
                if recipe.adversarial == "wgan":
                    penalty = losses.mean_gradient_penalty(judge, real, still, seeds, MIXING)
                    d_loss += 10.0 * scaled(penalty)
            weights = self.discriminator.trainable_variables
            descend(self.discriminator_optimizer, d_tape, d_loss, weights)
            # The generator.
            g_gan = self.adversarial.generator(judge(fake))
            g_loss = recipe.lambda_gan * g_gan
            compared = real / error, output / error
            g_loss += sum(weight * loss(*compared) for weight, loss in self.terms)
            if recipe.quantiles:
                g_loss += recipe.lambda_l1 * self.pinball(heads, real, error)
        descend(self.generator_optimizer, g_tape, g_loss, self.network.trainable_variables)
        logs = {"d_loss": unscaled(d_loss), "g_gan": unscaled(g_gan)}
        return logs | self.pixel_logs(output, real)

    def training_flops(self, phase: Phase, sides: tuple[int, ...]) -> float:
        channels = self.source.channels, self.target.channels
        generator = forward_flops(self.network, (*sides, channels[0]))
        judged = channels[0] + (self.classes or channels[1])
        discriminator = forward_flops(self.discriminator, (*sides, judged))
        return phase.batch_size * (3 * generator + 8 * discriminator)
