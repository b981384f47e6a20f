"""Models in Hugging Face's layout: published to a folder, loaded as `hf:owner/name`.

    README.md           the card, with the figures as `model-index`
    config.json         model, recipe, domains, what it was trained on, the weights' sha256
    model.weights.h5    the weights of the served network, Keras's own format

A folder that `publish` wrote is pushed by `hf upload`, copied, or put into a repository by git.
Nothing of it is code. Imports no TensorFlow.
"""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from zoo import run
from zoo.atomic import replacing, write_atomic
from zoo.cache import file_sha256, weights_file
from zoo.domain import Domain
from zoo.errors import contained
from zoo.recipe import Recipe

SCHEME = "hf:"
CONFIG, WEIGHTS, CARD = "config.json", "model.weights.h5", "README.md"
_FORMAT = 1
_LIBRARY = "zoo-medical"
_NAME = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}(@[\w./-]{1,200})?")
_MOST_BYTES = 2**20  # of a config.json


def exists(folder: Path) -> bool:
    """Whether a folder is one that `publish` wrote."""
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()


def snapshot(name: str) -> Path:
    """The folder of `hf:owner/name` or `hf:owner/name@revision` in Hugging Face's cache.

    What the cache lacks is downloaded, unless HF_HUB_OFFLINE is set.

    Raises:
        ValueError: for another form of name.
        OSError: where the package is not installed, or the repository cannot be had.
    """
    if not _NAME.fullmatch(name.removeprefix(SCHEME)):
        raise ValueError(
            f"name: expected hf:owner/name or hf:owner/name@revision. Received: {name}"
        )
    try:
        import huggingface_hub
    except ImportError as error:
        raise OSError(
            f"{name} needs the extra `hub`: pip install 'zoo-medical[hub]'. "
            "Received: no huggingface_hub"
        ) from error
    owner_name, _, revision = name.removeprefix(SCHEME).partition("@")
    files = [CONFIG, WEIGHTS, CARD]
    try:
        with contained("download"):
            found = huggingface_hub.snapshot_download(
                owner_name, revision=revision or None, allow_patterns=files
            )
    except (ValueError, OSError) as error:
        raise OSError(f"{name}: {str(error).splitlines()[0]}") from error
    return Path(found)


def stored(folder: Path) -> dict[str, Any]:
    """What a published folder holds, as `zoo.run.stored` tells it of a run.

    Raises:
        ValueError: for a config.json that is damaged, of another library or of a later format.
        FileNotFoundError: where a file is missing.
    """
    path = folder / CONFIG
    for file in (path, folder / WEIGHTS):
        if not file.is_file():
            raise FileNotFoundError(f"expected {file}. Received: no such file")
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"{path}: expected up to {_MOST_BYTES} bytes")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected JSON. Received: {error}") from error
    kinds = {"model": str, "recipe": dict, "sha256": str, "source": dict, "target": dict}
    written = isinstance(config, dict) and config.get("library") == _LIBRARY
    if not written or config.get("format") != _FORMAT:
        raise ValueError(f"{path}: expected a model of {_LIBRARY}, format {_FORMAT}")
    for key, kind in kinds.items():
        if not isinstance(config.get(key), kind):
            raise ValueError(f"{path}: {key}: expected {kind.__name__}")
    if not re.fullmatch("[0-9a-f]{64}", config["sha256"]):
        raise ValueError(f"{path}: sha256: expected 64 hexadecimal digits")
    for side in ("source", "target"):
        run.domain(config[side], f"{path}: {side}")
    return config | {"weights": folder / WEIGHTS}


def publish(
    output: Path,
    *,
    name: str,
    model: str,
    recipe: Recipe,
    weights: Path | str,
    sha256: str,
    source: Domain,
    target: Domain,
    version: str,
    fields: Mapping[str, Any],
    trained_on: Mapping[str, Any] | None = None,
    uncertainty: Mapping[str, Any] | None = None,
    alarms: Mapping[str, Any] | None = None,
    card: str = "",
) -> Path:
    """Write a model as a repository, complete or not at all.

    Args:
        output: the folder, new or empty.
        name: the model's name for people.
        model: the registered name of its architecture.
        recipe: that the network is built by.
        weights, sha256: the weights, and what they must hash to.
        source, target: the domains.
        version: of this package.
        fields: any of summary, dataset, licence, metrics and tasks.
        trained_on: what inputs were like, for the guards.
        uncertainty: what `calibrate` found, for `predict --uncertainty`.
        alarms: the limits that it found, for `predict --report`.
        card: Markdown that follows the front matter; "" makes a short one.

    Raises:
        ValueError: for an output that holds something, or weights of another hash.
        OSError: where it cannot be written.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"to: expected a new or an empty folder. Received: {output}")
    file = weights_file(weights, sha256)
    config = {
        "library": _LIBRARY,
        "library_version": version,
        "format": _FORMAT,
        "name": name,
        "model": model,
        "recipe": recipe.to_dict(),
        "source": source.to_dict(),
        "target": target.to_dict(),
        "trained_on": dict(trained_on) if trained_on is not None else None,
        "dataset": fields.get("dataset"),
        "sha256": file_sha256(file),
    }
    if uncertainty is not None:
        config["uncertainty"] = dict(uncertainty)
    if alarms is not None:
        config["alarms"] = dict(alarms)
    text = _front_matter(name, fields) + (_without_links(card) or _short_card(name, fields))
    new = not output.exists()
    output.mkdir(parents=True, exist_ok=True)
    try:
        with replacing(output / WEIGHTS) as temporary:
            shutil.copyfile(file, temporary)
        write_atomic(output / CARD, text.encode())
        # Last: a folder is a model by its config.json.
        write_atomic(output / CONFIG, (json.dumps(config, indent=1) + "\n").encode())
    except BaseException:
        # As it was, so that it can be tried again.
        for written in (WEIGHTS, CARD, CONFIG):
            (output / written).unlink(missing_ok=True)
        if new:
            output.rmdir()
        raise
    return output


def _front_matter(name: str, fields: Mapping[str, Any]) -> str:
    """What Hugging Face reads of a card: https://huggingface.co/docs/hub/model-cards."""
    metrics = []
    for key, value in (fields.get("metrics") or {}).items():
        number = value[0] if isinstance(value, list | tuple) else value
        if isinstance(number, int | float):
            metrics.append({"type": key, "value": number, "name": key})
    told: dict[str, Any] = {
        "library_name": "keras",
        "pipeline_tag": "image-to-image",
        "license": str(fields.get("licence") or "other").lower(),
        "tags": ["medical", _LIBRARY, *fields.get("tasks", ())],
    }
    if metrics:
        judged = (fields.get("metrics") or {}).get("judged_on") or fields.get("dataset")
        result = {
            "task": {"type": "image-to-image"},
            "dataset": {"name": str(judged), "type": str(fields.get("dataset") or "own")},
            "metrics": metrics,
        }
        told["model-index"] = [{"name": name, "results": [result]}]
    return f"---\n{yaml.safe_dump(told, sort_keys=False, allow_unicode=True)}---\n\n"


def _without_links(card: str) -> str:
    """A card whose pictures and links to other files are words: the files are not there."""
    card = re.sub(r"^!\[[^\]]*\]\((?!https?:)[^)]*\)\n*", "", card, flags=re.MULTILINE)
    return re.sub(r"\[([^\]]*)\]\((?!https?:)[^)]*\)", r"\1", card)


def _short_card(name: str, fields: Mapping[str, Any]) -> str:
    return (
        f"# {name}\n\n{fields.get('summary', '')}\n\n"
        "**For research. Not a medical device: not for diagnosis or treatment.**\n\n"
        f'```python\nimport zoo\n\nmodel = zoo.load("hf:OWNER/{name}")\n```\n'
    )
