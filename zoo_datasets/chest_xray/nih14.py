"""NIH ChestX-ray14 as its publisher ships it: PNG files, one table, two lists."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from zoo_datasets.cases import Case, Examples, by_patient, hashed_split, need
from zoo_datasets.sources import reading

SIZE = 1024  # rows and columns of every PNG
TABLE = "Data_Entry_2017_v2020.csv"
LISTS = ("train_val_list.txt", "test_list.txt")
NO_FINDING = "No Finding"
FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
# The table's columns by place: "OriginalImage[Width,Height]" makes two of one name.
_IMAGE, _FINDINGS, _PATIENT, _VIEW, _WIDTH, _HEIGHT, _X, _Y = 0, 1, 3, 6, 7, 8, 9, 10

MANUAL = """
From https://nihcc.app.box.com/v/ChestXray-NIHCC (NIH Clinical Center; free to use, with the
acknowledgement and citation that README_CHESTXRAY.pdf there asks for; no registration; 45 GB):
1. Download images_001.tar.gz … images_012.tar.gz (the folder's batch_download_zips.py fetches all;
   hours) and unpack each into a folder of its own in `manual_dir`, so that there are
   manual_dir/images_001/images/00000001_000.png … manual_dir/images_012/images/….png
   (files unpacked together into manual_dir/images/ do as well).
2. Put Data_Entry_2017_v2020.csv, train_val_list.txt and test_list.txt into `manual_dir`.
"""


def find(root: Path) -> dict[str, list[Case]]:
    """The radiographs of each split: the publisher's test list, and a tenth of the others' patients
    (by a hash of the identifier) for validation.

    Args:
        root: the folder that `MANUAL` describes.

    Raises:
        FileNotFoundError: a table, a list or a listed image is not there.
        ValueError: a table that is not the expected one, or an image that is in no list.
    """
    (table,) = need(root, TABLE, "the table of findings")
    lists = [need(root, name, "a list of the official split")[0] for name in LISTS]
    learning, testing = (set(path.read_text(encoding="utf-8").split()) for path in lists)
    images = {path.name: path for path in need(root, "images*/**/*.png", "the images")}
    cases = list(_cases(table, images))
    listed = {case.key for case in cases}
    missing = sorted(case.key for case in cases if case.files["image"] is None)
    if missing:
        raise FileNotFoundError(
            f"manual directory {root}: expected {len(cases)} images images_*/images/*.png, as "
            f"{TABLE} lists. Received: none for {len(missing)} of them, such as {missing[0]}.png"
        )
    unknown = sorted(key for key in listed if f"{key}.png" not in learning | testing)
    if unknown:
        raise ValueError(
            f"{' and '.join(LISTS)}: expected every image of {TABLE} in one of them. "
            f"Received: {len(unknown)} in none, such as {unknown[0]}.png"
        )
    test = {case.patient for case in cases if f"{case.key}.png" in testing}

    def split(patient: str) -> str:
        if patient in test:
            return "test"
        return "validation" if hashed_split(patient) == "validation" else "train"

    return by_patient(cases, split)


def _cases(table: Path, images: dict[str, Path]) -> Iterator[Case]:
    with open(table, newline="", encoding="utf-8-sig") as lines:
        # The head says whether it is NIH's table.
        rows = csv.reader(lines)
        head = next(rows, [])
        if head[:2] != ["Image Index", "Finding Labels"] or len(head) < _Y + 1:
            raise ValueError(
                f"{table.name}: expected the columns Image Index, Finding Labels … "
                f"OriginalImagePixelSpacing[x,y]. Received: {', '.join(head) or 'no rows'}"
            )
        # A row an image.
        for row in rows:
            if not row:
                continue
            if len(row) < _Y + 1:
                raise ValueError(
                    f"{table.name}: expected {_Y + 1} columns. Received: {len(row)} for {row[0]}"
                )
            findings = [f for f in row[_FINDINGS].split("|") if f != NO_FINDING]
            unknown = sorted(set(findings) - set(FINDINGS))
            if unknown:
                raise ValueError(
                    f"{table.name}: expected findings of {', '.join(FINDINGS)}. "
                    f"Received: {unknown[0]!r} for {row[_IMAGE]}"
                )
            # All images were brought to 1024 x 1024, whatever their sides were.
            spacing = (
                float(row[_Y]) * int(row[_HEIGHT]) / SIZE,
                float(row[_X]) * int(row[_WIDTH]) / SIZE,
            )
            yield Case(
                key=row[_IMAGE].removesuffix(".png"),
                patient=f"{int(row[_PATIENT]):08d}",
                files={"image": images.get(row[_IMAGE])},
                facts={"findings": findings, "view": row[_VIEW], "spacing": spacing},
            )


def read(case: Case, config: Any) -> Examples:
    """A radiograph as the data set's example."""
    yield case.example(
        case.key,
        image=read_grey(case.files["image"]),
        findings=case.facts["findings"],
        view=case.facts["view"],
        spacing=case.facts["spacing"],
    )


def read_grey(path: Path) -> np.ndarray:
    """Grey values of a PNG file, uint8 `[1024, 1024, 1]`.

    Some hundred of the files are RGBA, with three equal channels.

    Raises:
        ValueError: for a file that cannot be read, or of another size or depth.
    """
    with reading(path.name), PIL.Image.open(path, formats=["PNG"]) as image:
        mode, pixels = image.mode, np.asarray(image)
    if mode in ("RGB", "RGBA"):
        if (pixels[..., :3] != pixels[..., :1]).any():
            raise ValueError(f"{path.name}: expected grey pixels. Received: colours")
        pixels = pixels[..., 0]
    elif mode == "LA":
        pixels = pixels[..., 0]
    if pixels.shape != (SIZE, SIZE) or pixels.dtype != np.uint8:
        raise ValueError(
            f"{path.name}: expected {SIZE} x {SIZE} grey pixels of 8 bits. "
            f"Received: {mode} {list(pixels.shape)}"
        )
    return pixels[..., None]
