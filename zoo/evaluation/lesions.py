"""Lesions put into test inputs: how many a model loses or invents, and how well they are detected.

Discs of several sizes and contrasts, bright and dark in turn, are added to the inputs at places in
the patient. What the model makes of them is the difference of its outputs with and without them, so
that anatomy and noise are those of patients (uniform phantoms flatter networks, which see that
nothing is there). Of a model from a domain into the same one, such as a denoiser.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import scipy.ndimage
import scipy.signal
import tqdm

from zoo import guards
from zoo.evaluation import intervals, observer
from zoo.evaluation.examples import Example, checked, require_finite, require_shape, translated
from zoo.evaluation.translation import body
from zoo.trust.conformal import upper_bound

DIAMETERS = (4, 7, 11)  # pixels
CONTRASTS = (0.01, 0.02, 0.05)  # of the width of the target's window
KEPT = 0.5  # of a lesion's contrast; less is lost
SEEN = 3.0  # d' from which an ideal observer sees a lesion in the input
REGION = 32  # pixels a side of what belongs to a place
_SOFT = 0.8  # pixels: the standard deviation of a disc's edge
_FINE = 16  # samples a pixel along each axis, of which a disc's edge is the mean
_RESAMPLES = 200


class _Lesion(NamedTuple):
    """One that was put in; `contrast` has a sign, in the target's unit."""

    diameter: int
    contrast: float
    place: tuple[slice, slice]


def profile(diameter: float, size: int = REGION) -> np.ndarray:
    """A soft disc in the middle of float64 `[size, size]`, its plateau at 1 where it is wide."""
    fine = (np.arange(_FINE * size) + 0.5) / _FINE - size / 2
    disc = (np.hypot(fine, fine[:, None]) < diameter / 2) * 1.0
    disc = disc.reshape(size, _FINE, size, _FINE).mean((1, 3))
    return scipy.ndimage.gaussian_filter(disc, _SOFT)


def require(model: Any) -> None:
    """A ValueError for a model that lesions cannot be followed through."""
    one = model.source.unit == model.target.unit and not model.source.inputs
    if not one or model.scale != 1 or model.dimensions != 2 or model.classes:
        raise ValueError(
            "lesions: expected a model of images into images of the same unit and size. "
            f"Received: {model.name} from {model.source.unit} to {model.target.unit}"
        )


def measure(model: Any, examples: Iterable[Example], seed: int = 0) -> dict[str, Any]:
    """Put lesions into examples, and measure what a model makes of them.

    Args:
        model: a `zoo.Translator`, or what has its domains, sizes and `translate`.
        examples: as `measure.measure` takes them, with source and target.
        seed: of places and intervals.

    Returns:
        For `metrics.json`: counts, "rows" by diameter and contrast (how many were lost or invented,
        what contrast was kept, d' and AUC), "lost_of_seen", "transfer" and "noise".

    Raises:
        ValueError: as `require`, and for examples without room for a lesion.
    """
    tested = Lesions(model, seed)
    bar = tqdm.tqdm(examples, desc="lesions", unit="image", disable=None)
    ready = (checked(example, ("source", "target"), model.dimensions) for example in bar)
    for example in translated(model, ready, 1):
        tested.add(example)
    return tested.results()


def _drawn(inside: np.ndarray, span: float, number: int, rng: np.random.Generator) -> list[_Lesion]:
    """Lesions for an image, one of each size and contrast where there is room, at random places."""
    kinds = [(d, c) for d in DIAMETERS for c in CONTRASTS]
    margin = REGION // 2
    room = scipy.ndimage.binary_erosion(inside, iterations=max(DIAMETERS) // 2 + 2)
    room[:margin], room[:, :margin] = False, False
    room[inside.shape[0] - margin + 1 :], room[:, inside.shape[1] - margin + 1 :] = False, False
    found: list[_Lesion] = []
    while len(found) < len(kinds) and room.any():
        free = np.argwhere(room)
        row, column = free[rng.integers(len(free))]
        place = np.s_[row - margin : row + margin, column - margin : column + margin]
        # All kinds are met alike, also where few have room; bright and dark in turn.
        turn = number + len(found)
        diameter, contrast = kinds[turn % len(kinds)]
        sign = 1 if turn % 2 else -1
        found.append(_Lesion(diameter, sign * contrast * span, place))
        room[max(row - REGION, 0) : row + REGION, max(column - REGION, 0) : column + REGION] = False
    return found


class Lesions:
    """Puts lesions into examples, and counts what becomes of them.

    Args:
        model: a `zoo.Translator`, or what has its domains, sizes and `translate`.
        seed: of places and intervals.

    Raises:
        ValueError: as `require`.
    """

    def __init__(self, model: Any, seed: int = 0):
        require(model)
        self.model, self.seed = model, seed
        self.rng, self.number = np.random.default_rng(seed), 0
        self.profiles = {d: profile(d) for d in DIAMETERS}
        self.channels = {d: observer.laguerre_gauss(REGION, 1.5 * d) for d in DIAMETERS}
        self.rows: list[dict[str, Any]] = []
        self.blobs: list[dict[str, Any]] = []
        self.responses: dict[float, list[np.ndarray]] = {c: [] for c in CONTRASTS}
        self.noise: dict[str, list[np.ndarray]] = {"input": [], "output": []}

    def add(self, example: Example) -> None:
        """An example with its "output", to which that with lesions is compared."""
        # Where there is room in the patient.
        require_shape(example)
        mask = body(example, self.model.target)
        inside = np.ones(example["target"].shape[:2], bool) if mask is None else mask[..., 0] > 0
        lesions = _drawn(inside, self.model.target.span, self.number, self.rng)
        self.number += 1
        if not lesions:
            return
        # The output of the same image with lesions.
        source, target = example["source"], example["target"][..., 0].astype(np.float64)
        added = np.zeros(target.shape)
        for lesion in lesions:
            added[lesion.place] += lesion.contrast * self.profiles[lesion.diameter]
        given = source + added[..., None].astype(np.float32)
        with guards.silent():
            made = np.asarray(self.model.translate(given[None])[0], np.float64)
        require_finite(made, "model", f"its output for {example['name']!r}")
        output = example["output"][..., 0].astype(np.float64)
        # Errors of what there is, of neighbouring slices the middle one.
        middle = source[..., source.shape[-1] // 2].astype(np.float64)
        errors = {"input": middle - target, "output": output - target}
        changes = {"input": added, "output": made[..., 0] - output}
        power = self._noise(errors, inside)
        for lesion in lesions:
            self._follow(example["patient"], lesion, errors, changes, power)
        self._count(example["patient"], errors, inside)

    def _noise(self, errors: dict[str, np.ndarray], inside: np.ndarray) -> np.ndarray:
        """The power of the input's noise, from regions that lie in the patient, or nearly."""
        corners = []
        for row in range(0, inside.shape[0] - REGION + 1, REGION // 2):
            for column in range(0, inside.shape[1] - REGION + 1, REGION // 2):
                place = np.s_[row : row + REGION, column : column + REGION]
                corners.append((float(inside[place].mean()), row, column, place))
        fullest = max(corners)[0]
        chosen = [place for share, _, _, place in corners if share >= min(0.9, fullest)]
        for key, error in errors.items():
            self.noise[key] += [error[place] for place in chosen]
        return observer.noise_power(np.stack([errors["input"][place] for place in chosen]))

    def _follow(
        self,
        patient: str,
        lesion: _Lesion,
        errors: dict[str, np.ndarray],
        changes: dict[str, np.ndarray],
        power: np.ndarray,
    ) -> None:
        """A lesion through the model."""
        shape, sign = self.profiles[lesion.diameter], np.sign(lesion.contrast)
        signal = abs(lesion.contrast) * shape
        row = {"patient": patient, "diameter": lesion.diameter, "contrast": abs(lesion.contrast)}
        row["ideal"] = observer.ideal(signal, np.maximum(power, 1e-12))
        answer = sign * changes["output"][lesion.place]
        row["kept"] = float((answer * shape).sum() / (signal * shape).sum())
        # What the observer's channels see with and without it.
        channels = self.channels[lesion.diameter]
        for key in errors:
            absent = sign * errors[key][lesion.place].ravel() @ channels
            row[key] = absent + sign * changes[key][lesion.place].ravel() @ channels, absent
        self.rows.append(row)
        if lesion.diameter == min(DIAMETERS):
            share = abs(lesion.contrast) / self.model.target.span
            nearest = min(CONTRASTS, key=lambda c: abs(c - share))
            self.responses[nearest].append(answer / abs(lesion.contrast))

    def _count(self, patient: str, errors: dict[str, np.ndarray], inside: np.ndarray) -> None:
        """Blobs as strong as a lesion that the target does not have, in input and output."""
        found: dict[str, Any] = {"patient": patient}
        for diameter in DIAMETERS:
            wide = 2 * diameter + 1
            shape = profile(diameter, wide)
            template = shape - shape.mean()
            template /= (template * shape).sum()
            for key, error in errors.items():
                padded = np.pad(error, diameter, mode="reflect")  # discs are symmetric
                strength = np.abs(scipy.signal.fftconvolve(padded, template, mode="valid"))
                peak = scipy.ndimage.maximum_filter(strength, wide) == strength
                for contrast in CONTRASTS:
                    strong = strength >= contrast * self.model.target.span
                    found[f"{key} {diameter} {contrast}"] = int((peak & strong & inside).sum())
        self.blobs.append(found)

    def results(self) -> dict[str, Any]:
        """What `measure` gives, or its ValueError where no example had room for a lesion."""
        if not self.rows:
            raise ValueError(
                f"lesions: expected images with room for {REGION} x {REGION} pixels in the "
                "patient. Received: none"
            )
        names = {row["patient"] for row in self.rows}
        rows = []
        for diameter in DIAMETERS:
            for contrast in CONTRASTS:
                own = [r for r in self.rows if r["diameter"] == diameter]
                own = [r for r in own if np.isclose(r["contrast"], contrast * self.span)]
                rows.append(self._row(diameter, contrast, own))
        seen = [row for row in self.rows if row["ideal"] >= SEEN]
        noise = {key: _colour(np.stack(each)) for key, each in self.noise.items()}
        return {
            "images": len(self.blobs),
            "patients": len(names) if "" not in names else None,
            "lesions": len(self.rows),
            "rows": rows,
            "lost_of_seen": _lost(seen),
            "transfer": list(map(self._transfer, CONTRASTS)),
            "noise": noise,
        }

    @property
    def span(self) -> float:
        return self.model.target.span

    def _row(self, diameter: int, contrast: float, own: list[dict[str, Any]]) -> dict[str, Any]:
        """What became of the lesions of one size and contrast."""
        row: dict[str, Any] = {"diameter_px": diameter, "contrast": contrast * self.span}
        spacing = self.model.source.spacing
        row["diameter_mm"] = diameter * float(np.mean(spacing)) if spacing else None
        row["lesions"] = len(own)
        if own:
            row["ideal"] = float(np.mean([each["ideal"] for each in own]))
            row["kept"] = float(np.mean([each["kept"] for each in own]))
        row["lost"] = _lost(own)
        for key in ("input", "output"):
            counts = [blobs[f"{key} {diameter} {contrast}"] for blobs in self.blobs]
            row[f"blobs_{key}"] = 100 * float(np.mean(counts))
            row[f"detected_{key}"] = _detected(own, key, self.seed)
        return row

    def _transfer(self, contrast: float) -> dict[str, Any]:
        """The task transfer function by the smallest discs of a contrast."""
        found: dict[str, Any] = {"contrast": contrast * self.span, "frequency": [], "transfer": []}
        if not self.responses[contrast]:
            return found | {"half": None}
        answer = np.fft.fft2(np.mean(self.responses[contrast], axis=0))
        given = np.fft.fft2(self.profiles[min(DIAMETERS)])
        axis = np.fft.fftfreq(REGION) * REGION
        ring = np.rint(np.hypot(axis, axis[:, None])).astype(int).ravel()
        power = np.bincount(ring, (np.abs(given) ** 2).ravel())
        passed = np.bincount(ring, (answer * given.conj()).real.ravel())
        # Up to a quarter of a cycle a pixel: beyond it small discs hold too little.
        values = passed[1 : REGION // 4 + 1] / power[1 : REGION // 4 + 1]
        frequency = np.arange(1, REGION // 4 + 1) / REGION
        found |= {"frequency": frequency.tolist(), "transfer": values.tolist()}
        below = np.flatnonzero(values < 0.5)
        half = None
        if len(below):
            k = below[0]
            before, at = (1.0, 0.0) if k == 0 else (values[k - 1], frequency[k - 1])
            half = float(at + (before - 0.5) / (before - values[k]) * (frequency[k] - at))
        return found | {"half": half}


def _lost(own: list[dict[str, Any]]) -> dict[str, Any]:
    """The share that is lost, by patient, and what it does not exceed (95 %)."""
    if not own:
        return {"share": None, "at_most": None, "lesions": 0}
    lost = [float(each["kept"] < KEPT) for each in own]
    names = [each["patient"] for each in own]
    share, at_most = float(np.mean(lost)), None
    if all(names):
        means = list(intervals.group_means(lost, names).values())
        share = float(np.mean(means))
        at_most = upper_bound(share, len(means), 0.05)
    return {"share": share, "at_most": at_most, "lesions": len(own)}


def _detected(own: list[dict[str, Any]], key: str, seed: int) -> dict[str, Any] | None:
    """d' and AUC of the channelized Hotelling observer, with its interval over patients."""
    if len(own) < 12:
        return None
    pairs = [each[key] for each in own]
    present, absent = (np.stack(part) for part in zip(*pairs, strict=True))
    names = np.array([each["patient"] for each in own])
    members = [np.flatnonzero(names == name) for name in np.unique(names)]
    found = np.sqrt(observer.hotelling(present, absent, paired=True))
    rng, drawn = np.random.default_rng(seed), []
    for _ in range(_RESAMPLES if len(members) > 1 else 0):
        chosen = rng.integers(len(members), size=len(members))
        index = np.concatenate([members[k] for k in chosen])
        if len(set(index.tolist())) > absent.shape[1] + 3:
            drawn.append(np.sqrt(observer.hotelling(present[index], absent[index], paired=True)))
    ends = np.quantile(drawn, [0.025, 0.975]) if drawn else np.array([np.nan, np.nan])
    area = observer.area_under_curve
    return {
        "d": float(found),
        "auc": area(float(found)),
        "auc_ci95": [area(float(end)) for end in ends],
    }


def _colour(regions: np.ndarray) -> dict[str, float]:
    """Standard deviation and mean frequency (cycles a pixel) of the error in the patient."""
    power = observer.noise_power(regions)
    axis = np.fft.fftfreq(regions.shape[-1])
    frequency = np.hypot(axis, axis[:, None])
    mean = (power * frequency).sum() / max(power.sum(), 1e-12)
    return {"sd": float(np.sqrt(power.mean())), "mean_frequency": float(mean)}
