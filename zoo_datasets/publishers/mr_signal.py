"""Slices of magnetic resonance volumes whose signal has no unit: IXI's and BraTS's."""

from pathlib import Path

import numpy as np
from scipy import ndimage

from zoo_datasets.features import Image
from zoo_datasets.publishers import volumes

# A scanner's gain is arbitrary: this is what a volume's bright tissue becomes.
BRIGHT = 1000.0
WINDOW = (0.0, 1.5 * BRIGHT)
IMAGE = Image((None, None, 1), np.float32, "MR", "signal", WINDOW)


def read(path: Path) -> volumes.Scan:
    """A NIfTI volume.

    Raises:
        ValueError: for a file that cannot be read, or that is no image.
    """
    scan = volumes.read_nifti(path)
    low, high = float(scan.values.min()), float(scan.values.max())
    if not (np.isfinite([low, high]).all() and high > max(low, 0)):
        raise ValueError(f"{path.name}: expected an image. Received: {low:g} to {high:g}")
    return scan


def scaled(values: np.ndarray) -> tuple[np.ndarray, np.float32]:
    """A volume times 1 / scale, float32, and the scale.

    Of the voxels brighter than the volume's mean, which are tissue, the 99th percentile becomes
    `BRIGHT`. The product with the scale gives back the file's whole numbers when it is rounded.
    """
    scale = np.float32(np.percentile(values[values > values.mean()], 99) / BRIGHT)
    return (values / scale).astype(np.float32), scale


def on_grid(scan: volumes.Scan, like: volumes.Scan) -> np.ndarray:
    """The volume where the voxels of `like` lie, float32 `[slice, row, column]`.

    By cubic splines within the range of the volume's own values; 0 outside it.
    """
    if scan.same_grid(like):
        return scan.values
    step = np.linalg.inv(scan.affine) @ like.affine  # indices of `like` to indices of `scan`
    moved = ndimage.affine_transform(
        scan.values, step[:3, :3], step[:3, 3], output_shape=like.values.shape, order=3
    )
    return np.clip(moved, scan.values.min(), scan.values.max())


def full_slices(*images: np.ndarray, share: float = 0.05) -> list[int]:
    """Slices that show something in all of some scaled volumes `[slice, row, column]`.

    In these, more than `share` of the pixels exceed a tenth of `BRIGHT`.
    """
    full = np.ones(len(images[0]), bool)
    for image in images:
        full &= (image > 0.1 * BRIGHT).mean((1, 2)) > share
    return np.flatnonzero(full).tolist()
