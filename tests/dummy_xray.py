"""Tiny synthetic files in the layouts of NIH ChestX-ray14, CBIS-DDSM, LIDC-IDRI and LiTS."""

import csv
from pathlib import Path

import numpy as np
import PIL.Image
from dummy_data import write_nifti

from zoo_datasets.sources import hashed_split

NIH_HEAD = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Sex,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)


def nih14(root: Path) -> dict:
    """Radiographs of seven patients, one RGBA; known pixels and spacing."""
    validation = next(n for n in range(100, 999) if hashed_split(f"{n:08d}") == "validation")
    rows = [  # patient, follow-up, findings, official split
        (1, 0, "Cardiomegaly", "train_val"),
        (1, 1, "Cardiomegaly|Emphysema", "train_val"),
        (2, 0, "No Finding", "train_val"),
        (3, 0, "Hernia", "test"),
        (validation, 0, "Pleural_Thickening|Mass|Nodule", "train_val"),
    ]
    known, lists = {}, {"train_val": [], "test": []}
    with open(root / "Data_Entry_2017_v2020.csv", "w", newline="") as table:
        table.write(NIH_HEAD + "\n")
        lines = csv.writer(table)
        for i, (patient, follow_up, findings, split) in enumerate(rows):
            name = f"{patient:08d}_{follow_up:03d}"
            lines.writerow(
                [f"{name}.png", findings, follow_up, patient, 58, "M", "PA"]
                + [2048, 3072, 0.143, 0.168, ""]
            )
            lists[split].append(f"{name}.png")
            # Noise, so that cutting off the end of the file cuts off pixels.
            image = np.random.default_rng(i).integers(0, 200, (1024, 1024), np.uint8)
            image[10, 20] = 251 - i
            folder = root / f"images_{i % 2 + 1:03d}" / "images"
            folder.mkdir(parents=True, exist_ok=True)
            picture = PIL.Image.fromarray(image)
            if i == 1:
                picture = PIL.Image.merge("RGBA", [picture] * 3 + [picture.point(lambda _: 255)])
            picture.save(folder / f"{name}.png", compress_level=1)
            known[name] = {
                "image": {(10, 20, 0): 251 - i},
                "spacing": {(0,): 0.168 * 3, (1,): 0.143 * 2},
            }
    for split, names in lists.items():
        (root / f"{split}_list.txt").write_text("\n".join(names) + "\n")
    return known


def lits(root: Path) -> dict:
    """Cases of LiTS in two folders, packed or not, in two orientations; known pixels."""
    splits = {}  # numbers of each split
    for number in range(131):
        splits.setdefault(hashed_split(f"lits-{number:03d}"), []).append(number)
    numbers = splits["train"][:2] + splits["validation"][:1] + splits["test"][:1]
    known = {}
    rows, columns = np.mgrid[:100, :120]
    for i, number in enumerate(numbers):
        rng = np.random.default_rng(i)
        hu = np.full((6, 100, 120), -1000.0)
        labels = np.zeros(hu.shape)
        body = np.hypot((rows - 50) / 46, (columns - 60) / 56) < 1
        liver = np.hypot((rows - 50) / 36, (columns - 55) / 42) < 1
        hu[:, body], hu[1:5, liver] = -80, 100
        hu += rng.integers(-9, 10, hu.shape)
        labels[1:5, liver] = 1
        tumour = np.hypot(rows - 40, columns - 36) < 5  # largest in slice 2
        labels[2, tumour], hu[2, tumour] = 2, 40
        small = np.hypot(rows - 40, columns - 36) < 4
        labels[3, small], hu[3, small] = 2, 40
        labels[1, 60, 70] = 2  # too small for a patch of its own
        hu[2, 20:22, 30:32] = 400  # in front, to the right of the tumour
        # Slices upwards, rows backwards, columns to the left; 1 mm pixels, 2.5 mm slices.
        affine = np.diag([-1.0, -1.0, 2.5, 1.0])
        affine[:3, 3] = 60, 50, -300
        folder = root / f"Training Batch {i % 2 + 1}"
        suffix, codes = ((".nii.gz", "LPS"), (".nii", "RAS"))[i % 2]
        for role, values in (("volume", hu), ("segmentation", labels)):
            write_nifti(
                folder / f"{role}-{number}{suffix}",
                values.transpose(2, 1, 0).astype(np.int16),
                affine,
                codes,
            )
        # A patch's pixel lies between four of the slice's; its middle is row 40, column 36.
        known[f"lits-{number:03d}-tumour-00"] = {
            "image": {(31, 31, 0): hu[2, 39:41, 35:37].mean(), (12, 26, 0): 400},
            "spacing": {(0,): 1.0, (1,): 1.0},
        }
    return known
