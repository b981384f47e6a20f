"""Patches of slices at one pixel size, whatever the scanner's."""

import zlib

import numpy as np
from scipy import ndimage


def patch_at(
    image: np.ndarray,
    centre: tuple[float, float],
    spacing: tuple[float, float],
    size: int,
    pitch: float,
) -> np.ndarray:
    """A square around a point: linear interpolation, smoothed first where pixels become larger.

    Args:
        image: `[H, W]`.
        centre: row and column of the middle of the patch, in pixels of the image.
        spacing: mm from row to row and from column to column.
        size: rows and columns of the patch.
        pitch: of the patch, in mm.

    Returns:
        float32 `[size, size]`; beyond the image its border goes on.
    """
    steps = [pitch / mm for mm in spacing]
    reach = [int(np.ceil(step * size / 2)) + 4 for step in steps]
    low = [max(int(c) - r, 0) for c, r in zip(centre, reach, strict=True)]
    high = [int(c) + r + 1 for c, r in zip(centre, reach, strict=True)]
    part = image[low[0] : high[0], low[1] : high[1]].astype(np.float32)
    # A pixel `step` times as wide averages over as much more.
    blur = [np.sqrt(max(step**2 - 1, 0) / 12) for step in steps]
    part = ndimage.gaussian_filter(part, blur, mode="nearest")
    axes = [
        c - first + (np.arange(size) - (size - 1) / 2) * step
        for c, first, step in zip(centre, low, steps, strict=True)
    ]
    where = np.meshgrid(*axes, indexing="ij")
    return ndimage.map_coordinates(part, where, order=1, mode="nearest")


def pixels(mm: float, spacing: tuple[float, float]) -> tuple[int, int]:
    """Rows and columns that cover a square of that side."""
    row, column = spacing
    return int(np.ceil(mm / row)), int(np.ceil(mm / column))


def generator(key: str) -> np.random.Generator:
    """Random numbers that follow from a case's key alone."""
    return np.random.default_rng(zlib.crc32(key.encode()))


def free_place(
    rng: np.random.Generator,
    organ: np.ndarray,
    avoid: np.ndarray,
    sides: tuple[int, int],
    share: float,
) -> tuple[int, int] | None:
    """A random place in an organ whose surroundings are mostly organ and nowhere to be avoided.

    Args:
        rng: draws it.
        organ: bool `[H, W]`.
        avoid: bool `[H, W]`.
        sides: rows and columns of the surroundings, in pixels.
        share: of them that must be organ.

    Returns:
        Row and column; None where there is no such place.
    """
    covered = ndimage.uniform_filter(organ.astype(np.float32), sides, mode="constant")
    near = ndimage.maximum_filter(avoid, sides, mode="constant")
    places = np.argwhere(organ & (covered >= share) & ~near)
    return tuple(places[rng.integers(len(places))].tolist()) if len(places) else None
