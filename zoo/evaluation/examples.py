"""Examples of an evaluation: checked, translated, and a few of them kept to be shown."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from zoo import guards
from zoo.domain import Domain

Example = dict[str, Any]

KEPT = 24  # examples held for the report's pictures


def checked(example: Example, keys: tuple[str, ...], dimensions: int) -> Example:
    """The example's images as finite float32 `[H, W, C]`, its mask, labels, patient and name."""
    result: Example = {key: _text(example.get(key, "")) for key in ("patient", "name")}
    for key in keys:
        image = np.asarray(example[key], np.float32)
        if image.ndim != dimensions + 1:
            axes = "[H, W, C]" if dimensions == 2 else "[D, H, W, C]"
            raise ValueError(f"dataset: expected {key} {axes}. Received: shape {image.shape}")
        require_finite(image, "dataset", f"{key} of {result['name']!r}")
        result[key] = image
    if "mask" in example and "target" in result:
        mask, shape = np.asarray(example["mask"], bool), (*result["target"].shape[:-1], 1)
        if mask.shape != shape:
            raise ValueError(
                f"dataset: expected a mask of shape {shape} with {result['name']!r}. "
                f"Received: {mask.shape}"
            )
        result["mask"] = mask
    if "labels" in example:
        result["labels"] = np.asarray(example["labels"])
    return result


def translated(model: Any, examples: Iterator[Example], batch_size: int) -> Iterator[Example]:
    """Examples with "output", translated in runs of one shape."""
    for _, run in itertools.groupby(examples, key=lambda example: example["source"].shape):
        while batch := list(itertools.islice(run, batch_size)):
            with guards.silent():
                outputs = model.translate(np.stack([example["source"] for example in batch]))
            for example, output in zip(batch, outputs, strict=True):
                output = np.asarray(output, np.float32)
                require_finite(output, "model", f"its output for {example['name']!r}")
                yield example | {"output": output}


def require_finite(image: np.ndarray, argument: str, what: str) -> None:
    """A ValueError for NaN or infinity in an image; names whose it is."""
    bad = int(image.size - np.isfinite(image).sum())
    if bad:
        raise ValueError(
            f"{argument}: expected finite values in {what}. "
            f"Received: NaN or infinity in {bad} of {image.size} values"
        )


def require_shape(example: Example) -> None:
    """A ValueError where an example's output has another shape than its target."""
    output, target = example["output"].shape, example["target"].shape
    if output != target:
        raise ValueError(
            f"model: expected an output of the target's shape {target} for "
            f"{example['name']!r}. Received: {output}"
        )


def shown(example: Example, baseline: np.ndarray | None) -> Example:
    """The example with images to look at: of volumes the middle slice, and as "input" the baseline.

    Without one "input" is the source itself.
    """
    images = {key: example[key] for key in ("source", "output", "target")}
    images["input"] = images["source"] if baseline is None else baseline
    if example["target"].ndim == 4:
        images = {key: volume[len(volume) // 2] for key, volume in images.items()}
    return example | images


def input_domain(source: Domain, target: Domain) -> Domain:
    """What the "input" that is shown means: what comes of k-space is in the target's unit."""
    return target if source.unit == "k-space" else source


class Chosen:
    """A bounded choice of examples: best, worst, and a random sample that holds the median.

    Args:
        seed: of the sample.
        measure: what the scores are, in words.
    """

    def __init__(self, seed: int, measure: str):
        self.measure = measure
        self.rng = np.random.default_rng(seed)
        self.count = 0
        self.best: tuple[float, Example] | None = None
        self.worst: tuple[float, Example] | None = None
        self.sample: list[tuple[float, Example]] = []

    def add(self, example: Example, score: float) -> None:
        if self.best is None or score > self.best[0]:
            self.best = score, example
        if self.worst is None or score < self.worst[0]:
            self.worst = score, example
        put_in_sample(self.sample, (score, example), self.count, KEPT, self.rng)
        self.count += 1

    def labelled(self, median: float) -> list[tuple[str, Example]]:
        """Label and example, each example once: best, near the median, worst, two random."""
        if self.best is None or self.worst is None:
            return []
        middle = min(self.sample, key=lambda item: abs(item[0] - median))
        order = self.rng.permutation(len(self.sample))
        items = [
            (f"Best {self.measure}", self.best[1]),
            (f"Near the median {self.measure}", middle[1]),
            (f"Worst {self.measure}", self.worst[1]),
            *(("Random", self.sample[i][1]) for i in order),
        ]
        unique: dict[int, tuple[str, Example]] = {}
        for label, example in items:
            unique.setdefault(id(example), (label, example))
        return list(unique.values())[:5]


def put_in_sample(sample: list, item: Any, count: int, size: int, rng: np.random.Generator) -> None:
    """Vitter's algorithm R: after each of many calls `sample` is uniform over the items seen.

    Args:
        sample: what is kept, changed in place.
        item: what is seen.
        count: the items seen before.
        size: how many are kept.
        rng: decides.
    """
    if len(sample) < size:
        sample.append(item)
    elif (position := int(rng.integers(count + 1))) < size:
        sample[position] = item


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
