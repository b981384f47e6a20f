"""Which records of a data set are the training and the validation examples of a fold.

The patients of the splits "train" and "validation" together are shuffled, in one order for every
seed, and dealt out to n folds; fold k is validated on the k-th and trained on the others. The split
"test" stays what it is.
"""

import functools
import os
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

DEALT = ("train", "validation")  # the splits whose patients are dealt out


class Part(NamedTuple):
    """Records of a data set.

    Attributes:
        files: that hold them, in order.
        records: how many they are.
        size: of the records in bytes, about.
        kept: of each file, bool for each of its records, whether it is one of them; None: all are.
        patients: whose they are; 0 where nobody asked.
    """

    files: list[str]
    records: int
    size: int
    kept: list[np.ndarray] | None = None
    patients: int = 0

    def read(self, number: tf.Tensor) -> tf.data.Dataset:
        """The serialised records of the file of this number, an int32."""
        records = tf.data.TFRecordDataset(tf.gather(self.files, number))
        if self.kept is None:
            return records
        starts = np.cumsum([0, *map(len, self.kept)])
        kept, start = tf.constant(np.concatenate(self.kept)), tf.gather(starts, number)
        numbered = records.enumerate().filter(lambda place, _: kept[start + place])
        return numbered.map(lambda _, record: record)

    def in_order(self) -> tf.data.Dataset:
        """All serialised records, one file after the other."""
        return tf.data.Dataset.range(len(self.files), output_type=tf.int32).flat_map(self.read)


def splits(builder: tfds.core.DatasetBuilder, split: str, fold: str) -> list[str]:
    """Those of the data set that a split lies in, where there is a fold."""
    if not fold or split not in DEALT:
        return [split]
    there = builder.info.splits
    return [name for name in DEALT if name in there and there[name].num_examples]


def part(builder: tfds.core.DatasetBuilder, split: str, fold: str = "") -> Part:
    """The records of a split.

    Args:
        builder: a prepared data set.
        split: which examples.
        fold: such as "2/5", which replaces "train" and "validation"; "" leaves them as they are.

    Raises:
        ValueError: for files that are no tfrecords; with a fold for data that do not say whose an
            example is, or have fewer patients than there are folds.
    """
    if builder.info.file_format.value != "tfrecord":
        raise ValueError(
            f"{builder.info.full_name}: expected tfrecord files. "
            f"Received: {builder.info.file_format.value}"
        )
    names = splits(builder, split, fold)
    infos = [builder.info.splits[name] for name in names]
    files = [os.fspath(path) for info in infos for path in info.filepaths]
    count = sum(info.num_examples for info in infos)
    size = sum(info.num_bytes for info in infos)
    if not fold or split not in DEALT:
        return Part(files, count, size)
    # Whose the records are, and who is held out.
    patients = _patients(builder, files, fold)
    everybody = sorted(set(np.concatenate(patients).tolist()))
    number, folds = map(int, fold.split("/"))
    if len(everybody) < folds:
        raise ValueError(
            f"fold: {builder.info.full_name} has {len(everybody)} patients to train and validate "
            f"on, so at most as many folds. Received: {fold}"
        )
    dealt = np.array_split(np.random.default_rng(0).permutation(everybody), folds)
    held_out = dealt[number - 1].tolist()
    kept = [np.isin(each, held_out) == (split == "validation") for each in patients]
    found = int(sum(each.sum() for each in kept))
    others = len(held_out) if split == "validation" else len(everybody) - len(held_out)
    return Part(files, found, size * found // count, kept, others)


def words(builder: tfds.core.DatasetBuilder, fold: str) -> str:
    """A sentence on what a fold is trained and validated on."""
    train, held_out = (part(builder, split, fold) for split in ("train", "validation"))
    return (
        f"Fold {fold}: trained on {train.records} images of {train.patients} patients, validated "
        f"on {held_out.records} of {held_out.patients} others."
    )


def _patients(
    builder: tfds.core.DatasetBuilder, files: list[str], fold: str
) -> tuple[np.ndarray, ...]:
    """Of each file whose its records are, texts in order."""
    if builder.info.metadata["kind"] == "unpaired":
        raise ValueError(
            f"fold: an example of {builder.info.full_name} holds images of two patients, which no "
            f"fold can keep together. Received: {fold}"
        )
    stamps = [os.stat(path).st_mtime_ns for path in files]
    found: tuple[np.ndarray, ...] = ()
    if "patient" in builder.info.features:
        found = _read_patients(tuple(zip(files, stamps, strict=True)))
    if not found or "" in np.concatenate(found):
        raise ValueError(
            f"fold: expected data that say whose each image is. Received: {fold} of "
            f"{builder.info.full_name}"
        )
    return found


@functools.lru_cache(maxsize=4)
def _read_patients(files: tuple[tuple[str, int], ...]) -> tuple[np.ndarray, ...]:
    """Of files and when they were written; one pass over them."""
    wanted = {"patient": tf.io.FixedLenFeature([], tf.string)}

    def patients(path: str) -> np.ndarray:
        records = tf.data.TFRecordDataset(path).batch(256)
        read = records.map(lambda batch: tf.io.parse_example(batch, wanted)["patient"])
        found = [name.decode() for batch in read.as_numpy_iterator() for name in batch]
        return np.array(found, str)

    return tuple(patients(path) for path, _ in files)
