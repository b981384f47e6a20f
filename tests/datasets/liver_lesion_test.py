"""zoo_datasets.liver_lesion: what the labels mean, the builder; patches."""

import numpy as np
import pytest

from source_harness import check_repeatable, check_simulated
from zoo.domain import Domain
from zoo_datasets import patches
from zoo_datasets.liver_lesion import phantom
from zoo_datasets.liver_lesion.liver_lesion_dataset_builder import Builder


@pytest.fixture(scope="module")
def examples():
    """(label, image) of several patients."""
    return [p for number in range(30) for p in phantom.patient(0, number, 4)]


def test_labels_tell_what_is_in_the_middle(examples):
    axis = np.arange(phantom.SIZE) - (phantom.SIZE - 1) / 2
    middle = np.hypot(axis, axis[:, None]) * phantom.SPACING < 3
    values, rims = {k: [] for k in range(4)}, {k: [] for k in range(4)}
    for label, image in examples:
        values[label].append(image[middle].mean())
        rims[label].append(np.percentile(image[16:48, 16:48], 98))
    assert all(len(v) > 15 for v in values.values())
    none, cyst, metastasis, haemangioma = (np.median(values[k]) for k in range(4))
    assert 80 < none < 140
    assert -5 < cyst < 20
    assert cyst + 15 < metastasis < none - 25
    assert cyst + 15 < haemangioma < none - 20
    # What tells a haemangioma from a metastasis is its bright edge.
    assert np.median(rims[3]) > np.median(rims[2]) + 10


def test_patches_are_liver_and_differ(examples):
    images = np.stack([image for _, image in examples])
    assert images.dtype == np.int16 and images.shape[1:] == (64, 64) and images.min() >= -1024
    soft = ((images > 20) & (images < 220)).mean((1, 2))
    assert np.median(soft) > 0.8 and soft.min() > 0.2
    surface = (images < -40).mean((1, 2)) > 0.05
    assert 0.1 < surface.mean() < 0.6
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(images)
    assert 3 < np.median(np.abs(np.diff(images.astype(float), axis=2))) < 20  # noise and texture


def test_patient_follows_from_seed_and_number():
    check_repeatable(
        lambda seed, number: phantom.patient(seed, number, 4),
        lambda one, other: (one[0][1] != other[0][1]).mean(),
        0.5,
    )


def test_a_patch_keeps_places_and_values():
    rows, columns = np.mgrid[:80, :90].astype(np.float32)
    plane = 3 * rows * 0.8 - 2 * columns * 0.5  # linear in mm: interpolation is exact
    patch = patches.patch_at(plane, (40, 50), (0.8, 0.5), 16, 1.0)
    mm = np.arange(16) - 7.5
    expected = 3 * (40 * 0.8 + mm[:, None]) - 2 * (50 * 0.5 + mm)
    np.testing.assert_allclose(patch, expected, atol=1e-3)
    corner = patches.patch_at(plane, (0, 89), (0.8, 0.5), 16, 1.0)  # beyond: the border goes on
    assert corner.shape == (16, 16) and corner[0, 15] == pytest.approx(plane[0, 89], abs=0.5)


def test_a_patch_of_larger_pixels_averages_noise():
    noise = np.random.default_rng(0).standard_normal((200, 200))
    coarse = patches.patch_at(noise, (100, 100), (0.4, 0.4), 64, 1.0)
    assert 0.3 < coarse.std() < 0.5  # the mean of 2.5 x 2.5 pixels has 0.4


def test_a_free_place_is_in_the_organ_and_far_from_lesions():
    organ, avoid = np.zeros((60, 60), bool), np.zeros((60, 60), bool)
    organ[10:50, 10:50] = True
    avoid[30, 20] = True
    rng = np.random.default_rng(0)
    places = [patches.free_place(rng, organ, avoid, (11, 11), 0.99) for _ in range(50)]
    for row, column in places:
        assert 15 <= row <= 44 and 15 <= column <= 44
        assert max(abs(row - 30), abs(column - 20)) > 5
    assert len(set(places)) > 20
    assert patches.free_place(rng, organ, ~avoid, (11, 11), 0.5) is None


def test_builder(tmp_path):
    builder = Builder(config="phantom_tiny", data_dir=tmp_path)
    image = ((64, 64, 1), np.int16)
    splits = check_simulated(builder, (6, 2, 2), {"image": image}, each=4)
    domain = Domain.from_dict(builder.info.metadata["image"])
    assert domain.unit == "HU" and domain.spacing == (1.0, 1.0)
    assert builder.info.features["label"].names == list(phantom.LABELS)
    labels = {int(e["label"]) for examples in splits.values() for e in examples}
    assert labels == {0, 1, 2, 3}
