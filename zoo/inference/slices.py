"""From the slices of a file through a model to slices of the file that is written."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from zoo import guards
from zoo.errors import contained
from zoo.imaging.geometry import Grid
from zoo.imaging.resampling import resampling
from zoo.imaging.volume import Volume

Skip = Callable[[Path, ValueError], None]  # reports a file that is left out, and why
Slices = Iterator[tuple[int, np.ndarray]]  # index and pixels on the output's grid, ascending


def whole(model: Any, volume: Volume, grid: Grid, batch_size: int) -> Slices:
    """The slices of a volume that goes through the model at once.

    Args:
        model: a `zoo.Translator` of volumes.
        volume: in its unit.
        grid: how much finer the output's grid is.
        batch_size: tiles that the model gets at once.

    Raises:
        ValueError: where a slice cannot be read: a volume has no holes.
    """
    forward, back = resampling(
        volume, model.recipe.spacing, grid, whole=True, nearest=bool(model.classes)
    )

    def read(index: int) -> np.ndarray:
        try:
            with contained("unreadable"):
                return volume.read(index)
        except ValueError as error:
            raise ValueError(
                f"slices: expected a volume without gaps. Received: {volume.path(index).name}, "
                f"slice {index}: {error}"
            ) from error

    with contained("resampling"):
        images = forward(np.stack([read(index) for index in range(volume.length)]))[None]
    if images.ndim == 4:
        images = images[..., None]
    result = _answer(model, images, batch_size)[0]
    yield from enumerate(back(result))


def one_by_one(
    model: Any, volume: Volume, grid: Grid, batch_size: int, skip: Skip, done: Callable[[], Any]
) -> Slices:
    """The slices of a volume, each translated with the neighbours that the model takes.

    A slice in a file of its own that cannot be read is skipped; it is left out, and where it is
    another slice's neighbour, the next one inward stands in.

    Args:
        model: a `zoo.Translator` of slices.
        volume: in its unit.
        grid: how much finer the output's grid is.
        batch_size: slices that the model gets at once.
        skip: reports a slice that cannot be read.
        done: called after each slice.
    """
    reach = model.recipe.slices // 2
    forward, back = resampling(volume, model.recipe.spacing, grid, nearest=bool(model.classes))
    window: dict[int, np.ndarray | None] = {}  # slices that are still needed; None: unreadable

    def get(index: int) -> np.ndarray | None:
        if index not in window:
            try:
                with contained("unreadable"):
                    window[index] = forward(volume.read(index))
            except ValueError as error:
                if len(volume.paths) == 1:
                    raise
                window[index] = None
                skip(volume.path(index), error)
        return window[index]

    def translated(batch: dict[int, np.ndarray]) -> Slices:
        results = _answer(model, np.stack(list(batch.values())), batch_size)
        for index, result in zip(batch, results, strict=True):
            yield index, back(result)
            done()

    batch: dict[int, np.ndarray] = {}
    for index in range(volume.length):
        centre = get(index)
        if centre is not None and (volume.channels == 1 or len(volume.parts) > 1):
            # neighbours as channels, from the centre outwards
            stack = {0: centre}
            for sign in (-1, 1):
                for step in range(1, reach + 1):
                    found = get(volume.neighbour(index, sign * step))
                    stack[sign * step] = stack[sign * (step - 1)] if found is None else found
            channels = np.stack([stack[step] for step in sorted(stack)], axis=-1)
            batch[index] = channels.reshape(*channels.shape[:2], -1)  # of each input all slices
        elif centre is not None:
            batch[index] = centre
        window.pop(index - reach, None)
        if len(batch) == batch_size:
            yield from translated(batch)
            batch = {}
    if batch:
        yield from translated(batch)


def _answer(model: Any, images: np.ndarray, batch_size: int) -> np.ndarray:
    """What the model makes of a batch, float32; without the channel where there is one."""
    with guards.silent(), contained("model"):
        results = np.asarray(model.translate(images, batch_size=batch_size), np.float32)
    require_finite(results)
    return results[..., 0] if model.target.channels == 1 else results


def require_finite(values: np.ndarray) -> None:
    """Raises a ValueError for numbers that no integer stands for."""
    if not np.isfinite(values).all():
        raise ValueError("model: expected finite numbers. Received: NaN or infinity")
