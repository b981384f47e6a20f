"""From a name to an entry to a class. Imports no TensorFlow: `list` must answer at once."""

import dataclasses
import difflib
import functools
import importlib
import importlib.metadata
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import yaml

SECTIONS = ("models", "datasets", "pretrained")
_REQUIRED = {
    "models": {"module", "data", "tasks", "summary"},
    "datasets": {"module", "data", "modality", "tasks", "configs", "summary"},
    "pretrained": {"model", "dataset", "weights", "sha256", "licence", "metrics", "summary"},
}
_TRAINED_ON = {"spacing", "noise", "level", "air"}
_classes: dict[str, type] = {}


class UnknownName(KeyError):
    """A name that no registry holds; the message offers the nearest ones."""

    def __init__(self, name: str, choices: list[str], what: str = "name"):
        near = difflib.get_close_matches(name, choices, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"There are: {', '.join(choices)}."
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
        preset: "paper" or "small", the recipe that the overrides changed.
        recipe: the model's `Recipe`, overrides applied.
        weights: file of the served network's weights, or None for a fresh model.
        sha256: what the weights file must hash to; "" where nothing is known.
        source, target: the stored `Domain` dictionaries, or None for a fresh model.
        trained_on: of a pretrained model, what its inputs were like (`zoo.guards` compares others
            with it); None where nothing is stated, so of all other models.
    """

    name: str
    model: str
    dataset: str
    preset: str
    recipe: Any
    weights: Path | str | None = None
    sha256: str = ""
    source: dict[str, Any] | None = None
    target: dict[str, Any] | None = None
    trained_on: dict[str, Any] | None = None

    @property
    def model_class(self) -> type:
        """The registered class; imports its module, and with it TensorFlow."""
        return model_class(self.model)


def _own_index() -> Path:
    """`registry.yaml` beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).resolve().parent
    inside = package / "registry.yaml"
    return inside if inside.exists() else package.parent / "registry.yaml"


def _plugin_indexes() -> list[tuple[str, Path, Path]]:
    found = []
    for point in importlib.metadata.entry_points(group="zoo.plugins"):
        spec = importlib.util.find_spec(point.value)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(
                f"plugin {point.name!r}: expected an importable package. Received: {point.value}"
            )
        folder = Path(spec.origin).parent
        found.append((point.value, folder / "registry.yaml", folder))
    return found


def _read(owner: str, path: Path, folder: Path) -> dict[str, dict[str, dict]]:
    content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    if not isinstance(content, dict) or set(content) - set(SECTIONS):
        raise ValueError(f"{path}: expected the sections {SECTIONS}. Received: {list(content)}")
    for section in SECTIONS:
        for name, fields in (content.get(section) or {}).items():
            missing = _REQUIRED[section] - set(fields or ())
            if missing:
                raise ValueError(f"{path}: {section}: {name} lacks {', '.join(sorted(missing))}.")
            if section == "pretrained":
                _check_trained_on(fields.get("trained_on"), f"{path}: {name}: trained_on")
            fields |= {"name": name, "owner": owner, "folder": folder}
    return content


def _check_trained_on(trained: Any, place: str) -> None:
    if trained is None:
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

    Raises:
        ValueError: for a malformed file, or a name that two packages claim (names both).
    """
    merged: dict[str, dict[str, dict]] = {section: {} for section in SECTIONS}
    owners: dict[str, str] = {}
    own = ("zoo", _own_index(), Path(__file__).resolve().parent)
    for owner, path, folder in [own, *_plugin_indexes()]:
        for section, entries in _read(owner, path, folder).items():
            for name, fields in (entries or {}).items():
                if name in owners:
                    raise ValueError(
                        f"the name {name!r} is claimed by two packages: {owners[name]} and {owner}."
                    )
                owners[name] = owner
                merged[section][name] = fields
    return merged


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
        described["recipes"] = {
            preset: cls.recipe_class.preset(preset).to_dict() for preset in ("paper", "small")
        }
    if section == "datasets":
        folder = Path(importlib.util.find_spec(fields["module"]).origin).parent
        described["documentation"] = (folder / "README.md").read_text(encoding="utf-8")
    return described


def register(name: str):
    """Class decorator: `@zoo.register("pix2pix")` puts a `Translator` behind its name.

    Raises:
        ValueError: when another class holds the name already.
    """

    def decorate(cls: type) -> type:
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


def model_class(name: str) -> type:
    """The class registered under a model's name; imports only the module that the entry names.

    Raises:
        UnknownName: for a name that is no model.
        ImportError: with its own traceback, when the module does not import or register.
    """
    entries = index()["models"]
    if name not in entries and name not in _classes:
        raise UnknownName(name, sorted(entries), "model")
    if name not in _classes:
        importlib.import_module(entries[name]["module"])
    if name not in _classes:
        raise ImportError(f"{entries[name]['module']} does not register the model {name!r}.")
    return _classes[name]


def lookup(
    name: str,
    dataset: str = "",
    preset: str = "paper",
    overrides: dict[str, Any] | None = None,
    assignments: list[str] | None = None,
) -> Entry:
    """The entry of a model, a pretrained model or a run folder, overrides applied.

    Args:
        name: a registered name, or the path of a run folder (it holds a `run.json`).
        dataset: data set that replaces the entry's own; "name" or "name/config".
        preset: "paper" or "small"; only a plain model name has a choice.
        overrides: recipe fields to change.
        assignments: "field=value" texts, parsed by the recipe's types.

    Raises:
        UnknownName: for an unknown name, with the nearest ones.
        ValueError: for an unknown recipe field or a bad value.
    """
    run = Path(name) / "run.json"
    if name not in _classes and (os.sep in name or run.exists()):
        if not run.exists():
            raise FileNotFoundError(
                f"expected a registered name or a run folder with a run.json. Received: {name}"
            )
        stored = json.loads(run.read_text(encoding="utf-8"))
        weights = Path(name) / stored["weights"]["file"] if stored.get("weights") else None
        sha256 = stored["weights"]["sha256"] if weights else ""
        fields, model = stored["recipe"], stored["model"]
    elif name in _classes or name in index()["models"]:
        stored, weights, sha256, fields, model = {"preset": preset}, None, "", None, name
    else:
        section, stored = find(name)
        if section != "pretrained":
            raise UnknownName(name, names("models") + names("pretrained"), "model")
        weights, sha256, model = stored["weights"], stored["sha256"], stored["model"]
        if "://" not in weights:
            weights = _weights_path(stored["folder"], weights)
        fields = stored.get("overrides") or {}
    recipe_class = model_class(model).recipe_class
    changes = recipe_class.parse(assignments or []) | (overrides or {})
    if fields is None:
        recipe = recipe_class.preset(preset, **changes)
    else:
        recipe = recipe_class.preset("paper", **fields | changes)
    dataset = dataset or stored.get("dataset", "")
    if dataset:
        row, config = dataset_fields(dataset)
        dataset = f"{row['name']}/{config}"
    return Entry(
        name=name,
        model=model,
        dataset=dataset,
        preset=stored.get("preset", "paper"),
        recipe=recipe,
        weights=weights,
        sha256=sha256,
        source=stored.get("source"),
        target=stored.get("target"),
        trained_on=stored.get("trained_on"),
    )


def _weights_path(folder: Path, relative: str) -> Path:
    path = (folder / relative).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ValueError(f"weights: expected a path inside {folder}. Received: {relative}")
    return path
