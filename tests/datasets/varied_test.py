"""Data made to train on: random shapes, `ldct/varied`, `sr/varied_mr`."""

import dataclasses

import numpy as np
import pytest

from source_harness import check_repeatable
from zoo.physics import fourier, resolution
from zoo_datasets.ldct import varied as ct
from zoo_datasets.mri_recon import phantom as kspace
from zoo_datasets.mri_recon import varied as scans
from zoo_datasets.phantoms import shapes
from zoo_datasets.sr import phantom, varied

CT = ct.Protocol(size=96, slices=2, views=96, body=(3.5, 5.0), head=(2.0, 3.0), shapes=(1.6, 3.5))
MR = phantom.Protocol("MR", size=64, slices=2, scales=(2, 4))


@pytest.fixture(scope="module")
def subjects():
    return [ct.subject(CT, 0, number) for number in range(12)]


def test_shapes_cover_the_image_at_every_scale():
    values = np.arange(20, dtype=np.float32) * 10
    image = shapes.leaves(np.random.default_rng(0), 128, values, 0.0)
    assert image.shape == (128, 128) and image.dtype == np.float32
    assert values.min() <= image.min() and image.max() <= values.max()
    levels, counts = np.unique(np.rint(image / 10), return_counts=True)
    assert len(levels) == 20 and counts.max() < 0.5 * image.size
    # Scale invariance (Lee, Mumford, Huang): differences keep their distribution when pixels are
    # averaged, up to the finest scale, where the radii end.
    coarse = [np.abs(np.diff(resolution.block_mean(image, s))).mean() for s in (2, 4, 8)]
    assert max(coarse) < 1.5 * min(coarse)


def test_shapes_have_texture_within():
    values = np.float32([100.0])
    flat, grained = (
        shapes.leaves(np.random.default_rng(0), 64, values, texture).std() for texture in (0, 20)
    )
    assert flat == 0 and 2 < grained < 20
    rough = shapes.leaves(np.random.default_rng(0), 64, values, 20.0, rough=(1.0, 200.0)).std()
    assert 100 < rough < 250


def test_ct_pairs_differ_by_the_added_noise_alone(subjects):
    added = []
    for images in subjects:
        source, target = (images[key].astype(np.float32) for key in ("source", "target"))
        assert source.shape == target.shape == (2, 96, 96)
        noise = (source - target)[:, 32:-32, 32:-32]
        inside = (source > -1000)[:, 32:-32, 32:-32] & (source < 3000)[:, 32:-32, 32:-32]
        added.append(noise[inside].std())
        # Unbiased: the pair shares everything but the noise.
        assert abs(noise[inside].mean()) < 4 * noise.std() / np.sqrt(inside.sum() / 40)
    assert min(added) > 6 and max(added) < 200 and max(added) > 3 * min(added)


def test_ct_noise_levels_go_together_where_a_ratio_is_given():
    rng = np.random.default_rng(0)
    for ratio, least, most in ((None, 0.4, 0.55), ((0.7, 4.0), 0.78, 0.88)):
        protocol = ct.Protocol(ratio=ratio)
        full, added = np.array([ct._noise_levels(protocol, rng) for _ in range(3000)]).T
        assert 3 <= full.min() < 4 and 30 < full.max() <= 35
        assert 9 <= added.min() < 10 and 120 < added.max() <= 140
        like = (added > 0.69 * full) & ((added < 4.01 * full) | (added < 9.01))
        assert least < like.mean() < most, ratio


def test_ct_subjects_differ_and_can_be_repeated(subjects):
    check_repeatable(
        lambda seed, number: ct.subject(CT, seed, number),
        lambda one, other: np.abs(one["target"] - other["target"].astype(float)).mean(),
        20,
    )
    assert len({float(images["spacing"][0]) for images in subjects}) == len(subjects)


def test_ct_noise_has_the_kernels_spectrum():
    kernel = ct.Kernel("hann", 0.6, 0.0)
    noise = np.random.default_rng(0).standard_normal((600, 64, 64)).astype(np.float32)
    power = (np.abs(np.fft.fft2(kernel.apply(noise))) ** 2).mean(0)[0] / 64**2
    f = np.arange(32) / 32
    expected = np.where(f < 0.6, np.cos(np.pi * f / 1.2) ** 4, 0)
    np.testing.assert_allclose(power[:32], expected, atol=0.12)
    assert power[22:32].max() < 1e-6


def test_ct_noise_is_stronger_behind_bone():
    """Rays through the dense disc carry more noise than rays beside it."""
    protocol = dataclasses.replace(CT, slices=1)
    axis = np.arange(96) - 47.5
    hu = np.where(np.hypot(axis, axis[:, None]) < 40, 0.0, -1000.0)[None].astype(np.float32)
    hu[0, 20:28, 44:52] = hu[0, 68:76, 44:52] = 3000.0
    p = ct._line_integrals(protocol, hu, 4.0)
    fields = [
        ct._noise(protocol, np.random.default_rng(s), p, 2e3, ct.Kernel("hann", 1.0, 0.0))
        for s in range(12)
    ]
    deviation = np.concatenate(fields).std(0)
    assert deviation[30:66, 46:50].mean() > 1.15 * deviation[30:66, 20:26].mean()


def test_mr_sources_follow_the_target():
    sharpness, levels = [], []
    for number in range(8):
        for images in varied.patient(MR, 0, number):
            target = images["target"].astype(np.float32)
            levels.append(np.quantile(target, 0.995))
            for scale in MR.scales:
                source = images[f"source_x{scale}"]
                assert source.shape == MR.shape(scale) and source.dtype == np.uint16
                error = source - resolution.block_mean(target, scale)
                assert np.sqrt(np.mean(error**2)) < 0.12 * levels[-1]
            sharpness.append(np.abs(np.diff(target)).mean() / levels[-1])
    assert max(levels) > 3 * min(levels) and max(levels) <= 4095
    assert max(sharpness) > 2 * min(sharpness)


def test_scans_are_full_or_undersampled():
    protocol = kspace.Protocol(size=32, slices=2)
    lines, gaps = set(), []
    for number in range(8):
        for _, source, target in scans.patient(protocol, 0, number):
            measured = np.abs(source).sum((1, 2)) > 0
            lines.add(int(measured.sum()))
            image = np.abs(fourier.from_kspace(fourier.from_channels(source)))
            if measured.all():
                gaps.append(np.sqrt(np.mean((image - target[..., 0]) ** 2)))
            assert 0.3 < np.quantile(target, 0.995) < 1.1 and target.min() >= 0
    assert lines == {32, int(protocol.operator.lines.sum())}
    # With all lines measured only noise is between them.
    assert min(gaps) < 0.03 and max(gaps) < 0.1


@pytest.mark.parametrize("name", ["ldct", "sr"])
def test_builders(name, tmp_path):
    if name == "ldct":
        from zoo_datasets.ldct.ldct_dataset_builder import Builder

        builder = Builder(config="varied_tiny", data_dir=tmp_path)
    else:
        from zoo_datasets.sr.sr_dataset_builder import Builder

        full = Builder.builder_configs["varied_mr"]
        config = dataclasses.replace(full, name="few", protocol=MR, patients=(3, 1, 1))
        builder = Builder(config=config, data_dir=tmp_path)
    builder.download_and_prepare()
    patients = []
    for split in ("train", "validation", "test"):
        examples = list(builder.as_dataset(split=split).as_numpy_iterator())
        patients.append({e["patient"] for e in examples})
        assert all(0.2 < e["spacing"][0] < 8 for e in examples)
    assert len(set.union(*patients)) == sum(map(len, patients))
    assert builder.info.metadata["target"]["spacing"] is None  # each example has its own
