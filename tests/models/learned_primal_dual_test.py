"""Tests of zoo/models/learned_primal_dual.py."""

import functools

import keras
import numpy as np
import pytest

import harness
import zoo
from zoo.domain import Domain
from zoo.models import learned_primal_dual
from zoo.models.learned_primal_dual import BeamLayer, LearnedPrimalDualRecipe
from zoo.physics import radon, tomography
from zoo.recipe import DataFacts

SINOGRAM = Domain(modality="CT", unit="line integral", window=(0.0, 8.0))
HU = Domain(modality="CT", unit="HU", window=(-1024.0, 1500.0))
BEAM = {"size": 16, "spacing_mm": 10.0, "views": 8, "detectors": 24, "detector_mm": 10.0}
TINY = {"n": 16, "spacing_mm": 10.0, "views": 8, "detectors": 24, "detector_mm": 10.0,
        "iterations": 2, "filters": 4, "memory": 2}  # fmt: skip


@functools.cache
def beam():
    return tomography.ParallelBeam(**BEAM)


def images_of(count: int, seed: int = 0, size: int = 16) -> np.ndarray:
    """Discs of water and bone in air, HU `[count, n, n, 1]`."""
    rng = np.random.default_rng(seed)
    axis = np.linspace(-1, 1, size)
    hu = np.full((count, size, size), -1000.0)
    for image in hu:
        for _ in range(4):
            r, c = rng.uniform(-0.4, 0.4, 2)
            inside = np.hypot(axis[:, None] - r, axis - c) < rng.uniform(0.15, 0.5)
            image[inside] = rng.uniform(-200, 800)
    return hu[..., None].astype("float32")


def batch_of(count: int, seed: int = 0, noise: float = 0.02):
    hu = images_of(count, seed)
    y = beam().forward(radon.hu_to_attenuation(hu[..., 0])).numpy()
    y = y + np.random.default_rng(seed).normal(0, noise, y.shape)
    return harness.tensors({"source": y[..., None].astype("float32"), "target": hu}, seed)


def build(**options):
    return harness.build("learned_primal_dual", TINY | options, SINOGRAM, HU)


@pytest.mark.parametrize("start", ["zero", "fbp"])
def test_contract(start, tmp_path, monkeypatch, two_replicas):
    harness.run_translator_test(
        "learned_primal_dual",
        TINY | {"start": start},
        batch_of,
        tmp_path,
        monkeypatch,
        two_replicas if start == "zero" else None,
        source=SINOGRAM,
        target=HU,
    )


def test_the_count_of_weights_of_the_paper():
    """Two kinds of update, ten times, of 5 + 2 and 5 + 1 channels to 32, 32 and 5."""
    network = learned_primal_dual.learned_primal_dual(LearnedPrimalDualRecipe(n=8), SINOGRAM, HU)
    update = [9 * 32 * c + 32 + 9 * 32 * 32 + 32 + 9 * 32 * 5 + 5 + 2 * 32 for c in (7, 6)]
    assert network.count_params() == 10 * sum(update)


@pytest.mark.parametrize("direction", ["forward", "adjoint", "fbp"])
def test_the_beam_in_the_network_is_that_of_physics(direction):
    rng = np.random.default_rng(0)
    sides = (16, 16, 1) if direction == "forward" else (8, 24, 1)
    x = rng.uniform(size=(2, *sides)).astype("float32")
    layer = BeamLayer(BEAM, direction)
    network = keras.Sequential([keras.Input(sides), layer])
    expected = {
        "forward": lambda x: beam().forward(x) / beam().norm(),
        "adjoint": lambda x: beam().adjoint(x) / beam().norm(),
        "fbp": lambda x: beam().pseudo_inverse(x, "hann") * beam().norm(),
    }[direction](x[..., 0])
    np.testing.assert_allclose(network(x)[..., 0], expected, rtol=1e-4, atol=1e-4)
    assert network.output_shape[1:] == tuple(network(x).shape[1:])
    assert BeamLayer.from_config(layer.get_config()).geometry == BEAM


def test_without_updates_it_is_the_filtered_back_projection():
    model = build(start="fbp")
    for weight in model.network.variables:
        weight.assign(0 * weight)
    source = batch_of(2)["source"].numpy()
    expected = radon.attenuation_to_hu(beam().pseudo_inverse(source[..., 0], "hann").numpy())
    np.testing.assert_allclose(model.translate(source)[..., 0], expected, atol=0.5)
    quick, name = model.baseline(source[0])
    np.testing.assert_allclose(quick[..., 0], expected[0], atol=0.5)
    assert name == "FBP"


def test_it_learns_more_than_the_filtered_back_projection():
    model = build(filters=8, start="fbp", learning_rate=3e-3, steps=150)
    model.compile()
    train, held = batch_of(24), batch_of(8, seed=9)
    history = model.fit(train, epochs=40, batch_size=8, verbose=0).history["loss"]
    assert history[-1] < 0.5 * history[0]
    truth, source = held["target"].numpy(), held["source"].numpy()
    quick = np.stack([model.baseline(one)[0] for one in source])
    gain = 20 * np.log10(np.std(quick - truth) / np.std(model.translate(source) - truth))
    assert gain > 3


def test_the_geometry_is_that_of_the_data():
    facts = DataFacts(source=SINOGRAM, target=HU, beam=BEAM)
    recipe = LearnedPrimalDualRecipe().resolve(facts)
    assert recipe.geometry == BEAM and recipe.resolve(facts) == recipe
    assert LearnedPrimalDualRecipe.from_dict(recipe.to_dict()) == recipe
    with pytest.raises(ValueError, match="views: expected the data's, 8. Received: 9"):
        LearnedPrimalDualRecipe(views=9).resolve(facts)
    with pytest.raises(ValueError, match="dataset: expected sinograms of a parallel beam"):
        LearnedPrimalDualRecipe().resolve(DataFacts())
    with pytest.raises(ValueError, match="crop: measurements are taken as they are"):
        LearnedPrimalDualRecipe(crop=8)


def test_other_sinograms_are_refused_and_noise_keeps_its_mean():
    model = build()
    for array in np.zeros([1, 16, 16, 1], "float32"), np.zeros([3, 16, 16], "float32"):
        with pytest.raises(ValueError, match="array: expected sinograms of 8 x 24"):
            model.translate(array)
    # What lies below the window is not clipped.
    source = batch_of(1)["source"].numpy()
    apart = model.translate(source - 0.5) - model.translate(np.maximum(source - 0.5, 0))
    assert np.abs(apart).max() > 1


def test_attenuation_as_lodopab_has_it():
    domain = Domain(modality="CT", unit="normalised attenuation", window=(0.0, 0.62))
    model = zoo.load("learned_primal_dual", **TINY, start="fbp", source=SINOGRAM, target=domain)
    for weight in model.network.variables:
        weight.assign(0 * weight)
    source = batch_of(1)["source"].numpy()
    expected = beam().pseudo_inverse(source[..., 0], "hann").numpy() / 0.08135858
    np.testing.assert_allclose(model.translate(source)[..., 0], expected, atol=1e-3)
