"""What volumes gain over slices: one network in 2-D, 2.5-D and 3-D, each for equal CPU seconds.

    python -m tools.compare_dimensions --dataset=mr_ct/phantom_3d --cpu-seconds=600

The encoder-decoder of the small preset learns from the same volumes as slices, as slices with their
two neighbours for channels, and as volumes. Each is given as many steps as take the processor time
asked for, measured on its first ones, and is measured on the whole volumes of the validation split.
Of a data set of two resolutions the sources are interpolated to the targets' grid first.
Prints a Markdown table: the mean over the volumes, and their standard deviation.
"""

import argparse
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from zoo import loading, registry
from zoo.bicubic import enlarge
from zoo.data.batches import eval_dataset
from zoo.data.facts import image_keys
from zoo.data.prepare import load_builder
from zoo.domain import Domain
from zoo.models.encoder_decoder import EncoderDecoder, EncoderDecoderRecipe

# Patches of as many voxels a step: eight slices, or two blocks of sixteen slices of a quarter.
KINDS: dict[str, dict[str, Any]] = {
    "2-D": {"dimensions": 2, "slices": 1, "batch_size": 8, "crop": 64},
    "2.5-D": {"dimensions": 2, "slices": 3, "batch_size": 8, "crop": 64},
    "3-D": {"dimensions": 3, "slices": 1, "batch_size": 2, "crop": (16, 32, 32)},
}
PROBED = 8  # steps by which the time of one is measured

Pairs = list[tuple[np.ndarray, np.ndarray]]


def pairs(builder: Any, split: str, scale: int) -> Pairs:
    """The volumes of a split, float32 `[D, H, W, 1]`, sources on the targets' grid."""
    found = []
    for example in eval_dataset(builder, split, scale=scale):
        source = example["source"]
        if scale > 1:
            source = enlarge(tf.constant(source[None]), scale).numpy()[0]
        found.append((source, example["target"]))
    return found


def with_neighbours(volume: np.ndarray, slices: int) -> np.ndarray:
    """Each slice with those around it as channels, the last ones repeated: `[D, H, W, slices]`."""
    places = np.arange(len(volume))
    around = range(-(slices // 2), slices // 2 + 1)
    return np.concatenate([volume[np.clip(places + i, 0, len(volume) - 1)] for i in around], -1)


def batch(data: Pairs, recipe: EncoderDecoderRecipe, rng: np.random.Generator) -> dict[str, Any]:
    """Random patches of random volumes, mirrored left to right half of the time."""
    chosen: dict[str, list[np.ndarray]] = {"source": [], "target": []}
    for _ in range(recipe.batch_size):
        source, target = data[rng.integers(len(data))]
        sides: Sequence[int] = recipe.crop_sides
        if recipe.dimensions == 2:
            sides = (1, *sides)
        taken = [min(side, size) for side, size in zip(sides, source.shape, strict=False)]
        starts = [rng.integers(n - t + 1) for n, t in zip(source.shape, taken, strict=False)]
        place = tuple(slice(s, s + t) for s, t in zip(starts, taken, strict=True))
        step = rng.choice([1, -1])
        for name, volume in (("source", source), ("target", target)):
            patch = volume[place][..., ::step, :]
            chosen[name].append(patch[0] if recipe.dimensions == 2 else patch)
    return {name: tf.constant(np.stack(patches)) for name, patches in chosen.items()}


def trained(
    data: Pairs, source: Domain, target: Domain, fields: dict[str, Any], seconds: float
) -> tuple[EncoderDecoder, float]:
    """A model that has learned for `seconds` of processor time, and the time that it took."""
    steps, took = PROBED, 0.0
    for run in ("probe", "train"):
        entry = registry.lookup(
            "encoder_decoder", preset="small", overrides=fields | {"steps": steps}
        )
        model: Any = loading.build(entry, source, target)
        model.compile()
        step, rng = tf.function(model.train_step), np.random.default_rng(0)
        step(batch(data, model.recipe, rng))  # traced, which is not counted
        start = time.process_time()
        for _ in range(steps - 1):
            step(batch(data, model.recipe, rng))
        took = time.process_time() - start
        if run == "probe":
            steps = max(PROBED, round(seconds / took * (steps - 1)))
    return model, took


def translated(model: EncoderDecoder, source: np.ndarray) -> np.ndarray:
    """A whole volume's translation."""
    if model.dimensions == 3:
        return model.translate(source[None])[0]
    return model.translate(source, batch_size=4)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", required=True, help="pairs of volumes, such as sr/phantom_3d")
    parser.add_argument("--cpu-seconds", type=float, default=600, help="of each training")
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--kinds", default=",".join(KINDS))
    given = parser.parse_args(arguments)
    # The data.
    builder = load_builder(given.dataset, given.data_dir, EncoderDecoderRecipe(dimensions=3))
    metadata = builder.info.metadata
    scale = min(metadata.get("scales", [1]))
    source, target = (Domain.from_dict(metadata[key]) for key in image_keys(builder, scale))
    training, validation = (pairs(builder, s, scale) for s in ("train", "validation"))
    print(
        f"{given.dataset}: {len(training)} volumes to learn from, n = {len(validation)} measured\n"
    )
    print("| | steps | CPU seconds | MAE | PSNR (dB) |\n|---|---|---|---|---|")
    # Each kind of network.
    for kind in given.kinds.split(","):
        keras.utils.set_random_seed(0)
        fields = dict(KINDS[kind])
        slices = fields.pop("slices")
        data = [(with_neighbours(image, slices), truth) for image, truth in training]
        seen = dataclasses.replace(source, channels=slices)
        model, took = trained(data, seen, target, fields, given.cpu_seconds)
        errors, ratios = [], []
        for image, truth in validation:
            output = translated(model, with_neighbours(image, slices))
            error = np.asarray(target.clip(output)) - np.asarray(target.clip(truth))
            errors.append(float(np.mean(np.abs(error))))
            ratios.append(10 * np.log10(target.span**2 / float(np.mean(error**2))))
        print(
            f"| {kind} | {model.recipe.steps} | {took:.0f} | {np.mean(errors):.1f} ± "
            f"{np.std(errors):.1f} | {np.mean(ratios):.2f} ± {np.std(ratios):.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
