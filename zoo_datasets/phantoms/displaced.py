"""Images that do not lie where they should: smooth random displacements, as a registration leaves.

Importable without TensorFlow.
"""

import numpy as np
from scipy.ndimage import map_coordinates

from zoo_datasets.phantoms.noise import correlated

_SMOOTH = 1 / 8  # of the image's side: standard deviation of what smooths the displacements


def field(rng: np.random.Generator, size: int, reach: tuple[float, float]) -> np.ndarray:
    """A smooth displacement of each pixel, float32 `[2, size, size]`: rows, columns, in pixels.

    Its greatest length is drawn from `reach`, its directions have no preference.
    """
    greatest = rng.uniform(*reach)
    u = np.stack([correlated(rng, size, _SMOOTH * size) for _ in range(2)])
    return u * np.float32(greatest / np.hypot(*u).max())


def moved(image: np.ndarray, u: np.ndarray, labels: bool = False) -> np.ndarray:
    """The image whose pixel p shows what lies at p + u(p); of its type.

    Cubic interpolation, within the image's own range; label maps by the nearest pixel.

    Args:
        image: `[H, W]`.
        u: `[2, H, W]` in pixels.
        labels: whether it is a label map.
    """
    place = np.indices(image.shape) + u
    values = map_coordinates(
        image, place, np.float32, order=0 if labels else 3, mode="nearest", prefilter=not labels
    )
    if np.issubdtype(image.dtype, np.integer):
        values = np.rint(np.clip(values, image.min(), image.max()))
    return values.astype(image.dtype)
