"""Images of shapes that hide one another ("dead leaves"): what natural images have in common.

Lee, Mumford, Huang: Occlusion models for natural images, Int. J. Comput. Vis. 41, 2001: discs
whose radii follow a power law with exponent 3 have the edges and the scale invariance of natural
images. A network that restores them has learned no anatomy, and so expects none. Importable without
TensorFlow.
"""

import numpy as np

from zoo_datasets.phantoms.noise import correlated


def leaves(
    rng: np.random.Generator,
    size: int,
    values: np.ndarray,
    texture: float,
    radii: tuple[float, float] = (1.5, 160.0),
    rough: tuple[float, float] = (0.0, 0.0),
) -> np.ndarray:
    """Ellipses and bars of random size, place and value, each over those before it.

    Args:
        rng: draws everything.
        size: height and width in pixels.
        values: that shapes take, drawn evenly, 1-D.
        texture: standard deviation of the values within a shape, at most.
        radii: smallest and greatest half axis in pixels.
        rough: share of the shapes whose texture is as strong as an edge, and its standard
            deviation: detail that only its surroundings tell from noise.

    Returns:
        float32 `[size, size]`.
    """
    low, high = (float(r) ** -2 for r in radii)
    fields = [correlated(rng, size, sigma) for sigma in (0.8, 2.0, 6.0)]
    image = np.full((size, size), rng.choice(values), np.float32)
    count = size * size // 20  # they cover the image about twice
    # The inverse of the cumulated density of r^-3.
    for radius in ((low + rng.uniform(size=count) * (high - low)) ** -0.5).tolist():
        long, short = radius, radius * rng.uniform(0.15, 1.0)
        angle = rng.uniform(0, np.pi)
        x, y = rng.uniform(-0.1 * size, 1.1 * size, 2)
        left, right = max(int(x - long) - 2, 0), min(int(x + long) + 3, size)
        top, bottom = max(int(y - long) - 2, 0), min(int(y + long) + 3, size)
        if left >= right or top >= bottom:
            continue
        # How deep each pixel lies in an ellipse or a bar.
        dx = np.arange(left, right, dtype=np.float32) - np.float32(x)
        dy = np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(y)
        u = (dx * np.cos(angle) + dy * np.sin(angle)).astype(np.float32)
        v = (dy * np.cos(angle) - dx * np.sin(angle)).astype(np.float32)
        if rng.uniform() < 0.7:
            inside = (1 - np.sqrt((u / long) ** 2 + (v / short) ** 2)) * short
        else:
            inside = np.minimum(0.7 * long - np.abs(u), 0.7 * short - np.abs(v))
        cover = np.clip(inside + 0.5, 0, 1)
        # Its value and grain, over what is there.
        grain = fields[rng.integers(3)][top:bottom, left:right]
        value, strength = rng.choice(values), rng.uniform(0, texture)
        if rough[0] and rng.uniform() < rough[0]:
            strength = rough[1]
        value = value + strength * grain
        part = image[top:bottom, left:right]
        part += cover * (value - part)
    return image
