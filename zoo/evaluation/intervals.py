"""Means, spreads and bootstrap intervals of measures, over images and over patients."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def group_means(values: Sequence[float], groups: Sequence[str]) -> dict[str, float]:
    """Group (patient) to the mean of its values, in order of first appearance."""
    if len(values) != len(groups):
        raise ValueError(
            f"groups: expected one for each value. Received: {len(values)} values, "
            f"{len(groups)} groups"
        )
    members: dict[str, list[float]] = {}
    for value, group in zip(values, groups, strict=True):
        members.setdefault(group, []).append(value)
    return {group: float(np.mean(numbers)) for group, numbers in members.items()}


def bootstrap(
    values: Sequence[float],
    groups: Sequence[str] | None = None,
    *,
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean (Efron 1979).

    Images of one patient are not independent: with `groups` the patients' means are resampled,
    and the interval is that of the mean over patients. Intervals from fewer than about ten
    values or patients are too narrow.

    Args:
        values: one number an image.
        groups: the patient of each value, or None to resample the values.
        n: resamples.
        seed: draws them.
        level: coverage.

    Returns:
        The lower and the upper limit; NaN for fewer than two values or groups.
    """
    if groups is not None:
        values = list(group_means(values, groups).values())
    numbers = np.asarray(values, np.float64)
    if len(numbers) < 2:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    block = max(1, 1_000_000 // len(numbers))  # resamples at once: bounds the memory
    means = [
        numbers[rng.integers(len(numbers), size=(min(block, n - start), len(numbers)))].mean(1)
        for start in range(0, n, block)
    ]
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def differences(values: dict[str, float], others: dict[str, float]) -> dict[str, float]:
    """How much larger each measure is than the other of its name."""
    return {key: values[key] - others[key] for key in others}


def summary(
    values: Sequence[float], patients: Sequence[str] | None = None, seed: int = 0
) -> dict[str, Any]:
    """Mean, spread and 95 % interval over images, and over patients where they are given.

    Args:
        values: one finite number an image.
        patients: whose image each is.
        seed: of the bootstrap.

    Returns:
        "images" (how many), "mean", "sd" (of a sample), "median", "min", "max", "ci95", and
        "patients": None, or "mean", "sd" and "ci95" over the patients' means and their "count".
        NaN where there are too few values.
    """

    result: dict[str, Any] = _moments(values) | {
        "images": len(values),
        "median": float(np.median(values)) if values else float("nan"),
        "min": min(values, default=float("nan")),
        "max": max(values, default=float("nan")),
        "ci95": list(bootstrap(values, seed=seed)),
        "patients": None,
    }
    if patients is not None:
        means = list(group_means(values, patients).values())
        interval = bootstrap(values, patients, seed=seed)
        result["patients"] = _moments(means) | {"ci95": list(interval), "count": len(means)}
    return result


def _moments(values: Sequence[float]) -> dict[str, Any]:
    """Mean and standard deviation (of a sample); NaN of too few values."""
    mean = float(np.mean(values)) if values else float("nan")
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
    return {"mean": mean, "sd": spread}


def independent(result: dict[str, Any]) -> dict[str, Any]:
    """What to state of a `summary`: over patients where they are known, else over images.

    Returns:
        "mean", "sd" and "ci95", with "count" and "of" ("patients" or "images").
    """
    patients = result["patients"]
    if patients is not None:
        return patients | {"of": "patients"}
    stated = {key: result[key] for key in ("mean", "sd", "ci95")}
    return stated | {"count": result["images"], "of": "images"}


def summaries(
    rows: Sequence[dict[str, Any]], parts: Sequence[str], seed: int = 0
) -> tuple[dict[str, dict], list[dict[str, Any]]]:
    """The summary of every measure, and each patient's means.

    Args:
        rows: one an image, with "patient" ("" where unknown) and, for each part that there is, a
            dictionary of measure to value. A value of NaN does not count.
        parts: such as "output" and "gain"; those that the rows do not have are left out.
        seed: of the bootstrap.

    Returns:
        Part to measure to `summary`; and for each patient "patient", "images" and part to measure
        to mean, none of them where the patient of an image is unknown.
    """
    names = [row["patient"] for row in rows]
    known = all(names)
    per_patient: list[dict[str, Any]] = []
    if known:
        for patient in dict.fromkeys(names):
            per_patient.append({"patient": patient, "images": names.count(patient)})
    result: dict[str, dict] = {}
    for part in filter(rows[0].get, parts):
        result[part] = {}
        for key in rows[0][part]:
            counted = [row for row in rows if not np.isnan(row[part][key])]
            values = [row[part][key] for row in counted]
            patients = [row["patient"] for row in counted]
            result[part][key] = summary(values, patients if known else None, seed)
            means = group_means(values, patients)
            for entry in per_patient:
                entry.setdefault(part, {})[key] = means.get(entry["patient"], float("nan"))
    return result, per_patient
