"""Where the pixels of an enlarged image lie.

Pixel (i, j) of the input covers the pixels [s i, s i + s) x [s j, s j + s) of an output that has
`s` times its rows and columns, and likewise for slices. What the image shows stays where it was in
the patient, and the centre of the first pixel moves by (1/s - 1) / 2 input pixels along each axis.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid:
    """How much finer the grid of an output is than that of its input.

    Attributes:
        scale: output pixels along one pixel of the input, in rows and in columns.
        depth: output slices for one of the input; slice k lies in slice `k // depth`.
    """

    scale: int = 1
    depth: int = 1

    def shape(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the output's slices."""
        return shape[0] * self.scale, shape[1] * self.scale

    def to_input(self) -> np.ndarray:
        """Affine [4, 4] from output indices (row, column, slice) to those of the input."""
        return to_coarse((self.scale, self.scale, self.depth))

    def repeat(self, image: np.ndarray) -> np.ndarray:
        """A slice of the input [H, W] on the output's grid, by the nearest pixel."""
        return image.repeat(self.scale, 0).repeat(self.scale, 1)


SAME = Grid()

_ACROSS = {"S": "axial", "I": "axial", "A": "coronal", "P": "coronal"}
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # from DICOM's axes (left, back, up) to (right, front, up)


def centre(index: int, scale: int) -> float:
    """Where the centre of pixel `index` of the finer grid lies, in the input's pixels."""
    return (index + 0.5) / scale - 0.5


def to_coarse(finer: Sequence[int]) -> np.ndarray:
    """Affine [4, 4] from the indices of a grid that is finer by these counts to those of the old.

    Args:
        finer: voxels for one of the old grid, along each of three axes.
    """
    affine = np.diag([*(1 / count for count in finer), 1.0])
    affine[:3, 3] = [centre(0, count) for count in finer]
    return affine


def planes_across(affine: np.ndarray) -> tuple[str, str, str]:
    """The anatomical plane nearest to those across each axis of an affine to (right, front, up)."""
    import nibabel  # takes half a second, which `list` need not wait

    rows, columns, slices = (_ACROSS.get(c, "sagittal") for c in nibabel.aff2axcodes(affine))
    return rows, columns, slices


def slice_step(positions: Sequence[tuple[float, ...] | None]) -> np.ndarray:
    """The vector from each slice to the next, in mm, where all are equal to a tenth of it.

    Args:
        positions: of the slices' first pixels, in order.

    Raises:
        ValueError: for unknown positions, a single slice, or steps that differ, as where a slice
            is missing.
    """
    if len(positions) < 2 or None in positions:
        received = "a single slice" if len(positions) < 2 else "slices without a position"
        raise ValueError(f"slices: expected two or more at known positions. Received: {received}")
    places = np.array(positions, np.float64)
    step = (places[-1] - places[0]) / (len(places) - 1)
    length = np.linalg.norm(step)
    even = places[0] + np.arange(len(places))[:, None] * step
    if length == 0 or np.linalg.norm(places - even, axis=1).max() > 0.1 * length:
        gaps = np.linalg.norm(np.diff(places, axis=0), axis=1)
        raise ValueError(
            "slices: expected equal distances from each to the next. "
            f"Received: from {gaps.min():g} to {gaps.max():g} mm"
        )
    return step
