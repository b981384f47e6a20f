"""Noise-free MR of many kinds of object, to train on.

An object is a simulated head, the deformed average brain or an image of random shapes, in one of
many contrasts.
"""

import numpy as np

from zoo_datasets.phantoms import atlas, brain, shapes

KINDS = {"head": 0.35, "average": 0.35, "shapes": 0.3}  # and their shares


def draw(rng: np.random.Generator, slices: int, size: int, spacing: float) -> np.ndarray:
    """Noise-free images of a random subject: float32 `[slices, size, size]` from 0, of any scale.

    Raises:
        FileNotFoundError: without `nilearn`.
    """
    kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    make = {"head": _head, "average": _average, "shapes": _shapes}[kind]
    return make(rng, slices, size, spacing) * brain.bias_field(rng, size, spacing)


def _heights(rng: np.random.Generator, slices: int, extent: tuple[float, float]) -> list[float]:
    # The order of `slices.heights` would round otherwise, and move the records' last bits.
    low, high = extent
    share = (np.arange(slices) + rng.uniform(size=slices)) / slices
    return (low + share * (high - low)).tolist()


def _head(rng: np.random.Generator, slices: int, size: int, spacing: float) -> np.ndarray:
    head = brain.Brain(rng, size, spacing)
    contrast = str(rng.choice(list(brain.PROTOCOLS)))
    heights = _heights(rng, slices, brain.EXTENT)
    return np.stack([head.signal(z, contrast) for z in heights])


def _average(rng: np.random.Generator, slices: int, size: int, spacing: float) -> np.ndarray:
    head = atlas.Subject(rng, size, spacing)
    contrast = str(rng.choice(atlas.CONTRASTS))
    heights = _heights(rng, slices, atlas.EXTENT)
    return np.stack([head.signal(head.slice(z), contrast) for z in heights])


def _shapes(rng: np.random.Generator, slices: int, size: int, _spacing: float) -> np.ndarray:
    """Shapes of any signal; half of them on the dark background that a head has."""
    images = []
    for _ in range(slices):
        values = np.concatenate([rng.uniform(0, 1, 16), np.zeros(int(rng.integers(0, 6)))])
        image = shapes.leaves(rng, size, values.astype(np.float32), 0.06)
        if rng.uniform() < 0.5:
            axis = np.linspace(-1, 1, size)
            image[np.hypot(axis / rng.uniform(0.6, 1), axis[:, None] / rng.uniform(0.6, 1)) > 1] = 0
        images.append(np.maximum(image, 0))
    return np.stack(images)
