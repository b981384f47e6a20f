"""Image quality and overlap, in NumPy.

Images are `[H, W]` or `[H, W, C]` arrays in physical units, volumes `[D, H, W, C]`. What is "in a
window" is measured on values clipped to that window, and the window's width is the data range.
The structural measures follow Wang et al. 2004 (Gaussian weights of sigma 1.5 over 11 x 11
pixels, population covariance, K1 0.01, K2 0.03), computed by scikit-image, on values counted from
the window's low end: SSIM compares means by their ratio, so that it must not depend on where a
unit has its zero (water is 0 HU). Of a volume they are the mean over its axial slices, all others
are over the whole volume at once.
"""

from collections.abc import Sequence

import numpy as np
import scipy.ndimage
import skimage.metrics

# Wang, Simoncelli and Bovik 2003, section 3.2: exponents of the scales, finest first.
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
SYNTHRAD_WINDOW = (-1024.0, 3000.0)  # HU
_SSIM_SIZE = 11  # side of the Gaussian window, in pixels

Window = tuple[float, float]


def rmse(output: np.ndarray, target: np.ndarray) -> float:
    """Root mean squared error, in the images' own unit; nothing is clipped."""
    output, target = _pair(output, target)
    return float(np.sqrt(np.mean((output - target) ** 2)))


def mae(output: np.ndarray, target: np.ndarray) -> float:
    """Mean absolute error, in the images' own unit; nothing is clipped."""
    output, target = _pair(output, target)
    return float(np.mean(np.abs(output - target)))


def psnr(output: np.ndarray, target: np.ndarray, window: Window) -> float:
    """Peak signal-to-noise ratio in `window`, in dB; infinite for equal images.

    PSNR = 20 log10((high - low) / RMSE), both images clipped to [low, high].
    """
    output, target = _pair(output, target, window)
    return _decibels(output - target, window[1] - window[0])


def ssim(output: np.ndarray, target: np.ndarray, window: Window) -> float:
    """Structural similarity in `window`, at most 1 (Wang et al. 2004); mean over channels.

    Raises:
        ValueError: for images or axial slices smaller than 11 x 11 pixels.
    """
    output, target = _pair(output, target, window)
    span = window[1] - window[0]
    if output.ndim == 4:
        return _mean_of_slices(ssim, output, target, span)
    ms_ssim_scales(output.shape)  # refuses images that are too small
    return float(
        skimage.metrics.structural_similarity(
            target,
            output,
            data_range=span,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            channel_axis=-1,
        )
    )


def ms_ssim_scales(shape: Sequence[int]) -> int:
    """How many scales `ms_ssim` uses for images of `shape` `[H, W, ...]`: 1 to 5.

    Each scale halves the image and the coarsest must hold one 11 x 11 window, so five scales
    need 161 pixels (each scale rounds up).
    """
    side = min(shape[:2])
    if side < _SSIM_SIZE:
        raise ValueError(
            f"images: SSIM needs at least {_SSIM_SIZE} x {_SSIM_SIZE} pixels. "
            f"Received: shape {tuple(shape)}"
        )
    scales = 1
    while scales < len(MS_SSIM_WEIGHTS) and (side := -(-side // 2)) >= _SSIM_SIZE:
        scales += 1
    return scales


def ms_ssim(output: np.ndarray, target: np.ndarray, window: Window) -> float:
    """Multi-scale structural similarity in `window`, 0 to 1 (Wang et al. 2003, equation 7).

    Images too small for five scales get `ms_ssim_scales(shape)` of them, with those scales'
    weights divided by their sum: such a value is not comparable with a five-scale one, so
    record the number beside it. Negative terms count as 0, as in `tf.image.ssim_multiscale`.
    """
    output, target = _pair(output, target, window)
    span = window[1] - window[0]
    if output.ndim == 4:
        return _mean_of_slices(ms_ssim, output, target, span)
    weights = np.array(MS_SSIM_WEIGHTS[: ms_ssim_scales(output.shape)])
    weights /= weights.sum()
    value = np.ones(output.shape[-1])
    for scale, weight in enumerate(weights):
        if scale:
            output, target = _halve(output), _halve(target)
        similarity, structure = _ssim_terms(output, target, span)
        coarsest = scale == len(weights) - 1
        value *= np.maximum(similarity if coarsest else structure, 0.0) ** weight
    return float(value.mean())


def nmse(output: np.ndarray, target: np.ndarray, zero: float = 0.0) -> float:
    """Normalised mean squared error, |output - target|² / |target - zero|²; nothing is clipped.

    As fastMRI defines it (Zbontar et al. 2018, arXiv:1811.08839) where `zero` is 0.

    Args:
        output, target: of one shape.
        zero: the value of no signal. It is -1000 in HU, where 0 is water.

    Returns:
        0 for equal images; NaN for a target without any signal.
    """
    output, target = _pair(output, target)
    power = np.sum((target - zero) ** 2)
    return float(np.sum((output - target) ** 2) / power) if power else float("nan")


def body_mask(image: np.ndarray, threshold: float = -500.0) -> np.ndarray:
    """Where the patient's body is in CT: the largest connected part above `threshold`, filled.

    Lungs and bowel gas, which the body encloses in a slice, belong to it; the table, unless the
    patient's skin touches it, and smaller parts, such as an arm that lies apart, do not.

    Args:
        image: HU, `[H, W]`, `[H, W, C]` (the middle channel counts) or `[D, H, W, C]`, of which
            parts connect through the slices.
        threshold: in HU, between air and fat.

    Returns:
        bool, of the same shape with one channel, or `[H, W]`; all False where nothing is above
        the threshold.
    """
    image = np.asarray(image)
    plain = image if image.ndim == 2 else image[..., image.shape[-1] // 2]
    body = largest(plain > threshold)
    if body.ndim == 3:
        filled = np.stack([scipy.ndimage.binary_fill_holes(each) for each in body])
    else:
        filled = scipy.ndimage.binary_fill_holes(body)
    return filled if image.ndim == 2 else filled[..., None]


def largest(mask: np.ndarray) -> np.ndarray:
    """The largest part of a mask whose pixels or voxels connect by their faces."""
    parts, _ = scipy.ndimage.label(mask)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0  # what is not of the mask
    return mask & (parts == sizes.argmax())


def in_body(
    output: np.ndarray, target: np.ndarray, window: Window, mask: np.ndarray
) -> dict[str, float]:
    """What `compare` measures, in the patient's body alone.

    Args:
        output, target: of one shape.
        window: for the PSNR.
        mask: bool, of the images' shape, but for the channels; True in the body.

    Returns:
        `psnr_body` (dB, at most 100; clipped to the window), `rmse_body` and `mae_body` (unit; all
        values); NaN for an empty mask.

    Raises:
        ValueError: for a mask of another size.
    """
    output, target = _pair(output, target)
    mask = np.asarray(mask, bool).reshape(_mask_shape(mask, target))
    if not mask.any():
        return dict.fromkeys(("psnr_body", "rmse_body", "mae_body"), float("nan"))
    inside = output[mask][None], target[mask][None]  # [1, pixels, C]
    return {
        "psnr_body": min(psnr(*inside, window), 100.0),
        "rmse_body": rmse(*inside),
        "mae_body": mae(*inside),
    }


def fastmri(output: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """What fastMRI measures of a volume (its `evaluate.py`; Zbontar et al. 2018).

    SSIM with 7 x 7 uniform windows and sample covariance, slice by slice, and PSNR, both with the
    largest value of the target's volume as data range; NMSE of the whole volume. Nothing is
    clipped.

    Args:
        output, target: magnitudes `[D, H, W]`, `[D, H, W, 1]`, at least 7 x 7 pixels.

    Returns:
        `ssim_fastmri`, `psnr_fastmri` (dB, at most 100) and `nmse_fastmri`; NaN where the target
        is nowhere above 0.
    """
    output, target = (np.asarray(volume, np.float64) for volume in (output, target))
    output, target = (v.reshape(v.shape[:3]) for v in (output, target))
    span = float(target.max())
    if not span > 0:
        return dict.fromkeys(("ssim_fastmri", "psnr_fastmri", "nmse_fastmri"), float("nan"))
    pairs = zip(target, output, strict=True)
    similar = [skimage.metrics.structural_similarity(a, b, data_range=span) for a, b in pairs]
    return {
        "ssim_fastmri": float(np.mean(similar)),
        "psnr_fastmri": min(_decibels(output - target, span), 100.0),
        "nmse_fastmri": nmse(output, target),
    }


def synthrad(output: np.ndarray, target: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """What SynthRAD2023 measures of a synthetic CT (its `image_metrics.py`).

    Huijben et al. 2024, arXiv:2403.08447. Values are clipped to -1024 to 3000 HU for PSNR and
    SSIM, whose data range is 4024 HU, and not for the mean absolute error. SSIM is in three
    dimensions, with uniform windows of 7 x 7 x 7 voxels and sample covariance, of volumes that are
    -1024 HU outside the mask and counted from there; it is the mean of its map where the mask is,
    less 3 voxels at each face of the volume.

    Args:
        output, target: HU `[D, H, W]` or `[D, H, W, 1]`, at least 7 voxels a side.
        mask: of the same shape, True in the body.

    Returns:
        `ssim_synthrad`, `psnr_synthrad` (dB, at most 100) and `mae_synthrad` (HU); NaN where the
        mask is empty there.
    """
    output, target = (np.asarray(volume, np.float64) for volume in (output, target))
    output, target = (v.reshape(v.shape[:3]) for v in (output, target))
    mask = np.asarray(mask, bool).reshape(target.shape)
    names = ("ssim_synthrad", "psnr_synthrad", "mae_synthrad")
    inner = (slice(3, -3),) * 3
    if not mask[inner].any():
        return dict.fromkeys(names, float("nan"))
    low, high = SYNTHRAD_WINDOW
    a, b = (np.clip(volume, low, high) - low for volume in (target, output))
    _, similar = skimage.metrics.structural_similarity(
        a * mask, b * mask, data_range=high - low, full=True
    )
    values = (
        float(similar[inner][mask[inner]].mean()),
        min(_decibels((b - a)[mask], high - low), 100.0),
        float(np.mean(np.abs(output - target)[mask])),
    )
    return dict(zip(names, values, strict=True))


def compare(
    output: np.ndarray,
    target: np.ndarray,
    window: Window,
    *,
    mask: np.ndarray | None = None,
    zero: float = 0.0,
) -> dict[str, float]:
    """All pixel-wise measures of one image or volume against its target.

    Args:
        output, target: of one shape.
        window: of PSNR, SSIM and what is measured in the window.
        mask: the body, for `in_body`.
        zero: the value of no signal, for `nmse`.

    Returns:
        `psnr` (dB, limited to 100 so that equal images have a finite mean), `ssim`, `ms_ssim`,
        `rmse_window` and `mae_window` (unit; clipped to the window), `rmse` and `mae` (unit;
        all values), `nmse`, and with a mask what `in_body` gives.
    """
    clipped, reference = np.clip(output, *window), np.clip(target, *window)
    measured = {
        "psnr": min(psnr(output, target, window), 100.0),
        "ssim": ssim(output, target, window),
        "ms_ssim": ms_ssim(output, target, window),
        "rmse_window": rmse(clipped, reference),
        "mae_window": mae(clipped, reference),
        "rmse": rmse(output, target),
        "mae": mae(output, target),
        "nmse": nmse(output, target, zero),
    }
    return measured | ({} if mask is None else in_body(output, target, window, mask))


def dice(output: np.ndarray, target: np.ndarray, classes: int) -> np.ndarray:
    """Overlap of each class, 2 |A and B| / (|A| + |B|) (Dice 1945), from 0 to 1.

    Args:
        output, target: label maps of one shape, whole numbers from 0 to `classes - 1`.
        classes: number of classes, the background included.

    Returns:
        float64 `[classes]`, the background first; NaN for a class that neither map holds, so that
        `np.nanmean(dice(...)[1:])` is the mean over the foreground classes that are there.

    Raises:
        ValueError: for maps of different shapes, or values that name no class.
    """
    output, target = np.asarray(output), np.asarray(target)
    if output.shape != target.shape:
        raise ValueError(
            "output, target: expected label maps of one shape. "
            f"Received: {output.shape} and {target.shape}"
        )
    for name, labels in (("output", output), ("target", target)):
        strange = labels[~((labels >= 0) & (labels < classes) & (labels % 1 == 0))]
        if strange.size:
            raise ValueError(
                f"{name}: expected labels from 0 to {classes - 1}. Received: {strange[0]:g} "
                f"in {strange.size} of {labels.size} pixels"
            )
    output, target = output.astype(np.int64), target.astype(np.int64)
    both, ours, theirs = (
        np.bincount(labels.ravel(), minlength=classes)
        for labels in (target[output == target], output, target)
    )
    sizes = ours + theirs
    return np.divide(2 * both, sizes, out=np.full(classes, np.nan), where=sizes > 0)


def _pair(output, target, window: Window | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64 `[H, W, C]` or `[D, H, W, C]`.

    Where a window is given both are clipped to it, and counted from its low end.
    """
    output, target = np.asarray(output, np.float64), np.asarray(target, np.float64)
    if output.shape != target.shape or output.ndim not in (2, 3, 4):
        raise ValueError(
            "output, target: expected two images of one shape, [H, W], [H, W, C] or "
            f"[D, H, W, C]. Received: {output.shape} and {target.shape}"
        )
    if output.ndim == 2:
        output, target = output[..., None], target[..., None]
    if window is not None:
        output, target = (np.clip(image, *window) - window[0] for image in (output, target))
    return output, target


def _decibels(error: np.ndarray, span: float) -> float:
    """20 log10(span / RMS of the error), in dB; infinite for no error."""
    with np.errstate(divide="ignore"):
        return float(10 * np.log10(span**2 / np.mean(error**2)))


def _mask_shape(mask: np.ndarray, image: np.ndarray) -> tuple[int, ...]:
    """The shape of an image's mask, without channels."""
    if np.shape(mask) not in (image.shape[:-1], (*image.shape[:-1], 1)):
        raise ValueError(
            f"mask: expected shape {(*image.shape[:-1], 1)}. Received: {np.shape(mask)}"
        )
    return image.shape[:-1]


def _mean_of_slices(measure, output: np.ndarray, target: np.ndarray, span: float) -> float:
    """The mean over axial slices of what `_pair` has counted from the window's low end."""
    pairs = zip(output, target, strict=True)
    return float(np.mean([measure(a, b, (0.0, span)) for a, b in pairs]))


def _ssim_terms(a: np.ndarray, b: np.ndarray, span: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean SSIM and mean contrast-structure term of each channel, values from 0 to `span`."""
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    radius = _SSIM_SIZE // 2

    def local_mean(x):
        x = scipy.ndimage.gaussian_filter(x, 1.5, radius=radius, axes=(0, 1))
        return x[radius:-radius, radius:-radius]

    mean_a, mean_b = local_mean(a), local_mean(b)
    covariance = local_mean(a * b) - mean_a * mean_b
    variances = local_mean(a * a) - mean_a**2 + local_mean(b * b) - mean_b**2
    structure = (2 * covariance + c2) / (variances + c2)
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return (luminance * structure).mean((0, 1)), structure.mean((0, 1))


def _halve(image: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 pixels; an odd last row or column counts twice."""
    height, width, channels = image.shape
    image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="symmetric")
    return image.reshape(-(-height // 2), 2, -(-width // 2), 2, channels).mean((1, 3))
