"""`predict`: a user's files through a model, by this process or by several."""

import collections
import functools
import shlex
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.commands import asked, trusting
from zoo.commands.asked import FLAGS, UsageError
from zoo.errors import printable

if TYPE_CHECKING:
    from zoo.inference.report import Report
    from zoo.registry import Entry
    from zoo.trust.watch import Watch


def predict() -> int:
    source, output = asked.need("input", "output")
    entries = asked.members()
    # What does not go together.
    shared = FLAGS.workers or FLAGS.part or FLAGS.manifest or FLAGS.runner
    if shared and FLAGS.deidentify:
        raise UsageError("deidentify: its pseudonyms are one process's. Received: a share of a run")
    if shared and FLAGS.uncertainty:
        raise UsageError("uncertainty: one process writes it. Received: a share of a run")
    watched = trusting.watched()
    if watched and (shared or FLAGS.bids):
        raise UsageError("report, strict: expected neither a share of a run nor --bids beside it.")
    region = _region()
    if region and (shared or FLAGS.bids or FLAGS.deidentify):
        raise UsageError("explain: expected one image, and no share of a run. Received: more")
    if FLAGS.calibration and not (FLAGS.uncertainty or watched):
        raise UsageError(
            "calibration: expected --uncertainty beside it, or --report or --strict. Received: none"
        )
    if FLAGS.beam_options and not FLAGS.runner:
        raise UsageError("beam_options: expected --runner beside it. Received: none")
    if FLAGS.bids and (shared or FLAGS.uncertainty):
        raise UsageError("bids: expected neither a share of a run nor --uncertainty beside it.")
    # The files, by this process or by several.
    watch = None
    if FLAGS.runner:
        report = _on_beam(source, output, entries)
    elif (FLAGS.workers or 1) > 1:
        report = _by_workers(source, output)
    else:
        report, watch = _translated(source, output, entries, region)
    _say(report, output)
    failed = report.skipped or not (report.done or report.others)
    code = 0 if watch is None else trusting.reported(watch)
    return 1 if failed else code


def _by_workers(source: str, output: str) -> "Report":
    """What processes of their own translate, each a part."""
    from zoo.imaging.dicom import web
    from zoo.inference import workers

    if web.is_address(source) or web.is_address(output):
        raise UsageError("workers: expected folders on disk. Received: a DICOMweb address")
    with tempfile.TemporaryDirectory(prefix="zoo-") as scratch:
        return workers.run(
            asked.given("predict", "workers", "part", "manifest"),
            FLAGS.workers,
            asked.part(),
            asked.path("manifest") or Path(scratch) / "manifest.jsonl",
            Path(output).expanduser(),
        )


def _on_beam(source: str, output: str, entries: "list[Entry]") -> "Report":
    """What a runner of Apache Beam has translated."""
    from zoo.imaging.dicom import web
    from zoo.inference.predict import Options

    # What a runner cannot do.
    if FLAGS.workers:
        raise UsageError(f"workers: the runner says how many. Received: {FLAGS.workers}")
    if web.is_address(source) or web.is_address(output):
        raise UsageError("runner: expected folders on disk. Received: a DICOMweb address")
    if FLAGS.runner != "DirectRunner" and not FLAGS.manifest:
        raise UsageError(f"runner: {FLAGS.runner} needs a --manifest that its workers see.")
    try:
        from zoo.inference import on_beam
    except ImportError as error:
        raise ValueError(
            f"runner: expected Apache Beam: pip install 'zoo-medical[beam]'. Received: {error}"
        ) from error
    # The model here, which each process makes anew.
    model = asked.built(*entries)
    given, made = (Path(place).expanduser().absolute() for place in (source, output))
    engine, batch_size = _engine(model, given, made)
    with tempfile.TemporaryDirectory(prefix="zoo-") as scratch:
        return on_beam.translate(
            model,
            functools.partial(on_beam.made, entries, FLAGS.tta, engine, batch_size),
            given,
            made,
            [f"--runner={FLAGS.runner}", *asked.beam_options()],
            Options(
                manifest=(asked.path("manifest") or Path(scratch) / "manifest.jsonl").absolute(),
                part=asked.part(),
                overwrite=FLAGS.overwrite,
                batch_size=batch_size,
                progress=False,
            ),
        )


def _translated(
    source: str, output: str, entries: "list[Entry]", region: tuple[int, ...]
) -> "tuple[Report, Watch | None]":
    """What this process translates, by a model or by the mean of several."""
    from zoo.imaging.dicom import web
    from zoo.inference import bids, half_widths, predict, workers

    workers.end_with_parent()
    # by a model, or by the mean of several
    model = asked.built(*entries)
    widths = _half_widths(model, entries[0]) if FLAGS.uncertainty else None
    watch = None
    if trusting.watched():
        watch = trusting.watch(model, entries[0], _explaining(model, source))
    if FLAGS.tta or len(entries) > 1:
        seen = f": each image {model.ways}" if FLAGS.tta else ""
        print(f"{model.note.capitalize()}{seen}.")
    # from and to folders, which stand for DICOMweb's addresses
    with tempfile.TemporaryDirectory(prefix="zoo-") as scratch:
        given, made = Path(source).expanduser(), Path(output).expanduser()
        if web.is_address(output):
            web.Address.parse(output, "output")  # before any work is done
            made = Path(scratch) / "made"
        if web.is_address(source):
            given = Path(scratch) / "given"
            given.mkdir()
            web.fetch(source, given)
        _, batch_size = _engine(model, given, made)
        options = {
            "deidentify": FLAGS.deidentify,
            "overwrite": FLAGS.overwrite,
            "batch_size": batch_size,
            "dicom_only": web.is_address(output),
            "watch": watch,
        }
        if FLAGS.bids:
            report = bids.translate(model, given, made, FLAGS.bids, **options)
        elif widths is not None:
            report, written = half_widths.translate(model, widths, given, made, **options)
            if written.outputs:
                about = f"Half-widths, as {half_widths.FOLDER}: {widths.calibration.words}."
                print(printable(about))
        else:
            options |= {"manifest": asked.path("manifest") or "", "part": asked.part()}
            report = predict.translate(model, given, made, **options)
        if region:
            _explain(model, report, region)
        if web.is_address(output):
            web.store(report.outputs, output)
    return report, watch


def _engine(model: Any, source: Path, output: Path) -> tuple[str, int]:
    """The value of --engine that suits so many slices, with the model run by it, and its batch."""
    from zoo.inference import engines

    wanted = FLAGS.engine if engines.pays(model, FLAGS.engine, source, output) else "keras"
    tell = functools.partial(print, file=sys.stderr)
    engine = engines.use(model, wanted, tell, FLAGS.batch_size or engines.BATCH)
    return wanted, asked.batch_size(engine)


def _say(report: "Report", output: str) -> None:
    """What there is to say of a user's files."""
    for word, problems in (("warning", report.warnings), ("skipped", report.skipped)):
        for path, text in problems:
            print(printable(f"{word}: {path}: {text}"), file=sys.stderr)
    for text, count in collections.Counter(p.reason for p in report.ignored).items():
        print(printable(f"ignored: {_number(count, 'file')}: {text}"), file=sys.stderr)
    files = report.done - report.series
    before = f", {report.before} of them before" if report.before else ""
    elsewhere = f", {report.others} left to other parts" if report.others else ""
    counts = [f"{report.series} series"] if report.series or not files else []
    counts += [_number(files, "file")] if files else []
    print(
        printable(
            f"Translated {' and '.join(counts)}, {_number(report.slices, 'slice')}{before}, "
            f"into {output}: {len(report.skipped)} skipped, {len(report.ignored)} ignored, "
            f"{_number(len(report.warnings), 'warning')}{elsewhere}"
        )
    )


def _region() -> tuple[int, ...]:
    """Row, column and perhaps the radius of --explain; without it nothing."""
    if not FLAGS.explain:
        return ()
    parts = FLAGS.explain.split(",")
    if len(parts) not in (2, 3) or not all(part.isdecimal() for part in parts):
        raise UsageError(
            "explain: expected ROW,COLUMN or ROW,COLUMN,RADIUS in pixels. "
            f"Received: {FLAGS.explain}"
        )
    return tuple(map(int, parts))


def _explaining(model: Any, source: str) -> Callable[[str], str] | None:
    """How the report's commands begin that explain a place; None where places have no pixels."""
    from zoo.trust import explain

    if FLAGS.tta or FLAGS.ensemble or not FLAGS.model or model.recipe.spacing:
        return None
    try:
        explain.require(model)
    except ValueError:
        return None
    given, model_path = Path(source).expanduser(), Path(FLAGS.model).expanduser()
    named = str(model_path.resolve()) if model_path.exists() else FLAGS.model

    def command(name: str) -> str:
        file = given if given.is_file() else given / name
        if not file.is_file():  # several, or of another name than the output
            return ""
        # The folder's path may say whose images they are; that of the output's name is told anyway.
        at = given.name if given.is_file() else name
        words = ["zoo", "predict", f"--model={named}", f"--input={at}", "--output=explained"]
        return shlex.join(words) + " --explain="

    return command


def _explain(model: Any, report: "Report", region: tuple[int, ...]) -> None:
    """Where a region of the only image's output comes from, beside the output."""
    from zoo.inference import explained

    found, place = explained.write(model, report, region)
    print(printable(f"Explained: {found.words(model.target.unit)}. Wrote {place}"))


def _half_widths(model, entry):
    """What gives half-widths of the model's intervals, where it was calibrated."""
    from zoo.trust import calibration
    from zoo.trust.half_width import HalfWidth

    return HalfWidth(model, calibration.of(entry, model, asked.path("calibration")))


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
