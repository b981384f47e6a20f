"""The builder of every data set: cases in, examples and a list of bad files out.

A builder lists its cases (one patient's scan, say) for each split, and its config reads a case
into examples. Simulated and real configs go the same way: one after another in this process, in
several worker processes, or on Apache Beam where the download config names a runner.

    cases       what a case and a config are; splits by patient; checks of a publisher's tree
    sources     this module: the builder, bad files, what a damaged file raises
    simulated   the builder and config of simulated patients
    features    what an example holds, and the metadata that say what its numbers mean
    workers     work in several processes, in order
    beam        work on Apache Beam
    patches     patches around places in a slice
    phantoms/   simulated anatomy and scanners
    publishers/ layouts and formats of publishers' files that several data sets read
"""

import contextlib
import functools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from zoo.errors import contained, reason
from zoo_datasets.cases import (
    Case,
    Example,
    Examples,
    SourceConfig,
    bad_file,
    check_splits,
    read_case,
)
from zoo_datasets.workers import map_in_order

_READERS = 4  # worker processes that read; each holds a case or two
_FEW = 8  # cases that are read before workers have started


class SourceBuilder(
    tfds.core.GeneratorBasedBuilder,
    skip_registration=True,  # type: ignore[call-arg]  # TFDS's class has no types
):
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


def read_all(
    config: SourceConfig, cases: list[Case]
) -> Iterator[tuple[Case, list[Example] | Exception]]:
    """Each case in order, with its examples, or with the exception that reading it raised.

    More than a few cases of a config with `find` are read in worker processes. At most
    `2 * _READERS` cases are held at any time, however many there are.
    """
    read = functools.partial(read_case, config=config)
    results: Iterator[list[Example] | Exception]
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
