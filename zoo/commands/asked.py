"""What the flags ask for: names, folders, recipes, models. Imports TensorFlow only where used."""

import os
import shlex
import sys
from pathlib import Path
from typing import Any

from zoo import registry, run
from zoo.flags import USED, define

FLAGS = define()


class UsageError(Exception):
    """The command line asks for something that does not exist or does not go together."""


def need(*names: str) -> list[str]:
    missing = [name for name in names if not getattr(FLAGS, name)]
    if missing:
        raise UsageError(f"this command needs {', '.join(f'--{name}' for name in missing)}.")
    return [getattr(FLAGS, name) for name in names]


def given(command: str, *but: str) -> list[str]:
    """The flags of a command as they were given, some left out, for another process."""
    arguments = []
    for name in USED[command]:
        flag = FLAGS[name]
        if flag.present and name not in but:
            values = flag.value if isinstance(flag.value, list) else [flag.value]
            arguments += [f"--{name}={value}" for value in values]
    return arguments


def part() -> tuple[int, int]:
    """--part as K and N; (1, 1) where it is not given."""
    first, slash, last = (FLAGS.part or "1/1").partition("/")
    if not (slash and first.isdecimal() and last.isdecimal() and 0 < int(first) <= int(last)):
        raise UsageError(f"part: expected K/N, such as 1/4. Received: {FLAGS.part}")
    return int(first), int(last)


def beam_options() -> list[str]:
    """--beam_options, taken apart as a shell does."""
    try:
        return shlex.split(FLAGS.beam_options or "")
    except ValueError as error:
        raise UsageError(f"beam_options: {error}. Received: {FLAGS.beam_options}") from error


def path(name: str) -> Path | None:
    value = getattr(FLAGS, name)
    return Path(os.path.expanduser(value)) if value else None


def overrides() -> dict[str, Any]:
    fields = {name: getattr(FLAGS, name) for name in ("steps", "batch_size", "seed", "fold")}
    fields = {name: value for name, value in fields.items() if value is not None}
    return fields | ({"precision": FLAGS.precision} if FLAGS.precision != "auto" else {})


def lookup(name: str, preset: str = "paper", weights: str = "best") -> registry.Entry:
    try:
        return registry.lookup(name, FLAGS.dataset or "", preset, overrides(), FLAGS.set, weights)
    except ValueError as error:
        raise UsageError(str(error)) from error


def batch_size(engine: str) -> int:
    """--batch_size, else what suits the engine that `engines.use` named."""
    from zoo.inference import engines

    return FLAGS.batch_size or (1 if engine == "Keras" else engines.BATCH)


def workdir(model: str, dataset: str) -> Path:
    return path("workdir") or Path("runs") / f"{model}-{dataset.replace('/', '-')}"


def trained() -> registry.Entry:
    """The entry of --model with weights: a pretrained one, or a run's."""
    if FLAGS.workdir and not FLAGS.model:
        return lookup(FLAGS.workdir, weights=FLAGS.weights)
    (name,) = need("model")
    folder = f"{_run_of(name)}{os.sep}" if name in registry.index()["models"] else name
    entry = lookup(folder, weights=FLAGS.weights)
    if entry.weights is None:
        raise UsageError(
            f"model: {name} has no weights yet; train it to the end first, or name the step of a "
            "checkpoint by --weights."
        )
    return entry


def members() -> list[registry.Entry]:
    """The entries of --ensemble, or the one of --model."""
    if not FLAGS.ensemble:
        return [trained()]
    if FLAGS.model or FLAGS.workdir:
        raise UsageError(
            "ensemble: expected its models in place of --model and --workdir. "
            f"Received: --ensemble={FLAGS.ensemble} and {FLAGS.model or FLAGS.workdir}"
        )
    names = [name for name in FLAGS.ensemble.split(",") if name]
    if len(names) < 2:
        raise UsageError(f"ensemble: expected two names or more. Received: {FLAGS.ensemble}")
    entries = [lookup(name, weights=FLAGS.weights) for name in names]
    for entry in entries:
        if entry.weights is None:
            raise UsageError(
                "ensemble: expected pretrained models, or runs that came to an end. "
                f"Received: {entry.name}"
            )
    return entries


def _run_of(model: str) -> Path:
    """The folder of the run that --workdir or --dataset names, else of the only one there is."""
    if FLAGS.workdir or FLAGS.dataset:
        runs = [workdir(model, FLAGS.dataset or "")]
    else:
        runs = sorted(run.folders(Path("runs"), model))
    if len(runs) == 1 and run.exists(runs[0]):
        return runs[0]
    found = ", ".join(map(str, runs)) if len(runs) > 1 else "none"
    raise UsageError(
        f"model: {model} is an architecture without weights. Name a pretrained model, or "
        f"a run by --workdir or --dataset. Received: {found} trained here"
    )


def built(*entries: registry.Entry):
    from zoo import averaging

    return averaging.build(entries, FLAGS.tta)


def servable(entry: registry.Entry, model: Any, alarms: bool = False):
    """The calibration that a graph can have, of --calibration or the model's own.

    None where there is none, or, with a line that says why, where it is none for a graph; with
    `alarms` the file may be there for these alone.
    """
    from zoo.trust import calibration, served

    file = path("calibration")
    if entry.uncertainty is None and file is None:
        return None
    try:
        found = calibration.of(entry, model, file)
        if found.spread not in served.IN_GRAPHS:
            raise ValueError(f"uncertainty: it is by {found.spread}, which no graph holds")
    except ValueError as error:
        if file is not None and not alarms:
            raise
        print(f"note: without uncertainty. {error}", file=sys.stderr)
        return None
    return found
