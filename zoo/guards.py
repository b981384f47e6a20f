"""Whether an input is like what a pretrained model was trained on; if not, why not.

What is expected comes from the model's source domain (the meaning of its numbers) and from the
mapping `trained_on` of its entry in `registry.yaml`. Every limit leaves room: a wrong warning
teaches people to ignore the right ones. Imports no TensorFlow.
"""

import contextlib
import contextvars
import itertools
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from zoo.domain import Domain
from zoo.imaging.oriented import Oriented
from zoo.imaging.volume import Volume

SLICES = 8  # of a large stack that are looked at
PADDING = -1500.0  # HU below this were never measured
POSSIBLE = (-10_000.0, 40_000.0)  # HU: paddings and metal on extended scales lie within
BLOCK = 9  # pixels along a block whose noise is measured
MARGIN = {"spacing": 1.1, "level": 1.5, "noise": 2.0}  # factors beyond the range that are let pass
_ENDS = (0.5, 99.5)  # percentiles that the span of an input's values lies between
_EXCHANGED = 2 * np.log(2)  # of two inputs: each fits twice as well in the other's place
_silent = contextvars.ContextVar("silent", default=False)  # of each thread its own


class UntrainedInput(UserWarning):
    """An input is far from what the model was trained on; its output may mean nothing."""


def reasons(
    model: Any,
    images: np.ndarray,
    spacing: tuple[float, ...] | None = None,
    stored_bits: int | None = None,
) -> list[str]:
    """Why `images` are far from what a model was trained on; empty where they are not.

    All images are judged as one; of more than `SLICES` some that are evenly spread. An image of
    one value says nothing and gives no reason, nor do k-space and sinograms, but for the spacing.

    Args:
        model: a `zoo.Translator`; without a `trained_on`, as one that was trained here, anything
            goes, but for inputs that look like each other. Of a `zoo.Average` each member.
        images: `[H, W]` or `[..., H, W, C]` in the source's unit.
        spacing: pixel spacing (row, column) in mm, where it is known.
        stored_bits: of a pixel in the file, where it is known.

    Returns:
        One text for each reason, such as "noise: trained on 8 to 140 HU. Received: about 310 HU";
        of several inputs behind the name of the one.
    """
    if hasattr(model, "members"):
        of_each = [reasons(member, images, spacing, stored_bits) for member in model.members]
        return list(dict.fromkeys(itertools.chain.from_iterable(of_each)))
    trained, source = getattr(model, "trained_on", None), model.source
    if not source.inputs:
        return _reasons(source, trained, images, spacing, stored_bits)
    found = _exchanged(source, images)
    for name, (domain, channels) in source.parts.items():
        own = (trained or {}).get(name)
        said = _reasons(domain, own, images[..., channels], spacing, stored_bits)
        found += [f"{name}: {reason}" for reason in said]
    return found


def _exchanged(source: Domain, images: np.ndarray) -> list[str]:
    """Pairs of inputs each of which looks like the other, by the span of its values.

    Spans are compared by their ratio to a window's: so images that are all darker or brighter
    than usual look alike in either order.
    """
    spans = {}
    for name, (_, channels) in source.parts.items():
        values = _planes(images[..., channels])
        low, high = np.percentile(values[np.isfinite(values)], _ENDS) if values.size else (0, 0)
        spans[name] = high - low

    def off(name: str, window: str) -> float:
        return abs(np.log(spans[name] / source.parts[window][0].span))

    found = []
    for one, other in itertools.combinations(source.parts, 2):
        if not (spans[one] > 0 and spans[other] > 0):
            continue
        as_given = off(one, one) + off(other, other)
        if as_given - off(one, other) - off(other, one) > _EXCHANGED:
            found.append(
                f"inputs: {one} looks like {other}, and {other} like {one}; are they exchanged? "
                f"Received: values that span {_number(spans[one])} and {_number(spans[other])}"
            )
    return found


def _reasons(
    source: Domain,
    trained: Any,
    images: np.ndarray,
    spacing: tuple[float, ...] | None,
    stored_bits: int | None,
) -> list[str]:
    """`reasons` of one input."""
    if trained is None:
        return []
    found = []
    if "spacing" in trained and spacing and _outside("spacing", spacing, trained):
        low, high = trained["spacing"]
        received = " x ".join(f"{value:.3g}" for value in dict.fromkeys(spacing))
        found.append(f"spacing: trained on {low:g} to {high:g} mm. Received: {received} mm")
    planes = _planes(images)
    if source.measured or planes.min() == planes.max():
        return found
    if not np.isfinite(planes).all():  # `translate` refuses it
        return found
    if source.unit == "HU":
        wrong = _not_hu(planes, trained.get("air", True), stored_bits)
    else:
        wrong = _not_signal(planes, source, trained, stored_bits)
    if wrong:
        return [*found, wrong]  # the noise of what is no such image has no meaning
    noise = noise_level(planes, source.unit) if "noise" in trained else None
    if noise is not None and _outside("noise", [noise], trained):
        low, high = trained["noise"]
        unit = " HU" if source.unit == "HU" else ""
        found.append(
            f"noise: trained on {low:g} to {high:g}{unit}. Received: about {_rounded(noise)}{unit}"
        )
    return found


def plane_reasons(model: Any, volume: Volume) -> list[str]:
    """Why the slices of a volume lie otherwise than those that the model learned from.

    Args:
        model: a `zoo.Translator`; where its domain names no plane, anything goes.
        volume: as it is presented to the model.
    """
    wanted = model.source.plane
    if wanted is None or volume.plane == wanted:
        return []
    expected = f"plane: the model learned from {wanted} slices. Received:"
    if volume.plane is not None:
        return [f"{expected} {volume.plane} ones"]
    if isinstance(volume, Oriented):
        return [f"{expected} a file that does not say how it lies, read as it is stored"]
    return []  # pictures, and DICOM of projections


def noise_level(images: np.ndarray, unit: str = "HU") -> float | None:
    """Standard deviation of the noise in the flat parts of soft tissue, in the images' unit.

    The standard deviation about a plane in blocks of `BLOCK` x `BLOCK` pixels, of which the 10th
    percentile: most blocks hold anatomy too. From 8 HU on it is within a factor of 1.6 of the truth
    for white noise and soft and sharp CT kernels, and of 1.8 for the coarsest grain; of less noise
    anatomy leaves too much.
    A wavelet's median absolute deviation (`skimage.restoration.estimate_sigma`) sees the finest
    scale alone, and a fifth of the noise of a soft kernel.

    Args:
        images: `[..., H, W]`.
        unit: with "HU" soft tissue is -200 to 200, else what is brighter than a tenth of the image.

    Returns:
        None where there are fewer than 20 such blocks.
    """
    height, width = (size // BLOCK for size in images.shape[-2:])
    if not height * width:
        return None
    blocks = images[..., : height * BLOCK, : width * BLOCK]
    blocks = blocks.reshape(-1, height, BLOCK, width, BLOCK).swapaxes(2, 3)
    blocks = blocks.reshape(-1, BLOCK * BLOCK)
    mean = blocks.mean(1)
    if unit == "HU":
        tissue = (mean > -200) & (mean < 200)
    else:
        tissue = mean > 0.1 * np.percentile(images, 99.5)
    blocks = blocks[tissue & (np.ptp(blocks, axis=1) > 0)]  # nothing was measured where all is one
    if len(blocks) < 20:
        return None
    across = np.tile(np.linspace(-1.0, 1.0, BLOCK), BLOCK)
    down = across.reshape(BLOCK, BLOCK).T.ravel()
    plane, _ = np.linalg.qr(np.stack([np.ones_like(across), across, down], axis=1))
    rest = blocks - (blocks @ plane) @ plane.T
    deviations = np.sqrt((rest**2).sum(1) / (BLOCK * BLOCK - 3))
    return float(np.percentile(deviations, 10))


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Within it `translate` does not warn: the caller has checked, or need not."""
    token = _silent.set(True)
    try:
        yield
    finally:
        _silent.reset(token)


def warn(model: Any, images: np.ndarray, stacklevel: int) -> None:
    """Warn, as `UntrainedInput`, of what `reasons` finds, unless within `silent`."""
    if not _silent.get():
        for unlike in reasons(model, images):
            warnings.warn(unlike, UntrainedInput, stacklevel=stacklevel + 1)


def _planes(images: np.ndarray) -> np.ndarray:
    """Some of the images, one channel each: float32 `[n, H, W]`."""
    if images.ndim > 2:
        images = images.reshape(-1, *images.shape[-3:])
        chosen = np.linspace(0, len(images) - 1, min(len(images), SLICES)).round().astype(int)
        images = np.moveaxis(images[chosen], -1, 1)
    return images.reshape(-1, *images.shape[-2:]).astype(np.float32, copy=False)


def _outside(name: str, values: tuple[float, ...] | list[float], trained: dict) -> bool:
    low, high = trained[name]
    return min(values) < low / MARGIN[name] or max(values) > high * MARGIN[name]


def _not_hu(planes: np.ndarray, air: bool, stored_bits: int | None) -> str | None:
    low, high = planes.min(), planes.max()
    expected = "values: trained on HU, air near -1000 and water at 0. "
    received = f"{expected}Received: {_number(low)} to {_number(high)}"
    if low < POSSIBLE[0] or high > POSSIBLE[1]:
        return f"{received}, more than any tissue or metal has"
    whole = _whole(planes)
    if low > -10 and high < 10 and not whole:
        return f"{received}, as of normalised values"
    values = planes[planes >= PADDING]
    if values.size == 0 or not air:
        return None
    eight = whole and low >= 0 and high <= 255
    # Stored values have air near 0 and fat and soft tissue at 900 to 1230, which is dense bone.
    shifted = float(np.mean((values > 900) & (values < 1230)))
    bright = float(np.mean(values > 300))
    if values.min() > -300 and shifted > max(0.15, 0.6 * bright):
        return f"{received}, as of stored values without their rescale, or of another modality"
    if values.min() < 0 or (_inside_body(values) and not (eight and stored_bits == 8)):
        return None
    if eight:
        return f"{received}, whole numbers as in an 8-bit picture"
    return f"{received}, none below 0, as of another modality such as MR, or of raw values"


def _inside_body(values: np.ndarray) -> bool:
    """Whether values of 0 and more can be HU of a part of the body that has no air or fat.

    Other images have a background, and its noise, at their lower end. Noise of HU ends above 0
    where it does not go below.
    """
    dark, median, bright = np.percentile(values, [1, 50, 99])
    if dark > 0.1 * bright and median < 300:  # such as a liver with contrast medium
        return True
    soft = values[values < 100]  # such as a brain, beside which bone is
    return bool(
        soft.size > 0.6 * values.size
        and 20 < np.median(soft) < 80
        and soft.mean() > 2.5 * soft.std()
    )


def _not_signal(planes: np.ndarray, source: Any, trained: dict, bits: int | None) -> str | None:
    low, level = np.percentile(planes, [0.5, 99.5])
    high = planes.max()
    # Interpolation leaves small negative values beside edges.
    if source.window[0] >= 0 and low < -0.05 * max(level, 0.0):
        return (
            "values: trained on images of 0 or more. "
            f"Received: {_number(planes.min())} to {_number(high)}, as of CT in HU"
        )
    if "level" not in trained:
        return None
    expected = "level: trained on {:g} to {:g} at the 99.5th percentile. ".format(*trained["level"])
    eight = bits == 8 or high >= 250  # an 8-bit picture ends there, a dark image anywhere
    if trained["level"][1] > 255 and eight and planes.min() >= 0 and high <= 255 and _whole(planes):
        return f"{expected}Received: whole numbers from 0 to 255, as in an 8-bit picture"
    if _outside("level", [level], trained):
        return f"{expected}Received: {_number(level)}"
    return None


def _whole(planes: np.ndarray) -> bool:
    return bool((planes == np.rint(planes)).all())


def _rounded(value: float) -> str:
    """Two digits, without an exponent: more would be too much of an estimate."""
    return f"{float(f'{value:.2g}'):.10g}"


def _number(value: float) -> str:
    """Whole from 100 on, three digits below."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
