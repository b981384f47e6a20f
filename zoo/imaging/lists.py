"""Lists: tab-separated lines that name files, under a header."""

import csv
import os
import re
from collections.abc import Iterator
from pathlib import Path

_LONGEST = 4096  # characters of a path in a list
_INPUT = re.compile(r"source(\d+)|source_(.+)")


def is_list(path: Path) -> bool:
    """Whether the input is a .tsv list."""
    return path.suffix.lower() == ".tsv" and not path.is_dir()


def inputs(columns: list[str]) -> dict[str, str]:
    """Of the columns that hold an input of several, the inputs' names to the columns.

    `source_T1` holds T1, `source1` what has no other name.
    """
    found = {}
    for column in columns:
        match = _INPUT.fullmatch(column)
        if match:
            found[match.group(2) or column] = column
    return found


def lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The lines of a tab-separated file that are not empty: number, and fields.

    Raises:
        ValueError: for what is no such file; names the line.
    """
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


def columns(path: Path, table: list[tuple[int, list[str]]]) -> list[str]:
    """The names of a list's columns, each of which is there once.

    Raises:
        ValueError: where one is there twice.
    """
    names = [name.strip() for name in table[0][1]] if table else []
    if len(set(names)) < len(names):
        raise ValueError(f"{path.name}: expected each column once. Received: {names}")
    return names


def row(where: str, names: list[str], fields: list[str]) -> dict[str, str]:
    """The fields of a line by their columns.

    Raises:
        ValueError: for another number of fields.
    """
    if len(fields) != len(names):
        raise ValueError(
            f"{where}: expected {len(names)} fields, {', '.join(names)}. Received: {len(fields)}"
        )
    return dict(zip(names, map(str.strip, fields), strict=True))


def resolve(folder: Path, text: str, where: str) -> Path:
    """The path that a field of a list in `folder` names.

    Raises:
        ValueError: for no path, and for one that leads out of the folder.
    """
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
