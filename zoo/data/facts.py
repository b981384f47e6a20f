"""What a data set is: kind, domains, keys, shapes, names; and whether a model can learn from it."""

import dataclasses
from typing import Any

import tensorflow_datasets as tfds

from zoo import registry
from zoo.data import augment, folds
from zoo.domain import Domain
from zoo.recipe import DataFacts, Recipe
from zoo.registry import Entry

_ALIKE = 0.8  # of a copy's window the part that the other's is at least


def data_facts(builder: tfds.core.DatasetBuilder, recipe: Recipe) -> DataFacts:
    """What a data set is to a recipe, from what its builder declares; no example is read.

    Of several resolutions it is the pair of the recipe's scale, and the recipe's windows replace
    the data set's own (`source_window` is that of single images).

    Raises:
        ValueError: for a scale that the data set has no source of.
    """
    features, metadata = builder.info.features, dict(builder.info.metadata or {})
    scales = tuple(metadata.get("scales") or ())
    # A recipe of one resolution is refused by `fit_to_data`, which can say why.
    scale = scales[0] if scales and recipe.scale == 1 else recipe.scale
    keys = image_keys(builder, scale)
    shapes = {key: features[key].shape[:-1] for key in keys}
    known = {key: None if None in shape else tuple(shape) for key, shape in shapes.items()}
    domains = []
    for key, window in zip(keys, (recipe.source_window, recipe.target_window), strict=False):
        domain = Domain.from_dict(metadata[key])
        domains.append(domain.within(window) if window else domain)
    if recipe.target == "copy":
        domains = _of_copies(domains, recipe)
    # Of the config, as data sets that were prepared before it was known hold nothing of it.
    if quick := getattr(builder.builder_config, "quick", ""):
        domains[0] = dataclasses.replace(domains[0], quick=quick)
    return DataFacts(
        kind=metadata["kind"],
        keys=keys,
        source=domains[0],
        target=domains[-1],
        source_shape=known[keys[0]],
        target_shape=known[keys[-1]],
        dimensions=metadata.get("dimensions", 2),
        scales=scales,
        aligned=metadata.get("aligned", True),
        features=tuple(features),
        class_names=tuple(features["label"].names) if "label" in features else (),
        label_names=tuple(metadata.get("label_names") or ()),
        beam=metadata.get("parallel_beam"),
        as_images=metadata.get("images", ""),
        note=metadata.get("note", ""),
    )


def _of_copies(domains: list[Domain], recipe: Recipe) -> list[Domain]:
    """Of two noisy copies the domains, with one window: that which is given, or else around both.

    Each side's own is of percentiles of its noise, so that no two are the same. Those of other
    things stay, and are refused by `fit_to_data`.
    """
    given = recipe.source_window, recipe.target_window
    if all(given) or len(domains) < 2:
        return domains
    ends = [end for domain in domains for end in domain.window]
    shared = given[0] or given[1] or (min(ends), max(ends))
    whole = max(domain.span for domain in domains)
    near = shared in given or all(domain.span > _ALIKE * whole for domain in domains)
    if domains[0].inputs or domains[1].classes or not near:
        return domains
    return [domain.within(shared) for domain in domains]


def image_keys(builder: tfds.core.DatasetBuilder, scale: int = 1) -> tuple[str, ...]:
    """Features that hold the images: ("image",), or those of source and target.

    A data set of several resolutions has a source for each: `source_x2` has half the target's.

    Raises:
        ValueError: for a scale that the data set has no source of.
    """
    metadata = dict(builder.info.metadata or {})
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


def example_count(builder: tfds.core.DatasetBuilder, split: str, fold: str = "") -> int:
    """Examples in a split, or in a fold's.

    Raises:
        ValueError: for a split that is not there; names those that are.
    """
    if fold and split in folds.DEALT:
        return folds.part(builder, split, fold).records
    splits = builder.info.splits
    if split not in splits or not splits[split].num_examples:
        there = ", ".join(name for name in splits if splits[name].num_examples)
        raise ValueError(
            f"split: {builder.info.full_name} has the splits {there}. Received: {split}"
        )
    return splits[split].num_examples


def varied(dataset: str, facts: DataFacts) -> dict[str, Domain]:
    """The images whose signal is varied, with what their numbers mean.

    A scanner's gain says nothing of another modality, or of another contrast of the same patient;
    two images of one kind share it.
    """
    if facts.kind == "single":
        return {"image": facts.source}
    found = {"source": facts.source}
    tasks = registry.index()["datasets"].get(dataset, {}).get("tasks", [])
    same = (facts.source.modality, facts.source.unit) == (facts.target.modality, facts.target.unit)
    if same and tasks != ["cross-modality"]:
        found["target"] = facts.target
    return found


def fit_to_data(entry: Entry, builder: tfds.core.DatasetBuilder) -> Entry:
    """The entry with the data set's facts and domains, refused where model and data do not suit.

    Raises:
        ValueError: naming what the model takes and what the data set has.
    """
    cls, recipe = entry.model_class, entry.recipe
    facts = data_facts(builder, recipe)
    _check_kind(entry, facts)
    source, target = _windows(entry, facts)
    # What the source may be, and what the target.
    if source.words not in cls.takes:
        there = facts.as_images
        also = f"; {there} has them as images" if there and "images" in cls.takes else ""
        takes = " or ".join(cls.takes)
        raise _unsuited(
            entry, f"{entry.model} takes {takes}, and the sources are {source.words}{also}"
        )
    if getattr(recipe, "classes", 0):
        window = (0.0, recipe.classes - 1.0)
        target = dataclasses.replace(target, modality="SEG", unit="class", window=window)
    if source.inputs and cls.data == "unpaired":
        raise _unsuited(
            entry, f"{entry.model} translates both ways, and the sources are {source.names}"
        )
    if source.inputs and recipe.noise:
        raise ValueError(
            "noise: expected 0 with several inputs, which have units of their own. "
            f"Received: noise={recipe.noise:g} with {source.names}"
        )
    if target.classes and not cls.classifies:
        raise _unsuited(entry, f"{entry.model} learns intensities, and the targets are classes")
    missing = [name for name in recipe.extra_features if name not in facts.features]
    if missing:
        raise _unsuited(entry, f"the recipe needs {missing[0]}, which the data lack")
    # The sizes of pairs.
    if cls.data == "paired" and not source.measured:
        _check_shapes(entry, facts)
    # Two noisy images of one thing.
    if recipe.target != "image" and (cls.data != "paired" or source != target or recipe.scale > 1):
        raise ValueError(
            f"target: expected a model of pairs, and two images that mean the same, with target="
            f"{recipe.target}. Received: {entry.model} on {source} and {target}"
        )
    augment.check_signal(recipe, source)
    # What the recipe left open.
    if target.classes and not recipe.label_names:
        recipe = dataclasses.replace(recipe, label_names=facts.label_names)
    recipe = recipe.resolve(facts)
    cropped = tuple(side // recipe.scale for side in recipe.crop_sides)
    sides = cropped or facts.source_shape or ()
    if any(side % recipe.size_multiple for side in sides):
        name = "crop" if recipe.crop else "dataset"
        raise ValueError(
            f"{name}: {entry.model} with this recipe takes sides that are multiples of "
            f"{recipe.size_multiple}; set crop to one. Received: {_shown(sides)}"
        )
    return dataclasses.replace(
        entry, recipe=recipe, source=source.to_dict(), target=target.to_dict(), facts=facts
    )


def _shown(sides: tuple[int, ...]) -> str:
    """Sides as a recipe gives them: one number where all are equal."""
    return "x".join(map(str, sides if len(set(sides)) > 1 else sides[:1]))


def _check_kind(entry: Entry, facts: DataFacts) -> None:
    """Pairs or single images, of two axes or of three, of one resolution or of two."""
    needed, axes = entry.model_class.data, entry.recipe.dimensions
    if facts.kind != needed and (facts.kind, needed) != ("paired", "unpaired"):
        raise _unsuited(
            entry, f"{entry.model} trains on {needed} images, and these are {facts.kind}"
        )
    if facts.dimensions != axes:
        raise _unsuited(
            entry,
            f"dimensions: the recipe is for images of {axes} axes, "
            f"and these have {facts.dimensions}",
        )
    if facts.scales and entry.recipe.scale == 1:
        raise _unsuited(
            entry, "the sources are smaller than the targets, which is for super-resolution"
        )


def _check_shapes(entry: Entry, facts: DataFacts) -> None:
    """Targets are as many times as large as their sources as the recipe says."""
    source, target, scale = facts.source_shape, facts.target_shape, entry.recipe.scale
    if source is None or target is None or tuple(side * scale for side in source) == target:
        return
    raise _unsuited(
        entry,
        f"the recipe makes images {scale} times as large as its input, "
        f"and sources are {source}, targets {target}",
    )


def _unsuited(entry: Entry, what: str) -> ValueError:
    """The error of a model and a data set that do not suit, with the names of those that do."""
    hints = []
    for name in (entry.model, entry.dataset):
        there = registry.fitting(name.split("/")[0])
        if there:
            hints.append(f"what suits {name}: {', '.join(there)}")
    suits = "; ".join(hints)
    return ValueError(f"dataset: {what} ({suits}). Received: {entry.model} on {entry.dataset}")


def _windows(entry: Entry, facts: DataFacts) -> tuple[Domain, Domain]:
    """The data's domains; where weights are there already, with the windows they know."""
    source, target, recipe = facts.source, facts.target, entry.recipe
    if entry.source is not None and entry.target is not None:
        source = _kept_window(source, entry.source, recipe.source_window, "source_unit")
        window = recipe.target_window or recipe.source_window
        target = _kept_window(target, entry.target, window, "target_unit")
    return source, target


def _kept_window(
    domain: Domain, stored: dict[str, Any], given: tuple[float, ...] | None, field: str
) -> Domain:
    """The data's domain with the window that stored weights were trained in.

    Raises:
        ValueError: where the data are of another unit, whose numbers the weights never saw, or of
            other inputs.
    """
    known = Domain.from_dict(stored)
    if domain.names != known.names:
        raise ValueError(
            f"init: its weights take {known.names or 'one image'}, in this order. "
            f"Received: data of {domain.names or 'one image'}"
        )
    units = [part.unit for part, _ in domain.parts.values()]
    wanted = [part.unit for part, _ in known.parts.values()]
    if units != wanted:
        raise ValueError(
            f"init: its weights take {','.join(wanted)}, and a window in it; "
            f"`--set {field}={','.join(wanted)}` says that your own files hold it. "
            f"Received: data in {','.join(units)}"
        )
    if given:
        return domain
    return domain.within(tuple(v for part, _ in known.parts.values() for v in part.window))
