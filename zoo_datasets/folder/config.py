"""The config of a user's folder: whose files, and how they are prepared."""

import dataclasses
import functools
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from zoo.imaging import files, geometry, grids
from zoo.imaging.dicom.read import Series
from zoo.imaging.lists import is_list
from zoo.imaging.several import on_one_grid, together
from zoo.imaging.volume import Problem, Volume
from zoo.recipe import Recipe
from zoo_datasets.folder import layout, lists, neighbours
from zoo_datasets.folder.items import Layout, some

_UNITS = ("HU", "SUV", "signal", "line integral", "1")  # known ones, whose spelling matters


@dataclasses.dataclass(eq=False)
class FolderConfig(tfds.core.BuilderConfig):
    """Whose files, and how they are prepared.

    Attributes:
        path: folder, file or .tsv list.
        spacing: pixel spacing in mm that images are resampled to; 0 keeps their own.
        slices: neighbouring slices that make the channels of a source, or of a single image.
        allow_shared_patients: permit one patient in several splits.
        scale: sides of a target over those of its source, for super-resolution.
        dimensions: 3 makes each file or series one example, a volume.
        classes: of targets that are label maps; they are never interpolated.
        source_unit, target_unit: of the values in files that name none; "" leaves them without.
            Of several inputs one for all, or one for each in turn between commas.
        source_series, target_series: patterns that pick the series of DICOM studies.
        target: "neighbour" makes the neighbouring slices of a source its training targets.
    """

    path: Path | None = None
    spacing: float = 0.0
    slices: int = 1
    allow_shared_patients: bool = False
    scale: int = 1
    dimensions: int = 2
    classes: int = 0
    source_unit: str = ""
    target_unit: str = ""
    source_series: str = ""
    target_series: str = ""
    target: str = "image"

    @functools.cached_property
    def layout(self) -> Layout:
        """What is in the folder, targets on their sources' grids; reads every header, once."""
        assert self.path is not None, "`configure` gives one"
        found = layout.read(
            self.path,
            self.allow_shared_patients,
            self.dimensions,
            self.source_series,
            self.target_series,
        )
        _convert_units(found, self)
        layout.present(found)
        if self.target == "neighbour":
            neighbours.pair(found)
        if found.kind == "paired":
            _match_inputs(found)
            _match_grids(found, self)
        return found

    def units(self, key: str, inputs: Sequence[str]) -> list[str]:
        """The unit that is given for an image, or for each of several inputs; "" where none is.

        Raises:
            ValueError: for another number of units than inputs.
        """
        if key == "target":
            return [self.target_unit]
        units, count = self.source_unit.split(","), max(len(inputs), 1)
        if len(units) not in (1, count):
            wanted = f"one for all, or one for each of {', '.join(inputs)}" if inputs else "one"
            raise ValueError(f"source_unit: expected {wanted}. Received: {self.source_unit}")
        return units * (count // len(units))


def configure(input: Path | None, recipe: Recipe) -> FolderConfig:
    """The config of a user's folder: its name changes when a file or an option does.

    Raises:
        ValueError: without an input.
        FileNotFoundError: for an input that is not there.
    """
    if input is None:
        raise ValueError(
            "input: the data set `folder` expects a folder, or a .tsv list, of images. "
            "Received: None"
        )
    path = Path(input).expanduser().resolve()
    if not path.exists():
        raise FileNotFoundError(f"input: expected a folder or a .tsv list. Received: {path}")
    options: dict[str, Any] = {
        "spacing": recipe.spacing,
        "slices": recipe.slices,
        "allow_shared_patients": recipe.allow_shared_patients,
        "scale": recipe.scale,
        "dimensions": recipe.dimensions,
        "classes": getattr(recipe, "classes", 0),
        "source_unit": ",".join(_unit("source_unit", u) for u in recipe.source_unit.split(",")),
        "target_unit": _unit("target_unit", recipe.target_unit),
    }
    # Only where they are given: so a data set keeps the name that it had before there were such.
    series = {"source_series": recipe.source_series, "target_series": recipe.target_series}
    options |= {field: pattern for field, pattern in series.items() if pattern}
    if recipe.dimensions == 3 and (recipe.spacing or recipe.slices > 1):
        raise ValueError(
            "spacing, slices: volumes are taken as they are. "
            f"Received: spacing={recipe.spacing}, slices={recipe.slices}"
        )
    if recipe.target == "neighbour":  # what others have prepared keeps its name
        neighbours.check(recipe)
        options["target"] = recipe.target
    if recipe.target_series and not recipe.source_series:
        raise ValueError(
            "source_series: expected patterns of the sources beside target_series. Received: none"
        )
    roots = [path, *(lists.listed_paths(path) if is_list(path) else [])]
    content = json.dumps([os.fspath(path), options, sorted(set(_stamps(roots)))])
    digest = hashlib.sha256(content.encode()).hexdigest()[:16]
    return FolderConfig(name=f"files-{digest}", path=path, **options)


def _unit(field: str, unit: str) -> str:
    """A unit as a recipe gives it, refused where it is none of a user's images."""
    known = {name.lower(): name for name in _UNITS}
    if known.get(unit.lower(), unit) != unit or unit in ("class", "k-space"):
        right = known.get(unit.lower(), "a unit of images; complex files are k-space by themselves")
        raise ValueError(f"{field}: expected {right}. Received: {unit}")
    return unit


def _stamps(roots: list[Path]) -> Iterator[tuple[str, int, int]]:
    """Path, size and time of change of every file that a search comes upon."""
    for root in roots:
        for path in files.every(root):
            try:
                status = path.stat()
            except OSError:  # named when it is to be read
                continue
            if stat.S_ISREG(status.st_mode):
                yield os.fspath(path), status.st_size, status.st_mtime_ns


def _convert_units(found: Layout, config: FolderConfig) -> None:
    """Turns PET series in Bq/ml or counts into the unit that is asked for, in place.

    Raises:
        ValueError: where the headers of no training image have all that it takes.
    """
    for place, domain in enumerate(found.domains):
        # two domains, or one of images or of pairs
        units = [config.units(key, found.inputs) for key in ("source", "target")]
        units = units[place:] if found.kind == "unpaired" else units
        for split, items in domain.items():
            kept = []
            for item in items:
                try:
                    pairs = zip(item.volumes, units, strict=False)
                    volumes = tuple(_in_unit(volume, unit) for volume, unit in pairs)
                    kept.append(item._replace(volumes=volumes))
                except ValueError as error:
                    found.problems += [Problem(v.path(0), str(error)) for v in item.volumes]
            domain[split] = kept
        if not domain["train"]:
            lost = found.problems[-1]
            raise ValueError(
                f"input: no image is left for training. Received: {lost.path.name}: {lost.reason}"
            )


def _in_unit(volume: Volume, units: list[str]) -> Volume:
    """PET series in other units; what else names another unit is refused later."""
    parts = []
    for part, unit in zip(volume.parts, units, strict=True):
        if isinstance(part, Series) and part.modality == "PT" and unit:
            part = part.in_unit(unit)
        parts.append(part)
    return together(parts, getattr(volume, "names", ()))


def _match_inputs(found: Layout) -> None:
    """Puts the inputs of each case onto the grid of its first.

    Raises:
        ValueError: naming the cases of which nobody knows how they lie, or that lie apart.
    """
    wrong: list[str] = []
    shares: list[float] = []
    for items in found.domains[0].values():
        for number, item in enumerate(items):
            try:
                source, covered = on_one_grid(item.volumes[0])
            except ValueError as error:
                wrong.append(f"{item.volumes[0].name}: {error}")
                continue
            items[number] = item._replace(volumes=(source, *item.volumes[1:]))
            shares += covered.values()
    if wrong:
        raise ValueError(
            "input: expected cases whose images show one part of one patient. "
            f"Received: {some(wrong)}"
        )
    if shares:
        found.notes.append(
            f"{len(shares)} inputs are resampled onto the grid of the first of their case, of "
            f"which they cover {min(shares):.0%} or more; the rest is filled with the low end of "
            "the window"
        )


def _match_grids(found: Layout, config: FolderConfig) -> None:
    """Puts targets that lie elsewhere in the patient onto the grids of their sources.

    Raises:
        ValueError: naming the pairs of which nobody knows how they lie, or that lie apart.
    """
    grid = geometry.Grid(scale=config.scale, depth=config.scale if config.dimensions == 3 else 1)
    wrong, shares, others = [], [], []
    for items in found.domains[0].values():
        for number, item in enumerate(items):
            source, target = item.volumes
            # Label maps are numbers of classes from here on.
            if config.classes:
                target = _label_map(target)
                items[number] = item._replace(volumes=(source, target))
            if grids.other_pixels(source, target, config.scale):
                others.append(f"{source.name} and {target.name}")
            # Where the target lies: large ones must only cover their sources.
            try:
                if config.scale > 1:
                    grids.check_extent(source, target, grid)
                    continue
                matched, share = grids.on_source(source, target, bool(config.classes))
            except ValueError as error:
                wrong.append(f"{source.name} and {target.name} {error}")
                continue
            if matched is not target:
                items[number] = item._replace(volumes=(source, matched))
                shares.append(share)
    # What the user should know of them.
    if wrong:
        raise ValueError(
            f"input: expected pairs that show one part of one patient. Received: {some(wrong)}"
        )
    if others:
        found.notes.append(
            "warning: taken as they are stored, though their pixels are of other sizes and a file "
            f"does not say how it lies: {some(others)}"
        )
    if shares:
        found.notes.append(
            f"{len(shares)} targets are resampled onto the grids of their sources, of which "
            f"they cover {min(shares):.0%} or more; the rest is filled with the low end of "
            "the window"
        )


def _label_map(volume: Volume) -> Volume:
    try:
        return volume.as_labels()
    except ValueError as error:
        raise ValueError(f"classes: {volume.name}: {error}") from error
