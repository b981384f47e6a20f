"""MetaImage (.mha, .mhd), ITK's own format, read and written plane by plane.

Lines of text, and then the voxels, or the name of the file that holds them. ITK's library reads
more kinds of them, but a damaged file can end the process in there, and it takes whole volumes
into memory.
"""

import dataclasses
from pathlib import Path
from typing import ClassVar

import numpy as np

from zoo.errors import contained
from zoo.imaging import geometry
from zoo.imaging.oriented import Oriented, Output
from zoo.imaging.voxels import SIZE, Voxels, detached, joined, numbers, one_line, sides

SUFFIXES = (".mha", ".mhd")

_LARGEST_HEADER = 1 << 20  # bytes
_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2",
    "MET_INT": "i4", "MET_UINT": "u4", "MET_LONG": "i4", "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip
# how the voxels are stored and where they lie; all other fields may be free text
_FIELDS = (
    "ObjectType", "ObjectSubType", "NDims", "BinaryData", "BinaryDataByteOrderMSB",
    "ElementByteOrderMSB", "CompressedData", "TransformMatrix", "Rotation", "Orientation",
    "Offset", "Position", "Origin", "CenterOfRotation", "AnatomicalOrientation", "ElementSpacing",
    "ElementSize", "DimSize", "Modality", "ElementNumberOfChannels", "ElementType",
)  # fmt: skip
# said of the input's voxels, or of how its file was laid out
_DROPPED = ("Comment", "CompressedDataSize", "HeaderSize", "ElementMin", "ElementMax")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MetaVolume(Oriented):
    """A MetaImage of 2 or 3 dimensions."""

    kind: ClassVar[str] = "metaimage"

    def files(self, path: Path) -> list[Path]:
        """See `Volume.files`."""
        data = path.with_suffix(".zraw" if self.voxels.codec else ".raw")
        return [path, data] if self.companions else [path]

    def _save(self, path: Path, output: Output) -> None:
        planes, dtype, description, anonymous, finer = output
        fields, _ = _header(self.paths[0])
        matrix, offset = _geometry(fields)
        # what stays true
        del fields["ElementDataFile"]
        for key in list(fields):
            if key in _DROPPED or (anonymous and key not in _FIELDS):
                del fields[key]
        # the finer grid
        if finer != (1, 1, 1):
            count = len(offset)
            shape = [side * n for side, n in zip(self.voxels.shape, finer, strict=True)]
            fields["DimSize"] = joined(shape[:count])
            for key in ("ElementSpacing", "ElementSize"):
                if key in fields:
                    fields[key] = joined(numbers(fields[key], count, key) / finer[:count])
            moved = offset + matrix @ geometry.to_coarse(finer)[:count, 3]
            fields[_one_of(fields, "Offset", "Position", "Origin") or "Offset"] = joined(moved)
        # how the voxels are stored
        for key in ("BinaryDataByteOrderMSB", "ElementByteOrderMSB"):
            if key in fields:
                fields[key] = "False"
        fields["ElementType"] = {code: name for name, code in _TYPES.items()}[dtype.str[1:]]
        if self.voxels.codec:
            fields["CompressedDataSize"] = SIZE.decode()
        if description:
            fields["Comment"] = one_line(description)
        # where the voxels are, which is always the last
        fields["ElementDataFile"] = self.files(path)[-1].name if self.companions else "LOCAL"
        text = "".join(f"{key} = {value}\n" for key, value in fields.items())
        self._save_text(path, text, planes, dtype)


@contained("cannot be read")
def open_volume(path: Path, name: str) -> MetaVolume:
    """The volume in the file at `path`, or of the header there.

    Raises:
        ValueError: for a damaged file, several channels, more than 3 dimensions, voxels written
            as text or in several files, and voxels that lie outside the header's folder.
    """
    # how they are stored
    fields, length = _header(path)
    matrix, offset = _geometry(fields)
    count = len(offset)
    if fields.get("ElementNumberOfChannels", "1") != "1":
        raise ValueError(
            f"ElementNumberOfChannels: expected 1. Received: {fields['ElementNumberOfChannels']}"
        )
    if not _is_true(fields.get("BinaryData", "True")):
        raise ValueError("BinaryData: expected True. Received: False")
    shape = sides(fields.get("DimSize", ""), count, "DimSize")
    kind = fields.get("ElementType", "")
    if kind not in _TYPES:
        raise ValueError(f"ElementType: expected one of {', '.join(_TYPES)}. Received: {kind}")
    big = _one_of(fields, "BinaryDataByteOrderMSB", "ElementByteOrderMSB")
    order = ">" if big and _is_true(fields[big]) else "<"
    # behind the header, or in a file of their own
    data, start = path, length
    if fields["ElementDataFile"].upper() != "LOCAL":
        data, start = detached(path, fields["ElementDataFile"], "ElementDataFile"), 0
    voxels = Voxels(
        path=data,
        shape=shape,
        dtype=np.dtype(order + _TYPES[kind]).str,
        start=start,
        codec="zlib" if _is_true(fields.get("CompressedData", "False")) else "",
    )
    skipped = int(numbers(fields.get("HeaderSize", "0"), 1, "HeaderSize")[0])
    if skipped == -1:
        voxels = voxels.at_end()
    elif skipped > 0:
        voxels = dataclasses.replace(voxels, start=start + skipped)
    # where they lie
    place = None
    if count == 3 and _one_of(fields, "TransformMatrix", "Rotation", "Orientation"):
        place = np.eye(4)
        place[:3, :3], place[:3, 3] = matrix, offset
        place = geometry.LPS @ place
    given = _one_of(fields, "ElementSpacing", "ElementSize")
    steps = [0.0] * 3
    if given:
        steps[:count] = np.abs(np.linalg.norm(matrix, axis=0))
    return MetaVolume.stored(path, name, voxels, place, steps)


def _header(path: Path) -> tuple[dict[str, str], int]:
    """The fields in their order, and the byte behind the last line."""
    fields: dict[str, str] = {}
    length = 0
    with open(path, "rb") as file:
        while length < _LARGEST_HEADER:
            line = file.readline(_LARGEST_HEADER)
            length += len(line)
            key, separator, value = line.decode("utf-8", "surrogateescape").partition("=")
            if not separator:
                raise ValueError(
                    f"header: expected lines of the form key = value, up to ElementDataFile. "
                    f"Received: {one_line(key)[:40]!r}"
                )
            fields[key.strip()] = value.strip()
            if key.strip() == "ElementDataFile" and value.strip():
                return fields, length
    raise ValueError(f"header: expected up to {_LARGEST_HEADER} bytes. Received: more")


def _geometry(fields: dict[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """[n, n] from indices to mm (left, back, up), with the spacing in it, and [n] of the first."""
    if fields.get("NDims") not in ("2", "3"):
        raise ValueError(f"NDims: expected 2 or 3. Received: {fields.get('NDims', 'none')}")
    count = int(fields["NDims"])
    spacing, offset, matrix = np.ones(count), np.zeros(count), np.eye(count)
    key = _one_of(fields, "ElementSpacing", "ElementSize")
    if key:
        spacing = numbers(fields[key], count, key)
        if not (spacing > 0).all():
            raise ValueError(f"{key}: expected numbers above 0. Received: {fields[key]}")
    key = _one_of(fields, "Offset", "Position", "Origin")
    if key:
        offset = numbers(fields[key], count, key)
    key = _one_of(fields, "TransformMatrix", "Rotation", "Orientation")
    if key:  # the direction of one axis after another
        matrix = numbers(fields[key], count * count, key).reshape(count, count).T
    return matrix * spacing, offset


def _one_of(fields: dict[str, str], *keys: str) -> str:
    return next((key for key in keys if key in fields), "")


def _is_true(text: str) -> bool:
    return text.lower() in ("true", "1", "t", "yes")
