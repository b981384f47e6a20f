"""What the models that translate both ways share."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from zoo import figures
from zoo.domain import Domain
from zoo.layers import pad_to_multiple
from zoo.recipe import Recipe
from zoo.translator import Translator

OTHER = {"a": "b", "b": "a"}


class TwoWay(keras.Model):
    """An encoder and a decoder for each of the domains A and B, saved together.

    Args:
        encoder_a, encoder_b: `[N, H, W, C]` in [-1, 1] to a code `[N, H/4, W/4, K]`.
        decoder_a, decoder_b: a code to float32 `[N, H, W, C]` in [-1, 1].
        served: what a call does, "AtoB" or "BtoA".
    """

    def __init__(self, encoder_a, encoder_b, decoder_a, decoder_b, served: str, **kwargs: Any):
        super().__init__(**kwargs)
        self.encoder_a, self.encoder_b = encoder_a, encoder_b
        self.decoder_a, self.decoder_b = decoder_a, decoder_b
        self.served = served
        self.built = True

    def encode(self, domain: str, values: tf.Tensor, training: bool = False) -> tf.Tensor:
        return getattr(self, f"encoder_{domain}")(values, training=training)

    def decode(self, domain: str, code: tf.Tensor, training: bool = False) -> tf.Tensor:
        return getattr(self, f"decoder_{domain}")(code, training=training)

    def call(self, values: tf.Tensor, training: bool = False) -> tf.Tensor:
        here = "a" if self.served == "AtoB" else "b"
        return self.decode(OTHER[here], self.encode(here, values, training), training)


class TwoWayTranslator(Translator):
    """A translator that learns both ways between A, the data's source, and B, its target.

    Its recipe has a `direction`; `source` and `target` are those of the way that is served, while
    a batch and the examples of `picture` hold the data's.
    """

    optimizers = ("generator_optimizer", "discriminator_optimizer")
    data = "unpaired"
    network: TwoWay
    trained: TwoWay  # `network` itself, unless that is its moving average

    def __init__(self, recipe: Recipe, source: Domain, target: Domain, **kwargs: Any):
        ways = {"AtoB": (source, target), "BtoA": (target, source)}
        super().__init__(recipe, *ways[recipe.direction], **kwargs)
        self.domain_a, self.domain_b = source, target

    def make_networks(self, ema: float) -> None:
        """`trained`, and `network`: the same, or with an `ema` above 0 a twin that follows it."""
        self.trained = self.network = self._generators()
        if ema:
            self.network = self._generators()
            self.network.set_weights(self.trained.get_weights())
            self.network.trainable = False

    def continue_from_network(self) -> None:
        self.trained.set_weights(self.network.get_weights())

    def domain(self, name: str) -> Domain:
        return self.domain_a if name == "a" else self.domain_b

    def discriminator(self, name: str) -> keras.Model:
        return self.discriminator_a if name == "a" else self.discriminator_b

    def given(self, batch: dict) -> dict[str, tf.Tensor]:
        """The batch's images as values, "a" and "b"."""
        images = {"a": batch["source"], "b": batch["target"]}
        if self.residual:
            return {d: self.domain(d).scale(images[d]) for d in images}
        return {d: self.domain(d).encode(images[d]) for d in images}

    def encoded(self, domain: str, values: tf.Tensor) -> tf.Tensor:
        return self.trained.encode(domain, tf.clip_by_value(values, -1.0, 1.0), training=True)

    def decoded(self, domain: str, code: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
        """Values from a code; where the network gives corrections, those of `values`."""
        decoded = self.trained.decode(domain, code, training=True)
        return values + decoded if self.residual else decoded

    def test_step(self, batch: dict) -> dict[str, tf.Tensor]:
        if self.recipe.direction == "BtoA":
            batch = batch | {"source": batch["target"], "target": batch["source"]}
        return super().test_step(batch)

    def picture(self, examples: list[dict[str, np.ndarray]]) -> np.ndarray:
        """uint8 `[H, W, 3]`: of each example A | A to B | and back | B | B to A | and back."""
        rows, windows, ct = [], {}, set()
        for example in examples:
            row = {}
            for here, key in (("a", "source"), ("b", "target")):
                there, image = OTHER[here], example[key]
                height, width = image.shape[:2]
                values = self.domain(here).scale(tf.constant(image[None]))
                values = pad_to_multiple(values, self.size_multiple)
                translated = self._translated(here, values)
                back = self._translated(there, translated)
                names = (f"{here} to {there}", f"{here} to {there} to {here}")
                for name, domain, shown in (
                    (here, here, values),
                    (names[0], there, translated),
                    (names[1], here, back),
                ):
                    name = name.replace("a", "A").replace("b", "B")
                    row[name] = self.domain(domain).decode(shown)[0, :height, :width].numpy()
                    windows[name] = self.domain(domain).window
                    if self.domain(domain).unit == "HU":
                        ct.add(name)
            rows.append(row)
        return figures.grid(rows, windows, ct=ct)

    def _translated(self, here: str, values: tf.Tensor) -> tf.Tensor:
        code = self.network.encode(here, tf.clip_by_value(values, -1.0, 1.0))
        decoded = self.network.decode(OTHER[here], code)
        return values + decoded if self.residual else decoded

    def get_config(self) -> dict[str, Any]:
        domains = {"source": self.domain_a.to_dict(), "target": self.domain_b.to_dict()}
        return super().get_config() | domains
