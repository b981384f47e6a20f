"""`sr/varied_mr_files`, `sr/varied_mr_scans`: MR reduced as finished files are."""

import shutil

import nibabel
import numpy as np
import pydicom
import pydicom.data
import pytest
from scipy import ndimage

from source_harness import check_repeatable, prepare, read
from zoo.physics import resolution
from zoo_datasets import own_scans
from zoo_datasets.cases import Case
from zoo_datasets.sr import phantom, scanned, varied
from zoo_datasets.sr.sr_dataset_builder import Builder, Simulated

SMALL = phantom.Protocol("MR", size=64, slices=2, scales=(2, 4))


@pytest.fixture(scope="module")
def subjects():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(varied, "SPACING", (2.0, 4.8))  # the field of 256 pixels
        return [scanned.patient(SMALL, 0, number) for number in range(12)]


def test_most_backgrounds_are_zero(subjects):
    empty = []
    for images in subjects:
        target = images[0]["target"]
        empty.append(np.mean(target == 0))
        assert target.dtype == np.uint16 and target.max() > 0
    assert 5 <= sum(share > 0.1 for share in empty) < 12


def test_sources_are_made_of_the_finished_image(subjects):
    """Whatever the way, none of the noise's phase and no signal of a background of zeros is in."""
    ways = []
    for images in subjects:
        target = images[0]["target"].astype(np.float32)
        for scale in SMALL.scales:
            source = images[0][f"source_x{scale}"]
            blurred = ndimage.gaussian_filter(target, 0.3 * scale)
            expected = {
                "k-space": resolution.crop_kspace(target, scale),
                "mean": resolution.block_mean(target, scale),
                "blurred": resolution.block_mean(blurred, scale),
            }
            errors = {way: np.abs(source - image).max() for way, image in expected.items()}
            way = min(errors, key=errors.get)
            assert errors[way] <= 0.6  # rounded
            ways.append(way)
    assert len(set(ways)) > 1


@pytest.mark.parametrize("background", scanned.BACKGROUNDS)
def test_backgrounds_as_scanners_leave_them(background):
    rng = np.random.default_rng(0)
    axis = np.arange(64) - 31.5
    head = np.where(np.hypot(axis, axis[:, None]) < 20, 1000.0, 0.0)
    head[28:36, 28:36] = 0  # air within
    image = np.abs(head + rng.normal(0, 10, head.shape) + 1j * rng.normal(0, 10, head.shape))
    masked = scanned._masked(rng, image.astype(np.float32), background, 60.0)
    corner, within, tissue = masked[:8, :8], masked[31:33, 31:33], masked[30:34, 16:22]
    assert np.abs(tissue - 1000).max() < 80
    assert bool(corner.max()) == (background == "noise")
    assert bool(within.max()) == (background != "threshold")
    np.testing.assert_array_equal(masked, np.floor(masked))


def test_subjects_can_be_repeated():
    check_repeatable(
        lambda seed, number: {"target": scanned.patient(SMALL, seed, number)[0]["target"]},
        lambda one, other: np.abs(one["target"].astype(float) - other["target"]).mean(),
        20,
    )


def scan(path, shape=(100, 70, 4)):
    """A NIfTI file of a disc in a background of zeros, in pixels of 0.5 x 0.7 mm."""
    path.parent.mkdir(parents=True, exist_ok=True)
    across, down = (np.arange(side) - side / 2 for side in shape[:2])
    slice_ = np.where(np.hypot(across[:, None], down) < 24, 90.0, 0.0)
    values = np.repeat(slice_[..., None], shape[2], 2)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([0.5, 0.7, 5.0, 1])), path)


def test_tiles_of_the_users_own_scans(tmp_path):
    for name in ("train/Ann", "validation/Bob"):
        scan(tmp_path / "manual" / name / "t1.nii.gz")
    config = Simulated(
        name="scans",
        description="One patient and one subject in each split.",
        find=lambda root: own_scans.find(root, (1, 1, 0)),
        manual="https://example.org",
        protocol=SMALL,
        patient=scanned.patient,
        patients=(1, 1, 0),
    )
    builder = prepare(Builder, config, tmp_path / "manual", tmp_path / "data")
    splits = read(builder)
    assert len(splits["validation"]) > 2 and b"Ann" not in repr(splits).encode()
    real = [each for each in splits["train"] if each["patient"].startswith("S")]
    assert len(splits["train"]) == len(real) + SMALL.slices
    # Of 2 of the 4 slices, 104 x 72 pixels with what is padded, tiles at 0, 40 and 0, 8.
    assert len(real) == 2 * 4
    for example in real:
        target = example["target"].astype(np.float32)
        np.testing.assert_allclose(example["spacing"], [0.7, 0.5])
        assert target.shape == (64, 64, 1) and 250 <= target.max() <= 3800
        for scale in SMALL.scales:
            source = example[f"source_x{scale}"]
            assert source.shape == (64 // scale, 64 // scale, 1)
            # The same place at the same level.
            error = source[..., 0] - resolution.block_mean(target[..., 0], scale)
            assert np.sqrt(np.mean(error**2)) < 0.15 * target.max()


@pytest.mark.parametrize(
    "file, message",
    [
        (
            "CT_small.dcm",
            "expected MR of one channel with a pixel spacing. Received: CT, 1 channel",
        ),
        (None, "expected DICOM or NIfTI. Received: no image"),
    ],
)
def test_scans_that_cannot_be_used_are_refused(tmp_path, file, message):
    if file:
        shutil.copy(pydicom.data.get_testdata_file(file), tmp_path)
    case = Case(key="S00000001", patient="one", files={"scan": tmp_path})
    with pytest.raises(ValueError, match=f"^S00000001: {message}"):
        list(scanned.tiles(SMALL, 0, case))
