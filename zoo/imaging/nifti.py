"""NIfTI volumes: read and written slice by slice, in the place of the input.

Slices lie along the third axis, in stored order; H is the first axis and W the second.
"""

import dataclasses
import functools
import gzip
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

import nibabel
import numpy as np

from zoo.imaging import geometry
from zoo.imaging.volume import Volume

SUFFIXES = (".nii", ".nii.gz")


@dataclasses.dataclass(frozen=True, kw_only=True)
class NiftiVolume(Volume):
    """A NIfTI-1 or NIfTI-2 file of 2 or 3 dimensions."""

    kind: ClassVar[str] = "nifti"

    place: tuple[float, ...] | None = None  # the affine's 16 numbers, row by row

    @property
    def affine(self) -> np.ndarray | None:
        """See `Volume.affine`; None where the header declares neither transform valid."""
        return None if self.place is None else np.array(self.place, np.float64).reshape(4, 4)

    def read(self, index: int) -> np.ndarray:
        """See `Volume.read`; `scl_slope` and `scl_inter` are applied."""
        self._check(index)
        try:
            return _plane(self.paths[0], index).astype(np.float32)
        except (OSError, EOFError, ValueError, gzip.BadGzipFile) as error:
            raise ValueError(f"{self.name}: unreadable NIfTI data: {error}") from error


def open_volume(path: Path, name: str) -> NiftiVolume:
    """The volume in the file at `path`.

    Raises:
        ValueError: for a damaged file, colour or complex voxels, or more than 3 dimensions.
    """
    try:
        image = nibabel.load(path)
    except (nibabel.filebasedimages.ImageFileError, OSError, EOFError, ValueError) as error:
        raise ValueError(f"unreadable NIfTI: {error}") from error
    if not isinstance(image, nibabel.Nifti1Image):
        raise ValueError(f"expected NIfTI. Received: {type(image).__name__}")
    shape = image.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) not in (2, 3) or 0 in shape:
        raise ValueError(f"expected a volume of 2 or 3 dimensions. Received: {image.shape}")
    dtype = image.get_data_dtype()
    if dtype.kind not in "iuf":
        raise ValueError(f"expected integer or real voxels. Received: {dtype}")
    factor = {"meter": 1e3, "micron": 1e-3}.get(image.header.get_xyzt_units()[0], 1.0)
    zooms = image.header.get_zooms()
    spacing = (float(zooms[0]) * factor, float(zooms[1]) * factor)
    between = float(zooms[2]) * factor if len(shape) == 3 else 0.0
    return NiftiVolume(
        name=name,
        paths=(path,),
        length=shape[2] if len(shape) == 3 else 1,
        shape=(shape[0], shape[1]),
        spacing=spacing if min(spacing) > 0 else None,
        slice_spacing=between if between > 0 else None,
        unit="signal",
        place=_place(image.header, factor),
    )


def _place(header: nibabel.Nifti1Header, factor: float) -> tuple[float, ...] | None:
    """The affine to millimetres, of the transform that the codes declare valid."""
    if not header["sform_code"] > 0 and not header["qform_code"] > 0:
        return None
    affine = np.diag([factor, factor, factor, 1.0]) @ header.get_best_affine()
    return tuple(affine.ravel().tolist()) if np.isfinite(affine).all() else None


def write(
    volume: NiftiVolume,
    path: Path,
    slices: Iterable[tuple[int, np.ndarray]],
    description: str = "",
    anonymous: bool = False,
    grid: geometry.Grid = geometry.SAME,
    classes: int = 0,
) -> None:
    """Writes `slices`, one after the other, with the input's header, in the input's place.

    Args:
        volume: the input; geometry, codes, units and extensions are taken from it.
        path: the file to write, compressed if the input is.
        slices: pairs of (index, float32 [H, W]), in ascending order, without gaps.
        description: goes into `descrip` (79 characters).
        anonymous: leave out free text and header extensions.
        grid: how much finer the output's grid is.
        classes: of a label map, the number of classes; it is written as uint8 or int16, with the
            intent of a label. Images are float32.

    Raises:
        ValueError: for a grid with more voxels along an axis than the format can state.
    """
    image = nibabel.load(volume.paths[0])
    header = image.header.copy()
    header.set_data_dtype(np.float32)
    if classes:
        header.set_data_dtype(np.uint8 if classes <= 256 else np.int16)
        header.set_intent("label")
    if grid != geometry.SAME:
        _refine(header, grid)
    header.set_slope_inter(1.0, 0.0)
    header["cal_min"] = header["cal_max"] = 0  # described the input's intensities
    header["descrip"] = description.encode("ascii", "replace")[:79]
    if anonymous:
        header.extensions.clear()
        for field in ("db_name", "aux_file", "intent_name"):
            if field in header:
                header[field] = b""
    header["vox_offset"] = 0
    compressed = volume.paths[0].name.endswith(".gz")
    opener = functools.partial(gzip.open, compresslevel=6) if compressed else open
    with opener(path, "wb") as file:
        header.write_to(file)
        # write_to sets vox_offset to where the extensions end (352 where there are none)
        file.write(b"\0" * (int(header["vox_offset"]) - file.tell()))
        for _, array in slices:
            data = np.asarray(np.rint(array) if classes else array, header.get_data_dtype())
            file.write(data.tobytes(order="F"))


def _refine(header: nibabel.Nifti1Header, grid: geometry.Grid) -> None:
    """Makes a header that of a finer grid whose voxels lie in those of the old one."""
    steps = np.array([grid.scale, grid.scale, grid.depth])
    sides = header["dim"][1:4].astype(np.int64) * steps
    largest = np.iinfo(header["dim"].dtype).max
    if sides.max() > largest:
        raise ValueError(f"dim: expected up to {largest} voxels. Received: {sides.tolist()}")
    # Both transforms, whichever of them the codes declare valid.
    sform, qform = header.get_sform(), header.get_qform()
    for name, row in zip(("srow_x", "srow_y", "srow_z"), sform @ grid.to_input(), strict=False):
        header[name] = row
    for axis, value in enumerate((qform @ grid.to_input())[:3, 3]):
        header["qoffset_" + "xyz"[axis]] = value
    header["dim"][1:4] = sides
    header["pixdim"][1:4] /= steps
    if grid.depth > 1:  # the times of the old slices
        for field in ("slice_start", "slice_end", "slice_code", "slice_duration"):
            header[field] = 0


@functools.lru_cache(maxsize=2)
def _proxy(path: Path, stamp: tuple[int, int]):
    """The file's data, kept open: one slice after another of a compressed file then takes one
    pass over it, where a fresh start for every slice would be quadratic.
    """
    return nibabel.load(path, keep_file_open=True).dataobj


def _plane(path: Path, index: int) -> np.ndarray:
    status = path.stat()
    data = _proxy(path, (status.st_mtime_ns, status.st_size))
    if data.ndim == 2:
        return np.asarray(data)
    return np.asarray(data[(slice(None), slice(None), index) + (0,) * (data.ndim - 3)])
