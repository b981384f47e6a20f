"""FreeSurfer's MGH and MGZ volumes, read and written plane by plane."""

import dataclasses
import itertools
from pathlib import Path
from typing import ClassVar

import numpy as np
from nibabel.freesurfer import mghformat

from zoo.errors import contained
from zoo.imaging import geometry
from zoo.imaging.oriented import Oriented, Output
from zoo.imaging.voxels import Voxels, codec_of, head, in_order, named_codec, save, tail

SUFFIXES = (".mgz", ".mgh", ".mgh.gz")

_TYPES = {0: ">u1", 1: ">i4", 3: ">f4", 4: ">i2", 10: ">u2"}
_FOOTER = mghformat.footer_dtype.itemsize  # TR, flip angle, TE, TI, FOV; then free text
_LARGEST_FOOTER = 1 << 24


@dataclasses.dataclass(frozen=True, kw_only=True)
class MghVolume(Oriented):
    """An MGH volume of 2 or 3 dimensions."""

    kind: ClassVar[str] = "mgh"

    def _save(self, path: Path, output: Output) -> None:
        planes, dtype, description, anonymous, finer = output
        header = _header(self.paths[0])
        footer = tail(self.voxels, _LARGEST_FOOTER)
        codes = {np.dtype(stored): code for code, stored in _TYPES.items()}
        if finer != (1, 1, 1):
            # the centre that is stored is of index n / 2, half a voxel beside the volume's own
            place = _affine(header) @ geometry.to_coarse(finer)
            header["dims"][:3] *= finer
            header["delta"] /= finer
            header["Pxyz_c"] = (place @ [*header["dims"][:3] / 2, 1])[:3]
        header["type"] = codes[dtype.newbyteorder(">")]
        start = header.tobytes().ljust(mghformat.DATA_OFFSET, b"\0")
        end = footer[:_FOOTER] if anonymous else footer
        parts = itertools.chain([start], in_order(planes, dtype.newbyteorder(">")), [end])
        save(path, named_codec(path), parts)


@contained("cannot be read")
def open_volume(path: Path, name: str) -> MghVolume:
    """The volume in the file at `path`.

    Raises:
        ValueError: for a damaged file, several frames, and voxels of a type that is not read.
    """
    header = _header(path)
    dims = [int(side) for side in header["dims"]]
    if int(header["version"]) != 1:
        raise ValueError(f"version: expected 1 (MGH). Received: {int(header['version'])}")
    if min(dims[:3]) < 1 or dims[3] not in (0, 1):
        raise ValueError(f"dims: expected a volume of one frame. Received: {dims}")
    if int(header["type"]) not in _TYPES:
        raise ValueError(f"type: expected one of {sorted(_TYPES)}. Received: {int(header['type'])}")
    codec, offset = codec_of(path), mghformat.DATA_OFFSET
    voxels = Voxels(
        path=path,
        shape=tuple(dims[:3]),
        dtype=np.dtype(_TYPES[int(header["type"])]).str,
        codec=codec,
        **({"offset": offset} if codec else {"start": offset}),
    )
    # without the flag the axes mean nothing
    place = _affine(header) if header["goodRASFlag"] == 1 else None
    return MghVolume.stored(path, name, voxels, place, header["delta"].astype(np.float64))


def _header(path: Path) -> np.ndarray:
    """The header's fields, a scalar of nibabel's dtype."""
    content = head(path, mghformat.header_dtype.itemsize)
    if len(content) < mghformat.header_dtype.itemsize:
        raise ValueError(
            f"header: expected {mghformat.DATA_OFFSET} bytes. Received: {len(content)}"
        )
    return np.frombuffer(content, mghformat.header_dtype)[0].copy()


def _affine(header: np.ndarray) -> np.ndarray:
    """[4, 4], indices to mm (right, front, up); the middle of the sides is at `Pxyz_c`."""
    affine = np.eye(4)
    affine[:3, :3] = header["Mdc"].T.astype(np.float64) * header["delta"]
    affine[:3, 3] = header["Pxyz_c"] - affine[:3, :3] @ (header["dims"][:3] / 2)
    return affine
