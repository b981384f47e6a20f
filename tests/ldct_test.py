"""zoo_datasets.ldct: digital patients, their scans, the TFDS builder, the TCIA layout."""

import dataclasses
import subprocess
import sys

import numpy as np
import pydicom
import pydicom.uid
import pytest

from zoo_datasets.ldct import anatomy, phantom, tcia
from zoo_datasets.ldct.patient import Patient

SMALL = phantom.Scan(size=32, views=32, photons=1.2e4, electronic=5.0, slices=2)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The prepared `phantom_tiny` builder."""
    from zoo_datasets.ldct.ldct_dataset_builder import Builder

    builder = Builder(config="phantom_tiny", data_dir=tmp_path_factory.mktemp("tfds"))
    builder.download_and_prepare()
    return builder


def test_builder(tiny):
    patients = {}
    for split in ("train", "validation", "test"):
        examples = list(tiny.as_dataset(split=split).as_numpy_iterator())
        patients[split] = {e["patient"] for e in examples}
        assert len(examples) == 4 * len(patients[split])
        for e in examples:
            assert e["source"].shape == e["target"].shape == (64, 64, 1)
            assert e["source"].dtype == np.int16
            assert e["source"].min() >= -1024
    assert [len(p) for p in patients.values()] == [6, 2, 2]
    assert len(set.union(*patients.values())) == 10  # no patient in two splits
    metadata = tiny.info.metadata
    assert metadata["kind"] == "paired" and metadata["aligned"] is True
    from zoo.imaging.windows import Domain

    for image in ("source", "target"):
        domain = Domain.from_dict(metadata[image])
        assert (domain.modality, domain.unit) == ("CT", "HU")
        assert domain.spacing == (5.6, 5.6)


def test_default_config_is_simulated():
    from zoo_datasets.ldct.ldct_dataset_builder import Builder

    assert Builder.BUILDER_CONFIGS[0].name == "phantom"
    assert Builder.BUILDER_CONFIGS[0].scan is not None


def test_patient_follows_from_seed_and_number():
    scanner = phantom.Scanner(SMALL)
    first, again = scanner.patient(0, 3, clean=True), phantom.Scanner(SMALL).patient(0, 3)
    for name in again:
        np.testing.assert_array_equal(first[name], again[name])
    assert np.abs(first["clean"] - scanner.patient(0, 4, clean=True)["clean"]).max() > 300
    assert np.abs(first["clean"] - scanner.patient(1, 3, clean=True)["clean"]).max() > 300


def test_worker_processes_give_the_same_patients_in_order():
    alone = list(phantom.generate(SMALL, 0, [5, 2, 7], processes=1))
    together = list(phantom.generate(SMALL, 0, [5, 2, 7], processes=2))
    assert [n for n, _ in alone] == [n for n, _ in together] == [5, 2, 7]
    for (_, a), (_, b) in zip(alone, together, strict=True):
        for name in ("source", "target"):
            np.testing.assert_array_equal(a[name], b[name])


def test_worker_that_dies_is_reported():
    broken = dataclasses.replace(SMALL, views=30)  # no multiple of 4
    with pytest.raises(RuntimeError, match="patient 0 stopped early"):
        list(phantom.generate(broken, 0, [0], processes=2))


def test_generation_imports_no_tensorflow():
    code = "import sys, zoo_datasets.ldct.phantom; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_doses_have_independent_noise_of_the_expected_ratio():
    scanner = phantom.Scanner(phantom.Scan(size=64, views=64, photons=1.2e4, electronic=5.0))
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


def write_series(folder, kind, positions, values, shape=(8, 8)):
    folder = folder / f"1.000000-{kind}-12345"
    folder.mkdir(parents=True)
    for i, (z, value) in enumerate(zip(positions, values, strict=True), 1):
        file = pydicom.Dataset()
        file.file_meta = pydicom.dataset.FileMetaDataset()
        file.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        file.SOPClassUID = file.file_meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
        file.SOPInstanceUID = file.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
        file.Rows, file.Columns = shape
        file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
        file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 16, 15, 0
        file.RescaleSlope, file.RescaleIntercept = "2", "-1024"
        file.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        file.ImagePositionPatient = [0, 0, z]
        file.PixelData = np.full(shape, (value + 1024) // 2, np.uint16).tobytes()
        file.save_as(folder / f"1-{i:03d}.dcm", enforce_file_format=True)


def write_patient(root, name, low=(-40, 0, 40)):
    study = root / name / "08-30-2018-NA-NA-12345"
    # Files in another order than the slices.
    write_series(study, tcia.FULL, (4.0, 0.0, 2.0), (60, 20, 40))
    write_series(study, tcia.LOW, np.arange(len(low)) * 2.0, low)


def test_tcia(tmp_path):
    from zoo_datasets.ldct.ldct_dataset_builder import Builder

    manual = tmp_path / "manual"
    for name in ("C001", "L002", "N003"):
        write_patient(manual, name)
    builder = Builder(config="tcia", data_dir=tmp_path / "tfds")
    import tensorflow_datasets as tfds

    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=manual))
    seen = {}
    for split in ("train", "validation", "test"):
        for e in builder.as_dataset(split=split).as_numpy_iterator():
            seen[e["name"].decode()] = (int(e["source"][0, 0, 0]), int(e["target"][0, 0, 0]))
    assert seen["C001-0000"] == (-40, 20) and seen["C001-0001"] == (0, 40)
    assert seen["N003-0002"] == (40, 60) and len(seen) == 9
    assert builder.info.metadata["source"]["spacing"] is None


def test_tcia_instructions_only_where_needed(tmp_path):
    from zoo_datasets.ldct.ldct_dataset_builder import Builder

    with pytest.raises(FileNotFoundError, match="Full Dose Images"):
        tcia.patients(tmp_path)
    builder = Builder(config="tcia", data_dir=tmp_path)
    assert "cancerimagingarchive.net" in builder.manual_download_instructions
    phantoms = Builder(config="phantom", data_dir=tmp_path)
    assert phantoms.manual_download_instructions is None


def test_tcia_mismatches(tmp_path):
    write_patient(tmp_path, "L001", low=(0, 0))
    with pytest.raises(ValueError, match="L001: expected as many slices.*Received: 3 and 2"):
        list(tcia.pairs(tmp_path / "L001"))
    study = tmp_path / "L002" / "study"
    write_series(study, tcia.FULL, (0.0, 2.0), (0, 0))
    write_series(study, tcia.LOW, (0.0, 3.0), (0, 0))
    with pytest.raises(ValueError, match="L002: expected slice 1 .* one position"):
        list(tcia.pairs(tmp_path / "L002"))


def test_tcia_split_is_by_patient(tmp_path):
    for count in (3, 4, 5, 12, 50):
        folders = [tmp_path / f"L{n:03d}" for n in range(count)]
        splits = tcia.split(folders)
        assert sorted(sum(splits.values(), [])) == folders
        assert all(splits.values())
        assert len(splits["test"]) == max(1, count // 10)
    with pytest.raises(ValueError, match="at least 3 patients"):
        tcia.split(folders[:2])
