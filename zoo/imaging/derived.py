"""Writes translated DICOM series as derived images: valid, traceable, with the input's geometry."""

import dataclasses
import datetime
import importlib.metadata
import math
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pydicom
import pydicom.uid

from zoo.imaging import dicom
from zoo.imaging.dicom import Series
from zoo.imaging.encoding import Encoding, decimal
from zoo.imaging.windows import Domain

_LOSSY = {  # transfer syntaxes that lose information, and the method's name
    pydicom.uid.JPEGBaseline8Bit: "ISO_10918_1",
    pydicom.uid.JPEGExtended12Bit: "ISO_10918_1",
    pydicom.uid.JPEGLSNearLossless: "ISO_14495_1",
    pydicom.uid.JPEG2000: "ISO_15444_1",
}
_PADDING = ("PixelPaddingValue", "PixelPaddingRangeLimit")
_ENHANCED = (
    pydicom.uid.EnhancedCTImageStorage,
    pydicom.uid.EnhancedMRImageStorage,
    pydicom.uid.EnhancedPETImageStorage,
)
# of enhanced MR: how original images were acquired; not allowed in derived ones
# fmt: off
_ORIGINAL_ONLY = (
    "BulkMotionCompensationTechnique", "CoverageOfKSpace", "EchoPlanarPulseSequence",
    "EchoPulseSequence", "GeometryOfKSpaceTraversal", "MRAcquisitionType", "MultiPlanarExcitation",
    "NumberOfKSpaceTrajectories", "OversamplingPhase", "PhaseContrast", "PulseSequenceName",
    "RectilinearPhaseEncodeReordering", "SaturationRecovery", "SegmentedKSpaceTraversal",
    "SpectrallySelectedSuppression", "SteadyStatePulseSequence", "TimeOfFlightContrast",
)
# fmt: on
# true of the input's bytes or stored values only
# fmt: off
_STALE = (
    "DigitalSignaturesSequence", "MACParametersSequence", "IconImageSequence",
    "InstanceCreatorUID", "SmallestPixelValueInSeries", "LargestPixelValueInSeries",
    "SmallestImagePixelValueInPlane", "LargestImagePixelValueInPlane",
    "EncryptedAttributesSequence", "OriginalAttributesSequence",
)
# fmt: on


@dataclasses.dataclass(frozen=True, kw_only=True)
class Derivation:
    """What was done to the images, for the header.

    Attributes:
        name, title: the model's name and its title for people.
        weights_hash: SHA-256 of the weights, hexadecimal.
        description: free text of the user.
        target: the meaning of the new values.
        same_unit: whether they mean the same as the input's.
        moment: when; None leaves the input's dates.
    """

    name: str
    title: str
    weights_hash: str
    description: str
    target: Domain
    same_unit: bool
    moment: datetime.datetime | None


def write(
    series: Series,
    paths: list[Path],
    slices: Iterable[tuple[int, np.ndarray]],
    derivation: Derivation,
    series_uid: str,
    deidentify: Callable[[pydicom.Dataset], None] | None = None,
) -> list[Path]:
    """Writes slices as a new series in Explicit VR Little Endian.

    The slices first go to a temporary file, since one encoding must hold them all: the input's
    where it does, else the closest that does (`Encoding.fit`). Memory holds one slice.

    Args:
        series: the input; its headers are read again.
        paths: where each slice goes, or the one path of a multi-frame file.
        slices: pairs of (index, float32 [H, W] in physical units of the target).
        derivation: recorded in the header.
        series_uid: the new SeriesInstanceUID.
        deidentify: changes a header in place.

    Returns:
        The files written: those of the slices given.

    Raises:
        ValueError: for slices that are not finite, or a header that cannot be written.
    """
    folder = paths[0].parent
    with tempfile.TemporaryFile(dir=folder) as spool:
        values = np.memmap(spool, np.float32, "w+", shape=(series.length, *series.shape))
        base = _base_encodings(series, derivation)
        ranges: dict[Encoding, tuple[float, float]] = {}
        indices = []
        for index, array in slices:
            low, high = float(array.min()), float(array.max())
            if not (math.isfinite(low) and math.isfinite(high)):
                raise ValueError(f"slice {index}: the model's output is not finite")
            values[index] = array
            before = ranges.get(base[index], (low, high))
            ranges[base[index]] = min(low, before[0]), max(high, before[1])
            indices.append(index)
        if not indices:
            return []
        encodings = _fit(ranges, any(frame.padding for frame in series.frames))
        encodings = [encodings.get(encoding, encoding) for encoding in base]
        if len(series.paths) < series.length:
            _write_frames(series, paths[0], values, encodings, derivation, series_uid, deidentify)
            return [paths[0]]
        for index in indices:
            stored = _stored(series, index, values[index], encodings[index])
            header = _header(series, index, encodings[index], derivation, series_uid, deidentify)
            _describe_pixels(header, [encodings[index]], int(stored.min()), int(stored.max()))
            data = _words(stored, header.BitsAllocated).tobytes()
            header.PixelData = data + b"\0" * (len(data) % 2)
            _save(header, paths[index])
    return [paths[index] for index in indices]


def _base_encodings(series: Series, derivation: Derivation) -> list[Encoding]:
    """The encoding that each slice would keep."""
    encodings = [frame.encoding for frame in series.frames]
    if derivation.same_unit:
        return encodings
    # steps of another quantity say nothing: take whole units, or 4096 levels in the window
    slope = 1.0
    if derivation.target.unit != "HU":
        slope = min(1.0, 10.0 ** math.floor(math.log10(derivation.target.span / 4096)))
    first = encodings[0]
    rescaled = first.rescaled or slope != 1 or derivation.target.unit == "HU"
    return [Encoding(slope=slope, signed=first.signed, rescaled=rescaled)] * len(encodings)


def _fit(ranges: dict[Encoding, tuple[float, float]], padded: bool) -> dict[Encoding, Encoding]:
    fitted = {old: _roomy(old, *limits, padded) for old, limits in ranges.items()}
    if len({(new.bits, new.signed) for new in fitted.values()}) > 1:  # one layout for all
        signed = any(new.signed for new in fitted.values())
        fitted = {
            old: _roomy(dataclasses.replace(old, bits=16, signed=signed), *limits, padded)
            for old, limits in ranges.items()
        }
    return fitted


def _roomy(old: Encoding, low: float, high: float, padded: bool) -> Encoding:
    """The fitted encoding; a new one leaves the end levels to padding, where it can."""
    new = old.fit(low, high)
    if padded and new != old:
        step = abs(old.slope)
        roomy = old.fit(low - step, high + step)
        return roomy if roomy.slope == old.slope else new
    return new


def _stored(series: Series, index: int, values: np.ndarray, encoding: Encoding) -> np.ndarray:
    """Stored integers of a slice, with the input's padding put back."""
    stored = encoding.encode(values)
    padding = series.frames[index].padding
    if padding:
        source = series.stored(index)
        mask = (source >= padding[0]) & (source <= padding[1])
        stored[mask] = np.clip(source[mask], *encoding.limits)
    return stored


def _words(stored: np.ndarray, allocated: int) -> np.ndarray:
    return stored.astype("<i2").astype("<u2") if allocated == 16 else stored.astype(np.uint8)


def _write_frames(
    series: Series,
    path: Path,
    values: np.ndarray,
    encodings: list[Encoding],
    derivation: Derivation,
    series_uid: str,
    deidentify: Callable[[pydicom.Dataset], None] | None,
) -> None:
    """One multi-frame file; frames keep their stored order."""
    header = _header(series, 0, encodings[0], derivation, series_uid, deidentify)
    order = sorted(range(series.length), key=lambda index: series.frames[index].number)
    low, high = 1 << 16, -(1 << 16)
    allocated = _allocated(header, encodings[0])
    with tempfile.TemporaryFile(dir=path.parent) as pixels:
        for index in order:
            stored = _stored(series, index, values[index], encodings[index])
            low, high = min(low, int(stored.min())), max(high, int(stored.max()))
            pixels.write(_words(stored, allocated).tobytes())
        pixels.write(b"\0" * (pixels.tell() % 2))
        pixels.seek(0)
        _describe_pixels(header, [encodings[index] for index in order], low, high)
        header.PixelData = pixels
        _save(header, path)


def _header(
    series: Series,
    index: int,
    encoding: Encoding,
    derivation: Derivation,
    series_uid: str,
    deidentify: Callable[[pydicom.Dataset], None] | None,
) -> pydicom.Dataset:
    """The header of slice `index`, less its pixels, made that of a derived image."""
    path = series.path(index)
    with dicom.quiet():
        header = pydicom.dcmread(path, force=True, stop_before_pixels=True)
        dicom.set_syntax(header)
        if not header.original_encoding[1]:
            header.walk(dicom.swap_words)
            header.set_original_encoding(False, True, header.original_character_set)
        for keyword in _STALE:
            if keyword in header:
                del header[keyword]
        _keep_lossy(header, path)
        if deidentify is not None:
            deidentify(header)
        _remove_empty_overlays(header)
        _derive(header, derivation, series_uid)
        if not derivation.same_unit:
            header.remove_private_tags()  # they may hold scales of the old values
            _change_unit(header, derivation.target, encoding.rescaled)
    return header


def _remove_empty_overlays(header: pydicom.Dataset) -> None:
    """Removes what describes overlays in unused bits of the pixels, which are not written."""
    for group in range(0x6000, 0x6020, 2):
        if (group, 0x0010) in header and (group, 0x3000) not in header:
            for element in header.group_dataset(group):
                del header[element.tag]


def _keep_lossy(header: pydicom.Dataset, path: Path) -> None:
    """States that the input was lossy, where only its transfer syntax says so."""
    syntax = header.file_meta.TransferSyntaxUID
    if syntax in _LOSSY and not header.get("LossyImageCompression"):
        frames = int(header.get("NumberOfFrames") or 1)
        size = header.Rows * header.Columns * frames * header.BitsAllocated / 8
        header.LossyImageCompression = "01"
        header.LossyImageCompressionRatio = round(size / path.stat().st_size, 2)
        header.LossyImageCompressionMethod = _LOSSY[syntax]


def _derive(header: pydicom.Dataset, derivation: Derivation, series_uid: str) -> None:
    source = _reference(header)
    enhanced = source.ReferencedSOPClassUID in _ENHANCED
    # enhanced objects know no SECONDARY
    kind = ["DERIVED", "PRIMARY" if enhanced else "SECONDARY"]
    header.ImageType = kind + list(header.get("ImageType") or [])[2:]
    text = f"{derivation.title} ({derivation.name}), weights SHA-256 {derivation.weights_hash}"
    text = f"{text}. {derivation.description}" if derivation.description else text
    image = pydicom.Dataset()
    image.DerivationDescription = text.replace("\\", "/")[:1024]
    image.DerivationCodeSequence = [
        _code("TRANSLATION", "99ZOO", "Image translation by a neural network")
    ]
    image.SourceImageSequence = [source]
    if enhanced:
        _derive_enhanced(header, source, image)
    else:
        header.update(image)
    header.SOPInstanceUID = pydicom.uid.generate_uid()
    header.SeriesInstanceUID = series_uid
    number = header.get("SeriesNumber")
    header.SeriesNumber = (int(number) if number not in (None, "") else 0) + 1000
    name = f"{header.get('SeriesDescription') or ''} {derivation.title}".strip()
    header.SeriesDescription = name.replace("\\", "/")[:64].strip()
    equipment = pydicom.Dataset()
    equipment.PurposeOfReferenceCodeSequence = [_code("109102", "DCM", "Processing Equipment")]
    equipment.Manufacturer = "zoo"
    equipment.ManufacturerModelName = derivation.name.replace("\\", "/")[:64]
    equipment.SoftwareVersions = _version()
    equipment.ContributionDescription = derivation.title.replace("\\", "/")[:1024]
    if derivation.moment is not None:
        date, time = derivation.moment.strftime("%Y%m%d %H%M%S").split()
        header.ContentDate = header.InstanceCreationDate = date
        header.ContentTime = header.InstanceCreationTime = time
        header.SeriesDate, header.SeriesTime = date, time
        equipment.ContributionDateTime = date + time
    header.ContributingEquipmentSequence = [
        *(header.get("ContributingEquipmentSequence") or []),
        equipment,
    ]
    header.preamble = b"\0" * 128  # the input's may hold anything
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian


def _derive_enhanced(
    header: pydicom.Dataset, source: pydicom.Dataset, image: pydicom.Dataset
) -> None:
    """Puts the derivation `image` where enhanced objects keep it, with the evidence they need."""
    for keyword in _ORIGINAL_ONLY:
        if keyword in header:
            del header[keyword]
    shared = header.get("SharedFunctionalGroupsSequence") or []
    if not shared:  # an old object that keeps all at the top
        header.update(image)
        return
    shared[0].DerivationImageSequence = [image]
    for group in _groups(header):
        for keyword in ("CTImageFrameTypeSequence", "MRImageFrameTypeSequence"):
            for item in group.get(keyword) or []:
                item.FrameType = ["DERIVED", *list(item.get("FrameType") or [])[1:]]
        if group is not shared[0] and "DerivationImageSequence" in group:
            del group.DerivationImageSequence
    instance = pydicom.Dataset()
    instance.ReferencedSOPClassUID = source.ReferencedSOPClassUID
    instance.ReferencedSOPInstanceUID = source.ReferencedSOPInstanceUID
    series, evidence = pydicom.Dataset(), pydicom.Dataset()
    series.SeriesInstanceUID = evidence.SeriesInstanceUID = header.get("SeriesInstanceUID", "")
    series.ReferencedInstanceSequence = [instance]
    evidence.ReferencedSOPSequence = [instance]
    study = pydicom.Dataset()
    study.StudyInstanceUID = header.get("StudyInstanceUID", "")
    study.ReferencedSeriesSequence = [evidence]
    header.ReferencedSeriesSequence = [*(header.get("ReferencedSeriesSequence") or []), series]
    header.SourceImageEvidenceSequence = [
        *(header.get("SourceImageEvidenceSequence") or []),
        study,
    ]


def _reference(header: pydicom.Dataset) -> pydicom.Dataset:
    item = pydicom.Dataset()
    item.ReferencedSOPClassUID = header.get("SOPClassUID", "")
    item.ReferencedSOPInstanceUID = header.get("SOPInstanceUID", "")
    item.PurposeOfReferenceCodeSequence = [
        _code("121322", "DCM", "Source image for image processing operation")
    ]
    return item


def _code(value: str, scheme: str, meaning: str) -> pydicom.Dataset:
    item = pydicom.Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _change_unit(header: pydicom.Dataset, target: Domain, rescaled: bool) -> None:
    """Unit and window of values that mean something else than the input's."""
    for dataset in _value_groups(header, "FrameVOILUTSequence"):
        dataset.WindowCenter = decimal(sum(target.window) / 2)
        dataset.WindowWidth = decimal(target.span)
        for keyword in ("WindowCenterWidthExplanation", "VOILUTSequence", "VOILUTFunction"):
            if keyword in dataset:
                del dataset[keyword]
    if rescaled:
        for dataset in _value_groups(header, "PixelValueTransformationSequence"):
            dataset.RescaleType = "HU" if target.unit == "HU" else "US"


def _value_groups(header: pydicom.Dataset, sequence: str) -> list[pydicom.Dataset]:
    """The functional group's items, or the header itself where there are none."""
    return [item for group in _groups(header) for item in group.get(sequence) or []] or [header]


def _groups(header: pydicom.Dataset) -> list[pydicom.Dataset]:
    """The functional groups of an enhanced object: the shared ones, then each frame's."""
    return [
        *(header.get("SharedFunctionalGroupsSequence") or []),
        *(header.get("PerFrameFunctionalGroupsSequence") or []),
    ]


def _allocated(header: pydicom.Dataset, encoding: Encoding) -> int:
    return 8 if header.BitsAllocated == 8 and encoding.bits <= 8 else 16


def _describe_pixels(
    header: pydicom.Dataset, encodings: list[Encoding], low: int, high: int
) -> None:
    """Everything in the header that depends on the stored values."""
    first = encodings[0]
    padding = dicom.padding_ends(header)
    header.BitsAllocated = _allocated(header, first)
    header.BitsStored, header.HighBit = first.bits, first.bits - 1
    header.PixelRepresentation = int(first.signed)
    changed = False
    if "ModalityLUTSequence" in header:
        del header.ModalityLUTSequence
        changed = True
    items = _value_groups(header, "PixelValueTransformationSequence")
    own = header.get("PerFrameFunctionalGroupsSequence")
    if len(set(encodings)) > 1 and len(items) != len(encodings) and own:
        shared = header.SharedFunctionalGroupsSequence[0]
        template = shared.get("PixelValueTransformationSequence", [pydicom.Dataset()])[0]
        if "PixelValueTransformationSequence" in shared:
            del shared.PixelValueTransformationSequence
        items = [pydicom.Dataset(template) for _ in encodings]
        for group, item in zip(own, items, strict=True):
            group.PixelValueTransformationSequence = [item]
    for item, encoding in zip(items, encodings, strict=False):
        if not encoding.rescaled:
            continue
        if item.get("RescaleSlope") != encoding.slope or (
            item.get("RescaleIntercept") != encoding.intercept
        ):
            changed = True
            item.RescaleSlope = pydicom.valuerep.format_number_as_ds(encoding.slope)
            item.RescaleIntercept = pydicom.valuerep.format_number_as_ds(encoding.intercept)
            if "RescaleType" not in item:
                item.RescaleType = "US"
    if changed and "RealWorldValueMappingSequence" in header:
        del header.RealWorldValueMappingSequence
    vr = "SS" if first.signed else "US"
    for keyword, value in (("SmallestImagePixelValue", low), ("LargestImagePixelValue", high)):
        if keyword in header:
            header[keyword] = pydicom.DataElement(keyword, vr, value)
    for keyword, value in zip(_PADDING, padding or (), strict=False):
        if keyword in header:
            value = int(np.clip(value, *first.limits))
            header[keyword] = pydicom.DataElement(keyword, vr, value)


def _save(header: pydicom.Dataset, path: Path) -> None:
    vr = "OB" if header.BitsAllocated == 8 else "OW"
    header["PixelData"].VR = vr
    temporary = path.with_name(f".{path.name}.part")
    try:
        with dicom.quiet():
            header.save_as(
                temporary, implicit_vr=False, little_endian=True, enforce_file_format=True
            )
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _version() -> str:
    try:
        return importlib.metadata.version("zoo-medical")
    except importlib.metadata.PackageNotFoundError:
        return "0"
