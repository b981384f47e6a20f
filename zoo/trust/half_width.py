"""`HalfWidth`: what stands for a model and gives the half-widths of its intervals."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from zoo import tiled
from zoo.trust.calibration import Calibration
from zoo.trust.spread import Spread


class HalfWidth:
    """Half-widths in place of a model's answers, so that whatever writes answers writes them.

    The answer ± the half-width is the interval that `calibration` promises. Sizes, domains and
    recipe are the model's; it warns of nothing, because the model has.

    Args:
        model: a `zoo.Translator` of images, or a `zoo.Average`.
        calibration: of this model.

    Example:
        >>> width = HalfWidth(model, calibration).translate(image)
        >>> low, high = model.translate(image) - width, model.translate(image) + width
    """

    classes = 0
    label_names: tuple[str, ...] = ()
    trained_on = None
    note = "half-widths of intervals about the output"

    def __init__(self, model: Any, calibration: Calibration):
        self.calibration = calibration
        self.spread = Spread(model, calibration.spread)
        self.name, self.title = model.name, getattr(model, "title", model.name)
        self.recipe, self.source, self.target = model.recipe, model.source, model.target
        self.dimensions, self.scale, self.tiles = model.dimensions, model.scale, model.tiles
        self.network = model.network
        self.weights_hash, self.precision = model.weights_hash, model.precision

    def for_spacing(self, spacing: Sequence[float] | None) -> "HalfWidth":
        """The same for images of this pixel spacing, as `zoo.Average.for_spacing`."""
        fitting = copy.copy(self)
        fitting.spread = self.spread.for_spacing(spacing)
        return fitting

    def translate(self, array: np.ndarray, batch_size: int = 1) -> np.ndarray:
        """As `Translator.translate`: the same arrays and checks; half-widths, 0 or more."""
        return tiled.translated(self, array, batch_size, self._half_widths)

    def _half_widths(self, images: np.ndarray, batch_size: int) -> np.ndarray:
        return np.float32(self.calibration.factor) * self.spread(images, batch_size)[1]
