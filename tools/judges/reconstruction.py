"""Reconstruction: real brain MRI from k-space that is measured in simulation."""

import itertools
from typing import Any

import numpy as np

from tools import scans
from tools.judges.result import Result, patients_mean
from zoo import metrics
from zoo.physics import fourier, resolution
from zoo.translator import Translator
from zoo_datasets.mri_recon import phantom

SAMPLINGS = ("full", "undersampled")
LEVELS = (0.02, 0.05)  # of noise, of an image whose brightest tissue is 0.8
ADVISED_AGAINST = "full, noise 0.02"  # by the card


def kspace(model: Translator) -> Result:
    """Real brain MRI of 64 x 64 pixels from noisy k-space, all lines or the mask's."""
    n = model.recipe.side
    lines = protocol_lines(model)
    rows, pictures = [], []

    # Each slice, measured in each way.
    for number, scan in enumerate(scans.mr()):
        target = _square(scan.image, n)
        target = target * np.float32(0.8 / np.quantile(target, 0.995))
        for sampling, level in itertools.product(SAMPLINGS, LEVELS):
            rng = np.random.default_rng([number, int(1000 * level)])
            channels = level * rng.standard_normal((2, n, n), np.float32)
            measured = fourier.to_kspace(target) + channels[0] + 1j * channels[1]
            if sampling == "undersampled":
                measured = measured * lines[:, None]
            source = fourier.to_channels(measured)
            images = {
                "inverse FFT": model.baseline(source)[0][..., 0],
                "model": model.translate(source[None])[0, ..., 0],
            }
            row: dict[str, Any] = {
                "name": scan.name,
                "patient": scan.patient,
                "part": f"{sampling}, noise {level}",
            }
            row |= {name: metrics.rmse(image, target) for name, image in images.items()}
            rows.append(row)
            pictures.append((row, images | {"reference": target}))

    # What each way of measuring came to.
    figures: dict[str, list[float]] = {}
    checks: dict[str, bool] = {}
    table = [["sampling", "inverse FFT, RMSE", "this model, RMSE", "images better"]]
    parts = list(dict.fromkeys(row["part"] for row in rows))
    for part in parts:
        mine = [row for row in rows if row["part"] == part]
        key = part.replace(", noise ", "_").replace("0.", "0_")
        base, reached = _mean(mine, "inverse FFT"), _mean(mine, "model")
        figures |= {f"rmse_inverse_fft_{key}": base, f"rmse_{key}": reached}
        better = sum(row["model"] < row["inverse FFT"] for row in mine)
        if part != ADVISED_AGAINST:
            checks[f"RMSE below the inverse FFT's, {part}"] = reached[0] < base[0]
        table.append([part, f"{base[0]:.4f}", f"{reached[0]:.4f}", f"{better} of {len(mine)}"])

    # The least and the most gained, of the hardest way.
    hardest = [p for p in pictures if p[0]["part"] == parts[-1]]
    hardest.sort(key=lambda p: p[0]["model"] / p[0]["inverse FFT"])
    shown = [(row["name"], images, (0.0, 0.9)) for row, images in (hardest[-1], hardest[0])]
    patients = {row["patient"] for row in rows}
    judged = (
        f"{len(rows) // len(parts)} real brain MR slices of {len(patients)} patients, "
        f"reduced to {n} x {n} pixels and measured in simulation"
    )
    return Result(judged, figures, checks, table, shown)


def _mean(rows: list[dict[str, Any]], name: str) -> list[float]:
    return patients_mean([row[name] for row in rows], [row["patient"] for row in rows], 4)


def protocol_lines(model: Translator) -> np.ndarray:
    """The lines of the protocol that the model was trained with: bool `[side]`."""
    return phantom.Protocol(size=model.recipe.side).operator.lines


def _square(image: np.ndarray, n: int) -> np.ndarray:
    """The image in a square, reduced to n x n through the middle of its k-space."""
    side = -(-max(image.shape) // n) * n
    pads = [((side - length) // 2, side - length - (side - length) // 2) for length in image.shape]
    return resolution.crop_kspace(np.pad(image, pads), side // n)
