import functools

import numpy as np
import pytest
import tensorflow as tf

import harness
from zoo.bicubic import enlarge
from zoo.models.srcnn import SrcnnRecipe, srcnn
from zoo.recipe import DataFacts

TINY = {"filters1": 4, "filters2": 3, "crop": 32, "deviation": 0.1}


def pictures(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-800, 800, shape).astype("float32")


@pytest.mark.parametrize(("middle", "count"), [(1, 8_129), (3, 24_513), (5, 57_281)])
def test_network_has_the_published_number_of_parameters(middle, count):
    assert srcnn(1, 1, SrcnnRecipe(middle=middle)).count_params() == count


def test_contract(tmp_path, monkeypatch, two_replicas):
    options = TINY | {"middle": 5, "optimizer": "adam", "output": "auto"}
    batch = functools.partial(harness.enlarged_of, (16, 16), 2)
    harness.run_translator_test("srcnn", options, batch, tmp_path, monkeypatch, two_replicas)


@pytest.mark.parametrize("output", ["image", "residual"])
def test_training_sees_what_serving_gives_in_the_middle_of_an_image(output):
    model = harness.build("srcnn", TINY | {"output": output, "middle": 3, "scale": 2})
    source, target = pictures(2, 30, 28, 1), pictures(2, 60, 56, 1, seed=1)
    served = model.target_values(target) - model.values(tf.constant(source))
    model.compile()
    # A crop of 32 pixels, from (14, 10) on: 4 are left out at each edge, then the border of 7.
    batch = {"source": source[:, 7:23, 5:21], "target": target[:, 14:46, 10:42]}
    logs = model.train_step({key: tf.constant(value) for key, value in batch.items()})
    centre = served[:, 14 + 11 : 46 - 11, 10 + 11 : 42 - 11] / 2.0  # of values in [0, 1]
    np.testing.assert_allclose(logs["mse"], np.mean(np.square(centre)), rtol=1e-4)
    np.testing.assert_allclose(logs["mae"], np.mean(np.abs(centre)) * 2000.0, rtol=1e-4)


def test_first_step_is_the_gradient_of_the_sum_over_pixels_at_two_rates():
    model = harness.build("srcnn", TINY)
    model.compile()
    batch = harness.enlarged_of((16, 16), 2, 4)
    before = [v.numpy() for v in model.network.trainable_variables]

    def loss():
        values = model.values(batch["source"])
        error = (model.target_values(batch["target"]) - values)[:, 10:-10, 10:-10] / 2.0
        return tf.reduce_mean(tf.reduce_sum(tf.square(error), axis=[1, 2, 3]))

    with tf.GradientTape() as tape:
        value = loss()
    gradients = tape.gradient(value, model.network.trainable_variables)
    model.train_step(batch)
    rates = [1e-4] * 4 + [1e-5] * 2
    for weight, old, gradient, rate in zip(
        model.network.trainable_variables, before, gradients, rates, strict=True
    ):
        expected = -rate * gradient.numpy()
        np.testing.assert_allclose(
            weight.numpy() - old, expected, rtol=1e-2, atol=1e-2 * np.abs(expected).max()
        )


def test_residual_of_zero_is_bicubic_interpolation_beyond_the_window_too():
    model = harness.build("srcnn", TINY | {"output": "residual", "scale": 3})
    model.network.set_weights([np.zeros_like(w) for w in model.network.get_weights()])
    image = 4 * pictures(1, 9, 8, 1)
    expected = enlarge(tf.constant(image), 3).numpy()
    np.testing.assert_allclose(model.translate(image), expected, atol=1e-2)


def test_flat_image_has_no_frame():
    model = harness.build("srcnn", TINY)
    output = model.translate(np.full((20, 20), 300.0, "float32"))
    assert np.ptp(output) < 1e-2


@pytest.mark.parametrize("scale", [3, 4, 8])
def test_output_is_scale_times_the_input(scale):
    model = harness.build("srcnn", TINY | {"scale": scale})
    assert model.translate(pictures(2, 9, 8)).shape == (2, 9 * scale, 8 * scale)


def test_tiles_agree_with_the_whole_image():
    image = pictures(70, 50)
    options = TINY | {"output": "residual"}
    whole = harness.build("srcnn", options).translate(image)
    tiled = harness.build("srcnn", options | {"tile": 48}).translate(image)
    assert harness.build("srcnn", options | {"tile": 48}).tile_margin * 6 <= 32
    np.testing.assert_allclose(tiled, whole, atol=1e-2)


def test_recipe_refuses_what_the_paper_does_not_have():
    with pytest.raises(ValueError, match="scale: expected one of 2, 3, 4, 8. Received: 5"):
        SrcnnRecipe(scale=5)
    with pytest.raises(ValueError, match="middle: expected one of 1, 3, 5. Received: 7"):
        SrcnnRecipe(middle=7)


def test_crops_and_images_without_a_centre_are_refused():
    facts = DataFacts(source_shape=(32, 32), target_shape=(64, 64))
    for recipe in (SrcnnRecipe(), SrcnnRecipe(crop=0)):
        assert recipe.resolve(facts) == recipe.resolve(DataFacts()) == recipe
    with pytest.raises(ValueError, match="21 pixels or more at scale 2. Received: crop 20"):
        SrcnnRecipe(crop=20).resolve(facts)
    with pytest.raises(ValueError, match="images of 16x16"):
        SrcnnRecipe(crop=0).resolve(DataFacts(target_shape=(16, 16)))


def test_without_biases_the_output_scales_with_the_input():
    harness.output_scales_with_input("srcnn", scale=2, deviation=0.0)
