"""The images that an int8 network is calibrated on: a user's own files, as `predict` reads them."""

from pathlib import Path

import numpy as np

from zoo.errors import contained
from zoo.imaging import files
from zoo.imaging.geometry import Grid
from zoo.imaging.resampling import resampling
from zoo.imaging.volume import Volume
from zoo.inference import checks
from zoo.recipe import per_axis
from zoo.translator import Translator

MOST = 32  # images, evenly from all that there are
FEWEST = 4


def read(model: Translator, path: Path) -> list[np.ndarray]:
    """Slices in physical units, float32 `[1, H, W, C]`, at the model's spacing.

    Larger ones are cut to a tile about their middle.

    Args:
        model: of images, of one input, whose sides are free.
        path: a file or a folder.

    Raises:
        ValueError: for another model, or fewer than `FEWEST` slices that it takes.
    """
    if model.generates or model.dimensions != 2 or model.source.inputs:
        raise ValueError(f"int8: expected a model of images of one input. Received: {model.name}")
    # All slices there are, and a few of them.
    volumes = [v.presented(model.source.plane) for v in files.find(path).volumes]
    places: list[tuple[Volume, int]] = []
    for volume in volumes:
        checks.require_suited(model, volume)
        volume = checks.in_unit(model, volume)
        places += [(volume, index) for index in range(volume.length)]
    if len(places) < FEWEST:
        raise ValueError(
            f"int8: expected {FEWEST} slices or more in {path}. Received: {len(places)}"
        )
    chosen = np.unique(np.linspace(0, len(places) - 1, MOST).round().astype(int))
    return [_slice(model, *places[number]) for number in chosen]


def _slice(model: Translator, volume: Volume, index: int) -> np.ndarray:
    """One slice with its neighbours as channels, as `predict` gives it to the model."""
    forward, _ = resampling(volume, model.recipe.spacing, Grid(scale=model.scale), nearest=False)
    reach = model.recipe.slices // 2
    with contained("unreadable"):
        around = range(-reach, reach + 1)
        images = [forward(volume.read(volume.neighbour(index, step))) for step in around]
    image = images[0] if images[0].ndim == 3 else np.stack(images, axis=-1)
    # The middle of it.
    for axis, most in enumerate(per_axis(model.recipe.tile, 2)):
        start = max(0, image.shape[axis] - most) // 2
        image = np.take(image, range(start, min(start + most, image.shape[axis])), axis=axis)
    return np.ascontiguousarray(image[None], np.float32)
