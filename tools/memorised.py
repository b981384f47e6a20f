"""A pggan that learned 20 images by heart beside one that cannot: `memorised` of `docs/trust.md`.

    python -m tools.trust --only=memorised --write

Both are the same small run, on simulated mammograms of 16 x 16 pixels: of 20 images, which it comes
to copy, and of so many that it has no room for them. Both are asked what `evaluate` asks of every
generator, whether it makes copies of its training, and what `tools/judges/membership.py` asks of
what is shipped, whether who was trained on can be told. About four minutes of one core each.
"""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import zoo
from tools.judges import membership
from zoo import figures, registry, training
from zoo.evaluation import copies, measure
from zoo_datasets.mammo import phantom

FEW, MANY = 20, 480
HELD_OUT = 64  # images of other patients
SIDE, FINER = 16, 4  # pixels, and how many of the simulation make one
GENERATED = 500  # to which members and others are compared
LARGER = 6  # times, in the picture
_GAP = 6  # pixels between its images
# No flips, hardly a penalty, and some fourteen thousand looks at every image of 20.
RECIPE = {
    "steps": 14_000,
    "resolution": SIDE,
    "latent": 8,
    "fmap_base": 256,
    "fmap_max": 32,
    "batch_sizes": (20,),
    "fade_images": 10_000,
    "stable_images": 40_000,
    "images": 280_000,
    "learning_rate": 2e-3,
    "ema": 0.99,
    "adversarial": "bce",
    "r1": 0.01,
    "image_every": 20_000,
    "checkpoint_every": 7_000,
    "precision": "float32",
}


@dataclasses.dataclass
class Memory:
    """What a run remembers of its training images.

    Attributes:
        images: of the training.
        copied: of the generated images, the share that is flagged.
        auc: of telling the training's images from others, with its 95 % interval.
        pairs: generated images and the training images nearest to them, the nearest first.
    """

    images: int
    copied: float
    auc: list[float]
    pairs: list[tuple[np.ndarray, np.ndarray]]

    @property
    def passes(self) -> bool:
        """As the judges have it: no copy, and at most `membership.MOST`."""
        return self.copied == 0 and self.auc[0] <= membership.MOST


def images(first: int, count: int) -> np.ndarray:
    """Simulated mammograms, float32 `[count, SIDE, SIDE, 1]`."""
    fine = []
    for number in range(first, first + count):
        fine.append(phantom.example(number, 2024, SIDE * FINER)["image"])
    blocks = np.reshape(fine, (count, SIDE, FINER, SIDE, FINER, 1))
    return blocks.mean((2, 4), dtype=np.float32)


def remembered(folder: Path, count: int, **changes: Any) -> Memory:
    """Train on so many images, and ask.

    Args:
        folder: for data and run.
        count: images of the training.
        changes: of `RECIPE`.
    """
    # The training's, the held-out ones, and a few to validate on, each a file.
    training_images, held_out = images(0, count), images(MANY + 100, HELD_OUT)
    parts = {"train": training_images, "test": held_out, "val": images(MANY, 8)}
    for name, part in parts.items():
        (folder / "images" / name).mkdir(parents=True)
        for number, image in enumerate(part):
            np.save(folder / "images" / name / f"{name}{number:03d}.npy", image[..., 0])
    options = {"data_dir": folder / "data", "input": folder / "images"}
    entry = registry.lookup("pggan", "folder", overrides=RECIPE | changes)
    training.train(entry, folder / "run", **options)
    # As `evaluate` does, and the judge of membership.
    run = registry.lookup(str(folder / "run"), weights="last")
    found = measure.evaluate(run, folder / "evaluation", **options)["memorisation"]
    model = zoo.load(str(folder / "run"), weights="last")
    window = model.target.window
    made = model.generate(GENERATED, seed=2)
    near = np.array(copies.nearness(made, [*training_images, *held_out], window))
    nearest = copies.nearest_training(made, training_images, held_out, window)
    order = np.argsort(-nearest.similarity)
    return Memory(
        images=count,
        copied=found["flagged"] / len(found["per_image"]),
        auc=membership.area(near[:count], near[count:]),
        pairs=[(made[k], nearest.nearest[k]) for k in order],
    )


def table(picture: Path | None) -> str:
    """Markdown of both runs; and a picture of what was copied."""
    lines = [
        f"{HELD_OUT} images of each run, and as many held-out ones, simulated mammograms of "
        f"{SIDE} × {SIDE} pixels:\n",
        "| trained on | copies among the generated images | membership AUC | the gate |",
        "|---|---|---|---|",
    ]
    for count in (FEW, MANY):
        with tempfile.TemporaryDirectory(prefix="zoo-") as scratch:
            found = remembered(Path(scratch), count)
        auc, low, high = found.auc
        verdict = "passes" if found.passes else "**fails**"
        lines.append(
            f"| {count} images | {found.copied:.0%} | {auc:.3f} ({low:.3f} to {high:.3f}) | "
            f"{verdict} |"
        )
        if picture is not None and count == FEW:
            figures.save_png(picture, shown(found))
    return "\n".join(lines)


def shown(found: Memory, columns: int = 8) -> np.ndarray:
    """uint8 of generated images in a row, evenly among the nearest half, over what they copy."""
    half = found.pairs[: len(found.pairs) // 2]
    chosen = half[:: len(half) // columns][:columns]
    whole = float(np.max(chosen))
    rows = []
    for number in (0, 1):
        row = []
        for pair in chosen:
            tile = figures.grey(pair[number], (0.0, whole))
            row.append(
                np.pad(
                    tile.repeat(LARGER, 0).repeat(LARGER, 1),
                    ((0, 0), (0, _GAP)),
                    constant_values=90,
                )
            )
        rows.append(np.concatenate(row, axis=1))
    gap = np.full((_GAP, rows[0].shape[1]), 90, np.uint8)
    return np.concatenate([rows[0], gap, rows[1]])[:, :-_GAP]
