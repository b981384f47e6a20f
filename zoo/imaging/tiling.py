"""Overlapping tiles, blended without seams."""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

Sides = int | Sequence[int]  # along all axes, or along each
Read = Callable[[int, int], np.ndarray]


def tiled(
    function: Callable[[np.ndarray], np.ndarray],
    images: np.ndarray,
    *,
    tile: Sides,
    overlap: Sides,
    margin: Sides | None = None,
    multiple: int = 1,
    batch_size: int = 1,
    scale: int = 1,
) -> np.ndarray:
    """Applies `function` to overlapping tiles of `images` and blends the results.

    A pixel of a tile counts only where it lies `margin` or more from the tile's artificial
    edges; over the rest of the overlap the two tiles are blended linearly. For a convolutional
    function whose receptive field reaches no further than `margin` pixels, the result therefore
    equals that of the whole image; for others (instance norm) the blend hides the seam. Tiles
    start at multiples of `multiple`, so that strided layers see the same grid.

    Args:
        function: [n, tile, tile, C] to [n, scale * tile, scale * tile, C'], float32; every call
            has the same static shape, n = `batch_size`. Tiles of volumes are cut off along an axis
            that is shorter.
        images: [N, H, W, C] or [N, D, H, W, C]; an image smaller than a tile, or no multiple of
            `multiple`, is reflected at its far edges.
        tile: sides of a tile, one number or one for each axis; rounded up to multiples of
            `multiple`.
        overlap: pixels that neighbouring tiles share at least, `tile - multiple` at most.
        margin: see above, from 0 to `overlap // 2` (no blending); None takes `overlap // 4`.
        multiple: the network takes sizes that are multiples of this.
        batch_size: tiles in one call of `function`.
        scale: pixels of the result along one pixel of the images.

    Returns:
        float32 [N, scale * H, scale * W, C'], of a volume also scale * D. Memory beyond it is that
        of one image, of two rows of tiles, and of one batch.

    Raises:
        ValueError: for arguments outside these limits, or a function that gives another size.
    """
    if images.ndim not in (4, 5) or 0 in images.shape:
        raise ValueError(
            f"images: expected [N, H, W, C] or [N, D, H, W, C]. Received: {list(images.shape)}"
        )
    options: Any = dict(tile=tile, overlap=overlap, margin=margin, multiple=multiple)
    options |= dict(batch_size=batch_size, scale=scale, whole=True)
    output = np.zeros(0, np.float32)  # until the first result tells its channels
    for number, image in enumerate(images):
        read = functools.partial(_part, image)
        result = next(slabs(function, read, image.shape[:-1], **options))
        if len(images) == 1:
            return result[None]
        if not number:
            output = np.zeros((len(images), *result.shape), np.float32)
        output[number] = result
    return output


def slabs(
    function: Callable[[np.ndarray], np.ndarray],
    read: Read,
    shape: Sequence[int],
    *,
    tile: Sides,
    overlap: Sides,
    margin: Sides | None = None,
    multiple: int = 1,
    batch_size: int = 1,
    scale: int = 1,
    whole: bool = False,
) -> Iterator[np.ndarray]:
    """What `tiled` makes of one image, in parts along the first axis, each as it is finished.

    Of a volume no more is held than the slices of two rows of tiles, and their results.

    Args:
        function: as `tiled` takes it, and so the arguments not named here.
        read: start and stop along the first axis, inside the image, to float32
            [stop - start, W, C] or [stop - start, H, W, C]. Slices are read in order, but for
            those that tiles share and those that are reflected at the far edge.
        shape: the image's (H, W) or (D, H, W).
        whole: give all of it as one part.

    Yields:
        float32 [n, scale * W, C'] or [n, scale * H, scale * W, C'], which follow one another.

    Raises:
        ValueError: as `tiled`.
    """
    # the arguments
    axes = _axes(shape, tile, overlap, margin, multiple, batch_size, scale)
    tiles = [axis.tile for axis in axes]
    places = list(itertools.product(*(axis.places for axis in axes)))
    expected = (batch_size, *(scale * side for side in tiles))
    # what is held: input slices, and results to which tiles are still to come, from `done` on
    held, window = (0, 0), np.zeros(0, np.float32)
    partial, done = np.zeros(0, np.float32), 0
    for first in range(0, len(places), batch_size):
        chosen = places[first : first + batch_size]
        # a batch of tiles
        wanted = chosen[0][0][0] // scale, chosen[-1][0][0] // scale + tiles[0]
        if wanted != held:
            held, window = wanted, _padded(_reflected(read, *wanted, shape[0]), axes)
        places_in = [_window(place, tiles, scale, held[0]) for place in chosen]
        batch = np.stack([window[inside] for inside in places_in])
        if len(chosen) < batch_size:  # the last batch keeps the static shape
            batch = np.concatenate([batch, batch[-1:].repeat(batch_size - len(chosen), 0)])
        # what the network makes of them
        results = np.asarray(function(batch), np.float32)
        if results.shape[:-1] != expected:
            raise ValueError(
                f"function: expected a result of {[*expected, 'C']}. "
                f"Received: {list(results.shape)}"
            )
        length = scale * (shape[0] if whole else wanted[1]) - done
        partial = _reaching(partial, length, shape, scale, results.shape[-1])
        # each goes where it counts
        for place, result in zip(chosen, results, strict=False):
            weight = functools.reduce(np.multiply.outer, [w for _, w in place])[..., None]
            # where() keeps a non-finite value of an ignored pixel out of the sum
            weighted = np.where(weight > 0, weight * result, 0)
            inside = partial[_window(place, expected[1:], 1, done)]
            inside += weighted[tuple(slice(size) for size in inside.shape)]
        # what no later tile adds to
        last = first + batch_size >= len(places)
        end = scale * shape[0] if last else places[first + batch_size][0][0]
        if last or (end > done and not whole):
            yield partial[: end - done]
            partial, done = partial[end - done :].copy(), end


class _Axis(NamedTuple):
    """How one axis of an image is cut.

    Attributes:
        size: pixels along it, reflected ones included.
        tile: side of the tiles.
        places: starts of the tiles in the result, with their weights.
    """

    size: int
    tile: int
    places: list[tuple[int, np.ndarray]]


def _axes(
    shape: Sequence[int],
    tile: Sides,
    overlap: Sides,
    margin: Sides | None,
    multiple: int,
    batch_size: int,
    scale: int,
) -> list[_Axis]:
    """How each axis is cut; refuses arguments outside the limits of `tiled`."""
    axes = []
    for number, size in enumerate(shape):
        side, shared = _of(tile, number), _of(overlap, number)
        if min(side, multiple, batch_size, scale) < 1:
            raise ValueError(
                "tile, multiple, batch_size, scale: expected 1 or more. "
                f"Received: {side}, {multiple}, {batch_size}, {scale}"
            )
        side = -(-side // multiple) * multiple
        if not 0 <= shared <= side - multiple:
            raise ValueError(f"overlap: expected 0 to {side - multiple}. Received: {shared}")
        edge = shared // 4 if margin is None else _of(margin, number)
        if not 0 <= edge <= shared // 2:
            raise ValueError(f"margin: expected 0 to {shared // 2}. Received: {edge}")
        step = (side - shared) // multiple * multiple
        padded = -(-size // multiple) * multiple
        # a volume of few slices is common: to reflect it to a cube would be many times the work
        if len(shape) == 3:
            side = min(side, padded)
        padded = max(padded, side)
        # starts and weights are those of the result's pixels
        places = _axis(scale * padded, scale * side, scale * step, scale * edge)
        axes.append(_Axis(padded, side, places))
    return axes


def _part(image: np.ndarray, start: int, stop: int) -> np.ndarray:
    return image[start:stop]


def _of(sides: Sides, axis: int) -> int:
    return sides if isinstance(sides, int) else sides[axis]


def _reflected(read: Read, start: int, stop: int, size: int) -> np.ndarray:
    """Slices of an image of `size`, reflected at its far edge where they lie beyond."""
    index = np.arange(start, stop) % (2 * size)
    index = np.minimum(index, 2 * size - 1 - index)
    first = int(index.min())
    slices = np.asarray(read(first, int(index.max()) + 1), np.float32)
    return slices if stop <= size else slices[index - first]


def _reaching(
    partial: np.ndarray, length: int, shape: Sequence[int], scale: int, channels: int
) -> np.ndarray:
    """Unfinished results, followed by zeros up to a length along the first axis."""
    missing = length - len(partial)
    if missing <= 0:
        return partial
    sides = [scale * size for size in shape[1:]]
    zeros = np.zeros((missing, *sides, channels), np.float32)
    return np.concatenate([partial, zeros]) if partial.size else zeros


def _window(
    place: tuple[tuple[int, np.ndarray], ...], sides: Sequence[int], scale: int, first: int
) -> tuple[slice, ...]:
    """Where a tile of these sides lies in an image, of which slices from the `first` on are there.

    From its starts in the result.
    """
    starts = [start // scale for start, _ in place]
    starts[0] -= first
    return tuple(slice(s, s + side) for s, side in zip(starts, sides, strict=True))


def _padded(slices: np.ndarray, axes: list[_Axis]) -> np.ndarray:
    """Slices reflected at their far edges up to the sizes of all axes but the first."""
    missing = [axis.size - have for axis, have in zip(axes[1:], slices.shape[1:-1], strict=True)]
    if not any(missing):
        return slices
    return np.pad(slices, ((0, 0), *((0, count) for count in missing), (0, 0)), mode="symmetric")


def _axis(size: int, tile: int, step: int, margin: int) -> list[tuple[int, np.ndarray]]:
    """Starts of the tiles along one axis, with weights [tile] that add up to 1 everywhere."""
    starts = [*range(0, size - tile, step), size - tile]
    weights = []
    for before, start, after in zip([None, *starts], starts, [*starts[1:], None], strict=False):
        weight = np.ones(tile)
        if before is not None:
            weight = np.minimum(weight, _ramp(before + tile - start, tile, margin))
        if after is not None:
            weight = np.minimum(weight, _ramp(start + tile - after, tile, margin)[::-1])
        weights.append(weight)
    total = np.zeros(size)
    for start, weight in zip(starts, weights, strict=True):
        total[start : start + tile] += weight
    return [
        (start, (weight / total[start : start + tile]).astype(np.float32))
        for start, weight in zip(starts, weights, strict=True)
    ]


def _ramp(shared: int, tile: int, margin: int) -> np.ndarray:
    """0 on the `margin` of a tile's first edge, 1 beyond the neighbour's reach, linear between.

    Of the `shared` pixels, the first `margin` belong to the neighbour alone and the last to this
    tile alone; at every pixel the ramp and the neighbour's mirrored one add up to 1.
    """
    blend = shared - 2 * margin
    return np.clip((np.arange(tile) - margin + 0.5) / max(blend, 1), 0.0, 1.0)
