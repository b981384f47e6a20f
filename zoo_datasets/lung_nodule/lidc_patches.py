"""Patches around the nodules of LIDC-IDRI, labelled by what their readers said, and without any."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy import ndimage

from zoo_datasets import patches
from zoo_datasets.cases import Case, Example, Examples
from zoo_datasets.lung_nodule import phantom
from zoo_datasets.publishers.lidc import Mark, Slice, marks, nodules, slices
from zoo_datasets.publishers.volumes import Scan, to_int16

MALIGNANCY = ("no_nodule", "benign", "indeterminate", "malignant")
TEXTURE = phantom.LABELS  # no_nodule, solid, ground_glass
_MARGIN = 5.0  # mm around a nodule that patches without one keep free
_SHARE = 0.5  # of a patch without a nodule must be lung
_TRIES = 12  # slices that are looked at for one


def malignancy(group: list[Mark]) -> str:
    """A label of `MALIGNANCY` by the median of the readers' ratings."""
    rating = np.median([mark.malignancy for mark in group])
    if rating == 3:
        return "indeterminate"
    return "benign" if rating < 3 else "malignant"


def texture(group: list[Mark]) -> str:
    """A label of `TEXTURE` by the median rating; part-solid nodules count as ground glass."""
    return "solid" if np.median([mark.texture for mark in group]) > 3 else "ground_glass"


def read(case: Case, config: Any) -> Examples:
    """A patch in the middle of each nodule and as many (at least one) without.

    Raises:
        ValueError: for files that cannot be read or do not belong together.
    """
    series = slices(case.files["series"])
    found = marks(case.files["xml"], series)
    groups = nodules(found, config.readers, config.apart)
    number = 0
    for group in sorted(groups, key=lambda group: group[0].centre.tolist()):
        centre = np.mean([mark.centre for mark in group], axis=0)
        one = min(series, key=lambda one: abs(one.origin[2] - centre[2]))
        scan = one.read()
        yield _example(case, number, scan, _index(scan, centre), config.label(group))
        number += 1
    for scan, place in _free(case.key, series, found, max(len(groups), 1)):
        yield _example(case, number, scan, place, "no_nodule")
        number += 1


def _index(scan: Scan, place: np.ndarray) -> tuple[float, float]:
    """Row and column of a place in mm."""
    index = np.linalg.solve(scan.affine, [*place, 1.0])
    return float(index[1]), float(index[2])


def _example(
    case: Case, number: int, scan: Scan, place: tuple[float, float], label: str
) -> Example:
    patch = patches.patch_at(scan.values[0], place, scan.spacing[1:], phantom.SIZE, phantom.SPACING)
    return case.example(
        f"{case.key}-{number:02d}",
        image=to_int16(patch)[..., None],
        label=label,
        spacing=(phantom.SPACING, phantom.SPACING),
    )


def _free(
    key: str, series: list[Slice], found: list[Mark], count: int
) -> Iterator[tuple[Scan, tuple[float, float]]]:
    """Slices with places in the lung that are far from what any reader marked."""
    rng = patches.generator(key)
    middle = series[len(series) // 6 : len(series) - len(series) // 6]
    for one in rng.permutation(np.array(middle, object))[: count * _TRIES]:
        scan = one.read()
        place = _free_place(rng, scan, found)
        if place is not None:
            yield scan, place
            count -= 1
            if count == 0:
                return


def _free_place(
    rng: np.random.Generator, scan: Scan, found: list[Mark]
) -> tuple[float, float] | None:
    plane, spacing = scan.values[0], scan.spacing[1:]
    avoid = np.zeros(plane.shape, bool)
    z = float(scan.affine[2, 3])
    rows, columns = np.ogrid[: plane.shape[0], : plane.shape[1]]
    for mark in found:
        radius = mark.diameter / 2 + _MARGIN
        if abs(mark.centre[2] - z) < radius:
            row, column = _index(scan, mark.centre)
            across = np.hypot((rows - row) * spacing[0], (columns - column) * spacing[1])
            avoid |= across < radius
    sides = patches.pixels(phantom.SIZE * phantom.SPACING, spacing)
    return patches.free_place(rng, lung(plane), avoid, sides, _SHARE)


def lung(plane: np.ndarray) -> np.ndarray:
    """Lung in an axial slice in HU, bool: air that does not reach the border, vessels in it."""
    air, _ = ndimage.label(plane < -400)
    border = np.unique(np.concatenate([air[0], air[-1], air[:, 0], air[:, -1]]))
    inside = (air > 0) & ~np.isin(air, border)
    return ndimage.binary_closing(inside, iterations=3)
