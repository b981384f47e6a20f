"""The pixels of one DICOM file: its header is parsed once, its frames are decoded one by one."""

import io
import itertools
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pydicom
import pydicom.encaps
import pydicom.pixels

from zoo.imaging.dicom import headers

# fmt: off
TAGS = headers.tags([
    "Rows", "Columns", "NumberOfFrames", "PhotometricInterpretation", "BitsAllocated",
    "BitsStored", "HighBit", "PixelRepresentation", "ModalityLUTSequence", "ExtendedOffsetTable",
])
# fmt: on
_PIXEL_DATA = (0x7FE0, 0x0010)
_ITEM = (0xFFFE, 0xE000)
_FRAGMENTS = 4096  # a frame has no more
_TAIL = 10  # bytes at a frame's end, in which its end is marked


class Pixels:
    """What it takes to decode any frame of a file; it holds no pixels but a deflated file's.

    Args:
        path: the file.
        file: the same from `headers.opened`, at the tag of its pixels.
        header: of the file, with the elements of `TAGS`.

    Attributes:
        table: the Modality LUT, as `headers.modality_table` gives it.

    Raises:
        ValueError: for a file without pixel data, or whose fragments are not those of its frames.
        Exception: of many types, what pydicom raises on a damaged file.
    """

    def __init__(self, path: Path, file: BinaryIO, header: pydicom.Dataset):
        self._path = path
        self._content = file.getvalue() if isinstance(file, io.BytesIO) else None
        # how pixels are stored
        syntax = header.file_meta.TransferSyntaxUID
        self._decoder = pydicom.pixels.get_decoder(syntax)
        self._order = "<" if syntax.is_little_endian else ">"
        self._count = int(headers.number(header, "NumberOfFrames") or 1)
        self._shape = int(header.Rows), int(header.Columns)
        self._bits = int(header.BitsStored)
        self._signed = bool(header.get("PixelRepresentation"))
        high = headers.number(header, "HighBit")
        self._shift = 0 if high is None else max(0, int(high) + 1 - self._bits)
        if syntax.is_encapsulated and syntax != pydicom.uid.RLELossless:
            self._shift = 0  # JPEG holds values, and no words with bits above or below them
        self.table = headers.modality_table(header)
        self._options: dict[str, Any] = {
            "rows": self._shape[0],
            "columns": self._shape[1],
            "samples_per_pixel": 1,
            "photometric_interpretation": header.get("PhotometricInterpretation", "MONOCHROME2"),
            "bits_allocated": int(header.BitsAllocated),
            "bits_stored": self._bits,
            "pixel_representation": int(self._signed),
            "pixel_keyword": "PixelData",
            "pixel_vr": self._enter_pixels(file, syntax.is_implicit_VR),
            # pydicom would take away the uppermost bits of values that lie at the upper end
            "correct_unused_bits": not self._shift,
        }
        # where they are
        self._offset = file.tell()
        self._end = file.seek(0, io.SEEK_END)
        extended = header.get("ExtendedOffsetTable")
        self._fragments = self._find_fragments(file, extended) if syntax.is_encapsulated else None

    def read(self, number: int) -> np.ndarray:
        """Frame `number`, from 0, as stored integers, int32 [H, W], free of overlays.

        Raises:
            ValueError: for a frame of another size than the header says.
            Exception: of many types, what decoders raise; those in Rust a BaseException.
        """
        source: BinaryIO | bytes
        with self._open() as file:
            if self._fragments is None:
                self._require(number)
                file.seek(self._offset)
                source, count, index = file, self._count, number
            else:
                source, count, index = self._coded(file, self._fragments[number]), 1, 0
            options = self._options | {"number_of_frames": count}
            words, _ = self._decoder.as_array(source, index=index, raw=True, **options)
        stored = words.astype(np.int32) >> self._shift
        stored &= (1 << self._bits) - 1  # bits above may hold an overlay
        if self._signed:
            sign = 1 << (self._bits - 1)
            stored = (stored ^ sign) - sign
        return stored

    def _open(self) -> BinaryIO:
        return open(self._path, "rb") if self._content is None else io.BytesIO(self._content)

    def _require(self, number: int) -> None:
        """That the file is long enough to hold a frame that is not compressed."""
        size = self._shape[0] * self._shape[1] * self._options["bits_allocated"] // 8
        if self._end - self._offset < size * (number + 1):
            raise ValueError(
                f"PixelData: expected {size * (number + 1)} bytes up to frame {number}. "
                f"Received: {self._end - self._offset}"
            )

    def _enter_pixels(self, file: BinaryIO, implicit: bool) -> str:
        """Moves from the pixels' tag to their value, and says what VR they have."""
        start = file.read(8)
        if len(start) < 8 or struct.unpack(f"{self._order}HH", start[:4]) != _PIXEL_DATA:
            raise ValueError("PixelData: expected it after the header. Received: none")
        if implicit:
            return "OW"
        file.read(4)  # the length
        return start[4:6].decode("ascii", "replace")

    def _find_fragments(
        self, file: BinaryIO, extended: bytes | None
    ) -> list[list[tuple[int, int]]]:
        """Of each frame the places and lengths of its fragments in the file.

        One fragment a frame needs no table; a table is believed where it names starts of fragments.
        """
        file.seek(self._offset)
        (place, length), *found = self._walk(file) or [(0, 0)]
        if self._count == 1:
            return [found]
        if len(found) == self._count:
            return [[fragment] for fragment in found]
        file.seek(place)
        raw, kind = file.read(length), "L"
        if extended:
            raw, kind = extended, "Q"
        size = struct.calcsize(f"={kind}")
        table = struct.unpack_from(f"{self._order}{len(raw) // size}{kind}", raw)
        starts = [place - 8 for place, _ in found]
        if table:
            known = {start - starts[0]: index for index, start in enumerate(starts)}
            cuts = [known.get(offset, -1) for offset in table]
            if len(table) != self._count or -1 in cuts or sorted(set(cuts)) != cuts:
                raise ValueError(
                    "Offset Table: expected where each frame begins. Received: other places, for "
                    f"{self._count} frames in {len(found)} fragments"
                )
        else:
            ends = [i + 1 for i in range(len(found)) if self._ends(file, found[i])]
            cuts = [0, *(end for end in ends if end < len(found))]
        if len(cuts) != self._count:
            raise ValueError(
                f"NumberOfFrames: expected as many as there are compressed frames, {len(cuts)}. "
                f"Received: {self._count}"
            )
        return [found[a:b] for a, b in itertools.pairwise([*cuts, len(found)])]

    def _walk(self, file: BinaryIO) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        # the first is the Basic Offset Table
        while len(start := file.read(8)) == 8:
            *tag, length = struct.unpack(f"{self._order}HHL", start)
            if tuple(tag) != _ITEM:
                break  # the end, or damage: what follows is not read
            place = file.tell()
            found.append((place, min(length, self._end - place)))
            if len(found) > _FRAGMENTS * self._count:
                raise ValueError("PixelData: expected fewer fragments. Received: too many")
            file.seek(place + length)
        return found

    @staticmethod
    def _ends(file: BinaryIO, fragment: tuple[int, int]) -> bool:
        """Whether a fragment ends as JPEG and JPEG 2000 images do."""
        place, length = fragment
        file.seek(place + max(0, length - _TAIL))
        return b"\xff\xd9" in file.read(min(length, _TAIL))

    def _coded(self, file: BinaryIO, fragments: list[tuple[int, int]]) -> bytes:
        """A frame's fragments as the only frame of encapsulated data."""
        parts = []
        for place, length in fragments:
            file.seek(place)
            parts.append(file.read(length))
        frame = b"".join(parts)
        size = coded_size(frame)
        if size is not None and size != self._shape:
            raise ValueError(
                f"Rows, Columns: expected those of the compressed frame, {list(size)}. "
                f"Received: {list(self._shape)}"
            )
        return pydicom.encaps.encapsulate([frame], has_bot=False)


_recent: dict[tuple[Path, int, int], Pixels] = {}
_RECENT = 16  # what is read ahead of the network is read again when its result is written


def open_pixels(path: Path) -> Pixels:
    """The pixels of a file. The last files stay parsed, so that their frames are read at once."""
    found = _recent.get(_state(path))
    if found is None:
        with headers.opened(path) as file:
            found = keep(path, file, headers.parse(file, TAGS))
    return found


def keep(path: Path, file: BinaryIO, header: pydicom.Dataset) -> Pixels:
    """The pixels of a file that is open and parsed, for `open_pixels` too; see `Pixels`."""
    found = Pixels(path, file, header)
    _recent[_state(path)] = found
    while len(_recent) > _RECENT:
        _recent.pop(next(iter(_recent)), None)
    return found


def _state(path: Path) -> tuple[Path, int, int]:
    status = path.stat()
    return path, status.st_size, status.st_mtime_ns


def coded_size(frame: bytes) -> tuple[int, int] | None:
    """Rows and columns that a JPEG, JPEG-LS or JPEG 2000 image states itself; None of others.

    A decoder believes them before it has seen a pixel, and asks for as much memory.
    """
    start = frame.find(b"\xff\x4f\xff\x51", 0, 256)  # JPEG 2000, which may stand in a JP2 box
    if start >= 0 and len(frame) >= start + 24:
        right, low, left, top = struct.unpack_from(">4I", frame, start + 8)
        return low - top, right - left
    if frame[:2] != b"\xff\xd8":
        return None
    place = 2
    while place + 9 <= len(frame) and frame[place] == 0xFF:
        marker, length = struct.unpack_from(">BH", frame, place + 1)
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            rows, columns = struct.unpack_from(">HH", frame, place + 5)
            return (rows, columns) if rows else None  # rows may follow the image
        if marker == 0xFF:  # a byte to fill up
            place += 1
        else:
            place += 2 + length
    return None
