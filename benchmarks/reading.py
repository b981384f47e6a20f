"""Images a second that the input pipeline reads, beside those that a training step takes.

    python benchmarks/reading.py ldct/phantom pix2pix --data_dir=DIR

Both are measured in turn, three times, and the medians printed: the pipeline feeding nothing,
and the model's step on a batch that is there already.
"""

import argparse
import statistics
import time
from pathlib import Path

import tensorflow as tf

import zoo
from zoo import loading
from zoo.data import facts, prepare
from zoo.data.batches import train_dataset

SECONDS = 4.0


def rate(call, images: int) -> float:
    """Images a second of a call that handles `images` of them; the first call is not counted."""
    call()
    count, started = 0, time.monotonic()
    while (spent := time.monotonic() - started) < SECONDS:
        call()
        count += images
    return count / spent


def main(dataset: str, model_name: str, data_dir: Path | None) -> None:
    entry = zoo.lookup(model_name, dataset, "small")
    builder = prepare.load_builder(entry.dataset, data_dir, entry.recipe)
    entry = facts.fit_to_data(entry, builder)
    model = loading.build(entry)
    model.compile()
    (phase,) = model.recipe.phases()[:1]
    model.enter(phase)
    batches = iter(
        train_dataset(
            builder,
            entry.recipe,
            batch_size=phase.batch_size,
            size=phase.size,
            unpaired=model.data == "unpaired",
        )
    )
    batch = next(batches)
    step = tf.function(model.train_step, autograph=False)
    read, trained = [], []
    for _ in range(3):
        read.append(rate(lambda: next(batches), phase.batch_size))
        trained.append(rate(lambda: step(batch), phase.batch_size))
    read, trained = statistics.median(read), statistics.median(trained)
    print(
        f"{builder.info.full_name}: {read:.0f} images/s read and augmented; the step of "
        f"{model_name} takes {trained:.0f} images/s: {read / trained:.1f} times what it needs"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset")
    parser.add_argument("model")
    parser.add_argument("--data_dir", type=Path)
    arguments = parser.parse_args()
    main(arguments.dataset, arguments.model, arguments.data_dir)
