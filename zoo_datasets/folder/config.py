"""The config of a user's folder: whose files, and how they are prepared."""

import dataclasses
import functools
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from zoo.imaging import files, geometry
from zoo.imaging.dicom.read import Series
from zoo.imaging.volume import Problem, Volume
from zoo.recipe import Recipe
from zoo_datasets.folder import grids, layout, lists
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

    @functools.cached_property
    def layout(self) -> Layout:
        """What is in the folder, targets on their sources' grids; reads every header, once."""
        assert self.path is not None, "`configure` gives one"
        found = layout.read(self.path, self.allow_shared_patients, self.dimensions)
        _convert_units(found, self.source_unit, self.target_unit)
        layout.present(found)
        if found.kind == "paired":
            _match_grids(found, self)
        return found


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
        "source_unit": _unit("source_unit", recipe.source_unit),
        "target_unit": _unit("target_unit", recipe.target_unit),
    }
    if recipe.dimensions == 3 and (recipe.spacing or recipe.slices > 1):
        raise ValueError(
            "spacing, slices: volumes are taken as they are. "
            f"Received: spacing={recipe.spacing}, slices={recipe.slices}"
        )
    roots = [path, *(lists.listed_paths(path) if lists.is_list(path) else [])]
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


def _convert_units(found: Layout, source: str, target: str) -> None:
    """Turns PET series in Bq/ml or counts into the unit that is asked for, in place.

    Raises:
        ValueError: where the headers of no training image have all that it takes.
    """
    for place, domain in enumerate(found.domains):
        # two domains, or one of images or of pairs
        units = (source, target)[place:] if found.kind == "unpaired" else (source, target)
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


def _in_unit(volume: Volume, unit: str) -> Volume:
    """A PET series in another unit; what else names another unit is refused later."""
    if isinstance(volume, Series) and volume.modality == "PT" and unit:
        return volume.in_unit(unit)
    return volume


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
