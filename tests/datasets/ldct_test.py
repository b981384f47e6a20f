"""zoo_datasets.ldct: digital patients, their scans, the TFDS builder, the TCIA layout."""

import re

import numpy as np
import pytest

import dummy_data
import source_harness
from zoo.domain import Domain
from zoo.physics import noise as physics
from zoo_datasets.cases import SourceConfig, read_case
from zoo_datasets.ldct import cptac_sar, tcia
from zoo_datasets.ldct.ldct_dataset_builder import Builder
from zoo_datasets.phantoms import anatomy, ct_scan
from zoo_datasets.phantoms.body import Patient

SMALL = ct_scan.Protocol(size=32, views=32, photons=1.2e4, electronic=5.0, slices=2)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The prepared `phantom_tiny` builder."""
    builder = Builder(config="phantom_tiny", data_dir=tmp_path_factory.mktemp("tfds"))
    shapes = dict.fromkeys(("source", "target"), ((64, 64, 1), np.int16))
    splits = source_harness.check_simulated(builder, (6, 2, 2), shapes, each=4)
    assert min(e["source"].min() for e in splits["train"]) >= -1024
    return builder


def test_builder(tiny):
    for image in ("source", "target"):
        domain = Domain.from_dict(tiny.info.metadata[image])
        assert (domain.modality, domain.unit) == ("CT", "HU")
        assert domain.spacing == (5.6, 5.6)
    assert Builder.BUILDER_CONFIGS[0].name == "phantom"


def test_patient_follows_from_seed_and_number():
    source_harness.check_repeatable(
        lambda seed, number: ct_scan.Scanner(SMALL).patient(seed, number, clean=True),
        lambda one, other: np.abs(one["clean"] - other["clean"]).max(),
        300,
    )


def test_doses_have_independent_noise_of_the_expected_ratio():
    scanner = ct_scan.Scanner(ct_scan.Protocol(size=64, views=64, photons=1.2e4, electronic=5.0))
    images = [scanner.patient(0, n, clean=True) for n in range(4)]
    source, target, clean = (
        np.concatenate([i[k] for i in images]).astype(float) for k in ("source", "target", "clean")
    )
    tissue = (clean > 20) & (clean < 120)
    low, normal = (source - clean)[tissue], (target - clean)[tissue]
    assert 4.5 < low.var() / normal.var() < 10  # 4 by photons alone, more by electronics
    assert abs(np.corrcoef(low, normal)[0, 1]) < 0.05
    assert abs(normal.mean()) < 3
    assert 10 < normal.std() < 60


def test_anatomy_is_that_of_a_chest_and_an_abdomen():
    for number in range(3):
        patient = Patient(np.random.default_rng([0, number]), 128, 2.8)
        chest, belly = patient.slice(60.0), patient.slice(290.0)
        disc = np.hypot(*np.meshgrid(*[(np.arange(128) - 63.5) * 2.8] * 2))
        for hu in (chest, belly):
            assert hu.max() > 400 and hu.min() >= -1300  # bone and air
            assert (hu[disc > 177] < -900).all()  # the body is inside the field of view
            assert 0.2 < (hu > -300).mean() < 0.7
        assert ((chest < -600) & (chest > -960)).sum() > 800  # lungs
        assert ((belly < -600) & (belly > -960)).sum() < 400
        below = np.abs(patient.slice(60.5) - chest).mean()
        far = np.abs(patient.slice(110.0) - chest).mean()
        assert below < 0.3 * far  # anatomy changes smoothly along z


def test_vessel_radii_follow_murray():
    tree = anatomy.vessel_tree(np.random.default_rng(0), (0, 0, 0), (1, 0, 0), 30, 5, 3)
    assert tree.shape == (2 * 15, 7)
    assert (tree[:, 6] <= 5).all() and (tree[2:, 6] < 5).all()
    np.testing.assert_allclose(tree[0, 3:6], tree[1, :3])


@pytest.mark.parametrize(
    "config, make_dummy",
    [("tcia", dummy_data.ldct_tcia), ("cptac_sar", dummy_data.ldct_cptac_sar)],
)
def test_source(config, make_dummy, tmp_path):
    builder = source_harness.check_source(Builder, config, make_dummy, tmp_path)
    splits = source_harness.read(builder)
    assert {split: {e["patient"] for e in examples} for split, examples in splits.items()} == {
        "tcia": {
            "train": {"C002", "L006", "N003"},
            "validation": {"C007"},
            "test": {"L007", "N006"},
        },
        "cptac_sar": {
            "train": {"C3L-00029", "C3N-00843"},
            "validation": {"C3L-00027"},
            "test": {"C3N-00014"},
        },
    }[config]
    assert builder.info.metadata["source"]["spacing"] is None
    assert builder.info.features["spacing"].np_dtype == np.float32


def test_instructions_only_where_files_are_read(tmp_path):
    builder = Builder(config="tcia", data_dir=tmp_path)
    assert "cancerimagingarchive.net" in builder.MANUAL_DOWNLOAD_INSTRUCTIONS
    phantoms = Builder(config="phantom", data_dir=tmp_path)
    assert phantoms.MANUAL_DOWNLOAD_INSTRUCTIONS is None


def test_phantoms_are_as_they_were(tiny):
    assert str(tiny.version) == "1.0.0"
    assert set(tiny.info.features) == {"source", "target", "patient", "name"}


def tcia_patient(root, low, **changes):
    """One patient of three slices at full dose, at low dose as given; the error of reading it."""
    study = root / "L001" / "study"
    full = dummy_data.head(1, (3, 8, 8))
    dummy_data.write_series(study / "1-Full Dose Images-1", full)
    if low is not None:
        dummy_data.write_series(study / "2-Low Dose Images-2", low, **changes)
    else:  # another patient has it: the tree as such is right
        dummy_data.write_series(root / "L002" / "study" / "2-Low Dose Images-2", full)
    (case,) = [case for case in tcia.find(root)["train"] if case.key == "L001"]
    return read_case(case, SourceConfig(name="tcia", read=tcia.read))


@pytest.mark.parametrize(
    "low, changes, message",
    [
        (dummy_data.head(1, (2, 8, 8)), {}, r"same places. Received: \(3, 8, 8\) .*\(2, 8, 8\)"),
        (dummy_data.head(1, (3, 8, 6)), {}, r"same places. Received: \(3, 8, 8\) .*\(3, 8, 6\)"),
        (dummy_data.head(1, (3, 8, 8)), {"origin": (0, 0, 2)}, r"0.0\] mm at full.*2.0.* at low"),
        (abs(dummy_data.head(1, (3, 8, 8))), {"modality": "MR"}, "Low Dose.*CT. Received: MR"),
        (None, {}, "expected a folder of Low Dose Images. Received: none"),
    ],
)
def test_tcia_doses_that_do_not_match_are_bad_files(tmp_path, low, changes, message):
    error = tcia_patient(tmp_path, low, **changes)
    assert isinstance(error, ValueError)
    assert re.search(f"^L001.*{message}", str(error)), error


def test_tcia_names_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="Full Dose Images.*Received: none"):
        tcia.find(tmp_path)


def test_cptac_sar_noise_is_that_of_a_quarter_of_the_dose(tmp_path):
    shape = (9, 32, 32)
    water = np.full(shape, -1000, np.int16)
    water[:, np.hypot(*np.mgrid[-16:16, -16:16]) < 12] = 0
    for patient in ("C3L-00001", "C3L-00002"):
        dummy_data.write_series(
            tmp_path / patient, water, patient=patient, spacing=(5.0, 10.0, 10.0)
        )
    cases = cptac_sar.find(tmp_path)["train"]
    first, other = ([e for _, e in cptac_sar.read(case, None)] for case in cases)
    again = [e for _, e in cptac_sar.read(cases[0], None)]
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a["source"], b["source"])
        np.testing.assert_array_equal(a["target"][..., 0], water[0])
    noise = [np.stack([e["source"] - e["target"] for e in case])[..., 0] for case in (first, other)]
    assert (noise[0] != noise[1]).mean() > 0.5  # each series has noise of its own
    assert (noise[0][0] != noise[0][8]).mean() > 0.5  # and each slice, in every chunk
    inside = noise[0][:, 14:18, 14:18].astype(float)
    expected = physics.simulate_low_dose(water.astype(float), 10.0, 0.25, rng=3) - water
    assert inside.std() == pytest.approx(expected[:, 14:18, 14:18].std(), rel=0.4)
    assert abs(inside.mean()) < 0.5 * inside.std()


def test_cptac_sar_needs_an_axial_ct(tmp_path):
    dummy_data.write_series(tmp_path / "P" / "scout", dummy_data.head(0, (2, 8, 8)), patient="P")
    with pytest.raises(FileNotFoundError, match="axial CT.*Received: 1 folders of other DICOM"):
        cptac_sar.find(tmp_path)
