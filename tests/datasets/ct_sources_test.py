"""Real sources of mr_ct, cbct_ct, pet_ct and ct_recon, from dummy data in their layouts."""

import types

import h5py
import numpy as np
import pytest
from scipy import ndimage

import dummy_ct
from source_harness import check_source
from zoo.data import batches
from zoo.physics import radon
from zoo_datasets.ct_recon import lodopab
from zoo_datasets.pet_ct import autopet
from zoo_datasets.publishers import synthrad


def check_mask(builder, last):
    """What is evaluated has the body's mask; `last` is the split's last example as stored."""
    *_, example = batches.eval_dataset(builder, "train")
    assert example["mask"].dtype == bool
    np.testing.assert_array_equal(example["mask"], last["target_label"] == 1)
    assert 0 < example["mask"].mean() < 1
    *_, smaller = batches.eval_dataset(builder, "train", size=4)
    assert smaller["mask"].shape == smaller["target"].shape == (4, 4, 1)
    assert smaller["mask"].dtype == bool


@pytest.mark.parametrize("region", ["brain", "pelvis"])
def test_synthrad_mr(region, tmp_path):
    from zoo_datasets.mr_ct.mr_ct_dataset_builder import Builder

    make = getattr(dummy_ct, f"synthrad_mr_{region}")
    builder = check_source(Builder, f"synthrad2023_{region}", make, tmp_path)
    for example in builder.as_dataset(split="train").as_numpy_iterator():
        np.testing.assert_allclose(example["spacing"], [1.25, 1.0])
        raw = example["source"] * example["scale"]
        np.testing.assert_allclose(raw, np.rint(raw), atol=1e-3)  # the file's whole numbers
        inside = example["source_label"] > 0
        assert 800 < example["source"][inside].mean() < 1010
    check_mask(builder, example)


@pytest.mark.parametrize("region", ["brain", "pelvis"])
def test_synthrad_cone_beam(region, tmp_path):
    from zoo_datasets.cbct_ct.cbct_ct_dataset_builder import Builder

    make = getattr(dummy_ct, f"synthrad_cbct_{region}")
    builder = check_source(Builder, f"synthrad2023_{region}", make, tmp_path)
    for example in builder.as_dataset(split="train").as_numpy_iterator():
        inside = example["target_label"] > 0
        error = example["source"].astype(int) - example["target"]
        assert (error[inside] == -30).all() and (error[~inside] == 0).all()
        np.testing.assert_allclose(example["spacing"], [1.25, 1.0])
    check_mask(builder, example)


def test_autopet(tmp_path):
    from zoo_datasets.pet_ct.pet_ct_dataset_builder import Builder

    builder = check_source(Builder, "autopet", dummy_ct.autopet, tmp_path)
    assert builder.info.metadata["source"]["unit"] == "SUV"
    studies = {}
    for split in ("train", "validation", "test"):
        for example in builder.as_dataset(split=split).as_numpy_iterator():
            assert example["source"].dtype == np.float32
            np.testing.assert_allclose(example["spacing"], [2.5, 2.0])
            studies.setdefault(example["patient"], set()).add(example["name"].rsplit(b"-", 1)[0])
    assert sorted(map(len, studies.values())) == [1, 1, 1, 1, 2]


def test_autopet_refuses_what_is_not_a_pair(tmp_path):
    dummy_ct.autopet(tmp_path)
    (folder,) = (tmp_path / "FDG-PET-CT-Lesions").glob("PETCT_0000000001/*")
    suv, ct, seg = (folder / f"{role}.nii.gz" for role in autopet.ROLES)
    key = f"PETCT_0000000001-{folder.name[-5:]}"
    right = ct.read_bytes()
    ct.write_bytes(suv.read_bytes())
    assert "CTres.nii.gz: expected HU" in error_of(autopet.find, autopet.read, tmp_path, key)
    ct.write_bytes(right)
    kept = suv.read_bytes()
    suv.write_bytes(right)
    assert "SUV.nii.gz: expected SUV" in error_of(autopet.find, autopet.read, tmp_path, key)
    suv.write_bytes(kept)
    small = np.zeros((22, 20, 3), np.uint8)
    dummy_ct.write_nifti(seg, small, dummy_ct.affine((2.0, 2.5, 3.0), "RAS"))
    message = error_of(autopet.find, autopet.read, tmp_path, key)
    assert "SEG.nii.gz: expected the grid of SUV" in message and "(3, 20, 22)" in message
    seg.unlink()
    with pytest.raises(FileNotFoundError, match=r"1 missing, PETCT_0000000001/.*SEG\.nii\.gz"):
        autopet.find(tmp_path)


@pytest.mark.parametrize("config", ["lodopab", "lodopab_fbp"])
def test_lodopab(config, tmp_path, monkeypatch):
    from zoo_datasets.ct_recon.ct_recon_dataset_builder import Builder

    monkeypatch.setattr(lodopab, "PER_FILE", 2)
    builder = check_source(Builder, config, dummy_ct.lodopab, tmp_path)
    metadata = dict(builder.info.metadata)
    beam = radon.ParallelBeam(**metadata["parallel_beam"])
    patients = {}
    for split in ("train", "validation", "test"):
        for example in builder.as_dataset(split=split).as_numpy_iterator():
            patients.setdefault(split, []).append(int(example["patient"]))
            np.testing.assert_allclose(example["spacing"], 260 / 362, rtol=1e-6)
            image = example["source"][..., 0]
            if config == "lodopab":
                # The longest chord is a diameter of 20 per m.
                longest = image.max() / 20 * 1000
                assert min(abs(longest - 2 * radius) for *_, radius in dummy_ct.DISCS) < 1
                image = beam.fbp(image) * 1000 / lodopab.MU_MAX
            # The sinogram belongs to the image: same place, same orientation, same scale.
            error = image - example["target"][..., 0]
            core = ndimage.binary_erosion(example["target"][..., 0] > 0, iterations=4)
            hu = lodopab.to_hu(image[core])
            assert abs(hu.mean()) < 5 and np.abs(hu).mean() < 20
            assert np.sqrt((error**2).mean()) < 0.02
    assert {split: sorted(ids) for split, ids in patients.items()} == {
        split: sorted(ids) for split, ids in dummy_ct.PATIENTS.items()
    }


def test_lodopab_units():
    values = lodopab.to_hu(np.array([20.0, 0.02, lodopab.MU_MAX]) / lodopab.MU_MAX)
    np.testing.assert_allclose(values, [0.0, -1000.0, 3071.0], atol=1e-9)
    np.testing.assert_allclose(lodopab.MU_MAX, 81.35858)


def test_lodopab_refuses_what_is_incomplete(tmp_path, monkeypatch):
    monkeypatch.setattr(lodopab, "PER_FILE", 2)
    dummy_ct.lodopab(tmp_path)
    config = types.SimpleNamespace(fbp=False)

    def error(key):
        (case,) = [c for cases in lodopab.find(tmp_path).values() for c in cases if c.key == key]
        with pytest.raises(ValueError) as caught:
            list(lodopab.read(case, config))
        return str(caught.value)

    for name, values in (
        ("observation_train_000", np.zeros((2, 1000, 512), np.float32)),
        ("ground_truth_train_001", np.full((2, 362, 362), -0.5, np.float32)),
    ):
        with h5py.File(tmp_path / f"{name}.hdf5", "w") as file:
            file["data"] = values
    assert error("train-000") == (
        "observation_train_000.hdf5: expected 2 samples or more of 1000 x 513. "
        "Received: (2, 1000, 512)"
    )
    assert "ground_truth_train_001.hdf5: expected normalised" in error("train-001")
    with h5py.File(tmp_path / "observation_test_000.hdf5", "w") as file:
        file["other"] = [0.0]
    assert "observation_test_000.hdf5: cannot be read" in error("test-000")
    (tmp_path / "ground_truth_validation_000.hdf5").unlink()
    with pytest.raises(FileNotFoundError, match="1 missing, ground_truth_validation_000.hdf5"):
        lodopab.find(tmp_path)
    table = tmp_path / "patient_ids_rand_test.csv"
    table.write_text("9\n")
    with pytest.raises(ValueError, match=r"no patient in both.*Received: 9 in both"):
        lodopab.find(tmp_path)
    table.unlink()
    with pytest.raises(FileNotFoundError, match="patient_ids_rand_test.csv"):
        lodopab.find(tmp_path)


def error_of(find, read, root, key):
    """The exception of one case, by its key."""
    (case,) = [c for cases in find(root).values() for c in cases if c.key == key]
    with pytest.raises(ValueError) as caught:
        list(read(case, None))
    return str(caught.value)


def test_synthrad_refuses_what_is_not_a_pair(tmp_path):
    def find(root):
        return synthrad.find(root, task=1, region="brain")

    dummy_ct.synthrad_mr_brain(tmp_path)
    names = dummy_ct.names(1, "brain")
    folder = tmp_path / "Task1" / "brain"
    matrix = dummy_ct.affine((1.0, 1.25, 2.5), "LPS")
    small = np.zeros((24, 20, 4), np.uint16)
    dummy_ct.write_nifti(folder / names[0] / "mr.nii.gz", small, matrix)
    message = error_of(find, synthrad.read, tmp_path, names[0])
    assert message == (
        f"{names[0]}/mr.nii.gz: expected the grid of ct.nii.gz, 5 x 20 x 24 voxels of "
        "2.5 x 1.25 x 1 mm. Received: 4 x 20 x 24 voxels of 2.5 x 1.25 x 1 mm"
    )
    (folder / names[0] / "mr.nii.gz").write_bytes((folder / names[0] / "ct.nii.gz").read_bytes())
    message = error_of(find, synthrad.read, tmp_path, names[0])
    assert "expected the signal of magnetic resonance. Received: -1000" in message
    (folder / names[2] / "ct.nii.gz").write_bytes((folder / names[2] / "mr.nii.gz").read_bytes())
    assert "expected HU, with air" in error_of(find, synthrad.read, tmp_path, names[2])
    (folder / names[2] / "mask.nii.gz").write_bytes((folder / names[2] / "mr.nii.gz").read_bytes())
    (folder / names[1] / "mask.nii.gz").unlink()
    (folder / names[3] / "ct.nii.gz").unlink()
    missing = f"2 missing, {names[1]}/mask.nii.gz, {names[3]}/ct.nii.gz"
    with pytest.raises(FileNotFoundError, match=missing):
        find(tmp_path)
    with pytest.raises(FileNotFoundError, match="Task1/pelvis/1P"):
        synthrad.find(tmp_path, task=1, region="pelvis")
