"""Volumes of files that state an affine: presented as a plane is hung, written as they were stored.

A file's own axes are i, j, k, the first the fastest. `presented` says along which of them, and in
which direction, rows, columns and slices run; what is written goes back along the same way.
"""

import contextlib
import dataclasses
import functools
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar, NamedTuple, Self, TypedDict

import nibabel
import numpy as np

from zoo import atomic
from zoo.domain import HANGS
from zoo.errors import contained
from zoo.imaging import geometry
from zoo.imaging.volume import Volume
from zoo.imaging.voxels import SIZE, Voxels, in_order, save

WIDEST = 1000.0  # mm from pixel to pixel, and from slice to slice; more is a header's mistake

_BLOCK = 1 << 24  # bytes that are turned at once


class Output(NamedTuple):
    """What a file is written with.

    Attributes:
        planes: `[i, j]` of `dtype`, from the file's first to its last.
        description, anonymous: see `Oriented.write`.
        finer: voxels for one of the input, along the file's axes.
    """

    planes: Iterator[np.ndarray]
    dtype: np.dtype
    description: str
    anonymous: bool
    finer: tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Oriented(Volume):
    """A volume in a file with an affine.

    Attributes:
        voxels: where its values are.
        place: the affine of the file's own axes to mm (right, front, up), its 16 numbers row by
            row; None where the file does not say.
        steps: mm along the three axes of the file; 0 where unknown.
        axes: the file's axis of rows, columns and slices.
        mirrored: which of rows, columns and slices run against the file's axis.
    """

    voxels: Voxels
    place: tuple[float, ...] | None = None
    steps: tuple[float, ...] = (0.0, 0.0, 0.0)
    axes: tuple[int, ...] = (0, 1, 2)
    mirrored: tuple[bool, ...] = (False, False, False)

    labels: ClassVar[tuple[str, ...]] = ("uint8", "int16")  # what label maps are written as

    @classmethod
    def stored(
        cls,
        path: Path,
        name: str,
        voxels: Voxels,
        place: np.ndarray | None,
        steps: Iterable[float],
    ) -> Self:
        """The volume of a file as it is stored, all of its voxels there.

        Args:
            path: the file, or the header of one.
            name: see `Volume`.
            voxels: where its values are.
            place: [4, 4] to mm (right, front, up), None where the file does not say.
            steps: mm along the file's axes, where there is no `place`; 0 where unknown.

        Raises:
            ValueError: for an affine that is not finite or whose axes are not independent, steps
                wider than `WIDEST`, and voxels that are not whole.
        """
        numbers = None
        if place is not None:
            numbers = tuple(np.asarray(place, np.float64).ravel().tolist())
            steps = _checked_steps(place)
        steps = tuple(float(step) if 0 < step < np.inf else 0.0 for step in steps)
        if max(steps) > WIDEST:
            raise ValueError(f"spacing: expected up to {WIDEST:g} mm. Received: {max(steps):g} mm")
        voxels.check()
        return cls(
            name=name,
            paths=(path,),
            companions=() if voxels.path == path else (voxels.path,),
            unit="signal",
            voxels=voxels,
            place=numbers,
            steps=steps,
            **_sides(voxels, steps, (0, 1, 2), (False, False, False)),
        )

    @property
    def affine(self) -> np.ndarray | None:
        """See `Volume.affine`."""
        if self.place is None:
            return None
        affine = np.array(self.place, np.float64).reshape(4, 4)
        turn = np.zeros((4, 4))  # from presented indices to the file's
        turn[3, 3] = 1.0
        for presented, (axis, mirrored) in enumerate(zip(self.axes, self.mirrored, strict=True)):
            turn[axis, presented] = -1.0 if mirrored else 1.0
            turn[axis, 3] = self.voxels.shape[axis] - 1 if mirrored else 0.0
        return affine @ turn

    @property
    def acquired(self) -> str | None:
        """The plane it was acquired in: across the axis of the largest step, by a tenth at least.

        "axial" where the two largest are alike; None where the file does not say.
        """
        if self.place is None:
            return None
        long = int(np.argmax(self.steps))
        others = max(step for axis, step in enumerate(self.steps) if axis != long)
        if self._thin is not None:
            long = self._thin
        elif self.steps[long] < 1.1 * others:
            return "axial"
        return geometry.planes_across(np.array(self.place).reshape(4, 4))[long]

    @property
    def _thin(self) -> int | None:
        """The file's axis across a single slice."""
        thin = [axis for axis, side in enumerate(self.voxels.shape) if side == 1]
        return thin[-1] if thin else None

    def presented(self, plane: str | None) -> "Oriented":
        """See `Volume.presented`. A single slice keeps its own plane."""
        if plane is None or self.place is None:
            return self
        affine = np.array(self.place).reshape(4, 4)
        if self._thin is not None:
            plane = geometry.planes_across(affine)[self._thin]
        here = nibabel.orientations.io_orientation(affine)
        wanted = nibabel.orientations.axcodes2ornt(HANGS[plane])
        change = nibabel.orientations.ornt_transform(here, wanted)
        axes = tuple(int(axis) for axis in np.argsort(change[:, 0]))
        mirrored = tuple(bool(change[axis, 1] < 0) for axis in axes)
        return dataclasses.replace(self, **_sides(self.voxels, self.steps, axes, mirrored))

    def read(self, index: int) -> np.ndarray:
        """See `Volume.read`."""
        self._check(index)
        with contained(f"{self.name}: cannot be read"):
            if self.voxels.codec or self.axes[2] != 2:
                status = self.voxels.path.stat()
                stamp = (status.st_mtime_ns, status.st_size)
                plane = np.array(_spooled(self.voxels, self.axes, self.mirrored, stamp)[index])
            else:
                own = self.length - 1 - index if self.mirrored[2] else index
                plane = self._turned(self.voxels.planes(own, own + 1))[..., 0]
            return np.ascontiguousarray(self.voxels.values(plane))

    def write(
        self,
        path: Path,
        slices: Iterable[tuple[int, np.ndarray]],
        description: str = "",
        anonymous: bool = False,
        grid: geometry.Grid = geometry.SAME,
        classes: int = 0,
    ) -> None:
        """Writes `slices`, one after the other, into a file like the input's, in its place.

        Args:
            path: the file to write; compressed if it is called so.
            slices: pairs of (index, float32 [H, W]), in ascending order, without gaps, as the
                volume is presented.
            description: free text for the header.
            anonymous: leave out free text.
            grid: how much finer the output's grid is.
            classes: of a label map, the number of classes; it is written as integers. Images are
                float32.

        Raises:
            ValueError: for a grid with more voxels along an axis than the format can state.
        """
        dtype = np.dtype(np.float32)
        if classes:
            dtype = np.dtype(self.labels[0] if classes <= 256 else self.labels[1])
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._planes(path.parent, slices, grid, dtype) as planes:
            output = Output(planes, dtype, description, anonymous, self._finer(grid))
            self._save(path, output)

    def _save(self, path: Path, output: Output) -> None:
        """Writes header and voxels."""
        raise NotImplementedError

    def _save_text(
        self, path: Path, header: str, planes: Iterator[np.ndarray], dtype: np.dtype
    ) -> None:
        """Writes a header of text, and the voxels behind it or into the file beside it.

        `SIZE` in the header becomes the bytes of the voxels as they are stored.
        """
        plain = header.encode("utf-8", "surrogateescape")
        parts = in_order(planes, dtype.newbyteorder("<"))
        data = self.files(path)[-1]
        if data == path:
            save(path, self.voxels.codec, parts, plain)
        else:
            save(data, self.voxels.codec, parts)
            save(path, "", [], plain.replace(SIZE, str(data.stat().st_size).encode()))

    def _finer(self, grid: geometry.Grid) -> tuple[int, ...]:
        finer = [1, 1, 1]
        for axis, count in zip(self.axes, (grid.scale, grid.scale, grid.depth), strict=True):
            finer[axis] = count
        return tuple(finer)

    def _turned(self, array: np.ndarray) -> np.ndarray:
        """A view of `[i, j, k]` in the file's axes as `[row, column, slice]`."""
        ways = tuple(slice(None, None, -1 if mirrored else 1) for mirrored in self.mirrored)
        return array.transpose(self.axes)[ways]

    @contextlib.contextmanager
    def _planes(
        self,
        folder: Path,
        slices: Iterable[tuple[int, np.ndarray]],
        grid: geometry.Grid,
        dtype: np.dtype,
    ) -> Iterator[Iterator[np.ndarray]]:
        """The slices as the file's planes `[i, j]`, by way of scratch space where they differ."""
        integers = np.issubdtype(dtype, np.integer)
        stored = ((k, np.asarray(np.rint(a) if integers else a, dtype)) for k, a in slices)
        if self.axes[2] == 2 and not self.mirrored[2]:
            yield (self._file_plane(image) for _, image in stored)
            return
        finer = self._finer(grid)
        shape = tuple(side * n for side, n in zip(self.voxels.shape, finer, strict=True))
        with atomic.scratch(folder, shape[::-1], dtype) as array:
            turned = self._turned(array.transpose())
            for index, image in stored:
                turned[..., index] = image
            yield (plane.transpose() for plane in array)

    def _file_plane(self, image: np.ndarray) -> np.ndarray:
        """`[row, column]` as `[i, j]`, where slices are the file's planes."""
        ways = tuple(slice(None, None, -1 if mirrored else 1) for mirrored in self.mirrored[:2])
        turned = image[ways]
        return turned if self.axes[0] == 0 else turned.transpose()


def _checked_steps(place: np.ndarray) -> np.ndarray:
    """mm along the axes of an affine [4, 4] that is finite, its axes independent."""
    steps = np.linalg.norm(place[:3, :3], axis=0)
    with np.errstate(all="ignore"):
        turned = abs(np.linalg.det(place[:3, :3] / steps))  # 1 at right angles
    if not np.isfinite(place).all() or not turned > 1e-3:
        received = np.round(place[:3].astype(np.float64), 4).tolist()
        raise ValueError(
            "affine: expected finite numbers, and three axes that are no multiples of each "
            f"other. Received: {received}"
        )
    return steps


class _Sides(TypedDict):
    axes: tuple[int, ...]
    mirrored: tuple[bool, ...]
    shape: tuple[int, int]
    length: int
    spacing: tuple[float, float] | None
    slice_spacing: float | None


def _sides(
    voxels: Voxels, steps: tuple[float, ...], axes: tuple[int, ...], mirrored: tuple[bool, ...]
) -> _Sides:
    """Sides and spacings of a volume that is presented along these axes."""
    rows, columns, slices = (voxels.shape[axis] for axis in axes)
    down, across, between = (steps[axis] for axis in axes)
    spacing = (down, across) if min(down, across) > 0 else None
    return {
        "axes": axes,
        "mirrored": mirrored,
        "shape": (rows, columns),
        "length": slices,
        "spacing": spacing,
        "slice_spacing": between if between > 0 and slices > 1 else None,
    }


@functools.lru_cache(maxsize=2)
def _spooled(
    voxels: Voxels, axes: tuple[int, ...], mirrored: tuple[bool, ...], stamp: tuple[int, int]
) -> np.ndarray:
    """Stored values `[slice, row, column]` on disk, in one pass over the file.

    The file behind it has no name; its room is free again when the array is.
    """
    shape = tuple(voxels.shape[axis] for axis in (axes[2], axes[0], axes[1]))
    with atomic.scratch(tempfile.gettempdir(), shape, voxels.dtype) as array:
        ways = tuple(slice(None, None, -1 if flip else 1) for flip in mirrored)
        own = array.transpose(1, 2, 0)[ways].transpose(np.argsort(axes))
        # planes that are not the file's are far apart on disk, and better filled many at once
        for first, block in voxels.blocks(0 if axes[2] == 2 else _BLOCK):
            own[..., first : first + block.shape[-1]] = block
    return array
