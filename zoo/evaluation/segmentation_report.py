"""What the evaluation report says of label maps: overlap by class, and overlays to look at."""

import html
from collections.abc import Sequence
from typing import Any

import numpy as np

from zoo import figures
from zoo.evaluation import intervals, page

_LARGEST = 640  # longer sides are reduced to at most this for the page
_TILES = {"dice": "Mean Dice", "accuracy": "Accuracy"}


def sections(
    results: dict[str, Any],
    examples: Sequence[tuple[str, dict[str, Any]]],
) -> list[str]:
    """The middle of the report, as HTML.

    Args:
        results: what `metrics.json` holds, of kind "segmentation".
        examples: label and example, with the images "input", "output" and "target".
    """
    return [_tiles(results), _classes(results), _examples(results, examples)] + (
        [_patients(results)] if results["per_patient"] else []
    )


def _tiles(results: dict[str, Any]) -> str:
    majority = results["majority"]
    notes = {
        "dice": "over the foreground classes",
        "accuracy": f"{majority['accuracy']:.4f} if all were {majority['class']}",
    }
    tiles = []
    for key, label in _TILES.items():
        summary = intervals.independent(results["summary"]["output"][key])
        line = f"{_interval(summary['ci95'])}, {summary['count']} {summary['of']}"
        tiles.append(
            f'<div class="tile"><span class="soft">{label}</span><b>{_number(summary["mean"])}</b>'
            f'<span class="soft">{line}<br>{html.escape(notes[key])}'
            "</span></div>"
        )
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _classes(results: dict[str, Any]) -> str:
    """Dice of each class, their mean, and the accuracy."""
    summary = results["summary"]
    by_patient = bool(results["per_patient"])
    head = ["Class", "Pixels", "Images with it", "Dice", "Median"] + ["By patient"] * by_patient

    def row(title: str, share: str, values: dict[str, Any]) -> list[str]:
        cells = [title, share, str(values["images"]), _cell(values), _number(values["median"])]
        return cells + ([_cell(values["patients"])] if by_patient else [])

    rows = [
        row(
            _swatch(results, name),
            f"{100 * results['share'][name]:.2f} %",
            summary["classes"][name],
        )
        for name in results["label_names"]
    ]
    rows.append(row("Mean of the foreground classes", "", summary["output"]["dice"]))
    rows.append(row("Accuracy of all pixels", "", summary["output"]["accuracy"]))
    note = (
        "Mean ± standard deviation over images of the Dice coefficient, and the 95 % bootstrap "
        "interval of the mean. A class that is neither in an image's output nor in its target "
        f"does not count there. The first class, {results['label_names'][0]}, is not part of the "
        "mean. By patient, each patient's mean counts once."
    )
    return page.section("Overlap", note, page.table(head, rows))


def _examples(results: dict[str, Any], examples) -> str:
    classes, source = len(results["label_names"]), results["source"]
    blocks = []
    for label, example in examples:
        image, row = example["input"], example["row"]
        # Of CT the window that fits best: the labels hide what others would show.
        shown = figures.display_windows([image], source["unit"], tuple(source["window"]))
        caption, window = next(iter(shown.items()))
        panels = [
            (
                ", ".join(filter(None, ("Source", caption))),
                figures.grey(figures.shrink(image, _LARGEST), window),
            )
        ]
        for title, key in (("Output", "output"), ("Target", "target")):
            coloured = figures.overlay(image, example[key], window, classes)
            coloured = np.round(figures.shrink(coloured, _LARGEST)).astype(np.uint8)
            panels.append((title, coloured))
        about = [example["name"], example["patient"] and f"patient {example['patient']}"]
        about += [f"mean Dice {row['output']['dice']:.4f}"]
        about += [f"accuracy {row['output']['accuracy']:.4f}"]
        about = html.escape(" · ".join(filter(None, about)))
        title = f"<h3>{html.escape(label)} <span>{about}</span></h3>"
        blocks.append(title + page.panels(panels))
    legend = "".join(
        f"<span>{_swatch(results, name)}</span>" for name in results["label_names"][1:]
    )
    note = "The label maps in colour over the source."
    if not examples:
        note = "No image has a foreground class, neither in its output nor in its target."
    if results["dimensions"] == 3:
        note += " Of volumes the middle slice is shown."
    return page.section("Examples", note, *blocks, f'<div class="legend">{legend}</div>')


def _patients(results: dict[str, Any]) -> str:
    names = results["label_names"][1:]
    head = ["Patient", "Images", "Mean Dice", "Accuracy"] + [html.escape(name) for name in names]
    rows = [
        [html.escape(entry["patient"]), str(entry["images"])]
        + [_number(entry["output"][key]) for key in _TILES]
        + [_number(entry["classes"][name]) for name in names]
        for entry in results["per_patient"]
    ]
    table = f"<summary>{len(rows)} patients</summary>{page.table(head, rows)}"
    block = f"<details{' open' if len(rows) <= 30 else ''}>{table}</details>"
    note = "Means over each patient's images; of a class, over those that have it."
    return page.section("By patient", note, block)


def _swatch(results: dict[str, Any], name: str) -> str:
    names = results["label_names"]
    red, green, blue = figures.label_colours(len(names))[names.index(name)]
    style = f"background:rgb({red},{green},{blue})"
    return f'<i class="swatch" style="{style}"></i>{html.escape(name)}'


def _cell(summary: dict[str, Any]) -> str:
    text = _number(summary["mean"])
    if summary["sd"] is not None:
        text += f" ± {_number(summary['sd'])}"
    return f"{text}<br><small>{_interval(summary['ci95'])}</small>"


def _interval(ends: Sequence[float | None]) -> str:
    return "no interval" if ends[0] is None else f"{_number(ends[0])} to {_number(ends[1])}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
