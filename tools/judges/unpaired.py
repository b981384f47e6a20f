"""Unpaired translation, on phantoms whose test pairs are aligned."""

from typing import Any

import numpy as np
from scipy import ndimage
from skimage.exposure import match_histograms

from tools.judges.result import Result, examples, patients_mean
from zoo import metrics
from zoo.figures import display_windows
from zoo.translator import Translator


def unpaired(model: Translator, dataset: str, share: float, matched: bool) -> Result:
    """Mean absolute error on the test split, whose pairs are aligned.

    Args:
        model: of `dataset`.
        share: of the baseline's error that it may have.
        matched: the baseline is the input with its histogram matched to the target's, not itself.
    """
    base = "histogram-matched" if matched else "input"
    rows, pictures = [], []

    # Each pair of the test split.
    for example in examples(dataset, model, "test"):
        source, target = example["source"][..., 0], example["target"][..., 0]
        images = {"input": source, "model": model.translate(source)}
        if matched:
            images["histogram-matched"] = match_histograms(source, target)
        row: dict[str, Any] = {"name": example["name"], "patient": example["patient"]}
        row |= {name: metrics.mae(image, target) for name, image in images.items()}
        row["edges"] = edge_correlation(images["model"], target)
        row["edges of the input"] = edge_correlation(images["model"], source)
        rows.append(row)
        pictures.append((row, images | {"reference": target}))

    # Means over patients, and what they must show.
    patients = [row["patient"] for row in rows]

    def mean(key: str, digits: int = 2) -> list[float]:
        return patients_mean([row[key] for row in rows], patients, digits)

    ratio = np.mean([r["model"] for r in rows]) / np.mean([r[base] for r in rows])
    figures = {
        "mae": mean("model"),
        f"mae_{base.replace('-', '_')}": mean(base),
        "mae_ratio": round(float(ratio), 3),
        "gradient_correlation": mean("edges", 3),
        "gradient_correlation_input": mean("edges of the input", 3),
    }
    checks = {f"MAE at most {share} of the {base} image's": ratio <= share}
    if not matched:
        checks["gradient correlation above 0.9"] = figures["gradient_correlation"][0] > 0.9

    # The pairs where it gained least and most.
    pictures.sort(key=lambda p: p[0]["model"] / p[0][base])
    shown = []
    for row, images in (pictures[-1], pictures[0]):
        windows = display_windows([images["reference"]], model.target.unit, model.target.window)
        for where, window in windows.items():
            label = f"{row['name']}: {where}" if where else row["name"]
            shown.append((label, images, window))
    judged = f"{len(rows)} images of {len(set(patients))} patients, test split of {dataset}"
    return Result(judged, figures, checks, [], shown)


def edge_correlation(image: np.ndarray, other: np.ndarray) -> float:
    """Correlation of the gradients' magnitudes, smoothed by a pixel against noise."""
    steep = [ndimage.gaussian_gradient_magnitude(i.astype(float), 1.0) for i in (image, other)]
    return float(np.corrcoef(steep[0].ravel(), steep[1].ravel())[0, 1])
