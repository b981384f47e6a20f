"""Several images in, end to end: a folder of cases trained on, evaluated, translated, exported."""

import json
from pathlib import Path

import keras
import nibabel
import numpy as np
import pydicom
import pytest
import tensorflow as tf

import zoo
from dicom_files import dciodvfy
from inputs_files import cases, images, whole_body
from zoo import command_line, guards, training
from zoo.data import batches, facts, prepare, preview
from zoo.domain import Domain
from zoo.recipe import Recipe

T1 = Domain(modality="MR", unit="signal", window=(0, 900), name="T1")
T2 = Domain(modality="MR", unit="signal", window=(0, 90), name="T2")
PET = Domain(modality="PT", unit="SUV", window=(0, 20), name="PET")
FLAIR = Domain(modality="MR", unit="signal", window=(0, 200))
CT = Domain(modality="CT", unit="HU", window=(-1000, 1000))
TINY = {"levels": 2, "base_filters": 2, "crop": 0}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with the files of cases, and a run on them."""
    place = tmp_path_factory.mktemp("several")
    root = cases(place / "in")
    (root / "dataset.json").write_text('{"channel_names": {"0": "T1", "1": "T2"}}')
    code = command_line.main(
        ["zoo", "train", "--model=encoder_decoder", "--dataset=folder", f"--input={root}",
         f"--data_dir={place / 'data'}", f"--workdir={place / 'run'}", "--steps=2",
         "--preset=small", "--batch_size=2", "--set=source_window=0,900,0,90",
         "--set=source_unit=signal", "--set=target_unit=signal", "--set=crop=16",
         "--set=levels=2", "--set=base_filters=2"]
    )  # fmt: skip
    assert code == 0
    return place


def test_the_run_knows_its_inputs(trained):
    record = json.loads((trained / "run/run.json").read_text())
    inputs = record["source"]["inputs"]
    assert [each["name"] for each in inputs] == ["T1", "T2"]
    assert [each["window"] for each in inputs] == [[0, 900], [0, 90]]
    assert list((trained / "run/samples").glob("*.png"))
    model = zoo.load(trained / "run")
    assert not model.residual
    assert model.translate(np.zeros([2, 20, 24, 2], "float32")).shape == (2, 20, 24, 1)
    for shape in ([2, 16, 16], [2, 16, 16, 3]):
        with pytest.raises(ValueError, match=r"N, H, W, 2\] with the channels T1, T2. Received"):
            model.translate(np.zeros(shape, "float32"))


def test_evaluation_names_each_input(trained):
    run = trained / "run"
    arguments = [f"--workdir={run}", f"--data_dir={trained / 'data'}", f"--input={trained / 'in'}"]
    assert command_line.main(["zoo", "evaluate", *arguments]) == 0
    results = json.loads((run / "evaluation/metrics.json").read_text())
    assert [each["name"] for each in results["source"]["inputs"]] == ["T1", "T2"]
    # Both are of the target's modality and unit: the first stands for what there is without it.
    assert results["baseline"] == "input T1"
    page = (run / "evaluation/report.html").read_text()
    assert "T1: OT, window 0 to 900 signal" in page and "T2: OT, window 0 to 90 signal" in page
    assert page.count("<figcaption>T2") >= 1


def test_prediction_is_what_the_model_says(trained, capsys):
    out = trained / "out"
    arguments = [f"--model={trained / 'run'}", f"--input={trained / 'in/imagesTr'}"]
    assert command_line.main(["zoo", "predict", *arguments, f"--output={out}"]) == 0
    assert "Translated 4 files, 12 slices" in capsys.readouterr().out
    case = images(2)
    stack = np.stack([case["T1"], case["T2"]], axis=-1).astype("float32")
    wanted = zoo.load(trained / "run").translate(stack)[..., 0]
    made = np.moveaxis(np.asarray(nibabel.load(out / "case2.nii.gz").dataobj), -1, 0)
    np.testing.assert_allclose(made, wanted, atol=0.01)
    # One case, by name; and one that is not there.
    first, second = (trained / f"in/imagesTr/case2_000{k}.nii.gz" for k in (0, 1))
    arguments[1] = f"--input=T2={second},T1={first}"
    one = trained / "one.nii.gz"
    assert command_line.main(["zoo", "predict", *arguments, f"--output={one}"]) == 0
    # Not to the bit: of so few slices Keras answers where OpenVINO may answer of many.
    np.testing.assert_allclose(
        np.asarray(nibabel.load(one).dataobj),
        np.asarray(nibabel.load(out / "case2.nii.gz").dataobj),
        atol=1e-3,
    )
    arguments[1] = f"--input=T1={first}"
    assert command_line.main(["zoo", "predict", *arguments, f"--output={one}"]) == 1
    assert "error: input: expected T1=FILE,T2=FILE. Received: no T2" in capsys.readouterr().err


def test_an_export_names_its_channels_and_answers_as_the_model(trained):
    arguments = [f"--model={trained / 'run'}", f"--output={trained / 'served'}"]
    assert command_line.main(["zoo", "export", *arguments]) == 0
    version = trained / "served/1"
    card = (version / "assets.extra/model_card.md").read_text()
    assert (
        "  - channel 0: T1, OT, signal values; the network sees what lies between 0 and 900" in card
    )
    assert (
        "  - channel 1: T2, OT, signal values; the network sees what lies between 0 and 90" in card
    )
    contract = json.loads((version / "assets.extra/intensity.json").read_text())
    assert contract["input"]["channels"] == ["T1", "T2"]
    served = tf.saved_model.load(version).signatures["serving_default"]
    stack = np.random.default_rng(0).uniform(0, 90, (1, 20, 24, 2)).astype("float32")
    wanted = zoo.load(trained / "run").translate(stack)
    answer = served(images=tf.constant(stack))["images"].numpy()
    np.testing.assert_allclose(answer, wanted, atol=0.01)


def test_more_training_keeps_windows_and_order(trained):
    entry = zoo.lookup(str(trained / "run"), "folder")
    builder = prepare.load_builder("folder", trained / "data", entry.recipe, trained / "in")
    fitted = facts.fit_to_data(entry, builder)
    assert fitted.source == entry.source
    exchanged = Domain(inputs=(T2, T1)).to_dict()
    with pytest.raises(ValueError, match="init: its weights take T2, T1, in this order. Received"):
        facts.fit_to_data(zoo_entry(entry, exchanged), builder)
    alone = Domain(modality="OT", unit="signal").to_dict()
    with pytest.raises(ValueError, match="init: its weights take one image"):
        facts.fit_to_data(zoo_entry(entry, alone), builder)


def zoo_entry(entry, source):
    """The entry with another stored source."""
    from dataclasses import replace

    return replace(entry, source=source, recipe=replace(entry.recipe, source_window=None))


def test_a_picture_shows_each_input(trained):
    entry = zoo.lookup(str(trained / "run"), "folder")
    builder = prepare.load_builder("folder", trained / "data", entry.recipe, trained / "in")
    preview.save(builder, trained / "grid.png")
    wide = keras.utils.load_img(trained / "grid.png").size[0]
    assert 3 * 300 < wide < 4 * 330 + 60  # T1, T2 and the target in a row


@pytest.mark.parametrize("name", ["encoder_decoder", "pix2pix"])
def test_models_of_pairs_learn_from_several_inputs(name, tmp_path):
    source = Domain(inputs=(PET, T1))
    model = zoo.load(name, source=source, target=CT, **TINY)
    # What the network is given, by NumPy alone.
    stack = np.random.default_rng(0).uniform(-5, 950, (2, 64, 64, 2)).astype("float32")
    low, high = np.array([0.0, 0.0]), np.array([20.0, 900.0])
    seen = 2 * (np.clip(stack, low, high) - low) / (high - low) - 1
    values = model.network(seen.astype("float32")).numpy()
    np.testing.assert_allclose(model(stack).numpy(), 1000 * values, atol=0.05)
    assert model.baseline(stack[0]) == (None, "")
    model.compile()
    batch = {"source": tf.constant(stack), "target": tf.zeros([2, 64, 64, 1])}
    batch["seed"] = tf.zeros([2, 2], tf.int32)
    before = [w.numpy() for w in model.network.trainable_variables]
    model.train_step(batch)
    after = [w.numpy() for w in model.network.trainable_variables]
    assert any(not np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    # As Keras keeps it.
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.source == source
    np.testing.assert_array_equal(again(stack).numpy(), model(stack).numpy())


def test_neighbours_of_several_inputs_reach_the_network():
    parts = [Domain(window=each.window, name=each.name, channels=3) for each in (T1, T2)]
    model = zoo.load("encoder_decoder", source=Domain(inputs=tuple(parts)), target=FLAIR, **TINY)
    assert model.network.input_shape[-1] == 6


@pytest.mark.parametrize("name", ["cyclegan", "unit"])
def test_models_of_two_ways_refuse_several_inputs(name, trained):
    entry = zoo.lookup(name, "folder", "small", {"source_window": (0, 900, 0, 90)})
    builder = prepare.load_builder("folder", trained / "data", entry.recipe, trained / "in")
    with pytest.raises(ValueError, match=f"{name} translates both ways, and the sources are T1, T"):
        facts.fit_to_data(entry, builder)


def test_noise_of_one_unit_is_refused(trained):
    entry = zoo.lookup("encoder_decoder", "folder", "small", {"noise": 3.0})
    builder = prepare.load_builder("folder", trained / "data", Recipe(), trained / "in")
    with pytest.raises(ValueError, match="noise: expected 0 with several inputs"):
        facts.fit_to_data(entry, builder)


def test_guards_name_the_input():
    model = zoo.load("encoder_decoder", source=Domain(inputs=(PET, T1)), target=CT, **TINY)
    model.trained_on = {"T1": {"spacing": [0.5, 1.5], "level": [500, 900]}}
    draw = np.random.default_rng(0)
    good = np.stack([draw.uniform(0, 20, (64, 64)), draw.uniform(0, 800, (64, 64))], axis=-1)
    assert guards.reasons(model, good, spacing=(1.0, 1.0)) == []
    (reason,) = guards.reasons(model, good, spacing=(3.0, 3.0))
    assert reason.startswith("T1: spacing: trained on 0.5 to 1.5 mm. Received: 3 mm")
    dim = good * [1, 0.1]
    assert [r.split(":")[:2] for r in guards.reasons(model, dim)] == [["T1", " level"]]
    with pytest.warns(guards.UntrainedInput, match="PET looks like T1, and T1 like PET"):
        model.translate(good[None, ..., ::-1].astype("float32"))
    # Images that are darker or brighter as a whole are not exchanged.
    model.trained_on = None
    for factor in (0.01, 0.1, 10, 100):
        assert guards.reasons(model, good * factor) == []


def test_training_is_resumed_with_the_same_inputs(trained):
    entry = zoo.lookup(str(trained / "run"), "folder")
    record = training.train(
        zoo.lookup("encoder_decoder", "folder", "small", entry.recipe.to_dict()),
        trained / "run",
        data_dir=trained / "data",
        input=trained / "in",
    )
    assert record["state"] == "done" and record["step"] == 2


def test_pet_and_mr_become_ct(tmp_path, capsys):
    """Three units, two grids: Bq/ml becomes SUV, and MR and CT lie on the pixels of the PET."""
    for number, patient in enumerate("ABC"):
        known = whole_body(tmp_path / "in" / patient, patient, number)
    run, data = tmp_path / "run", tmp_path / "data"
    code = command_line.main(
        ["zoo", "train", "--model=pix2pix", "--dataset=folder", f"--input={tmp_path / 'in'}",
         f"--data_dir={data}", f"--workdir={run}", "--steps=1", "--preset=small", "--batch_size=1",
         "--set=source_series=PET=pet*,MR=mr*", "--set=target_series=CT=ct*", "--set=crop=16",
         "--set=source_unit=SUV,", "--set=levels=2", "--set=base_filters=2",
         "--set=discriminator_layers=0"]
    )  # fmt: skip
    assert code == 0, capsys.readouterr().err
    record = json.loads((run / "run.json").read_text())
    told = [(each["name"], each["modality"], each["unit"]) for each in record["source"]["inputs"]]
    assert told == [("PET", "PT", "SUV"), ("MR", "MR", "signal")]
    assert (record["target"]["modality"], record["target"]["unit"]) == ("CT", "HU")
    # Records are in physical units, on the grid of the PET: pixel k lies at 2 k mm.
    entry = zoo.lookup(str(run), "folder")
    builder = prepare.load_builder("folder", data, entry.recipe, tmp_path / "in")
    found = [list(batches.eval_dataset(builder, split)) for split in builder.info.splits]
    for example in sum(found, []):
        assert example["source"].shape == (16, 16, 2)
        np.testing.assert_allclose(example["source"][..., 1], known["MR"][0, ::2, ::2], rtol=1e-5)
        np.testing.assert_allclose(example["target"][..., 0], known["CT"][0, ::2, ::2], rtol=1e-5)
    assert any(np.allclose(e["source"][..., 0], known["PET"][0], rtol=1e-4) for e in sum(found, []))
    # Nothing that went in is an estimate of CT: the report shows each input in its own window.
    arguments = [f"--workdir={run}", f"--data_dir={data}", f"--input={tmp_path / 'in'}"]
    assert command_line.main(["zoo", "evaluate", *arguments]) == 0
    results = json.loads((run / "evaluation/metrics.json").read_text())
    assert results["baseline"] is None and "gain" not in results["summary"]
    page = (run / "evaluation/report.html").read_text()
    assert "PET: PT, window" in page and "MR: MR, window" in page
    assert "<figcaption>PET" in page and "<figcaption>MR" in page
    # A study comes out as CT in the place of its PET.
    out = tmp_path / "out"
    capsys.readouterr()
    arguments = [f"--model={run}", f"--input={tmp_path / 'in' / 'C'}", f"--output={out}"]
    assert command_line.main(["zoo", "predict", *arguments]) == 0
    said = capsys.readouterr()
    assert "MR: resampled onto the grid of PET, of which it covers" in said.err
    assert "modality: PT became CT" in said.err and "1 series, 3 slices" in said.out
    stack = np.stack([known["PET"], known["MR"][:, ::2, ::2]], axis=-1).astype("float32")
    wanted = zoo.load(run).translate(stack)[..., 0]
    for number, file in enumerate(sorted(out.rglob("*.dcm"))):
        header = pydicom.dcmread(file)
        assert (header.Modality, list(header.PixelSpacing)) == ("CT", [2, 2])
        assert len(header.SourceImageSequence) == 2
        values = header.pixel_array * float(header.RescaleSlope) + float(header.RescaleIntercept)
        np.testing.assert_allclose(values, wanted[number], atol=0.6)
        assert not dciodvfy(file)
