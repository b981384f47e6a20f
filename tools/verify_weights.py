"""Measure the shipped pretrained models on images that they have never seen.

    python tools/verify_weights.py                   all of them; fails where a figure has changed
    python tools/verify_weights.py --write NAME ...  measure, and take the figures as the new ones

The figures of a model are in its entry of registry.yaml (`metrics`). Its card in zoo/weights, its
picture in docs/pictures and its row of docs/pretrained.md are written from them and nothing else.
What judges denoising and super-resolution are real scans of `tools/judges.py`, which are fetched
into the folder `verify`; the methods beside the models are those of maintained packages. BM3D takes
minutes, so what it and its like made of an image is kept there too.
"""

import argparse
import dataclasses
import hashlib
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "tools"))

import cards  # noqa: E402
import judges  # noqa: E402
import pretrained  # noqa: E402

import zoo  # noqa: E402
from zoo import metrics, registry  # noqa: E402
from zoo.data import batches, prepare  # noqa: E402
from zoo.evaluation import intervals  # noqa: E402
from zoo.figures import display_windows  # noqa: E402
from zoo.physics import fourier, noise, resolution  # noqa: E402

FOLDER = ROOT / "verify"
HU = (-1024.0, 1500.0)
BRAIN = (-50.0, 130.0)  # display window of heads
LEVELS = (15, 30, 60, 120)  # HU of noise that is added
DOSES = (0.5, 0.25, 0.2, 0.1)  # of the scan whose noise it is, for the streaks' share
KERNELS = ("hann", "ramp")
SLICES = 2  # of each patient: they are alike, and BM3D is slow


@dataclasses.dataclass
class Result:
    """What a model has shown.

    Attributes:
        judged_on: the images, in words.
        figures: name to number, or to [number, low, high] with a 95 % interval.
        checks: what it must show, in words, and whether it does.
        table: the rows of the card's table, the first its head.
        pictures: rows of images for the card: (label, images, window).
    """

    judged_on: str
    figures: dict[str, Any]
    checks: dict[str, bool]
    table: list[list[str]] = dataclasses.field(default_factory=list)
    pictures: list[tuple[str, dict[str, np.ndarray], tuple[float, float]]] = dataclasses.field(
        default_factory=list
    )


# Low-dose CT.


def low_dose(model, texture: bool = False) -> Result:
    """Denoising of real CT with the noise of a low dose inserted, against BM3D, TV and NLM.

    Args:
        model: of CT in HU.
        texture: judge by the noise-power spectrum rather than by PSNR alone.
    """
    rows, spectra, pictures = [], {}, []
    for index, scan in enumerate(_few(judges.ct())):
        for level, dose in zip(LEVELS, DOSES, strict=True):
            kernel = KERNELS[(index + LEVELS.index(level)) % 2]
            source = _noisy(scan, level, dose, kernel)
            images = {"input": source, "model": model.translate(source)}
            for name, method in DENOISERS.items():
                images[name] = _kept(name, source, level, method)
            row = {"name": scan.name, "patient": scan.patient, "level": level, "kernel": kernel}
            for name, image in images.items():
                row[name] = {
                    "psnr": metrics.psnr(image[..., None], scan.image[..., None], HU),
                    "ssim": metrics.ssim(image[..., None], scan.image[..., None], HU),
                    "rmse": metrics.rmse(*(np.clip(i, *HU) for i in (image, scan.image))),
                }
            rows.append(row)
            flat = _flat_places(scan.image)
            for name, image in {"full dose": scan.image, **images}.items():
                spectra.setdefault(name, []).append(_noise_power(image, flat))
            if level == 60:
                shown = {"full dose": scan.image, **images}
                pictures.append((row, shown))
    gain = [row["model"]["psnr"] - row["BM3D"]["psnr"] for row in rows]
    similar = [row["model"]["ssim"] - row["BM3D"]["ssim"] for row in rows]
    patients = [row["patient"] for row in rows]
    figures = {
        "psnr_db": _mean([row["model"]["psnr"] for row in rows], patients),
        "psnr_bm3d_db": _mean([row["BM3D"]["psnr"] for row in rows], patients),
        "psnr_over_bm3d_db": _mean(gain, patients),
        "psnr_over_bm3d_db_lowest": round(min(gain), 2),
        "ssim": _mean([row["model"]["ssim"] for row in rows], patients, 4),
        "ssim_over_bm3d": _mean(similar, patients, 4),
        "rmse_hu": _mean([row["model"]["rmse"] for row in rows], patients),
        "rmse_input_hu": _mean([row["input"]["rmse"] for row in rows], patients),
    }
    distance = {
        name: float(
            np.mean([_apart(a, b) for a, b in zip(each, spectra["full dose"], strict=True)])
        )
        for name, each in spectra.items()
    }
    figures["noise_power_distance"] = round(distance["model"], 3)
    figures["noise_power_distance_bm3d"] = round(distance["BM3D"], 3)
    mean = figures["psnr_over_bm3d_db"][0]
    if texture:
        checks = {
            "PSNR at most 0.5 dB below BM3D's": mean >= -0.5,
            "noise-power spectrum nearer to the full dose's than BM3D's": distance["model"]
            < distance["BM3D"],
        }
    else:
        checks = {
            "PSNR at least 0.5 dB above BM3D's on average": mean >= 0.5,
            "PSNR never below BM3D's": min(gain) >= 0,
            "SSIM above BM3D's": figures["ssim_over_bm3d"][0] > 0,
        }
    table = [["noise added", "input", *DENOISERS, "this model", "over BM3D"]]
    for level, kernel in itertools.product(LEVELS, KERNELS):
        part = [row for row in rows if (row["level"], row["kernel"]) == (level, kernel)]
        means = [np.mean([row[n]["psnr"] for row in part]) for n in ("input", *DENOISERS, "model")]
        worst = min(row["model"]["psnr"] - row["BM3D"]["psnr"] for row in part)
        over = means[-1] - means[1 + list(DENOISERS).index("BM3D")]
        table.append(
            [f"{level} HU, {kernel}", *(f"{m:.2f}" for m in means), f"{over:+.2f} (≥ {worst:+.2f})"]
        )
    scans = {(row["name"], row["patient"]) for row in rows}
    judged = (
        f"{len(rows)} images: {len(scans)} real CT slices of {len(set(patients))} patients, head "
        f"and body, each with simulated low-dose noise of {', '.join(map(str, LEVELS))} HU"
    )
    worst = sorted(pictures, key=lambda p: p[0]["model"]["psnr"] - p[0]["BM3D"]["psnr"])
    chosen = [worst[0], worst[-1]]
    shown = []
    for row, images in chosen:
        windows = {"brain, -50 to 130 HU": BRAIN}
        if "head" not in row["name"]:
            windows = display_windows([images["full dose"]], "HU", HU)
        label = f"{row['name']}, {row['level']} HU, {row['kernel']}"
        panels = {n: images[n] for n in ("input", "BM3D", "model", "full dose")}
        shown += [(f"{label}: {where}", panels, window) for where, window in windows.items()]
    return Result(judged, figures, checks, table, shown)


def _few(scans: list) -> list:
    """`SLICES` of each patient, evenly spread."""
    chosen = []
    for _, group in itertools.groupby(scans, lambda scan: scan.patient):
        group = list(group)
        step = max(1, len(group) // SLICES)
        chosen += group[step // 2 :: step][:SLICES]
    return chosen


def _noisy(scan, level: float, dose: float, kernel: str) -> np.ndarray:
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


DENOISERS: dict[str, Callable] = {"TV": _tv, "NLM": _nlm, "BM3D": _bm3d}


def _kept(name: str, image: np.ndarray, level: float, method: Callable) -> np.ndarray:
    """What a method made of an image, from the folder where it has been asked before."""
    image = np.ascontiguousarray(image, np.float32)
    key = hashlib.sha256(image.tobytes() + f"{name}{level}".encode()).hexdigest()[:24]
    path = FOLDER / "methods" / f"{name}-{key}.npy"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".part.npy")
        np.save(temporary, np.asarray(method(image, level), np.float32))
        temporary.replace(path)
    return np.load(path)


_BLOCK = 32


def _flat_places(image: np.ndarray) -> list[tuple[int, int]]:
    """Corners of the 12 flattest blocks of soft tissue, by the full dose's smoothed image."""
    smooth = ndimage.gaussian_filter(image, 3)
    places = []
    for row in range(0, image.shape[0] - _BLOCK + 1, _BLOCK // 2):
        for column in range(0, image.shape[1] - _BLOCK + 1, _BLOCK // 2):
            block = smooth[row : row + _BLOCK, column : column + _BLOCK]
            if block.min() > -150 and block.max() < 250:
                places.append((float(block.std()), row, column))
    return [place[1:] for place in sorted(places)[:12]]


def _noise_power(image: np.ndarray, places: list[tuple[int, int]]) -> np.ndarray:
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


def _apart(spectrum: np.ndarray, reference: np.ndarray) -> float:
    """Mean distance of two spectra in decades."""
    return float(np.mean(np.abs(np.log10(spectrum + 1e-6) - np.log10(reference + 1e-6))))


# Super-resolution of brain MRI.


def super_resolution(model, generator: bool = False) -> Result:
    """Real brain MRI from the middle of its k-space, against bicubic interpolation.

    Args:
        model: of MR.
        generator: judge it as the GAN that began from `srresnet_mri_x<scale>`.
    """
    scale, rows, pictures = model.scale, [], []
    models = {"model": model}
    if generator:
        models["first phase"] = zoo.load(f"srresnet_mri_x{scale}")
    for scan in judges.mr():
        rows_, columns = (side // 8 * 8 for side in scan.image.shape)
        target = scan.image[:rows_, :columns]
        target = target * np.float32(3000 / np.quantile(target, 0.995))
        source = resolution.crop_kspace(target, scale)
        images = {"bicubic": model.baseline(source[..., None])[0][..., 0]}
        images |= {name: each.translate(source) for name, each in models.items()}
        window = (0.0, float(target.max()))
        row = {"name": scan.name, "patient": scan.patient}
        for name, image in images.items():
            row[name] = {
                "psnr": metrics.psnr(image[..., None], target[..., None], window),
                "ssim": metrics.ssim(image[..., None], target[..., None], window),
                "sharpness": _steepness(image) / _steepness(target),
            }
        rows.append(row)
        pictures.append((row, images | {"reference": target}, window))
    patients = [row["patient"] for row in rows]

    def mean(name: str, key: str, minus: str = "", digits: int = 2) -> list[float]:
        less = [row[minus][key] if minus else 0.0 for row in rows]
        values = [row[name][key] - each for row, each in zip(rows, less, strict=True)]
        return _mean(values, patients, digits)

    figures = {
        "psnr_db": mean("model", "psnr"),
        "psnr_bicubic_db": mean("bicubic", "psnr"),
        "psnr_over_bicubic_db": mean("model", "psnr", "bicubic"),
        "ssim": mean("model", "ssim", digits=4),
        "ssim_over_bicubic": mean("model", "ssim", "bicubic", 4),
        "gradient_of_reference": mean("model", "sharpness", digits=3),
    }
    if generator:
        figures["psnr_below_first_phase_db"] = mean("first phase", "psnr", "model")
        figures["gradient_of_reference_first_phase"] = mean("first phase", "sharpness", digits=3)
        nearer = [
            abs(1 - figures[f"gradient_of_reference{which}"][0]) for which in ("", "_first_phase")
        ]
        checks = {
            "gradient magnitude nearer to the reference's than the first phase's": nearer[0]
            < nearer[1],
            "at most 1 dB of PSNR lost to the first phase": figures["psnr_below_first_phase_db"][0]
            <= 1,
        }
    else:
        checks = {}
    if scale == 2 and not generator:
        checks["PSNR at least 1 dB above bicubic's"] = figures["psnr_over_bicubic_db"][0] >= 1
    methods = ["bicubic", *(["first phase"] if generator else []), "model"]
    table = [["patient", "slices", *(f"{m}, dB" for m in methods), "gradient of reference"]]
    for patient in dict.fromkeys(patients):
        part = [row for row in rows if row["patient"] == patient]
        means = [np.mean([row[m]["psnr"] for row in part]) for m in methods]
        steep = np.mean([row["model"]["sharpness"] for row in part])
        name = part[0]["name"]
        table.append([name, str(len(part)), *(f"{m:.2f}" for m in means), f"{steep:.2f}"])
    pictures.sort(key=lambda p: p[0]["model"]["psnr"] - p[0]["bicubic"]["psnr"])
    shown = [
        (row["name"], images, (0.0, 0.7 * window[1]))
        for row, images, window in (pictures[0], pictures[-1])
    ]
    judged = (
        f"{len(rows)} real brain MR slices of {len(set(patients))} patients, "
        f"reduced {scale}-fold through k-space"
    )
    return Result(judged, figures, checks, table, shown)


def _steepness(image: np.ndarray) -> float:
    """Mean magnitude of the gradient."""
    return float(np.mean(np.hypot(*np.gradient(image.astype(np.float64)))))


# Reconstruction from k-space.


def kspace(model) -> Result:
    """Real brain MRI of 64 x 64 pixels from noisy k-space, all lines or the mask's."""
    n = model.recipe.side
    lines = pipeline_mask(model)
    rows, pictures = [], []
    for number, scan in enumerate(judges.mr()):
        target = _square(scan.image, n)
        target = target * np.float32(0.8 / np.quantile(target, 0.995))
        for sampling, level in itertools.product(("full", "undersampled"), (0.02, 0.05)):
            rng = np.random.default_rng([number, int(1000 * level)])
            channels = level * rng.standard_normal((2, n, n), np.float32)
            measured = fourier.to_kspace(target) + channels[0] + 1j * channels[1]
            if sampling == "undersampled":
                measured = measured * lines[:, None]
            source = fourier.to_channels(measured)
            images = {
                "inverse FFT": model.baseline(source)[0][..., 0],
                "model": model.translate(source[None])[0, ..., 0],
            }
            row = {"name": scan.name, "patient": scan.patient, "part": f"{sampling}, noise {level}"}
            row |= {name: metrics.rmse(image, target) for name, image in images.items()}
            rows.append(row)
            pictures.append((row, images | {"reference": target}))
    parts = list(dict.fromkeys(row["part"] for row in rows))
    patients = [row["patient"] for row in rows]
    figures, checks = {}, {}
    table = [["sampling", "inverse FFT, RMSE", "this model, RMSE", "images better"]]
    for part in parts:
        mine = [row for row in rows if row["part"] == part]
        whose = [row["patient"] for row in mine]
        key = part.replace(", noise ", "_").replace("0.", "0_")
        for name in ("inverse FFT", "model"):
            label = "rmse" if name == "model" else "rmse_inverse_fft"
            figures[f"{label}_{key}"] = _mean([row[name] for row in mine], whose, 4)
        better = sum(row["model"] < row["inverse FFT"] for row in mine)
        if part != "full, noise 0.02":  # which the card advises against
            checks[f"RMSE below the inverse FFT's, {part}"] = (
                figures[f"rmse_{key}"][0] < figures[f"rmse_inverse_fft_{key}"][0]
            )
        table.append(
            [
                part,
                f"{figures[f'rmse_inverse_fft_{key}'][0]:.4f}",
                f"{figures[f'rmse_{key}'][0]:.4f}",
                f"{better} of {len(mine)}",
            ]
        )
    under = [p for p in pictures if p[0]["part"] == parts[-1]]
    under.sort(key=lambda p: p[0]["model"] / p[0]["inverse FFT"])
    shown = [(row["name"], images, (0.0, 0.9)) for row, images in (under[-1], under[0])]
    judged = (
        f"{len(rows) // len(parts)} real brain MR slices of {len(set(patients))} patients, "
        f"reduced to {n} x {n} pixels and measured in simulation"
    )
    return Result(judged, figures, checks, table, shown)


def pipeline_mask(model) -> np.ndarray:
    """The lines of the protocol that the model was trained with."""
    from zoo_datasets.mri_recon import phantom

    return phantom.Scan(size=model.recipe.side).operator.lines


def _square(image: np.ndarray, n: int) -> np.ndarray:
    """The image in a square, reduced to n x n through the middle of its k-space."""
    side = -(-max(image.shape) // n) * n
    pads = [((side - length) // 2, side - length - (side - length) // 2) for length in image.shape]
    return resolution.crop_kspace(np.pad(image, pads), side // n)


# Unpaired translation, on phantoms that are aligned.


def unpaired(model, dataset: str, share: float, matched: bool) -> Result:
    """Mean absolute error on the test split, whose pairs are aligned.

    Args:
        model: of `dataset`.
        share: of the baseline's error that it may have.
        matched: the baseline is the input with its histogram matched to the target's, not itself.
    """
    from skimage.exposure import match_histograms

    rows, pictures = [], []
    for example in _examples(dataset, model, "test"):
        source, target = example["source"][..., 0], example["target"][..., 0]
        images = {"input": source, "model": model.translate(source)}
        if matched:
            images["histogram-matched"] = match_histograms(source, target)
        row = {"name": example["name"], "patient": example["patient"]}
        row |= {name: metrics.mae(image, target) for name, image in images.items()}
        row["edges"] = _edge_correlation(images["model"], target)
        row["edges of the input"] = _edge_correlation(images["model"], source)
        rows.append(row)
        pictures.append((row, images | {"reference": target}))
    patients = [row["patient"] for row in rows]
    base = "histogram-matched" if matched else "input"
    ratio = np.mean([r["model"] for r in rows]) / np.mean([r[base] for r in rows])
    figures = {
        "mae": _mean([row["model"] for row in rows], patients),
        f"mae_{base.replace('-', '_')}": _mean([row[base] for row in rows], patients),
        "mae_ratio": round(float(ratio), 3),
        "gradient_correlation": _mean([row["edges"] for row in rows], patients, 3),
        "gradient_correlation_input": _mean(
            [row["edges of the input"] for row in rows], patients, 3
        ),
    }
    checks = {f"MAE at most {share} of the {base} image's": ratio <= share}
    if not matched:
        checks["gradient correlation above 0.9"] = figures["gradient_correlation"][0] > 0.9
    pictures.sort(key=lambda p: p[0]["model"] / p[0][base])
    shown = []
    for row, images in (pictures[-1], pictures[0]):
        windows = display_windows([images["reference"]], model.target.unit, model.target.window)
        for where, window in windows.items():
            label = f"{row['name']}: {where}" if where else row["name"]
            shown.append((label, images, window))
    judged = f"{len(rows)} images of {len(set(patients))} patients, test split of {dataset}"
    return Result(judged, figures, checks, [], shown)


def _edge_correlation(image: np.ndarray, other: np.ndarray) -> float:
    """Correlation of the gradients' magnitudes, smoothed by a pixel against noise."""
    steep = [ndimage.gaussian_gradient_magnitude(i.astype(float), 1.0) for i in (image, other)]
    return float(np.corrcoef(steep[0].ravel(), steep[1].ravel())[0, 1])


# Generators.


def generation(model, dataset: str) -> Result:
    """Images against held-out ones as sets: distance, diversity and memorisation."""
    held = np.stack([e["image"] for e in _examples(dataset, model, "test")])
    held = model.target.clip(held)
    patients = [e["patient"] for e in _examples(dataset, model, "test")]
    half = len(held) // 2
    made = np.asarray(model.generate(len(held), seed=1), np.float32)
    # Both distances between sets of one size: it falls as sets grow.
    order = np.random.default_rng(0).permutation(len(held))
    first, second = held[order[:half]], held[order[half : 2 * half]]
    floor = metrics.sliced_wasserstein(first, second)["mean"]
    distance = np.mean(
        [metrics.sliced_wasserstein(part, made[:half])["mean"] for part in (first, second)]
    )
    window = model.target.window
    similar = {n: metrics.pair_similarity(i, window) for n, i in (("made", made), ("held", held))}
    training = (model.target.clip(e["image"]) for e in _examples(dataset, model, "train"))
    nearest = metrics.nearest_training(made, training, held)
    # An image without contrast is near to every other one: a copy has its structure too.
    alike = [
        float(np.corrcoef(*(_halved(i).ravel() for i in pair))[0, 1])
        for pair in zip(made[..., 0], nearest.nearest[..., 0], strict=True)
    ]
    copies = nearest.flagged & (np.array(alike) > 0.9)
    figures = {
        "sliced_wasserstein": round(float(distance), 1),
        "sliced_wasserstein_halves": round(float(floor), 1),
        "pair_ms_ssim": round(float(similar["made"]), 3),
        "pair_ms_ssim_data": round(float(similar["held"]), 3),
        "near_training": int(nearest.flagged.sum()),
        "copies": int(copies.sum()),
        "nearest_training_ratio": round(float(np.median(nearest.ratio)), 3),
    }
    checks = {
        "distance to held-out images at most twice that between halves of them": distance
        <= 2 * floor,
        "diversity within 0.05 of the data's": abs(similar["made"] - similar["held"]) <= 0.05,
        "no copy of a training image": not copies.any(),
    }
    closest = np.argsort(nearest.distance)[:4]
    # In the window that suits the data best.
    windows = display_windows(held, model.target.unit, window)
    where, window = next(iter(windows.items()))
    where = f": {where}" if where else ""
    shown = [
        ("generated" + where, {str(i): made[i, ..., 0] for i in range(6)}, window),
        ("held out" + where, {str(i): held[order[i], ..., 0] for i in range(6)}, window),
        (
            "nearest to a training image" + where,
            {
                name: image[..., 0]
                for i in closest[:3]
                for name, image in (
                    (f"made {i}", made[i]),
                    (f"training for {i}", nearest.nearest[i]),
                )
            },
            window,
        ),
    ]
    judged = f"{len(held)} images of {len(set(patients))} patients, test split of {dataset}"
    return Result(judged, figures, checks, [], shown)


def _halved(image: np.ndarray) -> np.ndarray:
    return resolution.block_mean(image, 2)


def _examples(dataset: str, model, split: str):
    builder = prepare.load_builder(dataset, pretrained.FOLDER / "data", model.recipe)
    return batches.eval_dataset(builder, split, size=model.phases()[-1].size)


def _mean(values: list[float], patients: list[str], digits: int = 2) -> list[float]:
    """Mean over patients of their means, and its 95 % interval over patients."""
    means = list(intervals.group_means(values, patients).values())
    low, high = intervals.bootstrap(means)
    return [round(float(v), digits) for v in (np.mean(means), low, high)]


JUDGES: dict[str, Callable[[Any], Result]] = {
    "automap_mri": kspace,
    "cyclegan_cbct_ct": lambda m: unpaired(m, "cbct_ct/phantom_scatter", 0.6, matched=False),
    "dcgan_lung_nodule": lambda m: generation(m, "lung_nodule/phantom"),
    "encoder_decoder_ldct": low_dose,
    "pggan_mammo": lambda m: generation(m, "mammo/phantom"),
    "pix2pix_ldct": lambda m: low_dose(m, texture=True),
    "srcnn_mri_x2": super_resolution,
    "srgan_mri_x2": lambda m: super_resolution(m, generator=True),
    "srgan_mri_x4": lambda m: super_resolution(m, generator=True),
    "srresnet_mri_x2": super_resolution,
    "srresnet_mri_x4": super_resolution,
    "unit_t1_t2": lambda m: unpaired(m, "mri_contrast/mni152_128", 0.5, matched=True),
}


def differences(measured: dict[str, Any], stated: dict[str, Any]) -> list[str]:
    """What is not as stated, to one per cent or one unit of the last digit that is shown.

    Another machine's arithmetic moves the last digit; another file of weights moves more.
    """
    found = []
    for key in sorted({*measured, *stated}):
        if key not in measured or key not in stated:
            found.append(f"{key}: {'not measured' if key in stated else 'not stated'}")
            continue
        new, old = (np.atleast_1d(np.asarray(part[key], float)) for part in (measured, stated))
        digits = max(len(f"{v:.10g}".partition(".")[2]) for v in (*new, *old))
        close = np.abs(new - old) <= np.maximum(1.5 * 10.0**-digits, 0.01 * np.abs(old))
        if new.shape != old.shape or not close.all():
            found.append(f"{key}: stated {stated[key]}, measured {measured[key]}")
    return found


def main() -> int:
    """Exit code 1 where a figure differs from what is stated, or a check fails."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--write", action="store_true", help="take the figures as the new ones")
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args()
    entries = registry.index()["pretrained"]
    unknown = set(options.names) - set(entries)
    if unknown:
        parser.error(f"expected names of {', '.join(entries)}. Received: {', '.join(unknown)}")
    bad = []
    for name in options.names or entries:
        result = JUDGES[name](zoo.load(name))
        print(f"\n{name}: {result.judged_on}")
        for key, value in result.figures.items():
            print(f"  {key} {value}")
        for text, good in result.checks.items():
            print(f"  {'yes' if good else 'NO '} {text}")
            bad += [] if good else [f"{name}: {text}"]
        figures = {"judged_on": result.judged_on} | result.figures
        stated = dict(entries[name]["metrics"])
        if options.write:
            fields = {
                k: v for k, v in entries[name].items() if k not in ("name", "owner", "folder")
            }
            pretrained.write_entry(name, fields | {"metrics": figures})
            entries[name]["metrics"] = figures
        else:
            same = stated.pop("judged_on", "") == result.judged_on
            bad += [] if same else [f"{name}: judged_on: measured on {result.judged_on}"]
            bad += [f"{name}: {line}" for line in differences(result.figures, stated)]
        cards.write(name, entries[name], result)
    cards.write_table(entries)
    print("\n" + "\n".join(bad or ["All figures are as stated."]))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
