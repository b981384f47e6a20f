"""OpenVINO in Keras's place: the same answers, told in the header, left where they differ."""

import importlib.util
import sys
import types

import numpy as np
import pydicom
import pytest

import dicom_files
import zoo
from zoo import command_line
from zoo.domain import Domain
from zoo.inference import engines

CT = Domain(modality="CT", unit="HU", window=(-1024.0, 1500.0))


def model(**fields):
    fields = {"base_filters": 4, "levels": 3, "precision": "float32"} | fields
    return zoo.load("encoder_decoder", source=CT, target=CT, **fields)


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1200, 1800, shape).astype("float32")


@pytest.mark.parametrize("shape", [(1, 32, 32, 1), (5, 37, 51, 1)])
def test_answers_are_keras_own(shape):
    network = model()
    expected = network.serve(images(*shape))
    assert engines.use(network, "openvino").startswith("OpenVINO ")
    for _ in range(4):  # compared, and alone
        np.testing.assert_allclose(network.serve(images(*shape)), expected, atol=0.02)
    assert network.serve.left == 0 and network.serve.used
    assert network.translate(images(0, 16, 16)).shape == (0, 16, 16)


@pytest.mark.parametrize("batch_size, hint", [(1, "LATENCY"), (4, "THROUGHPUT")])
def test_one_slice_at_a_time_has_all_cores_and_several_share_them(batch_size, hint):
    network = model()
    engines.use(network, "openvino", batch_size=batch_size)
    assert hint in str(network.serve.compiled.get_property("PERFORMANCE_HINT"))


def test_openvino_sends_no_word_of_its_use():
    engines.use(model(), "openvino")
    from openvino.tools.ovc import telemetry_utils

    assert telemetry_utils.tm.__name__.endswith("telemetry_stub")
    assert not [name for name in sys.modules if name.startswith("openvino_telemetry.")]


def test_volumes_too():
    network = model(dimensions=3, levels=2)
    expected = network.translate(images(4, 9, 12))
    engines.use(network, "openvino")
    np.testing.assert_allclose(network.translate(images(4, 9, 12)), expected, atol=0.02)


def test_other_answers_are_left_or_refused(monkeypatch):
    calm = engines.OpenVino._answer
    monkeypatch.setattr(engines.OpenVino, "_answer", lambda self, x: calm(self, x) + 5)
    network, told = model(), []
    expected = network.serve(images(1, 16, 16, 1))
    engines.use(network, "auto", told.append)
    np.testing.assert_array_equal(network.serve(images(1, 16, 16, 1)), expected)
    assert network.serve.name == ""
    np.testing.assert_array_equal(network.serve(images(1, 16, 16, 1)), expected)
    assert len(told) == 1 and "answers otherwise than Keras" in told[0]
    strict = model()
    engines.use(strict, "openvino")
    with pytest.raises(ValueError, match="engine: .*answers otherwise than Keras"):
        strict.serve(images(1, 16, 16, 1))


def test_an_engine_that_fails_is_left(monkeypatch):
    def broken(self, batch):
        raise RuntimeError("no such layer")

    monkeypatch.setattr(engines.OpenVino, "_answer", broken)
    network, told = model(), []
    expected = network.serve(images(1, 16, 16, 1))
    engines.use(network, "auto", told.append)
    np.testing.assert_array_equal(network.serve(images(1, 16, 16, 1)), expected)
    assert told == ["no such layer. Keras is used."]


def test_without_the_package_or_in_half_precision_keras_runs(monkeypatch):
    assert engines.use(model(precision="bfloat16"), "auto") == "Keras"
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "openvino" else found(name)
    )
    assert engines.use(model(), "auto") == "Keras"
    with pytest.raises(ValueError, match="engine: expected the extra"):
        engines.use(model(), "openvino")


def test_a_network_is_converted_where_there_is_more_than_keras_answers_anyway(tmp_path):
    out, network = tmp_path / "out", types.SimpleNamespace(source=CT)
    few = dicom_files.series(tmp_path / "few", 8)
    assert not engines.pays(network, "auto", few, out)
    assert engines.pays(network, "openvino", few, out)
    assert not engines.pays(network, "auto", few / "0.dcm", out)
    many = dicom_files.series(tmp_path / "many", 9)
    assert engines.pays(network, "auto", many, out)
    np.save(tmp_path / "volume.npy", np.zeros((9, 16, 16), "float32"))  # one file
    assert engines.pays(network, "auto", tmp_path / "volume.npy", out)
    with pytest.raises(FileNotFoundError):
        engines.pays(network, "auto", tmp_path / "gone", out)


def test_predict_tells_in_the_header(tmp_path):
    folder = dicom_files.series(tmp_path / "in", 3)
    stored = {}
    for engine in ("keras", "openvino"):
        out = tmp_path / engine
        arguments = ["--model=encoder_decoder_ldct", f"--input={folder}", f"--output={out}"]
        arguments += [f"--engine={engine}", "--precision=float32"]
        assert command_line.main(["zoo", "predict", *arguments]) == 0
        files = [pydicom.dcmread(path) for path in sorted(out.rglob("*.dcm"))]
        stored[engine] = np.stack([file.pixel_array for file in files])
        assert ("OpenVINO" in str(files[0])) == (engine == "openvino")
        assert not dicom_files.dciodvfy(sorted(out.rglob("*.dcm"))[0])
    # To the rounding of whole HU.
    assert np.abs(stored["keras"].astype(int) - stored["openvino"]).max() <= 1
