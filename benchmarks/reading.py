"""Images a second that the input pipeline reads, beside those that a training step takes.

    python -m benchmarks.reading ldct/phantom pix2pix --data_dir=DIR

Both are measured in turn, three times, and the medians printed: the pipeline feeding nothing,
and the model's step on a batch that is there already.
"""

import argparse
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf

import zoo
from benchmarks.measure import in_turns
from zoo import loading, registry
from zoo.data import facts, prepare
from zoo.data.batches import train_dataset
from zoo.recipe import Phase, Recipe


class Ready(NamedTuple):
    """A model and its data, ready to train.

    Attributes:
        name: of the data set.
        model: compiled, in its last phase.
        phase: that phase.
        read: gives the next batch of the pipeline.
        step: trains on a batch that is there already.
        batch: that one.
    """

    name: str
    model: zoo.Translator
    phase: Phase
    read: Callable[[], Any]
    step: Callable[[], Any]
    batch: dict[str, tf.Tensor]


def ready(dataset: str, model: str, data_dir: Path | None, fields: Sequence[str] = ()) -> Ready:
    """A model in its small preset on a data set, which is built where it is not there yet."""
    entry = registry.lookup(model, dataset, "small", {}, fields)
    builder = prepare.load_builder(entry.dataset, data_dir, entry.recipe)
    entry = facts.fit_to_data(entry, builder)
    made = loading.build(entry)
    made.compile()
    *_, phase = made.recipe.phases()
    made.enter(phase)
    recipe: Recipe = entry.recipe
    dataset_of_batches = train_dataset(
        builder,
        recipe,
        batch_size=phase.batch_size,
        size=phase.size,
        unpaired=made.data == "unpaired",
    )
    batches = iter(dataset_of_batches)
    batch = next(batches)
    train = tf.function(made.train_step, autograph=False)
    name = builder.info.full_name
    return Ready(name, made, phase, lambda: next(batches), lambda: train(batch), batch)


def main(dataset: str, model: str, data_dir: Path | None) -> None:
    """Prints both rates and their ratio."""
    made = ready(dataset, model, data_dir)
    made.step()
    seconds = in_turns({"read": made.read, "step": made.step}, rounds=3)
    images = made.phase.batch_size
    read, trained = (images / statistics.median(seconds[name]) for name in ("read", "step"))
    print(
        f"{made.name}: {read:.0f} images/s read and augmented; the step of "
        f"{model} takes {trained:.0f} images/s: {read / trained:.1f} times what it needs"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset")
    parser.add_argument("model")
    parser.add_argument("--data_dir", type=Path)
    arguments = parser.parse_args()
    main(arguments.dataset, arguments.model, arguments.data_dir)
