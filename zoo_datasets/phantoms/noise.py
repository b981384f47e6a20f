"""Noise of a scanner: correlated, and that of filtered back projection."""

import numpy as np
import scipy.fft
from scipy.ndimage import gaussian_filter


def correlated(rng: np.random.Generator, size: int, sigma: float) -> np.ndarray:
    """Normal noise of unit variance, smoothed by `sigma` pixels; float32 `[size, size]`."""
    field = gaussian_filter(rng.standard_normal((size, size), np.float32), sigma, mode="wrap")
    return field / field.std()


def fbp_noise(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Noise as filtered back-projection leaves it: float32 `[..., H, W]`, standard deviation 1.

    White noise in the projections comes out with a power spectrum of |f| times the square of the
    apodisation (Riederer, Pelc and Chesler, Phys. Med. Biol. 23, 1978); here a Hann window up to
    the Nyquist frequency.
    """
    f = 2 * np.hypot(*np.meshgrid(*map(scipy.fft.fftfreq, shape[-2:]), indexing="ij"))
    window = np.where(f < 1, 0.5 + 0.5 * np.cos(np.pi * f), 0)
    response = (np.sqrt(f) * window).astype(np.float32)
    spectrum = scipy.fft.fft2(rng.standard_normal(shape, np.float32)) * response
    return scipy.fft.ifft2(spectrum).real / np.sqrt(np.mean(response**2))
