"""Full mammograms of CBIS-DDSM as the NBIA Data Retriever stores them. Imports no TensorFlow."""

import csv
import dataclasses
import hashlib
import pathlib
import re
from typing import Any

import numpy as np
import pydicom

TABLES = {
    "train": ("mass_case_description_train_set.csv", "calc_case_description_train_set.csv"),
    "test": ("mass_case_description_test_set.csv", "calc_case_description_test_set.csv"),
}
_FOLDER = re.compile(r"(Mass|Calc)-(Training|Test)_P_\d+_(LEFT|RIGHT)_(CC|MLO)")


@dataclasses.dataclass(frozen=True)
class Case:
    """One full mammogram: its DICOM file and what the tables say of it."""

    file: pathlib.Path
    patient: str  # P_00001: the collection's own pseudonym
    laterality: str  # L or R
    view: str  # CC or MLO

    @property
    def name(self) -> str:
        return f"{self.patient}_{self.laterality}_{self.view}"


def example(case: Case, size: int) -> dict[str, Any]:
    """A case as the data set's example: image, patient, name, laterality, view."""
    return {
        "image": read_mammogram(case.file, size),
        "patient": case.patient,
        "name": case.name,
        "laterality": case.laterality,
        "view": case.view,
    }


def split_cases(root: pathlib.Path) -> dict[str, list[Case]]:
    """The mammograms of each split; no patient is in two splits.

    The official split holds within the mass tables and within the calcification tables, but a
    patient may be in the training table of one and the test table of the other: such a patient
    is a test patient here, with all images of both tables. Every tenth training patient (by a
    hash of the identifier) validates.

    Args:
        root: folder that holds the four tables and, at most two folders further down, the image
            folders `Mass-Training_P_00001_LEFT_CC` …

    Returns:
        {"train", "validation", "test"}: cases sorted by name; one per patient, side and view.

    Raises:
        FileNotFoundError: a table or the image of a listed case is not there.
        ValueError: a table has no such columns.
    """
    root = pathlib.Path(root)
    tables = {split: [_read(root / name) for name in names] for split, names in TABLES.items()}
    tests = {row["patient_id"] for rows in tables["test"] for row in rows}
    folders = _image_folders(root)
    splits: dict[str, dict[str, Case]] = {"train": {}, "validation": {}, "test": {}}
    for rows in (*tables["train"], *tables["test"]):
        for row in rows:
            patient = row["patient_id"]
            if patient in tests:
                split = "test"
            else:
                split = (
                    "train" if hashlib.sha256(patient.encode()).digest()[0] % 10 else "validation"
                )
            case = Case(
                file=_image_file(row["image file path"], folders, root),
                patient=patient,
                laterality=row["left or right breast"][0],
                view=row["image view"],
            )
            # The tables have one row a finding, so an image may come again.
            splits[split].setdefault(case.name, case)
    return {split: [cases[name] for name in sorted(cases)] for split, cases in splits.items()}


def _read(table: pathlib.Path) -> list[dict[str, str]]:
    if not table.is_file():
        raise FileNotFoundError(f"CBIS-DDSM table: expected the file {table}. Received: no file")
    with open(table, newline="", encoding="utf-8-sig") as lines:
        rows = [{k: (v or "").strip() for k, v in row.items()} for row in csv.DictReader(lines)]
    needed = {"patient_id", "left or right breast", "image view", "image file path"}
    if not rows or needed - rows[0].keys():
        raise ValueError(
            f"{table.name}: expected rows with the columns {sorted(needed)}. "
            f"Received: {sorted(rows[0]) if rows else 'no rows'}"
        )
    return rows


def _image_folders(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """Image folders by name: directly in `root`, in CBIS-DDSM/ or in manifest-…/CBIS-DDSM/."""
    found = {}
    for pattern in ("*", "*/*", "*/*/*"):
        for path in root.glob(pattern):
            if _FOLDER.fullmatch(path.name) and path.is_dir():
                found.setdefault(path.name, path)
    return found


def _image_file(listed: str, folders: dict[str, pathlib.Path], root: pathlib.Path) -> pathlib.Path:
    """The DICOM file of a row.

    The tables name it by UIDs (`<folder>/<study UID>/<series UID>/000000.dcm`) that the NBIA
    layout (`<folder>/<date>-DDSM-…/1.000000-full mammogram images-…/1-1.dcm`) does not keep; the
    folder is common to both and holds the full mammogram alone (masks and crops have `_1`, `_2`).
    """
    name = listed.split("/")[0]
    files = sorted(folders[name].rglob("*.dcm")) if name in folders else []
    if len(files) != 1:
        raise FileNotFoundError(
            f"CBIS-DDSM image: expected one DICOM file in a folder {name} below {root}. "
            f"Received: {len(files)} files"
        )
    return files[0]


def read_mammogram(file: pathlib.Path, size: int) -> np.ndarray:
    """Reads a mammogram, reduces it by area averages and pads it to a square.

    Args:
        file: single-frame greyscale DICOM file, up to 16 bits.
        size: height and width of the result; the longer side of the image fills it.

    Returns:
        uint16 [size, size, 1], bright tissue on dark, after RescaleSlope and RescaleIntercept;
        filled with 0 below, and beside the image on the side away from the chest wall.

    Raises:
        ValueError: the file is not a single greyscale frame.
    """
    data = pydicom.dcmread(file)
    pixels = data.pixel_array.astype(np.float64)
    if pixels.ndim != 2:
        raise ValueError(f"{file.name}: expected one grey frame [H, W]. Received: {pixels.shape}")
    if data.PhotometricInterpretation == "MONOCHROME1":  # low values are shown bright
        pixels = 2**data.BitsStored - 1 - pixels
    pixels = pixels * float(data.get("RescaleSlope", 1)) + float(data.get("RescaleIntercept", 0))
    scale = size / max(pixels.shape)
    height, width = (max(round(n * scale), 1) for n in pixels.shape)
    small = area_resize(pixels, height, width)
    half = width // 2
    chest_left = small[:, :half].sum() >= small[:, width - half :].sum()
    square = np.zeros((size, size))
    square[:height, slice(0, width) if chest_left else slice(size - width, size)] = small
    return np.round(square.clip(0, 65535)).astype(np.uint16)[..., None]


def area_resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Exact area averages: every output pixel is the mean of the rectangle it covers.

    Args:
        image: [H, W] numbers.
        height: output rows.
        width: output columns.

    Returns:
        float64 [height, width] with the mean of `image`.
    """
    for count in (height, width):  # rows, transpose, columns, transpose
        total = np.concatenate([np.zeros((1, image.shape[1])), np.cumsum(image, 0)])
        edges = np.linspace(0, len(image), count + 1)
        low = np.minimum(edges.astype(int), len(image) - 1)
        part = (edges - low)[:, None]
        at_edges = total[low] * (1 - part) + total[low + 1] * part
        image = (np.diff(at_edges, axis=0) * (count / len(image))).T
    return image
