"""How the images of a pair go together: by how much they are apart, and how much they are alike."""

from typing import NamedTuple

import numpy as np
import scipy.ndimage
import skimage.metrics
import skimage.registration

_TENTHS = 10  # of a pixel, in which a shift is measured
_BETTER = 1.005  # mutual information, over that as the images lie, that a shift must bring
_SMALLEST = 16  # pixels along a side of what can be compared


class Fit(NamedTuple):
    """Of a pair of slices.

    Attributes:
        shift: by how many pixels (rows, columns) the target's content lies further down and right
            than the source's.
        correlation: of the values in the foreground, -1 to 1.
    """

    shift: tuple[float, float]
    correlation: float


def compare(source: np.ndarray, target: np.ndarray, foreground: np.ndarray) -> Fit | None:
    """How a target lies on its source.

    The shift is that of phase correlation of the images' edges, to a tenth of a pixel. It counts
    where it brings more mutual information than no shift: edges of two modalities need not agree.

    Args:
        source, target: float32 `[H, W]`, of one shape.
        foreground: bool `[H, W]`.

    Returns:
        None for slices that are too small, or where one holds a single value.
    """
    if min(source.shape) < _SMALLEST or not foreground.any():
        return None
    if np.ptp(source) == 0 or np.ptp(target) == 0:
        return None
    inside = source[foreground], target[foreground]
    flat = min(float(each.std()) for each in inside) == 0
    correlation = 0.0 if flat else float(np.corrcoef(*inside)[0, 1])
    return Fit(_shift(source, target), correlation)


def _shift(source: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    window = np.outer(np.hanning(source.shape[0]), np.hanning(source.shape[1]))
    edges = []
    for image in (source, target):
        clipped = np.clip(image, *np.percentile(image, [0.5, 99.5]))
        gradient = scipy.ndimage.gaussian_gradient_magnitude(clipped.astype(np.float64), 1.5)
        edges.append((gradient - gradient.mean()) * window)
    back, _, _ = skimage.registration.phase_cross_correlation(
        edges[0], edges[1], upsample_factor=_TENTHS, normalization=None
    )
    if not np.abs(back).max() > 0 or not np.isfinite(back).all():
        return 0.0, 0.0
    moved = scipy.ndimage.shift(target, back, order=1, mode="nearest")
    if _shared(source, moved) < _BETTER * _shared(source, target):
        return 0.0, 0.0
    return float(-back[0]), float(-back[1])


def _shared(one: np.ndarray, other: np.ndarray) -> float:
    """Normalised mutual information, 1 to 2."""
    limited = [np.clip(image, *np.percentile(image, [0.5, 99.5])) for image in (one, other)]
    return float(skimage.metrics.normalized_mutual_information(*limited, bins=48))
