"""zoo_datasets.sr: the grid of the low resolutions, their physics, the builders."""

import numpy as np
import pytest
from scipy import ndimage

from source_harness import check_repeatable, check_simulated
from zoo.domain import Domain
from zoo.physics import resolution
from zoo_datasets.phantoms.noise import fbp_noise
from zoo_datasets.sr import phantom
from zoo_datasets.sr.sr_dataset_builder import Builder

CT = phantom.Protocol(size=64, slices=1)
MR = phantom.Protocol("MR", size=64, field=230.4, slices=2)
VOLUME = phantom.Protocol("MR", size=32, depth=16, field=208.0, scales=(2, 4))


def bicubic(image, scale):
    """Cubic interpolation onto the grid that is `scale` times as fine, pixel areas kept."""
    return ndimage.zoom(image.astype(np.float32), scale, order=3, mode="nearest", grid_mode=True)


@pytest.fixture(scope="module")
def images():
    return {protocol: phantom.patient(protocol, 0, 1)[0] for protocol in (CT, MR, VOLUME)}


@pytest.mark.parametrize("protocol", [CT, MR, VOLUME])
def test_low_resolution_lies_on_its_grid(images, protocol):
    target = images[protocol]["target"].astype(np.float32)
    assert set(images[protocol]) == {"target", *(f"source_x{s}" for s in protocol.scales)}
    span = np.ptp(target)
    for scale in protocol.scales:
        source = images[protocol][f"source_x{scale}"]
        assert source.shape == protocol.shape(scale)
        assert source.dtype == (np.int16 if protocol is CT else np.uint16)
        assert min(source.shape) >= 4
        up = bicubic(source, scale)
        error = np.sqrt(np.mean((up - target) ** 2))
        assert np.isfinite(error) and error < 0.3 * span
        if scale > 4:
            continue
        # Any shift by a pixel of the target, along any axis, fits worse.
        for axis in range(target.ndim):
            for step in (-1, 1):
                shifted = np.roll(up, step, axis)
                assert np.sqrt(np.mean((shifted - target) ** 2)) > error
        assert error > 0.01 * span  # and there is something left to restore


def test_ct_sources_are_means_of_the_target(images):
    for scale in CT.scales:
        mean = resolution.block_mean(images[CT]["target"], scale)
        # The target was clipped at -1024 after the mean, air's noise reaches a little below.
        np.testing.assert_allclose(images[CT][f"source_x{scale}"], mean, atol=3)


def test_mr_sources_are_the_middle_of_kspace(images):
    target = images[MR]["target"].astype(np.float32)
    for scale in MR.scales:
        expected = resolution.crop_kspace(target, scale)
        # Up to noise and the sign that the target's magnitude has lost.
        difference = images[MR][f"source_x{scale}"] - expected
        assert np.sqrt(np.mean(difference**2)) < 0.02 * np.ptp(target)


def test_volumes_keep_their_signal_up_to_the_last_slice(images):
    target = images[VOLUME]["target"].astype(np.float32)
    for scale in VOLUME.scales:
        source = images[VOLUME][f"source_x{scale}"].astype(np.float32)
        # Larger voxels have less noise, and so less of a magnitude image's floor in the air.
        assert 0.92 * target.mean() < source.mean() < 1.01 * target.mean()
        # The lowest slices are full of head, the highest hold air: nothing leaks from end to end.
        means, blocks = source.mean((1, 2)), target.reshape(len(source), scale, -1).mean((1, 2))
        head = blocks > 0.8 * blocks[0]
        assert head[0] and not head[-1]
        np.testing.assert_allclose(means[head], blocks[head], rtol=0.03)
        assert means[-1] < blocks[-1]


@pytest.mark.parametrize("protocol", [MR, VOLUME])
def test_patient_follows_from_seed_and_number(protocol):
    check_repeatable(
        lambda seed, number: phantom.patient(protocol, seed, number),
        lambda one, other: np.abs(one[0]["target"].astype(float) - other[0]["target"]).mean(),
        50,
    )


def test_fbp_noise_has_the_spectrum_of_a_filtered_ramp():
    noise = fbp_noise(np.random.default_rng(0), (40, 64, 64))
    assert noise.shape == (40, 64, 64) and noise.dtype == np.float32
    assert abs(noise.std() - 1) < 0.02
    power = (np.abs(np.fft.fft2(noise)) ** 2).mean(0)[0]  # along one axis, by frequency
    assert power[0] < 0.01 * power[8]
    np.testing.assert_allclose(power[8] / power[4], 2 * (1.707 / 1.924) ** 2, rtol=0.3)
    assert power[31] < 0.02 * power[8]


@pytest.mark.parametrize("config, each", [("phantom_tiny", 4), ("phantom_3d_tiny", 1)])
def test_builder(config, each, tmp_path):
    builder = Builder(config=config, data_dir=tmp_path)
    protocol, metadata = builder.builder_config.protocol, builder.info.metadata
    names = {1: "target"} | {scale: f"source_x{scale}" for scale in protocol.scales}
    shapes = {name: ((*protocol.shape(s), 1), np.uint16) for s, name in names.items()}
    splits = check_simulated(builder, (6, 2, 2), shapes, each)
    assert metadata["scales"] == list(protocol.scales)
    assert metadata["dimensions"] == protocol.dimensions
    fine = Domain.from_dict(metadata["target"])
    assert len(fine.spacing) == protocol.dimensions
    for scale in protocol.scales:
        coarse = Domain.from_dict(metadata[names[scale]])
        assert coarse.spacing == tuple(scale * mm for mm in fine.spacing)
    first = splits["test"][0]
    number, i = map(int, first["name"][1:].split("-"))
    again = phantom.patient(protocol, builder.builder_config.seed, number)[i]["target"]
    np.testing.assert_array_equal(first["target"][..., 0], again)


def test_default_config_is_ct_and_simulated():
    assert Builder.BUILDER_CONFIGS[0].name == "phantom_ct"
    for config in Builder.BUILDER_CONFIGS:
        if config.find:
            continue  # not simulated: mri_sources_test.py
        for scale in config.protocol.scales:
            assert min(config.protocol.shape(scale)) >= 4
            assert np.multiply(config.protocol.shape(scale), scale).tolist() == list(
                config.protocol.shape()
            )
