"""`evaluate`, `predict`, `generate`, `export` and `publish`: what is done with a trained model."""

import collections
import dataclasses
import functools
import json
import shlex
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.commands import asked
from zoo.commands.asked import FLAGS, UsageError
from zoo.errors import printable

if TYPE_CHECKING:
    from zoo.inference.report import Report
    from zoo.registry import Entry
    from zoo.trust.watch import Watch


def evaluate() -> int:
    entry, *others = asked.members()
    from zoo.evaluation import measure, summary

    if FLAGS.split not in measure.SPLITS:
        raise UsageError(f"split: expected train, validation or test. Received: {FLAGS.split}")
    watched = bool(FLAGS.report or FLAGS.strict)
    if FLAGS.calibration and not watched:
        raise UsageError("calibration: expected --report or --strict beside it. Received: none")
    output = asked.path("output") or measure.default_output(entry, others, FLAGS.tta)
    # The alarms are those of the model that is measured.
    watches: list[Watch] = []

    def watch(model: Any) -> "Watch":
        watches.append(_watch(model, entry))
        return watches[0]

    results = measure.evaluate(
        entry,
        output,
        data_dir=asked.path("data_dir"),
        input=asked.path("input"),
        split=FLAGS.split,
        limit=FLAGS.limit,
        ensemble=others,
        tta=FLAGS.tta,
        lesions=FLAGS.lesions,
        watch=watch if watched else None,
    )
    # What was found.
    print("\n".join(summary.lines(results)))
    note = results["dataset"]["description"]
    if note:  # what the figures have to be read with
        print(f"note: {note}", file=sys.stderr)
    print(f"Wrote {output}/metrics.json and {output}/report.html")
    for series in watches[0].series if watches else ():
        for text in series.warnings():
            print(printable(f"warning: {series.name}: {text}"), file=sys.stderr)
    return _reported(watches[0]) if watches else 0


def predict() -> int:
    source, output = asked.need("input", "output")
    entries = asked.members()
    shared = FLAGS.workers or FLAGS.part or FLAGS.manifest or FLAGS.runner
    if shared and FLAGS.deidentify:
        raise UsageError("deidentify: its pseudonyms are one process's. Received: a share of a run")
    if shared and FLAGS.uncertainty:
        raise UsageError("uncertainty: one process writes it. Received: a share of a run")
    watched = bool(FLAGS.report or FLAGS.strict)
    if watched and (shared or FLAGS.bids):
        raise UsageError("report, strict: expected neither a share of a run nor --bids beside it.")
    region = _region()
    if region and (shared or FLAGS.bids or FLAGS.deidentify):
        raise UsageError("explain: expected one image, and no share of a run. Received: more")
    if FLAGS.calibration and not (FLAGS.uncertainty or watched):
        raise UsageError(
            "calibration: expected --uncertainty beside it, or --report or --strict. Received: none"
        )
    if FLAGS.bids and (shared or FLAGS.uncertainty):
        raise UsageError("bids: expected neither a share of a run nor --uncertainty beside it.")
    watch = None
    if FLAGS.runner:
        report = _on_beam(source, output, entries)
    elif (FLAGS.workers or 1) > 1:
        report = _by_workers(source, output)
    else:
        report, watch = _translated(source, output, entries)
    _say(report, output)
    failed = report.skipped or not (report.done or report.others)
    code = 0 if watch is None else _reported(watch)
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
    from zoo.inference import engines

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
    model = asked.built(*entries)
    engine = engines.use(model, FLAGS.engine, lambda text: print(text, file=sys.stderr))
    with tempfile.TemporaryDirectory(prefix="zoo-") as scratch:
        return on_beam.translate(
            model,
            functools.partial(on_beam.made, entries, FLAGS.tta, FLAGS.engine),
            Path(source).expanduser().absolute(),
            Path(output).expanduser().absolute(),
            [f"--runner={FLAGS.runner}", *shlex.split(FLAGS.beam_options or "")],
            manifest=(asked.path("manifest") or Path(scratch) / "manifest.jsonl").absolute(),
            part=asked.part(),
            overwrite=FLAGS.overwrite,
            batch_size=asked.batch_size(engine),
        )


def _translated(source: str, output: str, entries: "list[Entry]") -> "tuple[Report, Watch | None]":
    """What this process translates, by a model or by the mean of several."""
    from zoo.imaging.dicom import web
    from zoo.imaging.dicom.deidentify import Deidentifier
    from zoo.inference import bids, engines, predict, workers

    workers.end_with_parent()
    # by a model, or by the mean of several
    model = asked.built(*entries)
    widths = _half_widths(model, entries[0]) if FLAGS.uncertainty else None
    watch = _watch(model, entries[0]) if FLAGS.report or FLAGS.strict else None
    engine = engines.use(model, FLAGS.engine, lambda text: print(text, file=sys.stderr))
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
        options = {
            # one for outputs and half-widths
            "deidentify": FLAGS.deidentify and Deidentifier(),
            "overwrite": FLAGS.overwrite,
            "batch_size": asked.batch_size(engine),
        }
        if FLAGS.bids:
            report = bids.translate(model, given, made, FLAGS.bids, **options)
        else:
            manifest = asked.path("manifest") or ""
            report = predict.translate(
                model, given, made, manifest=manifest, part=asked.part(), watch=watch, **options
            )
        if widths is not None and report.outputs:
            from zoo.inference import half_widths

            half_widths.add(widths, given, made, report, **options)
            about = f"Half-widths, as {half_widths.FOLDER}: {widths.calibration.words}."
            print(printable(about))
        if FLAGS.explain:
            _explain(model, report)
        if web.is_address(output):
            web.store(report.outputs, output)
    return report, watch


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


def _region() -> tuple[int, ...] | None:
    """Row, column and radius of --explain."""
    if not FLAGS.explain:
        return None
    parts = FLAGS.explain.split(",")
    if len(parts) not in (2, 3) or not all(part.isdecimal() for part in parts):
        raise UsageError(
            "explain: expected ROW,COLUMN or ROW,COLUMN,RADIUS in pixels. "
            f"Received: {FLAGS.explain}"
        )
    return tuple(map(int, parts))


def _explain(model: Any, report: "Report") -> None:
    """Where a region of the only image's output comes from, beside the output."""
    from zoo.inference import explained

    found, place = explained.write(model, report, _region() or ())
    print(printable(f"Explained: {found.words(model.target.unit)}. Wrote {place}"))


def _watch(model: Any, entry: "Entry") -> "Watch":
    """The alarms of a model, with the limits that it was calibrated to."""
    from zoo.trust import calibration
    from zoo.trust.watch import Watch

    file = asked.path("calibration") if FLAGS["calibration"].present else None
    limits = calibration.limits_of(entry, model, file)
    if limits is None:
        text = "expected a model whose alarms were calibrated, by the command calibrate."
        if FLAGS.strict:
            raise ValueError(f"strict: {text} Received: {entry.name}")
        print(f"note: the report has no limits. alarms: {text}", file=sys.stderr)
    return Watch(model, limits)


def _reported(watch: "Watch") -> int:
    """Writes the report that was asked for; the exit code by the alarms."""
    folder = asked.path("report")
    if folder is not None:
        watch.write(folder)
        print(f"Wrote {folder}/alarms.json and {folder}/alarms.html")
    return 3 if FLAGS.strict and watch.raised else 0


def _half_widths(model, entry):
    """What gives half-widths of the model's intervals, where it was calibrated."""
    from zoo.trust import calibration
    from zoo.trust.half_width import HalfWidth

    return HalfWidth(model, calibration.of(entry, model, asked.path("calibration")))


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def generate() -> int:
    (output,) = asked.need("output")
    from zoo.inference import generate

    entry = asked.trained()
    paths = generate.generate(
        asked.built(entry),
        FLAGS.count,
        Path(output).expanduser(),
        seed=entry.recipe.seed,
        overwrite=FLAGS.overwrite,
        label=FLAGS.label,
    )
    print(f"Wrote {FLAGS.count} images; look at {paths[-1]}")
    return 0


def synthesize() -> int:
    (output,) = asked.need("output")
    entry = asked.trained()
    part = asked.part()
    from zoo.inference import synthesize

    model = asked.built(entry)
    if not model.generates:
        raise UsageError(f"model: expected a generator. Received: {entry.name}, of another kind")
    missing = synthesize.synthesize(
        model,
        FLAGS.count,
        Path(output).expanduser(),
        seed=entry.recipe.seed,
        format=FLAGS.files,
        label=FLAGS.label,
        part=part,
    )
    left = f"; {missing} are left to other parts" if missing else ""
    print(f"{output} has {FLAGS.count - missing} of {FLAGS.count} synthetic images{left}")
    return 0


def export() -> int:
    (output,) = asked.need("output")
    entry = asked.trained()
    allowed = _percent("int8_loss")
    if FLAGS["int8_loss"].present and not FLAGS.int8:
        raise UsageError("int8_loss: expected --int8=IMAGES beside it. Received: none")
    from zoo.serving import export, formats, int8

    # Other formats compute in float32.
    saved_model = FLAGS.format == formats.SAVED_MODEL
    if FLAGS.calibration and not saved_model:
        wanted = f"calibration: expected --format={formats.SAVED_MODEL}"
        raise UsageError(f"{wanted}. Received: --format={FLAGS.format}")
    if entry.uncertainty and not saved_model:
        print(f"note: without uncertainty, which {FLAGS.format} does not hold.", file=sys.stderr)
    if not saved_model and FLAGS.precision == "auto":
        recipe = dataclasses.replace(entry.recipe, precision="float32")
        entry = dataclasses.replace(entry, recipe=recipe)
    # What it is calibrated on, and where it goes.
    model, images = asked.built(entry), asked.path("int8")
    base = Path(output).expanduser().absolute()
    uncertainty = asked.servable(entry, model) if saved_model else None
    folder = export.export(
        model,
        base,
        card=export.card_fields(entry),
        uncertainty=uncertainty,
        format=FLAGS.format,
        int8=int8.read(model, images) if images else (),
        allowed=allowed,
    )
    served = f"; TF Serving: --model_base_path={base}" if saved_model else ""
    print(f"Exported to {folder}{served}")
    if images:
        told = json.loads((folder / "intensity.json").read_text(encoding="utf-8"))["int8"]
        print(
            f"int8 is {told['loss_percent']:.3g} % of the window from float32 (root mean square, "
            f"on {told['judged_on']} images that it was not calibrated on)"
        )
    return 0


def _percent(flag: str) -> float:
    value = getattr(FLAGS, flag)
    try:
        found = float(value)
    except ValueError:
        found = -1.0
    if not 0 <= found <= 100:
        raise UsageError(f"{flag}: expected a number from 0 to 100. Received: {value}")
    return found


def publish() -> int:
    # What is published.
    (to,) = asked.need("to")
    entry = asked.trained()
    stored = entry.weights is not None and str(entry.weights).endswith(".weights.h5")
    if not stored:
        raise UsageError(f"weights: expected best or last. Received: {FLAGS.weights}")
    from zoo import __version__, hub, registry, run

    # What is told of it.
    name = Path(entry.name).name
    row = registry.index()["pretrained"].get(entry.name, {})
    architecture = registry.index()["models"].get(entry.model, {})
    fields = {"dataset": entry.dataset, "tasks": architecture.get("tasks", ())} | row
    # A pretrained model has a card beside its weights.
    card = Path(str(entry.weights)).parent / f"{name}.md"
    folder = hub.publish(
        Path(to).expanduser(),
        name=name,
        model=entry.model,
        recipe=entry.recipe,
        weights=entry.weights or "",
        sha256=entry.sha256,
        source=run.domain(entry.source or {}, "source"),
        target=run.domain(entry.target or {}, "target"),
        version=__version__,
        fields=fields,
        trained_on=entry.trained_on,
        uncertainty=entry.uncertainty,
        alarms=entry.alarms,
        card=card.read_text(encoding="utf-8") if row and card.is_file() else "",
    )
    print(f"Published to {folder}; `zoo.load({str(folder)!r})` loads it.")
    return 0
