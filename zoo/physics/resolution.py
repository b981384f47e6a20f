"""Lower resolution by physics: what a scanner with larger pixels would have measured.

Both ways keep one grid: at the scale s, pixel j of the result covers the pixels [s j, s j + s) of
the image along each axis, so its centre lies at the index s j + (s - 1) / 2 of the image.
"""

from collections.abc import Sequence

import numpy as np
import scipy.fft


def block_mean(image: np.ndarray, scale: int, axes: Sequence[int] = (-2, -1)) -> np.ndarray:
    """Mean over blocks of `scale` pixels along `axes`: a detector aperture `scale` times as wide.

    The model for computed tomography (binned detectors, thicker slices) and for any image whose
    pixels integrate over their area. Frequencies above the new Nyquist limit are damped by the
    aperture's sinc, not removed.

    Args:
        image: `[..., H, W]`, or `[..., D, H, W]` with axes (-3, -2, -1); any real type.
        scale: whole number; the sizes along `axes` must be multiples of it.
        axes: the axes to reduce.

    Returns:
        float32 with the sizes along `axes` divided by `scale`; the mean is that of `image`.

    Raises:
        ValueError: for a scale below 1 or sizes that are no multiples of it.
    """
    image = np.asarray(image, np.float32)
    axes = _checked(image, scale, axes)
    for axis in axes:
        shape = image.shape
        image = image.reshape(*shape[:axis], shape[axis] // scale, scale, *shape[axis + 1 :])
        image = image.mean(axis + 1)
    return image


def crop_kspace(image: np.ndarray, scale: int, axes: Sequence[int] = (-2, -1)) -> np.ndarray:
    """Magnitude image from the central 1 / `scale` of k-space along `axes`.

    The model for magnetic resonance imaging: a scan of the same field of view that measures fewer
    lines. With N samples and M = N / s along an axis, s the scale and X the DFT of the image,

        y[j] = 1 / N * sum over -M/2 <= k < M/2 of X[k] exp(2 pi i k (s j + (s - 1) / 2) / N),

    and the result is |y|. The linear phase puts sample j into the middle of its block; plain
    cropping would leave it on the block's first pixel. Frequencies that are kept are kept exactly,
    the others are cut, so edges ring (Gibbs) as they do on a scanner.

    Args:
        image: `[..., H, W]`, or `[..., D, H, W]` with axes (-3, -2, -1); real or complex.
        scale: whole number; the sizes along `axes` must be multiples of it.
        axes: the axes to reduce.

    Returns:
        float32 with the sizes along `axes` divided by `scale`, in the image's unit.

    Raises:
        ValueError: for a scale below 1 or sizes that are no multiples of it.
    """
    image = np.asarray(image)
    values = image.astype(np.complex64)
    for axis in _checked(image, scale, axes):
        n, m = values.shape[axis], values.shape[axis] // scale
        # The first ceil(m / 2) and the last floor(m / 2) entries are the lowest frequencies.
        keep = np.r_[0 : (m + 1) // 2, n - m // 2 : n]
        shift = np.exp(1j * np.pi * (scale - 1) * scipy.fft.fftfreq(n)[keep]) / scale
        shift = shift.astype(np.complex64).reshape(-1, *[1] * (values.ndim - 1 - axis))
        spectrum = np.take(scipy.fft.fft(values, axis=axis), keep, axis=axis)
        values = scipy.fft.ifft(spectrum * shift, axis=axis)
    return np.abs(values).astype(np.float32)


def _checked(image: np.ndarray, scale: int, axes: Sequence[int]) -> tuple[int, ...]:
    """`axes` counted from the front."""
    sizes = [image.shape[axis] for axis in axes]
    if scale != int(scale) or scale < 1 or any(size % scale for size in sizes):
        raise ValueError(
            f"scale: expected a whole number that divides the sizes {sizes}. Received: {scale}"
        )
    return tuple(axis % image.ndim for axis in axes)
