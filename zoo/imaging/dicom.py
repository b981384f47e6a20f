"""DICOM images: find series, read slices in physical units, map physical to stored values.

Physical value = RescaleSlope x stored value + RescaleIntercept (PS3.3 C.11.1), or the Modality
LUT; in an enhanced multi-frame object the two come from its functional groups.
"""

import collections
import dataclasses
import functools
import hashlib
import os
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pydicom
import pydicom.pixels

from zoo.imaging import geometry, headers
from zoo.imaging.encoding import Encoding
from zoo.imaging.volume import NOT_AN_IMAGE, Problem, Volume

_KEYWORDS = [
    "SOPClassUID",
    "Modality",
    "PatientID",
    "IssuerOfPatientID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "InstanceNumber",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "SliceLocation",
    "EchoNumbers",
    "TemporalPositionIdentifier",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "SliceThickness",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "BitsAllocated",
    "BitsStored",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "ModalityLUTSequence",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]
# images by their structure, not by their meaning
_NOT_IMAGES = ("RT Dose Storage", "Segmentation Storage", "Parametric Map Storage")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frame:
    """One slice of a series.

    Attributes:
        path, number: its file, and the number of its frame in there, from 0.
        encoding: of its pixels.
        padding: the stored values from and to which mean "no pixel".
        position: of its first pixel in the patient, in mm.
        location: SliceLocation, in mm.
    """

    path: Path
    number: int
    encoding: Encoding
    padding: tuple[int, int] | None = None
    position: tuple[float, float, float] | None = None
    location: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Series(Volume):
    """Single-frame files of one SeriesInstanceUID, or one multi-frame file.

    Slices are sorted along the slice normal; without positions, by InstanceNumber (frames: as
    stored). Padding pixels read as the slice's least real value; MONOCHROME1 is not inverted,
    since rescaled values mean the same in both.

    Attributes:
        uid: SeriesInstanceUID.
        frames: one for each slice.
        orientation: ImageOrientationPatient of every slice; None where unknown or they differ.
        thickness: SliceThickness in mm, 1 where unknown.
    """

    kind: ClassVar[str] = "dicom"

    uid: str
    frames: tuple[Frame, ...]
    orientation: tuple[float, ...] | None = None
    thickness: float = 1.0

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
        stored, dataset = self._load(index)
        if "ModalityLUTSequence" in dataset:
            values = pydicom.pixels.apply_modality_lut(stored, dataset).astype(np.float32)
        else:
            values = frame.encoding.decode(stored)
        if frame.padding:
            padding = (stored >= frame.padding[0]) & (stored <= frame.padding[1])
            if not padding.all():
                values[padding] = values[~padding].min()
        return values

    def stored(self, index: int) -> np.ndarray:
        """Slice `index` as stored integers, int32 [H, W], free of overlays in unused bits."""
        self._check(index)
        return self._load(index)[0]

    def _load(self, index: int) -> tuple[np.ndarray, pydicom.Dataset]:
        frame = self.frames[index]
        try:
            with headers.quiet():
                stored, dataset = _decode(frame)
        except Exception as error:  # decoders raise errors of many types on damaged data
            hint = ' (pip install "zoo-medical[jpeg]")' if "missing" in str(error) else ""
            raise ValueError(f"cannot decode pixels: {error}{hint}") from error
        if stored.shape != self.shape:
            raise ValueError(f"pixels: expected {list(self.shape)}. Received: {list(stored.shape)}")
        return stored, dataset


def is_dicom(path: Path) -> bool:
    """Whether the file begins as DICOM does, with or without the preamble."""
    with open(path, "rb") as file:
        start = file.read(132)
    # without the preamble, the first group number is 2 or 8, in either byte order
    groups = (b"\x02\x00", b"\x08\x00", b"\x00\x02", b"\x00\x08")
    return start[128:] == b"DICM" or (len(start) > 8 and start[:2] in groups)


def find_series(
    files: list[tuple[Path, str]],
) -> tuple[list[Series], list[Problem]]:
    """Groups DICOM files into series.

    Args:
        files: pairs of (path, POSIX path relative to the searched folder).

    Returns:
        The series, and the files that hold no usable image.
    """
    groups: dict[Any, list[tuple[pydicom.Dataset, Path, str]]] = collections.defaultdict(list)
    series, problems = [], []
    for path, name in files:
        try:
            with headers.quiet():
                header = pydicom.dcmread(
                    path, force=True, stop_before_pixels=True, specific_tags=_KEYWORDS
                )
                _require_image(header)
                if int(header.get("NumberOfFrames") or 1) > 1:
                    series.append(_multi_frame(header, path, name))
                else:
                    _encoding(header)
                    groups[_key(header, path)].append((header, path, name))
        except Exception as error:  # a damaged header raises errors of many types
            problems.append(Problem(path, str(error) or type(error).__name__))
    taken = collections.Counter(_folder(group) for group in groups.values() if len(group) > 1)
    for key, group in groups.items():
        name = group[0][2]
        if len(group) > 1:
            name = _folder(group)
            name += f"#{_hash(repr(key))[:8]}" if taken[name] > 1 else ""
        try:
            with headers.quiet():
                series.append(_single_frames(group, name))
        except Exception as error:
            problems.extend(Problem(path, str(error)) for _, path, _ in group)
    return series, problems


def _decode(frame: Frame) -> tuple[np.ndarray, pydicom.Dataset]:
    dataset = pydicom.Dataset()
    if _read_whole(frame.path):
        dataset = pydicom.dcmread(frame.path, force=True)
        headers.set_syntax(dataset)
        words = pydicom.pixels.pixel_array(dataset, index=frame.number, raw=True)
    else:
        words = pydicom.pixels.pixel_array(frame.path, index=frame.number, raw=True, ds_out=dataset)
    bits = int(dataset.BitsStored)
    signed = bool(dataset.PixelRepresentation)
    stored = words.astype(np.int32)
    if not dataset.file_meta.TransferSyntaxUID.is_compressed:
        stored >>= max(0, int(dataset.get("HighBit", bits - 1)) + 1 - bits)
    stored &= (1 << bits) - 1  # bits above may hold an overlay
    if signed:
        sign = 1 << (bits - 1)
        stored = (stored ^ sign) - sign
    return stored, dataset


@functools.lru_cache(maxsize=4096)
def _read_whole(path: Path) -> bool:
    """Whether pydicom can take single frames from the dataset only, not from the file."""
    with open(path, "rb") as file:
        if file.read(132)[128:] != b"DICM":
            return True
    syntax = pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID")
    return syntax is None or syntax == pydicom.uid.DeflatedExplicitVRLittleEndian


def _require_image(header: pydicom.Dataset) -> None:
    kind = header.get("SOPClassUID")
    name = kind.name if kind else ""
    if not header.get("Rows") or not header.get("Columns") or name in _NOT_IMAGES:
        if "Image Storage" in name:
            raise ValueError(f"a damaged header ({name} without Rows and Columns)")
        # force=True reads anything: without the identity of an object it is no DICOM
        raise ValueError(f"{NOT_AN_IMAGE} ({name})" if name else "not a DICOM image")
    samples = header.get("SamplesPerPixel", 1)
    photometric = header.get("PhotometricInterpretation", "MONOCHROME2")
    if samples != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise ValueError(
            "colour DICOM: expected one MONOCHROME1 or MONOCHROME2 sample a pixel. "
            f"Received: {samples} {photometric}"
        )
    if header.get("BitsAllocated") not in (8, 16):
        raise ValueError(
            f"BitsAllocated: expected 8 or 16. Received: {header.get('BitsAllocated')}"
        )


def _key(header: pydicom.Dataset, path: Path) -> tuple:
    """What the slices of one series have in common; a localizer or another echo differs."""
    return (
        str(header.get("SeriesInstanceUID") or path),
        header.Rows,
        header.Columns,
        header.get("Modality"),
        tuple(round(float(v), 3) for v in header.get("ImageOrientationPatient") or ()),
        str(header.get("EchoNumbers", "")),
        str(header.get("TemporalPositionIdentifier", "")),
        _spacing(header, header),
    )


def _encoding(header: pydicom.Dataset, frame: int | None = None) -> Encoding:
    source = header
    if frame is not None:
        source = headers.functional(header, frame, "PixelValueTransformationSequence") or header
    slope, intercept = source.get("RescaleSlope"), source.get("RescaleIntercept")
    return Encoding(
        slope=1.0 if slope is None else float(slope),
        intercept=0.0 if intercept is None else float(intercept),
        bits=int(header.BitsStored),
        signed=bool(header.get("PixelRepresentation", 0)),
        rescaled=slope is not None and "ModalityLUTSequence" not in header,
    )


def _padding(header: pydicom.Dataset) -> tuple[int, int] | None:
    ends = headers.padding_ends(header)
    return (min(ends), max(ends)) if ends else None


def _spacing(header: pydicom.Dataset, measures: pydicom.Dataset) -> tuple[float, float] | None:
    values = measures.get("PixelSpacing") or header.get("ImagerPixelSpacing")
    if not values or len(values) != 2 or min(map(float, values)) <= 0:
        return None
    return float(values[0]), float(values[1])


def _point(value: Any) -> tuple[float, float, float] | None:
    return tuple(float(v) for v in value) if value and len(value) == 3 else None


def _orientation(value: Any) -> tuple[float, ...] | None:
    """ImageOrientationPatient, where it is two directions at right angles."""
    if not value or len(value) != 6:
        return None
    axes = np.array([float(v) for v in value]).reshape(2, 3)
    if not np.allclose(axes @ axes.T, np.eye(2), atol=1e-2):
        return None
    return tuple(axes.ravel().tolist())


def _thickness(header: pydicom.Dataset) -> float:
    try:
        value = float(header.SliceThickness)
    except (AttributeError, TypeError, ValueError):  # absent, empty or no number
        return 1.0
    return value if 0 < value < float("inf") else 1.0


def _location(header: pydicom.Dataset) -> float | None:
    try:
        return float(header.SliceLocation)
    except (AttributeError, TypeError, ValueError):  # absent, empty, several or no number
        return None


def _slice_spacing(frames: tuple[Frame, ...]) -> float | None:
    try:
        return float(np.linalg.norm(geometry.slice_step([frame.position for frame in frames])))
    except ValueError:
        return None


def _along_normal(orientation: tuple[float, ...] | None, position: Any) -> float | None:
    """Distance of a slice from the origin along the slice normal, in mm."""
    if not orientation or not position or len(position) != 3:
        return None
    axes = np.array(orientation, np.float64).reshape(2, 3)
    return float(np.cross(axes[0], axes[1]) @ np.array(position, np.float64))


def _common(header: pydicom.Dataset) -> dict[str, Any]:
    modality = str(header.get("Modality") or "OT")
    kind = header.get("RescaleType")
    if modality == "CT" and kind in (None, "", "HU"):
        unit = "HU"
    elif modality == "MR":
        unit = "signal"
    else:
        unit = "1" if kind in (None, "", "US") else str(kind)
    patient = str(header.get("PatientID") or "")
    if patient:
        patient = f"{header.get('IssuerOfPatientID', '')}|{patient}"
    else:
        patient = str(header.get("StudyInstanceUID") or "")
    return {
        "shape": (int(header.Rows), int(header.Columns)),
        "modality": modality,
        "unit": unit,
        "patient": patient,
        "uid": str(header.get("SeriesInstanceUID") or ""),
        "frame_of_reference": str(header.get("FrameOfReferenceUID") or ""),
    }


def _multi_frame(header: pydicom.Dataset, path: Path, name: str) -> Series:
    count = int(header.NumberOfFrames)
    positions, orientations, distances = [], [], []
    for number in range(count):
        orientation = headers.functional(header, number, "PlaneOrientationSequence") or {}
        plane = headers.functional(header, number, "PlanePositionSequence") or {}
        positions.append(plane.get("ImagePositionPatient"))
        orientations.append(_orientation(orientation.get("ImageOrientationPatient")))
        distances.append(_along_normal(orientations[-1], positions[-1]))
    order = range(count)
    if None not in distances and len(set(np.round(distances, 3))) == count:
        order = np.argsort(distances, kind="stable").tolist()
    frames = tuple(
        Frame(
            path=path,
            number=number,
            encoding=_encoding(header, number),
            padding=_padding(header),
            position=_point(positions[number]),
        )
        for number in order
    )
    measures = headers.functional(header, 0, "PixelMeasuresSequence") or header
    transformation = headers.functional(header, 0, "PixelValueTransformationSequence")
    common = _common(header)
    if transformation and common["modality"] == "CT" and transformation.get("RescaleType") != "HU":
        common["unit"] = "1"
    return Series(
        name=name,
        paths=(path,),
        length=count,
        spacing=_spacing(header, measures),
        slice_spacing=_slice_spacing(frames),
        frames=frames,
        orientation=orientations[0] if len(set(orientations)) == 1 else None,
        thickness=_thickness(measures),
        **common,
    )


def _single_frames(group: list[tuple[pydicom.Dataset, Path, str]], name: str) -> Series:
    def place(item: tuple[pydicom.Dataset, Path, str]) -> tuple:
        header, _, file = item
        distance = _along_normal(
            _orientation(header.get("ImageOrientationPatient")), header.get("ImagePositionPatient")
        )
        number = header.get("InstanceNumber")
        return (distance or 0.0, int(number) if number is not None else 0, file)

    group = sorted(group, key=place)
    frames = tuple(
        Frame(
            path=path,
            number=0,
            encoding=_encoding(header),
            padding=_padding(header),
            position=_point(header.get("ImagePositionPatient")),
            location=_location(header),
        )
        for header, path, _ in group
    )
    first = group[0][0]
    return Series(
        name=name,
        paths=tuple(path for _, path, _ in group),
        length=len(group),
        spacing=_spacing(first, first),
        slice_spacing=_slice_spacing(frames),
        frames=frames,
        orientation=_orientation(first.get("ImageOrientationPatient")),
        thickness=_thickness(first),
        **_common(first),
    )


def _folder(group: list[tuple[pydicom.Dataset, Path, str]]) -> str:
    folder = os.path.commonpath([os.path.dirname(name) or "." for _, _, name in group])
    return "series" if folder in ("", ".") else Path(folder).as_posix()


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
