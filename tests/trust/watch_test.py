"""Alarms on the command line: calibrated with a run, reported, strict, and told by what travels."""

import dataclasses
import html
import json
import re
import shlex

import numpy as np
import pytest
import tensorflow as tf

import harness
from harness import HU
from zoo import command_line, registry, run
from zoo.inference import predict
from zoo.serving.export import card_fields
from zoo.trust.limits import Limits
from zoo.trust.watch import Watch, Watched

WIDE = dataclasses.replace(HU, window=(-4000.0, 4000.0))
FIELDS = {"levels": 2, "base_filters": 4, "tile": 64, "output": "auto"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data_dir):
    """A model, the folder of a run of it, and of data sets."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    model = harness.build("encoder_decoder", FIELDS, WIDE, WIDE)
    sha256 = model.save_network(folder / "a.weights.h5")
    record = {"model": "encoder_decoder", "dataset": "ldct/phantom_tiny", "state": "done"}
    record |= {"recipe": model.recipe.to_dict(), "source": WIDE.to_dict(), "target": WIDE.to_dict()}
    run.write(folder, record | {"weights": {"file": "a.weights.h5", "sha256": sha256}})
    return model, folder, data_dir


def zoo(*arguments):
    return command_line.main(["zoo", *map(str, arguments)])


def images(folder, seed=0):
    """Two arrays of CT, one like a phantom's and one that is nothing but noise."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    body = np.full((2, 40, 48), -1000.0)
    body[:, 8:32, 8:40] = rng.normal(40, 10, (2, 24, 32))
    np.save(folder / "a.npy", body.astype("float32"))
    np.save(folder / "b.npy", rng.uniform(-5000, 5000, (40, 48)).astype("float32"))
    return folder


def test_the_limits_of_a_run_are_found_reported_and_travel(trained, tmp_path, capsys, monkeypatch):
    model, folder, data = trained
    given = images(tmp_path / "in")
    files = [f"--model={folder}", f"--input={given}", f"--output={tmp_path / 'out'}"]
    report = tmp_path / "report"
    assert zoo("predict", *files, "--strict") == 1
    assert "strict: expected a model whose alarms were calibrated" in capsys.readouterr().err
    # Without a spread, alarms alone.
    options = [f"--model={folder}", f"--data_dir={data}"]
    assert zoo("calibrate", *options, "--spread=none") == 0
    printed = capsys.readouterr().out
    assert re.search(r"Alarms: limits of \d+ figures; at most 33% of patients", printed)
    stored = run.read(folder)
    limits = Limits.from_dict(stored["alarms"])
    assert "uncertainty" not in stored and limits.patients == 2 and "reference" in limits.limits
    # All is written, then the exit code tells.
    assert zoo("predict", *files, f"--report={report}", "--strict") == 3
    errors = capsys.readouterr().err
    line = re.search(r"warning: (.*b\.npy): alarm: outside (\S+), limit (\S+)\n", errors)
    assert line and float(line[2]) > float(line[3])
    assert float(line[3]) == pytest.approx(limits.limits["outside"][1], rel=0.01)
    made = np.load(tmp_path / "out" / "a.npy")
    assert made.shape == (2, 40, 48) and (tmp_path / "out" / "b.npy").exists()
    told = json.loads((report / "alarms.json").read_text())
    assert Limits.from_dict(told["limits"]) == limits
    first, second = told["series"]
    assert (first["name"], second["name"]) == ("a.npy", "b.npy")
    assert [image["image"] for image in first["per_image"]] == [0, 1]
    # The figures are those of the arrays that were read and written.
    watched = Watched(model, limits)
    for index, image in enumerate(np.load(given / "a.npy")):
        watched(index, image[..., None], made[index])
    assert first["per_image"][1] == pytest.approx({"image": 1} | watched.images[1][1], rel=1e-3)
    outside = {each["alarm"]: each for each in second["raised"]}["outside"]
    assert outside["value"] == pytest.approx(0.2, abs=0.03) and outside["images"] == 1
    # A page of its own, with the worst image, and TensorBoard's.
    page = (report / "alarms.html").read_text()
    assert page.count("data:image/png") >= 6 and "http" not in page.replace("data:", "")
    worse, better = sorted(told["series"], key=lambda each: -len(each["raised"]))
    assert page.index(worse["name"]) < page.index(better["name"])
    # Of the file with one image, places to choose, whose commands explain them.
    assert page.count('type="radio"') == 16 * 16 and "<script" not in page
    command = html.unescape(re.findall(r"<code>(.*?)</code>", page)[16 * 2 + 3])
    name, *words = shlex.split(command)
    assert name == "zoo" and words[-1] == "--explain=6,10"
    assert str(given) not in page
    monkeypatch.chdir(given)
    there = [f"--output={tmp_path / 'explained'}" if "output" in w else w for w in words]
    assert zoo(*there) == 0 and (tmp_path / "explained" / "b_explained.png").exists()
    (events,) = (report / "tensorboard").iterdir()
    tags = {value.tag for event in tf.compat.v1.train.summary_iterator(str(events))
            for value in event.summary.value}  # fmt: skip
    assert {"a.npy/edges", "b.npy/output"} <= tags
    # They go where the model goes.
    assert zoo("publish", f"--model={folder}", f"--to={tmp_path / 'hub'}") == 0
    assert registry.lookup(str(tmp_path / "hub")).alarms == limits.to_dict()
    assert card_fields(registry.lookup(str(folder)))["alarms"] == limits.to_dict()


def test_evaluate_tells_of_patients_and_the_reference(trained, tmp_path, capsys):
    _, folder, data = trained
    file = tmp_path / "limits.json"
    options = [f"--model={folder}", f"--data_dir={data}"]
    assert zoo("calibrate", *options, "--spread=none", f"--output={file}") == 0
    limits = json.loads(file.read_text())
    limits["alarms"]["limits"] = {"edges": [1.5, None]}
    file.write_text(json.dumps(limits))
    given = [f"--calibration={file}", f"--output={tmp_path / 'out'}", f"--report={tmp_path / 'r'}"]
    capsys.readouterr()
    assert zoo("evaluate", *options, "--limit=2", *given, "--strict") == 3
    assert re.search(r"warning: \S+: alarm: edges [01]\S*, limit 1.5\n", capsys.readouterr().err)
    told = json.loads((tmp_path / "r" / "alarms.json").read_text())
    assert "reference" in told["series"][0]["figures"]
    # Other weights have other limits.
    limits["alarms"]["weights"] = "0" * 64
    file.write_text(json.dumps(limits))
    assert zoo("evaluate", *options, *given) == 1
    assert "alarms: expected a calibration of these weights" in capsys.readouterr().err
    assert zoo("predict", *options[:1], "--input=a", "--output=b", "--report=r", "--part=1/2") == 2
    assert "report, strict: expected neither a share" in capsys.readouterr().err


def test_volumes_are_watched_slice_by_slice(tmp_path):
    """Through tiles, twice as fine: as many slices as are written, each beside its own."""
    fields = {"levels": 2, "base_filters": 2, "dimensions": 3, "tile": 16, "output": "auto"}
    model = harness.build("encoder_decoder", fields)
    rng = np.random.default_rng(1)
    np.save(tmp_path / "a.npy", rng.normal(0, 300, (6, 20, 24)).astype("float32"))
    watch = Watch(model, None)
    predict.translate(model, tmp_path / "a.npy", tmp_path / "b.npy", watch=watch, progress=False)
    (series,) = watch.series
    assert [index for index, _ in series.images] == list(range(6)) and series.name == "b.npy"
    expected = Watched(model, None)
    given, made = np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy")
    expected(3, given[3][..., None], made[3])
    assert series.images[3][1] == pytest.approx(expected.images[0][1], rel=1e-2, abs=1e-3)
    assert not watch.raised and not series.warnings()
