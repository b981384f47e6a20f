"""zoo_datasets.cbct_ct: the cone beam's errors, the pairs and the TFDS builder."""

import numpy as np
import pytest
from scipy import ndimage

from source_harness import check_repeatable, check_simulated
from zoo.domain import Domain
from zoo.physics import radon
from zoo_datasets.cbct_ct import phantom
from zoo_datasets.cbct_ct.cbct_ct_dataset_builder import Builder

SMALL = phantom.Protocol(64, 96, 1.0e4, 4.0, cone_photons=1.4e4, cone_electronic=4.0, slices=2)
PERFECT = phantom.Cone(scatter=0.0, smear=60.0, radius=None, gain=1.0, offset=0.0)


@pytest.fixture(scope="module")
def scanner():
    return phantom.Scanner(SMALL)


@pytest.fixture(scope="module")
def patients(scanner):
    """Source and target of four patients, float HU."""
    return [
        {k: v.astype(float) for k, v in scanner.patient(0, number).items()} for number in range(4)
    ]


def cylinder(scanner, radius: float = 120.0) -> np.ndarray:
    """Line integrals of a cylinder of water, [1, views, detectors], from the chord's length."""
    s = (np.arange(scanner.ct.fine.detectors) - (scanner.ct.fine.detectors - 1) / 2) * SMALL.spacing
    chord = 2 * np.sqrt(np.maximum(radius**2 - s**2, 0))
    return np.tile(radon.MU_WATER * chord, (1, SMALL.views, 1)).astype(np.float32)


def disc(low: float, high: float) -> np.ndarray:
    axis = (np.arange(SMALL.size) - (SMALL.size - 1) / 2) * SMALL.spacing
    r = np.hypot(axis, axis[:, None])
    return (r >= low) & (r < high)


def test_patient_follows_from_seed_and_number(scanner):
    check_repeatable(
        scanner.patient,
        lambda one, other: min(np.abs(one[k].astype(int) - other[k]).max() for k in one),
        300,
    )


def test_a_perfect_cone_beam_measures_water(scanner):
    hu = scanner.cone_beam(cylinder(scanner), PERFECT, np.random.default_rng(0))[0]
    assert abs(hu[disc(0, 90)].mean()) < 12
    assert hu[disc(140, 170)].mean() < -960


def test_scatter_cups(scanner):
    """What arrives beside the primary photons counts most where the body is thickest."""
    p = cylinder(scanner)
    clean = scanner.cone_beam(p, PERFECT, np.random.default_rng(0))[0].astype(float)
    cone = phantom.Cone(scatter=0.2, smear=60.0, radius=None, gain=1.0, offset=0.0)
    loss = clean - scanner.cone_beam(p, cone, np.random.default_rng(0))[0]
    rings = [loss[disc(r, r + 30)].mean() for r in (0, 30, 60, 90)]
    assert rings == sorted(rings, reverse=True)
    assert rings[0] > 60 and rings[0] > 1.3 * rings[3]


def test_scatter_has_the_ratio_that_it_is_given(scanner):
    p = cylinder(scanner)[:, :4]
    cone = phantom.Cone(scatter=0.2, smear=60.0, radius=None, gain=1.0, offset=0.0)
    added = phantom.scatter(p, SMALL.spacing, cone)
    third = p.shape[-1] // 3
    middle = np.s_[..., third:-third]
    assert added[middle].sum() / np.exp(-p[middle]).sum() == pytest.approx(0.2, rel=1e-4)
    assert np.abs(np.diff(added, axis=-1)).max() < 0.1 * added.max()  # smooth


def test_truncation_keeps_what_was_seen_and_ends_at_zero():
    s = (np.arange(100) - 49.5) * 5.0
    p = np.tile(np.cos(s / 200)[None].astype(np.float32), (3, 1))
    cut = phantom.truncate(p, 5.0, 110.0, reach=60.0)
    seen = np.abs(s) <= 110
    np.testing.assert_array_equal(cut[:, seen], p[:, seen])
    assert (cut[:, np.abs(s) > 170] == 0).all()
    assert (np.diff(cut[:, s > 110], axis=1) <= 0).all() and cut.min() >= 0


def test_the_error_is_large_and_mostly_smooth(patients):
    means, shares = [], []
    for images in patients:
        for source, target in zip(images["source"], images["target"], strict=True):
            body = ndimage.binary_fill_holes(ndimage.binary_opening(target > -400))
            error = source - target
            means.append(np.abs(error[body]).mean())
            smooth = ndimage.gaussian_filter(error, 2.0)
            shares.append((smooth[body] ** 2).sum() / (error[body] ** 2).sum())
        for image in images.values():
            assert image.min() >= -1024 and image.max() <= 3071
    assert 50 < np.mean(means) < 160
    assert max(means) > 1.3 * min(means)  # patients differ
    assert np.mean(shares) > 0.35  # this blur leaves 0.02 of white noise


def test_source_and_target_are_aligned(patients):
    middle = disc(0, 100)
    for images in patients:
        source, target = images["source"][:, middle], images["target"][:, middle]
        here = np.corrcoef(source.ravel(), target.ravel())[0, 1]
        for axis in (1, 2):
            for step in (-1, 1):
                moved = np.roll(images["source"], step, axis)[:, middle]
                assert here > np.corrcoef(moved.ravel(), target.ravel())[0, 1]


def test_some_patients_are_truncated():
    cones = [
        phantom.Cone.draw(np.random.default_rng([1, n]), phantom.Protocol()) for n in range(200)
    ]
    assert 0.1 < np.mean([cone.radius is not None for cone in cones]) < 0.3


def test_builder(tmp_path):
    builder = Builder(config="phantom_tiny", data_dir=tmp_path)
    shapes = dict.fromkeys(("source", "target"), ((64, 64, 1), np.int16))
    check_simulated(builder, (4, 1, 2), shapes, each=4)
    for image in shapes:
        domain = Domain.from_dict(builder.info.metadata[image])
        assert (domain.modality, domain.unit, domain.spacing) == ("CT", "HU", (5.6, 5.6))
