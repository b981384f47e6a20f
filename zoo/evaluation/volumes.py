"""Measures that are defined of whole volumes, also where the examples are slices of them."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from zoo import metrics
from zoo.domain import Domain
from zoo.evaluation import intervals
from zoo.evaluation.examples import Example

SIDE = 7  # of the windows of both definitions: a smaller slice holds none


@dataclasses.dataclass(frozen=True)
class Definition:
    """How a challenge measures a volume.

    Attributes:
        name: the challenge's.
        measure: of output, target and mask `[D, H, W]`.
        slices: the fewest that it can be taken of.
    """

    name: str
    measure: Callable[[np.ndarray, np.ndarray, np.ndarray], dict[str, float]]
    slices: int


def definition(domain: Domain) -> Definition | None:
    """How volumes of a target's domain are measured: CT in HU and MR are, others are not."""
    if domain.channels != 1:
        return None
    if domain.unit == "HU":
        return Definition("SynthRAD2023", metrics.synthrad, SIDE)
    if domain.modality == "MR" and domain.unit == "signal":
        return Definition("fastMRI", _fastmri, 2)
    return None


def _fastmri(output: np.ndarray, target: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    return metrics.fastmri(output, target)  # which knows no mask


@dataclasses.dataclass(frozen=True, order=True)
class _Slice:
    """A slice that waits in the file: its number in the volume, its place and its shape there."""

    number: int
    place: int
    shape: tuple[int, ...]


class Volumes:
    """Takes examples in any order and measures the volumes that they are, or are slices of.

    Slices wait in a file until all have come: the examples' order is the data set's, not the
    volumes'.

    Args:
        definition: how volumes are measured.
        whole: whether each example is a volume.
        file: empty, for reading and writing.
    """

    def __init__(self, definition: Definition, whole: bool, file: BinaryIO):
        self.definition, self.whole, self.file = definition, whole, file
        self.rows: list[dict[str, Any]] = []
        self.left_out = 0
        self.slices: dict[tuple[str, str], list[_Slice]] = {}  # by patient and volume

    def add(self, example: Example, baseline: np.ndarray | None) -> None:
        """A volume, or a slice of one."""
        target = example["target"]
        images = [example["output"], target, example.get("mask", np.ones_like(target))]
        if baseline is not None:
            images.append(baseline)
        stack = np.stack(images)[..., 0].astype(np.float32)
        if self.whole:
            self._measure(example["name"], example["patient"], stack)
        elif example["patient"]:  # numbered images of nobody need not be slices of anything
            self._keep(example["name"], example["patient"], stack)

    def measured(self, seed: int) -> dict[str, Any] | None:
        """Definition, counts, `intervals.summaries` and each volume's measures; None of none."""
        for (patient, name), slices in self.slices.items():
            slices.sort()
            if _complete(slices):
                stack = np.stack([self._read(each) for each in slices], axis=1)
                self._measure(name.rstrip("-_. "), patient, stack)
            else:
                self.left_out += 1
        if not self.rows:
            return None
        summary, _ = intervals.summaries(self.rows, ("output", "input", "gain"), seed)
        return {
            "definition": self.definition.name,
            "volumes": len(self.rows),
            "left_out": self.left_out,
            "summary": summary,
            "per_volume": self.rows,
        }

    def _keep(self, name: str, patient: str, stack: np.ndarray) -> None:
        """Writes the images of a slice; its name is the volume's, with a number behind it."""
        volume = re.sub(r"\d+\Z", "", name)
        number = int(name[len(volume) :] or 0)
        kept = _Slice(number, self.file.tell(), stack.shape)
        self.slices.setdefault((patient, volume), []).append(kept)
        self.file.write(stack.tobytes())

    def _read(self, kept: _Slice) -> np.ndarray:
        self.file.seek(kept.place)
        count = int(np.prod(kept.shape))
        return np.frombuffer(self.file.read(4 * count), np.float32).reshape(kept.shape)

    def _measure(self, name: str, patient: str, stack: np.ndarray) -> None:
        """Of output, target, mask and perhaps baseline, float32 `[3 or 4, D, H, W]`."""
        output, target, mask, *baselines = stack
        if len(target) < self.definition.slices or min(target.shape[1:]) < SIDE:
            self.left_out += 1
            return
        measured = self.definition.measure(output, target, mask > 0)
        row = {"name": name, "patient": patient, "slices": len(target), "output": measured}
        for image in baselines:
            before = self.definition.measure(image, target, mask > 0)
            row |= {"input": before, "gain": intervals.differences(measured, before)}
        self.rows.append(row)


def _complete(slices: list[_Slice]) -> bool:
    """Whether sorted slices have numbers without a gap, and one shape."""
    first = slices[0]
    return all(
        each.number == number and each.shape == first.shape
        for number, each in enumerate(slices, first.number)
    )
