"""Measures of generated images, as a set: how like real ones, how varied, and whether copied."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tqdm

from zoo import set_metrics
from zoo.domain import Domain
from zoo.evaluation import copies
from zoo.evaluation.examples import Example, put_in_sample, require_finite
from zoo.evaluation.translation import SET_LIMIT


def compare_sets(
    model: Any, examples: Iterator[Example], training_images: Iterable[Any] | None, seed: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Generated images against held-out ones as sets, and against the training images."""
    domain = model.target
    # A generator cannot leave its window: real images are compared within it too.
    real, patients = _stacked(itertools.islice(examples, SET_LIMIT))
    held_out = domain.clip(real)
    count = len(held_out)
    made = np.asarray(model.generate(count, seed=seed), np.float32)
    if made.shape != held_out.shape:
        raise ValueError(
            f"model: expected generated images {held_out.shape}, as in the data set. "
            f"Received: {made.shape}"
        )
    for i, image in enumerate(made):
        require_finite(image, "model", f"generated image {i}")
    sets = {"generated": made, "held out": held_out}
    memorisation, pairs = None, []
    if training_images is not None:
        sample: list[np.ndarray] = []
        stream = _sampled(_clipped(training_images, domain), count, sample, seed)
        nearest = copies.nearest_training(made, stream, held_out, domain.window)
        if len(sample) == count:
            sets["training"] = np.stack(sample)
        memorisation = _memorisation(nearest)
        for i in np.argsort(-nearest.similarity, kind="stable")[:6]:
            pairs.append((made[i], nearest.nearest[i], memorisation["per_image"][i]))
    # Each set beside the held-out images, and by itself.
    distances: dict[str, Any] = {"images": count}
    intensity, similarity = {}, {}
    for key, images in sets.items():
        if key != "held out":
            distances[key] = set_metrics.sliced_wasserstein(held_out, images, seed=seed)
        intensity[key] = {"mean": float(images.mean()), "sd": float(images.std())}
        similarity[key] = set_metrics.pair_similarity(images, domain.window, seed=seed)
    measured = {
        "kind": "generation",
        "images": count,
        "patients": len(patients) if "" not in patients else None,
        "sliced_wasserstein": distances,
        "intensity": intensity,
        "pair_ms_ssim": similarity,
        "memorisation": memorisation,
    }
    return measured, {"sets": {key: images[:25] for key, images in sets.items()}, "pairs": pairs}


def _stacked(examples: Iterator[Example]) -> tuple[np.ndarray, set[str]]:
    """Images of one shape as `[N, H, W, C]`, and whose they are."""
    images: list[np.ndarray] = []
    patients = set()
    for example in examples:
        images.append(example["image"])
        patients.add(example["patient"])
        if images[-1].shape != images[0].shape:
            raise ValueError(
                f"dataset: expected images of one shape, {images[0].shape}. "
                f"Received: {images[-1].shape} in {example['name']!r}"
            )
    return np.stack(images), patients


def _memorisation(nearest: copies.NearestTraining) -> dict[str, Any]:
    """How near generated images are to the training images, as `metrics.json` has it."""
    per_image = []
    for i, similarity in enumerate(nearest.similarity):
        per_image.append(
            {
                "similarity": float(similarity),
                "percentile": float(nearest.percentile[i]),
                "copy": bool(nearest.flagged[i]),
            }
        )
    return {
        "training_images": nearest.training,
        "flagged": int(nearest.flagged.sum()),
        "threshold": nearest.threshold,
        "planted_copies_found": nearest.found,
        "median_similarity": float(np.median(nearest.similarity)),
        "median_held_out_similarity": float(np.median(nearest.held_out_similarity)),
        "held_out_copies": nearest.held_out_copies,
        "per_image": per_image,
    }


def _clipped(images: Iterable[Any], domain: Domain) -> Iterator[np.ndarray]:
    for item in tqdm.tqdm(images, desc="training images", unit="image", disable=None):
        image = item["image"] if isinstance(item, dict) else item
        yield domain.clip(np.asarray(image, np.float32))


def _sampled(
    images: Iterator[np.ndarray], size: int, sample: list[np.ndarray], seed: int
) -> Iterator[np.ndarray]:
    """Passes images through and leaves a uniform sample of them in `sample`."""
    rng = np.random.default_rng(seed)
    for count, image in enumerate(images):
        put_in_sample(sample, image, count, size, rng)
        yield image
