"""SynthRAD2023: magnetic resonance or cone-beam CT, planning CT and the body's mask of one patient.

The publisher's tree, as unpacked from Task1.zip (MR) and Task2.zip (cone beam):

    Task1/brain/1BA001/mr.nii.gz    ct.nii.gz  mask.nii.gz
    Task2/pelvis/2PC005/cbct.nii.gz ct.nii.gz  mask.nii.gz

A folder's name is task, region (B, P), centre (A, B, C) and number. All three volumes of a patient
are registered and on one grid. The challenge's validation and test sets came without CT, so
only its training set has pairs, and splits are hashed from the patient.
"""

from pathlib import Path
from typing import Any

import numpy as np

from zoo_datasets.cases import Case, Examples, SourceConfig, by_patient, need
from zoo_datasets.publishers.volumes import Scan, read_nifti, to_int16

HOMEPAGE = "https://doi.org/10.5281/zenodo.7260705"
LICENCE = "CC BY-NC 4.0"
LABELS = ("outside", "body")
SCALED = 1000.0  # what the 99th percentile of a patient's MR signal becomes
_AIR = -500.0  # a CT of a whole cross-section has values below this
_FILES = {1: "mr", 2: "cbct"}
_SIZES = {1: "14.5 GB", 2: "10 to 15 GB"}


def manual(task: int, region: str) -> str:
    """How to get the files of a task and region."""
    letter = region[0].upper()
    return f"""
From https://doi.org/10.5281/zenodo.7260705 (CC BY-NC 4.0: no commercial use; no registration):
1. Download Task{task}.zip (about {_SIZES[task]}, an hour or two). It holds brain and pelvis, 180
   patients each, from three hospitals.
2. Unpack it into `manual_dir`, so that there is
   manual_dir/Task{task}/{region}/{task}{letter}A001/{_FILES[task]}.nii.gz
   manual_dir/Task{task}/{region}/{task}{letter}A001/ct.nii.gz
   manual_dir/Task{task}/{region}/{task}{letter}A001/mask.nii.gz
   and so on for every patient. The folder "overview" is not read.
"""


def find(root: Path, task: int, region: str) -> dict[str, list[Case]]:
    """The patients of one task and region, in splits hashed from their names.

    Raises:
        FileNotFoundError: where there are none, or files of some are missing; names them.
    """
    letter = region[0].upper()
    names = f"Task{task}/{region}/{task}{letter}[A-Z][0-9]*"
    folders = [path for path in need(root, names, "folder of a patient") if path.is_dir()]
    roles = (_FILES[task], "ct", "mask")
    cases, missing = [], []
    for folder in folders:
        files = {role: folder / f"{role}.nii.gz" for role in roles}
        lost = [path.name for path in files.values() if not path.is_file()]
        missing += [f"{folder.name}/{name}" for name in lost]
        cases.append(Case(key=folder.name, patient=folder.name, files=files))
    if missing:
        raise FileNotFoundError(
            f"manual directory {root}: expected {', '.join(roles)} (.nii.gz) of every patient in "
            f"Task{task}/{region}. Received: {len(missing)} missing, {', '.join(missing[:3])}"
        )
    return by_patient(cases)


def read(case: Case, config: SourceConfig) -> Examples:
    """A patient's axial slices, those that the mask touches.

    Yields:
        "target" int16 HU; "source" int16 HU of a cone beam, or float32 signal of an MR, scaled so
        that its 99th percentile inside the mask is 1000, with the "scale" by which a multiplication
        gives the file's values back; "source_label" and "target_label", the mask; all `[H, W, 1]`.

    Raises:
        ValueError: for volumes that are not on one grid, a CT without air, an MR with negative
            values as a CT has them, and a mask that is not one of 0 and 1, or empty.
    """
    # Two scans and a mask of one grid.
    ct, mask = _scan(case, "ct"), _scan(case, "mask")
    name = "mr" if "mr" in case.files else "cbct"
    source = _scan(case, name)
    for other, scan in ((name, source), ("mask", mask)):
        if not scan.same_grid(ct):
            raise ValueError(
                f"{case.key}/{other}.nii.gz: expected the grid of ct.nii.gz, "
                f"{_grid(ct)}. Received: {_grid(scan)}"
            )
    if not np.isin(mask.values, (0.0, 1.0)).all() or not mask.values.any():
        raise ValueError(
            f"{case.key}/mask.nii.gz: expected 0 outside and 1 inside the body. "
            f"Received: {mask.values.min():g} to {mask.values.max():g}"
        )
    # Their values, as they are stored.
    body = mask.values > 0
    facts: dict[str, Any] = {"spacing": ct.spacing[1:]}
    if name == "mr":
        values, facts["scale"] = _scaled(case, source.values, body)
    else:
        values = to_int16(source.values)
    hu, labels = to_int16(ct.values), body.astype(np.uint8)[..., None]
    for i in np.flatnonzero(body.any((1, 2))).tolist():
        key = f"{case.key}-{i:04d}"
        yield case.example(
            key,
            source=values[i, ..., None],
            target=hu[i, ..., None],
            source_label=labels[i],
            target_label=labels[i],
            **facts,
        )


def _scan(case: Case, role: str) -> Scan:
    scan = read_nifti(case.files[role])
    least = float(scan.values.min())
    if role in ("ct", "cbct") and not least < _AIR:
        wanted = "HU, with air around the patient"
    elif role == "mr" and least < _AIR:
        wanted = "the signal of magnetic resonance"
    else:
        return scan
    raise ValueError(f"{case.key}/{role}.nii.gz: expected {wanted}. Received: {least:g} at least")


def _scaled(case: Case, values: np.ndarray, body: np.ndarray) -> tuple[np.ndarray, np.float32]:
    # Every centre and sequence has a gain of its own, and one window has to serve them all.
    scale = np.float32(np.percentile(values[body], 99) / SCALED)
    if not scale > 0:
        raise ValueError(f"{case.key}/mr.nii.gz: expected signal in the body. Received: none")
    return values / scale, scale


def _grid(scan: Scan) -> str:
    return (
        f"{' x '.join(map(str, scan.values.shape))} voxels of "
        f"{' x '.join(f'{mm:.4g}' for mm in scan.spacing)} mm"
    )
