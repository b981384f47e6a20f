"""The layout of LDCT-and-Projection-data as The Cancer Imaging Archive delivers it."""

import pathlib

import numpy as np
import pydicom

FULL, LOW = "Full Dose Images", "Low Dose Images"
_TOLERANCE = 0.1  # mm between the positions of two slices that count as the same


def patients(root: pathlib.Path) -> list[pathlib.Path]:
    """The patients' folders that hold both doses, sorted by name.

    Raises:
        FileNotFoundError: where there are none.
    """
    found = []
    for folder in sorted(p for p in root.glob("*") if p.is_dir()):
        if list(folder.glob(f"*/*{FULL}*")) and list(folder.glob(f"*/*{LOW}*")):
            found.append(folder)
    if not found:
        raise FileNotFoundError(
            f"manual directory: expected <patient>/<study>/*{FULL}*/*.dcm and "
            f"<patient>/<study>/*{LOW}*/*.dcm. Received: {root}"
        )
    return found


def split(folders: list[pathlib.Path]) -> dict[str, list[pathlib.Path]]:
    """Patients to train, validation and test: a tenth each for the last two, rounded up.

    Raises:
        ValueError: for fewer than three patients.
    """
    if len(folders) < 3:
        raise ValueError(
            f"manual directory: expected at least 3 patients, one a split. Received: {len(folders)}"
        )
    # Names carry the body part (C chest, L liver, N head): every tenth keeps the parts mixed.
    test = folders[9::10] or folders[-1:]
    validation = folders[4::10] if len(folders) > 5 else folders[-2:-1]
    train = [f for f in folders if f not in test and f not in validation]
    return {"train": train, "validation": validation, "test": test}


def pairs(folder: pathlib.Path):
    """Yield (index, low dose, full dose) of one patient, int16 HU `[H, W, 1]`, by position.

    Raises:
        ValueError: when the series differ in number, position or shape of their slices.
    """
    full, low = _series(folder, FULL), _series(folder, LOW)
    if len(full) != len(low):
        raise ValueError(
            f"{folder.name}: expected as many slices at full as at low dose. "
            f"Received: {len(full)} and {len(low)}"
        )
    for i, ((at, target), (there, source)) in enumerate(zip(full, low, strict=True)):
        if abs(at - there) > _TOLERANCE:
            raise ValueError(
                f"{folder.name}: expected slice {i} of both doses at one position. "
                f"Received: {at:.2f} mm at full dose, {there:.2f} mm at low dose"
            )
        source, target = _read(source), _read(target)
        if source.shape != target.shape:
            raise ValueError(
                f"{folder.name}: expected slice {i} of both doses to have one shape. "
                f"Received: {target.shape} at full dose, {source.shape} at low dose"
            )
        yield i, source, target


def _series(folder: pathlib.Path, kind: str) -> list[tuple[float, pathlib.Path]]:
    """(position along the slice normal in mm, file) of a series, sorted."""
    slices = []
    for path in folder.glob(f"*/*{kind}*/*.dcm"):
        header = pydicom.dcmread(path, stop_before_pixels=True)
        axes = np.asarray(header.ImageOrientationPatient, float)
        normal = np.cross(axes[:3], axes[3:])
        slices.append((float(normal @ np.asarray(header.ImagePositionPatient, float)), path))
    return sorted(slices)


def _read(path: pathlib.Path) -> np.ndarray:
    """HU `[H, W, 1]`, int16."""
    file = pydicom.dcmread(path)
    slope, intercept = float(file.get("RescaleSlope", 1)), float(file.get("RescaleIntercept", 0))
    hu = file.pixel_array.astype(np.float32) * slope + intercept
    return np.clip(np.rint(hu), -32768, 32767).astype(np.int16)[..., None]
