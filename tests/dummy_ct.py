"""Small files in the layouts of SynthRAD2023, autoPET and LoDoPaB-CT, made on the fly."""

import functools
from pathlib import Path

import h5py
import nibabel
import numpy as np

from zoo_datasets.cases import SPLITS, hashed_split


def affine(spacing: tuple[float, float, float], flips: str = "LPS") -> np.ndarray:
    """NIfTI's `[4, 4]` of an array whose axes run to the patient's `flips`, spacing in mm."""
    signs = [1.0 if axis in "RAS" else -1.0 for axis in flips]
    return np.diag([*(s * mm for s, mm in zip(signs, spacing, strict=True)), 1.0])


def write_nifti(path: Path, values: np.ndarray, matrix: np.ndarray) -> None:
    """An array `[x, y, z]` with its affine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, matrix), path)


def body(shape: tuple[int, int, int]) -> np.ndarray:
    """An elliptic cylinder that leaves the first and last slice empty; bool `[x, y, z]`."""
    x, y = (np.linspace(-1, 1, n) for n in shape[:2])
    inside = np.hypot(*np.meshgrid(x / 0.8, y / 0.7, indexing="ij")) < 1
    inside = np.repeat(inside[..., None], shape[2], 2)
    inside[..., [0, -1]] = False
    return inside


def synthrad(root: Path, task: int, region: str):
    """Task 1 or 2 of SynthRAD2023: five patients, each with one slice more than the last.

    Every other one's arrays run to the left, back and head, the others' to the right, front and
    head. Each has a marked voxel: 700 HU 3 columns to the right of the middle and 2
    rows in front of it, in the slice with index 2.
    """
    folder = root / f"Task{task}" / region
    (folder / "overview").mkdir(parents=True)
    (folder / "overview" / "a.png").write_bytes(b"")
    name, known = "mr" if task == 1 else "cbct", {}
    rng = np.random.default_rng(0)
    spacing = (1.0, 1.25, 2.5)
    # Hashed: three in train, one in validation, one in test.
    for i, patient in enumerate(names(task, region)):
        shape = (24, 20, 5 + i)
        inside = body(shape)
        ct = np.where(inside, 40 + rng.integers(-5, 5, shape), -1000).astype(np.int16)
        right, front = (-3, -2) if i % 2 == 0 else (2, 1)  # the same place in both orientations
        at = (shape[0] // 2 + right, shape[1] // 2 + front, 2)
        ct[at] = 700
        if task == 1:
            source = np.where(inside, (i + 1) * (200 + rng.integers(0, 20, shape)), 0)
            source = source.astype(np.uint16)
        else:
            source = (ct + np.where(inside, -30, 0)).astype(np.int16)
        matrix = affine(spacing, "LPS" if i % 2 == 0 else "RAS")
        for role, values in ((name, source), ("ct", ct), ("mask", inside.astype(np.uint8))):
            write_nifti(folder / patient / f"{role}.nii.gz", values, matrix)
        place = (shape[1] // 2 - 2, shape[0] // 2 - 3, 0)
        known[f"{patient}-0002"] = {"target": {place: 700.0}}
    return known


def names(task: int, region: str) -> list[str]:
    """Patients of SynthRAD2023."""
    return _hashed(f"{task}{region[0].upper()}A{{:03d}}")


def _hashed(pattern: str) -> list[str]:
    """Five patients' names: three of them fall into train, one each in validation and test."""
    wanted = {"train": 3, "validation": 1, "test": 1}
    found: dict[str, list[str]] = {split: [] for split in SPLITS}
    for name in map(pattern.format, range(1, 200)):
        split = hashed_split(name)
        if len(found[split]) < wanted[split]:
            found[split].append(name)
    return sorted(sum(found.values(), []))


synthrad_mr_brain = functools.partial(synthrad, task=1, region="brain")
synthrad_mr_pelvis = functools.partial(synthrad, task=1, region="pelvis")
synthrad_cbct_brain = functools.partial(synthrad, task=2, region="brain")
synthrad_cbct_pelvis = functools.partial(synthrad, task=2, region="pelvis")


def autopet(root: Path):
    """autoPET: five patients, one with two studies, in the orientation of dicom2nifti.

    The first study's marked voxel has SUV 7.125, 3 columns left of the middle and 2 rows behind it.
    """
    rng, known = np.random.default_rng(1), {}
    for i, patient in enumerate(_hashed("PETCT_{:010x}")):
        for study in range(1 + (i == 1)):
            shape = (22, 20, 4 + i)
            inside = body(shape)
            suv = np.where(inside, rng.gamma(4.0, 0.3, shape), 0.01).astype(np.float32)
            ct = np.where(inside, 30.25 + rng.normal(0, 5, shape), -1024.0)
            seg = np.zeros(shape, np.uint8)
            at = (shape[0] // 2 - 1 - 3, shape[1] // 2 - 1 - 2, 2)  # axes to the right and front
            suv[at], seg[at] = 7.125, 1
            name = f"03-2{study}-2003-NA-PET-CT Ganzkoerper  primaer mit KM-{10445 + i + study}"
            matrix = affine((2.0, 2.5, 3.0), "RAS")
            folder = root / "FDG-PET-CT-Lesions" / patient / name
            for role, values in (("SUV", suv), ("CTres", ct), ("SEG", seg)):
                write_nifti(folder / f"{role}.nii.gz", values, matrix)
            place = (shape[1] // 2 + 2, shape[0] // 2 + 3, 0)
            known[f"{patient}-{10445 + i + study}-0002"] = {
                "source": {place: 7.125},
                "source_label": {place: 1},
            }
    (root / "FDG-PET-CT-Lesions" / "fdg_metadata.csv").write_text("Subject ID\n", encoding="utf-8")
    return known


# LoDoPaB-CT. A disc of water each: centre right of and behind the image's, radius, in mm.
DISCS = ((30.0, -20.0, 60.0), (-25.0, 40.0, 50.0), (10.0, 15.0, 80.0), (-40.0, -30.0, 45.0))
PATIENTS = {"train": (7, 3, 7, 9), "validation": (632, 640), "test": (700,)}


def lodopab(root: Path, per_file: int = 2):
    """LoDoPaB-CT with `per_file` samples a file, sinograms from the discs' chords.

    Lengths in m and the first axis of an image to the right, as the publisher has them.
    """
    mu_max = 3.071 * (20 - 0.02) + 20
    axis = (np.arange(362) - 180.5) * 0.26 / 362
    theta = (np.arange(1000)[:, None] + 0.5) * np.pi / 1000
    s = (np.arange(513) - 256) * 0.26 * np.sqrt(2) / 513
    known = {}
    for split, ids in PATIENTS.items():
        (root / f"patient_ids_rand_{split}.csv").write_text("\n".join(map(str, ids)) + "\n")
        for first in range(0, len(ids), per_file):
            number = first // per_file
            samples = {"observation": [], "ground_truth": []}
            for i in range(first, min(first + per_file, len(ids))):
                x, y, radius = np.array(DISCS[i]) / 1000
                image = np.hypot(axis[:, None] - x, axis - y) < radius
                away = s - x * np.cos(theta) - y * np.sin(theta)
                chord = 2 * np.sqrt(np.maximum(radius**2 - away**2, 0))
                samples["ground_truth"].append(np.float32(image * 20 / mu_max))
                samples["observation"].append(np.float32(chord * 20 / mu_max))
                row = round(180.5 + DISCS[i][1] * 362 / 260)  # of the upright image
                column = round(180.5 + DISCS[i][0] * 362 / 260)
                known[f"{split}-{number:03d}-{i - first:03d}"] = {
                    "target": {(row, column, 0): 20 / mu_max}
                }
            # The publisher's last file of images ends with empty ones.
            images = samples["ground_truth"]
            images += [np.zeros_like(images[0])] * (per_file - len(images))
            for kind, values in samples.items():
                with h5py.File(root / f"{kind}_{split}_{number:03d}.hdf5", "w") as file:
                    file.create_dataset("data", data=np.stack(values), compression="gzip")
    return known
