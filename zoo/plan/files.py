"""Which images a folder holds, as training would find them, and what their headers say."""

import dataclasses
import itertools
import os
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from zoo.data import prepare
from zoo.errors import contained
from zoo.imaging.dicom import headers
from zoo.imaging.several import together
from zoo.imaging.volume import Volume
from zoo.recipe import Recipe

SPLITS = ("train", "validation", "test")
# Fields of a recipe that say what the files are.
OPTIONS = ("source_unit", "target_unit", "source_series", "target_series")
SCALES = (2, 4, 8)  # sides of a target over its source's, in super-resolution
_TOLERANCE = 0.1  # spacings that differ by more of themselves are others


@dataclasses.dataclass(eq=False)
class Found:
    """The images of a folder.

    Attributes:
        layout: what the data set `folder` makes of it; patients in several splits included.
        scale: sides of the targets over those of their sources.
        units: of source and target, or of single images, as their files say or the user does; ""
            where files say different things or nothing.
    """

    layout: Any
    scale: int
    units: list[str]

    @property
    def sides(self) -> list[str]:
        """What the images are called."""
        return ["image"] if self.layout.kind == "single" else ["source", "target"]

    def items(self, split: str) -> list[Any]:
        """Of a split; of two unpaired domains, one after another."""
        return [item for domain in self.layout.domains for item in domain.get(split, [])]

    def volumes(self, place: int, split: str = "train") -> list[Volume]:
        """The sources or single images (0), of several inputs the first; or the targets (1)."""
        domain, number = self.layout.domains[0], place
        if self.layout.kind == "unpaired":
            domain, number = self.layout.domains[place], 0
        return [item.volumes[number].parts[0] for item in domain.get(split, [])]

    @property
    def inputs(self) -> int:
        """How many images a source is of."""
        return max(1, len(self.layout.inputs))

    def patients(self) -> dict[str, int]:
        """How many patients a split has, where it has any."""
        counts = {}
        for split in SPLITS:
            patients = {item.patient for item in self.items(split)}
            if patients:
                counts[split] = len(patients)
        return counts

    def shared(self) -> dict[str, list[str]]:
        """Files of patients who are in several splits: names by split, and no patient's name."""
        splits: dict[str, set[str]] = defaultdict(set)
        for split in SPLITS:
            for item in self.items(split):
                splits[item.patient].add(split)
        names = {}
        for split in SPLITS:
            several = [item for item in self.items(split) if len(splits[item.patient]) > 1]
            names[split] = [item.volumes[0].name for item in several]
        return {split: found for split, found in names.items() if found}


def find(path: Path, recipe: Recipe, enlarges: bool = True) -> Found:
    """What is in a folder, or in a list.

    Args:
        path: of the folder or the .tsv list.
        recipe: of which the `OPTIONS` count.
        enlarges: whether targets of finer pixels may be for super-resolution; else they are
            resampled onto the grids of their sources.

    Raises:
        FileNotFoundError, ValueError: as the data set `folder`, and for k-space.
    """
    layout = _read(path, recipe, 1)
    scale = _scale(layout) if enlarges else 1
    if scale > 1:
        layout = _read(path, recipe, scale)
    found = Found(layout, scale, [])
    # Of several inputs the unit of the first, which is measured.
    given = [recipe.source_unit.split(",")[0], recipe.target_unit][: len(found.sides)]
    for place, unit in enumerate(given):
        volumes = found.volumes(place)
        if "k-space" in {volume.unit for volume in volumes}:
            raise ValueError(
                f"input: expected images, for which a plan can be made. Received: k-space in {path}"
            )
        units = {stated(volume) for volume in volumes} - {""}
        found.units.append(unit or (units.pop() if len(units) == 1 else ""))
    return found


def stored(volume: Volume) -> Volume:
    """The volume as it is in its file, where it is resampled onto the grid of another."""
    return getattr(volume, "target", volume)


def stated(volume: Volume) -> str:
    """The unit that a file itself states, as DICOM does; "" where it does not."""
    return volume.unit if volume.kind == "dicom" and volume.unit != "1" else ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Options(Recipe):
    """What the data set `folder` asks of a recipe."""

    scale: int = 1


def _read(path: Path, recipe: Recipe, scale: int) -> Any:
    stated = {name: getattr(recipe, name) for name in OPTIONS}
    # Patients in several splits are warned of.
    layout = prepare.layout(path, _Options(scale=scale, allow_shared_patients=True, **stated))
    _tell_apart(layout, path if path.is_dir() else path.parent)
    return layout


def _tell_apart(layout: Any, root: Path) -> None:
    """Calls the volumes that share a name, as `train/1.png` and `test/1.png` do, by their paths.

    In place. Names are what volumes are known by from here on.
    """
    for domain in layout.domains:
        counts: Counter[tuple[int, str]] = Counter()
        for item in itertools.chain.from_iterable(domain.values()):
            for place, volume in enumerate(item.volumes):
                counts.update((place, part.name) for part in volume.parts)
        for items in domain.values():
            for number, item in enumerate(items):
                volumes = []
                for place, volume in enumerate(item.volumes):
                    parts = [_named(part, root, counts[place, part.name]) for part in volume.parts]
                    volumes.append(together(parts, getattr(volume, "names", ())))
                items[number] = item._replace(volumes=tuple(volumes))


def _named(volume: Volume, root: Path, count: int) -> Volume:
    """A volume whose name so many have, by its path below the root where it is not the only one."""
    if count == 1:
        return volume
    series = volume.kind == "dicom" and len(volume.paths) > 1
    place = volume.path(0).parent if series else volume.path(0)
    return dataclasses.replace(volume, name=Path(os.path.relpath(place, root)).as_posix())


def _scale(layout: Any) -> int:
    """How many times as large as their sources all targets of pairs are, as they are stored.

    1 where they are of another modality, or of several inputs: these are no larger images of one.
    """
    if layout.kind != "paired" or layout.inputs:
        return 1
    factors = set()
    for item in layout.domains[0]["train"]:
        source, target = item.volumes[0], item.volumes[-1]
        if source.modality != target.modality:
            return 1
        factors.add(tuple(np.divide(stored(target).shape, source.shape)))
    same = factors.pop() if len(factors) == 1 else (1.0, 1.0)
    return int(same[0]) if same[0] == same[1] and same[0] in SCALES else 1


def spacings(volumes: list[Volume]) -> np.ndarray:
    """Pixel spacings (row, column) in mm of the volumes that state them, `[n, 2]`."""
    return np.array([v.spacing for v in volumes if v.spacing is not None]).reshape(-1, 2)


def varied(values: np.ndarray) -> bool:
    """Whether spacings are further from their median than images of one protocol are."""
    if not len(values):
        return False
    return bool((np.abs(values / np.median(values) - 1) > _TOLERANCE).any())


def protocols(volumes: list[Volume]) -> dict[tuple[str, str], list[str]]:
    """Names of DICOM series by what their headers say of the contrast.

    Keys are the description of the series and its echo time, and of no use but to be told apart:
    a description may hold anything.
    """
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for volume in volumes:
        if volume.kind != "dicom":
            continue
        keywords = ["SeriesDescription", "EchoTime"]
        with headers.quiet(), contained(volume.name):
            header = pydicom.dcmread(
                volume.path(0), stop_before_pixels=True, specific_tags=keywords
            )
            description, echo = (headers.text(header, keyword) for keyword in keywords)
        groups[" ".join(description.lower().split()), echo].append(volume.name)
    return dict(groups)


def real(volume: Volume) -> str:
    """The file of a volume, links followed."""
    return os.path.realpath(volume.path(0))
