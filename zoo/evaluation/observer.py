"""Model observers: how well a known signal is told from its absence, as d' and AUC.

Channelized Hotelling observer with Laguerre-Gauss channels (Gallas, Barrett: Validating the use of
channels to estimate the ideal linear observer, JOSA A 2003), and the ideal observer of a signal in
stationary noise. AUC = Φ(d' / √2) where the observer's answers are normal. Imports no TensorFlow.
"""

import numpy as np
import scipy.special


def laguerre_gauss(size: int, width: float, count: int = 5) -> np.ndarray:
    """Channels for signals that are round, orthonormal but for what the region cuts off.

    Args:
        size: pixels a side of the region, whose middle the signal lies in.
        width: of the Gaussian, in pixels; about the signal's diameter times 1.5.
        count: channels, of the orders from 0 on.

    Returns:
        float64 `[size * size, count]`.
    """
    axis = np.arange(size) - (size - 1) / 2
    area = 2 * np.pi * (axis**2 + axis[:, None] ** 2) / width**2
    channels = []
    for order in range(count):
        channel = np.exp(-area / 2) * scipy.special.eval_laguerre(order, area)
        channels.append((channel / np.linalg.norm(channel)).ravel())
    return np.stack(channels, axis=1)


def hotelling(present: np.ndarray, absent: np.ndarray, paired: bool = False) -> float:
    """d'² of the channelized Hotelling observer, without the bias of few images.

    Args:
        present, absent: float `[n, channels]` and `[m, channels]`, what the channels give of
            images with the signal and of others without it.
        paired: whether those without are the same images, whose noise the mean signal then lacks.

    Returns:
        At least 0; the expectation is that of endlessly many images (Fukunaga and Hayes 1989).

    Raises:
        ValueError: for too few images to say anything.
    """
    n, m, channels = len(present), len(absent), present.shape[1]
    freedom = n - 1 if paired else n + m - 2
    if freedom <= channels + 1:
        raise ValueError(
            f"images: expected more than {channels + 3} with and without the signal. "
            f"Received: {n} and {m}"
        )
    apart = present.mean(0) - absent.mean(0)
    scatter = np.cov(present, rowvar=False) * (n - 1) + np.cov(absent, rowvar=False) * (m - 1)
    covariance = np.atleast_2d(scatter) / (n + m - 2)
    seen = apart @ np.linalg.solve(covariance, apart) * (freedom - channels - 1) / freedom
    by_chance = 0.0 if paired else channels * (1 / n + 1 / m)
    return max(float(seen - by_chance), 0.0)


def area_under_curve(detectability: float) -> float:
    """AUC, 0.5 to 1, of an observer whose d' is given."""
    return float(scipy.special.ndtr(detectability / np.sqrt(2)))


def noise_power(regions: np.ndarray) -> np.ndarray:
    """Noise power spectrum of square regions, averaged over rings of equal frequency.

    Args:
        regions: `[n, size, size]` of noise alone; the mean of each is taken away.

    Returns:
        float64 `[size, size]` in the unit squared and pixels, at the frequencies of `np.fft.fft2`;
        its mean is the noise's variance.
    """
    size = regions.shape[-1]
    centred = regions - regions.mean((-2, -1), keepdims=True)
    power = (np.abs(np.fft.fft2(centred)) ** 2).mean(0) / size**2
    axis = np.fft.fftfreq(size) * size
    ring = np.rint(np.hypot(axis, axis[:, None])).astype(int)
    means = np.bincount(ring.ravel(), power.ravel()) / np.bincount(ring.ravel())
    means[0] = means[1]  # the mean that was taken away
    return means[ring]


def ideal(signal: np.ndarray, power: np.ndarray) -> float:
    """d' of the observer that knows signal and noise: √ Σ |S|² / NPS.

    Args:
        signal: `[size, size]` in the unit.
        power: from `noise_power`, of the same size.
    """
    spectrum = np.abs(np.fft.fft2(signal)) ** 2 / signal.size
    return float(np.sqrt((spectrum / power).sum()))
