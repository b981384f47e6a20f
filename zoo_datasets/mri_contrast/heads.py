"""Whole heads in several contrasts: the examples of `mri_contrast/heads` and its like.

A subject is simulated, or one of the user's patients: a folder with a NIfTI file, or a folder of
DICOM, for each contrast, whose names say which. A patient's contrasts are brought onto the slices
of the first one, by the files' own positions and then by a rigid registration, since people move
between scans.

A scanner's gain is arbitrary. In the target the median of the head is `LEVEL`; the source has a
level of its own in every example, so that a network learns to find it.
"""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy import ndimage

from zoo_datasets.cases import Case, Examples
from zoo_datasets.phantoms import mr_scan
from zoo_datasets.publishers import mr_signal, rigid
from zoo_datasets.publishers.volumes import Scan, read_dicom
from zoo_datasets.simulated import SimulatedConfig

LEVEL = 1000.0  # what the median of the head is in a target
_HEAD = 0.05  # of a slice's pixels, at least, show the head
# FLAIR is a T2 whose fluid is dark, and many call it so.
_NAMES = {
    "T1": re.compile(r"(?i)^(?!.*flair).*t1"),
    "T2": re.compile(r"(?i)^(?!.*flair).*t2"),
    "FLAIR": re.compile(r"(?i)flair"),
}


@dataclasses.dataclass(frozen=True)
class Protocol(mr_scan.Protocol):
    """As `mr_scan.Protocol`, of 1 mm pixels.

    Attributes:
        source: the median of the head in a source, drawn for each example and contrast.
        draws: examples that are made of each slice of a patient.
    """

    size: int = 224
    slices: int = 5
    source: tuple[float, float] = (300.0, 1250.0)
    draws: int = 2


def median(volume: np.ndarray) -> float:
    """The median of the head: of what is brighter than the mean of a volume or slice with its air.

    Raises:
        ValueError: where nothing is brighter than nothing.
    """
    bright = volume[volume > max(float(volume.mean()), 0.0)]
    if not bright.size:
        raise ValueError(f"expected an image. Received: values up to {volume.max():g}")
    return float(np.median(bright))


def read(case: Case, config: SimulatedConfig[Protocol]) -> Examples:
    """A subject's or a patient's slices.

    Raises:
        ValueError: for a folder that lacks a contrast, or has one more than once.
    """
    protocol = config.protocol
    scanned = "scan" in case.files
    stream = int(case.key[1:], 16) if scanned else case.facts["number"]
    rng = np.random.default_rng([config.seed, stream, 1])
    if scanned:
        images = patient(case.files["scan"], protocol)
    else:
        images = mr_scan.patient(protocol, config.seed, case.facts["number"])
    for index, draw, source, target in pairs(
        rng, images, protocol, protocol.draws if scanned else 1
    ):
        yield case.example(f"{case.key}-{index:03d}-{draw}", source=source, target=target)


def pairs(
    rng: np.random.Generator, images: dict[str, np.ndarray], protocol: Protocol, draws: int
) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
    """Slice, draw, source `[n, n, C]` and target `[n, n, 1]`, uint16, where all show the head.

    Args:
        rng: of the sources' levels.
        images: `[slice, n, n]` by contrast, of any gain.
        protocol: contrasts and levels.
        draws: of each slice.
    """
    low, high = np.log(protocol.source).tolist()
    for index, source, target in scaled(images, protocol):
        for draw in range(draws):
            levels = np.exp(rng.uniform(low, high, source.shape[-1])) / LEVEL
            yield index, draw, _stored(source * levels), _stored(target[..., None])


def scaled(
    images: dict[str, np.ndarray], protocol: Protocol
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Slice, source `[n, n, C]` and target `[n, n]`, float32, the head's median at `LEVEL` in each.

    Args:
        images: `[slice, n, n]` by contrast, of any gain.
        protocol: which contrasts; slices that do not show the head in all are left out.
    """
    volumes = [
        images[name] * np.float32(LEVEL / median(images[name])) for name in protocol.contrasts
    ]
    shown = [(volume > 0.3 * LEVEL).mean((1, 2)) > _HEAD for volume in volumes]
    for index in np.flatnonzero(np.all(shown, 0)).tolist():
        *sources, target = (volume[index] for volume in volumes)
        yield index, np.stack(sources, -1), target


def patient(folder: Path, protocol: Protocol) -> dict[str, np.ndarray]:
    """A patient's contrasts on the slices of the first, float32 `[slice, n, n]` of any gain.

    Raises:
        ValueError: for a folder that lacks a contrast, or has one more than once.
    """
    first, *others = protocol.contrasts
    fixed = _scan(folder, first)
    grid = _grid(fixed, protocol)
    images = {first: _onto(fixed, grid)}
    for contrast in others:
        images[contrast] = _onto(rigid.registered(_scan(folder, contrast), fixed), grid)
    return images


def _scan(folder: Path, contrast: str) -> Scan:
    """The one scan in a folder whose name is that of a contrast."""
    pattern = _NAMES[contrast]
    found = [path for path in sorted(folder.iterdir()) if pattern.search(path.name)]
    if len(found) != 1:
        # Names of files may be a patient's.
        raise ValueError(
            f"expected one NIfTI file, or one folder of DICOM, with {contrast} in its name. "
            f"Received: {len(found)}"
        )
    if found[0].is_dir():
        return read_dicom(path for path in found[0].rglob("*") if path.is_file())
    return mr_signal.read(found[0])


def _grid(scan: Scan, protocol: Protocol) -> Scan:
    """The slices of a scan in square pixels of the protocol, about the middle of the head."""
    length, *sides = scan.values.shape
    place = np.argwhere(scan.values > scan.values.mean())
    middle = (place.min(0) + place.max(0)) / 2
    step = np.array([1.0, *(protocol.spacing / np.array(scan.spacing[1:]))])
    affine = scan.affine.copy()
    start = middle - step * (protocol.size - 1) / 2
    start[0] = 0.0
    affine[:3, 3] += scan.affine[:3, :3] @ start
    affine[:3, :3] = scan.affine[:3, :3] * step
    empty = np.zeros((length, protocol.size, protocol.size), np.float32)
    return Scan(values=empty, affine=affine)


def _onto(scan: Scan, grid: Scan) -> np.ndarray:
    """A scan on a grid; smaller pixels are averaged first, which else would alias."""
    ratio = np.array(grid.spacing[1:]) / np.array(scan.spacing[1:])
    widths = 0.5 * np.sqrt(np.maximum(ratio**2 - 1, 0))
    smooth = ndimage.gaussian_filter(scan.values, (0, *widths))
    return np.maximum(mr_signal.on_grid(dataclasses.replace(scan, values=smooth), grid), 0)


def _stored(signal: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(signal), 0, mr_scan.MAXIMUM).astype(np.uint16)
