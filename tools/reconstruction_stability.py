"""How stable the learned methods of reconstruction are, beside total variation.

    python -m tools.reconstruction_stability    # minutes; writes the table of the docs

The three tests of Antun et al., PNAS 117 (2020), arXiv:1902.05300, each of one simulated slice:

    worst   of all changes of the measurement by 1 % of its size, the one that changes the image
            most: by how many per cent. Of a network it is climbed to by gradients; of total
            variation it is looked for by what the last one changed and among the network's, so that
            its figure is a lower bound
    disc    a disc of three pixels' radius and low contrast, put into the measurement: the share of
            its contrast that the image shows
    more    PSNR where more is measured than the network learned from: lines of k-space, or for a
            network of one geometry photons

A network passes where its worst change is at most twice that of total variation, half of the disc
is left, and more data do not hurt.
"""

import dataclasses
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from scipy import ndimage

import zoo
from tools import reconstruction_methods as methods
from zoo import metrics, registry
from zoo.atomic import write_atomic
from zoo.physics import radon
from zoo.translator import Translator

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reconstruction.md"
_TABLE = re.compile(r"^\| model \| worst change.*\n(?:\|.*\n)+", re.MULTILINE)
SHARE = 0.01  # of the measurement's size, that it is changed by
CLIMB, ANSWERS = 10, 3  # steps to the worst change, of a network and of total variation
RADIUS = 3.0  # pixels, of the disc
HURT = 0.1  # dB that a PSNR may fall
_TV = {"tolerance": 1e-4, "iterations": 600}

# A measurement as models take it, `[..., C]`, to its image in the operator's unit, of MRI |x|.
Image = Callable[[tf.Tensor], tf.Tensor]


class Subject(NamedTuple):
    """A kind of `methods.KINDS`, whose first slice it is and whose weight total variation has.

    Amount of data to case; the amounts, the one learned from first; a disc's contrast.
    """

    kind: str
    case: Callable[[Any], methods.Case]
    amounts: dict[str, Any]
    contrast: float
    window: tuple[float, float]


def _photons(photons: float) -> methods.Case:
    return methods.ct(dataclasses.replace(methods.SPARSE, photons=photons), False, 0)


def _lines(protocol: Any) -> Callable[[float], methods.Case]:
    return lambda acceleration: methods.mr(
        dataclasses.replace(protocol, acceleration=acceleration), 0
    )


# Contrasts are 60 HU, and a tenth of the window's signal.
SUBJECTS = {
    "learned_primal_dual_ct_recon": Subject(
        "sparse",
        _photons,
        {"24000 photons": 2.4e4, "four times": 9.6e4, "sixteen times": 3.84e5},
        0.06 * radon.MU_WATER,
        tuple(radon.MU_WATER * (1 + hu / 1000) for hu in (-1024.0, 1500.0)),
    ),
    "varnet_mri_recon": Subject(
        "mri",
        _lines(methods.LINES),
        {"32 of 128 lines": 4, "43 lines": 3, "64 lines": 2},
        0.1,
        (0.0, 1.0),
    ),
    "automap_mri": Subject(
        "automap",
        _lines(methods.AUTOMAP),
        {"26 of 64 lines": 2.5, "32 lines": 2, "43 lines": 1.5},
        0.1,
        (0, 1),
    ),
}


def source_of(case: methods.Case) -> tf.Tensor:
    """A measurement as models take it."""
    parts = [case.measured]
    if np.iscomplexobj(case.measured):
        parts = [case.measured.real, case.measured.imag]
    return tf.constant(np.stack(parts, -1), tf.float32)


def by_model(model: Translator) -> Image:
    """What a model makes of a measurement; has a gradient."""

    @tf.function
    def image(source: tf.Tensor) -> tf.Tensor:
        values = model(source[None])[0, ..., 0]
        return values if model.target.unit != "HU" else (values / 1000 + 1) * radon.MU_WATER

    return image


def by_total_variation(case: methods.Case, lam: float) -> Image:
    """What total variation of this weight makes of it; has none."""

    def image(source: tf.Tensor) -> tf.Tensor:
        parts = source.numpy()
        y = parts[..., 0] if parts.shape[-1] == 1 else parts[..., 0] + 1j * parts[..., 1]
        found, _ = zoo.reconstruct(y, case.operator, "tv", lam=lam, **_TV)
        return tf.constant(np.abs(found), tf.float32)

    return image


def changed(image: Image, source: tf.Tensor, change: tf.Tensor) -> float:
    """By which share of its size the image changes."""
    before = image(source)
    return float(tf.norm(image(source + change) - before) / tf.norm(before))


def climbed(image: Image, source: tf.Tensor, steps: int = CLIMB, seed: int = 0) -> tf.Tensor:
    """The change of a measurement by `SHARE` of its size that changes the image most.

    Each step goes to the gradient of the squared change of the image: the power method on its
    Jacobian, were it linear. What was not measured, zero in all channels, stays so.
    """
    seen = tf.cast(tf.reduce_any(source != 0, -1, keepdims=True), source.dtype)
    before, size = image(source), SHARE * tf.norm(source)
    change = seen * tf.random.stateless_normal(source.shape, [seed, 0])
    best = worst = size * change / tf.norm(change)
    most = -1.0
    for _ in range(steps + 1):
        change = best
        with tf.GradientTape() as tape:
            tape.watch(change)
            moved = tf.reduce_sum((image(source + change) - before) ** 2)
        if float(moved) > most:
            most, worst = float(moved), change
        slope = seen * tape.gradient(moved, change)
        best = size * slope / tf.norm(slope)
    return worst


def answered(image: Image, case: methods.Case, start: tf.Tensor, steps: int = ANSWERS) -> float:
    """The most that an image without gradients was seen to change, as a share of its size.

    Each step measures what the last one changed in the image, and goes there.
    """
    source = source_of(case)
    before, size, change = image(source), SHARE * tf.norm(source), start
    found = []
    for _ in range(steps + 1):
        difference = image(source + change) - before
        found.append(float(tf.norm(difference) / tf.norm(before)))
        back = case.operator.forward(tf.cast(difference, case.operator.dtype)).numpy()
        back = source_of(case._replace(measured=back))
        change = size * back / tf.norm(back)
    return max(found)


def disc_left(image: Image, case: methods.Case, contrast: float) -> float:
    """The share of a disc's contrast that the image shows, in the flattest place of the object."""
    target = ndimage.gaussian_filter(case.target.astype(np.float64), 1.0)
    inside = ndimage.uniform_filter(target, 15) > np.median(target[target > target.mean()])
    spread = ndimage.uniform_filter(target**2, 15) - ndimage.uniform_filter(target, 15) ** 2
    row, column = np.unravel_index(np.argmin(np.where(inside, spread, np.inf)), target.shape)
    rows, columns = np.indices(target.shape)
    disc = np.hypot(rows - row, columns - column) <= RADIUS
    seen = case.operator.forward((contrast * disc).astype(np.float32)).numpy()
    with_it = source_of(case._replace(measured=case.measured + seen))
    difference = (image(with_it) - image(source_of(case))).numpy()
    return float(difference[disc].mean() / contrast)


def tried(name: str) -> list[str]:
    """The cells of a model's row."""
    subject, model = SUBJECTS[name], zoo.load(name)
    cases = [subject.case(amount) for amount in subject.amounts.values()]
    network, source = by_model(model), source_of(cases[0])
    lam = float(methods.made(subject.kind, "total variation", 0)["lam"])
    variation = by_total_variation(cases[0], lam)
    # The worst change, and the disc.
    start = climbed(network, source)
    worst = changed(network, source, start), answered(variation, cases[0], start)
    discs = [disc_left(image, cases[0], subject.contrast) for image in (network, variation)]
    # More data; total variation has the same weight.
    qualities: list[list[float]] = []
    for images in ([network] * len(cases), [by_total_variation(case, lam) for case in cases]):
        pairs = zip(images, cases, strict=True)
        qualities.append([_quality(image, case, subject.window) for image, case in pairs])
    hurt = max(a - b for a, b in zip(qualities[0], qualities[0][1:], strict=False))
    passed = [worst[0] <= 2 * worst[1], discs[0] >= 0.5, hurt <= HURT]
    cells = [
        f"{100 * worst[0]:.1f} % ({100 * worst[1]:.1f} %)",
        f"{discs[0]:.2f} ({discs[1]:.2f})",
        ", ".join(
            f"{words} {one:.1f} ({other:.1f})"
            for words, one, other in zip(subject.amounts, *qualities, strict=True)
        ),
        ", ".join("yes" if good else "**no**" for good in passed),
    ]
    return [f"`{name}`", *cells]


def _quality(image: Image, case: methods.Case, window: tuple[float, float]) -> float:
    """PSNR in dB."""
    target = case.target[..., None]
    if not case.operator.dtype.is_complex:
        target = radon.hu_to_attenuation(target)
    return metrics.psnr(image(source_of(case)).numpy()[..., None], target, window)


def main() -> int:
    """Tries the models that are there, and writes the table."""
    rows = [
        ["model", "worst change", "disc that is left", "more data, PSNR in dB", "passes"],
        ["---"] * 5,
    ]
    for name in SUBJECTS:
        if name in registry.index()["pretrained"]:
            rows.append(tried(name))
            print(" | ".join(rows[-1]), flush=True)
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    text, count = _TABLE.subn(lambda _: table + "\n", PAGE.read_text(encoding="utf-8"))
    if count != 1:
        raise ValueError(f"{PAGE.name}: expected one table of tests. Received: {count}")
    write_atomic(PAGE, text.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
