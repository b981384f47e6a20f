"""Where a model may be wrong: a spread beside each answer, in the target's unit.

A spread says where the error is larger than elsewhere and promises nothing of how large it is.
`zoo.trust.calibration` finds the factor that makes intervals of it.
"""

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from scipy import ndimage

from zoo import tiled
from zoo.averaging import Average
from zoo.layers import Dropout, step_seeds

NAMES = ("quantiles", "dropout", "views", "answers")
DRAWS = 16  # of dropout
FLOOR = 5e-4  # of the target's window: no pixel is quite certain
# The deviation of a few views is as noisy as that of few numbers is: it is averaged around each
# pixel by this Gaussian, whose own standard deviation is 4 pixels.
NEAR = np.exp(-0.5 * (np.arange(-8, 9) / 4.0) ** 2).astype(np.float32)

Pair = tuple[np.ndarray, np.ndarray]  # float32 answer and spread, of one shape


class Spread:
    """Gives a model's answers, each with a spread.

    Args:
        model: a `zoo.Translator` of images, or a `zoo.Average` of some.
        name: where the spread comes from,
            - "quantiles": half of what lies between a network's quantile heads;
            - "dropout": standard deviation of `DRAWS` answers with the network's dropout on, which
              are samples of a generator such as pix2pix's;
            - "views": of the answers to mirror images and turns, about their mean, averaged around
              each pixel (`NEAR`), while the answer stays that to the image as it is;
            - "answers": of those that a `zoo.Average` is the mean of: views, models, or both;
            - "auto": "answers" of an average, else the first of the others that the model has.

    Raises:
        ValueError: for classes, a generator, and a spread that the model does not have.
    """

    def __init__(self, model: Any, name: str = "auto"):
        if model.classes or getattr(model, "generates", False):
            received = "classes" if model.classes else "a generator"
            raise ValueError(f"model: expected one that makes images. Received: {received}")
        sources = _sources(model)
        self.name = next(iter(sources), "none") if name == "auto" else name
        if self.name not in sources:
            has = ", ".join(sources) or "a model with quantiles, dropout, mirror images or turns"
            raise ValueError(f"spread: expected {has}. Received: {self.name}")
        self.model = model
        self._pair = sources[self.name]()
        self.floor = np.float32(FLOOR * model.target.span)

    def __call__(self, images: np.ndarray, batch_size: int = 1) -> Pair:
        """Answer and spread of images.

        Args:
            images: float32 `[N, H, W, C]` in the source's unit, or volumes.
            batch_size: tiles or images that go through the network at once.

        Returns:
            float32 `[N, H', W', C']` twice, in the target's unit; the spread is above 0.
        """
        answer, spread = self._pair(images, batch_size)
        return answer, spread + self.floor

    def for_spacing(self, spacing: Sequence[float] | None) -> "Spread":
        """The same for images of this pixel spacing, in mm: without quarter turns if not square."""
        fitting = copy.copy(self)
        if hasattr(self._pair, "for_spacing"):
            fitting._pair = self._pair.for_spacing(spacing)
        return fitting


def _sources(model: Any) -> dict[str, Callable[[], Any]]:
    """What makes each spread that a model has, by its name, the best first."""
    if isinstance(model, Average):
        return {"answers": lambda: _Answers(model)}
    sources: dict[str, Callable[[], Any]] = {}
    if getattr(model.recipe, "quantiles", False):
        sources["quantiles"] = lambda: _Quantiles(model)
    if any(layer.rate for layer in _dropouts(model.network)):
        sources["dropout"] = lambda: _Draws(model)
    with contextlib.suppress(ValueError):  # trained without mirror images and turns
        views = Average([model], tta=True)
        sources["views"] = lambda: _Views(views)
    return sources


class _Quantiles:
    def __init__(self, model: Any):
        self.model = model
        self.graph = tf.function(model.with_half_width, reduce_retracing=True)

    def __call__(self, images: np.ndarray, batch_size: int) -> Pair:
        both = tiled.answered(self.model, images, batch_size, self._served)
        answer, half = np.split(both, 2, axis=-1)
        return answer, half

    def _served(self, batch: np.ndarray) -> np.ndarray:
        return self.graph(tf.constant(batch)).numpy()


class _Draws:
    """Answers with dropout on; a draw's masks depend on its number and the tile's place alone."""

    def __init__(self, model: Any):
        self.model = model
        self.graph = tf.function(self._drawn)

    def __call__(self, images: np.ndarray, batch_size: int) -> Pair:
        answer = tiled.answered(self.model, images, batch_size)
        return answer, _moments(self._draws(images, batch_size))[1]

    def _draws(self, images: np.ndarray, batch_size: int) -> Iterator[tuple[np.ndarray, Any]]:
        for number in range(DRAWS):
            calls = iter(range(2**31))

            def serve(batch: np.ndarray, number=number, calls=calls) -> np.ndarray:
                first = next(calls) * batch_size
                seeds = [[number, first + k] for k in range(len(batch))]
                return self.graph(tf.constant(batch), tf.constant(seeds, tf.int32)).numpy()

            yield tiled.answered(self.model, images, batch_size, serve), np.float32(1 / DRAWS)

    def _drawn(self, images: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        with _dropping(self.model.network), step_seeds(seeds):
            return self.model(images, training=False)


class _Answers:
    def __init__(self, average: Average):
        self.average = average

    def for_spacing(self, spacing: Sequence[float] | None) -> Any:
        return type(self)(self.average.for_spacing(spacing))

    def __call__(self, images: np.ndarray, batch_size: int) -> Pair:
        return _moments(self.average.each(images, batch_size))


class _Views(_Answers):
    def __call__(self, images: np.ndarray, batch_size: int) -> Pair:
        answers = list(self.average.each(images, batch_size))
        # The first view is the image as it is.
        return answers[0][0], smoothed(_moments(answers)[1])


def smoothed(spread: np.ndarray) -> np.ndarray:
    """The mean around each pixel by `NEAR`, of what lies in the image.

    Args:
        spread: float32 `[N, H, W, C]`, or volumes, whose slices are averaged by themselves.
    """
    shares = np.ones(spread.shape[-3:-1], np.float32)
    for axis in (-3, -2):
        spread = ndimage.correlate1d(spread, NEAR, axis, mode="constant")
        shares = ndimage.correlate1d(shares, NEAR, axis + 1, mode="constant")
    return spread / shares[..., None]


def _moments(answers: Iterable[tuple[np.ndarray, Any]]) -> Pair:
    """Mean, as `Average` takes it, and standard deviation of answers with their shares."""
    mean: Any = 0.0
    first = None
    offset: Any = 0.0
    squares: Any = 0.0
    for answer, share in answers:
        first = answer if first is None else first
        mean += answer * share
        apart = np.subtract(answer, first, dtype=np.float64)
        offset += share * apart
        squares += share * apart**2
    spread = np.sqrt(np.maximum(squares - offset**2, 0.0))
    return mean, spread.astype(np.float32)


def _dropouts(network: keras.Model) -> Iterator[Dropout]:
    """Its layers that drop, those of networks inside it too."""
    for layer in getattr(network, "layers", ()):
        if isinstance(layer, Dropout):
            yield layer
        yield from _dropouts(layer)


@contextlib.contextmanager
def _dropping(network: keras.Model) -> Iterator[None]:
    """Within it the network is traced with its dropout on, whatever its recipe says of tests."""
    before = [(layer, layer.always) for layer in _dropouts(network)]
    try:
        for layer, _ in before:
            layer.always = True
        yield
    finally:
        for layer, always in before:
            layer.always = always
