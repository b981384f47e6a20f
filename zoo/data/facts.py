"""What a data set is: kind, domains, keys, shapes, names."""

import dataclasses
from typing import Any

import tensorflow_datasets as tfds

from zoo import registry
from zoo.domain import MEASUREMENTS, Domain
from zoo.recipe import DataFacts, Recipe
from zoo.registry import Entry


def domains(builder: tfds.core.DatasetBuilder, recipe: Recipe) -> tuple[Domain, Domain]:
    """What the numbers of source and target mean; for single images both are the image's.

    The recipe's windows replace the data set's own; `source_window` is that of single images.
    """
    metadata = _metadata(builder)
    keys = image_keys(builder, recipe.scale)
    windows = (recipe.source_window, recipe.target_window)
    found = [Domain.from_dict(metadata[key]) for key in keys]
    found = [
        dataclasses.replace(domain, window=window) if window else domain
        for domain, window in zip(found, windows, strict=False)
    ]
    return found[0], found[-1]


def image_keys(builder: tfds.core.DatasetBuilder, scale: int = 1) -> tuple[str, ...]:
    """Features that hold the images: ("image",), or those of source and target.

    A data set of several resolutions has a source for each: `source_x2` has half the target's.

    Raises:
        ValueError: for a scale that the data set has no source of.
    """
    metadata = _metadata(builder)
    if metadata["kind"] == "single":
        return ("image",)
    scales = metadata.get("scales")
    if scales is None:
        return "source", "target"
    if scale not in scales:
        raise ValueError(
            f"scale: {builder.info.full_name} has sources for the scales "
            f"{', '.join(map(str, scales))}. Received: {scale}"
        )
    return f"source_x{scale}", "target"


def example_count(builder: tfds.core.DatasetBuilder, split: str) -> int:
    """Examples in a split.

    Raises:
        ValueError: for a split that is not there; names those that are.
    """
    splits = builder.info.splits
    if split not in splits or not splits[split].num_examples:
        there = ", ".join(name for name in splits if splits[name].num_examples)
        raise ValueError(
            f"split: {builder.info.full_name} has the splits {there}. Received: {split}"
        )
    return splits[split].num_examples


def _metadata(builder: tfds.core.DatasetBuilder) -> dict[str, Any]:
    return dict((builder.info.metadata or {}).items())


def _holds_labels(builder: tfds.core.DatasetBuilder, key: str) -> bool:
    """Whether an image's values are numbers of classes, which have no mean."""
    return key.endswith("_label") or _metadata(builder).get(key, {}).get("unit") == "class"


def fit_to_data(entry: Entry, builder: tfds.core.DatasetBuilder) -> Entry:
    """The entry with the data set's domains, refused where model and data do not suit.

    Raises:
        ValueError: naming what the model takes and what the data set has.
    """
    cls, recipe = entry.model_class, entry.recipe
    metadata, features = dict(builder.info.metadata), builder.info.features

    def refuse(what: str) -> ValueError:
        fitting = registry.fitting(entry.model), registry.fitting(entry.dataset.split("/")[0])
        hints = zip((entry.model, entry.dataset), fitting, strict=True)
        suits = "; ".join(
            f"what suits {name}: {', '.join(there)}" for name, there in hints if there
        )
        return ValueError(f"dataset: {what} ({suits}). Received: {entry.model} on {entry.dataset}")

    kind, axes = metadata["kind"], metadata.get("dimensions", 2)
    if kind != cls.data and (kind, cls.data) != ("paired", "unpaired"):
        raise refuse(f"{entry.model} trains on {cls.data} images, and these are {kind}")
    if axes != recipe.dimensions:
        raise refuse(
            f"dimensions: the recipe is for images of {recipe.dimensions} axes, "
            f"and these have {axes}"
        )
    if metadata.get("scales") and recipe.scale == 1:
        raise refuse("the sources are smaller than the targets, which is for super-resolution")
    source, target = domains(builder, recipe)
    if entry.source is not None:
        source = _kept_window(source, entry.source, recipe.source_window, "source_unit")
        window = recipe.target_window or recipe.source_window
        target = _kept_window(target, entry.target, window, "target_unit")
    given = MEASUREMENTS.get(source.unit, "images")
    if given not in cls.takes:
        also = metadata.get("images", "")
        also = f"; {also} has them as images" if also and "images" in cls.takes else ""
        takes = " or ".join(cls.takes)
        raise refuse(f"{entry.model} takes {takes}, and the sources are {given}{also}")
    facts = data_facts(builder, recipe)
    if getattr(recipe, "classes", 0):
        window = (0.0, recipe.classes - 1.0)
        target = dataclasses.replace(target, modality="SEG", unit="class", window=window)
    if target.unit == "class" and not cls.classifies:
        raise refuse(f"{entry.model} learns intensities, and the targets are classes")
    missing = [name for name in recipe.extra_features if name not in features]
    if missing:
        raise refuse(f"the recipe needs {missing[0]}, which the data lack")
    shapes = facts.source_shape, facts.target_shape
    fits = None in shapes or tuple(s * recipe.scale for s in shapes[0]) == shapes[1]
    if cls.data == "paired" and given == "images" and not fits:
        raise refuse(
            f"the recipe makes images {recipe.scale} times as large as its input, "
            f"and sources are {shapes[0]}, targets {shapes[1]}"
        )
    if target.unit == "class" and not recipe.label_names:
        recipe = dataclasses.replace(recipe, label_names=facts.label_names)
    recipe = recipe.resolve(facts)
    sides = (recipe.crop // recipe.scale,) if recipe.crop else facts.source_shape or ()
    if any(side % recipe.size_multiple for side in sides):
        name = "crop" if recipe.crop else "dataset"
        raise ValueError(
            f"{name}: {entry.model} with this recipe takes sides that are multiples of "
            f"{recipe.size_multiple}; set crop to one. Received: {'x'.join(map(str, sides))}"
        )
    return dataclasses.replace(
        entry, recipe=recipe, source=source.to_dict(), target=target.to_dict()
    )


def _kept_window(
    domain: Domain, stored: dict, given: tuple[float, float] | None, field: str
) -> Domain:
    """The data's domain with the window that stored weights were trained in.

    Raises:
        ValueError: where the data are of another unit, whose numbers the weights never saw.
    """
    if domain.unit != stored["unit"]:
        raise ValueError(
            f"init: its weights take {stored['unit']}, and a window in it; "
            f"`--set {field}={stored['unit']}` says that your own files hold it. "
            f"Received: data in {domain.unit}"
        )
    return domain if given else dataclasses.replace(domain, window=tuple(stored["window"]))


def data_facts(builder: tfds.core.DatasetBuilder, recipe: Recipe) -> DataFacts:
    """What of a data set a recipe may depend on."""
    features, metadata = builder.info.features, dict(builder.info.metadata)
    keys = image_keys(builder, recipe.scale)
    shapes = [features[key].shape[:-1] for key in (keys[0], keys[-1])]
    shapes = [None if None in shape else tuple(shape) for shape in shapes]
    return DataFacts(
        source_shape=shapes[0],
        target_shape=shapes[1],
        class_names=tuple(features["label"].names) if "label" in features else (),
        label_names=tuple(metadata.get("label_names") or ()),
    )
