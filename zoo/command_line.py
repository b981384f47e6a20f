"""The absl command line: parses flags and makes one call. Imports TensorFlow only where used."""

import collections
import contextlib
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from absl import flags, logging

from zoo import __version__, registry, run
from zoo.errors import printable, reason
from zoo.flags import USED, define, help_text

FLAGS = define()


class UsageError(Exception):
    """The command line asks for something that does not exist or does not go together."""


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 failed, 2 wrong usage."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that lacks a letter shows its number
            stream.reconfigure(errors="backslashreplace")
    arguments = list(sys.argv if argv is None else argv)
    FLAGS.unparse_flags()
    for name in FLAGS:
        FLAGS[name].unparse()
    try:
        arguments = FLAGS(["--help" if a == "-h" else a for a in arguments])[1:]
    except flags.Error as error:
        return _fail(error, 2)
    if FLAGS.version:
        print(f"zoo-medical {__version__}")
        return 0
    if FLAGS.help or not arguments or arguments == ["help"]:
        print(help_text())
        return 0 if FLAGS.help or arguments else 2
    command, *rest = arguments
    if command not in _COMMANDS:
        return _fail(registry.UnknownName(command, list(_COMMANDS), "command"), 2)
    if rest and command == "describe" and len(rest) == 1:
        FLAGS["model"].value = rest[0]
    elif rest:
        return _fail(f"expected one command. Received: {' '.join(arguments)}", 2)
    unused = [name for name in FLAGS if FLAGS[name].present and name not in USED[command]]
    if unused:
        used = ", ".join(f"--{name}" for name in USED[command])
        return _fail(f"{command} takes {used}. Received: --{', --'.join(unused)}", 2)
    return _run(command)


def _run(command: str) -> int:
    """A command's exit code; whatever goes wrong is said in one line."""
    try:
        if command != "list":
            _import_quietly()
        code = _COMMANDS[command]() or 0
        sys.stdout.flush()
        return code
    except (UsageError, registry.UnknownName) as error:
        return _fail(error, 2)
    except KeyboardInterrupt as error:
        return _fail(str(error) or "interrupted.", 1)
    except SystemExit:
        raise
    except BaseException as error:  # decoders written in Rust panic with one of their own
        if isinstance(error, BrokenPipeError) and error.filename is None:
            _drop_output()
            return 1  # the reader, such as `head`, has enough
        if os.environ.get("ZOO_DEBUG"):
            raise
        expected = isinstance(error, ValueError | OSError | FloatingPointError | TypeError)
        name = "" if expected else f"{type(error).__name__}: "
        hint = "" if expected else " (ZOO_DEBUG=1 shows where)"
        code = _fail(f"{name}{_one_line(error)}{hint}", 1)
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        return code


def _one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines)
    return text if len(text) <= 2000 and "Traceback" not in text else reason(error)


def _drop_output() -> None:
    """What is still to be written goes nowhere, so that the exit is quiet."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _import_quietly() -> None:
    """Import TensorFlow without its notes on the CPU and on GPUs that are not there."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.set_verbosity(logging.ERROR)
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)  # what it writes before it reads any setting
    try:
        import tensorflow as tf
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
    tf.get_logger().setLevel("ERROR")


def _fail(error: Any, code: int) -> int:
    with contextlib.suppress(OSError):  # nobody may be listening
        print(f"error: {error}", file=sys.stderr)
        if code == 2:
            print("See: python cli.py --help", file=sys.stderr)
    return code


def _need(*names: str) -> list[str]:
    missing = [name for name in names if not getattr(FLAGS, name)]
    if missing:
        raise UsageError(f"this command needs {', '.join(f'--{name}' for name in missing)}.")
    return [getattr(FLAGS, name) for name in names]


def _path(name: str) -> Path | None:
    value = getattr(FLAGS, name)
    return Path(os.path.expanduser(value)) if value else None


def _overrides() -> dict[str, Any]:
    fields = {name: getattr(FLAGS, name) for name in ("steps", "batch_size", "seed", "fold")}
    fields = {name: value for name, value in fields.items() if value is not None}
    return fields | ({"precision": FLAGS.precision} if FLAGS.precision != "auto" else {})


def _lookup(name: str, preset: str = "paper", weights: str = "best") -> registry.Entry:
    try:
        return registry.lookup(name, FLAGS.dataset or "", preset, _overrides(), FLAGS.set, weights)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _workdir(model: str, dataset: str) -> Path:
    return _path("workdir") or Path("runs") / f"{model}-{dataset.replace('/', '-')}"


def _trained() -> registry.Entry:
    """The entry of --model with weights: a pretrained one, or a run's."""
    if FLAGS.workdir and not FLAGS.model:
        return _lookup(FLAGS.workdir, weights=FLAGS.weights)
    (name,) = _need("model")
    folder = f"{_run_of(name)}{os.sep}" if name in registry.index()["models"] else name
    entry = _lookup(folder, weights=FLAGS.weights)
    if entry.weights is None:
        raise UsageError(
            f"model: {name} has no weights yet; train it to the end first, or name the step of a "
            "checkpoint by --weights."
        )
    return entry


def _members() -> list[registry.Entry]:
    """The entries of --ensemble, or the one of --model."""
    if not FLAGS.ensemble:
        return [_trained()]
    if FLAGS.model or FLAGS.workdir:
        raise UsageError(
            "ensemble: expected its models in place of --model and --workdir. "
            f"Received: --ensemble={FLAGS.ensemble} and {FLAGS.model or FLAGS.workdir}"
        )
    names = [name for name in FLAGS.ensemble.split(",") if name]
    if len(names) < 2:
        raise UsageError(f"ensemble: expected two names or more. Received: {FLAGS.ensemble}")
    entries = [_lookup(name, weights=FLAGS.weights) for name in names]
    for entry in entries:
        if entry.weights is None:
            raise UsageError(
                "ensemble: expected pretrained models, or runs that came to an end. "
                f"Received: {entry.name}"
            )
    return entries


def _run_of(model: str) -> Path:
    """The folder of the run that --workdir or --dataset names, else of the only one there is."""
    if FLAGS.workdir or FLAGS.dataset:
        runs = [_workdir(model, FLAGS.dataset or "")]
    else:
        runs = sorted(run.folders(Path("runs"), model))
    if len(runs) == 1 and run.exists(runs[0]):
        return runs[0]
    found = ", ".join(map(str, runs)) if len(runs) > 1 else "none"
    raise UsageError(
        f"model: {model} is an architecture without weights. Name a pretrained model, or "
        f"a run by --workdir or --dataset. Received: {found} trained here"
    )


def _model(*entries: registry.Entry):
    from zoo import averaging

    return averaging.build(entries, FLAGS.tta)


_OWN = ("folder", "name")  # fields that the registry adds to what a `registry.yaml` says


def _list() -> int:
    for flag, field in (("task", "tasks"), ("modality", "modality")):
        entries = [*registry.index()["models"].values(), *registry.index()["datasets"].values()]
        known = {value for entry in entries for value in entry.get(field, [])} - {"any"}
        wanted = getattr(FLAGS, flag)
        if wanted is not None and wanted not in known:
            raise registry.UnknownName(wanted, sorted(known), flag)
    shown: dict[str, dict[str, Any]] = {}
    for section in registry.SECTIONS:
        rows = registry.index()[section]
        shown[section] = {}
        for name in registry.names(section, FLAGS.task, FLAGS.modality):
            shown[section][name] = {k: v for k, v in rows[name].items() if k not in _OWN}
    if FLAGS.json:
        print(json.dumps(shown, indent=2))
        return 0
    for section, rows in shown.items():
        print(section.capitalize())
        for name, fields in rows.items():
            print(f"  {name:<20} {fields['summary']}")
        if not rows:
            print("  (none)")
    return 0


def _describe() -> int:
    if FLAGS.model and FLAGS.dataset:
        raise UsageError(
            "describe: expected one name, a model's or a data set's. "
            f"Received: {FLAGS.model} and {FLAGS.dataset}"
        )
    # A data set has a card.
    name = FLAGS.model or FLAGS.dataset
    if not name:
        raise UsageError("describe needs a name, such as `describe pix2pix`.")
    if name.split("/")[0] in registry.index()["datasets"]:
        from zoo.data import card

        fields = card.card(name, _path("data_dir"))
        print(json.dumps(fields, indent=2) if FLAGS.json else card.text(fields))
        return 0
    # A model, or a pretrained one: its fields, its documentation, its recipes side by side.
    described = registry.describe(name)
    if FLAGS.json:
        print(json.dumps(described, indent=2))
        return 0
    documentation = described.pop("documentation", None)
    recipes = described.pop("recipes", None)
    for field, value in described.items():
        print(f"{field}: {', '.join(map(str, value)) if isinstance(value, list) else value}")
    if documentation:
        print(f"\n{documentation.strip()}")
    if recipes:
        print(f"\n{'recipe field':<24}{'paper':<22}{'good':<22}small")
        for field, value in recipes["paper"].items():
            others = [recipes[preset][field] for preset in ("good", "small")]
            good, small = ["" if other == value else other for other in others]
            print(f"{field:<24}{value!s:<22}{good!s:<22}{small}".rstrip())
    return 0


def _plain_recipe():
    """The fields of --set that a data set looks at, without a model."""
    from zoo.recipe import Recipe

    try:
        return Recipe.preset("paper", **Recipe.parse(FLAGS.set))
    except ValueError as error:
        raise UsageError(str(error)) from error


def _prepare() -> int:
    (dataset,) = _need("dataset")
    from zoo.data import prepare

    # The data set, only described so far.
    builder = prepare.load_builder(
        dataset, _path("data_dir"), _plain_recipe(), _path("input"), prepare=False
    )
    config = builder.builder_config
    manual = _path("manual_dir") or prepare.manual_dir(builder)
    # Its files, where they are fetched by us.
    if FLAGS.fetch:
        if not getattr(config, "idc", ""):
            raise UsageError(
                "fetch: expected a data set of the Imaging Data Commons; `describe` tells how to "
                f"get the others. Received: {dataset}"
            )
        from zoo_datasets.publishers import idc

        idc.fetch(config.idc, manual)
    # Its records.
    options = shlex.split(FLAGS.beam_options or "")
    builder = prepare.prepare_builder(builder, manual, options)
    counts = ", ".join(f"{n} {s.num_examples}" for n, s in builder.info.splits.items())
    print(f"{builder.info.full_name}: {counts} images in {builder.data_dir}")
    left_out = prepare.bad_files(builder)
    if left_out:
        print(f"warning: {left_out}", file=sys.stderr)
    # a publisher's data may have a few such cases; of the user's own files each one counts
    return 1 if left_out and builder.name == "folder" else 0


def _preview() -> int:
    dataset, output = _need("dataset", "output")
    from zoo.data import prepare, preview

    if Path(output).suffix.lower() != ".png":
        raise UsageError(f"output: expected a file name that ends in .png. Received: {output}")
    builder = prepare.load_builder(dataset, _path("data_dir"), _plain_recipe(), _path("input"))
    shown = preview.save(builder, Path(output).expanduser())
    print(f"Wrote {shown} examples of {builder.info.full_name} to {output}")
    return 0


def _train() -> int:
    dataset = _need("dataset" if FLAGS.init else "model", "dataset")[-1]
    registry.dataset_fields(dataset)
    name = _architecture()
    own = dataset.split("/")[0] == "folder" and FLAGS.input and not FLAGS.init
    if FLAGS.preset == "auto" and own:
        entry, plan = _planned(name, dataset)
    else:
        entry, plan = _of_preset(name), None
    from zoo import training

    training.train(
        entry,
        _workdir(Path(name).name, dataset),
        data_dir=_path("data_dir"),
        input=_path("input"),
        strategy=FLAGS.strategy,
        resume=FLAGS.resume,
        init=_initial_weights(),
        plan=plan,
    )
    return 0


def _of_preset(name: str) -> registry.Entry:
    """The entry to train by --preset; auto takes what suits the device."""
    preset = FLAGS.preset
    if preset == "auto":
        from zoo import devices

        preset = "good" if devices.accelerated() else "small"
    entry = _lookup(name, preset)
    if preset != FLAGS.preset and preset == "small" and entry.weights is None:
        print("No accelerator here: the small recipe is used (--preset=good takes a weekend).")
    return entry


def _planned(name: str, dataset: str) -> tuple[registry.Entry, dict[str, Any] | None]:
    """The entry to train on the files of --input, and the plan that its recipe comes from."""
    from zoo.plan import following

    try:
        return following.entry(
            name,
            dataset,
            _workdir(name, dataset),
            Path(FLAGS.input).expanduser(),
            anew=FLAGS.resume == "never",
            minutes=FLAGS.minutes or 0,
            overrides=_overrides(),
            assignments=FLAGS.set,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error


def _plan() -> int:
    (source,) = _need("input")
    from zoo.atomic import write_json
    from zoo.plan import following

    model, models = FLAGS.model or "", registry.index()["models"]
    if model and model not in models:
        raise registry.UnknownName(model, sorted(models), "model")
    if model:
        _lookup(model, "small")  # refuses fields that it does not have
    output = _path("output") or Path("plan.json")
    if output.suffix.lower() != ".json":
        raise UsageError(f"output: expected a file name that ends in .json. Received: {output}")
    path = Path(source).expanduser()
    plan = following.shown(path, model, FLAGS.minutes or 0, _overrides(), FLAGS.set)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_json(output, plan.to_dict())
    print(
        f"Wrote {output}. `train --model={plan.model.value} --dataset=folder --input={source}` "
        "makes such a plan and follows it."
    )
    return 0


def _architecture() -> str:
    """What names the network to train: --model, or --init where that has a recipe of its own.

    The weights of a pretrained model or a run fit its own recipe alone, so that is taken, with
    its intensity windows, unless --model names another one of the kind.
    """
    if not FLAGS.init or FLAGS.init.endswith(".weights.h5"):
        return _need("model")[0]
    if not FLAGS.model or FLAGS.model == registry.lookup(FLAGS.init).model:
        return FLAGS.init
    return FLAGS.model


def _initial_weights() -> Path | None:
    if FLAGS["weights"].present and (not FLAGS.init or FLAGS.init.endswith(".weights.h5")):
        raise UsageError(
            f"weights: expected a run by --init, of whose weights one can choose. "
            f"Received: {FLAGS.weights}"
        )
    if not FLAGS.init or FLAGS.init.endswith(".weights.h5"):
        return _path("init")
    entry = registry.lookup(FLAGS.init, weights=FLAGS.weights)
    if entry.weights is None:
        raise UsageError(f"init: {FLAGS.init} has no weights.")
    from zoo.cache import weights_file

    return weights_file(entry.weights, entry.sha256)


def _evaluate() -> int:
    entry, *others = _members()
    from zoo.evaluation import measure, summary

    if FLAGS.split not in measure.SPLITS:
        raise UsageError(f"split: expected train, validation or test. Received: {FLAGS.split}")
    output = _path("output") or measure.default_output(entry, others, FLAGS.tta)
    results = measure.evaluate(
        entry,
        output,
        data_dir=_path("data_dir"),
        input=_path("input"),
        split=FLAGS.split,
        limit=FLAGS.limit,
        ensemble=others,
        tta=FLAGS.tta,
    )
    print("\n".join(summary.lines(results)))
    note = results["dataset"]["description"]
    if note:  # what the figures have to be read with
        print(f"note: {note}", file=sys.stderr)
    print(f"Wrote {output}/metrics.json and {output}/report.html")
    return 0


def _predict() -> int:
    source, output = _need("input", "output")
    entries = _members()
    from zoo.inference import predict

    # The files, by the model or by a mean.
    model = _model(*entries)
    if FLAGS.tta or len(entries) > 1:
        seen = f": each image {model.ways}" if FLAGS.tta else ""
        print(f"{model.note.capitalize()}{seen}.")
    report = predict.translate(
        model,
        Path(source).expanduser(),
        Path(output).expanduser(),
        deidentify=FLAGS.deidentify,
        overwrite=FLAGS.overwrite,
        batch_size=FLAGS.batch_size or 1,
    )
    # What there is to say of them.
    for word, problems in (("warning", report.warnings), ("skipped", report.skipped)):
        for path, text in problems:
            print(printable(f"{word}: {path}: {text}"), file=sys.stderr)
    for text, count in collections.Counter(p.reason for p in report.ignored).items():
        print(printable(f"ignored: {_number(count, 'file')}: {text}"), file=sys.stderr)
    files = report.done - report.series
    counts = [f"{report.series} series"] if report.series or not files else []
    counts += [_number(files, "file")] if files else []
    print(
        printable(
            f"Translated {' and '.join(counts)}, {_number(report.slices, 'slice')}, into {output}: "
            f"{len(report.skipped)} skipped, {len(report.ignored)} ignored, "
            f"{_number(len(report.warnings), 'warning')}"
        )
    )
    return 1 if report.skipped or not report.done else 0


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _generate() -> int:
    (output,) = _need("output")
    from zoo.inference import generate

    entry = _trained()
    paths = generate.generate(
        _model(entry),
        FLAGS.count,
        Path(output).expanduser(),
        seed=entry.recipe.seed,
        overwrite=FLAGS.overwrite,
        label=FLAGS.label,
    )
    print(f"Wrote {FLAGS.count} images; look at {paths[-1]}")
    return 0


def _export() -> int:
    (output,) = _need("output")
    entry = _trained()
    from zoo.serving import export

    card = export.card_fields(entry)
    base = Path(output).expanduser().absolute()
    folder = export.export(_model(entry), base, card=card)
    print(f"Exported to {folder}; TF Serving: --model_base_path={base}")
    return 0


_COMMANDS = {
    "list": _list,
    "describe": _describe,
    "prepare": _prepare,
    "plan": _plan,
    "preview": _preview,
    "train": _train,
    "evaluate": _evaluate,
    "predict": _predict,
    "generate": _generate,
    "export": _export,
}
