"""The presets: `good` suits every data set, trains, and ends in an evening or a weekend."""

import dataclasses
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import harness
import zoo
from zoo import command_line, loading, registry
from zoo.data import facts, prepare
from zoo.recipe import PRESETS, DataFacts

CPU, GPU = 0.15e12, 20e12  # operations a second: what training reaches on a few cores, on a GPU
STEP = 0.01  # seconds a step beside its arithmetic
NAMES = sorted(registry.index()["models"])
# What makes a step a matter of seconds, and leaves losses, outputs and optimizers as they are.
REDUCED = {
    "automap": {"n": 16, "filters": 4},
    "critic": {"crop": 32, "base_filters": 4},
    "cyclegan": {"crop": 32, "base_filters": 4, "blocks": 1, "discriminator_filters": 4},
    "dcgan": {"resolution": 64, "base_filters": 4, "discriminator_filters": 4},
    "encoder_decoder": {"crop": 32, "base_filters": 4, "levels": 2},
    "learned_primal_dual": {"n": 16, "views": 8, "iterations": 2, "filters": 4},
    "pggan": {"resolution": 8, "fmap_base": 64, "fmap_max": 8, "latent": 8},
    "pix2pix": {"crop": 32, "base_filters": 4, "refine": 4, "discriminator_filters": 4,
                "discriminator_layers": 2},
    "srcnn": {"crop": 40, "filters1": 4, "filters2": 4},
    "srgan": {"crop": 32, "base_filters": 4, "blocks": 1, "discriminator_filters": 4},
    "unit": {"crop": 32, "base_filters": 4, "blocks": 1, "discriminator_filters": 4,
             "discriminator_scales": 1},
    "varnet": {"cascades": 2, "base_filters": 4, "levels": 2},
}  # fmt: skip


def good(name: str, **fields) -> zoo.Translator:
    entry = registry.lookup(name, preset="good", overrides={"precision": "float32"} | fields)
    source = harness.MEASURED.get(name, harness.HU)
    return loading.build(entry, source, harness.HU)


def batch(model) -> harness.Batch:
    recipe = model.recipe
    if model.generates:
        return harness.singles_of(recipe.side, 2)
    if model.name in harness.MEASURED:
        return harness.measured_of(model, 2)
    if recipe.scale > 1:
        return harness.enlarged_of((recipe.crop // 2,) * 2, 2, 2)
    return harness.batch_of(recipe.crop, 2)


@pytest.mark.parametrize("name", NAMES)
def test_a_good_recipe_runs_a_step(name):
    model = good(name, **REDUCED[name])
    model.compile()
    losses = model.train_step(batch(model))
    assert all(np.isfinite(float(value)) for value in losses.values())
    rates = [getattr(model, optimizer)._learning_rate for optimizer in model.optimizers]
    falls = isinstance(rates[0], keras.optimizers.schedules.CosineDecay)
    assert falls or name == "pggan"


@pytest.mark.parametrize("name", NAMES)
def test_a_good_recipe_takes_an_evening_on_a_gpu_and_a_weekend_on_a_cpu(name):
    entry = registry.lookup(name, preset="good")
    recipe = entry.recipe.changed(precision="float32")
    if "largest" in recipe.hints():
        recipe = recipe.resolve(DataFacts(kind="single", target_shape=(512, 512)))
        assert recipe.side == 128
    if name == "automap":
        recipe = recipe.changed(n=128)
    source = harness.MEASURED.get(name, harness.HU)
    model = loading.build(dataclasses.replace(entry, recipe=recipe), source, harness.HU)
    operations = 0.0
    for phase in recipe.phases():
        sides = (phase.size,) * 2 if phase.size else recipe.crop_sides or (128, 128)
        operations += phase.steps * model.training_flops(phase, sides)
    hours = {speed: (operations / speed + recipe.steps * STEP) / 3600 for speed in (CPU, GPU)}
    assert hours[GPU] < 5
    assert 1 < hours[CPU] < 60
    small = registry.lookup(name, preset="small").recipe
    assert recipe.steps >= 10 * small.steps


@pytest.mark.parametrize(
    ("model", "dataset"),
    [
        ("automap", "mri_recon/phantom_tiny"),
        ("automap", "ct_recon/phantom_tiny"),
        ("critic", "ct_recon/phantom_fbp_tiny"),
        ("cyclegan", "cbct_ct/phantom_tiny"),
        ("cyclegan", "mr_ct/phantom_tiny"),
        ("dcgan", "lung_nodule/phantom_tiny"),
        ("learned_primal_dual", "ct_recon/phantom_tiny"),
        ("varnet", "mri_recon/phantom_tiny"),
        ("encoder_decoder", "brain_seg/phantom_tiny"),
        ("encoder_decoder", "ldct/phantom_tiny"),
        ("encoder_decoder", "mr_ct/phantom_tiny"),
        ("encoder_decoder", "pet_ct/phantom_tiny"),
        ("pggan", "mammo/phantom_tiny"),
        ("pix2pix", "brain_seg/phantom_tiny"),
        ("pix2pix", "ldct/phantom_tiny"),
        ("pix2pix", "mr_ct/phantom_tiny"),
        ("unit", "mri_contrast/phantom_tiny"),
    ],
)
def test_a_good_recipe_suits_what_the_model_does(model, dataset, tmp_path):
    entry = registry.lookup(model, dataset, "good")
    builder = prepare.load_builder(dataset, tmp_path, entry.recipe, prepare=False)
    fitted = facts.fit_to_data(entry, builder)
    small = {name: REDUCED[model][name] for name in REDUCED[model] if name not in ("n", "crop")}
    small = {name: value for name, value in small.items() if name != "resolution"}
    built = loading.build(dataclasses.replace(fitted, recipe=fitted.recipe.changed(**small)))
    if model in ("encoder_decoder", "pix2pix"):
        assert built.relative == built.residual == dataset.startswith("ldct")


def test_auto_is_where_source_and_target_are_one_domain():
    other = dataclasses.replace(harness.HU, window=(0.0, 100.0))
    for target, relative in ((harness.HU, True), (other, False)):
        fields = {"base_filters": 2, "levels": 2, "source": harness.HU, "target": target}
        assert zoo.load("encoder_decoder", relative="auto", **fields).relative == relative
        if not relative:
            with pytest.raises(ValueError, match="relative: expected a source and a target that"):
                zoo.load("encoder_decoder", relative=True, **fields)
    parsed = zoo.lookup("pix2pix").recipe.parse
    texts = {"true": True, "False": False, "auto": "auto", "1": True}
    for text, value in texts.items():
        assert parsed([f"relative={text}"]) == {"relative": value}
    with pytest.raises(ValueError, match="relative: expected one of False, True, auto"):
        parsed(["relative=maybe"])


def test_generators_take_at_most_what_the_preset_says():
    for name in ("dcgan", "pggan"):
        recipe = registry.lookup(name, preset="good").recipe
        for shape, side in (((64, 80), 64), ((300, 300), 128), (None, 128)):
            assert recipe.resolve(DataFacts(kind="single", target_shape=shape)).side == side
        assert (
            recipe.changed(resolution=256).resolve(DataFacts(target_shape=(512, 512))).side == 256
        )


@pytest.mark.parametrize(("gpus", "preset"), [(1, "good"), (0, "small")])
def test_auto_takes_good_on_an_accelerator(gpus, preset, monkeypatch, capsys):
    there = [tf.config.PhysicalDevice("GPU:0", "GPU")] * gpus
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: there)
    taken = []
    monkeypatch.setattr("zoo.training.train", lambda entry, *_, **__: taken.append(entry))
    assert command_line.main(["zoo", "train", "--model=pix2pix", "--dataset=ldct"]) == 0
    assert taken[0].preset == preset
    assert ("small recipe is used (--preset=good" in capsys.readouterr().out) == (not gpus)


def test_a_good_run_announces_itself_and_describe_shows_it(tmp_path, data_dir, capsys):
    fields = [f"--set={name}={value}" for name, value in REDUCED["encoder_decoder"].items()]
    code = command_line.main(
        ["zoo", "train", "--model=encoder_decoder", "--dataset=ldct/phantom_tiny", "--steps=2",
         "--preset=good", f"--workdir={tmp_path / 'run'}", f"--data_dir={data_dir}", *fields]
    )  # fmt: skip
    said = capsys.readouterr()
    assert code == 0, said.err
    assert "encoder_decoder (good recipe) on ldct/phantom_tiny: 2 steps over" in said.out
    assert command_line.main(["zoo", "describe", "srgan"]) == 0
    (header,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("recipe field")]
    assert header.split() == ["recipe", "field", *PRESETS]


def test_presets_are_named_where_there_is_no_such(capsys):
    with pytest.raises(ValueError, match="preset: expected paper, good, small. Received: best"):
        registry.lookup("pix2pix", preset="best")
    assert all(math.isfinite(registry.lookup("pix2pix", preset=p).recipe.steps) for p in PRESETS)
