"""Where a patient's slices lie."""

import numpy as np


def heights(rng: np.random.Generator, slices: int, extent: tuple[float, float]) -> np.ndarray:
    """A random height within each of `slices` equal parts of the extent, float64 `[slices]`.

    So all levels are in every patient.
    """
    low, high = extent
    return low + (np.arange(slices) + rng.uniform(size=slices)) * (high - low) / slices
