"""The measures of docs/augmentation.md."""

import numpy as np
import pytest

from tools import augmentation


def test_auc_is_the_share_of_pairs_in_order():
    labels = np.array([0, 0, 1, 1])
    sure = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.1, 0.9]])
    assert augmentation.auc(sure, labels) == 1
    assert augmentation.auc(1 - sure, labels) == 0
    assert augmentation.auc(np.full((4, 2), 0.5), labels) == 0.5
    one_wrong = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.1, 0.9]])
    assert augmentation.auc(one_wrong, labels) == pytest.approx(3 / 4)


def test_an_interval_knows_of_repetitions_and_patients():
    rng = np.random.default_rng(1)
    by_patient = np.repeat(rng.normal(0, 10, (1, 40)), 5, 0)
    low, high = augmentation.interval(by_patient + 50)
    assert low < by_patient.mean() + 50 < high
    # As wide as forty patients make it: five times the same say no more.
    assert (high - low) / 2 == pytest.approx(1.96 * by_patient[0].std() / 40**0.5, rel=0.1)
    assert augmentation.verdict(by_patient + 50).startswith("**helps**")
    assert augmentation.verdict(by_patient - 50).startswith("**harms**")
    assert "no difference" in augmentation.verdict(by_patient - by_patient.mean())


def test_traditional_augmentation_moves_pixels_and_keeps_what_air_is():
    image = np.full((1, 64, 64, 1), -1000, np.float32)
    image[0, 30:34, 28:36] = 50
    changed = augmentation.changed(np.repeat(image, 50, 0), np.random.default_rng(0))
    bright = (changed > -500).sum((1, 2, 3))
    assert (bright == 32).all() and len({each.tobytes() for each in changed}) == 50
    assert np.abs(np.median(changed, (1, 2, 3)) + 1000).max() < 50
    rows, columns = np.nonzero((changed > -500).any(0)[..., 0])
    assert rows.min() >= 23 and rows.max() <= 40 and columns.min() >= 23 and columns.max() <= 40
