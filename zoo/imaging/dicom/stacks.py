"""Which slices of a series lie on top of each other, and which show one place at other times."""

import collections
import itertools
from collections.abc import Hashable, Iterator
from typing import NamedTuple

import numpy as np

from zoo.imaging.dicom.slices import Slice

_DIRECTION = 1e-3  # by which directions of one orientation may differ, as rounding makes them
_SPACING = 1e-3  # and by which part of it a spacing
_RESCANNED = 0.1  # the part of all places at which a slice may have been taken once more
_SAME_PLACE = 0.01  # mm between slices of one place; less where pixels are tiny


class _Placed(NamedTuple):
    """A slice, the number of its place along the normal, and its marks."""

    place: int
    item: Slice
    marks: dict[str, str]


def stack(slices: list[Slice]) -> list[list[Slice]]:
    """Parts whose slices lie at different places, each sorted along the slice normal.

    Where places repeat, as those of time points, echoes and b values do, the slices are told apart
    by their marks; where no mark does, and all places repeat as often or hardly any does, by their
    order. Else nothing says which are neighbours, and each is a part of its own. Slices without a
    position are sorted by their order.
    """
    return list(itertools.chain.from_iterable(map(_in_places, _groups(slices))))


def _groups(slices: list[Slice]) -> Iterator[list[Slice]]:
    """Slices of one kind, orientation and spacing, whose last digits may differ."""
    groups: dict[Hashable, list[list[Slice]]] = collections.defaultdict(list)
    for item in sorted(slices, key=lambda s: s.order):
        for group in groups[item.kind]:
            if alike(item, group[0]):
                group.append(item)
                break
        else:
            groups[item.kind].append([item])
    return itertools.chain.from_iterable(groups.values())


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
    by_distance = np.argsort(distances, kind="stable").tolist()
    tolerance = min(_SAME_PLACE, 0.1 * min(group[0].spacing or (1.0,)))
    steps = np.diff(distances[by_distance], prepend=-np.inf) > tolerance
    places = np.cumsum(steps).tolist()
    if places[-1] == len(group):
        return [[group[i] for i in by_distance]]
    # copies of one slice come apart first
    copies: dict[int, list[_Placed]] = collections.defaultdict(list)
    seen: collections.Counter = collections.Counter()
    pairs = zip(places, [group[i] for i in by_distance], strict=True)
    for place, item in sorted(pairs, key=lambda pair: pair[1].order):
        copy = place, item.instance()
        copies[seen[copy]].append(_Placed(place, item, item.marks()))
        seen[copy] += 1
    parts = itertools.chain.from_iterable(map(_told_apart, copies.values()))
    return [_sorted(part) for part in parts]


def _told_apart(items: list[_Placed]) -> Iterator[list[_Placed]]:
    """Parts in which each place occurs once, of items in order."""
    most = _most(items)
    if most == 1:
        yield items
        return
    # the first mark that separates slices of one place and takes no more values than they need
    for name in dict.fromkeys(itertools.chain.from_iterable(item.marks for item in items)):
        groups = collections.defaultdict(list)
        for item in items:
            groups[item.marks.get(name)].append(item)
        if 1 < len(groups) <= most and max(map(_most, groups.values())) < most:
            yield from itertools.chain.from_iterable(map(_told_apart, groups.values()))
            return
    # none does: by order, where all places repeat as often or hardly any does
    ranks: dict[int, list[_Placed]] = collections.defaultdict(list)
    seen: collections.Counter = collections.Counter()
    for item in items:
        ranks[seen[item.place]].append(item)
        seen[item.place] += 1
    repeated = sum(count > 1 for count in seen.values())
    if set(seen.values()) == {most} or repeated <= _RESCANNED * len(seen):
        yield from ranks.values()
    else:
        yield from ([item] for item in items)


def _most(items: list[_Placed]) -> int:
    """How often the place occurs that occurs most."""
    return max(collections.Counter(item.place for item in items).values())


def _sorted(part: list[_Placed]) -> list[Slice]:
    return [item.item for item in sorted(part, key=lambda item: item.place)]
