"""Tests of zoo/models/automap.py."""

import functools

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

import harness
import zoo
import zoo.models.automap  # registers the class
from zoo import command_line
from zoo.domain import Domain
from zoo.models import automap
from zoo.models.automap import Automap, AutomapRecipe, parameter_count
from zoo.physics import fourier, radon
from zoo.recipe import DataFacts

KSPACE = Domain(modality="MR", unit="k-space", window=(-16.0, 16.0), channels=2)
SIGNAL = Domain(modality="MR", unit="signal", window=(0.0, 1.0))
LINEAR = {"variant": "dautomap", "transforms": 1, "transform_activation": "none"}
TINY = {"n": 16, "filters": 4, "base_filters": 4, "levels": 2}


def images_of(n: int, count: int, seed: int = 0) -> np.ndarray:
    """Smooth images in [0, 1]."""
    rng = np.random.default_rng(seed)
    waves = np.cumsum(np.cumsum(rng.normal(size=[count, n, n]), axis=1), axis=2)
    low, high = waves.min((1, 2), keepdims=True), waves.max((1, 2), keepdims=True)
    return ((waves - low) / (high - low)).astype("float32")[..., None]


def batch_of(n: int, count: int, seed: int = 0):
    images = images_of(n, count, seed)
    source = fourier.to_channels(fourier.to_kspace(images[..., 0]))
    return harness.tensors({"source": source, "target": images}, seed)


def build(**options) -> Automap:
    return harness.build("automap", TINY | options, KSPACE, SIGNAL)


def trainable(network) -> int:
    return sum(int(np.prod(v.shape)) for v in network.trainable_variables)


def test_parameter_counts_of_the_paper():
    assert parameter_count(64) == 50_447_105
    assert parameter_count(128) == 805_446_401
    assert parameter_count(256) == pytest.approx(12.9e9, rel=1e-2)


@pytest.mark.parametrize("n", [16, 32, 64])
def test_the_count_is_that_of_the_network(n):
    assert trainable(automap.automap(2, 1, AutomapRecipe(n=n))) == parameter_count(n)


@pytest.mark.parametrize("n", [16, 128])
def test_dautomap_has_two_transforms_of_two_maps_as_published(n):
    """Of the authors' convolutions with kernels n x 1, 2 channels to 2n, and of AUTOMAP's three."""
    recipe = AutomapRecipe(n=n, variant="dautomap")
    convolution = 2 * n * (2 * n) + 2 * n
    refinement = (25 * 2 * 64 + 64) + (25 * 64 * 64 + 64) + (49 * 64 + 1)
    assert automap.transform_count(recipe) == 4 * convolution
    assert trainable(automap.automap(2, 1, recipe)) == 4 * convolution + refinement
    assert n != 128 or 4 * convolution + refinement == 372_033
    sinograms = AutomapRecipe(n=16, variant="dautomap", sensors=(8, 24))
    network = automap.automap(1, 1, sinograms)
    maps = [layer for layer in network.layers if isinstance(layer, automap.AxisTransform)]
    assert automap.transform_count(sinograms, 1) == sum(map(trainable, maps))


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_dautomap_transforms_rows_and_columns_twice(activation):
    model = build(variant="dautomap", n=6, transform_activation=activation)
    function = {"relu": lambda v: np.maximum(v, 0.0), "tanh": np.tanh}[activation]
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, [2, 6, 6, 2]).astype("float32")
    layer = model.network.get_layer("transform")
    for bias in [v for v in model.network.variables if v.path.endswith("bias")]:
        bias.assign(rng.normal(0, 0.1, bias.shape))
    found = tf.keras.Model(model.network.input, layer.output)(x)
    maps = [each for each in model.network.layers if isinstance(each, automap.AxisTransform)]
    assert [each.axis for each in maps] == [1, 2, 1, 2]
    expected = x.astype(float) * KSPACE.span / SIGNAL.span
    for each in maps:
        kernel, bias = each.kernel.numpy().reshape(12, 12), each.bias.numpy().reshape(12)
        lines = expected if each.axis == 2 else expected.transpose(0, 2, 1, 3)
        lines = function(lines.reshape(-1, 12) @ kernel + bias).reshape(2, 6, 6, 2)
        expected = lines if each.axis == 2 else lines.transpose(0, 2, 1, 3)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_recipes_without_transforms_mean_one_linear_pair():
    stored = AutomapRecipe(**LINEAR).to_dict()
    old = {k: v for k, v in stored.items() if k not in ("transforms", "transform_activation")}
    assert AutomapRecipe.from_dict(old) == AutomapRecipe(**LINEAR)
    assert AutomapRecipe.from_dict(AutomapRecipe().to_dict()) == AutomapRecipe()
    assert zoo.lookup("automap_mri").recipe.transforms == 1
    assert zoo.lookup("automap", assignments=["variant=dautomap"]).recipe.transforms == 2


@pytest.mark.parametrize("variant", ["automap", "dautomap", "pix2pix"])
def test_contract(variant, tmp_path, monkeypatch, two_replicas):
    batch = functools.partial(batch_of, 16)
    harness.run_translator_test(
        "automap",
        TINY | {"variant": variant},
        batch,
        tmp_path,
        monkeypatch,
        None if variant == "dautomap" else two_replicas,  # it has no layer that needs care there
        source=KSPACE,
        target=SIGNAL,
    )


def test_fully_connected_layers_before_a_unet():
    model = build(variant="encoder_decoder")
    batch = batch_of(16, 2)
    assert model.translate(batch["source"].numpy()).shape == (2, 16, 16, 1)
    harness.every_weight_learns(model, functools.partial(batch_of, 16))


SINOGRAM = Domain(modality="CT", unit="line integral", window=(0.0, 8.0))
HU = Domain(modality="CT", unit="HU", window=(-1024.0, 1500.0))


def sinograms_of(count: int, seed: int = 0):
    """16 × 16 pixels of 10 mm and their projections, 8 views of 24 detectors."""
    hu = 1000.0 * images_of(16, count, seed) - 500.0
    beam = radon.ParallelBeam(16, 10.0, 8)
    source = beam.forward(radon.hu_to_attenuation(hu[..., 0]))[..., None]
    return harness.tensors({"source": source.astype("float32"), "target": hu}, seed)


@pytest.mark.parametrize("variant", ["automap", "dautomap"])
def test_sinograms(variant, tmp_path, monkeypatch):
    fields = TINY | {"variant": variant, "sensors": (8, 24)}
    harness.run_translator_test(
        "automap", fields, sinograms_of, tmp_path, monkeypatch, source=SINOGRAM, target=HU
    )
    model = harness.build("automap", fields, SINOGRAM, HU)
    assert model.network.input_shape == (None, 8, 24, 1)
    assert model.network.output_shape == (None, 16, 16, 1)
    for array in np.zeros([1, 16, 16, 1], "float32"), np.zeros([3, 16, 16], "float32"):
        with pytest.raises(ValueError, match="array: expected sinograms of 8 x 24"):
            model.translate(array)


def test_the_dense_variant_learns_to_reconstruct_from_sinograms():
    fields = TINY | {"variant": "automap", "sensors": (8, 24), "jitter": 0.0}
    model = harness.build("automap", fields | {"learning_rate": 1e-3}, SINOGRAM, HU)
    model.compile()
    step = tf.function(model.train_step, autograph=False)
    batch = sinograms_of(32)
    first = float(step(batch)["loss"])
    for _ in range(150):
        last = float(step(batch)["loss"])
    assert last < 0.2 * first


def inverse_dft(n: int) -> np.ndarray:
    """[h, c, h', c']: the centred unitary inverse DFT of one axis, real and imaginary parts."""
    place = np.arange(n) - n // 2
    matrix = np.exp(2j * np.pi * np.outer(place, place) / n) / np.sqrt(n)  # [frequency, pixel]
    kernel = np.zeros([n, 2, n, 2])
    kernel[:, 0, :, 0] = kernel[:, 1, :, 1] = matrix.real
    kernel[:, 0, :, 1], kernel[:, 1, :, 0] = matrix.imag, -matrix.imag
    return kernel


def set_to_inverse_dft(model: Automap) -> None:
    for layer in model.network.layers:
        if isinstance(layer, automap.AxisTransform):
            layer.set_weights([inverse_dft(model.recipe.side), np.zeros(layer.bias.shape)])


@pytest.mark.parametrize("n", [8, 15])
def test_transforms_of_dautomap_can_be_the_inverse_dft(n):
    model = build(n=n, **LINEAR)
    set_to_inverse_dft(model)
    rng = np.random.default_rng(0)
    kspace = rng.normal(size=[3, n, n, 2]).astype("float32")
    layer = model.network.get_layer("transform")
    values = tf.keras.Model(model.network.input, layer.output)(model.source.encode(kspace))
    image = fourier.to_channels(fourier.from_kspace(fourier.from_channels(kspace)))
    # The network counts in half spans of the target's window.
    np.testing.assert_allclose(values * SIGNAL.span / 2, image, atol=1e-5)


def test_dautomap_can_be_the_reconstruction():
    model = build(n=16, filters=2, **LINEAR)
    set_to_inverse_dft(model)
    first, second, last = [x for x in model.network.layers if hasattr(x, "filters")][-3:]
    for layer in (first, second):  # pass the real part, which is not negative, through the ReLUs
        kernel = np.zeros(layer.kernel.shape)
        kernel[2, 2, 0, 0] = 1.0
        layer.set_weights([kernel, np.zeros(layer.bias.shape)])
    kernel = np.zeros(last.kernel.shape)
    kernel[3, 3, 0, 0] = 1.0
    last.set_weights([kernel, np.zeros(1)])
    batch = batch_of(16, 3)
    np.testing.assert_allclose(model(batch["source"]), batch["target"], atol=1e-5)
    zero_filled, name = model.baseline(batch["source"][0].numpy())
    assert name == "zero-filled"
    np.testing.assert_allclose(model.translate(batch["source"].numpy())[0], zero_filled, atol=1e-5)


def test_an_axis_transform_is_a_map_along_one_axis():
    layer = automap.AxisTransform(6, 3, 2)
    x = np.random.default_rng(0).normal(size=[2, 4, 5, 2]).astype("float32")
    y = layer(x)
    layer.bias.assign(np.random.default_rng(1).normal(size=layer.bias.shape))
    biased = layer(x)
    kernel = layer.kernel.numpy()
    for row in range(4):
        expected = x[:, row].reshape(2, 10) @ kernel.reshape(10, 18)
        np.testing.assert_allclose(y[:, row], expected.reshape(2, 6, 3), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(biased - y, np.broadcast_to(layer.bias, y.shape), atol=1e-5)


def test_the_loss_is_the_papers_over_the_number_of_pixels():
    model = build(jitter=0.0, activity=0.1)
    model.compile()
    batch = batch_of(16, 3)
    output, features = model.learner(model.source.encode(batch["source"]))
    target = 2.0 * batch["target"] - 1.0
    squares = tf.reduce_sum(tf.square(output - target), axis=[1, 2, 3])
    activity = tf.reduce_sum(tf.abs(features), axis=[1, 2, 3])
    expected = np.mean(squares + 0.1 * activity) / 16**2
    assert float(model.train_step(batch)["loss"]) == pytest.approx(expected, rel=1e-5)


def test_jitter_comes_from_the_examples_seeds():
    def loss(seed, jitter):
        model = build(jitter=jitter, variant="dautomap", n=8)
        model.compile()
        batch = batch_of(8, 2) | {"seed": tf.constant([[seed, 0], [seed, 1]])}
        return float(model.train_step(batch)["loss"])

    assert loss(0, 0.5) == loss(0, 0.5) != loss(1, 0.5)
    assert loss(0, 0.0) == loss(1, 0.0)


@pytest.mark.parametrize("variant", ["automap", "dautomap"])
def test_learns_a_small_inverse_transform(variant):
    options = {"n": 8, "filters": 16, "jitter": 0.0, "learning_rate": 1e-3}
    model = build(variant=variant, **options)
    model.compile()
    batch = batch_of(8, 16)
    step = tf.function(model.train_step, autograph=False)
    first = float(step(batch)["loss"])
    for _ in range(100):
        last = float(step(batch)["loss"])
    assert last < 0.2 * first


def test_what_does_not_fit_is_refused_before_it_is_built():
    message = (
        r"n: expected at most 129, .* 256 x 256 pixels have 12,885,032,960 weights.* 154\.6 GB"
    )
    with pytest.raises(ValueError, match=message + r".*is 10\..*=dautomap.* Received: n=256"):
        build(n=256, variant="automap")
    with pytest.raises(ValueError, match="n: expected at most 8[0-9].*: n=100, variant=pix2pix"):
        build(n=100, variant="pix2pix", max_gigabytes=2.0)
    with pytest.raises(ValueError, match="variant=dautomap"):
        shapes = {"source_shape": (64, 364), "target_shape": (256, 256)}
        AutomapRecipe().resolve(DataFacts(**shapes))
    assert build(n=256, variant="dautomap").network.count_params() < 2e6
    automap.check_size(AutomapRecipe(n=128))  # the paper's own size


@pytest.mark.parametrize(("sensors", "channels"), [((0, 0), 2), ((64, 364), 1)])
def test_the_largest_n_that_is_named_fits(sensors, channels):
    def check(n):
        automap.check_size(AutomapRecipe(n=n, sensors=sensors, max_gigabytes=3.0), channels)

    with pytest.raises(ValueError) as error:
        check(500)
    largest = int(str(error.value).split("at most ")[1].split(",")[0])
    check(largest)
    with pytest.raises(ValueError):
        check(largest + 1)


def test_resolve_takes_n_from_the_data():
    def resolve(shape, source=None, **fields):
        facts = DataFacts(source_shape=source or shape, target_shape=shape)
        return AutomapRecipe(**fields).resolve(facts)

    assert resolve((32, 32)).n == 32
    assert resolve((32, 32), n=32).n == 32
    with pytest.raises(ValueError, match="n: expected data that are all square. Rec.*: 32 x 40"):
        resolve((32, 40))
    with pytest.raises(ValueError, match="all 64 x 64. Received: 32 x 32"):
        resolve((32, 32), n=64)
    with pytest.raises(ValueError, match="Received: several sizes"):
        resolve(None)
    assert resolve((32, 32)).sensors == (0, 0)
    sinograms = resolve((32, 32), source=(12, 46))
    assert (sinograms.n, sinograms.sensors, sinograms.measured) == (32, (12, 46), (12, 46))
    with pytest.raises(ValueError, match="sensors: expected the data's, 12 x 46. Rec.*: 12 x 44"):
        resolve((32, 32), source=(12, 46), sensors=(12, 44))


def test_another_size_is_refused():
    model = build()
    for ask in (model.translate, model):
        with pytest.raises(ValueError, match=r"k-space of 16 x 16.*: shape \(1, 32, 32, 2\)"):
            ask(np.zeros([1, 32, 32, 2], "float32"))
    with pytest.raises(ValueError, match=r"array: expected .*\[N, H, W, 2\]"):
        model.translate(np.zeros([16, 16], "float32"))
    assert model.network.input_shape == (None, 16, 16, 2) and not model.tiles


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"flip": True}, "flip: measurements are taken as they are"),
        ({"crop": 32}, "crop: measurements are taken as they are"),
    ],
)
def test_bad_recipes_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        AutomapRecipe(**fields)


def test_levels_must_divide_n():
    with pytest.raises(ValueError, match="levels: expected 18 pixels to be a multiple of 2.levels"):
        build(n=18, variant="encoder_decoder")


def test_a_sinogram_becomes_an_image(tmp_path, capsys):
    run = ["--model=automap", "--dataset=ct_recon/phantom_tiny", f"--workdir={tmp_path / 'run'}"]
    run += [f"--data_dir={tmp_path / 'data'}"]
    assert command_line.main(["cli.py", "train", *run, "--steps=2"]) == 0, capsys.readouterr().err
    assert command_line.main(["cli.py", "evaluate", *run]) == 0, capsys.readouterr().err
    (tmp_path / "in").mkdir()
    sinograms = np.random.default_rng(0).uniform(0, 4, [3, 32, 92]).astype("float32")
    np.save(tmp_path / "in" / "several.npy", sinograms)
    np.save(tmp_path / "in" / "one.npy", sinograms[1])
    np.save(tmp_path / "in" / "other.npy", sinograms[:, :30])
    PIL.Image.fromarray(np.zeros([32, 92], "uint16")).save(tmp_path / "in" / "image.png")
    predict = ["predict", f"--model={tmp_path / 'run'}", f"--input={tmp_path / 'in'}"]
    predict += [f"--output={tmp_path / 'out'}"]
    assert command_line.main(["cli.py", *predict]) == 1
    said = capsys.readouterr().err
    assert "other.npy: array: expected sinograms of 32 x 92" in said
    assert "image.png: unit: the model takes sinograms, NPY files [views, detectors]" in said
    several, one = (np.load(tmp_path / "out" / f"{name}.npy") for name in ("several", "one"))
    assert several.shape == (3, 64, 64) and one.dtype == np.float32
    np.testing.assert_array_equal(several[1], one)
    model = zoo.load(str(tmp_path / "run"))
    np.testing.assert_allclose(model.translate(sinograms)[1], one, atol=1e-2)
    assert sorted(path.name for path in (tmp_path / "out").glob("*.npy")) == [
        "one.npy",
        "several.npy",
    ]
