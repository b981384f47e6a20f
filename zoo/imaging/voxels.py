"""Where the voxels of a file are, checked before they are believed, and read plane by plane.

The formats that state an affine all store `[i, j, k]` with the first axis fastest, as they are or
as one zlib or gzip stream.
"""

import dataclasses
import functools
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from zoo.atomic import replacing

SIZE = b"\0" * 16  # stands in a header for the bytes of the stream behind it
_CHUNK = 1 << 18  # bytes that are decompressed at once
_BEYOND = 1 << 26  # bytes that a stream may hold besides the voxels: footers, other programs' data
_MOST = 1032  # bytes that one byte of a deflated stream can stand for
_WBITS = {"gzip": 31, "zlib": 15}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Voxels:
    """The voxels of one file.

    Attributes:
        path: the file.
        shape: sides of its three axes, the fastest first.
        dtype: of a stored voxel, with its byte order, as `np.dtype` takes it.
        start: byte of the file at which the voxels begin, or the compressed stream that holds them.
        offset: byte of the decompressed stream at which they begin.
        codec: "", "gzip" or "zlib".
        slope, intercept: the value is slope x stored + intercept.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: str
    start: int = 0
    offset: int = 0
    codec: str = ""
    slope: float = 1.0
    intercept: float = 0.0

    @property
    def size(self) -> int:
        """Bytes of all voxels."""
        return int(np.prod(self.shape, dtype=object)) * np.dtype(self.dtype).itemsize

    def at_end(self) -> "Voxels":
        """These, but where the file's last bytes are."""
        start = max(self.start, self.path.stat().st_size - self.size)
        return dataclasses.replace(self, start=start)

    def check(self) -> None:
        """Looks whether the file holds all of them; a compressed one is read once to its end.

        Raises:
            ValueError: for a file that is too short, or whose checksum or length is not right.
        """
        status = os.stat(self.path)
        stored, needed = max(0, status.st_size - self.start), self.offset + self.size
        there, what = stored - self.offset, "bytes"
        if self.codec and needed > _MOST * stored:
            there, what = stored, f"bytes of {self.codec}"
        elif self.codec:
            stamp = (status.st_mtime_ns, status.st_size)
            length = _length(self.path, self.start, self.codec, needed + _BEYOND, stamp)
            there = length - self.offset
        if there < self.size:
            raise ValueError(
                f"voxels: expected {self.size} bytes, as the header says ({_by(self.shape)} of "
                f"{np.dtype(self.dtype).itemsize} bytes). Received: {max(there, 0)} {what}"
            )

    def planes(self, first: int, last: int) -> np.ndarray:
        """Stored values `[i, j, last - first]` of a file that is not compressed.

        Raises:
            ValueError: for a file that has become shorter.
        """
        count = self.size // self.shape[2]
        with open(self.path, "rb") as file:
            file.seek(self.start + self.offset + first * count)
            content = file.read((last - first) * count)
        return self._array(content, last - first)

    def blocks(self, most: int) -> Iterator[tuple[int, np.ndarray]]:
        """Pairs of (first plane, stored values `[i, j, n]`), from the first plane to the last.

        Args:
            most: bytes of a block; at least a plane is taken.
        """
        count = self.size // self.shape[2]
        at_once = max(1, most // count)
        firsts = range(0, self.shape[2], at_once)
        if not self.codec:
            for first in firsts:
                yield first, self.planes(first, min(first + at_once, self.shape[2]))
            return
        with open(self.path, "rb") as file:
            file.seek(self.start)
            stream = inflated(file, self.codec)
            held = bytearray()
            skipped = self.offset
            for first in firsts:
                planes = min(at_once, self.shape[2] - first)
                while len(held) < skipped + planes * count:
                    held += next(stream, b"") or _ended()
                content = bytes(held[skipped : skipped + planes * count])
                del held[: skipped + planes * count]
                skipped = 0
                yield first, self._array(content, planes)

    def values(self, stored: np.ndarray) -> np.ndarray:
        """Physical values, float32."""
        with np.errstate(over="ignore", invalid="ignore"):
            if (self.slope, self.intercept) == (1.0, 0.0):
                return stored.astype(np.float32)
            return (stored.astype(np.float64) * self.slope + self.intercept).astype(np.float32)

    def _array(self, content: bytes, planes: int) -> np.ndarray:
        if len(content) * self.shape[2] != planes * self.size:
            _ended()
        return np.frombuffer(content, self.dtype).reshape(*self.shape[:2], planes, order="F")


# Files and streams.


def inflated(file: BinaryIO, codec: str) -> Iterator[bytes]:
    """What a stream decompresses to, a little at a time, from where `file` is.

    Raises:
        ValueError: for a damaged stream, one that ends early, and bytes other than 0 behind it.
    """
    decoder, rest = zlib.decompressobj(_WBITS[codec]), b""
    while True:
        rest = rest or file.read(_CHUNK)
        if not rest:
            _ended()
        try:
            content = decoder.decompress(rest, _CHUNK)
        except zlib.error as error:
            raise ValueError(f"damaged {codec} data: {error}") from error
        if content:
            yield content
        rest = decoder.unconsumed_tail
        if decoder.eof:
            rest = decoder.unused_data.lstrip(b"\0")
            while not rest and (more := file.read(_CHUNK)):
                rest = more.lstrip(b"\0")
            if not rest:
                return
            if codec != "gzip" or not rest.startswith(b"\x1f"):
                raise ValueError(f"damaged {codec} data: expected its end. Received: more bytes")
            decoder = zlib.decompressobj(_WBITS[codec])  # gzip files may be put together


def codec_of(path: Path) -> str:
    """ "gzip" where a file begins as gzip does, whatever its name, else ""."""
    with open(path, "rb") as file:
        return "gzip" if file.read(2) == b"\x1f\x8b" else ""


def head(path: Path, size: int) -> bytes:
    """The first bytes of a file, decompressed where it is gzip; fewer where it is shorter.

    Raises:
        ValueError: for damaged gzip data.
    """
    codec = codec_of(path)
    with open(path, "rb") as file:
        if not codec:
            return file.read(size)
        content = bytearray()
        for part in inflated(file, codec):
            content += part
            if len(content) >= size:
                break
    return bytes(content[:size])


def tail(voxels: Voxels, most: int) -> bytes:
    """What follows the voxels in their file, up to `most` bytes."""
    end = voxels.offset + voxels.size
    with open(voxels.path, "rb") as file:
        if not voxels.codec:
            file.seek(voxels.start + end)
            return file.read(most)
        file.seek(voxels.start)
        place, content = 0, bytearray()
        for part in inflated(file, voxels.codec):
            content += part[max(0, end - place) :]
            place += len(part)
    return bytes(content[:most])


def _deflated(parts: Iterable[bytes], codec: str) -> Iterator[bytes]:
    """A stream, of gzip without a file's name and the time: equal images make equal files."""
    encoder = zlib.compressobj(6, zlib.DEFLATED, _WBITS[codec])
    yield from map(encoder.compress, parts)
    yield encoder.flush()


def in_order(planes: Iterator[np.ndarray], dtype: np.dtype) -> Iterator[bytes]:
    """The bytes of planes `[i, j]`, the first axis fastest."""
    for plane in planes:
        yield plane.astype(dtype).tobytes(order="F")


def save(path: Path, codec: str, parts: Iterable[bytes], plain: bytes = b"") -> None:
    """Writes a file that appears when it is whole: `plain`, and `parts` as a `codec` stream.

    `SIZE` in `plain` becomes the bytes of the stream.
    """
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(plain)
        file.writelines(_deflated(parts, codec) if codec else parts)
        if SIZE in plain:
            size = file.tell() - len(plain)
            file.seek(plain.index(SIZE))
            file.write(str(size).ljust(len(SIZE)).encode())


def named_codec(path: Path) -> str:
    """ "gzip" where the name of a file says that it is compressed, in any case, else ""."""
    return "gzip" if path.name.lower().endswith((".gz", ".mgz")) else ""


@functools.lru_cache(maxsize=1 << 16)
def _length(path: Path, start: int, codec: str, most: int, stamp: tuple[int, int]) -> int:
    """Bytes that a stream decompresses to, its checksums compared; once for each file."""
    length = 0
    with open(path, "rb") as file:
        file.seek(start)
        for part in inflated(file, codec):
            length += len(part)
            if length > most:
                raise ValueError(
                    f"voxels: expected up to {most} bytes in the {codec} data. Received: more"
                )
    return length


# Headers that are lines of text.


def detached(header: Path, name: str, field: str) -> Path:
    """The file of voxels that a header names.

    Raises:
        ValueError: for several files, one outside the header's folder, which a file from
            elsewhere has no business to name, one that is not there, and the header itself.
    """
    if name.split()[:1] == ["LIST"] or "%" in name:
        raise ValueError(f"{field}: expected one file. Received: {name}")
    parts = Path(name.replace("\\", "/")).parts
    if not parts or ".." in parts or Path(parts[0]).anchor or ":" in parts[0]:
        raise ValueError(f"{field}: expected a file in the header's folder. Received: {name}")
    path = header.parent.joinpath(*parts)
    if not path.is_file():  # a pipe would be waited for
        raise ValueError(f"{field}: expected a file that is there. Received: {name}")
    if path.samefile(header):
        raise ValueError(f"{field}: expected another file than the header. Received: {name}")
    return path


def numbers(text: str, count: int, field: str) -> np.ndarray:
    """float64 `[count]`, the finite numbers in a field of text.

    Raises:
        ValueError: for anything else.
    """
    try:
        values = np.array([float(part) for part in text.split()])
    except ValueError:
        values = np.zeros(0)
    if len(values) != count or not np.isfinite(values).all():
        raise ValueError(f"{field}: expected {count} number(s). Received: {one_line(text)!r}")
    return values


def sides(text: str, count: int, field: str) -> tuple[int, ...]:
    """The sides of three axes, the last 1 where the field of text has only two.

    Raises:
        ValueError: for anything but `count` whole numbers from 1 on.
    """
    values = numbers(text, count, field)
    if values.min() < 1 or (values != np.rint(values)).any() or values.max() > 2**31:
        raise ValueError(f"{field}: expected whole numbers. Received: {text}")
    return tuple(int(side) for side in (*values, 1)[:3])


def joined(values: Iterable[float], separator: str = " ") -> str:
    """Numbers for a field of text, as exact as they are."""
    return separator.join(f"{value:.17g}" for value in values)


def one_line(text: str) -> str:
    """Text for a field that ends with its line."""
    return " ".join(text.split())


def _ended():
    raise ValueError("damaged data: expected more bytes. Received: the end of the file")


def _by(values: tuple[int, ...]) -> str:
    return " x ".join(map(str, values))
