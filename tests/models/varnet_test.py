"""Tests of zoo/models/varnet.py."""

import numpy as np
import pytest
import tensorflow as tf

import harness
import zoo
from zoo.domain import Domain
from zoo.models import varnet
from zoo.models.varnet import VarNetRecipe
from zoo.physics import fourier, mri

KSPACE = Domain(modality="MR", unit="k-space", window=(-16.0, 16.0), channels=2)
SIGNAL = Domain(modality="MR", unit="signal", window=(0.0, 1.0))
TINY = {"cascades": 2, "base_filters": 4, "levels": 2}
LINES = fourier.random_lines(16, 2, 0, 0.2)


def images_of(count: int, seed: int = 0) -> np.ndarray:
    """Discs in [0, 1], `[count, 16, 16]`."""
    rng = np.random.default_rng(seed)
    axis = np.linspace(-1, 1, 16)
    images = np.zeros((count, 16, 16))
    for image in images:
        for _ in range(3):
            r, c = rng.uniform(-0.4, 0.4, 2)
            inside = np.hypot(axis[:, None] - r, axis - c) < rng.uniform(0.2, 0.6)
            image[inside] = rng.uniform(0.2, 1)
    return images.astype("float32")


def coil_maps(coils: int) -> np.ndarray:
    axis = np.linspace(-1, 1, 16)
    places = np.linspace(-1, 1, coils)
    maps = np.stack([np.exp(-((axis - s) ** 2) / 2 + 0.5j * s * axis[:, None]) for s in places])
    return maps / np.sqrt((np.abs(maps) ** 2).sum(0))


def batch_of(count: int, seed: int = 0, coils: int = 1):
    images = images_of(count, seed)
    operator = mri.CartesianMRI(LINES, maps=coil_maps(coils) if coils > 1 else None)
    kspace = operator.forward(images).numpy().reshape(count, coils, 16, 16)
    source = fourier.to_channels(kspace).transpose(0, 2, 3, 1, 4).reshape(count, 16, 16, -1)
    return harness.tensors({"source": source, "target": images[..., None]}, seed)


def build(coils: int = 1, **options):
    source = Domain(modality="MR", unit="k-space", window=(-16.0, 16.0), channels=2 * coils)
    return harness.build("varnet", TINY | options, source, SIGNAL)


def test_contract(tmp_path, monkeypatch, two_replicas):
    harness.run_translator_test(
        "varnet",
        TINY,
        batch_of,
        tmp_path,
        monkeypatch,
        two_replicas,
        source=KSPACE,
        target=SIGNAL,
        # The first step is away from nothing: there k is still y.
        unused=lambda model: [model.network.get_layer("cascade0").eta],
    )


@pytest.mark.parametrize("coils", [1, 3])
def test_the_operators_in_the_network_are_those_of_physics(coils):
    rng = np.random.default_rng(0)
    maps = coil_maps(coils) if coils > 1 else np.ones((1, 16, 16))
    operator = mri.CartesianMRI(np.ones(16, bool), maps=maps)
    image = rng.normal(size=(2, 16, 16)) + 1j * rng.normal(size=(2, 16, 16))

    def channels(values):
        pairs = fourier.to_channels(values).transpose(0, 2, 3, 1, 4)
        return tf.constant(pairs.reshape(*pairs.shape[:3], -1))

    given = channels(np.repeat(maps[None], 2, 0))
    kspace = varnet.spread(channels(image[:, None]), given)
    np.testing.assert_allclose(kspace, channels(operator.forward(image).numpy()), atol=1e-5)
    back = varnet.combined(kspace, given)
    np.testing.assert_allclose(back, channels(image[:, None]), atol=1e-5)


@pytest.mark.parametrize("coils", [1, 3])
def test_without_a_prior_it_is_the_zero_filled_image(coils):
    model = build(coils)
    for weight in model.network.variables:
        if "eta" not in weight.path:
            weight.assign(0 * weight)
    source = batch_of(2, coils=coils)["source"].numpy()
    found = model.translate(source)[..., 0]
    pairs = source.reshape(2, 16, 16, coils, 2).transpose(0, 3, 1, 2, 4)
    filled = fourier.from_kspace(fourier.from_channels(pairs))
    # Maps of low resolution make of several coils nearly the root of the sum of squares.
    expected = np.sqrt((np.abs(filled) ** 2).sum(1))
    np.testing.assert_allclose(found, expected, atol=1e-4 if coils == 1 else 0.25)
    assert np.abs(found - expected).mean() < 0.05


def test_what_was_measured_is_kept_where_the_prior_adds_nothing():
    """One cascade from another k-space: eta = 1 puts the measurement back."""
    layer = varnet.Cascade(4, 2, "none")
    rng = np.random.default_rng(0)
    y = tf.constant(batch_of(1)["source"].numpy())
    mask = tf.cast(tf.reduce_any(y != 0, -1, keepdims=True), tf.float32)
    maps = varnet.sensitivities(y, 0.1)
    other = tf.constant(rng.normal(size=y.shape).astype("float32"))
    for weight in layer.prior.variables:
        weight.assign(0 * weight)
    np.testing.assert_allclose(layer(other, y, mask, maps), np.where(mask, y, other), atol=1e-5)


def test_sensitivities_are_those_of_the_coils():
    source = batch_of(1, seed=3, coils=3)["source"]
    maps = varnet.sensitivities(source, 0.3).numpy()
    np.testing.assert_allclose((maps**2).sum(-1), 1, atol=1e-4)
    pairs = maps.reshape(16, 16, 3, 2)
    found = (pairs[..., 0] + 1j * pairs[..., 1]).transpose(2, 0, 1)
    inside = images_of(1, 3)[0] > 0.2
    alike = np.abs((found * coil_maps(3).conj()).sum(0))[inside]
    assert alike.mean() > 0.97


def test_the_scale_of_kspace_does_not_matter():
    model, source = build(), batch_of(1)["source"].numpy()
    np.testing.assert_allclose(model.translate(7 * source), 7 * model.translate(source), atol=1e-4)


def test_it_learns_more_than_zero_filling():
    model = build(base_filters=8, learning_rate=3e-3)
    model.compile()
    train, held = batch_of(24), batch_of(8, seed=9)
    history = model.fit(train, epochs=30, batch_size=8, verbose=0).history["loss"]
    assert history[-1] < 0.7 * history[0]
    truth, source = held["target"].numpy(), held["source"].numpy()
    quick = np.stack([model.baseline(one)[0] for one in source])
    gain = 20 * np.log10(np.std(quick - truth) / np.std(model.translate(source) - truth))
    assert gain > 1.5


def test_bad_domains_and_augmentation_are_refused():
    with pytest.raises(ValueError, match="source: expected k-space.*Received: 1 channels"):
        zoo.load("varnet", **TINY)
    with pytest.raises(ValueError, match="flip: measurements are taken as they are"):
        VarNetRecipe(flip=True)
