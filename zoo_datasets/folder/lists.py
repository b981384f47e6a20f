"""Lists: tab-separated lines that name images, and perhaps their split and patient."""

import csv
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from zoo_datasets.folder.items import (
    SPLITS,
    Item,
    Layout,
    find,
    number_of,
    paired_items,
    single_items,
)

_LONGEST = 4096  # characters of a path in a list


def is_list(path: Path) -> bool:
    """Whether the input is a .tsv list."""
    return path.suffix.lower() == ".tsv" and not path.is_dir()


def listed_paths(path: Path) -> list[Path]:
    """Files and folders that a .tsv list names, for a digest; missing ones included."""
    return [p for row in _rows(path)[1] for p in row.paths]


def from_list(path: Path, dimensions: int) -> Layout:
    """What the files are that a list names.

    Raises:
        FileNotFoundError: for a file that is not there.
        ValueError: for what is no list, and lines that name more than a file or series.
    """
    keys, rows = _rows(path)
    domain: dict[str, list[Item]] = defaultdict(list)
    problems = []
    for row in rows:
        # What is at the paths of a line.
        where = f"{path.name}, line {row.line}"
        try:
            found = [find(p, dimensions) for p in row.paths]
        except OSError as error:
            raise FileNotFoundError(f"{where}: {error}") from error
        bad = [p for part in found for p in part.problems]
        problems += bad
        counts = [len(part.volumes) for part in found]
        if 0 in counts and any(not p.harmless for p in bad):
            continue
        parts = [sorted(part.volumes, key=number_of) for part in found]
        # one volume, or the time points, echoes and the like of one series
        numbers = [list(map(number_of, part)) for part in parts]
        if 0 in counts or any(part != list(range(counts[0])) for part in numbers):
            raise ValueError(
                f"{where}: expected one file or series under each path. "
                f"Received: {' and '.join(map(str, counts))} volumes"
            )
        # An item each, whose patient the line, the pair or the file names.
        for volumes in zip(*parts, strict=True):
            if row.patient:
                item = Item(volumes, f"list:{row.patient}", True)
            elif len(volumes) == 2:
                item = paired_items([volumes], f"{row.paths[0]}")[0]
            else:
                item = single_items(list(volumes), f"{row.paths[0]}")[0]
            domain[row.split].append(item)
    return Layout("paired" if len(keys) == 2 else "single", [dict(domain)], problems)


class _Row(NamedTuple):
    """A line of a list: its number in the file, its image or source and target, and what else."""

    line: int
    paths: list[Path]
    split: str
    patient: str


def _rows(path: Path) -> tuple[list[str], list[_Row]]:
    """The columns that name images, and the lines of a list.

    Raises:
        ValueError: for what is no such list; names the line.
    """
    table = list(_fields(path))
    # The header.
    columns = [name.strip() for name in table[0][1]] if table else []
    keys = ["source", "target"] if "source" in columns else ["image"]
    allowed = {*keys, "split", "patient"}
    if not set(keys) <= set(columns) or not set(columns) <= allowed:
        raise ValueError(
            f"{path.name}: expected a tab-separated header with source and target (or image), and "
            f"possibly split and patient, and one line an example. Received: {columns}"
        )
    if len(set(columns)) < len(columns):
        raise ValueError(f"{path.name}: expected each column once. Received: {columns}")
    # The lines.
    rows: list[_Row] = []
    seen: dict[Path, _Row] = {}
    for line, fields in table[1:]:
        where = f"{path.name}, line {line}"
        if len(fields) != len(columns):
            raise ValueError(
                f"{where}: expected {len(columns)} fields, {', '.join(columns)}. "
                f"Received: {len(fields)}"
            )
        row = dict(zip(columns, map(str.strip, fields), strict=True))
        split = row.get("split", "").lower()
        if split not in SPLITS and "split" in columns:
            raise ValueError(
                f"{where}: split: expected train, validation or test. Received: {split[:40]!r}"
            )
        paths = [_resolve(path.parent.resolve(), row[key], f"{where}: {key}") for key in keys]
        read = _Row(line, paths, SPLITS.get(split, ""), row.get("patient", ""))
        for file in paths:
            before = seen.setdefault(file, read)
            if before is not read and (before.paths == paths or before.split != read.split):
                raise ValueError(
                    f"{where}: expected each file once, or in one split only. "
                    f"Received: {file.name} in line {before.line} as well"
                )
        rows.append(read)
    return keys, rows


def _fields(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The lines of a tab-separated file that are not empty: number, and fields."""
    content = path.read_bytes()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError(f"{path.name}: expected text in UTF-8. Received: UTF-16")
    for number, line in enumerate(re.split(rb"\r\n|\r|\n", content), 1):
        where = f"{path.name}, line {number}"
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{where}: expected text in UTF-8. Received: byte {line[error.start]:#04x}"
            ) from error
        if "\0" in text:
            raise ValueError(f"{where}: expected text. Received: a NUL byte")
        if not text.strip():
            continue
        # Line by line: a stray quotation mark would swallow the following ones.
        try:
            yield number, next(csv.reader([text], delimiter="\t", strict=True))
        except csv.Error as error:
            raise ValueError(
                f"{where}: expected fields between tabs, quoted as a whole or not at all. "
                f"Received: {error}"
            ) from error


def _resolve(folder: Path, text: str, where: str) -> Path:
    """The path that a field of a list in `folder` names."""
    if not text or len(text) > _LONGEST:
        raise ValueError(f"{where}: expected a path. Received: {len(text)} characters")
    try:
        named = Path(text).expanduser()
    except RuntimeError as error:  # no such user
        raise ValueError(f"{where}: expected a path. Received: {text} ({error})") from error
    path = Path(os.path.normpath(folder / named))
    if not named.is_absolute() and not path.is_relative_to(folder):
        raise ValueError(
            f"{where}: expected a path inside the list's folder, or an absolute one. "
            f"Received: {text}"
        )
    return path
