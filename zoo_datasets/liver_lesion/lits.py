"""LiTS, the Liver Tumor Segmentation Benchmark, in its NIfTI files."""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from zoo_datasets import patches
from zoo_datasets.cases import Case, Examples, by_patient, need
from zoo_datasets.liver_lesion import phantom
from zoo_datasets.publishers.volumes import Scan, read_nifti, to_int16

LABELS = ("none", "tumour")
LIVER, TUMOUR = 1, 2  # values of a segmentation
_SHARE = 0.6  # of a patch without a tumour must be liver
_TRIES = 40  # slices that are looked at for one

MANUAL = """
From https://competitions.codalab.org/competitions/17094 (LiTS, MICCAI 2017; registration, then the
terms CC BY-NC-SA 4.0; about 50 GB, hours):
1. Download "Training Batch 1" and "Training Batch 2": 131 volumes with segmentations. The 70 test
   volumes come without segmentations and are not needed.
2. Put the files into `manual_dir`, in any folders, packed or not, so that there are
   manual_dir/**/volume-0.nii (or .nii.gz) … volume-130.nii and
   manual_dir/**/segmentation-0.nii (or .nii.gz) … segmentation-130.nii
"""


def find(root: Path) -> dict[str, list[Case]]:
    """The volumes of each split, by a hash of the case's number.

    Raises:
        FileNotFoundError: there are no volumes, or a volume or segmentation has no partner.
        ValueError: a number comes twice.
    """
    volumes = _numbered(need(root, "**/volume-*.nii*", "LiTS volumes"))
    masks = _numbered(need(root, "**/segmentation-*.nii*", "LiTS segmentations"))
    for number in sorted(volumes.keys() ^ masks.keys()):
        kind = "segmentation" if number in volumes else "volume"
        raise FileNotFoundError(
            f"manual directory {root}: expected {kind}-{number}.nii or .nii.gz beside its partner. "
            "Received: none"
        )
    return by_patient(
        Case(
            key=f"lits-{number:03d}",
            patient=f"lits-{number:03d}",
            files={"volume": volumes[number], "segmentation": masks[number]},
        )
        for number in volumes
    )


def _numbered(paths: list[Path]) -> dict[int, Path]:
    found: dict[int, Path] = {}
    for path in paths:
        match = re.fullmatch(r"\w+-(\d+)\.nii(\.gz)?", path.name)
        if match is None or not path.is_file():
            continue
        number = int(match[1])
        if number in found:
            raise ValueError(
                f"LiTS: expected one {path.name.split('.')[0]}. Received: {found[number]}, {path}"
            )
        found[number] = path
    return found


def read(case: Case, config: Any) -> Examples:
    """A patch around each tumour and some without, as the data set's examples.

    Raises:
        ValueError: for files that cannot be read, of two grids, not in HU, or of other labels.
    """
    scan, mask = load(case)
    spacing = scan.spacing[1:]
    lesions = list(tumours(scan, mask, config.least))
    free = list(_free(case.key, scan, mask, max(len(lesions), 2)))
    for label, places in (("tumour", lesions), ("none", free)):
        for i, (index, row, column) in enumerate(places):
            patch = patches.patch_at(
                scan.values[index], (row, column), spacing, phantom.SIZE, phantom.SPACING
            )
            name = f"{case.key}-{label}-{i:02d}"
            yield case.example(
                name,
                image=to_int16(patch)[..., None],
                label=label,
                spacing=(phantom.SPACING, phantom.SPACING),
            )


def load(case: Case) -> tuple[Scan, np.ndarray]:
    """The volume of a case in HU, and its segmentation, uint8 of the same shape."""
    # The segmentation first: as bytes it leaves room for the volume.
    mask = read_nifti(case.files["segmentation"])
    labels = mask.values.astype(np.uint8)
    if (labels != mask.values).any() or labels.max() > TUMOUR or not labels.any():
        raise ValueError(
            f"{case.files['segmentation'].name}: expected labels 0, {LIVER} and {TUMOUR}. "
            f"Received: values from {mask.values.min():g} to {mask.values.max():g}"
        )
    mask = dataclasses.replace(mask, values=labels)
    scan = read_nifti(case.files["volume"])
    if not scan.same_grid(mask, tolerance=1.0):
        raise ValueError(
            f"{case.key}: expected volume and segmentation on one grid. Received: shapes "
            f"{scan.values.shape} and {labels.shape}, or other places"
        )
    if scan.values.min() > -500:  # there is air around every patient
        raise ValueError(
            f"{case.files['volume'].name}: expected CT in HU. "
            f"Received: values from {scan.values.min():g} to {scan.values.max():g}"
        )
    return scan, labels


def tumours(scan: Scan, mask: np.ndarray, least: float) -> Iterator[tuple[int, float, float]]:
    """The middle of each connected tumour in its largest slice: slice, row and column.

    Args:
        scan: for its spacing.
        mask: `[slice, row, column]`.
        least: diameter in mm of a disc as large as that slice; smaller tumours are left out.
    """
    all_of_them = ndimage.find_objects((mask == TUMOUR).view(np.uint8))
    if not all_of_them:
        return
    (around,) = all_of_them
    # 26 neighbours: what touches at a corner is one lesion
    labels, _ = ndimage.label(mask[around] == TUMOUR, np.ones((3, 3, 3)))
    first = [part.start for part in around]
    pixel = scan.spacing[1] * scan.spacing[2]
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        lesion = labels[box] == number
        areas = lesion.sum((1, 2))
        index = int(areas.argmax())
        if 2 * np.sqrt(areas[index] * pixel / np.pi) >= least:
            rows, columns = np.nonzero(lesion[index])
            yield (
                first[0] + box[0].start + index,
                first[1] + box[1].start + float(rows.mean()),
                first[2] + box[2].start + float(columns.mean()),
            )


def _free(key: str, scan: Scan, mask: np.ndarray, count: int) -> Iterator[tuple[int, float, float]]:
    """Up to `count` places in the liver, in slices of their own, far from any tumour."""
    rng = patches.generator(key)
    sides = patches.pixels(phantom.SIZE * phantom.SPACING, scan.spacing[1:])
    slices = rng.permutation(np.flatnonzero((mask > 0).any((1, 2))))
    found = 0
    for index in slices[: count * _TRIES].tolist():
        place = patches.free_place(rng, mask[index] > 0, mask[index] == TUMOUR, sides, _SHARE)
        if place is not None:
            yield index, float(place[0]), float(place[1])
            found += 1
            if found == count:
                return
