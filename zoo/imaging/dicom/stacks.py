"""Which slices of a series lie on top of each other, and which show one place at other times."""

import collections
import dataclasses
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np

_DIRECTION = 1e-3  # by which directions of one orientation may differ, as rounding makes them
_SPACING = 1e-3  # and by which part of it a spacing
_RESCANNED = 0.1  # the part of all places at which a slice may have been taken once more
_SAME_PLACE = 0.01  # mm between slices of one place; less where pixels are tiny


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slice:
    """A slice on its way into a stack.

    Attributes:
        frame: what is stacked; its `position` is that of the first pixel, in mm, or None.
        order: sorts slices that nothing else sorts.
        instance: makes, where it is needed, what is equal for copies of one slice.
        kind: what must be equal in a stack.
        orientation: ImageOrientationPatient, None where unknown.
        spacing: PixelSpacing in mm, None where unknown.
        marks: makes, where it is needed, what may tell slices of one place apart: time, echo, ...
    """

    frame: Any
    order: tuple
    instance: Callable[[], str]
    kind: Hashable
    orientation: tuple[float, ...] | None
    spacing: tuple[float, float] | None
    marks: Callable[[], dict[str, str]]


def stack(slices: list[Slice]) -> list[list[Slice]]:
    """Parts whose slices lie at different places, each sorted along the slice normal.

    Where places repeat, as those of time points, echoes and b values do, the slices are told apart
    by their marks; where no mark does, and all places repeat as often or hardly any does, by their
    order. Else nothing says which are neighbours, and each is a part of its own. Slices without a
    position are sorted by their order.
    """
    return [part for group in _groups(slices) for part in _in_places(group)]


def _groups(slices: list[Slice]) -> list[list[Slice]]:
    """Slices of one kind, orientation and spacing, whose last digits may differ."""
    groups: dict[Hashable, list[list[Slice]]] = collections.defaultdict(list)
    for item in sorted(slices, key=lambda s: s.order):
        for group in groups[item.kind]:
            if alike(item, group[0]):
                group.append(item)
                break
        else:
            groups[item.kind].append([item])
    return [group for several in groups.values() for group in several]


def alike(a: Slice, b: Slice) -> bool:
    """Whether orientation and spacing are equal but for their last digits."""
    if (a.orientation is None, a.spacing is None) != (b.orientation is None, b.spacing is None):
        return False
    # without NumPy, which is slow on so few numbers
    turned = zip(a.orientation or (), b.orientation or (), strict=True)
    if any(abs(x - y) > _DIRECTION for x, y in turned):
        return False
    sizes = zip(a.spacing or (), b.spacing or (), strict=True)
    return all(abs(x - y) <= _SPACING * y for x, y in sizes)


def _in_places(group: list[Slice]) -> list[list[Slice]]:
    """The parts of slices that are alike."""
    if group[0].orientation is None or any(item.frame.position is None for item in group):
        return [group]
    # slices further along the normal than rounding takes them are at another place
    axes = np.array(group[0].orientation, np.float64).reshape(2, 3)
    distances = np.array([item.frame.position for item in group], np.float64) @ np.cross(*axes)
    by_distance = np.argsort(distances, kind="stable")
    tolerance = min(_SAME_PLACE, 0.1 * min(group[0].spacing or (1.0,)))
    steps = np.diff(distances[by_distance], prepend=-np.inf) > tolerance
    places = dict(zip(by_distance.tolist(), np.cumsum(steps).tolist(), strict=True))
    items = [(places[i], group[i]) for i in by_distance.tolist()]
    if len(set(places.values())) == len(group):
        return [[item for _, item in items]]
    # copies of one slice come apart first
    copies: dict[int, list[tuple[int, Slice]]] = collections.defaultdict(list)
    seen: collections.Counter = collections.Counter()
    for place, item in sorted(items, key=lambda pair: pair[1].order):
        copy = place, item.instance()
        copies[seen[copy]].append((place, item))
        seen[copy] += 1
    marked = [[(place, item, item.marks()) for place, item in of_one] for of_one in copies.values()]
    parts = [part for of_one in marked for part in _told_apart(of_one)]
    return [[item for _, item, _ in sorted(part, key=lambda p: p[0])] for part in parts]


def _told_apart(
    items: list[tuple[int, Slice, dict[str, str]]],
) -> list[list[tuple[int, Slice, dict[str, str]]]]:
    """Parts in which each place occurs once; `items` are (place, slice, its marks), in order."""
    most = _most(items)
    if most == 1:
        return [items]
    # the first mark that separates slices of one place and takes no more values than they need
    for name in dict.fromkeys(name for _, _, marks in items for name in marks):
        groups = collections.defaultdict(list)
        for item in items:
            groups[item[2].get(name)].append(item)
        if 1 < len(groups) <= most and all(_most(group) < most for group in groups.values()):
            return [part for group in groups.values() for part in _told_apart(group)]
    ranks: dict[int, list] = collections.defaultdict(list)
    seen: collections.Counter = collections.Counter()
    for item in items:
        ranks[seen[item[0]]].append(item)
        seen[item[0]] += 1
    repeated = sum(count > 1 for count in seen.values())
    if set(seen.values()) == {most} or repeated <= _RESCANNED * len(seen):
        return list(ranks.values())
    return [[item] for item in items]


def _most(items: list[tuple[int, Slice, dict[str, str]]]) -> int:
    return max(collections.Counter(place for place, _, _ in items).values())
