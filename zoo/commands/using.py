"""`evaluate`, `generate`, `export` and `publish`: what is done with a trained model."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.commands import asked, trusting
from zoo.commands.asked import FLAGS, UsageError
from zoo.errors import printable

if TYPE_CHECKING:
    from zoo.trust.watch import Watch


def evaluate() -> int:
    entry, *others = asked.members()
    from zoo.evaluation import measure, summary

    if FLAGS.split not in measure.SPLITS:
        raise UsageError(f"split: expected train, validation or test. Received: {FLAGS.split}")
    watched = trusting.watched()
    if FLAGS.calibration and not watched:
        raise UsageError("calibration: expected --report or --strict beside it. Received: none")
    output = asked.path("output") or measure.default_output(entry, others, FLAGS.tta)
    # The alarms are those of the model that is measured.
    watches: list[Watch] = []

    def watch(model: Any) -> "Watch":
        watches.append(trusting.watch(model, entry))
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
        segmentations=trusting.segmentations(),
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
    return trusting.reported(watches[0]) if watches else 0


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
    if FLAGS.calibration and FLAGS.int8:
        raise UsageError("calibration: expected float32, which it holds for. Received: --int8")
    if not saved_model and FLAGS.precision == "auto":
        recipe = dataclasses.replace(entry.recipe, precision="float32")
        entry = dataclasses.replace(entry, recipe=recipe)
    # What it is calibrated on, and where it goes.
    model, images = asked.built(entry), asked.path("int8")
    base = Path(output).expanduser().absolute()
    uncertainty = None if images else asked.servable(entry, model)
    if uncertainty and uncertainty.spread == "views" and not (saved_model or FLAGS.calibration):
        # Every answer would take them: other formats have one graph.
        text = "it is by mirror images and turns, each another pass; --calibration=FILE has it."
        print(f"note: without uncertainty. {text}", file=sys.stderr)
        uncertainty = None
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
