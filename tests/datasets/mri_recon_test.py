"""zoo_datasets.mri_recon: the measurement model, the mask, the builder."""

import dataclasses

import numpy as np
import pytest

from zoo.physics import fourier
from zoo_datasets.mri_recon import phantom
from zoo_datasets.mri_recon.mri_recon_dataset_builder import Builder

SMALL = phantom.Scan(size=32)


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
        scan = config.scan
        lines = scan.operator.lines
        np.testing.assert_array_equal(lines, dataclasses.replace(scan).operator.lines)
        inner = round(scan.centre * scan.size)
        assert lines[scan.size // 2 - inner // 2 :][:inner].all()
        np.testing.assert_allclose(scan.operator.acceleration, scan.acceleration, rtol=0.03)
    other = dataclasses.replace(SMALL, mask=1).operator.lines
    assert (other != SMALL.operator.lines).any()


def test_zero_filling_is_visibly_worse_than_the_noise(slices):
    sources, targets = (np.stack([s[k] for s in slices]) for k in (1, 2))
    error = np.sqrt(np.mean((fourier.zero_filled(sources) - targets) ** 2))
    assert 3 * SMALL.noise < error < 0.1
    assert targets.min() >= 0 and 0.3 < targets.max() < 1.2
    assert {s[0] for s in slices} == {"T1", "T2"}


def test_patient_follows_from_seed_and_number(slices):
    again = phantom.patient(SMALL, 0, 2)
    for (contrast, source, target), (a, b, c) in zip(slices[8:12], again, strict=True):
        assert contrast == a
        np.testing.assert_array_equal(source, b)
        np.testing.assert_array_equal(target, c)
    assert np.abs(phantom.patient(SMALL, 1, 2)[0][2] - again[0][2]).max() > 0.1


def test_builder(tmp_path):
    from zoo.domain import Domain

    builder = Builder(config="phantom_tiny", data_dir=tmp_path)
    builder.download_and_prepare()
    metadata = builder.info.metadata
    assert metadata["kind"] == "paired"
    assert metadata["acceleration"] == 32 / 13 and metadata["noise"] == 0.01
    source, target = (Domain.from_dict(metadata[k]) for k in ("source", "target"))
    assert (source.unit, source.channels, target.unit) == ("k-space", 2, "signal")
    assert target.window == (0.0, 1.0) and target.spacing == (7.0, 7.0)
    patients, masks = [], set()
    for split in ("train", "validation", "test"):
        examples = list(builder.as_dataset(split=split).as_numpy_iterator())
        patients.append({e["patient"] for e in examples})
        for e in examples:
            assert e["source"].shape == (32, 32, 2) and e["target"].shape == (32, 32, 1)
            assert e["source"].dtype == e["target"].dtype == np.float32
            assert np.abs(e["source"]).max() < 0.9 * source.window[1]
            masks.add((e["source"] != 0).any((1, 2)).tobytes())
    assert len(masks) == 1  # one acquisition
    assert [len(p) for p in patients] == [6, 2, 2]
    assert len(set.union(*patients)) == 10  # no patient in two splits
    assert Builder.BUILDER_CONFIGS[0].name == "mni152"
