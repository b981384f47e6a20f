"""X-ray images at high and at low resolution: the `lidc` and `cbis_ddsm` examples of `sr`.

A source is the mean of the target over blocks, as for the simulated CT: wider detectors.
"""

from typing import Any

import numpy as np

from zoo.physics import resolution
from zoo_datasets.cases import Case, Examples
from zoo_datasets.publishers import cbis_ddsm, lidc


def read_lidc(case: Case, config: Any) -> Examples:
    """Axial slices of a CT series, int16 HU, cropped to multiples of the largest scale.

    Raises:
        ValueError: for files that cannot be read, a missing slice, and slices that are too small.
    """
    most = max(config.scales)
    for name, hu, spacing in lidc.read_slices(case, config):
        rows, columns = (side // most * most for side in hu.shape)
        if min(rows, columns) < 4 * most:
            raise ValueError(
                f"{case.key}: expected slices of at least {4 * most} x {4 * most} pixels. "
                f"Received: shape {hu.shape}"
            )
        top, left = (hu.shape[0] - rows) // 2, (hu.shape[1] - columns) // 2
        images = _scaled(hu[top : top + rows, left : left + columns], config.scales)
        yield case.example(name, **images, spacing=spacing)


def read_cbis_ddsm(case: Case, config: Any) -> Examples:
    """A mammogram fitted into a square of `config.size`, uint16.

    Raises:
        ValueError: for a file that cannot be read, or is no mammogram.
    """
    image = cbis_ddsm.read_mammogram(case.files["image"], config.size)[..., 0]
    yield case.example(case.key, **_scaled(image, config.scales))


def _scaled(target: np.ndarray, scales: tuple[int, ...]) -> dict[str, np.ndarray]:
    images = {"target": target}
    for scale in scales:
        mean = resolution.block_mean(target, scale)
        images[f"source_x{scale}"] = np.rint(mean).astype(target.dtype)
    return {key: image[..., None] for key, image in images.items()}
