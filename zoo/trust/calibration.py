"""What makes intervals of a spread: the record, and where it is kept."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from zoo import run
from zoo.atomic import write_json
from zoo.errors import short
from zoo.registry import Entry
from zoo.trust.limits import Limits

_MOST_BYTES = 2**16  # of a file


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """What makes intervals of a model's spread, and for what they hold.

    Attributes:
        spread: where it comes from, one of `zoo.trust.spread.NAMES`.
        average: the `note` of the `zoo.Average` that answered, "" of one model.
        factor: what the spread is multiplied by: the half-width of the interval about the answer.
        alpha: the share of a patient's pixels that may be missed on average over patients.
        delta: the chance that these patients mislead, and more is missed.
        risk: the share that is missed of the patients of the calibration.
        patients, images: how many there were.
        pixels: which count: "body", or "all".
        half_width: its mean over these pixels and patients, in the unit.
        correlation: Spearman's, of mean width and mean absolute error over blocks of 8 x 8 pixels,
            its mean over patients; None where there were too few blocks.
        unit: of the target.
        dataset, split: whose patients they were.
        weights: sha256 of the network's weights that the factor holds for.
    """

    spread: str
    average: str = ""
    factor: float
    alpha: float
    delta: float
    risk: float
    patients: int
    images: int
    pixels: str
    half_width: float
    correlation: float | None = None
    unit: str
    dataset: str
    split: str
    weights: str

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Any, where: str = "uncertainty") -> "Calibration":
        """What `to_dict` gave, perhaps with the limits of alarms beside it.

        Raises:
            ValueError: for anything else; begins with `where`.
        """
        kinds = {f.name: f.type for f in dataclasses.fields(cls)}
        if isinstance(fields, dict):
            fields = {name: value for name, value in fields.items() if name != "alarms"}
        if not isinstance(fields, dict) or set(fields) != set(kinds):
            raise ValueError(f"{where}: expected {', '.join(kinds)}. Received: {short(fields)}")
        for name, kind in kinds.items():
            value = fields[name]
            number = isinstance(value, float | int) and not isinstance(value, bool)
            right = isinstance(value, kind) if kind in (str, int) else number
            if not right and not (name == "correlation" and value is None):
                raise ValueError(
                    f"{where}: {name}: expected another kind. Received: {short(value)}"
                )
        if not 0 < fields["factor"] < float("inf"):
            raise ValueError(f"{where}: factor: expected above 0. Received: {fields['factor']}")
        return cls(**fields)

    @property
    def words(self) -> str:
        """What the intervals promise, in a sentence."""
        return (
            f"output ± half-width holds the target's value of all but {self.alpha:.0%} of a "
            f"patient's pixels, on average over patients like the {self.patients} of "
            f"{self.dataset}, {self.split} split, that this was found on "
            f"(confidence {1 - self.delta:.0%})"
        )


def keep(
    entry: Entry, calibration: Calibration | None, limits: Limits | None, output: Path | None
) -> Path:
    """Write what was found: of a run into its `run.json`, or into a file of its own.

    Returns:
        Where it is.

    Raises:
        ValueError: for a model that is no run, without an output.
    """
    found = {} if calibration is None else calibration.to_dict()
    alarms = {} if limits is None else {"alarms": limits.to_dict()}
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_json(output, found | alarms)
        return output
    folder = Path(entry.name)
    record = run.read(folder) | ({"uncertainty": found} if found else {})
    run.write(folder, record | alarms)
    return folder / "run.json"


def of(entry: Entry, model: Any, file: Path | None = None) -> Calibration:
    """The calibration of a model: of a file, or that its run or registry entry has.

    Args:
        entry: of the model, or of an average's first.
        model: that it has to suit.
        file: that `keep` wrote.

    Raises:
        ValueError: where there is none, or one of other weights or another mean.
        OSError: for a file that cannot be read.
    """
    fields, where = entry.uncertainty, f"{entry.name}: uncertainty"
    if file is not None:
        stored, where = _of_file(file), str(file)
        fields = None if set(stored) == {"alarms"} else stored
    if fields is None:
        raise ValueError(
            f"uncertainty: expected a model that was calibrated, by the command calibrate. "
            f"Received: {entry.name}"
        )
    found = Calibration.from_dict(fields, where)
    _require_suited("uncertainty", found, model)
    return found


def limits_of(entry: Entry, model: Any, file: Path | None = None) -> Limits | None:
    """The limits of a model's alarms, likewise; None where none were found.

    Raises:
        ValueError: for limits of other weights or another mean.
        OSError: for a file that cannot be read.
    """
    fields, where = entry.alarms, f"{entry.name}: alarms"
    if file is not None:
        fields, where = _of_file(file).get("alarms"), f"{file}: alarms"
    if fields is None:
        return None
    found = Limits.from_dict(fields, where)
    _require_suited("alarms", found, model)
    return found


def _of_file(file: Path) -> dict[str, Any]:
    if file.stat().st_size > _MOST_BYTES:
        raise ValueError(f"{file}: expected a file of at most {_MOST_BYTES} bytes.")
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: expected JSON. Received: {error}") from error
    if not isinstance(stored, dict):
        raise ValueError(f"{file}: expected fields and their values. Received: {short(stored)}")
    return stored


def _require_suited(what: str, found: Calibration | Limits, model: Any) -> None:
    """A ValueError for what was found of another mean, or of other weights."""
    if found.average != (note := getattr(model, "note", "")):
        raise ValueError(
            f"{what}: expected the {found.average or 'single model'} that was calibrated. "
            f"Received: {note or 'a single model'}"
        )
    if found.weights != model.weights_hash:
        raise ValueError(
            f"{what}: expected a calibration of these weights; calibrate them again. "
            f"Received: one of {found.weights[:12]} for {model.weights_hash[:12]}"
        )
