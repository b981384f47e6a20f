"""The slices of a DICOM file, by what its header says of them."""

import dataclasses
import functools
import os
from collections.abc import Callable, Hashable
from pathlib import Path

import numpy as np
import pydicom

from zoo.imaging.dicom import headers, images, pet, pixels
from zoo.imaging.dicom.encoding import Encoding
from zoo.imaging.dicom.series import Frame

# fmt: off
# what one place may be shown at: by it slices are told apart, the first that does so
_MARKS = (
    "DiffusionBValue", "DiffusionGradientOrientation", "SequenceName",
    "NominalCardiacTriggerDelayTime", "TriggerTime", "EchoTime", "InversionTime", "FlipAngle",
    "FrameReferenceTime", "AcquisitionNumber", "AcquisitionDateTime", "AcquisitionTime",
    "ContentTime", "ImageType", "ComplexImageComponent", "ConvolutionKernel",
)
_FRAME_MARKS = (
    ("MRDiffusionSequence", "DiffusionBValue"),
    ("MRDiffusionSequence", "DiffusionGradientDirectionSequence"),
    ("MRDiffusionSequence", "DiffusionDirectionality"),
    ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
    ("MREchoSequence", "EffectiveEchoTime"),
    ("MRModifierSequence", "InversionTimes"),
    ("MRTimingAndRelatedParametersSequence", "FlipAngle"),
    ("MRImageFrameTypeSequence", "FrameType"),
    ("MRImageFrameTypeSequence", "ComplexImageComponent"),
    ("CTImageFrameTypeSequence", "FrameType"),
    ("PETFrameTypeSequence", "FrameType"),
    ("FrameContentSequence", "FrameAcquisitionNumber"),
    ("FrameContentSequence", "FrameReferenceDateTime"),
    ("FrameContentSequence", "FrameAcquisitionDateTime"),
)
# by these they are told apart wherever they lie
_APART = ("EchoNumbers", "TemporalPositionIdentifier")
_FRAMES_APART = (
    ("FrameContentSequence", "StackID"),
    ("FrameContentSequence", "TemporalPositionIndex"),
    ("TemporalPositionSequence", "TemporalPositionTimeOffset"),
)
_ONE_TIME_EACH = {"FrameTime", "FrameTimeVector"}
_TAGS = [
    *headers.tags([
        "SOPClassUID", "SOPInstanceUID", "Modality", "PatientID", "IssuerOfPatientID",
        "StudyInstanceUID", "SeriesInstanceUID", "SeriesDescription", "FrameOfReferenceUID",
        "InstanceNumber", "ImagePositionPatient", "ImageOrientationPatient", "SliceLocation",
        "SliceThickness", "PixelSpacing", "ImagerPixelSpacing", "SamplesPerPixel",
        "FrameIncrementPointer", "PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleSlope",
        "RescaleIntercept", "RescaleType", "Units", "SUVType", "SegmentationType",
        "SegmentSequence", "DoseGridScaling", "SharedFunctionalGroupsSequence",
        "PerFrameFunctionalGroupsSequence",
        "EnergyWindowVector", "DetectorVector", "PhaseVector", "RotationVector",
        "RRIntervalVector", "TimeSlotVector", "AngularViewVector", "TimeSliceVector",
        *_APART, *_MARKS,
    ]),
    *pixels.TAGS,
]
# fmt: on
# whose values mean the same in MONOCHROME1 and MONOCHROME2: only the display is turned
_MEASURED = ("CT", "MR", "PT", "NM")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slice:
    """A slice of a file, on its way into a series.

    Attributes:
        frame: what the series holds of it.
        order: sorts slices that nothing else sorts.
        instance: makes, where it is needed, what is equal for copies of one slice.
        kind: what must be equal in a stack.
        orientation: ImageOrientationPatient, None where unknown.
        spacing: PixelSpacing in mm, None where unknown.
        marks: makes, where it is needed, what may tell slices of one place apart: time, echo, ...
        name, header: the file's.
        measures: what holds the thickness.
        uid, shape, modality, unit: as of `Series`.
    """

    frame: Frame
    order: tuple[int, str, int]
    instance: Callable[[], str]
    kind: Hashable
    orientation: tuple[float, ...] | None
    spacing: tuple[float, float] | None
    marks: Callable[[], dict[str, str]]
    name: str
    header: pydicom.Dataset
    measures: pydicom.Dataset
    uid: str
    shape: tuple[int, int]
    modality: str
    unit: str


def read_slices(path: Path, name: str) -> list[Slice]:
    """The slices of a file, as stored; of a multi-frame file its pixels stay parsed.

    Args:
        path: the file.
        name: what it is called in a search.

    Raises:
        ValueError: where it is no image that is read.
        Exception: of many types, what pydicom raises on a damaged file.
    """
    with headers.opened(path) as file:
        header = headers.parse(file, _TAGS)
        place = file.tell()
        images.require_image(header, file.seek(0, os.SEEK_END))
        if (headers.number(header, "NumberOfFrames") or 1) > 1:  # parsed once, if it is next
            file.seek(place)
            pixels.keep(path, file, header)
    # what the frames have of their own: in functional groups, or in vectors of old objects
    count = int(headers.number(header, "NumberOfFrames") or 1)
    own = headers.items(header, "PerFrameFunctionalGroupsSequence")
    if own and len(own) != count:
        raise ValueError(
            f"PerFrameFunctionalGroupsSequence: expected {count} items, one for each frame. "
            f"Received: {len(own)}"
        )
    grouped = bool(own) or bool(headers.items(header, "SharedFunctionalGroupsSequence"))
    vectors = [""] * count if grouped or count == 1 else _vectors(header, count)
    # what they have in common
    table = headers.modality_table(header)
    ends = headers.padding_ends(header)  # in MONOCHROME1 the greater one is the first
    common = _File(
        path=path,
        name=name,
        header=header,
        count=count,
        grouped=grouped,
        padding=ends and (min(ends), max(ends)),
        table=table and table[1],
    )
    slices = [_slice(common, number, vector) for number, vector in enumerate(vectors)]
    # that they are of one kind
    if len({item.frame.encoding.rescaled for item in slices}) > 1:
        raise ValueError(
            "PixelValueTransformationSequence: expected in every frame, or in none. "
            "Received: some frames without it"
        )
    if len({item.unit for item in slices}) > 1:
        raise ValueError("RescaleType: expected one for all frames. Received: several")
    return slices


@dataclasses.dataclass(frozen=True, kw_only=True)
class _File:
    """What all frames of a file have in common; `grouped` tells whether in functional groups."""

    path: Path
    name: str
    header: pydicom.Dataset
    count: int
    grouped: bool
    padding: tuple[int, int] | None
    table: np.ndarray | None


def _slice(file: _File, number: int, vector: str) -> Slice:
    """Frame `number` of a file."""
    header = file.header

    def group(sequence: str) -> pydicom.Dataset:
        own = headers.functional(header, number, sequence) if file.grouped else None
        return header if own is None else own

    # what an old object of many frames says at its top is the place of the first
    plane = group("PlanePositionSequence")
    position = None
    if file.count == 1 or plane is not header:
        position = headers.numbers(plane, "ImagePositionPatient", 3)
    axes = headers.numbers(group("PlaneOrientationSequence"), "ImageOrientationPatient", 6)
    # how far pixels lie apart, and what their values mean
    measures = group("PixelMeasuresSequence")
    values = group("PixelValueTransformationSequence")
    encoding, unit = _encoding(header, values, file.table)
    # what sorts it
    instance = headers.text(header, "InstanceNumber")
    order = int(instance) if instance.isdecimal() else 0
    # those that differ in these are of different series
    modality = headers.text(header, "Modality") or "OT"
    apart = [headers.text(header, keyword) for keyword in _APART]
    if file.grouped:
        apart += [headers.text(group(sequence), keyword) for sequence, keyword in _FRAMES_APART]
    return Slice(
        frame=Frame(
            path=file.path,
            number=number,
            encoding=encoding,
            padding=file.padding,
            position=position,
            location=_location(header),
        ),
        order=(order, file.name, number),
        instance=lambda: f"{headers.text(header, 'SOPInstanceUID')} {number}",
        kind=(modality, unit, encoding.inverted, *apart, vector),
        orientation=_orientation(axes),
        spacing=_spacing(header, measures),
        marks=functools.partial(_marks, header, number, file.grouped),
        name=file.name,
        header=header,
        measures=measures,
        uid=headers.text(header, "SeriesInstanceUID"),
        shape=(int(header.Rows), int(header.Columns)),
        modality=modality,
        unit=unit,
    )


def _marks(header: pydicom.Dataset, number: int, grouped: bool) -> dict[str, str]:
    """What may tell a frame from others of its place."""
    marks = {}
    with headers.quiet():
        if grouped:
            for sequence, keyword in _FRAME_MARKS:
                item = headers.functional(header, number, sequence)
                marks[keyword] = "" if item is None else headers.text(item, keyword)
            content = headers.functional(header, number, "FrameContentSequence")
            values = "" if content is None else headers.text(content, "DimensionIndexValues")
            marks.update((f"dimension {k}", v) for k, v in enumerate(values.split(",")))
        marks.update((keyword, headers.text(header, keyword)) for keyword in _MARKS)
    return marks


def _vectors(header: pydicom.Dataset, count: int) -> list[str]:
    """What tells frames apart in objects without functional groups, one text for each frame."""
    pointer = header.get("FrameIncrementPointer")
    pointers = pointer if isinstance(pointer, (list, pydicom.multival.MultiValue)) else [pointer]
    # the vectors of one value for each frame
    names = [pydicom.datadict.keyword_for_tag(tag) for tag in pointers if tag is not None]
    if _ONE_TIME_EACH & set(names):
        return [str(number) for number in range(count)]
    told: list[list] = [[] for _ in range(count)]
    for name in names:
        vector = header.get(name) if name.endswith("Vector") and name != "SliceVector" else None
        if vector is not None and np.size(vector) == count:
            for values, value in zip(told, np.atleast_1d(vector).tolist(), strict=True):
                values.append(value)
    return list(map(str, told))


def _encoding(
    header: pydicom.Dataset, values: pydicom.Dataset, table: np.ndarray | None
) -> tuple[Encoding, str]:
    """How a frame's pixels are stored, and the unit that they stand for.

    Args:
        header: the file's.
        values: what holds the frame's rescale.
        table: the entries of the Modality LUT, where the file has one.
    """
    slope, intercept = (headers.number(values, f"Rescale{end}") for end in ("Slope", "Intercept"))
    rescaled = slope is not None or intercept is not None
    # the unit: a plain one where none is named
    modality = headers.text(header, "Modality")
    kind = headers.text(values, "RescaleType").upper()
    if table is not None:
        kind = headers.text(header.ModalityLUTSequence[0], "ModalityLUTType").upper()
    unit = "1" if kind in ("", "US") else kind
    if modality == "MR":
        unit = "signal"
    elif modality == "PT":
        unit = pet.unit(header)
    elif modality == "CT" and table is None and kind in ("", "HU"):  # HU where it does not say
        unit = "1" if slope is None or intercept is None else "HU"
    # whether the least value is the brightest
    turned = headers.text(header, "PhotometricInterpretation") == "MONOCHROME1"
    inverted = turned and unit == "1" and modality not in _MEASURED
    if inverted and table is not None:  # what is turned are the entries; CR knows these bits
        bits = next(bits for bits in (10, 12, 16) if table.max() < 1 << bits)
        return Encoding(bits=bits, inverted=True), unit
    encoding = Encoding(
        slope=slope if slope is not None else 1.0,
        intercept=intercept or 0.0,
        bits=int(header.BitsStored),
        signed=bool(headers.value(header, "PixelRepresentation")),
        rescaled=rescaled and table is None,
        inverted=inverted,
    )
    return encoding, unit


def _spacing(header: pydicom.Dataset, measures: pydicom.Dataset) -> tuple[float, float] | None:
    values = headers.numbers(measures, "PixelSpacing", 2)
    values = values or headers.numbers(header, "ImagerPixelSpacing", 2)
    return (values[0], values[1]) if values and min(values) > 0 else None


def _orientation(values: tuple[float, ...] | None) -> tuple[float, ...] | None:
    """ImageOrientationPatient, where it is two directions at right angles."""
    if values is None:
        return None
    # without NumPy, which is slow on so few numbers
    right, down = values[:3], values[3:]
    errors = _dot(right, right) - 1, _dot(down, down) - 1, _dot(right, down)
    return values if max(map(abs, errors)) < 1e-2 else None


def _dot(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def _location(header: pydicom.Dataset) -> float | None:
    try:
        return headers.number(header, "SliceLocation")
    except ValueError:
        return None
