"""Noise of low-dose computed tomography, in the projections and inserted into finished slices.

Detector model: a ray of line integral p that starts with I0 photons is read as

    y ~ Poisson(I0 exp(-p)) + N(0, sigma_e^2),      p_noisy = log(I0) - log(max(y, floor)).

To first order p_noisy has mean p and variance 1/n + (sigma_e / n)^2, n = I0 exp(-p).
"""

import numpy as np
from scipy import ndimage

from zoo.physics import radon

# A 120 kV scan behind its bow-tie filter, per ray; see `tube_current` for what it is the dose of.
PHOTONS = 1.0e5
ELECTRONIC = 10.0  # standard deviation of the electronic noise, in photons
AIR = -1000.0
_PADDING = -1500.0  # HU below this were never measured
_SMOOTH = 2.0  # detectors
_REFERENCE = 5.0  # line integral of about 26 cm of water


def tube_current(sinogram: np.ndarray, photons: float = PHOTONS) -> np.ndarray:
    """Photons per ray of each view under automatic exposure control: `[..., views, 1]`.

    The current follows the square root of the attenuation of the view's thickest part (Gies,
    Med. Phys. 26, 1999): `photons * exp((max p - 5) / 2)`, so `photons` is what a view gets whose
    greatest line integral is 5 (26 cm of water). Without it the lateral rays starve and their
    noise shows as streaks, which scanners of the last two decades do not produce.
    """
    thickest = np.max(np.asarray(sinogram, np.float32), axis=-1, keepdims=True)
    return (photons * np.exp((thickest - _REFERENCE) / 2)).astype(np.float32)


def low_dose_sinogram(
    p: np.ndarray,
    photons: float | np.ndarray,
    electronic: float,
    rng: np.random.Generator | int,
) -> np.ndarray:
    """One noisy measurement of the noise-free line integrals `p`.

    Args:
        p: line integrals, any shape, no unit.
        photons: I0, photons that leave the tube per ray; broadcast against `p`.
        electronic: sigma_e in photons.
        rng: generator or seed; the same one gives the same noise.

    Returns:
        Float32 line integrals of p's shape. Counts below `max(1, electronic)` are raised to it
        before the logarithm: a reading that cannot be told from none carries no logarithm. Only
        rays with a mean count near that floor are biased by it.

    Raises:
        ValueError: where photons are not positive or the electronic noise is negative.
    """
    _check_scan(photons, electronic)
    rng = np.random.default_rng(rng)
    p = np.asarray(p, np.float32)
    counts = rng.poisson(photons * np.exp(-p)).astype(np.float32)
    counts += np.float32(electronic) * rng.standard_normal(p.shape, np.float32)
    return np.log(np.asarray(photons, np.float32)) - np.log(np.maximum(counts, _floor(electronic)))


def added_variance(
    p: np.ndarray, dose: float, photons: float | np.ndarray, electronic: float
) -> np.ndarray:
    """Variance that p gains when the dose falls from 1 to the fraction `dose`; p's shape.

    With n = photons exp(-p) counts at full dose, the difference of the two variances is

        (1 - a) / (a n) + sigma_e^2 (1 - a^2) / (a n)^2,      a = dose

    (Yu et al., J. Comput. Assist. Tomogr. 36, 2012). The mean count at the reduced dose is taken
    as no lower than `max(1, electronic)`, where the logarithm's floor ends the growth.

    Raises:
        ValueError: for a dose outside (0, 1], photons that are not positive, or negative noise.
    """
    _check_scan(photons, electronic)
    if not 0 < dose <= 1:
        raise ValueError(f"dose: expected a fraction in (0, 1]. Received: {dose}")
    reduced = np.maximum(dose * photons * np.exp(-np.asarray(p, np.float32)), _floor(electronic))
    return (1 - dose) / reduced + electronic**2 * (1 - dose**2) / reduced**2


def simulate_low_dose(
    hu: np.ndarray,
    spacing_mm: float,
    dose: float,
    *,
    photons: float = PHOTONS,
    electronic: float = ELECTRONIC,
    views: int = 720,
    filter: str = "hann",
    rng: np.random.Generator | int = 0,
) -> np.ndarray:
    """Full-dose slices as a scan at the fraction `dose` of it would have shown them.

    Noise insertion: the slice is projected, each ray draws the noise that the reduced dose adds
    (normal, mean zero, `added_variance`), and the filtered back-projection of that noise alone is
    added to the slice. Anatomy is never re-projected, so it keeps its resolution, and the mean
    stays where it was. The slice's own noise stays in it and raises nothing: only the difference
    is drawn. Anatomy outside a truncated field of view is unknown and counts as air.

    Args:
        hu: `[H, W]` or `[N, H, W]` in HU; padding values below air count as air and stay.
        spacing_mm: pixel pitch in mm, rows and columns alike; also the detector pitch.
        dose: the fraction of the full dose, in (0, 1]; 1 returns the slice.
        photons: full-dose photons per ray, as in `tube_current`.
        electronic: standard deviation of electronic noise in photons.
        views: projection angles, a multiple of 4.
        filter: "hann" (soft, as body kernels are) or "ramp" (sharp), see `ParallelBeam.fbp`.
        rng: generator or seed.

    Returns:
        Float32 HU of the input's shape, not clipped.

    Raises:
        ValueError: for a wrong shape, dose, spacing, number of views or filter.
    """
    hu = np.asarray(hu, np.float32)
    if hu.ndim not in (2, 3) or 0 in hu.shape or not np.isfinite(hu).all():
        raise ValueError(f"hu: expected finite values of shape (H, W) or (N, H, W). "
                         f"Received: shape {hu.shape}")  # fmt: skip
    rng = np.random.default_rng(rng)
    height, width = hu.shape[-2:]
    size = max(height, width)
    top, left = (size - height) // 2, (size - width) // 2
    margins = ((top, size - height - top), (left, size - width - left))
    square = np.pad(hu.reshape(-1, height, width), ((0, 0), *margins), constant_values=AIR)
    beam = radon.ParallelBeam(size, spacing_mm, views)
    p = beam.forward(radon.hu_to_attenuation(square))
    deviation = np.sqrt(added_variance(p, dose, tube_current(p, photons), electronic))
    noise = beam.fbp(deviation * rng.standard_normal(p.shape, np.float32), filter)
    noise *= 1000.0 / radon.MU_WATER
    noise = noise[:, top : top + height, left : left + width].reshape(hu.shape)
    return np.where(hu < _PADDING, hu, hu + noise)


def deviation(sinogram: np.ndarray, photons: float, electronic: float) -> np.ndarray:
    """Standard deviation of the noise of each ray of a noisy sinogram, from itself; its shape.

    Args:
        sinogram: `[..., views, detectors]`, of `low_dose_sinogram` under the photons of
            `tube_current`. What its noise-free line integrals are is taken from it smoothed along
            the detectors, or few counts would be thought certain.
        photons: of `tube_current`.
        electronic: sigma_e in photons.

    Raises:
        ValueError: as `low_dose_sinogram`.
    """
    _check_scan(photons, electronic)
    smooth = ndimage.gaussian_filter1d(np.asarray(sinogram, np.float32), _SMOOTH, axis=-1)
    n = np.maximum(tube_current(smooth, photons) * np.exp(-smooth), _floor(electronic))
    return np.sqrt(1 / n + (electronic / n) ** 2)


def noise2inverse(parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs to learn from without a clean image: the mean of all parts but one, and that one.

    Hendriksen, Pelt and Batenburg 2020 (arXiv:2001.11801), the strategy X:1. The noise of the two
    is independent, so that the best guess of the target is the image without noise.

    Args:
        parts: images that K sets of views give (`ParallelBeam.split_fbp`), `[N, K, H, W]`, K > 1.

    Returns:
        Sources and targets, `[N * K, H, W]` each.
    """
    shape = (-1, *parts.shape[2:])
    others = (parts.sum(1, keepdims=True) - parts) / (parts.shape[1] - 1)
    return others.reshape(shape), parts.reshape(shape)


def _floor(electronic: float) -> float:
    return max(1.0, float(electronic))


def _check_scan(photons: float | np.ndarray, electronic: float) -> None:
    if not np.all(np.asarray(photons) > 0) or not electronic >= 0:
        raise ValueError(f"photons, electronic: expected more than 0, and 0 or more. "
                         f"Received: {photons}, {electronic}")  # fmt: skip
