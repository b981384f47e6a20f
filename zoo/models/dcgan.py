"""DCGAN: new images from noise, by a deep convolutional GAN.

Radford, Metz and Chintala: Unsupervised Representation Learning with Deep Convolutional Generative
Adversarial Networks, ICLR 2016, arXiv:1511.06434. With `conditional` the class of the image is
chosen: Mirza and Osindero: Conditional Generative Adversarial Nets, 2014, arXiv:1411.1784.

All kernels are 4×4, all strides but those at 1×1 pixels are 2. At 64 × 64 pixels:

    generator       z, 512 at 4×4, u256, u128, u64, uC; transposed convolutions, batch
                    normalisation and ReLU; the last one without normalisation, tanh
    discriminator   d64, d128, d256, d512, 1 at 1×1; batch normalisation but on the first and
                    last, LeakyReLU 0.2

Each doubling of the size adds a layer of twice the channels, at most 16 times the last layer's.
`call` takes latents `[N, 100]` from N(0, 1) and gives images `[N, R, R, C]` in the data's unit,
R 64, 128 or 256: the network's [-1, 1] is the intensity window. A conditional model takes
`[latents, labels]`, labels int64 `[N]`: the generator gets them one-hot beside the latents, the
discriminator as maps beside the image.

    python cli.py --model=dcgan --dataset=lung_nodule train

What differs from the paper, and why:

    here                                      paper             why
    4×4 kernels, 512 channels at 4×4          5×5, 1024         the authors' released code, and
                                                                what others compare with
    latents from N(0, 1)                      uniform [-1, 1]   the same code's; no bounds to keep
    served: moving batch statistics           of the batch      no image depends on others
    `adversarial`, `spectral_norm`, `r1`,     the defaults      additions that stabilise training
    `diff_augment`, `ema`, `conditional`
    `refine`, `noise_inputs`                  the defaults      without a convolution at their own
                                                                size images are made of squares
    no batch normalisation in a                                 it would undo what bounds the
    discriminator with `spectral_norm`, or                      slope of the one, and mix the
    a gradient penalty ("wgan", `r1`)                           examples of the other
    He's start of a discriminator without     N(0, 0.02²)       which lets hardly anything through
    batch normalisation, and of `refine`
    in the small preset: "wgan", a rate of    bce, 2e-4         with so few channels the paper's
    1e-3, and an average of the weights                         loss makes all samples alike
"""

import dataclasses
from typing import Annotated, Any, ClassVar, Literal, Self

import keras
import tensorflow as tf
from keras import layers

import zoo
from zoo import ranges
from zoo.domain import Domain
from zoo.layers import Norm, constant, convolution, float32_judge, scheduled
from zoo.losses import adversarial, mean_gradient_penalty
from zoo.models._discriminator import diff_augment, lazy_r1
from zoo.models._doubling import DoublingConv2D
from zoo.models._generator import Generator, GeneratorRecipe, Noise, fitting_resolution
from zoo.recipe import DataFacts, Phase
from zoo.step import (
    adam,
    averaged,
    batches_seen,
    descend,
    example_seeds,
    follow,
    forward_flops,
    random_normal,
    scaled,
    unscaled,
)

SIZES = (64, 128, 256)
LATENT, MIXING, REAL, FAKE, JUDGED = range(1, 6)  # purposes of the random numbers in a step


@dataclasses.dataclass(frozen=True, kw_only=True)
class DcganRecipe(GeneratorRecipe):
    """Defaults are the paper's (§4), `latent` too; the number of steps is ours.

    Attributes:
        resolution: height and width of the images, 64, 128 or 256; 0 takes the largest that the
            data allow, 64 where there are none.
        largest: of resolution 0 no larger one than this; 0 sets no bound.
        base_filters: channels of the generator's last layer but one, which is at half the images'
            size, or with `refine` at their own.
        discriminator_filters: channels of the discriminator's first layer.
        discriminator_rate: its learning rate; 0, as in the paper, takes `learning_rate`.
        adversarial: the loss; "wgan" comes with a gradient penalty.
        gradient_penalty: its weight, where the loss is "wgan".
        r1: weight of the R1 penalty, half the discriminator's squared gradient at real images,
            with any loss; 0 for none.
        r1_every: updates between two with the R1 penalty, which then weighs as many times as much.
        diff_augment: change what the discriminator sees at random; for few training images.
        refine: 3×3 convolutions at each size above 4×4 in both networks, the images' own size
            included; up-sampling is then by nearest neighbours. 0 has none, as the paper.
        noise_inputs: pictures of white noise that the generator can mix into its features at each
            size above 4×4, so that it need not make grain out of its latents; 0 has none.
        spectral_norm: divide the discriminator's kernels by their largest singular value.
        ema: decay, per step, of a moving average of the generator's weights, which is served then;
            0 serves the weights themselves.
        conditional: learn one image distribution for each class of the data's "label".
        class_names: of the labels 0, 1, …; the data's own where this is left empty.
    """

    steps: ranges.Count = 50_000
    batch_size: ranges.Batch = 128
    learning_rate: ranges.Rate = 2e-4
    resolution: Literal[0, 64, 128, 256] = 0
    largest: Literal[0, 64, 128, 256] = 0
    base_filters: ranges.Filters = 64
    discriminator_filters: ranges.Filters = 64
    discriminator_rate: ranges.Rate = 0.0
    adversarial: Literal["bce", "lsgan", "hinge", "wgan"] = "bce"
    gradient_penalty: ranges.Weight = 10.0
    r1: ranges.Weight = 0.0
    r1_every: ranges.Count = 16
    diff_augment: bool = False
    refine: Annotated[int, ranges.Range(0, 8)] = 0
    noise_inputs: Annotated[int, ranges.Range(0, 256)] = 0
    spectral_norm: bool = False
    ema: ranges.Fraction = 0.0
    conditional: bool = False
    class_names: tuple[str, ...] = ()

    SMALL: ClassVar[dict[str, Any]] = {
        "steps": 1600,
        "batch_size": 32,
        "learning_rate": 1e-3,
        "flip": True,
        "resolution": 64,
        "base_filters": 16,
        "discriminator_filters": 16,
        "adversarial": "wgan",
        "ema": 0.98,
        "image_every": 250,
        "checkpoint_every": 500,
    }

    GOOD: ClassVar[dict[str, Any]] = {
        "steps": 60_000,
        "batch_size": 64,
        "learning_rate": 5e-4,
        "rate_schedule": "cosine",
        "flip": True,
        "largest": 128,
        "base_filters": 32,
        "discriminator_filters": 32,
        "adversarial": "wgan",
        "ema": 0.999,
    }

    def phases(self) -> list[Phase]:
        return [Phase("train", self.steps, self.batch_size, self.side)]

    @property
    def side(self) -> int:
        """Height and width of the images, in pixels."""
        return self.resolution or SIZES[0]

    @property
    def label_values(self) -> int:
        """How many classes there are to choose from; 0 where there is no choice."""
        return len(self.class_names) if self.conditional else 0

    @property
    def extra_features(self) -> tuple[str, ...]:
        return ("label",) if self.conditional else ()

    def resolve(self, facts: DataFacts) -> Self:
        """The recipe with its resolution and its classes as the data have them.

        Raises:
            ValueError: for images smaller than the resolution or than 64 × 64 pixels, for images
                of several sizes with the resolution left open, and for other classes than the
                recipe's.
        """
        shape = facts.target_shape
        choices, largest = "64, 128 or 256", self.largest
        side = fitting_resolution(self.resolution, shape, SIZES, choices, largest)
        names = self.class_names
        if self.conditional:
            if names not in ((), facts.class_names):
                raise ValueError(
                    f"class_names: expected the data's, {', '.join(facts.class_names)}. "
                    f"Received: {', '.join(names)}"
                )
            names = facts.class_names
        return self.changed(resolution=side, class_names=names)


def widths(side: int, filters: int) -> list[int]:
    """Channels at side/2, side/4, … 4 pixels: twice as many each, at most 16 times the first."""
    return [filters * min(2**n, 16) for n in range(side.bit_length() - 3)]


def generator(recipe: DcganRecipe, channels: int) -> keras.Model:
    """`[N, latent + classes]` to images `[N, R, R, channels]` in [-1, 1]."""
    init = keras.initializers.RandomNormal(0.0, 0.02)
    if recipe.refine:  # through so many layers the paper's start would let hardly anything pass
        init = keras.initializers.HeNormal()

    def up(filters, stride, padding, **options):
        # No bias before batch normalisation, which has an offset; nor, as released, at the end.
        return layers.Conv2DTranspose(
            filters, 4, stride, padding, use_bias=False, kernel_initializer=init, **options
        )

    def same(filters, **options):
        options |= dict(padding="same", use_bias=False, kernel_initializer=init)
        return layers.Conv2D(filters, 3, **options)

    latents = keras.Input((recipe.latent + recipe.label_values,))
    x = layers.Reshape((1, 1, latents.shape[-1]))(latents)
    # Up to the images' own size where there are convolutions to refine it, or to half of it.
    largest = recipe.side * (2 if recipe.refine else 1)
    for level, filters in enumerate(reversed(widths(largest, recipe.base_filters))):
        if level == 0:
            convolutions = [up(filters, 1, "valid")]
        elif recipe.refine:
            doubled = DoublingConv2D(filters, kernel_initializer=init)
            convolutions = [doubled, *(same(filters) for _ in range(recipe.refine))]
        else:
            convolutions = [up(filters, 2, "same")]
        for each in convolutions:
            x = each(x)
            if recipe.noise_inputs and level:
                x = Noise(recipe.noise_inputs)([x, latents])
            x = layers.ReLU()(Norm("batch")(x))
    # To images.
    last = {"activation": "tanh", "dtype": "float32"}
    x = same(channels, **last)(x) if recipe.refine else up(channels, 2, "same", **last)(x)
    return keras.Model(latents, x, name="generator")


def discriminator(recipe: DcganRecipe, channels: int) -> keras.Model:
    """Images `[N, R, R, channels + classes]`, the classes as maps, to logits `[N, 1]`."""
    penalised = recipe.adversarial == "wgan" or recipe.r1 > 0
    normalised = not recipe.spectral_norm and not penalised
    # Small weights without normalisation would let hardly anything through.
    if normalised:
        init = keras.initializers.RandomNormal(0.0, 0.02)
    else:
        init = keras.initializers.HeNormal()

    def apply(x, filters, size, stride, padding="same", bias=not normalised, **options):
        options |= dict(spectral_norm=recipe.spectral_norm, padding=padding, use_bias=bias)
        return convolution(filters, size, stride, kernel_initializer=init, **options)(x)

    inputs = x = keras.Input((recipe.side, recipe.side, channels + recipe.label_values))
    # (channels, kernel, stride) of each layer: 3×3 ones where it refines, and those that halve.
    if recipe.refine:
        fine, *wide = widths(2 * recipe.side, recipe.discriminator_filters)
        plan = []
        for filters in wide:
            plan += [(fine, 3, 1) for _ in range(recipe.refine)] + [(filters, 4, 2)]
            fine = filters
    else:
        plan = [(filters, 4, 2) for filters in widths(recipe.side, recipe.discriminator_filters)]
    for number, layer in enumerate(plan):
        x = apply(x, *layer)
        x = layers.LeakyReLU(0.2)(Norm("batch")(x) if number and normalised else x)
    x = apply(x, 1, 4, 1, "valid", bias=False, dtype="float32")
    x = layers.Flatten(dtype="float32")(x)
    return keras.Model(inputs, x, name="discriminator")


@zoo.register("dcgan")
class DCGAN(Generator):
    """Deep convolutional GAN: call takes latents and gives images.

    Example:
        >>> model = zoo.load("dcgan", base_filters=16)
        >>> model.generate(2, seed=7).shape
        (2, 64, 64, 1)
    """

    recipe_class = DcganRecipe
    recipe: DcganRecipe
    optimizers = ("generator_optimizer", "discriminator_optimizer")

    def __init__(self, recipe: DcganRecipe, source: Domain, target: Domain, **kwargs: Any):
        super().__init__(recipe, source, target, **kwargs)
        if recipe.conditional and recipe.label_values < 2:
            raise ValueError(
                "class_names: a conditional model needs the names of at least two classes. "
                f"Received: {recipe.class_names}"
            )
        self.generator = generator(recipe, target.channels)
        penalty = recipe.gradient_penalty if recipe.adversarial == "wgan" else 0.0
        with float32_judge(penalty + recipe.r1 > 0):
            self.discriminator = discriminator(recipe, target.channels)
        self.network = self.generator
        if recipe.ema:
            self.network = averaged(self.generator, generator(recipe, target.channels))

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.recipe.class_names if self.recipe.conditional else ()

    def compile(self, *args: Any, **kwargs: Any) -> None:
        super().compile(*args, **kwargs)
        recipe = self.recipe
        rate = scheduled(recipe, recipe.learning_rate, constant)
        judging = scheduled(recipe, recipe.discriminator_rate or recipe.learning_rate, constant)
        self.generator_optimizer = adam(self, self.generator.trainable_variables, rate)
        self.discriminator_optimizer = adam(self, self.discriminator.trainable_variables, judging)

    def continue_from_network(self) -> None:
        self.generator.set_weights(self.network.get_weights())

    def train_step(self, batch: dict) -> dict[str, tf.Tensor]:
        """One update of the discriminator, then one of the generator, on the same latents.

        Args:
            batch: "image" `[N, R, R, C]` in the data's unit, "seed", and "label" `[N]` for a
                conditional model.
        """
        recipe = self.recipe
        real = self.real(batch, recipe.side)
        labels = batch["label"] if recipe.conditional else None
        seen = batches_seen(self.generator_optimizer)
        seeds = example_seeds(batch, real, seen, recipe.seed)
        latents = self._with_labels(random_normal(seeds, (recipe.latent,), LATENT), labels)
        loss = adversarial(recipe.adversarial)

        def judge(images, purpose=0):
            if purpose and recipe.diff_augment:
                images = diff_augment(images, seeds, purpose)
            return self.discriminator(self._with_labels(images, labels), training=True)

        # The discriminator's update, inside the record of the generator's.
        with tf.GradientTape() as g_tape:
            fake = self.generator(latents, training=True)
            constant = tf.stop_gradient(fake)
            with tf.GradientTape() as d_tape:
                # Batches of their own, as the authors found necessary (§3).
                d_share = loss.real(judge(real, REAL)) + loss.fake(judge(constant, FAKE))
                objective = d_share
                if recipe.r1:
                    penalty = lazy_r1(judge, real, recipe.r1_every, seen)
                    objective += scaled(recipe.r1 * penalty)
                if recipe.adversarial == "wgan" and recipe.gradient_penalty:
                    penalty = mean_gradient_penalty(judge, real, constant, seeds, MIXING)
                    objective += scaled(recipe.gradient_penalty * penalty)
            weights = self.discriminator.trainable_variables
            descend(self.discriminator_optimizer, d_tape, objective, weights)
            # The generator's, judged by the new weights.
            g_share = loss.generator(judge(fake, JUDGED))
        weights = self.generator.trainable_variables
        changed = descend(self.generator_optimizer, g_tape, g_share, weights)
        if recipe.ema:
            follow(self.network, self.generator, recipe.ema, changed)
        return {"d_loss": unscaled(d_share), "g_loss": unscaled(g_share)}

    def _with_labels(self, values: tf.Tensor, labels: tf.Tensor | None) -> tf.Tensor:
        """Latents or images with their class beside them, one-hot, at every pixel."""
        if labels is None:
            return values
        hot = tf.one_hot(labels, self.recipe.label_values, dtype=values.dtype)
        if values.shape.rank == 4:
            hot = tf.ones_like(values[..., :1]) * hot[:, None, None]
        return tf.concat([values, hot], axis=-1)

    def call(self, latents: Any, training: bool = False) -> tf.Tensor:
        """Images from latents.

        Args:
            latents: float32 `[N, latent]` from N(0, 1); for a conditional model the pair
                `[latents, labels]`, labels int64 `[N]`.
            training: whether batch statistics are those of training.

        Returns:
            float32 `[N, R, R, C]` in the target's unit, within its window.
        """
        labels = None
        if isinstance(latents, (list, tuple)):
            latents, labels = latents
        if (labels is not None) != self.recipe.conditional:
            wanted = "[latents, labels]" if self.recipe.conditional else "latents alone"
            got = "latents alone" if self.recipe.conditional else "[latents, labels]"
            raise ValueError(f"latents: {self.name} takes {wanted}. Received: {got}")
        if labels is not None:
            labels = tf.convert_to_tensor(labels)
            known = (labels >= 0) & (labels < self.recipe.label_values)
            expected = f"labels: expected 0 to {self.recipe.label_values - 1}. Received:"
            tf.debugging.Assert(tf.reduce_all(known), [expected, labels])
        given = self._with_labels(tf.cast(latents, tf.float32), labels)
        return self.images(self.network(given, training=training))

    def training_flops(self, phase: Phase, sides: tuple[int, ...]) -> float:
        make = forward_flops(self.generator, self.generator.input_shape[1:])
        judge = forward_flops(self.discriminator, self.discriminator.input_shape[1:])
        return phase.batch_size * (3.0 * make + 8.0 * judge)
