"""Which DICOM objects are images that can be read."""

from pathlib import Path

import numpy as np
import pydicom
import pydicom.uid

from zoo.imaging.dicom import headers
from zoo.imaging.volume import NOT_AN_IMAGE

# Images by their structure, not by their meaning; also of classes that no dictionary knows yet:
# waveforms, presentation states, parametric maps, registrations and segmentations of all kinds,
# real world value mappings, reports, encapsulated documents, and of radiotherapy all but images.
_STORAGE = "1.2.840.10008.5.1.4.1.1"
_NOT_IMAGES = tuple(
    f"{_STORAGE}.{family}." for family in (9, 11, 30, 66, 67, 68, 78, 79, 88, 104, 200, 201, 481)
)
_RT_IMAGES = tuple(f"{_STORAGE}.481.{number}" for number in (1, 23, 24))
_COMPRESSED = (64 << 20, 1024)  # bytes that a file may decode to, or how often its size
_TRUNCATED = 4  # times the size of a file, up to which it may have lost its end


def is_dicom(path: Path) -> bool:
    """Whether the file begins as DICOM does, with or without the preamble."""
    with open(path, "rb") as file:
        start = file.read(132)
    # without the preamble, the first group number is 2 or 8, in either byte order
    groups = (b"\x02\x00", b"\x08\x00", b"\x00\x02", b"\x00\x08")
    return start[128:] == b"DICM" or (len(start) > 8 and start[:2] in groups)


def require_image(header: pydicom.Dataset, size: int) -> None:
    """Refuses a header that is not an image's, or of a kind that is not read.

    Args:
        header: of the file, its `file_meta` with a transfer syntax.
        size: of the file in bytes, which its pixels have to be plausible for.

    Raises:
        ValueError: says why; it begins with `NOT_AN_IMAGE` for other objects than images.
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
