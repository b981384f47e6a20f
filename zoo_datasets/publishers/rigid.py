"""Rigid registration of two scans of one patient, by their mutual information."""

import dataclasses

import numpy as np
from scipy import ndimage, optimize
from scipy.spatial.transform import Rotation

from zoo_datasets.publishers.volumes import Scan

_REACH = 12.0  # mm, and degrees: a patient who moved more between two scans was scanned anew
_BINS = 32  # of each scan's values
_POINTS = 20_000  # in the fixed scan, at which the two are compared
_BRIGHTEST = 99.5  # percentile above which values count as one


def registered(moving: Scan, fixed: Scan) -> Scan:
    """A scan, moved as a whole to where it shares most with another of the same patient.

    No value is changed: it is the affine that moves, by up to `_REACH` mm and degrees about each
    axis, from where the files' own positions have it.

    Args:
        moving: of any contrast.
        fixed: the scan that stays.
    """
    # Every so many voxels of the fixed scan, in mm: those of air too, which end the head.
    smooth = ndimage.gaussian_filter(fixed.values, (0, 1, 1))
    inside = np.argwhere(smooth > 0.3 * smooth.mean())
    places = inside[:: max(len(inside) // _POINTS, 1)]
    wanted = _binned(smooth)[tuple(places.T)].astype(np.int64)
    points = places @ fixed.affine[:3, :3].T + fixed.affine[:3, 3]
    centre = points.mean(0)
    # The other's values there, after a movement.
    values = _binned(ndimage.gaussian_filter(moving.values, (0, 1, 1)))
    to_indices = np.linalg.inv(moving.affine)

    def lost(movement: np.ndarray) -> float:
        step = to_indices @ _matrix(movement, centre)
        there = points @ step[:3, :3].T + step[:3, 3]
        return -_shared(wanted, ndimage.map_coordinates(values, there.T, order=1))

    found = optimize.minimize(
        lost,
        np.zeros(6),
        method="Powell",
        bounds=[(-_REACH, _REACH)] * 6,
        options={"xtol": 0.02, "ftol": 1e-5, "maxiter": 8},
    )
    back = np.linalg.inv(_matrix(found.x, centre))
    return dataclasses.replace(moving, affine=back @ moving.affine)


def _matrix(movement: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Three millimetres, and three degrees about a centre, as a matrix `[4, 4]`."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", movement[3:], degrees=True).as_matrix()
    matrix[:3, 3] = centre + movement[:3] - matrix[:3, :3] @ centre
    return matrix


def _binned(values: np.ndarray) -> np.ndarray:
    """Values from 0 as numbers of bins, the brightest in the last."""
    top = np.percentile(values, _BRIGHTEST)
    return np.clip(values, 0, top) * np.float32((_BINS - 1) / top)


def _shared(one: np.ndarray, other: np.ndarray) -> float:
    """Normalised mutual information, 1 to 2, of numbers of bins at the same places."""
    both = one * _BINS + (other + 0.5).astype(np.int64)
    joint = np.bincount(both, minlength=_BINS**2).reshape(_BINS, _BINS) / one.size
    return (_entropy(joint.sum(0)) + _entropy(joint.sum(1))) / _entropy(joint)


def _entropy(shares: np.ndarray) -> float:
    positive = shares[shares > 0]
    return float(-(positive * np.log(positive)).sum())
