"""`mri_contrast/heads`: the user's heads beside simulated ones, and how they are registered."""

import dataclasses

import nibabel
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from zoo.domain import Domain
from zoo_datasets import own_scans
from zoo_datasets.mri_contrast import heads
from zoo_datasets.mri_contrast.mri_contrast_dataset_builder import Builder, heads_config
from zoo_datasets.phantoms import brain
from zoo_datasets.publishers import mr_signal, rigid
from zoo_datasets.publishers.volumes import read_nifti

SMALL = heads.Protocol(size=56, slices=2, draws=3)
MOVED = (2.0, -3.0, 6.0)  # mm


@pytest.fixture(scope="module")
def patient(tmp_path_factory):
    """A folder with T1, T2 and FLAIR of one head, the last two moved, and the head's T1 and T2."""
    folder = tmp_path_factory.mktemp("patient")
    head = brain.Brain(np.random.default_rng(5), 56, 4.0)
    zs = np.arange(-10.0, 58.0, 4.0)
    volumes = {name: head.volume(zs, name) for name in ("T1", "T2", "FLAIR")}
    affine = np.diag([-4.0, -4.0, 4.0, 1.0])  # NIfTI's axes run right, front and up
    affine[:3, 3] = 110, 110, -10
    moved = affine.copy()
    moved[:3, :3] = Rotation.from_euler("z", 3, degrees=True).as_matrix() @ affine[:3, :3]
    moved[:3, 3] += MOVED
    for name, gain, place in (("T1w", 400, affine), ("T2w", 900, moved), ("T2_FLAIR", 3e3, moved)):
        values = gain * volumes[name.split("_")[-1].upper().removesuffix("W")]
        image = nibabel.Nifti1Image(values.transpose(2, 1, 0).astype(np.float32), place)
        nibabel.save(image, folder / f"Ann_{name}.nii.gz")
    return folder, volumes


def test_registration_finds_how_a_patient_moved(patient):
    folder, _ = patient
    fixed, moving = (read_nifti(folder / f"Ann_{name}.nii.gz") for name in ("T1w", "T2w"))
    found = rigid.registered(moving, fixed)
    assert found.values is moving.values
    corners = np.array([[3, 10, 10, 1], [3, 45, 45, 1], [14, 10, 45, 1], [14, 45, 10, 1]], float)

    def apart(scan):
        return np.linalg.norm(corners @ (scan.affine - fixed.affine).T, axis=1).max()

    assert apart(moving) > 7 and apart(found) < 1  # of pixels of 4 mm
    np.testing.assert_allclose(found.spacing, moving.spacing)  # rigid


def test_contrasts_of_a_patient_lie_on_each_other(patient):
    folder, volumes = patient
    images = heads.patient(folder, SMALL)
    assert set(images) == {"T1", "T2"}
    head = volumes["T1"] > 0.05
    for name, image in images.items():
        assert np.corrcoef(image[head], volumes[name][head])[0, 1] > 0.9, name
    moved = mr_signal.on_grid(
        read_nifti(folder / "Ann_T2w.nii.gz"), read_nifti(folder / "Ann_T1w.nii.gz")
    )
    assert np.corrcoef(moved[head], volumes["T2"][head])[0, 1] < 0.7


def test_pixels_are_of_the_wanted_size_about_the_head(patient):
    folder, _ = patient
    fine, coarse = (
        heads.patient(folder, heads.Protocol(size=size, contrasts=("T1",)))["T1"]
        for size in (112, 28)  # of 224 mm
    )
    assert fine.shape == (17, 112, 112) and coarse.shape == (17, 28, 28)
    averaged = fine.reshape(17, 28, 4, 28, 4).mean((2, 4))
    assert np.corrcoef(averaged.ravel(), coarse.ravel())[0, 1] > 0.98
    place = np.argwhere(fine > fine.mean())
    np.testing.assert_allclose((place.min(0) + place.max(0))[1:] / 2, 55.5, atol=2)


def test_a_folder_that_lacks_a_contrast_is_refused(tmp_path):
    for name in ("a_T1.nii", "a_T2_FLAIR.nii", "b_t2_flair.nii"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match="with T2 in its name. Received: 0"):
        heads._scan(tmp_path, "T2")
    with pytest.raises(ValueError, match="with FLAIR in its name. Received: 2"):
        heads._scan(tmp_path, "FLAIR")


def test_examples_are_at_levels_of_their_own(patient, tmp_path, monkeypatch):
    monkeypatch.setattr(rigid, "registered", lambda moving, fixed: moving)
    (tmp_path / "train" / "Ann").parent.mkdir()
    (tmp_path / "train" / "Ann").symlink_to(patient[0])
    config = heads_config("own", "T1", "T2", "FLAIR")
    config.protocol = dataclasses.replace(SMALL, contrasts=("T1", "T2", "FLAIR"))
    found = own_scans.find(tmp_path, (1, 1, 0))
    own, simulated = (list(heads.read(case, config)) for case in found["train"])
    assert len(own) > 30 and len(own) % SMALL.draws == 0 and len(simulated) == SMALL.slices
    levels = []
    for name, example in own + simulated:
        source, target = example["source"], example["target"]
        assert source.shape == (56, 56, 2) and target.shape == (56, 56, 1) and "Ann" not in name
        assert source.dtype == target.dtype == np.uint16
        levels += [heads.median(source[..., channel]) for channel in (0, 1)]
        # Exactly so of the volume, and nearly of its slices.
        assert heads.median(target) == pytest.approx(heads.LEVEL, rel=0.5)
    assert min(levels) < 500 and max(levels) > 900 and np.ptp(np.log(levels)) < np.log(12)
    one, *others = (example for _, example in own[: SMALL.draws])
    for other in others:
        assert abs(other["source"].mean() / one["source"].mean() - 1) > 1e-3
        np.testing.assert_array_equal(other["target"], one["target"])
    assert [name for name, _ in heads.read(found["train"][0], config)] == [name for name, _ in own]


def test_the_inputs_are_told_apart(tmp_path):
    info = Builder(config="heads_t1_t2_flair", data_dir=tmp_path).info
    assert Domain.from_dict(info.metadata["source"]).names == "T1, T2"
    assert Domain.from_dict(info.metadata["target"]).spacing == (1.0, 1.0)
    assert info.features["source"].shape == (224, 224, 2) and "source_label" not in info.features
