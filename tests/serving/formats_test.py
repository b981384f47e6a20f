"""Exports for other engines: each answers as Keras does, at several sizes of images and batches."""

import json
import re
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import dicom_files
import harness
import zoo
from zoo import command_line
from zoo.domain import Domain
from zoo.imaging import files
from zoo.recipe import Recipe
from zoo.serving import export, formats, int8, verify
from zoo.translator import Translator

CT = Domain(modality="CT", unit="HU", window=(-1000.0, 2000.0))
FORMATS = list(formats.FILES)


@zoo.register("small_exported")
class Small(Translator):
    """Halves and doubles, adds its input, pads and crops, as the larger networks do."""

    tile_margin = 4
    size_multiple = 4

    def __init__(self, recipe, source, target, **kwargs):
        super().__init__(recipe, source, target, **kwargs)
        inputs = keras.Input([None, None, 1])
        halved = keras.layers.Conv2D(8, 3, 2, "same", activation="relu")(inputs)
        doubled = keras.layers.Conv2DTranspose(1, 2, 2)(halved)
        self.network = keras.Model(inputs, keras.layers.add([inputs, doubled]))
        draw = np.random.default_rng(0)
        weights = [draw.normal(0, 0.2, each.shape) for each in self.network.get_weights()]
        self.network.set_weights(weights)


@pytest.fixture(scope="module")
def model():
    return Small(Recipe(), CT, CT)


@pytest.fixture(scope="module")
def image():
    """A real CT, [1, 128, 128, 1] in HU."""
    return files.open_volume(dicom_files.bundled("CT_small")).read(0)[None, ..., None]


@pytest.mark.parametrize("format", FORMATS)
def test_an_export_answers_as_keras_does(model, image, format, tmp_path, monkeypatch):
    folder = export.export(model, tmp_path / "out", format=format)
    assert folder.name == "1" and (folder / formats.FILES[format]).is_file()
    ask = formats.engine(format, folder)
    odd = np.concatenate([image[:, :37, 5:56], image[:, 60:97, 50:101], image[:, :37, :51]])
    for asked in (image, odd, image[:, 3:8, :128]):
        answer = ask([asked])
        assert answer.shape == asked.shape and answer.dtype == np.float32
        np.testing.assert_allclose(answer, np.asarray(model(asked)), atol=1e-5 * CT.span)
    # What is told of it, for programs and for people, whose example runs.
    contract = json.loads((folder / "intensity.json").read_text())
    assert contract["file"] == formats.FILES[format] and "bytes" not in contract
    assert contract["output"]["name"] == "translated" and "int8" not in contract
    card = (folder / "model_card.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    monkeypatch.chdir(folder.parent)
    told = {}
    exec(code, told)
    assert told["answer"].shape == (1, 64, 64, 1)
    assert (folder.parent / "config.pbtxt").exists() == (format == "onnx")


def test_tritons_configuration_names_the_networks_tensors(model, tmp_path):
    text = formats.triton(export.serving_specs(model), model)
    assert 'platform: "onnxruntime_onnx"' in text and "max_batch_size: 8" in text
    assert 'input [ { name: "images" data_type: TYPE_FP32 dims: [ -1, -1, 1 ] } ]' in text
    assert 'output [ { name: "translated" data_type: TYPE_FP32 dims: [ -1, -1, 1 ] } ]' in text
    generator = zoo.load("dcgan_lung_nodule")
    text = formats.triton(export.serving_specs(generator), generator)
    size = generator.network.output_shape[1]
    assert f'name: "translated" data_type: TYPE_FP32 dims: [ {size}, {size}, 1 ]' in text


def test_a_network_that_answers_otherwise_is_refused(model, tmp_path, monkeypatch):
    engine = formats.engine

    def wrong(format, folder):
        ask = engine(format, folder)
        return lambda inputs: ask(inputs) + (0.5 if len(inputs[0]) > 1 else 0)

    monkeypatch.setattr(formats, "engine", wrong)
    with pytest.raises(ValueError, match=r"differs from the model on an input of \(2, 37, 51, 1\)"):
        export.export(model, tmp_path, format="onnx")
    assert not list(tmp_path.iterdir())


def enlarged(model, images, training):
    """What LiteRT's converter does not know."""
    return tf.raw_ops.ResizeBicubic(images=images, size=tf.shape(images)[1:3])


def projected(model, images, training):
    """What ONNX's converter takes, and ONNX Runtime does not."""
    rows = tf.reshape(images, [1, -1])
    return tf.reshape(tf.sparse.sparse_dense_matmul(tf.sparse.eye(1), rows), tf.shape(images))


def test_what_cannot_be_converted_is_said_before_any_work(model, tmp_path, monkeypatch):
    images = [np.zeros([1, 8, 8, 1], "float32")]
    with pytest.raises(ValueError, match="int8: expected the format onnx, openvino, litert"):
        export.export(model, tmp_path, int8=images)
    with pytest.raises(ValueError, match="format: expected saved_model, onnx"):
        export.export(model, tmp_path, format="coreml")
    coarse = zoo.load("srcnn", precision="bfloat16")
    for format, why in (("onnx", "no bfloat16 convolution"), ("openvino", "HINT bf16")):
        with pytest.raises(ValueError, match=f"precision: {format} .*{why}.* Received: bfloat16"):
            export.export(coarse, tmp_path, format=format)
    for format, call in (("litert", enlarged), ("onnx", projected)):
        with monkeypatch.context() as patched:
            patched.setattr(Small, "call", call)
            cannot = f"format: {format} cannot hold small_exported. Received: "
            with pytest.raises(ValueError, match=cannot) as caught:
                export.export(model, tmp_path, format=format)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="int8: expected a model of images of one input"):
        int8.read(zoo.load("dcgan_lung_nodule"), tmp_path)
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(OSError, match=r"needs the extra `formats`: .* Received: no tf2onnx"):
        export.export(model, tmp_path, format="onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", ["openvino", "litert"])
def test_engines_without_a_bicubic_operation_enlarge_by_convolutions(format, tmp_path):
    """At two batch sizes and two image sizes, as `export` does before it is done."""
    model = zoo.load("srcnn_mri_x2", precision="float32")
    specs = export.serving_specs(model)
    formats.write(model, format, specs, tmp_path)
    verify.verify_engine(model, formats.engine(format, tmp_path), specs)


def parts(image, count=8):
    """Parts of a real CT, of several sizes."""
    return [np.ascontiguousarray(image[:, k * 8 :, k * 4 :]) for k in range(count)]


def rms(answer, model, image):
    """Root mean square of what is lost, as a share of the window."""
    return np.sqrt(np.mean((answer - np.asarray(model(image))) ** 2)) / model.target.span


def test_int8_of_openvino_leaves_what_sees_and_makes_the_image_exact(image, tmp_path):
    import openvino  # after what keeps it from telling of its use

    inputs = x = keras.Input([None, None, 1])
    for width in (4, 4, 4, 1):
        x = keras.layers.Conv2D(width, 3, padding="same", activation="relu")(x)
    model = Small(Recipe(), CT, CT)
    model.network = keras.Model(inputs, keras.layers.add([inputs, x]))
    formats.write(model, "openvino", export.serving_specs(model), tmp_path, parts(image))
    ops = openvino.Core().read_model(tmp_path / "model.xml").get_ordered_ops()
    rounded = {"Convolution": [], "Add": []}
    for op in ops:
        if op.get_type_name() in rounded:
            given = [op.input_value(k).get_node().get_type_name() for k in range(2)]
            rounded[op.get_type_name()].append("FakeQuantize" in given)
    assert rounded["Convolution"] == [False, True, True, False]
    assert rounded["Add"] and not any(rounded["Add"])


def test_int8_tells_what_it_loses_and_is_refused_above_what_is_allowed(model, image, tmp_path):
    folder = export.export(model, tmp_path, format="onnx", int8=parts(image))
    told = json.loads((folder / "intensity.json").read_text())["int8"]
    assert told["calibrated_on"] == told["judged_on"] == 4
    assert f"{told['loss_percent']:.2g} % of the window" in (folder / "model_card.md").read_text()
    assert b"QuantizeLinear" in (folder / "model.onnx").read_bytes()
    # By the difference itself, on an image that neither calibrated nor judged it.
    asked = np.ascontiguousarray(image[:, 1:90, 3:100])
    lost = rms(formats.engine("onnx", folder)([asked]), model, asked)
    assert 0 < lost == pytest.approx(told["loss_percent"] / 100, rel=0.5)
    with pytest.raises(ValueError, match=r"int8: expected a loss up to 1e-05 % of the window"):
        export.export(model, tmp_path, format="onnx", int8=parts(image), allowed=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "config.pbtxt"]


def test_the_images_of_calibration_are_read_as_predict_reads_them(image, tmp_path):
    series = dicom_files.series(tmp_path / "series", 4)
    model = Small(Recipe(tile=96), CT, CT)
    images = int8.read(model, series)
    assert len(images) == 4
    np.testing.assert_array_equal(images[0], image[:, 16:112, 16:112])
    (series / "0.dcm").unlink()
    with pytest.raises(ValueError, match="int8: expected 4 slices or more in .* Received: 3"):
        int8.read(model, series)


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_the_command_makes_int8_of_a_shipped_model(image, tmp_path, format, capsys):
    (tmp_path / "images").mkdir()
    for number, part in enumerate(parts(image)):
        np.save(tmp_path / "images" / f"{number}.npy", part[0, ..., 0])
    words = [f"--format={format}", f"--output={tmp_path / 'out'}", f"--int8={tmp_path / 'images'}"]
    words += ["--model=encoder_decoder_ldct"]
    assert command_line.main(["zoo", "export", *words]) == 0
    said = capsys.readouterr().out
    percent = float(re.search(r"int8 is ([\d.]+) % of the window from float32", said)[1])
    model = zoo.load("encoder_decoder_ldct")
    answer = formats.engine(format, tmp_path / "out" / "1")([image])
    assert 0 < rms(answer, model, image) < 0.005
    assert rms(answer, model, image) == pytest.approx(percent / 100, rel=0.5)
    small = sum(path.stat().st_size for path in (tmp_path / "out" / "1").glob("model.*"))
    assert small < 0.4 * 4 * model.network.count_params()
    assert command_line.main(["zoo", "export", *words, "--int8_loss=0.0001"]) == 1
    assert "loss up to 0.0001 % of the window. Received: 0." in capsys.readouterr().err
    assert not (tmp_path / "out" / "2").exists()


SHIPPED = [name for name, row in zoo.index()["pretrained"].items() if row["owner"] == "zoo"]


# Convolutions whose kernels are computed, rays, which are sparse matrices, and complex numbers.
REFUSED = {("unit_t1_t2", "litert")}
for name in ("learned_primal_dual_ct_recon", "varnet_mri_recon"):
    REFUSED |= {(name, format) for format in FORMATS}


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_model_in_every_format(name, format, tmp_path):
    model = zoo.load(name, precision="float32")
    specs = export.serving_specs(model)
    if (name, format) in REFUSED:
        with pytest.raises(ValueError, match=f"format: {format} cannot hold"):
            formats.write(model, format, specs, tmp_path)
        return
    formats.write(model, format, specs, tmp_path)
    verify.verify_engine(model, formats.engine(format, tmp_path), specs)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_model_is_a_saved_model(name, tmp_path, monkeypatch):
    """`export` compares its answers, to real slices too."""
    harness.export_in_this_process(monkeypatch)
    export.export(zoo.load(name), tmp_path)
    assert (tmp_path / "1" / "saved_model.pb").is_file()
