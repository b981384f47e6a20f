"""Validation while training: what chooses the best weights, when, and on what."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import zoo
from zoo import (
    cache,
    command_line,
    curves,
    extractors,
    loading,
    metrics,
    set_metrics,
    training,
    validation,
)
from zoo.data import batches, prepare
from zoo.data.facts import fit_to_data
from zoo.evaluation import measure
from zoo.recipe import DataFacts, Phase
from zoo.validation import Cost, Validation, schedule, spread

PAIRS = ["levels=2", "base_filters=2", "crop=32", "precision=float32", "image_every=100"]


def lookup(**overrides) -> zoo.registry.Entry:
    return zoo.lookup("encoder_decoder", "ldct/phantom_tiny", "small", overrides, PAIRS)


def fitted(entry: zoo.registry.Entry, data_dir: Path):
    """The entry and its data set, as `train` has them."""
    builder = prepare.load_builder(entry.dataset, data_dir, entry.recipe)
    entry = fit_to_data(entry, builder)
    return entry, builder


def read(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


@pytest.fixture(scope="module")
def finished(tmp_path_factory, data_dir) -> Path:
    """A run whose best weights are not its last: the rate of learning is far too high."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    fields = dict(steps=6, validate_every=2, validate_images=3, checkpoint_every=3)
    training.train(lookup(learning_rate=0.3, **fields), folder, data_dir=data_dir)
    record = read(folder)
    # Whatever the numbers were: another step than the last one is the best.
    assert record["best"]["step"] < record["weights"]["step"] == 6
    return folder


# When, and of how many images.


def test_validations_take_a_tenth_of_the_run_at_most():
    for run in (10.0, 100.0, 3e3, 1e6):
        for once in (0.1, 2.0):
            for image in (1e-3, 0.05, 3.0):
                cost = Cost(run, once, image)
                every, images = schedule(cost, 1000, 500)
                times = -(-1000 // every)
                assert 1 <= times <= 20 and 4 <= images <= 64
                assert times == 1 or times * (once + images * image) <= 0.1 * run
    assert schedule(Cost(1e6, 1.0, 0.01), 1000, 500) == (50, 64)
    assert schedule(Cost(1e6, 1.0, 0.01), 1000, 7) == (50, 7)  # all there are
    assert schedule(Cost(1.0, 1.0, 0.01), 1000, 500) == (1000, 4)  # at the end alone
    # What is asked for is done.
    assert schedule(Cost(1.0, 1.0, 1.0), 1000, 500, every=10, images=100) == (10, 100)
    assert schedule(Cost(1e6, 1.0, 0.01), 1000, 500, images=3) == (50, 3)


def test_patients_take_turns():
    def example(patient, name):
        return {"patient": patient, "name": name}

    few = [example("a", i) for i in range(6)] + [example("b", 0), example("c", 0), example("b", 1)]
    chosen = spread(few, 4)
    assert sorted(each["patient"] for each in chosen) == ["a", "a", "b", "c"]
    assert chosen == spread(iter(few), 4)
    assert spread(few[:3], 4) == few[:3]

    def endless():
        yield from (example(p, 0) for p in "abcd")
        raise AssertionError("all are of different patients already")

    assert len(spread(endless(), 3)) == 3


def held_out(phases: list[Phase], **record) -> Validation:
    """A validation that only counts."""
    total = sum(phase.steps for phase in phases)
    record = {
        "every": 10, "images": 4, "after": 0, "chosen_after": total - phases[-1].steps,
        "choose_by": "psnr", "better": "higher", "extractor": "", "steps": [], "values": {},
    } | record  # fmt: skip
    return Validation(None, None, DataFacts(), phases, record)


@pytest.mark.parametrize(("every", "after"), [(10, 0), (10, 25), (7, 25), (100, 0), (1, 69)])
def test_how_many_are_left_is_how_many_are_due(every, after):
    there = held_out([Phase("train", 73, 1)], every=every, after=after)
    due = [step for step in range(1, 74) if there.due(step)]
    assert due[-1] == 73 and all(step > after for step in due)
    for step in range(74):
        assert there.left(step) == sum(each > step for each in due)


def test_the_best_is_of_the_last_phase_and_the_first_of_equals():
    there = held_out([Phase("pretrain", 30, 1), Phase("train", 70, 1)])
    assert there.best() is None
    for step, value in ((10, 30.0), (30, 40.0), (40, 31.0), (50, float("nan")), (60, 33.0)):
        curves.append(there.record, step, {"psnr": value})
    curves.append(there.record, 70, {"psnr": 33.0, "ssim": 0.9})
    assert there.best() == (60, 33.0) and there.stale(70) == 1
    assert there.record["values"]["ssim"] == [None] * 5 + [0.9]
    assert there.record["values"]["psnr"][3] is None
    json.dumps(there.record, allow_nan=False)
    there.record |= {"better": "lower"}
    assert there.best() == (40, 31.0) and there.stale(70) == 3
    # A run that goes on from step 40 has seen nothing of what came after.
    curves.cut(there.record, 40)
    assert there.record["steps"] == [10, 30, 40] and there.best() == (40, 31.0)
    assert not there.done(50) and there.done(40)


def test_the_figures_that_are_kept_are_bounded_and_hold_the_best():
    series = {"steps": [], "values": {}}
    for step in range(1, 2001):
        curves.append(series, step, {"psnr": float(step)})
        curves.thin(series, 40, but=3)
        assert len(series["steps"]) <= 41 and {3, step} & set(series["steps"]) >= {step}
    assert series["steps"] == [int(value) for value in series["values"]["psnr"]]
    assert 3 in series["steps"] and len(series["steps"]) > 15


# What is measured.


def test_figures_are_those_of_evaluate_on_the_same_images(data_dir):
    entry, builder = fitted(lookup(), data_dir)
    model = loading.build(entry)
    record = validation.new_record(
        model, builder, entry.facts, entry.recipe.phases(), [1e9], "float32"
    )
    assert (record["choose_by"], record["better"]) == ("psnr", "higher")
    there = Validation(model, builder, entry.facts, entry.recipe.phases(), record | {"images": 3})
    figures = there.measure()
    assert figures == there.measure()
    rows = []
    for example in there.examples():
        mask = metrics.body_mask(example["target"])
        output = model.translate(example["source"][None])[0]
        pair = output, example["target"], model.target.window
        rows.append(metrics.compare(*pair, mask=mask))
    for name, key in (("psnr", "psnr_body"), ("mae", "mae_body"), ("ssim", "ssim")):
        assert figures[name] == pytest.approx(np.mean([row[key] for row in rows]), rel=1e-6)
    patients = {example["patient"] for example in there.examples()}
    every = {example["patient"] for example in batches.eval_dataset(builder, "validation")}
    assert len(patients) == min(3, len(every))
    names = {example["name"] for example in there.examples()}
    assert names <= {example["name"] for example in batches.eval_dataset(builder, "validation")}


def test_an_output_that_is_not_finite_is_never_the_best(data_dir, monkeypatch):
    entry, builder = fitted(lookup(), data_dir)
    model = loading.build(entry)
    phases = entry.recipe.phases()
    record = validation.new_record(model, builder, entry.facts, phases, [1e9], "float32")
    there = Validation(model, builder, entry.facts, phases, record)
    monkeypatch.setattr(model, "translate", lambda images: images * np.inf)
    there.add(phases[0].steps)
    assert record["values"] == {"psnr": [None]} and there.best() is None


@pytest.mark.parametrize(
    ("name", "dataset", "fields", "chosen", "found"),
    [
        ("encoder_decoder", "brain_seg/phantom_tiny", ["crop=32"], "dice", {"dice", "accuracy"}),
        ("encoder_decoder", "mr_ct/phantom_tiny", ["crop=32"], "mae", {"psnr", "ssim", "mae"}),
        ("srgan", "sr/phantom_tiny", ["crop=32", "pretrain_steps=1", "steps=2"],
         "sliced_wasserstein", {"psnr", "ssim", "mae", "sliced_wasserstein"}),
        ("dcgan", "lung_nodule/phantom_tiny", [], "sliced_wasserstein",
         {"sliced_wasserstein", "kid"}),
    ],
)  # fmt: skip
def test_what_chooses_suits_the_data(name, dataset, fields, chosen, found, data_dir):
    fields = [*fields, "base_filters=2"]
    fields += ["levels=2"] if name == "encoder_decoder" else []
    entry, builder = fitted(zoo.lookup(name, dataset, "small", assignments=fields), data_dir)
    model = loading.build(entry)
    phases = entry.recipe.phases()
    record = validation.new_record(
        model, builder, entry.facts, phases, [1e9] * len(phases), "float32"
    )
    assert record["choose_by"] == chosen and record["better"] == validation.BETTER[chosen]
    figures = Validation(model, builder, entry.facts, phases, record | {"images": 2}).measure()
    assert set(figures) == found and np.isfinite(list(figures.values())).all()


def test_unaligned_outputs_are_compared_with_the_targets_as_sets(data_dir, monkeypatch):
    entry, builder = fitted(lookup(), data_dir)
    model, phases = loading.build(entry), entry.recipe.phases()
    monkeypatch.setattr(extractors, "offline", lambda: "")
    unaligned = dataclasses.replace(entry.facts, aligned=False)
    record = validation.new_record(model, builder, unaligned, phases, [1e9], "float32")
    there = Validation(model, builder, unaligned, phases, record)
    targets = np.stack([example["target"] for example in there.examples()])
    outputs = np.concatenate([model.translate(e["source"][None]) for e in there.examples()])
    sets = (model.target.clip(images) for images in (targets, outputs))
    distance = set_metrics.sliced_wasserstein(*sets, seed=entry.recipe.seed)["mean"]
    assert there.measure() == {"sliced_wasserstein": pytest.approx(distance)}
    # The targets themselves are at 0.
    found = {example["source"].tobytes(): example["target"] for example in there.examples()}
    monkeypatch.setattr(model, "translate", lambda images: found[images[0].tobytes()][None])
    assert there.measure() == {"sliced_wasserstein": 0.0}


def test_without_vgg_weights_sets_are_compared_all_the_same(data_dir, monkeypatch, capsys):
    fields = ["base_filters=2"]
    entry = zoo.lookup("dcgan", "lung_nodule/phantom_tiny", "small", assignments=fields)
    entry, builder = fitted(entry, data_dir)
    model, phases = loading.build(entry), entry.recipe.phases()
    monkeypatch.setattr(extractors, "offline", lambda: "")
    about = builder, entry.facts, phases, [1e9], "float32"
    record = validation.new_record(model, *about)
    assert capsys.readouterr().out.count("No VGG weights are here") == 1
    figures = Validation(model, builder, entry.facts, phases, record).measure()
    assert set(figures) == {"sliced_wasserstein"}
    object.__setattr__(model.recipe, "choose_by", "kid")
    with pytest.raises(ValueError, match="choose_by: expected the weights of a VGG .*none there"):
        validation.new_record(model, *about)
    object.__setattr__(model.recipe, "choose_by", "ssim")
    with pytest.raises(ValueError, match="sliced_wasserstein, kid, which .* Received: ssim"):
        validation.new_record(model, *about)


def test_vgg_is_found_in_the_cache_or_in_its_package(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    assert extractors.offline() == "hed"
    cache.place(extractors.VGG19_WEIGHTS, extractors.VGG19_MD5).touch()
    assert extractors.offline() == "vgg19"


def test_features_are_of_images_of_any_size_and_channels():
    extractor = extractors.feature_extractor("hed", "block1_conv1")
    images = np.random.default_rng(0).uniform(-1, 1, [2, 12, 9, 2])
    seen = extractors.features(extractor, images)
    grown = images[..., 1:].repeat(8, 1).repeat(8, 2).astype("float32")
    expected = extractor(tf.constant(grown)).numpy().mean((1, 2))
    np.testing.assert_allclose(seen, expected, rtol=1e-4)


# What a run does with it.


def test_a_run_keeps_its_best_weights_and_draws_its_curves(finished):
    record = read(finished)
    there = record["validation"]
    assert there["steps"] == [2, 4, 6] and there["images"] == 3
    values = there["values"]["psnr"]
    best = record["best"]
    assert best["value"] == max(values) == values[there["steps"].index(best["step"])]
    assert best["measure"] == "psnr" and best["file"] == "weights/best.weights.h5"
    for kept in (best, record["weights"]):
        assert cache.file_sha256(finished / kept["file"]) == kept["sha256"]
    assert record["losses"]["steps"][-1] == 6 and set(record["losses"]["values"])
    picture = tf.io.decode_png((finished / "curves.png").read_bytes()).numpy()
    assert picture.shape[1] > 800 and picture.std() > 10
    tags = set()
    for file in (finished / "tensorboard").iterdir():
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            tags |= {value.tag for value in event.summary.value}
    assert {"validation/psnr", "validation/ssim", "validation/mae"} <= tags


def test_any_weights_of_a_run_can_be_taken(finished, tmp_path, capsys):
    folder, record = str(finished), read(finished)
    best = zoo.load(folder)
    last, at_six, at_four = (zoo.load(folder, weights=w) for w in ("last", 6, "4"))
    assert last.weights_hash == at_six.weights_hash != best.weights_hash
    if record["best"]["step"] == 4:
        assert best.weights_hash == at_four.weights_hash
    there = rf"best \(step {record['best']['step']}\), last \(step 6\), checkpoints of steps 4, 6"
    for wanted in ("3", "first", "../4"):
        with pytest.raises(ValueError, match=f"weights: expected best.*{there}.*d: {wanted}"):
            zoo.load(folder, weights=wanted)
    with pytest.raises(ValueError, match="weights: expected a run folder.* last of pix2pix_ldct"):
        zoo.load("pix2pix_ldct", weights="last")
    # The command line, whose errors are wrong usage.
    arguments = ["zoo", "export", f"--model={folder}", f"--output={tmp_path / 'out'}"]
    assert command_line.main([*arguments, "--weights=5"]) == 2
    assert "checkpoints of steps 4, 6" in capsys.readouterr().err
    fresh = ["zoo", "train", "--model=pix2pix", "--dataset=ldct/phantom_tiny", "--weights=last"]
    assert command_line.main(fresh) == 2
    assert "weights: expected a run by --init" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_not_served(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    data = tmp_path / "run" / "checkpoints" / "ckpt-4.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-100])
    with pytest.raises(ValueError, match="damaged"):
        zoo.load(tmp_path / "run", weights=4)


def test_weights_to_begin_from_are_those_named(finished, tmp_path, data_dir):
    weights = zoo.lookup(str(finished), weights="4").weights
    entry = lookup(steps=1, learning_rate=0.0, validate_every=-1)
    training.train(entry, tmp_path / "run", data_dir=data_dir, init=Path(weights))
    wanted, found = zoo.load(finished, weights=4), zoo.load(tmp_path / "run")
    assert wanted.weights_hash == found.weights_hash != zoo.load(finished, weights=6).weights_hash
    record = read(tmp_path / "run")
    assert "best" not in record and not record["validation"]


def test_a_report_names_the_weights_that_were_judged(finished, tmp_path, data_dir):
    for which, words in (("best", "best, of step"), ("last", "last, of step 6")):
        entry = zoo.lookup(str(finished), weights=which)
        results = measure.evaluate(entry, tmp_path / which, data_dir=data_dir, limit=1)
        assert results["which_weights"].startswith(words)
        assert results["dataset"]["split"] == "test"
        assert words in (tmp_path / which / "report.html").read_text()


def test_the_test_split_is_never_read_in_training(tmp_path, data_dir, monkeypatch):
    asked, whole = [], batches.eval_dataset

    def eval_dataset(builder, split="test", *options, **more):
        asked.append(split)
        return whole(builder, split, *options, **more)

    monkeypatch.setattr(batches, "eval_dataset", eval_dataset)
    training.train(lookup(steps=2), tmp_path / "run", data_dir=data_dir)
    assert set(asked) == {"validation"}


def without_validation(monkeypatch) -> None:
    """A data set whose builder lists no validation split."""
    whole = validation.new_record

    def new_record(model, builder, *about):
        splits = {k: v for k, v in builder.info.splits.items() if k != "validation"}
        monkeypatch.setattr(type(builder.info), "splits", splits)
        return whole(model, builder, *about)

    monkeypatch.setattr(training, "new_record", new_record)


def test_without_a_validation_split_the_last_weights_are_taken(
    tmp_path, data_dir, monkeypatch, capsys
):
    without_validation(monkeypatch)
    training.train(lookup(steps=1), tmp_path / "run", data_dir=data_dir)
    assert capsys.readouterr().out.count("has no validation split. The last weights") == 1
    record = read(tmp_path / "run")
    assert record["validation"] is None and "best" not in record
    assert zoo.load(tmp_path / "run").weights_hash
    with pytest.raises(ValueError, match="patience: expected 0, because .* Received: 2"):
        training.train(lookup(steps=1, patience=2), tmp_path / "other", data_dir=data_dir)
    with pytest.raises(ValueError, match="patience: expected 0 where validate_every is -1"):
        lookup(patience=1, validate_every=-1)


def test_patience_ends_a_run_that_gets_no_better(tmp_path, data_dir, capsys):
    fields = dict(steps=20, validate_every=2, patience=3, learning_rate=0.0)
    record = training.train(lookup(**fields), tmp_path / "run", data_dir=data_dir)
    # The first validation is the best of equals, three more are no better.
    assert (record["state"], record["step"], record["best"]["step"]) == ("done", 8, 2)
    said = capsys.readouterr().out
    assert "Stopped at step 8 of 20: 3 validations in a row were no better" in said
    assert training.train(lookup(**fields), tmp_path / "run", data_dir=data_dir)["step"] == 8
    assert "finished at step 8 of 20; nothing left to do" in capsys.readouterr().out


class Killed(BaseException):
    pass


def killed(monkeypatch, owner, name: str, call: int) -> None:
    """From the `call`-th call on a method raises instead of returning."""
    method, calls = getattr(owner, name), []

    def raising(*arguments, **options):
        calls.append(1)
        if len(calls) < call:
            return method(*arguments, **options)
        raise Killed

    monkeypatch.setattr(owner, name, raising)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, data_dir) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    training.train(lookup(**DISTURBED), folder, data_dir=data_dir)
    return folder


def test_images_too_small_for_a_measure(data_dir, monkeypatch):
    entry, builder = fitted(lookup(choose_by="ssim"), data_dir)
    model, phases = loading.build(entry), entry.recipe.phases()
    record = validation.new_record(model, builder, entry.facts, phases, [1e9], "float32")
    there = Validation(model, builder, entry.facts, phases, record | {"images": 2})
    first, second = there.examples()
    small = {key: first[key][20:28, 20:28] for key in ("source", "target")}
    monkeypatch.setattr(there, "examples", lambda: [small, second])
    pair = model.translate(second["source"][None])[0], second["target"], model.target.window
    assert there.measure()["ssim"] == pytest.approx(metrics.ssim(*pair), rel=1e-6)
    monkeypatch.setattr(there, "examples", lambda: [small])
    with pytest.raises(ValueError, match="choose_by: expected .* 11 x 11 pixels. Received: ssim"):
        there.measure()


DISTURBED = dict(steps=6, validate_every=2, validate_images=2, checkpoint_every=3)


@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [
        (Validation, "add", 2),  # after the checkpoint of a validation
        (training.run, "write", 5),  # after it, and before run.json knows its figures
    ],
)
def test_killed_around_a_validation_it_ends_as_undisturbed(
    owner, name, call, undisturbed, tmp_path, data_dir, monkeypatch
):
    """In one process; training_test.py kills others. Variables' names in the files differ."""
    with monkeypatch.context() as patch:
        killed(patch, owner, name, call)
        with pytest.raises(Killed):
            training.train(lookup(**DISTURBED), tmp_path / "run", data_dir=data_dir)
    assert read(tmp_path / "run")["state"] == "running"
    if name == "add":  # what there is can be looked at
        assert read(tmp_path / "run")["best"]["step"] == read(undisturbed)["best"]["step"] == 2
        assert zoo.load(tmp_path / "run").weights_hash == zoo.load(undisturbed).weights_hash
        there = "has best .step 2., checkpoints of steps 3, 4. Received: last"
        with pytest.raises(ValueError, match=there):
            zoo.load(tmp_path / "run", weights="last")
    training.train(lookup(**DISTURBED), tmp_path / "run", data_dir=data_dir, resume="must")
    one, two = read(undisturbed), read(tmp_path / "run")
    assert one["validation"] == two["validation"]
    assert one["best"]["step"] == two["best"]["step"]
    for which in ("best", "last"):
        whole = zoo.load(undisturbed, weights=which)
        assert whole.weights_hash == zoo.load(tmp_path / "run", weights=which).weights_hash


def test_lost_best_weights_are_chosen_anew(tmp_path, data_dir, monkeypatch, capsys):
    """What is left is the best of what can still be had: not a name in `run.json` alone."""
    with monkeypatch.context() as patch:
        killed(patch, Validation, "add", 2)
        with pytest.raises(Killed):
            training.train(lookup(**DISTURBED), tmp_path / "run", data_dir=data_dir)
    lost = tmp_path / "run" / read(tmp_path / "run")["best"]["file"]
    lost.write_bytes(lost.read_bytes()[:-100])
    training.train(lookup(**DISTURBED), tmp_path / "run", data_dir=data_dir, resume="must")
    told = capsys.readouterr().out
    assert "not the weights of step 2" in told and "chosen anew, from step 4 on" in told
    record = read(tmp_path / "run")
    values = record["validation"]["values"]["psnr"]
    assert record["validation"]["steps"] == [2, 4, 6]
    assert record["best"]["value"] == max(values[1:])
    assert zoo.load(tmp_path / "run").weights_hash


def test_a_run_from_before_there_were_validations_goes_on(tmp_path, data_dir):
    entry = lookup(steps=4, checkpoint_every=2, validate_every=-1)
    training.train(entry, tmp_path / "run", data_dir=data_dir)
    record = read(tmp_path / "run")
    (tmp_path / "run" / record.pop("weights")["file"]).unlink()
    for part in ("validation", "losses"):
        record.pop(part)
    for field in ("validate_every", "validate_images", "choose_by", "patience"):
        record["recipe"].pop(field)
    (tmp_path / "run" / "run.json").write_text(json.dumps(record | {"state": "interrupted"}))
    entry = lookup(steps=4, checkpoint_every=2)
    record = training.train(entry, tmp_path / "run", data_dir=data_dir, resume="must")
    assert record["step"] == 4 and record["best"]["step"] == 4
