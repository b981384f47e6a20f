"""The numbers of a reconstruction as a model of images takes them, and back."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from zoo.physics import radon
from zoo.physics.operators import Operator
from zoo.translator import Translator


class Unit(NamedTuple):
    """A model's values are `factor` times those of a reconstruction, plus `level`."""

    factor: float
    level: float

    def shown(self, image: tf.Tensor) -> np.ndarray:
        """An image `[H, W]` as the model takes it, float32 `[H, W, 1]`; of a complex one |x|."""
        real = tf.math.abs(image) if image.dtype.is_complex else image
        return (real.numpy() * self.factor + self.level).astype(np.float32)[..., None]

    def physical(self, values: np.ndarray, quick: tf.Tensor) -> tf.Tensor:
        """A model's `[H, W]` in the reconstruction's unit and type, with the phase of `quick`."""
        image = tf.cast((values - self.level) / self.factor, quick.dtype)
        if not quick.dtype.is_complex:
            return image
        size = tf.cast(tf.maximum(tf.math.abs(quick), 1e-30), quick.dtype)
        return image * quick / size


def of_model(model: Translator, operator: Operator, quick: tf.Tensor) -> Unit:
    """The unit of what a model gives, and takes if it is one of images.

    Attenuation is in HU or as LoDoPaB-CT has it. Signal has no unit: of a model of images its
    brightest pixels reach the window's end, one of k-space, or of images that k-space gave, has it
    as it was measured.

    Raises:
        ValueError: for a model of another unit.
    """
    unit = model.target.unit
    if operator.nonnegative and unit == "HU":
        return Unit(1000 / radon.MU_WATER, -1000.0)
    if operator.nonnegative and unit == "normalised attenuation":
        return Unit(1 / 0.08135858, 0.0)
    if operator.nonnegative or unit != "signal":
        wanted = "HU" if operator.nonnegative else "signal"
        raise ValueError(f"model: expected one of images in {wanted}. Received: {unit}")
    if model.source.measured or model.source.quick:
        return Unit(1.0, 0.0)
    brightest = float(np.quantile(np.abs(quick), 0.999))
    return Unit(model.source.window[1] / max(brightest, 1e-30), 0.0)
