"""What the report calls measures, and how it prints their values."""

import html
from collections.abc import Sequence
from typing import Any

import numpy as np

# Measure: label, unit (None: the image's own), decimals (None: by the window's width).
MEASURES: dict[str, tuple[str, str | None, int | None]] = {
    "psnr": ("PSNR", "dB", 2),
    "ssim": ("SSIM", "", 4),
    "ms_ssim": ("MS-SSIM", "", 4),
    "rmse_window": ("RMSE in window", None, None),
    "mae_window": ("MAE in window", None, None),
    "rmse": ("RMSE, all values", None, None),
    "mae": ("MAE, all values", None, None),
    "nmse": ("NMSE", "", 5),
    "psnr_body": ("PSNR in the body", "dB", 2),
    "rmse_body": ("RMSE in the body", None, None),
    "mae_body": ("MAE in the body", None, None),
    "ssim_synthrad": ("SSIM, SynthRAD2023", "", 4),
    "psnr_synthrad": ("PSNR, SynthRAD2023", "dB", 2),
    "mae_synthrad": ("MAE, SynthRAD2023", None, None),
    "ssim_fastmri": ("SSIM, fastMRI", "", 4),
    "psnr_fastmri": ("PSNR, fastMRI", "dB", 2),
    "nmse_fastmri": ("NMSE, fastMRI", "", 5),
    "dice": ("Mean Dice", "", 4),
    "accuracy": ("Accuracy", "", 4),
}


def label(key: str) -> str:
    return MEASURES[key][0]


def unit(key: str, results: dict[str, Any]) -> str:
    """What a measure's value is in, as HTML; "" where it has no unit."""
    own = MEASURES[key][1]
    return html.escape(image_unit(results) if own is None else own)


def image_unit(results: dict[str, Any]) -> str:
    """What the images' values are in; "" where they have no unit."""
    return "" if results["unit"] == "1" else results["unit"]


def number(value: float | None, key: str, results: dict[str, Any], sign: bool = False) -> str:
    """A value of a measure; errors get four digits of a thousandth of the window."""
    if value is None:
        return "–"
    digits = MEASURES[key][2]
    if digits is None:
        span = results["window"][1] - results["window"][0]
        digits = int(np.clip(4 - np.floor(np.log10(span)), 0, 8))
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def interval(ends: Sequence[float | None], key: str, results: dict[str, Any]) -> str:
    """Such as "33.20 to 35.00"."""
    if ends[0] is None:
        return "no interval"
    return f"{number(ends[0], key, results)} to {number(ends[1], key, results)}"


def cell(summary: dict[str, Any], key: str, results: dict[str, Any], sign: bool = False) -> str:
    """Mean and deviation, with the interval below, as HTML."""
    text = number(summary["mean"], key, results, sign)
    if summary["sd"] is not None:
        text += f" ± {number(summary['sd'], key, results)}"
    return f"{text}<br><small>{interval(summary['ci95'], key, results)}</small>"
