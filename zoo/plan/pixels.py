"""What is measured on some slices of some volumes: a little at a time, whatever their number."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from zoo.errors import contained
from zoo.guards import noise_level
from zoo.imaging.grids import OnGrid
from zoo.imaging.volume import Volume
from zoo.plan import pairs

AIR = -500.0  # HU: below lies what is outside of the body
SHARES = (0.05, 0.5, 1, 5, 25, 50, 75, 95, 99, 99.5, 99.95)  # percentiles of the foreground
_SLICES = 96  # slices of a side that are measured in all, where there are that few volumes
_MOST = 8  # of one volume
_ASKED = 8  # volumes whose unit is guessed
_PART = 0.02  # of an image that is air, and that is soft tissue, where it is in HU
_KEPT = 2048  # values of a slice that percentiles are taken of


@dataclasses.dataclass(eq=False, kw_only=True)
class Side:
    """What the images of one side hold.

    Attributes:
        values: some values of the foreground of all of them, in their unit.
        whole: some values of all pixels.
        profiles: of each volume the percentiles `SHARES` of its foreground, by its name.
        hashes: of each volume that of its middle slice, by its name; none of constant ones.
        constant: names of volumes of a single value.
        saturated: names of volumes of whose foreground more than 1 % is at the largest value.
        noise: standard deviations of the noise of slices.
        unread: names of volumes that cannot be read, with the reasons.
    """

    values: list[np.ndarray] = dataclasses.field(default_factory=list)
    whole: list[np.ndarray] = dataclasses.field(default_factory=list)
    profiles: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    hashes: dict[str, str] = dataclasses.field(default_factory=dict)
    constant: list[str] = dataclasses.field(default_factory=list)
    saturated: list[str] = dataclasses.field(default_factory=list)
    noise: list[float] = dataclasses.field(default_factory=list)
    unread: dict[str, str] = dataclasses.field(default_factory=dict)

    def percentiles(self) -> dict[float, float]:
        """Of the foreground of all, by `SHARES`."""
        found = np.percentile(np.concatenate(self.values), SHARES)
        return dict(zip(SHARES, map(float, found), strict=True))

    def note(self, volume: Volume, middle: np.ndarray) -> None:
        """Remember a volume's middle slice, to know it again."""
        if np.ptp(middle) > 0:
            content = np.ascontiguousarray(middle, np.float32).tobytes()
            text = f"{middle.shape}".encode() + content
            self.hashes[volume.name] = hashlib.sha256(text).hexdigest()

    def note_all(self, volumes: list[Volume]) -> None:
        """Remember the middle slices of volumes that are not measured."""
        for volume in volumes:
            try:
                self.note(volume, read(volume, volume.length // 2))
            except (ValueError, OSError) as error:
                self.unread[volume.name] = str(error)

    def add(self, volume: Volume, images: list[np.ndarray], unit: str) -> None:
        """Measure slices `[H, W]` of a volume, the middle one first."""
        pools = []
        for image in images:
            inside = image[foreground(image, unit)]
            pools.append(inside[:: 1 + inside.size // _KEPT])
            self.whole.append(image.ravel()[:: 1 + image.size // _KEPT])
            level = noise_level(image, unit)
            if level is not None:
                self.noise.append(level)
        pool = np.concatenate(pools)
        if max(float(np.ptp(image)) for image in images) == 0:
            self.constant.append(volume.name)
            return
        self.note(volume, images[0])
        if pool.size:
            self.values.append(pool)
            self.profiles[volume.name] = np.percentile(pool, SHARES)
            top = max(float(image.max()) for image in images)
            if np.mean(pool == top) > 0.01 and len(np.unique(pool)) > 8:
                self.saturated.append(volume.name)


@dataclasses.dataclass(eq=False, kw_only=True)
class Pair:
    """How a pair of volumes goes together, over its measured slices.

    Attributes:
        name: of the target's file.
        shift: pixels (rows, columns), the median.
        correlation: the median.
    """

    name: str
    shift: tuple[float, float]
    correlation: float


def foreground(image: np.ndarray, unit: str) -> np.ndarray:
    """Where there is something: above air in HU, else above a tenth of the brightest."""
    if unit == "HU":
        return image > AIR
    low, high = np.percentile(image, [0.5, 99.5])
    return image > low + 0.1 * (high - low)


def hounsfield(volumes: list[Volume]) -> bool:
    """Whether volumes whose unit nobody says hold HU: air near -1000, and soft tissue about 0.

    False where none of those that are asked can be read.
    """
    chosen = np.unique(np.linspace(0, len(volumes) - 1, _ASKED).round().astype(int))
    answers = 0
    for volume in [volumes[place] for place in chosen]:
        try:
            image = read(volume, volume.length // 2)
        except (ValueError, OSError):  # named when it is measured
            continue
        answers += 1
        air = np.mean((image >= -1100) & (image <= -800))
        tissue = np.mean((image > -200) & (image < 200))
        if min(air, tissue) < _PART:
            return False
    return answers > 0


def slices_of(volume: Volume, among: int) -> list[int]:
    """Which slices of one of so many volumes are measured, the middle one first."""
    count = int(np.clip(_SLICES // max(among, 1), 1, min(_MOST, volume.length)))
    places = np.linspace(0, volume.length - 1, count + 2).round().astype(int)[1:-1]
    return list(dict.fromkeys([volume.length // 2, *map(int, places)]))


def read(volume: Volume, index: int) -> np.ndarray:
    """A slice of one channel, `[H, W]`; of colours their mean.

    Raises:
        ValueError: for a slice that cannot be read, or holds values that are not finite.
    """
    with contained(volume.name):
        image = volume.read(index)
    image = image if image.ndim == 2 else image.mean(-1)
    known = np.isfinite(image)
    if isinstance(volume, OnGrid) and not known.all():  # a target does not reach so far
        image = np.where(known, image, image[known].min() if known.any() else 0.0)
    elif not known.all():
        raise ValueError("expected finite values")
    return image


def measure(items: Sequence[tuple[Volume, ...]], units: list[str]) -> tuple[list[Side], list[Pair]]:
    """What the volumes of each side hold, and how those of pairs go together.

    Args:
        items: source and target of each pair, or single volumes.
        units: of each side.

    Returns:
        A `Side` for each place in an item, and of pairs of one shape a `Pair` each.
    """
    sides, found = [Side() for _ in units], []
    for volumes in items:
        chosen = slices_of(volumes[0], len(items))
        stacks: list[Any] = []
        # Each volume by itself.
        for side, volume, unit in zip(sides, volumes, units, strict=True):
            try:
                last = volume.length - 1
                stacks.append([read(volume, min(index, last)) for index in chosen])
            except (ValueError, OSError) as error:
                side.unread[volume.name] = str(error)
                continue
            side.add(volume, stacks[-1], unit)
        # And both together.
        if len(stacks) == 2 and stacks[0][0].shape == stacks[1][0].shape:
            both = _together(volumes[1].name, stacks[0], stacks[1], units)
            found += [both] if both else []
    return sides, found


def _together(
    name: str, sources: list[np.ndarray], targets: list[np.ndarray], units: list[str]
) -> Pair | None:
    fits = []
    for source, target in zip(sources, targets, strict=True):
        mask = foreground(source, units[0]) | foreground(target, units[1])
        fit = pairs.compare(source, target, mask)
        fits += [fit] if fit else []
    if not fits:
        return None
    down, right = np.median([fit.shift for fit in fits], axis=0)
    correlation = float(np.median([fit.correlation for fit in fits]))
    return Pair(name=name, shift=(float(down), float(right)), correlation=correlation)
