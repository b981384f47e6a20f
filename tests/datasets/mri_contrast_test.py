"""zoo_datasets.mri_contrast and zoo_datasets.brain_seg: simulated heads, their scans, builders."""

import numpy as np
import pytest

from source_harness import check_repeatable, check_simulated
from zoo.domain import Domain
from zoo_datasets.phantoms import brain, mr_scan

SMALL = mr_scan.Protocol(size=64, slices=3)
CSF, GREY, WHITE = (brain.LABELS.index(name) for name in ("csf", "grey", "white"))


def head(number: int, size: int = 96) -> brain.Brain:
    return brain.Brain(np.random.default_rng([0, number]), size, brain.FIELD_MM / size)


def first(lesion: str) -> brain.Brain:
    return next(b for b in map(head, range(100)) if b.lesion == lesion)


def test_patient_follows_from_seed_and_number():
    check_repeatable(
        lambda seed, number: mr_scan.patient(SMALL, seed, number),
        lambda one, other: (one["labels"] != other["labels"]).mean(),
        0.05,
    )


def test_fractions_add_up_and_the_head_fits():
    for number in range(4):
        b = head(number)
        for thickness in (0.0, 4.0):
            fractions = b.fractions(8.0, thickness)
            assert fractions.dtype == np.float32 and fractions.min() >= 0
            np.testing.assert_allclose(fractions.sum(0), 1, atol=1e-5)
        labels = b.labels(0.0)
        assert not labels[[0, -1]].any() and not labels[:, [0, -1]].any()
        shares = np.bincount(labels.ravel(), minlength=len(brain.LABELS)) / (labels > 0).sum()
        assert 0.15 < shares[GREY] < 0.45 and 0.15 < shares[WHITE] < 0.55
        assert 0.03 < shares[CSF] < 0.3


def test_signal_is_the_spin_echo_of_the_tissues():
    b = head(1)
    fractions = np.zeros((len(brain.TISSUES), b.size, b.size), np.float32)
    names = list(brain.TISSUES)
    fractions[names.index("white")] = 0.25
    fractions[names.index("fluid")] = 0.75
    # The two relaxations in small steps of time instead of the exponentials.
    expected = 0.0
    for share, (t1, t2, pd) in ((0.25, b.tissues["white"]), (0.75, b.tissues["fluid"])):
        step, longitudinal, transverse = 0.01, 0.0, 1.0
        for _ in range(50000):  # TR 500 ms
            longitudinal += step * (1 - longitudinal) / t1
        for _ in range(1500):  # TE 15 ms
            transverse -= step * transverse / t2
        expected += share * pd * longitudinal * transverse
    signal = b.signal_of(fractions, 0.0, "T1")
    assert signal.mean() == pytest.approx(expected, rel=0.02)
    assert 0.01 < signal.std() / signal.mean() < 0.04  # the texture of 2.5 %
    with pytest.raises(ValueError, match="contrast: expected T1, T2, PD, FLAIR. Received: 'T3'"):
        b.signal_of(fractions, 0.0, "T3")


def test_contrasts_show_the_same_anatomy_in_reversed_order():
    for number in range(3):
        images = mr_scan.patient(mr_scan.Protocol(), 0, number)
        mean = {
            contrast: [np.median(images[contrast][images["labels"] == label])
                       for label in (CSF, GREY, WHITE)]
            for contrast in ("T1", "T2")
        }  # fmt: skip
        assert mean["T1"][0] < 0.8 * mean["T1"][1] and mean["T1"][1] < 0.95 * mean["T1"][2]
        assert mean["T2"][0] > 1.3 * mean["T2"][1] and mean["T2"][1] > 1.2 * mean["T2"][2]
        # Edges lie at the same place: moving one contrast by two pixels parts them.
        inside = images["labels"] >= CSF

        def edges(image):
            return np.hypot(*np.gradient(image.astype(float), axis=(1, 2)))

        t1, t2 = edges(images["T1"]), edges(images["T2"])
        here = np.corrcoef(t1[inside], t2[inside])[0, 1]
        moved = np.corrcoef(np.roll(t1, 2, 2)[inside], t2[inside])[0, 1]
        assert here > 0.3 and here > moved + 0.2


def test_volumes_are_coherent_along_z():
    b = head(2, 64)
    volume = b.volume([10.0, 11.0, 30.0], "T2")
    assert volume.shape == (3, 64, 64) and volume.dtype == np.float32
    np.testing.assert_array_equal(volume[1], b.signal(11.0, "T2"))
    near, far = np.abs(volume[1] - volume[0]).mean(), np.abs(volume[2] - volume[0]).mean()
    assert near < 0.35 * far
    labels = b.label_volume([10.0, 30.0])
    assert labels.dtype == np.uint8 and labels.shape == (2, 64, 64)
    assert b.labels(110.0).max() == 0  # above the head


def test_tumours_look_like_tumours():
    b = first("tumour")
    (lesion,) = b.lesions
    z = float(lesion.centre[2])
    labels = b.labels(z)
    sick = labels == brain.LABELS.index("lesion")
    area = sick.sum() * b.spacing**2
    assert 60 < area < np.pi * 45**2
    t2 = b.signal(z, "T2")
    assert t2[sick].mean() > 1.3 * t2[labels == WHITE].mean()
    assert not (first("none").label_volume([0.0, 20.0, 40.0]) == 6).any()


def test_noise_and_coil():
    rng = np.random.default_rng(0)
    air = brain.rician(np.zeros((400, 400), np.float32), 0.02, rng)
    assert air.mean() == pytest.approx(0.02 * np.sqrt(np.pi / 2), rel=0.01)  # Rayleigh
    bright = brain.rician(np.full((400, 400), 0.5, np.float32), 0.02, rng)
    assert bright.std() == pytest.approx(0.02, rel=0.02)
    coil = brain.bias_field(rng, 64, 3.5)
    assert coil.min() > 0.4 and coil.max() < 2.5
    assert np.abs(np.diff(coil, axis=0)).max() < 0.05  # smooth


def test_mri_contrast_builder(tmp_path):
    from zoo_datasets.mri_contrast.mri_contrast_dataset_builder import Builder

    assert Builder.BUILDER_CONFIGS[0].name == "mni152"
    builder = Builder(config="phantom_tiny", data_dir=tmp_path)
    shapes = dict.fromkeys(("source", "target"), ((64, 64, 1), np.uint16))
    splits = check_simulated(builder, (6, 2, 2), shapes, each=4)
    assert builder.info.metadata["label_names"] == list(brain.LABELS)
    for image in shapes:
        domain = Domain.from_dict(builder.info.metadata[image])
        assert (domain.modality, domain.unit, domain.window) == ("MR", "signal", (0.0, 4095.0))
        assert domain.spacing == (3.5, 3.5)
        assert all(1000 < e[image].max() <= 4095 for e in splits["train"])


def test_two_contrasts_are_the_channels_of_a_source(tmp_path):
    from zoo_datasets.mri_contrast.mri_contrast_dataset_builder import Builder, phantom_config

    protocol = mr_scan.Protocol(size=64, slices=2, contrasts=("T1", "T2", "FLAIR"))
    config = phantom_config("two", "Two in.", protocol=protocol, patients=(2, 1, 1))
    builder = Builder(config=config, data_dir=tmp_path)
    images = {"source": ((64, 64, 2), np.uint16), "target": ((64, 64, 1), np.uint16)}
    splits = check_simulated(builder, (2, 1, 1), images, each=2)
    source = Domain.from_dict(builder.info.metadata["source"])
    assert source.names == "T1, T2" and (source.modality, source.unit) == ("MR", "signal")
    assert [part.window for part in source.inputs] == [(0.0, 4095.0)] * 2
    assert "inputs" not in builder.info.metadata["target"]
    # The heads are those of two contrasts: T1 is the same to the bit, being measured first.
    first = next(e for e in splits["train"] if e["name"] in ("P000-0", b"P000-0"))
    known = mr_scan.patient(mr_scan.Protocol(size=64, slices=2), 0, 0)
    np.testing.assert_array_equal(first["source"][..., 0], known["T1"][0])
    assert {"phantom_t1_t2_flair", "phantom_t1_flair", "phantom_t2_flair"} <= set(
        Builder.builder_configs
    )


def test_flair_nulls_fluid_and_shows_lesions():
    protocol = mr_scan.Protocol(contrasts=("T1", "T2", "FLAIR"))
    images = mr_scan.patient(protocol, 0, 3)
    flair = {k: np.median(images["FLAIR"][images["labels"] == k]) for k in (CSF, GREY, WHITE, 6)}
    assert flair[CSF] < 0.3 * flair[WHITE] < 0.3 * flair[6]
    t2 = [np.median(images["T2"][images["labels"] == k]) for k in (CSF, GREY)]
    assert t2[0] > 1.3 * t2[1]
    assert images["FLAIR"].max() < mr_scan.MAXIMUM


def test_brain_seg_builder(tmp_path):
    from zoo_datasets.brain_seg.brain_seg_dataset_builder import Builder

    builder = Builder(config="phantom_tiny", data_dir=tmp_path)
    shapes = {"source": ((64, 64, 1), np.uint16), "target": ((64, 64, 1), np.uint8)}
    splits = check_simulated(builder, (6, 2, 2), shapes, each=4)
    assert builder.info.metadata["label_names"] == list(brain.LABELS)
    target = Domain.from_dict(builder.info.metadata["target"])
    assert (target.modality, target.unit, target.window) == ("SEG", "class", (0.0, 6.0))
    for e in splits["train"]:
        assert {0, CSF, GREY} <= set(np.unique(e["target"])) <= set(range(len(brain.LABELS)))
