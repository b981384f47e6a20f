"""What `describe` tells of a data set: configs, images, splits, licence, how to get the files."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from zoo import registry
from zoo.data import prepare

_OWN_LICENCE = "Apache-2.0, as this project: the images are simulated here"


def card(dataset: str, data_dir: Path | None = None) -> dict[str, Any]:
    """All that is known of a data set, or of one config of it; JSON-serialisable.

    Args:
        dataset: "name" or "name/config".
        data_dir: where prepared data sets live; None: TFDS's own folder.

    Raises:
        UnknownName: for an unknown data set or config.
    """
    fields, chosen = registry.dataset_fields(dataset)
    name = fields["name"]
    described = registry.describe(name) | {"models": registry.fitting(name)}
    module = importlib.import_module(f"{fields['module']}.{name}_dataset_builder")
    described["configs"] = []
    if hasattr(module, "configure"):  # made from the user's own files: nothing is known yet
        described["citation"] = ""
        return described
    names = [chosen] if "/" in dataset else fields["configs"]
    for config in names:
        builder = module.Builder(config=config, data_dir=prepare.data_root(data_dir))
        described["configs"].append(_config(builder))
    described["citation"] = (builder.info.citation or "").strip()
    return described


def image_domains(features: Mapping[str, Any], metadata: dict[str, Any]) -> dict[str, Any]:
    """Features that hold images to what the metadata say of them, as `Domain.to_dict` does."""
    found = {key: metadata.get(key) for key in features}
    return {k: v for k, v in found.items() if isinstance(v, dict) and "window" in v}


def _config(builder: tfds.core.DatasetBuilder) -> dict[str, Any]:
    """What is known of one config, built or not."""
    config, features = builder.builder_config, builder.info.features
    metadata = dict((builder.info.metadata or {}).items())
    # Its images, and what numbers they hold.
    images = {}
    for key, domain in image_domains(features, metadata).items():
        shape, dtype = list(features[key].shape), np.dtype(features[key].np_dtype)
        images[key] = {"shape": shape, "dtype": dtype.name, **domain}
    described = {
        "name": f"{builder.name}/{config.name}",
        "version": str(builder.version),
        "default": config.name == builder.BUILDER_CONFIGS[0].name,
        "description": config.description,
        "kind": metadata.get("kind"),
        "aligned": metadata.get("aligned"),
        "images": images,
        "other_features": [key for key in features if key not in images],
        "label_names": metadata.get("label_names"),
        "prepared": str(builder.data_dir) if Path(builder.data_dir).exists() else None,
    }
    splits = builder.info.splits.items()
    described["examples"] = {name: split.num_examples for name, split in splits}
    described["licence"] = getattr(config, "licence", "")
    # Where it is from: a publisher's files, or a simulation.
    patients = getattr(config, "patients", None)
    real = getattr(config, "find", None)
    if patients and not real:
        described["patients"] = dict(zip(("train", "validation", "test"), patients, strict=True))
    if real:
        described["manual"] = config.manual
        described["manual_dir"] = str(prepare.manual_dir(builder))
        described["idc"] = config.idc or None
    else:
        described["licence"] = described["licence"] or _OWN_LICENCE
    return described


def text(described: dict[str, Any]) -> str:
    """A card for the terminal."""
    name = described["name"]
    lines = [
        f"{name}: {described['summary']}",
        f"{described['data']}; {', '.join(described['modality'])}; {', '.join(described['tasks'])}",
        f"models: {', '.join(described['models'])}",
    ]
    for config in described["configs"]:
        lines += ["", *_config_lines(config)]
    for config in described["configs"]:
        if "manual" in config:
            lines += ["", f"How to get {config['name']}"]
            lines += [f"  {line}".rstrip() for line in config["manual"].strip().splitlines()]
            lines += [f"  The manual directory: {config['manual_dir']}"]
            command = f"python cli.py prepare --dataset={config['name']}"
            lines += [f"  Then: {command}"]
            if config["idc"]:
                lines += [f"  Or, from the Imaging Data Commons: {command} --fetch"]
    if described["citation"]:
        lines += ["", "Cite", *(f"  {line}" for line in described["citation"].splitlines())]
    return "\n".join([*lines, "", "About", described["documentation"].strip()])


def _config_lines(config: dict[str, Any]) -> list[str]:
    default = ", the default" if config["default"] else ""
    lines = [f"{config['name']} {config['version']}{default}", f"  {config['description']}"]
    for key, image in config["images"].items():
        lines.append(f"  {key:<12}{_image(image)}")
        for each in image.get("inputs", ()):
            lines.append(f"  {'':<12}{each['name']}: {_meaning(each)}")
    if config["aligned"] is not None:
        lines.append(f"  {'aligned':<12}{'yes' if config['aligned'] else 'no'}")
    if config["label_names"]:
        numbered = [f"{i} {label}" for i, label in enumerate(config["label_names"])]
        lines.append(f"  {'labels':<12}{', '.join(numbered)}")
    lines.append(f"  {'also':<12}{', '.join(config['other_features'])}")
    lines.append(f"  {'splits':<12}{_splits(config)}")
    lines.append(f"  {'licence':<12}{config['licence'] or 'see below'}")
    return lines


def _image(image: dict[str, Any]) -> str:
    shape = ", ".join("?" if side is None else str(side) for side in image["shape"])
    spacing = image["spacing"]
    place = f"{' x '.join(f'{mm:g}' for mm in spacing)} mm" if spacing else "spacing varies"
    if image["unit"] in ("k-space", "line integral"):
        place = ""
    parts = [
        f"[{shape}] {image['dtype']}",
        f"{len(image['inputs'])} inputs" if image.get("inputs") else _meaning(image),
        place,
    ]
    return ", ".join(part for part in parts if part)


def _meaning(domain: dict[str, Any]) -> str:
    """Modality, unit and window."""
    low, high = domain["window"]
    return f"{domain['modality']}, {domain['unit']} from {low:g} to {high:g}"


def _splits(config: dict[str, Any]) -> str:
    def counts(numbers: dict[str, int]) -> str:
        return ", ".join(f"{split} {count}" for split, count in numbers.items())

    if config["prepared"]:
        return f"{counts(config['examples'])} images, in {config['prepared']}"
    if "patients" in config:
        return f"{counts(config['patients'])} patients; not built yet"
    return "by patient; not built yet"
