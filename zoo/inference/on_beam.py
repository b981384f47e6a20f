"""One `predict` on Apache Beam, by RunInference: series are the elements; imported only if asked.

Every process that does some of the work plans the whole run as `translate` does, and has a file of
its own beside the manifest. What is in the manifest already is not done again, and so neither is
what a runner repeats.
"""

import contextlib
import dataclasses
import secrets
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.ml.inference.base import KeyedModelHandler, ModelHandler, RunInference
from apache_beam.options.pipeline_options import PipelineOptions

from zoo import averaging
from zoo.inference import engines
from zoo.inference.manifest import size, total
from zoo.inference.predict import Options, Plan, plan
from zoo.inference.report import Report
from zoo.registry import Entry

_BATCH = 256 * 512 * 512  # voxels that are given to a process at once, if more than one series


def made(entries: Sequence[Entry], tta: bool, engine: str, batch_size: int) -> Any:
    """The model of `predict`, run by an engine on so many slices at once."""
    model = averaging.build(entries, tta)
    engines.use(model, engine, batch_size=batch_size)
    return model


class _Work(NamedTuple):
    """A volume, by its name among the others: files that come meanwhile change no other's."""

    name: str
    voxels: int


class _Process:
    """What a process has planned, and keeps while it lives."""

    def __init__(self, handler: "_Translate"):
        self._held = contextlib.ExitStack()
        # That nothing is replaced which must not be was seen before the pipeline began.
        own = secrets.token_hex(8)
        options = dataclasses.replace(handler.options, own=own, overwrite=True)
        planned = plan(handler.model(), handler.input, handler.output, options)
        self.plan: Plan = self._held.enter_context(planned)
        self._numbers = {name: index for index, name in enumerate(self.plan.names())}
        # Names that an earlier volume takes, whether this process or another writes them.
        self._claimed: list[set[Path]] = []
        earlier: set[Path] = set()
        for paths in self.plan.places:
            self._claimed.append(earlier & set(paths))
            earlier.update(paths)

    def translate(self, work: _Work) -> int:
        """How many files were written of a volume.

        Raises:
            ValueError: where files of it came or went since the run was planned.
        """
        index = self._numbers.get(work.name)
        if index is None:
            raise ValueError(f"input: expected the files that were there. Received: {work.name}")
        return len(self.plan.translate(index, self._claimed[index]).outputs)


class _Translate(ModelHandler[_Work, int, _Process]):
    """RunInference's view of the model: it takes volumes by their names.

    Args:
        model: makes it, in each process.
        input, output: folders that all processes see.
        options: of `plan`, with a manifest.
    """

    def __init__(self, model: Callable[[], Any], input: Path, output: Path, options: Options):
        super().__init__()
        self.model, self.input, self.output, self.options = model, input, output, options

    def batch_elements_kwargs(self) -> dict[str, Any]:
        # Of one size, or Beam begins with batches of nothing.
        size = {"min_batch_size": _BATCH, "max_batch_size": _BATCH}
        return size | {"element_size_fn": _voxels}

    def load_model(self) -> _Process:
        return _Process(self)

    def run_inference(
        self, batch: Sequence[_Work], model: _Process, inference_args: dict | None = None
    ) -> Iterable[int]:
        return [model.translate(each) for each in batch]


def _voxels(element: tuple[str, _Work]) -> int:
    return min(element[1].voxels, _BATCH)


def translate(
    model: Any,
    make: Callable[[], Any],
    input: Path,
    output: Path,
    runner: Sequence[str],
    options: Options,
) -> Report:
    """What `predict.translate` does, shared out by a runner of Apache Beam.

    Args:
        model: as of `predict.translate`.
        make: makes the same in each process that works.
        input, output: folders that all processes see.
        runner: options of Beam, such as ["--runner=DirectRunner"].
        options: with a manifest, which all processes see.

    Raises:
        FileNotFoundError, FileExistsError, ValueError: as `predict.translate`.
    """
    manifest = Path(options.manifest)
    before = total(manifest, output).done if manifest.exists() else 0
    with plan(model, input, output, options) as planned:
        elements = []
        for index, name in enumerate(planned.names()):
            if index in planned.mine:
                elements.append((name, _Work(name, size(planned.volumes[index]))))
    if not elements:
        return planned.report
    handler: Any = KeyedModelHandler(_Translate(make, input, output, options))
    with beam.Pipeline(options=PipelineOptions(list(runner))) as pipeline:
        series = pipeline | "Series" >> beam.Create(elements) | "Share" >> beam.Reshuffle()
        _ = series | "Translate" >> RunInference(handler)
    report = total(manifest, output)
    report.before, report.others = before, planned.report.others
    return report
