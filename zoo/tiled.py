"""From NumPy arrays through a model to NumPy arrays, in tiles where they are large."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from zoo import guards
from zoo.imaging import tiling


def translated(
    model: Any,
    array: np.ndarray,
    batch_size: int = 1,
    answers: Callable[[np.ndarray, int], np.ndarray] | None = None,
) -> np.ndarray:
    """What `Translator.translate` gives, whose documentation says the rest.

    Args:
        model: a `zoo.Translator`, or what has its domains and sizes.
        array: an image, a stack or a batch.
        batch_size: tiles or images that go through the network at once.
        answers: what gives those of a batch; None: `answered` by the model.
    """
    # The array as a batch of images with channels.
    array = np.asarray(array)
    channels, rank = model.source.channels, model.dimensions
    given = array.shape[-1] if array.ndim == rank + 2 else 1
    if array.ndim - rank not in (0, 1, 2) or given != channels:
        axes = "H, W" if rank == 2 else "D, H, W"
        named = f" with the channels {model.source.names}" if model.source.inputs else ""
        raise ValueError(
            f"array: expected [{axes}], [N, {axes}] (for one channel) or "
            f"[N, {axes}, {channels}]{named}. Received: shape {array.shape}"
        )
    if not np.issubdtype(array.dtype, np.number) or not np.isfinite(array).all():
        raise ValueError(
            f"array: expected finite numbers. Received: dtype {array.dtype} with "
            "NaN, infinity or no numbers at all"
        )
    images = array.astype("float32")
    if array.ndim < rank + 2:
        images = images[..., None]
    if array.ndim == rank:
        images = images[None]
    if len(images) and not images.size:
        raise ValueError(f"array: expected images with pixels. Received: shape {array.shape}")
    # Through the network, and back to the rank that was given.
    if len(images):
        for unlike in guards.reasons(model, images):
            warnings.warn(unlike, guards.UntrainedInput, stacklevel=3)
        answer = answers(images, batch_size) if answers else answered(model, images, batch_size)
        # Labels have no mean, where tiles overlap or models differ: the probabilities had.
        result = answer.argmax(-1)[..., None].astype("float32") if model.classes else answer
    else:
        sides = [side * model.scale for side in images.shape[1:-1]]
        sides = sides if model.tiles else model.network.output_shape[1:-1]
        result = np.zeros([0, *sides, model.target.channels], np.float32)
    if array.ndim < rank + 2:
        result = result[..., 0]
    return result[0] if array.ndim == rank else result


def answered(model: Any, images: np.ndarray, batch_size: int) -> np.ndarray:
    """float32 `[N, H', W', C']` of float32 `[N, H, W, C]`, volumes likewise.

    Of a classifier the probabilities `[N, H, W, classes]`.
    """
    multiple = model.size_multiple
    margin = -(-model.tile_margin // multiple) * multiple
    tile = max(model.recipe.tile, 6 * margin) // multiple * multiple
    if max(images.shape[1:-1]) <= tile or not model.tiles:
        starts = range(0, len(images), batch_size)
        return np.concatenate([model.serve(images[i : i + batch_size]) for i in starts])
    return tiling.tiled(
        model.serve,
        images,
        tile=tile,
        overlap=2 * margin + multiple * -(-32 // multiple),
        margin=margin,
        multiple=multiple,
        batch_size=batch_size,
        scale=model.scale,
    )
