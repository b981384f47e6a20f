import dataclasses
import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import harness
from zoo import loading, losses
from zoo.domain import Domain
from zoo.layers import patch_gan
from zoo.models import cyclegan
from zoo.models._two_way import OTHER
from zoo.models.cyclegan import CycleGANRecipe, ImageBuffer
from zoo.recipe import DataFacts

TINY = {"base_filters": 4, "blocks": 1, "crop": 32, "buffer": 3}
TINY |= {"discriminator_filters": 4, "discriminator_layers": 1}
NARROW = Domain(modality="CT", unit="HU", window=(-1000.0, 500.0))
SIGNAL = Domain(modality="MR", unit="signal", window=(0.0, 200.0))
ALONE = {"lambda_gan": 0.0, "lambda_cycle": 0.0, "lambda_identity": 0.0}


def labelled(count: int, seed: int, size: int = 32) -> harness.Batch:
    """Images of two classes, the brighter half of the pixels and the rest."""
    batch = harness.batch_of(size, count, seed)
    batch["target"] = tf.reverse(batch["target"], [0])
    label = {f"{k}_label": tf.cast(batch[k] > 0, tf.uint8) for k in ("source", "target")}
    return batch | label


def trainable(*networks: keras.Model) -> int:
    return sum(int(np.prod(v.shape)) for n in networks for v in n.trainable_variables)


@pytest.mark.parametrize(
    ("channels", "blocks", "count"), [(3, 9, 11_378_179), (1, 9, 11_365_633), (3, 6, 7_837_699)]
)
def test_generator_has_the_published_number_of_parameters(channels, blocks, count):
    recipe = CycleGANRecipe(blocks=blocks)
    halves = cyclegan.encoder(channels, recipe), cyclegan.decoder(channels, recipe)
    assert trainable(*halves) == count


@pytest.mark.parametrize(("channels", "count"), [(3, 2_764_737), (1, 2_762_689)])
def test_discriminator_has_the_published_number_of_parameters(channels, count):
    assert trainable(patch_gan(channels, 64, 3, norm="instance")) == count


def test_contract(tmp_path, monkeypatch, two_replicas):
    # Plain descent amplifies rounding errors behind the paper's small, normalised weights.
    tame = {"discriminator_norm": "none", "lambda_cycle": 1.0, "lambda_identity": 0.5}
    batch = functools.partial(harness.batch_of, 32)
    harness.run_translator_test("cyclegan", TINY | tame, batch, tmp_path, monkeypatch, two_replicas)


def test_every_weight_learns_with_all_additions():
    names = ("shape", "latent", "tv", "idempotence", "autoencoding", "gradient", "air")
    additions = {f"lambda_{name}": 0.5 for name in names} | {"shape_classes": 2}
    model = harness.build("cyclegan", TINY | additions | {"spectral_norm": True})
    harness.every_weight_learns(model, labelled)


@pytest.mark.parametrize("kind", ["hinge", "wgan"])
def test_other_adversarial_losses_train(kind):
    model = harness.build("cyclegan", TINY | {"adversarial": kind, "buffer": 0})
    model.compile()
    first, second = (model.train_step(harness.batch_of(32, 2)) for _ in range(2))
    assert all(np.isfinite(float(v)) for v in second.values())
    assert float(second["d_loss"]) < float(first["d_loss"])


# The image buffer.


def remembered(size: int, batches: list[np.ndarray], draws: list[np.ndarray]) -> list[np.ndarray]:
    """The authors' image pool, one image after the other."""
    pool, results = [], []
    for images, numbers in zip(batches, draws, strict=True):
        shown = []
        for image, (coin, where) in zip(images, numbers, strict=True):
            if len(pool) < size:
                pool.append(image)
                shown.append(image)
            elif coin < 0.5:
                place = int(where * size)
                shown.append(pool[place])
                pool[place] = image
            else:
                shown.append(image)
        results.append(np.stack(shown))
    return results


def test_buffer_gives_back_what_the_papers_does():
    rng = np.random.default_rng(0)
    batches = [rng.normal(size=(n, 2, 2, 1)).astype("float32") for n in (3, 3, 3, 8, 1)]
    draws = [rng.uniform(size=(len(b), 2)).astype("float32") for b in batches]
    buffer = ImageBuffer(5, (2, 2, 1))
    expected = remembered(5, batches, draws)
    for images, numbers, wanted in zip(batches, draws, expected, strict=True):
        np.testing.assert_array_equal(buffer(tf.constant(images), tf.constant(numbers)), wanted)
    assert not np.array_equal(expected[3], batches[3])  # something was exchanged


def test_buffer_is_part_of_a_checkpoint(tmp_path):
    model, twin = harness.build("cyclegan", TINY), harness.build("cyclegan", TINY)
    images, draws = tf.random.normal([5, 32, 32, 1], seed=1), tf.fill([5, 2], 0.4)
    model.buffer_a(images, draws)
    path = tf.train.Checkpoint(model=model).write(tmp_path / "checkpoint")
    tf.train.Checkpoint(model=twin).read(path)
    again = [m.buffer_a(-images, draws) for m in (model, twin)]
    np.testing.assert_array_equal(*again)
    assert int(twin.buffer_a.seen.numpy()) == 3


def test_discriminators_see_the_buffers_images():
    model = harness.build("cyclegan", TINY | {"buffer": 1})
    fakes = tf.random.normal([1, 32, 32, 1], seed=1)
    seen = [model._remembered("a", i * fakes, tf.constant([[0, i]])) for i in range(1, 21)]
    ages = [i - round(float(tf.reduce_mean(s / fakes))) for i, s in enumerate(seen, 1)]
    assert ages[0] == 0
    assert set(ages) >= {0, 1}


# The additions.


ADDITIONS = (
    "gradient",
    "shape",
    "air",
    "perceptual",
    "idempotence",
    "autoencoding",
    "latent",
    "tv",
)


@pytest.fixture(scope="module")
def enriched():
    """A model with all additions, and its losses, by name, on one batch."""
    inputs = keras.Input((None, None, 1))
    extractor = keras.Model(inputs, keras.layers.Conv2D(4, 3)(inputs))
    overrides = TINY | {f"lambda_{name}": 1.0 for name in ADDITIONS} | {"norm": "none"}
    model = harness.build("cyclegan", overrides | {"shape_classes": 2, "air_threshold": 0.0})
    model.perceptual = losses.Perceptual(extractor)
    batch = labelled(1, 0)
    real, labels = model.given(batch), model._labels(batch)

    def terms():
        codes = {d: model.encoded(d, real[d]) for d in OTHER}
        fakes = {t: model.decoded(t, codes[s], real[s]) for s, t in OTHER.items()}
        return model._terms(real, codes, fakes, labels)

    with tf.GradientTape(persistent=True) as tape:
        before = terms()
    return model, terms, before, tape


@pytest.mark.parametrize("name", ADDITIONS)
def test_each_addition_lessens_what_it_measures(name, enriched):
    model, terms, before, tape = enriched
    weights = model.network.trainable_variables
    old = [weight.numpy() for weight in weights]
    gradients = tape.gradient(before[name], weights)
    norm = tf.linalg.global_norm(gradients)
    assert norm > 0
    for weight, gradient in zip(weights, gradients, strict=True):
        if gradient is not None:
            weight.assign_sub(2e-3 / norm * gradient)
    assert terms()[name] < before[name]
    for weight, value in zip(weights, old, strict=True):
        weight.assign(value)


def test_air_loss_is_in_physical_units():
    image = np.random.default_rng(0).uniform(-1000.0, 400.0, (1, 32, 32, 1)).astype("float32")
    overrides = TINY | ALONE | {"lambda_air": 1.0, "air_threshold": -300.0}
    model = harness.build("cyclegan", overrides, target=NARROW)

    def air(translation):
        real = {"a": harness.HU.encode(image), "b": NARROW.encode(image)}
        fakes = {"a": harness.HU.encode(translation), "b": NARROW.encode(image)}
        return float(model._terms(real, {}, fakes, {})["air"])

    assert air(image) == pytest.approx(0.0, abs=1e-6)
    lost = np.where(image < -300.0, -image, 0.0).mean()  # tissue where air was
    assert air(np.maximum(image, 0.0)) == pytest.approx(lost / (NARROW.span / 2), rel=1e-4)
    with pytest.raises(ValueError, match="needs source and target in one unit"):
        harness.build("cyclegan", overrides, target=SIGNAL)


def test_gradients_and_total_variation_of_translations():
    rng = np.random.default_rng(0)
    image = rng.uniform(-1, 1, (1, 32, 32, 1)).astype("float32")
    real = {"a": tf.constant(image), "b": tf.constant(image)}
    darker = {d: 0.5 * real[d] - 0.2 for d in real}
    moved = {d: tf.roll(real[d], 3, axis=1) for d in real}
    overrides = TINY | ALONE | {"lambda_gradient": 1.0, "lambda_tv": 1.0}
    model = harness.build("cyclegan", overrides)
    assert float(model._terms(real, {}, darker, {})["gradient"]) < 1e-3
    assert float(model._terms(real, {}, moved, {})["gradient"]) > 1.0
    flat = {d: tf.ones_like(real[d]) for d in real}
    assert float(model._terms(real, {}, flat, {})["tv"]) == 0.0


def test_a_translation_that_changes_nothing_has_no_error():
    names = ("cycle", "identity", "idempotence", "autoencoding")
    overrides = TINY | {f"lambda_{n}": 1.0 for n in names} | {"output": "residual"}
    model = harness.build("cyclegan", overrides | {"lambda_gan": 0.0})
    for decoder in (model.network.decoder_a, model.network.decoder_b):
        decoder.trainable_variables[-2].assign(tf.zeros_like(decoder.trainable_variables[-2]))
    batch = harness.batch_of(32, 1)
    batch["source"] += 1500.0  # beyond the window too
    real = model.given(batch)
    codes = {d: model.encoded(d, real[d]) for d in OTHER}
    fakes = {t: model.decoded(t, codes[s], real[s]) for s, t in OTHER.items()}
    terms = model._terms(real, codes, fakes, {})
    assert {n: float(v) for n, v in terms.items()} == dict.fromkeys(names, 0.0)
    np.testing.assert_allclose(model(batch["source"]), batch["source"], rtol=1e-5)


def test_identity_of_another_window_is_physical():
    model = harness.build("cyclegan", TINY | {"norm": "none"}, target=NARROW)
    seen = []
    model.encoded = lambda domain, values: seen.append((domain, values)) or values
    model.decoded = lambda domain, code, values: values
    real = {d: model.domain(d).encode(tf.fill([1, 32, 32, 1], 250.0)) for d in OTHER}
    model._terms(real, {}, {t: real[t] for t in OTHER}, {})
    physical = {round(float(model.domain(d).decode(v)[0, 0, 0, 0])) for d, v in seen}
    assert physical == {250}


# Directions.


# The recipe.


def test_encoder_may_be_shared(tmp_path):
    model = harness.build("cyclegan", TINY | {"share_encoder": True})
    network = model.network
    parts = network.encoder_a, network.decoder_a, network.decoder_b
    assert trainable(network) == trainable(*parts)
    sha256 = model.save_network(tmp_path / "net.weights.h5")
    twin = type(model).from_config(model.get_config())
    loading.load_network(twin, tmp_path / "net.weights.h5", sha256)
    assert twin.weights_hash == model.weights_hash


def test_resolve_fills_in_the_crop_and_the_classes():
    recipe = CycleGANRecipe(crop=0, lambda_shape=1.0)
    names = ("background", "bone", "lung")
    facts = DataFacts(source_shape=(64, 64), target_shape=(64, 64), label_names=names)
    resolved = recipe.resolve(facts)
    assert (resolved.crop, resolved.shape_classes) == (64, 3)
    assert resolved.extra_features == ("source_label", "target_label")
    assert CycleGANRecipe().extra_features == ()
    with pytest.raises(ValueError, match="holds images of one size"):
        recipe.resolve(dataclasses.replace(facts, source_shape=(64, 32)))
    with pytest.raises(ValueError, match="no label_names"):
        recipe.resolve(dataclasses.replace(facts, label_names=()))
    with pytest.raises(ValueError, match="images of one size"):
        harness.build("cyclegan", TINY | {"crop": 0}).compile()


def test_what_compares_the_domains_needs_as_many_channels():
    colour = Domain(channels=3)
    with pytest.raises(ValueError, match="lambda_identity: source and target need as many"):
        harness.build("cyclegan", TINY, harness.HU, colour)
    harness.build("cyclegan", TINY | {"lambda_identity": 0.0}, harness.HU, colour)
