"""A picture of what is in a data set: a few training examples with titles, units and axes."""

import io
import itertools
from pathlib import Path
from typing import Any

import matplotlib.backends.backend_agg
import matplotlib.figure
import matplotlib.layout_engine
import numpy as np
import tensorflow_datasets as tfds

from zoo import figures
from zoo.atomic import write_atomic
from zoo.data import card, facts
from zoo.domain import Domain

_ROWS, _SINGLE = 4, 16  # examples shown: with several images each, and with one
_SEARCHED = 256  # examples among which those of different patients are looked for
_INK, _SOFT = "#1b1f24", "#5b6470"


def save(builder: tfds.core.DatasetBuilder, path: Path) -> int:
    """Writes a grid of the training split as a PNG file; returns the number of examples in it.

    Pairs have a row each, single images stand side by side. Of a volume the middle slice is shown,
    of k-space the logarithm of its magnitude, of a label map one colour a class, of CT the clinical
    window that suits it.

    Raises:
        ValueError: where the data set has no training images.
    """
    features, metadata = builder.info.features, dict((builder.info.metadata or {}).items())
    domains = card.image_domains(features, metadata)
    shown, source = list(domains), Domain.from_dict(domains.get("source", {}))
    if source.inputs:  # a panel each
        parts = {f"source {name}": part.to_dict() for name, (part, _) in source.parts.items()}
        shown = [*parts, *(key for key in shown if key != "source")]
        domains |= parts
    names = metadata.get("label_names")
    classes = getattr(features["label"], "names", None) if "label" in features else None
    labels = [key for key in features if key.endswith("_label")] if names else []
    # A row for each example; of single images four in a row.
    alone = len(shown) == 1 and not labels
    examples = _examples(builder, _SINGLE if alone else _ROWS)
    panels = []
    for example in examples:
        if source.inputs:
            for name, (_, channels) in source.parts.items():
                example[f"source {name}"] = example["source"][..., channels]
        keys = (*shown, *labels)
        panels.append([_panel(example, key, domains, names, classes) for key in keys])
    if alone:
        single = [row[0] for row in panels]
        panels = [single[i : i + 4] for i in range(0, len(single), 4)]
    title = f"{builder.info.full_name}, split train: {len(examples)} of "
    title += f"{facts.example_count(builder, 'train')} examples"
    write_atomic(path, _draw(panels, title))
    return len(examples)


def _examples(builder: tfds.core.DatasetBuilder, count: int) -> list[dict[str, Any]]:
    """Training examples in their stored order, of different patients while there are such."""
    facts.example_count(builder, "train")
    in_order = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
    dataset = builder.as_dataset(split="train", read_config=in_order, shuffle_files=False)
    found: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    seen = set()
    for example in dataset.take(_SEARCHED).as_numpy_iterator():
        patient = example.get("patient")
        new = patient is None or patient not in seen
        seen.add(patient)
        if new:
            found.append(example)
        elif len(others) < count:
            others.append(example)
        if len(found) == count:
            break
    return (found + others)[:count]


def _panel(
    example: dict[str, Any],
    key: str,
    domains: dict[str, Any],
    names: list[str] | None,
    classes: list[str] | None,
) -> dict[str, Any]:
    """What is drawn of one image: its pixels, colours, titles and axes."""
    image = np.asarray(example[key])
    domain = domains.get(key)
    if not image.size:  # one side of an unpaired example
        return {}
    panel: dict[str, Any] = {"title": key, "name": _name(example, image, classes)}
    image = _slice(image)
    panel |= _axes(image, _spacing(example, key, domains))
    # A label map, in a colour a class.
    if domain is None or domain["unit"] == "class":
        labels = image[..., image.shape[-1] // 2].astype(int)
        legend = names or [str(i) for i in range(int(labels.max()) + 1)]
        return panel | {"legend": legend, "pixels": figures.label_colours(len(legend))[labels]}
    # An image in grey, or a measurement as if it were one.
    unit, window = domain["unit"], tuple(domain["window"])
    pixels = figures.middle(image)
    panel["title"] += f": {domain['modality']}"
    if unit == "k-space":
        magnitude = np.sqrt((np.abs(image.astype(np.complex64)) ** 2).sum(-1))
        pixels, unit = np.log10(magnitude + 1e-3), "log10 of |k-space|"
        window = (-2.0, float(np.log10(max(window[1], 0.1))))
        panel["axes"] = ("kx", "ky")
    elif unit == "line integral":
        panel["axes"] = ("detector", "view")
    elif unit == "HU":
        # One window for all CT of an example, so that they can be compared.
        of_ct = [_slice(example[k]) for k, each in domains.items() if each["unit"] == "HU"]
        label, window = figures.best_window([i for i in of_ct if i.size], unit, window)
        unit = f"HU, {label.partition(',')[0]}"
    unit = "value" if unit == "1" else unit
    return panel | {"pixels": pixels.astype(np.float32), "window": window, "unit": unit}


def _name(example: dict[str, Any], image: np.ndarray, classes: list[str] | None) -> str:
    """An example's name, its class and, of a volume, which slice is shown."""
    name = example["name"].decode() if "name" in example else ""
    if "label" in example and np.ndim(example["label"]) == 0:
        label = int(example["label"])
        name += f", {classes[label]}" if classes else f", class {label}"
    if image.ndim == 4:
        name += f", slice {len(image) // 2} of {len(image)}"
    return name


def _axes(image: np.ndarray, spacing: tuple[float, float] | None) -> dict[str, Any]:
    """What the axes are called and, where the spacing is known, where they end in mm."""
    if spacing is None:
        return {"axes": ("column", "row")}
    row, column = spacing
    extent = (0, image.shape[1] * column, image.shape[0] * row, 0)
    return {"axes": ("x in mm", "y in mm"), "extent": extent}


def _slice(image: Any) -> np.ndarray:
    """The image, or the middle slice of a volume: `[H, W, C]`."""
    image = np.asarray(image)
    return image[len(image) // 2] if image.ndim == 4 else image


def _spacing(
    example: dict[str, Any], key: str, domains: dict[str, Any]
) -> tuple[float, float] | None:
    """Row and column spacing of an image in mm; a label map lies on the grid of its image."""
    domain = domains.get(key) or domains.get(key.removesuffix("_label"))
    if domain is None or domain["unit"] in ("k-space", "line integral"):
        return None
    spacing, scale = domain["spacing"], 1
    if spacing is None and "spacing" in example:  # that of the target
        spacing = example["spacing"]
        scale = int(key.removeprefix("source_x")) if key.startswith("source_x") else 1
    if spacing is None or not np.all(np.array(spacing) > 0):
        return None
    return scale * float(spacing[-2]), scale * float(spacing[-1])


def _draw(panels: list[list[dict[str, Any]]], title: str) -> bytes:
    """The PNG file of rows of panels; the last row may be shorter."""
    columns = max(map(len, panels))
    width, height = 3.3 * columns + 0.4, 2.9 * len(panels) + 0.7
    layout = matplotlib.layout_engine.ConstrainedLayoutEngine(wspace=0.04)
    figure = matplotlib.figure.Figure(figsize=(width, height), dpi=100, layout=layout)
    matplotlib.backends.backend_agg.FigureCanvasAgg(figure)
    figure.suptitle(title, color=_INK, fontsize=12)
    cells = figure.subplots(len(panels), columns, squeeze=False)
    for row, line in zip(panels, cells, strict=True):
        for panel, cell in itertools.zip_longest(row, line):
            if panel:
                _draw_panel(figure, cell, panel)
            else:
                cell.set_axis_off()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _draw_panel(figure: Any, cell: Any, panel: dict[str, Any]) -> None:
    look = {"interpolation": "nearest", "extent": panel.get("extent")}
    if "legend" in panel:
        cell.imshow(panel["pixels"], **look)
        colours = figures.label_colours(len(panel["legend"])) / 255
        for label, colour in list(zip(panel["legend"], colours, strict=True))[1:]:
            cell.plot([], [], "s", color=colour, label=label, markersize=5)
        cell.legend(
            fontsize=6, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, labelcolor=_INK
        )
    else:
        low, high = panel["window"]
        drawn = cell.imshow(panel["pixels"], cmap="gray", vmin=low, vmax=high, **look)
        bar = figure.colorbar(drawn, ax=cell, fraction=0.046, pad=0.03)
        bar.set_label(panel["unit"], fontsize=8, color=_SOFT)
        bar.ax.tick_params(labelsize=7, colors=_SOFT)
    if panel["axes"] == ("detector", "view"):  # few views of many detectors: not to scale
        cell.set_aspect("auto")
    cell.set_title(f"{panel['title']}\n{panel['name']}", fontsize=8, color=_INK)
    cell.set_xlabel(panel["axes"][0], fontsize=8, color=_SOFT)
    cell.set_ylabel(panel["axes"][1], fontsize=8, color=_SOFT)
    cell.tick_params(labelsize=7, colors=_SOFT)
