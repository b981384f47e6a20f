"""What the models share that make new images from noise."""

import dataclasses
import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from zoo import figures, ranges
from zoo.domain import Domain
from zoo.recipe import Recipe
from zoo.translator import Translator


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneratorRecipe(Recipe):
    """What is common to the recipes of generators.

    Attributes:
        latent: length of the latent vector.
    """

    latent: ranges.Positive = 100


class Noise(keras.layers.Layer):
    """Features with noise added, each channel as much as it learns to; at first none.

    StyleGAN (Karras, Laine and Aila 2019, arXiv:1812.04948, §3.2) draws the noise anew for each
    image, so that its generator need not make grain out of its latents. Here an image must depend
    on its latents alone, so what is drawn once are `planes` pictures of white noise, which
    are added up with factors N(0, 1) made of the latents.

    Takes `[features, latents]`, `[N, H, W, C]` and `[N, latent]`.

    Args:
        planes: how many pictures.
    """

    def __init__(self, planes: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.planes = planes

    def build(self, shapes: Sequence[Sequence[int]]) -> None:
        (_, height, width, channels), (_, latent) = shapes
        fixed = {"trainable": False, "aggregation": "only_first_replica"}
        normal = keras.initializers.RandomNormal
        across = normal(0.0, 1.0 / math.sqrt(latent))
        self.mixing = self.add_weight(shape=(latent, self.planes), initializer=across, **fixed)
        shape = (height, width, self.planes)
        self.pictures = self.add_weight(shape=shape, initializer=normal(0.0, 1.0), **fixed)
        self.strength = self.add_weight(shape=(self.planes, channels), initializer="zeros")

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        x, latents = inputs
        factors = tf.matmul(tf.cast(latents, x.dtype), self.mixing)
        kernel = factors[:, :, None] * self.strength  # [N, planes, C]
        height, width, planes = self.pictures.shape
        pictures = tf.reshape(self.pictures, [1, height * width, planes])
        noise = tf.matmul(pictures, kernel)
        return x + tf.reshape(noise, tf.shape(x))


class Generator(Translator):
    """A model whose `call` takes latents `[N, latent]` from N(0, 1) and gives images.

    A plugin maps latents to images in `call`, and says in `class_names` what classes there are to
    choose from.
    """

    data = "single"
    generates = True
    recipe: GeneratorRecipe
    latent_dtype: type[np.floating] = np.float64  # in which latents are drawn, then float32

    def __init__(self, recipe: GeneratorRecipe, source: Domain, target: Domain, **kwargs: Any):
        super().__init__(recipe, source, target, **kwargs)
        self._functions: dict[Hashable, Callable] = {}

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes that can be chosen, of the labels 0, 1, …; () for no choice."""
        return ()

    @property
    def graph_key(self) -> Hashable:
        """Another one for each graph that `call` makes."""
        return None

    def generate(
        self, n: int, seed: int = 0, first: int = 0, label: int | str | None = None
    ) -> np.ndarray:
        """New images; image k depends on (seed, k) and the label alone.

        Args:
            n: how many.
            seed: 0 or more.
            first: number of the first image: 10 images and then 10 from 10 on are 20 images.
            label: class of all of them, a number or a name, where there are classes; None goes
                through the classes, image k having class k modulo their number.

        Returns:
            float32 `[n, R, R, C]` in the target's unit.
        """
        if n < 1 or seed < 0 or first < 0:
            raise ValueError(
                f"expected n of 1 or more, seed and first of 0 or more. "
                f"Received: n={n}, seed={seed}, first={first}"
            )
        label = self._label_value(label)
        if self.graph_key not in self._functions:
            self._functions[self.graph_key] = tf.function(lambda given: self(given, training=False))
        function = self._functions[self.graph_key]
        images = []
        # One at a time: the last bits of a convolution depend on the size of the batch.
        for k in range(first, first + n):
            draw = np.random.default_rng([seed, k])
            drawn = draw.standard_normal([1, self.recipe.latent], self.latent_dtype)
            given = tf.constant(drawn, tf.float32)
            if self.class_names:
                value = k % len(self.class_names) if label is None else label
                given = [given, tf.constant([value], tf.int64)]
            images.append(function(given).numpy())
        return np.concatenate(images)

    def _label_value(self, label: int | str | None) -> int | None:
        names = self.class_names
        if label is None or label in range(len(names)):
            return None if label is None else int(label)
        if label not in names:
            wanted = f"0 to {len(names) - 1}, or {', '.join(names)}" if names else "none"
            raise ValueError(f"label: expected {wanted}. Received: {label!r}")
        return names.index(str(label))

    def images(self, values: tf.Tensor) -> tf.Tensor:
        """float32 images in the target's unit, within its window, of what the network gives."""
        return self.target.clip(self.target.decode(tf.cast(values, tf.float32)))

    def real(self, batch: dict, side: int, what: str = "") -> tf.Tensor:
        """A batch's images as values in [-1, 1].

        Raises:
            ValueError: for another height or width than `side`, which is that of `what`.
        """
        shape = tuple(batch["image"].shape)
        if shape[1:3] != (side, side):
            raise ValueError(
                f"image: expected {side} x {side} pixels{what}. Received: shape {shape}"
            )
        return self.target.encode(tf.cast(batch["image"], tf.float32))

    def picture(self, examples: list[dict[str, np.ndarray]]) -> np.ndarray:
        """uint8 `[H, W, 3]` to look at while training: 16 samples, always of the same latents."""
        images, domain = self.generate(16), self.target
        caption, window = figures.best_window(images, domain.unit, domain.window)
        return figures.sample_grid(images, window, panel=128, caption=caption)

    def test_step(self, batch: dict) -> dict[str, tf.Tensor]:
        raise TypeError(f"{self.name} has no reference to compare one image with.")

    def translate(self, array: np.ndarray, batch_size: int = 1) -> np.ndarray:
        raise TypeError(f"{self.name} generates images from noise and does not translate them.")


def fitting_resolution(
    resolution: int,
    shape: Sequence[int] | None,
    sizes: Sequence[int],
    choices: str,
    largest: int = 0,
) -> int:
    """The resolution that was asked for or, of 0, the largest that the data allow.

    Args:
        resolution: one of `sizes`, or 0.
        shape: height and width of the data's images; None where they differ.
        sizes: what a network can make, from the smallest on.
        choices: `sizes` in words.
        largest: of 0 no larger one than this, which is also taken of images of several sizes.

    Raises:
        ValueError: for images that are smaller than the resolution or than all `sizes`, and for
            images of several sizes with the resolution left open.
    """
    if largest and not resolution:
        sizes = [side for side in sizes if side <= largest]
        resolution = 0 if shape else largest
    if shape is None:
        if not resolution:
            raise ValueError(
                f"resolution: expected {choices}, because the images differ in size. Received: 0"
            )
        return resolution
    fitting = [side for side in sizes if side <= min(shape)]
    if not fitting or resolution > fitting[-1]:
        smallest = f"images of {sizes[0]} x {sizes[0]}"
        fits = f"at most {fitting[-1]}, which fits the data" if fitting else smallest
        raise ValueError(
            f"resolution: expected {fits} of {shape[0]} x {shape[1]} pixels. Received: {resolution}"
        )
    return resolution or fitting[-1]
