"""Fewer bits: what PSNR a model of images loses in bfloat16, and in int8 by OpenVINO.

Both are measured on simulated patients whom it was not trained on, against its own float32; int8 is
calibrated on every other one of them, as `export --format=openvino --int8` does with so many.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import zoo
from tools.judges.membership import drawn
from tools.judges.result import patients_mean
from zoo import metrics
from zoo.serving import export, formats
from zoo.translator import Translator

PATIENTS = 16  # every other one to calibrate on, of two images each: as many as `export` takes
FORMAT = "openvino"

Serve = Callable[[np.ndarray], np.ndarray]


def fewer_bits(name: str, model: Translator, dataset: str) -> dict[str, Any]:
    """What an entry says of it: "judged_on", and what is lost by each number, in dB.

    Nothing of a model that makes images of noise or of measurements, or answers by a gradient.
    """
    if model.data == "single" or model.source.measured or model.registered_name == "critic":
        return {}
    examples = list(drawn(model, dataset, False, PATIENTS))
    patients = list(dict.fromkeys(example["patient"] for example in examples))
    known = patients[::2]
    given = [each["source"][None] for each in examples if each["patient"] in known]
    judged = [each for each in examples if each["patient"] not in known]
    # The same weights, by other numbers.
    exact = zoo.load(name, precision="float32")
    serves = {"bfloat16": zoo.load(name, precision="bfloat16").translate}
    if not model.source.inputs:  # of which `export` makes int8
        serves["int8"] = _int8(exact, given)
    owners = [each["patient"] for each in judged]
    whole = _psnr(exact.translate, model, judged)
    found: dict[str, Any] = {
        "judged_on": f"{len(judged)} simulated images of {len(patients) - len(known)} patients "
        f"apart, {dataset}"
    }
    for key, serve in serves.items():
        lost = np.subtract(whole, _psnr(serve, model, judged))
        found[f"{key}_psnr_lost_db"] = patients_mean(list(lost), owners, 3)
    return found


def _int8(model: Translator, images: list[np.ndarray]) -> Serve:
    """The network that `export` writes, by the engine that it is for."""
    with tempfile.TemporaryDirectory() as folder:
        ask = formats.write(model, FORMAT, export.serving_specs(model), Path(folder), images)
    return lambda batch: ask([batch])


def _psnr(serve: Serve, model: Translator, examples: list[dict[str, Any]]) -> list[float]:
    """Of each answer, in the window of the model."""
    found = []
    for example in examples:
        answer = np.asarray(serve(example["source"][None]))[0]
        found.append(metrics.psnr(answer, example["target"], model.target.window))
    return found
