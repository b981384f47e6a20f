"""zoo_datasets.brain_mri, and the average brain that it and others deform."""

import copy
import importlib.util

import numpy as np
import pytest

from source_harness import check_repeatable, check_simulated
from zoo.domain import Domain
from zoo_datasets.brain_mri.brain_mri_dataset_builder import Builder
from zoo_datasets.phantoms import atlas, brain

SMALL = atlas.Protocol(size=96, spacing=2.4, slices=4, contrasts=atlas.CONTRASTS)
CSF, GREY, WHITE, LESION = range(1, 5)


def subject(number: int) -> atlas.Subject:
    return atlas.Subject(np.random.default_rng([0, number]), 96, 2.4)


@pytest.fixture(scope="module")
def subjects():
    return [atlas.subject(SMALL, 0, number) for number in range(8)]


def test_average_is_the_one_of_152_brains():
    t1, grey, white, mask = (volume.astype(np.float32) for volume in atlas.average().volumes)
    assert 1.8e6 < (mask > 0).sum() < 2.0e6  # mm³: with the fluid around, 1.9 litres
    assert not t1[mask == 0].any() and not grey[mask == 0].any()
    assert 300 < white.sum() / 255e3 < 800 and 600 < grey.sum() / 255e3 < 1200  # millilitres
    # Fluid is dark, white matter bright; the two halves mirror each other.
    pure = [t1[(255 - grey - white > 240) & (mask > 0)], t1[grey > 240], t1[white > 240]]
    np.testing.assert_allclose([p.mean() for p in pure], atlas._LEVELS, atol=8)
    middle = -atlas.average().origin[0]
    columns = np.arange(-60, 61)
    mirrored = [t1[..., np.rint(middle + s * columns).astype(int)] for s in (1, -1)]
    assert np.abs(mirrored[0] - mirrored[1]).mean() < 2
    # The eyes' side is in front: the frontal lobe is narrower than the parietal one.
    inside = mask[80] > 0
    assert inside[20].sum() < inside[110].sum()


def test_undeformed_points_give_the_files_values():
    import nibabel

    image = nibabel.load(atlas.files()["t1"])
    values = np.asarray(image.dataobj)
    voxels = np.argwhere(values > 0)[::40000]
    x, y, z = (image.affine[:3, :3] @ voxels.T + image.affine[:3, 3:]).astype(np.float32)
    at = np.stack([-x, -y, z])[:, None]  # NIfTI's right and front to left and back
    found = atlas.average().at(at)[0, 0] * 255
    np.testing.assert_allclose(found, values[tuple(voxels.T)], atol=1e-3)


def test_subject_follows_from_seed_and_number(subjects):
    check_repeatable(
        lambda seed, number: atlas.subject(SMALL, seed, number),
        lambda one, other: (one["labels"] != other["labels"]).mean(),
        0.05,
    )
    few = atlas.subject(atlas.Protocol(size=96, spacing=2.4, slices=4, contrasts=("T1",)), 0, 3)
    np.testing.assert_array_equal(few["labels"], subjects[3]["labels"])


def test_signals_are_those_of_the_sequences():
    head = subject(0)
    shares = np.zeros((len(atlas.TISSUES), 96, 96), np.float32)
    shares[0], shares[2] = 0.25, 0.75  # fluid, white matter
    tissue = atlas.Slice(np.full((96, 96), 0.4, np.float32), shares, np.ones((96, 96), np.float32))

    def relaxed(longitudinal, t1, time):
        return 1 - (1 - longitudinal) * np.exp(-time / t1)

    for contrast, (tr, te, ti) in {
        "T2": (4000, 100, None),
        "PD": (4000, 15, None),
        "FLAIR": (9000, 120, 1700),
    }.items():
        expected = 0.0
        for name, share in (("fluid", 0.25), ("white", 0.75)):
            t1, t2, pd = head.tissues[name]
            m = 0.0  # after the refocused echo; the next pulse inverts what has come back
            m = relaxed(m, t1, tr if ti is None else tr - ti)
            if ti is not None:
                m = relaxed(-m, t1, ti)
            expected += share * pd * abs(m) * np.exp(-te / t2)
        signal = head.signal(tissue, contrast)
        np.testing.assert_allclose(signal, expected, rtol=0.02)
    np.testing.assert_allclose(head.signal(tissue, "T1"), 0.4, rtol=1e-5)  # the average itself
    with pytest.raises(ValueError, match="contrast: expected T1, T2, PD, FLAIR. Received: 'T3'"):
        head.signal(tissue, "T3")


def test_flair_nulls_fluid():
    t1, t2, pd = brain.TISSUES["fluid"][1:4]
    nulled = brain.inversion_recovery(pd, t1, t2, *brain.FLAIR)
    grey = brain.inversion_recovery(*[brain.TISSUES["cortex"][i] for i in (3, 1, 2)], *brain.FLAIR)
    assert nulled < 0.15 * grey


def test_tissues_have_the_order_of_each_contrast(subjects):
    def level(contrast, label):
        return np.median(
            np.concatenate([s[contrast][s["labels"] == label].ravel() for s in subjects])
        )

    assert level("T1", CSF) < 0.75 * level("T1", GREY) < level("T1", WHITE)
    assert level("T2", CSF) > 1.3 * level("T2", GREY) > 1.3 * level("T2", WHITE)
    assert level("FLAIR", CSF) < 0.7 * level("FLAIR", WHITE) < level("FLAIR", GREY)
    sick = [s for s in subjects if (s["labels"] == LESION).sum() > 20]
    assert sick
    for s in sick:
        ill, white = (s["T2"][s["labels"] == label].mean() for label in (LESION, WHITE))
        assert ill > 1.2 * white


def test_deformations_keep_tissue_in_order():
    for number in range(4):
        head = subject(number)
        for z in (-20.0, 30.0):
            p, above = head._place(z), head._place(z + 1.0)
            rows, columns = np.gradient(p, 2.4, axis=(1, 2))
            up = above - p
            volume = np.einsum("ihw,ihw->hw", np.cross(columns, rows, axis=0), up)
            assert volume.min() > 0  # nothing is folded over
            assert 0.6 < np.median(volume) < 1.6


def test_signal_is_stored_with_noise(subjects):
    for s in subjects:
        for contrast in atlas.CONTRASTS:
            image = s[contrast]
            assert image.dtype == np.uint16 and image.shape == (4, 96, 96)
            assert 800 < image.max() <= atlas.MAXIMUM
            assert (image == atlas.MAXIMUM).mean() < 1e-3
            air = image[:, :8, :8].mean()  # Rayleigh: 1.25 of the standard deviation
            assert 0.9 * 1.25 * 0.006 < air / atlas.MAXIMUM < 1.1 * 1.25 * 0.015


def test_without_nilearn_the_extra_is_named(monkeypatch, tmp_path):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "nilearn" else real(name, *a)
    )
    with pytest.raises(FileNotFoundError, match=r'pip install "zoo-medical\[mni\]". Received: not'):
        Builder(config="mni152", data_dir=tmp_path).download_and_prepare()


@pytest.mark.parametrize("config", ["phantom_tiny", "small"])
def test_builder(config, tmp_path):
    if config == "small":
        config = copy.copy(Builder.builder_configs["mni152"])
        config.name, config.patients = "small", (6, 2, 2)
        config.protocol = atlas.Protocol(size=64, spacing=3.6, slices=4, contrasts=("T1",))
    builder = Builder(config=config, data_dir=tmp_path)
    splits = check_simulated(builder, (6, 2, 2), {"image": ((64, 64, 1), np.uint16)}, each=4)
    domain = Domain.from_dict(builder.info.metadata["image"])
    assert (domain.modality, domain.unit, domain.window) == ("MR", "signal", (0.0, 4095.0))
    for e in splits["train"]:
        assert 1000 < e["image"].max() <= 4095
        np.testing.assert_allclose(e["spacing"], domain.spacing)
    assert Builder.BUILDER_CONFIGS[0].name == "mni152"


def test_contrast_recon_and_sr_of_the_average(tmp_path):
    from zoo.physics import fourier
    from zoo_datasets.mri_contrast import mri_contrast_dataset_builder as contrast
    from zoo_datasets.mri_recon import mni152, mri_recon_dataset_builder, phantom
    from zoo_datasets.sr import mni152 as fine
    from zoo_datasets.sr import phantom as scans

    config = contrast.mni152_config("small", "T1", "FLAIR", patients=(2, 1, 1))
    config.protocol = atlas.Protocol(size=64, spacing=3.6, slices=2, contrasts=("T1", "FLAIR"))
    builder = contrast.Builder(config=config, data_dir=tmp_path)
    builder.download_and_prepare()
    for e in builder.as_dataset(split="train").as_numpy_iterator():
        np.testing.assert_allclose(e["spacing"], [3.6, 3.6])
        np.testing.assert_array_equal(e["source_label"], e["target_label"])
    # Noise apart, the source is the sampled k-space of the target.
    protocol = phantom.Protocol(size=32, noise=0.0)
    for name, source, target in mni152.patient(protocol, 0, 0):
        assert name in atlas.CONTRASTS and source.dtype == target.dtype == np.float32
        exact = fourier.to_channels(protocol.operator.forward(target[..., 0]))
        np.testing.assert_allclose(source, exact, atol=1e-5)
        assert 0.3 < target.max() < 1.2
        full = fourier.to_kspace(target[..., 0])
        np.testing.assert_allclose(np.abs(fourier.from_kspace(full)), target[..., 0], atol=1e-5)
    named = {c.name: c for c in mri_recon_dataset_builder.Builder.BUILDER_CONFIGS}
    assert named["mni152"].patient is mni152.patient
    images = fine.patient(scans.Protocol("MR", size=64, field=230.4, slices=2), 0, 0)
    for image in images:
        assert image["target"].shape == (64, 64) and image["source_x4"].shape == (16, 16)
        means = [image[key].mean() for key in ("target", "source_x2", "source_x4")]
        np.testing.assert_allclose(means, means[0], rtol=0.08)
