"""DICOM images: find series, read slices in physical units, map physical to stored values.

Physical value = RescaleSlope x stored value + RescaleIntercept (PS3.3 C.11.1), or the Modality
LUT; in an enhanced object, of one frame or several, the two come from its functional groups.
"""

import collections
import dataclasses
import functools
import hashlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pydicom

from zoo.errors import contained, reason
from zoo.imaging import geometry
from zoo.imaging.dicom import headers, pet, pixels, stacks
from zoo.imaging.dicom.encoding import Encoding
from zoo.imaging.volume import NOT_AN_IMAGE, Problem, Volume

# what one place may be shown at: by it slices are told apart, the first that does so
_MARKS = (
    "DiffusionBValue",
    "DiffusionGradientOrientation",
    "SequenceName",
    "NominalCardiacTriggerDelayTime",
    "TriggerTime",
    "EchoTime",
    "InversionTime",
    "FlipAngle",
    "FrameReferenceTime",
    "AcquisitionNumber",
    "AcquisitionDateTime",
    "AcquisitionTime",
    "ContentTime",
    "ImageType",
    "ComplexImageComponent",
    "ConvolutionKernel",
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
_TAGS = headers.tags(
    [
        "SOPClassUID",
        "SOPInstanceUID",
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
        "SamplesPerPixel",
        "PhotometricInterpretation",
        "NumberOfFrames",
        "FrameIncrementPointer",
        "Rows",
        "Columns",
        "SliceThickness",
        "PixelSpacing",
        "ImagerPixelSpacing",
        "BitsAllocated",
        "BitsStored",
        "HighBit",
        "PixelRepresentation",
        "PixelPaddingValue",
        "PixelPaddingRangeLimit",
        "RescaleSlope",
        "RescaleIntercept",
        "RescaleType",
        "ModalityLUTSequence",
        "Units",
        "SUVType",
        "SegmentationType",
        "SegmentSequence",
        "DoseGridScaling",
        "SharedFunctionalGroupsSequence",
        "PerFrameFunctionalGroupsSequence",
        "EnergyWindowVector",
        "DetectorVector",
        "PhaseVector",
        "RotationVector",
        "RRIntervalVector",
        "TimeSlotVector",
        "AngularViewVector",
        "TimeSliceVector",
        "ExtendedOffsetTable",
        *_APART,
        *_MARKS,
    ]
)
# Images by their structure, not by their meaning; also of classes that no dictionary knows yet:
# waveforms, presentation states, parametric maps, registrations and segmentations of all kinds,
# real world value mappings, reports, encapsulated documents, and of radiotherapy all but images.
_STORAGE = "1.2.840.10008.5.1.4.1.1"
_NOT_IMAGES = tuple(
    f"{_STORAGE}.{family}." for family in (9, 11, 30, 66, 67, 68, 78, 79, 88, 104, 200, 201, 481)
)
_RT_IMAGES = tuple(f"{_STORAGE}.481.{number}" for number in (1, 23, 24))
# whose values mean the same in MONOCHROME1 and MONOCHROME2: only the display is turned
_MEASURED = ("CT", "MR", "PT", "NM")
_COMPRESSED = (64 << 20, 1024)  # bytes that a file may decode to, or how often its size
_TRUNCATED = 4  # times the size of a file, up to which it may have lost its end


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
    position: tuple[float, float, float] | None = None
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
    """

    kind: ClassVar[str] = "dicom"

    uid: str
    number: int = 0
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


def is_dicom(path: Path) -> bool:
    """Whether the file begins as DICOM does, with or without the preamble."""
    with open(path, "rb") as file:
        start = file.read(132)
    # without the preamble, the first group number is 2 or 8, in either byte order
    groups = (b"\x02\x00", b"\x08\x00", b"\x00\x02", b"\x00\x08")
    return start[128:] == b"DICM" or (len(start) > 8 and start[:2] in groups)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Found(stacks.Slice):
    """A slice of a file.

    Attributes:
        name, header: the file's.
        measures: what holds the thickness.
        uid, shape, modality, unit: as of `Series`.
    """

    name: str
    header: pydicom.Dataset
    measures: pydicom.Dataset
    uid: str
    shape: tuple[int, int]
    modality: str
    unit: str


def find_series(
    files: list[tuple[Path, str]],
) -> tuple[list[Series], list[Problem]]:
    """Groups DICOM files into series.

    Args:
        files: pairs of (path, POSIX path relative to the searched folder).

    Returns:
        The series, and the files that hold no usable image. A file that cannot be read does not
        take the others of its series with it.
    """
    problems = []
    by_uid: dict[tuple, list[_Found]] = collections.defaultdict(list)
    whole: list[list[_Found]] = []
    for path, name in files:
        try:
            with headers.quiet(), contained("damaged header"):
                slices = _read_slices(path, name)
        except ValueError as error:
            problems.append(Problem(path, str(error)))
            continue
        if len(slices) > 1:
            whole.append(slices)
        else:
            by_uid[slices[0].uid or str(path), slices[0].shape].append(slices[0])
    # single-frame files: those that lack what the others of their series have, and the parts
    named: list[tuple[list[_Found], str, int]] = []
    for key, group in by_uid.items():
        group, odd = _without_odd(group)
        problems += odd
        of_one_view: list[tuple[_Found, Iterator[int]]] = []
        stacked = [part for one in _of_each_patient(group) for part in stacks.stack(one)]
        for place, part in enumerate(stacked):
            known = [numbers for first, numbers in of_one_view if stacks.alike(part[0], first)]
            if not known:
                known = [itertools.count()]
                of_one_view.append((part[0], known[0]))
            named.append((part, f"{key}{place}", next(known[0])))
    taken = collections.Counter(_folder(part) for part, _, _ in named if len(part) > 1)
    series = [_series(stacks.stack(slices), slices[0].name) for slices in whole]
    for part, text, number in named:
        name = part[0].name
        if len(part) > 1:
            name = _folder(part)
            name += f"#{_hash(text)[:8]}" if taken[name] > 1 else ""
        series.append(_series([part], name, number))
    return series, problems


def _of_each_patient(group: list[_Found]) -> list[list[_Found]]:
    """Slices of one SeriesInstanceUID by patient: what copies or rewrites files may repeat UIDs.

    Where all name one patient or none, they are one's.
    """
    by_patient: dict[str, list[_Found]] = collections.defaultdict(list)
    with headers.quiet():
        for item in group:
            by_patient[headers.text(item.header, "PatientID")].append(item)
    return [group] if len(set(by_patient) - {""}) < 2 else list(by_patient.values())


def _without_odd(group: list[_Found]) -> tuple[list[_Found], list[Problem]]:
    """Slices of one series, less those that do not say what others of them do."""
    rescaled = any(item.frame.encoding.rescaled for item in group)
    placed = {item.orientation for item in group if item.frame.position}
    good, problems = [], []
    for item in group:
        lacks = ""
        if rescaled and not item.frame.encoding.rescaled:
            lacks = "RescaleSlope, RescaleIntercept"
        elif item.frame.position is None and item.orientation in placed:
            lacks = "ImagePositionPatient"
        if lacks:
            text = f"{lacks}: expected as in other files of the series. Received: none"
            problems.append(Problem(item.frame.path, text))
        else:
            good.append(item)
    return good, problems


def _require_image(header: pydicom.Dataset, size: int) -> None:
    """That a header is an image's, of a kind that is read, and plausible in a file of `size` bytes.

    Raises:
        ValueError: otherwise.
    """
    uid = headers.text(header, "SOPClassUID")
    name = pydicom.uid.UID(uid).name if uid else ""
    other = f"{uid}.".startswith(_NOT_IMAGES) and uid not in _RT_IMAGES
    for keyword in ("SegmentSequence", "SegmentationType", "DoseGridScaling"):
        other = other or headers.value(header, keyword) is not None
    rows, columns = headers.number(header, "Rows"), headers.number(header, "Columns")
    if other or not rows or not columns:
        if "Image Storage" in name and not other:
            raise ValueError(f"a damaged header ({name} without Rows and Columns)")
        # force=True reads anything: without the identity of an object it is no DICOM
        if not name and not other:
            raise ValueError("not a DICOM image")
        raise ValueError(f"{NOT_AN_IMAGE} ({name or 'a segmentation or a dose'})")
    samples = headers.number(header, "SamplesPerPixel")
    photometric = headers.text(header, "PhotometricInterpretation") or "MONOCHROME2"
    if samples not in (None, 1) or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise ValueError(
            "colour DICOM: expected one MONOCHROME1 or MONOCHROME2 sample a pixel. "
            f"Received: {samples or 1:g} {photometric[:16]}"
        )
    # of Siemens MR: neither place nor neighbours are what they seem to be
    kind = headers.value(header, "ImageType")
    if headers.text(header, "Modality") == "MR" and "MOSAIC" in np.atleast_1d(kind):
        raise ValueError(
            "ImageType: expected one slice an image. Received: MOSAIC, a volume side by side in one"
        )
    _require_bits(header)
    _require_size(header, size)


def _require_bits(header: pydicom.Dataset) -> None:
    bits = ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
    allocated, stored, high, signed = (headers.number(header, keyword) for keyword in bits)
    if allocated not in (8, 16):
        raise ValueError(f"BitsAllocated: expected 8 or 16. Received: {allocated or 0:g}")
    if stored is None or not 1 <= stored <= allocated:
        raise ValueError(f"BitsStored: expected 1 to {allocated:g}. Received: {stored or 0:g}")
    if high is not None and not 0 <= high < allocated:
        raise ValueError(f"HighBit: expected 0 to {allocated - 1:g}. Received: {high:g}")
    if signed not in (None, 0, 1):
        raise ValueError(f"PixelRepresentation: expected 0 or 1. Received: {signed:g}")


def _require_size(header: pydicom.Dataset, size: int) -> None:
    """That `size` bytes may hold what a header announces, before memory is asked for."""
    count = headers.number(header, "NumberOfFrames") or 1
    announced = header.Rows * header.Columns * count * header.BitsAllocated // 8
    if header.file_meta.TransferSyntaxUID.is_encapsulated:
        # each compressed frame begins with the 8 bytes of a tag and a length
        fits = announced <= max(_COMPRESSED[0], _COMPRESSED[1] * size) and 8 * count <= size
    else:
        fits = announced <= _TRUNCATED * size
    if count < 1 or not fits:
        raise ValueError(
            f"Rows, Columns, NumberOfFrames: expected pixels that {size} bytes can hold. "
            f"Received: {header.Rows}, {header.Columns}, {count:g}"
        )


def _read_slices(path: Path, name: str) -> list[_Found]:
    """The slices of a file, as stored."""
    with headers.opened(path) as file:
        header = headers.parse(file, _TAGS)
        place = file.tell()
        _require_image(header, file.seek(0, os.SEEK_END))
        if (headers.number(header, "NumberOfFrames") or 1) > 1:  # parsed once, if it is next
            file.seek(place)
            pixels.keep(path, file, header)
    # what the frames have of their own
    count = int(headers.number(header, "NumberOfFrames") or 1)
    own = headers.items(header, "PerFrameFunctionalGroupsSequence")
    if own and len(own) != count:
        raise ValueError(
            f"PerFrameFunctionalGroupsSequence: expected {count} items, one for each frame. "
            f"Received: {len(own)}"
        )
    grouped = bool(own) or bool(headers.items(header, "SharedFunctionalGroupsSequence"))
    vectors = [""] * count if grouped or count == 1 else _vectors(header, count)
    table = headers.modality_table(header)
    ends = headers.padding_ends(header)  # in MONOCHROME1 the greater one is the first
    facts = _Facts(
        path=path,
        name=name,
        count=count,
        uid=headers.text(header, "SeriesInstanceUID"),
        shape=(int(header.Rows), int(header.Columns)),
        modality=headers.text(header, "Modality") or "OT",
        padding=None if ends is None else (min(ends), max(ends)),
        table=None if table is None else table[1],
        grouped=grouped,
    )
    slices = [_slice(header, facts, number, vectors[number]) for number in range(count)]
    if len({item.frame.encoding.rescaled for item in slices}) > 1:
        raise ValueError(
            "PixelValueTransformationSequence: expected in every frame, or in none. "
            "Received: some frames without it"
        )
    if len({item.unit for item in slices}) > 1:
        raise ValueError("RescaleType: expected one for all frames. Received: several")
    return slices


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Facts:
    """What all frames of a file have in common."""

    path: Path
    name: str
    count: int
    uid: str
    shape: tuple[int, int]
    modality: str
    padding: tuple[int, int] | None
    table: np.ndarray | None
    grouped: bool


def _slice(header: pydicom.Dataset, facts: _Facts, number: int, vector: str) -> _Found:
    """Frame `number` of a file."""

    def group(sequence: str) -> pydicom.Dataset:
        own = headers.functional(header, number, sequence) if facts.grouped else None
        return header if own is None else own

    # what an old object of many frames says at its top is the place of the first
    plane = group("PlanePositionSequence")
    placed = facts.count == 1 or plane is not header
    measures = group("PixelMeasuresSequence")
    values = group("PixelValueTransformationSequence")
    encoding, unit = _encoding(header, values, facts.table)
    instance = headers.text(header, "InstanceNumber")
    apart = [headers.text(header, keyword) for keyword in _APART]
    if facts.grouped:
        apart += [headers.text(group(sequence), keyword) for sequence, keyword in _FRAMES_APART]
    return _Found(
        frame=Frame(
            path=facts.path,
            number=number,
            encoding=encoding,
            padding=facts.padding,
            position=headers.numbers(plane, "ImagePositionPatient", 3) if placed else None,
            location=_location(header),
        ),
        order=(int(instance) if instance.isdecimal() else 0, facts.name, number),
        instance=lambda: f"{headers.text(header, 'SOPInstanceUID')} {number}",
        kind=(facts.modality, unit, encoding.inverted, *apart, vector),
        orientation=_orientation(
            headers.numbers(group("PlaneOrientationSequence"), "ImageOrientationPatient", 6)
        ),
        spacing=_spacing(header, measures),
        marks=functools.partial(_marks, header, number, facts.grouped),
        name=facts.name,
        header=header,
        measures=measures,
        uid=facts.uid,
        shape=facts.shape,
        modality=facts.modality,
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
    names = [pydicom.datadict.keyword_for_tag(tag) for tag in pointers if tag is not None]
    if _ONE_TIME_EACH & set(names):
        return [str(number) for number in range(count)]
    columns = []
    for name in names:
        vector = header.get(name) if name.endswith("Vector") and name != "SliceVector" else None
        if vector is not None and np.size(vector) == count:
            columns.append(np.atleast_1d(vector).tolist())
    return [str([column[number] for column in columns]) for number in range(count)]


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
    turned = headers.text(header, "PhotometricInterpretation") == "MONOCHROME1"
    inverted = turned and unit == "1" and modality not in _MEASURED
    if inverted and table is not None:  # what is turned are the entries; CR knows these bits
        bits = next(bits for bits in (10, 12, 16) if table.max() < 1 << bits)
        return Encoding(bits=bits, inverted=True), unit
    encoding = Encoding(
        slope=1.0 if slope is None else slope,
        intercept=0.0 if intercept is None else intercept,
        bits=int(header.BitsStored),
        signed=bool(headers.value(header, "PixelRepresentation")),
        rescaled=rescaled and table is None,
        inverted=inverted,
    )
    return encoding, unit


def _spacing(header: pydicom.Dataset, measures: pydicom.Dataset) -> tuple[float, float] | None:
    values = headers.numbers(measures, "PixelSpacing", 2)
    values = values or headers.numbers(header, "ImagerPixelSpacing", 2)
    return values if values and min(values) > 0 else None


def _orientation(values: tuple[float, ...] | None) -> tuple[float, ...] | None:
    """ImageOrientationPatient, where it is two directions at right angles."""
    if values is None:
        return None
    # without NumPy, which is slow on so few numbers
    lengths = sum(v * v for v in values[:3]), sum(v * v for v in values[3:])
    turned = sum(a * b for a, b in zip(values[:3], values[3:], strict=True))
    errors = (lengths[0] - 1, lengths[1] - 1, turned)
    return values if max(map(abs, errors)) < 1e-2 else None


def _thickness(header: pydicom.Dataset) -> float:
    try:
        value = headers.number(header, "SliceThickness")
    except ValueError:  # it says little: no reason to refuse the image
        return 1.0
    return value if value and value > 0 else 1.0


def _location(header: pydicom.Dataset) -> float | None:
    try:
        return headers.number(header, "SliceLocation")
    except ValueError:
        return None


def _slice_spacing(frames: tuple[Frame, ...]) -> float | None:
    try:
        return float(np.linalg.norm(geometry.slice_step([frame.position for frame in frames])))
    except ValueError:
        return None


def _patient(header: pydicom.Dataset) -> str:
    patient = headers.text(header, "PatientID")
    if patient:
        return f"{headers.text(header, 'IssuerOfPatientID')}|{patient}"
    return headers.text(header, "StudyInstanceUID")


def _series(parts: list[list[_Found]], name: str, number: int = 0) -> Series:
    """One series of the parts of a file, or of one part of several files."""
    first = parts[0][0]
    slices = [item for part in parts for item in part]
    frames = tuple(
        dataclasses.replace(item.frame, part=part)
        for part, items in enumerate(parts)
        for item in items
    )
    paths = tuple(frame.path for frame in frames)
    one_way = all(stacks.alike(item, first) for item in slices)
    with headers.quiet():  # what is asked of the first file only
        patient, thickness = _patient(first.header), _thickness(first.measures)
        frame_of_reference = headers.text(first.header, "FrameOfReferenceUID")
    return Series(
        name=name,
        uid=first.uid,
        shape=first.shape,
        modality=first.modality,
        unit=first.unit,
        patient=patient,
        frame_of_reference=frame_of_reference,
        paths=paths if len(set(paths)) > 1 else paths[:1],
        length=len(frames),
        spacing=first.spacing if one_way else None,
        slice_spacing=_slice_spacing(frames),
        number=number,
        frames=frames,
        orientation=first.orientation if one_way else None,
        thickness=thickness,
    )


def _folder(group: list[_Found]) -> str:
    folder = os.path.commonpath([os.path.dirname(item.name) or "." for item in group])
    return "series" if folder in ("", ".") else Path(folder).as_posix()


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
