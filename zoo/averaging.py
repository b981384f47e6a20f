"""Means of several answers: of one image seen in several ways, and of several models."""

import functools
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from zoo import loading, tiled
from zoo.imaging import tiling
from zoo.recipe import Recipe
from zoo.registry import Entry
from zoo.translator import Translator

# What members must agree in: of their domains, and beside them. Windows may differ.
_OF_DOMAINS = ("modality", "unit", "channels", "plane", "names")
_BESIDE = ("dimensions", "scale", "classes", "label_names")
_OF_RECIPES = ("slices", "spacing")


class View(NamedTuple):
    """An image as it is, or mirrored left to right and then turned by quarters.

    Attributes:
        mirrored: whether columns run the other way.
        quarters: turns by 90 degrees, 0 to 3.
        backwards: whether the slices of a volume do.
    """

    mirrored: bool = False
    quarters: int = 0
    backwards: bool = False

    def of(self, images: np.ndarray) -> np.ndarray:
        """The view of images `[..., H, W, C]`, or volumes `[..., D, H, W, C]`."""
        if self.backwards:
            images = np.flip(images, -4)
        if self.mirrored:
            images = np.flip(images, -2)
        return np.rot90(images, self.quarters, (-3, -2))

    def back(self, images: np.ndarray) -> np.ndarray:
        """Images whose view is given."""
        images = np.rot90(images, -self.quarters, (-3, -2))
        if self.mirrored:
            images = np.flip(images, -2)
        return np.flip(images, -4) if self.backwards else images

    @property
    def in_slices(self) -> "View":
        """What each slice of it is seen as."""
        return self._replace(backwards=False)

    @property
    def words(self) -> str:
        """Such as "mirrored left to right"."""
        if self.backwards:
            return f"{self.in_slices.words} with its slices backwards"
        flips = {(1, 0): "mirrored left to right", (1, 2): "mirrored top to bottom"}
        if (self.mirrored, self.quarters) in flips:
            return flips[self.mirrored, self.quarters]
        turned = f"turned by {90 * self.quarters} degrees" if self.quarters else "as it is"
        return f"mirrored and {turned}" if self.mirrored else turned


AS_IT_IS = View()


def views(recipe: Recipe, square: bool = True) -> list[View]:
    """The ways of seeing an image that training had by its flips and turns.

    A model that never saw the mirror image of a patient would put the liver on the wrong side.

    Args:
        recipe: that the model was trained with.
        square: whether pixels are; a quarter turn of others shows pixels that no image has.

    Returns:
        All that these make together, what is as it is first: 1, 2, 4 or 8, of volumes up to 16.
    """
    found = {AS_IT_IS}
    if recipe.flip:
        found.add(View(True, 0))
    if recipe.flip_up_down:
        found.add(View(True, 2))
    if recipe.flip and recipe.flip_up_down:
        found.add(View(False, 2))
    if recipe.turn:
        turns = range(4) if square else (0, 2)
        found = {View(each.mirrored, (each.quarters + k) % 4) for each in found for k in turns}
    if recipe.flip_slices:
        found |= {each._replace(backwards=True) for each in found}
    return sorted(found)


class Average:
    """Models, or one seen in several ways, that answer with their mean; it stands for a Translator.

    The mean is of physical values; of classifiers it is of probabilities, and the likeliest class
    is taken of it. Each model counts alike. One answer is held beside the mean, however many there
    are. Domains (and the window in which results are measured and shown), recipe and baseline are
    those of the first model.

    Args:
        models: one or more translators of the same modalities, units, channels, planes, sizes and
            classes.
        tta: test-time augmentation: average over the mirror images and turns of `views`.

    Raises:
        ValueError: for models that do not go together; for `tta` with a model that was trained
            without mirror images and turns, or takes measurements; for a single model without it.

    Example:
        >>> model = zoo.Average([zoo.load("encoder_decoder_ldct")], tta=True)
        >>> model.translate(np.zeros([300, 200], "float32")).shape
        (300, 200)
    """

    def __init__(self, models: Sequence[Translator], tta: bool = False):
        self.members = list(models)
        if len(self.members) < 2 and not tta or not self.members:
            raise ValueError(
                f"models: expected two or more, or one with tta. Received: {len(self.members)}"
            )
        self._check()
        first = self.members[0]
        self.tta = tta
        self.recipe, self.source, self.target = first.recipe, first.source, first.target
        self.dimensions, self.scale = first.dimensions, first.scale
        self.classes, self.label_names = first.classes, first.label_names
        self.baseline, self.tiles, self.network = first.baseline, first.tiles, first.network
        self._set_views(self.source.spacing)

    def _check(self) -> None:
        """A ValueError that names the field in which a member differs from the first."""
        first = self.members[0]
        for member in self.members:
            if member.generates:
                raise ValueError(
                    f"models: expected models that translate images. Received: {member.name}"
                )
            for field, wanted in _facts(first).items():
                received = _facts(member)[field]
                if received != wanted:
                    raise ValueError(
                        f"{field}: expected models that share it, to take their mean. Received: "
                        f"{wanted} of {first.name} and {received} of {member.name}"
                    )

    def _set_views(self, spacing: Sequence[float] | None) -> None:
        square = spacing is None or abs(spacing[-1] / spacing[-2] - 1) < 1e-3
        self.views = [[AS_IT_IS] for _ in self.members]
        if self.tta:
            self.views = [_trained_views(member, square) for member in self.members]

    def for_spacing(self, spacing: Sequence[float] | None) -> "Average":
        """The same for images of this pixel spacing, in mm: without quarter turns if not square."""
        fitting = Average(self.members, self.tta)
        fitting._set_views(spacing)
        return fitting

    @property
    def note(self) -> str:
        """What is averaged, such as "mean of 3 models, test-time augmentation of 8"."""
        parts = []
        if len(self.members) > 1:
            parts.append(f"mean of {len(self.members)} models")
        if self.tta:
            counts = sorted({len(seen) for seen in self.views})
            parts.append(f"test-time augmentation of {' or '.join(map(str, counts))}")
        return ", ".join(parts)

    @property
    def ways(self) -> str:
        """In which ways an image is seen, such as "as it is, mirrored left to right"."""
        seen = dict.fromkeys(view.words for each in self.views for view in each)
        return ", ".join(seen)

    @property
    def name(self) -> str:
        return "+".join(dict.fromkeys(member.name for member in self.members))

    @property
    def precision(self) -> str:
        return " and ".join(dict.fromkeys(member.precision for member in self.members))

    @property
    def weights_hash(self) -> str:
        """Of one model its own; of several the sha256 of theirs, one after the other."""
        hashes = [member.weights_hash for member in self.members]
        return (
            hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
        )

    @property
    def trained_on(self) -> Any:
        """Of the first pretrained model; `zoo.guards` asks each of the members."""
        return next((m.trained_on for m in self.members if m.trained_on is not None), None)

    def translate(self, array: np.ndarray, batch_size: int = 1) -> np.ndarray:
        """As `Translator.translate`: the same arrays, checks, warnings and result."""
        return tiled.translated(self, array, batch_size, self.answers)

    def translate_slices(
        self, read: tiling.Read, shape: Sequence[int], batch_size: int = 1
    ) -> Iterator[np.ndarray]:
        """As `Translator.translate_slices`; what is held of a volume is held for each answer.

        Where `flip_slices` is among the views, the mean of those answers that begin at the other
        end is held whole.
        """
        depth, *sides = shape
        streams, held = [], None
        for member, seen in zip(self.members, self.views, strict=True):
            share = np.float32(1 / (len(self.members) * len(seen)))
            for view in seen:
                turned = (depth, *(reversed(sides) if view.quarters % 2 else sides))
                reads = functools.partial(_read, view, read, depth)
                parts = tiled.answered_slices(member, reads, turned, batch_size)
                shares = _shares(parts, view.in_slices, share)
                if not view.backwards:
                    streams.append(shares)
                    continue
                for place, part in enumerate(shares):
                    if held is None:
                        held = np.zeros([depth * self.scale, *part.shape], np.float32)
                    held[-1 - place] += part
        for number, slices in enumerate(zip(*streams, strict=True)):
            total = sum(slices) if held is None else sum(slices, held[number])
            yield tiled.decided(self, total)

    def answers(self, images: np.ndarray, batch_size: int = 1) -> np.ndarray:
        """The mean of what the members answer, as `tiled.answered` of one."""
        total: Any = 0.0
        for answer, share in self.each(images, batch_size):
            total += answer * share
        return total

    def each(self, images: np.ndarray, batch_size: int = 1) -> Iterator[tuple[np.ndarray, Any]]:
        """Every answer that the mean is made of, as the image lies, and its share of the mean."""
        for member, seen in zip(self.members, self.views, strict=True):
            share = np.float32(1 / (len(self.members) * len(seen)))
            for view in seen:
                answer = tiled.answered(member, np.ascontiguousarray(view.of(images)), batch_size)
                yield view.back(answer), share


def _read(view: View, read: tiling.Read, depth: int, start: int, stop: int) -> np.ndarray:
    if view.backwards:
        start, stop = depth - stop, depth - start
    return view.of(read(start, stop))


def _shares(slices: Iterator[np.ndarray], view: View, share: np.float32) -> Iterator[np.ndarray]:
    """Slices whose view is given, as they are and times their share of a mean."""
    for each in slices:
        yield view.back(each) * share


def build(entries: Sequence[Entry], tta: bool = False) -> Translator | Average:
    """The models of entries with weights, as one; a single one without `tta` is as it is.

    Raises:
        ValueError: as `Average`, and as `loading.build`.
        OSError: as `loading.build`.
    """
    models = [loading.build(entry) for entry in entries]
    return models[0] if len(models) == 1 and not tta else Average(models, tta)


def _facts(model: Translator) -> dict[str, Any]:
    """What members of a mean must share, by the names that an error has for it."""
    found = {}
    for side in ("source", "target"):
        for field in _OF_DOMAINS:
            found[f"{side} {field}"] = getattr(getattr(model, side), field)
    found |= {field: getattr(model, field) for field in _BESIDE}
    return found | {field: getattr(model.recipe, field) for field in _OF_RECIPES}


def _trained_views(model: Translator, square: bool) -> list[View]:
    """A model's views; a ValueError where there is one alone."""
    if model.source.measured:
        raise ValueError(
            f"tta: expected a model of images, which can be mirrored. Received: {model.name}, "
            f"which takes {model.source.words}"
        )
    if len(views(model.recipe)) == 1:
        raise ValueError(
            "tta: expected a model that was trained with mirror images or turns (flip, "
            "flip_up_down, turn, flip_slices in its recipe). "
            f"Received: {model.name} without any of them"
        )
    return views(model.recipe, square)
