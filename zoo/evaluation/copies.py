"""Generated images that copy a training image, also mirrored, shifted or windowed otherwise.

Copies are looked for in an embedding that is trained on the training images themselves: views of
one image, mirrored, shifted and windowed anew, are to lie together, and images apart. Its features
are the magnitudes of low spatial frequencies, which shifts and mirror images leave nearly as they
are; its projection is Fisher's, that of the largest scatter between images over that between views
of one (linear discriminant analysis), found in closed form. Dar et al. (2024, arXiv:2402.01054)
have shown that distances of pixels miss such copies, and that a threshold is to come from real
images that were not trained on. Imports no TensorFlow.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator

import numpy as np
import scipy.linalg

from zoo.metrics import Window

_SIDE = 64  # pixels to which the shorter side of larger images is averaged down, about
_LOW = 24  # spatial frequencies that count, in cycles an image, below this
_FIT = 1000  # training images that the embedding is trained on
_VIEWS = 8  # of each of them
_KEPT = 96  # dimensions
_CHUNK = 256  # images at once
_SHIFT = 1 / 8  # of the side, at most
_GAIN = 1.25  # of contrast and of the exponent, at most
_OFFSET = 0.05  # of the window, at most
_NOISE = 0.005  # of the window, standard deviation, at most: no copy has all of the detail
_MISSED = 0.005  # share of planted copies that the threshold may miss
_SAME = 1 - 1e-5  # similarity of an image to itself, in float32


@dataclasses.dataclass(frozen=True)
class NearestTraining:
    """How near generated images are to the training images, beside held-out real images.

    Similarity is the cosine in the embedding: 1 for the same image, around 0 for unlike ones.

    Attributes:
        similarity: `[N]`, of each generated image to its nearest training image.
        index: `[N]`, position of that training image.
        nearest: `[N, H, W, C]`, that training image.
        held_out_similarity: `[M]`, the same of held-out real images.
        percentile: `[N]`, percentage of held-out images that are at least as near.
        threshold: half way from the nearest held-out image to where 99.5 % of planted copies are
            nearer; where they are not, a quarter of the way to the same image.
        flagged: `[N]`, nearer than the threshold: likely a copy.
        held_out_copies: held-out images that are themselves in the training set; if not 0 the
            split leaks and the threshold means little.
        found: share of other planted copies that are nearer than the threshold.
        training: training images compared.
    """

    similarity: np.ndarray
    index: np.ndarray
    nearest: np.ndarray
    held_out_similarity: np.ndarray
    percentile: np.ndarray
    threshold: float
    flagged: np.ndarray
    held_out_copies: int
    found: float
    training: int


def nearest_training(
    generated: np.ndarray,
    training: Iterable[np.ndarray],
    held_out: np.ndarray,
    window: Window,
    *,
    seed: int = 0,
) -> NearestTraining:
    """Looks for generated images that copy a training image: a screen, not a proof of privacy.

    Args:
        generated: `[N, H, W, C]`.
        training: training images `[H, W, C]`, read once and not kept.
        held_out: `[M, H, W, C]`, real images of other patients: how near is normal.
        window: of the images' values, outside which nothing counts.
        seed: draws the views.

    Raises:
        ValueError: for an empty set, fewer than two training images, or shapes that differ.
    """
    generated, held_out = np.asarray(generated, np.float32), np.asarray(held_out, np.float32)
    shapes = {array.shape[1:] for array in (generated, held_out)}
    if generated.ndim != 4 or len(shapes) != 1 or not len(generated) or not len(held_out):
        raise ValueError(
            "nearest_training: expected generated and held_out [N, H, W, C] of one size. "
            f"Received: {generated.shape} and {held_out.shape}"
        )
    # The embedding, trained on the first images, and how near copies of these come.
    rng = np.random.default_rng(seed)
    chunks = _chunks(training, generated.shape[1:])
    first = list(itertools.islice(chunks, _FIT // _CHUNK + 1))
    count = sum(map(len, first))
    if count < 2:
        raise ValueError(f"training: expected at least two images. Received: {count}")
    sample = np.concatenate([reduced(images, window) for images in first])[:_FIT]
    embedding = Embedding.fit(sample, rng)
    originals = embedding(sample)
    planted, others = ((embedding(view(sample, rng)) * originals).sum(1) for _ in range(2))
    # Generated and held-out images are looked for alike, among all training images.
    queries = np.concatenate([embedding(reduced(each, window)) for each in (generated, held_out)])
    best = np.full(len(queries), -np.inf)
    index = np.full(len(queries), -1)
    nearest = np.zeros_like(generated)
    count = 0
    for images in itertools.chain(first, chunks):
        similar = queries @ embedding(reduced(images, window)).T
        position = similar.argmax(1)
        similar = similar.max(1)
        closer = np.flatnonzero(similar > best)
        best[closer], index[closer] = similar[closer], count + position[closer]
        ours = closer[closer < len(generated)]
        nearest[ours] = images[position[ours]]
        count += len(images)
    # Nearer than this is a copy.
    ours, theirs = best[: len(generated)], best[len(generated) :]
    other, nearly_all = float(theirs.max()), float(np.quantile(planted, _MISSED))
    threshold = (other + nearly_all) / 2 if nearly_all > other else other + (1 - other) / 4
    farther = np.searchsorted(np.sort(theirs), ours, side="left")
    return NearestTraining(
        similarity=ours,
        index=index[: len(generated)],
        nearest=nearest,
        held_out_similarity=theirs,
        percentile=100 * (1 - farther / len(theirs)),
        threshold=threshold,
        flagged=ours > threshold,
        held_out_copies=int(np.sum(theirs > _SAME)),
        found=float(np.mean(others > threshold)),
        training=count,
    )


def nearness(made: np.ndarray, images: Iterable[np.ndarray], window: Window) -> list[float]:
    """How near the nearest of generated images comes to each of others, in their embedding.

    Args:
        made: `[N, H, W, C]`, at least two.
        images: `[H, W, C]`.
        window: of their values.
    """
    small = reduced(np.asarray(made, np.float32), window)
    embedding = Embedding.fit(small, np.random.default_rng(0))
    placed = embedding(small)
    near = []
    for image in images:
        one = embedding(reduced(np.asarray(image, np.float32)[None], window))
        near.append(float((one @ placed.T).max()))
    return near


@dataclasses.dataclass(frozen=True)
class Embedding:
    """Where images lie, so that views of one lie together.

    Attributes:
        mean: `[features]`.
        projection: `[features, dimensions]`.
    """

    mean: np.ndarray
    projection: np.ndarray

    @classmethod
    def fit(cls, images: np.ndarray, rng: np.random.Generator) -> "Embedding":
        """Trained on views of images `[n, h, w]` of `reduced`, at least two."""
        views = np.stack([_features(view(images, rng)) for _ in range(_VIEWS)])
        each, mean = views.mean(0), views.mean((0, 1))
        apart = (views - each).reshape(-1, views.shape[-1])
        within = apart.T @ apart / len(apart)
        # A twentieth of the mean variance is added: a few images do not tell all directions.
        within += 0.05 * np.trace(within) / len(within) * np.eye(len(within)) + 1e-9
        between = (each - mean).T @ (each - mean) / len(each)
        kept = min(_KEPT, len(each) - 1, len(mean))
        last = (len(mean) - kept, len(mean) - 1)
        found, projection = scipy.linalg.eigh(between, within, subset_by_index=last)
        # A direction counts by its share of what is of the image and not of the view (Wiener).
        ratio = np.maximum(found - 1 / _VIEWS, 0)
        return cls(mean, projection * ratio / (1 + ratio))

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Of images `[n, h, w]` of `reduced`: `[n, dimensions]` of length 1."""
        placed = (_features(images) - self.mean) @ self.projection
        return placed / np.maximum(np.linalg.norm(placed, axis=1, keepdims=True), 1e-9)


def reduced(images: np.ndarray, window: Window) -> np.ndarray:
    """Block means of about `_SIDE` pixels a side and of all channels, the window as [0, 1].

    Args:
        images: `[n, H, W, C]`.
        window: of their values.

    Returns:
        float32 `[n, h, w]`.
    """
    low, high = window
    factor = max(1, min(images.shape[1:3]) // _SIDE)
    height, width = (side // factor for side in images.shape[1:3])
    inside = np.clip(images[:, : height * factor, : width * factor].mean(-1), low, high)
    blocks = inside.reshape(len(images), height, factor, width, factor).mean((2, 4))
    return ((blocks - low) / (high - low)).astype(np.float32)


def view(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A view of each image `[n, h, w]` in [0, 1]: mirrored, shifted, windowed, with noise."""
    count, height, width = images.shape
    upside_down, mirrored = (rng.random((count, 1, 1)) < 0.5 for _ in range(2))
    images = np.where(upside_down, images[:, ::-1], images)
    images = np.where(mirrored, images[:, :, ::-1], images)
    # Shifted by whole pixels: what comes in repeats the edge.
    rows, columns = _shifted(height, count, rng), _shifted(width, count, rng)
    images = images[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None]]
    # Another gamma, gain and offset.
    exponent, gain = _GAIN ** rng.uniform(-1, 1, (2, count, 1, 1))
    offset = rng.uniform(-_OFFSET, _OFFSET, (count, 1, 1))
    noise = _NOISE * rng.random((count, 1, 1)) * rng.standard_normal(images.shape, np.float32)
    return np.clip(gain * images**exponent + offset + noise, 0, 1).astype(np.float32)


def _shifted(side: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """The places `[count, side]` that are seen after shifts along a side."""
    most = int(_SHIFT * side)
    return np.clip(np.arange(side) + rng.integers(-most, most + 1, (count, 1)), 0, side - 1)


def _features(images: np.ndarray) -> np.ndarray:
    """Logarithms of the magnitudes of low frequencies `[n, features]`, alike for mirror images."""
    height, width = images.shape[1:]
    # Half of a Hann window's exponent: edges of the image would outshine it, its rim counts.
    fading = np.sqrt(np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1]))
    mean = (fading * images).sum((1, 2), keepdims=True) / fading.sum()
    magnitude = np.abs(np.fft.fft2(fading * (images - mean)))
    power = np.sqrt((magnitude**2).mean((1, 2), keepdims=True))
    logs = np.log(magnitude / np.maximum(power, 1e-6) + 0.05)
    # Mirror images exchange the frequencies (u, v) and (-u, v).
    low = min(_LOW, height // 2), min(_LOW, width // 2)
    one = logs[:, : low[0], : low[1]]
    other = logs[:, -np.arange(low[0]) % height, : low[1]]
    mean_of_both = ((one + other) / 2).reshape(len(images), -1)[:, 1:]
    apart = np.abs(one - other)[:, 1:, 1:].reshape(len(images), -1) / 2
    return np.concatenate([mean_of_both, apart], axis=1)


def _chunks(images: Iterable[np.ndarray], shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Images of this shape, `_CHUNK` at once."""
    pending: list[np.ndarray] = []
    for image in images:
        pending.append(np.asarray(image, np.float32))
        if pending[-1].shape != shape:
            raise ValueError(
                f"training: expected images of shape {shape}. Received: {pending[-1].shape}"
            )
        if len(pending) == _CHUNK:
            yield np.stack(pending)
            pending = []
    if pending:
        yield np.stack(pending)
