"""What a run over many files has done, on disk, so that a killed one goes on where it was.

Each file is JSON lines. The first of the manifest says which model it is of; the others, in it and
in FILE.K-of-N of each part, say which volume was begun, and what became of it:

    {"format": 2, "model": "ldct", "weights": "1f…", …, "token": "9a…"}
    {"begun": "5c…", "outputs": ["ct/1.dcm"]}
    {"ended": "5c…", "outputs": {"ct/1.dcm": "07…"}, "done": 1, "series": 1, "slices": 1, …}

Volumes are known by the names and the SHA-256 of their files, outputs by their SHA-256. It names
files and holds nothing of their headers but a hash, with the token, of which series they are of.
"""

import contextlib
import fcntl
import glob
import hashlib
import itertools
import json
import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from zoo.cache import file_sha256
from zoo.imaging.volume import Problem, Volume
from zoo.inference.report import Report

_COUNTS = ("done", "series", "slices")
_PROBLEMS = ("skipped", "ignored", "warnings")
FOUND = "files"  # stands for what was wrong before any volume was translated
_FORMAT = 2  # 1 knew inputs by their sizes


class Manifest:
    """The record of a run, or of one part of it; it is this process's while it is open.

    Args:
        path: of the manifest; one that is there is gone on with.
        facts: what all runs of it have in common, such as the model.
        part: K of N.
        root: the folder that outputs are named in.
        own: a process that is no part names its file so, FILE.OWN-of-all.

    Attributes:
        token: random; equal for all parts and for runs that go on.

    Raises:
        ValueError: for a file of something else, or of a run with other facts, or in use.
    """

    def __init__(
        self,
        path: Path,
        facts: dict[str, Any],
        part: tuple[int, int],
        root: Path,
        own: str = "",
    ):
        self.path, self.root = path, root
        file = path
        if own or part != (1, 1):
            end = f"{own}-of-all" if own else f"{part[0]}-of-{part[1]}"
            file = path.with_name(f"{path.name}.{end}")
        try:
            self.token = _head(path, facts)["token"]
            self._file = open(file, "a", encoding="utf-8")  # noqa: SIM115 (held while the run lasts)
        except OSError as error:
            raise ValueError(
                f"manifest: expected a file that can be written. Received: {path}: {error.strerror}"
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise ValueError(
                f"manifest: expected one that no other process uses. Received: {file}"
            ) from error
        if self._file.tell() and not file.read_bytes().endswith(b"\n"):
            self._file.write("\n")  # behind what a killed process did not finish
        self._ended, begun = _read(path)
        names = itertools.chain(
            *begun.values(), *(each["outputs"] for each in self._ended.values())
        )
        self._own = {root / name for name in names}

    def __enter__(self) -> "Manifest":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def owns(self, path: Path) -> bool:
        """Whether an output that is there is a run's of this manifest, whole or half written."""
        return path in self._own

    def key(self, volume: Volume, base: Path) -> str:
        """What a volume is known by: its files' places in a folder, and what they hold."""
        digests = []
        for file in _files(volume):
            try:
                digests.append(file_sha256(file))
            except OSError:  # it will be said when it is read, and tried again when it can be
                digests.append("unreadable")
        return _hash([named(volume, base), *digests])

    def found(self, key: str) -> Report | None:
        """What became of a volume, if its outputs are there as they were written."""
        entry = self._ended.get(key)
        if entry is None:
            return None
        report = _report(entry, self.root)
        for name, digest in entry["outputs"].items():
            path = self.root / name
            if not path.is_file() or file_sha256(path) != digest:
                return None
        report.before = report.done
        return report

    def begin(self, key: str, paths: list[Path]) -> None:
        """That a volume is being translated, to these files."""
        self._write({"begun": key, "outputs": [self._name(path) for path in paths]})

    def end(self, key: str, report: Report, series: Sequence[str] = ()) -> None:
        """What became of it; `series` is equal for the volumes of one series."""
        entry: dict[str, Any] = {"ended": key}
        if series:
            entry["of"] = _hash([self.token, *series])
        entry["outputs"] = {self._name(path): file_sha256(path) for path in report.outputs}
        entry |= {name: getattr(report, name) for name in _COUNTS}
        for name in _PROBLEMS:
            entry[name] = [[str(path), why] for path, why in getattr(report, name)]
        self._write(entry)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _write(self, entry: dict[str, Any]) -> None:
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def named(volume: Volume, base: Path) -> str:
    """What tells a volume from the others of a folder: a hash of its files' places in it."""
    return _hash([volume.name, *(os.path.relpath(file, base) for file in _files(volume))])


def _files(volume: Volume) -> list[Path]:
    return sorted((*volume.paths, *volume.companions))


def _hash(parts: list[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode(errors="surrogateescape")).hexdigest()


def count(path: Path) -> int:
    """How many volumes have ended, as far as can be said now."""
    return len(_read(path)[0].keys() - {FOUND}) if path.exists() else 0


def total(path: Path, root: Path) -> Report:
    """What all parts of a manifest have done; a series that they share counts once."""
    report = Report()
    for entry in _read(path)[0].values():
        report.add(_report(entry, root), entry.get("of", ""))
    return report


def _head(path: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """The first line of a manifest, which is written where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        # Whole under its name at once: parts on other machines may be starting too.
        new = path.with_name(f".{secrets.token_hex(8)}.new")
        head = {"format": _FORMAT} | facts | {"token": secrets.token_hex(16)}
        new.write_text(json.dumps(head) + "\n")
        with contextlib.suppress(FileExistsError):
            os.link(new, path)
        new.unlink()
    head = next(_lines(path), {})
    if "token" not in head:
        raise ValueError(f"{path}: expected a manifest of predict. Received: another file")
    if head.get("format") != _FORMAT:
        raise ValueError(
            f"{path}: expected a manifest that knows files by their SHA-256, as a new one does. "
            f"Received: one of format {head.get('format', 1)}"
        )
    for name, value in facts.items():
        if head.get(name) != value:
            raise ValueError(
                f"{path}: expected a run with {name} {head.get(name)}, as it was begun. "
                f"Received: {value}"
            )
    return head


def _read(path: Path) -> tuple[dict[str, dict], dict[str, list[str]]]:
    """By volume what became of it, and of those that were only begun their outputs."""
    ended: dict[str, dict] = {}
    begun: dict[str, list[str]] = {}
    for file in (path, *sorted(path.parent.glob(f"{glob.escape(path.name)}.*-of-*"))):
        for entry in _lines(file):
            if "begun" in entry:
                begun[entry["begun"]] = entry["outputs"]
            elif "ended" in entry:
                ended[entry["ended"]] = entry
                begun.pop(entry["ended"], None)
    return ended, begun


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Its entries; a line that a killed process did not finish is none."""
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if isinstance(entry, dict):
                    yield entry


def _report(entry: dict[str, Any], root: Path) -> Report:
    report = Report(**{name: entry[name] for name in _COUNTS})
    report.outputs = [root / name for name in entry["outputs"]]
    for name in _PROBLEMS:
        setattr(report, name, [Problem(Path(path), why) for path, why in entry[name]])
    return report


def size(volume: Volume) -> int:
    """The voxels of a volume, of all its inputs."""
    return volume.length * volume.shape[0] * volume.shape[1] * len(volume.parts)


def share(volumes: list[Volume], part: tuple[int, int]) -> set[int]:
    """Which volumes are the K-th part's of N: parts have about as many pixels.

    Args:
        volumes: all of them, in one order for all parts.
        part: K and N.
    """
    number, count = part
    sizes = [size(volume) for volume in volumes]
    order = sorted(range(len(volumes)), key=lambda index: (-sizes[index], index))
    loads = [0] * min(count, len(volumes))  # of more parts than volumes the last have none
    mine = set()
    for index in order:
        lightest = loads.index(min(loads))
        loads[lightest] += sizes[index]
        if lightest == number - 1:
            mine.add(index)
    return mine
