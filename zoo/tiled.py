"""From NumPy arrays through a model to NumPy arrays, in tiles where they are large."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from zoo import guards
from zoo.imaging import tiling
from zoo.recipe import per_axis

LARGEST_CUBE = 160  # voxels along a tile of volumes, of a recipe that gives one number


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
        guards.warn(model, images, stacklevel=3)
        answer = answers(images, batch_size) if answers else answered(model, images, batch_size)
        result = decided(model, answer)
    else:
        sides = [side * model.scale for side in images.shape[1:-1]]
        sides = sides if model.tiles else model.network.output_shape[1:-1]
        result = np.zeros([0, *sides, model.target.channels], np.float32)
    if array.ndim < rank + 2:
        result = result[..., 0]
    return result[0] if array.ndim == rank else result


def answered(
    model: Any,
    images: np.ndarray,
    batch_size: int,
    serve: Callable[[np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """float32 `[N, H', W', C']` of float32 `[N, H, W, C]`, volumes likewise.

    Of a classifier the probabilities `[N, H, W, classes]`.

    Args:
        model: a `zoo.Translator`.
        images: in the source's unit.
        batch_size: tiles or images that go through the network at once.
        serve: what gives the answer of a batch, of the model's sizes; None: the model's own.
    """
    cut, serve = Cut.of(model), serve or model.serve
    if not model.tiles or cut.takes(images.shape[1:-1]):
        starts = range(0, len(images), batch_size)
        return np.concatenate([serve(images[i : i + batch_size]) for i in starts])
    options: Any = cut._asdict()
    return tiling.tiled(serve, images, batch_size=batch_size, **options)


def answered_slices(
    model: Any, read: tiling.Read, shape: Sequence[int], batch_size: int = 1
) -> Iterator[np.ndarray]:
    """The slices of what `answered` gives for one volume, as they are finished.

    Args:
        model: a `zoo.Translator` of volumes.
        read, shape, batch_size: as `Translator.translate_slices` takes them.
    """

    def finite(start: int, stop: int) -> np.ndarray:
        images = np.asarray(read(start, stop), np.float32)
        expected = (stop - start, *shape[1:], model.source.channels)
        if images.shape != expected or not np.isfinite(images).all():
            raise ValueError(
                f"read: expected finite numbers of shape {expected} from slice {start} on. "
                f"Received: shape {images.shape}, or NaN or infinity"
            )
        return images

    cut = Cut.of(model)
    if not model.tiles or cut.takes(shape):
        yield from model.serve(finite(0, shape[0])[None])[0]
        return
    options: Any = cut._asdict()
    for slab in tiling.slabs(model.serve, finite, shape, batch_size=batch_size, **options):
        yield from slab


def decided(model: Any, answer: np.ndarray) -> np.ndarray:
    """An answer; of a classifier's probabilities the likeliest class.

    Labels have no mean, where tiles overlap or models differ: the probabilities had.
    """
    return answer.argmax(-1)[..., None].astype("float32") if model.classes else answer


class Cut(NamedTuple):
    """How a model's images are cut into tiles: the arguments of `zoo.imaging.tiling.tiled`.

    Attributes:
        tile, overlap, margin: one number for each axis of an image.
        multiple, scale: the model's.
    """

    tile: tuple[int, ...]
    overlap: tuple[int, ...]
    margin: tuple[int, ...]
    multiple: int
    scale: int

    @classmethod
    def of(cls, model: Any) -> "Cut":
        """From the recipe's `tile`, and from how far the network sees.

        Tiles of images are at least so large that margins cost little, and equal the whole. Of
        volumes the recipe's tile is kept, because memory is what limits it: where it is too small
        for the margins, half of it is shared with the next one, and blended.
        """
        multiple, given = model.size_multiple, model.recipe.tile
        reach = -(-model.tile_margin // multiple) * multiple
        sides = per_axis(given, model.dimensions)
        if model.dimensions == 2:
            tile = tuple(max(side, 6 * reach) // multiple * multiple for side in sides)
            shared = 2 * reach + multiple * -(-32 // multiple)
            return cls(tile, (shared,) * 2, (reach,) * 2, multiple, model.scale)
        if isinstance(given, int):
            sides = (min(given, LARGEST_CUBE),) * 3
        tile = tuple(max(side // multiple, 2) * multiple for side in sides)
        wanted = 2 * reach + multiple * -(-16 // multiple)
        overlap = tuple(min(wanted, side // 2 // multiple * multiple) for side in tile)
        margin = tuple(reach if shared == wanted else shared // 4 for shared in overlap)
        return cls(tile, overlap, margin, multiple, model.scale)

    def takes(self, shape: Sequence[int]) -> bool:
        """Whether an image of these sides is no larger than a tile."""
        return all(size <= side for size, side in zip(shape, self.tile, strict=True))
