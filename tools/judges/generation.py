"""Generators: images against held-out ones as sets.

The distances: sliced Wasserstein, which sees patches, and KID on the trunk `hed` (extra
`perceptual`), which sees shapes. The power in each octave of spatial frequency, over that of the
held-out images, tells texture that is missing, and grids.
"""

import numpy as np

from tools.judges.result import Result, examples
from zoo import extractors, set_metrics
from zoo.evaluation import copies
from zoo.figures import display_windows
from zoo.translator import Translator


def generation(model: Translator, dataset: str) -> Result:
    """Images against held-out ones as sets: distance, texture, diversity and memorisation."""
    test = list(examples(dataset, model, "test"))
    held = model.target.clip(np.stack([example["image"] for example in test]))
    made = np.asarray(model.generate(len(held), seed=1), np.float32)

    # Both distances between sets of one size: it falls as sets grow.
    half = len(held) // 2
    order = np.random.default_rng(0).permutation(len(held))
    first, second = held[order[:half]], held[order[half : 2 * half]]
    floor = set_metrics.sliced_wasserstein(first, second)["mean"]
    distance = np.mean(
        [set_metrics.sliced_wasserstein(part, made[:half])["mean"] for part in (first, second)]
    )
    kid, kid_halves = _kid(*(model.target.encode(part) for part in (held, made, first, second)))
    power = set_metrics.octave_power(made) / set_metrics.octave_power(held)

    # How alike two images of a set are, and how near to an image of the training.
    window = model.target.window
    alike = {n: set_metrics.pair_similarity(i, window) for n, i in (("made", made), ("held", held))}
    training = (model.target.clip(e["image"]) for e in examples(dataset, model, "train"))
    nearest = copies.nearest_training(made, training, held, window)

    figures = {
        "sliced_wasserstein": round(float(distance), 1),
        "sliced_wasserstein_halves": round(float(floor), 1),
        "kid": round(1e3 * kid, 1),
        "kid_halves": round(1e3 * kid_halves, 1),
        "octave_power_lowest": round(float(power.min()), 2),
        "octave_power_highest": round(float(power.max()), 2),
        "pair_ms_ssim": round(float(alike["made"]), 3),
        "pair_ms_ssim_data": round(float(alike["held"]), 3),
        "copies": int(nearest.flagged.sum()),
        "planted_copies_found": round(nearest.found, 3),
        "nearest_training_similarity": round(float(np.median(nearest.similarity)), 3),
        "nearest_training_similarity_held_out": round(
            float(np.median(nearest.held_out_similarity)), 3
        ),
    }
    checks = {
        "distance to held-out images at most 1.3 times that between halves of them": distance
        <= 1.3 * floor,
        "power in each octave within 15 % of the data's": bool(np.abs(power - 1).max() <= 0.15),
        "diversity within 0.03 of the data's": abs(alike["made"] - alike["held"]) <= 0.03,
        "at least 99 % of planted copies found": nearest.found >= 0.99,
        "no copy of a training image": not nearest.flagged.any(),
    }

    # In the window that suits the data best.
    windows = display_windows(held, model.target.unit, window)
    where, window = next(iter(windows.items()))
    where = f": {where}" if where else ""
    closest: dict[str, np.ndarray] = {}
    for i in np.argsort(-nearest.similarity)[:3]:
        closest |= {f"made {i}": made[i, ..., 0], f"training for {i}": nearest.nearest[i, ..., 0]}
    shown = [
        ("generated" + where, {str(i): made[i, ..., 0] for i in range(6)}, window),
        ("held out" + where, {str(i): held[order[i], ..., 0] for i in range(6)}, window),
        ("nearest to a training image" + where, closest, window),
    ]
    patients = {example["patient"] for example in test}
    judged = f"{len(held)} images of {len(patients)} patients, test split of {dataset}"
    return Result(judged, figures, checks, [], shown)


def _kid(held: np.ndarray, made: np.ndarray, *halves: np.ndarray) -> tuple[float, float]:
    """Of what was made to what was held out, and of two halves of that to each other."""
    trunk = extractors.feature_extractor("hed")
    seen = extractors.features(trunk, held)
    scale = np.sqrt(np.mean(np.square(seen, dtype=np.float64)))
    others = [extractors.features(trunk, images) / scale for images in (made, *halves)]
    return set_metrics.kid(seen / scale, others[0]), set_metrics.kid(*others[1:])
