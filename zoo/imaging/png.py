"""PNG files as they are stored: samples of 1 to 16 bits, grey, RGB or with a palette.

Image libraries stretch grey values of fewer than 8 bits, and shorten colours of 16 bits to 8.
"""

import io
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import imagecodecs
import numpy as np
import PIL.Image

from zoo.imaging.volume import check_size

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")  # the chunks that make the pixels
GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6  # colour types
_SAMPLES = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGB_ALPHA: 4}
# the passes of an interlaced image: first row and column, and steps
_ADAM7 = (
    *((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4)),
    *((2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)),
)
_INTERLACE = 28  # where a file says whether it is


class Png(NamedTuple):
    """A file without its pixels.

    Attributes:
        shape: height and width in pixels.
        bits: of a sample: 1, 2, 4, 8 or 16.
        colour: colour type, one of those above.
        palette: uint8 [colours, 3], empty without one.
        transparent: the content of the chunk tRNS.
        density: the content of the chunk pHYs: pixels per unit across and down, and the unit.
        critical: the file without what does not make the pixels.
    """

    shape: tuple[int, int]
    bits: int
    colour: int
    palette: np.ndarray
    transparent: bytes
    density: bytes
    critical: bytes


def parse(path: Path) -> Png:
    """What the file says of its pixels, every checksum of what makes them checked.

    Raises:
        ValueError: for a damaged file, an animation, or pixels that the file cannot hold.
    """
    chunks = _chunks(path.read_bytes())
    first = dict(reversed(chunks))
    kinds = [kind for kind, _ in chunks]
    if len(first.get(b"IHDR", b"")) != 13 or b"IDAT" not in first or kinds.count(b"IHDR") > 1:
        raise ValueError("a damaged PNG: expected one header, and pixels. Received: others")
    parts = [_chunk(*chunk) for chunk in chunks if chunk[0] in _CRITICAL]
    critical = b"".join([_SIGNATURE, *parts])
    width, height, bits, colour, *_ = struct.unpack(">IIBBBBB", first[b"IHDR"])
    if colour not in _SAMPLES or bits not in (1, 2, 4, 8, 16) or 0 in (width, height):
        raise ValueError(
            f"a damaged PNG: expected pixels. Received: {height} x {width} of {bits} bits, "
            f"colour type {colour}"
        )
    if b"acTL" in first:
        raise ValueError("expected one image. Received: an animation")
    check_size(height * -(-width * bits * _SAMPLES[colour] // 8), len(critical))
    palette = np.frombuffer(first.get(b"PLTE", b""), np.uint8)
    if len(palette) % 3:
        raise ValueError(f"a damaged PNG: expected colours of three. Received: {len(palette)}")
    return Png(
        shape=(height, width),
        bits=bits,
        colour=colour,
        palette=palette.reshape(-1, 3),
        transparent=first.get(b"tRNS", b""),
        density=first.get(b"pHYs", b""),
        critical=critical,
    )


def decode(png: Png) -> np.ndarray:
    """The stored samples: uint8 or uint16 [H, W], or [H, W, samples]; of a palette the indices.

    Raises:
        ValueError: where there are fewer than the header says; decoders would fill some up with 0.
    """
    _check_whole(png)
    if png.bits == 16 and png.colour != GREY:
        return imagecodecs.png_decode(png.critical)
    with PIL.Image.open(io.BytesIO(png.critical), formats=["PNG"]) as image:
        image.load()
        samples = np.asarray(image)
    if png.colour == GREY and 1 < png.bits < 8:
        return samples // (255 // (2**png.bits - 1))
    return samples.astype(np.uint16 if png.bits == 16 else np.uint8)


def encode(samples: np.ndarray, bits: int, density: bytes = b"", description: str = "") -> bytes:
    """A PNG file of grey [H, W] or RGB [H, W, 3] samples below 2 ** bits.

    Args:
        samples: unsigned integers.
        bits: 1, 2, 4, 8 or 16; fewer than 8 for grey only.
        density: the content of the chunk pHYs, empty for none.
        description: of where the image comes from.
    """
    height, width = samples.shape[:2]
    colour = RGB if samples.ndim == 3 else GREY
    if bits == 16:
        rows = np.ascontiguousarray(samples, ">u2").view(np.uint8).reshape(height, -1)
    elif bits == 8:
        rows = np.ascontiguousarray(samples, np.uint8).reshape(height, -1)
    else:
        places = np.arange(bits)[::-1]
        each = samples[..., None].astype(np.uint8) >> places & 1
        rows = np.packbits(each.reshape(height, -1), axis=1)
    # the filter "Up": each byte less the one above it, which compresses better
    above = np.concatenate([np.zeros_like(rows[:1]), rows[:-1]])
    filtered = np.insert(rows - above, 0, 2, axis=1)
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = [_chunk(b"IHDR", header)]
    if density:
        chunks.append(_chunk(b"pHYs", density))
    if description:  # neither compressed nor translated
        chunks.append(_chunk(b"iTXt", b"Description" + bytes(5) + description.encode()))
    chunks.append(_chunk(b"IDAT", zlib.compress(filtered.tobytes(), 6)))
    return b"".join([_SIGNATURE, *chunks, _chunk(b"IEND", b"")])


def _check_whole(png: Png) -> None:
    height, width = png.shape
    wanted = 0
    for top, left, down, across in _ADAM7 if png.critical[_INTERLACE] else ((0, 0, 1, 1),):
        rows, columns = -(-(height - top) // down), -(-(width - left) // across)
        if columns > 0:  # a row has a byte for its filter
            wanted += rows * (1 + -(-columns * png.bits * _SAMPLES[png.colour] // 8))
    stream = b"".join(data for kind, data in _chunks(png.critical) if kind == b"IDAT")
    held = len(zlib.decompressobj().decompress(stream, wanted))
    if held < wanted:
        raise ValueError(f"a truncated PNG: expected {wanted} bytes of rows. Received: {held}")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    """Pairs (kind, data) up to the end of the image."""
    if not content.startswith(_SIGNATURE):
        raise ValueError("expected a PNG file, by its content. Received: another or a damaged one")
    found: list[tuple[bytes, bytes]] = []
    place = len(_SIGNATURE)
    while not found or found[-1][0] != b"IEND":
        if len(content) < place + 12:
            raise ValueError("a truncated PNG: expected the chunk IEND. Received: the file's end")
        (length,) = struct.unpack_from(">I", content, place)
        kind, data = content[place + 4 : place + 8], content[place + 8 : place + 8 + length]
        check = content[place + 8 + length : place + 12 + length]
        # those whose first letter is small do not make the pixels
        is_whole = check == struct.pack(">I", zlib.crc32(kind + data))
        if not is_whole and (kind[0] < 97 or len(check) < 4):
            raise ValueError(f"a damaged PNG: the checksum of a chunk is wrong. Received: {kind!r}")
        if is_whole:
            found.append((kind, data))
        place += 12 + length
    return found
