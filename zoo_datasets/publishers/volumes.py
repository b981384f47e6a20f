"""Volumes of a publisher's files in one orientation: slices upwards, rows backwards, columns left.

`[slice, row, column]` of every volume run towards the patient's head, back and left (LPS seen from
the feet), whatever the file's own axes are: axial slices look as radiologists hang them.
"""

import dataclasses
import gzip
from collections.abc import Iterable
from pathlib import Path

import nibabel
import numpy as np

from zoo.imaging import geometry
from zoo.imaging.dicom import read
from zoo_datasets.sources import reading


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Scan:
    """A volume with its place in the patient.

    Attributes:
        values: float32 `[slice, row, column]`, HU or signal, slices upwards, rows backwards,
            columns to the patient's left.
        affine: `[4, 4]`, indices (slice, row, column) to millimetres (left, back, up).
        modality, unit: of a DICOM series; "OT" and "1" where a NIfTI file cannot say.
    """

    values: np.ndarray
    affine: np.ndarray
    modality: str = "OT"
    unit: str = "1"

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres from slice to slice, row to row and column to column."""
        part, row, column = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return part, row, column

    def same_grid(self, other: "Scan", tolerance: float = 0.1) -> bool:
        """Whether all voxels lie where the other's do, to `tolerance` mm."""
        if self.values.shape != other.values.shape:
            return False
        corners = np.array(
            [[s, r, c, 1] for s in (0, 1) for r in (0, 1) for c in (0, 1)], float
        ) * np.array([*np.array(self.values.shape) - 1, 1])
        gap = corners @ (self.affine - other.affine).T
        return bool(np.abs(gap).max() <= tolerance)


def read_nifti(path: Path) -> Scan:
    """A NIfTI file.

    Raises:
        ValueError: for a file that is no volume of three axes, or that cannot be read to its end.
    """
    with reading(path.name):
        if path.suffix.lower() == ".gz":  # nibabel stops before the checksum
            with gzip.open(path) as file:
                while file.read(1 << 20):
                    pass
        image = nibabel.load(path)
        assert isinstance(image, nibabel.spatialimages.SpatialImage)
        values = np.asarray(image.dataobj, np.float32)
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != 3:
        raise ValueError(f"{path.name}: expected three axes. Received: shape {values.shape}")
    return _hung(values, image.affine)


def read_dicom(paths: Iterable[Path], modality: str = "") -> Scan:
    """The one series of a set of DICOM files, values after RescaleSlope and RescaleIntercept.

    Args:
        paths: its files.
        modality: the one expected, such as "CT"; "" takes any.

    Raises:
        ValueError: for unreadable files, several series, another modality, a series whose slices
            are not evenly spaced (a slice is missing), and one without positions.
    """
    paths = sorted(paths)
    series, problems = read.find_series([(p, f"{p.parent.name}/{p.name}") for p in paths])
    problems = [p for p in problems if not p.harmless]
    if problems:
        raise ValueError(f"{problems[0].path.name}: {problems[0].reason}")
    if len(series) != 1:
        folder = paths[0].parent.name if paths else "no files"
        raise ValueError(f"{folder}: expected one series. Received: {len(series)}")
    (one,) = series
    if modality and one.modality != modality:
        raise ValueError(f"{one.name}: expected modality {modality}. Received: {one.modality}")
    if one.spacing is None:
        raise ValueError(f"{one.name}: expected PixelSpacing. Received: none")
    if one.orientation is None or one.frames[0].position is None:
        raise ValueError(
            f"{one.name}: expected ImageOrientationPatient and ImagePositionPatient. Received: none"
        )
    if one.affine is None:
        try:
            geometry.slice_step([frame.position for frame in one.frames])
        except ValueError as error:
            raise ValueError(f"{one.name}: {error}") from error
    assert one.affine is not None, "`slice_step` refuses what has none"
    values = np.empty((*one.shape, one.length), np.float32)
    for i in range(one.length):
        with reading(one.name):
            values[..., i] = one.read(i)
    scan = _hung(values, one.affine)
    return dataclasses.replace(scan, modality=one.modality, unit=one.unit)


def _hung(values: np.ndarray, affine: np.ndarray) -> Scan:
    """An array with its affine to NIfTI's millimetres (right, front, up), turned as `Scan` says."""
    here = nibabel.orientations.io_orientation(affine)
    wanted = nibabel.orientations.axcodes2ornt("SPL")
    change = nibabel.orientations.ornt_transform(here, wanted)
    turned = nibabel.orientations.apply_orientation(values, change)
    back = nibabel.orientations.inv_ornt_aff(change, values.shape)
    return Scan(
        values=np.ascontiguousarray(turned, dtype=np.float32), affine=geometry.LPS @ affine @ back
    )


def to_int16(values: np.ndarray) -> np.ndarray:
    """HU, rounded, as int16."""
    return np.clip(np.rint(values), -32768, 32767).astype(np.int16)
