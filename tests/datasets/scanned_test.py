"""`ldct/varied_scanners`, `varied_scans`: noise of many scanners, in simulated and real CT."""

import dataclasses

import nibabel
import numpy as np
import pytest

from source_harness import check_repeatable, prepare, read
from zoo_datasets import own_scans
from zoo_datasets.cases import Case
from zoo_datasets.ldct import scanned, scanners
from zoo_datasets.ldct.ldct_dataset_builder import Builder
from zoo_datasets.simulated import SimulatedConfig

SMALL = scanned.Protocol(
    size=64,
    slices=2,
    tile=32,
    views=64,
    body=(4.5, 7.0),
    head=(3.0, 4.0),
    shapes=(2.4, 5.0),
    added=(40.0, 80.0),
)


def disc(size: int, x: float, y: float, radius: float) -> np.ndarray:
    axis = np.arange(size) - (size - 1) / 2
    inside = radius + 0.5 - np.hypot(axis - x, axis[:, None] - y)
    return np.where(np.clip(inside, 0, 1) > 0, np.clip(inside, 0, 1) * 1000 - 1000, -1000.0)


def chord(angle, ray, x: float, y: float, radius: float):
    """Length of the ray through the disc, in pixels."""
    away = ray - x * np.cos(angle) - y * np.sin(angle)
    return 2 * np.sqrt(np.maximum(radius**2 - away**2, 0))


def test_line_integrals_at_any_angle_and_place():
    p = scanners.line_integrals(disc(128, 20, -30, 25)[None].astype(np.float32), 0.5)[0]
    angles, rays = np.linspace(-3, 9, 40)[:, None], np.linspace(-60, 60, 80)
    expected = chord(angles, rays, 20, -30, 25) * 0.5 * 0.0192
    wrong = np.abs(scanners._at(p, angles, rays) - expected)
    assert wrong.mean() < 0.003 < 0.05 < expected.mean() and wrong.max() < 0.1  # at the disc's edge


@pytest.mark.parametrize("nearest", [False, True])
def test_a_fan_beam_is_rebinned_to_the_same_parallel_rays(monkeypatch, nearest):
    scanner = scanners.Scanner(source=1.1, views=128, nearest=nearest, pitch=0.8)
    monkeypatch.setattr(scanners.Scanner, "_drawn", lambda self, rng, p: p)
    p = scanners.line_integrals(disc(128, 20, -30, 25)[None].astype(np.float32), 0.5)[0]
    angles = (np.arange(128) + 0.5) * np.pi / 128
    rays = (np.arange(220) - 109.5) * 0.8
    found = scanner._fan(np.random.default_rng(0), p, angles, rays, 128)
    expected = chord(angles[:, None], rays, 20, -30, 25) * 0.5 * 0.0192
    assert np.abs(found - expected).mean() < 0.004 < 0.05 < expected.mean()


def spectrum(scanner: scanners.Scanner) -> np.ndarray:
    """Share of the noise's power in each of four bands of frequency, in a disc of water."""
    water = disc(128, 0, 0, 55)[None].astype(np.float32)
    (p,) = scanners.line_integrals(water, 2.0)
    noise = scanner.noise(np.random.default_rng(0), p, 128)
    assert noise[42:-42, 42:-42].std() == pytest.approx(1)
    power = np.abs(np.fft.fft2(noise[32:-32, 32:-32])) ** 2
    f = np.hypot(np.fft.fftfreq(64), np.fft.fftfreq(64)[:, None])
    bands = [power[(f > low) & (f <= low + 0.125)].mean() for low in (0, 0.125, 0.25, 0.375)]
    return np.array(bands) / sum(bands)


def test_scanners_leave_their_marks_in_the_noise():
    ramp = spectrum(scanners.Scanner(views=128))
    # A bare ramp: power grows with the frequency.
    np.testing.assert_allclose(ramp, np.array([1, 3, 5, 7]) / 16, atol=0.06)
    for softer in (
        {"crosstalk": 0.7},
        {"interpolation": "linear"},
        {"source": 1.5},
        {"pitch": 1.5},
        {"kernel": scanners.Kernel("hann", 1.0, 0.0)},
    ):
        assert spectrum(scanners.Scanner(views=128, **softer))[3] < 0.8 * ramp[3], softer
    # The nearest ray of a fan is not smoothed.
    nearest = spectrum(scanners.Scanner(views=128, source=1.5, nearest=True))
    np.testing.assert_allclose(nearest, ramp, atol=0.06)


def test_subjects_have_little_noise_of_their_own_and_can_be_repeated():
    quiet = dataclasses.replace(
        SMALL, full=(0.1, 0.2), full_body=(0.1, 0.2), full_head=(0.1, 0.2), added=(40.0, 41.0)
    )
    pairs = [pair for number in range(6) for pair in scanned.subject(quiet, 0, number)]
    added = []
    for _, source, target, spacing in pairs:
        assert source.dtype == np.int16 and 2.4 <= spacing <= 7
        middle = (source - target.astype(float))[21:-21, 21:-21]
        inside = (source > -1000)[21:-21, 21:-21] & (source < 3000)[21:-21, 21:-21]
        added.append(middle[inside].std())
    assert 25 < np.median(added) < 50
    check_repeatable(
        lambda seed, number: {"target": next(scanned.subject(SMALL, seed, number))[2]},
        lambda one, other: np.abs(one["target"] - other["target"].astype(float)).mean(),
        20,
    )


def scan(path, shape=(40, 30, 3), spacing=(0.8, 0.8, 5.0), low=-2048.0):
    """A NIfTI file of a cylinder, padded below air."""
    path.parent.mkdir(parents=True, exist_ok=True)
    across, down = (np.arange(side) - side / 2 for side in shape[:2])
    slice_ = np.where(np.hypot(across[:, None], down) < 12, 50.0, low)
    image = nibabel.Nifti1Image(np.repeat(slice_[..., None], shape[2], 2), np.diag([*spacing, 1]))
    nibabel.save(image, path)


def test_patients_are_split_as_their_folders_say_or_by_a_hash(tmp_path):
    for name in ("train/Ann", "train/Bob", "validation/Cid"):
        scan(tmp_path / "named" / name / "ct.nii")
    found = own_scans.find(tmp_path / "named", (2, 1, 0))
    assert [len(found[split]) for split in ("train", "validation", "test")] == [4, 2, 0]
    keys = {case.key for cases in found.values() for case in cases}
    assert len(keys) == 6 and not keys & {"Ann", "Bob", "Cid"}
    for number in range(12):
        scan(tmp_path / "hashed" / f"patient{number}" / "ct.nii")
    found = own_scans.find(tmp_path / "hashed", (0, 0, 0))
    assert 6 < len(found["train"]) < 12
    (tmp_path / "none").mkdir()
    with pytest.raises(FileNotFoundError, match="a folder for each patient.*Received: none"):
        own_scans.find(tmp_path / "none", (1, 1, 1))


def test_noise_is_inserted_into_the_users_own_scans(tmp_path):
    for name in ("train/one", "validation/two"):
        scan(tmp_path / "manual" / name / "ct.nii.gz")
    config = SimulatedConfig(
        name="scans",
        description="One patient and one subject in each split.",
        find=lambda root: own_scans.find(root, (1, 1, 0)),
        read=scanned.read,
        manual="https://example.org",
        protocol=dataclasses.replace(SMALL, draws=2),
        patients=(1, 1, 0),
    )
    builder = prepare(Builder, config, tmp_path / "manual", tmp_path / "data")
    train = read(builder)["train"]
    real = [example for example in train if example["patient"].startswith("S")]
    assert len({example["patient"] for example in train}) == 2
    # Of 3 slices, 40 pixels high, 2 draws of 2 x 2 tiles of 32 pixels each.
    assert len(real) == 24
    for example in real:
        assert example["source"].shape == example["target"].shape == (32, 32, 1)
        np.testing.assert_allclose(example["spacing"], 0.8)
        assert example["target"].min() >= -1024 and example["target"].max() == 50
        assert 20 < (example["source"] - example["target"].astype(float)).std() < 120
    assert len({example["name"] for example in real}) == 24


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"spacing": (0.8, 0.9, 5.0)},
            "expected CT in square pixels. Received: OT of 0.9 x 0.8 mm",
        ),
        (None, "expected DICOM or NIfTI. Received: no image"),
    ],
)
def test_scans_that_cannot_be_used_are_refused(tmp_path, options, message):
    (tmp_path / "one").mkdir()
    if options:
        scan(tmp_path / "one" / "ct.nii", **options)
    config = SimulatedConfig(name="scans", read=scanned.read, protocol=SMALL, patients=(0, 0, 0))
    case = Case(key="S00000001", patient="one", files={"scan": tmp_path / "one"})
    with pytest.raises(ValueError, match=f"^S00000001: {message}"):
        list(scanned.read(case, config))
