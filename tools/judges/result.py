"""What a judge returns, and how its figures are averaged."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

from tools import pretrained
from zoo.data import batches, prepare
from zoo.evaluation import intervals
from zoo.translator import Translator


@dataclasses.dataclass
class Result:
    """What a model has shown.

    Attributes:
        judged_on: the images, in words.
        figures: name to number, or to [number, low, high] with a 95 % interval.
        checks: what it must show, in words, and whether it does.
        table: the rows of the card's table, the first its head.
        pictures: rows of images for the card: (label, images, window).
    """

    judged_on: str
    figures: dict[str, Any]
    checks: dict[str, bool]
    table: list[list[str]] = dataclasses.field(default_factory=list)
    pictures: list[tuple[str, dict[str, np.ndarray], tuple[float, float]]] = dataclasses.field(
        default_factory=list
    )


def patients_mean(values: list[float], patients: list[str], digits: int = 2) -> list[float]:
    """Mean over patients of their means, and its 95 % interval over patients."""
    means = list(intervals.group_means(values, patients).values())
    low, high = intervals.bootstrap(means)
    return [round(float(v), digits) for v in (np.mean(means), low, high)]


def examples(dataset: str, model: Translator, split: str) -> Iterable[dict[str, Any]]:
    """A split of a simulated data set, in physical units, at the size that the model makes."""
    builder = prepare.load_builder(dataset, pretrained.FOLDER / "data", model.recipe)
    return batches.eval_dataset(builder, split, size=model.recipe.phases()[-1].size)
