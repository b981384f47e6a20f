"""Lower and upper heads beside a network's estimate, by the pinball loss.

Koenker, Bassett: Regression Quantiles, Econometrica 1978; as heads of an image's network in
Angelopoulos et al. 2022, arXiv:2202.05265. The network has three times the target's channels: the
estimate, then both quantiles. Half of what lies between these is the spread that `zoo.trust`
scales; by itself it promises nothing.
"""

from typing import Any

import tensorflow as tf

from zoo.step import scaled
from zoo.translator import Translator

LEVELS = (0.05, 0.95)  # of the lower and the upper head


def check_recipe(recipe: Any) -> None:
    """A ValueError for quantiles beside targets that are not where the output is."""
    if recipe.quantiles and recipe.registration:
        raise ValueError(
            "quantiles: expected targets that are not displaced, without registration. "
            "Received: both"
        )


class WithQuantiles(Translator):
    """A translator whose recipe has `quantiles`; where these are off it is as any other."""

    recipe: Any

    def outputs(self) -> int:
        """Channels that the network has to give."""
        if self.recipe.quantiles and self.classes:
            raise ValueError(
                f"quantiles: expected images and no classes. Received: {self.classes} classes"
            )
        return (self.classes or self.target.channels) * (3 if self.recipe.quantiles else 1)

    def heads(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """As `values`, with the channels of both quantiles behind those of the estimate."""
        return super().values(images, training)

    def values(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.estimate(self.heads(images, training))

    def estimate(self, heads: tf.Tensor) -> tf.Tensor:
        """The part of `heads` that is the output."""
        return heads[..., : self.target.channels] if self.recipe.quantiles else heads

    def with_half_width(self, images: tf.Tensor) -> tf.Tensor:
        """The output and half of what lies between the quantiles, both in the target's unit.

        Args:
            images: `[N, H, W, C]` in the source's unit, or volumes.

        Returns:
            float32 `[N, H', W', 2 C']`: first the output's channels, then the half-widths, which
            are 0 where the quantiles cross.
        """
        heads = self.cropped(self.heads, tf.cast(images, tf.float32), False)
        estimate, lower, upper = tf.split(heads, 3, axis=-1)
        half = tf.maximum(upper - lower, 0.0) * (self.target.span / 4)
        return tf.concat([self.target.decode(estimate), half], axis=-1)

    def pinball(self, heads: tf.Tensor, target: tf.Tensor, error: Any = 1.0) -> tf.Tensor:
        """The loss of both quantiles, the mean over pixels and batch; as `zoo.losses` a share.

        Args:
            heads, target: values of one scale.
            error: what both are divided by.
        """
        total = 0.0
        for level, bound in zip(LEVELS, tf.split(heads, 3, axis=-1)[1:], strict=True):
            above = (target - bound) / error
            total += scaled(tf.reduce_mean(tf.maximum(level * above, (level - 1.0) * above)))
        return total
