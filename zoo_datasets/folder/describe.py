"""What the numbers of a user's images mean: units, windows, spacing, and whether they fit."""

from typing import Any

import numpy as np

from zoo.domain import Domain
from zoo.errors import contained
from zoo.imaging import grids
from zoo.imaging.raster import RasterVolume
from zoo.imaging.volume import Volume
from zoo_datasets.features import CT_WINDOW
from zoo_datasets.folder.config import FolderConfig
from zoo_datasets.folder.items import Layout, some
from zoo_datasets.folder.neighbours import Chosen

_PERCENTILES = (0.5, 99.5)
_SAMPLED = 64  # training images that a window is measured on
_DEPTHS = (1, 2, 4, 8, 10, 12, 14, 16)  # bits that detectors and label maps fill
_WIDEST = 1 << 16  # pixels along a side of a resampled image
FIELDS = {"source": "source_window", "image": "source_window", "target": "target_window"}


def describe(config: FolderConfig, keys: tuple[str, ...]) -> dict[str, Any]:
    """The metadata: kind of data and what each image's numbers mean.

    Raises:
        ValueError: for images that do not belong into one data set; names one.
    """
    found = config.layout
    metadata: dict[str, Any] = {
        "kind": found.kind,
        "shared_patients": found.shared_patients,
        "windows": {},
        "note": " ".join(caveats(found)),
    }
    if config.dimensions == 3:
        metadata["dimensions"] = 3
    if found.kind != "single":
        metadata["aligned"] = found.kind == "paired"
    images = [sum(found.images(number).values(), []) for number in range(len(keys))]
    pairs = sum(images, []) if found.kind == "paired" else []
    for key, volumes in zip(keys, images, strict=True):
        inputs = found.inputs if key == "source" else ()
        if not inputs:
            same = [] if found.inputs else pairs  # sides that share a window
            metadata[key], metadata["windows"][key] = _domain(config, key, volumes, same)
            continue
        # Each of several inputs has a meaning of its own.
        parts, hows = [], []
        for number, name in enumerate(inputs):
            own = [volume.parts[number] for volume in volumes]
            fields, how = _domain(config, key, own, [], number)
            parts.append(Domain.from_dict(fields | {"name": name}))
            hows.append(f"{name}: {how}")
        metadata[key] = Domain(inputs=tuple(parts)).to_dict()
        metadata["windows"][key] = "; ".join(hows)
    if pairs:
        _check_shapes(config)
    return metadata


def _domain(
    config: FolderConfig, key: str, volumes: list[Volume], pairs: list[Volume], number: int = 0
) -> tuple[dict, str]:
    """What the numbers of an image mean, and where its window comes from.

    Args:
        key: of the image.
        volumes: all that are such images.
        pairs: all sources and targets of paired data, each of one image.
        number: of the input among several.
    """
    # Channels: one, or neighbouring slices, or colours.
    channels = {v.channels for v in volumes}
    if len(channels) > 1 or (channels != {1} and config.slices > 1 and key != "target"):
        colour = next(v.name for v in volumes if v.channels != 1)
        raise ValueError(
            f"input: expected grey images, or (with slices=1) all of them in colour. "
            f"Received: {colour} in colour with slices={config.slices}"
        )
    if key == "target" and config.classes and channels != {1}:
        raise ValueError(
            "classes: expected grey label maps, of one class number a pixel. "
            f"Received: {volumes[0].name} in colour"
        )
    count = channels.pop()
    if config.slices > 1 and key != "target":
        count = config.slices
    # Spacing: that of the recipe, or that of all files.
    spacing = _common_spacing(config, volumes)
    if config.spacing:
        for volume in volumes:
            _resampled(volume, config.spacing)
        spacing = (config.spacing / _scale(config, key),) * 2
    # What the numbers mean.
    given = config.units(key, config.layout.inputs)[number]
    unit, modalities = _common_unit(given, key, volumes), {v.modality for v in volumes}
    if key == "target" and config.classes:
        unit, modalities = "class", {"SEG"}
    modality = modalities.pop() if len(modalities) == 1 else "OT"
    if (modality, unit) == ("OT", "HU"):
        modality = "CT"
    window, how = _window(config, key, unit, volumes, pairs, number)
    domain = Domain(
        modality=modality,
        unit=unit,
        window=window,
        channels=count,
        spacing=spacing,
        plane=config.layout.plane,
    )
    return domain.to_dict(), how


def _common_unit(given: str, key: str, volumes: list[Volume]) -> str:
    """The unit of all values: what the files say, or else the recipe.

    Raises:
        ValueError: for files that say different things, or another thing than the recipe.
    """
    field = FIELDS[key].replace("window", "unit")
    stated = {v.unit: v for v in volumes if _states_unit(v)}
    silent = [v for v in volumes if not _states_unit(v)]
    for unit, volume in stated.items():
        if given and unit != given:
            raise ValueError(
                f"{field}: expected files in {given}, as --set {field} says. "
                f"Received: {volume.name} in {unit}"
            )
    if given:
        return given
    if len(stated) > 1 or (stated and silent):
        texts = [f"{volume.name} in {unit}" for unit, volume in stated.items()]
        texts += [f"{volume.name} without a unit" for volume in silent[:1]]
        raise ValueError(
            f"input: expected one unit for all images of a domain (--set {field}=HU, or "
            f"another, says what files hold that name none). Received: {', '.join(texts)}"
        )
    units = {v.unit for v in volumes}
    return units.pop() if len(units) == 1 else "1"


def _window(
    config: FolderConfig,
    key: str,
    unit: str,
    volumes: list[Volume],
    pairs: list[Volume],
    number: int,
) -> tuple[tuple[float, float], str]:
    """An intensity window where the recipe names none, and where it comes from."""
    if unit == "class":
        return (0.0, float(config.classes - 1)), "the classes"
    if unit == "HU":
        return CT_WINDOW, "the default for HU"
    values = _sample(config, key, number)
    types = {stored_type(v) for v in volumes}
    if types in ({"uint8"}, {"uint16"}):
        if pairs and {stored_type(v) for v in pairs} == types:  # one window for both sides
            values = np.concatenate([_sample(config, "source"), _sample(config, "target")])
        bits = max(v.bits for v in volumes if isinstance(v, RasterVolume))
        return _window_of_bits(values.max(), bits, FIELDS[key])
    low, high = (float(v) for v in np.percentile(values, _PERCENTILES))
    return (low, high if high > low else low + 1.0), "percentiles 0.5 to 99.5 of training"


def _sample(config: FolderConfig, key: str, number: int = 0) -> np.ndarray:
    """Some values of some training images.

    Raises:
        ValueError: where none of these images can be read.
    """
    whole = config.layout.images(keys_of(config.layout).index(key))["train"]
    volumes = [volume.parts[number] for volume in whole]
    volumes = [v.target if isinstance(v, grids.OnGrid) else v for v in volumes]
    volumes = [v.volume if isinstance(v, Chosen) else v for v in volumes]
    planes = [(volume, index) for volume in volumes for index in range(volume.length)]
    values = []
    for place in np.unique(np.linspace(0, len(planes) - 1, _SAMPLED).astype(int)):
        volume, index = planes[place]
        try:
            with contained(volume.name):
                image = volume.read(index).ravel()
        except ValueError:
            continue  # reported when its turn comes
        values.append(image[np.isfinite(image)][:: 1 + image.size // 2**16])
    pool = np.concatenate(values) if values else np.zeros(0)
    if not pool.size:
        raise ValueError(f"input: no readable image is left. Received: {config.path}")
    return pool


def _check_shapes(config: FolderConfig) -> None:
    pairs = [item.volumes for item in sum(config.layout.domains[0].values(), [])]
    wrong = []
    for source, target in pairs:
        if source.length != target.length and config.dimensions == 2:
            wrong.append(
                f"{source.name} ({source.length} slices of {source.shape}) and "
                f"{target.name} ({target.length} slices of {target.shape})"
            )
    if wrong:
        raise ValueError(
            f"input: expected as many slices in a source as in its target. Received: {some(wrong)}"
        )
    for source, target in pairs:
        shapes = shape_of(config, "source", source), shape_of(config, "target", target)
        if tuple(side * config.scale for side in shapes[0]) != shapes[1]:
            wrong.append(f"{source.name} {shapes[0]} and {target.name} {shapes[1]}")
    if wrong:
        wanted = "source and target of one height and width"
        if config.scale > 1:
            wanted = f"targets {config.scale} times as large as their sources"
        raise ValueError(f"input: expected {wanted}. Received: {some(wrong)}")


def shape_of(config: FolderConfig, key: str, volume: Volume) -> tuple[int, ...]:
    """Sides of an image in the data set."""
    if config.dimensions == 3:
        return (volume.length, *volume.shape)
    return _resampled(volume, config.spacing / _scale(config, key))


def _scale(config: FolderConfig, key: str) -> int:
    """Pixels of an image along a pixel of the source."""
    return config.scale if key == "target" else 1


def caveats(found: Layout) -> list[str]:
    """What figures measured on the data have to be read with."""
    told = []
    if found.unknown:
        told.append(f"Of {found.unknown} files nobody says whose they are: each is a patient.")
    if found.shared_patients:
        told.append("Patients are in several splits, so that results flatter.")
    if found.kind == "paired" and any(
        isinstance(v, Chosen) for v in found.images(1).get("test", [])
    ):
        told.append("Targets are neighbouring slices with noise of their own.")
    return told


def keys_of(found: Layout) -> tuple[str, ...]:
    """The names of the examples' images."""
    return ("image",) if found.kind == "single" else ("source", "target")


def _resampled(volume: Volume, spacing: float) -> tuple[int, int]:
    """Height and width after resampling to `spacing` mm; 0 leaves them."""
    if not spacing:
        return volume.shape
    if volume.spacing is None:
        raise ValueError(
            f"spacing: {volume.name} does not state its pixel spacing, so it cannot be resampled. "
            f"Received: spacing={spacing}"
        )
    height = max(1, round(volume.shape[0] * volume.spacing[0] / spacing))
    width = max(1, round(volume.shape[1] * volume.spacing[1] / spacing))
    if max(height, width) > _WIDEST:
        raise ValueError(
            f"spacing: {volume.name} would have {height} x {width} pixels, expected up to "
            f"{_WIDEST}. Received: spacing={spacing}"
        )
    return height, width


def _common_spacing(config: FolderConfig, volumes: list[Volume]) -> tuple[float, ...] | None:
    """(row, column), of volumes (slice, row, column), in mm; None where they differ."""
    whole = config.dimensions == 3
    found = [voxel_size(volume) if whole else volume.spacing for volume in volumes]
    known = [spacing for spacing in found if spacing is not None]
    if len(known) < len(found) or not np.allclose(known, known[0], rtol=1e-3, atol=0):
        return None
    return known[0]


def voxel_size(volume: Volume) -> tuple[float, ...] | None:
    """(slice, row, column) in mm; None where the file does not say."""
    if volume.spacing is None or volume.slice_spacing is None:
        return None
    return volume.slice_spacing, *volume.spacing


def voxels(found: Layout) -> list[str]:
    """What the voxels of volumes have that the user should know, who trains on them as they are."""
    every: list[Volume] = []
    for domain in found.domains:
        for item in sum(domain.values(), []):
            every += item.volumes
    sizes = np.array([size for size in map(voxel_size, every) if size is not None])
    if not len(sizes):
        return []
    low, high = sizes.min(0), sizes.max(0)
    shown = " x ".join(f"{step:.3g}" for step in low)
    if (high > 1.1 * low).any():
        most = " x ".join(f"{step:.3g}" for step in high)
        return [
            f"warning: voxels of {shown} to {most} mm (slice, row, column): a network knows voxels "
            "and no millimetres; resample the files to one size first"
        ]
    if low.max() > 1.1 * low.min():
        return [f"voxels of {shown} mm (slice, row, column), taken as they are"]
    return []


def _states_unit(volume: Volume) -> bool:
    """Whether the file itself says what its values are: only DICOM does, and complex arrays."""
    return volume.unit == "k-space" or (volume.kind == "dicom" and volume.unit != "1")


def stored_type(volume: Volume) -> str:
    """The type of pixels whose range means something: that of PNG and TIFF files, or ""."""
    return volume.dtype if isinstance(volume, RasterVolume) else ""


def _window_of_bits(most: float, bits: int, field: str) -> tuple[tuple[float, float], str]:
    """The window of files of so many bits, or of those bits that values up to `most` fill."""
    used = next(depth for depth in (*_DEPTHS, bits) if most < 2**depth)
    if used >= bits or most == 0:
        return (0.0, 2.0**bits - 1), f"the range of {bits} bits"
    whole = f"`--set {field}=0,{2**bits - 1}` takes them all"
    return (0.0, 2.0**used - 1), f"{used} of {bits} bits are in use; {whole}"
