"""Faults that are planted into translations, and the alarms that each must, and must not, raise.

The golden table of `docs/trust.md`: `tests/trust/alarms_test.py` holds it on phantoms, and
`python -m tools.trust --only=alarms` on shipped models.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from zoo import figures, guards
from zoo.trust import alarms
from zoo.trust.explain import Region
from zoo.trust.limits import Limits, Usual

CONTRAST = 250.0  # HU of lesions that are painted or erased
RADIUS = 5.0  # pixels
OFFSET, GRAIN = 30.0, 40.0  # HU
SHOWN = (-200.0, 300.0)  # HU, the window of the picture

Pair = tuple[np.ndarray, np.ndarray]  # input and output, [H, W, 1]


class Fault(NamedTuple):
    """What is planted.

    Attributes:
        plant: input and output to what a model with the fault would be given, and make.
        raises: the alarms that it must raise.
        silent: those that it must not.
    """

    plant: Callable[[np.ndarray, np.ndarray, np.random.Generator], Pair]
    raises: frozenset[str]
    silent: frozenset[str]


def place(image: np.ndarray, rng: np.random.Generator) -> Region:
    """Where a lesion goes in an image `[H, W, 1]`: in soft tissue, off the edges."""
    smooth = ndimage.gaussian_filter(image[..., 0], 2.0)
    inside = ndimage.binary_erosion(abs(smooth - 50) < 200, iterations=int(RADIUS) + 1)
    if not inside.any():
        inside = ndimage.binary_erosion(smooth > -500, iterations=int(RADIUS) + 1)
    return Region(*map(int, rng.choice(np.argwhere(inside))), int(RADIUS))


def _disc(output: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    away = place(output, rng).away(output.shape)
    return CONTRAST * np.clip(RADIUS + 0.5 - away, 0, 1)[..., None]


def _invert(source: np.ndarray, output: np.ndarray, rng: np.random.Generator) -> Pair:
    return source, output.max() + output.min() - output


def _shift(source: np.ndarray, output: np.ndarray, rng: np.random.Generator) -> Pair:
    return source, np.roll(output, 3, axis=1)


def _paint(source: np.ndarray, output: np.ndarray, rng: np.random.Generator) -> Pair:
    return source, output + _disc(output, rng)


def _erase(source: np.ndarray, output: np.ndarray, rng: np.random.Generator) -> Pair:
    disc = _disc(output, rng)
    if (scale := len(output) // len(source)) > 1:
        disc = disc.reshape(len(source), scale, -1, scale, 1).mean((1, 3))
    return source + disc, output


def _blur(source: np.ndarray, output: np.ndarray, rng: np.random.Generator) -> Pair:
    return source, ndimage.gaussian_filter(output, (2.0, 2.0, 0))


def _invent(source: np.ndarray, output: np.ndarray, rng: np.random.Generator) -> Pair:
    return source, output + GRAIN * rng.standard_normal(output.shape).astype(np.float32)


def _offset(source: np.ndarray, output: np.ndarray, rng: np.random.Generator) -> Pair:
    return source, output + OFFSET


def _nothing(source: np.ndarray, output: np.ndarray, rng: np.random.Generator) -> Pair:
    return source, source


def _fault(plant: Callable[..., Pair], raises: str, silent: str) -> Fault:
    return Fault(plant, frozenset(raises.split()), frozenset(silent.split()))


# Of denoising of CT.
FAULTS = {
    "identity": _fault(_nothing, "texture", "edges shift outside removed_blob bone"),
    "inverter": _fault(_invert, "tone removed_grain", "shift outside"),
    "shifter of 3 pixels": _fault(_shift, "shift removed_edges", "outside air"),
    "painter of a lesion": _fault(_paint, "removed_blob", "edges shift outside texture air"),
    "eraser of a lesion": _fault(_erase, "removed_blob", "edges shift outside texture air"),
    "blurrer": _fault(_blur, "texture removed_edges", "shift outside tone"),
    "inventor of texture": _fault(_invent, "texture", "shift outside removed_blob"),
    # Its texture is another where air was clipped at the window's end and shows its grain now.
    "offset of 30 HU": _fault(_offset, "air", "edges shift outside removed_edges tone"),
}


def raised(
    model: Any, limits: Limits, pairs: Iterable[Pair], fault: Fault | None = None, seed: int = 0
) -> list[set[str]]:
    """The alarms of each image, with a fault planted into each, or without."""
    rng, found = np.random.default_rng(seed), []
    for source, output in pairs:
        if fault is not None:
            source, output = fault.plant(source, output, rng)
        values, _ = alarms.figures(model, source, output)
        found.append({breach.alarm for breach in limits.breaches(values)})
    return found


def share(found: list[set[str]], alarm: str = "") -> float:
    """Of images the share that raised an alarm, or any."""
    return float(np.mean([alarm in each if alarm else bool(each) for each in found]))


def rows(name: str, model: Any, limits: Limits, pairs: list[Pair]) -> list[str]:
    """Of a Markdown table: of each fault the share of images that raise alarms, and which.

    Args:
        name: of the model.
        model: a denoiser of CT.
        limits, pairs: from `calibrated`.
    """
    lines = []
    for fault, plan in {"none": None, **FAULTS}.items():
        found = raised(model, limits, pairs, plan)
        each = {alarm: share(found, alarm) for alarm in limits.limits}
        often = [f"`{alarm}` {value:.0%}" for alarm, value in each.items() if value >= 0.02]
        lines.append(f"| `{name}` | {fault} | {share(found):.1%} | {', '.join(often) or '–'} |")
    return lines


def calibrated(model: Any, examples: list[dict[str, Any]]) -> tuple[Limits, list[Pair]]:
    """Limits by the first half of the patients, and inputs and outputs of the others."""
    usual, pairs = Usual(), []
    order = list(dict.fromkeys(example["patient"] for example in examples))
    first = set(order[: len(order) // 2])
    for example in examples:
        source = example["source"]
        with guards.silent():
            output = model.translate(source[None])[0]
        if example["patient"] in first:
            usual.add(example["patient"], alarms.figures(model, source, output)[0])
        else:
            pairs.append((source, output))
    return usual.limits(model, "simulated", "validation"), pairs


def picture(model: Any, limits: Limits, pair: Pair, seed: int = 0) -> np.ndarray:
    """An honest output and one of each fault: uint8, a row of input, output, what was removed.

    Args:
        model: a denoiser of CT.
        limits: of its alarms.
        pair: input and output.
        seed: of what is planted.
    """
    shown, captions = [], []
    for name, fault in {"honest": None, **FAULTS}.items():
        source, output = pair
        if fault is not None:
            source, output = fault.plant(source, output, np.random.default_rng(seed))
        found, compared = alarms.figures(model, source, output)
        words = ", ".join(breach.words("HU") for breach in limits.breaches(found))
        captions.append(f"{name}: {words or 'no alarm'}")
        row = {"input": compared.given, "output": compared.made, "removed": compared.removed}
        shown.append(row | {"blobs in it, z": compared.places})
    windows = {"input": SHOWN, "output": SHOWN, "removed": (-200.0, 200.0)}
    windows["blobs in it, z"] = (-12.0, 12.0)
    return figures.grid(shown, windows, captions=captions, panel=160, largest=256)
