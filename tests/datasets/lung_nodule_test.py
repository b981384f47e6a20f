"""zoo_datasets.lung_nodule: what the labels mean, the builder."""

import numpy as np
import pytest

from source_harness import check_repeatable, check_simulated
from zoo.domain import Domain
from zoo_datasets.lung_nodule import phantom
from zoo_datasets.lung_nodule.lung_nodule_dataset_builder import Builder


@pytest.fixture(scope="module")
def patches():
    """(label, image) of several patients."""
    return [p for number in range(18) for p in phantom.patient(0, number, 8)]


def test_labels_tell_what_is_in_the_middle(patches):
    axis = np.arange(phantom.SIZE) - (phantom.SIZE - 1) / 2
    middle = np.hypot(axis, axis[:, None]) * phantom.SPACING < 1.5
    values = {label: [] for label in range(3)}
    for label, image in patches:
        values[label].append(np.median(image[middle]))
    assert all(len(v) > 25 for v in values.values())
    none, solid, glass = (np.array(values[k]) for k in range(3))
    assert np.median(none) < -800
    assert np.mean(none < -700) > 0.75  # elsewhere a vessel or an airway's wall
    assert np.mean(solid > -150) > 0.9
    assert -700 < np.median(glass) < -400
    assert np.mean((glass > -750) & (glass < -350)) > 0.6


def test_patches_are_lung_and_differ(patches):
    images = np.stack([image for _, image in patches])
    assert images.dtype == np.int16 and images.min() >= -1024
    lung = ((images > -1000) & (images < -700)).mean((1, 2))
    assert np.median(lung) > 0.5 and lung.min() > 0.05
    walls = ((images > -150) & (images < 200)).mean((1, 2)) > 0.2
    assert 0.1 < walls.mean() < 0.6
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(images)
    assert 8 < np.median(np.abs(np.diff(images.astype(float), axis=2))) < 60  # noise and texture


def test_patient_follows_from_seed_and_number():
    check_repeatable(
        lambda seed, number: phantom.patient(seed, number, 4),
        lambda one, other: (one[0][1] != other[0][1]).mean(),
        0.5,
    )


def test_builder(tmp_path):
    builder = Builder(config="phantom_tiny", data_dir=tmp_path)
    image = ((64, 64, 1), np.int16)
    splits = check_simulated(builder, (6, 1, 1), {"image": image}, each=4)
    domain = Domain.from_dict(builder.info.metadata["image"])
    assert domain.window == (-1000.0, 400.0) and domain.spacing == (0.7, 0.7)
    assert builder.info.features["label"].names == list(phantom.LABELS)
    labels = {int(e["label"]) for examples in splits.values() for e in examples}
    assert labels == {0, 1, 2}
