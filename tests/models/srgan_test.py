import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf

import harness
import zoo
from zoo.bicubic import enlarge
from zoo.domain import Domain
from zoo.models.srgan import SrganRecipe, discriminator, srresnet
from zoo.recipe import DataFacts

TINY = {
    "scale": 2,
    "crop": 32,
    "base_filters": 4,
    "blocks": 1,
    "discriminator_filters": 4,
    "discriminator_units": 8,
    "content": "mse",
    "pretrain_steps": 2,
    "steps": 4,
}


def pictures(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-800, 800, shape).astype("float32")


def trainable(network) -> int:
    return sum(int(np.prod(v.shape)) for v in network.trainable_variables)


@pytest.mark.parametrize(("channels", "count"), [(3, 1_548_547), (1, 1_527_809)])
def test_generator_has_the_published_number_of_parameters(channels, count):
    assert trainable(srresnet(channels, channels, SrganRecipe())) == count


def test_discriminator_has_the_published_number_of_parameters():
    assert trainable(discriminator(3, SrganRecipe())) == 23_563_649


def test_contract(tmp_path, monkeypatch, two_replicas):
    batch = functools.partial(harness.enlarged_of, (16, 16), 2)
    # Seven batch normalisations in a row, over 16 values in the last, amplify rounding: to turn
    # a batch round changes the discriminator more than two replicas may differ from one.
    options = TINY | {"spectral_norm": True}
    harness.run_translator_test("srgan", options, batch, tmp_path, monkeypatch, two_replicas)


def test_contract_of_volumes(tmp_path, monkeypatch):
    options = {"dimensions": 3, "crop": 16, "norm": "none", "output": "residual", "content": "l1"}
    options |= {"adversarial": "hinge"}
    batch = functools.partial(harness.enlarged_of, (8, 8, 8), 2)
    domain = dataclasses.replace(harness.HU, spacing=(2.0, 2.0, 2.0))
    harness.run_translator_test(
        "srgan", TINY | options, batch, tmp_path, monkeypatch, source=domain, target=harness.HU
    )


@pytest.mark.parametrize("scale", [4, 8])
def test_output_is_scale_times_the_input(scale):
    model = harness.build("srgan", TINY | {"scale": scale})
    assert model.translate(pictures(2, 9, 7)).shape == (2, 9 * scale, 7 * scale)


def copies(network) -> list[np.ndarray]:
    return [v.numpy().copy() for v in network.variables]


def test_only_the_second_phase_trains_the_discriminator():
    model = harness.build("srgan", TINY)
    model.compile()
    first, second = model.recipe.phases()
    start = copies(model.discriminator), copies(model.network)
    model.enter(first)
    assert set(model.train_step(harness.enlarged_of((16, 16), 2, 2))) == {"mse", "mae"}
    pretrained = copies(model.network)
    for old, new in zip(start[0], copies(model.discriminator), strict=True):
        np.testing.assert_array_equal(old, new)
    assert any((a != b).any() for a, b in zip(start[1], pretrained, strict=True))
    model.enter(second)
    logs = model.train_step(harness.enlarged_of((16, 16), 2, 2))
    assert set(logs) == {"d_loss", "g_gan", "content", "mae"}
    assert any((a != b).any() for a, b in zip(start[0], copies(model.discriminator), strict=True))


def test_the_first_phase_learns_the_error_that_is_asked_for():
    batch = harness.enlarged_of((16, 16), 2, 2)
    model = harness.build("srgan", TINY | {"pretrain_loss": "l1"})
    model.compile()
    model.enter(model.recipe.phases()[0])
    error = model.values(batch["source"], training=True) - model.target_values(batch["target"])
    logs = model.train_step(batch)
    assert set(logs) == {"l1", "mae"}
    assert float(logs["l1"]) == pytest.approx(float(np.abs(error).mean()), rel=1e-5)


def test_a_run_stopped_in_both_phases_ends_as_if_undisturbed(tmp_path):
    def run(model, first: int, last: int) -> None:
        phases = [phase for phase in model.recipe.phases() for _ in range(phase.steps)]
        for step in range(first, last):
            model.enter(phases[step])
            if step in (0, 2):
                model.begin(phases[step])
            model.train_step(harness.enlarged_of((16, 16), 2, 2, step))

    def fresh(seed: int = 0):
        model = harness.build("srgan", TINY | {"seed": seed})
        model.compile()
        return model

    whole, broken = fresh(), fresh()
    run(whole, 0, 4)
    run(broken, 0, 1)
    for first, last in ((1, 3), (3, 4)):
        path = tf.train.Checkpoint(model=broken).save(str(tmp_path / f"{first}"))
        broken = fresh(seed=5)
        tf.train.Checkpoint(model=broken).restore(path).assert_existing_objects_matched()
        run(broken, first, last)
    for a, b in zip(whole.variables, broken.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), a.path)


@pytest.mark.parametrize(
    ("decay", "rates"), [("constant", (1e-4, 1e-4, 1e-5)), ("linear", (1e-4, 1e-4, 5e-5))]
)
def test_rates(decay, rates):
    model = harness.build("srgan", TINY | {"steps": 14, "pretrain_steps": 10, "decay": decay})
    model.compile()
    schedule = model.generator_optimizer._learning_rate
    received = [float(rate(step) if callable(rate := schedule) else rate) for step in (0, 1, 3)]
    np.testing.assert_allclose(received, rates, rtol=1e-5)


def test_a_short_run_is_srresnet_alone_and_one_without_pretraining_srgan():
    model = harness.build("srgan", TINY | {"steps": 2})
    assert [(phase.name, phase.steps) for phase in model.recipe.phases()] == [("SRResNet", 2)]
    model = harness.build("srgan", TINY | {"pretrain_steps": 0})
    assert [(phase.name, phase.steps) for phase in model.recipe.phases()] == [("SRGAN", 4)]


@pytest.mark.parametrize("dimensions", [2, 3])
def test_residual_of_zero_is_bicubic_interpolation_beyond_the_window_too(dimensions):
    model = harness.build(
        "srgan", TINY | {"output": "residual", "norm": "none", "dimensions": dimensions}
    )
    model.network.set_weights([np.zeros_like(w) for w in model.network.get_weights()])
    image = 4 * pictures(1, *(7, 5, 6)[:dimensions], 1)
    expected = enlarge(tf.constant(image), 2).numpy()
    np.testing.assert_allclose(model.translate(image), expected, atol=1e-2)


def test_tiles_agree_with_the_whole_image():
    image = pictures(120, 70)
    options = TINY | {"blocks": 1, "seed": 3}
    whole = harness.build("srgan", options)
    for layer in whole.network.layers:  # statistics that are not those of a fresh model
        if hasattr(layer, "moving_mean"):
            layer.moving_mean.assign(tf.random.stateless_normal([4], [1, 2]))
            layer.moving_variance.assign([0.5, 1.0, 2.0, 3.0])
    tiled = harness.build("srgan", options | {"tile": 64})
    tiled.network.set_weights(whole.network.get_weights())
    np.testing.assert_allclose(tiled.translate(image), whole.translate(image), atol=1e-2)


def test_batch_statistics_are_not_those_of_the_served_image():
    model = harness.build("srgan", TINY)
    images = pictures(3, 16, 16, 1)
    alone = np.concatenate([model.translate(images[i : i + 1]) for i in range(3)])
    np.testing.assert_allclose(model.translate(images, batch_size=3), alone, atol=1e-2)


def test_content_of_features_compares_what_the_extractor_sees(monkeypatch):
    def squares(name, layer):
        assert (name, layer) == ("vgg19", "block2_conv2")
        inputs = tf.keras.Input((None, None, 1))
        model = tf.keras.Model(inputs, tf.keras.layers.Rescaling(3.0)(inputs))
        model.trainable = False
        return model

    monkeypatch.setattr("zoo.models.srgan.feature_extractor", squares)
    options = TINY | {"content": "features", "layer": "block2_conv2", "feature_scale": 6.0}
    batch = harness.enlarged_of((16, 16), 2, 2)
    logs = []
    for fields in (options, TINY):
        model = harness.build("srgan", fields)
        model.compile()
        logs.append(model.train_step(batch)["content"])
    np.testing.assert_allclose(logs[0], 0.25 * logs[1], rtol=1e-5)
    assert not any("rescaling" in v.path and v.trainable for v in model.variables)


def test_missing_weights_of_the_extractor_are_told_before_training(tmp_path):
    missing = str(tmp_path / "vgg19.h5")
    model = harness.build("srgan", TINY | {"content": "features", "extractor": missing})
    with pytest.raises(FileNotFoundError, match="expected vgg19, hed or a file"):
        model.compile()


def test_recipe_refuses_what_cannot_be_built():
    for fields, message in (
        ({"scale": 3}, "scale: expected one of 2, 4, 8. Received: 3"),
        ({"dimensions": 1}, "dimensions: expected one of 2, 3. Received: 1"),
        ({"crop": 40}, "crop: expected a multiple of 16.*Received: 40"),
        ({"crop": 0}, "crop: expected a multiple of 16.*Received: 0"),
        ({"adversarial": "wgan"}, "wgan needs a Lipschitz discriminator"),
    ):
        with pytest.raises(ValueError, match=message):
            SrganRecipe(**fields)


def test_images_smaller_than_the_crop_are_refused():
    assert SrganRecipe().resolve(DataFacts(target_shape=(96, 128))) == SrganRecipe()
    with pytest.raises(ValueError, match="at most 64, because the images have 64x64"):
        SrganRecipe().resolve(DataFacts(target_shape=(64, 64)))


def test_residual_is_refused_between_different_units():
    target = Domain(modality="MR", unit="signal", window=(0, 100))
    with pytest.raises(ValueError, match="residual needs the same modality"):
        harness.build("srgan", TINY | {"output": "residual"}, target=target).residual


def test_without_biases_the_output_scales_with_the_input():
    harness.output_scales_with_input("srgan", scale=2, norm="none", base_filters=8, blocks=2)


def test_steps_alone_keep_both_phases_shares():
    def phases(overrides: dict, *assignments: str) -> list[tuple[str, int]]:
        entry = zoo.lookup("srgan", "", "small", overrides, list(assignments))
        return [(phase.name, phase.steps) for phase in entry.recipe.phases()]

    assert phases({}) == [("SRResNet", 1000), ("SRGAN", 400)]
    assert phases({"steps": 14}) == [("SRResNet", 10), ("SRGAN", 4)]
    assert phases({}, "steps=14") == [("SRResNet", 10), ("SRGAN", 4)]
    assert phases({"steps": 14}, "pretrain_steps=2") == [("SRResNet", 2), ("SRGAN", 12)]
    paper = zoo.lookup("srgan", overrides={"steps": 600}).recipe
    assert (paper.pretrain_steps, paper.steps) == (500, 600)
    tuned = zoo.lookup(
        "srgan_mri_x2", overrides={"steps": 9}
    ).recipe  # trained on without the first
    assert [phase.steps for phase in tuned.phases()] == [9]
    assert zoo.lookup("srresnet_mri_x2", overrides={"steps": 9}).recipe.pretrain_steps == 9
    with pytest.raises(ValueError, match="steps"):
        zoo.lookup("srgan", overrides={"steps": 0})
