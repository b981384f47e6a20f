"""Cases: what is read as a whole, split by patient, and the config that finds and reads them."""

import collections
import dataclasses
import hashlib
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from zoo.errors import reason

SPLITS = ("train", "validation", "test")

Example = tuple[str, dict[str, Any]]  # its name, which is unique, and its features
Examples = Iterator[Example]

# What a damaged or missing file raises; other exceptions are faults of the reader and stop it.
# Readers put the calls that open and decode files into `reading`.
_UNREADABLE = (OSError, ValueError, EOFError, KeyError, zlib.error, struct.error)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """What is read as a whole, usually one patient's scan. Picklable, and no pixels in it.

    Attributes:
        key: unique in the data set; begins the names of its examples.
        patient: the publisher's pseudonym.
        files: what is read, by role, such as {"t1": Path, "t2": Path}.
        facts: what else the reader needs, such as a row of the publisher's table.
    """

    key: str
    patient: str
    files: dict[str, Any] = dataclasses.field(default_factory=dict)
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)

    def example(self, name: str, **features: Any) -> Example:
        """An example of this patient, with its name among the features."""
        return name, {"patient": self.patient, "name": name} | features


@dataclasses.dataclass(eq=False, kw_only=True)
class SourceConfig(tfds.core.BuilderConfig):
    """One source of a data set; a builder's own config adds its fields.

    Attributes:
        find: the publisher's tree to the cases of each split. Raises FileNotFoundError that names
            what is missing, ValueError for what is there and wrong. None: nothing is read from
            the user's files.
        read: a case and this config to examples; a module-level function.
        manual: how to get the files; shown where they are missing.
        bad_limit: the share of cases that may be unreadable; more fail the build.
        licence: of the images.
        idc: their collection at the Imaging Data Commons, which `publishers.idc` downloads.
        mask: the feature that is above 0 inside the patient's body; "" where there is none.
    """

    find: Callable[[Path], dict[str, list[Case]]] | None = None
    read: Callable[[Case, Any], Examples]  # of the config's own class
    manual: str = ""
    bad_limit: float = 0.02
    licence: str = ""
    idc: str = ""
    mask: str = ""


def bad_file(case: Case, error: Exception) -> dict[str, str]:
    """The entry of `bad_files.json` for a case."""
    return {"case": case.key, "patient": case.patient, "reason": reason(error)}


def read_case(case: Case, config: SourceConfig) -> list[Example] | Exception:
    """A case's examples, or the exception of a file that cannot be read."""
    try:
        return list(config.read(case, config))
    except _UNREADABLE as error:
        return error


def hashed_split(patient: str) -> str:
    """A split for a patient, by a hash of the identifier: 80, 10 and 10 %.

    More data never move a patient to another split.
    """
    bucket = int.from_bytes(hashlib.sha256(patient.encode()).digest()[:4], "big") % 100
    if bucket < 80:
        return "train"
    return "validation" if bucket < 90 else "test"


def by_patient(
    cases: Iterable[Case], split: Callable[[str], str] = hashed_split
) -> dict[str, list[Case]]:
    """Cases by split, sorted by key."""
    splits: dict[str, list[Case]] = {name: [] for name in SPLITS}
    for case in sorted(cases, key=lambda case: case.key):
        splits[split(case.patient)].append(case)
    return splits


def check_splits(splits: dict[str, list[Case]]) -> None:
    """Refuses a patient in two splits, a key that comes twice, and a training split of nothing.

    Raises:
        ValueError: naming the patient, key or split.
    """
    seen: dict[str, str] = {}
    keys: collections.Counter[str] = collections.Counter()
    for split, cases in splits.items():
        for case in cases:
            keys[case.key] += 1
            if seen.setdefault(case.patient, split) != split:
                raise ValueError(
                    f"splits: expected a patient in one split. Received: {case.patient} in "
                    f"{seen[case.patient]} and {split}"
                )
    twice = [key for key, count in keys.items() if count > 1]
    if twice:
        raise ValueError(f"cases: expected keys that differ. Received: {twice[0]} twice")
    if not splits.get("train"):
        raise ValueError("splits: expected patients in train. Received: none")


def need(root: Path, pattern: str, what: str, least: int = 1) -> list[Path]:
    """The paths below `root` that match a glob pattern, sorted.

    Raises:
        FileNotFoundError: where there are fewer than `least`, naming what was expected.
    """
    found = sorted(root.glob(pattern)) if root.is_dir() else []
    if len(found) < least:
        number = "" if least == 1 else f"{least} of "
        raise FileNotFoundError(
            f"manual directory {root}: expected {number}{what} ({pattern}). "
            f"Received: {len(found) or 'none'}"
        )
    return found
