"""Images of one patient whose pixels lie elsewhere: the target is read on its source's grid.

Of several inputs the first is the source here, and the others are targets.
"""

import dataclasses
import functools
import itertools
from pathlib import Path

import numpy as np
from scipy import ndimage

from zoo.imaging import geometry
from zoo.imaging.volume import Volume

_SAME = 0.1  # grids whose corners are less than this part of a voxel apart are one
_SAME_EXTENT = 0.5  # of a source's pixel, for super-resolution
_LEAST = 0.5  # share of a source that its target must cover
_OTHER_SIZE = 0.01  # sides of pixels that differ by more of themselves are others
_WHOLE = 1e-3  # of a voxel: planes closer to the centres of voxels keep their values exactly
_POINTS = 32  # along each axis, of those that the share is measured on


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class OnGrid(Volume):
    """A target resampled onto the grid of its source; NaN where the target does not reach.

    Attributes:
        onto: the source's files.
        target: what is resampled: linearly, or label maps by the nearest voxel.
        to_target: affine `[4, 4]`, indices (row, column, slice) of the source to the target's.
        labels: whether it is a label map.
        fill: what is read in place of NaN.
    """

    onto: tuple[Path, ...]
    target: Volume
    to_target: np.ndarray
    labels: bool = False
    fill: float = np.nan

    @property
    def kind(self) -> str:  # type: ignore[override]  # that of the files
        return self.target.kind

    def read(self, index: int) -> np.ndarray:
        """See `Volume.read`.

        Raises:
            ValueError: also where the target has values that are not finite.
        """
        self._check(index)
        values = _voxels(self)
        rows, columns = np.mgrid[: self.shape[0], : self.shape[1]]
        points = np.stack([rows.ravel(), columns.ravel(), np.full(rows.size, index)])
        places, inside = _places(self.to_target, points, self.target)
        image = ndimage.map_coordinates(values, places, order=0 if self.labels else 1)
        image[~inside] = self.fill
        return image.reshape(self.shape)

    def nearest(self, index: int) -> int:
        """The target's slice that is nearest to the middle of slice `index`."""
        rows, columns = self.shape
        middle = self.to_target @ np.array([(rows - 1) / 2, (columns - 1) / 2, index, 1.0])
        return int(np.clip(np.rint(middle[2]), 0, self.target.length - 1))


@functools.lru_cache(maxsize=1)  # slices are read one after another, of all images of a case
def _held(onto: tuple[Path, ...]) -> dict[OnGrid, np.ndarray]:
    """The values of the volumes on the grid of a source that have been read."""
    return {}


def _voxels(volume: OnGrid) -> np.ndarray:
    """A target's values, float32 [H, W, slices]."""
    held = _held(volume.onto)
    if volume not in held:
        held[volume] = _all_values(volume.target)
    return held[volume]


def _all_values(target: Volume) -> np.ndarray:
    values = np.empty((*target.shape, target.length), np.float32)
    for index in range(target.length):
        values[..., index] = target.read(index)
    if not np.isfinite(values).all():
        raise ValueError(f"{target.name}: expected finite values. Received: NaN or infinity")
    return values


def on_source(source: Volume, target: Volume, labels: bool = False) -> tuple[Volume, float]:
    """A target on its source's grid, and the share of the source that it covers.

    Returns:
        The target itself and 1 where both lie on one grid, or where a file does not say where it
        lies; otherwise an `OnGrid`.

    Raises:
        ValueError: where the two have different frames of reference, or the target covers less
            than half of the source.
    """
    here, there = source.affine, target.affine
    if here is None or there is None:
        return target, 1.0
    # On the same grid but for rounding?
    sides = (*source.shape, source.length)
    step = np.linalg.norm(here[:3, :3], axis=0).min()
    if sides == (*target.shape, target.length) and _gap(here, there, sides) < _SAME * step:
        return target, 1.0
    # Elsewhere: in the same room, and over most of the source?
    frames = source.frame_of_reference, target.frame_of_reference
    if all(frames) and frames[0] != frames[1]:
        raise ValueError(
            "lie on different grids, and their frames of reference differ, so that nobody knows "
            "where one lies in the other"
        )
    to_target = np.linalg.inv(there) @ here
    ticks = [np.linspace(0, side - 1, min(side, _POINTS)).round() for side in sides]
    points = np.stack([axis.ravel() for axis in np.meshgrid(*ticks)])
    share = float(_places(to_target, points, target)[1].mean())
    if share < _LEAST:
        raise ValueError(f"lie apart: the target covers {share:.0%} of its source")
    resampled = OnGrid(
        onto=source.paths,
        name=target.name,
        paths=target.paths,
        length=source.length,
        shape=source.shape,
        channels=target.channels,
        spacing=source.spacing,
        slice_spacing=source.slice_spacing,
        modality=target.modality,
        unit=target.unit,
        patient=target.patient,
        target=target,
        to_target=to_target,
        labels=labels,
    )
    return resampled, share


def other_pixels(source: Volume, target: Volume, scale: int) -> bool:
    """Whether a pair that is taken as it is stored has pixels of other sizes, as its files say.

    Args:
        scale: pixels of a target for one of its source.
    """
    if source.spacing is None or target.spacing is None:
        return False
    if source.affine is not None and target.affine is not None:
        return False
    return not np.allclose(source.spacing, np.multiply(target.spacing, scale), rtol=_OTHER_SIZE)


def check_extent(source: Volume, target: Volume, grid: geometry.Grid) -> None:
    """Refuses a target, `grid` times as fine as its source, that does not cover what that covers.

    Raises:
        ValueError: where their corners are more than half a source's pixel apart.
    """
    places = source.affine, target.affine
    if places[0] is None or places[1] is None:
        return
    step = np.linalg.norm(places[0][:3, :2], axis=0).min()
    sides = (*target.shape, target.length)
    gap = _gap(places[0] @ grid.to_input(), places[1], sides)
    if gap > _SAME_EXTENT * step:
        raise ValueError(f"cover different parts of the patient: corners {gap:.3g} mm apart")


def _gap(one: np.ndarray, other: np.ndarray, sides: tuple[int, ...]) -> float:
    """Millimetres that two affines of one grid's indices are apart, at the farthest corner."""
    ends = itertools.product(*[(0, side - 1) for side in sides])
    corners = np.array([(*corner, 1) for corner in ends], np.float64)
    return float(np.linalg.norm(corners @ (one - other).T, axis=1).max())


def _places(
    to_target: np.ndarray, points: np.ndarray, target: Volume
) -> tuple[np.ndarray, np.ndarray]:
    """Where points [3, N] of a source lie in the target, in its voxels, and which are inside.

    A voxel reaches half its side around its centre; there the outermost values are repeated.
    """
    places = to_target[:3, :3] @ points + to_target[:3, 3:]
    whole = np.rint(places)
    if (np.abs(places - whole) < _WHOLE).all():
        places = whole
    last = np.array([[*target.shape, target.length]], np.float64).T - 1.0
    inside = ((places >= -0.5 - _WHOLE) & (places <= last + 0.5 + _WHOLE)).all(0)
    return np.clip(places, 0, last), inside
