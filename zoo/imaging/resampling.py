"""Resampling to a network's pixel spacing, and back to the grid of the file that is written."""

import math
from collections.abc import Callable

import numpy as np
import skimage.transform

from zoo.imaging.geometry import Grid
from zoo.imaging.volume import Volume

Resize = Callable[[np.ndarray], np.ndarray]

# Pixels of a resampled slice and of a resampled volume. A wrong spacing asks for more, such as
# one in metres, and memory would be asked for before anybody could see it.
LARGEST_SLICE = 2**26
LARGEST_VOLUME = 2**29


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

    Raises:
        ValueError: where the network's grid would have more than `LARGEST_SLICE` pixels (of volumes
            `LARGEST_VOLUME`) and more than the file, or less than two along a side.
    """
    own: tuple[float | None, ...] = volume.spacing or (None, None)
    sizes: tuple[int, ...] = volume.shape
    finer: tuple[int, ...] = grid.shape(volume.shape)
    if whole:
        own, sizes = (volume.slice_spacing, *own), (volume.length, *sizes)
        finer = (volume.length * grid.depth, *finer)
    taken = tuple(
        _resampled(size, step, spacing) if spacing and step else size
        for size, step in zip(sizes, own, strict=True)
    )
    if taken == sizes:
        return lambda image: image, lambda image: image
    largest = max(LARGEST_VOLUME if whole else LARGEST_SLICE, math.prod(sizes))
    if math.prod(taken) > largest:
        raise ValueError(
            f"spacing: expected up to {largest} pixels at the model's {spacing:g} mm. "
            f"Received: {' x '.join(map(str, taken))} of a file with {_shown(own)} mm"
        )
    if any(new < min(2, old) for new, old in zip(taken, sizes, strict=True)):
        raise ValueError(
            f"spacing: expected an image of two or more pixels at the model's {spacing:g} mm. "
            f"Received: {' x '.join(map(str, taken))} of a file with {_shown(own)} mm"
        )

    def back(image: np.ndarray) -> np.ndarray:
        return _nearest(image, finer) if nearest else _linear(image, finer)

    return lambda image: _linear(image, taken), back


def _resampled(size: int, step: float, spacing: float) -> int:
    """Pixels of `spacing` mm along `size` pixels of `step` mm."""
    if not (math.isfinite(step) and step > 0):
        raise ValueError(f"spacing: expected a number of mm above 0. Received: {step}")
    return max(1, round(size * step / spacing))


def _shown(spacing: tuple[float | None, ...]) -> str:
    return " x ".join("unknown" if step is None else f"{step:g}" for step in spacing)


def _linear(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Linear, with a low-pass filter along axes that shrink."""
    return skimage.transform.resize(
        image, shape, order=1, mode="edge", anti_aliasing=True, preserve_range=True
    ).astype(np.float32)


def _nearest(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return skimage.transform.resize(
        image, shape, order=0, mode="edge", anti_aliasing=False, preserve_range=True
    ).astype(np.float32)
