"""Copies of training images are found, whatever was done to them, and fresh images are not."""

import numpy as np
import pytest
import scipy.ndimage

from zoo.evaluation import copies

WINDOW = (-300.0, 300.0)


def images(count: int, seed: int, size: int = 32) -> np.ndarray:
    """Smooth noise `[count, size, size, 1]` of 100 units."""
    noise = np.random.default_rng(seed).normal(size=(count, size, size))
    smooth = scipy.ndimage.gaussian_filter(noise, (0, 1.5, 1.5))
    return (100 * smooth / smooth.std())[..., None].astype("float32")


def altered(batch: np.ndarray, seed: int) -> np.ndarray:
    """Each image mirrored, moved by parts of a pixel, brighter or darker, and with noise."""
    rng, found = np.random.default_rng(seed), []
    for image in batch[..., 0]:
        image = image[:: rng.choice([-1, 1]), :: rng.choice([-1, 1])]
        image = scipy.ndimage.shift(image, rng.uniform(-3, 3, 2), order=1, mode="nearest")
        image = image * rng.uniform(0.85, 1.2) + rng.uniform(-20, 20)
        found.append(image + rng.normal(0, 3, image.shape))
    return np.stack(found)[..., None].astype("float32")


def test_planted_copies_are_found_and_fresh_images_are_not():
    training, held_out, fresh = images(300, 0), images(60, 1), images(60, 2)
    made = np.concatenate([altered(training, 3), fresh])
    found = copies.nearest_training(made, iter(training), held_out, WINDOW)
    assert found.flagged[:300].mean() >= 0.99 and not found.flagged[300:].any()
    assert (found.index[:300] == np.arange(300)).mean() >= 0.99
    assert found.found >= 0.99 and found.held_out_copies == 0
    np.testing.assert_array_equal(found.nearest[7], training[found.index[7]])
    # Fresh images are as near as held-out ones.
    assert np.median(found.percentile[300:]) == pytest.approx(50, abs=20)
    assert found.percentile[0] == 0 and found.training == 300


def test_nearest_training_is_the_brute_force_answer(monkeypatch):
    training, made = images(25, 0), images(7, 1)
    whole = copies.nearest_training(made, training, made, WINDOW)
    small = copies.reduced(training, WINDOW)
    embedding = copies.Embedding.fit(small, np.random.default_rng(0))
    similar = embedding(copies.reduced(made, WINDOW)) @ embedding(small).T
    np.testing.assert_array_equal(whole.index, similar.argmax(1))
    np.testing.assert_allclose(whole.similarity, similar.max(1), atol=1e-6)
    monkeypatch.setattr(copies, "_CHUNK", 4)
    parts = copies.nearest_training(made, training, made, WINDOW)
    np.testing.assert_allclose(parts.similarity, whole.similarity, atol=1e-6)
    np.testing.assert_array_equal(parts.nearest, whole.nearest)


def test_a_leaking_split_is_told():
    training = images(20, 0)
    found = copies.nearest_training(images(5, 1), training, training[:6], WINDOW)
    assert found.held_out_copies == 6
    assert not found.flagged.any()


def test_mirror_images_are_one_in_the_embedding_and_large_images_are_averaged(monkeypatch):
    monkeypatch.setattr(copies, "_SIDE", 16)
    batch = images(12, 0, size=33)
    small = copies.reduced(batch, WINDOW)
    assert small.shape == (12, 16, 16)
    expected = (np.clip(batch[3, :2, 4:6, 0], *WINDOW).mean() + 300) / 600
    assert small[3, 0, 2] == pytest.approx(expected, abs=1e-6)
    embedding = copies.Embedding.fit(small, np.random.default_rng(0))
    for turned in (small[:, ::-1], small[:, :, ::-1], small[:, ::-1, ::-1]):
        np.testing.assert_allclose(embedding(turned), embedding(small), atol=1e-4)


def test_nearest_training_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="training: expected at least two images. Received: 1"):
        copies.nearest_training(images(2, 0), images(1, 0), images(2, 1), WINDOW)
    with pytest.raises(ValueError, match=r"training: expected images of shape \(32, 32, 1\)"):
        copies.nearest_training(images(2, 0), images(2, 0, size=24), images(2, 1), WINDOW)
    with pytest.raises(ValueError, match="of one size"):
        copies.nearest_training(images(2, 0), images(2, 0), images(2, 1, size=24), WINDOW)


def test_nearness_is_the_similarity_of_the_nearest_that_was_made():
    made, others = images(30, 0), images(6, 1)
    given = [*altered(made[:5], 2), *others]
    near = copies.nearness(made, given, WINDOW)
    small = copies.reduced(made, WINDOW)
    embedding = copies.Embedding.fit(small, np.random.default_rng(0))
    expected = embedding(copies.reduced(np.stack(given), WINDOW)) @ embedding(small).T
    np.testing.assert_allclose(near, expected.max(1), atol=1e-6)
    assert min(near[:5]) > max(near[5:])
