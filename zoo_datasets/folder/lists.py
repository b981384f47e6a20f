"""Lists: tab-separated lines that name images, and perhaps their split and patient."""

from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from zoo.imaging import lists
from zoo.imaging.several import together
from zoo_datasets.folder.items import (
    SPLITS,
    Item,
    Layout,
    find,
    number_of,
    paired_items,
    single_items,
)


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
    inputs = tuple(lists.inputs(keys))
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
            if len(inputs) > 1:
                volumes = (together(volumes[:-1], inputs), volumes[-1])
            if row.patient:
                item = Item(volumes, f"list:{row.patient}", True)
            elif len(volumes) == 2:
                item = paired_items([volumes], f"{row.paths[0]}")[0]
            else:
                item = single_items(list(volumes), f"{row.paths[0]}")[0]
            domain[row.split].append(item)
    kind = "paired" if "target" in keys else "single"
    return Layout(kind, [dict(domain)], problems, inputs=inputs)


class _Row(NamedTuple):
    """A line of a list: its number in the file, its image or sources and target, and what else."""

    line: int
    paths: list[Path]
    split: str
    patient: str


def _rows(path: Path) -> tuple[list[str], list[_Row]]:
    """The columns that name images, and the lines of a list.

    Raises:
        ValueError: for what is no such list; names the line.
    """
    table = list(lists.lines(path))
    # The header.
    columns = lists.columns(path, table)
    sources = list(lists.inputs(columns).values())
    keys = ["source", "target"] if "source" in columns else ["image"]
    if sources:
        keys = [*sources, "target"]
    allowed = {*keys, "split", "patient"}
    if not set(keys) <= set(columns) or not set(columns) <= allowed or len(sources) == 1:
        raise ValueError(
            f"{path.name}: expected a tab-separated header with source and target (or image; of "
            "several inputs source1, source2 …, or source_T1 and the like), and possibly split and "
            f"patient, and one line an example. Received: {columns}"
        )
    # The lines.
    rows: list[_Row] = []
    seen: dict[Path, _Row] = {}
    for line, fields in table[1:]:
        where = f"{path.name}, line {line}"
        row = lists.row(where, columns, fields)
        split = row.get("split", "").lower()
        if split not in SPLITS and "split" in columns:
            raise ValueError(
                f"{where}: split: expected train, validation or test. Received: {split[:40]!r}"
            )
        paths = [lists.resolve(path.parent.resolve(), row[key], f"{where}: {key}") for key in keys]
        if len(set(paths[: len(sources)])) < len(sources):
            raise ValueError(
                f"{where}: expected another file for each input. Received: one for two"
            )
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
