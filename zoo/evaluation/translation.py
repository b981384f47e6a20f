"""Measures of translated images: against their targets, or as a set where none is aligned."""

import itertools
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from zoo import metrics, set_metrics
from zoo.domain import Domain
from zoo.evaluation import intervals
from zoo.evaluation.examples import Chosen, Example, input_domain, require_shape, shown
from zoo.evaluation.volumes import Volumes, definition

SET_LIMIT = 1024  # images held at once where whole sets are compared
AIR = -1000.0  # HU: no attenuation, of which the normalised error is counted


def compare_pairs(
    model: Any, examples: Iterator[Example], seed: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Pixel-wise measures, image by image and volume by volume, and the examples to show.

    Examples hold "output".
    """
    domain, rows = model.target, []
    zero = AIR if domain.unit == "HU" else 0.0
    chosen, masked, name = Chosen(seed, "PSNR"), None, ""
    with tempfile.TemporaryFile() as file:
        how = definition(domain)
        volumes = Volumes(how, model.dimensions == 3, file) if how else None
        for example in examples:
            target = example["target"]
            require_shape(example)
            masked = "mask" in example if masked is None else masked
            _require_mask(example, masked)
            mask = body(example, domain)
            # The image's measures, beside those of what there is without the model.
            output = metrics.compare(example["output"], target, domain.window, mask=mask, zero=zero)
            row = {
                "name": example["name"],
                "patient": example["patient"],
                "ms_ssim_scales": metrics.ms_ssim_scales(target.shape[-3:]),
                "output": output,
            }
            baseline, name = model.baseline(example["source"])
            if baseline is not None:
                before = metrics.compare(baseline, target, domain.window, mask=mask, zero=zero)
                row |= {"input": before, "gain": intervals.differences(output, before)}
            rows.append(row)
            chosen.add(shown(example, baseline) | {"row": row}, output["psnr"])
            if volumes is not None:
                volumes.add(example, baseline)
        by_volume = None if volumes is None else volumes.measured(seed)
    # What is known once all have been seen.
    found_in_ct = "threshold" if domain.unit == "HU" else None
    summary, per_patient = intervals.summaries(rows, ("output", "input", "gain"), seed)
    measured = {
        "kind": "translation",
        "images": len(rows),
        "patients": len(per_patient) or None,
        "baseline": name or None,
        "body": "mask of the data set" if masked else found_in_ct,
        "ms_ssim_scales": sorted({row["ms_ssim_scales"] for row in rows}),
        "summary": summary,
        "volumes": by_volume,
        "per_patient": per_patient,
        "per_image": rows,
    }
    return measured, {"examples": chosen.labelled(summary["output"]["psnr"]["median"])}


def body(example: Example, domain: Domain) -> np.ndarray | None:
    """The patient's body: the data set's mask, or what of a CT lies within the skin; else None."""
    if "mask" not in example and domain.unit == "HU":
        example["mask"] = metrics.body_mask(example["target"])
    return example.get("mask")


def fidelity(example: Example, domain: Domain) -> dict[str, float]:
    """The few quick measures of an output: `psnr`, `mae` and, of 11 pixels a side or more, `ssim`.

    Args:
        example: with "output" and "target" of one shape, perhaps "mask".
        domain: the target's.

    Returns:
        As `metrics.compare`; where the `body` is known PSNR and MAE are those within it.
    """
    output, target = example["output"], example["target"]
    mask = body(example, domain)
    if mask is None:
        psnr = min(metrics.psnr(output, target, domain.window), 100.0)
        measured = {"psnr": psnr, "mae": metrics.mae(output, target)}
    else:
        inside = metrics.in_body(output, target, domain.window, mask)
        measured = {"psnr": inside["psnr_body"], "mae": inside["mae_body"]}
    if min(target.shape[-3:-1]) >= 11:
        measured["ssim"] = metrics.ssim(output, target, domain.window)
    return measured


def _require_mask(example: Example, masked: bool) -> None:
    """A ValueError where one example has a mask and others have none."""
    if masked != ("mask" in example):
        raise ValueError(
            "dataset: expected a mask with every example, or with none. "
            f"Received: {'none' if masked else 'one'} with {example['name']!r}"
        )


def compare_sets(
    model: Any, examples: Iterator[Example], seed: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Outputs against targets as sets, for data whose source and target do not correspond.

    Examples hold "output". Both sides come from different halves of the examples, as do the two
    real sets of the reference. Of volumes the middle slices are compared.
    """
    # Some or all of the examples, as they are shown.
    kept: list[Example] = []
    patients = set()
    for example in itertools.islice(examples, SET_LIMIT):
        patients.add(example["patient"])
        kept.append(shown(example, model.baseline(example["source"])[0]))
    if len(kept) < 2:
        raise ValueError("dataset: expected at least 2 unaligned examples. Received: 1")
    half = len(kept) // 2
    first, second = kept[:half], kept[half : 2 * half]
    # The part that every image has.
    shapes = [example[key].shape[:2] for example in kept for key in ("input", "target", "output")]
    size = tuple(np.min(shapes, axis=0))

    def images(part: list[Example], key: str) -> np.ndarray:
        domain = input_domain(model.source, model.target) if key == "input" else model.target
        return as_set([example[key] for example in part], size, domain)

    # How far from real targets others are, real ones among them.
    real = images(first, "target")
    others = {"output": images(second, "output"), "real target": images(second, "target")}
    if kept[0]["input"].shape[-1] == model.target.channels:
        others["input"] = images(second, "input")
    distances: dict[str, Any] = {"images": half}
    for key, value in others.items():
        distances[key] = set_metrics.sliced_wasserstein(real, value, seed=seed)
    measured = {
        "kind": "unaligned translation",
        "images": len(kept),
        "patients": len(patients) if "" not in patients else None,
        "sliced_wasserstein": distances,
    }
    random = np.random.default_rng(seed).permutation(len(kept))[:5]
    return measured, {"examples": [("Random", kept[i]) for i in sorted(random)]}


def as_set(images: list[np.ndarray], size: tuple[int, ...], domain: Domain) -> np.ndarray:
    """Images `[H, W, C]` as `[N, *size, C]`: their middles, clipped to the window."""
    return np.clip([_middle_crop(image, size) for image in images], *domain.window)


def _middle_crop(image: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    top, left = ((side - wanted) // 2 for side, wanted in zip(image.shape, size, strict=False))
    return image[top : top + size[0], left : left + size[1]]
