"""What readers and writers of DICOM headers share."""

import contextlib
import functools
import io
import logging
import math
import struct
import threading
import warnings
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pydicom
import pydicom.multival
import pydicom.tag
import pydicom.uid

_START = 4096  # bytes in which a file names its transfer syntax
# A file may grow by inflating to 64 MiB, and beyond to 16 times its size, as images do.
_INFLATED = (64 << 20, 16)


class _Quiet:
    """Silences pydicom from the first thread's entry to the last one's exit.

    Python keeps one list of warning filters for all threads: each restoring what it found would
    leave another's, or let a warning through.
    """

    def __init__(self) -> None:
        self._lock, self._within, self._before = threading.Lock(), 0, contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            self._within += 1
            if self._within > 1:
                return
            logger = logging.getLogger("pydicom")
            self._before.callback(setattr, logger, "disabled", logger.disabled)
            logger.disabled = True
            self._before.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._within -= 1
            if not self._within:
                self._before.close()


_quiet = _Quiet()


def quiet() -> contextlib.AbstractContextManager[None]:
    """Silences pydicom, whose warnings quote values of the header."""
    return _quiet


def tags(keywords: Sequence[str]) -> list[pydicom.tag.BaseTag]:
    """Tags of keywords, for `read`."""
    return [pydicom.tag.Tag(keyword) for keyword in keywords]


def read(path: Path, only: list[pydicom.tag.BaseTag] | None = None) -> pydicom.FileDataset:
    """The header of a file, up to its pixels.

    Args:
        path: the file; deflated ones are inflated, if they are of a plausible size.
        only: the tags to read; None reads all.

    Raises:
        ValueError: for a deflated file that ends too early or would fill the memory.
        Exception: of many types, what pydicom raises on a damaged file.
    """
    with opened(path) as file:
        return parse(file, only)


def parse(file: BinaryIO, only: list[pydicom.tag.BaseTag] | None) -> pydicom.FileDataset:
    """The header of a file from `opened`, which is left at the tag of its pixels."""
    dataset = pydicom.dcmread(file, force=True, stop_before_pixels=True, specific_tags=only)
    set_syntax(dataset)
    return dataset


def opened(path: Path) -> BinaryIO:
    """A file open for reading; in memory and inflated where it was deflated.

    Raises:
        ValueError: for a deflated file that ends too early or would fill the memory.
    """
    file = open(path, "rb")  # noqa: SIM115 (the caller closes it)
    try:
        deflated = pydicom.uid.DeflatedExplicitVRLittleEndian.encode() in file.read(_START)
        file.seek(0)
        if not deflated:
            return file
        pydicom.filereader.read_preamble(file, force=True)
        meta = pydicom.filereader.read_dataset(file, False, True, stop_when=_after_meta)
        if meta.get("TransferSyntaxUID") != pydicom.uid.DeflatedExplicitVRLittleEndian:
            file.seek(0)
            return file
        content = _inflate(file.read())
    except BaseException:
        file.close()
        raise
    file.close()
    syntax = pydicom.uid.ExplicitVRLittleEndian.encode() + b"\0"
    element = struct.pack("<HH2sH", 2, 0x10, b"UI", len(syntax)) + syntax
    return io.BytesIO(b"".join((bytes(128), b"DICM", element, content)))


def _after_meta(tag: int, *_: Any) -> bool:
    return pydicom.tag.BaseTag(tag).group != 2


def _inflate(content: bytes) -> bytes:
    limit = max(_INFLATED[0], _INFLATED[1] * len(content))
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    result = inflate.decompress(content, limit)
    if not inflate.eof:
        received = "more" if len(result) == limit else f"{len(result)} and no end"
        raise ValueError(
            f"deflated data set: expected up to {limit >> 20} MiB of bytes, and their end, of "
            f"{len(content)} deflated ones. Received: {received}"
        )
    return result


# What elements say.


def value(dataset: pydicom.Dataset, keyword: str) -> Any:
    """The value of an element, None where it is absent; faster than `Dataset.get`."""
    tag = _tag(keyword)
    return dataset[tag].value if tag in dataset else None


@functools.cache
def _tag(keyword: str) -> pydicom.tag.BaseTag:
    return pydicom.tag.Tag(keyword)


def numbers(dataset: pydicom.Dataset, keyword: str, count: int = 1) -> tuple[float, ...] | None:
    """The finite numbers of an element; None where it is absent or empty.

    Raises:
        ValueError: for anything else, naming the element.
    """
    try:
        found = value(dataset, keyword)
        if found is None or (hasattr(found, "__len__") and len(found) == 0):
            return None
        several = isinstance(found, (pydicom.multival.MultiValue, list, tuple))
        values = tuple(float(v) for v in (found if several else (found,)))
        received = f"{len(values)} values" if len(values) != count else list(values)
    except Exception:  # pydicom converts when it is asked, and raises errors of many types
        values, received = (), "no number"  # which may be anything, a name too: not repeated
    if len(values) != count or not all(map(math.isfinite, values)):
        wanted = "one finite number" if count == 1 else f"{count} finite numbers"
        raise ValueError(f"{keyword}: expected {wanted}. Received: {received}")
    return values


def number(dataset: pydicom.Dataset, keyword: str) -> float | None:
    """The one finite number of an element; see `numbers`."""
    values = numbers(dataset, keyword)
    return None if values is None else values[0]


def text(dataset: pydicom.Dataset, keyword: str) -> str:
    """What an element says, "" where it is absent, empty or cannot be read."""
    try:
        found = value(dataset, keyword)
        return "" if found is None else str(found).strip()
    except Exception:  # as above
        return ""


def modality_table(header: pydicom.Dataset) -> tuple[int, np.ndarray] | None:
    """The Modality LUT: the stored value of its first entry, and float32 entries; None without one.

    Raises:
        ValueError: for a table that is not whole.
    """
    tables = items(header, "ModalityLUTSequence")
    if not tables:
        return None
    item = tables[0]
    descriptor, data = item.get("LUTDescriptor"), item.get("LUTData")
    if descriptor is None or data is None:
        raise ValueError(
            "ModalityLUTSequence: expected an item with LUTDescriptor and LUTData. "
            "Received: one without"
        )
    order = "<" if header.original_encoding[1] is not False else ">"
    if isinstance(descriptor, bytes):  # the VR is not told
        descriptor = np.frombuffer(descriptor, f"{order}u2").tolist()
    if len(descriptor) != 3:
        raise ValueError(f"LUTDescriptor: expected 3 numbers. Received: {len(descriptor)}")
    count, first = int(descriptor[0]) or 1 << 16, int(descriptor[1])
    if header.get("PixelRepresentation") and first >= 1 << 15:
        first -= 1 << 16
    if isinstance(data, bytes):
        data = np.frombuffer(data, "u1" if count <= len(data) < 2 * count else f"{order}u2")
    values = np.atleast_1d(np.asarray(data)).astype(np.float32)
    if len(values) < count:
        raise ValueError(f"LUTData: expected {count} entries. Received: {len(values)}")
    return first, values[:count]


def padding_ends(header: pydicom.Dataset) -> tuple[int, int] | None:
    """Pixel Padding Value and Pixel Padding Range Limit (or the value again) as stored.

    Raises:
        ValueError: for an element that is not one integer.
    """
    if value(header, "PixelPaddingValue") in (None, ""):
        return None
    bits, signed = int(header.BitsAllocated), bool(value(header, "PixelRepresentation"))
    ends = []
    for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
        end = value(header, keyword)
        end = value(header, "PixelPaddingValue") if end is None else end
        if isinstance(end, bytes):  # an unknown VR
            end = int.from_bytes(end, "little")
        if not isinstance(end, int):
            raise ValueError(f"{keyword}: expected one integer. Received: {np.size(end)} values")
        end = end % (1 << bits)  # a VR of the other signedness is a common fault
        ends.append(end - (1 << bits) if signed and end >> (bits - 1) else end)
    return ends[0], ends[1]


# Sequences and functional groups.


def items(dataset: pydicom.Dataset, keyword: str) -> Sequence[pydicom.Dataset]:
    """The items of a sequence, none where it is not there.

    Raises:
        ValueError: for an element that a damaged file gives another type.
    """
    if _tag(keyword) not in dataset:
        return []
    element = dataset[_tag(keyword)]
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


# What is made or put right.


def item(**fields: Any) -> pydicom.Dataset:
    """An item of a sequence, with the values of these keywords."""
    result = pydicom.Dataset()
    for keyword, content in fields.items():
        setattr(result, keyword, content)
    return result


def remove(dataset: pydicom.Dataset, keywords: Iterable[str]) -> None:
    """Removes elements, in place, where they are there."""
    for keyword in keywords:
        if keyword in dataset:
            del dataset[keyword]


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
