"""What the alarms say of all that a run translates: kept as it goes, and written as a report."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from zoo.atomic import write_atomic
from zoo.imaging.volume import Volume
from zoo.trust import alarm_page, structures
from zoo.trust.alarms import ALARMS, Compared, figures, of_slices, require
from zoo.trust.limits import Breach, Figures, Limits
from zoo.trust.structures import Segmentations

FILE, PAGE = "alarms.json", "alarms.html"


@dataclasses.dataclass
class Watched:
    """The images of one file, series or patient.

    Attributes:
        model: that translated them.
        limits: of its alarms; None where it was never calibrated.
        name: of the output, in its folder, or the patient's pseudonym.
        labels: of an image, by its number, the label map that was given; None where none was.
        images: the number of each, and its figures.
        worst: of the image with most breaches its number, and what it shows.
    """

    model: Any
    limits: Limits | None
    name: str = ""
    labels: Callable[[int], np.ndarray] | None = None
    images: list[tuple[int, Figures]] = dataclasses.field(default_factory=list)
    worst: tuple[int, Compared] | None = None
    _score: tuple[float, float] = (-1.0, 0.0)

    def __call__(self, index: int, source: np.ndarray, output: np.ndarray) -> None:
        """Image `index`: `[H, W, C]` in the source's unit, and its output `[H', W']`, or with C."""
        labels = None if self.labels is None else self.labels(index)
        self.add(index, *figures(self.model, source, output, labels=labels))

    def add(self, index: int, found: Figures, compared: Compared) -> None:
        """An image's figures, and what they were taken of."""
        self.images.append((index, found))
        breaches = self.limits.breaches(found) if self.limits else []
        score = float(len(breaches)), found.get("removed_blob", -found.get("edges", 0.0))
        if score > self._score or self.worst is None:
            self._score, self.worst = score, (index, compared)

    def breaches(self) -> list[tuple[Breach, int, int]]:
        """Of each alarm that was raised the worst breach, its image, and in how many it was."""
        found: dict[str, tuple[Breach, int, int]] = {}
        for index, image in self.images:
            for breach in self.limits.breaches(image) if self.limits else ():
                worst, at, count = found.get(breach.alarm, (breach, index, 0))
                if abs(breach.value - breach.limit) > abs(worst.value - worst.limit):
                    worst, at = breach, index
                found[breach.alarm] = worst, at, count + 1
        return list(found.values())

    def warnings(self) -> list[str]:
        """A line for each of them."""
        unit = self.model.target.unit
        found = []
        for breach, index, count in self.breaches():
            of = ""
            if len(self.images) > 1:
                of = f" (in {count} of {len(self.images)} images, most in {index + 1})"
            found.append(f"alarm: {breach.words(unit)}{of}")
        return found

    def to_dict(self) -> dict[str, Any]:
        """For the report's JSON."""
        raised, summary = [], {}
        for breach, index, count in self.breaches():
            raised.append(breach._asdict() | {"image": index, "images": count})
        for name in ALARMS:
            values = [image[name] for _, image in self.images if name in image]
            if values:
                ends = float(min(values)), float(np.median(values)), float(max(values))
                summary[name] = dict(zip(("lowest", "median", "highest"), ends, strict=True))
        per_image: list[dict[str, Any]] = []
        for index, image in self.images:
            per_image.append({"image": index} | image)
        return {"name": self.name, "raised": raised, "figures": summary, "per_image": per_image}


class Watch:
    """The alarms of a run.

    Args:
        model: that translates; a `zoo.Translator` or a `zoo.Average`.
        limits: of its alarms; None only measures.
        explaining: from an output's name to the command that explains a place of it, without the
            place; "" where there is none.
        segmentations: of the inputs; None where none are given.

    Raises:
        ValueError: for a model that makes no images of images, and for segmentations with one of
            volumes.
    """

    def __init__(
        self,
        model: Any,
        limits: Limits | None,
        explaining: Callable[[str], str] | None = None,
        segmentations: Segmentations | None = None,
    ):
        require(model)
        if segmentations is not None:
            structures.require(model)
        self.model, self.limits, self.explaining = model, limits, explaining
        self.segmentations = segmentations
        self.series: list[Watched] = []

    def begin(self, volume: Volume | None = None) -> Watched:
        """What is to be told of each image of a file or series; counts once it is in `series`.

        Args:
            volume: the file or series; None of an evaluation's patient.
        """
        watched = Watched(self.model, self.limits)
        if self.segmentations is not None and volume is not None:
            plane, of = self.model.source.plane, self.segmentations.of
            watched.labels = lambda index: of(volume, index, plane)
            watched.labels(0)  # what is missing is told before any work is done
        return watched

    def example(self, example: dict[str, Any], aligned: bool) -> None:
        """An example of an evaluation with its "output"; those of one patient belong together."""
        name = example["patient"] or example["name"]
        if not self.series or self.series[-1].name != name:
            self.series.append(dataclasses.replace(self.begin(), name=name))
        series = self.series[-1]
        reference = example["target"] if aligned else None
        given = example["source"], example["output"], reference, example.get("labels")
        for found in of_slices(self.model, *given):
            series.add(len(series.images), *found)

    @property
    def raised(self) -> bool:
        """Whether there was any alarm."""
        return any(series.breaches() for series in self.series)

    def to_dict(self) -> dict[str, Any]:
        """What the JSON holds."""
        series = []
        for each in self.series:
            command = ""
            if self.explaining is not None and len(each.images) == 1:
                command = self.explaining(each.name)
            series.append(each.to_dict() | {"explain": command})
        return {
            "model": self.model.name,
            "weights": self.model.weights_hash,
            "limits": None if self.limits is None else self.limits.to_dict(),
            "alarms": {name: alarm.words for name, alarm in ALARMS.items()},
            "series": series,
        }

    def page(self) -> str:
        """The report as a page of HTML, without scripts."""
        return self._page(self.to_dict())

    def _page(self, told: dict[str, Any]) -> str:
        return alarm_page.render(told, self._worst(), self.limits, self.model)

    def _worst(self) -> alarm_page.Worst:
        """Of each series the number of an image, and what it shows."""
        return [series.worst for series in self.series]

    def write(self, folder: Path) -> None:
        """Write `alarms.json`, `alarms.html` and images for TensorBoard into a folder."""
        told = self.to_dict()
        text = json.dumps(told, indent=1, allow_nan=False, ensure_ascii=False)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / FILE, text.encode())
        write_atomic(folder / PAGE, self._page(told).encode())
        alarm_page.tensorboard(folder / "tensorboard", told, self._worst(), self.model)
