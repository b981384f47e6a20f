"""NRRD (.nrrd, .nhdr), the format of 3D Slicer and teem, read and written plane by plane.

Lines of text, and then the voxels, or the name of the file that holds them.
"""

import dataclasses
import re
from pathlib import Path
from typing import ClassVar

import numpy as np

from zoo.errors import contained
from zoo.imaging import geometry
from zoo.imaging.oriented import Oriented, Output
from zoo.imaging.voxels import Voxels, detached, joined, numbers, one_line, sides

SUFFIXES = (".nrrd", ".nhdr")

_LARGEST_HEADER = 1 << 20  # bytes
_TYPES = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int"), "i2"),
    **dict.fromkeys(("int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int"), "u2"),
    **dict.fromkeys(("uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long"), "i8"),
    **dict.fromkeys(("signed long long int", "int64", "int64_t"), "i8"),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int"), "u8"),
    **dict.fromkeys(("uint64", "uint64_t"), "u8"),
    **{"float": "f4", "double": "f8"},
}
_WRITTEN = {"f4": "float", "u1": "uint8", "i2": "int16"}
_SPACES = {
    **dict.fromkeys(("left-posterior-superior", "lps"), (-1.0, -1.0, 1.0)),
    **dict.fromkeys(("right-anterior-superior", "ras"), (1.0, 1.0, 1.0)),
    **dict.fromkeys(("left-anterior-superior", "las"), (-1.0, 1.0, 1.0)),
}
_MILLIMETRES = {"m": 1e3, "cm": 10.0, "mm": 1.0, "um": 1e-3, "µm": 1e-3}
_CODECS = {"raw": "", "gzip": "gzip", "gz": "gzip"}
_ALIASES = {"datafile": "data file", "lineskip": "line skip", "byteskip": "byte skip"}
# how the voxels are stored and where they lie; all other fields may be free text
_FIELDS = (
    "dimension", "type", "sizes", "encoding", "endian", "space", "space dimension",
    "space directions", "space origin", "space units", "spacings", "kinds", "centerings",
    "centers", "thicknesses", "measurement frame",
)  # fmt: skip
# said of the input's voxels, or of how its file was laid out
_DROPPED = (
    "content", "data file", "line skip", "byte skip", "min", "max", "old min", "old max",
    "oldmin", "oldmax", "number", "block size", "blocksize", "axis mins", "axismins",
    "axis maxs", "axismaxs",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class NrrdVolume(Oriented):
    """A NRRD of 2 or 3 dimensions."""

    kind: ClassVar[str] = "nrrd"

    def files(self, path: Path) -> list[Path]:
        """See `Volume.files`."""
        # beside SCAN.mhd, whose voxels are in SCAN.raw, there may be a SCAN.nhdr
        suffix = ".raw.gz" if self.voxels.codec else ".raw"
        return [path, path.with_name(path.name + suffix)] if self.companions else [path]

    def _save(self, path: Path, output: Output) -> None:
        planes, dtype, description, anonymous, finer = output
        magic, fields, remarks, _ = _header(self.paths[0])
        fields = {key: value for key, value in fields.items() if key not in _DROPPED}
        if anonymous:
            fields, remarks = {key: v for key, v in fields.items() if key in _FIELDS}, []
        if finer != (1, 1, 1):
            _refine(fields, self.voxels.shape, finer)
        fields["type"] = _WRITTEN[dtype.str[1:]]
        fields["endian"] = "little"
        if description:
            fields["content"] = one_line(description)
        lines = [f"{key}: {value}" for key, value in fields.items()] + remarks
        if self.companions:  # always the last
            lines.append(f"data file: {self.files(path)[-1].name}")
        self._save_text(path, "\n".join([magic, *lines, "", ""]), planes, dtype)


@contained("cannot be read")
def open_volume(path: Path, name: str) -> NrrdVolume:
    """The volume in the file at `path`, or of the header there.

    Raises:
        ValueError: for a damaged file, several channels, more than 3 dimensions, voxels written
            as text or in several files, and voxels that lie outside the header's folder.
    """
    # how they are stored
    _, fields, _, length = _header(path)
    count = _dimension(fields)
    shape = sides(fields.get("sizes", ""), count, "sizes")
    kind, encoding = fields.get("type", "").lower(), fields.get("encoding", "").lower()
    if kind not in _TYPES:
        raise ValueError(f"type: expected integers or real numbers. Received: {kind or 'none'}")
    if encoding not in _CODECS:
        raise ValueError(f"encoding: expected raw or gzip. Received: {encoding or 'none'}")
    kinds = fields.get("kinds", "").lower().split()
    wrong = [word for word in kinds if word not in ("domain", "space", "time", "???", "none")]
    if wrong:
        raise ValueError(f"kinds: expected one number a voxel. Received: {fields['kinds']}")
    order = {"little": "<", "big": ">"}.get(fields.get("endian", "").lower())
    if order is None and np.dtype(_TYPES[kind]).itemsize > 1:
        received = fields.get("endian", "none")
        raise ValueError(f"endian: expected little or big. Received: {received}")
    # behind the header, or in a file of their own
    data, start = path, length
    if "data file" in fields:
        data, start = detached(path, fields["data file"], "data file"), 0
    lines = int(numbers(fields.get("line skip", "0"), 1, "line skip")[0])
    skipped = int(numbers(fields.get("byte skip", "0"), 1, "byte skip")[0])
    voxels = Voxels(
        path=data,
        shape=shape,
        dtype=np.dtype((order or "<") + _TYPES[kind]).str,
        start=start,
        codec=_CODECS[encoding],
    )
    if lines or skipped < -1 or (skipped and voxels.codec):
        raise ValueError(
            f"line skip, byte skip: expected none, or bytes of raw voxels. "
            f"Received: {lines}, {skipped}"
        )
    if skipped == -1:
        voxels = voxels.at_end()
    else:
        voxels = dataclasses.replace(voxels, start=start + skipped)
    # where they lie
    place, steps = _place(fields, count)
    return NrrdVolume.stored(path, name, voxels, place, steps)


def _header(path: Path) -> tuple[str, dict[str, str], list[str], int]:
    """Its first line, fields in their order, other lines, and the byte behind the empty line."""
    fields: dict[str, str] = {}
    remarks: list[str] = []
    length = 0
    with open(path, "rb") as file:
        magic = file.readline(16)
        length += len(magic)
        if not re.fullmatch(rb"NRRD000[1-6]\r?\n", magic):
            raise ValueError(f"magic: expected NRRD0001 to NRRD0006. Received: {magic[:8]!r}")
        while length < _LARGEST_HEADER:
            line = file.readline(_LARGEST_HEADER)
            length += len(line)
            text = line.decode("utf-8", "surrogateescape").strip()
            field = re.match(r"([^#:][^:]*): (.*)", text)
            if not text:  # the end of a header that stands alone is that of the file
                return magic.decode().strip(), fields, remarks, length
            if field:
                key = field[1].strip().lower()
                fields[_ALIASES.get(key, key)] = field[2].strip()
            elif text.startswith("#") or ":=" in text:
                remarks.append(text)
            else:
                raise ValueError(
                    "header: expected lines of the form field: value, then an empty one. "
                    f"Received: {text[:40]!r}"
                )
    raise ValueError(f"header: expected up to {_LARGEST_HEADER} bytes. Received: more")


def _dimension(fields: dict[str, str]) -> int:
    if fields.get("dimension") not in ("2", "3"):
        raise ValueError(f"dimension: expected 2 or 3. Received: {fields.get('dimension', 'none')}")
    return int(fields["dimension"])


def _vectors(text: str, count: int, field: str) -> np.ndarray:
    """float64 `[count, 3]` of "(a,b,c) (d,e,f) …"."""
    found = re.findall(r"\(([^()]*)\)", text)
    if len(found) != count or re.sub(r"\([^()]*\)|\s", "", text):
        raise ValueError(f"{field}: expected {count} vector(s). Received: {text!r}")
    return np.stack([numbers(part.replace(",", " "), 3, field) for part in found])


def _place(fields: dict[str, str], count: int) -> tuple[np.ndarray | None, np.ndarray]:
    """The affine to mm (right, front, up), None where it is not known, and mm along the axes."""
    steps = np.zeros(3)
    units = set(re.findall(r'"([^"]*)"', fields.get("space units", "")))
    factor = _MILLIMETRES.get(units.pop(), 1.0) if len(units) == 1 else 1.0
    signs = _SPACES.get(fields.get("space", "").lower())
    if "space directions" in fields and (signs or fields.get("space dimension") == "3"):
        directions = _vectors(fields["space directions"], count, "space directions")
        steps[:count] = np.linalg.norm(directions, axis=1) * factor
        if signs is None or count == 2:
            return None, steps
        affine = np.eye(4)
        affine[:3, :3] = directions.T * factor
        if "space origin" in fields:
            origin = _vectors(fields["space origin"], 1, "space origin")[0]
            affine[:3, 3] = origin * factor
        return np.diag([*signs, 1.0]) @ affine, steps
    if "spacings" in fields:
        given = fields["spacings"].lower().replace("nan", "0")
        steps[:count] = np.abs(numbers(given, count, "spacings"))
    return None, steps


def _refine(fields: dict[str, str], shape: tuple[int, ...], finer: tuple[int, ...]) -> None:
    """Makes the fields those of a finer grid whose voxels lie in those of the old one."""
    count = _dimension(fields)
    finest = [side * n for side, n in zip(shape, finer, strict=True)]
    fields["sizes"] = " ".join(map(str, finest[:count]))
    for key in ("spacings", "thicknesses"):
        if key in fields:
            given = [float(part) for part in fields[key].split()]
            fields[key] = joined(np.array(given) / finer[: len(given)])
    if "space directions" in fields:
        directions = _vectors(fields["space directions"], count, "space directions")
        parts = directions / np.array(finer[:count])[:, None]
        fields["space directions"] = " ".join(f"({joined(part, ',')})" for part in parts)
        if "space origin" in fields:
            origin = _vectors(fields["space origin"], 1, "space origin")[0]
            moved = origin + geometry.to_coarse(finer)[:count, 3] @ directions
            fields["space origin"] = f"({joined(moved, ',')})"
