"""Volumes of patients, by split: what every layout comes to."""

import dataclasses
import itertools
from pathlib import Path
from typing import NamedTuple

from zoo.imaging import files, geometry
from zoo.imaging.dicom.read import Series
from zoo.imaging.volume import Problem, Volume

SPLITS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}


class Item(NamedTuple):
    """A volume, or the pair of volumes (source, target), of one patient.

    Attributes:
        volumes: one or two volumes; of several inputs the source is a `Several`.
        patient: who it is, as files or list say; never written as it is.
        known: False where no file and no list says who it is: then each item is a patient.
    """

    volumes: tuple[Volume, ...]
    patient: str
    known: bool


@dataclasses.dataclass
class Layout:
    """What was found.

    Attributes:
        kind: "paired", "unpaired" or "single".
        domains: split name to items; one dictionary, or for unpaired data one a domain.
        problems: files that cannot be read and are left out; harmless ones too.
        notes: what else the user should know, a line each.
        shared_patients: whether a patient is in more than one split.
        inputs: names of the sources of a case, where there are several.
        plane: that volumes which state an affine are presented in; None where no training image
            says how it lies.
    """

    kind: str
    domains: list[dict[str, list[Item]]]
    problems: list[Problem]
    shared_patients: bool = False
    notes: list[str] = dataclasses.field(default_factory=list)
    plane: str | None = None
    inputs: tuple[str, ...] = ()

    def images(self, number: int) -> dict[str, list[Volume]]:
        """By split, the volumes that are source (0, or single image) or target (1)."""
        domain, place = self.domains[0], number
        if self.kind == "unpaired":
            domain, place = self.domains[number], 0
        found = {}
        for split, items in domain.items():
            found[split] = [item.volumes[place] for item in items]
        return found

    @property
    def unknown(self) -> int:
        """How many items are a patient each, since nobody says whose they are."""
        items: list[Item] = []
        for domain in self.domains:
            items += itertools.chain(*domain.values())
        return sum(not item.known for item in items)


def find(path: Path, dimensions: int) -> files.Found:
    """The volumes in a file or folder; series that are no even volume are problems where it asks
    for volumes.
    """
    found = files.find(path)
    if dimensions == 2:
        return found
    whole, problems = [], list(found.problems)
    for volume in found.volumes:
        try:
            if isinstance(volume, Series):
                geometry.slice_step([frame.position for frame in volume.frames])
            whole.append(volume)
        except ValueError as error:
            problems += [Problem(file, f"no volume: {error}") for file in volume.paths]
    return files.Found(whole, problems)


def single_items(volumes: list[Volume], salt: str) -> list[Item]:
    """Volumes each of which is an example; `salt` tells those of unknown patients apart."""
    return [Item((v,), v.patient or f"{salt}/{v.name}", bool(v.patient)) for v in volumes]


def paired_items(pairs: list[tuple[Volume, Volume]], salt: str) -> list[Item]:
    """Pairs of source and target.

    Raises:
        ValueError: for files that name two patients in a pair.
    """
    wrong = []
    for source, target in pairs:
        images = (*source.parts, target)
        if len({volume.patient for volume in images} - {""}) > 1:
            wrong.append(" and ".join(volume.name for volume in images))
    if wrong:
        raise ValueError(
            "input: expected source and target of one patient; where the files name different "
            "patients for one, list the pairs in a .tsv with a column patient. "
            f"Received: {some(wrong)}"
        )
    items = []
    for pair in pairs:
        patient = pair[0].patient or pair[1].patient
        items.append(Item(pair, patient or f"{salt}/{pair[0].name}", bool(patient)))
    return items


def number_of(volume: Volume) -> int:
    """Of a time point, echo or the like among those of its series."""
    return volume.number if isinstance(volume, Series) else 0


def some(names: list[str], most: int = 8) -> str:
    """The first of many names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
