"""From the slices of a file through a model to slices of the file that is written."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from zoo import guards
from zoo.errors import contained
from zoo.imaging.geometry import Grid
from zoo.imaging.resampling import Regridded, resampling
from zoo.imaging.volume import Volume
from zoo.inference.ahead import ahead

_READ, _MADE = 1, 1  # batches that wait before and behind the model

Skip = Callable[[Path, ValueError], None]  # reports a file that is left out, and why
# Told of each image that went through the model, by its number: [H, W, C] as the model saw it, and
# what it made of it, before that is resampled back.
Seen = Callable[[int, np.ndarray, np.ndarray], None]
Slices = Iterator[tuple[int, np.ndarray]]  # index and pixels on the output's grid, ascending


def whole(
    model: Any,
    volume: Volume,
    grid: Grid,
    batch_size: int,
    done: Callable[[], Any] = lambda: None,
    seen: Seen | None = None,
) -> Slices:
    """The slices of a volume that goes through a model of volumes, in tiles where it is large.

    Of the volume no more is held than the slices of two rows of tiles, unless the model knows no
    `translate_slices`.

    Args:
        model: a `zoo.Translator` of volumes.
        volume: in its unit.
        grid: how much finer the output's grid is.
        batch_size: tiles that the model gets at once.
        done: called after each slice of the volume.
        seen: told of each slice of the network's grid.

    Raises:
        ValueError: where a slice cannot be read: a volume has no holes.
    """

    # from the file
    def get(index: int) -> np.ndarray:
        try:
            with contained("unreadable"):
                return volume.read(index)
        except ValueError as error:
            raise ValueError(
                f"slices: expected a volume without gaps. Received: {volume.path(index).name}, "
                f"slice {index}: {error}"
            ) from error

    # to the network's grid
    spacing, nearest = model.recipe.spacing, bool(model.classes)
    regridded = Regridded(volume, get, spacing, grid, nearest=nearest)

    def read(start: int, stop: int) -> np.ndarray:
        with contained("resampling"):
            images = regridded.read(start, stop)
        return images[..., None] if images.ndim == 3 else images

    # through the network
    def results() -> Iterator[np.ndarray]:
        if not hasattr(model, "translate_slices"):
            yield from _answer(model, read(0, regridded.shape[0])[None], batch_size)[0]
            return
        with contained("model"):
            for result in model.translate_slices(read, regridded.shape, batch_size):
                require_finite(result)
                yield result[..., 0] if model.target.channels == 1 else result

    def told() -> Iterator[np.ndarray]:
        for index, result in enumerate(results()):
            if seen is not None:
                place = index // grid.depth
                seen(index, read(place, place + 1)[0], result)
            yield result

    # and back, as the slices come
    for index, result in enumerate(regridded.back(told())):
        yield index, result
        if index % grid.depth == 0:
            done()


def one_by_one(
    model: Any,
    volume: Volume,
    grid: Grid,
    batch_size: int,
    skip: Skip,
    done: Callable[[], Any],
    seen: Seen | None = None,
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
        seen: told of each slice.
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

    def stacks() -> Slices:
        """Each slice that can be read, with its neighbours as channels."""
        for index in range(volume.length):
            centre = get(index)
            if centre is not None and (volume.channels == 1 or len(volume.parts) > 1):
                # neighbours from the centre outwards
                stack = {0: centre}
                for sign in (-1, 1):
                    for step in range(1, reach + 1):
                        found = get(volume.neighbour(index, sign * step))
                        stack[sign * step] = stack[sign * (step - 1)] if found is None else found
                channels = np.stack([stack[step] for step in sorted(stack)], axis=-1)
                # of each input all slices
                yield index, channels.reshape(*channels.shape[:2], -1)
            elif centre is not None:
                yield index, centre
            window.pop(index - reach, None)

    def results() -> Slices:
        """Batches through the model; reading goes on meanwhile."""
        read = ahead(stacks(), _READ * batch_size)
        while batch := dict(itertools.islice(read, batch_size)):
            answer = _answer(model, np.stack(list(batch.values())), batch_size)
            for index, result in zip(batch, answer, strict=True):
                if seen is not None:
                    seen(index, batch[index], result)
            yield from zip(batch, answer, strict=True)

    # The model goes on while slices are resampled back and written.
    for index, result in ahead(results(), _MADE * batch_size):
        yield index, back(result)
        done()


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
