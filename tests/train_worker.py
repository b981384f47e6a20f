"""A run as one of several workers, in a process of its own: `distribution_test.py`.

python train_worker.py MODEL DATASET WORKDIR DATA_DIR [FIELD=VALUE ...]
"""

import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
sys.path[:0] = [str(TESTS.parent), str(TESTS)]

import harness  # noqa: E402
import zoo  # noqa: E402
from zoo import training  # noqa: E402


def main(model: str, dataset: str, workdir: str, data_dir: str, *fields: str) -> None:
    harness.use_sgd(pytest.MonkeyPatch())
    entry = zoo.lookup(model, dataset, "small", assignments=list(fields))
    training.train(entry, Path(workdir), data_dir=Path(data_dir), strategy="multi_worker")


if __name__ == "__main__":
    main(*sys.argv[1:])
