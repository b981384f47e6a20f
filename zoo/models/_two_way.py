"""What the models share that learn to translate both ways between two domains.

A is the data's source and B its target. Each has an encoder and a decoder; an image is encoded as
its own domain's and decoded as the other's.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from zoo import figures, ranges
from zoo.domain import Domain
from zoo.layers import pad_to_multiple
from zoo.recipe import Phase, Recipe
from zoo.step import averaged, forward_flops
from zoo.translator import Translator

OTHER = {"a": "b", "b": "a"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TwoWayRecipe(Recipe):
    """What is common to the recipes of these models.

    Attributes:
        direction: which way is served; training goes both ways.
        discriminator_rate: the discriminators' learning rate; 0, as the authors', takes
            `learning_rate`.
        spectral_norm: divide the discriminators' kernels by their largest singular value.
        ema: decay, per step, of a moving average of the networks' weights, which is served then; 0
            serves the weights themselves.
        lambda_gan: weight of the adversarial loss. Like all weights, of both ways' sum.
        lambda_cycle: L1 between an image and its translation's translation.
    """

    direction: Literal["AtoB", "BtoA"] = "AtoB"
    discriminator_rate: ranges.Rate = 0.0
    spectral_norm: bool = False
    ema: ranges.Fraction = 0.0
    lambda_gan: ranges.Weight = 1.0
    lambda_cycle: ranges.Weight = 10.0

    @property
    def size_multiple(self) -> int:
        return 4


class TwoWay(keras.Model):
    """The encoders and decoders of A and B, saved together.

    Args:
        encoder_a, encoder_b: `[N, H, W, C]`, or volumes, in [-1, 1] to a code `[N, H/4, W/4, K]`.
        decoder_a, decoder_b: a code to float32 `[N, H, W, C]` in [-1, 1].
        served: what a call does, "AtoB" or "BtoA".
    """

    def __init__(
        self,
        encoder_a: keras.Model,
        encoder_b: keras.Model,
        decoder_a: keras.Model,
        decoder_b: keras.Model,
        served: str,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.encoder_a, self.encoder_b = encoder_a, encoder_b
        self.decoder_a, self.decoder_b = decoder_a, decoder_b
        self.served = served
        self.built = True

    def encode(self, domain: str, values: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The code of values of domain "a" or "b"."""
        return getattr(self, f"encoder_{domain}")(values, training=training)

    def decode(self, domain: str, code: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The values of domain "a" or "b" that a code stands for."""
        return getattr(self, f"decoder_{domain}")(code, training=training)

    def call(self, values: tf.Tensor, training: bool = False) -> tf.Tensor:
        here = "a" if self.served == "AtoB" else "b"
        return self.decode(OTHER[here], self.encode(here, values, training), training)


class TwoWayTranslator(Translator):
    """A translator that learns both ways between A, the data's source, and B, its target.

    `source` and `target` are those of the way that the recipe's `direction` serves, while a batch
    and the examples of `picture` hold the data's. A plugin makes the networks in `generators`, and
    `discriminator_a` and `discriminator_b`.
    """

    optimizers = ("generator_optimizer", "discriminator_optimizer")
    data = "unpaired"
    recipe: TwoWayRecipe
    network: TwoWay
    trained: TwoWay  # `network` itself, unless that is its moving average
    discriminator_a: keras.Model
    discriminator_b: keras.Model

    def __init__(self, recipe: TwoWayRecipe, source: Domain, target: Domain, **kwargs: Any):
        ways = {"AtoB": (source, target), "BtoA": (target, source)}
        super().__init__(recipe, *ways[recipe.direction], **kwargs)
        self.domain_a, self.domain_b = source, target

    def generators(self) -> TwoWay:
        """Fresh encoders and decoders."""
        raise NotImplementedError

    def make_networks(self) -> None:
        """Set `trained`, and `network`: the same or, of an `ema` above 0, its moving average."""
        self.trained = self.network = self.generators()
        if self.recipe.ema:
            self.network = averaged(self.trained, self.generators())

    def continue_from_network(self) -> None:
        self.trained.set_weights(self.network.get_weights())

    def domain(self, name: str) -> Domain:
        """That of "a" or of "b"; so the others below."""
        return self.domain_a if name == "a" else self.domain_b

    def discriminator(self, name: str) -> keras.Model:
        """What tells this domain's images from translations into it."""
        return self.discriminator_a if name == "a" else self.discriminator_b

    def given(self, batch: dict) -> dict[str, tf.Tensor]:
        """The batch's images as values, "a" and "b"."""
        images = {"a": batch["source"], "b": batch["target"]}
        if self.residual:
            return {d: self.domain(d).scale(images[d]) for d in images}
        return {d: self.domain(d).encode(images[d]) for d in images}

    def encoded(self, domain: str, values: tf.Tensor) -> tf.Tensor:
        """The code of values in training."""
        return self.trained.encode(domain, tf.clip_by_value(values, -1.0, 1.0), training=True)

    def decoded(self, domain: str, code: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
        """Values from a code in training; of corrections, those of `values`."""
        decoded = self.trained.decode(domain, code, training=True)
        return values + decoded if self.residual else decoded

    def both_ways(self, losses: dict[str, Callable[[str, str], tf.Tensor]]) -> dict[str, tf.Tensor]:
        """Losses by name, each of a way, as the sums of both where the weight is not 0."""
        weighted = {k: loss for k, loss in losses.items() if getattr(self.recipe, f"lambda_{k}")}
        return {name: loss("a", "b") + loss("b", "a") for name, loss in weighted.items()}

    def weighted_sum(self, terms: dict[str, tf.Tensor]) -> tf.Tensor:
        """Losses by name, times the recipe's weights."""
        return tf.add_n([getattr(self.recipe, f"lambda_{k}") * v for k, v in terms.items()])

    @property
    def generator_passes(self) -> int:
        """How often a step runs an encoder and a decoder."""
        return 5

    def training_flops(self, phase: Phase, sides: tuple[int, ...]) -> float:
        generator = forward_flops(self.network, (*sides, self.source.channels))
        judge = forward_flops(self.discriminator_b, (*sides, self.domain_b.channels))
        return phase.batch_size * (3 * self.generator_passes * generator + 2 * 8 * judge)

    def test_step(self, batch: dict) -> dict[str, tf.Tensor]:
        if self.recipe.direction == "BtoA":
            batch = batch | {"source": batch["target"], "target": batch["source"]}
        return super().test_step(batch)

    def picture(self, examples: list[dict[str, np.ndarray]]) -> np.ndarray:
        """uint8 `[H, W, 3]`: of each example A | A to B | and back | B | B to A | and back."""
        rows, domains = [], {}
        for example in examples:
            row = {}
            for here, key in (("a", "source"), ("b", "target")):
                for name, domain, image in self._there_and_back(here, example[key]):
                    row[name], domains[name] = image, domain
            rows.append(row)
        windows = {name: domain.window for name, domain in domains.items()}
        ct = [name for name, domain in domains.items() if domain.unit == "HU"]
        return figures.grid(rows, windows, ct=ct)

    def _there_and_back(self, here: str, image: np.ndarray) -> list[tuple[str, Domain, np.ndarray]]:
        """A domain's image, its translation, and what that is translated back into; their names."""
        there = OTHER[here]
        a, b = here.upper(), there.upper()
        values = self.domain(here).scale(tf.constant(image[None]))
        values = pad_to_multiple(values, self.size_multiple)
        translated = self._translated(here, values)
        back = self._translated(there, translated)
        found = []
        for name, domain, shown in (
            (a, self.domain(here), values),
            (f"{a} to {b}", self.domain(there), translated),
            (f"{a} to {b} to {a}", self.domain(here), back),
        ):
            whole = domain.decode(shown)[0].numpy()
            whole = whole[tuple(slice(side) for side in image.shape[:-1])]
            # Of a volume the middle slice.
            found.append((name, domain, whole if whole.ndim == 3 else whole[len(whole) // 2]))
        return found

    def there_and_back(self, images: np.ndarray) -> np.ndarray:
        """Images of the source translated into the target and back, which should be themselves.

        Args:
            images: float32 `[N, H, W, C]`, or volumes, in the source's unit; as one tile.

        Returns:
            float32 of the same shape and unit.
        """
        here = "a" if self.recipe.direction == "AtoB" else "b"
        values = pad_to_multiple(self.source.scale(tf.constant(images)), self.size_multiple)
        back = self._translated(OTHER[here], self._translated(here, values))
        sides = tuple(slice(side) for side in images.shape[1:-1])
        return self.source.decode(back).numpy()[(slice(None), *sides)]

    def _translated(self, here: str, values: tf.Tensor) -> tf.Tensor:
        code = self.network.encode(here, tf.clip_by_value(values, -1.0, 1.0))
        decoded = self.network.decode(OTHER[here], code)
        return values + decoded if self.residual else decoded

    def get_config(self) -> dict[str, Any]:
        domains = {"source": self.domain_a.to_dict(), "target": self.domain_b.to_dict()}
        return super().get_config() | domains
