"""`plan`: from a user's folder to a model and a recipe, each value with its reason."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np

from zoo import devices, registry
from zoo.loading import build
from zoo.plan import caution, device, files, pixels, rules
from zoo.plan.rules import Choice, Measured
from zoo.recipe import DataFacts, Recipe
from zoo.registry import Entry

MINUTES = {False: 20.0, True: 180.0}  # of training, without an accelerator and with one
_STEPS = 6000  # before a network is worth making wider
_LEAST_STEPS = 50
_NARROWEST, _WIDEST = 16, 64  # channels of a U-Net's first level
_BATCH = {False: 4, True: 16}
_LEAST_CROP = 32
_RATE, _WIDE_RATE, _WIDE = 1e-3, 3e-4, 32
_FEW_STEPS, _SMALL_CROP = 3000, 64
_GIVEN = "it was asked for"


@dataclasses.dataclass(eq=False, kw_only=True)
class Plan:
    """What suits a folder.

    Attributes:
        model: name of the network.
        preset: the recipe that `fields` change.
        fields: of the recipe.
        split: patients in each split.
        measured: what the rest follows from.
        warnings: what will go wrong, a sentence each.
    """

    model: Choice
    preset: Choice
    fields: dict[str, Choice]
    split: Choice
    measured: dict[str, Any]
    warnings: list[str]

    def values(self) -> dict[str, Any]:
        """The fields' values, as overrides of the preset."""
        return {name: choice.value for name, choice in self.fields.items()}

    def to_dict(self) -> dict[str, Any]:
        """What `plan.json` holds."""
        told: dict[str, Any] = {"model": self.model, "preset": self.preset, "split": self.split}
        told = {name: choice._asdict() for name, choice in told.items()}
        told["recipe"] = {name: choice._asdict() for name, choice in self.fields.items()}
        return told | {"measured": self.measured, "warnings": self.warnings}

    def table(self) -> str:
        """To be read: a line for each choice, and for what was measured."""
        rows = {"model": self.model, "preset": self.preset, **self.fields, "split": self.split}
        lines = []
        for name, (value, because) in rows.items():
            lines.append(f"{name:<18}{_short(value):<17} {because}")
        lines.append("\nmeasured")
        for name, value in self.measured.items():
            lines.append(f"  {name:<16}{_short(value)}")
        return "\n".join(lines)


def plan(
    path: Path,
    *,
    model: str = "",
    minutes: float = 0,
    overrides: dict[str, Any] | None = None,
    assignments: list[str] | None = None,
) -> Plan:
    """A plan for the data set `folder`.

    Args:
        path: the user's folder, or list.
        model: that is to be trained; "" takes what suits.
        minutes: that training may take; 0 takes `MINUTES`.
        overrides: fields of the recipe that are given.
        assignments: more of them, as "field=value".

    Raises:
        FileNotFoundError, ValueError: where nothing can be planned, with the reason.
    """
    # What is there.
    assignments, overrides = assignments or [], overrides or {}
    stated = [text for text in assignments if text.partition("=")[0] in files.OPTIONS]
    enlarges = not model or "scale" in registry.model_class(model).recipe_class.hints()
    found = files.find(Path(path), Recipe(**Recipe.parse(stated)), enlarges)
    measured = _measured(found, devices.accelerated())
    # The network, and the recipe that the plan changes.
    chosen = Choice(model, _GIVEN) if model else rules.model(measured)
    cls = registry.model_class(chosen.value)
    recipe_class = cls.recipe_class
    given = recipe_class.parse(assignments) | overrides
    if recipe_class(**given).dimensions != 2:
        raise ValueError("dimensions: expected 2, since volumes are not planned. Received: 3")
    if given.get("target") == "neighbour":
        raise ValueError("target: expected clean images or copies, since series without them are "
                         "not planned. Received: neighbour")  # fmt: skip
    if cls.data != found.layout.kind and (cls.data, found.layout.kind) != ("unpaired", "paired"):
        raise ValueError(
            f"model: expected one for {found.layout.kind} images, as {path} holds. "
            f"Received: {chosen.value}, which trains on {cls.data} images"
        )
    if "images" not in cls.takes:
        raise ValueError(f"model: expected one that takes images. Received: {chosen.value}")
    preset = Choice("small", "no accelerator is here")
    if measured.accelerated:
        preset = Choice("good", "an accelerator is here")
    base = recipe_class.preset(preset.value, **given)
    if ("scale" in recipe_class.hints()) != (found.scale > 1):
        raise ValueError(
            f"model: expected one whose output is {found.scale} times as large as its input. "
            f"Received: {chosen.value}"
        )
    # Its fields.
    fields = rules.of_data(recipe_class, measured, given)
    if cls.data != "single":
        fields |= rules.of_network(recipe_class, measured, base, measured.side)
    fields = _with_given(fields, given)
    values = {name: choice.value for name, choice in fields.items()}
    if cls.data != "single":  # refuses what training would
        recipe_class.preset(preset.value, **values).resolve(DataFacts(kind=found.layout.kind))
    fields |= _of_device(chosen.value, preset.value, measured, fields, given, minutes)
    counts = found.patients()
    told = caution.warnings(
        found,
        measured.sides,
        measured.pairs,
        registers="registration" in recipe_class.hints(),
        shares=given.get("allow_shared_patients", False),
        labels=bool(given.get("classes")),
    )
    return Plan(
        model=chosen,
        preset=preset,
        fields=fields,
        split=Choice(counts, "patients; without a test split a tenth of them is taken for it"),
        measured=_told(measured),
        warnings=told,
    )


def _with_given(fields: dict[str, Choice], given: dict[str, Any]) -> dict[str, Choice]:
    return fields | {name: Choice(value, _GIVEN) for name, value in given.items()}


def _measured(found: files.Found, accelerated: bool) -> Measured:
    """What the images hold: those for training measured, the others only told apart."""
    places = range(len(found.sides))
    units = []
    for place in places:
        unit = found.units[place]
        if not unit:
            volumes = found.volumes(place)
            unit = "HU" if pixels.hounsfield(volumes) else volumes[0].unit
        units.append(unit)
    if found.layout.kind == "paired":
        both = list(zip(found.volumes(0), found.volumes(1), strict=True))
        sides, pairs = pixels.measure(both, units)
    else:
        sides, pairs = [], []
        for place in places:
            alone = [(volume,) for volume in found.volumes(place)]
            sides += pixels.measure(alone, [units[place]])[0]
    for place, side in enumerate(sides):
        if not side.values:
            raise ValueError(
                f"input: expected {found.sides[place]} images with different values. "
                f"Received: {found.volumes(place)[0].name} and others that hold one value each"
            )
        for split in files.SPLITS[1:]:
            side.note_all(found.volumes(place, split))
    return Measured(found=found, sides=sides, pairs=pairs, units=units, accelerated=accelerated)


def _of_device(
    model: str,
    preset: str,
    measured: Measured,
    planned: dict[str, Choice],
    given: dict[str, Any],
    minutes: float,
) -> dict[str, Choice]:
    """Batch, crop, width, rate and steps, by the memory and the speed that are here."""
    recipe_class = registry.model_class(model).recipe_class
    hints, accelerated = recipe_class.hints(), measured.accelerated
    fields: dict[str, Choice] = {}
    values = {name: choice.value for name, choice in planned.items()}

    def entry() -> Entry:
        now = values | {name: choice.value for name, choice in fields.items()}
        recipe = recipe_class.preset(preset, **now)
        source, target = rules.domains(measured, now, recipe.slices, getattr(recipe, "classes", 0))
        return Entry(
            name=model,
            model=model,
            dataset="folder/files",
            preset=preset,
            recipe=recipe,
            source=source.to_dict(),
            target=target.to_dict(),
        )

    def choose(name: str, value: Any, because: str) -> None:
        if name in hints and name not in given:
            fields[name] = Choice(value, because)

    # A U-Net begins narrow, at the rate that suits such a one.
    unet = "levels" in hints
    if unet:
        choose("base_filters", _NARROWEST, "")
    if "loss" in hints:
        choose("learning_rate", _RATE, "narrow networks without norms bear it")
    # As much of a batch as memory holds.
    free, of_what = device.memory()
    wanted = _BATCH[accelerated] if unet else entry().recipe.batch_size
    if entry().recipe.crop:
        _fit_memory(entry, choose, free, of_what, wanted)
    # Steps, and width, that fit the time.
    limit = minutes or MINUTES[accelerated]
    seconds = _seconds(entry(), measured)
    largest = max(entry().recipe.crop_sides, default=0)  # of whole images, as they are
    if unet and limit * 60 / seconds < _FEW_STEPS and largest > _SMALL_CROP:
        choose("crop", _SMALL_CROP, f"{limit:g} minutes are short, and it makes more steps")
        seconds = _seconds(entry(), measured)
    if unet and "base_filters" in fields:
        ratio = limit * 60 / seconds / _STEPS
        width = int(np.clip(_NARROWEST * np.sqrt(ratio) // 8 * 8, _NARROWEST, _WIDEST))
        why = f"the widest of which {limit:g} minutes hold about {_STEPS} steps"
        if width == _NARROWEST:
            why = f"{limit:g} minutes are short, and a narrow network makes more steps"
        choose("base_filters", width, why)
        if width > _NARROWEST:
            if width > _WIDE and "learning_rate" in fields:
                choose("learning_rate", _WIDE_RATE, "wide networks diverge at higher ones")
            _fit_memory(entry, choose, free, of_what, wanted)
            seconds = _seconds(entry(), measured)
    steps = max(_LEAST_STEPS, int(limit * 60 / seconds))
    choose("steps", steps, f"{limit:g} minutes at {seconds:.3g} seconds a step, as measured here")
    if "pretrain_steps" in hints:
        usual = recipe_class.preset(preset).to_dict()
        part = usual["pretrain_steps"] / usual["steps"]
        because = "the same part of all steps as in the preset"
        choose("pretrain_steps", int(part * entry().recipe.steps), because)
    every = max(10, entry().recipe.steps // 8)
    choose("image_every", every, "eight times in a run")
    choose("checkpoint_every", every, "eight times in a run")
    return fields


def _fit_memory(entry: Any, choose: Any, free: int, of_what: str, wanted: int) -> None:
    """Choose the batch that fits, up to the wanted one; where none does, smaller patches.

    Raises:
        ValueError: where the smallest patch takes more than there is.
    """
    while True:
        now = entry()
        sides, crop = now.recipe.crop_sides, min(now.recipe.crop_sides)
        taken = tuple(side // now.recipe.scale for side in sides)
        most = device.largest_batch(build(now), taken, free)
        if most:
            break
        multiple = max(now.recipe.size_multiple, now.recipe.scale)
        choose("crop", crop // 2 // multiple * multiple, f"more does not fit into {of_what}")
        if crop // 2 < _LEAST_CROP or entry().recipe.crop == now.recipe.crop:
            raise ValueError(
                f"memory: expected room for a patch of {crop} pixels. "
                f"Received: {free / 2**30:.2g} GiB of free {of_what}"
            )
    why = f"{free / 2**30:.0f} GiB of free {of_what} hold {most} such patches"
    choose("batch_size", min(wanted, most), f"{why}; a few at once make more steps")
    if most < wanted:
        choose("accumulate", -(-wanted // most), f"steps of {wanted} patches learn more evenly")


def _seconds(entry: Entry, measured: Measured) -> float:
    side = entry.recipe.phases()[-1].size or measured.side
    sides = entry.recipe.crop_sides or (side,) * entry.recipe.dimensions
    multiple = entry.recipe.size_multiple
    if any(side % multiple for side in sides):
        raise ValueError(
            f"crop: expected one, as the network takes sides that are multiples of {multiple}. "
            f"Received: crop={entry.recipe.crop} with images of {side} pixels"
        )
    return device.seconds_a_step(entry, sides)


def _told(measured: Measured) -> dict[str, Any]:
    """What was measured, for people and for JSON: no names but those of files."""
    found = measured.found
    told: dict[str, Any] = {"kind": found.layout.kind}
    for place, name in enumerate(found.sides):
        volumes, side = found.volumes(place), measured.sides[place]
        spacings = files.spacings(volumes)
        sizes = np.array([volume.shape for volume in volumes])
        lengths = [volume.length for volume in volumes]
        apart = [v.slice_spacing for v in volumes if v.slice_spacing]
        values = side.percentiles()
        told[name] = {
            "modality": measured.modalities[place],
            "unit": measured.units[place],
            "volumes": len(volumes),
            "slices": int(np.median(lengths)),
            "size": [sizes.min(0).tolist(), sizes.max(0).tolist()],
            "spacing": _range(spacings.ravel()),
            "slice_spacing": _range(np.array(apart)),
            "percentiles": {f"{share:g}": _rounded(values[share]) for share in (0.5, 50, 99.5)},
            "noise": _rounded(measured.noise[place]),
        }
    if measured.pairs:
        told["pairs"] = _told_pairs(measured)
    free, of_what = device.memory()
    told["device"] = {
        "free": f"{free / 2**30:.1f} GiB of {of_what}",
        "precision": devices.resolve_precision("auto"),
        "processors": os.cpu_count(),
    }
    return told


def _told_pairs(measured: Measured) -> dict[str, Any]:
    """By how much pairs are apart, in pixels and, where spacings are known, in mm."""
    shifts = np.array([pair.shift for pair in measured.pairs])
    far = np.hypot(*shifts.T)
    told: dict[str, Any] = {
        "correlation": _rounded(measured.correlation),
        "shift_pixels": {"median": _rounded(np.median(far)), "worst": _rounded(far.max())},
    }
    names = {volume.name: volume for volume in measured.found.volumes(1)}
    spacing = [names[pair.name].spacing for pair in measured.pairs]
    if None not in spacing:
        millimetres = np.hypot(*(shifts * np.array(spacing)).T)
        median, worst = _rounded(np.median(millimetres)), _rounded(millimetres.max())
        told["shift_mm"] = {"median": median, "worst": worst}
    if far.max() > 0:
        told["worst"] = measured.pairs[int(far.argmax())].name
    return told


def _range(values: np.ndarray) -> dict[str, float] | None:
    """Least, median and greatest, in mm; None where no file says."""
    if not len(values):
        return None
    found = np.percentile(values, [0, 50, 100])
    return dict(zip(("least", "median", "greatest"), map(_rounded, found), strict=True))


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_short(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ",".join(map(_short, value))
    if isinstance(value, float):
        return f"{value:g}"
    return "-" if value is None or value == "" else str(value)
