"""Writes generated images."""

import math
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import PIL.Image

from zoo.atomic import replacing, sweep, write_json
from zoo.imaging import raster
from zoo.inference.outputs import precision
from zoo.inference.slices import require_finite
from zoo.inference.targets import check_replaceable, check_writable


def generate(
    model: Any,
    n: int,
    output: str | os.PathLike,
    *,
    seed: int = 0,
    batch_size: int = 16,
    format: Literal["png", "npy"] = "png",
    overwrite: bool = False,
    label: str | None = None,
) -> list[Path]:
    """Writes `n` generated images, a contact sheet and a description.

    PNG files (one channel) are of 16 bits: 0 is the low end of the model's window, 65535 the
    high end. NPY files hold float32 [H, W, C] in physical units. `images.json` states window,
    unit, seed and model. Image k depends on the seed and k alone.

    Args:
        model: a `zoo.Translator` that generates.
        n: number of images, 1 or more.
        output: the folder to write.
        seed: names the images.
        batch_size: images made at once.
        format: "png" or "npy".
        overwrite: replace files that exist.
        label: name of the class of all images, where the model is conditional; None: in turn.

    Returns:
        The files written; the contact sheet is the last.

    Raises:
        FileExistsError: where a file exists and `overwrite` is False.
        ValueError: for a number below 1, an unknown format or label, several channels in PNG, and
            images that are not finite.
    """
    if n < 1 or batch_size < 1:
        raise ValueError(f"n, batch_size: expected 1 or more. Received: {n}, {batch_size}")
    names = getattr(model.recipe, "class_names", ())
    if label is not None and label not in names:
        wanted = f"one of {', '.join(names)}" if names else "none, the model knows no classes"
        raise ValueError(f"label: expected {wanted}. Received: {label}")
    if format not in ("png", "npy"):
        raise ValueError(f"format: expected png or npy. Received: {format}")
    output = Path(output)
    paths = [output / f"image_{i + 1:05d}.{format}" for i in range(n)]
    sheet, sidecar = output / "contact_sheet.png", output / "images.json"
    for path in [*paths, sheet, sidecar]:
        check_replaceable(path, overwrite)
    domain = model.target
    if format == "png" and domain.channels != 1:
        raise ValueError(f"format: png takes one channel, use npy. Received: {domain.channels}")
    check_writable(output)
    sweep(output)
    sidecar.unlink(missing_ok=True)  # it would describe the images that are replaced
    # The images, some at once, each into its file.
    of_class = {"label": label} if label else {}
    shown: list[np.ndarray] = []
    for first in range(0, n, batch_size):
        count = min(batch_size, n - first)
        images = np.asarray(model.generate(count, seed=seed, first=first, **of_class), np.float32)
        require_finite(images)
        for path, image in zip(paths[first:], images, strict=False):
            levels = (image - domain.window[0]) / domain.span * 65535
            levels = raster.saturate(levels, np.dtype(np.uint16))
            if len(shown) < 64:
                shown.append(raster.saturate(levels / 257.0, np.dtype(np.uint8)))
            with replacing(path) as temporary:
                if format == "npy":
                    with open(temporary, "wb") as file:
                        np.save(file, image)
                else:
                    _save_png(temporary, levels)
    # Some of them on one sheet, and what they are.
    with replacing(sheet) as temporary:
        _save_png(temporary, _sheet(shown))
    labels: list[str] = []
    if names:
        labels = [label or names[i % len(names)] for i in range(n)]
    of_png = "window[0] + value / 65535 * (window[1] - window[0])"
    description = {
        "model": model.name,
        "weights_sha256": model.weights_hash,
        "precision": precision(model),
        "seed": seed,
        "labels": labels,
        "files": [path.name for path in paths],
        "unit": domain.unit,
        "window": list(domain.window),
        "pixel_values": "physical units" if format == "npy" else of_png,
    }
    write_json(sidecar, description)
    return [*paths, sidecar, sheet]


def _save_png(path: Path, image: np.ndarray) -> None:
    if image.shape[-1] == 1:
        image = image[..., 0]
    PIL.Image.fromarray(image).save(path, format="PNG")


def _sheet(images: list[np.ndarray]) -> np.ndarray:
    """[H, W, C] images side by side, row by row, in a near-square sheet."""
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    height, width, channels = images[0].shape
    sheet = np.zeros((rows * height, columns * width, channels), images[0].dtype)
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = image
    return sheet
