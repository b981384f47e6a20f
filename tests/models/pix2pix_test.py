import functools

import numpy as np
import pytest
import tensorflow as tf

import harness
import zoo
from zoo.domain import Domain
from zoo.layers import patch_gan
from zoo.models._unet import strided_unet
from zoo.models.pix2pix import Pix2PixRecipe

TINY = {"base_filters": 4, "levels": 4, "discriminator_filters": 4, "crop": 32}


def trainable(network) -> int:
    return sum(int(np.prod(v.shape)) for v in network.trainable_variables)


@pytest.mark.parametrize(
    ("channels", "levels", "count"), [(3, 8, 54_413_955), (1, 8, 54_407_809), (3, 7, 41_828_995)]
)
def test_generator_has_the_published_number_of_parameters(channels, levels, count):
    assert trainable(strided_unet(channels, channels, base_filters=64, levels=levels)) == count


@pytest.mark.parametrize(("channels", "count"), [(6, 2_768_705), (2, 2_764_609)])
def test_discriminator_has_the_published_number_of_parameters(channels, count):
    assert trainable(patch_gan(channels, 64, 3)) == count


def test_discriminator_judges_30_by_30_patches():
    assert patch_gan(2, 4, 3).compute_output_shape((None, 256, 256, 2)) == (None, 30, 30, 1)


def test_contract(tmp_path, monkeypatch, two_replicas):
    options = {"norm": "batch", "output": "image", "dropout": 0.5, "levels": 5}
    batch = functools.partial(harness.batch_of, 32)
    harness.run_translator_test(
        "pix2pix", TINY | options, batch, tmp_path, monkeypatch, two_replicas
    )


@pytest.mark.parametrize(
    "options",
    [
        {"norm": "none", "output": "auto", "adversarial": "lsgan", "spectral_norm": True},
        {"norm": "instance", "adversarial": "hinge", "lambda_sharpness": 1.0, "refine": 4},
        {"adversarial": "wgan", "discriminator_norm": "none"},
    ],
)
def test_every_weight_learns_in_every_variant(options):
    model = harness.build("pix2pix", TINY | options)
    # Of a difference of scores the last bias has no say.
    last = model.discriminator.trainable_variables[-1].path
    harness.every_weight_learns(model, functools.partial(harness.batch_of, 32), but=(last,))


def test_the_penalty_of_wgan_is_of_one_image():
    with pytest.raises(ValueError, match="discriminator_norm: expected instance or none"):
        Pix2PixRecipe(adversarial="wgan")


def test_residual_passes_values_beyond_the_window():
    model = harness.build("pix2pix", TINY | {"norm": "none", "output": "residual"})
    image = np.full((32, 32), 3000.0, "float32")
    assert np.abs(model.translate(image) - image).max() <= 1000.0 + 1e-3  # tanh times half a span
    inside = harness.build("pix2pix", TINY | {"output": "image"}).translate(image)
    assert inside.max() <= 1000.0 + 1e-3


def test_residual_is_refused_between_different_units():
    target = Domain(modality="MR", unit="signal", window=(0, 100))
    with pytest.raises(ValueError, match="residual needs the same modality"):
        harness.build("pix2pix", TINY | {"output": "residual"}, target=target).residual
    assert not harness.build("pix2pix", TINY | {"output": "auto"}, target=target).residual


def test_serving_is_the_same_for_one_image_and_for_a_batch():
    model = harness.build("pix2pix", TINY | {"norm": "batch", "test_statistics": "image"})
    batch = np.random.default_rng(0).uniform(-500, 500, (3, 32, 32, 1)).astype("float32")
    together = model(batch).numpy()
    alone = np.concatenate([model(batch[i : i + 1]).numpy() for i in range(3)])
    np.testing.assert_allclose(together, alone, atol=0.05)


def test_dropout_at_test_is_a_choice():
    options = TINY | {"levels": 6, "dropout": 0.5, "norm": "instance"}
    image = np.random.default_rng(0).uniform(-500, 500, (64, 64)).astype("float32")
    fixed = harness.build("pix2pix", options)
    np.testing.assert_array_equal(fixed.translate(image), fixed.translate(image))
    drops = harness.build("pix2pix", options | {"test_dropout": True})
    assert np.abs(drops.translate(image) - drops.translate(image)).max() > 0


def test_keras_fit_works_on_one_host():
    model = harness.build("pix2pix", TINY)
    model.compile()
    batch = {k: v for k, v in harness.batch_of(32, 4).items() if k != "seed"}
    history = model.fit(tf.data.Dataset.from_tensor_slices(batch).batch(2), epochs=2, verbose=0)
    assert set(history.history) == {"d_loss", "g_gan", "mae"}
    assert "psnr" in model.evaluate(
        tf.data.Dataset.from_tensor_slices(batch).batch(2), return_dict=True, verbose=0
    )


def test_load_takes_recipe_fields_and_domains():
    model = zoo.load("pix2pix", **TINY, source=harness.HU, target=harness.HU)
    assert model.recipe.base_filters == 4
    assert model.source.unit == "HU"
    assert isinstance(model, zoo.Translator)


@pytest.mark.parametrize(("precision", "within"), [("float32", 1e-3), ("bfloat16", 0.15)])
def test_equivariant_to_scale_and_level(precision, within):
    harness.equivariant_to_scale_and_level(
        "pix2pix", within, precision=precision, base_filters=6, levels=3, norm="none", refine=8
    )


def test_relative_losses_count_weak_noise_alike():
    options = {"norm": "none", "dropout": 0.0, "discriminator_norm": "none", "refine": 8}
    harness.relative_losses_count_weak_noise_alike("pix2pix", TINY | options)
