"""What judges and chooses denoisers of CT: other methods, and measures of what is left of noise."""

import hashlib
from collections.abc import Callable

import numpy as np
from scipy import ndimage

from tools import scans
from zoo import metrics
from zoo.atomic import replacing

HU = (-1024.0, 1500.0)
BODY = -500.0  # HU: above it is the body
BLOCK = 32  # pixels a side, of the flat places
OCTAVES = (0.02, 0.04, 0.08, 0.16, 0.32, 0.5)  # cycles a pixel


def fidelity(image: np.ndarray, full: np.ndarray) -> dict[str, float]:
    """ "psnr", "ssim", "rmse" against the full dose, and "structure" and "edges" of the error."""
    return {
        "psnr": metrics.psnr(image[..., None], full[..., None], HU),
        "ssim": metrics.ssim(image[..., None], full[..., None], HU),
        "rmse": metrics.rmse(np.clip(image, *HU), np.clip(full, *HU)),
    } | structure(image, full)


def structure(image: np.ndarray, full: np.ndarray) -> dict[str, float]:
    """How much of an image's error lies where the full dose has edges, in the body.

    The gradient is that of the full dose smoothed by one pixel. "structure" is the correlation of
    the absolute error with its magnitude: of noise that is spread evenly 0, of blurred edges high.
    It also rises as even noise falls. So does "edges" not, the error in HU for each HU a pixel of
    gradient: the root of the slope of the squared error over the squared gradient. It is in pixels:
    about how far the edges are off.
    """
    body = ndimage.gaussian_filter(full, 1.0) > BODY
    gradient = ndimage.gaussian_gradient_magnitude(np.clip(full, *HU).astype(float), 1.0)[body]
    error = np.abs(np.clip(image, *HU) - np.clip(full, *HU))[body]
    if not gradient.any() or not error.any():
        return {"structure": 0.0, "edges": 0.0}
    slope = np.cov(error**2, gradient**2)[0, 1] / np.var(gradient**2, ddof=1)
    return {
        "structure": float(np.corrcoef(error, gradient)[0, 1]),
        "edges": float(np.sqrt(max(slope, 0.0))),
    }


def noise_left(image: np.ndarray, source: np.ndarray, full: np.ndarray) -> list[float]:
    """Share of the added noise's power that the error has, in each of `OCTAVES`, in flat places."""
    places = flat_places(full)
    error, added = (noise_power(part - full, places) for part in (image, source))
    f = np.arange(1, BLOCK // 2) / BLOCK
    bands = [(f >= low) & (f < high) for low, high in zip(OCTAVES, OCTAVES[1:], strict=False)]
    return [float(error[band].sum() / added[band].sum()) for band in bands]


def _bm3d(image: np.ndarray, level: float) -> np.ndarray:
    import bm3d

    span = HU[1] - HU[0]
    return bm3d.bm3d(image / span, level / span) * span


def _tv(image: np.ndarray, level: float) -> np.ndarray:
    """Total variation; the weight is the noise level, of images scaled to the window."""
    from skimage.restoration import denoise_tv_chambolle

    span = HU[1] - HU[0]
    return denoise_tv_chambolle(image / span, weight=level / span) * span


def _nlm(image: np.ndarray, level: float) -> np.ndarray:
    """Non-local means with the settings of scikit-image's documentation for a known noise."""
    from skimage.restoration import denoise_nl_means

    return denoise_nl_means(
        image, patch_size=5, patch_distance=6, h=0.8 * level, sigma=level, fast_mode=True
    )


DENOISERS: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "TV": _tv,
    "NLM": _nlm,
    "BM3D": _bm3d,
}


def kept(name: str, image: np.ndarray, level: float, method: Callable) -> np.ndarray:
    """What a method made of an image, from the folder where it has been asked before."""
    image = np.ascontiguousarray(image, np.float32)
    key = hashlib.sha256(image.tobytes() + f"{name}{level}".encode()).hexdigest()[:24]
    path = scans.FOLDER / "methods" / f"{name}-{key}.npy"
    if not path.exists():
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.save(file, np.asarray(method(image, level), np.float32))
    return np.load(path)


def flat_places(image: np.ndarray) -> list[tuple[int, int]]:
    """Corners of the 12 flattest blocks of soft tissue, by the full dose's smoothed image."""
    smooth = ndimage.gaussian_filter(image, 3)
    places = []
    for row in range(0, image.shape[0] - BLOCK + 1, BLOCK // 2):
        for column in range(0, image.shape[1] - BLOCK + 1, BLOCK // 2):
            block = smooth[row : row + BLOCK, column : column + BLOCK]
            if block.min() > -150 and block.max() < 250:
                places.append((float(block.std()), row, column))
    return [place[1:] for place in sorted(places)[:12]]


def noise_power(image: np.ndarray, places: list[tuple[int, int]]) -> np.ndarray:
    """Radial noise-power spectrum in HU², of blocks less their fitted planes; 15 frequencies."""
    grid = np.stack(np.meshgrid(*[np.arange(BLOCK)] * 2, indexing="ij"), -1).reshape(-1, 2)
    design = np.column_stack([grid, np.ones(len(grid))])
    power = np.zeros((BLOCK, BLOCK))
    for row, column in places:
        block = image[row : row + BLOCK, column : column + BLOCK].astype(float).ravel()
        block -= design @ np.linalg.lstsq(design, block, rcond=None)[0]
        power += np.abs(np.fft.fft2(block.reshape(BLOCK, BLOCK))) ** 2 / BLOCK**2
    f = np.hypot(*np.meshgrid(*[np.fft.fftfreq(BLOCK) * BLOCK] * 2))
    ring = np.rint(f).astype(int)
    return np.array([power[ring == r].mean() / len(places) for r in range(1, BLOCK // 2)])


def decades(spectrum: np.ndarray, reference: np.ndarray) -> float:
    """Mean distance of two spectra in decades."""
    return float(np.mean(np.abs(np.log10(spectrum + 1e-6) - np.log10(reference + 1e-6))))
