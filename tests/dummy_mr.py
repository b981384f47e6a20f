"""Tiny data in the layouts of IXI, BraTS and fastMRI, made on the fly."""

import hashlib
from pathlib import Path

import h5py
import numpy as np

import dummy_ct
from zoo.physics import fourier
from zoo_datasets.cases import SPLITS, hashed_split

_HEADER = """<?xml version="1.0"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding>
<encodedSpace><matrixSize><x>{h2}</x><y>{w}</y><z>1</z></matrixSize>
<fieldOfView_mm><x>{fx2}</x><y>{fy}</y><z>4.5</z></fieldOfView_mm></encodedSpace>
<reconSpace><matrixSize><x>{h}</x><y>{h}</y><z>1</z></matrixSize>
<fieldOfView_mm><x>{fx}</x><y>{fx}</y><z>3</z></fieldOfView_mm></reconSpace>
</encoding></ismrmrdHeader>"""


def hashed(pattern: str) -> list[str]:
    """Names of two patients in train and one each in validation and test."""
    wanted = {"train": 2, "validation": 1, "test": 1}
    found: dict[str, list[str]] = {split: [] for split in SPLITS}
    for name in map(pattern.format, range(1, 300)):
        split = hashed_split(name)
        if len(found[split]) < wanted[split]:
            found[split].append(name)
    return sorted(sum(found.values(), []))


def head(shape: tuple[int, int, int], level: float, seed: int) -> np.ndarray:
    """Whole numbers `[x, y, z]`: an ellipse in every slice but the outer ones."""
    rng = np.random.default_rng(seed)
    return np.where(dummy_ct.body(shape), level + rng.integers(0, 40, shape), 0).astype(np.int16)


def ixi(root: Path) -> None:
    """Four subjects. T2 and PD are axial; T1 is sagittal on another grid, as IXI's are.

    The volumes T2(x, y, z) = 300 + 5 x + 3 y + 2 z and T1 = 2 T2, x y z in mm to the right, front
    and head, so that any resampling can be checked.
    """
    axial, sagittal = (20, 24, 6), (14, 22, 18)
    for subject in hashed("IXI{:03d}"):
        axes = np.eye(4)
        axes[:3, :3] = np.diag([-1.5, -1.25, 2.0])  # to the left, back and head
        axes[:3, 3] = (14.0, 15.0, -5.0)
        t1_axes = np.zeros((4, 4))  # to the back, head and right
        t1_axes[:, 3] = (-16.0, 16.0, -14.0, 1.0)
        t1_axes[2, 1], t1_axes[1, 0], t1_axes[0, 2] = 1.5, -2.0, 2.0
        for contrast, shape, matrix, gain in (
            ("T1", sagittal, t1_axes, 2),
            ("T2", axial, axes, 1),
            ("PD", axial, axes, 3),
        ):
            index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
            x, y, z = np.tensordot(matrix[:3, :3], index, 1) + matrix[:3, 3, None, None, None]
            values = np.rint(gain * (300 + 5 * x + 3 * y + 2 * z)).astype(np.int16)
            path = root / f"IXI-{contrast}" / f"{subject}-Guys-0700-{contrast}.nii.gz"
            dummy_ct.write_nifti(path, values, matrix)


def ixi_large(root: Path) -> None:
    """T2 and T1 of four subjects, 44 x 36 pixels: no multiples of 8."""
    for i, subject in enumerate(hashed("IXI{:03d}")):
        for contrast in ("T2", "T1"):
            path = root / f"IXI-{contrast}" / f"{subject}-HH-1211-{contrast}.nii.gz"
            values = head((36, 44, 5), 500, i)
            dummy_ct.write_nifti(path, values, dummy_ct.affine((0.9, 0.95, 1.25), "LPS"))


def brats(root: Path):
    """BraTS 2021, four patients, and a folder around them; the tumour has labels 1, 2 and 4."""
    known = {}
    for i, patient in enumerate(hashed("BraTS2021_{:05d}")):
        folder = root / "BraTS2021_Training_Data" / patient
        shape = (20, 24, 6)
        for k, contrast in enumerate(("t1", "t1ce", "t2", "flair")):
            values = head(shape, 300 * (k + 1), 10 * i + k)
            path = folder / f"{patient}_{contrast}.nii.gz"
            dummy_ct.write_nifti(path, values, dummy_ct.affine((1.0, 1.0, 1.0), "LPS"))
        labels = np.zeros(shape, np.uint8)
        labels[8:12, 10:14, 2], labels[9:11, 11:13, 2], labels[9, 11, 2] = 2, 4, 1
        path = folder / f"{patient}_seg.nii.gz"
        dummy_ct.write_nifti(path, labels, dummy_ct.affine((1.0, 1.0, 1.0), "LPS"))
        known[f"{patient}-002"] = {
            "source_label": {(11, 9, 0): 1, (12, 10, 0): 4, (10, 8, 0): 2, (9, 9, 0): 0}
        }
    return known


def brats_images(root: Path) -> None:
    """The same, where labels are not read."""
    brats(root)


def scan(path: Path, coils: int, patient: str, seed: int, lines: int = 36) -> None:
    """A file of fastMRI: read-out 64 (twice oversampled), so many lines, two slices."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[-32:32, -(lines // 2) : lines - lines // 2]
    slices = []
    for size in (10, 12):
        image = 3e-4 * ((rows / size) ** 2 + (columns / (0.9 * size)) ** 2 < 1)
        image = image * (1 + 0.3 * np.sin(rows / 3 + rng.uniform(0, 6)))
        phase = np.exp(1j * columns / 9)
        maps = [np.exp(-(((rows - 8 * c) / 40) ** 2) + 0.7j * c) for c in range(coils)]
        slices.append([fourier.to_kspace(image * phase * m) for m in maps])
    kspace = np.array(slices, np.complex64)
    left = lines // 2 - 16
    images = np.abs(fourier.from_kspace(kspace))[..., 16:48, left : left + 32]
    image = np.sqrt((images**2).sum(1)).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["kspace"] = kspace if coils > 1 else kspace[:, 0]
        file["reconstruction_rss"] = image
        if coils == 1:
            file["reconstruction_esc"] = image
        header = _HEADER.format(h=32, h2=64, w=lines, fx=160, fx2=320, fy=180)
        file["ismrmrd_header"] = header.encode()
        file.attrs["max"], file.attrs["norm"] = image.max(), np.linalg.norm(image)
        file.attrs["patient_id"], file.attrs["acquisition"] = patient, "CORPD_FBK"


def fastmri(root: Path, coils: int = 1) -> None:
    """Two training scans, and four of other patients in the validation set."""
    coil = "singlecoil" if coils == 1 else "multicoil"
    for i in range(6):
        folder = root / f"{coil}_{'train' if i < 2 else 'val'}"
        patient = hashlib.sha256(bytes([i + 7])).hexdigest()
        scan(folder / f"file100000{i}.h5", coils, patient, i)


def fastmri_coils(root: Path) -> None:
    """The same with three coils."""
    fastmri(root, coils=3)
