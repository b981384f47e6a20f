"""What the tests of predict translate."""

import nibabel
import numpy as np
import PIL.Image
import PIL.PngImagePlugin
import pytest
import tifffile

from dicom_files import series


@pytest.fixture
def mixed(tmp_path):
    """A folder with one image of each kind."""
    folder = tmp_path / "in"
    series(folder / "ct", 3)
    rng = np.random.default_rng(0)
    volume = rng.integers(0, 900, (9, 8, 4)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([1, 2, 3, 1.0])), folder / "brain.nii.gz")
    pixels = rng.integers(10, 60_000, (12, 10)).astype(np.uint16)
    PIL.Image.fromarray(pixels).save(folder / "grey.png")
    pages = rng.integers(10, 90, (3, 7, 6)).astype(np.uint8)
    tifffile.imwrite(folder / "pages.tif", pages, photometric="minisblack")
    np.save(folder / "array.npy", rng.normal(size=(2, 5, 4)))
    return folder
