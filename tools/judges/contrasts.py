"""One contrast of a head from others, on simulated heads and on the user's own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage
from skimage.exposure import match_histograms

from tools.judges.result import Result, patients_mean
from zoo.translator import Translator
from zoo_datasets import own_scans
from zoo_datasets.mri_contrast import heads
from zoo_datasets.mri_contrast.mri_contrast_dataset_builder import Builder
from zoo_datasets.phantoms import mr_scan

SEED, SUBJECTS = 900, 8  # of simulated heads that nothing is trained on
SHARE, CORRELATION = 0.6, 0.7  # of the matched input's error at most, and at least

# Name, patient, source `[n, n, C]` and target `[n, n]`.
Slices = Iterator[tuple[str, str, np.ndarray, np.ndarray]]


def contrasts(model: Translator, dataset: str) -> Result:
    """Simulated heads against the input with the target's histogram.

    Args:
        model: of `dataset`.
        dataset: whose protocol is simulated, `mri_contrast/heads` or its like.
    """
    rows, pictures = measured(model, simulated(protocol_of(dataset)))
    figures = summary(rows)
    checks = {
        f"MAE in the head at most {SHARE} of the histogram-matched image's": figures["mae_ratio"]
        <= SHARE,
        f"correlation in the head at least {CORRELATION}": figures["correlation"][0] >= CORRELATION,
    }
    # The heads where it gained least and most.
    pictures.sort(key=lambda p: p[0]["model"] / p[0]["matched"])
    window = (0.0, 2.5 * heads.LEVEL)
    shown = [(row["name"], images, window) for row, images in (pictures[-1], pictures[0])]
    patients = {row["patient"] for row in rows}
    judged = f"{len(rows)} slices of {len(patients)} simulated heads"
    return Result(judged, figures, checks, [], shown)


def protocol_of(dataset: str) -> heads.Protocol:
    """The protocol of a config of `mri_contrast`."""
    _, _, name = dataset.partition("/")
    (config,) = [each for each in Builder.BUILDER_CONFIGS if each.name == name]
    return config.protocol


def simulated(protocol: heads.Protocol) -> Slices:
    """Slices of simulated heads that nothing was trained on."""
    for number in range(SUBJECTS):
        images = mr_scan.patient(protocol, SEED, number)
        yield from _slices(f"simulated {number}", images, protocol)


def scanned(folder: Path, protocol: heads.Protocol) -> Slices:
    """Slices of the patients whose folders are in a folder, as `mri_contrast/heads` takes them."""
    cases = own_scans.find(folder, (0, 0, 0)).values()
    for number, case in enumerate(case for split in cases for case in split):
        images = heads.patient(case.files["scan"], protocol)
        yield from _slices(f"patient {number}", images, protocol)


def _slices(patient: str, images: dict[str, np.ndarray], protocol: heads.Protocol) -> Slices:
    for index, source, target in heads.scaled(images, protocol):
        yield f"{patient}, slice {index}", patient, source, target


def measured(model: Translator, slices: Slices) -> tuple[list[dict[str, Any]], list]:
    """What a model is off by in the head, and the images, of each slice."""
    rows, pictures = [], []
    for name, patient, source, target in slices:
        head = inside(source[..., 0])
        output = model.translate(source[None])[0, ..., 0]
        matched = match_histograms(source[..., 0], target)
        row: dict[str, Any] = {"name": name, "patient": patient}
        for what, image in (("model", output), ("matched", matched)):
            row[what] = float(np.abs(image - target)[head].mean())
            row[f"{what} correlation"] = float(np.corrcoef(image[head], target[head])[0, 1])
        rows.append(row)
        shown = {"input": source[..., 0], "model": output}
        pictures.append((row, shown | {"histogram-matched": matched, "reference": target}))
    return rows, pictures


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of all slices: means over patients, with intervals."""
    patients = [row["patient"] for row in rows]

    def mean(key: str, digits: int) -> list[float]:
        return patients_mean([row[key] for row in rows], patients, digits)

    figures: dict[str, Any] = {
        "mae": mean("model", 1),
        "mae_histogram_matched": mean("matched", 1),
        "correlation": mean("model correlation", 3),
        "correlation_histogram_matched": mean("matched correlation", 3),
    }
    ratio = figures["mae"][0] / figures["mae_histogram_matched"][0]
    return figures | {"mae_ratio": round(ratio, 3)}


def inside(source: np.ndarray) -> np.ndarray:
    """The head with what it encloses: bool `[n, n]` of a slice whose head's median is `LEVEL`."""
    bright = ndimage.gaussian_filter(source, 1.0) > 0.2 * heads.LEVEL
    return ndimage.binary_fill_holes(ndimage.binary_opening(bright))
