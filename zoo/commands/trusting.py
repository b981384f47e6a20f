"""`calibrate`, and the alarms of other commands: when not to trust a model."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import run
from zoo.commands import asked
from zoo.commands.asked import FLAGS, UsageError

if TYPE_CHECKING:
    from zoo.registry import Entry
    from zoo.trust.calibration import Calibration
    from zoo.trust.structures import Segmentations
    from zoo.trust.watch import Watch


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
        segmentations=segmentations(),
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


def watched() -> bool:
    """Whether alarms are asked for, by --report or --strict; a UsageError for what needs them."""
    asked_for = bool(FLAGS.report or FLAGS.strict)
    if FLAGS.segmentation and not asked_for:
        raise UsageError("segmentation: expected --report or --strict beside it. Received: none")
    return asked_for


def segmentations() -> "Segmentations | None":
    """The label maps of --segmentation."""
    from zoo.trust.structures import Segmentations

    given = asked.path("segmentation")
    return None if given is None else Segmentations(given)


def watch(model: Any, entry: "Entry", explaining: Callable[[str], str] | None = None) -> "Watch":
    """The alarms of a model, with the limits that it was calibrated to; `explaining` of `Watch`."""
    from zoo.trust import calibration
    from zoo.trust.watch import Watch

    limits = calibration.limits_of(entry, model, asked.path("calibration"))
    if limits is None:
        text = "expected a model whose alarms were calibrated, by the command calibrate."
        if FLAGS.strict:
            raise ValueError(f"strict: {text} Received: {entry.name}")
        print(f"note: the report has no limits. alarms: {text}", file=sys.stderr)
    return Watch(model, limits, explaining, segmentations())


def reported(watch: "Watch") -> int:
    """Writes the report that was asked for; the exit code by the alarms."""
    folder = asked.path("report")
    if folder is not None:
        watch.write(folder)
        print(f"Wrote {folder}/alarms.json and {folder}/alarms.html")
    return 3 if FLAGS.strict and watch.raised else 0
