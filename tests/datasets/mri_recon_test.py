"""zoo_datasets.mri_recon: the measurement model, the mask, the builder."""

import dataclasses

import numpy as np
import pytest

from source_harness import check_repeatable, check_simulated
from zoo.domain import Domain
from zoo.physics import fourier
from zoo_datasets.cases import Case
from zoo_datasets.mri_recon import phantom
from zoo_datasets.mri_recon.mri_recon_dataset_builder import Builder

SMALL = phantom.Protocol(size=32)


@pytest.fixture(scope="module")
def slices():
    return [s for number in range(6) for s in phantom.patient(SMALL, 0, number)]


def test_source_is_the_sampled_kspace_of_the_target_plus_noise(slices):
    lines = SMALL.operator.lines
    sources, targets = (np.stack([s[k] for s in slices]) for k in (1, 2))
    kspace = fourier.from_channels(sources)
    residual = (kspace - fourier.to_kspace(targets[..., 0]))[:, lines]
    for part in (residual.real, residual.imag):
        assert abs(part.mean()) < 5e-4
        np.testing.assert_allclose(part.std(), SMALL.noise, rtol=0.03)
    assert (sources[:, ~lines] == 0).all()
    assert (sources[:, lines] != 0).all()
    quiet = dataclasses.replace(SMALL, noise=0.0)
    for _, source, target in phantom.patient(quiet, 0, 0):
        exact = fourier.to_channels(SMALL.operator.forward(target[..., 0]))
        np.testing.assert_allclose(source, exact, atol=1e-5)


def test_mask_is_fixed_and_of_the_stated_acceleration():
    for config in Builder.BUILDER_CONFIGS:
        if config.find:
            continue  # not simulated: mri_sources_test.py
        protocol = config.protocol
        lines = protocol.operator.lines
        np.testing.assert_array_equal(lines, dataclasses.replace(protocol).operator.lines)
        inner = round(protocol.centre * protocol.size)
        assert lines[protocol.size // 2 - inner // 2 :][:inner].all()
        np.testing.assert_allclose(protocol.operator.acceleration, protocol.acceleration, rtol=0.03)
    other = dataclasses.replace(SMALL, mask=1).operator.lines
    assert (other != SMALL.operator.lines).any()


def test_zero_filling_is_visibly_worse_than_the_noise(slices):
    sources, targets = (np.stack([s[k] for s in slices]) for k in (1, 2))
    error = np.sqrt(np.mean((fourier.zero_filled(sources) - targets) ** 2))
    assert 3 * SMALL.noise < error < 0.1
    assert targets.min() >= 0 and 0.3 < targets.max() < 1.2
    assert {s[0] for s in slices} == {"T1", "T2"}


def test_patient_follows_from_seed_and_number():
    check_repeatable(
        lambda seed, number: phantom.patient(SMALL, seed, number),
        lambda one, other: np.abs(one[0][2] - other[0][2]).max(),
        0.1,
    )


def test_builder(tmp_path):
    builder = Builder(config="phantom_tiny", data_dir=tmp_path)
    shapes = {"source": ((32, 32, 2), np.float32), "target": ((32, 32, 1), np.float32)}
    splits = check_simulated(builder, (6, 2, 2), shapes, each=4)
    metadata = builder.info.metadata
    assert metadata["acceleration"] == 32 / 13 and metadata["noise"] == 0.01
    source, target = (Domain.from_dict(metadata[k]) for k in ("source", "target"))
    assert (source.unit, target.unit) == ("k-space", "signal")
    assert target.window == (0.0, 1.0) and target.spacing == (7.0, 7.0)
    kspace = [e["source"] for examples in splits.values() for e in examples]
    assert np.abs(kspace).max() < 0.9 * source.window[1]
    assert len({(lines != 0).any((1, 2)).tobytes() for lines in kspace}) == 1  # one acquisition
    assert Builder.BUILDER_CONFIGS[0].name == "mni152"


def test_zero_filled_images_are_those_of_the_same_kspace():
    config = next(c for c in Builder.BUILDER_CONFIGS if c.filled)
    same = next(c for c in Builder.BUILDER_CONFIGS if c.images == config.name)
    assert (same.protocol, same.patients, same.seed) == (
        config.protocol, config.patients, config.seed)  # fmt: skip
    case = Case(key="a", patient="a", facts={"number": 0})
    for one, other in zip(config.read(case, config), same.read(case, same), strict=True):
        np.testing.assert_array_equal(one[1]["target"], other[1]["target"])
        expected = np.abs(fourier.from_kspace(fourier.from_channels(other[1]["source"])))
        np.testing.assert_allclose(one[1]["source"][..., 0], expected, atol=1e-6)
        assert one[1]["source"].dtype == np.float32
