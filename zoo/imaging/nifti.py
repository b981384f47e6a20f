"""NIfTI-1 and NIfTI-2, as one file or as a pair, and Analyze 7.5; read and written plane by plane.

An Analyze file does not say how it lies in the patient: programs have never agreed on it.
"""

import contextlib
import dataclasses
import itertools
import re
import struct
from pathlib import Path
from typing import ClassVar

import nibabel
import numpy as np

from zoo.errors import contained
from zoo.imaging import geometry
from zoo.imaging.oriented import Oriented, Output
from zoo.imaging.volume import NOT_AN_IMAGE
from zoo.imaging.voxels import Voxels, codec_of, head, in_order, named_codec, save

SUFFIXES = (".nii", ".nii.gz", ".hdr", ".hdr.gz", ".img", ".img.gz")

_LARGEST_HEADER = 1 << 26  # bytes, with extensions
_MILLIMETRES = {1: 1e3, 2: 1.0, 3: 1e-3}  # by the code of a unit of space
_TEXTS = (
    *("data_type", "db_name", "descrip", "aux_file", "intent_name"),
    # of Analyze
    *("generated", "scannum", "patient_id", "exp_date", "exp_time", "originator"),
)
_ANALYZE = nibabel.spm2analyze.Spm2AnalyzeHeader  # its fields are a superset


@dataclasses.dataclass(frozen=True, kw_only=True)
class NiftiVolume(Oriented):
    """A NIfTI or Analyze volume of 2 or 3 dimensions."""

    kind: ClassVar[str] = "nifti"

    def files(self, path: Path) -> list[Path]:
        """See `Volume.files`."""
        return [path, path.with_name(_renamed(path, "img"))] if self.companions else [path]

    def _save(self, path: Path, output: Output) -> None:
        planes, dtype, description, anonymous, finer = output
        header, extensions = _header(self.paths[0])
        header.set_data_dtype(dtype)
        if anonymous:
            extensions = extensions and b"\0" * 4  # Analyze has none
            for field in set(_TEXTS) & set(header.keys()):
                header[field] = np.zeros_like(header[field])
        if finer != (1, 1, 1):
            _refine(header, finer)
        # what the values mean
        header["scl_slope"] = 1.0
        if isinstance(header, nibabel.Nifti1Header):
            header["scl_inter"] = 0.0
            if np.issubdtype(dtype, np.integer):
                header.set_intent("label")
        header["cal_min"] = header["cal_max"] = 0  # described the input's intensities
        header["descrip"] = description.encode("ascii", "replace")[:79]
        voxels = in_order(planes, header.get_data_dtype())  # with the header's byte order
        if not self.companions:
            header["vox_offset"] = header.template_dtype.itemsize + len(extensions)
            parts = itertools.chain([header.binaryblock, extensions], voxels)
            save(path, named_codec(path), parts)
            return
        header["vox_offset"] = 0
        _, data = self.files(path)
        save(data, named_codec(data), voxels)
        save(path, named_codec(path), [header.binaryblock, extensions])


@contained("cannot be read")
def open_volume(path: Path, name: str) -> NiftiVolume:
    """The volume in the file at `path`, or in the pair whose header it is.

    Raises:
        ValueError: for a damaged file, colour or complex voxels, more than 3 dimensions, and the
            voxels of a pair, whose header is the volume.
    """
    if re.search(r"\.img(\.gz)?$", path.name, re.IGNORECASE):
        described = _beside(path, "hdr", "header").name
        raise ValueError(f"{NOT_AN_IMAGE}: the voxels of {described}")
    # the header, and the file of the voxels
    header, _ = _header(path)
    data = path if getattr(header, "is_single", False) else _beside(path, "img", "voxels")
    shape, dtype, offset = _shape(header), _dtype(header), _offset(header)
    slope, intercept = _scaling(header)
    codec = codec_of(data)
    voxels = Voxels(
        path=data,
        shape=shape,
        dtype=dtype.str,
        codec=codec,
        slope=slope,
        intercept=intercept,
        **({"offset": offset} if codec else {"start": offset}),
    )
    # where they lie
    factor = 1.0
    if isinstance(header, nibabel.Nifti1Header):
        factor = _MILLIMETRES.get(int(header["xyzt_units"]) & 7, 1.0)
    place = _place(header, factor)
    steps = header["pixdim"][1:4].astype(np.float64) * factor
    steps[int(header["dim"][0]) :] = 0.0
    return NiftiVolume.stored(path, name, voxels, place, steps)


def _header(path: Path) -> tuple[nibabel.analyze.AnalyzeHeader, bytes]:
    """A file's header, not yet believed, and the bytes of its extensions as they are."""
    is_single = not re.search(r"\.hdr(\.gz)?$", path.name, re.IGNORECASE)
    start = head(path, 544)
    sizes = {form: struct.unpack(f"{form}i", start[:4])[0] for form in "<>" if len(start) >= 4}
    order = next((form for form, size in sizes.items() if size in (348, 540)), "")
    size = sizes.get(order, 0)
    if not order or len(start) < size:
        received = f"{sizes.get('<', 'none')} in {len(start)} bytes"
        raise ValueError(f"sizeof_hdr: expected 348 or 540 (NIfTI). Received: {received}")
    magic = start[344:348] if size == 348 else start[4:8]
    kinds = {
        b"n+1\0": nibabel.Nifti1Header,
        b"ni1\0": nibabel.nifti1.Nifti1PairHeader,
        b"n+2\0": nibabel.Nifti2Header,
        b"ni2\0": nibabel.nifti2.Nifti2PairHeader,
    }
    kind = kinds.get(magic, None if is_single or size != 348 else _ANALYZE)
    if kind is None or getattr(kind, "is_single", False) != is_single:
        expected = "n+1 or n+2" if is_single else "ni1 or ni2, as of a pair"
        raise ValueError(f"magic: expected {expected}. Received: {magic!r}")
    header = kind(start[:size], order, check=False)
    if kind is _ANALYZE:
        return header, b""
    end = _offset(header) if is_single else _LARGEST_HEADER
    extensions = head(path, end)[size:]
    _check_extensions(extensions, order)
    return header, extensions or b"\0" * 4


def _check_extensions(content: bytes, order: str) -> None:
    """Raises a ValueError where their sizes do not lead to the end of what is there."""
    place = 4
    while content[:1] not in (b"", b"\0") and place + 16 <= len(content):
        size = struct.unpack(f"{order}i", content[place : place + 4])[0]
        if not 8 <= size <= len(content) - place:
            raise ValueError(
                f"esize: expected an extension of 8 to {len(content) - place} bytes. "
                f"Received: {size}"
            )
        place += size


def _shape(header: nibabel.analyze.AnalyzeHeader) -> tuple[int, ...]:
    dim = [int(side) for side in header["dim"]]
    sides = dim[1 : dim[0] + 1]
    while len(sides) > 3 and sides[-1] == 1:
        sides.pop()
    if not 1 <= dim[0] <= 7 or len(sides) not in (2, 3) or min(sides) < 1:
        raise ValueError(f"dim: expected a volume of 2 or 3 dimensions. Received: {dim}")
    return (*sides, 1)[:3]


def _dtype(header: nibabel.analyze.AnalyzeHeader) -> np.dtype:
    code = int(header["datatype"])
    try:
        dtype = header.get_data_dtype()
    except KeyError:
        raise ValueError(f"datatype: expected a code of the format. Received: {code}") from None
    if dtype.kind not in "iuf" or not dtype.itemsize:
        raise ValueError(f"datatype: expected integer or real voxels. Received: {dtype}")
    return dtype


def _offset(header: nibabel.analyze.AnalyzeHeader) -> int:
    offset = float(header["vox_offset"])
    least, most = 0, 2**62
    if isinstance(header, nibabel.Nifti1Header) and header.is_single:
        least, most = header.single_vox_offset, _LARGEST_HEADER
    if offset == 0:  # not set
        return least
    if not offset.is_integer() or not least <= offset <= most:
        expected = f"{least} to {most}" if least else "0 or more"
        raise ValueError(f"vox_offset: expected {expected}. Received: {offset:g}")
    return int(offset)


def _scaling(header: nibabel.analyze.AnalyzeHeader) -> tuple[float, float]:
    """Slope and intercept; a slope of 0 or NaN says that there are none."""
    if isinstance(header, _ANALYZE):
        slope, intercept = header.get_slope_inter()
        return (1.0, 0.0) if slope is None else (float(slope), float(intercept or 0.0))
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or np.isnan(slope):
        return 1.0, 0.0
    if not np.isfinite([slope, intercept]).all():
        raise ValueError(
            f"scl_slope, scl_inter: expected finite numbers. Received: {slope:g}, {intercept:g}"
        )
    return slope, intercept


def _place(header: nibabel.analyze.AnalyzeHeader, factor: float) -> np.ndarray | None:
    """The affine to millimetres of the transform that the codes declare valid, if one is.

    A form of zeros was never filled in, whatever its code.
    """
    if not isinstance(header, nibabel.Nifti1Header):
        return None
    affine = None
    if header["sform_code"] > 0 and header.get_sform()[:3, :3].any():
        affine = header.get_sform()
    elif header["qform_code"] > 0:
        affine = _qform(header)
    return None if affine is None else np.diag([factor, factor, factor, 1.0]) @ affine


def _qform(header: nibabel.Nifti1Header) -> np.ndarray:
    header = header.copy()
    header["pixdim"][0] = -1.0 if header["pixdim"][0] < 0 else 1.0  # 0 means 1
    header["pixdim"][1:4] = np.abs(header["pixdim"][1:4])
    if header["dim"][0] == 2 and not header["pixdim"][3] > 0:
        header["pixdim"][3] = 1.0
    try:
        return header.get_qform()
    except ValueError as error:
        parts = [float(header[f"quatern_{axis}"]) for axis in "bcd"]
        raise ValueError(
            f"quatern_b, quatern_c, quatern_d: expected a rotation. Received: {parts}"
        ) from error


def _refine(header: nibabel.analyze.AnalyzeHeader, finer: tuple[int, ...]) -> None:
    """Makes a header that of a finer grid whose voxels lie in those of the old one."""
    sides = header["dim"][1:4].astype(np.int64) * finer
    largest = np.iinfo(header["dim"].dtype).max
    if sides.max() > largest:
        raise ValueError(f"dim: expected up to {largest} voxels. Received: {sides.tolist()}")
    if isinstance(header, nibabel.Nifti1Header):
        # Both transforms, whichever of them the codes declare valid.
        sform, step = header.get_sform(), geometry.to_coarse(finer)
        for name, row in zip(("srow_x", "srow_y", "srow_z"), sform @ step, strict=False):
            header[name] = row
        # never filled in
        with contextlib.suppress(nibabel.spatialimages.HeaderDataError, ValueError):
            for axis, value in enumerate((_qform(header) @ step)[:3, 3]):
                header["qoffset_" + "xyz"[axis]] = value
        if finer[2] > 1:  # the times of the old slices
            for field in ("slice_start", "slice_end", "slice_code", "slice_duration"):
                header[field] = 0
    header["dim"][1:4] = sides
    header["pixdim"][1:4] /= finer


def _renamed(path: Path, kind: str) -> str:
    """The name of the other file of a pair."""
    return re.sub(r"\.(hdr|img)(?=(\.gz)?$)", f".{kind}", path.name, flags=re.IGNORECASE)


def _beside(path: Path, kind: str, what: str) -> Path:
    """The other file of a pair, compressed or not, in any case; `what` is in it."""
    stem = re.sub(r"\.(hdr|img)(\.gz)?$", "", path.name, flags=re.IGNORECASE)
    for suffix in (kind, f"{kind}.gz", kind.upper(), f"{kind}.gz".upper()):
        other = path.with_name(f"{stem}.{suffix}")
        if other.is_file():
            return other
    raise ValueError(f"{what}: expected {_renamed(path, kind)} beside it. Received: none")
