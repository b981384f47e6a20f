"""The main figures of an evaluation, as lines for a terminal."""

from collections.abc import Iterator
from typing import Any

from zoo.evaluation import intervals

# What is shown of images, and of volumes made of them.
_SHOWN = {
    "psnr": "PSNR",
    "ssim": "SSIM",
    "rmse": "RMSE",
    "mae": "MAE",
    "nmse": "NMSE",
    "psnr_body": "PSNR in the body",
    "mae_body": "MAE in the body",
    "ssim_fastmri": "SSIM (fastMRI)",
    "ssim_synthrad": "SSIM (SynthRAD2023)",
    "dice": "Dice",
    "accuracy": "Accuracy",
}


def lines(results: dict[str, Any]) -> list[str]:
    """The evaluation's main figures, each with its interval over patients, or images.

    Args:
        results: what `metrics.json` holds.
    """
    data = results["dataset"]
    patients = f" of {results['patients']} patients" if results["patients"] else ""
    images = "volumes" if results["dimensions"] == 3 else "images"
    found = [f"{data['name']}, {data['split']} split: {results['images']} {images}{patients}"]
    if results.get("average"):
        found.append(f"  {results['average']}")
    if results.get("which_weights"):
        found.append(f"  weights: {results['which_weights']}")
    for part in (results, results.get("volumes") or {}):
        found += _measures(part.get("summary", {}), results)
    for name, distances in results.get("sliced_wasserstein", {}).items():
        if name != "images":
            found.append(f"  sliced Wasserstein distance ×1000, {name}: {distances['mean']:.1f}")
    if results.get("lesions"):
        found.append(_lesions(results["lesions"]))
    if results.get("memorisation"):
        found.append(f"  too close to a training image: {results['memorisation']['flagged']}")
    return found


def _lesions(measured: dict[str, Any]) -> str:
    """How many are lost of those that can be seen in the input."""
    lost = measured["lost_of_seen"]
    if lost["share"] is None:
        return f"  lesions: none of {measured['lesions']} can be seen in the input"
    most = "" if lost["at_most"] is None else f" (at most {lost['at_most']:.1%}, by patient)"
    return f"  lost of {lost['lesions']} lesions that the input shows: {lost['share']:.1%}{most}"


def _measures(summary: dict[str, Any], results: dict[str, Any]) -> Iterator[str]:
    """A line for each measure of a summary, with what the model gains."""
    for key in filter(summary.get("output", {}).__contains__, _SHOWN):
        unit = _unit(key, results["unit"])
        line = f"  {_SHOWN[key]} {mean(summary['output'][key], unit)}"
        if "gain" in summary:
            gain = mean(summary["gain"][key], unit, "+", counted=False)
            line += f"; against the {results['baseline']} {gain}"
        yield line


def _unit(key: str, unit: str) -> str:
    """What stands behind a measure's value, in images of this unit."""
    kind = key.partition("_")[0]
    if kind == "psnr":
        return " dB"
    return f" {unit}" if kind in ("rmse", "mae") and unit != "1" else ""


def mean(summary: dict[str, Any], unit: str, sign: str = "", counted: bool = True) -> str:
    """Such as "34.1 dB (33.2 to 35, 12 patients)"."""
    found = intervals.independent(summary)
    if found["mean"] is None:
        return "not measured"
    low, high = found["ci95"]
    interval = "no interval" if low is None else f"{low:{sign}.4g} to {high:{sign}.4g}"
    count = f", {found['count']} {found['of']}" if counted else ""
    return f"{found['mean']:{sign}.4g}{unit} ({interval}{count})"
