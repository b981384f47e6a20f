import functools
import json

import numpy as np
import pytest
import tensorflow as tf

import harness
import zoo
from zoo.cache import file_sha256
from zoo.domain import Domain
from zoo.models._unet import unet

TINY = {"base_filters": 4, "levels": 3, "crop": 32}


@pytest.mark.parametrize(("filters", "count"), [(64, 31_030_593), (32, 7_759_521)])
def test_has_the_published_number_of_parameters(filters, count):
    network = unet(1, 1, base_filters=filters, levels=5)
    assert network.count_params() == count


def test_levels_grow_as_asked_and_have_so_many_convolutions():
    network = unet(1, 1, base_filters=16, levels=3, growth=1.25, convolutions=1, skips="add")
    kernels = [tuple(w.shape) for w in network.trainable_weights if len(w.shape) == 4]
    down = [(3, 3, 1, 16), (3, 3, 16, 20), (3, 3, 20, 25)]
    up = [(2, 2, 20, 25), (3, 3, 20, 20), (2, 2, 16, 20), (3, 3, 16, 16)]
    assert kernels == [*down, *up, (1, 1, 16, 1)]


def test_contract(tmp_path, monkeypatch, two_replicas):
    options = {"norm": "batch", "output": "auto", "residual_blocks": 1}
    batch = functools.partial(harness.batch_of, 32)
    harness.run_translator_test(
        "encoder_decoder", TINY | options, batch, tmp_path, monkeypatch, two_replicas
    )


@pytest.mark.parametrize(
    "options",
    [
        {"skips": "add", "upsampling": "pixel_shuffle", "norm": "instance", "loss": "structure"},
        {"skips": "conv", "upsampling": "resize", "norm": "batch", "loss": "l1"},
        {"skips": "none", "downsampling": "stride", "residual_blocks": 2, "loss": "charbonnier"},
        {"skips": "add", "growth": 1.5, "convolutions": 1},
    ],
)
def test_every_weight_learns_in_every_variant(options):
    model = harness.build("encoder_decoder", TINY | options)
    harness.every_weight_learns(model, functools.partial(harness.batch_of, 32))


SEGMENTS = Domain(modality="SEG", unit="class", window=(0, 2))


def segments_of(size, count, seed=0):
    """Images in HU whose three classes are air, water and bone with noise."""
    rng = np.random.default_rng(seed)
    labels = np.kron(rng.integers(0, 3, (count, size // 8, size // 8)), np.ones((8, 8)))[..., None]
    images = np.array([-800.0, 0.0, 700.0])[labels.astype(int)] + rng.normal(0, 60, labels.shape)
    arrays = {"source": images.astype("float32"), "target": labels.astype("float32")}
    return harness.tensors(arrays, seed)


@pytest.mark.parametrize("name", ["encoder_decoder", "pix2pix"])
def test_classifies_pixels(name, tmp_path, monkeypatch):
    options = {"learning_rate": 3e-3, "base_filters": 8, "levels": 3, "steps": 400}
    more = {"discriminator_filters": 4} if name == "pix2pix" else {}
    batch = functools.partial(segments_of, 32)
    harness.run_translator_test(name, options | more, batch, tmp_path, monkeypatch, target=SEGMENTS)
    model = harness.build(name, options | more, target=SEGMENTS)
    model.compile()
    step = tf.function(model.train_step)
    for seed in range(60):
        logs = step(batch(4, seed))
    assert logs["accuracy"] > 0.9
    held_out = batch(2, 1000)
    labels = model.translate(held_out["source"].numpy())
    assert set(np.unique(labels)) <= {0.0, 1.0, 2.0}
    assert (labels == held_out["target"].numpy()).mean() > 0.9
    assert model.test_step(held_out)["accuracy"] > 0.9


def test_labels_of_tiles_are_those_of_the_whole():
    model = harness.build("encoder_decoder", TINY | {"tile": 64}, target=SEGMENTS)
    image = np.random.default_rng(0).uniform(-900, 900, (400, 300)).astype("float32")
    whole = model(image[None, ..., None]).numpy()[0, ..., 0]
    tiled = model.translate(image)
    inner = (slice(model.tile_margin, -model.tile_margin),) * 2
    assert (tiled[inner] == whole[inner]).mean() > 0.999


@pytest.mark.parametrize("upsampling", ["deconv", "pixel_shuffle", "resize"])
@pytest.mark.parametrize("downsampling", ["pool", "stride"])
def test_tiled_equals_untiled_away_from_the_border(upsampling, downsampling):
    options = {"upsampling": upsampling, "downsampling": downsampling, "residual_blocks": 1}
    options["convolutions"] = 3 if upsampling == "resize" else 2
    model = harness.build("encoder_decoder", TINY | options | {"tile": 64})
    image = np.random.default_rng(0).uniform(-500, 500, (600, 520)).astype("float32")
    whole = model(image[None, ..., None]).numpy()[0, ..., 0]
    tiled = model.translate(image)
    border = model.tile_margin
    inner = (slice(border, -border),) * 2
    np.testing.assert_allclose(tiled[inner], whole[inner], atol=2e-3)


def test_neighbouring_slices_correct_the_middle_one():
    source = harness.Domain(modality="CT", unit="HU", window=(-1000, 1000), channels=3)
    model = harness.build("encoder_decoder", TINY | {"output": "residual"}, source=source)
    image = np.random.default_rng(0).uniform(-500, 500, (1, 32, 32, 3)).astype("float32")
    model.network.set_weights([np.zeros_like(w) for w in model.network.get_weights()])
    np.testing.assert_allclose(model.translate(image)[..., 0], image[..., 1], atol=1e-3)


@pytest.mark.parametrize(("precision", "within"), [("float32", 1e-3), ("bfloat16", 0.05)])
def test_equivariant_to_scale_and_level(precision, within):
    harness.equivariant_to_scale_and_level(
        "encoder_decoder", within, precision=precision, base_filters=6, levels=3, skips="add"
    )


def test_relative_losses_count_weak_noise_alike():
    harness.relative_losses_count_weak_noise_alike("encoder_decoder", TINY | {"loss": "l1"})


def test_relative_is_refused_between_windows():
    other = Domain(modality="CT", unit="HU", window=(0, 100))
    with pytest.raises(ValueError, match="relative: .*share a window"):
        zoo.load("encoder_decoder", **TINY, relative=True, target=other)


def test_a_student_learns_what_its_teacher_gives(tmp_path):
    """Of one domain; the teacher is neither trained nor kept."""
    denoiser = {"output": "residual", "loss": "l1"}
    teacher = harness.build("encoder_decoder", TINY | denoiser)
    folder = saved(teacher, tmp_path / "teacher")
    student = harness.build("encoder_decoder", TINY | denoiser | {"teacher": folder})
    student.compile()
    alone = harness.build("encoder_decoder", TINY | denoiser)
    alone.compile()
    batch = harness.batch_of(32, 2)
    source, target = batch["source"], student.target.encode(batch["target"])
    taught = teacher.target.encode(teacher(source))
    assert float(student._loss(source, target, taught)) == pytest.approx(0, abs=1e-6)
    off = taught + 0.25
    assert float(student._loss(source, target, off)) == pytest.approx(0.25, rel=1e-4)
    expected = float(alone._loss(source, target, off))
    object.__setattr__(student.recipe, "teacher_share", 0.2)
    mixed = float(student._loss(source, target, off))
    assert mixed == pytest.approx(0.2 * 0.25 + 0.8 * expected, rel=1e-4)
    before = [weight.numpy() for weight in teacher.network.weights]
    student.train_step(batch)
    for weight, old in zip(teacher.network.weights, before, strict=True):
        np.testing.assert_array_equal(weight, old)
    assert len(student.variables) == len(alone.variables)


def test_a_teacher_of_another_domain_is_refused(tmp_path):
    mr = Domain(modality="MR", unit="signal", window=(0, 4095))
    folder = saved(harness.build("encoder_decoder", TINY, mr, mr), tmp_path / "teacher")
    student = harness.build("encoder_decoder", TINY | {"teacher": folder})
    with pytest.raises(ValueError) as error:
        student.compile()
    assert str(error.value) == (
        f"teacher: expected a model from CT in HU to CT in HU. Received: {folder}, from MR in "
        "signal to MR in signal"
    )


def saved(model, folder):
    """The path of a run folder that holds this model."""
    (folder / "weights").mkdir(parents=True)
    model(np.zeros([1, 32, 32, 1], "float32"))
    weights = folder / "weights" / "encoder_decoder.weights.h5"
    model.network.save_weights(weights)
    record = {
        "model": "encoder_decoder",
        "recipe": model.recipe.to_dict(),
        "source": model.source.to_dict(),
        "target": model.target.to_dict(),
        "weights": {"file": f"weights/{weights.name}", "sha256": file_sha256(weights)},
        "state": "done",
    }
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    return str(folder)
