"""Spreads beside answers: each source against what it is computed of."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

import harness
from harness import HU
from zoo.averaging import Average
from zoo.domain import Domain
from zoo.trust.spread import DRAWS, FLOOR, Spread

SMALL = {"levels": 2, "base_filters": 4, "tile": 64, "output": "auto"}
PIX2PIX = {"levels": 6, "base_filters": 2, "norm": "none", "discriminator_filters": 4,
           "discriminator_layers": 1, "crop": 64, "output": "auto"}  # fmt: skip


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(-900, 900, (2, 40, 52, 1)).astype("float32")


@pytest.fixture(scope="module")
def plain():
    return [harness.build("encoder_decoder", SMALL | {"seed": s, "turn": True}) for s in (0, 1)]


def shaken(model):
    """The model with a last layer that is not near 0."""
    rng = np.random.default_rng(5)
    for variable in model.network.trainable_variables[-2:]:
        variable.assign(rng.normal(0, 0.3, variable.shape))
    return model


def near(spread):
    """Its mean around each pixel of an image, by SciPy's Gaussian."""
    sums = [ndimage.gaussian_filter(each, (0, 4, 4, 0), truncate=2, mode="constant")
            for each in (spread, np.ones_like(spread))]  # fmt: skip
    return sums[0] / sums[1]


def test_the_spread_of_views_and_models(plain, images):
    for model in plain:
        shaken(model)
    views, both = Spread(plain[0]), Spread(Average(plain, tta=True))
    assert (views.name, both.name) == ("views", "answers")
    each = [a for a, _ in Average(plain[:1], tta=True).each(images)]
    answer, spread = views(images)
    np.testing.assert_array_equal(answer, plain[0].translate(images))
    expected = near(np.std(each, axis=0)) + FLOOR * 2000
    np.testing.assert_allclose(spread, expected, rtol=1e-3, atol=0.01)
    assert spread.max() > 10 and spread.min() >= FLOOR * 2000 == 1
    answer, spread = both(images)
    np.testing.assert_array_equal(answer, Average(plain, tta=True).translate(images))
    each += [a for a, _ in Average(plain[1:], tta=True).each(images)]
    np.testing.assert_allclose(spread, np.std(each, axis=0) + 1, rtol=1e-3, atol=0.01)
    # Without quarter turns where pixels are not square.
    narrow = views.for_spacing((1.0, 2.0))
    kept = [a for a, _ in Average(plain[:1], tta=True).for_spacing((1.0, 2.0)).each(images)]
    assert len(kept) == 4
    expected = near(np.std(kept, axis=0)) + 1
    np.testing.assert_allclose(narrow(images)[1], expected, rtol=1e-3, atol=0.01)


def test_dropout_is_drawn_and_the_answer_is_the_model_s_own(images):
    model, image = harness.build("pix2pix", PIX2PIX | {"dropout": 0.5}), images[:1, :36, :40]
    for weights in model.network.trainable_variables:  # whose innermost layers matter
        weights.assign(weights * 12)
    spread = Spread(model)
    assert spread.name == "dropout"
    before = model.translate(image)
    answer, first = spread(image)
    np.testing.assert_array_equal(answer, before)
    np.testing.assert_array_equal(spread(image)[1], first)  # repeatable
    np.testing.assert_array_equal(model.translate(image), before)  # and leaves no trace
    # Its size is that of the network's own dropout, drawn many times.
    always = harness.build("pix2pix", PIX2PIX | {"dropout": 0.5, "test_dropout": True})
    always.network.set_weights(model.network.get_weights())
    drawn = always(np.repeat(image, 64, axis=0)).numpy().std(0)
    assert drawn.mean() > 1
    assert (first - 1).mean() == pytest.approx(drawn.mean(), rel=4 / DRAWS)
    assert np.corrcoef(first.ravel(), drawn.ravel())[0, 1] > 0.5


@pytest.mark.parametrize(
    ("name", "fields"),
    [("encoder_decoder", SMALL | {"loss": "l1"}), ("pix2pix", PIX2PIX | {"lambda_gan": 0.0})],
)
def test_quantile_heads_bound_what_is_between_them(name, fields, images, tmp_path, monkeypatch):
    """Of pure noise the heads learn the noise's own quantiles."""
    fields = fields | {"learning_rate": 5e-3, "quantiles": True, "levels": 2}
    model = harness.build(name, fields)
    assert model.network.output_shape[-1] == 3
    model.compile()
    rng = np.random.default_rng(0)
    step = tf.function(model.train_step)
    for seed in range(150):
        clean = rng.uniform(-100, 100, (4, 1, 1, 1)) + np.zeros((4, 16, 16, 1))
        noisy = clean + rng.normal(0, 100, clean.shape)
        arrays = {"source": clean.astype("float32"), "target": noisy.astype("float32")}
        step(harness.tensors(arrays, seed))
    flat = np.zeros((1, 16, 16, 1), "float32")
    spread = Spread(model)
    assert spread.name == "quantiles"
    answer, half = spread(flat)
    np.testing.assert_allclose(answer, model.translate(flat), atol=0.01)
    assert half.mean() == pytest.approx(164.5 + 1, rel=0.2)  # 1.645 standard deviations
    # In tiles, and of sizes that the network pads; far edges are mirrored.
    large = np.random.default_rng(1).uniform(-100, 100, (1, 151, 70, 1)).astype("float32")
    whole, inside = model.with_half_width(large).numpy() + [0, 1], np.s_[:, :125, :45]
    tiled = np.concatenate(spread(large), -1)
    assert tiled.shape == whole.shape == (1, 151, 70, 2)
    np.testing.assert_allclose(tiled[inside], whole[inside], atol=0.02)
    # What is served is the estimate.
    assert model(flat).shape[-1] == 1


def test_quantiles_off_change_nothing_and_on_refuse_what_they_cannot_do():
    weights = [harness.build("encoder_decoder", SMALL | q).network.get_weights()
               for q in ({}, {"quantiles": False})]  # fmt: skip
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match="without registration"):
        harness.build("pix2pix", PIX2PIX | {"quantiles": True, "registration": True})
    classes = Domain(modality="SEG", unit="class", window=(0, 3))
    with pytest.raises(ValueError, match="no classes. Received: 4 classes"):
        harness.build("encoder_decoder", SMALL | {"quantiles": True}, target=classes)


def test_a_spread_that_a_model_does_not_have_is_refused(plain):
    with pytest.raises(ValueError, match="spread: expected views. Received: dropout"):
        Spread(plain[0], "dropout")
    still = harness.build("encoder_decoder", SMALL | {"flip": False})
    with pytest.raises(ValueError, match="expected a model with quantiles, dropout, mirror"):
        Spread(still)
    classes = Domain(modality="SEG", unit="class", window=(0, 3))
    with pytest.raises(ValueError, match="Received: classes"):
        Spread(harness.build("encoder_decoder", SMALL, HU, classes))
