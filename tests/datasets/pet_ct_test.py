"""zoo_datasets.pet_ct: the uptake of the simulated patients, the scanner, the builder."""

import numpy as np
import pytest
from scipy import ndimage

from source_harness import check_repeatable, check_simulated
from zoo.domain import Domain
from zoo_datasets.pet_ct import phantom
from zoo_datasets.pet_ct.pet_ct_dataset_builder import Builder
from zoo_datasets.phantoms.body import Patient
from zoo_datasets.simulated import SimulatedConfig

SMALL = phantom.Protocol(size=64, slices=3)


def tracer(number: int, size: int = 128) -> phantom.Tracer:
    rng = np.random.default_rng([0, number])
    return phantom.Tracer(Patient(rng, size, phantom.FIELD_MM / size), rng)


def test_patient_follows_from_seed_and_number():
    check_repeatable(
        lambda seed, number: phantom.patient(SMALL, seed, number),
        lambda one, other: np.abs(one["pet"] - other["pet"]).max(),
        0.5,
    )


def test_suv_are_those_of_the_organs():
    """The scale of SUV: 1 were an even share everywhere; liver is above 2, fat and lung below."""
    for number in range(3):
        t = tracer(number)
        hu, suv, lesion = t.slice(215.0)
        axis = (np.arange(128) - 63.5) * t.patient.spacing
        liver = t.patient.liver.at(215.0)
        core = np.hypot(axis - liver.x, axis[:, None] - liver.y) < 15
        assert suv[core & ~lesion].mean() == pytest.approx(t.suv["liver"] * t.scale, rel=0.05)
        assert suv[hu < -995].max() < 0.2  # the air around
        fat = ndimage.binary_erosion((hu > -130) & (hu < -80))
        assert 0.1 < np.median(suv[fat]) < 0.45
        hu, suv, lesion = t.slice(60.0)
        lung = ndimage.binary_erosion((hu < -750) & (hu > -950), iterations=2)
        assert 0.25 < np.median(suv[lung & ~lesion]) < 0.6


def test_lesions_are_hot_and_seen_by_the_ct():
    found = 0
    for number in range(6):
        t = tracer(number, 96)
        for lesion in t.lesions:
            z = lesion.organ.z
            if not 0 < z < 330 or lesion.organ.a < 5:
                continue
            hu, suv, seen = t.slice(z)
            if seen.sum() < 4:  # another organ is in its place
                continue
            assert suv[seen].mean() > 1.5
            assert np.median(hu[seen]) > -300  # no lesion is air
            found += 1
    assert found > 10
    assert any(not tracer(number).lesions for number in range(12))


def test_the_scanner_blurs_and_keeps_the_activity():
    suv = np.zeros((128, 128), np.float32)
    suv[64, 64] = 100.0
    rng = np.random.default_rng(0)
    image = phantom.pet(suv, 1.4, 7.0, 0.0, rng)
    assert image.sum() == pytest.approx(100.0, rel=1e-3)
    row = image[64]
    inside = np.flatnonzero(row > row.max() / 2)
    assert (inside[-1] - inside[0] + 1) * 1.4 == pytest.approx(7.0, abs=1.5)
    even = np.full((128, 128), 2.0, np.float32)
    image = phantom.pet(even, 1.4, 7.0, 0.1, rng)
    assert image.mean() == pytest.approx(2.0, rel=0.02)
    assert image.std() == pytest.approx(0.2, rel=0.05)
    neighbours = np.corrcoef(image[:, :-1].ravel(), image[:, 1:].ravel())[0, 1]
    assert neighbours > 0.6  # the grain of a reconstruction
    assert phantom.pet(np.zeros_like(even), 1.4, 7.0, 0.1, rng).min() >= 0


def test_ct_is_in_hu():
    images = phantom.patient(phantom.Protocol(size=128), 0, 1)
    ct = images["ct"]
    assert ct.dtype == np.int16 and images["pet"].dtype == np.float32
    assert ct[:, :5, :5].mean() == pytest.approx(-1000, abs=10)
    muscle = ct[(ct > 20) & (ct < 90)]
    assert muscle.size > 5000 and ct.max() > 400


def test_source_and_target_are_aligned():
    images = phantom.patient(phantom.Protocol(size=128), 0, 2)
    pet, ct = images["pet"] > 0.15, images["ct"] > -400

    def overlap(pet):
        return 2 * (pet & ct).sum() / (pet.sum() + ct.sum())

    for axis in (1, 2):
        for step in (-3, 3):
            assert overlap(np.roll(pet, step, axis)) < overlap(pet)


def test_builder(tmp_path):
    from zoo import registry, training

    builder = Builder(config="phantom_tiny", data_dir=tmp_path)
    shapes = {"source": ((64, 64, 1), np.float32), "target": ((64, 64, 1), np.int16)}
    check_simulated(builder, (6, 2, 2), shapes, each=4)
    assert len(builder.info.metadata["label_names"]) == 2
    source = Domain.from_dict(builder.info.metadata["source"])
    target = Domain.from_dict(builder.info.metadata["target"])
    assert (source.modality, source.unit) == ("PT", "SUV")
    assert (target.modality, target.unit, target.spacing) == ("CT", "HU", (5.6, 5.6))
    overrides = {
        "steps": 1,
        "batch_size": 2,
        "levels": 4,
        "base_filters": 4,
        "discriminator_filters": 4,
        "crop": 32,
    }
    entry = registry.lookup("pix2pix", "pet_ct/phantom_tiny", overrides=overrides)
    assert training.train(entry, tmp_path / "run", data_dir=tmp_path)["state"] == "done"


def test_many_patients_are_drawn_by_worker_processes_and_are_the_same(tmp_path):
    config = SimulatedConfig(
        name="many",
        description="More patients than one process draws.",
        read=phantom.read,
        protocol=phantom.Protocol(size=16, slices=1),
        patients=(20, 1, 1),
    )
    builder = Builder(config=config, data_dir=tmp_path)
    builder.download_and_prepare()
    pets = {e["name"]: e["source"] for e in builder.as_dataset(split="train").as_numpy_iterator()}
    assert len(pets) == 20
    expected = phantom.patient(config.protocol, config.seed, 7)["pet"]
    np.testing.assert_array_equal(pets[b"P007-0"][..., 0], expected[0])
