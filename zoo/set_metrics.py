"""How like each other sets of images are, in NumPy: distribution distance and variety.

Sets are `[N, H, W, C]` arrays in physical units.
"""

import numpy as np
import scipy.ndimage

from zoo import metrics
from zoo.metrics import Window


def sliced_wasserstein(
    real: np.ndarray,
    fake: np.ndarray,
    *,
    seed: int = 0,
    patches: int = 128,
    projections: int = 128,
    repeats: int = 4,
    smallest: int = 16,
) -> dict[str, float]:
    """Sliced Wasserstein distance between two image sets (Karras et al. 2018, section 5), x 1e3.

    Each level of a Laplacian pyramid is described by `patches` random 7 x 7 patches an image,
    each set's channels scaled to zero mean and unit deviation. So the distance does not see a
    change of overall brightness or contrast. Finite sets of one distribution are not at 0: give
    the distance of two real sets of the same number of images beside it. Both sets are cut at
    the same places, which makes equal sets exactly 0.

    Args:
        real: `[N, H, W, C]`, any unit.
        fake: the same shape.
        seed: draws the places and the directions.
        patches: patches of each image at each level.
        projections: directions in each repeat.
        repeats: repeats; the distance is the mean over all directions.
        smallest: the coarsest level's shorter side is at least this, in pixels.

    Returns:
        Level ("64" for the level whose longer side is 64 pixels, finest first) to distance,
        and "mean" over the levels.
    """
    real, fake = np.asarray(real, np.float32), np.asarray(fake, np.float32)
    if real.ndim != 4 or real.shape != fake.shape or not len(real) or min(real.shape[1:3]) < 7:
        raise ValueError(
            "sliced_wasserstein: expected two sets [N, H, W, C] of one shape, at least 7 x 7 "
            f"pixels. Received: real {real.shape}, fake {fake.shape}"
        )
    distances: dict[str, float] = {}

    def compare(a: np.ndarray, b: np.ndarray) -> None:
        longer = max(a.shape[1:3])
        rng = np.random.default_rng([seed, longer])
        described = _descriptors(a, b, rng, patches)
        distances[str(longer)] = 1e3 * _projected_distance(*described, rng, projections, repeats)

    # What each halving takes away, and what is left at the end.
    while (min(real.shape[1:3]) + 1) // 2 >= smallest:
        halves = _pyramid_down(real), _pyramid_down(fake)
        up = [_pyramid_up(half, real.shape) for half in halves]
        compare(real - up[0], fake - up[1])
        real, fake = halves
    compare(real, fake)
    return distances | {"mean": float(np.mean(list(distances.values())))}


def _projected_distance(
    a: np.ndarray, b: np.ndarray, rng: np.random.Generator, projections: int, repeats: int
) -> float:
    """Mean over random directions of the Wasserstein distance of two sets `[N, D]` along them."""
    total = 0.0
    for _ in range(repeats):
        directions = rng.standard_normal((projections, a.shape[1])).astype(np.float32)
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        difference = np.sort(directions @ a.T, axis=1) - np.sort(directions @ b.T, axis=1)
        total += float(np.mean(np.abs(difference)))
    return total / repeats


def kid(real: np.ndarray, fake: np.ndarray) -> float:
    """Kernel inception distance (Binkowski et al. 2018, arXiv:1801.01401) of two sets of features.

    The unbiased estimate of the squared maximum mean discrepancy with the kernel (x · y / D + 1)³,
    of all images at once. Sets of one distribution have the mean 0, so it may be below 0; that
    mean does not depend on how many images there are, as a Fréchet distance does.

    Args:
        real, fake: `[N, D]` and `[M, D]`, N and M 2 or more. Their scale matters: those of a VGG
            network are best divided by the root mean square of the real ones.

    Returns:
        The distance, not multiplied by anything.
    """
    real, fake = np.asarray(real, np.float64), np.asarray(fake, np.float64)
    shapes = real.shape, fake.shape
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1]:
        raise ValueError(f"kid: expected [N, D] and [M, D]. Received: {shapes}")
    if min(len(real), len(fake)) < 2:
        raise ValueError(f"kid: expected 2 images or more in each set. Received: {shapes}")

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def within(a: np.ndarray) -> float:
        similar = kernel(a, a)  # the diagonal compares an image with itself
        return (similar.sum() - np.trace(similar)) / (len(a) * (len(a) - 1))

    return float(within(real) + within(fake) - 2 * kernel(real, fake).mean())


def octave_power(images: np.ndarray) -> np.ndarray:
    """Mean power of images in each octave of spatial frequency, the finest first.

    The octaves end at 1/2, 1/4, 1/8, … cycles a pixel; the last one holds at least two cycles an
    image. Each channel less its mean is seen through a Hann window, without which the jump from
    one edge of an image to the other would count as detail.

    Args:
        images: `[N, H, W, C]`, at least 8 x 8 pixels.

    Returns:
        `[octaves]`, in the images' unit squared, in proportion to their variance.

    Raises:
        ValueError: for other shapes.
    """
    images = np.asarray(images, np.float64)
    if images.ndim != 4 or not len(images) or min(images.shape[1:3]) < 8:
        raise ValueError(
            f"octave_power: expected [N, H, W, C] of 8 x 8 pixels or more. Received: {images.shape}"
        )
    height, width = images.shape[1:3]
    window = (np.hanning(height + 2)[1:-1, None] * np.hanning(width + 2)[1:-1])[..., None]
    mean = (window * images).sum((1, 2), keepdims=True) / window.sum()
    spectrum = np.abs(np.fft.fft2(window * (images - mean), axes=(1, 2))) ** 2
    power = spectrum.mean((0, 3)) / (height * width * np.sum(window**2))
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    octaves = int(np.log2(min(height, width))) - 2
    ends = 0.5 / 2.0 ** np.arange(octaves)
    return np.array([power[(radius <= end) & (radius > end / 2)].sum() for end in ends])


def pair_similarity(images: np.ndarray, window: Window, *, seed: int = 0) -> float:
    """Mean MS-SSIM of 64 random pairs out of `[N, H, W, C]` (Odena et al. 2017).

    Well above the value of real images, a generator repeats itself. NaN for a single image and
    for images smaller than 11 x 11 pixels.
    """
    if len(images) < 2 or min(images.shape[1:3]) < 11:
        return float("nan")
    rng = np.random.default_rng(seed)
    pairs = [rng.choice(len(images), size=2, replace=False) for _ in range(64)]
    return float(np.mean([metrics.ms_ssim(images[a], images[b], window) for a, b in pairs]))


_BINOMIAL = np.array([1, 4, 6, 4, 1], np.float32) / 16


def _smooth(images: np.ndarray) -> np.ndarray:
    images = scipy.ndimage.convolve1d(images, _BINOMIAL, axis=1, mode="mirror")
    return scipy.ndimage.convolve1d(images, _BINOMIAL, axis=2, mode="mirror")


def _pyramid_down(images: np.ndarray) -> np.ndarray:
    return _smooth(images)[:, ::2, ::2]


def _pyramid_up(images: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Images of twice the sides, `shape`, which may be odd."""
    sparse = np.zeros(shape, np.float32)
    sparse[:, ::2, ::2] = 4 * images
    return _smooth(sparse)


def _descriptors(
    real: np.ndarray, fake: np.ndarray, rng: np.random.Generator, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """`count` random 7 x 7 patches of each image, of both sets at the same places: `[N * P, D]`."""
    height, width = real.shape[1:3]
    rows = rng.integers(height - 6, size=(len(real), count))
    columns = rng.integers(width - 6, size=(len(real), count))
    return _patches(real, rows, columns), _patches(fake, rows, columns)


def _patches(images: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """7 x 7 patches with these upper left corners, normalised by channel: `[N * P, C * 49]`."""
    windows = np.lib.stride_tricks.sliding_window_view(images, (7, 7), axis=(1, 2))
    patches = windows[np.arange(len(images))[:, None], rows, columns]
    patches = patches.reshape(-1, *patches.shape[2:])  # [N * P, C, 7, 7]
    patches = patches - patches.mean((0, 2, 3), keepdims=True)
    patches /= np.maximum(patches.std((0, 2, 3), keepdims=True), np.finfo(np.float32).tiny)
    return patches.reshape(len(patches), -1)
