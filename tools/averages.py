"""What averages gain over a single answer, and what they cost: the table of docs/training.md.

    python -m tools.averages DATASET MODEL [MODEL ...]

Each MODEL is a pretrained model's name or a run folder. The data set's split "test", which no fold
touches, is translated by each model alone and by the averages: test-time augmentation of each
model, and of several models the mean, without and with it. A gain is the difference of an image's
PSNR and the mean of the models' own, averaged over patients, with its 95 % interval. Time is that
of the processor.
"""

import sys
import time
from collections.abc import Iterable
from typing import Any

import numpy as np

import zoo
from zoo import guards, loading, metrics, registry
from zoo.data import batches, prepare
from zoo.evaluation import intervals


def ways(models: list[Any]) -> dict[str, list[Any]]:
    """What is compared, by what it is called: of each answer alone one for each model."""
    views = [zoo.Average([model], tta=True) for model in models]
    found = {"alone": models, views[0].note: views}
    if len(models) > 1:
        for average in (zoo.Average(models), zoo.Average(models, tta=True)):
            found[average.note] = [average]
    return found


def measured(compared: dict[str, list[Any]], examples: Iterable[dict]) -> list[dict[str, Any]]:
    """A row for each of what is compared: gain, interval, patients, images and cost.

    Args:
        compared: as of `ways`.
        examples: pairs with "patient", in physical units.
    """
    psnr: dict[str, list[float]] = {name: [] for name in compared}
    seconds = dict.fromkeys(compared, 0.0)
    patients = []
    for number, example in enumerate(examples):
        patients.append(example["patient"])
        for name, models in compared.items():
            if not number:  # the first call compiles
                for model in models:
                    model.translate(example["source"][None])
            started = time.process_time()
            outputs = [model.translate(example["source"][None])[0] for model in models]
            seconds[name] += (time.process_time() - started) / len(models)
            window = models[0].target.window
            each = [metrics.psnr(output, example["target"], window) for output in outputs]
            psnr[name].append(float(np.mean(each)))
    rows = []
    for name in compared:
        gain = list(np.subtract(psnr[name], psnr["alone"]))
        summary = intervals.independent(intervals.summary(gain, patients))
        mean = intervals.independent(intervals.summary(psnr[name], patients))["mean"]
        cost = seconds[name] / seconds["alone"]
        rows.append({"name": name, "psnr": mean, "cost": cost, "images": len(gain)} | summary)
    return rows


def main() -> None:
    dataset, *names = sys.argv[1:]
    entries = [registry.lookup(name, dataset) for name in names]
    builder = prepare.load_builder(entries[0].dataset, None, entries[0].recipe)
    models = [loading.build(entry) for entry in entries]
    examples = batches.eval_dataset(builder, "test", scale=entries[0].recipe.scale)
    print(f"{', '.join(names)} on {entries[0].dataset}\n")
    print("| answer | PSNR in dB | gain (95 % interval) | time |\n|---|---|---|---|")
    with guards.silent():
        for row in measured(ways(models), examples):
            low, high = row["ci95"]
            gain = f"{row['mean']:+.2f} ({low:+.2f} to {high:+.2f})"
            gain = "" if row["name"] == "alone" else gain
            print(f"| {row['name']} | {row['psnr']:.2f} | {gain} | {row['cost']:.1f} × |")
    print(f"\n{row['count']} {row['of']}, {row['images']} images.")


if __name__ == "__main__":
    main()
