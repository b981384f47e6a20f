"""Folds: which patients a run is trained and validated on."""

import itertools
import json

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from zoo import command_line, registry
from zoo.data import facts, folds, prepare
from zoo.data.batches import eval_dataset, train_dataset
from zoo.evaluation import measure
from zoo.recipe import Recipe

# Patients of the examples of each split; one of them is in two.
PATIENTS = {
    "train": [f"p{number % 9}" for number in range(31)],
    "validation": ["p2", "v0", "v0", "v1", "v2", "v2", "v2"],
    "test": ["t0", "t1", "t1"],
}


class Patients(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Pairs whose pixels are the number of their example."""

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = None
    KIND = "paired"

    def _info(self):
        image = tfds.features.Tensor(shape=(4, 4, 1), dtype=np.uint8)
        texts = {"patient": tfds.features.Text(), "name": tfds.features.Text()}
        domain = {"modality": "CT", "unit": "HU", "window": [0, 99], "channels": 1, "spacing": None}
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict({"source": image, "target": image} | texts),
            metadata=tfds.core.MetadataDict(
                {"kind": self.KIND, "source": domain, "target": domain}
            ),
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in PATIENTS}

    def _generate_examples(self, split):
        first = {"train": 0, "validation": 100, "test": 200}[split]
        for number, patient in enumerate(PATIENTS[split], first):
            pixels = np.full((4, 4, 1), number, np.uint8)
            images = {"source": pixels, "target": pixels}
            yield number, images | {"patient": patient, "name": str(number)}


class Unpaired(Patients, skip_registration=True):
    KIND = "unpaired"


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    return prepared(Patients, tmp_path_factory.mktemp("data"))


def prepared(cls, folder):
    made = cls(data_dir=folder)
    # Files that are read in turn.
    made.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=3))
    return made


def numbers(builder, count, *, first=0, **fields):
    """The examples of a run's first batches of one."""
    dataset = train_dataset(builder, Recipe(**fields), batch_size=1, first_example=first)
    batches = itertools.islice(dataset.as_numpy_iterator(), count)
    return [int(batch["source"][0, 0, 0, 0]) for batch in batches]


def known(split):
    """Patients by example."""
    first = {"train": 0, "validation": 100, "test": 200}[split]
    return {first + number: patient for number, patient in enumerate(PATIENTS[split])}


@pytest.mark.parametrize("count", [2, 5])
def test_folds_are_disjoint_and_cover_all(builder, count):
    whose = known("train") | known("validation")
    held_out, sizes = [], []
    for number in range(1, count + 1):
        fold = f"{number}/{count}"
        found = list(eval_dataset(builder, "validation", fold=fold))
        validated = [int(example["name"]) for example in found]
        assert [example["source"][0, 0, 0] for example in found] == validated
        trained = [int(e["name"]) for e in eval_dataset(builder, "train", fold=fold)]
        assert sorted(trained + validated) == sorted(whose)
        # No patient is on both sides.
        patients = {whose[each] for each in validated}
        assert not patients & {whose[each] for each in trained}
        assert facts.example_count(builder, "validation", fold) == len(validated)
        # An epoch of training is what is trained on, each once, and in a new order.
        epochs = np.reshape(numbers(builder, 2 * len(trained), fold=fold, seed=number), (2, -1))
        assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(trained)
        assert list(epochs[0]) != list(epochs[1])
        held_out += patients
        sizes.append(len(patients))
    assert sorted(held_out) == sorted(set(whose.values()))
    assert max(sizes) - min(sizes) <= 1


def test_a_fold_resumes_exactly_and_is_the_same_for_every_seed(builder):
    whole = numbers(builder, 90, fold="2/3", seed=4)
    tf.random.set_seed(99)  # the global seed plays no part
    for first in (1, 30, 77):
        assert numbers(builder, 90 - first, first=first, fold="2/3", seed=4) == whole[first:]
    other = numbers(builder, 90, fold="2/3", seed=5)
    assert other != whole and set(other) == set(whole)


def test_the_test_split_is_never_touched(builder):
    plain = [example["name"] for example in eval_dataset(builder, "test")]
    assert [example["name"] for example in eval_dataset(builder, "test", fold="1/2")] == plain
    assert facts.example_count(builder, "test", "1/2") == 3
    for fold in ("1/2", "2/2"):
        assert max(numbers(builder, 60, fold=fold)) < 200


def test_without_a_fold_the_order_is_that_of_the_files_names(builder):
    """Written out as it was before there were folds: old runs go on where they were."""
    files = [str(path) for path in builder.info.splits["train"].filepaths]
    assert len(files) == 3
    count, seed, found = 31, 6, []
    for epoch in range(3):
        key = tf.constant([seed, 2 * epoch], tf.int64)
        order = tf.random.experimental.stateless_shuffle(files, seed=key)
        tf.random.set_seed(1)
        records = tf.data.Dataset.from_tensor_slices(order).interleave(
            tf.data.TFRecordDataset, cycle_length=16, block_length=16
        )
        shuffle_seed = tf.random.stateless_uniform((), key, maxval=2**62, dtype=tf.int64)
        shown = records.shuffle(count, shuffle_seed, reshuffle_each_iteration=False)
        examples = shown.map(builder.info.features.deserialize_example)
        found += [int(example["name"]) for example in examples.as_numpy_iterator()]
    assert numbers(builder, 3 * count, seed=seed) == found


@pytest.mark.parametrize("fold", ["0/5", "6/5", "1/1", "2", "2/", "a/b", "1/2/3", "02/5", "-1/5"])
def test_what_is_no_fold_is_refused(fold):
    with pytest.raises(ValueError, match=f"fold: expected such as 2/5.*Received: {fold}"):
        Recipe(fold=fold)


def test_data_that_have_no_folds(builder, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="has 12 patients .*Received: 1/13"):
        folds.part(builder, "train", "1/13")
    unpaired = prepared(Unpaired, tmp_path / "unpaired")
    with pytest.raises(ValueError, match="holds images of two patients.*Received: 1/3"):
        train_dataset(unpaired, Recipe(fold="1/3"), batch_size=1)
    monkeypatch.setitem(PATIENTS, "train", ["p0", "", "p1"])
    nameless = prepared(Patients, tmp_path / "nameless")
    with pytest.raises(ValueError, match="say whose each image is. Received: 2/2"):
        folds.part(nameless, "train", "2/2")


def test_a_run_keeps_its_fold(tmp_path, capsys, data_dir):
    """The command line: what is trained and judged, what is said, and what is refused."""
    workdir = tmp_path / "run"
    fields = ["steps=2", "crop=16", "levels=2", "base_filters=2", "precision=float32"]
    start = ["zoo", "--model=encoder_decoder", "--dataset=ldct/phantom_tiny", "--fold=2/3"]
    start += [f"--set={field}" for field in fields]
    places = [f"--workdir={workdir}", f"--data_dir={data_dir}"]
    assert command_line.main([*start, *places, "train"]) == 0
    entry = registry.lookup(workdir)
    builder = prepare.load_builder(entry.dataset, data_dir, entry.recipe)
    held_out = list(eval_dataset(builder, "validation", fold="2/3"))
    said = capsys.readouterr().out
    patients = {example["patient"] for example in held_out}
    trained = {example["patient"] for example in eval_dataset(builder, "train", fold="2/3")}
    assert entry.recipe.fold == "2/3"
    assert f"validated on {len(held_out)} of {len(patients)} others." in said
    assert f"of {len(trained)} patients, validated" in said
    # Judged on the patients of the fold, and of the test split as ever.
    for split in ("validation", "test"):
        expected = list(eval_dataset(builder, split, fold="2/3" if split == "validation" else ""))
        command = ["zoo", f"--model={workdir}", f"--data_dir={data_dir}", f"--split={split}"]
        assert command_line.main([*command, f"--output={tmp_path / split}", "evaluate"]) == 0
        results = json.loads((tmp_path / split / "metrics.json").read_text())
        names = {(row["patient"], row["name"]) for row in results["per_image"]}
        assert names == {(example["patient"], example["name"]) for example in expected}
        told = "validation ones of fold 2/3" in results["dataset"]["description"]
        assert told == (split == "validation")
    # Another fold is another run, and another data set has patients of its own.
    start[3] = "--fold=1/3"
    assert command_line.main([*start, *places, "train"]) == 1
    assert "fold=2/3 → 1/3" in capsys.readouterr().err
    assert registry.lookup(workdir, "ldct/phantom_small").recipe.fold == ""
    assert registry.lookup(workdir, "ldct/phantom_tiny").recipe.fold == "2/3"
    with pytest.raises(ValueError, match="split: expected test for models of folds"):
        measure.evaluate(entry, tmp_path / "e", split="validation", ensemble=[entry])
