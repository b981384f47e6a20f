"""Critic: how far an image is from those that are right, learned from right and quick ones.

Lunz, Öktem and Schönlieb: Adversarial Regularizers in Inverse Problems, NeurIPS 2018,
arXiv:1805.11572. A network C that is trained to be low at true images and high at what a quick
reconstruction makes, but nowhere steeper than 1, is a prior: `zoo reconstruct --method=adversarial`
weighs it against the misfit (`zoo.reconstruction.adversarial`).

    c3-f c4s2-2f  c3-2f c4s2-4f  c3-4f c4s2-4f  c3-4f,  the mean over places, a weight each

with f `base_filters`, LeakyReLU 0.1 and three `levels`; the inputs are [0, 1] of the window. The
loss of true images x and quick ones q is Wasserstein's with a one-sided penalty at p, somewhere
between them,

    C(x) - C(q) + gradient_penalty max(0, |C'(p)| - 1)^2.

Distances are root mean squares over the pixels of values in [-1, 1], and so neither the slope nor C
depends on how large an image is.

Served is a step down the critic, x - length C'(x), of a length that is learned beside it; its PSNR
chooses the weights. Input and output `[N, H, W, 1]` are of one unit.

    python cli.py --model=critic --dataset=ct_recon/phantom_fbp train

What differs from the paper, and why:

    here                            paper               why
    pairs of one crop in a batch    drawn apart         the same expectation, with less noise in it
    a mean over places at the end   dense layers        takes images of any size
    root mean squares               sums                the same slope for any size
"""

import dataclasses
from typing import Any, ClassVar

import keras
import tensorflow as tf
from keras import layers

import zoo
from zoo import ranges
from zoo.domain import Domain
from zoo.layers import constant, float32_judge, scheduled
from zoo.losses import L2, squared_gradient
from zoo.recipe import Phase, Recipe
from zoo.step import (
    adam,
    batches_seen,
    descend,
    example_seeds,
    forward_flops,
    random_uniform,
    scaled,
)
from zoo.translator import Translator

MIXING = 1  # purpose of the random numbers in a step
_LENGTH = 0.05  # of a step down the critic, at first


@dataclasses.dataclass(frozen=True, kw_only=True)
class CriticRecipe(Recipe):
    """The kind of loss is the paper's; all numbers are ours.

    Attributes:
        base_filters: channels of the first convolution.
        levels: how often the size is halved.
        gradient_penalty: weight of the penalty.
    """

    steps: ranges.Count = 40_000
    batch_size: ranges.Batch = 16
    learning_rate: ranges.Rate = 1e-4
    crop: ranges.Sides = 128
    flip: bool = True
    base_filters: ranges.Filters = 16
    levels: ranges.Levels = 3
    gradient_penalty: ranges.Weight = 1.0

    SMALL: ClassVar[dict[str, Any]] = {
        "steps": 3000,
        "batch_size": 8,
        "crop": 64,
        "learning_rate": 7e-4,
        "rate_schedule": "cosine",
        "clip": 0.2,
        "image_every": 500,
        "checkpoint_every": 500,
    }

    GOOD: ClassVar[dict[str, Any]] = {
        "steps": 40_000,
        "learning_rate": 5e-4,
        "rate_schedule": "cosine",
        "clip": 0.2,
        "base_filters": 32,
    }

    @property
    def size_multiple(self) -> int:
        return 2**self.levels


def critic(recipe: CriticRecipe, channels: int) -> keras.Model:
    """Images `[N, H, W, channels]` in [-1, 1] to float32 `[N, 1]`, low where they are right."""

    def apply(x: Any, filters: int, size: int, stride: int) -> Any:
        init = keras.initializers.HeNormal()
        x = layers.Conv2D(filters, size, stride, "same", kernel_initializer=init)(x)
        return layers.LeakyReLU(0.1)(x)

    inputs = keras.Input((None, None, channels))
    # Beyond the edge lies what is darkest, air.
    x = layers.Rescaling(0.5, 0.5, dtype="float32")(inputs)
    filters, most = recipe.base_filters, 4 * recipe.base_filters
    for _ in range(recipe.levels):
        x = apply(x, filters, 3, 1)
        filters = min(2 * filters, most)
        x = apply(x, filters, 4, 2)
    x = apply(x, filters, 3, 1)
    x = layers.GlobalAveragePooling2D(dtype="float32")(x)
    # A level of its own would change nothing.
    scores = layers.Dense(1, use_bias=False, dtype="float32")(x)
    return keras.Model(inputs, scores, name="critic")


def pixels(images: tf.Tensor) -> tf.Tensor:
    """How many values an image has, float32."""
    return tf.cast(tf.reduce_prod(tf.shape(images)[1:]), tf.float32)


@keras.saving.register_keras_serializable(package="zoo")
class Descent(layers.Layer):
    """A step down a critic: x - length C'(x), of slopes by root mean squares.

    Its length is learned; no gradient goes through C'.

    Args:
        critic: images to scores.
    """

    def __init__(self, critic: keras.Model, **kwargs: Any):
        super().__init__(**{"dtype": "float32"} | kwargs)
        self.critic = critic
        start = keras.initializers.Constant(_LENGTH)
        self.length = self.add_weight(shape=(), initializer=start, name="length", autocast=False)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(x)
            scores = self.critic(x)
        down = tf.stop_gradient(tape.gradient(scores, x))
        return x - self.length * pixels(x) * down

    def compute_output_shape(self, shape: tuple) -> tuple:
        return shape


@zoo.register("critic")
class Critic(Translator):
    """A critic of images, which is a prior; served as a step down it.

    Example:
        >>> hu = Domain(modality="CT", unit="HU", window=(-1024, 1500))
        >>> model = zoo.load("critic", base_filters=8, source=hu, target=hu)
        >>> model.translate(np.zeros([100, 80], "float32")).shape
        (100, 80)
        >>> model.critic(np.zeros([1, 96, 80, 1], "float32")).shape  # of values in [-1, 1]
        TensorShape([1, 1])
    """

    recipe_class = CriticRecipe
    recipe: CriticRecipe

    def __init__(self, recipe: CriticRecipe, source: Domain, target: Domain, **kwargs: Any):
        super().__init__(recipe, source, target, **kwargs)
        kind = source.modality, source.unit, source.window
        if kind != (target.modality, target.unit, target.window) or source.channels != 1:
            raise ValueError(
                "dataset: expected quick and true images of one channel, unit and window, as of "
                f"ct_recon/phantom_fbp. Received: {source} and {target}"
            )
        with float32_judge(recipe.gradient_penalty > 0):
            self.critic = critic(recipe, source.channels)
        inputs = keras.Input((None, None, source.channels))
        self.network = keras.Model(inputs, Descent(self.critic)(inputs), name="descent")

    @property
    def length(self) -> float:
        """How far, by root mean squares of values in [-1, 1], the step goes that is served."""
        return float(self.network.layers[-1].length)

    @property
    def tile_margin(self) -> int:
        return 6 * self.size_multiple  # there and back, 3 at each size

    def compile(self, *args: Any, **kwargs: Any) -> None:
        super().compile(*args, **kwargs)
        weights = self.network.trainable_variables
        if self.optimizer is None:
            rate = scheduled(self.recipe, self.recipe.learning_rate, constant)
            self.optimizer = adam(self, weights, rate)
        self.network_optimizer = self.optimizer

    def train_step(self, batch: dict) -> dict[str, tf.Tensor]:
        """One step of the critic, and of the length of the step that is served."""
        quick = self.source.scale(tf.cast(batch["source"], tf.float32))
        true = self.target.scale(tf.cast(batch["target"], tf.float32))
        seeds = example_seeds(batch, quick, batches_seen(self.optimizer), self.recipe.seed)
        with tf.GradientTape() as tape:
            higher = tf.reduce_mean(self.critic(quick) - self.critic(true))
            steep = self.penalty(true, quick, seeds)
            moved = self.network(quick)
            share = scaled(self.recipe.gradient_penalty * steep - higher) + L2()(true, moved)
        descend(self.optimizer, tape, share, self.network.trainable_variables)
        return {"distance": higher, "penalty": steep} | self.pixel_logs(moved, true)

    def penalty(self, true: tf.Tensor, quick: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        """The mean of max(0, slope - 1)^2 somewhere between each true image and its quick one."""
        mixed = true + (quick - true) * random_uniform(seeds, (1, 1, 1), MIXING)
        # The small constant keeps the root's gradient finite where the slope is zero.
        slope = tf.sqrt(pixels(mixed) * squared_gradient(self.critic, mixed) + 1e-12)
        return tf.reduce_mean(tf.square(tf.nn.relu(slope - 1.0)))

    def values(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.network(self.source.scale(images), training=training)  # not clipped

    def training_flops(self, phase: Phase, sides: tuple[int, ...]) -> float:
        once = forward_flops(self.critic, (*sides, self.source.channels))
        return 16.0 * phase.batch_size * once
