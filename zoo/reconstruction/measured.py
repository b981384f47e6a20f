"""Measurements with their operators: of a data set, and of the user's own files.

An own file is NPY with the measurement alone, or NPZ or HDF5 with it under the name `measured`, and
perhaps `maps`, complex `[coils, H, W]` (`zoo.physics.coils` estimates them), and `trajectory` in
1/mm, `[..., 2]`. Its shape is that of the operator (`zoo.physics.tomography`, `zoo.physics.mri`),
or with a dimension of slices before. A YAML file of the same name beside it says the geometry:
`kind`, and the arguments of the operator:

    parallel       size, spacing_mm, perhaps detector_mm; half a turn, or angles_deg; perhaps
                   slice_mm, from one slice to the next
    fan            size, spacing_mm, detector_mm, source_mm, source_to_detector_mm; a whole turn, or
                   angles_deg; perhaps slice_mm
    cartesian      none: what is zero in all slices and coils was not measured
    non_cartesian  size (H, W) and spacing_mm, and a `trajectory` in the file

HDF5 in the layout of ISMRMRD says all that itself (`zoo.reconstruction.ismrmrd_file`).
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml

from zoo.physics import coils, mri, radon, tomography
from zoo.physics.fourier import from_channels
from zoo.physics.operators import Operator
from zoo.reconstruction import ismrmrd_file

SUFFIXES = (".npy", ".npz", ".h5", ".hdf5")
_NAMES = ("measured", "maps", "trajectory")
_FIELDS = {
    "parallel": {"size", "spacing_mm", "detector_mm", "angles_deg", "slice_mm"},
    "fan": {
        "size",
        "spacing_mm",
        "detector_mm",
        "source_mm",
        "source_to_detector_mm",
        "angles_deg",
        "slice_mm",
    },
    "cartesian": set(),
    "non_cartesian": {"size", "spacing_mm"},
}
_OPTIONAL = {
    "parallel": {"detector_mm", "angles_deg", "slice_mm"},
    "fan": {"angles_deg", "slice_mm"},
}
_EXPECTED = {
    ("non_cartesian", "size"): "two whole numbers",
    ("", "size"): "a whole number",
    ("", "angles_deg"): "numbers",
    ("", "slice_mm"): "a number above 0",
}


def of_file(path: Path) -> tuple[np.ndarray, Operator]:
    """The measurements of a file, one a slice, and their operator.

    Returns:
        `[slices, *operator.range_shape]`, and the operator.

    Raises:
        ValueError: for another kind of file, or a geometry that is not as described.
        OSError: for a file that is missing.
    """
    arrays = _arrays(path)
    kind, fields = _geometry(path)
    fields.pop("slice_mm", None)
    try:
        return _with_operator(kind, fields, arrays)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error


def of_input(path: Path) -> tuple[int, Iterator[tuple[np.ndarray, Operator]]]:
    """How many measurements a file has, and each with its operator, as `of_file`; or of ISMRMRD.

    An image of ISMRMRD that several coils measured has maps of its own, estimated from the middle
    of k-space.

    Raises:
        ValueError, OSError: as `of_file`, and `zoo.reconstruction.ismrmrd_file.read`.
    """
    if path.suffix.lower() in SUFFIXES[2:] and ismrmrd_file.is_ismrmrd(path):
        kspaces = ismrmrd_file.read(path)
        return len(kspaces), _of_kspace(iter(kspaces))
    values, operator = of_file(path)
    return len(values), ((one, operator) for one in values)


def slice_distance(path: Path) -> float | None:
    """From one slice of a file of sinograms to the next, in mm; None where it is not stated.

    Raises:
        ValueError, OSError: as `of_file`.
    """
    return _geometry(path)[1].get("slice_mm")


def _geometry(path: Path) -> tuple[str, dict[str, Any]]:
    """Kind and other fields of the YAML file beside a measurement."""
    beside = path.with_suffix(".yaml")
    if not beside.is_file():
        raise FileNotFoundError(
            f"{beside}: expected the geometry of {path.name}. Received: no file"
        )
    try:
        fields = yaml.safe_load(beside.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{beside.name}: expected YAML. Received: {_line(error)}") from error
    kind = fields.pop("kind", None) if isinstance(fields, dict) else None
    if not isinstance(kind, str) or kind not in _FIELDS:
        raise ValueError(f"{beside.name}: expected kind {', '.join(_FIELDS)}. Received: {kind}")
    needed = _FIELDS[kind] - _OPTIONAL.get(kind, set())
    if not needed <= set(fields) <= _FIELDS[kind]:
        raise ValueError(
            f"{beside.name}: expected of {kind} {', '.join(sorted(_FIELDS[kind])) or 'no field'}. "
            f"Received: {', '.join(sorted(map(str, fields))) or 'none'}"
        )
    for field, value in fields.items():
        expected = _EXPECTED.get((kind, field)) or _EXPECTED.get(("", field), "a number")
        if not _is_number(value, expected):
            raise ValueError(f"{beside.name}: expected {expected} as {field}. Received: {value}")
    return kind, fields


def of_examples(builder: Any, examples: Iterator[dict]) -> Iterator[tuple[dict, Any, Operator]]:
    """The examples of a data set of sinograms or k-space, each with measurement and operator.

    Raises:
        ValueError: for a data set of other images.
    """
    metadata = dict(builder.info.metadata or {})
    if metadata.get("source", {}).get("unit") == "line integral":
        beam = tomography.ParallelBeam(**metadata["parallel_beam"])
        for example in examples:
            yield example, example["source"][..., 0], beam
        return
    if builder.name != "mri_recon":
        raise ValueError(
            "dataset: expected sinograms of ct_recon or k-space of mri_recon. "
            f"Received: {builder.info.full_name}"
        )
    examples, same = itertools.tee(examples)
    found = _of_kspace(_kspace(example["source"]) for example in same)
    for example, (kspace, operator) in zip(examples, found, strict=True):
        yield example, kspace, operator


def noise_of(builder: Any, measured: np.ndarray) -> float | np.ndarray:
    """The `sigma` of a measurement of a data set whose config knows it.

    Args:
        builder: of the data set; its config's `deviation` is asked.
        measured: as of `of_examples`.

    Raises:
        ValueError: for a data set that does not know.
    """
    deviation = getattr(builder.builder_config, "deviation", None)
    found = deviation(measured) if deviation else None
    if found is None:
        raise ValueError(
            f"sigma: expected a number: {builder.info.full_name} does not know its noise. "
            "Received: data"
        )
    return found


def in_unit(image: np.ndarray, unit: str = "HU") -> np.ndarray:
    """Attenuation in HU, or as LoDoPaB-CT has it; of complex signal the magnitude."""
    if np.iscomplexobj(image):
        return np.abs(image).astype(np.float32)
    if unit == "normalised attenuation":
        return (image / 0.08135858).astype(np.float32)  # of 3071 HU, in 1/mm
    return radon.attenuation_to_hu(image)


def _kspace(source: np.ndarray) -> np.ndarray:
    """Pairs of channels `[H, W, 2 coils]` as complex `[coils, H, W]`."""
    height, width, channels = source.shape
    return from_channels(source.reshape(height, width, channels // 2, 2).transpose(2, 0, 1, 3))


def _of_kspace(kspaces: Iterator[np.ndarray]) -> Iterator[tuple[np.ndarray, mri.CartesianMRI]]:
    """K-space `[coils, H, W]`, of one coil without that dimension, with its operator."""
    before: mri.CartesianMRI | None = None
    for each in kspaces:
        kspace, operator = _cartesian(each if len(each) > 1 else each[0])
        # One operator for what is measured alike: its graphs are made once.
        same = before and before.maps is None is operator.maps
        if before is None or not same or not np.array_equal(before.mask, operator.mask):
            before = operator
        yield kspace, before


def _arrays(path: Path) -> dict[str, np.ndarray]:
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path.name}: expected {', '.join(SUFFIXES)}. Received: {path.suffix}")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a measurement. Received: no file")
    try:
        if path.suffix.lower() == ".npy":
            return {"measured": np.load(path, allow_pickle=False)}
        if path.suffix.lower() == ".npz":
            with np.load(path, allow_pickle=False) as file:
                found = {name: file[name] for name in _NAMES if name in file}
        else:
            with h5py.File(path) as file:
                found = {name: file[name][()] for name in _NAMES if name in file}
    except (OSError, ValueError, EOFError, TypeError) as error:
        raise ValueError(f"{path.name}: expected a readable file. Received: {error}") from error
    if "measured" not in found:
        raise ValueError(f"{path.name}: expected an array `measured`. Received: none")
    return found


def _with_operator(kind: str, fields: dict, arrays: dict) -> tuple[np.ndarray, Operator]:
    """Measurements `[slices, …]` and the operator of a geometry."""
    measured, maps = arrays["measured"], arrays.get("maps")
    # Numbers at all.
    for name, array in arrays.items():
        if array.dtype.kind not in "iufc" or not array.size or not np.isfinite(array).all():
            received = f"{array.dtype} {array.shape}"
            raise ValueError(f"{name}: expected finite values. Received: {received}, or others")
    # The operator that fits them.
    if kind == "cartesian":
        _check_kspace(measured, 2 if maps is None else 3)
        slices = measured.reshape(-1, *measured.shape[-2 if maps is None else -3 :])
        seen = np.abs(slices).sum(tuple(range(slices.ndim - 2))) > 0
        return slices, mri.CartesianMRI(seen, maps=maps)
    if kind == "non_cartesian":
        if "trajectory" not in arrays:
            raise ValueError("trajectory: expected an array beside `measured`. Received: none")
        size = tuple(fields["size"])
        operator: Operator = mri.NonCartesianMRI(
            size, fields["spacing_mm"], arrays["trajectory"], maps
        )
        _check_kspace(measured, len(operator.range_shape))
        if measured.shape[-len(operator.range_shape) :] != operator.range_shape:
            raise ValueError(
                f"measured: expected shape {operator.range_shape}, or slices before. "
                f"Received: {measured.shape}"
            )
        return measured.reshape(-1, *operator.range_shape), operator
    if measured.ndim not in (2, 3) or np.iscomplexobj(measured):
        raise ValueError(
            "measured: expected real (views, detectors), or slices before. "
            f"Received: {measured.dtype} {measured.shape}"
        )
    views, detectors = measured.shape[-2:]
    angles = fields.pop("angles_deg", None)
    if angles is not None and len(angles) != views:
        raise ValueError(f"angles_deg: expected {views} angles. Received: {len(angles)}")
    turn = views if angles is None else np.deg2rad(angles)
    beam = tomography.ParallelBeam if kind == "parallel" else tomography.FanBeam
    return measured.reshape(-1, views, detectors), beam(views=turn, detectors=detectors, **fields)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _check_kspace(measured: np.ndarray, rank: int) -> None:
    if not np.iscomplexobj(measured):
        received = f"{measured.dtype} {measured.shape}"
        raise ValueError(f"measured: expected complex k-space. Received: {received}")
    if measured.ndim not in (rank, rank + 1):
        raise ValueError(
            f"measured: expected {rank} dimensions, of coils with `maps`, or slices before. "
            f"Received: shape {measured.shape}"
        )


def _is_number(value: Any, expected: str) -> bool:
    """Whether a field is what `_EXPECTED` says, and finite."""
    if expected == "numbers":
        return isinstance(value, list) and all(_is_number(each, "a number") for each in value)
    if expected == "two whole numbers":
        whole = isinstance(value, list) and len(value) == 2
        return whole and all(_is_number(each, "a whole number") for each in value)
    if expected == "a number above 0":
        return _is_number(value, "a number") and value > 0
    known = int if expected == "a whole number" else (int, float)
    return isinstance(value, known) and not isinstance(value, bool) and abs(value) < np.inf


def _cartesian(kspace: np.ndarray) -> tuple[np.ndarray, mri.CartesianMRI]:
    """K-space `[H, W]`, or of coils `[coils, H, W]` whose maps are estimated, and its operator."""
    if kspace.ndim == 2:
        return kspace, mri.CartesianMRI(np.abs(kspace) > 0)
    calibration = min(24, *kspace.shape[1:])
    maps = coils.espirit(kspace, calibration)
    return kspace, mri.CartesianMRI(np.abs(kspace).sum(0) > 0, maps=maps)
