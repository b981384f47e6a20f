"""MR of many kinds at high and at low resolution: the examples of `sr/varied_mr`, to train on.

A subject is a simulated head (that of `sr/phantom_mr`), the deformed average brain (that of
`sr/mni152`) or an image of random shapes, each with a contrast, a pixel size, a sharpness, a noise
and a level of signal of its own, because files from different scanners share none of them. Most
low-resolution forms measure less of k-space; some average over pixels instead, as images do that
were reduced after the scan. No TensorFlow is imported.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.fft
from scipy.ndimage import gaussian_filter

from zoo.physics import resolution
from zoo_datasets.phantoms.mr_scan import MAXIMUM
from zoo_datasets.phantoms.mr_varied import draw
from zoo_datasets.sr.phantom import Protocol

SPACING = (0.5, 1.2)  # mm
LEVEL = (250.0, 3800.0)  # of the brightest half per cent of pixels
NOISE = (0.003, 0.04)  # standard deviation in a channel, of that level


def patient(protocol: Protocol, seed: int, number: int) -> list[dict[str, np.ndarray]]:
    """Slices of subject `number`, as `phantom.patient` gives them.

    Everything follows from (seed, number). The pixel size is drawn, `protocol.field` is not used.

    Raises:
        FileNotFoundError: without `nilearn`.
    """
    rng = np.random.default_rng([seed, number])
    scan = scanned(protocol, rng)
    reduce = reduction(rng)
    pitch = {"spacing": np.array([scan.spacing, scan.spacing], np.float32)}
    return [stored(image, protocol, reduce) | pitch for image in scan.images]


class Scan(NamedTuple):
    """A subject's slices.

    Attributes:
        images: complex `[slices, size, size]`.
        spacing: in mm.
        level: the brightest half per cent of the noise-free pixels begins there.
        noise: standard deviation in a channel, in the images' unit.
    """

    images: np.ndarray
    spacing: float
    level: float
    noise: float


def scanned(protocol: Protocol, rng: np.random.Generator) -> Scan:
    """A random subject in the scanner."""
    spacing = float(rng.uniform(*SPACING))
    images = _resolution(rng, draw(rng, protocol.slices, protocol.size, spacing))
    level, noise = (float(np.exp(rng.uniform(*np.log(each)))) for each in (LEVEL, NOISE))
    images *= level / np.quantile(images, 0.995)
    channels = rng.standard_normal((2, *images.shape), np.float32)
    complex_images = images + level * noise * (channels[0] + 1j * channels[1])
    return Scan(complex_images, spacing, level, level * noise)


Reduction = Callable[[np.ndarray, int], np.ndarray]


def reduction(rng: np.random.Generator) -> Reduction:
    """One of the ways to low resolution: image and scale to a magnitude image."""
    return (resolution.crop_kspace, _averaged, _blurred)[rng.choice(3, p=[0.6, 0.25, 0.15])]


def stored(image: np.ndarray, protocol: Protocol, reduce: Reduction) -> dict[str, np.ndarray]:
    """`target`, the magnitude of an image, and `source_x<scale>`, uint16 signal."""
    images = {"target": np.abs(image)}
    images |= {f"source_x{scale}": reduce(image, scale) for scale in protocol.scales}
    return {k: np.rint(v).clip(0, MAXIMUM).astype(np.uint16) for k, v in images.items()}


def _averaged(image: np.ndarray, scale: int) -> np.ndarray:
    return resolution.block_mean(np.abs(image), scale)


def _blurred(image: np.ndarray, scale: int) -> np.ndarray:
    return resolution.block_mean(gaussian_filter(np.abs(image), 0.3 * scale), scale)


def _resolution(rng: np.random.Generator, images: np.ndarray) -> np.ndarray:
    """Blurred, or measured on less of k-space and filled up with zeros, as scanners do."""
    if rng.uniform() < 0.5:
        sigma = rng.uniform(0.1, 0.9)
        return gaussian_filter(images, (0, sigma, sigma))
    size = images.shape[-1]
    f = 2 * np.abs(scipy.fft.fftfreq(size)) / rng.uniform(0.6, 1.0)
    window = np.where(f <= 1, 1 - rng.uniform(0, 0.46) * (1 - np.cos(np.pi * f)), 0)
    spectrum = scipy.fft.fft2(images) * (window * window[:, None]).astype(np.float32)
    return np.abs(scipy.fft.ifft2(spectrum)).astype(np.float32)
