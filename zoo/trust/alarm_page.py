"""The report on alarms: one HTML page without scripts or anything to fetch, and TensorBoard's."""

import html
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from zoo import figures
from zoo.evaluation import page
from zoo.trust.alarms import ALARMS, Compared
from zoo.trust.limits import Limits, unit_of

Worst = Sequence[tuple[int, Compared] | None]

_PLACES = 16  # a side, to choose from
_STRONG = 10.0  # z of a blob that is drawn in full colour


def render(told: dict[str, Any], worst: Worst, limits: Limits | None, model: Any) -> str:
    """The page.

    Args:
        told: what `alarms.json` holds.
        worst: of each series the number of an image, and what it shows.
        limits: of the alarms.
        model: that translated.
    """
    series, unit = told["series"], model.target.unit
    raised = sum(bool(each["raised"]) for each in series)
    # What these are, and what they cannot say.
    note = "The model was never calibrated: the figures have no limits. `calibrate` finds them."
    if limits is not None:
        note = f"Limits: {limits.words}."
    counted = f"{len(series)} files, series or patients"
    told_of = f"{raised} of {counted} raised an alarm" if limits else f"{counted} measured"
    facts = {"Model": told["model"], "Weights": f"sha256 {told['weights'][:16]}…", "": told_of}
    rows = "".join(f"<dt>{k}</dt><dd>{html.escape(v)}</dd>" for k, v in facts.items())
    head = f"<header><h1>Alarms</h1><dl>{rows}</dl></header>"
    about = page.section(
        "How to read this",
        f"{note} An alarm says that an image is unlike those; no alarm says nothing of a lesion "
        "that is a few pixels, or of an error that looks as what the model usually does.",
    )
    # Those with alarms first.
    order = sorted(range(len(series)), key=lambda number: -len(series[number]["raised"]))
    parts = []
    for number in order:
        parts.append(_series(series[number], worst[number], limits, model, unit))
    return page.document(f"Alarms of {told['model']}", "\n".join([head, about, *parts]))


def _series(
    told: dict[str, Any],
    worst: tuple[int, Compared] | None,
    limits: Limits | None,
    model: Any,
    unit: str,
) -> str:
    """A table of the figures of one series, and its worst image."""
    raised = {each["alarm"]: each for each in told["raised"]}
    rows = []
    for name, found in told["figures"].items():
        low, high = limits.limits.get(name, (None, None)) if limits else (None, None)
        verdict = "usual" if (low, high) != (None, None) else "no limit"
        if name in raised:
            verdict = f'<span class="alarm">in {raised[name]["images"]}</span>'
        shown = [f"{found[key]:.3g}" for key in ("lowest", "median", "highest")]
        ends = ["–" if end is None else f"{end:.3g}" for end in (low, high)]
        words = f"{name}<br><small>{ALARMS[name].words}{_in(name, unit)}</small>"
        rows.append([words, *shown, *ends, verdict])
    head = ["Alarm", "Lowest", "Median", "Highest", "Limit below", "Limit above", "Images beyond"]
    blocks = [page.table(head, rows)]
    if worst is not None:
        index, compared = worst
        blocks.append(page.example_title("The image with most of it", [f"number {index + 1}"]))
        blocks.append(page.panels(panels(compared, model).items()))
        if told["explain"]:
            blocks.append(_places(compared, model, told))
    count = len(told["per_image"])
    note = f"{count} {'image' if count == 1 else 'images'}"
    return page.section(told["name"], note, *blocks)


def _places(compared: Compared, model: Any, told: dict[str, Any]) -> str:
    """The output under a grid of places, each with the command that explains it, once chosen.

    They are radio buttons, which a mouse and the arrow keys choose without a script.
    """
    _, window = figures.best_window([compared.made], model.target.unit, model.target.window)
    height, width = (side // model.scale for side in compared.made.shape[:2])
    rows, columns = min(_PLACES, height), min(_PLACES, width)
    group, cells = html.escape(told["name"], quote=True), ""
    for place in range(rows * columns):
        row = (2 * (place // columns) + 1) * height // (2 * rows)
        column = (2 * (place % columns) + 1) * width // (2 * columns)
        command = html.escape(f"{told['explain']}{row},{column}")
        label = f"row {row}, column {column}"
        cells += f'<input type="radio" name="{group}" aria-label="{label}"><code>{command}</code>'
    image = page.data_uri(page.grey(compared.made, window))
    return (
        "<h3>Where does it come from? <span>Choose a place, with the mouse or with Tab and the "
        "arrow keys, and copy the command that explains it; it is for the folder of the input."
        "</span></h3>"
        f'<div class="places"><img src="{image}" alt="output"><div class="cells" '
        f'style="grid-template: repeat({rows}, 1fr) / repeat({columns}, 1fr)">{cells}</div></div>'
    )


def _in(name: str, unit: str) -> str:
    shown = unit_of(name, unit).strip()
    return f", {shown}" if shown else ""


def panels(compared: Compared, model: Any) -> dict[str, np.ndarray]:
    """Captions and uint8 images of input, output, what was removed, and where it is suspicious."""
    label, window = figures.best_window([compared.made], model.target.unit, model.target.window)
    where = f", {label}" if label else ""
    ends = window
    if compared.removed is None:  # in its own unit
        source = model.source.like(model.target) or (model.source, slice(None))
        ends = model.target.window if model.source.measured else source[0].window
    shown = {
        "input": page.grey(compared.given, ends),
        f"output{where}": page.grey(compared.made, window),
    }
    if compared.removed is not None and compared.places is not None:
        limit = figures.round_limit(float(np.quantile(np.abs(compared.removed), 0.995)))
        unit = "" if model.target.unit == "1" else f" {model.target.unit}"
        removed = figures.shrink(compared.removed, page.LARGEST)
        shown[f"removed, ± {limit:g}{unit}"] = figures.diverging(removed, limit)
        places = figures.shrink(compared.places, page.LARGEST)
        shown[f"blobs in it, z ± {_STRONG:g}"] = figures.diverging(places, _STRONG)
    if compared.patches is not None:
        suspect = np.zeros(compared.made.shape, int)
        for row, column in compared.patches.corners[compared.patches.suspect]:
            side = compared.patches.side
            suspect[row : row + side, column : column + side] = 1
        if max(suspect.shape) <= page.LARGEST:
            overlay = figures.overlay(compared.made, suspect, window, 2, opacity=0.4)
            shown["patches unlike the reference (sFRC)"] = overlay
    return shown


def tensorboard(folder: Path, told: dict[str, Any], worst: Worst, model: Any) -> None:
    """Write the worst image of each series for TensorBoard, and the figures' medians."""
    writer = tf.summary.create_file_writer(os.fsencode(folder))
    with writer.as_default(step=0):
        for series, shown in zip(told["series"], worst, strict=True):
            for name, found in series["figures"].items():
                tf.summary.scalar(f"{series['name']}/{name}", found["median"])
            for caption, image in panels(shown[1], model).items() if shown else ():
                colour = image[..., None] if image.ndim == 2 else image
                tf.summary.image(f"{series['name']}/{caption.split(',')[0]}", colour[None])
    writer.close()
