"""Tests of zoo/models/dcgan.py."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import harness
import zoo.models.dcgan  # noqa: F401  registers the class
from zoo.models._generator import Noise
from zoo.models.dcgan import DcganRecipe, discriminator, generator
from zoo.recipe import DataFacts

TINY = {"base_filters": 4, "discriminator_filters": 4, "latent": 6, "batch_size": 4}
CLASSES = {"conditional": True, "class_names": ("benign", "malignant")}


def trainable(network) -> int:
    return sum(int(np.prod(v.shape)) for v in network.trainable_variables)


def test_parameter_counts_are_those_of_the_authors_code():
    recipe = DcganRecipe(resolution=64)
    assert trainable(generator(recipe, 3)) == 3_576_704
    assert trainable(discriminator(recipe, 3)) == 2_765_568


@pytest.mark.parametrize("side", [128, 256])
def test_each_doubling_adds_a_layer(side):
    fields = {"base_filters": 2, "discriminator_filters": 2}
    recipe = DcganRecipe(**TINY | fields, resolution=side)
    assert generator(recipe, 1).output_shape == (None, side, side, 1)
    judge = discriminator(recipe, 1)
    assert judge.input_shape == (None, side, side, 1) and judge.output_shape == (None, 1)
    widths = [layer.filters for layer in judge.layers if isinstance(layer, keras.layers.Conv2D)]
    assert widths == {128: [2, 4, 8, 16, 32, 1], 256: [2, 4, 8, 16, 32, 32, 1]}[side]


def test_refining_adds_convolutions_at_each_size_and_the_images_own():
    recipe = DcganRecipe(**TINY, refine=2, noise_inputs=3)
    judge, maker = discriminator(recipe, 1), generator(recipe, 1)
    kinds = keras.layers.Conv2D, keras.layers.Conv2DTranspose
    plan, made = (
        [
            (x.filters, *x.kernel_size[:1], *x.strides[:1])
            for x in net.layers
            if isinstance(x, kinds)
        ]
        for net in (judge, maker)
    )
    fine = [(4, 3, 1)] * 2 + [(8, 4, 2)] + [(8, 3, 1)] * 2 + [(16, 4, 2)]
    assert plan == [*fine, *[(16, 3, 1)] * 2, (32, 4, 2), *[(32, 3, 1)] * 2, (64, 4, 2), (1, 4, 1)]
    doubled = [[(n, 3, 2), (n, 3, 1), (n, 3, 1)] for n in (32, 16, 8, 4)]
    assert made == [(64, 4, 1), *sum(doubled, []), (1, 3, 1)]
    assert sum(isinstance(layer, Noise) for layer in maker.layers) == 12


SPECTRAL = {"spectral_norm": True, "adversarial": "hinge", "ema": 0.5}


# Noise in the inputs puts activations at the kinks of ReLU, where replicas' rounding shows.
EVEN = {"r1": 1.0, "r1_every": 2, "refine": 1, "ema": 0.5}
REFINED = EVEN | {"noise_inputs": 2}


@pytest.mark.parametrize(("options", "classes"), [({}, 0), (CLASSES | SPECTRAL, 2), (EVEN, 0)])
def test_contract(options, classes, tmp_path, monkeypatch, two_replicas):
    batch = functools.partial(harness.singles_of, 64, classes=classes)
    harness.run_translator_test("dcgan", TINY | options, batch, tmp_path, monkeypatch, two_replicas)


@pytest.mark.parametrize("options", [{"adversarial": "wgan"}, REFINED | {"diff_augment": True}])
def test_every_weight_learns(options):
    model = harness.build("dcgan", TINY | options)
    harness.every_weight_learns(model, functools.partial(harness.singles_of, 64))


def test_generated_images_depend_on_seed_number_and_label_alone():
    model = harness.build("dcgan", TINY | CLASSES)
    four = model.generate(4, seed=3)
    np.testing.assert_array_equal(four[1:3], model.generate(2, seed=3, first=1))
    benign, malignant = (model.generate(4, seed=3, label=label) for label in (0, "malignant"))
    assert np.abs(benign - malignant).max(axis=(1, 2, 3)).min() > 0
    for k in range(4):  # without a label the classes take turns
        np.testing.assert_array_equal(four[k], (benign, malignant)[k % 2][k])
    assert four.min() >= -1000.0 and four.max() <= 1000.0
    with pytest.raises(ValueError, match="label: expected 0 to 1, or benign, malignant. Rec.*: 2"):
        model.generate(1, label=2)
    with pytest.raises(ValueError, match="Received: n=0"):
        model.generate(0)


def test_conditional_model_takes_latents_and_labels():
    model = harness.build("dcgan", TINY | CLASSES)
    z, labels = tf.random.stateless_normal([3, 6], [1, 2]), tf.constant([0, 1, 1], tf.int64)
    images, others = model([z, labels]).numpy(), model((z, 1 - labels)).numpy()
    assert images.shape == (3, 64, 64, 1)
    assert np.abs(images - others).max(axis=(1, 2, 3)).min() > 0.0
    with pytest.raises(ValueError, match=r"takes \[latents, labels\]. Received: latents alone"):
        model(z)
    with pytest.raises(tf.errors.InvalidArgumentError, match="labels: expected 0 to 1. Received"):
        tf.function(model)([z, tf.constant([0, 1, 2], tf.int64)])
    with pytest.raises(ValueError, match=r"takes latents alone. Received: \[latents, labels\]"):
        harness.build("dcgan", TINY)([z, labels])


def test_the_label_reaches_both_networks():
    model = harness.build("dcgan", TINY | CLASSES)
    values = tf.zeros([2, 6])
    expected = [[0.0] * 6 + [0.0, 1.0], [0.0] * 6 + [1.0, 0.0]]
    np.testing.assert_array_equal(model._with_labels(values, tf.constant([1, 0])), expected)
    maps = model._with_labels(tf.zeros([2, 64, 64, 1]), tf.constant([1, 0])).numpy()
    assert (maps[0] == [0, 0, 1]).all() and (maps[1] == [0, 1, 0]).all()
    assert model.recipe.extra_features == ("label",)
    assert DcganRecipe().extra_features == ()


def test_served_weights_are_the_moving_average():
    batch = harness.singles_of(64, 2)
    harness.served_weights_are_the_moving_average("dcgan", TINY, batch, "generator")
    plain = harness.build("dcgan", TINY)
    assert plain.network is plain.generator


def test_batch_normalisation_is_left_out_where_it_would_spoil_the_loss():
    def norms(**options):
        network = discriminator(DcganRecipe(**TINY | options), 1)
        return sum("norm" in layer.name for layer in network.layers)

    assert norms() == 3
    assert norms(adversarial="wgan") == norms(spectral_norm=True) == norms(r1=1.0) == 0


def test_resolve_takes_resolution_and_classes_from_the_data():
    def resolve(shape, names=(), **fields):
        facts = DataFacts(source_shape=shape, target_shape=shape, class_names=names)
        return DcganRecipe(**fields).resolve(facts)

    assert resolve((64, 64)).resolution == 64
    assert resolve((200, 300)).resolution == 128
    assert resolve((512, 512)).resolution == 256
    assert resolve((512, 512), resolution=64).resolution == 64
    assert resolve(None, resolution=128).resolution == 128
    with pytest.raises(ValueError, match="images of 64 x 64 of 40 x 64 pixels. Received: 0"):
        resolve((40, 64))
    with pytest.raises(ValueError, match="at most 64, which fits .* Received: 128"):
        resolve((64, 64), resolution=128)
    with pytest.raises(ValueError, match="differ in size"):
        resolve(None)
    names = ("a", "b", "c")
    assert resolve((64, 64), names).class_names == ()
    known = resolve((64, 64), names, conditional=True)
    assert known.class_names == names and known.label_values == 3
    with pytest.raises(ValueError, match="class_names: expected the data's, a, b, c"):
        resolve((64, 64), names, conditional=True, class_names=("a", "b"))


def test_another_resolution_is_refused():
    message = "resolution: expected one of 0, 64, 128, 256. Received: 48"
    with pytest.raises(ValueError, match=message):
        DcganRecipe(resolution=48)


def test_what_it_does_not_do_it_refuses():
    model = harness.build("dcgan", TINY)
    model.compile()
    with pytest.raises(TypeError, match="does not translate"):
        model.translate(np.zeros([64, 64]))
    with pytest.raises(TypeError, match="no reference"):
        model.test_step({})
    with pytest.raises(ValueError, match=r"expected 64 x 64 pixels. Received: shape \(2, 32, 32"):
        model.train_step(harness.singles_of(32, 2))
    with pytest.raises(ValueError, match="label: expected none. Received: 1"):
        model.generate(1, label=1)
    with pytest.raises(ValueError, match="at least two classes"):
        harness.build("dcgan", TINY | {"conditional": True})
