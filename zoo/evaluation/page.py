"""The pieces of an HTML page."""

import base64
import html
from collections.abc import Iterable, Sequence

import numpy as np

from zoo import figures
from zoo.figures import Window, png

LARGEST = 640  # longer sides of images are reduced to at most this


def data_uri(array: np.ndarray) -> str:
    """The PNG of a uint8 array as a `data:` address, to embed in HTML."""
    return "data:image/png;base64," + base64.b64encode(png(array)).decode("ascii")


def document(title: str, body: str) -> str:
    """A whole HTML page, light or dark as the reader's system is; `body` is HTML."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


def section(title: str, note: str, *blocks: str) -> str:
    """A card; `title` and `note` are plain text, `blocks` HTML."""
    return (
        f'<section><h2>{html.escape(title)}</h2><p class="soft">{html.escape(note)}</p>'
        + "".join(blocks)
        + "</section>"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are HTML already."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = ""
    for row in rows:
        cells = "".join(f"<td>{cell}</td>" for cell in row)
        body += f"<tr>{cells}</tr>"
    inner = f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="scroll"><table>{inner}</table></div>'


def by_patient(note: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A section with a row for each patient, folded where there are many."""
    opened = " open" if len(rows) <= 30 else ""
    shown = f"<summary>{len(rows)} patients</summary>{table(head, rows)}"
    return section("By patient", note, f"<details{opened}>{shown}</details>")


def tiles(items: Iterable[tuple[str, str, str]]) -> str:
    """A row of large figures: what each is, the figure and what there is to say of it, as HTML."""
    inner = ""
    for label, value, note in items:
        inner += (
            f'<div class="tile"><span class="soft">{label}</span><b>{value}</b>'
            f'<span class="soft">{note}</span></div>'
        )
    return f'<div class="tiles">{inner}</div>'


def example_title(title: str, about: Iterable[str]) -> str:
    """A line above an example's images; what is "" is left out."""
    shown = html.escape(" · ".join(filter(None, about)))
    return f"<h3>{html.escape(title)} <span>{shown}</span></h3>"


def grey(image: np.ndarray, window: Window) -> np.ndarray:
    """An image `[H, W]` or `[H, W, C]` as it is shown on a page: uint8, of a size that fits."""
    return figures.grey(figures.shrink(image, LARGEST), window)


def panels(images: Iterable[tuple[str, np.ndarray]]) -> str:
    """(caption, uint8 array) pairs side by side, embedded in the page."""
    items = []
    for caption, array in images:
        # Small images are enlarged by the browser: show their pixels, do not blur them.
        style = ' class="pixels"' if max(array.shape[:2]) < 200 else ""
        items.append(
            f'<figure><img{style} src="{data_uri(array)}" alt="{html.escape(caption)}">'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        )
    return f'<div class="panels">{"".join(items)}</div>'


def colour_bar(label: str, colours: Sequence[str], ends: Window, unit: str) -> str:
    """A horizontal ramp of CSS colours with its ends' and middle's values."""
    middle = (ends[0] + ends[1]) / 2
    ticks = "".join(f"<span>{value:g}</span>" for value in (ends[0], middle, ends[1]))
    unit = f", {html.escape(unit)}" if unit != "1" else ""
    return (
        f'<div class="bar">{html.escape(label)}{unit}'
        f'<i style="background:linear-gradient(90deg,{",".join(colours)})"></i>'
        f"<div>{ticks}</div></div>"
    )


_STYLE = """
:root { color-scheme: light dark; --page: #f6f7f8; --card: #fff; --ink: #1b1f24; --soft: #5b6470;
  --line: #e0e4e8; --accent: #1d5fc4; --faint: #9aa4b0; --alarm: #b3261e; --good: #17774a; }
@media (prefers-color-scheme: dark) { :root { --page: #14171a; --card: #1c2024; --ink: #e6e9ec;
  --soft: #9aa3ad; --line: #2f353b; --accent: #7fb0ff; --faint: #68727d; --alarm: #ff8a80;
  --good: #6fd3a0; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 6px; letter-spacing: -0.01em; }
h2 { font-size: 18px; margin: 0 0 4px; }
h3 { font-size: 14px; font-weight: 600; margin: 22px 0 8px; overflow-wrap: anywhere; }
p { margin: 4px 0 12px; max-width: 78ch; }
.soft, figcaption, h3 span { color: var(--soft); font-weight: 400; }
.swatch { display: inline-block; width: 11px; height: 11px; border-radius: 2px;
  margin-right: 6px; border: 1px solid var(--line); }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; margin-top: 14px; font-size: 13px; }
.alarm { color: var(--alarm); font-weight: 600; }
.good { color: var(--good); }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 22px 24px; margin-top: 20px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 3px 18px; margin: 18px 0 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: 14px;
  margin-top: 20px; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 14px 18px; }
.tile b { display: block; font-size: 26px; line-height: 1.25; font-weight: 650;
  font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums;
  margin-top: 10px; }
th, td { text-align: right; padding: 6px 10px; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th { font-weight: 600; color: var(--soft); font-size: 13px; }
th:first-child, td:first-child { text-align: left; white-space: normal; overflow-wrap: anywhere; }
tbody tr:last-child td { border-bottom: 0; }
td small { color: var(--soft); font-size: 12px; }
.panels { display: grid; gap: 10px; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); }
.pairs { display: grid; gap: 22px; margin-top: 14px;
  grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); }
.pairs .panels { grid-template-columns: 1fr 1fr; }
figure { margin: 0; } figcaption { font-size: 13px; margin-top: 3px; }
img { width: 100%; display: block; border-radius: 4px; background: #181818; }
img.pixels { image-rendering: pixelated; }
.bars { display: flex; gap: 36px; flex-wrap: wrap; margin-top: 20px; font-size: 13px; }
.bar { width: 280px; } .bar i { display: block; height: 12px; border-radius: 3px;
  border: 1px solid var(--line); }
.bar div { display: flex; justify-content: space-between; color: var(--soft); }
.places { position: relative; max-width: 480px; margin-bottom: 84px; }
.cells { position: absolute; inset: 0; display: grid; }
.cells input { appearance: none; margin: 0; cursor: crosshair; }
.cells input:hover { outline: 1px solid var(--faint); }
.cells input:checked, .cells input:focus-visible { outline: 2px solid var(--accent); }
.cells code { display: none; position: absolute; top: calc(100% + 8px); left: 0;
  overflow-wrap: anywhere; user-select: all; }
.cells input:checked + code { display: block; }
summary { cursor: pointer; font-weight: 600; }
svg { width: 100%; height: auto; display: block; margin-top: 8px; }
svg text { fill: var(--soft); font-size: 12px; } svg .grid { stroke: var(--line); }
svg .join { stroke: var(--faint); stroke-width: 1; opacity: .6; }
svg .out { fill: var(--accent); }
svg .in { fill: var(--card); stroke: var(--faint); stroke-width: 1.5; }
@media print { section, .tile { break-inside: avoid; } body { background: #fff; } }
"""
