"""PNG, TIFF, JPEG and NPY files. Their pixel values are the physical values: they name no unit.

- Values are those that the file stores: of a PNG or TIFF of 1, 2, 4 or 12 bits 0 ... 2 ** bits - 1.
  A TIFF whose least value is white is turned, so that more is brighter. Pictures that a TIFF or
  JPEG asks to be shown turned or mirrored are read as they are shown, and written so.
- A palette is colour, or grey where all its colours are; of a label map the indices are read
  (`Volume.as_labels`). An alpha channel is left out where all is opaque, and refused elsewhere.
- NPY arrays are [H, W] or stacks [N, H, W]. A last axis of 1 or 3 is channels (grey, RGB), where
  the one before it, then the width, is longer: [H, W, 1] and [H, W, 3] are one image, [N, H, W, 1]
  and [N, H, W, 3] stacks. Complex ones, without colours, are k-space.
"""

import dataclasses
import itertools
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import PIL.Image
import tifffile

from zoo.errors import contained
from zoo.imaging import geometry, png, tiff
from zoo.imaging.volume import Volume, check_size

PNG_SUFFIXES = (".png",)
TIFF_SUFFIXES = (".tif", ".tiff")
JPEG_SUFFIXES = (".jpg", ".jpeg")
ARRAY_SUFFIXES = (".npy",)
SUFFIXES = PNG_SUFFIXES + TIFF_SUFFIXES + JPEG_SUFFIXES + ARRAY_SUFFIXES


@dataclasses.dataclass(frozen=True, kw_only=True)
class RasterVolume(Volume):
    """A PNG or JPEG file, or a TIFF file whose pages are the slices.

    Attributes:
        dtype: NumPy type of the stored values: uint8, uint16, int16, float32 ...
        bits: of a stored value; values of an unsigned type are below 2 ** bits.
        indexed: whether the values are the indices of a palette, as class numbers are.
    """

    kind: ClassVar[str] = "raster"

    dtype: str = "uint8"
    bits: int = 8
    indexed: bool = False

    def read(self, index: int) -> np.ndarray:
        """See `Volume.read`."""
        self._check(index)
        with contained(f"{self.name}: unreadable image"):
            return _pixels(self.paths[0], index, self.indexed)[0].astype(np.float32)

    def as_labels(self) -> "RasterVolume":
        """See `Volume.as_labels`.

        Raises:
            ValueError: for JPEG, which changes numbers.
        """
        path = self.paths[0]
        if _suffix(path) in JPEG_SUFFIXES:
            raise ValueError("JPEG: expected a lossless format for a label map, such as PNG")
        with contained(f"{self.name}: unreadable image"):
            if _suffix(path) in PNG_SUFFIXES:
                has_palette = png.parse(path).colour == png.PALETTE
            else:
                is_tiff = _suffix(path) in TIFF_SUFFIXES
                has_palette = is_tiff and len(tiff.palette(tiff.file(path).pages.first)) > 0
        return dataclasses.replace(self, indexed=True, channels=1) if has_palette else self


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArrayVolume(Volume):
    """An NPY file, mapped into memory.

    Complex numbers are k-space and read as two channels, the real and the imaginary part.

    Attributes:
        stacked: whether the first axis is that of the slices.
        flat: whether there is a last axis of length 1, which is not read but written.
    """

    kind: ClassVar[str] = "array"

    stacked: bool = False
    flat: bool = False

    def read(self, index: int) -> np.ndarray:
        """See `Volume.read`."""
        self._check(index)
        with contained(f"{self.name}: unreadable NPY"):
            array = np.lib.format.open_memmap(self.paths[0], mode="r")
            plane = array[index] if self.stacked else array
            plane = plane[..., 0] if self.flat else plane
            if plane.dtype.kind == "c":
                return np.stack([plane.real, plane.imag], axis=-1).astype(np.float32)
            return np.array(plane, np.float32)


def open_volume(path: Path, name: str) -> Volume:
    """The volume in the PNG, TIFF, JPEG or NPY file at `path`.

    Raises:
        ValueError: for a damaged file, or pixels that are neither grey nor RGB.
    """
    with contained(f"unreadable {_suffix(path)[1:].upper()}"):
        if _suffix(path) in ARRAY_SUFFIXES:
            return _open_array(path, name)
        length = 1
        if _suffix(path) in TIFF_SUFFIXES:
            length = len(tiff.file(path).pages)
        # a file that is cut off is found now, not in the middle of a run
        values, bits = _pixels(path, 0)
        return RasterVolume(
            name=name,
            paths=(path,),
            length=length,
            shape=values.shape[:2],
            channels=values.shape[2] if values.ndim == 3 else 1,
            dtype=values.dtype.name,
            bits=bits,
        )


def _open_array(path: Path, name: str) -> ArrayVolume:
    array = np.lib.format.open_memmap(path, mode="r")
    shape, is_complex = array.shape, array.dtype.kind == "c"
    has_channels = array.ndim > 2 and shape[-1] in (1, 3) and shape[-2] > shape[-1]
    axes = array.ndim - has_channels
    colours = has_channels and shape[-1] == 3
    channels, unit = 1, "1"
    if is_complex:
        channels, unit = 2, "k-space"
    elif colours:
        channels = 3
    if array.dtype.kind not in "iufbc" or axes not in (2, 3) or (is_complex and colours):
        raise ValueError(
            "expected an array of numbers, [H, W] or [N, H, W], of real ones also with a last "
            f"axis of 1 or 3 channels. Received: {array.dtype} {list(shape)}"
        )
    if 0 in shape:
        raise ValueError(f"expected an array with numbers in it. Received: {list(shape)}")
    is_stack = axes == 3
    return ArrayVolume(
        name=name,
        paths=(path,),
        length=shape[0] if is_stack else 1,
        shape=shape[axes - 2 : axes],
        channels=channels,
        unit=unit,
        stacked=is_stack,
        flat=has_channels and not colours,
    )


def _pixels(path: Path, index: int, indexed: bool = False) -> tuple[np.ndarray, int]:
    """The values of a page as they are meant, [H, W] or [H, W, 3], and the bits of a value."""
    if _suffix(path) in JPEG_SUFFIXES:
        return _jpeg(path), 8
    if _suffix(path) in PNG_SUFFIXES:
        image = png.parse(path)
        samples, bits, palette = png.decode(image), image.bits, image.palette
        palette = palette if image.colour == png.PALETTE else palette[:0]
        if not indexed:
            _check_opaque_png(image, samples)
        orientation = 1
    else:
        page = tiff.page(tiff.file(path), index)
        samples, bits, palette = tiff.decode(page), page.bitspersample, tiff.palette(page)
        orientation = page.tags.valueof("Orientation", 1)
        if tiff.turned(page):
            samples = samples.dtype.type(2**bits - 1) - samples
    if samples.ndim == 3 and samples.shape[-1] in (2, 4):
        samples = _opaque(samples)
    if len(palette) and not indexed:
        if samples.max() >= len(palette):
            raise ValueError(
                f"expected indices of {len(palette)} colours. Received: {samples.max()}"
            )
        is_grey = (palette == palette[:, :1]).all()
        samples, bits = (palette[:, 0] if is_grey else palette)[samples], 8
    return _upright(samples, orientation), bits


def _jpeg(path: Path) -> np.ndarray:
    with PIL.Image.open(path, formats=["JPEG", "MPO"]) as image:
        if image.mode not in ("L", "RGB"):
            raise ValueError(f"expected grey or RGB pixels. Received: mode {image.mode}")
        check_size(image.width * image.height * len(image.mode), path.stat().st_size)
        image.load()
        orientation = image.getexif().get(274, 1)
        return _upright(np.asarray(image), orientation)


def _check_opaque_png(image: png.Png, samples: np.ndarray) -> None:
    """Refuses pixels that the chunk tRNS makes transparent."""
    if not image.transparent:
        return
    if image.colour == png.PALETTE:
        alpha = np.full(256, 255, np.uint8)
        alpha[: len(image.transparent)] = np.frombuffer(image.transparent, np.uint8)[:256]
        transparent = (alpha[samples] < 255).any()
    else:
        key = np.frombuffer(image.transparent, ">u2")
        transparent = (samples == key).reshape(*image.shape, -1).all(axis=-1).any()
    if transparent:
        raise ValueError("expected opaque pixels. Received: transparent ones")


def _opaque(samples: np.ndarray) -> np.ndarray:
    """Grey [H, W] or RGB [H, W, 3] without the last channel, alpha.

    Raises:
        ValueError: where something is not opaque.
    """
    alpha = samples[..., -1]
    whole = np.iinfo(alpha.dtype).max if alpha.dtype.kind in "iu" else 1
    if (alpha != whole).any():
        raise ValueError(f"expected opaque pixels. Received: alpha from {alpha.min()}")
    return samples[..., 0] if samples.shape[-1] == 2 else samples[..., :3]


def _upright(samples: np.ndarray, orientation: int) -> np.ndarray:
    """`samples` as they are shown by the tag Orientation (1 to 8) of TIFF and EXIF."""
    if orientation in (5, 6, 7, 8):
        samples = np.swapaxes(samples, 0, 1)
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    return samples


# Writing.


def write(
    volume: Volume,
    path: Path,
    slices: Iterable[tuple[int, np.ndarray]],
    grid: geometry.Grid = geometry.SAME,
    classes: int = 0,
    description: str = "",
) -> None:
    """Writes `slices` in the input's format and, of images, bit depth, polarity and resolution.

    Integer formats are rounded and saturated; NPY is float32. JPEG, which loses some of any image,
    is of quality 95 with colours at full resolution. Label maps are uint8, or uint16 from 257
    classes on; that of a JPEG file is PNG.

    Args:
        volume: the input.
        path: the file to write; its suffix plays no part.
        slices: pairs of (index, float32 [H, W] or [H, W, 3]), ascending, without gaps.
        grid: how much finer the output's grid is.
        classes: of a label map, the number of classes.
        description: of the origin, for all but NPY, which has no place for it.
    """
    labels = "uint8" if classes <= 256 else "uint16"
    if isinstance(volume, ArrayVolume):
        _write_array(volume, path, slices, grid, np.dtype(labels if classes else "float32"))
        return
    assert isinstance(volume, RasterVolume)  # the other kind
    dtype, bits = volume.dtype, volume.bits
    if classes:
        dtype, bits = labels, np.dtype(labels).itemsize * 8
    source = volume.paths[0]
    if _suffix(source) in TIFF_SUFFIXES:
        _write_pages(volume, path, slices, grid, dtype, bits, bool(classes), description)
        return
    ((_, data),) = slices
    image = saturate(data, dtype, bits)
    if _suffix(source) in JPEG_SUFFIXES and not classes:
        kept: dict[str, Any] = {"comment": description.encode()}
        with PIL.Image.open(source, formats=["JPEG", "MPO"]) as picture:
            if dots := picture.info.get("dpi"):
                kept["dpi"] = tuple(grid.scale * value for value in dots)
        PIL.Image.fromarray(image).save(path, "JPEG", quality=95, subsampling=0, **kept)
        return
    density = png.parse(source).density if _suffix(source) in PNG_SUFFIXES else b""
    # PNG has colours of 8 and 16 bits only
    depth = max(bits, 8) if image.ndim == 3 else bits
    path.write_bytes(png.encode(image, depth, _finer(density, grid.scale), description))


def _finer(density: bytes, scale: int) -> bytes:
    """The content of a PNG's chunk pHYs for pixels of 1 / scale the size, empty for a bad one."""
    if len(density) != 9:
        return b""
    across, down, unit = struct.unpack(">IIB", density)
    if max(across, down) * scale >= 2**31:
        return b""
    return struct.pack(">IIB", across * scale, down * scale, unit)


def _write_array(
    volume: ArrayVolume,
    path: Path,
    slices: Iterable[tuple[int, np.ndarray]],
    grid: geometry.Grid,
    dtype: np.dtype,
) -> None:
    slices = iter(slices)
    first = next(slices)
    # that of the image which a sinogram gives is another than its own
    shape = first[1].shape
    shape = (*shape, 1) if volume.flat and len(shape) == 2 else shape
    shape = (volume.length * grid.depth, *shape) if volume.stacked else shape
    header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for _, data in itertools.chain([first], slices):
            file.write(saturate(data, dtype).tobytes())


def _write_pages(
    volume: RasterVolume,
    path: Path,
    slices: Iterable[tuple[int, np.ndarray]],
    grid: geometry.Grid,
    dtype: str,
    bits: int,
    labels: bool,
    description: str,
) -> None:
    page = tiff.file(volume.paths[0]).pages.first
    # what is kept: the size of a pixel, which value is white, and the bits of a value
    kept: dict[str, Any] = {"compression": "deflate"}
    if "XResolution" in page.tags and page.resolutionunit in (2, 3):  # an inch, a centimetre
        across, down = page.resolution
        kept["resolution"] = (across * grid.scale, down * grid.scale)
        kept["resolutionunit"] = page.resolutionunit
    if bits % 8:
        kept["compression"], kept["bitspersample"] = None, bits
    is_turned = tiff.turned(page) and not labels
    # a classic TIFF file ends at 4 GiB
    pixels = int(np.prod(grid.shape(volume.shape))) * volume.channels
    size = np.dtype(dtype).itemsize * pixels * volume.length * grid.depth
    with tifffile.TiffWriter(path, bigtiff=size > 2**31) as file:
        for _, data in slices:
            image = saturate(data, dtype, bits)
            if is_turned and image.ndim == 2:
                image = image.dtype.type(2**bits - 1) - image
            grey = "miniswhite" if is_turned else "minisblack"
            file.write(
                image,
                photometric="rgb" if data.ndim == 3 else grey,
                contiguous=False,
                metadata=None,
                description=description.encode("ascii", "replace") or None,
                **kept,
            )


def saturate(array: np.ndarray, dtype: str | np.dtype, bits: int | None = None) -> np.ndarray:
    """`array` in `dtype`: rounded to the nearest integer and saturated, never wrapped.

    Of an unsigned type, to the largest integer of `bits`, where they are given.
    """
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        return array.astype(dtype)
    limits = np.iinfo(dtype)
    most = 2**bits - 1 if bits and dtype.kind == "u" else limits.max
    return np.clip(np.rint(array.astype(np.float64)), limits.min, most).astype(dtype)


def _suffix(path: Path) -> str:
    return path.suffix.lower()
