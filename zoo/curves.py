"""Figures over the steps of a run, as `run.json` keeps them and as `curves.png` shows them.

A series is `{"steps": [...], "values": {name: [...]}}`, a value for each step, None where there was
none.
"""

import io
import math
from pathlib import Path
from typing import Any

import matplotlib.backends.backend_agg
import matplotlib.figure
import matplotlib.ticker

from zoo.atomic import write_atomic

Series = dict[str, Any]

_COLUMNS = 3
_INK, _SOFT, _LOSS, _HELD_OUT, _BEST = "#1b1f24", "#5b6470", "#5b6470", "#0b62a8", "#c2410c"


def append(series: Series, step: int, figures: dict[str, float]) -> None:
    """Put the figures of one more step at the end; what JSON cannot hold becomes None."""
    before = len(series["steps"])
    series["steps"].append(step)
    for name in figures:
        series["values"].setdefault(name, [None] * before)
    for name, values in series["values"].items():
        value = float(figures.get(name, math.nan))
        values.append(float(f"{value:.6g}") if math.isfinite(value) else None)


def cut(series: Series, step: int) -> None:
    """Forget what came after a step, where a run goes on from there."""
    keep(series, [i for i, each in enumerate(series["steps"]) if each <= step])


def thin(series: Series, most: int, but: int | None = None) -> None:
    """Of more than `most` steps leave every other one, the last one and the step `but`."""
    steps = series["steps"]
    if len(steps) > most:
        last = len(steps) - 1
        keep(series, [i for i, s in enumerate(steps) if (last - i) % 2 == 0 or s == but])


def keep(series: Series, places: list[int]) -> None:
    """Leave the steps at these places alone."""
    series["steps"][:] = [series["steps"][i] for i in places]
    for values in series["values"].values():
        values[:] = [values[i] for i in places]


def draw(
    path: Path,
    title: str,
    losses: Series,
    held_out: Series,
    *,
    labels: dict[str, str],
    best: int | None = None,
    begins: dict[str, int] | None = None,
) -> None:
    """Write a picture of a panel for each measure of held-out images and for each loss.

    Args:
        path: a `.png`, replaced when the new one is whole.
        title: above all panels.
        losses: those of training.
        held_out: the figures of validation.
        labels: what to call the latter.
        best: the step whose weights are the best, marked in every panel.
        begins: names of the phases and the steps after which they begin, marked as well.
    """
    panels = [(labels.get(n, n), held_out, n, _HELD_OUT) for n in held_out["values"]]
    panels += [(f"training: {name}", losses, name, _LOSS) for name in losses["values"]]
    rows = -(-len(panels) // _COLUMNS)
    figure = matplotlib.figure.Figure(
        figsize=(3.6 * _COLUMNS, 2.5 * rows + 0.5), dpi=100, layout="constrained"
    )
    matplotlib.backends.backend_agg.FigureCanvasAgg(figure)
    figure.suptitle(title, color=_INK, fontsize=11)
    cells = figure.subplots(rows, _COLUMNS, squeeze=False, sharex=True).ravel()
    for cell, (name, series, key, colour) in zip(cells, panels, strict=False):
        _panel(cell, name, series["steps"], series["values"][key], colour)
        _marks(cell, best, begins or {}, names=cell is cells[0])
    for cell in cells[len(panels) :]:
        cell.set_axis_off()
    # The last panel of each column says what is below; those above share its axis.
    for column in range(_COLUMNS):
        own = cells[column : len(panels) : _COLUMNS]
        if len(own):
            own[-1].tick_params(labelbottom=True)
            own[-1].set_xlabel("step", fontsize=8, color=_SOFT)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    write_atomic(path, buffer.getvalue())


def _panel(
    cell: Any, title: str, steps: list[int], values: list[float | None], colour: str
) -> None:
    """One curve, with a point at each step where there are few."""
    known = [(step, value) for step, value in zip(steps, values, strict=True) if value is not None]
    marker = "o" if len(known) <= 60 else None
    x, y = zip(*known, strict=True) if known else ((), ())
    cell.plot(x, y, color=colour, linewidth=1.2, marker=marker, markersize=2.5)
    cell.set_title(title, fontsize=9, color=_INK)
    cell.tick_params(labelsize=7, colors=_SOFT)
    cell.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5, integer=True))
    cell.grid(color="#e3e6ea", linewidth=0.6)
    cell.set_axisbelow(True)
    for side in ("top", "right"):
        cell.spines[side].set_visible(False)


def _marks(cell: Any, best: int | None, begins: dict[str, int], *, names: bool) -> None:
    """A line at the best step and at the begin of each phase but the first."""
    for step in begins.values():
        if step:
            cell.axvline(step, color=_SOFT, linewidth=0.8, linestyle=":")
    if best is not None:
        cell.axvline(best, color=_BEST, linewidth=1.0, linestyle="--", label=f"best: step {best}")
        if names:
            cell.legend(fontsize=7, frameon=False, labelcolor=_BEST)
