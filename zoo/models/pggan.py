"""PGGAN, a progressively grown GAN: new images from noise, up to 1024 x 1024.

Karras, Aila, Laine and Lehtinen, "Progressive Growing of GANs for Improved Quality, Stability, and
Variation", ICLR 2018, arXiv:1710.10196. Training starts at 4 x 4 pixels. Each level doubles the
size: a new block at the end of the generator and at the beginning of the critic is faded in, then
trained on.

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

`--preset=small` takes about ten minutes on two CPU cores to 64 x 64 pixels: the samples then are
breasts against black, on either side and in either view, without the fine texture and with some
square artefacts. The paper's recipe needs a data-centre GPU for days.

What differs from the paper, and why:

    here                                          paper              why
    one sum of kernel shifts makes up x2 + conv   two operations     the same function, 2.25 times
    one 4x4 stride-2 convolution                                     fewer operations
    critic: down x2 between convolution and       after LeakyReLU    allows the same fusion there
    LeakyReLU
    samples are clipped to the window             not said           nothing brighter than white is
                                                                     in the data
    minibatch stddev: a group is 4 neighbours     the whole batch    4 is the authors' own; two
    of one replica's batch, fewer (the largest                       replicas equal one where 4
    divisor) where 4 does not divide it                              divides each one's batch
    600,000 images to fade a level in and as      800,000 and        the shorter schedule is that of
    many after that, 12 million in all            19 million         the authors' code's presets v2
    Adam's moments are forgotten once a level,    not said; their    one start a level; the fade's
    as it begins to fade in                       code also forgets  end changes no layer's task
                                                  them as it ends
    minibatch 16, 14, 6, 3 whatever the number    the same, one GPU  set batch_size for several
    of replicas
    toRGB of one level remains as the next        dropped            one checkpoint structure for
    one's fade-in needs it, and is then unused                       the whole run
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

import zoo
from zoo import figures
from zoo.losses import gradient_penalty
from zoo.models._equalised import (
    GAIN,
    Conv,
    Dense,
    downsample,
    minibatch_stddev,
    pixel_norm,
    upsample,
)
from zoo.recipe import DataFacts, Phase, Recipe
from zoo.step import example_seeds, forward_flops, random_normal, random_uniform, scaled
from zoo.translator import Translator

SIZES = tuple(2**n for n in range(2, 11))  # 4 ... 1024
CRITIC_LATENT, MIXING, GENERATOR_LATENT = 1, 2, 3  # purposes of the random numbers in a step


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
class PgganRecipe(Recipe):
    """Karras et al. 2018, with the shorter schedule of the authors' later presets.

    The paper's, their preset v1, is fade_images=800000, stable_images=800000, images=19000000.

    Attributes:
        steps: of the whole run, shared among the levels; the default is what `images` makes at
            1024 x 1024, and `PGGAN.resolve` sets it to what they make at another resolution.
        batch_size: images in one critic update at every level; 0 takes `batch_sizes`.
        resolution: height and width of the images, a power of two from 4 to 1024; 0 takes the
            largest that the data allow, 1024 where there are none.
        latent: length of the latent vector.
        fmap_base, fmap_max: channels at r x r pixels: min(fmap_base / 2^(log2 r - 1), fmap_max).
        batch_sizes: images in one critic update at 4, 8, 16, ... pixels; the last one repeats.
        fade_images: images shown while a level fades in.
        stable_images: images shown at a level after that.
        images: images shown in the whole run; the last level has what the others leave over.
            With other `steps` these three only say how the levels share them.
        n_critic: critic updates, each with images of its own, in one step.
        gradient_penalty: weight of (|gradient| - 1)^2.
        drift: weight of the squared score of real images.
        ema: decay of the served generator's moving average, per step.
        spectral_norm: divide the critic's kernels by their spectral norm, not by He's constant.
    """

    steps: int = 1_698_214
    batch_size: int = 0
    learning_rate: float = 1e-3
    flip: bool = False
    resolution: int = 0
    latent: int = 512
    fmap_base: int = 8192
    fmap_max: int = 512
    batch_sizes: tuple[int, ...] = (16, 16, 16, 16, 16, 16, 14, 6, 3)
    fade_images: int = 600_000
    stable_images: int = 600_000
    images: int = 12_000_000
    n_critic: int = 1
    gradient_penalty: float = 10.0
    drift: float = 1e-3
    ema: float = 0.999
    spectral_norm: bool = False

    SMALL: ClassVar[dict[str, Any]] = {
        "steps": 2500,
        "resolution": 64,
        "latent": 64,
        "fmap_base": 512,
        "fmap_max": 32,
        "batch_sizes": (16,),
        "fade_images": 3_000,
        "stable_images": 4_000,
        "images": 40_000,
        "learning_rate": 1.5e-3,
        "ema": 0.98,
        "image_every": 250,
        "checkpoint_every": 500,
    }

    def __post_init__(self):
        super().__post_init__()
        if self.resolution not in (0, *SIZES):
            raise ValueError(
                f"resolution: expected 0 or a power of two from 4 to 1024. "
                f"Received: {self.resolution}"
            )
        if self.steps < self.levels:
            raise ValueError(
                f"steps: expected at least {self.levels}, one a level from 4 to {self.side} "
                f"pixels. Received: {self.steps}"
            )
        for name in ("latent", "fmap_base", "fmap_max", "stable_images", "n_critic"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected 1 or more. Received: {getattr(self, name)}")
        if not self.batch_sizes or min(self.batch_sizes) < 1:
            raise ValueError(f"batch_sizes: expected 1 or more. Received: {self.batch_sizes}")
        if self.fade_images < 0:
            raise ValueError(f"fade_images: expected 0 or more. Received: {self.fade_images}")

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
        return [self.level_images(n) / (self.batch(n) * self.n_critic) for n in range(self.levels)]

    def phases(self) -> list[Phase]:
        """Two phases a level, fading in and stable; their steps sum to `steps`."""
        wanted = np.cumsum(self.level_steps())
        phases, start = [], 0
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


# Blocks. Images are [N, H, W, C].


def leaky(x: tf.Tensor) -> tf.Tensor:
    """LeakyReLU with slope 0.2."""
    return tf.nn.leaky_relu(x, 0.2)


def blend(old: tf.Tensor, new: tf.Tensor, alpha: tf.Tensor) -> tf.Tensor:
    """Fade from `old` (alpha 0) to `new` (alpha 1)."""
    return old + (new - old) * tf.cast(alpha, new.dtype)


def attach(network: keras.Model, **groups: list[keras.layers.Layer]) -> None:
    """Give a network its layers, as lists and one by one: a checkpoint does not look into lists."""
    for name, layers in groups.items():
        setattr(network, name, layers)
        for n, layer in enumerate(layers):
            setattr(network, f"{name}_{n}", layer)


# Networks. The float32 policy is the outer one: images and scores are float32 under any policy.


class Generator(keras.Model):
    """Latents [N, latent] to images [N, r, r, channels], about [-1, 1], at any level."""

    def __init__(self, recipe: PgganRecipe, channels: int, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        width, levels = recipe.width, range(recipe.levels)
        first = Dense(recipe.latent, width(0), gain=GAIN / 4, spread=True)
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


class ServedGenerator(Generator):
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
class PGGAN(Translator):
    """Progressively grown GAN, `data = "single"`: call takes latents and gives images.

    A fresh model is full-grown (and knows nothing): `fit` without phases trains its last level.

    Example:
        >>> model = zoo.load("pggan", resolution=64)
        >>> model.generate(2, seed=7).shape
        (2, 64, 64, 1)
    """

    recipe_class = PgganRecipe
    optimizers = ("generator_optimizer", "critic_optimizer")
    data = "single"

    def __init__(self, recipe: PgganRecipe, source: Any, target: Any, **kwargs: Any):
        super().__init__(recipe, source, target, **kwargs)
        channels = target.channels
        self.generator = Generator(recipe, channels, name="generator")
        self.critic = Critic(recipe, channels, name="critic")
        self.network = ServedGenerator(recipe, channels, name="network")
        for average, weight in self._averaged():
            average.assign(weight)
        self.network.trainable = False
        self.phase = dataclasses.replace(self.phases()[-1], fade=0)
        self._functions = {}
        self.built = True

    @classmethod
    def resolve(cls, recipe: PgganRecipe, facts: DataFacts) -> PgganRecipe:
        """The recipe with its resolution, and with it its steps, chosen for the data.

        Args:
            recipe: with a `resolution`, or 0 for the largest that fits.
            facts: of the data.

        Raises:
            ValueError: for images smaller than the resolution, or than 4 x 4 pixels, and for images
                of several sizes with the resolution left open.
        """
        image_size = facts.target_shape
        if image_size is None:
            if not recipe.resolution:
                raise ValueError(
                    "resolution: expected a power of two from 4 to 1024, because the images differ "
                    "in size. Received: 0"
                )
            image_size = (recipe.resolution, recipe.resolution)
        fitting = [size for size in SIZES if size <= min(image_size or (recipe.side,))]
        if not fitting or recipe.resolution > fitting[-1]:
            fits = f"at most {fitting[-1]}, which fits the data" if fitting else "images of 4 x 4"
            raise ValueError(
                f"resolution: expected {fits} of {image_size[0]} x {image_size[1]} pixels. "
                f"Received: {recipe.resolution}"
            )
        resolved = dataclasses.replace(recipe, resolution=recipe.resolution or fitting[-1])
        if resolved.steps == cls.recipe_class.steps:
            resolved = dataclasses.replace(resolved, steps=round(sum(resolved.level_steps())))
        return resolved

    def enter(self, phase: Growth) -> None:
        """The layers that `train_step` runs are chosen in Python, so each phase has its graph."""
        self.phase = phase

    def begin(self, phase: Growth) -> None:
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
        rate = self.recipe.learning_rate
        for name, network in (("generator", self.generator), ("critic", self.critic)):
            optimizer = keras.optimizers.Adam(rate, beta_1=0.0, beta_2=0.99, epsilon=1e-8)
            optimizer.build(network.trainable_variables)
            setattr(self, f"{name}_optimizer", optimizer)

    def train_step(self, batch: dict) -> dict[str, tf.Tensor]:
        """`n_critic` updates of the critic and one of the generator, at the phase's level.

        Args:
            batch: "image" [N, r, r, C] in the data's unit, r the phase's size, and "seed".
        """
        phase, level = self.phase, self.phase.level
        if tuple(batch["image"].shape[1:3]) != (phase.size, phase.size):
            raise ValueError(
                f"image: expected {phase.size} x {phase.size} pixels for {phase.name!r}. "
                f"Received: shape {tuple(batch['image'].shape)}"
            )
        alpha = tf.convert_to_tensor(self.network.alpha) if phase.fade else None
        real = self.target.encode(tf.cast(batch["image"], tf.float32))
        if phase.fade:
            real = blend(upsample(downsample(real)), real, alpha)
        seeds = example_seeds(batch, real, self.generator_optimizer.iterations, self.recipe.seed)
        logs = {}
        for k in range(self.recipe.n_critic):
            # Every n-th image: the same images make an update whatever the number of replicas.
            part = slice(k, None, self.recipe.n_critic)
            logs |= self._critic_update(real[part], seeds[part], alpha)
        logs["generator"] = self._generator_update(seeds[part], alpha)
        for layer, average in zip(
            self.generator.parts(level, bool(phase.fade)),
            self.network.parts(level, bool(phase.fade)),
            strict=True,
        ):
            for weight, mean in ((layer.kernel, average.kernel), (layer.bias, average.bias)):
                mean.assign(mean + (weight - mean) * (1.0 - self.recipe.ema))
        if phase.fade:
            done = tf.cast(self.generator_optimizer.iterations, tf.float32) / phase.fade
            self.network.alpha.assign(tf.minimum(done, 1.0))
        return logs

    def continue_from_network(self) -> None:
        for average, weight in self._averaged():
            weight.assign(average)

    def _averaged(self) -> Iterator[tuple[keras.Variable, keras.Variable]]:
        """The served network's weights, each with the one whose moving average it is."""
        grown = (self.network.level, self.network.alpha)
        served = [v for v in self.network.variables if not any(v is state for state in grown)]
        return zip(served, self.generator.trainable_variables, strict=True)

    def _critic_update(self, real, seeds, alpha) -> dict[str, tf.Tensor]:
        level = self.phase.level
        latents = random_normal(seeds, (self.recipe.latent,), CRITIC_LATENT)
        fake = self.generator.images(latents, level, alpha)
        mixed = real + (fake - real) * random_uniform(seeds, (1, 1, 1), MIXING)
        with tf.GradientTape() as tape:
            score = functools.partial(self.critic.scores, level=level, alpha=alpha, training=True)
            real_scores, fake_scores = score(real), score(fake)
            penalty = tf.reduce_mean(gradient_penalty(score, mixed))
            wasserstein = tf.reduce_mean(real_scores) - tf.reduce_mean(fake_scores)
            drift = tf.reduce_mean(tf.square(real_scores))
            loss = self.recipe.gradient_penalty * penalty - wasserstein + self.recipe.drift * drift
            objective = scaled(loss)
        self._apply(self.critic, self.critic_optimizer, tape, objective)
        return {"critic": loss, "wasserstein": wasserstein, "penalty": penalty}

    def _generator_update(self, seeds, alpha) -> tf.Tensor:
        level = self.phase.level
        latents = random_normal(seeds, (self.recipe.latent,), GENERATOR_LATENT)
        with tf.GradientTape() as tape:
            fake = self.generator.images(latents, level, alpha)
            loss = -tf.reduce_mean(self.critic.scores(fake, level, alpha))
            objective = scaled(loss)
        self._apply(self.generator, self.generator_optimizer, tape, objective)
        return loss

    def _apply(self, network, optimizer, tape: tf.GradientTape, objective: tf.Tensor) -> None:
        parts = network.parts(self.phase.level, bool(self.phase.fade))
        variables = [v for layer in parts for v in layer.trainable_variables]
        optimizer.apply(tape.gradient(objective, variables), variables)

    def test_step(self, batch: dict) -> dict[str, tf.Tensor]:
        raise TypeError(f"{self.name} has no reference to compare one image with.")

    def picture(self, examples: list[dict[str, np.ndarray]]) -> np.ndarray:
        """uint8 [H, W, 3] to look at while training: 16 samples, always of the same latents."""
        images, domain = self.generate(16), self.target
        shown = figures.display_windows(images, domain.unit, domain.window)
        caption, window = next(iter(shown.items()))
        return figures.sample_grid(images, window, panel=128, caption=caption)

    def call(self, latents: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Images from latents.

        Args:
            latents: float32 [N, latent] from N(0, 1).
            training: makes no difference.

        Returns:
            float32 [N, r, r, C] in the target's unit, within its window; r is the resolution, or
            the level reached where training was stopped before.
        """
        values = tf.cast(self.network(tf.cast(latents, tf.float32)), tf.float32)
        return self.target.clip(self.target.decode(values))

    def generate(self, n: int, seed: int = 0, first: int = 0) -> np.ndarray:
        """New images; image k depends on (seed, k) alone.

        Args:
            n: how many.
            seed: 0 or more.
            first: number of the first image: 10 images and then 10 from 10 on are 20 images.

        Returns:
            float32 [n, r, r, C] in the target's unit.
        """
        if n < 1 or seed < 0 or first < 0:
            raise ValueError(
                f"expected n of 1 or more, seed and first of 0 or more. "
                f"Received: n={n}, seed={seed}, first={first}"
            )
        grown = self.network.grown()
        if grown not in self._functions:
            self._functions[grown] = tf.function(lambda latents: self(latents))
        # One at a time: the last bits of a convolution depend on the size of the batch.
        draws = [np.random.default_rng([seed, k]) for k in range(first, first + n)]
        latents = [draw.standard_normal([1, self.recipe.latent], "float32") for draw in draws]
        return np.concatenate([self._functions[grown](z).numpy() for z in latents])

    def translate(self, array: np.ndarray, batch_size: int = 1) -> np.ndarray:
        raise TypeError(f"{self.name} generates images from noise and does not translate them.")

    def training_flops(self, phase: Growth, size: int) -> float:
        """Operations of one step: four generator passes, and 14 of the critic per critic update.

        A backward pass counts as two forward ones; the penalty's second derivative doubles them.
        """
        level, channels = phase.level, self.target.channels
        make = forward_flops(lambda z: self.generator.images(z, level, None), (self.recipe.latent,))
        judge = forward_flops(
            lambda x: self.critic.scores(x, level, None), (phase.size, phase.size, channels)
        )
        n = self.recipe.n_critic
        return phase.batch_size / n * (n * (make + 12.0 * judge) + 3.0 * make + 2.0 * judge)
