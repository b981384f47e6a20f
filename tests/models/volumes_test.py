"""The models that take images and volumes alike, with `dimensions=3`."""

import functools
import json

import numpy as np
import pytest

import harness
import zoo
from zoo import command_line, registry, training
from zoo.domain import Domain
from zoo.models.cyclegan import CycleGANRecipe
from zoo.models.encoder_decoder import EncoderDecoderRecipe as Recipe
from zoo.models.pix2pix import Pix2PixRecipe
from zoo.recipe import DataFacts
from zoo.step import forward_flops

UNET = {"base_filters": 2, "levels": 2}
PIX2PIX = {"base_filters": 2, "levels": 2, "discriminator_filters": 2, "discriminator_layers": 1}
PIX2PIX |= {"discriminator_norm": "none", "dropout": 0.0}
CYCLEGAN = {"base_filters": 2, "blocks": 2, "discriminator_filters": 2, "discriminator_layers": 1}
CYCLEGAN |= {"buffer": 2, "crop": 8, "discriminator_norm": "none"}
MODELS = {"encoder_decoder": UNET, "pix2pix": PIX2PIX, "cyclegan": CYCLEGAN}
VOLUME = (8, 8, 8)


def volumes_of(count: int, seed: int = 0) -> harness.Batch:
    return harness.enlarged_of(VOLUME, 1, count, seed)


def build(name: str, **fields):
    return harness.build(name, MODELS[name] | {"dimensions": 3} | fields)


OPTIONS = {
    "encoder_decoder": {"loss": "charbonnier", "residual_blocks": 1},
    "pix2pix": {"norm": "none", "refine": 2, "lambda_sharpness": 0.1, "output": "residual"},
    "cyclegan": {"norm": "none", "lambda_gradient": 1.0, "lambda_tv": 0.1, "lambda_air": 1.0},
}


@pytest.mark.parametrize("name", MODELS)
def test_contract_of_volumes(name, tmp_path, monkeypatch, two_replicas):
    options = MODELS[name] | {"dimensions": 3} | OPTIONS[name]
    # Of two ways and two replicas the images' contract is the same, and many times as fast.
    replicas = None if name == "cyclegan" else two_replicas
    harness.run_translator_test(name, options, volumes_of, tmp_path, monkeypatch, replicas)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("encoder_decoder", {"upsampling": "pixel_shuffle", "downsampling": "stride"}),
        ("encoder_decoder", {"upsampling": "resize", "skips": "conv", "norm": "batch"}),
        ("pix2pix", {"norm": "batch", "test_statistics": "moving"}),
        ("pix2pix", {"adversarial": "wgan", "spectral_norm": True, "dropout": 0.5, "levels": 5}),
        ("cyclegan", {"adversarial": "wgan", "share_encoder": True}),
    ],
)
def test_the_other_layers_and_losses_take_volumes_too(name, fields):
    model = build(name, **fields)
    model.compile()
    batch = volumes_of(2)
    if fields.get("levels") == 5:
        batch = harness.enlarged_of((32, 32, 32), 1, 1)
    logs = model.train_step(batch)
    assert all(np.isfinite(float(value)) for value in logs.values())
    assert model.translate(np.zeros((5, 9, 6), "float32")).shape == (5, 9, 6)


@pytest.mark.parametrize("name", MODELS)
def test_volumes_are_learned_in_float16(name):
    models = [build(name, precision=precision) for precision in ("float32", "float16")]
    models[1].network.set_weights(models[0].network.get_weights())
    image = volumes_of(1)["source"]
    whole, half = (model(image, training=False).numpy() for model in models)
    assert np.abs(whole - half).max() < 0.02 * np.ptp(whole) and models[1].precision == "float16"
    models[1].compile()
    logs = models[1].train_step(volumes_of(2))
    assert all(np.isfinite(float(value)) for value in logs.values())


def test_losses_that_compare_slices_take_volumes():
    flat = {"dimensions": 3, "crop": (8, 16, 16)}
    for name, fields in (
        ("encoder_decoder", {"loss": "structure", "lambda_perceptual": 0.1}),
        ("pix2pix", {"lambda_perceptual": 0.1}),
        ("cyclegan", {"lambda_perceptual": 0.1}),
    ):
        model = harness.build(name, MODELS[name] | flat | fields | {"extractor": "hed"})
        model.compile()
        logs = model.train_step(harness.enlarged_of((8, 16, 16), 1, 1))
        assert all(np.isfinite(float(value)) for value in logs.values())


def test_a_volume_of_one_repeated_slice_is_what_the_images_were():
    """With kernels that are those of a 2-D twin in their middle, D is left as it is."""
    flat = harness.build("encoder_decoder", UNET | {"levels": 1})
    deep = build("encoder_decoder", levels=1)
    for plane, cube in zip(flat.network.variables, deep.network.variables, strict=True):
        value = plane.numpy()
        if value.ndim == 4:
            value = np.zeros(cube.shape, np.float32)
            value[len(value) // 2] = plane.numpy()
        cube.assign(value)
    images = np.random.default_rng(0).uniform(-800, 800, (5, 12, 10)).astype("float32")
    np.testing.assert_allclose(deep.translate(images), flat.translate(images), atol=1e-2)


@pytest.mark.parametrize("name", ["encoder_decoder", "pix2pix"])
def test_label_maps_of_volumes(name):
    target = Domain(modality="SEG", unit="class", window=(0.0, 2.0))
    model = harness.build(name, MODELS[name] | {"dimensions": 3}, target=target)
    model.compile()
    rng = np.random.default_rng(0)
    source = rng.uniform(-800, 800, (2, *VOLUME, 1)).astype("float32")
    labels = rng.integers(0, 3, source.shape).astype("float32")
    logs = model.train_step({"source": source, "target": labels})
    assert 0 <= float(logs["accuracy"]) <= 1
    found = model.translate(source[0, :5, ..., 0])
    assert found.shape == (5, 8, 8)
    assert set(np.unique(found)) <= {0.0, 1.0, 2.0}


def test_weak_noise_counts_alike_in_volumes():
    rng = np.random.default_rng(0)
    clean = rng.uniform(-500, 500, (2, *VOLUME, 1)).astype("float32")
    noisy = clean + 100 * rng.standard_normal(clean.shape, np.float32)
    for name in ("encoder_decoder", "pix2pix"):
        losses = []
        for share in (1.0, 0.1):
            fields = {"equivariant": True, "relative": True, "output": "residual", "norm": "none"}
            model = build(name, **fields)
            model.compile()
            losses.append(model.train_step({"source": share * noisy, "target": share * clean}))
        np.testing.assert_allclose(losses[1]["mae"], 0.1 * losses[0]["mae"], rtol=0.02)


def test_a_picture_of_volumes_shows_their_middle_slices():
    batch = volumes_of(1)
    example = {key: batch[key][0].numpy() for key in ("source", "target")}
    for name in MODELS:
        picture = build(name).picture([example])
        assert picture.dtype == np.uint8
        assert picture.ndim == 3
        other = {key: image.copy() for key, image in example.items()}
        for image in other.values():
            image[:, 0] += 500.0  # everywhere at the edge
        assert (build(name).picture([other]) != picture).any()


def test_crops_that_are_not_cubes():
    recipe = Recipe(dimensions=3, crop="4,16,8")
    assert recipe.crop == (4, 16, 8) == recipe.crop_sides
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert Recipe(crop="64,64") == Recipe(crop=64)
    assert Recipe(crop=(96, 64)).crop_sides == (96, 64)
    assert Recipe(dimensions=3, crop=16).crop_sides == (16, 16, 16)
    assert Recipe(crop=0).crop_sides == ()
    assert Recipe.parse(["crop=16,128,128", "dimensions=3"])["crop"] == (16, 128, 128)
    for crop, dimensions, axes in (("16,16", 3, "D,H,W"), ("8,16,16", 2, "H,W")):
        with pytest.raises(ValueError, match=f"^crop: expected one number, or {axes} .*: {crop}"):
            Recipe(dimensions=dimensions, crop=crop)
    with pytest.raises(ValueError, match="^tile: expected one number, or D,H,W"):
        Recipe(dimensions=3, tile="64,64")
    for bad in ("0,16,16", "16,-1,16", "16,x,16"):
        with pytest.raises(ValueError, match="^crop: expected"):
            Recipe(dimensions=3, crop=bad)


@pytest.mark.parametrize(
    ("fields", "least"), [({}, 24), ({"discriminator_layers": 2}, 12), ({"lambda_latent": 1.0}, 24)]
)
def test_patches_too_thin_for_the_discriminator_are_refused(fields, least):
    shape = (64, 64, 64)
    facts = DataFacts(dimensions=3, source_shape=shape, target_shape=shape)
    recipes = [CycleGANRecipe] if "lambda_latent" in fields else [CycleGANRecipe, Pix2PixRecipe]
    for recipe in recipes:
        recipe(dimensions=3, crop=(least, 64, 64), **fields).resolve(facts)
        with pytest.raises(ValueError, match=f"^crop: expected {least} or more .*: 8,64,64$"):
            recipe(dimensions=3, crop=(8, 64, 64), **fields).resolve(facts)


def test_the_buffer_and_the_discriminator_hold_patches_that_are_not_cubes():
    batch = harness.enlarged_of((8, 16, 12), 1, 2)
    model = build("cyclegan", crop=(8, 16, 12))
    model.compile()
    model.train_step(batch)
    assert model.buffer_a.images.shape == (2, 8, 16, 12, 1)
    options = {"dimensions": 3, "crop": (16, 32, 48), "scale": 2, "blocks": 1, "base_filters": 2}
    options |= {"discriminator_filters": 2, "discriminator_units": 4, "content": "mse"}
    model = harness.build("srgan", options)
    assert model.discriminator.input_shape == (None, 16, 32, 48, 1)
    with pytest.raises(ValueError, match="^crop: expected a multiple of 16"):
        harness.build("srgan", options | {"crop": (8, 32, 32)})


@pytest.mark.parametrize("name", MODELS)
def test_operations_are_those_of_the_patch(name):
    model = build(name)
    phase = model.recipe.phases()[0]
    small, large = (model.training_flops(phase, sides) for sides in ((8, 8, 8), (8, 16, 16)))
    assert 3.0 < large / small < 5.0
    assert small > 3 * forward_flops(model.network, (8, 8, 8, 1))


# Tiles.


def _no_norm(name: str, **fields):
    fields |= {"levels": 2} if name != "cyclegan" else {}
    model = build(name, **fields | {"norm": "none"})
    rng = np.random.default_rng(0)
    for weight in model.network.variables:
        weight.assign(weight + 0.1 * rng.standard_normal(weight.shape))
    return model


@functools.cache
def _volume(depth: int = 90) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.uniform(-800, 800, (depth, 70, 80)).astype("float32")


@pytest.mark.parametrize("tile", [(80, 512, 512), (512, 512, 72), (80, 68, 512)])
def test_tiles_of_volumes_equal_the_whole(tile):
    """A network without normalisation, whose receptive field is smaller than the margins."""
    tiled, whole = _no_norm("encoder_decoder", tile=tile), _no_norm("encoder_decoder")
    assert tiled.tile_margin == 16
    volume = _volume()
    expected = whole.translate(volume)
    np.testing.assert_allclose(tiled.translate(volume, batch_size=2), expected, atol=0.02)
    slices = tiled.translate_slices(lambda i, j: volume[i:j, ..., None], volume.shape)
    np.testing.assert_allclose(np.stack(list(slices))[..., 0], expected, atol=0.02)


def test_small_tiles_of_volumes_are_kept_and_blended_without_seams():
    """Tiles too small for exact margins: no jump between neighbours where one tile ends."""
    sides = (16, 24, 24)
    model = build("pix2pix", norm="instance", tile=sides)
    z, y, x = np.meshgrid(*(np.linspace(0, 3, n) for n in (40, 50, 60)), indexing="ij")
    volume = (300 * np.sin(x + y) * np.cos(z)).astype("float32")
    seen = []
    serve = model.serve
    model.serve = lambda batch: seen.append(batch.shape) or serve(batch)
    result = model.translate(volume)
    assert set(seen) == {(1, *sides, 1)}
    assert result.shape == volume.shape
    for axis in range(3):
        jumps = np.abs(np.diff(result, axis=axis)).mean(tuple(a for a in range(3) if a != axis))
        assert jumps.max() < 4 * np.median(jumps)


def test_slices_of_a_volume_are_those_of_the_whole():
    target = Domain(modality="SEG", unit="class", window=(0.0, 2.0))
    fields = MODELS["encoder_decoder"] | {"dimensions": 3, "tile": (32, 48, 48)}
    model = harness.build("encoder_decoder", fields, target=target)
    volume = _volume()[:70]
    slices = model.translate_slices(lambda i, j: volume[i:j, ..., None], volume.shape, 2)
    np.testing.assert_array_equal(np.stack(list(slices))[..., 0], model.translate(volume, 2))


def test_slices_are_refused_that_no_volume_has():
    model = build("encoder_decoder")
    with pytest.raises(ValueError, match="^read: expected finite numbers"):
        list(model.translate_slices(lambda i, j: np.full((j - i, 4, 4, 1), np.nan), (3, 4, 4)))
    with pytest.raises(ValueError, match="^read: .*Received: shape"):
        list(model.translate_slices(lambda i, j: np.zeros((j - i, 4, 5, 1)), (3, 4, 4)))
    with pytest.raises(ValueError, match="^dimensions: expected a model of volumes"):
        harness.build("encoder_decoder", UNET).translate_slices(lambda i, j: None, (3, 4, 4))


def test_averages_of_volumes_come_slice_by_slice_too():
    members = [build("encoder_decoder", seed=seed, flip=True, turn=True) for seed in (0, 1)]
    for member in members:
        member.recipe = member.recipe.changed(tile=(16, 24, 24))
    average = zoo.Average(members, tta=True)
    volume = _volume()[:30, :36, :28]
    slices = average.translate_slices(lambda i, j: volume[i:j, ..., None], volume.shape)
    np.testing.assert_allclose(np.stack(list(slices))[..., 0], average.translate(volume), atol=0.02)


# From files to files.


def test_a_run_on_volumes_of_several_sizes_resumes_exactly_and_is_used(tmp_path, capfd):
    """A user's volumes, thinner and wider than the patch, which is no cube; then `predict`."""
    shapes = {"trainA": [(5, 20, 24), (12, 16, 28)], "testA": [(7, 18, 20)]}
    rng = np.random.default_rng(0)
    for folder, sizes in shapes.items():
        for number, shape in enumerate(sizes):
            clean = rng.uniform(0, 100, shape).astype("float32")
            for place, noise in ((folder, 10), (folder.replace("A", "B"), 0)):
                path = tmp_path / "in" / place / f"{number}.npy"
                path.parent.mkdir(parents=True, exist_ok=True)
                np.save(path, clean + noise * rng.standard_normal(shape, np.float32))
    fields = MODELS["encoder_decoder"] | {"dimensions": 3, "crop": (8, 16, 12), "batch_size": 2}
    fields |= {"steps": 4, "checkpoint_every": 2, "image_every": 4, "precision": "float32"}
    fields |= {"flip_up_down": True, "tile": (6, 12, 16)}

    run, options = tmp_path / "run", {"data_dir": tmp_path / "data", "input": tmp_path / "in"}
    entry = registry.lookup("encoder_decoder", "folder", overrides=fields)
    training.train(entry, run, **options)
    model = zoo.load(str(run))
    assert model.recipe.crop == (8, 16, 12)
    # Stopped after its second step, it ends as it did.
    record = json.loads((run / "run.json").read_text())
    for path in (run / "checkpoints").glob("ckpt-4*"):
        path.unlink()
    (run / record.pop("weights")["file"]).unlink()
    (run / "run.json").write_text(json.dumps(record | {"state": "interrupted"}))
    training.train(entry, run, resume="must", **options)
    assert zoo.load(str(run)).weights_hash == model.weights_hash
    # What it makes of a file is what it makes of the array.
    source, target = tmp_path / "in/testA/0.npy", tmp_path / "out.npy"
    arguments = [f"--model={run}", f"--input={source}", f"--output={target}", "predict"]
    assert command_line.main(["zoo", *arguments]) == 0
    expected = model.translate(np.load(source))
    np.testing.assert_allclose(np.load(target), expected, rtol=1e-5, atol=1e-3)
    arguments = [f"--model={run}", f"--input={tmp_path / 'in'}", f"--data_dir={tmp_path / 'data'}"]
    assert command_line.main(["zoo", *arguments, "evaluate"]) == 0
    assert "1 volumes" in capfd.readouterr().out
