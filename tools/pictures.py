"""The README's pictures, from two runs: `python tools/pictures.py LDCT_RUN MAMMO_RUN DATA_DIR`."""

import itertools
import sys
from pathlib import Path

import numpy as np

import zoo
from zoo import figures, pipeline

SOFT_TISSUE = (-160.0, 240.0)
PICTURES = Path(__file__).resolve().parent.parent / "docs" / "pictures"


def main(ldct: str, mammo: str, data_dir: str) -> None:
    model, entry = zoo.load(ldct), zoo.lookup(ldct)
    builder = pipeline.load_builder(entry.dataset, Path(data_dir), entry.recipe)
    rows = []
    for example in itertools.islice(pipeline.eval_dataset(builder, "test"), 4, 25, 10):
        output = model.translate(example["source"][..., 0])
        rows.append({"source": example["source"], "output": output, "target": example["target"]})
    error = ("output", "target")
    picture = figures.grid(rows, SOFT_TISSUE, error=error, error_limit=100, unit="HU")
    figures.save_png(PICTURES / "pix2pix_ldct.png", picture)

    model, entry = zoo.load(mammo), zoo.lookup(mammo)
    builder = pipeline.load_builder(entry.dataset, Path(data_dir), entry.recipe)
    size = model.recipe.resolution
    real = [e["image"] for e in pipeline.eval_dataset(builder, "test", 16, size)]
    window = model.target.window
    sides = [
        figures.sample_grid(images, window, panel=96)
        for images in (np.stack(real), model.generate(16))
    ]
    gap = np.full((sides[0].shape[0], 24, 3), 255, np.uint8)
    figures.save_png(PICTURES / "pggan_mammo.png", np.hstack([sides[0], gap, sides[1]]))


if __name__ == "__main__":
    main(*sys.argv[1:])
