"""Where a painted and a real lesion in an output come from: two pictures of `docs/trust.md`.

The real one is in the liver of CRLM-CT-1006 of the collection Colorectal-Liver-Metastases (CC BY
4.0, https://doi.org/10.7937/QXK2-QG03), on whom no weights were trained. One slice is read, as the
repository https://github.com/oncoray/mirp has it among its test data; none is part of this project.
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from tools import battery
from zoo import figures
from zoo.physics import noise
from zoo.trust import explain
from zoo.trust.explain import Region

SLICE = Path("CRLM-CT-1006") / "image" / "1-16.dcm"
SHA256 = "a137eee711ba77245832b80788175d57e230a812e6c6ef6a55c4ec99bf643a20"
CORNER, SIDE = (150, 40), 256  # of the part of the slice that holds the liver, pixels
LESION = Region(126, 117, 10)  # in that part, with a rim
DOSE, LEVEL = 0.25, 40.0  # whose noise is inserted, and its standard deviation in the body, HU


def painted(model: Any, image: np.ndarray, picture: Path | None) -> str:
    """What is told of a disc that is painted into an input, in Markdown; and its picture.

    Args:
        model: a denoiser of CT.
        image: of a low dose, `[H, W, 1]`.
        picture: where it is written, if it is.
    """
    # In soft tissue, off the edges.
    image = image.copy()
    region = battery.place(image, np.random.default_rng(0))
    image[region.inside(image.shape[:2])] += battery.CONTRAST
    told = _told(model, image, region, picture)
    return (
        f"*A disc of {battery.CONTRAST:.0f} HU painted into a low-dose CT. Its contrast is {told}*"
    )


def real(model: Any, folder: Path, picture: Path | None) -> str:
    """The same of a real lesion.

    Args:
        model: a denoiser of CT.
        folder: that holds `SLICE`.
        picture: where it is written, if it is.

    Raises:
        ValueError: for another file.
    """
    full, spacing = scan(folder / SLICE)
    added = noise.simulate_low_dose(full, spacing, DOSE, rng=0) - full
    low = full + added * (LEVEL / added[full > -500].std())
    rows, columns = (np.s_[first : first + SIDE] for first in CORNER)
    full, low = (image[rows, columns, None].astype(np.float32) for image in (full, low))
    told = _told(model, low, LESION, picture)
    return (
        f"*A disc of {spacing * 2 * LESION.radius:.0f} mm about a lesion in the liver of a patient "
        "with metastases of a colorectal cancer, on whom nothing was trained, with noise of "
        f"{LEVEL:.0f} HU inserted. Its contrast is {contrast(full, LESION):.0f} HU as it was "
        f"scanned, {told} CRLM-CT-1006 of "
        "[Colorectal-Liver-Metastases](https://doi.org/10.7937/QXK2-QG03), CC BY 4.0.*"
    )


def scan(path: Path) -> tuple[np.ndarray, float]:
    """The slice in HU, `[H, W]`, and its pixel spacing in mm."""
    digits = hashlib.sha256(path.read_bytes()).hexdigest()
    if digits != SHA256:
        raise ValueError(f"{path}: expected SHA-256 {SHA256}. Received: {digits}")
    read = pydicom.dcmread(path)
    stored = read.pixel_array.astype(np.float32)
    hu = stored * float(read.RescaleSlope) + float(read.RescaleIntercept)
    return np.maximum(hu, -1024), float(read.PixelSpacing[0])


def contrast(image: np.ndarray, region: Region) -> float:
    """Mean of a region of `[H, W, 1]` less that around it."""
    inside, around = region.inside(image.shape[:2]), region.around(image.shape[:2])
    return float(image[inside].mean() - image[around].mean())


def _told(model: Any, image: np.ndarray, region: Region, picture: Path | None) -> str:
    found = explain.explain(model, image, region)
    if picture is not None:
        figures.save_png(picture, explain.picture(image, found, model.source, model.target))
    return (
        f"{contrast(image, region):.0f} HU in the input, {found.contrast:.0f} HU in the output, "
        f"and {found.contrast_without:.0f} HU where the input's disc is its surroundings. Of the "
        f"influence {found.share:.0%} lies in the disc, and 90 % within {found.reach:.0f} pixels."
    )
