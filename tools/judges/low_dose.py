"""Low-dose CT: denoising of real scans with the noise of a low dose inserted.

Noise is that of two simulators: `zoo.physics`, which the training data come from too, and ASTRA,
which shares no code with it (`docs/judging.md`).
"""

import dataclasses
import hashlib
import itertools
from typing import Any

import numpy as np

import zoo
from tools import scans
from tools.judges import astra_noise
from tools.judges.denoising import (
    DENOISERS,
    HU,
    decades,
    fidelity,
    flat_places,
    kept,
    noise_power,
)
from tools.judges.result import Result, patients_mean
from zoo.figures import display_windows
from zoo.physics import noise
from zoo.step import forward_flops
from zoo.translator import Translator

BRAIN = (-50.0, 130.0)  # display window of heads
LEVELS = (15, 30, 60, 120)  # HU of noise that is added
SHOWN = 60  # the level of the card's pictures
DOSES = (0.5, 0.25, 0.2, 0.1)  # of the scan whose noise it is, for the streaks' share
KERNELS = ("hann", "ramp")
ASTRA = (37, 75, 120, 196)  # HU of ASTRA's noise
TOLD = 1.2  # times that: what BM3D is told, which does best with a little more than there is
SLICES = 2  # of each patient: they are alike, and BM3D is slow


@dataclasses.dataclass
class Case:
    """One slice at one level of noise, and what the model and the methods made of it.

    Attributes:
        region: of the body.
        noise: what was added, in words.
        scores: `denoising.fidelity` to the full dose of each image, by its name.
        spectra: noise power of each image and of the full dose.
        images: the images themselves, where they may be shown.
    """

    name: str
    patient: str
    region: str
    level: int
    noise: str
    scores: dict[str, dict[str, float]]
    spectra: dict[str, np.ndarray]
    images: dict[str, np.ndarray]

    def gain(self, key: str = "psnr") -> float:
        """How far the model is above BM3D."""
        return self.scores["model"][key] - self.scores["BM3D"][key]


def low_dose(model: Translator, texture: bool = False, large: str = "") -> Result:
    """Denoising of real CT with the noise of a low dose inserted, against BM3D, TV and NLM.

    Args:
        model: of CT in HU.
        texture: judge by the noise-power spectrum rather than by PSNR alone.
        large: the pretrained model that this one stands in for, and is to be nearly as good as.
    """
    cases, others = _cases(model)
    figures = _figures(cases) | {f"astra_{k}": v for k, v in _figures(others).items()}
    checks = _texture_checks(cases, others) if texture else _fidelity_checks(cases, others)
    if large:
        figures |= _beside(zoo.load(large, precision="float32"), model, cases, others)
        checks = {
            f"PSNR at most 0.5 dB below {large}'s": figures["psnr_below_large_db"][0] <= 0.5,
            "at most 4 GFLOP for 512 x 512 pixels": figures["gflop_512"] <= 4,
            "PSNR at least 0.5 dB above BM3D's on average": _gain(cases) >= 0.5,
        }
    slices, patients = {case.name for case in cases}, {case.patient for case in cases}
    judged = (
        f"{len(cases)} images: {len(slices)} real CT slices of {len(patients)} patients, head "
        f"and body, each with simulated low-dose noise of {', '.join(map(str, LEVELS))} HU, and "
        f"{len(others)} with ASTRA's of {', '.join(map(str, ASTRA))} HU"
    )
    return Result(judged, figures, checks, _table(cases, others), _pictures(cases))


def _cases(model: Translator) -> tuple[list[Case], list[Case]]:
    """With the project's own noise, and with ASTRA's."""
    cases, others = [], []
    for index, scan in enumerate(few(scans.ct())):
        cases += _own_cases(model, scan, index)
        others += _astra_cases(model, scan, index)
    return cases, others


def _fidelity_checks(cases: list[Case], others: list[Case]) -> dict[str, bool]:
    ssim = np.mean([case.gain("ssim") for case in cases])
    edges = [_mean(others, name, "edges") for name in ("model", "BM3D")]
    return {
        "PSNR at least 0.5 dB above BM3D's on average": _gain(cases) >= 0.5,
        "PSNR never below BM3D's": min(case.gain() for case in cases + others) >= 0,
        "SSIM above BM3D's": bool(ssim > 0),
        "with ASTRA's noise, PSNR at least 1.5 dB above BM3D's on average": _gain(others) >= 1.5,
        "with ASTRA's noise, edges less off than BM3D's": edges[0] < edges[1],
    }


def _texture_checks(cases: list[Case], others: list[Case]) -> dict[str, bool]:
    # The texture is compared unrounded, as the lowest gain is.
    nearer = [_distance(part, "model") < _distance(part, "BM3D") for part in (cases, others)]
    return {
        "PSNR at most 0.5 dB below BM3D's": _gain(cases) >= -0.5,
        "noise-power spectrum nearer to the full dose's than BM3D's": all(nearer),
    }


def _gain(cases: list[Case]) -> float:
    """PSNR above BM3D's, dB: the mean over patients of their means."""
    values = [case.gain() for case in cases]
    return patients_mean(values, [case.patient for case in cases])[0]


def _beside(
    teacher: Translator, model: Translator, cases: list[Case], others: list[Case]
) -> dict[str, Any]:
    """How far a model is below a large one, and what it costs."""
    below = [
        large.scores["model"]["psnr"] - small.scores["model"]["psnr"]
        for large, small in zip(sum(_cases(teacher), []), cases + others, strict=True)
    ]
    patients = [case.patient for case in cases + others]
    operations = forward_flops(model.network, (512, 512, 1))
    return {
        "psnr_below_large_db": patients_mean(below, patients),
        "gflop_512": round(operations / 1e9, 2),
    }


def _own_cases(model: Translator, scan: scans.Slice, index: int) -> list[Case]:
    """Of the slice of this index: all levels of the project's own noise, the kernels in turn."""
    cases = []
    for number, (level, dose) in enumerate(zip(LEVELS, DOSES, strict=True)):
        kernel = KERNELS[(index + number) % 2]
        source = noisy(scan, level, dose, kernel)
        methods = {name: kept(name, source, level, method) for name, method in DENOISERS.items()}
        cases.append(_case(model, scan, level, kernel, source, methods))
    return cases


def _astra_cases(model: Translator, scan: scans.Slice, index: int) -> list[Case]:
    """Of the slice of this index: all levels of ASTRA's noise, kernels and beams in turn."""
    cases = []
    for number, level in enumerate(ASTRA):
        kernel = KERNELS[(index + number) % 2]
        beam = astra_noise.BEAMS[(index + number // 2) % 2]
        source = astra_noise.kept(scan.name, scan.image, _spacing(scan), level, beam, kernel)
        methods = {"BM3D": kept("BM3D", source, TOLD * level, DENOISERS["BM3D"])}
        cases.append(_case(model, scan, level, f"{beam}, {kernel}", source, methods))
    return cases


def _case(
    model: Translator,
    scan: scans.Slice,
    level: int,
    what: str,
    source: np.ndarray,
    methods: dict[str, np.ndarray],
) -> Case:
    flat = flat_places(scan.image)
    images = {"input": source, "model": model.translate(source)} | methods
    scores = {name: fidelity(image, scan.image) for name, image in images.items()}
    images = {"full dose": scan.image} | images
    spectra = {name: noise_power(image, flat) for name, image in images.items()}
    shown = images if level == SHOWN else {}
    return Case(scan.name, scan.patient, scan.region, level, what, scores, spectra, shown)


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
        "structure_in_error": round(_mean(cases, "model", "structure"), 3),
        "structure_in_error_bm3d": round(_mean(cases, "BM3D", "structure"), 3),
        "edges_off_px": round(_mean(cases, "model", "edges"), 3),
        "edges_off_px_bm3d": round(_mean(cases, "BM3D", "edges"), 3),
        "noise_power_distance": round(_distance(cases, "model"), 3),
        "noise_power_distance_bm3d": round(_distance(cases, "BM3D"), 3),
    }


def _mean(cases: list[Case], name: str, key: str) -> float:
    """Of a score of one method's images."""
    return float(np.mean([case.scores[name][key] for case in cases]))


def _distance(cases: list[Case], name: str) -> float:
    """Mean distance of an image's noise power from the full dose's, in decades."""
    return float(np.mean([decades(c.spectra[name], c.spectra["full dose"]) for c in cases]))


def _table(cases: list[Case], others: list[Case]) -> list[list[str]]:
    """PSNR and what edges show in the error, by noise, and of ASTRA's noise by region."""
    head = ["noise added", "input", *DENOISERS, "this model", "over BM3D"]
    head += ["structure (BM3D's)", "edges off, px (BM3D's)"]
    table = [head]
    for level, kernel in itertools.product(LEVELS, KERNELS):
        part = [case for case in cases if (case.level, case.noise) == (level, kernel)]
        table.append([f"{level} HU, {kernel}", *_row(part)])
    for region, level in itertools.product(sorted({case.region for case in others}), ASTRA):
        part = [case for case in others if (case.region, case.level) == (region, level)]
        table.append([f"ASTRA, {level} HU, {region}", *_row(part)])
    return table


def _row(cases: list[Case]) -> list[str]:
    means = {}
    for name in ("input", *DENOISERS, "model"):
        values = [case.scores[name]["psnr"] for case in cases if name in case.scores]
        means[name] = float(np.mean(values)) if values else None
    over, worst = means["model"] - means["BM3D"], min(case.gain() for case in cases)
    numbers = [f"{value:.2f}" if value else "" for value in means.values()]
    pairs = [
        f"{_mean(cases, 'model', key):.2f} ({_mean(cases, 'BM3D', key):.2f})"
        for key in ("structure", "edges")
    ]
    return [*numbers, f"{over:+.2f} (≥ {worst:+.2f})", *pairs]


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
            label = f"{case.name}, {case.level} HU, {case.noise}: {where}"
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
    seed = int(hashlib.sha256(f"{scan.name}{level}".encode()).hexdigest()[:8], 16)
    added = noise.simulate_low_dose(scan.image, _spacing(scan), dose, filter=kernel, rng=seed)
    added -= scan.image
    body = scan.image > -500
    return np.clip(scan.image + added * (level / added[body].std()), -1024, 3071)


def _spacing(scan: scans.Slice) -> float:
    """Pixel pitch in mm; a likely one where nobody knows it."""
    return float(np.mean(scan.spacing)) if scan.spacing else 0.6
