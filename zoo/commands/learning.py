"""`plan` and `train`."""

from pathlib import Path
from typing import Any

from zoo import registry
from zoo.commands import asked
from zoo.commands.asked import FLAGS, UsageError


def train() -> int:
    dataset = asked.need("dataset" if FLAGS.init else "model", "dataset")[-1]
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
        asked.workdir(Path(name).name, dataset),
        data_dir=asked.path("data_dir"),
        input=asked.path("input"),
        strategy=FLAGS.strategy,
        resume=FLAGS.resume,
        init=initial_weights(),
        plan=plan,
    )
    return 0


def _of_preset(name: str) -> registry.Entry:
    """The entry to train by --preset; auto takes what suits the device."""
    preset = FLAGS.preset
    if preset == "auto":
        from zoo import devices

        preset = "good" if devices.accelerated() else "small"
    entry = asked.lookup(name, preset)
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
            asked.workdir(name, dataset),
            Path(FLAGS.input).expanduser(),
            anew=FLAGS.resume == "never",
            minutes=FLAGS.minutes or 0,
            overrides=asked.overrides(),
            assignments=FLAGS.set,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error


def plan() -> int:
    (source,) = asked.need("input")
    from zoo.atomic import write_json
    from zoo.plan import following

    model, models = FLAGS.model or "", registry.index()["models"]
    if model and model not in models:
        raise registry.UnknownName(model, sorted(models), "model")
    if model:
        asked.lookup(model, "small")  # refuses fields that it does not have
    output = asked.path("output") or Path("plan.json")
    if output.suffix.lower() != ".json":
        raise UsageError(f"output: expected a file name that ends in .json. Received: {output}")
    path = Path(source).expanduser()
    plan = following.shown(path, model, FLAGS.minutes or 0, asked.overrides(), FLAGS.set)
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
        return asked.need("model")[0]
    if not FLAGS.model or FLAGS.model == registry.lookup(FLAGS.init).model:
        return FLAGS.init
    return FLAGS.model


def initial_weights() -> Path | None:
    if FLAGS["weights"].present and (not FLAGS.init or FLAGS.init.endswith(".weights.h5")):
        raise UsageError(
            f"weights: expected a run by --init, of whose weights one can choose. "
            f"Received: {FLAGS.weights}"
        )
    if not FLAGS.init or FLAGS.init.endswith(".weights.h5"):
        return asked.path("init")
    entry = registry.lookup(FLAGS.init, weights=FLAGS.weights)
    if entry.weights is None:
        raise UsageError(f"init: {FLAGS.init} has no weights.")
    from zoo.cache import weights_file

    return weights_file(entry.weights, entry.sha256)
