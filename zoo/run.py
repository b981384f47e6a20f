"""The folder of a run: `run.json`, and the lock that keeps it to one process.

`run.json` holds the model, data set, recipe, domains, library versions, state, step, metrics, the
figures of training and validation, what `calibrate` found, and the last and the best weights with
their sha256. No other module reads or writes it.
"""

import contextlib
import errno
import fcntl
import importlib
import json
import os
import platform
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from zoo.atomic import allocate, write_json
from zoo.domain import Domain
from zoo.errors import contained, reason, short

_NAME = "run.json"
_MOST_BYTES = 2**20  # of it
_RESERVE = 2**16  # bytes kept free for the state of a run that a full disk ends
# Fields that change what is written on the way and not the weights at the end.
_FREE_FIELDS = {"image_every", "checkpoint_every", "tile", "allow_shared_patients"}
_KINDS = {
    str: "a text",
    dict: "fields and their values",
    int: "a whole number",
    list: "a list",
}
_RUN_FIELDS = (
    ("model", str, True),
    ("recipe", dict, True),
    ("source", dict, True),
    ("target", dict, True),
    ("dataset", str, False),
    ("preset", str, False),
    ("weights", dict, False),
    ("best", dict, False),
    ("validation", dict, False),
    ("losses", dict, False),
    ("metrics", dict, False),
    ("uncertainty", dict, False),
    ("alarms", dict, False),
    ("state", str, False),
    ("step", int, False),
)
_SERIES_FIELDS = (("steps", list, True), ("values", dict, True))
_VALIDATION_FIELDS = (
    ("every", int, True),
    ("images", int, True),
    ("after", int, True),
    ("chosen_after", int, True),
    ("choose_by", str, True),
    ("better", str, True),
    ("extractor", str, True),
    *_SERIES_FIELDS,
)


def exists(folder: Path) -> bool:
    """Whether a folder is that of a run."""
    return (folder / _NAME).exists()


def folders(root: Path, model: str) -> list[Path]:
    """The runs of a model in a folder, by the names that they have by default."""
    return [path.parent for path in root.glob(f"{model}-*/{_NAME}")]


def read(folder: Path) -> dict[str, Any]:
    """What a run's `run.json` says, its fields checked.

    Raises:
        ValueError: for a damaged file; names it and what is wrong.
        OSError: for one that cannot be read.
    """
    path = folder / _NAME
    if path.stat().st_size > _MOST_BYTES or not path.is_file():  # a pipe would never end
        raise ValueError(f"{path}: expected a file of at most {_MOST_BYTES} bytes.")
    with contained(f"{path}: expected JSON"):
        try:
            stored = json.loads(path.read_bytes().decode("utf-8-sig"))
        except ValueError as error:
            raise ValueError(f"{path}: expected JSON. Received: {reason(error)}") from error
    if not isinstance(stored, dict):
        raise ValueError(f"{path}: expected fields and their values. Received: {short(stored)}")
    _check_fields(f"{path}", stored, _RUN_FIELDS)
    for part, fields in (("validation", _VALIDATION_FIELDS), ("losses", _SERIES_FIELDS)):
        if stored.get(part) is not None:
            _check_fields(f"{path}: {part}", stored[part], fields)
    for which in ("weights", "best"):
        _check_weights(path, which, stored.get(which))
    for side in ("source", "target"):
        domain(stored[side], f"{path}: {side}")
    return {"step": 0, "state": ""} | stored


def _check_fields(
    where: str, stored: dict[str, Any], fields: tuple[tuple[str, type, bool], ...]
) -> None:
    for field, kind, needed in fields:
        value = stored.get(field)
        if (needed or value is not None) and type(value) is not kind:
            expected = _KINDS[kind]
            received = short(value) if field in stored else "no such field"
            raise ValueError(f"{where}: {field}: expected {expected}. Received: {received}")


def _check_weights(path: Path, which: str, weights: dict[str, Any] | None) -> None:
    if weights is None:
        return
    for field in ("file", "sha256"):
        if not isinstance(weights.get(field), str):
            received = short(weights.get(field))
            raise ValueError(f"{path}: {which}: {field}: expected a text. Received: {received}")
    if not re.fullmatch("[0-9a-f]{64}", weights["sha256"]):
        received = short(weights["sha256"])  # without one, any file would do
        raise ValueError(
            f"{path}: {which}: sha256: expected 64 hexadecimal digits. Received: {received}"
        )


def domain(fields: dict[str, Any], where: str) -> Domain:
    """A domain that was stored as a dictionary.

    Raises:
        ValueError: for anything else, which begins with `where`.
    """
    with contained(f"{where}: expected a domain. Received"):
        try:
            return Domain.from_dict(fields)
        except ValueError as error:
            raise ValueError(f"{where}: {reason(error)}") from error


def stored(folder: Path, weights: str = "best") -> dict[str, Any]:
    """A run's record, with the path of its weights as `weights`, or None, and their `sha256`.

    Args:
        folder: the run folder.
        weights: "best" (the last ones where no best was chosen), "last", or the step of a
            checkpoint, whose path is that of its index.

    Returns:
        The record, with "which" of the weights these are, in words.

    Raises:
        ValueError, OSError: as `read`, for weights outside the folder, or that are not there.
    """
    record = read(folder)
    last, best = record.get("weights"), record.get("best")
    index = folder / "checkpoints" / f"ckpt-{weights}.index"
    if re.fullmatch("[0-9]{1,12}", weights) and index.is_file():
        which = f"checkpoint of step {int(weights)}"
        return record | {"weights": index, "sha256": "", "which": which}
    if weights == "best" and not (last or best):
        return record | {"weights": None}
    found = {"best": best or last, "last": last}.get(weights)
    if not found:
        raise ValueError(
            f"weights: expected best, last or the step of a checkpoint; {folder} has "
            f"{_there(folder, last, best)}. Received: {weights}"
        )
    which = "best" if found is best else "last"
    if "step" in found:
        which += f", of step {found['step']}"
    if "measure" in found:
        which += f" (validation {found['measure']} {found.get('value')})"
    path = inside(folder, found["file"])
    return record | {"weights": path, "sha256": found["sha256"], "which": which}


def _there(folder: Path, last: dict[str, Any] | None, best: dict[str, Any] | None) -> str:
    """The weights that a run folder has, in words."""
    found = [f"best (step {best.get('step')})"] if best else []
    found += [f"last (step {last.get('step')})"] if last else []
    steps = []
    for path in (folder / "checkpoints").glob("ckpt-*.index"):
        steps.append(path.stem.removeprefix("ckpt-"))
    if steps:
        found.append(f"checkpoints of steps {', '.join(sorted(steps, key=int))}")
    return ", ".join(found) or "none"


def inside(folder: Path, relative: str) -> Path:
    """A weights file by its path within a folder.

    Raises:
        ValueError: for a path that leads out of it.
    """
    if "\0" in relative:
        raise ValueError(f"weights: expected a path inside {folder}. Received: {relative!r}")
    with contained(f"weights: expected a path inside {folder}"):  # a loop of links, say
        path = (folder / relative).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ValueError(f"weights: expected a path inside {folder}. Received: {short(relative)}")
    return path


def write(folder: Path, record: dict[str, Any]) -> None:
    """Put a record into `run.json`, whole or not at all."""
    write_json(folder / _NAME, record)


@contextlib.contextmanager
def claimed(workdir: Path) -> Iterator[None]:
    """The run folder, made where it is not there, and kept from other runs while the block runs.

    The system lets go of the lock when the process ends, however it ends.

    Raises:
        OSError: for a folder that cannot be made or written, or in which another run goes on.
    """
    made = not workdir.exists()
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
        lock = os.fdopen(os.open(workdir / ".lock", flags, 0o666), "r+", errors="replace")
    except OSError as error:
        raise OSError(
            f"workdir: expected a folder that can be made and written. "
            f"Received: {workdir} ({error.strerror or reason(error)})"
        ) from error
    with lock:
        _lock(lock, workdir)
        try:
            yield
        finally:
            if not (workdir / _NAME).exists():  # refused before it began
                (workdir / ".lock").unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    if made:
                        workdir.rmdir()


def _lock(file: TextIO, workdir: Path) -> None:
    """Lock a file for this process alone, and write into it which one that is.

    Raises:
        BlockingIOError: where another process holds it.
    """
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # POSIX: no child process inherits it
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            print(f"{workdir}: its file system has no locks; see that no other run is in it.")
            return
        file.seek(0)
        holder = " ".join(file.read(200).replace("\0", "").split()) or "unknown"
        raise BlockingIOError(
            f"workdir: expected a folder without a run that goes on. "
            f"Received: {workdir}, in which another process trains ({holder})"
        ) from error
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    allocate(file.fileno(), _RESERVE)


def move_aside(workdir: Path) -> None:
    """Give a run folder a name that is free, so that another run can have its own."""
    number = 1
    while (aside := workdir.with_name(f"{workdir.name}.old{number}")).exists():
        number += 1
    workdir.rename(aside)
    print(f"{workdir}: the run that was there is now {aside}.")


def begin(
    folder: Path, wanted: dict[str, Any], defaults: dict[str, Any], resume: str, resumable: bool
) -> dict[str, Any]:
    """What `run.json` says, or will say of a new run.

    Args:
        folder: the run folder.
        wanted: the settings that are asked for, by the names that `run.json` has for them.
        defaults: of the recipe, for fields that a run is older than.
        resume: as in `training.train`.
        resumable: whether there is a checkpoint to go on from.

    Raises:
        ValueError: for a run with other settings, or none where there must be one.
    """
    path = folder / _NAME
    if resume == "must" and not resumable:
        there = "no checkpoint" if path.exists() else "no run.json"
        raise ValueError(
            f"resume: expected a run in {folder} to go on with. Received: {there} there"
        )
    if resume == "never" or not path.exists():
        return wanted | {"state": "new", "step": 0, "metrics": {}, "versions": versions()}
    record = {"metrics": {}} | read(folder)
    changed = _changes(record, *json.loads(json.dumps([wanted, defaults])))
    if changed:
        raise ValueError(
            f"workdir: {folder} holds another run ({', '.join(changed)}). Choose another "
            f"--workdir, or --resume=never to start anew; to go on training its model, "
            f"--init={folder}"
        )
    return record


def versions() -> dict[str, str]:
    """Of Python and of the packages that a figure or a weight may depend on."""
    packages = ("tensorflow", "keras", "tensorflow_datasets", "numpy", "zoo")
    found = {name: importlib.import_module(name).__version__ for name in packages}
    return {"python": platform.python_version()} | found


def _changes(record: dict[str, Any], wanted: dict[str, Any], defaults: dict[str, Any]) -> list[str]:
    """What differs between a run and the one that is asked for, as "field=old → new"."""
    before, after = dict(record), dict(wanted)
    for side in ("source", "target"):
        # Runs from before domains had them.
        before[side] = {"plane": None} | record[side]
        if quick := after[side].get("quick"):
            before[side] = {"quick": quick} | before[side]
    # The fields of the recipe stand on their own.
    old_recipe, new_recipe = before.pop("recipe"), after.pop("recipe")
    before |= {field: old_recipe.get(field, defaults.get(field)) for field in new_recipe}
    after |= {field: new for field, new in new_recipe.items() if field not in _FREE_FIELDS}
    different = [field for field in after if before.get(field) != after[field]]
    return [f"{field}={before.get(field)} → {after[field]}" for field in different]
