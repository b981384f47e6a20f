"""Measures of a pixel-wise classifier: the overlap of its label maps with the targets'."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from zoo import metrics
from zoo.evaluation import intervals
from zoo.evaluation.examples import Chosen, Example, require_shape, shown


def compare_labels(
    model: Any, examples: Iterator[Example], seed: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Overlap of label maps, image by image, and the examples to show.

    Examples hold "output".

    A class that is neither in an image's output nor in its target does not count there, and the
    mean Dice is over the foreground classes that do.
    """
    names = class_names(model)
    rows, shares = [], []
    chosen = Chosen(seed, "mean Dice")
    for example in examples:
        require_shape(example)
        row = overlap(example, names)
        rows.append(row)
        # How often each class is in the target.
        labels = example["target"].astype(int).ravel()
        shares.append(np.bincount(labels, minlength=len(names)) / labels.size)
        # What has no foreground class in either map has no score to choose it by.
        if not np.isnan(row["output"]["dice"]):
            baseline, _ = model.baseline(example["source"])
            chosen.add(shown(example, baseline) | {"row": row}, row["output"]["dice"])
    summary, per_patient = intervals.summaries(rows, ("output", "classes"), seed)
    share = np.mean(shares, axis=0)
    measured = {
        "kind": "segmentation",
        "images": len(rows),
        "patients": len(per_patient) or None,
        "label_names": names,
        "share": dict(zip(names, share.tolist(), strict=True)),
        # What is right where every pixel is given the commonest class.
        "majority": {"class": names[share.argmax()], "accuracy": float(share.max())},
        "summary": summary,
        "per_patient": per_patient,
        "per_image": rows,
    }
    return measured, {"examples": chosen.labelled(summary["output"]["dice"]["median"])}


def class_names(model: Any) -> list[str]:
    """A name for each class, the background first; numbers where the model knows none."""
    names = [str(name) for name in model.label_names or range(model.classes)]
    if len(names) != model.classes or len(set(names)) != model.classes:
        raise ValueError(
            f"label_names: expected {model.classes} different names. Received: {names}"
        )
    return names


def overlap(example: Example, names: list[str]) -> dict[str, Any]:
    """The measures of one image or volume."""
    output, target = example["output"], example["target"]
    try:
        overlap = metrics.dice(output, target, len(names))
    except ValueError as error:
        raise ValueError(f"{example['name']!r}: {error}") from None
    present = overlap[1:][~np.isnan(overlap[1:])]
    return {
        "name": example["name"],
        "patient": example["patient"],
        "output": {
            "dice": float(present.mean()) if present.size else float("nan"),
            "accuracy": float(np.mean(output == target)),
        },
        "classes": dict(zip(names, overlap.tolist(), strict=True)),
    }
