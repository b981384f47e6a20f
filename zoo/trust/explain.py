"""Where a region of an output comes from: its influence map, and the output without the region.

The gradient of the region's mean in the output with respect to every pixel of the input, as its
mean over inputs with a little noise (SmoothGrad: Smilkov et al., arXiv:1706.03825), says which
pixels would move it. Whether they made it is said by the second: what the network makes of the
input whose region was replaced by its surroundings. Structure that stays was not read there.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import tensorflow as tf
from scipy import ndimage

from zoo import figures
from zoo.domain import Domain

DRAWS = 8  # noisy inputs whose gradients are averaged
NOISE = 0.01  # of the source's window, standard deviation of their noise
RADIUS = 5  # pixels, of a region
_MOST = 0.9  # of the influence, whose radius is told


class Region(NamedTuple):
    """A disc of an image, in pixels of its rows and columns."""

    row: int
    column: int
    radius: int

    def away(self, shape: tuple[int, ...]) -> np.ndarray:
        """How far each pixel `[H, W]` lies from its centre."""
        rows, columns = np.ogrid[: shape[0], : shape[1]]
        return np.hypot(rows - self.row, columns - self.column)

    def inside(self, shape: tuple[int, ...]) -> np.ndarray:
        """bool `[H, W]`."""
        return self.away(shape) <= self.radius

    def around(self, shape: tuple[int, ...]) -> np.ndarray:
        """bool `[H, W]`, a ring beyond a pixel, as wide as the disc and 2 pixels or more."""
        away = self.away(shape)
        return (away > self.radius + 1) & (away <= self.radius + 1 + max(self.radius, 2))


@dataclasses.dataclass
class Explained:
    """What there is to say of a region.

    Attributes:
        influence: float32 `[H, W]`, how much a unit of each pixel of the input moves the region's
            mean, whatever the sign.
        output: `[H', W']` as it is.
        without: the same where the input's region is its surroundings.
        region: in the input's pixels.
        share: of the influence that lies inside the region.
        reach: pixels from its centre within which 90 % of the influence lies.
        contrast, contrast_without: mean of the region less that around it, in the outputs.
    """

    influence: np.ndarray
    output: np.ndarray
    without: np.ndarray
    region: Region
    share: float
    reach: float
    contrast: float
    contrast_without: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON: all but the images."""
        numbers = ("share", "reach", "contrast", "contrast_without")
        return self.region._asdict() | {name: getattr(self, name) for name in numbers}

    def words(self, unit: str) -> str:
        """In a sentence."""
        end = "" if unit == "1" else f" {unit}"
        return (
            f"{self.share:.0%} of the influence lies in the region, {_MOST:.0%} within "
            f"{self.reach:.0f} pixels; its contrast is {self.contrast:.3g}{end}, and "
            f"{self.contrast_without:.3g}{end} where the input's region is its surroundings"
        )


def require(model: Any) -> None:
    """A ValueError for what no region of an image can be explained of."""
    one = not (model.source.inputs or model.source.measured)
    if model.classes or getattr(model, "generates", False) or model.dimensions != 2 or not one:
        raise ValueError(
            f"explain: expected a model that makes images of single images. Received: {model.name}"
        )


def explain(model: Any, image: np.ndarray, region: Region, seed: int = 0) -> Explained:
    """Explain a region of what a model makes of an image.

    Args:
        model: a `zoo.Translator` or a `zoo.Average` of images.
        image: float32 `[H, W, C]` in the source's unit; it goes through the network whole.
        region: in the image's pixels.
        seed: of the noise.

    Raises:
        ValueError: for a region that is not in the image, and as `require`.
    """
    require(model)
    image, shape = np.asarray(image, np.float32), image.shape[:2]
    within = 0 <= region.row < shape[0] and 0 <= region.column < shape[1]
    if not (within and region.radius >= 0 and region.around(shape).any()):
        raise ValueError(
            f"explain: expected a row below {shape[0]}, a column below {shape[1]} and a radius "
            f"that leaves something around. Received: {','.join(map(str, region))}"
        )
    # The two outputs, and the region in them.
    scale = model.scale
    row, column = (scale * number + (scale - 1) // 2 for number in region[:2])
    larger = Region(row, column, scale * region.radius)
    filled = np.stack([fill(image[..., c], region) for c in range(image.shape[-1])], -1)
    output, without = (_made(model, tf.constant(each[None])).numpy() for each in (image, filled))
    # What moves the region's mean.
    mask = larger.inside(output.shape[1:3])
    influence = np.abs(_gradient(model, image, mask, seed)).sum(-1)
    inside, total = region.inside(shape), max(float(influence.sum()), 1e-30)
    order = np.argsort(region.away(shape), axis=None)
    held = np.cumsum(influence.ravel()[order]) / total
    first = min(int(np.searchsorted(held, _MOST)), len(order) - 1)
    around = larger.around(mask.shape)
    shown = [each[0, ..., each.shape[-1] // 2] for each in (output, without)]
    contrasts = [float(each[mask].mean() - each[around].mean()) for each in shown]
    return Explained(
        influence=influence,
        output=shown[0],
        without=shown[1],
        region=region,
        share=float(influence[inside].sum() / total),
        reach=float(region.away(shape).ravel()[order[first]]),
        contrast=contrasts[0],
        contrast_without=contrasts[1],
    )


def _made(model: Any, images: tf.Tensor) -> tf.Tensor:
    """What a model, or the mean of several, makes of images."""
    members = getattr(model, "members", [model])
    return tf.add_n([member(images, training=False) for member in members]) / len(members)


def _gradient(model: Any, image: np.ndarray, mask: np.ndarray, seed: int) -> np.ndarray:
    """Of the mean of a mask of the output, `[H, W, C]`; its mean over inputs with noise."""
    rng, total = np.random.default_rng(seed), np.zeros_like(image)
    weights = tf.constant(mask[None, ..., None] / mask.sum(), tf.float32)
    for _ in range(DRAWS):
        noise = rng.normal(0, NOISE * model.source.span, image.shape)
        images = tf.constant((image + noise)[None].astype(np.float32))
        with tf.GradientTape() as tape:
            tape.watch(images)
            value = tf.reduce_sum(_made(model, images) * weights)
        gradient = tape.gradient(value, images)
        if gradient is not None:
            total += gradient[0].numpy() / DRAWS
    return total


def fill(image: np.ndarray, region: Region) -> np.ndarray:
    """An image `[H, W]` whose region goes on smoothly from its surroundings (Laplace's equation).

    Its rim is taken of the image smoothed by a pixel, so that no noise is spread over it.
    """
    # The neighbours of each pixel of the region are known, or are pixels of the region.
    inside = region.inside(image.shape)
    places, number = np.argwhere(inside), -np.ones(image.shape, int)
    number[inside] = np.arange(len(places))
    known = ndimage.gaussian_filter(np.where(inside, 0, image), 1.0)
    known /= np.maximum(ndimage.gaussian_filter((~inside).astype(np.float32), 1.0), 1e-6)
    matrix = scipy.sparse.lil_matrix((len(places), len(places)))
    right = np.zeros(len(places))
    for index, (row, column) in enumerate(places):
        for down, across in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            r, c = row + down, column + across
            if not (0 <= r < image.shape[0] and 0 <= c < image.shape[1]):
                continue
            matrix[index, index] += 1
            if inside[r, c]:
                matrix[index, number[r, c]] -= 1
            else:
                right[index] += known[r, c]
    filled = image.copy()
    filled[inside] = scipy.sparse.linalg.spsolve(matrix.tocsr(), right)
    return filled


def picture(image: np.ndarray, found: Explained, source: Domain, target: Domain) -> np.ndarray:
    """uint8 `[H', W', 3]`: input, output, influence, and the output without the region.

    Args:
        image: `[H, W, C]` that was explained.
        found: of it.
        source, target: the model's domains.
    """
    shown = image[..., image.shape[-1] // 2]
    label, window = figures.best_window([found.output], target.unit, target.window)
    top = max(float(np.quantile(found.influence, 0.999)), 1e-12)
    # The region's rim, a pixel wide, in the input.
    rim = np.abs(found.region.away(shown.shape) - found.region.radius - 1) < 0.5
    ends = window if source.unit == target.unit == "HU" else source.window
    row = {"input": np.where(rim, ends[1], shown), "output": found.output}
    row |= {"influence": found.influence, "output without it": found.without}
    windows = {"input": ends, "output": window, "output without it": window}
    windows["influence"] = (0.0, top)
    caption = f"{found.words(target.unit)} {label and f'({label})'}"
    return figures.grid([row], windows, captions=[caption], panel=256)
