"""Translates a user's files."""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeGuard

import tqdm

from zoo.averaging import Average
from zoo.errors import contained, reason
from zoo.imaging.dicom.deidentify import Deidentifier
from zoo.imaging.dicom.series import Series
from zoo.imaging.geometry import Grid
from zoo.imaging.volume import Problem, Volume
from zoo.inference import checks, inputs, slices
from zoo.inference.manifest import FOUND, Manifest, named, share
from zoo.inference.outputs import Writer, precision
from zoo.inference.report import Report
from zoo.inference.series import identity, of_volume
from zoo.inference.targets import check_paths, check_writable, sweep, targets
from zoo.trust.half_width import HalfWidth
from zoo.trust.watch import Watch


@dataclasses.dataclass(kw_only=True)
class _Run:
    """What the volumes of a run have in common.

    Attributes:
        grid: how much finer the outputs' grids are.
        batch_size: slices that the model gets at once.
        alone: series, by `identity`, with several slices of one view that are alone.
        root: the folder that outputs lie in.
        bar: counts slices.
        report: of the volume that is being translated.
        watch: the alarms; None where nobody asks.
    """

    model: Any
    grid: Grid
    batch_size: int
    writer: Writer
    alone: set[tuple]
    root: Path
    bar: tqdm.tqdm
    report: Report
    watch: Watch | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """How files are translated.

    Attributes:
        deidentify: apply the PS3.15 Basic Profile to DICOM headers, drop free text from the
            others, and name files by number; runs that are given one object have its pseudonyms.
        overwrite: replace output files that exist.
        batch_size: slices that the model gets at once.
        description: free text for the output headers.
        progress: show a progress bar over slices.
        manifest: a file that says what is done; with one that is there the run goes on, and what
            is done, or failed, is not done again (`zoo.inference.manifest`).
        part: K and N: translate the K-th of N parts of the volumes, which have about as many
            pixels. What is wrong with the input is in the first part's report.
        own: the name of this process's file beside the manifest, where it is no part's.
        writer: writes what was translated.
        exclude: a folder in the input that is left out; None: the output.
        dicom_only: refuse inputs whose outputs are no DICOM.
        watch: takes the figures of each image; its alarms are among the report's warnings.
    """

    deidentify: bool | Deidentifier = False
    overwrite: bool = False
    batch_size: int = 1
    description: str = ""
    progress: bool = True
    manifest: str | os.PathLike = ""
    part: tuple[int, int] = (1, 1)
    own: str = ""
    writer: type[Writer] = Writer
    exclude: Path | None = None
    dicom_only: bool = False
    watch: Watch | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size: expected 1 or more. Received: {self.batch_size}")
        if self.deidentify and (self.manifest or self.part != (1, 1)):
            raise ValueError("deidentify: expected one whole run. Received: a manifest, or a part")


def translate(
    model: Any, input: str | os.PathLike, output: str | os.PathLike, **options: Any
) -> Report:
    """Translates every image in `input`, each into its own format, in its own place.

    A model of scale s writes s times the rows and columns, at 1/s of the pixel spacing, over the
    same field of view; a model of volumes also s times the slices. A model of classes writes
    their numbers, as integers.

    The inputs of a model of several are brought onto the grid of the first, whose header and format
    the output has, and a case that lacks one is reported and left out.

    Slices are resampled to the recipe's spacing, and the result to s times the input's own grid;
    an image without a known spacing is taken as it is. Of a volume all three axes are resampled.
    A file that states an affine, such as NIfTI, is presented to a model that knows the plane of its
    slices in that plane, hung as radiologists do, and written in its own axes.
    Whatever goes wrong with a file is reported, and the others go on; with ZOO_DEBUG=1 in the
    environment the exception is raised. What a pretrained model was not trained on (`zoo.guards`,
    by the header's spacing and three slices of each image) is reported, and said in the
    DerivationDescription of DICOM output. A file appears under its name only when it is complete.

    Args:
        model: a `zoo.Translator`, a `zoo.Average`, whose `note` the headers have, or a
            `zoo.trust.half_width.HalfWidth`.
        input: a file or a folder; of a model of several inputs as `inputs.find` says.
        output: a folder (made as needed), or a file name where `input` is a file that is. DICOM
            slices between those of the input get numbers behind the name of the nearest one.
        **options: those of `Options`.

    Raises:
        FileNotFoundError: where `input` does not exist.
        FileExistsError: where an output file exists and `overwrite` is False.
        ValueError: where there is no image, good or bad, or an output would replace an input; for
            a manifest of another run, or with `deidentify`, whose pseudonyms are one process's.
    """
    with plan(model, input, output, Options(**options)) as planned:
        return planned.run()


@dataclasses.dataclass(kw_only=True)
class Plan:
    """What a run over files will do, its faults found before any work is done.

    Attributes:
        volumes: all that were found.
        places: the files that each is written to.
        mine: which of the volumes are this part's.
        base: the folder, or file, of the input.
        root: the folder that all outputs lie in.
        report: of what was found; empty of volumes so far.
    """

    volumes: list[Volume]
    places: list[list[Path]]
    mine: set[int]
    base: Path
    root: Path
    report: Report
    job: _Run | None = None
    record: Manifest | None = None

    def run(self) -> Report:
        """Translates all that is this part's."""
        claimed: set[Path] = set()
        for index, paths in enumerate(self.places):
            if index in self.mine:
                one = self.translate(index, claimed)
                self.report.add(one, of_volume(self.volumes[index]))
            if index not in self.mine or one.outputs:  # of another part as if it were written
                claimed.update(paths)
        return self.report

    def names(self) -> list[str]:
        """What tells each volume from the others."""
        return [named(volume, self.base) for volume in self.volumes]

    def translate(self, index: int, claimed: set[Path]) -> Report:
        """What becomes of a volume, or has become of it in an earlier run.

        Args:
            index: of the volume.
            claimed: files of others, whose names it may not take.
        """
        assert self.job is not None  # where there are volumes
        volume, paths = self.volumes[index], self.places[index]
        check = functools.partial(check_paths, paths, self.root, claimed)
        return _recorded(self.job, self.record, self.base, volume, paths, check)


@contextlib.contextmanager
def plan(
    model: Any, input: str | os.PathLike, output: str | os.PathLike, options: Options
) -> Iterator[Plan]:
    """What `translate` will do, with the manifest open meanwhile.

    Raises:
        FileNotFoundError, FileExistsError, ValueError: as `translate`.
    """
    # what there is
    input, output = Path(input), Path(output)
    part, description = options.part, options.description
    deidentifier = Deidentifier() if options.deidentify is True else options.deidentify or None
    found = inputs.find(model, input, options.exclude or output)
    report = Report()
    for problem in found.problems if part[0] == 1 else ():
        (report.ignored if problem.harmless else report.skipped).append(problem)
    if not found.volumes:
        if found.problems and any(not problem.harmless for problem in found.problems):
            empty: dict[str, Any] = {"volumes": [], "places": [], "mine": set()}
            yield Plan(**empty, base=found.place, root=output, report=report)
            return
        first = f" ({found.problems[0].reason})" if found.problems else ""
        raise ValueError(f"input: expected image files{first}. Received: {input}")
    if (options.manifest or part != (1, 1)) and found.place.is_file():
        raise ValueError(f"input: expected a folder, of which parts are done. Received: {input}")
    for volume in found.volumes if options.dicom_only else ():
        if not isinstance(volume.parts[0], Series):
            raise ValueError(f"output: DICOMweb takes DICOM. Received: {volume.path(0).name}")
    # where it goes, with faults of the call found before any work is done
    grid = Grid(scale=model.scale, depth=model.scale if model.dimensions == 3 else 1)
    volumes = [volume.presented(model.source.plane) for volume in found.volumes]
    mine = share(volumes, part)
    report.others = len(volumes) - len(mine)
    with contextlib.ExitStack() as held:
        record = None
        if options.manifest:
            manifest, facts = Path(options.manifest), _facts(model, description)
            record = held.enter_context(Manifest(manifest, facts, part, output, options.own))
            if part[0] == 1 and not options.own:
                record.end(FOUND, report)
        places, root = targets(
            model,
            volumes,
            grid,
            found.place,
            output,
            deidentify=deidentifier is not None,
            mine=mine,
            replaceable=lambda path: options.overwrite or bool(record and record.owns(path)),
        )
        check_writable(root)
        sweep((places[index] for index in mine), root)
        # one volume after the other, each within a boundary of its own
        firsts = [volume.parts[0] for volume in volumes]  # of several inputs
        total = sum(volumes[index].length for index in mine)
        # None: no bar where stderr is no terminal
        bar = held.enter_context(
            tqdm.tqdm(total=total, unit="slice", disable=None if options.progress else True)
        )
        run = _Run(
            model=model,
            grid=grid,
            batch_size=options.batch_size,
            writer=options.writer(
                model, firsts, grid, deidentifier, description, record.token if record else ""
            ),
            alone={identity(each) for each in firsts if _single(each) and each.number > 0},
            root=root,
            bar=bar,
            report=report,
            watch=options.watch,
        )
        yield Plan(
            volumes=volumes,
            places=places,
            mine=mine,
            base=found.place,
            root=root,
            report=report,
            job=run,
            record=record,
        )


def _facts(model: Any, description: str) -> dict[str, Any]:
    """What a manifest's runs have in common."""
    return {
        "model": model.name,
        "weights": model.weights_hash,
        "computed": precision(model),
        "note": getattr(model, "note", ""),
        "description": description,
    }


def _recorded(
    run: _Run,
    record: Manifest | None,
    base: Path,
    volume: Volume,
    paths: list[Path],
    check: Callable[[], None],
) -> Report:
    """What becomes of a volume, or has become of it in an earlier run."""
    key = record.key(volume, base) if record else ""
    if record and (known := record.found(key)):
        run.bar.update(volume.length)
        return known
    if record:
        record.begin(key, paths)
    before, run.report = run.bar.n, Report()
    try:
        with contained("translation"):
            check()
            _translate_one(run, volume, paths)
    except ValueError as error:
        count = len(volume.paths)
        whole = f" (a series of {count} files)" if count > 1 else ""
        _skip(volume.paths[0], error, run.report.skipped, whole)
    run.bar.update(before + volume.length - run.bar.n)
    if record:
        record.end(key, run.report, of_volume(volume))
    return run.report


def _single(volume: Volume) -> TypeGuard[Series]:
    """Whether this is a DICOM slice that no others are known to belong to."""
    return isinstance(volume, Series) and volume.length == 1


def _translate_one(run: _Run, volume: Volume, paths: list[Path]) -> None:
    """Translates one volume and adds it to the report; of a failure it leaves no file behind."""
    model, note = run.model, ""
    if isinstance(model, Average | HalfWidth):
        # what is resampled gets square pixels
        model = model.for_spacing(None if model.recipe.spacing else volume.spacing)
        note = model.note
    checks.require_suited(model, volume)
    volume, resampled = checks.on_one_grid(model, checks.in_unit(model, volume))
    first = volume.parts[0]
    reasons = checks.reasons(model, volume, _single(first) and identity(first) in run.alone)
    skipped: list[Problem] = []
    skip = functools.partial(_skip, skipped=skipped)
    watched = None if run.watch is None else run.watch.begin(first)
    given = model, volume, run.grid, run.batch_size
    if model.dimensions == 3:
        made = slices.whole(*given, run.bar.update, watched)
    else:
        made = slices.one_by_one(*given, skip, run.bar.update, watched)
    with contained("output"):
        written, notes = run.writer.write(volume, paths, made, reasons, skip, note)
    # what was left out is known once all slices have gone through
    report = run.report
    report.skipped += skipped
    report.outputs += written
    if not written:
        return
    report.volumes.append(first)
    report.slices += volume.length - len(skipped)
    said = [*reasons, *resampled, *notes]
    if run.watch is not None and watched is not None:
        watched.name = written[0].relative_to(run.root).as_posix()
        run.watch.series.append(watched)
        said += watched.warnings()
    report.warnings += [Problem(volume.paths[0], note) for note in said]
    report.done += 1
    report.series += isinstance(first, Series)


def _skip(path: Path, error: ValueError, skipped: list[Problem], end: str = "") -> None:
    """Reports a file that could not be translated; with ZOO_DEBUG in the environment, raises."""
    if os.environ.get("ZOO_DEBUG"):
        raise error
    skipped.append(Problem(path, reason(error) + end))
