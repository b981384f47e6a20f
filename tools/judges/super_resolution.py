"""Super-resolution of brain MRI: real slices from the middle of their k-space."""

from typing import Any

import numpy as np

import zoo
from tools import scans
from tools.judges.result import Result, patients_mean
from zoo import metrics
from zoo.physics import resolution
from zoo.translator import Translator


def super_resolution(model: Translator, generator: bool = False) -> Result:
    """Real brain MRI from the middle of its k-space, against bicubic interpolation.

    Args:
        model: of MR.
        generator: judge it as the GAN that began from `srresnet_mri_x<scale>`.
    """
    scale, rows, pictures = model.scale, [], []
    models, methods = {"model": model}, ["bicubic", "model"]
    if generator:
        models["first phase"] = zoo.load(f"srresnet_mri_x{scale}", precision="float32")
        methods = ["bicubic", "first phase", "model"]

    # Each slice, reduced and enlarged again.
    for scan in scans.mr():
        target = at_level(scan.image)
        source = resolution.crop_kspace(target, scale)
        images = {"bicubic": model.baseline(source[..., None])[0][..., 0]}
        images |= {name: each.translate(source) for name, each in models.items()}
        window = (0.0, float(target.max()))
        row: dict[str, Any] = {"name": scan.name, "patient": scan.patient}
        row |= {name: scores(image, target, window) for name, image in images.items()}
        rows.append(row)
        pictures.append((row, images | {"reference": target}, window))

    figures = _figures(rows, generator)
    patients = {row["patient"] for row in rows}
    judged = (
        f"{len(rows)} real brain MR slices of {len(patients)} patients, "
        f"reduced {scale}-fold through k-space"
    )
    # The slices where it is least and most above bicubic.
    pictures.sort(key=lambda p: p[0]["model"]["psnr"] - p[0]["bicubic"]["psnr"])
    shown = [
        (row["name"], images, (0.0, 0.7 * window[1]))
        for row, images, window in (pictures[0], pictures[-1])
    ]
    checks = _checks(figures, scale, generator)
    return Result(judged, figures, checks, _table(rows, methods), shown)


def at_level(image: np.ndarray) -> np.ndarray:
    """The image in sides that every scale divides, scaled to the signal that models know."""
    rows, columns = (side // 8 * 8 for side in image.shape)
    target = image[:rows, :columns]
    return target * np.float32(3000 / np.quantile(target, 0.995))


def scores(image: np.ndarray, target: np.ndarray, window: tuple[float, float]) -> dict[str, float]:
    """PSNR, SSIM, and the mean gradient's share of the target's."""
    return {
        "psnr": metrics.psnr(image[..., None], target[..., None], window),
        "ssim": metrics.ssim(image[..., None], target[..., None], window),
        "sharpness": _steepness(image) / _steepness(target),
    }


def _steepness(image: np.ndarray) -> float:
    """Mean magnitude of the gradient."""
    return float(np.mean(np.hypot(*np.gradient(image.astype(np.float64)))))


def _figures(rows: list[dict[str, Any]], generator: bool) -> dict[str, Any]:
    patients = [row["patient"] for row in rows]

    def mean(name: str, key: str, minus: str = "", digits: int = 2) -> list[float]:
        less = [row[minus][key] if minus else 0.0 for row in rows]
        values = [row[name][key] - each for row, each in zip(rows, less, strict=True)]
        return patients_mean(values, patients, digits)

    figures = {
        "psnr_db": mean("model", "psnr"),
        "psnr_bicubic_db": mean("bicubic", "psnr"),
        "psnr_over_bicubic_db": mean("model", "psnr", "bicubic"),
        "ssim": mean("model", "ssim", digits=4),
        "ssim_over_bicubic": mean("model", "ssim", "bicubic", 4),
        "gradient_of_reference": mean("model", "sharpness", digits=3),
    }
    if generator:
        figures["psnr_below_first_phase_db"] = mean("first phase", "psnr", "model")
        figures["gradient_of_reference_first_phase"] = mean("first phase", "sharpness", digits=3)
    return figures


def _checks(figures: dict[str, Any], scale: int, generator: bool) -> dict[str, bool]:
    alike = {"SSIM not below bicubic's": figures["ssim_over_bicubic"][0] >= 0}
    if generator:
        off = abs(1 - figures["gradient_of_reference"][0])
        off_first = abs(1 - figures["gradient_of_reference_first_phase"][0])
        lost = figures["psnr_below_first_phase_db"][0]
        return alike | {
            "gradient magnitude nearer to the reference's than the first phase's": off < off_first,
            "at most 1 dB of PSNR lost to the first phase": lost <= 1,
        }
    if scale == 2:
        return alike | {
            "PSNR at least 1 dB above bicubic's": figures["psnr_over_bicubic_db"][0] >= 1
        }
    return alike


def _table(rows: list[dict[str, Any]], methods: list[str]) -> list[list[str]]:
    """PSNR, SSIM and sharpness by patient."""
    heads = [f"{method}, dB" for method in methods]
    table = [["patient", "slices", *heads, "SSIM over bicubic", "gradient of reference"]]
    for patient in dict.fromkeys(row["patient"] for row in rows):
        part = [row for row in rows if row["patient"] == patient]
        numbers = [f"{np.mean([row[m]['psnr'] for row in part]):.2f}" for m in methods]
        over = np.mean([row["model"]["ssim"] - row["bicubic"]["ssim"] for row in part])
        steep = np.mean([row["model"]["sharpness"] for row in part])
        table.append([part[0]["name"], str(len(part)), *numbers, f"{over:+.4f}", f"{steep:.2f}"])
    return table
