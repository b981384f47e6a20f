"""Overlapping tiles, blended without seams."""

import functools
import itertools
from collections.abc import Callable, Sequence

import numpy as np


def tiled(
    function: Callable[[np.ndarray], np.ndarray],
    images: np.ndarray,
    *,
    tile: int,
    overlap: int,
    margin: int | None = None,
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
            has the same static shape, n = `batch_size`. Tiles of volumes are cubes, cut off along
            an axis that is shorter.
        images: [N, H, W, C] or [N, D, H, W, C]; an image smaller than a tile, or no multiple of
            `multiple`, is reflected at its far edges.
        tile: sides of a tile; rounded up to a multiple of `multiple`.
        overlap: pixels that neighbouring tiles share at least, `tile - multiple` at most.
        margin: see above, from 0 to `overlap // 2` (no blending); None takes `overlap // 4`.
        multiple: the network takes sizes that are multiples of this.
        batch_size: tiles in one call of `function`.
        scale: pixels of the result along one pixel of the images.

    Returns:
        float32 [N, scale * H, scale * W, C'], of a volume also scale * D. Memory beyond it is that
        of one padded image and of one batch of tiles.

    Raises:
        ValueError: for arguments outside these limits, or a function that gives another size.
    """
    # the arguments
    if images.ndim not in (4, 5) or 0 in images.shape:
        raise ValueError(
            f"images: expected [N, H, W, C] or [N, D, H, W, C]. Received: {list(images.shape)}"
        )
    if min(tile, multiple, batch_size, scale) < 1:
        raise ValueError(
            "tile, multiple, batch_size, scale: expected 1 or more. "
            f"Received: {tile}, {multiple}, {batch_size}, {scale}"
        )
    tile = -(-tile // multiple) * multiple
    if not 0 <= overlap <= tile - multiple:
        raise ValueError(f"overlap: expected 0 to {tile - multiple}. Received: {overlap}")
    margin = overlap // 4 if margin is None else margin
    if not 0 <= margin <= overlap // 2:
        raise ValueError(f"margin: expected 0 to {overlap // 2}. Received: {margin}")
    # sides of the tiles and of the padded images
    shape = images.shape[1:-1]
    sizes = [-(-size // multiple) * multiple for size in shape]
    # a volume of few slices is common: to reflect it to a cube would be many times the work
    tiles = [min(tile, size) if len(shape) == 3 else tile for size in sizes]
    sizes = list(map(max, sizes, tiles))
    step = (tile - overlap) // multiple * multiple
    # starts and weights are those of the result's pixels
    axes = [
        _axis(scale * size, scale * side, scale * step, scale * margin)
        for size, side in zip(sizes, tiles, strict=True)
    ]
    places = list(itertools.product(*axes))
    output = np.zeros(0, np.float32)  # until the first result tells its channels
    for number, image in enumerate(images):
        image = _padded(np.asarray(image, np.float32), sizes)
        for first in range(0, len(places), batch_size):
            chosen = places[first : first + batch_size]
            batch = np.stack([image[_window(place, tiles, scale)] for place in chosen])
            if len(chosen) < batch_size:  # the last batch keeps the static shape
                batch = np.concatenate([batch, batch[-1:].repeat(batch_size - len(chosen), 0)])
            # what the network makes of them
            results = np.asarray(function(batch), np.float32)
            expected = (batch_size, *(scale * side for side in tiles))
            if results.shape[:-1] != expected:
                raise ValueError(
                    f"function: expected a result of {[*expected, 'C']}. "
                    f"Received: {list(results.shape)}"
                )
            if not output.size:
                whole = (len(images), *(scale * size for size in shape), results.shape[-1])
                output = np.zeros(whole, np.float32)
            # each goes where it counts
            for place, result in zip(chosen, results, strict=False):
                weight = functools.reduce(np.multiply.outer, [w for _, w in place])[..., None]
                # where() keeps a non-finite value of an ignored pixel out of the sum
                weighted = np.where(weight > 0, weight * result, 0)
                inside = output[number][_window(place, expected[1:], 1)]
                inside += weighted[tuple(slice(size) for size in inside.shape)]
    return output


def _window(
    place: tuple[tuple[int, np.ndarray], ...], sides: Sequence[int], scale: int
) -> tuple[slice, ...]:
    """Where a tile of these sides lies in an image, from its starts in the result."""
    starts = [start // scale for start, _ in place]
    return tuple(slice(s, s + side) for s, side in zip(starts, sides, strict=True))


def _padded(image: np.ndarray, sizes: list[int]) -> np.ndarray:
    """`image` reflected at its far edges up to `sizes`."""
    missing = [size - have for size, have in zip(sizes, image.shape, strict=False)]
    if not any(missing):
        return image
    return np.pad(image, (*((0, count) for count in missing), (0, 0)), mode="symmetric")


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
