"""TIFF files as they are stored: their pages, and what their samples mean."""

import functools
import logging
import os
import struct
from pathlib import Path
from typing import cast

import numpy as np
import tifffile

from zoo.imaging.volume import check_size

# What it complains of is checked here, or raised by it as well.
logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)

_PHOTOMETRIC = tifffile.PHOTOMETRIC
_JPEG = (6, 7)  # compressions


def file(path: Path) -> tifffile.TiffFile:
    """The open file; its pages have been checked to be alike and whole.

    Raises:
        ValueError: for a damaged file, or pages that are neither grey nor RGB nor of a palette.
    """
    status = path.stat()
    return _opened(path, (status.st_mtime_ns, status.st_size))


@functools.lru_cache(maxsize=2)
def _opened(path: Path, stamp: tuple[int, int]) -> tifffile.TiffFile:
    """Kept open: to read slice after slice from a fresh start each would be quadratic."""
    count = _count(path)
    # metadata of these kinds may name other files, which would be opened, pipes too
    opened = tifffile.TiffFile(path, is_ome=False, is_mmstack=False, is_ndtiff=False)
    try:
        _check_pages(opened, count, stamp[1])
    except BaseException:
        opened.close()
        raise
    return opened


def page(opened: tifffile.TiffFile, number: int) -> tifffile.TiffPage:
    """Page `number`, from 0, of an open file."""
    return cast(tifffile.TiffPage, opened.pages.get(number))  # no TiffFrame, unless it is asked for


def _check_pages(opened: tifffile.TiffFile, count: int, size: int) -> None:
    first = opened.pages.first
    for number in range(count):
        other = page(opened, number)
        _check(other, size)
        if _kind(other) != _kind(first) or other.photometric != first.photometric:
            raise ValueError(
                f"expected pages alike. Received: page 0 of {_kind(first)}, "
                f"page {number} of {_kind(other)}"
            )
        if other.tags.valueof("Orientation", 1) != first.tags.valueof("Orientation", 1):
            raise ValueError("expected pages of one orientation. Received: several")
    if opened.series[0].size > np.prod(first.shape) * count:
        raise ValueError("expected one page for each slice. Received: slices without pages")


def decode(page: tifffile.TiffPage) -> np.ndarray:
    """The stored samples, [H, W] or [H, W, samples]; of a palette the indices."""
    samples = page.asarray(maxworkers=1)
    samples = np.moveaxis(samples, 0, -1) if page.axes == "SYX" else samples
    return samples.astype(np.uint8) if samples.dtype == bool else samples


def palette(page: tifffile.TiffPage) -> np.ndarray:
    """The colours of a page's palette, uint8 [colours, 3], none where it has none."""
    if page.photometric != _PHOTOMETRIC.PALETTE or page.colormap is None:
        return np.zeros([0, 3], np.uint8)
    colours = np.asarray(page.colormap).reshape(3, -1).T
    # of 16 bits, but old programs stored them with 8
    return (colours >> 8 if colours.max() > 255 else colours).astype(np.uint8)


def turned(page: tifffile.TiffPage) -> bool:
    """Whether the least value is white."""
    return page.photometric == _PHOTOMETRIC.MINISWHITE


def _kind(page: tifffile.TiffPage) -> str:
    photometric = getattr(page.photometric, "name", page.photometric)
    return f"{page.bitspersample} bits {page.dtype} {list(page.shape)} {photometric}"


def _check(page: tifffile.TiffPage, size: int) -> None:
    """Refuses a page that is not whole or not understood; `size` is the file's, in bytes."""
    shape, dtype, samples = page.shape, page.dtype, page.samplesperpixel
    # what the samples mean, and how many there may be, with alpha
    allowed: tuple[int, ...] = ()
    if page.photometric in (_PHOTOMETRIC.MINISBLACK, _PHOTOMETRIC.MINISWHITE):
        allowed = (1, 2)
    elif page.photometric == _PHOTOMETRIC.RGB:
        allowed = (3, 4)
    elif page.photometric == _PHOTOMETRIC.PALETTE and page.colormap is not None:
        allowed = (1,)
    elif page.photometric == _PHOTOMETRIC.YCBCR and page.compression in _JPEG:
        allowed = (3,)  # decoded to RGB
    is_plane = len(shape) == (2 if samples == 1 else 3) and page.axes in ("YX", "YXS", "SYX")
    is_known = is_plane and samples in allowed and isinstance(page.bitspersample, int)
    if dtype is None or dtype.kind not in "iufb" or not is_known or 0 in shape:
        raise ValueError(f"expected grey or RGB pages. Received: {_kind(page)}")
    if turned(page) and dtype.kind not in "ub":
        raise ValueError(f"WhiteIsZero: expected unsigned integers. Received: {dtype}")
    places = zip(page.dataoffsets, page.databytecounts, strict=True)
    if len(page.dataoffsets) != np.prod(page.chunked) or any(
        min(start, length) <= 0 or start + length > size for start, length in places
    ):
        raise ValueError("a truncated file: expected all pixels inside it. Received: some beyond")
    check_size(page.nbytes, sum(page.databytecounts))
    check_size(int(np.prod(page.chunks, dtype=object)) * dtype.itemsize, size)


def _count(path: Path) -> int:
    """The number of pages: image file directories, each of which points to the next.

    Raises:
        ValueError: where one points to an earlier one, or out of the file.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as opened:
        start = opened.read(16)
        order = {b"II": "<", b"MM": ">"}.get(start[:2])
        if order is None or len(start) < 16 or start[2:4].strip(b"\0") not in (b"*", b"+"):
            raise ValueError("expected a TIFF file, by its content. Received: another")
        # numbers of tags, and places in the file; a tag takes 12 bytes, in BigTIFF 20
        big = b"+" in start[2:4]
        count, place, tag = ("Q", "Q", 20) if big else ("H", "I", 12)
        at = struct.unpack_from(order + place, start, 8 if big else 4)[0]
        visited = set()
        while at:
            if at in visited:
                raise ValueError("a damaged TIFF: a page points back to one before it")
            visited.add(at)
            opened.seek(min(at, size))
            start = opened.read(struct.calcsize(count))
            number = struct.unpack(order + count, start)[0] if len(start) > 1 else size
            opened.seek(min(size, at + struct.calcsize(count) + tag * number))
            following = opened.read(struct.calcsize(place))
            if len(following) < struct.calcsize(place):
                raise ValueError("a truncated TIFF: a page points out of the file")
            at = struct.unpack(order + place, following)[0]
    if not visited:
        raise ValueError("expected a TIFF file with pages. Received: none")
    return len(visited)
