"""Trained models by name: what they are asked, and how their image is held to the measurement."""

import dataclasses
import functools

import numpy as np
import pytest

import harness
import zoo
from zoo.data import facts
from zoo.domain import Domain
from zoo.physics import fourier, mri, radon, tomography
from zoo.recipe import Recipe
from zoo_datasets.ct_recon import phantom as ct
from zoo_datasets.ct_recon.ct_recon_dataset_builder import Builder as CTBuilder
from zoo_datasets.mri_recon import phantom as heads
from zoo_datasets.mri_recon.mri_recon_dataset_builder import Builder as MRBuilder

BEAM = {"size": 16, "spacing_mm": 10.0, "views": 8, "detectors": 24, "detector_mm": 10.0}
HU = Domain(modality="CT", unit="HU", window=(-1024.0, 1500.0))
SIGNAL = Domain(modality="MR", unit="signal", window=(0.0, 1.0))


@functools.cache
def scan():
    beam = tomography.ParallelBeam(**BEAM)
    axis = np.linspace(-1, 1, 16)
    image = 0.02 * (np.hypot(axis, axis[:, None]) < 0.7)
    y = beam.forward(image).numpy()
    return beam, (y + np.random.default_rng(0).normal(0, 0.02, y.shape)).astype(np.float32)


def without_weights(name, source, target, **fields):
    """A model whose network adds nothing to the quick image."""
    model = zoo.load(name, source=source, target=target, precision="float32", **fields)
    for weight in model.network.variables:
        weight.assign(0 * weight)
    return model


def primal_dual():
    fields = {"n" if name == "size" else name: value for name, value in BEAM.items()}
    return without_weights(
        "learned_primal_dual", harness.SINOGRAM, HU, iterations=1, filters=2, start="fbp", **fields
    )


def test_a_model_of_sinograms_gives_attenuation():
    beam, y = scan()
    found, record = zoo.reconstruct(y, beam, primal_dual())
    quick, _ = zoo.reconstruct(y, beam, "fbp", filter="hann")
    np.testing.assert_allclose(found, quick, atol=1e-5)
    assert record.method == "learned_primal_dual" and record.lam is None and record.converged


@pytest.mark.parametrize("coils", [1, 2])
def test_a_model_of_kspace_gives_signal_with_the_phase_of_the_quick_image(coils):
    axis = np.linspace(-1, 1, 16)
    maps = np.stack([1 + 0.2 * axis * axis[:, None], 0.5j + 0.2 * axis + 0 * axis[:, None]])
    lines = fourier.random_lines(16, 1.5, 0, 0.3)
    operator = mri.CartesianMRI(lines, maps=maps if coils == 2 else None, width=16)
    image = (np.hypot(axis, axis[:, None]) < 0.7) * np.exp(1j * axis)
    y = operator.forward(image).numpy()
    source = Domain(modality="MR", unit="k-space", window=(-16.0, 16.0), channels=2 * coils)
    model = without_weights("varnet", source, SIGNAL, cascades=1, base_filters=2, levels=2)
    found, _ = zoo.reconstruct(y, operator, model)
    quick, _ = zoo.reconstruct(y, operator, "zero_filled")
    inside = np.abs(quick) > 0.2
    np.testing.assert_allclose(np.angle(found * quick.conj())[inside], 0, atol=1e-5)
    filled = fourier.from_kspace(y.reshape(-1, 16, 16))
    expected = np.sqrt((np.abs(filled) ** 2).sum(0))
    np.testing.assert_allclose(np.abs(found), expected, atol=1e-4 if coils == 1 else 0.2)


def test_a_model_of_images_gets_the_quick_one():
    beam, y = scan()
    found, _ = zoo.reconstruct(y, beam, "encoder_decoder_ldct")
    hu = radon.attenuation_to_hu(beam.pseudo_inverse(y).numpy())
    expected = zoo.load("encoder_decoder_ldct").translate(hu.astype(np.float32))
    np.testing.assert_allclose(radon.attenuation_to_hu(found), expected, atol=0.1)


def rays():
    protocol = ct.Protocol(size=32, views=16, slices=1)
    (sinogram,) = ct.patient(protocol, 0, 0)["sinogram"]
    source = ct.scanner(protocol).reconstruct(sinogram)
    return sinogram, tomography.ParallelBeam(**protocol.beam), source


def lines():
    protocol = heads.Protocol(size=32, slices=1)
    ((_, kspace, _),) = heads.patient(protocol, 0, 0)
    kspace = 3 * kspace  # of a scanner with another gain
    operator = mri.CartesianMRI(protocol.operator.lines)
    return fourier.from_channels(kspace), operator, fourier.zero_filled(kspace)[..., 0]


@pytest.mark.parametrize(
    "builder, config, measured",
    [(CTBuilder, "phantom_fbp_tiny", rays), (MRBuilder, "phantom_128_filled", lines)],
)
def test_a_model_gets_the_quick_image_that_it_learned_from(
    builder, config, measured, tmp_path, monkeypatch
):
    recipe = Recipe.preset("paper")
    domain = facts.data_facts(builder(config=config, data_dir=tmp_path), recipe).source
    target = dataclasses.replace(domain, quick="")
    model = without_weights("encoder_decoder", domain, target, base_filters=2, levels=1, loss="l1")
    # As a run's record keeps the domain.
    assert Domain.from_dict(model.source.to_dict()).quick == domain.quick != ""
    given = []
    monkeypatch.setattr(model, "translate", lambda images: given.append(images) or images)
    y, operator, source = measured()
    zoo.reconstruct(y, operator, model)
    rounding = 0.51 if domain.unit == "HU" else 1e-5
    apart = np.abs(domain.clip(given[0][0, ..., 0]) - domain.clip(source.astype(np.float32)))
    assert np.quantile(apart, 0.99) < rounding  # a few pixels lie between two rays
    assert apart.mean() < rounding


def test_its_image_is_held_to_the_measurement():
    """(A* W A + lam) x = A* W y + lam m, with w = 1 / sigma^2."""
    beam, y = scan()
    model, sigma, lam = primal_dual(), 0.02, 5e4
    image, _ = zoo.reconstruct(y, beam, model)
    found, record = zoo.reconstruct(y, beam, model, lam=lam, sigma=sigma, tolerance=2e-5)
    units = np.eye(256).reshape(256, 16, 16).astype("float32")
    a = beam.forward(units).numpy().reshape(256, -1).T.astype(float)
    system = a.T @ a / sigma**2 + lam * np.eye(256)
    true = np.linalg.solve(system, a.T @ y.ravel() / sigma**2 + lam * image.ravel())
    np.testing.assert_allclose(found.ravel(), true, atol=1e-3 * true.max())
    assert record.lam == lam and record.converged

    def misfit(x):
        return np.linalg.norm(beam.forward(x).numpy() - y)

    assert misfit(found) < misfit(image)
    _, record = zoo.reconstruct(y, beam, model, lam="discrepancy", sigma=sigma)
    assert "discrepancy" in record.why and record.lam > 0


def test_models_that_do_not_suit_are_refused():
    beam, y = scan()
    other = tomography.ParallelBeam(**BEAM | {"spacing_mm": 11.0})
    with pytest.raises(ValueError, match="method: expected spacing_mm 10.*Received: 11"):
        zoo.reconstruct(y, other, primal_dual())
    with pytest.raises(ValueError, match="model: expected one of images in HU. Received: signal"):
        zoo.reconstruct(y, beam, "automap_mri")
    operator = mri.CartesianMRI(np.ones(16, bool))
    with pytest.raises(ValueError, match="model: expected one of images in signal. Received: HU"):
        zoo.reconstruct(np.zeros((16, 16), complex), operator, "encoder_decoder_ldct")
    with pytest.raises(ValueError, match="array: expected k-space of 64 x 64"):
        zoo.reconstruct(np.zeros((16, 16), complex), operator, "automap_mri")
    with pytest.raises(zoo.UnknownName, match="no method is called 'encoder_decoder_ldc'"):
        zoo.reconstruct(y, beam, "encoder_decoder_ldc")
