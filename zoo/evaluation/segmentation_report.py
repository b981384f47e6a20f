"""What the evaluation report says of label maps: overlap by class, and overlays to look at."""

import html
from collections.abc import Sequence
from typing import Any

import numpy as np

from zoo import figures
from zoo.domain import Domain
from zoo.evaluation import formats, intervals, page

_TILES = ("dice", "accuracy")


def sections(results: dict[str, Any], examples: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
    """The middle of the report, as HTML.

    Args:
        results: what `metrics.json` holds, of kind "segmentation".
        examples: label and example, with the images "input", "output" and "target".
    """
    parts = [_tiles(results), _classes(results), _examples(results, examples)]
    if results["per_patient"]:
        parts.append(_patients(results))
    return parts


def _tiles(results: dict[str, Any]) -> str:
    majority = results["majority"]
    notes = {
        "dice": "over the foreground classes",
        "accuracy": f"{majority['accuracy']:.4f} if all were {majority['class']}",
    }
    tiles = []
    for key in _TILES:
        summary = intervals.independent(results["summary"]["output"][key])
        line = formats.interval(summary["ci95"], key, results)
        line += f", {summary['count']} {summary['of']}<br>{html.escape(notes[key])}"
        value = formats.number(summary["mean"], key, results)
        tiles.append((formats.label(key), value, line))
    return page.tiles(tiles)


def _classes(results: dict[str, Any]) -> str:
    """Dice of each class, their mean, and the accuracy."""
    summary = results["summary"]
    by_patient = bool(results["per_patient"])
    head = ["Class", "Pixels", "Images with it", "Dice", "Median"]
    if by_patient:
        head.append("By patient")

    def row(title: str, share: str, values: dict[str, Any]) -> list[str]:
        median = formats.number(values["median"], "dice", results)
        cells = [title, share, str(values["images"]), formats.cell(values, "dice", results)]
        cells.append(median)
        if by_patient:
            cells.append(formats.cell(values["patients"], "dice", results))
        return cells

    rows = []
    for name in results["label_names"]:
        share = f"{100 * results['share'][name]:.2f} %"
        rows.append(row(_swatch(results, name), share, summary["classes"][name]))
    rows.append(row("Mean of the foreground classes", "", summary["output"]["dice"]))
    rows.append(row("Accuracy of all pixels", "", summary["output"]["accuracy"]))
    note = (
        "Mean ± standard deviation over images of the Dice coefficient, and the 95 % bootstrap "
        "interval of the mean. A class that is neither in an image's output nor in its target "
        f"does not count there. The first class, {results['label_names'][0]}, is not part of the "
        "mean. By patient, each patient's mean counts once."
    )
    return page.section("Overlap", note, page.table(head, rows))


def _examples(results: dict[str, Any], examples: Sequence[tuple[str, dict[str, Any]]]) -> str:
    blocks = []
    for title, example in examples:
        row = example["row"]
        about = [example["name"], example["patient"] and f"patient {example['patient']}"]
        about += [f"mean Dice {row['output']['dice']:.4f}"]
        about += [f"accuracy {row['output']['accuracy']:.4f}"]
        panels = page.panels(_panels(results, example))
        blocks.append(page.example_title(title, about) + panels)
    # What the colours mean, and what is shown.
    names = results["label_names"][1:]
    legend = "".join(f"<span>{_swatch(results, name)}</span>" for name in names)
    note = "The label maps in colour over the source."
    if not examples:
        note = "No image has a foreground class, neither in its output nor in its target."
    if results["dimensions"] == 3:
        note += " Of volumes the middle slice is shown."
    return page.section("Examples", note, *blocks, f'<div class="legend">{legend}</div>')


def _panels(results: dict[str, Any], example: dict[str, Any]) -> list[tuple[str, np.ndarray]]:
    """Source, and output and target in colour over it."""
    source = Domain.from_dict(results["source"])
    panels: list[tuple[str, np.ndarray]] = []
    # Of CT the window that fits best: the labels hide what others would show.
    for name, (part, channels) in reversed(source.parts.items()):
        image = example["source"][..., channels] if source.inputs else example["input"]
        caption, window = figures.best_window([image], part.unit, part.window)
        title = name if source.inputs else "Source"
        panels.insert(0, (", ".join(filter(None, (title, caption))), page.grey(image, window)))
    # Over the first of several inputs.
    for title in ("Output", "Target"):
        labels = example[title.lower()]
        coloured = figures.overlay(image, labels, window, len(results["label_names"]))
        shown = np.round(figures.shrink(coloured, page.LARGEST)).astype(np.uint8)
        panels.append((title, shown))
    return panels


def _patients(results: dict[str, Any]) -> str:
    names = results["label_names"][1:]
    head = ["Patient", "Images", *map(formats.label, _TILES), *map(html.escape, names)]
    rows = []
    for entry in results["per_patient"]:
        values = [entry["output"][key] for key in _TILES]
        values += [entry["classes"][name] for name in names]
        cells = [formats.number(value, "dice", results) for value in values]
        rows.append([html.escape(entry["patient"]), str(entry["images"]), *cells])
    note = "Means over each patient's images; of a class, over those that have it."
    return page.by_patient(note, head, rows)


def _swatch(results: dict[str, Any], name: str) -> str:
    names = results["label_names"]
    red, green, blue = figures.label_colours(len(names))[names.index(name)]
    style = f"background:rgb({red},{green},{blue})"
    return f'<i class="swatch" style="{style}"></i>{html.escape(name)}'
