"""What the builders share: cases, splits by patient, checks of a publisher's tree, bad files.

A builder lists its cases (one patient's scan, say) for each split, and its config reads a case
into examples. Simulated and real configs go the same way: one after another in this process, in
several worker processes, or on Apache Beam where the download config names a runner.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import json
import multiprocessing
import os
import struct
import sys
import types
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from zoo.imaging.volume import contained, reason

SPLITS = ("train", "validation", "test")

# What a damaged or missing file raises; other exceptions are faults of the reader and stop it.
# Readers put the calls that open and decode files into `reading`.
_UNREADABLE = (OSError, ValueError, EOFError, KeyError, zlib.error, struct.error)
_READERS = 4  # worker processes that read; each holds a case or two
_FEW = 8  # cases that are read before workers have started


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


Examples = Iterator[tuple[str, dict[str, Any]]]


@dataclasses.dataclass(eq=False)
class SourceConfig(tfds.core.BuilderConfig):
    """One source of a data set; a builder's own config adds its fields.

    Attributes:
        find: the publisher's tree to the cases of each split. Raises FileNotFoundError that names
            what is missing, ValueError for what is there and wrong. None: nothing is read from
            the user's files.
        read: (case, config) to (key, example) pairs; a module-level function.
        manual: how to get the files; shown where they are missing.
        bad_limit: the share of cases that may be unreadable; more fail the build.
        licence: of the images.
        idc: their collection at the Imaging Data Commons, which `zoo_datasets.fetch` downloads.
        mask: the feature that is above 0 inside the patient's body; "" where there is none.
    """

    find: Callable[[Path], dict[str, list[Case]]] | None = None
    read: Callable[[Case, "SourceConfig"], Examples] | None = None
    manual: str = ""
    bad_limit: float = 0.02
    licence: str = ""
    idc: str = ""
    mask: str = ""


class SourceBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A builder with a `SourceConfig` for each source.

    A simulated config overrides `simulated_cases`. Cases that cannot be read are listed in
    `bad_files.json` beside the records and left out, up to the config's `bad_limit`.
    """

    _on_beam = False

    @property
    def MANUAL_DOWNLOAD_INSTRUCTIONS(self) -> str | None:  # the name is TFDS's
        """Shown to the user where the config reads files that are not there."""
        return self.builder_config.manual if self.builder_config.find else None

    def simulated_cases(self) -> dict[str, list[Case]]:
        """The cases of each split where nothing is read from the user's files."""
        raise ValueError(f"{self.builder_config.name}: expected `find`. Received: None")

    def _download_and_prepare(self, dl_manager, download_config) -> None:
        self._on_beam = bool(download_config.beam_runner or download_config.beam_options)
        super()._download_and_prepare(dl_manager, download_config)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        config = self.builder_config
        if config.find:
            try:
                splits = config.find(Path(dl_manager.manual_dir))
            except FileNotFoundError as error:
                raise FileNotFoundError(f"{error}\n{config.manual}") from error
        else:
            splits = self.simulated_cases()
        check_splits(splits)
        self._bad = BadFiles(self.data_path, sum(map(len, splits.values())), config.bad_limit)
        generate = self._beam_examples if self._on_beam else self._generate_examples
        return {split: generate(cases) for split, cases in splits.items() if cases}

    def _generate_examples(self, cases: list[Case]) -> Examples:
        for case, examples in read_all(self.builder_config, cases):
            if isinstance(examples, Exception):
                self._bad.add(case, examples)
            else:
                yield from examples

    def _beam_examples(self, cases: list[Case]):
        """A `beam.PTransform` from nothing to the examples of the cases."""
        from zoo_datasets import beam

        folder = self.data_path / f"bad_files-{len(self._bad.folders)}"
        self._bad.folders.append(folder)
        return beam.examples(self.builder_config, cases, os.fspath(folder))

    def _process_pipeline_result(self, pipeline_result: Any) -> None:
        """Called by TFDS when Beam is done: workers have counted bad files, the limit is here."""
        super()._process_pipeline_result(pipeline_result)
        self._bad.collect()


class BadFiles:
    """Cases that could not be read, listed in `bad_files.json` of a data set's folder.

    Args:
        folder: the data set's.
        total: cases in all.
        limit: the share of them that may be bad.
    """

    def __init__(self, folder: Path, total: int, limit: float):
        self.path, self.total, self.limit = folder / "bad_files.json", total, limit
        self.found: list[dict[str, str]] = []
        self.folders: list[Path] = []  # of Beam's workers: a line a case

    def add(self, case: Case, error: Exception) -> None:
        """Record a case.

        Raises:
            ValueError: where there are more than the limit; names the first of them.
        """
        self.found.append(bad_file(case, error))
        self._write(error)

    def collect(self) -> None:
        """Record what Beam's workers wrote into `folders`, and remove these.

        Raises:
            ValueError: where there are more than the limit; names the first of them.
        """
        for folder in self.folders:
            for part in sorted(folder.glob("*")) if folder.exists() else ():
                self.found += map(json.loads, part.read_text(encoding="utf-8").splitlines())
                part.unlink()
            if folder.exists():
                folder.rmdir()
        self.found.sort(key=lambda bad: bad["case"])
        if self.found:
            self._write(None)

    def _write(self, cause: Exception | None) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.found, indent=1) + "\n", encoding="utf-8")
        if len(self.found) > self.limit * self.total:
            first = "; ".join(f"{bad['case']}: {bad['reason']}" for bad in self.found[:3])
            raise ValueError(
                f"manual directory: expected at most {self.limit:.0%} of {self.total} cases to be "
                f"unreadable. Received: {len(self.found)} ({first})"
            ) from cause


def bad_file(case: Case, error: Exception) -> dict[str, str]:
    """The entry of `bad_files.json` for a case."""
    return {"case": case.key, "patient": case.patient, "reason": reason(error)}


def read_case(case: Case, config: SourceConfig) -> list[tuple[str, dict[str, Any]]] | Exception:
    """A case's examples, or the exception of a file that cannot be read."""
    try:
        return list(config.read(case, config))
    except _UNREADABLE as error:
        return error


def read_all(config: SourceConfig, cases: list[Case]) -> Iterator[tuple[Case, Any]]:
    """Each case in order, with its list of examples, or with the exception that reading it raised.

    More than a few cases of a config with `find` are read in worker processes. At most
    `2 * _READERS` cases are held at any time, however many there are.
    """
    read = functools.partial(read_case, config=config)
    if config.find is None or len(cases) < _FEW:
        results = map(read, cases)
    else:
        workers = min(os.cpu_count() or 1, _READERS)
        results = map_in_order(read, cases, workers, waiting=workers + 1)
    yield from zip(cases, results, strict=True)


@contextlib.contextmanager
def reading(name: str) -> Iterator[None]:
    """Whatever a damaged file makes a library raise, as a ValueError "name: cannot be read: why".

    A TypeError of nibabel on damaged data is a bad file; one of a builder's own code, outside, is
    not and stops the build.
    """
    what = f"{name}: cannot be read"
    try:
        with contained(what):
            yield
    except ValueError as error:
        if str(error).startswith(what):
            raise
        raise ValueError(f"{what}: {reason(error)}") from error


# Splits.


def hashed_split(patient: str) -> str:
    """A split for a patient, by a hash of the identifier: 80, 10 and 10 %.

    More data never move a patient to another split.
    """
    bucket = int.from_bytes(hashlib.sha256(patient.encode()).digest()[:4], "big") % 100
    return "train" if bucket < 80 else "validation" if bucket < 90 else "test"


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
    keys = collections.Counter()
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


# A publisher's tree.


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


# Features and metadata.


def image_feature(
    shape: tuple[int | None, ...], dtype: Any = np.int16
) -> tfds.features.FeatureConnector:
    """`[H, W, C]`, stored without loss."""
    return tfds.features.Tensor(shape=shape, dtype=dtype, encoding=tfds.features.Encoding.ZLIB)


def domain(
    modality: str,
    unit: str,
    window: tuple[float, float],
    spacing: tuple[float, float] | None,
    channels: int = 1,
    plane: str | None = "axial",
) -> dict[str, Any]:
    """A `zoo.imaging.windows.Domain` as a builder's metadata hold it.

    Volumes are hung as axial slices by `volumes.py`; radiographs and measurements have no plane.
    """
    return {
        "modality": modality,
        "unit": unit,
        "window": list(map(float, window)),
        "channels": channels,
        "spacing": None if spacing is None else list(spacing),
        "plane": plane,
    }


# Work.


def map_in_order(
    function: Callable, items: Iterable, workers: int | None = None, waiting: int | None = None
) -> Iterator:
    """`map(function, items)` over worker processes; what `function` raises is raised here.

    New processes ("spawn") rather than forks: TensorFlow's threads do not survive a fork. They do
    not run the caller's script again, so that one without a guard may ask for data.

    Args:
        function: picklable, of a module.
        items: picklable; consumed no faster than results are.
        workers: processes; None: one a core, at most 8.
        waiting: items that are being worked on or wait for their turn; None: 4 a worker.

    Raises:
        BrokenProcessPool: where a worker was killed, for want of memory as a rule.
    """
    workers = workers or min(os.cpu_count() or 1, 8)
    waiting = waiting or 4 * workers
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(workers, mp_context=context)
    queue: collections.deque = collections.deque()
    try:
        for item in items:
            with _main_hidden(function):
                queue.append(pool.submit(function, item))
            if len(queue) >= waiting:
                yield queue.popleft().result()
        while queue:
            yield queue.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _main_hidden(function: Callable) -> Iterator[None]:
    """New processes find no script to run, unless the function is the script's own."""
    while isinstance(function, functools.partial):
        function = function.func
    main = sys.modules["__main__"]
    if function.__module__ != "__main__":
        sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
