"""CT series of CPTAC-SAR (TCIA) with the noise of a quarter of the dose added to each slice.

The series lie in any tree of folders, one folder each, as the NBIA Data Retriever
(<patient>/<study>/<series>/1-001.dcm) and the Imaging Data Commons
(<patient>/<study>/CT_<series>/<instance>.dcm) write them. MR, pathology, scouts, reformatted
views and series of few slices lie beside them and are passed over.
"""

import hashlib
from pathlib import Path

import numpy as np
import pydicom

from zoo.physics import noise
from zoo_datasets import sources
from zoo_datasets.cases import Case, Examples, SourceConfig, by_patient, need
from zoo_datasets.publishers import volumes

DOSE = 0.25
_CHUNK = 8  # slices simulated at a time; part of what the noise follows from
_LEAST = 8  # slices: fewer are a scout or a bolus test


def find(root: Path) -> dict[str, list[Case]]:
    """The axial CT series, split by a hash of their patient.

    Raises:
        FileNotFoundError: where there is none.
    """
    folders: dict[Path, list[Path]] = {}
    for path in need(root, "**/*.dcm", "<patient>/<study>/<series>/*.dcm"):
        folders.setdefault(path.parent, []).append(path)
    cases = []
    for files in folders.values():
        if len(files) < _LEAST:
            continue
        header = _first_header(files)
        if header is None or not _is_axial_ct(header):
            continue
        uid, patient = str(header.SeriesInstanceUID), str(header.PatientID)
        key = f"{patient}-{hashlib.sha256(uid.encode()).hexdigest()[:8]}"
        facts = {"uid": uid}
        cases.append(Case(key=key, patient=patient, files={"ct": files}, facts=facts))
    if not cases:
        raise FileNotFoundError(
            f"manual directory {root}: expected folders of axial CT, at least {_LEAST} slices "
            f"each. Received: {len(folders)} folders of other DICOM files"
        )
    return by_patient(cases)


def read(case: Case, config: SourceConfig) -> Examples:
    """Pairs of int16 HU `[H, W, 1]`, the lowest slice first.

    The noise follows from the series' UID alone, whatever else is in the collection.

    Raises:
        ValueError: for files that are no evenly spaced CT series of square pixels.
    """
    try:
        scan = volumes.read_dicom(case.files["ct"], "CT")
    except ValueError as error:
        raise ValueError(f"{case.key}: {error}") from error
    _, row, column = scan.spacing
    if abs(row - column) > 1e-3 * row:
        raise ValueError(f"{case.key}: expected square pixels. Received: {row} x {column} mm")
    seed = int.from_bytes(hashlib.sha256(case.facts["uid"].encode()).digest()[:8], "big")
    for first in range(0, len(scan.values), _CHUNK):
        target = scan.values[first : first + _CHUNK]
        rng = np.random.default_rng([seed, first])
        source = noise.simulate_low_dose(target, row, DOSE, rng=rng)
        for i in range(len(target)):
            name = f"{case.key}-{first + i:04d}"
            yield case.example(
                name,
                source=volumes.to_int16(source[i])[..., None],
                target=volumes.to_int16(target[i])[..., None],
                spacing=(row, column),
            )


def _first_header(files: list[Path]) -> pydicom.Dataset | None:
    """The first header that can be read; a damaged file is for `read` to report."""
    for path in files:
        try:
            with sources.reading(path.name):
                header = pydicom.dcmread(path, stop_before_pixels=True)
        except ValueError:
            continue
        if header.get("SeriesInstanceUID") and header.get("PatientID"):
            return header
    return None


def _is_axial_ct(header: pydicom.Dataset) -> bool:
    axes = header.get("ImageOrientationPatient") or [0] * 6
    upwards = abs(np.cross(np.array(axes[:3], float), np.array(axes[3:], float))[2])
    kind = header.get("ImageType") or []
    # A projection over a slab shows no slice that a scanner could have measured.
    whole = not {"LOCALIZER", "PROJECTION IMAGE", "MIP"} & set(kind)
    return header.get("Modality") == "CT" and upwards > 0.99 and whole
