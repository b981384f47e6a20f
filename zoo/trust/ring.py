"""Patches of an image that are not the reference's, by the Fourier ring correlation of each.

sFRC: Kc, Zeng, Soni, Badano, arXiv:2603.04673: a patch is suspect where the correlation of its and
the reference's Fourier coefficients on rings of one frequency falls below a threshold at less than
a share of the Nyquist frequency: it has detail that the reference does not have there. Imports no
TensorFlow.
"""

from typing import NamedTuple

import numpy as np

SIDE = 64  # pixels of a patch; half of that in images of less than two patches
THRESHOLD = 0.5  # of the correlation
LOWEST = 1 / 3  # of Nyquist, that it must reach
_CONTRAST = 0.01  # of the window: the standard deviation of a patch that shows something
_FIRST = 2  # ring that is looked at: the lower ones are the patch's window


class Patches(NamedTuple):
    """What was found.

    Attributes:
        corners: int `[N, 2]`, row and column of each patch's first pixel.
        side: of all of them, in pixels.
        crossing: float `[N]`, share of Nyquist at which each falls below the threshold.
        suspect: bool `[N]`.
    """

    corners: np.ndarray
    side: int
    crossing: np.ndarray
    suspect: np.ndarray


def patches(made: np.ndarray, reference: np.ndarray, span: float) -> Patches:
    """The patches in which the reference shows something, every half patch.

    Args:
        made, reference: `[H, W]` of one shape.
        span: of the window, in their unit.
    """
    side = SIDE if min(made.shape) >= 2 * SIDE else SIDE // 2
    window = np.hanning(side + 2)[1:-1]
    window = window[:, None] * window
    corners, crossing = [], []
    for row in range(0, made.shape[0] - side + 1, side // 2):
        for column in range(0, made.shape[1] - side + 1, side // 2):
            place = slice(row, row + side), slice(column, column + side)
            truth = reference[place]
            if truth.std() < _CONTRAST * span:
                continue
            corners.append((row, column))
            crossing.append(_crossing(made[place], truth, window))
    found = np.asarray(crossing, float)
    return Patches(np.asarray(corners, int).reshape(-1, 2), side, found, found < LOWEST)


def _crossing(made: np.ndarray, truth: np.ndarray, window: np.ndarray) -> float:
    """Share of Nyquist at which the ring correlation falls below the threshold; 1 where never."""
    curve = correlation(made, truth, window)
    below = np.flatnonzero(curve[_FIRST:] < THRESHOLD)
    return float((_FIRST + below[0]) / len(curve)) if len(below) else 1.0


def correlation(made: np.ndarray, truth: np.ndarray, window: np.ndarray) -> np.ndarray:
    """The Fourier ring correlation of two patches, ring by ring up to Nyquist."""
    one, other = (np.fft.fft2(window * (image - image.mean())) for image in (made, truth))
    frequency = np.fft.fftfreq(len(made)) * len(made)
    rings = np.rint(np.hypot(frequency[:, None], frequency)).astype(int).ravel()
    count = len(made) // 2
    sums = []
    for values in ((one * other.conj()).real, np.abs(one) ** 2, np.abs(other) ** 2):
        sums.append(np.bincount(rings, values.ravel())[:count])
    shared, first, second = sums
    return shared / np.sqrt(first * second + 1e-30)
