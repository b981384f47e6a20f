"""Exports that answer with half-widths."""

import itertools
import json

import numpy as np
import pytest
import tensorflow as tf

import harness
from zoo import command_line
from zoo.averaging import View
from zoo.serving import formats, warmup
from zoo.serving.export import export
from zoo.trust import served
from zoo.trust.calibration import Calibration
from zoo.trust.half_width import HalfWidth
from zoo.trust.limits import Limits

FIELDS = {"levels": 2, "base_filters": 4, "tile": 64, "output": "auto"}


def calibrated(model, spread):
    return Calibration(
        spread=spread, factor=3.5, alpha=0.1, delta=0.1, risk=0.04, patients=60, images=120,
        pixels="body", half_width=31.25, unit="HU", dataset="ldct/phantom", split="validation",
        weights=model.weights_hash,
    )  # fmt: skip


def test_views_in_a_graph_are_those_of_numpy():
    volume = np.random.default_rng(0).uniform(size=(2, 3, 4, 5, 1)).astype("float32")
    images = volume[:, 0]
    for fields in itertools.product((False, True), range(4), (False, True)):
        view = View(*fields)
        array = volume if view.backwards else images
        graph = lambda x, view=view: served._back(view, served._seen(view, x) + 1)  # noqa: E731
        seen = served._seen(view, tf.constant(array))
        np.testing.assert_array_equal(seen, view.of(array))
        np.testing.assert_array_equal(graph(tf.constant(array)), array + 1)


@pytest.mark.parametrize(
    ("spread", "fields"),
    [("quantiles", {"quantiles": True}), ("views", {"flip": True})],
)
def test_the_signature_gives_what_the_model_does(spread, fields, tmp_path, monkeypatch):
    """Of images of other sides than the network's multiple; `export` compares it too."""
    model = harness.build("encoder_decoder", FIELDS | fields)
    last = model.network.trainable_variables[-2]
    last.assign(np.random.default_rng(1).normal(0, 0.3, last.shape))
    found = calibrated(model, spread)
    harness.export_in_this_process(monkeypatch)
    limits = Limits(
        limits={"shift": (None, 0.52), "air": (-2.0, 3.0), "edges": (0.9, None)},
        false_alarms=0.05, patients=30, images=60, most=2, dataset="own", split="validation",
        weights=model.weights_hash,
    ).to_dict()  # fmt: skip
    folder = export(model, tmp_path / "served", uncertainty=found, card={"alarms": limits})
    answer = tf.saved_model.load(str(folder)).signatures[served.SIGNATURE]
    images = np.random.default_rng(0).uniform(-900, 900, (2, 19, 26, 1)).astype("float32")
    given = answer(images=tf.constant(images))
    np.testing.assert_allclose(given["images"], model.translate(images), atol=0.05)
    widths = HalfWidth(model, found).translate(images)
    assert widths.max() > 20
    np.testing.assert_allclose(given["half_width"], widths, atol=0.2)
    # No images give none, other channels are refused, and a server is warmed up by all signatures.
    nothing = answer(images=tf.zeros([0, 19, 26, 1]))
    assert {name: value.shape for name, value in nothing.items()} == {
        "images": (0, 19, 26, 1), "half_width": (0, 19, 26, 1),
    }  # fmt: skip
    with pytest.raises(tf.errors.InvalidArgumentError):
        answer(images=tf.zeros([1, 19, 26, 2]))
    records = tf.data.TFRecordDataset(str(folder / "assets.extra" / warmup.WARMUP))
    assert sum(b"uncertainty" in record.numpy() for record in records) == 1
    # The promise travels with it.
    contract = json.loads((folder / "assets.extra/intensity.json").read_text())
    assert contract["uncertainty"]["signature"] == "uncertainty"
    assert contract["uncertainty"]["factor"] == 3.5
    card = (folder / "assets.extra/model_card.md").read_text()
    assert "## How sure it is" in card and "half-width was\n31.25 HU on average" in card
    assert "all but 10% of a patient's pixels" in card
    assert (
        contract["alarms"] == limits and "## Alarms\n\nAt most 5% of patients like the 30" in card
    )
    assert "| drift of air | -2 to 3 HU |" in card and "| at most 0.52 pixels |" in card
    assert "| at least 0.9 |" in card


@pytest.mark.parametrize(
    ("format", "spread", "fields"),
    [
        ("onnx", "views", {"flip": True}),
        ("openvino", "quantiles", {"quantiles": True}),
        ("litert", "quantiles", {"quantiles": True}),
    ],
)
def test_other_formats_give_half_widths_as_a_second_output(format, spread, fields, tmp_path):
    """Of two sizes, alone and in batches; `export` compares random and real images too."""
    model = harness.build("encoder_decoder", FIELDS | fields | {"precision": "float32"})
    last = model.network.trainable_variables[-2]
    last.assign(np.random.default_rng(1).normal(0, 0.3, last.shape))
    found = calibrated(model, spread)
    folder = export(model, tmp_path / "out", format=format, uncertainty=found)
    for shape in ((2, 19, 26, 1), (1, 40, 32, 1)):
        images = np.random.default_rng(0).uniform(-900, 900, shape).astype("float32")
        expected = {formats.OUTPUT: model.translate(images)}
        expected[formats.HALF_WIDTH] = HalfWidth(model, found).translate(images)
        for name, values in expected.items():
            answer = formats.engine(format, folder, name)([images])
            np.testing.assert_allclose(answer, values, atol=0.2)
    # What is told of it.
    contract = json.loads((folder / "intensity.json").read_text())
    assert contract["uncertainty"]["name"] == "half_width"
    card = (folder / "model_card.md").read_text()
    assert "The output `half_width` lies beside `translated`." in card
    if format == "onnx":
        triton = (folder.parent / "config.pbtxt").read_text()
        assert (
            'output [ { name: "half_width" data_type: TYPE_FP32 dims: [ -1, -1, 1 ] } ]' in triton
        )
        with pytest.raises(ValueError, match="uncertainty: expected float32.* Received: int8"):
            export(model, tmp_path / "out", format=format, uncertainty=found, int8=[images])


def test_what_no_graph_can_give_is_refused(tmp_path, capsys):
    words = ["--model=encoder_decoder_ldct", "--format=onnx", f"--output={tmp_path}"]
    words += [f"--int8={tmp_path}", "--calibration=mine.json"]
    assert command_line.main(["zoo", "export", *words]) == 2
    assert "calibration: expected float32" in capsys.readouterr().err
    model = harness.build("encoder_decoder", FIELDS)
    specs = {"images": tf.TensorSpec([None, None, None, 1])}
    with pytest.raises(ValueError, match="by quantiles or views in an export. Received: dropout"):
        served.endpoint(model, calibrated(model, "dropout"), specs)
