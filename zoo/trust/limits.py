"""From which value on a figure alarms: found on patients, so that few of others raise any.

Each patient is judged by the others: how far its worst image lies from what is usual of them. Where
an alarm's tail begins and how long it is are its own, and of all alarms the greatest distance in
tails counts. Of these the one is taken that a new patient exceeds with a chance of at most
`FALSE_ALARMS` (conformal prediction, by the patient). Imports no TensorFlow.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from zoo.errors import short
from zoo.trust.alarms import ALARMS

FALSE_ALARMS = 0.05  # of patients like those of the calibration
ROOM = 1.1  # the limits lie farther out by this
_TAIL = 0.95  # the share of images below the spread's end, 1.645 standard deviations of normal ones
_NEAR = 0.7  # the share of patients before the tail
_SHORTEST = 0.25  # a tail, of where it starts
_LOGARITHMIC = ("shift", "removed_blob", "cycle")
_CORRELATIONS = ("edges", "tone", "removed_edges", "removed_grain")

Figures = dict[str, float]


class Breach(NamedTuple):
    """A figure beyond its limit."""

    alarm: str
    value: float
    limit: float

    def words(self, unit: str) -> str:
        """In a line, such as "shift 3.1 pixels, limit 0.6 pixels"."""
        shown = unit_of(self.alarm, unit)
        return f"{self.alarm} {self.value:.3g}{shown}, limit {self.limit:.3g}{shown}"


def unit_of(alarm: str, unit: str) -> str:
    """What stands behind an alarm's numbers."""
    own = {"pixels": " pixels", "unit": f" {unit}"}.get(ALARMS[alarm].unit, "")
    return "" if own == " 1" else own


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of a model's figures, and for whom they hold.

    Attributes:
        limits: by alarm the lowest and the highest usual value; None where there is no such limit.
        false_alarms: the share of patients that may raise any alarm, on average.
        patients, images: how many they were found on.
        most: images of one patient: of more than so many any one alarms more often.
        average: the `note` of the `zoo.Average` that answered, "" of one model.
        dataset, split: whose patients they were; no split of those that its simulation drew anew.
        weights: sha256 of the network's weights that they hold for.
    """

    limits: dict[str, tuple[float | None, float | None]]
    false_alarms: float
    patients: int
    images: int
    most: int
    average: str = ""
    dataset: str
    split: str
    weights: str

    def to_dict(self) -> dict[str, Any]:
        limits = {name: list(pair) for name, pair in self.limits.items()}
        return dataclasses.asdict(self) | {"limits": limits}

    @classmethod
    def from_dict(cls, fields: Any, where: str = "alarms") -> "Limits":
        """What `to_dict` gave.

        Raises:
            ValueError: for anything else; begins with `where`.
        """
        kinds = {f.name: f.type for f in dataclasses.fields(cls)}
        if not isinstance(fields, dict) or set(fields) != set(kinds):
            raise ValueError(f"{where}: expected {', '.join(kinds)}. Received: {short(fields)}")
        for name, kind in kinds.items():
            if kind in (str, int) and not isinstance(fields[name], kind):
                raise ValueError(
                    f"{where}: {name}: expected another kind. Received: {short(fields[name])}"
                )
        if not _number(fields["false_alarms"]):
            raise ValueError(
                f"{where}: false_alarms: expected a number. "
                f"Received: {short(fields['false_alarms'])}"
            )
        # What a newer version measures is no limit of this one.
        limits = {}
        for name, pair in _pairs(fields["limits"], where).items():
            if name in ALARMS:
                limits[name] = pair
        return cls(**fields | {"limits": limits})

    @property
    def words(self) -> str:
        """What they promise, in a sentence."""
        whose = f"{self.split} split" if self.split else "simulated anew"
        return (
            f"at most {self.false_alarms:.0%} of patients like the {self.patients} of "
            f"{self.dataset}, {whose}, that they were found on (up to {self.most} "
            "images each) raise any alarm without a reason"
        )

    def markdown(self, unit: str) -> str:
        """A table of the limits for a card, with what they promise above it.

        Args:
            unit: of the images.
        """
        promise = f"{self.words[0].upper()}{self.words[1:]}."
        rows = [f"{promise}\n", "| alarm | what it measures | usual |", "|---|---|---|"]
        for name, (low, high) in self.limits.items():
            if low is None:
                shown = f"at most {high:.3g}"
            else:
                shown = f"at least {low:.3g}" if high is None else f"{low:.3g} to {high:.3g}"
            rows.append(f"| {name} | {ALARMS[name].words} | {shown}{unit_of(name, unit)} |")
        return "\n".join(rows)

    def breaches(self, figures: Figures) -> list[Breach]:
        """The figures of an image that lie beyond their limits."""
        found = []
        for name, (low, high) in self.limits.items():
            value = figures.get(name)
            if value is not None and low is not None and value < low:
                found.append(Breach(name, value, low))
            elif value is not None and high is not None and value > high:
                found.append(Breach(name, value, high))
        return found


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _pairs(value: Any, where: str) -> dict[str, tuple[float | None, float | None]]:
    if not isinstance(value, dict):
        raise ValueError(f"{where}: limits: expected alarms and their limits. Received: {value!r}")
    for name, pair in value.items():
        right = isinstance(pair, list | tuple) and len(pair) == 2
        if not right or not all(end is None or _number(end) for end in pair):
            raise ValueError(
                f"{where}: limits: {name}: expected [low, high], numbers or null. "
                f"Received: {short(pair)}"
            )
    return {name: (pair[0], pair[1]) for name, pair in value.items()}


class Usual:
    """The figures of patients' images, and the limits that follow."""

    def __init__(self) -> None:
        self.patients: dict[str, list[Figures]] = {}

    def add(self, patient: str, figures: Figures) -> None:
        """An image of a patient, by a pseudonym."""
        self.patients.setdefault(patient, []).append(figures)

    def limits(self, model: Any, dataset: str, split: str) -> Limits:
        """The limits of a model by these patients.

        Of few patients `false_alarms` is 1 / (patients + 1), which is all that they can show.

        Raises:
            ValueError: for fewer than two patients.
        """
        count = len(self.patients)
        if count < 2:
            raise ValueError(f"patients: expected 2 or more for alarms. Received: {count}")
        # How far each patient's worst image lies from what is usual of the others, in spreads, and
        # beyond where most do, in lengths of the alarm's own tail: a long one stretches no other.
        worst = np.full(count, -math.inf)
        spreads, tails = {}, {}
        for name in ALARMS:
            values, owners = self._of(name)
            away: dict[int, float] = {}
            for number in set(owners.tolist()):
                own = owners == number
                if not own.all():
                    away[number] = _away(name, values[own], _spread(name, values[~own])).max()
            if not away:
                continue
            spreads[name], tails[name] = _spread(name, values), _tail(list(away.values()))
            for number, distance in away.items():
                worst[number] = max(worst[number], tails[name].beyond(distance))
        # What a new patient exceeds seldom, by its rank: half as often, since tails are theirs too.
        rank = math.ceil((count + 1) * (1 - FALSE_ALARMS / 2))
        beyond = max(0.0, float(np.sort(worst)[min(rank, count) - 1]))
        limits = {}
        for name, spread in spreads.items():
            start, length = tails[name]
            ends = _ends(name, spread, ROOM * (start + beyond * length))
            if ends != (None, None):
                limits[name] = ends
        counts = [len(images) for images in self.patients.values()]
        return Limits(
            limits=limits,
            false_alarms=round(max(FALSE_ALARMS, 1 / (count + 1)), 4),
            patients=count,
            images=sum(counts),
            most=max(counts),
            average=getattr(model, "note", ""),
            dataset=dataset,
            split=split,
            weights=model.weights_hash,
        )

    def _of(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """An alarm's values, made even, and of each the number of its patient."""
        values, owners = [], []
        for number, images in enumerate(self.patients.values()):
            for figures in images:
                if name in figures:
                    values.append(_even(name)(figures[name]))
                    owners.append(number)
        return np.asarray(values), np.asarray(owners)


class _Spread(NamedTuple):
    """The usual value, and how far it spreads below and above."""

    middle: float
    below: float
    above: float


def _spread(name: str, values: np.ndarray) -> _Spread:
    low, middle, high = np.quantile(values, [1 - _TAIL, 0.5, _TAIL])
    # The room as it is about the middle, where the scale is not even; no correlation is above 1.
    plain, even = _plain(name)(middle), _even(name)
    side = -1 if name in _CORRELATIONS else 1
    room = abs(even(plain + side * ALARMS[name].room) - even(plain))
    return _Spread(middle, max((middle - low) / 1.645, room), max((high - middle) / 1.645, room))


class _Tail(NamedTuple):
    """Beyond which distance an alarm's far patients begin, and how far beyond it they lie."""

    start: float
    length: float

    def beyond(self, distance: float) -> float:
        return (distance - self.start) / self.length


def _tail(distances: list[float]) -> _Tail:
    start = max(1.0, float(np.quantile(distances, _NEAR)))
    beyond = [each - start for each in distances if each > start]
    return _Tail(start, max(_SHORTEST * start, float(np.mean(beyond or 0.0))))


def _away(name: str, values: np.ndarray, spread: _Spread) -> np.ndarray:
    """How many spreads beyond the middle values lie on a side that alarms."""
    above = (values - spread.middle) / spread.above * ALARMS[name].high
    below = (spread.middle - values) / spread.below * ALARMS[name].low
    return np.maximum(above, below)


def _ends(name: str, spread: _Spread, distance: float) -> tuple[float | None, float | None]:
    """The limits on the sides that alarm; None where hardly any value lies beyond."""
    low = high = None
    least, most = _told(name)
    if ALARMS[name].low:
        low = float(f"{_plain(name)(spread.middle - distance * spread.below):.4g}")
    if ALARMS[name].high:
        high = float(f"{_plain(name)(spread.middle + distance * spread.above):.4g}")
    if low is not None and low <= least:
        low = None
    if high is not None and high >= most:
        high = None
    return low, high


def _told(name: str) -> tuple[float, float]:
    """Beyond which values no limit says anything: an inverted output's tone is about -0.9."""
    if name in _CORRELATIONS:
        return -0.9, 1.0
    if ALARMS[name].unit == "share" or name in ("information", "dice"):
        return 0.0, 1.0
    return -math.inf, math.inf


def _even(name: str) -> Callable[[float], float]:
    """What makes an alarm's values spread about evenly."""
    if name in _LOGARITHMIC:
        return lambda value: math.log(max(value, 0.0) + ALARMS[name].room)
    if name in _CORRELATIONS:
        return lambda value: math.atanh(min(max(value, -0.9999), 0.9999))
    return float


def _plain(name: str) -> Callable[[float], float]:
    """Back from `_even`."""
    if name in _LOGARITHMIC:
        return lambda value: math.exp(value) - ALARMS[name].room
    if name in _CORRELATIONS:
        return math.tanh
    return float
