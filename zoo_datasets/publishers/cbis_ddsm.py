"""Mammograms and lesions of CBIS-DDSM as the NBIA Data Retriever stores them."""

import csv
import hashlib
import pathlib
import re
from typing import Any

import numpy as np
import pydicom

from zoo_datasets.cases import SPLITS, Case, Examples
from zoo_datasets.sources import reading

TABLES = {
    "train": ("mass_case_description_train_set.csv", "calc_case_description_train_set.csv"),
    "test": ("mass_case_description_test_set.csv", "calc_case_description_test_set.csv"),
}
_MANUAL = """
From https://www.cancerimagingarchive.net/collection/cbis-ddsm/ (CC BY 3.0, no registration):
1. Download the four tables into `manual_dir`: mass_case_description_train_set.csv,
   mass_case_description_test_set.csv, calc_case_description_train_set.csv,
   calc_case_description_test_set.csv.
2. Download the images with the NBIA Data Retriever, "Descriptive Directory Name" or "Classic
   Directory Name": {images}.
   Move its folder CBIS-DDSM (or the folder manifest-... around it) into `manual_dir`, so that there
   is {tree}
"""
MANUAL = _MANUAL.format(
    images='the four "Full Mammogram Images" downloads (about 130 GB, hours)',
    tree="manual_dir/CBIS-DDSM/Mass-Training_P_00001_LEFT_CC/<study>/<series>/1-1.dcm",
)
MANUAL_LESIONS = _MANUAL.format(
    images='the four "ROI and Cropped Images" downloads (about 35 GB, hours)',
    tree="manual_dir/CBIS-DDSM/Mass-Training_P_00001_LEFT_CC_1/<study>/<series>/1-1.dcm"
    "\n   and 1-2.dcm, in one series or in two",
)
PATHOLOGIES = ("BENIGN", "BENIGN_WITHOUT_CALLBACK", "MALIGNANT")
_FOLDER = re.compile(r"(Mass|Calc)-(Training|Test)_P_\d+_(LEFT|RIGHT)_(CC|MLO)(_\d+)?")


def find(root: pathlib.Path) -> dict[str, list[Case]]:
    """The mammograms of each split; no patient is in two splits.

    The official split holds within the mass tables and within the calcification tables, but a
    patient may be in the training table of one and the test table of the other: such a patient
    is a test patient here, with all images of both tables. Every tenth training patient (by a
    hash of the identifier) validates.

    Args:
        root: folder that holds the four tables and, at most two folders further down, the image
            folders `Mass-Training_P_00001_LEFT_CC` …

    Returns:
        {"train", "validation", "test"}: cases sorted by key; one per patient, side and view.

    Raises:
        FileNotFoundError: a table or the image of a listed case is not there.
        ValueError: a table has no such columns.
    """
    root = pathlib.Path(root)
    folders = _image_folders(root)
    splits: dict[str, list[Case]] = {split: [] for split in SPLITS}
    seen = set()
    for split, row in _rows(root):
        case = _case(row, {})
        if case.key not in seen:  # one row a finding: an image may come again
            seen.add(case.key)
            case.files["image"] = _image_file(row["image file path"], folders, root)
            splits[split].append(case)
    return _sorted(splits)


def find_lesions(root: pathlib.Path) -> dict[str, list[Case]]:
    """The lesions of each split, as `find` splits the mammograms.

    Args:
        root: as for `find`; the image folders are `Mass-Training_P_00001_LEFT_CC_1` …, each with
            the cropped image and the mask of one finding.

    Returns:
        {"train", "validation", "test"}: cases sorted by key, with the two files as "pair".

    Raises:
        FileNotFoundError: a table, or a file of a listed finding is not there.
        ValueError: a table has no such columns, or names an unknown pathology.
    """
    root = pathlib.Path(root)
    folders = _image_folders(root)
    splits: dict[str, dict[str, Case]] = {split: {} for split in SPLITS}
    for split, row in _rows(root):
        if row["pathology"] not in PATHOLOGIES:
            raise ValueError(
                f"CBIS-DDSM table: expected a pathology of {PATHOLOGIES}. "
                f"Received: {row['pathology']!r} for {row['patient_id']}"
            )
        kind = row["abnormality type"].split()[0]  # "mass", "calcification"
        case = _case(row, {"pathology": row["pathology"], "kind": kind})
        name = row["cropped image file path"].split("/")[0]
        found = sorted(folders[name].rglob("*.dcm")) if name in folders else []
        if len(found) != 2:
            raise FileNotFoundError(
                f"CBIS-DDSM lesion: expected the cropped image and the mask, two DICOM files, in a "
                f"folder {name} below {root}. Received: {len(found)} files"
            )
        case.files["pair"] = found
        key = f"{case.key}_{kind}_{row['abnormality id']}"
        splits[split][key] = Case(key=key, patient=case.patient, files=case.files, facts=case.facts)
    return _sorted({split: list(cases.values()) for split, cases in splits.items()})


def _sorted(splits: dict[str, list[Case]]) -> dict[str, list[Case]]:
    return {split: sorted(cases, key=lambda case: case.key) for split, cases in splits.items()}


def read(case: Case, config: Any) -> Examples:
    """A mammogram as the data set's example: image, patient, name, laterality, view."""
    image = read_mammogram(case.files["image"], config.size)
    yield case.example(case.key, image=image, **_texts(case))


def read_lesion(case: Case, config: Any) -> Examples:
    """The crop of a lesion as the data set's example, with its pathology as the label."""
    pixels = _cropped(case.files["pair"])
    yield case.example(
        case.key,
        image=fitted(pixels, config.size),
        label=case.facts["pathology"],
        kind=case.facts["kind"],
        **_texts(case),
    )


def _texts(case: Case) -> dict[str, str]:
    return {name: case.facts[name] for name in ("laterality", "view")}


def _case(row: dict[str, str], facts: dict[str, str]) -> Case:
    laterality, view = row["left or right breast"][0], row["image view"]
    return Case(
        key=f"{row['patient_id']}_{laterality}_{view}",
        patient=row["patient_id"],
        facts={"laterality": laterality, "view": view} | facts,
    )


def _rows(root: pathlib.Path) -> list[tuple[str, dict[str, str]]]:
    """The rows of all tables with the split of their patients."""
    training, testing = [], []
    for name in TABLES["train"]:
        training += _read(root / name)
    for name in TABLES["test"]:
        testing += _read(root / name)
    tests = {row["patient_id"] for row in testing}

    def split(patient: str) -> str:
        if patient in tests:
            return "test"
        return "train" if hashlib.sha256(patient.encode()).digest()[0] % 10 else "validation"

    return [(split(row["patient_id"]), row) for row in training + testing]


def _stripped(row: dict[str, str | None]) -> dict[str, str]:
    return {column: (value or "").strip() for column, value in row.items()}


def _read(table: pathlib.Path) -> list[dict[str, str]]:
    if not table.is_file():
        raise FileNotFoundError(f"CBIS-DDSM table: expected the file {table}. Received: no file")
    with open(table, newline="", encoding="utf-8-sig") as lines:
        rows = list(map(_stripped, csv.DictReader(lines)))
    needed = {
        "patient_id",
        "left or right breast",
        "image view",
        "image file path",
        "cropped image file path",
        "abnormality id",
        "abnormality type",
        "pathology",
    }
    if not rows or needed - rows[0].keys():
        raise ValueError(
            f"{table.name}: expected rows with the columns {sorted(needed)}. "
            f"Received: {sorted(rows[0]) if rows else 'no rows'}"
        )
    return rows


def _image_folders(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """Image folders by name: directly in `root`, in CBIS-DDSM/ or in manifest-…/CBIS-DDSM/."""
    found: dict[str, pathlib.Path] = {}
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
    pixels, _ = _grey(file)
    scale = size / max(pixels.shape)
    height, width = (max(round(n * scale), 1) for n in pixels.shape)
    small = area_resize(pixels, height, width)
    half = width // 2
    chest_left = small[:, :half].sum() >= small[:, width - half :].sum()
    square = np.zeros((size, size))
    square[:height, slice(0, width) if chest_left else slice(size - width, size)] = small
    return np.round(square.clip(0, 65535)).astype(np.uint16)[..., None]


def _grey(file: pathlib.Path) -> tuple[np.ndarray, str]:
    """Pixels of a grey frame, float64 `[H, W]`, rescaled, bright tissue on dark; its description.

    Raises:
        ValueError: for another modality, for what is not a single grey frame or cannot be read.
    """
    name = f"{file.parent.name}/{file.name}"
    with reading(name):
        data = pydicom.dcmread(file)
        pixels = data.pixel_array.astype(np.float64)
    if data.get("Modality") != "MG":
        raise ValueError(f"{name}: expected modality MG. Received: {data.get('Modality')}")
    if pixels.ndim != 2:
        raise ValueError(f"{name}: expected one grey frame [H, W]. Received: {pixels.shape}")
    if data.PhotometricInterpretation == "MONOCHROME1":  # low values are shown bright
        pixels = 2**data.BitsStored - 1 - pixels
    slope, intercept = float(data.get("RescaleSlope", 1)), float(data.get("RescaleIntercept", 0))
    return pixels * slope + intercept, str(data.get("SeriesDescription", ""))


def _cropped(pair: list[pathlib.Path]) -> np.ndarray:
    """Pixels of that of the two files of a finding which is the cropped image.

    The tables swap the paths of crop and mask for many findings, and in some folders both are in
    one series, so the series' description decides only where it tells the two apart; otherwise a
    mask is what holds no more than two values.

    Raises:
        ValueError: where neither does.
    """
    files = [_grey(file) for file in pair]  # both: where the mask is broken, so is the finding
    crops = [pixels for pixels, description in files if "cropped" in description.lower()]
    if len(crops) != 1:
        crops = [pixels for pixels, _ in files if len(np.unique(pixels)) > 2]
    if len(crops) != 1:
        raise ValueError(
            f"{pair[0].parent.name}: expected a cropped image and a mask of two values. "
            f"Received: {len(crops)} images that are no mask"
        )
    return crops[0]


def fitted(image: np.ndarray, size: int) -> np.ndarray:
    """A crop in a square: scaled to its longer side, the shorter one continued as in a mirror.

    Args:
        image: [H, W] numbers.
        size: height and width of the result.

    Returns:
        uint16 [size, size, 1], the crop in the middle.
    """
    scale = size / max(image.shape)
    height, width = (max(round(n * scale), 1) for n in image.shape)
    small = area_resize(image, height, width)
    room = [((size - n) // 2, size - n - (size - n) // 2) for n in (height, width)]
    square = np.pad(small, room, mode="symmetric")
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
