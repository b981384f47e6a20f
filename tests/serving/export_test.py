import dataclasses
import io
import json
import re
import stat
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pydicom.data
import pytest
import tensorflow as tf
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)
from PIL import Image

import harness
import zoo
from zoo.domain import Domain
from zoo.recipe import Recipe
from zoo.serving import png16, verify
from zoo.serving.export import card_fields, export, serving_specs
from zoo.serving.verify import compare
from zoo.translator import Translator

CT = Domain(modality="CT", unit="HU", window=(-1000.0, 2000.0), spacing=(0.7, 0.7))
MR = Domain(modality="MR", unit="signal", window=(0.0, 4000.0))


class Tiny(Translator):
    """Whose network is what `layers` gives."""

    tile_margin = 4

    def __init__(self, recipe, source, target, **kwargs):
        super().__init__(recipe, source, target, **kwargs)
        self.network = self.layers()

    def layers(self) -> keras.Model:
        raise NotImplementedError


@zoo.register("tiny_export")
class TinyExport(Tiny):
    """Two convolutions, the second with a stride: sizes must be even."""

    size_multiple = 2

    def layers(self):
        inputs = keras.Input([None, None, self.source.channels])
        features = keras.layers.Conv2D(4, 3, 2, "same", activation="relu")(inputs)
        features = keras.layers.Conv2DTranspose(1, 2, 2)(features)
        outputs = keras.layers.Activation("tanh", dtype="float32")(features)
        return keras.Model(inputs, outputs)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneratorRecipe(Recipe):
    latent: int = 6


@zoo.register("tiny_export_generator")
class TinyGenerator(Tiny):
    data = "single"
    generates = True
    recipe_class = GeneratorRecipe
    length = 6  # of what the network takes

    def layers(self):
        dense = keras.layers.Dense(8 * 8, activation="tanh")
        reshape = keras.layers.Reshape([8, 8, 1])
        return keras.Sequential([keras.Input([self.length]), dense, reshape])

    def call(self, latents, training=False):
        return self.target.decode(self.network(latents, training=training))

    def generate(self, n, seed=0):
        return self(np.random.default_rng(seed).standard_normal([n, 6], "float32")).numpy()


class Eager(TinyExport):
    """What Python decides is lost in a graph."""

    def call(self, images, training=False):
        return super().call(images) + (1.0 if tf.executing_eagerly() else 0.0)


class Noisy(TinyExport):
    def call(self, images, training=False):
        return super().call(images) + tf.random.normal([])


class FixedSize(Tiny):
    """One convolution of images of one size."""

    sides = 16, 24

    def layers(self):
        inputs = keras.Input([*self.sides, self.source.channels])
        return keras.Model(inputs, keras.layers.Conv2D(1, 3, padding="same")(inputs))


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinerRecipe(Recipe):
    scale: int = 2
    dimensions: int = 2


class Finer(Tiny):
    """Super-resolution of images or of volumes."""

    recipe_class = FinerRecipe

    def layers(self):
        inputs = keras.Input([None] * self.dimensions + [1])
        layer = {2: keras.layers.Conv2DTranspose, 3: keras.layers.Conv3DTranspose}
        return keras.Model(inputs, layer[self.dimensions](1, 2, 2, activation="tanh")(inputs))


class Classifier(Tiny):
    classifies = True
    label_names = ("air", "fat", "bone")

    def layers(self):
        inputs = keras.Input([None, None, 1])
        return keras.Model(inputs, keras.layers.Conv2D(self.classes, 3, padding="same")(inputs))


class Reconstruction(FixedSize):
    sides = 8, 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConditionalRecipe(GeneratorRecipe):
    conditional: bool = True
    class_names: tuple[str, ...] = ("left", "right")


class Conditional(TinyGenerator):
    recipe_class = ConditionalRecipe
    length = 6 + 2

    def call(self, inputs, training=False):
        latents, labels = inputs
        values = tf.concat([latents, tf.one_hot(labels, 2)], axis=-1)
        return super().call(values, training)


def tiny(cls=TinyExport, source=CT, target=MR, **fields) -> Translator:
    keras.utils.set_random_seed(3)
    return cls(cls.recipe_class(**{"tile": 64} | fields), source, target)


@pytest.fixture
def in_this_process(monkeypatch):
    harness.export_in_this_process(monkeypatch)


def papers(folder: Path) -> tuple[dict, str]:
    """The contract and the card of an export."""
    extra = folder / "assets.extra"
    contract = json.loads((extra / "intensity.json").read_text())
    return contract, (extra / "model_card.md").read_text()


def run_example(folder: Path, card: str, monkeypatch, capsys) -> str:
    """What the card's example prints."""
    monkeypatch.chdir(folder.parent)
    exec(re.search(r"```python\n(.*?)```", card, re.DOTALL).group(1), {})
    return capsys.readouterr().out.strip()


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> tuple[Translator, Path]:
    model = tiny()
    card = {"dataset": "ldct/phantom", "licence": "CC0", "metrics": {"test": {"psnr": 31.25}}}
    return model, export(model, tmp_path_factory.mktemp("served"), card=card)


def serve(folder: Path):
    return tf.saved_model.load(str(folder)).signatures["serving_default"]


def test_what_cannot_be_written_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    def full(self, *arguments, **options):
        raise tf.errors.ResourceExhaustedError(None, None, "{{node x}} No space left on device")

    monkeypatch.setattr(type(keras.export.ExportArchive()), "write_out", full)  # a subclass
    model = TinyGenerator(GeneratorRecipe(), Domain(), Domain())
    with pytest.raises(OSError, match=r"out/1: could .*Received: No space left on device$"):
        export(model, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_it_answers_as_the_model_does_at_any_size(exported):
    model, folder = exported
    signature = serve(folder)
    for shape in ((1, 37, 51, 1), (3, 20, 9, 1)):
        images = np.random.default_rng(1).uniform(-1200, 2500, shape).astype("float32")
        answer = signature(images=tf.constant(images))
        assert list(answer) == ["images"]
        assert answer["images"].dtype == tf.float32
        np.testing.assert_allclose(answer["images"], model(images), atol=0.01)
        assert answer["images"].shape == shape


def test_png_in_and_out_answers_as_numbers_do(exported):
    model, folder = exported
    contract, _ = papers(folder)
    given, made = (contract["bytes"][end] for end in ("input", "output"))
    hu = np.random.default_rng(2).integers(-1024, 3072, [2, 21, 34]).astype("float32")
    stored = ((hu - given["intercept"]) / given["slope"]).astype("uint16")
    np.testing.assert_array_equal(stored * given["slope"] + given["intercept"], hu)  # exact
    files = [png_of(image) for image in stored]
    signatures = tf.saved_model.load(str(folder)).signatures
    answer = signatures["bytes"](**{given["name"]: tf.constant(files)})[made["name"]]
    images = np.stack([read_png(png) for png in answer.numpy()])
    values = images * made["slope"] + made["intercept"]
    wanted = signatures["serving_default"](images=tf.constant(hu[..., None]))["images"]
    np.testing.assert_allclose(values, wanted[..., 0], atol=made["slope"] / 2 + 1e-3)
    assert (
        signatures["bytes"](**{given["name"]: tf.constant([], tf.string)})[made["name"]].shape == 0
    )


def png_of(image: np.ndarray) -> bytes:
    """A PNG by another library."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def read_png(data: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros([8, 8], np.uint8), "expected PNG of 16 bits"),
        (np.zeros([8, 8, 3], np.uint8), "expected PNG of 16 bits"),
    ],
)
def test_png_of_8_bits_is_refused(exported, image, message):
    _, folder = exported
    signature = tf.saved_model.load(str(folder)).signatures["bytes"]
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        signature(images_bytes=tf.constant([png_of(image)]))


@pytest.mark.parametrize(
    ("window", "slope", "intercept"),
    [((-1024.0, 1500.0), 0.125, -3548.0), ((0.0, 4095.0), 0.25, -4095.0)],
)
def test_the_scale_of_png_holds_whole_numbers_and_what_lies_beyond_the_window(
    window, slope, intercept
):
    scale = png16.Scale.of(Domain(window=window))
    assert (scale.slope, scale.intercept) == (slope, intercept)
    values = np.array([window[0] - 1000, *window, 2 * window[1]], np.float32)
    np.testing.assert_array_equal(scale.physical(scale.stored(values)), values)


def test_warm_up_requests_are_what_the_official_protos_read(exported):
    from tensorflow_serving.apis import prediction_log_pb2

    _, folder = exported
    file = folder / "assets.extra" / "tf_serving_warmup_requests"
    signatures = tf.saved_model.load(str(folder)).signatures
    asked = []
    for record in tf.data.TFRecordDataset(str(file)):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        request = log.predict_log.request
        inputs = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
        tensors = {name: tf.constant(value) for name, value in inputs.items()}
        assert signatures[request.model_spec.signature_name](**tensors)
        asked.append(request.model_spec.signature_name)
    assert sorted(asked) == sorted(signatures) == ["bytes", "serving_default"]


def test_the_folder_is_what_tf_serving_watches(exported):
    _, folder = exported
    assert folder.name == "1"
    assert (folder / "saved_model.pb").is_file()
    assert sorted(p.name for p in folder.parent.iterdir()) == ["1"]
    plain = folder.parent / "plain"
    plain.mkdir()  # with the permissions that the user's umask gives, not a temporary folder's
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
    plain.rmdir()


def test_the_batching_file_is_what_tf_serving_reads(exported):
    """By `BatchingParameters` of its session_bundle_config.proto, which no package ships."""
    wrappers = wrappers_pb2.DESCRIPTOR
    file = descriptor_pb2.FileDescriptorProto(name="batching", dependency=[wrappers.name])
    message = file.message_type.add(name="BatchingParameters")
    numbers = (
        "max_batch_size",
        "batch_timeout_micros",
        "max_enqueued_batches",
        "num_batch_threads",
    )
    for number, name in enumerate(numbers, 1):
        kind = ".google.protobuf.Int64Value"
        message.field.add(name=name, number=number, type=11, label=1, type_name=kind)
    message.field.add(name="allowed_batch_sizes", number=6, type=3, label=3)
    pool = descriptor_pool.DescriptorPool()
    for serialised in (wrappers.serialized_pb, file.SerializeToString()):
        pool.AddSerializedFile(serialised)
    made = message_factory.GetMessageClass(pool.FindMessageTypeByName("BatchingParameters"))()
    path = exported[1] / "assets.extra" / "batching_parameters.txt"
    found = text_format.Parse(path.read_text(encoding="utf-8"), made)
    # TF Serving demands that the last one is the largest batch.
    assert list(found.allowed_batch_sizes) == [1, 2, 4, 8] and found.max_batch_size.value == 8
    assert found.max_enqueued_batches.value > 0 and found.num_batch_threads.value > 0


def test_the_contract_names_units_windows_and_weights(exported):
    model, folder = exported
    contract, _ = papers(folder)
    assert Domain.from_dict(contract["source"]) == CT
    assert Domain.from_dict(contract["target"]) == MR
    assert contract["input"] == {
        "name": "images",
        "dtype": "float32",
        "shape": [None, None, None, 1],
    }
    assert contract["size_multiple"] == 2
    assert contract["tile"] == {"size": 64, "overlap": 8}
    assert contract["weights_sha256"] == model.weights_hash
    assert contract["dataset"] == "ldct/phantom"
    assert Recipe.from_dict(contract["recipe"]) == model.recipe
    assert contract["libraries"]["tensorflow"] == tf.__version__


def test_the_cards_example_runs(exported, monkeypatch, capsys):
    model, folder = exported
    _, card = papers(folder)
    for text in ("ldct/phantom", "CC0", "31.25", "HU", model.weights_hash, "Not a medical device"):
        assert text in card
    assert 1 <= int(re.search(r"64 × 64 took about (\d+) MiB", card).group(1)) < 2000
    assert run_example(folder, card, monkeypatch, capsys) == "(1, 64, 64, 1)"


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_model_that_enlarges(tmp_path, in_this_process, monkeypatch, capsys, dimensions):
    domain = dataclasses.replace(CT, spacing=(1.5, 0.7, 0.7)[-dimensions:])
    model = tiny(Finer, domain, dimensions=dimensions)
    folder = export(model, tmp_path)
    shape = (1, 5, 7, 6)[: dimensions + 1] + (1,)
    images = np.random.default_rng(1).uniform(-1200, 2500, shape).astype("float32")
    answer = serve(folder)(images=tf.constant(images))["images"]
    assert answer.shape == (1, *(2 * side for side in shape[1:-1]), 1)
    np.testing.assert_allclose(answer, model(images), atol=0.01)
    contract, card = papers(folder)
    assert contract["input"]["shape"] == [None] * (dimensions + 1) + [1]
    assert (contract["scale"], contract["dimensions"]) == (2, dimensions)
    assert "Every side of the output is 2 times the input's." in card
    if dimensions == 3:
        assert "1.5 × 0.7 × 0.7 mm (slice, row, column)" in card
        assert "One volume of 32 × 32 × 32 took about 3 MiB" in card
        assert "Any depth, height and width" in card
        assert "tiles of 64 × 64 × 64 pixels which overlap by 8" in card
        expected = "(1, 32, 32, 32, 1)"
    else:
        assert "One image of 64 × 64 took about 3 MiB" in card
        expected = "(1, 128, 128, 1)"
    assert run_example(folder, card, monkeypatch, capsys) == expected


_SHAPES = {  # what is asked of a signature, and what it should answer: a shape, or refuse
    "images": {(0, 12, 10, 1): (0, 12, 10, 1), (2, 12, 10, 3): None, (12, 10): None},
    "volumes": {(0, 5, 4, 6, 1): (0, 10, 8, 12, 1), (1, 5, 4, 6, 2): None, (1, 5, 4, 1): None},
    "k-space": {(0, 8, 8, 2): (0, 8, 8, 1), (1, 8, 8, 1): None, (1, 16, 16, 2): None},
    "latents": {(0, 6): (0, 8, 8, 1), (2, 7): None, (6,): None},
}
_ASK = """
import ast, sys
import tensorflow as tf
for folder, name, shapes in ast.literal_eval(sys.argv[1]):
    serve = tf.saved_model.load(folder).signatures["serving_default"]
    for shape, expected in shapes.items():
        try:
            answer = tuple(serve(**{name: tf.zeros(shape)})["images"].shape)
        except tf.errors.InvalidArgumentError:
            answer = None
        print(folder, shape, "answered", answer, "expected", expected)
        assert answer == expected
"""


def test_signatures_refuse_what_they_cannot_take_and_take_nothing(tmp_path, in_this_process):
    kspace = Domain(modality="MR", unit="k-space", window=(-5.0, 5.0), channels=2)
    models = {
        "images": tiny(),
        "volumes": tiny(Finer, CT, dimensions=3),
        "k-space": tiny(Reconstruction, kspace),
        "latents": tiny(TinyGenerator),
    }
    questions = [
        (
            str(export(model, tmp_path / kind)),
            "latents" if kind == "latents" else "images",
            _SHAPES[kind],
        )
        for kind, model in models.items()
    ]
    done = subprocess.run(
        [sys.executable, "-P", "-c", _ASK, str(questions)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_empty_batch_is_translated_to_one():
    labels = Domain(modality="SEG", unit="class", window=(0, 2))
    assert tiny().translate(np.zeros([0, 9000, 12])).shape == (0, 9000, 12)
    assert tiny().translate(np.zeros([0, 9, 12, 1], "int16")).shape == (0, 9, 12, 1)
    assert tiny(Classifier, target=labels).translate(np.zeros([0, 9, 12])).shape == (0, 9, 12)
    volumes = tiny(Finer, CT, dimensions=3)
    assert volumes.translate(np.zeros([0, 3, 4, 5])).shape == (0, 6, 8, 10)
    with pytest.raises(ValueError, match=r"images with pixels. Received: shape \(2, 0, 5\)"):
        tiny().translate(np.zeros([2, 0, 5]))


def test_a_classifier_serves_class_numbers(tmp_path, in_this_process):
    labels = Domain(modality="SEG", unit="class", window=(0, 2))
    model = tiny(Classifier, target=labels)
    folder = export(model, tmp_path)
    images = np.random.default_rng(1).uniform(-1200, 2500, (1, 20, 30, 1)).astype("float32")
    answer = serve(folder)(images=tf.constant(images))["images"].numpy()
    assert answer.dtype == np.float32
    assert set(np.unique(answer)) <= {0, 1, 2}
    contract, card = papers(folder)
    assert (contract["classes"], contract["label_names"]) == (3, ["air", "fat", "bone"])
    assert "a whole number in float32: 0 air, 1 fat, 2 bone." in card
    assert "From CT images in HU, 1 channel(s) to label maps" in card


def test_label_maps_may_differ_at_ties_only():
    model = tiny(Classifier, target=Domain(modality="SEG", unit="class", window=(0, 2)))
    expected = np.zeros((1, 100, 100, 1), np.float32)
    received = expected.copy()
    received[0, 0, :10] = 2
    compare(model, received, expected, "a")
    received[0, 1, 0] = 2
    with pytest.raises(ValueError, match=r"other classes at a fraction up to 0.001.*0.0011"):
        compare(model, received, expected, "a")


def test_a_reconstruction_takes_k_space_of_one_size(tmp_path, in_this_process, monkeypatch, capsys):
    kspace = Domain(modality="MR", unit="k-space", window=(-5.0, 5.0), channels=2)
    folder = export(tiny(Reconstruction, kspace), tmp_path)
    contract, card = papers(folder)
    assert contract["input"]["shape"] == [None, 8, 8, 2]
    assert "From MR k-space to MR images in signal values" in card
    assert "real and the imaginary part" in card
    assert "Images of 8 × 8 pixels, and no others." in card
    assert run_example(folder, card, monkeypatch, capsys) == "(1, 8, 8, 1)"


def test_a_conditional_generator_takes_labels(tmp_path, monkeypatch, capsys):
    model = tiny(Conditional)
    folder = export(model, tmp_path)
    latents = np.random.default_rng(0).standard_normal([2, 6], "float32")
    labels = np.array([1, 0])
    answer = serve(folder)(latents=tf.constant(latents), labels=tf.constant(labels))["images"]
    np.testing.assert_allclose(answer, model([latents, labels]), atol=0.01)
    contract, card = papers(folder)
    assert contract["input"] == {"name": "latents", "dtype": "float32", "shape": [None, 6]}
    assert contract["labels"] == {
        "name": "labels", "dtype": "int64", "shape": [None], "names": ["left", "right"],
    }  # fmt: skip
    assert "labels, the class of each image: 0 left, 1 right." in card
    assert run_example(folder, card, monkeypatch, capsys) == "(1, 8, 8, 1)"


def test_a_generator_takes_latents(tmp_path, in_this_process):
    model = tiny(TinyGenerator)
    folder = export(model, tmp_path / "new" / "folder", version=7)
    assert folder == tmp_path / "new" / "folder" / "7"
    latents = np.random.default_rng(0).standard_normal([2, 6], "float32")
    answer = serve(folder)(latents=tf.constant(latents))["images"]
    np.testing.assert_allclose(answer, model(latents), atol=0.01)
    assert "latents = np.random" in papers(folder)[1]


def test_a_network_of_one_size_is_served_at_that_size():
    (spec,) = serving_specs(tiny(FixedSize)).values()
    assert (spec.name, spec.shape.as_list()) == ("images", [None, 16, 24, 1])


def test_versions_count_up_and_never_overwrite(tmp_path, monkeypatch):
    monkeypatch.setattr("zoo.serving.export.verify", lambda *arguments: 0)
    (tmp_path / "9").mkdir()
    (tmp_path / "notes").mkdir()
    assert export(tiny(), tmp_path).name == "10"
    with pytest.raises(ValueError, match="version: .* Received: 10"):
        export(tiny(), tmp_path, version=10)
    with pytest.raises(ValueError, match="version: expected a positive number. Received: 0"):
        export(tiny(), tmp_path, version=0)


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (Eager, r"differs from the model on an input of \(2, 37, 51, 1\).*Received: 1"),
        (Noisy, "two answers to one input"),
    ],
)
def test_an_export_that_answers_otherwise_is_refused(tmp_path, in_this_process, cls, message):
    with pytest.raises(ValueError, match=message):
        export(tiny(cls), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_real_slices_are_compared_too(tmp_path, in_this_process, monkeypatch):
    seen = []
    monkeypatch.setattr(verify, "compare", lambda *given, **_: seen.append(given[3]))
    export(tiny(), tmp_path)
    for shape in ("(1, 128, 128, 1)", "(2, 85, 121, 1)"):
        assert any(shape in what for what in seen)
    # CT is in HU; of MR, whose numbers mean nothing, each channel fills its window.
    model = tiny()
    real = verify._real(model, serving_specs(model))["real"]["images"]
    header = pydicom.dcmread(pydicom.data.get_testdata_file("CT_small.dcm"))
    hu = header.pixel_array * float(header.RescaleSlope) + float(header.RescaleIntercept)
    np.testing.assert_array_equal(real[0, ..., 0], hu)
    two = [
        Domain(name=name, modality="MR", window=(0.0, high))
        for name, high in (("a", 4.0), ("b", 9.0))
    ]
    model = tiny(source=Domain(inputs=tuple(two)))
    real = verify._real(model, serving_specs(model))["real"]["images"]
    np.testing.assert_allclose(real.max(axis=(0, 1, 2)), [4, 9])
    assert real.min() >= 0 and real.std() > 0.5
    # What a scanner measures, and what a generator takes, are no slices.
    assert not verify._real(tiny(TinyGenerator), serving_specs(tiny(TinyGenerator)))


def test_what_lies_beyond_the_window_is_rounded_as_coarsely_as_it_is_large():
    model, expected = tiny(), np.array([[0.0, 99 * MR.span]], np.float32)
    compare(model, expected + 5e-4 * MR.span, expected, "an answer")
    with pytest.raises(ValueError, match=r"a difference up to 4. Received: 8"):
        compare(model, expected + 2e-3 * MR.span, expected, "an answer")


def test_an_export_that_does_not_load_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("zoo.serving.verify._CHILD", "raise SystemExit('no such op')")
    with pytest.raises(ValueError, match="does not run by itself. Received: no such op"):
        export(tiny(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_bad_arguments_are_named(tmp_path):
    with pytest.raises(ValueError, match="card: .* Received: 'license'"):
        export(tiny(), tmp_path, card={"license": "CC0"})
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="output: expected a folder"):
        export(tiny(), tmp_path / "file")


def test_bfloat16_models_export_with_float32_in_and_out(tmp_path, in_this_process):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = tiny()
    finally:
        keras.config.set_dtype_policy("float32")
    assert (model.precision, tiny().precision) == ("bfloat16", "float32")
    folder = export(model, tmp_path)
    images = tf.constant(np.random.default_rng(2).uniform(-1000, 2000, [1, 8, 8, 1]), tf.float32)
    answer = serve(folder)(images=images)["images"]
    assert answer.dtype == tf.float32
    np.testing.assert_allclose(answer, model(images), atol=40)
    assert papers(folder)[0]["precision"] == "bfloat16"


def test_the_card_takes_what_the_registry_knows():
    entry = zoo.lookup("tiny_export", overrides={"steps": 2})
    assert card_fields(entry) == {"name": "tiny_export"}
