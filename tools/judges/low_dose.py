"""Low-dose CT: denoising of real scans with the noise of a low dose inserted."""

import dataclasses
import hashlib
import itertools
from collections.abc import Callable

import numpy as np
from scipy import ndimage

from tools import scans
from tools.judges.result import Result, patients_mean
from zoo import metrics
from zoo.atomic import replacing
from zoo.figures import display_windows
from zoo.physics import noise
from zoo.translator import Translator

HU = (-1024.0, 1500.0)
BRAIN = (-50.0, 130.0)  # display window of heads
LEVELS = (15, 30, 60, 120)  # HU of noise that is added
SHOWN = 60  # the level of the card's pictures
DOSES = (0.5, 0.25, 0.2, 0.1)  # of the scan whose noise it is, for the streaks' share
KERNELS = ("hann", "ramp")
SLICES = 2  # of each patient: they are alike, and BM3D is slow


@dataclasses.dataclass
class Case:
    """One slice at one level of noise, and what the model and the methods made of it.

    Attributes:
        scores: "psnr", "ssim" and "rmse" against the full dose, of each image by its name.
        spectra: noise power of each image and of the full dose.
        images: the images themselves, where they may be shown.
    """

    name: str
    patient: str
    level: int
    kernel: str
    scores: dict[str, dict[str, float]]
    spectra: dict[str, np.ndarray]
    images: dict[str, np.ndarray]

    def gain(self, key: str = "psnr") -> float:
        """How far the model is above BM3D."""
        return self.scores["model"][key] - self.scores["BM3D"][key]


def low_dose(model: Translator, texture: bool = False) -> Result:
    """Denoising of real CT with the noise of a low dose inserted, against BM3D, TV and NLM.

    Args:
        model: of CT in HU.
        texture: judge by the noise-power spectrum rather than by PSNR alone.
    """
    cases = _cases(model)
    figures = _figures(cases)
    mean = figures["psnr_over_bm3d_db"][0]
    # The texture is compared unrounded, as the lowest gain is.
    distance = {name: _distance(cases, name) for name in ("model", "BM3D")}
    if texture:
        checks = {
            "PSNR at most 0.5 dB below BM3D's": mean >= -0.5,
            "noise-power spectrum nearer to the full dose's than BM3D's": distance["model"]
            < distance["BM3D"],
        }
    else:
        checks = {
            "PSNR at least 0.5 dB above BM3D's on average": mean >= 0.5,
            "PSNR never below BM3D's": min(case.gain() for case in cases) >= 0,
            "SSIM above BM3D's": figures["ssim_over_bm3d"][0] > 0,
        }
    slices = {(case.name, case.patient) for case in cases}
    patients = {case.patient for case in cases}
    judged = (
        f"{len(cases)} images: {len(slices)} real CT slices of {len(patients)} patients, head "
        f"and body, each with simulated low-dose noise of {', '.join(map(str, LEVELS))} HU"
    )
    return Result(judged, figures, checks, _table(cases), _pictures(cases))


def _cases(model: Translator) -> list[Case]:
    cases = []
    for index, scan in enumerate(few(scans.ct())):
        flat = flat_places(scan.image)
        for number, (level, dose) in enumerate(zip(LEVELS, DOSES, strict=True)):
            kernel = KERNELS[(index + number) % 2]
            source = noisy(scan, level, dose, kernel)
            images = {"input": source, "model": model.translate(source)}
            for name, method in DENOISERS.items():
                images[name] = _kept(name, source, level, method)
            scores = {name: _scores(image, scan.image) for name, image in images.items()}
            images = {"full dose": scan.image} | images
            spectra = {name: noise_power(image, flat) for name, image in images.items()}
            kept = images if level == SHOWN else {}
            case = Case(scan.name, scan.patient, level, kernel, scores, spectra, kept)
            cases.append(case)
    return cases


def _scores(image: np.ndarray, full: np.ndarray) -> dict[str, float]:
    return {
        "psnr": metrics.psnr(image[..., None], full[..., None], HU),
        "ssim": metrics.ssim(image[..., None], full[..., None], HU),
        "rmse": metrics.rmse(np.clip(image, *HU), np.clip(full, *HU)),
    }


def _figures(cases: list[Case]) -> dict:
    patients = [case.patient for case in cases]

    def mean(name: str, key: str, digits: int = 2) -> list[float]:
        return patients_mean([case.scores[name][key] for case in cases], patients, digits)

    def mean_gain(key: str, digits: int = 2) -> list[float]:
        return patients_mean([case.gain(key) for case in cases], patients, digits)

    return {
        "psnr_db": mean("model", "psnr"),
        "psnr_bm3d_db": mean("BM3D", "psnr"),
        "psnr_over_bm3d_db": mean_gain("psnr"),
        "psnr_over_bm3d_db_lowest": round(min(case.gain() for case in cases), 2),
        "ssim": mean("model", "ssim", 4),
        "ssim_over_bm3d": mean_gain("ssim", 4),
        "rmse_hu": mean("model", "rmse"),
        "rmse_input_hu": mean("input", "rmse"),
        "noise_power_distance": round(_distance(cases, "model"), 3),
        "noise_power_distance_bm3d": round(_distance(cases, "BM3D"), 3),
    }


def _distance(cases: list[Case], name: str) -> float:
    """Mean distance of an image's noise power from the full dose's, in decades."""
    return float(np.mean([decades(c.spectra[name], c.spectra["full dose"]) for c in cases]))


def _table(cases: list[Case]) -> list[list[str]]:
    """PSNR by level and kernel."""
    table = [["noise added", "input", *DENOISERS, "this model", "over BM3D"]]
    for level, kernel in itertools.product(LEVELS, KERNELS):
        part = [case for case in cases if (case.level, case.kernel) == (level, kernel)]
        means = {
            name: np.mean([case.scores[name]["psnr"] for case in part])
            for name in ("input", *DENOISERS, "model")
        }
        over, worst = means["model"] - means["BM3D"], min(case.gain() for case in part)
        numbers = [f"{value:.2f}" for value in means.values()]
        table.append([f"{level} HU, {kernel}", *numbers, f"{over:+.2f} (≥ {worst:+.2f})"])
    return table


def _pictures(cases: list[Case]) -> list:
    """Rows of the cases where the model is least and most above BM3D."""
    shown = sorted((case for case in cases if case.images), key=Case.gain)
    rows = []
    for case in (shown[0], shown[-1]):
        windows = {"brain, -50 to 130 HU": BRAIN}
        if "head" not in case.name:
            windows = display_windows([case.images["full dose"]], "HU", HU)
        panels = {name: case.images[name] for name in ("input", "BM3D", "model", "full dose")}
        for where, window in windows.items():
            label = f"{case.name}, {case.level} HU, {case.kernel}: {where}"
            rows.append((label, panels, window))
    return rows


def few(slices: list[scans.Slice]) -> list[scans.Slice]:
    """`SLICES` of each patient, evenly spread."""
    chosen = []
    for _, group in itertools.groupby(slices, lambda one: one.patient):
        whole = list(group)
        step = max(1, len(whole) // SLICES)
        chosen += whole[step // 2 :: step][:SLICES]
    return chosen


def noisy(scan: scans.Slice, level: float, dose: float, kernel: str) -> np.ndarray:
    """The slice with noise of `level` HU in its body, with the texture of that dose and kernel."""
    spacing = float(np.mean(scan.spacing)) if scan.spacing else 0.6
    seed = int(hashlib.sha256(f"{scan.name}{level}".encode()).hexdigest()[:8], 16)
    added = noise.simulate_low_dose(scan.image, spacing, dose, filter=kernel, rng=seed)
    added -= scan.image
    body = scan.image > -500
    return np.clip(scan.image + added * (level / added[body].std()), -1024, 3071)


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


def _kept(name: str, image: np.ndarray, level: float, method: Callable) -> np.ndarray:
    """What a method made of an image, from the folder where it has been asked before."""
    image = np.ascontiguousarray(image, np.float32)
    key = hashlib.sha256(image.tobytes() + f"{name}{level}".encode()).hexdigest()[:24]
    path = scans.FOLDER / "methods" / f"{name}-{key}.npy"
    if not path.exists():
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.save(file, np.asarray(method(image, level), np.float32))
    return np.load(path)


_BLOCK = 32


def flat_places(image: np.ndarray) -> list[tuple[int, int]]:
    """Corners of the 12 flattest blocks of soft tissue, by the full dose's smoothed image."""
    smooth = ndimage.gaussian_filter(image, 3)
    places = []
    for row in range(0, image.shape[0] - _BLOCK + 1, _BLOCK // 2):
        for column in range(0, image.shape[1] - _BLOCK + 1, _BLOCK // 2):
            block = smooth[row : row + _BLOCK, column : column + _BLOCK]
            if block.min() > -150 and block.max() < 250:
                places.append((float(block.std()), row, column))
    return [place[1:] for place in sorted(places)[:12]]


def noise_power(image: np.ndarray, places: list[tuple[int, int]]) -> np.ndarray:
    """Radial noise-power spectrum in HU², of blocks less their fitted planes; 15 frequencies."""
    grid = np.stack(np.meshgrid(*[np.arange(_BLOCK)] * 2, indexing="ij"), -1).reshape(-1, 2)
    design = np.column_stack([grid, np.ones(len(grid))])
    power = np.zeros((_BLOCK, _BLOCK))
    for row, column in places:
        block = image[row : row + _BLOCK, column : column + _BLOCK].astype(float).ravel()
        block -= design @ np.linalg.lstsq(design, block, rcond=None)[0]
        power += np.abs(np.fft.fft2(block.reshape(_BLOCK, _BLOCK))) ** 2 / _BLOCK**2
    f = np.hypot(*np.meshgrid(*[np.fft.fftfreq(_BLOCK) * _BLOCK] * 2))
    ring = np.rint(f).astype(int)
    return np.array([power[ring == r].mean() / len(places) for r in range(1, _BLOCK // 2)])


def decades(spectrum: np.ndarray, reference: np.ndarray) -> float:
    """Mean distance of two spectra in decades."""
    return float(np.mean(np.abs(np.log10(spectrum + 1e-6) - np.log10(reference + 1e-6))))
