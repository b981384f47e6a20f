"""What will go wrong with a user's files, a sentence each that names them."""

import itertools
from collections import defaultdict

import numpy as np

from zoo.plan import files
from zoo.plan.files import Found
from zoo.plan.pixels import SHARES, Pair, Side

FEW = 5  # patients whose anatomy a network learns by heart
ENOUGH = 20
FEW_HELD_OUT = 10  # with fewer, intervals over patients are too narrow
APART = 1.0  # pixels
HOPELESS = 0.1  # of a side
_MANY = 0.25  # of all pairs
_SIZES = 2.0  # times as long
_LEVELS = 3.0  # times as bright
# Of two groups of intensities that are no accident: how far apart they are, as a part of the
# brightest, and their mean silhouette. Simulated brains: of one contrast up to 0.20 and 0.44,
# of T1 and T2 mixed half and half 0.27 and 0.55.
_GAP, _CLEAR = 0.22, 0.5


def warnings(
    found: Found,
    sides: list[Side],
    pairs: list[Pair],
    *,
    registers: bool,
    shares: bool = False,
    labels: bool = False,
) -> list[str]:
    """All warnings.

    Args:
        found: the files.
        sides: what the images of each side hold.
        pairs: how those of pairs go together.
        registers: whether the model can learn where a target lies.
        shares: whether the user permits one patient in several splits.
        labels: whether the targets are label maps, whose numbers are no intensities.
    """
    told = [*_patients(found, shares), *_copies(found, sides)]
    for place, (name, side) in enumerate(zip(found.sides, sides, strict=True)):
        volumes = found.volumes(place)
        told += _units(name, volumes) + _sizes(name, volumes)
        classes = labels and name == "target"
        if not classes:
            told += _contrasts(name, volumes, side, found.units[place])
        if side.constant:
            told.append(f"{name}: nothing but one value is in {some(side.constant)}.")
        if side.saturated and not classes:
            told.append(
                f"{name}: more than 1 % of what is imaged is at the largest value, so cut off, in "
                f"{some(side.saturated)}."
            )
        for volume, why in list(side.unread.items())[:3]:
            told.append(f"{name}: {volume} cannot be read ({why}).")
    return told + _alignment(found, pairs, registers)


def some(names: list[str], most: int = 6) -> str:
    """The first of many names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _patients(found: Found, shares: bool) -> list[str]:
    told, counts = [], found.patients()
    count = counts.get("train", 0)
    if count < FEW:
        told.append(
            f"{count} patients to train on are too few: a network learns their anatomy by heart; "
            f"{ENOUGH} are enough for minutes of training, and more are better."
        )
    elif count < ENOUGH:
        told.append(
            f"{count} patients to train on are few: watch the figures of held-out patients, which "
            f"{ENOUGH} or more make better."
        )
    held_out = [split for split in files.SPLITS[1:] if counts.get(split, 0) < FEW_HELD_OUT]
    if held_out:
        numbers = " and ".join(f"{counts.get(split, 0)} for {split}" for split in held_out)
        told.append(
            f"{numbers}: from fewer than {FEW_HELD_OUT} patients a figure's interval is too narrow."
        )
    if found.layout.unknown:
        told.append(
            f"of {found.layout.unknown} images or pairs no file says whose they are, so each "
            "counts as a patient; a .tsv list with a column patient says it."
        )
    shared = [f"in {split} {some(names)}" for split, names in found.shared().items()]
    if shared:
        so = "so that figures flatter" if shares else "which training refuses"
        told.append(f"patients are in several splits, {so}: {'; '.join(shared)}.")
    return told


def _copies(found: Found, sides: list[Side]) -> list[str]:
    """Images that are there twice, under two patients."""
    places = defaultdict(set)
    for split in files.SPLITS:
        for item in found.items(split):
            for volume in itertools.chain(*(each.parts for each in item.volumes)):
                places[volume.name].add((item.patient, split, files.real(volume)))
    told = []
    for side in sides:
        names: dict[str, list[str]] = defaultdict(list)
        for name, content in side.hashes.items():
            names[content].append(name)
        for same in names.values():
            owners = set().union(*(places[name] for name in same))
            if len(same) > 1 and len({patient for patient, _, _ in owners}) > 1:
                splits = sorted({split for _, split, _ in owners}, key=files.SPLITS.index)
                told.append(
                    f"the same image is there under {len(same)} names, as of different patients, "
                    f"in {' and '.join(splits)}: {some(sorted(same))}."
                )
    return told


def _units(name: str, volumes: list) -> list[str]:
    by_unit: dict[str, list[str]] = defaultdict(list)
    for volume in volumes:
        by_unit[files.stated(volume)].append(volume.name)
    stated = sorted(set(by_unit) - {""})
    if len(stated) > 1:
        texts = [f"{unit} in {some(by_unit[unit], 3)}" for unit in stated]
        return [f"{name}: units differ, which training refuses: {'; '.join(texts)}."]
    return []


def _sizes(name: str, volumes: list) -> list[str]:
    sizes = sorted((min(volume.shape), volume.name) for volume in volumes)
    if sizes[-1][0] <= _SIZES * sizes[0][0]:
        return []
    return [
        f"{name}: sizes differ much, from {sizes[0][0]} pixels along the shorter side in "
        f"{sizes[0][1]} to {sizes[-1][0]} in {sizes[-1][1]}."
    ]


def _contrasts(name: str, volumes: list, side: Side, unit: str) -> list[str]:
    """Images of several kinds on one side, by their headers or by their intensities."""
    told = []
    groups = files.protocols(volumes)
    echoes = {echo for _, echo in groups if echo}
    descriptions = {description for description, _ in groups if description}
    if len(groups) > 1 and max(len(echoes), len(descriptions)) > 1:
        texts = [f"{len(names)} such as {names[0]}" for names in groups.values()]
        what = "EchoTime" if len(echoes) > 1 else "SeriesDescription"
        told.append(f"{name}: contrasts are mixed, as {what} tells apart: {some(texts, 4)}.")
    if unit == "HU" or told:  # HU mean the same everywhere, and hold what anatomy is imaged
        return told
    names = list(side.profiles)
    profiles = np.array([side.profiles[each] for each in names]).reshape(-1, len(SHARES))
    brightest = profiles[:, SHARES.index(99)] if names else np.zeros(0)
    second = second_group(profiles)
    if second.any():
        texts = [names[np.flatnonzero(~second)[0]], names[np.flatnonzero(second)[0]]]
        told.append(
            f"{name}: contrasts are mixed, as intensities tell apart: {int((~second).sum())} such "
            f"as {texts[0]}, and {int(second.sum())} such as {texts[1]}."
        )
    elif len(names) > 1 and brightest.min() > 0:
        low, high = int(brightest.argmin()), int(brightest.argmax())
        if brightest[high] > _LEVELS * brightest[low]:
            told.append(
                f"{name}: brightness differs by a factor of {brightest[high] / brightest[low]:.1f} "
                f"between {names[low]} and {names[high]}: one window cannot suit both."
            )
    return told


def second_group(profiles: np.ndarray) -> np.ndarray:
    """Which of the profiles are of another kind than most; none where all are of one.

    Profiles are divided by their brightest values first: gain is no contrast.
    """
    none = np.zeros(len(profiles), bool)
    if len(profiles) < 4:
        return none
    shapes = profiles[:, SHARES.index(5) : SHARES.index(99) + 1]
    shapes = shapes / np.maximum(np.abs(shapes[:, -1:]), 1e-9)
    # Two means, from the two that are furthest apart along the principal axis.
    centred = shapes - shapes.mean(0)
    axis = np.linalg.svd(centred, full_matrices=False)[2][0]
    order = (centred @ axis).argsort()
    means = shapes[order[[0, -1]]]
    for _ in range(20):
        distances = np.linalg.norm(shapes[:, None] - means, axis=2)
        second = distances.argmin(1) == 1
        if second.all() or not second.any():
            return none
        means = np.stack([shapes[~second].mean(0), shapes[second].mean(0)])
    # Are they two?
    apart = np.linalg.norm(shapes[:, None] - shapes, axis=2)
    inner, outer = np.zeros(len(shapes)), np.zeros(len(shapes))
    for number in range(len(shapes)):
        mine = second == second[number]
        inner[number] = apart[number, mine].sum() / max(mine.sum() - 1, 1)
        outer[number] = apart[number, ~mine].mean()
    silhouette = np.mean((outer - inner) / np.maximum(inner, outer).clip(1e-9))
    small = min(second.sum(), (~second).sum())
    if silhouette < _CLEAR or small < 2 or np.linalg.norm(means[1] - means[0]) < _GAP:
        return none
    return second if second.sum() == small else ~second


def _alignment(found: Found, pairs: list[Pair], registers: bool) -> list[str]:
    far = [pair for pair in pairs if np.hypot(*pair.shift) > APART]
    if not far:
        return []
    far.sort(key=lambda pair: -np.hypot(*pair.shift))
    names = [f"{pair.name} by {np.hypot(*pair.shift):.1f} pixels" for pair in far]
    if hopeless(found, pairs):
        advice = "unpaired translation (cyclegan) does not need them to agree"
    elif registers:
        advice = "`registration=true` learns where the targets lie"
    else:
        advice = "register them first"
    return [
        f"{len(far)} of {len(pairs)} pairs do not lie on each other: {some(names, 4)}; {advice}."
    ]


def apart(pairs: list[Pair]) -> bool:
    """Whether a quarter or more of the pairs do not lie on each other."""
    far = [np.hypot(*pair.shift) > APART for pair in pairs]
    return bool(far) and bool(np.mean(far) >= _MANY)


def hopeless(found: Found, pairs: list[Pair]) -> bool:
    """Whether most pairs are too far apart for anything that compares their pixels."""
    if not pairs:
        return False
    side = np.median([min(volume.shape) for volume in found.volumes(0)])
    return bool(np.median([np.hypot(*pair.shift) for pair in pairs]) > HOPELESS * side)
