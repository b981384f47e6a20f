"""`evaluate`: one model on one data set, as `metrics.json` and a self-contained `report.html`."""

import collections
import dataclasses
import datetime
import functools
import importlib.metadata
import itertools
import json
import operator
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
import tqdm

from zoo import averaging, run
from zoo.atomic import write_atomic
from zoo.averaging import Average
from zoo.data import batches, folds, prepare
from zoo.data.facts import data_facts
from zoo.evaluation import generation, report, segmentation, translation
from zoo.evaluation.examples import Example, checked, translated
from zoo.evaluation.lesions import Lesions
from zoo.recipe import Recipe
from zoo.registry import Entry
from zoo.translator import Translator
from zoo.trust.structures import Segmentations
from zoo.trust.watch import Watch

SPLITS = ("train", "validation", "test")
# What a run's `run.json` keeps of its evaluation on the test split.
_RECORDED = ("which_weights", "images", "patients", "window", "unit", "baseline", "summary",
             "label_names", "sliced_wasserstein")  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSet:
    """What the results say of the examples that a model was measured on.

    Attributes:
        name: such as "ldct/phantom".
        version: such as "1.0.0".
        split: which the examples are.
        description: a sentence for the report on what the data are, such as "simulated".
        aligned: whether source and target show the same anatomy; if not, outputs are compared
            with the targets as a set (at most 1024 images).
    """

    name: str
    version: str = ""
    split: str = "test"
    description: str = ""
    aligned: bool = True


def evaluate(
    entry: Entry,
    output: Path | str | None = None,
    *,
    data_dir: Path | None = None,
    input: Path | None = None,
    split: str = "test",
    limit: int | None = None,
    ensemble: Sequence[Entry] = (),
    tta: bool = False,
    lesions: bool = False,
    watch: Callable[[Translator | Average], Watch] | None = None,
    segmentations: Segmentations | None = None,
) -> dict[str, Any]:
    """Measure an entry's model on its data set; writes `metrics.json` and `report.html`.

    A run's figures on its whole test split are kept in its `run.json` too.

    Args:
        entry: model with weights, data set and recipe, from `registry.lookup`.
        output: folder, made where missing; None: `default_output(entry)`.
        data_dir: where data sets are kept; None: TFDS's own.
        input: the user's files, for the data set `folder`.
        split: one of `SPLITS`.
        limit: take the first so many examples.
        ensemble: entries of other models; the mean of all is measured on the data set of `entry`.
        tta: average over mirror images and turns, as `zoo.Average` does.
        lesions: put lesions into the examples too, and measure what becomes of them.
        watch: gives the alarms that are told of each example, for the model.
        segmentations: of the sources, for the alarms; of the data set `folder`.

    Returns:
        What `metrics.json` holds.

    Raises:
        ValueError: for an entry without weights, an unknown split, or as `measure` or `Average`.
    """
    members = [entry, *ensemble]
    for member in members:
        if member.weights is None:
            raise ValueError(f"entry: expected a model with weights. Received: {member.name}")
    if split not in SPLITS:
        raise ValueError(f"split: expected train, validation or test. Received: {split}")
    if ensemble and split != "test" and any(member.recipe.fold for member in members):
        raise ValueError(
            "split: expected test for models of folds, each of which was trained on what the "
            f"others are validated on. Received: {split}"
        )
    # The data, and the model with its weights.
    builder = prepare.load_builder(entry.dataset, data_dir, entry.recipe, input, prepare=False)
    builder = prepare.prepare_builder(builder)
    facts = data_facts(builder, entry.recipe)
    model = averaging.build(members, tta)
    if lesions and (facts.kind != "paired" or not facts.aligned):
        raise ValueError(f"lesions: expected aligned pairs. Received: {entry.dataset}")
    tested = Lesions(model, entry.recipe.seed) if lesions else None
    alarms = None if watch is None else watch(model)
    # One pass over the data tells all of them.
    told: list[Callable[[Example], None]] = []
    if tested is not None:
        told.append(tested.add)
    if alarms is not None:
        told.append(functools.partial(alarms.example, aligned=facts.aligned))
    # A network that grew sees images of the size that it ended with.
    size = model.recipe.phases()[-1].size
    examples: Iterable[Example] = split_examples(builder, entry.recipe, split, limit, size)
    if segmentations is not None:
        examples = segmentations.labelled(builder, examples)
    training_images = None
    if facts.kind == "single":
        training_images = batches.eval_dataset(builder, "train", None, size, fold=entry.recipe.fold)
    results, pictures = measure(
        model,
        examples,
        DataSet(
            name=entry.dataset,
            version=str(builder.version),
            split=split,
            description=_description(facts.note, split, entry.recipe.fold),
            aligned=facts.aligned,
        ),
        name=Path(_joined(members)).name,
        training_images=training_images,
        limit=limit,
        seed=entry.recipe.seed,
        told=told,
    )
    if tested is not None:
        results["lesions"] = _finite(tested.results())
    which = "; ".join(member.which for member in members if member.which)
    if which:
        results["which_weights"] = which
    # The files, and what a run keeps.
    output = output or default_output(entry, ensemble, tta)
    write(Path(os.path.expanduser(output)), results, pictures)
    own = isinstance(model, Translator)  # and no mean's
    if run.exists(Path(entry.name)) and own and split == "test" and limit is None:
        record = {"metrics": {}} | run.read(Path(entry.name))
        record["metrics"]["test"] = {key: results[key] for key in _RECORDED if key in results}
        run.write(Path(entry.name), record)
    return results


def default_output(entry: Entry, ensemble: Sequence[Entry] = (), tta: bool = False) -> Path:
    """Where an evaluation goes: of a run into its folder, else into `evaluation/`.

    A mean's has a folder of its own.
    """
    end = "-tta" if tta else ""
    if run.exists(Path(entry.name)) and not ensemble:
        return Path(entry.name) / f"evaluation{end}"
    return Path("evaluation") / f"{_joined([entry, *ensemble])}{end}"


def _description(note: str, split: str, fold: str) -> str:
    """What the figures have to be read with."""
    if not fold or split not in folds.DEALT:
        return note
    patients = "validation" if split == "validation" else "training"
    return " ".join(filter(None, (note, f"The patients are the {patients} ones of fold {fold}.")))


def _joined(entries: Sequence[Entry]) -> str:
    """Names of models as one; of a run its folder's."""
    if len(entries) == 1:
        return entries[0].name
    return "+".join(Path(entry.name).name for entry in entries)


def split_examples(
    builder: tfds.core.DatasetBuilder, recipe: Recipe, split: str, limit: int | None, size: int
) -> Iterator[Example]:
    """The split's examples, in the direction in which the recipe translates."""
    backwards = getattr(recipe, "direction", "AtoB") == "BtoA"
    for example in batches.eval_dataset(builder, split, limit, size, recipe.scale, recipe.fold):
        if backwards:
            example |= {"source": example["target"], "target": example["source"]}
        yield example


def measure(
    model: Any,
    examples: Iterable[Example],
    data: DataSet,
    *,
    name: str,
    training_images: Iterable[Any] | None = None,
    limit: int | None = None,
    batch_size: int = 1,
    seed: int = 0,
    told: Sequence[Callable[[Example], None]] = (),
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Measure anything that behaves as a model on examples from anywhere.

    A translator's examples hold "source" and "target" and it is measured image by image, beside
    what there is without it (`Translator.baseline`); of a pixel-wise classifier the overlap with
    the target's label map is measured. A generator's examples hold "image" and its samples are
    compared with the data set as a whole. Examples are read once and not kept.

    Args:
        model: a `Translator`, or what has its `source`, `target`, `dimensions`, `classes` and
            `label_names`, and `translate` and `baseline`, or `generate`.
        examples: NumPy examples in physical units, images `[H, W, C]` or volumes `[D, H, W, C]`
            (axial slices of at least 11 x 11 pixels, as SSIM needs), with "patient" (a pseudonym)
            and "name", and perhaps "mask", bool of the target's shape with one channel, True in
            the patient's body. Of a CT without it the body is `metrics.body_mask` of the target.
            Slices of one patient whose names differ in a last number are one volume where these
            numbers have no gap.
        data: what is said of them.
        name: the model's name in the report.
        training_images: a generator's training images, `[H, W, C]` or examples with "image",
            for the memorisation check; None leaves it out.
        limit: take the first so many examples.
        batch_size: consecutive examples of one size given to `translate` together.
        seed: of generated images, bootstrap intervals and the choice of example pictures.
        told: each is given each example of a translator, with its "output", once it is measured.

    Returns:
        What `metrics.json` is to hold, and the pictures of the report, see `report.render`.

    Raises:
        ValueError: for no examples, values that are not finite, label maps with values that
            name no class, masks of another size or of some examples only, or outputs whose shape
            is not the target's.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit: expected 1 or more, or None. Received: {limit}")
    # The first example tells what kind of model this is.
    stream = iter(examples)
    first = next(stream, None)
    if first is None:
        raise ValueError(
            f"dataset: expected at least one example in split {data.split!r} of {data.name}. "
            "Received: none"
        )
    generator = "source" not in first
    wanted = ("image",) if generator else ("source", "target")
    if any(key not in first for key in wanted):
        raise ValueError(
            "dataset: expected examples with source and target, or with image. "
            f"Received: {', '.join(sorted(first))}"
        )
    # All of them, checked as they come.
    stream = itertools.islice(itertools.chain([first], stream), limit)
    total = min(filter(None, (operator.length_hint(examples), limit)), default=None)
    bar = tqdm.tqdm(stream, total=total, desc="evaluate", unit="image", disable=None)
    ready = (checked(example, wanted, model.dimensions) for example in bar)
    if generator:
        measured, pictures = generation.compare_sets(model, ready, training_images, seed)
    else:
        if model.classes and not data.aligned:
            raise ValueError("aligned: label maps need targets that are. Received: False")
        compare = translation.compare_pairs if data.aligned else translation.compare_sets
        compare = segmentation.compare_labels if model.classes else compare
        made = _telling(translated(model, ready, batch_size), told)
        measured, pictures = compare(model, made, seed)
        if told:
            collections.deque(made, maxlen=0)  # of sets only some are compared
    # What the figures have to be read with.
    about = {
        "model": name,
        "weights": str(getattr(model, "weights_hash", "")),
        "dataset": {
            "name": data.name,
            "version": data.version,
            "split": data.split,
            "description": data.description,
        },
        "limit": limit,
        "seed": seed,
        "dimensions": model.dimensions,
        "unit": model.target.unit,
        "window": list(model.target.window),
        "source": model.source.to_dict(),
        "target": model.target.to_dict(),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": run.versions() | {"scikit-image": importlib.metadata.version("scikit-image")},
    }
    if isinstance(model, Average):
        about |= {"average": model.note, "members": [m.weights_hash for m in model.members]}
    return _finite(about | measured), pictures


def _telling(
    examples: Iterator[Example], told: Sequence[Callable[[Example], None]]
) -> Iterator[Example]:
    """The examples; each is told of once it has been dealt with."""
    for example in examples:
        yield example
        for tell in told:
            tell(example)


def write(output: Path, results: dict[str, Any], pictures: dict[str, Any]) -> None:
    """Writes what `measure` found as `metrics.json` and `report.html`, once both are made."""
    text = json.dumps(results, indent=1, allow_nan=False, ensure_ascii=False)
    page = report.render(results, pictures)
    write_atomic(output / "metrics.json", text.encode())
    write_atomic(output / "report.html", page.encode())


def _finite(value: Any) -> Any:
    """The same structure with None for numbers that JSON cannot hold."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
