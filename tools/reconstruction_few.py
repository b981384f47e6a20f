"""Learned primal-dual from four images beside total variation: a table of docs/reconstruction.md.

    python -m tools.reconstruction_few    # a quarter of an hour; writes the table

The four are slices of four patients of the training of `ct_recon/phantom`, each in the eight ways
that a square can be turned and mirrored, their measurements with them. So few are learned by heart,
which is why the step is the one that is best for slices of the validation split. Total variation
knows the noise, and its weight is best for slices of that split too. Test slices are those of the
card of `learned_primal_dual_ct_recon`.
"""

import itertools
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

import zoo
from tools.judges.unrolled import Slice, best_weight, compared, quality, slices, total_variation
from zoo import metrics
from zoo.atomic import write_atomic
from zoo.domain import Domain
from zoo.translator import Translator
from zoo_datasets.features import CT_WINDOW

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reconstruction.md"
_TABLE = re.compile(r"^\| method, from four images \|.*\n(?:\|.*\n)+", re.MULTILINE)
DATASET, LAM = "ct_recon/phantom", 160.0  # and the weight to look from
FEW, VALIDATION = 4, 3  # images
STEPS, EVERY = 1000, 100  # and from one look at the validation split to the next
SINOGRAM = Domain(modality="CT", unit="line integral", window=(0.0, 8.0))
HU = Domain(modality="CT", unit="HU", window=CT_WINDOW)
NAMES = {
    "quick": "filtered back-projection",
    "tv": "total variation, from none",
    "model": "`learned_primal_dual`",
}


def ways(sinogram: np.ndarray, image: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """A sinogram `[V, D, 1]` and its image `[n, n, 1]`, turned and mirrored in eight ways.

    The views are half a turn in even steps, the first at half a step, an even number.
    """
    found = []
    for turns, mirrored in itertools.product(range(4), (False, True)):
        y, x = sinogram, image
        if mirrored:
            y, x = y[::-1], x[:, ::-1]
        for _ in range(turns):
            half = len(y) // 2
            y, x = np.concatenate([y[half:], y[:half, ::-1]]), np.rot90(x)
        found.append((y, x))
    return found


def learned(train: list[Slice], held: list[Slice], steps: int, every: int) -> Translator:
    """A network of these slices alone, as it was at the step that is best for `held`.

    Args:
        train, held: slices of one geometry.
        steps, every: of training, and from one look to the next.
    """
    beam: Any = train[0].operator
    geometry = {name: getattr(beam, name) for name in ("spacing_mm", "views", "detectors")}
    geometry |= {"n": beam.size, "detector_mm": beam.detector_mm}
    fields = {"iterations": 6, "filters": 16, "start": "fbp", "steps": steps}
    model = zoo.load(
        "learned_primal_dual", source=SINOGRAM, target=HU, precision="float32", **geometry, **fields
    )
    model.compile()
    step = tf.function(model.train_step)
    pairs = [pair for each in train for pair in ways(each.source, each.target)]
    rng, best, kept = np.random.default_rng(0), -np.inf, model.network.get_weights()
    for done in range(1, steps + 1):
        y, x = pairs[rng.integers(len(pairs))]
        step({"source": tf.constant(y[None]), "target": tf.constant(x[None], tf.float32)})
        if done % every:
            continue
        found = float(np.mean([_quality(model, each) for each in held]))
        print(f"{done} steps: PSNR {found:.2f} dB on the validation split", flush=True)
        if found > best:
            best, kept = found, model.network.get_weights()
    model.network.set_weights(kept)
    return model


def _quality(model: Translator, each: Slice) -> float:
    return float(metrics.psnr(model.translate(each.source[None])[0], each.target, CT_WINDOW))


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown of what each method made of the test slices."""
    figures, _ = compared(rows, NAMES)
    lines = [["method, from four images", "PSNR, dB", "SSIM", "above total variation, dB"]]
    lines.append(["---"] * 4)
    over = figures["psnr_over_tv_db"]
    for key, name in NAMES.items():
        end = "" if key == "model" else f"_{key}"
        cells = [f"{figures[f'psnr_db{end}'][0]:.2f}", f"{figures[f'ssim{end}'][0]:.3f}"]
        above = f"{over[0]:+.2f} ({over[1]:+.2f} to {over[2]:+.2f})" if key == "model" else ""
        lines.append([name, *cells, above])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> int:
    """Trains, measures, and writes the table into the page."""
    train = list(itertools.islice(slices(DATASET, "train"), FEW))
    held = list(itertools.islice(slices(DATASET, "validation"), VALIDATION))
    model = learned(train, held, STEPS, EVERY)
    lam, rows = best_weight(DATASET, LAM, "HU", CT_WINDOW), []
    for each in slices(DATASET, "test"):
        images = {"quick": model.baseline(each.source)[0], "tv": total_variation(each, lam, "HU")}
        images["model"] = model.translate(each.source[None])[0]
        rows.append(quality(each, images, CT_WINDOW))
        print(rows[-1], flush=True)
    text = PAGE.read_text(encoding="utf-8")
    if len(_TABLE.findall(text)) != 1:
        print(f"{PAGE.name}: expected one table of four images.", file=sys.stderr)
        return 1
    write_atomic(PAGE, _TABLE.sub(lambda _: table(rows) + "\n", text).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
