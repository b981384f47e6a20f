"""PNG, TIFF and NPY files. Their pixel values are the physical values: they name no unit.

Complex NPY files are k-space.
"""

import dataclasses
import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

import numpy as np
import PIL.Image
import PIL.PngImagePlugin
import tifffile

from zoo.imaging import geometry
from zoo.imaging.volume import Volume

PNG_SUFFIXES = (".png",)
TIFF_SUFFIXES = (".tif", ".tiff")
ARRAY_SUFFIXES = (".npy",)
SUFFIXES = PNG_SUFFIXES + TIFF_SUFFIXES + ARRAY_SUFFIXES


@dataclasses.dataclass(frozen=True, kw_only=True)
class RasterVolume(Volume):
    """A PNG file, or a TIFF file whose pages are the slices.

    Attributes:
        dtype: NumPy type of the stored values: uint8, uint16, int16, float32 ...
    """

    kind: ClassVar[str] = "raster"

    dtype: str = "uint8"

    def read(self, index: int) -> np.ndarray:
        """See `Volume.read`."""
        self._check(index)
        try:
            if self.paths[0].suffix.lower() in PNG_SUFFIXES:
                with PIL.Image.open(self.paths[0]) as image:
                    return np.asarray(image).astype(np.float32)
            return tifffile.imread(self.paths[0], key=index).astype(np.float32)
        except Exception as error:  # decoders raise errors of many types on damaged data
            raise ValueError(f"{self.name}: unreadable image: {error}") from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArrayVolume(Volume):
    """An NPY file that holds [H, W] or [N, H, W], mapped into memory.

    Complex numbers are k-space and read as two channels, the real and the imaginary part.
    """

    kind: ClassVar[str] = "array"

    def read(self, index: int) -> np.ndarray:
        """See `Volume.read`."""
        self._check(index)
        array = np.load(self.paths[0], mmap_mode="r", allow_pickle=False)
        plane = array[index] if array.ndim == 3 else array
        if plane.dtype.kind == "c":
            return np.stack([plane.real, plane.imag], axis=-1).astype(np.float32)
        return np.array(plane, np.float32)


def open_volume(path: Path, name: str) -> Volume:
    """The volume in the PNG, TIFF or NPY file at `path`.

    Raises:
        ValueError: for a damaged file, or pixels that are neither grey nor RGB.
    """
    suffix = path.suffix.lower()
    try:
        if suffix in ARRAY_SUFFIXES:
            return _open_array(path, name)
        return (_open_png if suffix in PNG_SUFFIXES else _open_tiff)(path, name)
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"unreadable {suffix[1:].upper()}: {error}") from error


def _open_array(path: Path, name: str) -> ArrayVolume:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.dtype.kind not in "iufbc" or array.ndim not in (2, 3) or 0 in array.shape:
        raise ValueError(
            "expected an array of numbers, [H, W] or [N, H, W]. "
            f"Received: {array.dtype} {list(array.shape)}"
        )
    length = array.shape[0] if array.ndim == 3 else 1
    shape = array.shape[-2:]
    if array.dtype.kind == "c":
        return ArrayVolume(
            name=name, paths=(path,), length=length, shape=shape, channels=2, unit="k-space"
        )
    return ArrayVolume(name=name, paths=(path,), length=length, shape=shape)


def _open_png(path: Path, name: str) -> RasterVolume:
    with PIL.Image.open(path) as image:
        image.load()  # a truncated file is found now, not in the middle of a run
        width, height = image.size
        mode = image.mode
    if mode == "RGB":
        return RasterVolume(name=name, paths=(path,), length=1, shape=(height, width), channels=3)
    if mode not in ("L", "I;16", "I;16B", "I"):
        raise ValueError(f"expected grey or RGB pixels of 8 or 16 bits. Received: mode {mode}")
    dtype = "uint8" if mode == "L" else "uint16"
    return RasterVolume(name=name, paths=(path,), length=1, shape=(height, width), dtype=dtype)


def _open_tiff(path: Path, name: str) -> RasterVolume:
    with tifffile.TiffFile(path) as file:
        pages = file.pages
        first = pages.first
        shape, dtype = first.shape, first.dtype
        channels = 3 if len(shape) == 3 and shape[-1] == 3 else 1
        if dtype is None or dtype.kind not in "iuf" or len(shape) != (3 if channels == 3 else 2):
            raise ValueError(f"expected grey or RGB pages. Received: {dtype} {list(shape)}")
        for number, page in enumerate(pages):
            if page.shape != shape or page.dtype != dtype:
                raise ValueError(
                    f"expected pages alike. Received: page 0 of {dtype} {list(shape)}, "
                    f"page {number} of {page.dtype} {list(page.shape)}"
                )
        if file.series[0].size > np.prod(shape) * len(pages):
            raise ValueError("expected one page for each slice. Received: slices without pages")
        return RasterVolume(
            name=name,
            paths=(path,),
            length=len(pages),
            shape=shape[:2],
            channels=channels,
            dtype=dtype.name,
        )


def write(
    volume: Volume,
    path: Path,
    slices: Iterable[tuple[int, np.ndarray]],
    grid: geometry.Grid = geometry.SAME,
    classes: int = 0,
    description: str = "",
) -> None:
    """Writes `slices` in the input's format and, for PNG and TIFF, bit depth and resolution.

    Integer formats are rounded and saturated; NPY is float32. Label maps are uint8, or uint16
    from 257 classes on.

    Args:
        volume: the input.
        path: the file to write; its suffix plays no part.
        slices: pairs of (index, float32 [H, W] or [H, W, 3]), ascending, without gaps.
        grid: how much finer the output's grid is.
        classes: of a label map, the number of classes.
        description: of the origin, for PNG and TIFF, which have a place for it.
    """
    labels = "uint8" if classes <= 256 else "uint16"
    if isinstance(volume, ArrayVolume):
        stack = np.load(volume.paths[0], mmap_mode="r", allow_pickle=False).ndim == 3
        slices = iter(slices)
        first = next(slices)
        shape = first[1].shape  # that of the image which a sinogram gives is another than its own
        shape = (volume.length * grid.depth, *shape) if stack else shape
        dtype = np.dtype(labels if classes else "float32")
        layout = {"descr": dtype.str, "fortran_order": False, "shape": shape}
        with open(path, "wb") as file:  # a mapped file on a full disk would end the process
            np.lib.format.write_array_header_1_0(file, layout)
            for _, data in itertools.chain([first], slices):
                file.write(saturate(data, dtype).tobytes())
        return
    dtype = labels if classes else volume.dtype
    if volume.paths[0].suffix.lower() in PNG_SUFFIXES:
        with PIL.Image.open(volume.paths[0]) as image:
            dots = image.info.get("dpi")
        kept = {"dpi": tuple(grid.scale * value for value in dots)} if dots else {}
        note = PIL.PngImagePlugin.PngInfo()
        note.add_itxt("Description", description)
        for _, data in slices:
            PIL.Image.fromarray(saturate(data, dtype)).save(
                path, format="PNG", pnginfo=note, **kept
            )
    else:
        _write_pages(volume, path, slices, grid, dtype, description)


def _write_pages(
    volume: RasterVolume,
    path: Path,
    slices: Iterable[tuple[int, np.ndarray]],
    grid: geometry.Grid,
    dtype: str,
    description: str,
) -> None:
    pixels = int(np.prod(grid.shape(volume.shape))) * volume.channels
    count = volume.length * grid.depth
    kept = {}
    with tifffile.TiffFile(volume.paths[0]) as file:
        page = file.pages.first
        if "XResolution" in page.tags and page.resolutionunit in (2, 3):  # an inch, a centimetre
            across, down = page.resolution
            kept["resolution"] = (across * grid.scale, down * grid.scale)
            kept["resolutionunit"] = page.resolutionunit
    # a classic TIFF file ends at 4 GiB
    big = np.dtype(dtype).itemsize * pixels * count > 2**31
    with tifffile.TiffWriter(path, bigtiff=bool(big)) as file:
        for _, data in slices:
            file.write(
                saturate(data, dtype),
                photometric="rgb" if data.ndim == 3 else "minisblack",
                compression="deflate",
                contiguous=False,
                metadata=None,
                description=description.encode("ascii", "replace") or None,
                **kept,
            )


def saturate(array: np.ndarray, dtype: str | np.dtype) -> np.ndarray:
    """`array` in `dtype`: rounded to the nearest integer and saturated, never wrapped."""
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        return array.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(np.float64(array)), limits.min, limits.max).astype(dtype)
