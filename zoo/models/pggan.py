"""PGGAN, a progressively grown GAN: new images from noise, up to 1024 x 1024.

Karras, Aila, Laine and Lehtinen, "Progressive Growing of GANs for Improved Quality, Stability, and
Variation", ICLR 2018, arXiv:1710.10196. Training starts at 4 x 4 pixels. Each level doubles the
size: a new block at the end of the generator and at the beginning of the critic is faded in, then
trained on. (A critic is a discriminator whose scores are not the logits of probabilities.)

With c(r) = min(fmap_base / 2^(log2 r - 1), fmap_max) channels at r x r pixels:

    generator   pixelnorm(z), dense 4x4-c(4), conv3-c(4);
                then for r = 8, 16, ... R: up x2 and conv3-c(r), conv3-c(r);  toRGB: conv1-C
                LeakyReLU 0.2 and pixel norm after every layer but toRGB
    critic      fromRGB: conv1-c(R);  then for r = R, ... 16, 8: conv3-c(r), conv3-c(r/2), down x2;
                minibatch stddev, conv3-c(4), dense c(4), dense 1
                LeakyReLU 0.2 after every layer but the last

`call` takes latents [N, 512] from N(0, 1) and gives images [N, R, R, C] in the data's unit: the
network's [-1, 1] is the intensity window. Loss: WGAN-GP plus drift. What is served is the moving
average of the generator's weights.

    python cli.py --model=pggan --dataset=mammo train

`--preset=small` takes eight minutes on two CPU cores to 64 x 64 pixels: breasts of either side and
view with a coarse texture; about one in ten is dark or torn. The paper's takes a GPU for days.

What differs from the paper, and why:

    here                                          paper              why
    one sum of kernel shifts makes up x2 + conv   two operations     the same function, 2.25 times
    one 4x4 stride-2 convolution                                     fewer operations
    critic: down x2 between convolution and       after LeakyReLU    allows the same fusion there
    LeakyReLU
    samples are clipped to the window             not said           no data are brighter than white
    minibatch stddev: a group is 4 neighbours     the whole batch    4 is the authors' own; two
    of one replica's batch, fewer (the largest                       replicas equal one where 4
    divisor) where 4 does not divide it                              divides each one's batch
    600,000 images to fade a level in and as      800,000 and        the shorter schedule is that of
    many after that, 12 million in all            19 million         the authors' code's presets v2
    Adam's moments are forgotten once a level,    not said; their    one start a level; the fade's
    as it begins to fade in                       code also forgets  end changes no layer's task
                                                  them as it ends
    `adversarial=bce` with `r1` (in good          WGAN-GP            R1 on real images now and then
    and small), `diff_augment`                                       costs a fraction of its penalty
    minibatch 16, 14, 6, 3 whatever the number    the same, one GPU  set batch_size for several
    of replicas
    toRGB of one level remains as the next        dropped            one checkpoint structure for
    one's fade-in needs it, and is then unused                       the whole run
"""

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal, Self

import keras
import numpy as np
import tensorflow as tf

import zoo
from zoo import ranges
from zoo.domain import Domain
from zoo.layers import float32_judge
from zoo.losses import adversarial, mean_gradient_penalty
from zoo.models._discriminator import diff_augment, lazy_r1
from zoo.models._equalised import (
    Conv,
    Dense,
    attach,
    blend,
    downsample,
    leaky,
    minibatch_stddev,
    pixel_norm,
    upsample,
)
from zoo.models._generator import Generator, GeneratorRecipe, fitting_resolution
from zoo.recipe import DataFacts, Phase
from zoo.step import (
    adam,
    batches_seen,
    descend,
    example_seeds,
    forward_flops,
    new_share,
    random_normal,
    scaled,
    unscaled,
)

SIZES = tuple(2**n for n in range(2, 11))  # 4 ... 1024
# Purposes of the random numbers in a step.
CRITIC_LATENT, MIXING, GENERATOR_LATENT, REAL, FAKE, JUDGED = range(1, 7)


@dataclasses.dataclass(frozen=True)
class Growth(Phase):
    """A phase of one level.

    Attributes:
        fade: steps over which the level fades in; 0 once it has.
        first: whether it is the level's first phase.
    """

    fade: int = 0
    first: bool = True

    @property
    def level(self) -> int:
        """0 at 4 x 4 pixels."""
        return SIZES.index(self.size)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PgganRecipe(GeneratorRecipe):
    """Karras et al. 2018, with the shorter schedule of the authors' later presets.

    The paper's, their preset v1, is fade_images=800000, stable_images=800000, images=19000000.

    Attributes:
        steps: of the whole run, shared among the levels; the default is what `images` makes at
            1024 x 1024, and `resolve` sets it to what they make at another resolution.
        batch_size: images in one critic update at every level; 0 takes `batch_sizes`.
        resolution: height and width of the images, a power of two from 4 to 1024; 0 takes the
            largest that the data allow, 1024 where there are none.
        largest: of resolution 0 no larger one than this, a power of two; 0 sets no bound.
        fmap_base, fmap_max: channels at r x r pixels: min(fmap_base / 2^(log2 r - 1), fmap_max).
        batch_sizes: images in one critic update at 4, 8, 16, ... pixels; the last one repeats.
        fade_images: images shown while a level fades in.
        stable_images: images shown at a level after that.
        images: images shown in the whole run; the last level has what the others leave over.
            With other `steps` these three only say how the levels share them.
        n_critic: critic updates, each with images of its own, in one step.
        adversarial: "wgan", with a gradient penalty and drift, or "bce", the non-saturating
            logistic loss with the R1 penalty.
        gradient_penalty: weight of (|gradient| - 1)^2, with "wgan".
        drift: weight of the squared score of real images, with "wgan".
        r1: weight of half the critic's squared gradient at real images, with "bce".
        r1_every: updates between two with the R1 penalty, which then weighs as many times as much.
        diff_augment: change what the critic sees at random; for few training images.
        ema: decay of the served generator's moving average, per step.
        spectral_norm: divide the critic's kernels by their spectral norm, not by He's constant.
    """

    steps: ranges.Count = 1_698_214
    batch_size: ranges.Batch = 0
    learning_rate: ranges.Rate = 1e-3
    flip: bool = False
    resolution: Annotated[int, ranges.Range(0, 1024)] = 0
    largest: Annotated[int, ranges.Range(0, 1024)] = 0
    latent: ranges.Positive = 512
    fmap_base: ranges.Positive = 8192
    fmap_max: ranges.Filters = 512
    batch_sizes: tuple[ranges.Positive, ...] = (16, 16, 16, 16, 16, 16, 14, 6, 3)
    fade_images: Annotated[int, ranges.Range(0, below=10**12)] = 600_000
    stable_images: ranges.Count = 600_000
    images: Annotated[int, ranges.Range(0, below=10**12)] = 12_000_000
    n_critic: Annotated[int, ranges.Range(1, 1000)] = 1
    adversarial: Literal["wgan", "bce"] = "wgan"
    gradient_penalty: ranges.Weight = 10.0
    drift: ranges.Weight = 1e-3
    r1: ranges.Weight = 10.0
    r1_every: ranges.Count = 16
    diff_augment: bool = False
    ema: ranges.Fraction = 0.999
    spectral_norm: bool = False

    SMALL: ClassVar[dict[str, Any]] = {
        "steps": 4000,
        "resolution": 64,
        "latent": 64,
        "fmap_base": 512,
        "fmap_max": 32,
        "batch_sizes": (16,),
        "fade_images": 4_000,
        "stable_images": 6_000,
        "images": 64_000,
        "learning_rate": 1.5e-3,
        "adversarial": "bce",
        "r1": 1.0,
        "ema": 0.99,
        "image_every": 250,
        "checkpoint_every": 500,
    }

    GOOD: ClassVar[dict[str, Any]] = {
        "steps": 60_000,
        "largest": 128,
        "latent": 256,
        "fmap_base": 2048,
        "fmap_max": 128,
        "batch_sizes": (16,),
        "fade_images": 60_000,
        "stable_images": 60_000,
        "images": 960_000,
        "adversarial": "bce",
        "r1": 1.0,
        "ema": 0.999,
    }

    def __post_init__(self):
        super().__post_init__()
        for name in ("resolution", "largest"):
            if getattr(self, name) not in (0, *SIZES):
                raise ValueError(
                    f"{name}: expected 0 or a power of two from 4 to 1024. "
                    f"Received: {getattr(self, name)}"
                )
        if self.steps < self.levels:
            raise ValueError(
                f"steps: expected at least {self.levels}, one a level from 4 to {self.side} "
                f"pixels. Received: {self.steps}"
            )
        if not self.batch_sizes:
            raise ValueError("batch_sizes: expected 1 or more. Received: ()")

    @property
    def side(self) -> int:
        """Height and width of the images, in pixels."""
        return self.resolution or SIZES[-1]

    @property
    def levels(self) -> int:
        """How many sizes the run goes through; level 0 is 4 x 4 pixels."""
        return SIZES.index(self.side) + 1

    def width(self, level: int) -> int:
        """Channels of the feature maps of a level."""
        return max(1, min(self.fmap_base >> (level + 1), self.fmap_max))

    def batch(self, level: int) -> int:
        """Images in one critic update at a level."""
        return self.batch_size or self.batch_sizes[min(level, len(self.batch_sizes) - 1)]

    def level_images(self, level: int) -> int:
        """Images that the paper's schedule shows at a level; only their ratios matter."""
        usual = self.stable_images + (self.fade_images if level else 0)
        if level < self.levels - 1:
            return usual
        return max(usual, self.images - sum(self.level_images(n) for n in range(level)))

    def level_steps(self) -> list[float]:
        """Steps at each level that `images` makes."""
        times = self.n_critic * self.accumulate
        return [self.level_images(n) / (self.batch(n) * times) for n in range(self.levels)]

    def resolve(self, facts: DataFacts) -> Self:
        """The recipe with its resolution, and with it its steps, chosen for the data.

        Raises:
            ValueError: for images smaller than the resolution, or than 4 x 4 pixels, for images of
                several sizes with the resolution left open, and for a rate that falls.
        """
        if self.rate_schedule in ("linear", "cosine"):
            raise ValueError(
                "rate_schedule: expected own or constant, because updates are counted from each "
                f"level's start. Received: {self.rate_schedule}"
            )
        choices = "a power of two from 4 to 1024"
        shape, largest = facts.target_shape, self.largest
        side = fitting_resolution(self.resolution, shape, SIZES, choices, largest)
        resolved = dataclasses.replace(self, resolution=side)
        if resolved.steps == type(self).steps:
            resolved = dataclasses.replace(resolved, steps=round(sum(resolved.level_steps())))
        return resolved

    def phases(self) -> list[Growth]:
        """Two phases a level, fading in and stable; their steps sum to `steps`."""
        wanted = np.cumsum(self.level_steps())
        phases: list[Growth] = []
        start = 0
        for level, share in enumerate(wanted / wanted[-1] * self.steps):
            left = self.levels - 1 - level  # each of the levels to come needs a step
            end = min(max(round(share), start + 1), self.steps - left)
            size, batch = SIZES[level], self.batch(level) * self.n_critic
            part = self.fade_images / self.level_images(level) if level else 0.0
            fade = round((end - start) * part)
            stable = end - start - fade
            name = f"{size}x{size}"
            if fade:
                phases.append(Growth(f"{name} fade", fade, batch, size, fade=fade))
            if stable:
                phases.append(Growth(name, stable, batch, size, first=not fade))
            start = end
        return phases


# Networks. The float32 policy is the outer one: images and scores are float32 under any policy.


class GrowingGenerator(keras.Model):
    """Latents [N, latent] to images [N, r, r, channels], about [-1, 1], at any level."""

    def __init__(self, recipe: PgganRecipe, channels: int, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        width, levels = recipe.width, range(recipe.levels)
        first = Dense(recipe.latent, width(0), gain=math.sqrt(2) / 4, spread=True)
        ups = [Conv(width(n - 1), width(n), resample="up") for n in levels[1:]]
        second = [Conv(width(n), width(n)) for n in levels]
        to_rgb = [Conv(width(n), channels, 1, gain=1.0, dtype="float32") for n in levels]
        attach(self, first=[first, *ups], second=second, to_rgb=to_rgb)
        self.built = True

    def images(self, latents: tf.Tensor, level: int, alpha: tf.Tensor | None) -> tf.Tensor:
        """Only the layers up to `level` run; `alpha` None means that it has faded in."""
        x = previous = pixel_norm(latents)
        for first, second in zip(self.first[: level + 1], self.second, strict=False):
            previous = x
            x = pixel_norm(leaky(first(x)))
            x = pixel_norm(leaky(second(x)))
        images = self.to_rgb[level](x)
        if alpha is not None:
            images = blend(upsample(self.to_rgb[level - 1](previous)), images, alpha)
        return images

    def parts(self, level: int, fading: bool) -> list[keras.layers.Layer]:
        """The layers that `images` runs."""
        rgb = self.to_rgb[level - 1 if fading else level : level + 1]
        return self.first[: level + 1] + self.second[: level + 1] + rgb


class ServedGenerator(GrowingGenerator):
    """The averaged generator, which knows how far it has grown: `level`, and `alpha` in [0, 1]."""

    def __init__(self, recipe: PgganRecipe, channels: int, **kwargs):
        super().__init__(recipe, channels, **kwargs)
        state = {"trainable": False, "aggregation": "only_first_replica"}
        self.level = self.add_weight(
            name="level",
            shape=(),
            dtype="int32",
            initializer=keras.initializers.Constant(recipe.levels - 1),
            **state,
        )
        self.alpha = self.add_weight(name="alpha", shape=(), initializer="ones", **state)

    def grown(self) -> tuple[int, bool]:
        """Level, and whether it is still fading in; Python values, in a graph too."""
        with tf.init_scope():
            return int(self.level.numpy()), float(self.alpha.numpy()) < 1.0

    def call(self, latents: tf.Tensor, training: bool = False) -> tf.Tensor:
        level, fading = self.grown()
        return self.images(latents, level, self.alpha.value if fading else None)


class Critic(keras.Model):
    """Images [N, r, r, channels] in [-1, 1] to scores [N, 1]; higher is more real."""

    def __init__(self, recipe: PgganRecipe, channels: int, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        width, levels = recipe.width, range(recipe.levels)
        conv = functools.partial(Conv, spectral_norm=recipe.spectral_norm)
        dense = functools.partial(Dense, spectral_norm=recipe.spectral_norm)
        from_rgb = [conv(channels, width(n), 1) for n in levels]
        downs = [conv(width(n), width(n - 1), resample="down") for n in levels[1:]]
        first = [conv(width(0) + 1, width(0))] + [conv(width(n), width(n)) for n in levels[1:]]
        second = [dense(16 * width(0), width(0)), *downs]
        attach(self, from_rgb=from_rgb, first=first, second=second)
        self.score = dense(width(0), 1, gain=1.0, dtype="float32")
        self.built = True

    def scores(
        self, images: tf.Tensor, level: int, alpha: tf.Tensor | None, training: bool = False
    ) -> tf.Tensor:
        """Only the layers up to `level` run; `alpha` None means that it has faded in."""
        run = {"training": training}
        x = leaky(self.from_rgb[level](images, **run))
        for n in range(level, 0, -1):
            x = leaky(self.second[n](leaky(self.first[n](x, **run)), **run))
            if n == level and alpha is not None:
                old = self.from_rgb[level - 1](downsample(images), **run)
                x = blend(leaky(old), x, alpha)
        x = leaky(self.first[0](minibatch_stddev(x), **run))
        x = tf.reshape(x, [-1, 16 * x.shape[-1]])
        return self.score(leaky(self.second[0](x, **run)), **run)

    def parts(self, level: int, fading: bool) -> list[keras.layers.Layer]:
        """The layers that `scores` runs."""
        rgb = self.from_rgb[level - 1 if fading else level : level + 1]
        return [self.score] + self.first[: level + 1] + self.second[: level + 1] + rgb


@zoo.register("pggan")
class PGGAN(Generator):
    """Progressively grown GAN: call takes latents and gives images.

    A fresh model is full-grown (and knows nothing): `fit` without phases trains its last level.

    Example:
        >>> model = zoo.load("pggan", resolution=64)
        >>> model.generate(2, seed=7).shape
        (2, 64, 64, 1)
    """

    recipe_class = PgganRecipe
    recipe: PgganRecipe
    network: ServedGenerator
    optimizers = ("generator_optimizer", "critic_optimizer")
    latent_dtype = np.float32

    def __init__(self, recipe: PgganRecipe, source: Domain, target: Domain, **kwargs: Any):
        super().__init__(recipe, source, target, **kwargs)
        channels = target.channels
        self.generator = GrowingGenerator(recipe, channels, name="generator")
        with float32_judge(True):
            self.critic = Critic(recipe, channels, name="critic")
        self.network = ServedGenerator(recipe, channels, name="network")
        for average, weight in self._averaged():
            average.assign(weight)
        self.network.trainable = False
        self.adversarial = adversarial(recipe.adversarial)
        self.phase: Growth = dataclasses.replace(recipe.phases()[-1], fade=0)
        self.built = True

    @property
    def graph_key(self) -> tuple[int, bool]:
        return self.network.grown()

    def enter(self, phase: Growth) -> None:  # type: ignore[override]  # as PgganRecipe.phases
        """The layers that `train_step` runs are chosen in Python, so each phase has its graph."""
        self.phase = phase

    def begin(self, phase: Growth) -> None:  # type: ignore[override]  # as PgganRecipe.phases
        """At a new level, forget Adam's moments, as the authors' code does, and fade in."""
        self.network.level.assign(phase.level)
        self.network.alpha.assign(0.0 if phase.fade else 1.0)
        if phase.first:
            for optimizer in (self.generator_optimizer, self.critic_optimizer):
                for variable in optimizer.variables:
                    if variable is not optimizer.learning_rate:
                        variable.assign(tf.zeros(variable.shape, variable.dtype))

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Two Adam optimizers over all layers: one checkpoint structure for the whole run."""
        super().compile(*args, **kwargs)
        options = {"rate": self.recipe.learning_rate, "beta_1": 0.0, "beta_2": 0.99}
        self.generator_optimizer = adam(self, self.generator.trainable_variables, **options)
        self.critic_optimizer = adam(self, self.critic.trainable_variables, **options)

    def train_step(self, batch: dict) -> dict[str, tf.Tensor]:
        """`n_critic` updates of the critic and one of the generator, at the phase's level.

        Args:
            batch: "image" [N, r, r, C] in the data's unit, r the phase's size, and "seed".
        """
        phase, alpha = self.phase, None
        real = self.real(batch, phase.size, f" for {phase.name!r}")
        if phase.fade:
            alpha = tf.convert_to_tensor(self.network.alpha)
            real = blend(upsample(downsample(real)), real, alpha)
        seen = batches_seen(self.generator_optimizer)
        seeds = example_seeds(batch, real, seen, self.recipe.seed)
        logs: dict[str, tf.Tensor] = {}
        for k in range(self.recipe.n_critic):
            # Every n-th image: the same images make an update whatever the number of replicas.
            part = slice(k, None, self.recipe.n_critic)
            logs |= self._critic_update(real[part], seeds[part], alpha)
        logs["generator"], changed = self._generator_update(seeds[part], alpha)
        # The moving average of the layers that have learnt something.
        grown, share = (phase.level, bool(phase.fade)), new_share(self.recipe.ema, changed)
        pairs = zip(self.generator.parts(*grown), self.network.parts(*grown), strict=True)
        for layer, average in pairs:
            for weight, mean in ((layer.kernel, average.kernel), (layer.bias, average.bias)):
                mean.assign(mean + (weight - mean) * share)
        if phase.fade:
            done = tf.cast(self.generator_optimizer.iterations, tf.float32) / phase.fade
            self.network.alpha.assign(tf.minimum(done, 1.0))
        return logs

    def continue_from_network(self) -> None:
        for average, weight in self._averaged():
            weight.assign(average)

    def _averaged(self) -> Iterator[tuple[keras.Variable, keras.Variable]]:
        """The served network's weights, each with the one whose moving average it is."""
        states = {id(self.network.level), id(self.network.alpha)}
        served = [v for v in self.network.variables if id(v) not in states]
        return zip(served, self.generator.trainable_variables, strict=True)

    def _critic_update(self, real, seeds, alpha) -> dict[str, tf.Tensor]:
        recipe, level = self.recipe, self.phase.level
        latents = random_normal(seeds, (recipe.latent,), CRITIC_LATENT)
        fake = self.generator.images(latents, level, alpha)
        with tf.GradientTape() as tape:
            score = functools.partial(self.critic.scores, level=level, alpha=alpha, training=True)
            real_scores = score(self._changed(real, seeds, REAL))
            fake_scores = score(self._changed(fake, seeds, FAKE))
            if recipe.adversarial == "wgan":
                penalty = mean_gradient_penalty(score, real, fake, seeds, MIXING)
                wasserstein = tf.reduce_mean(real_scores) - tf.reduce_mean(fake_scores)
                drift = tf.reduce_mean(tf.square(real_scores))
                loss = recipe.gradient_penalty * penalty - wasserstein + recipe.drift * drift
                objective = scaled(loss)
                logs = {"critic": loss, "wasserstein": wasserstein, "penalty": penalty}
            else:
                share = self.adversarial.real(real_scores) + self.adversarial.fake(fake_scores)
                seen = batches_seen(self.critic_optimizer)
                penalty = lazy_r1(score, real, recipe.r1_every, seen) if recipe.r1 else 0.0
                objective = share + scaled(recipe.r1 * penalty)
                logs = {"critic": unscaled(share)}
        self._apply(self.critic, self.critic_optimizer, tape, objective)
        return logs

    def _changed(self, images, seeds, purpose: int) -> tf.Tensor:
        return diff_augment(images, seeds, purpose) if self.recipe.diff_augment else images

    def _generator_update(self, seeds, alpha) -> tuple[tf.Tensor, tf.Tensor | bool]:
        level = self.phase.level
        latents = random_normal(seeds, (self.recipe.latent,), GENERATOR_LATENT)
        with tf.GradientTape() as tape:
            fake = self._changed(self.generator.images(latents, level, alpha), seeds, JUDGED)
            objective = self.adversarial.generator(self.critic.scores(fake, level, alpha))
        changed = self._apply(self.generator, self.generator_optimizer, tape, objective)
        return unscaled(objective), changed

    def _apply(
        self, network, optimizer, tape: tf.GradientTape, objective: tf.Tensor
    ) -> tf.Tensor | bool:
        parts = network.parts(self.phase.level, bool(self.phase.fade))
        variables = [v for layer in parts for v in layer.trainable_variables]
        return descend(optimizer, tape, objective, variables)

    def call(self, latents: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Images from latents.

        Args:
            latents: float32 [N, latent] from N(0, 1).
            training: makes no difference.

        Returns:
            float32 [N, r, r, C] in the target's unit, within its window; r is the resolution, or
            the level reached where training was stopped before.
        """
        return self.images(self.network(tf.cast(latents, tf.float32)))

    def training_flops(  # type: ignore[override]
        self, phase: Growth, sides: tuple[int, ...]
    ) -> float:
        """Operations of one step; a backward pass counts as two forward ones, a penalty as six."""
        level, channels = phase.level, self.target.channels
        make = forward_flops(lambda z: self.generator.images(z, level, None), (self.recipe.latent,))
        judge = forward_flops(
            lambda x: self.critic.scores(x, level, None), (phase.size, phase.size, channels)
        )
        n, often = self.recipe.n_critic, 1.0
        if self.recipe.adversarial == "bce":
            often = 1.0 / self.recipe.r1_every if self.recipe.r1 else 0.0
        update = make + (6.0 + 6.0 * often) * judge
        return phase.batch_size / n * (n * update + 3.0 * make + 2.0 * judge)
