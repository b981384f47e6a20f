"""Resampling to a network's pixel spacing, and back to the grid of the file that is written."""

from collections.abc import Callable

import numpy as np
import skimage.transform

from zoo.imaging.geometry import Grid
from zoo.imaging.volume import Volume

Resize = Callable[[np.ndarray], np.ndarray]


def resampling(
    volume: Volume, spacing: float, grid: Grid, *, whole: bool = False, nearest: bool = False
) -> tuple[Resize, Resize]:
    """To the grid of pixels of `spacing` mm, and from `grid` times that to the output's grid.

    The grids share their outer edges, so that what an image shows stays in its place. An axis of
    unknown spacing is left as it is.

    Args:
        volume: the file's.
        spacing: in mm, along all axes; 0 keeps the file's own.
        grid: how much finer the output is than the input.
        whole: take volumes [D, H, W] or [D, H, W, C] at once, not slices [H, W] or [H, W, C].
        nearest: go back to the nearest pixel's value, as labels need, instead of linearly.

    Returns:
        Two functions of float32 images.
    """
    own, sizes, finer = volume.spacing or (None, None), volume.shape, grid.shape(volume.shape)
    if whole:
        own, sizes = (volume.slice_spacing, *own), (volume.length, *sizes)
        finer = (volume.length * grid.depth, *finer)
    taken = tuple(
        max(1, round(size * step / spacing)) if spacing and step else size
        for size, step in zip(sizes, own, strict=True)
    )
    if taken == tuple(sizes):
        return lambda image: image, lambda image: image

    def back(image: np.ndarray) -> np.ndarray:
        return _nearest(image, finer) if nearest else _linear(image, finer)

    return lambda image: _linear(image, taken), back


def _linear(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Linear, with a low-pass filter along axes that shrink."""
    return skimage.transform.resize(
        image, shape, order=1, mode="edge", anti_aliasing=True, preserve_range=True
    ).astype(np.float32)


def _nearest(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return skimage.transform.resize(
        image, shape, order=0, mode="edge", anti_aliasing=False, preserve_range=True
    ).astype(np.float32)
