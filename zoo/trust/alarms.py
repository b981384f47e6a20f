"""What an output, seen beside its input, may be wrong in: figures of one image, each an alarm's.

A figure says nothing by itself: how large it may be differs from model to model, and
`zoo.trust.limits` finds that from patients. All are of the images clipped to their windows, on the
output's grid. Imports no TensorFlow.
"""

import itertools
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage
from skimage.registration import phase_cross_correlation

from zoo.trust import ring, structures

BINS = 48  # of the grey values whose mutual information is taken
# HU of air, of water and what holds most of it, and of bone, in the input smoothed by 2 pixels.
TISSUES = {"air": (-1100.0, -950.0), "water": (-30.0, 90.0), "bone": (250.0, 1400.0)}
_FEWEST = 64  # pixels of a tissue whose mean is taken
_SCALES = (3.0, 4.0)  # pixels, standard deviations of the blobs: noise that was removed has smaller
_AROUND = 16.0  # pixels that a blob's surroundings reach


class Alarm(NamedTuple):
    """What one figure is.

    Attributes:
        words: what it measures.
        unit: of it: "pixels", "unit" for that of the images, "share", or "" for none.
        low, high: whether it alarms below, and above, what is usual.
        room: what it may be off from the usual without a meaning, in its unit.
        needs: what it needs beside input and output: "unit" that both have the same, "HU" that
            both are CT, "back" a model that translates back, "reference" the true image,
            "labels" a segmentation.
    """

    words: str
    unit: str
    low: bool
    high: bool
    room: float
    needs: str = ""


ALARMS = {
    "edges": Alarm("correlation of the input's and the output's edges", "", True, False, 0.01),
    "information": Alarm("mutual information of input and output", "", True, False, 0.02),
    "tone": Alarm("correlation of input and output, which inversion turns", "", True, True, 0.005),
    "shift": Alarm("how far the output lies from the input", "pixels", False, True, 0.3),
    "outside": Alarm("share of the input outside the window", "share", False, True, 0.01),
    "texture": Alarm("fine detail of the output over its range, decades", "", True, True, 0.03),
    "removed_edges": Alarm(
        "correlation of what was removed with edges", "", False, True, 0.03, "unit"
    ),
    "removed_grain": Alarm(
        "correlation of what was removed 3 pixels on: noise has little", "", False, True, 0.03,
        "unit",
    ),
    "removed_blob": Alarm(
        "strongest blob in what was removed or added, over what is around it", "", False, True, 0.5,
        "unit",
    ),
    "air": Alarm("drift of air", "unit", True, True, 2.0, "HU"),
    "water": Alarm("drift of soft tissue", "unit", True, True, 2.0, "HU"),
    "bone": Alarm("drift of bone", "unit", True, True, 5.0, "HU"),
    "cycle": Alarm("error of the way there and back, of the window", "share", False, True, 0.002,
                   "back"),
    "reference": Alarm("share of patches that are not the reference's (sFRC)", "share", False, True,
                       0.02, "reference"),
    "dice": Alarm("least Dice of a structure that was given with what the output shows of it", "",
                  True, False, 0.02, "labels"),
}  # fmt: skip


class Compared(NamedTuple):
    """One image, as the alarms see it.

    Attributes:
        given: float32 `[H, W]`, the input on the output's grid, or what there is without a model.
        made: float32 `[H, W]`, the output.
        removed: given - made where both have one unit, else None.
        places: z of the blobs in `removed`, else None.
        patches: of the output against the reference, else None.
    """

    given: np.ndarray
    made: np.ndarray
    removed: np.ndarray | None = None
    places: np.ndarray | None = None
    patches: ring.Patches | None = None


def require(model: Any) -> None:
    """A ValueError for a model whose output is no image of its input."""
    if model.classes or getattr(model, "generates", False):
        received = "classes" if model.classes else "a generator"
        raise ValueError(f"alarms: expected a model that translates images. Received: {received}")


def figures(
    model: Any,
    source: np.ndarray,
    output: np.ndarray,
    reference: np.ndarray | None = None,
    labels: np.ndarray | None = None,
) -> tuple[dict[str, float], Compared]:
    """The figures of an image, by the names of `ALARMS`, and what they were taken of.

    A figure that needs what there is not, such as bone in a slice without any, is left out.

    Args:
        model: a `zoo.Translator`, or what has its domains; of volumes it is asked slice by slice.
        source: float32 `[H, W, C]` in the source's unit.
        output: float32 `[H', W', C']` in the target's.
        reference: the true image of the output's shape, where it is known.
        labels: of structures, whole numbers `[h, w]` over the input's field of view.
    """
    # Both on one grid, within their windows.
    before, window = _given(model, source)
    made = model.target.clip(_middle(output)).astype(np.float32)
    given = before.clip(*window).astype(np.float32)
    same = _same_unit(model) and given.shape == made.shape
    if given.shape != made.shape:  # a matrix size of its own
        given = _resized(given, made.shape)
    found = {"outside": float(np.mean((before < window[0]) | (before > window[1])))}
    found |= _alike(given, made)
    compared = Compared(given, made)
    # What was taken away or added.
    if same:
        removed = given - made
        places = blobs(removed, made, 1e-3 * model.target.span)
        found |= _removed(removed, made, places)
        compared = compared._replace(removed=removed, places=places)
    if same and model.target.unit == "HU":
        found |= _drift(given, made)
    # What needs more than the two.
    back = getattr(model, "there_and_back", None)
    if back is not None:
        error = np.abs(model.source.clip(back(source[None])[0]) - model.source.clip(source))
        found["cycle"] = float(error.mean() / model.source.span)
    if reference is not None:
        truth = model.target.clip(_middle(reference)).astype(np.float32)
        patches = ring.patches(made, truth, model.target.span)
        if len(patches.suspect):
            found["reference"] = float(patches.suspect.mean())
            compared = compared._replace(patches=patches)
    kept = None if labels is None else structures.dice(labels, made)
    if kept is not None:
        found["dice"] = kept
    return found, compared


def of_slices(
    model: Any,
    source: np.ndarray,
    output: np.ndarray,
    reference: np.ndarray | None = None,
    labels: np.ndarray | None = None,
) -> list[tuple[dict[str, float], Compared]]:
    """`figures` of an image, or of each slice of a volume `[D, H, W, C]`, without labels."""
    if model.dimensions == 2:
        return [figures(model, source, output, reference, labels)]
    depth = max(1, len(output) // len(source))
    found = []
    for index, image in enumerate(output):
        truth = None if reference is None else reference[index]
        found.append(figures(model, source[index // depth], image, truth))
    return found


def _given(model: Any, source: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """The input on the output's grid and its window: of measurements a quick image."""
    if model.source.measured:
        return _middle(model.baseline(source)[0]), model.target.window
    # Of several inputs the one that is like the target, else the first.
    first = next(iter(model.source.parts.values()))
    domain, channels = model.source.like(model.target) or first
    image = _middle(source[..., channels])
    if model.scale > 1:
        image = _resized(image, tuple(side * model.scale for side in image.shape))
    return image, domain.window


def _middle(image: np.ndarray) -> np.ndarray:
    return image if image.ndim == 2 else image[..., image.shape[-1] // 2]


def _resized(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """By cubic splines, over the same field of view."""
    factors = [new / old for new, old in zip(shape, image.shape, strict=True)]
    return ndimage.zoom(image, factors, order=3, mode="nearest", grid_mode=True)


def _same_unit(model: Any) -> bool:
    if model.source.measured:
        return True
    like = model.source.like(model.target)
    if like is None or like[0].unit != model.target.unit:
        return False
    # Signals of two contrasts have one unit and are two things: what differs is not removed.
    first = getattr(model, "members", [model])[0]
    return model.source.unit == "HU" or model.scale > 1 or first.residual


def _alike(given: np.ndarray, made: np.ndarray) -> dict[str, float]:
    """Figures of any two images that show one anatomy."""
    found = {}
    steep = [ndimage.gaussian_gradient_magnitude(image, 1.0) for image in (given, made)]
    found["edges"] = correlation(*steep)
    found["tone"] = correlation(given, made)
    found["information"] = information(given, made)
    if all(edge.any() for edge in steep):
        apart = phase_cross_correlation(*steep, upsample_factor=10, normalization=None)[0]
        found["shift"] = float(np.hypot(*apart))
    # Fine detail of what is not flat: its quartile, which edges leave alone, over the range.
    fine = np.abs(made - ndimage.gaussian_filter(made, 1.0))
    low, high = np.percentile(made, [0.5, 99.5])
    fine = fine[fine > 1e-6 * (high - low)]
    if high > low and len(fine):
        found["texture"] = float(np.log10(np.quantile(fine, 0.25) / (high - low)))
    return {name: value for name, value in found.items() if np.isfinite(value)}


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Pearson's; NaN where one of them is flat."""
    one, other = (np.asarray(each, np.float64) - np.mean(each) for each in (one, other))
    norm = np.sqrt((one**2).sum() * (other**2).sum())
    return float((one * other).sum() / norm) if norm > 0 else float("nan")


def information(one: np.ndarray, other: np.ndarray) -> float:
    """Normalised mutual information, 0 of independent images to 1 where each tells the other.

    (H(X) + H(Y)) / H(X, Y) - 1 of grey values in `BINS` bins between their ends; NaN of flat ones.
    """
    joint = np.histogram2d(one.ravel(), other.ravel(), BINS)[0]
    joint /= joint.sum()
    both, first, second = (_entropy(p) for p in (joint, joint.sum(0), joint.sum(1)))
    return float((first + second) / both - 1) if both > 0 else float("nan")


def _entropy(shares: np.ndarray) -> float:
    held = shares[shares > 0]
    return float(-(held * np.log(held)).sum())


def blobs(removed: np.ndarray, made: np.ndarray, floor: float) -> np.ndarray:
    """How much each place of what was removed stands out: `[H, W]`, about normal for noise.

    The smoothed removed part over its mean size around, and over what edges would leave that are
    off by half a pixel: so neither noise nor a slightly other sharpness is a blob.

    Args:
        removed: input - output.
        made: the output.
        floor: the least that counts, in their unit.
    """
    strongest = np.zeros(removed.shape, np.float32)
    for sigma in _SCALES:
        smooth = ndimage.gaussian_filter(removed, sigma)
        usual = 1.25 * ndimage.gaussian_filter(np.abs(smooth), _AROUND)
        edges = 0.5 * ndimage.gaussian_gradient_magnitude(made, sigma)
        z = smooth / np.sqrt(usual**2 + edges**2 + floor**2)
        strongest = np.where(np.abs(z) > np.abs(strongest), z, strongest)
    return strongest


def _removed(removed: np.ndarray, made: np.ndarray, places: np.ndarray) -> dict[str, float]:
    """Whether what was removed is noise."""
    found = {"removed_blob": float(np.abs(places).max())}
    size = ndimage.gaussian_filter(np.abs(removed), 1.0)
    found["removed_edges"] = correlation(size, ndimage.gaussian_gradient_magnitude(made, 1.0))
    # Noise is over after a few pixels.
    pairs = (removed[3:], removed[:-3]), (removed[:, 3:], removed[:, :-3])
    found["removed_grain"] = float(np.mean(list(itertools.starmap(correlation, pairs))))
    return {name: value for name, value in found.items() if np.isfinite(value)}


def _drift(given: np.ndarray, made: np.ndarray) -> dict[str, float]:
    """How far the means of tissues are off, in HU, where the input holds them."""
    # A tissue's inside: a smoothed edge has any value between two of them.
    smooth = ndimage.gaussian_filter(given, 2.0)
    steep = ndimage.gaussian_gradient_magnitude(given, 2.0)
    found = {}
    for name, (low, high) in TISSUES.items():
        inside = (smooth > low) & (smooth < high) & (steep < 0.1 * (high - low))
        if inside.sum() >= _FEWEST:
            found[name] = float(np.mean(made[inside] - given[inside], dtype=np.float64))
    return found
