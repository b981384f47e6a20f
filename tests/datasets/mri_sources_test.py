"""Real sources of mri_contrast, brain_mri, mri_recon and sr, from dummy data in their layouts."""

import h5py
import numpy as np
import pytest

import dummy_mr
import source_harness
from source_harness import check_source, read
from zoo.physics import fourier, resolution
from zoo_datasets.cases import Case, read_case
from zoo_datasets.mri_recon import fastmri
from zoo_datasets.publishers import brats, ixi


def examples(builder):
    return [example for split in read(builder).values() for example in split]


@pytest.mark.parametrize("config", ["ixi", "ixi_pd"])
def test_mri_contrast_ixi(config, tmp_path):
    from zoo_datasets.mri_contrast.mri_contrast_dataset_builder import Builder

    builder = check_source(Builder, config, dummy_mr.ixi, tmp_path)
    for e in examples(builder):
        np.testing.assert_allclose(e["spacing"], [1.25, 1.5])
        source, target = e["source"] * e["source_scale"], e["target"] * e["target_scale"]
        np.testing.assert_allclose(target, np.rint(target), atol=1e-3)  # the file's numbers
        # Rows run to the back, columns to the left: both dim the signal.
        t2 = target[..., 0] if config == "ixi" else source[..., 0]
        np.testing.assert_allclose(np.diff(t2, axis=0).mean(), -3 * 1.25, atol=0.1)
        np.testing.assert_allclose(np.diff(t2, axis=1).mean(), -5 * 1.5, atol=0.1)
        ratio = {"ixi": 0.5, "ixi_pd": 3.0}[config]
        # Away from the border of the smaller volume, which lies inside the other.
        inner = np.s_[4:-4, 4:-4]
        np.testing.assert_allclose(target[inner], ratio * source[inner], atol=2.5)


def test_mri_contrast_brats(tmp_path):
    from zoo_datasets.mri_contrast.mri_contrast_dataset_builder import Builder

    builder = check_source(Builder, "brats", dummy_mr.brats, tmp_path)
    assert builder.info.metadata["label_names"] == list(brats.LABELS)
    for e in examples(builder):
        np.testing.assert_array_equal(e["source_label"], e["target_label"])
        raw = e["target"] * e["target_scale"]
        np.testing.assert_allclose(raw, np.rint(raw), atol=1e-3)
        assert raw[raw > 0].min() >= 900 and raw.max() < 940  # t2 is the third contrast


def test_brats_pairs_are_chosen_by_option():
    from zoo_datasets.mri_contrast.mri_contrast_dataset_builder import Builder, brats_config

    configs = Builder.builder_configs
    assert configs["brats_t1ce"].contrasts == ("t1", "t1ce")
    assert configs["brats_flair"].contrasts == ("t2", "flair")
    assert brats_config("mine", "flair", "t1").contrasts == ("flair", "t1")


def test_brats_files_that_do_not_fit(tmp_path):
    dummy_mr.brats(tmp_path)
    cases = brats.find(tmp_path, ("t1", "t2", "seg"))
    case = cases["train"][0]
    case.files["seg"].write_bytes(case.files["t1"].read_bytes())
    from zoo_datasets.mri_contrast.mri_contrast_dataset_builder import brats_config

    error = read_case(case, brats_config("brats"))
    assert "_seg.nii.gz: expected the labels 0, 1, 2, 4" in str(error)
    with pytest.raises(FileNotFoundError, match="expected folders of BraTS 2020 or 2021"):
        brats.find(tmp_path / "elsewhere", ("t1",))


@pytest.mark.parametrize(
    ("config", "make"), [("ixi", dummy_mr.ixi), ("brats", dummy_mr.brats_images)]
)
def test_brain_mri(config, make, tmp_path):
    from zoo_datasets.brain_mri.brain_mri_dataset_builder import Builder

    builder = check_source(Builder, config, make, tmp_path)
    for e in examples(builder):
        raw = e["image"] * e["scale"]
        np.testing.assert_allclose(raw, np.rint(raw), atol=1e-3)
    expected = [2.0, 2.0] if config == "ixi" else [1.0, 1.0]
    np.testing.assert_allclose(e["spacing"], expected)


def test_sr_ixi(tmp_path):
    from zoo_datasets.sr.sr_dataset_builder import Builder

    builder = check_source(Builder, "ixi", dummy_mr.ixi_large, tmp_path)
    for e in examples(builder):
        assert e["target"].shape == (40, 32, 1)
        np.testing.assert_allclose(e["spacing"], [0.95, 0.9])
        for scale in (2, 4, 8):
            low = resolution.crop_kspace(e["target"][..., 0], scale)
            np.testing.assert_array_equal(e[f"source_x{scale}"][..., 0], low)


def test_ixi_without_a_contrast(tmp_path):
    dummy_mr.ixi(tmp_path)
    for path in (tmp_path / "IXI-T2").iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"T2-weighted volumes of IXI \(IXI-T2/"):
        ixi.find(tmp_path, ("T1", "T2"))
    (tmp_path / "IXI-T1" / "somebody-T1.nii.gz").write_bytes(b"")
    with pytest.raises(ValueError, match="names like IXI012-HH-1211-T1.nii.gz. Received: somebody"):
        ixi.find(tmp_path, ("T1",))


@pytest.mark.parametrize(
    ("config", "make"),
    [("fastmri", dummy_mr.fastmri), ("fastmri_multicoil", dummy_mr.fastmri_coils)],
)
def test_fastmri(config, make, tmp_path, monkeypatch):
    from zoo_datasets.mri_recon.mri_recon_dataset_builder import Builder

    def _emptied(file):
        file.write_bytes(b"")

    # Nothing lists the publisher's files, so that one which is missing cannot be told.
    monkeypatch.setattr(source_harness, "_missing", _emptied)
    builder = check_source(Builder, config, make, tmp_path)
    coils, real = (1, 1) if config == "fastmri" else (15, 3)
    sampling = builder.builder_config.sampling
    splits = read(builder)
    assert {e["name"][:11] for e in splits["train"]} == {"file1000000", "file1000001"}
    assert splits["validation"] and splits["test"]
    masks = {}
    for e in examples(builder):
        # Rows are the 36 lines; of the read-out the oversampling is gone.
        assert e["source"].shape == (36, 32, 2 * coils) and e["target"].shape == (36, 32, 1)
        np.testing.assert_allclose(e["spacing"], [180 / 36, 160 / 32])
        assert e["contrast"] == "CORPD_FBK"
        assert not e["source"][..., 2 * real :].any()
        measured = (e["source"] != 0).any((1, 2))
        inner = round(sampling.centre * 36)
        assert measured[18 - inner // 2 :][:inner].all()
        masks.setdefault(e["name"][:11], set()).add(measured.tobytes())
        kspace = fourier.from_channels(e["source"].reshape(36, 32, coils, 2).swapaxes(1, 2))
        kspace = np.swapaxes(kspace, 0, 1)
        image = np.sqrt((np.abs(fourier.from_kspace(kspace)) ** 2).sum(0))
        error = np.linalg.norm(image - e["target"][..., 0]) / np.linalg.norm(e["target"])
        assert 0.05 < error < 0.8  # aliased, and the same image
        assert e["target"].max() <= 1.001
    assert all(len(lines) == 1 for lines in masks.values())  # one mask a scan
    assert len(set().union(*masks.values())) > 1


@pytest.mark.parametrize(
    ("config", "make"),
    [
        ("fastmri_8x", dummy_mr.fastmri),
        ("fastmri_multicoil_8x", dummy_mr.fastmri_coils),
        ("fastmri_brain", dummy_mr.fastmri_coils),
    ],
)
def test_other_fastmri(config, make, tmp_path, monkeypatch):
    from zoo_datasets.mri_recon.mri_recon_dataset_builder import Builder

    monkeypatch.setattr(source_harness, "_missing", lambda file: file.write_bytes(b""))
    builder = check_source(Builder, config, make, tmp_path)
    sampling, masks = builder.builder_config.sampling, []
    for e in examples(builder):
        measured = (e["source"] != 0).any((1, 2))
        masks.append(measured.mean())
    # Some lines beyond the middle; of few lines the share is a rough one.
    assert 0.5 / sampling.acceleration < np.mean(masks) < 2.5 / sampling.acceleration


def test_fastmri_measures_the_publishers_image(tmp_path):
    from zoo_datasets.mri_recon.mri_recon_dataset_builder import fastmri_config

    full = fastmri.Sampling("random", 1.0, 0.9)  # every line
    config = fastmri_config("full", "Every line.", sampling=full)
    path = tmp_path / "singlecoil_train" / "file1000000.h5"
    dummy_mr.scan(path, 1, "a", 0)
    case = Case(key="file1000000", patient="a", files={"scan": path})
    with h5py.File(path) as file:
        published = file["reconstruction_esc"][()]
    for i, (_, e) in enumerate(fastmri.read(case, config)):
        image = fourier.zero_filled(e["source"])
        np.testing.assert_allclose(image, e["target"], atol=1e-5)
        ours = image[2:-2, :, 0].T * e["scale"]  # the middle 32 of 36 lines, turned back
        np.testing.assert_allclose(ours, published[i], rtol=1e-3, atol=1e-8)
    # The middle of k-space of the square image shows the same signal with fewer pixels.
    config = fastmri_config("small", "16 lines.", sampling=full, size=16)
    for i, (_, e) in enumerate(fastmri.read(case, config)):
        assert e["source"].shape == (16, 16, 2)
        np.testing.assert_allclose(e["spacing"], [10.0, 10.0])
        assert abs(e["target"].mean() * e["scale"] / published[i].mean() - 1) < 0.15


def test_fastmri_files_that_do_not_fit(tmp_path):
    from zoo_datasets.mri_recon.mri_recon_dataset_builder import fastmri_config

    config = fastmri_config("fastmri", "One coil.")
    path = tmp_path / "singlecoil_train" / "file1000000.h5"
    case = Case(key="file1000000", patient="a", files={"scan": path})

    def said(change):
        dummy_mr.scan(path, 1, "a", 0)
        with h5py.File(path, "a") as file:
            change(file)
        return str(read_case(case, config))

    def other_image(file):
        file["reconstruction_esc"][...] = file["reconstruction_esc"][()][:, ::-1]

    def no_target(file):
        del file["reconstruction_esc"]

    def no_field(file):
        del file["ismrmrd_header"]
        file["ismrmrd_header"] = b"<a/>"

    def coils(file):
        kspace = file["kspace"][()][:, None]
        del file["kspace"]
        file["kspace"] = kspace

    assert "file1000000.h5: expected k-space that gives the publisher's image" in said(other_image)
    assert "file1000000.h5: cannot be read as fastMRI: " in said(no_target)
    assert "encodedSpace/fieldOfView_mm/y" in said(no_field)
    assert "expected singlecoil k-space of 3 axes" in said(coils)


def test_a_patient_of_both_folders_is_of_the_training_split(tmp_path):
    dummy_mr.fastmri(tmp_path)
    dummy_mr.scan(tmp_path / "singlecoil_val" / "file1000009.h5", 1, "same", 9)
    dummy_mr.scan(tmp_path / "singlecoil_train" / "file1000008.h5", 1, "same", 8)
    splits = fastmri.find(tmp_path, "singlecoil")
    with pytest.raises(FileNotFoundError, match=r"multicoil files of fastMRI's train set"):
        fastmri.find(tmp_path, "multicoil")
    assert [case.key for case in splits["train"]] == [
        "file1000000",
        "file1000001",
        "file1000008",
        "file1000009",
    ]


@pytest.mark.parametrize("pattern", ["random", "equispaced"])
@pytest.mark.parametrize(("acceleration", "centre"), [(4, 0.08), (8, 0.04)])
def test_masks_have_the_stated_acceleration_and_centre(pattern, acceleration, centre):
    sampling = fastmri.Sampling(pattern, acceleration, centre)
    n, counts = 368, []
    for seed in range(200):
        lines = sampling.lines(n, np.random.default_rng(seed))
        counts.append(lines.sum())
        inner = round(centre * n)
        first = (n - inner + 1) // 2
        assert lines[first : first + inner].all()
        if pattern == "equispaced":
            gaps = np.diff(np.flatnonzero(lines[:first]))
            assert np.ptp(gaps) <= 1 and gaps.min() > acceleration
    np.testing.assert_allclose(n / np.mean(counts), acceleration, rtol=0.03)
    with pytest.raises(ValueError, match="sampling: expected the pattern random or equispaced"):
        fastmri.Sampling("spiral").lines(n, np.random.default_rng(0))
    with pytest.raises(ValueError, match="fewer lines in the middle than are measured"):
        fastmri.Sampling("random", 4, 0.3).lines(n, np.random.default_rng(0))
