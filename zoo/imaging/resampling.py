"""Resampling to a network's pixel spacing, and back to the grid of the file that is written."""

import functools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

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
    volume: Volume, spacing: float, grid: Grid, *, nearest: bool = False
) -> tuple[Resize, Resize]:
    """To the grid of pixels of `spacing` mm, and from `grid` times that to the output's grid.

    The grids share their outer edges, so that what an image shows stays in its place. An axis of
    unknown spacing is left as it is.

    Args:
        volume: the file's.
        spacing: in mm, along both axes; 0 keeps the file's own.
        grid: how much finer the output is than the input.
        nearest: go back to the nearest pixel's value, as labels need, instead of linearly.

    Returns:
        Two functions of float32 slices [H, W] or [H, W, C].

    Raises:
        ValueError: where the network's grid would have more than `LARGEST_SLICE` pixels and more
            than the file, or less than two along a side.
    """
    taken = _network_grid(volume.shape, volume.spacing or (None, None), spacing, LARGEST_SLICE)
    finer = grid.shape(volume.shape)
    if taken == volume.shape:
        return lambda image: image, lambda image: image

    def back(image: np.ndarray) -> np.ndarray:
        return _nearest(image, finer) if nearest else _linear(image, finer)

    return lambda image: _linear(image, taken), back


class Regridded:
    """A volume on the grid of voxels of `spacing` mm, and from there back, a few slices at a time.

    As `resampling`, along all three axes. It holds the slices that the last ones were made of.

    Args:
        volume: the file's.
        get: a slice of it by its index, float32 [H, W] or [H, W, C].
        spacing, grid, nearest: as `resampling` takes them.

    Attributes:
        shape: (D, H, W) of the network's grid.

    Raises:
        ValueError: as `resampling`, for more voxels than `LARGEST_VOLUME`.
    """

    def __init__(
        self,
        volume: Volume,
        get: Callable[[int], np.ndarray],
        spacing: float,
        grid: Grid,
        *,
        nearest: bool = False,
    ):
        own = (volume.slice_spacing, *(volume.spacing or (None, None)))
        stored = (volume.length, *volume.shape)
        self.shape = _network_grid(stored, own, spacing, LARGEST_VOLUME)
        self._same = self.shape == stored
        self._finer = (volume.length * grid.depth, *grid.shape(volume.shape))
        self._depth, self._nearest = grid.depth, nearest
        self._get, self._held = get, dict[int, np.ndarray]()
        self._mixes = _mixes(volume.length, self.shape[0])

    def read(self, start: int, stop: int) -> np.ndarray:
        """Slices on the network's grid: float32 [stop - start, H, W] or [stop - start, H, W, C]."""
        mixes, held = self._mixes[start:stop], self._held
        wanted = range(mixes[0].first, mixes[-1].stop)
        self._held = {i: held[i] if i in held else self._plane(i) for i in wanted}
        return np.stack([mix.of(self._held) for mix in mixes])

    def _plane(self, index: int) -> np.ndarray:
        plane = self._get(index)
        wanted = self.shape[1:]
        return plane if plane.shape[:2] == wanted else _linear(plane, wanted)

    def back(self, slices: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """All slices of what the network made, in order, to those of the output's grid."""
        if self._same:
            yield from slices
            return
        resize = _nearest if self._nearest else _linear
        come, held = 0, dict[int, np.ndarray]()
        for mix in _mixes(self.shape[0] * self._depth, self._finer[0], self._nearest):
            held = {i: plane for i, plane in held.items() if i >= mix.first}
            while come < mix.stop:
                held[come] = resize(next(slices), self._finer[1:])
                come += 1
            yield mix.of(held)


class _Mix(NamedTuple):
    """A slice as the sum of others, by their weights, from the slice `first` on."""

    first: int
    weights: np.ndarray

    @property
    def stop(self) -> int:
        return self.first + len(self.weights)

    def of(self, slices: dict[int, np.ndarray]) -> np.ndarray:
        if len(self.weights) == 1:
            return slices[self.first]
        weighted = (w * slices[self.first + i] for i, w in enumerate(self.weights))
        return functools.reduce(np.add, weighted)


def _mixes(old: int, new: int, nearest: bool = False) -> list[_Mix]:
    """What each of `new` slices is made of where there were `old` ones."""
    if old == new:
        return [_Mix(i, np.ones(1, np.float32)) for i in range(new)]
    # Resizing is linear: what it makes of the unit vectors are its weights.
    weights = (_nearest if nearest else _linear)(np.eye(old, dtype=np.float32), (new, old))
    mixes = []
    for row in weights:
        used = np.flatnonzero(row)
        mixes.append(_Mix(int(used[0]), row[used[0] : used[-1] + 1]))
    return mixes


def _network_grid(
    sizes: tuple[int, ...], own: tuple[float | None, ...], spacing: float, most: int
) -> tuple[int, ...]:
    """Sides of an image of these sizes and this spacing of its own on the network's grid."""
    taken = tuple(
        _resampled(size, step, spacing) if spacing and step else size
        for size, step in zip(sizes, own, strict=True)
    )
    if taken == sizes:
        return sizes
    largest = max(most, math.prod(sizes))
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
    return taken


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
