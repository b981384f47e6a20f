"""Reconstruction with the physics in the network, beside total variation, and beside a U-Net.

The U-Net takes the quick image (filtered back-projection, zero filling) of the same measurements
and learned from the same patients; where its run is not there, it is trained, which takes minutes.
Total variation knows the noise; its weight is the best one for slices of validation patients. What
it makes of a slice is kept in the folder `verify`, as what other slow methods make is.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

import zoo
from tools import pretrained
from tools.judges.denoising import kept
from tools.judges.result import Result, patients_mean
from zoo import loading, metrics, registry
from zoo.data import batches, prepare
from zoo.evaluation import intervals
from zoo.figures import display_windows
from zoo.physics.operators import Operator
from zoo.recipe import Recipe
from zoo.reconstruction import measured
from zoo.translator import Translator

TUNED = 2  # patients of the validation split who choose the weight
STRIDE = 1.5  # from one weight to the next


class Slice(NamedTuple):
    """One slice with its measurement; `source` is that as models take it."""

    name: str
    patient: str
    source: np.ndarray
    target: np.ndarray
    measured: np.ndarray
    operator: Operator
    sigma: float | np.ndarray


def unrolled(
    model: Translator,
    dataset: str,
    quick: str,
    lam: float,
    over_tv: float,
    unet: str = "",
    over_unet: float = 0.0,
) -> Result:
    """PSNR and SSIM on a slice of each test patient of the data set that the model learned from.

    Args:
        model: of sinograms or k-space.
        dataset: its.
        quick: what the quick image is called.
        lam: the weight of total variation to look from for the best one.
        over_tv: dB by which the model's PSNR must be higher.
        unet: the run of `pretrained.RUNS` that stands beside it, if one does.
        over_unet: as `over_tv`.
    """
    unit, window = model.target.unit, model.target.window
    lam = best_weight(dataset, lam, unit, window)
    names = {"quick": quick, "tv": "total variation", "unet": f"U-Net of {quick}", "model": "model"}
    beside = _unet(unet) if unet else None
    rows, pictures = [], []

    # A slice of each test patient.
    for each in slices(dataset, "test"):
        first = model.baseline(each.source)[0]
        images = {"quick": first, "tv": total_variation(each, lam, unit)}
        if beside is not None:
            images["unet"] = beside.translate(first[None])[0]
        images["model"] = model.translate(each.source[None])[0]
        row = quality(each, images, window)
        rows.append(row)
        shown = {names[key]: image[..., 0] for key, image in images.items()}
        pictures.append((row, shown | {"reference": each.target[..., 0]}))

    # Means over patients, and what they must show.
    figures, table = compared(rows, {key: name for key, name in names.items() if key in images})
    checks = {}
    for key, least in (("tv", over_tv), ("unet", over_unet)):
        if key in images:
            above = figures[f"psnr_over_{key}_db"][0]
            checks[f"PSNR at least {least} dB above that of {names[key]}"] = above >= least
    chosen = least_and_most(pictures, unit, window)
    judged = f"{len(rows)} slices of as many simulated patients, test split of {dataset}"
    return Result(judged, figures, checks, table, chosen)


def quality(
    each: Slice, images: dict[str, np.ndarray], window: tuple[float, float]
) -> dict[str, Any]:
    """A row of `compared`: PSNR and SSIM of what each method made of a slice, by its key."""
    row: dict[str, Any] = {"name": each.name, "patient": each.patient}
    for key, image in images.items():
        row[f"psnr_db_{key}"] = metrics.psnr(image, each.target, window)
        row[f"ssim_{key}"] = metrics.ssim(image, each.target, window)
    return row


def least_and_most(
    pictures: list[tuple[dict[str, Any], dict[str, np.ndarray]]],
    unit: str,
    window: tuple[float, float],
) -> list[Any]:
    """A card's pictures: the slices where the model is least and most above total variation.

    Args:
        pictures: of each slice its row and its images by their labels, "reference" among them.
        unit, window: of the images.
    """
    pictures = sorted(pictures, key=lambda p: p[0]["psnr_db_model"] - p[0]["psnr_db_tv"])
    chosen = []
    for row, images in (pictures[0], pictures[-1]):
        windows = display_windows([images["reference"]], unit, window)
        for where, shown_in in windows.items():
            chosen.append((f"{row['name']}: {where}" if where else row["name"], images, shown_in))
    return chosen


def compared(
    rows: list[dict[str, Any]], names: dict[str, str]
) -> tuple[dict[str, Any], list[list[str]]]:
    """Means over patients, by how much the model is above each method, and the card's table."""
    patients = [row["patient"] for row in rows]
    figures: dict[str, Any] = {}
    table = [["method", "PSNR, dB", "SSIM", "the model is higher by, dB", "lowest", "patients"]]
    for key, name in names.items():
        psnr = patients_mean([row[f"psnr_db_{key}"] for row in rows], patients)
        ssim = patients_mean([row[f"ssim_{key}"] for row in rows], patients, 4)
        cells = [name, f"{psnr[0]:.2f}", f"{ssim[0]:.4f}"]
        if key == "model":
            figures |= {"psnr_db": psnr, "ssim": ssim}
            table.append([*cells, "", "", ""])
            continue
        gains = [row["psnr_db_model"] - row[f"psnr_db_{key}"] for row in rows]
        above, each = patients_mean(gains, patients), intervals.group_means(gains, patients)
        better = sum(gain > 0 for gain in each.values())
        figures |= {f"psnr_db_{key}": psnr, f"ssim_{key}": ssim, f"psnr_over_{key}_db": above}
        lowest = f"{min(each.values()):.2f}"
        table.append([*cells, f"{above[0]:.2f}", lowest, f"{better} of {len(each)}"])
    return figures, table


def slices(dataset: str, split: str) -> Iterator[Slice]:
    """The first slice of each patient with its measurement."""
    builder, seen = _builder(dataset), set()
    examples = batches.eval_dataset(builder, split)
    for example, y, operator in measured.of_examples(builder, examples):
        if example["patient"] in seen:
            continue
        seen.add(example["patient"])
        fields = [example[key] for key in ("name", "patient", "source", "target")]
        yield Slice(*fields, y, operator, measured.noise_of(builder, y))


def total_variation(each: Slice, lam: float, unit: str) -> np.ndarray:
    """What total variation of this weight makes of a measurement, `[H, W, 1]` in `unit`."""

    def solved(_: np.ndarray, lam: float) -> np.ndarray:
        options = {"sigma": each.sigma, "tolerance": 1e-3, "iterations": 600}
        found, _ = zoo.reconstruct(each.measured, each.operator, "tv", lam=lam, **options)
        return measured.in_unit(found, unit)

    return kept("reconstruction-tv", each.source, lam, solved)[..., None]


def best_weight(dataset: str, lam: float, unit: str, window: tuple[float, float]) -> float:
    """The weight, of those a factor of `STRIDE` from `lam`, of highest PSNR on validation."""
    chosen = list(slices(dataset, "validation"))[:TUNED]
    tried: dict[int, float] = {}

    def at(k: int) -> float:
        return float(f"{lam * STRIDE**k:.3g}")

    def look(k: int) -> float:
        if k not in tried:
            images = [total_variation(each, at(k), unit) for each in chosen]
            pairs = zip(images, chosen, strict=True)
            tried[k] = float(np.mean([metrics.psnr(i, e.target, window) for i, e in pairs]))
        return tried[k]

    # Uphill, to whichever side that is.
    side, k = (1 if look(1) > look(0) else -1), 0
    while look(k + side) > look(k):
        k += side
    return at(k)


def _unet(name: str) -> Translator:
    if not (pretrained.FOLDER / name / "run.json").exists():
        pretrained.train(name)
    return loading.build(registry.lookup(str(pretrained.FOLDER / name)))


def _builder(dataset: str) -> Any:
    return prepare.load_builder(dataset, pretrained.FOLDER / "data", Recipe.preset("paper"))
