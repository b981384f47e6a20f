"""Predictions as a BIDS derivative dataset: names, sidecars and `dataset_description.json`.

sub-01/anat/sub-01_T1w.nii.gz  ->  sub-01/anat/sub-01_desc-MODEL_T2w.nii.gz, .json
"""

import json
import re
from pathlib import Path
from typing import Any

from zoo import __version__
from zoo.atomic import write_atomic, write_json
from zoo.errors import short
from zoo.imaging.volume import Problem
from zoo.inference import predict
from zoo.inference.report import Report

VERSION = "1.10.0"  # of BIDS
_SUFFIX = re.compile(r"[A-Za-z0-9]+")
_ENDS = (".nii.gz", ".nii")
_README = "Images made by a neural network from those of the dataset `raw`. For research only.\n"


def translate(model: Any, input: Path, output: Path, suffixes: str, **options: Any) -> Report:
    """Translates the images of one suffix in a BIDS dataset.

    Args:
        model: of one input that gives images.
        input: a dataset: a folder of `sub-…`.
        output: the derivative dataset, made as needed; may lie in the input's `derivatives`.
        suffixes: of the images taken, and behind a colon of those made: "T1w:T2w". "T1w" keeps it.
        **options: of `predict.translate`.

    Raises:
        ValueError: for another model, form of suffixes, a folder without such images, and two
            images that would have one name.
        FileExistsError: as `predict.translate`.
    """
    taken, _, made = suffixes.partition(":")
    made = made or taken
    if not (_SUFFIX.fullmatch(taken) and _SUFFIX.fullmatch(made)):
        wanted = "bids: expected SUFFIX or SUFFIX:SUFFIX, as T1w:T2w"
        raise ValueError(f"{wanted}. Received: {suffixes}")
    if model.source.inputs or model.classes:
        raise ValueError(f"bids: expected a model of one image to another. Received: {model.name}")
    # What there is: of the subjects alone, and so of no derivative in there.
    images: list[Path] = []
    for end in _ENDS:
        images += input.glob(f"sub-*/**/sub-*_{taken}{end}")
    if not images:
        raise ValueError(
            f"input: expected a BIDS dataset with sub-…_{taken}.nii.gz. Received: {input}"
        )
    # Each to a name of its own.
    places = {}
    for image in sorted(images):
        places[image] = output / _name(model, image.relative_to(input), taken, made)
    _check_names(places)
    whole = Report()
    for image, place in places.items():
        if fault := _fault(image):
            whole.skipped.append(Problem(image, fault))
            continue
        report = predict.translate(model, image, place, **options)
        whole.add(report)
        if report.outputs:
            write_json(_sidecar(place), _of_image(model, input, image, report))
    _describe(model, input, output)
    return whole


def _name(model: Any, path: Path, taken: str, made: str) -> Path:
    """A derivative's name: the input's, with resolution and description before the suffix."""
    end = next(end for end in _ENDS if path.name.endswith(end))
    entities = path.name.removesuffix(f"_{taken}{end}").split("_")
    entities = [each for each in entities if not each.startswith(("desc-", "res-"))]
    if model.scale > 1:
        entities.append(f"res-x{model.scale}")
    label = re.sub("[^A-Za-z0-9]", "", model.name)
    return path.with_name("_".join([*entities, f"desc-{label}", made]) + end)


def _check_names(places: dict[Path, Path]) -> None:
    """A ValueError where two images would be one, or have one sidecar."""
    taken: dict[Path, Path] = {}
    for image, place in places.items():
        other = taken.setdefault(_sidecar(place), image)
        if other != image:
            raise ValueError(
                "input: expected images that differ by more than desc-, res- and .gz. "
                f"Received: {other.name} and {image.name}"
            )


def _fault(image: Path) -> str:
    """What keeps an image from being translated and described, "" where nothing does."""
    if not image.exists():  # as in a DataLad dataset
        return "a link to a file that is not there"
    try:
        _is_stripped(image)
    except ValueError as error:
        return str(error)
    return ""


def _is_stripped(image: Path) -> bool:
    """Whether its sidecar says that an image has no skull.

    Raises:
        ValueError: for a sidecar that is no JSON object.
    """
    path = _sidecar(image)
    if not path.is_file():
        return False
    try:
        told = json.loads(path.read_text("utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise ValueError(f"{path.name}: expected JSON. Received: {error}") from error
    if not isinstance(told, dict):
        raise ValueError(f"{path.name}: expected a JSON object. Received: {short(told)}")
    return bool(told.get("SkullStripped"))


def _sidecar(path: Path) -> Path:
    end = next(end for end in _ENDS if path.name.endswith(end))
    return path.with_name(path.name.removesuffix(end) + ".json")


def _of_image(model: Any, input: Path, image: Path, report: Report) -> dict[str, Any]:
    """What stands beside an image."""
    told = {
        "Description": f"Made by {model.name}, weights SHA-256 {model.weights_hash}",
        "Sources": [f"bids:raw:{image.relative_to(input).as_posix()}"],
        "SpatialReference": "orig",
        "SkullStripped": _is_stripped(image),
    }
    if model.scale > 1:
        told["Resolution"] = f"{model.scale} times as fine as the source, by the network"
    if report.warnings:
        told["Warnings"] = [problem.reason for problem in report.warnings]
    return told


def _describe(model: Any, input: Path, output: Path) -> None:
    """What a dataset says of itself, unless it does so already."""
    by = {"Name": "zoo-medical", "Version": __version__, "Description": model.name}
    told = {
        "Name": f"Images made by {model.name}",
        "BIDSVersion": VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [by],
        "DatasetLinks": {"raw": input.resolve().as_uri()},
    }
    if not (output / "dataset_description.json").exists():
        write_json(output / "dataset_description.json", told)
    if not (output / "README").exists():
        write_atomic(output / "README", _README.encode())
