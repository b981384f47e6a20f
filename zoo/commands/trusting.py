"""`calibrate`: when not to trust a model."""

from pathlib import Path
from typing import TYPE_CHECKING

from zoo import run
from zoo.commands import asked
from zoo.commands.asked import FLAGS, UsageError

if TYPE_CHECKING:
    from zoo.trust.calibration import Calibration


def calibrate() -> int:
    # What is asked for.
    entry, *others = asked.members()
    levels = {name: _share(name) for name in ("alpha", "delta")}
    output = asked.path("output")
    if output is None and (others or not run.exists(Path(entry.name))):
        raise UsageError(
            "output: expected a file for what is no run of yours, to be given to predict by "
            f"--calibration. Received: none, with {entry.name}"
        )
    if not entry.dataset:
        raise UsageError(f"dataset: expected one with pairs. Received: none, with {entry.name}")
    from zoo.trust import calibrate, calibration

    found, limits = calibrate.calibrate(
        entry,
        data_dir=asked.path("data_dir"),
        input=asked.path("input"),
        split=FLAGS.split if FLAGS["split"].present else "validation",
        ensemble=others,
        tta=FLAGS.tta,
        spread=FLAGS.spread,
        **levels,
    )
    # What was found.
    path = calibration.keep(entry, found, limits, output)
    if found is not None:
        _say(found)
    if limits is not None:
        print(f"Alarms: limits of {len(limits.limits)} figures; {limits.words}.")
    print(f"Wrote {path}")
    return 0


def _say(found: "Calibration") -> None:
    """What there is to say of intervals."""
    unit = "" if found.unit == "1" else f" {found.unit}"
    print(
        f"Intervals by {found.spread}: half-width {found.half_width:.4g}{unit} on average, "
        f"{found.factor:.3g} times the spread; {found.risk:.1%} of the pixels of "
        f"{found.patients} patients are missed."
    )
    print(f"Promise: {found.words}.")
    if found.correlation is not None:
        print(f"Rank correlation of width and error, in blocks of 8 x 8: {found.correlation:.2f}")


def _share(name: str) -> float:
    """A flag's number between 0 and 1."""
    text = getattr(FLAGS, name)
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise UsageError(f"{name}: expected a number between 0 and 1. Received: {text}")
    return value
