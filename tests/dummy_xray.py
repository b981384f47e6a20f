"""Tiny synthetic files in the layouts of NIH ChestX-ray14, CBIS-DDSM, LIDC-IDRI and LiTS."""

import csv
from pathlib import Path

import numpy as np
import PIL.Image

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
