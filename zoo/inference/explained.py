"""Explains a region of what `predict` has made of a single image, beside the output."""

from pathlib import Path
from typing import Any

from zoo import figures
from zoo.atomic import write_json
from zoo.imaging.files import ending
from zoo.imaging.geometry import Grid
from zoo.imaging.resampling import resampling
from zoo.inference.report import Report
from zoo.trust import explain
from zoo.trust.explain import Explained, Region


def write(model: Any, report: Report, place: tuple[int, ...]) -> tuple[Explained, Path]:
    """Write `NAME_explained.png` and `.json` beside an output called NAME.

    Args:
        model: that made it.
        report: of `predict.translate`.
        place: row, column and perhaps the radius of the region, in pixels of the input.

    Returns:
        What was found, and the picture's path.

    Raises:
        ValueError: for more than one image, and as `explain.explain`.
    """
    explain.require(model)
    if len(report.volumes) != 1 or report.volumes[0].length != 1:
        slices = sum(volume.length for volume in report.volumes)
        raise ValueError(f"explain: expected one image, such as a file. Received: {slices}")
    volume, output = report.volumes[0], report.outputs[0]
    # The image as the network saw it, and the region there.
    forward, _ = resampling(volume, model.recipe.spacing, Grid(scale=model.scale, depth=1))
    image = forward(volume.stack(0, model.recipe.slices))
    image = image if image.ndim == 3 else image[..., None]
    factors = [new / old for new, old in zip(image.shape[:2], volume.shape, strict=True)]
    row, column = (int((at + 0.5) * by) for at, by in zip(place[:2], factors, strict=True))
    given = place[2] if len(place) > 2 else explain.RADIUS
    region = Region(row, column, round(given * factors[0]))
    found = explain.explain(model, image, region)
    # Its picture and its numbers.
    base = output.with_name(output.name.removesuffix(ending(output)) + "_explained")
    picture = explain.picture(image, found, model.source, model.target)
    figures.save_png(base.with_name(f"{base.name}.png"), picture)
    told = {"model": model.name, "weights": model.weights_hash, "unit": model.target.unit}
    asked = dict(zip(("row", "column", "radius"), (*place[:2], given), strict=True))
    about = told | {"asked": asked, "pixels_of_network": found.to_dict()}
    write_json(base.with_name(f"{base.name}.json"), about)
    return found, base.with_name(f"{base.name}.png")
