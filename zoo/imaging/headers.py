"""What readers and writers of DICOM headers share."""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import pydicom
import pydicom.uid


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences pydicom, whose warnings quote values of the header."""
    logger = logging.getLogger("pydicom")
    disabled, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = disabled


def items(dataset: pydicom.Dataset, keyword: str) -> Sequence[pydicom.Dataset]:
    """The items of a sequence, none where it is not there.

    Raises:
        ValueError: for an element that a damaged file gives another type.
    """
    if keyword not in dataset:
        return []
    element = dataset[keyword]
    if element.VR != "SQ":
        raise ValueError(f"{keyword}: expected a sequence. Received: an element of VR {element.VR}")
    return element.value or []


def functional(dataset: pydicom.Dataset, frame: int, sequence: str) -> pydicom.Dataset | None:
    """The item of a functional group for `frame`: its own, or the one that all frames share."""
    for groups, number in (
        (items(dataset, "PerFrameFunctionalGroupsSequence"), frame),
        (items(dataset, "SharedFunctionalGroupsSequence"), 0),
    ):
        found = items(groups[number], sequence) if number < len(groups) else []
        if found:
            return found[0]
    return None


def functional_groups(dataset: pydicom.Dataset) -> list[pydicom.Dataset]:
    """The functional groups of an enhanced object: the shared ones, then each frame's."""
    return [
        *items(dataset, "SharedFunctionalGroupsSequence"),
        *items(dataset, "PerFrameFunctionalGroupsSequence"),
    ]


def set_syntax(dataset: pydicom.Dataset) -> None:
    """Gives a dataset without a Transfer Syntax UID the one that it was read with."""
    if not hasattr(dataset, "file_meta"):
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        uid = pydicom.uid.ExplicitVRLittleEndian if little else pydicom.uid.ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = (
            pydicom.uid.ImplicitVRLittleEndian if implicit else uid
        )


def swap_words(dataset: pydicom.Dataset, element: pydicom.DataElement) -> None:
    """Swaps the bytes of words that pydicom leaves as they lie in a big-endian file."""
    size = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}.get(element.VR)
    if size and isinstance(element.value, bytes) and len(element.value) % size == 0:
        element.value = np.frombuffer(element.value, f">u{size}").astype(f"<u{size}").tobytes()


def remove_encapsulated(dataset: pydicom.Dataset) -> None:
    """Removes, in place, sequences with compressed pixels in an item, such as those of icons.

    A native transfer syntax may hold compressed pixels nowhere (PS3.5 A.4).
    """
    for tag in list(dataset.keys()):
        if dataset.get_item(tag).VR not in ("SQ", "UN") or dataset[tag].VR != "SQ":
            continue
        for item in dataset[tag].value:
            if "PixelData" in item and item["PixelData"].is_undefined_length:
                del dataset[tag]
                break
            remove_encapsulated(item)


def padding_ends(header: pydicom.Dataset) -> tuple[int, int] | None:
    """Pixel Padding Value and Pixel Padding Range Limit (or the value again) as stored."""
    if header.get("PixelPaddingValue") is None:
        return None
    bits, signed = int(header.BitsAllocated), bool(header.get("PixelRepresentation", 0))
    ends = []
    for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
        value = header.get(keyword)
        value = header.PixelPaddingValue if value is None else value
        if isinstance(value, bytes):  # an unknown VR
            value = int.from_bytes(value, "little")
        value = int(value) % (1 << bits)  # a VR of the other signedness is a common fault
        ends.append(value - (1 << bits) if signed and value >> (bits - 1) else value)
    return ends[0], ends[1]
