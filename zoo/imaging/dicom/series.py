"""A series of DICOM images as a volume: its slices in physical units, read one by one.

Physical value = RescaleSlope x stored value + RescaleIntercept (PS3.3 C.11.1), or the Modality
LUT; in an enhanced object, of one frame or several, the two come from its functional groups.
"""

import dataclasses
from pathlib import Path
from typing import ClassVar

import numpy as np

from zoo.errors import contained, reason
from zoo.imaging import geometry
from zoo.imaging.dicom import headers, pet, pixels
from zoo.imaging.dicom.encoding import Encoding
from zoo.imaging.volume import Volume


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frame:
    """One slice of a series.

    Attributes:
        path, number: its file, and the number of its frame in there, from 0.
        encoding: of its pixels.
        padding: the stored values from and to which mean "no pixel".
        position: of its first pixel in the patient, in mm.
        location: SliceLocation, in mm.
        part: slices of different parts are no neighbours: they show a place at other times.
    """

    path: Path
    number: int
    encoding: Encoding
    padding: tuple[int, int] | None = None
    position: tuple[float, ...] | None = None
    location: float | None = None
    part: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Series(Volume):
    """Single-frame files of one SeriesInstanceUID, or one multi-frame file.

    Slices are sorted along the slice normal; without positions, by InstanceNumber (frames: as
    stored). A place occurs once: files of other time points, echoes, b values or phases make other
    series, and frames other parts of theirs, which are no neighbours.

    Padding pixels read as the slice's least real value. MONOCHROME1 is turned where the values
    are mere brightness, as in radiographs, so that all read alike; where they are measured (CT, MR,
    PET, or any named unit) they mean the same in both, and stay.

    Attributes:
        uid: SeriesInstanceUID.
        number: of this, from 0, among the series of one view that files of one uid make.
        frames: one for each slice.
        orientation: ImageOrientationPatient of every slice; None where unknown or they differ.
        thickness: SliceThickness in mm, 1 where unknown.
        study: StudyInstanceUID, or where there is none the folder; to be compared alone.
        description: SeriesDescription, which may say more than it should: never written.
    """

    kind: ClassVar[str] = "dicom"

    uid: str
    number: int = 0
    frames: tuple[Frame, ...]
    orientation: tuple[float, ...] | None = None
    thickness: float = 1.0
    study: str = dataclasses.field(default="", repr=False)
    description: str = dataclasses.field(default="", repr=False)

    @property
    def affine(self) -> np.ndarray | None:
        """See `Volume.affine`."""
        positions = [frame.position for frame in self.frames]
        if self.orientation is None or self.spacing is None or positions[0] is None:
            return None
        to_next_column, to_next_row = np.array(self.orientation, np.float64).reshape(2, 3)
        step = np.cross(to_next_column, to_next_row) * self.thickness
        if self.length > 1:
            try:
                step = geometry.slice_step(positions)
            except ValueError:
                return None
        affine = np.eye(4)
        affine[:3, 0] = to_next_row * self.spacing[0]
        affine[:3, 1] = to_next_column * self.spacing[1]
        affine[:3, 2] = step
        affine[:3, 3] = positions[0]
        return geometry.LPS @ affine

    def read(self, index: int) -> np.ndarray:
        """See `Volume.read`."""
        self._check(index)
        frame = self.frames[index]
        stored, table = self._load(index)
        if table is None:
            values = frame.encoding.decode(stored)
        else:
            first, entries = table
            values = entries[np.clip(stored - first, 0, len(entries) - 1)]
            if frame.encoding.inverted:
                values = sum(frame.encoding.limits) - values
        if frame.padding:
            padding = (stored >= frame.padding[0]) & (stored <= frame.padding[1])
            if not padding.all():
                values[padding] = values[~padding].min()
        return values

    def stored(self, index: int) -> np.ndarray:
        """Slice `index` as stored integers, int32 [H, W], free of overlays in unused bits."""
        self._check(index)
        return self._load(index)[0]

    def neighbour(self, index: int, offset: int) -> int:
        """See `Volume.neighbour`; a part ends where the next begins."""
        step = 1 if offset > 0 else -1
        for _ in range(abs(offset)):
            following = super().neighbour(index, step)
            if self.frames[following].part != self.frames[index].part:
                break
            index = following
        return index

    def in_unit(self, unit: str) -> "Series":
        """This series with its values in another unit: PET as "SUV", by its headers.

        Raises:
            ValueError: where the headers do not say how, naming the field that they lack.
        """
        if unit == self.unit:
            return self
        if unit != pet.SUV or self.modality != "PT":
            field = "Units" if self.modality == "PT" else "RescaleType"
            received = "mere stored values" if self.unit == "1" else self.unit
            raise ValueError(f"unit: expected {unit}, by {field}. Received: {received}")
        if not all(frame.encoding.rescaled for frame in self.frames):
            raise ValueError("SUV: expected RescaleSlope in the header. Received: none")
        with headers.quiet(), contained("damaged header"):
            factors = pet.suv_factors([headers.read(path) for path in self.paths])
        factors = factors if len(factors) == self.length else factors * self.length
        frames = []
        for frame, factor in zip(self.frames, factors, strict=True):
            slope, intercept = frame.encoding.slope * factor, frame.encoding.intercept * factor
            encoding = dataclasses.replace(frame.encoding, slope=slope, intercept=intercept)
            frames.append(dataclasses.replace(frame, encoding=encoding))
        return dataclasses.replace(self, frames=tuple(frames), unit=unit)

    def _load(self, index: int) -> tuple[np.ndarray, tuple[int, np.ndarray] | None]:
        """A slice's stored values, and the Modality LUT, if it has one."""
        frame = self.frames[index]
        try:
            with headers.quiet(), contained("decoder"):
                source = pixels.open_pixels(frame.path)
                stored, table = source.read(frame.number), source.table
        except ValueError as error:
            hint = ' (pip install "zoo-medical[jpeg]")' if "missing" in str(error) else ""
            raise ValueError(f"cannot decode pixels: {reason(error)}{hint}") from error
        if stored.shape != self.shape:
            raise ValueError(f"pixels: expected {list(self.shape)}. Received: {list(stored.shape)}")
        return stored, table
