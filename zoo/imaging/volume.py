"""One image volume on disk, read slice by slice."""

import dataclasses
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from zoo.imaging import geometry

NOT_AN_IMAGE = "not an image"


class Problem(NamedTuple):
    """A file that cannot be used, and why."""

    path: Path
    reason: str

    @property
    def harmless(self) -> bool:
        """Whether the file is no image at all, such as an RT structure set: nothing is lost."""
        return self.reason.startswith(NOT_AN_IMAGE)


def check_size(wanted: int, stored: int) -> None:
    """Refuses pixels that a file cannot hold, before memory is asked for.

    Deflate shrinks a thousandfold at most. What takes less than 64 MiB is believed.

    Args:
        wanted: bytes of the decoded pixels, by the header.
        stored: bytes that the file has for them.

    Raises:
        ValueError: where they do not go together.
    """
    if wanted > max(2**26, 1100 * stored):
        raise ValueError(
            f"a damaged header: expected pixels that fit the file. Received: {wanted} bytes of "
            f"pixels in {stored} bytes"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Volume:
    """A DICOM series, or a file of another kind; it holds no pixels.

    Attributes:
        name: POSIX path relative to the searched folder: the file's, or the folder's for a
            DICOM series of several files (`folder#1a2b3c4d` where series share a folder).
        paths: its files, in slice order.
        length: number of slices.
        shape: height and width of every slice, in pixels.
        channels: 1; 3 for colour raster files, 2 (real, imaginary) for complex arrays.
        spacing: pixel spacing (row, column) in mm, None where the file does not say.
        slice_spacing: distance from each slice to the next in mm, None where the file does not
            say or they differ.
        modality: DICOM modality code, "OT" where the file does not say.
        unit: "HU", "signal", "SUV", "Bq/ml", "k-space", what else a header names, or "1" for
            plain stored values.
        patient: who it is, equal for one patient's files, "" where unknown. It is the identity
            itself, to be compared in memory and never to be written or shown.
        frame_of_reference: equal for volumes whose millimetres have one origin and axes, such as
            DICOM's FrameOfReferenceUID; "" where unknown.
        companions: other files that belong to it, such as the voxels of a header.
    """

    # "dicom", "nifti", "mgh", "metaimage", "nrrd", "raster" or "array"
    kind: ClassVar[str] = ""

    name: str
    paths: tuple[Path, ...]
    length: int
    shape: tuple[int, int]
    channels: int = 1
    spacing: tuple[float, float] | None = None
    slice_spacing: float | None = None
    modality: str = "OT"
    unit: str = "1"
    patient: str = dataclasses.field(default="", repr=False)
    frame_of_reference: str = ""
    companions: tuple[Path, ...] = ()

    @property
    def affine(self) -> np.ndarray | None:
        """From indices (row, column, slice, 1) of what `read` gives to mm (right, front, up, 1).

        float64 [4, 4]; None where the file does not say or the slices' distances differ. Of a
        single slice the third column is as long as the slice is thick, or 1 mm.
        """
        return None

    @property
    def parts(self) -> tuple["Volume", ...]:
        """The volumes whose images are its channels, of which the first says how they lie."""
        return (self,)

    @property
    def plane(self) -> str | None:
        """The plane that its slices are nearest to: "axial", "coronal" or "sagittal"."""
        affine = self.affine
        return None if affine is None else geometry.planes_across(affine)[2]

    @property
    def acquired(self) -> str | None:
        """The plane that it was acquired in, which need not be that of its slices."""
        return self.plane

    def presented(self, plane: str | None) -> "Volume":
        """The volume with the slices of a plane, hung as radiologists do, whatever the file's axes.

        Axes are exchanged and mirrored, never resampled; of an oblique volume the nearest are
        taken. DICOM series, volumes whose file does not say how they lie, and with None all
        volumes are as they are stored.
        """
        return self

    def read(self, index: int) -> np.ndarray:
        """Slice `index` in physical units: float32 [H, W], or [H, W, channels] of several.

        Raises:
            ValueError: where the file cannot be decoded.
            IndexError: for an index outside 0 ... length - 1.
        """
        raise NotImplementedError

    def as_labels(self) -> "Volume":
        """This volume as a label map: of a file with a palette, its indices and not its colours."""
        return self

    def path(self, index: int) -> Path:
        """The file that holds slice `index`."""
        self._check(index)
        return self.paths[index] if len(self.paths) > 1 else self.paths[0]

    def stack(self, index: int, slices: int) -> np.ndarray:
        """Slice `index` with its neighbours as channels: float32 [H, W, slices].

        Channel `slices // 2` is the slice itself; the first and last slices are repeated
        beyond the ends.

        Raises:
            ValueError: for an even `slices`, or for `slices` above 1 of images with channels.
        """
        if slices < 1 or slices % 2 == 0:
            raise ValueError(f"slices: expected an odd number. Received: {slices}")
        if self.channels > 1:
            if slices > 1:
                raise ValueError(
                    f"{self.name}: slices need one-channel images. Received: {self.channels}"
                )
            return self.read(index)
        around = range(-(slices // 2), slices // 2 + 1)
        return np.stack([self.read(self.neighbour(index, i)) for i in around], axis=-1)

    def neighbour(self, index: int, offset: int) -> int:
        """The slice `offset` places on from `index`, or the last one there where they end."""
        return min(max(index + offset, 0), self.length - 1)

    def files(self, path: Path) -> list[Path]:
        """What is written to put it into the file `path`: a header has its voxels beside it."""
        return [path]

    def _check(self, index: int) -> None:
        if not 0 <= index < self.length:
            raise IndexError(
                f"{self.name}: expected a slice from 0 to {self.length - 1}. Received: {index}"
            )
