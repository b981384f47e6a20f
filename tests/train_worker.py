"""A run in a process of its own, as one of several workers or alone: `distribution_test.py`.

python train_worker.py MODEL DATASET WORKDIR DATA_DIR STRATEGY [FIELD=VALUE ...]
"""

import sys
from pathlib import Path

import keras

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import zoo  # noqa: E402
from zoo import training  # noqa: E402


def main(model: str, dataset: str, workdir: str, data_dir: str, strategy: str, *fields: str):
    # Adam divides by the gradient's size, so that a wrong scale of a loss would not show. So slow
    # that the weights hardly move, rounding does not grow; the momentum adds the gradients up.
    sgd = keras.optimizers.SGD
    for name in ("Adam", "AdamW", "RMSprop", "SGD"):
        setattr(keras.optimizers, name, lambda *_, **__: sgd(1e-6, momentum=1.0))
    entry = zoo.lookup(model, dataset, "small", assignments=list(fields))
    training.train(entry, Path(workdir), data_dir=Path(data_dir), strategy=strategy)


if __name__ == "__main__":
    main(*sys.argv[1:])
