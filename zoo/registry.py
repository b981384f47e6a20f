"""From a name to an entry to a class. Imports no TensorFlow: `list` must answer at once."""

import dataclasses
import difflib
import functools
import importlib
import importlib.metadata
import importlib.resources
import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from zoo import hub, run
from zoo.errors import contained, reason, short
from zoo.recipe import PRESETS, DataFacts, Recipe

if TYPE_CHECKING:  # it imports TensorFlow
    from zoo.translator import Translator

SECTIONS = ("models", "datasets", "pretrained")
# The kind of each field that an entry must have; "texts" are a list of at least one.
_REQUIRED = {
    "models": {"module": "text", "data": "text", "tasks": "texts", "summary": "text"},
    "datasets": {
        "module": "text",
        "data": "text",
        "modality": "texts",
        "tasks": "texts",
        "configs": "texts",
        "summary": "text",
    },
    "pretrained": {
        "model": "text",
        "dataset": "text",
        "weights": "text",
        "sha256": "text",
        "licence": "text",
        "metrics": "any",
        "summary": "text",
    },
}
_MOST_BYTES = 2**20  # of a registry.yaml
_DEEPEST = 100  # levels of it
_TRAINED_ON = {"spacing", "noise", "level", "air"}
_classes: dict[str, "type[Translator]"] = {}


# What of the plugins cannot be used: why, by the name of the plugin or of the entry.
_left_out: dict[str, str] = {}


class UnknownName(KeyError):
    """A name that no registry holds; the message offers the nearest ones.

    Where a plugin is broken, or two claim the name, it says so: the name may be that one's.
    """

    def __init__(self, name: str, choices: list[str], what: str = "name"):
        near = difflib.get_close_matches(name, choices, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"There are: {', '.join(choices)}."
        if what in ("name", "model", "data set"):
            hint = " ".join([hint, *_left_out.values()])
        self.message = f"no {what} is called {name!r}. {hint}"
        super().__init__(self.message)

    def __str__(self) -> str:
        return self.message


@dataclasses.dataclass(frozen=True)
class Entry:
    """All that a command needs to begin.

    Attributes:
        name: what the user asked for: a model, a pretrained model or a run folder.
        model: the model's registered name.
        dataset: data set and config, such as "ldct/phantom"; "" where none was named.
        preset: "paper", "good" or "small", the recipe that the overrides changed.
        recipe: the model's `Recipe`, overrides applied.
        weights: file of the served network's weights, or None for a fresh model.
        sha256: what the weights file must hash to; "" where nothing is known.
        which: of a run's weights these are, in words: the best, the last, or a checkpoint's.
        source, target: the stored `Domain` dictionaries, or None for a fresh model.
        trained_on: of a pretrained model, what its inputs were like (`zoo.guards` compares others
            with it); None where nothing is stated, so of all other models.
        uncertainty: what `calibrate` found (`zoo.trust.calibration`), or None.
        alarms: the limits that it found (`zoo.trust.limits`), or None.
        facts: what the data set is, once the entry was fitted to it (`zoo.data.facts`).
    """

    name: str
    model: str
    dataset: str
    preset: str
    recipe: Any
    weights: Path | str | None = None
    sha256: str = ""
    which: str = ""
    source: dict[str, Any] | None = None
    target: dict[str, Any] | None = None
    trained_on: dict[str, Any] | None = None
    uncertainty: dict[str, Any] | None = None
    alarms: dict[str, Any] | None = None
    facts: DataFacts = DataFacts()

    @property
    def model_class(self) -> "type[Translator]":
        """The registered class; imports its module, and with it TensorFlow."""
        return model_class(self.model)


def _own_index() -> Path:
    """`registry.yaml` beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).resolve().parent
    inside = package / "registry.yaml"
    return inside if inside.exists() else package.parent / "registry.yaml"


def _flat(text: str) -> Any:
    """YAML without aliases: a few of them, nested, stand for more than any memory holds."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C, where the wheel has it
    depth = 0
    for event in yaml.parse(text, loader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"expected no aliases. Received: *{event.anchor}")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise ValueError(f"expected at most {_DEEPEST} levels. Received: more")
    return yaml.load(text, loader)


def _plugin(point: importlib.metadata.EntryPoint) -> dict[str, dict[str, dict]]:
    """The index of one plugin.

    Raises:
        ValueError: for a package that is not there, or a malformed file.
    """
    spec, why = None, ""
    with contained(f"expected an importable package. Received: {point.value}"):
        try:
            spec = importlib.util.find_spec(point.value)  # imports a parent package
        except (ModuleNotFoundError, SystemExit) as error:
            why = f" ({type(error).__name__}: {reason(error)})"
    if spec is None or spec.origin is None:
        raise ValueError(f"expected an importable package. Received: {point.value}{why}")
    folder = Path(spec.origin).parent
    return _read(point.value, folder / "registry.yaml", folder)


def _read(owner: str, path: Path, folder: Path) -> dict[str, dict[str, dict]]:
    """The content of a `registry.yaml`, each entry with its name, owner and folder.

    Raises:
        ValueError: for a malformed file.
    """
    if not path.is_file() or path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"{path}: expected a file of at most {_MOST_BYTES} bytes.")
    try:
        content = _flat(path.read_text(encoding="utf-8-sig")) or {}
        if not isinstance(content, dict) or set(content) - set(SECTIONS):
            raise ValueError(f"expected the sections {SECTIONS}. Received: {short(content)}")
        for section in SECTIONS:
            content[section] = content.get(section) or {}
            if not isinstance(content[section], dict):
                raise ValueError(f"{section}: expected names. Received: {short(content[section])}")
            for name, fields in content[section].items():
                _check_entry(section, name, fields)
                fields |= {"name": name, "owner": owner, "folder": folder}
    except (ValueError, yaml.YAMLError, RecursionError, TypeError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from error
    return content


def _check_entry(section: str, name: Any, fields: Any) -> None:
    """A ValueError where an entry lacks a field, or has one of another kind."""
    place = f"{section}: {name}"
    if not isinstance(name, str) or not isinstance(fields, dict):
        raise ValueError(f"{place}: expected a name with its fields. Received: {short(fields)}")
    missing = sorted(_REQUIRED[section].keys() - fields.keys())
    if missing:
        raise ValueError(f"{place} lacks {', '.join(missing)}.")
    for field, kind in _REQUIRED[section].items():
        value = fields[field]
        right = kind == "any" or (kind == "text" and isinstance(value, str))
        if kind == "texts" and isinstance(value, list) and value:
            right = all(isinstance(text, str) for text in value)
        if not right:
            expected = "a text" if kind == "text" else "a list of texts"
            raise ValueError(f"{place}: {field}: expected {expected}. Received: {short(value)}")
    if section == "pretrained":
        _check_trained_on(fields.get("trained_on"), f"{place}: trained_on")
        for field in ("overrides", "source", "target"):
            if not isinstance(fields.get(field, {}), dict | None):
                raise ValueError(f"{place}: {field}: expected fields and their values.")


def _check_trained_on(trained: Any, place: str) -> None:
    if trained is None:
        return
    if isinstance(trained, dict) and trained and all(type(v) is dict for v in trained.values()):
        for name, own in trained.items():  # of several inputs each
            _check_trained_on(own, f"{place}: {name}")
        return
    if not isinstance(trained, dict) or set(trained) - _TRAINED_ON:
        raise ValueError(
            f"{place}: expected a mapping with {', '.join(sorted(_TRAINED_ON))} or some of them. "
            f"Received: {trained}"
        )
    for key, value in trained.items():
        if key == "air":
            right, expected = isinstance(value, bool), "true or false"
        else:
            expected = "[lowest, highest], two numbers of 0 or more"
            right = isinstance(value, list) and len(value) == 2
            right = right and all(type(end) in (int, float) for end in value)
            right = right and 0 <= value[0] <= value[1] < float("inf")
        if not right:
            raise ValueError(f"{place}: {key}: expected {expected}. Received: {value}")


@functools.cache
def index() -> dict[str, dict[str, dict]]:
    """Section to name to fields, of this package and of every plugin.

    A plugin that is broken is left out, and of two that claim one name the name; a line on standard
    error says so.

    Raises:
        ValueError: where this package's own file is malformed.
    """
    merged = _read("zoo", _own_index(), Path(__file__).resolve().parent)
    own = {name for entries in merged.values() for name in entries}
    claims: dict[str, list[tuple[str, dict]]] = {}
    points = importlib.metadata.entry_points(group="zoo.plugins")
    for point in sorted({point.value: point for point in points}.values()):
        try:
            content = _plugin(point)
        except ValueError as error:
            _leave_out(point.name, f"plugin {point.name!r} is left out: {reason(error)}")
            continue
        for section, entries in content.items():
            for name, fields in entries.items():
                claims.setdefault(name, []).append((section, fields))
    for name, claimed in claims.items():
        owners = ["zoo"] if name in own else []
        owners += [fields["owner"] for _, fields in claimed]
        if len(owners) > 1:
            by = " and ".join(owners)
            _leave_out(name, f"the name {name!r} is claimed by two packages: {by}.")
            continue
        section, fields = claimed[0]
        merged[section][name] = fields
    for name, fields in list(merged["pretrained"].items()):
        known = fields["model"] in merged["models"]
        if not known or fields["dataset"].split("/")[0] not in merged["datasets"]:
            _leave_out(name, f"{fields['owner']}: {name} is left out: its model or data set is not "
                       f"known. Received: {fields['model']} and {fields['dataset']}")  # fmt: skip
            del merged["pretrained"][name]
    return merged


def _leave_out(name: str, why: str) -> None:
    _left_out[name] = why
    print(f"warning: {why}", file=sys.stderr)


def names(section: str = "models", task: str | None = None, modality: str | None = None):
    """Sorted names of a section that suit a task and a modality.

    A model suits a modality when some data set of that modality suits it (`fitting`); a pretrained
    model has the tasks and the modality of its data set.

    Args:
        section: "models", "datasets" or "pretrained".
        task: such as "denoising"; None for all.
        modality: DICOM code such as "CT"; None for all.

    Raises:
        UnknownName: for a section that does not exist.
    """
    if section not in SECTIONS:
        raise UnknownName(section, list(SECTIONS), "section")
    datasets = index()["datasets"]

    def modalities(fields: dict) -> set[str]:
        if section == "datasets":
            return set(fields["modality"])
        if section == "pretrained":
            return set(datasets[fields["dataset"].split("/")[0]]["modality"])
        return {m for d in fitting(fields["name"]) for m in datasets[d]["modality"]} - {"any"}

    def tasks(fields: dict) -> list[str]:
        if section == "pretrained":
            return datasets[fields["dataset"].split("/")[0]]["tasks"]
        return fields["tasks"]

    return sorted(
        name
        for name, fields in index()[section].items()
        if (task is None or task in tasks(fields))
        and (modality is None or modality in modalities(fields))
    )


def find(name: str) -> tuple[str, dict]:
    """Section and fields of a name.

    Raises:
        UnknownName: with the nearest names.
    """
    for section in SECTIONS:
        if name in index()[section]:
            return section, index()[section][name]
    raise UnknownName(name, sorted(n for s in SECTIONS for n in index()[s]))


def fitting(name: str) -> list[str]:
    """Data sets that suit a model by kind of data and by task, or models that suit a data set."""
    section, fields = find(name)

    def suits(model: dict, dataset: dict) -> bool:
        kinds = dataset["data"].split(", ")
        kind = model["data"] in kinds or (model["data"] == "unpaired" and "paired" in kinds)
        return kind and bool(set(model["tasks"]) & set(dataset["tasks"]))

    if section == "models":
        return sorted(n for n, row in index()["datasets"].items() if suits(fields, row))
    return sorted(n for n, row in index()["models"].items() if suits(row, fields))


def dataset_fields(dataset: str) -> tuple[dict, str]:
    """Fields and config of "name" or "name/config"; the first config is the default.

    Raises:
        UnknownName: for an unknown data set or config.
    """
    name, _, config = dataset.partition("/")
    entries = index()["datasets"]
    if name not in entries:
        raise UnknownName(name, sorted(entries), "data set")
    fields = entries[name]
    if config and config not in fields["configs"]:
        raise UnknownName(config, fields["configs"], f"config of {name}")
    return fields, config or fields["configs"][0]


def describe(name: str) -> dict[str, Any]:
    """What is known of a name: its registry fields, its documentation, a model's recipes.

    Raises:
        UnknownName: with the nearest names.
    """
    section, fields = find(name)
    shown = {k: v for k, v in fields.items() if k != "folder"}
    described = {"section": section, **shown}
    if section == "models":
        cls = model_class(name)
        described["documentation"] = importlib.import_module(fields["module"]).__doc__
        described["recipes"] = {p: cls.recipe_class.preset(p).to_dict() for p in PRESETS}
    if section == "datasets":
        page = importlib.resources.files(fields["module"]) / "README.md"
        described["documentation"] = page.read_text(encoding="utf-8")
    return described


def register(name: str):
    """Class decorator: `@zoo.register("pix2pix")` puts a `Translator` behind its name.

    Raises:
        ValueError: when another class holds the name already.
    """

    def decorate(cls: "type[Translator]") -> "type[Translator]":
        import keras

        held = _classes.get(name)
        if held is not None and (held.__module__, held.__qualname__) != (
            cls.__module__,
            cls.__qualname__,
        ):
            raise ValueError(
                f"the name {name!r} is registered by {held.__module__}.{held.__qualname__}. "
                f"Received: {cls.__module__}.{cls.__qualname__}"
            )
        cls.registered_name = name
        _classes[name] = cls
        return keras.saving.register_keras_serializable(package="zoo", name=name)(cls)

    return decorate


def model_class(name: str) -> "type[Translator]":
    """The class registered under a model's name; imports only the module that the entry names.

    Raises:
        UnknownName: for a name that is no model.
        ImportError: caused by what went wrong, when the module does not import or register.
    """
    entries = index()["models"]
    if name not in entries and name not in _classes:
        raise UnknownName(name, sorted(entries), "model")
    if name not in _classes:
        module = entries[name]["module"]
        try:
            importlib.import_module(module)
        except (Exception, SystemExit) as error:
            raise ImportError(
                f"{module}, of the model {name!r}, cannot be imported. "
                f"Received: {type(error).__name__}: {reason(error)}"
            ) from error
    if name not in _classes:
        raise ImportError(f"{entries[name]['module']} does not register the model {name!r}.")
    return _classes[name]


def lookup(
    name: str | os.PathLike[str],
    dataset: str = "",
    preset: str = "paper",
    overrides: dict[str, Any] | None = None,
    assignments: list[str] | None = None,
    weights: str = "best",
) -> Entry:
    """The entry of a model, a pretrained model or a run folder, overrides applied.

    Args:
        name: a registered name, the path of a run folder (it holds a `run.json`) or of a published
            model (`zoo.hub`), or "hf:owner/name" of one; ~ is home.
        dataset: data set that replaces the entry's own; "name" or "name/config".
        preset: "paper", "good" or "small"; only a plain model name has a choice.
        overrides: recipe fields to change.
        assignments: "field=value" texts, parsed by the recipe's types.
        weights: of a run folder: "best", "last", or the step of a checkpoint that it keeps.

    Raises:
        UnknownName: for an unknown name, with the nearest ones.
        ValueError: for an unknown recipe field or a bad value, weights that are not there, or a
            damaged `run.json`.
        FileNotFoundError: for a path without a `run.json`.
    """
    if not isinstance(name, str | os.PathLike):
        raise ValueError(f"name: expected a name, or a run folder. Received: {name!r}")
    name = os.path.expanduser(name)
    stored = _stored(name, str(weights))
    # The recipe: a preset or the stored one, and what the caller changes.
    recipe_class = _recipe_class(name, stored["model"])
    changes = recipe_class.parse(assignments or []) | (overrides or {})
    if stored.get("recipe") is None:
        stored["preset"] = preset
        recipe = recipe_class.preset(preset, **changes)
    else:
        try:
            recipe = recipe_class.from_dict(stored["recipe"])
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}: {reason(error)}") from error
        recipe = recipe.changed(**changes)
    wanted, dataset = dataset, dataset or stored.get("dataset") or ""
    # What a run was trained on may be gone; its model still works.
    if dataset and (wanted or dataset.split("/")[0] in index()["datasets"]):
        row, config = dataset_fields(dataset)
        dataset = f"{row['name']}/{config}"
    # Its fold is of its own data set's patients.
    if stored.get("dataset") not in (None, dataset) and "fold" not in changes:
        recipe = recipe.changed(fold="")
    return Entry(
        name=name,
        model=stored["model"],
        dataset=dataset,
        preset=stored.get("preset") or "paper",
        recipe=recipe,
        weights=stored.get("weights"),
        sha256=stored.get("sha256", ""),
        which=stored.get("which", ""),
        source=stored.get("source"),
        target=stored.get("target"),
        trained_on=stored.get("trained_on"),
        uncertainty=stored.get("uncertainty"),
        alarms=stored.get("alarms"),
    )


def _stored(name: str, weights: str) -> dict[str, Any]:
    """What a name stands for: a model; of a run or a pretrained one its recipe and weights too."""
    of_hub = name.startswith(hub.SCHEME)
    folder = hub.snapshot(name) if of_hub else Path(name)
    if of_hub or (hub.exists(folder) and name not in _classes):
        if weights != "best":
            raise ValueError(f"weights: expected a run, of whose weights one can choose: {name}")
        return hub.stored(folder)
    there = run.exists(folder)
    if name not in _classes and (os.sep in name or there):
        if not there:
            raise FileNotFoundError(
                f"expected a registered name or a run folder with a run.json. Received: {name}"
            )
        return run.stored(folder, weights)
    if weights != "best":
        raise ValueError(
            f"weights: expected a run folder, of whose weights one can choose. Received: {weights} "
            f"of {name}"
        )
    if name in _classes or name in index()["models"]:
        return {"model": name}
    section, fields = find(name)
    if section != "pretrained":
        raise UnknownName(name, names("models") + names("pretrained"), "model")
    for side in ("source", "target"):  # a run's are checked as they are read
        if fields.get(side) is not None:
            run.domain(fields[side], f"{name}: {side}")
    file = fields["weights"]
    if "://" not in file:
        file = run.inside(fields["folder"], file)
    return fields | {"weights": file, "recipe": fields.get("overrides") or {}}


def _recipe_class(name: str, model: str) -> type[Recipe]:
    """The class of a model's recipes; the entry `name` is named where there is no such model."""
    try:
        return model_class(model).recipe_class
    except UnknownName as error:
        if model == name:
            raise
        raise ValueError(f"{name}: model: {error}") from error
