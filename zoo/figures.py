"""Image grids for TensorBoard, sample files and reports.

Images come as `[H, W]` or `[H, W, C]` arrays in physical units. Of several channels the middle
one is shown, which for neighbouring slices is the slice itself. CT is looked at as radiologists do,
in the windows of `CT_WINDOWS`: in the whole window of a network, some 2500 HU wide, soft tissues
and the errors in them are one grey.
"""

import io
import os
from collections.abc import Collection, Iterable, Mapping, Sequence

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from zoo import metrics
from zoo.atomic import write_atomic

Window = tuple[float, float]

# Display windows of CT, in HU: of centre 40 and width 400, -600 and 1500, 400 and 1800.
CT_WINDOWS: dict[str, Window] = {
    "soft tissue": (-160.0, 240.0),
    "lung": (-1350.0, 150.0),
    "bone": (-500.0, 1300.0),
}
# The share of a body from which on it is worth a look in that window.
_LEAST = {"soft tissue": 0.05, "lung": 0.05, "bone": 0.03}

_GAP = 4  # pixels between panels
_LABEL = 18  # height of a line of text
_BACKGROUND = 24  # dark grey, so that black images have an edge


def grey(image: np.ndarray, window: Window) -> np.ndarray:
    """`[H, W]` uint8 of an image: black at the window's lower end, white at its upper end."""
    image = middle(image)
    low, high = window
    scaled = (np.nan_to_num(image, nan=low, posinf=high, neginf=low) - low) / (high - low)
    return np.round(255 * np.clip(scaled, 0, 1)).astype(np.uint8)


def display_windows(images: Iterable[np.ndarray], unit: str, window: Window) -> dict[str, Window]:
    """The windows in which to look at images, the one that fits best first.

    HU are shown for soft tissue, lung and bone where the images hold them; lung comes before soft
    tissue in what was cut from a lung. Everything else is shown in its own window, and so is
    CT whose window is no wider than that for soft tissue.

    Args:
        images: `[H, W]` or `[H, W, C]`, in `unit`; what they hold decides.
        unit: of the images; "HU" is CT.
        window: their intensity window, to which a network is limited.

    Returns:
        A label, which names the window and its limits, to the window; for other units than HU the
        label is empty.
    """
    soft = CT_WINDOWS["soft tissue"]
    if unit != "HU":
        return {"": window}
    if soft[0] <= window[0] and window[1] <= soft[1]:
        return {_window_label("window", window): window}
    found = np.sum([_tissues(middle(image)) for image in images], axis=0)
    share = dict(zip(CT_WINDOWS, found / max(found.sum(), 1), strict=True))
    # What lies beyond the network's window cannot be seen in it.
    seen = {"soft tissue": True, "lung": window[0] <= -900, "bone": window[1] >= 800}
    names = [name for name, least in _LEAST.items() if seen[name] and share[name] > least]
    if not names:
        names = ["soft tissue"]
    # A stable sort: of a slice through the chest less than half is lung, of a patch from one more.
    names.sort(key=lambda name: name != "lung" or share["lung"] < 0.5)
    return {_window_label(name, CT_WINDOWS[name]): CT_WINDOWS[name] for name in names}


def best_window(images: Iterable[np.ndarray], unit: str, window: Window) -> tuple[str, Window]:
    """The first of the `display_windows`, with its label."""
    return next(iter(display_windows(images, unit, window).items()))


def _tissues(image: np.ndarray) -> list[int]:
    """Pixels of soft tissue, lung and bone in HU `[H, W]`."""
    # Foam and blankets look like lung. In a patch from within a body there is no air around it,
    # which no lung is as empty as, nor a whole body to be found.
    air = metrics.largest(image < -900)
    around = air[[0, -1]].any() or air[:, [0, -1]].any()
    if around and air.mean() > 0.05 and np.median(image[air]) < -985:
        image = image[metrics.body_mask(image)]
    return [int(np.sum(test)) for test in (abs(image - 40) < 200, image < -500, image > 300)]


def _window_label(name: str, window: Window) -> str:
    return f"{name}, {window[0]:g} to {window[1]:g} HU"


def diverging(error: np.ndarray, limit: float) -> np.ndarray:
    """`[H, W, 3]` uint8 of a signed image: blue at -limit, near white at 0, red at +limit."""
    error = np.nan_to_num(middle(error), nan=0.0, posinf=limit, neginf=-limit)
    scaled = 0.5 + 0.5 * np.clip(error / limit, -1, 1)
    # An odd number of colours, so that 0 has one of its own.
    table = matplotlib.colormaps["RdBu_r"](np.linspace(0, 1, 511), bytes=True)[:, :3]
    return table[np.round(510 * scaled).astype(int)]


def label_colours(classes: int) -> np.ndarray:
    """`[classes, 3]` uint8: a colour for each class; the background, class 0, is black.

    They differ up to 21 classes and repeat beyond.
    """
    name, count = ("tab10", 10) if classes <= 11 else ("tab20", 20)
    table = np.zeros((classes, 3), np.uint8)
    table[1:] = matplotlib.colormaps[name](np.arange(classes - 1) % count, bytes=True)[:, :3]
    return table


def overlay(
    image: np.ndarray, labels: np.ndarray, window: Window, classes: int, opacity: float = 0.6
) -> np.ndarray:
    """`[H, W, 3]` uint8 of an image in grey under its label map in colour.

    Args:
        image: `[H, W]` or `[H, W, C]`, in physical units.
        labels: `[H, W]` or `[H, W, 1]`, whole numbers from 0 (not coloured) to `classes - 1`.
        window: physical values shown black and white.
        classes: number of classes.
        opacity: of the colours, 0 to 1.
    """
    below, labels = _rgb(grey(image, window)), middle(labels).astype(int)
    if below.shape[:2] != labels.shape:
        raise ValueError(
            f"image, labels: expected one size. Received: {below.shape[:2]} and {labels.shape}"
        )
    above = label_colours(classes)[labels]
    mixed = np.round((1 - opacity) * below + opacity * above).astype(np.uint8)
    return np.where(labels[..., None] > 0, mixed, below)


def round_limit(value: float) -> float:
    """The smallest of 1, 2, 3, 4, 5, 6 or 8 times a power of ten, not below `value`."""
    if not np.isfinite(value) or value <= 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    steps = power * np.array([1, 2, 3, 4, 5, 6, 8, 10])
    return float(steps[steps >= value * 0.999999][0])


def shrink(image: np.ndarray, largest: int) -> np.ndarray:
    """Block means of a `[H, W]` or `[H, W, C]` image, so that no side exceeds `largest`."""
    factor = -(-max(image.shape[:2]) // largest)
    if factor == 1:
        return image
    height, width = (side // factor for side in image.shape[:2])
    cut = np.asarray(image[: height * factor, : width * factor], np.float32)
    return cut.reshape(height, factor, width, factor, *image.shape[2:]).mean((1, 3))


def grid(
    rows: Sequence[Mapping[str, np.ndarray]],
    windows: Window | Mapping[str, Window],
    *,
    error: tuple[str, str] | None = None,
    error_limit: float | None = None,
    unit: str = "",
    ct: Collection[str] = (),
    captions: Sequence[str] = (),
    panel: int = 128,
    largest: int = 512,
) -> np.ndarray:
    """Rows of labelled panels, such as source | output | target | error.

    Args:
        rows: for each row, column name to an image `[H, W]` or `[H, W, C]`, in physical units.
            Columns stand in order of first appearance; a row may lack some of them.
        windows: the display window of all columns, or column name to its window.
        error: two column names (a, b); adds a last column with a - b in a diverging colour map,
            both clipped to a's window in that row, for rows where both have one size.
        error_limit: the value of full colour, in `unit`; None takes a rounded 99th percentile.
        unit: unit of the error, for its label.
        ct: columns in HU. A row with such is shown in the first two of the `display_windows` of
            its last one, one below the other, with the window's name below.
        captions: what to write below each row, where it is not that.
        panel: smaller images are enlarged by a whole factor to at least this many pixels.
        largest: greater images are reduced to at most this many pixels.

    Returns:
        `[H, W, 3]` uint8.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    if not names:
        raise ValueError("rows: expected at least one row with an image. Received: none")
    window_of = windows if isinstance(windows, Mapping) else dict.fromkeys(names, windows)
    missing = [name for name in names if name not in window_of]
    if missing:
        raise ValueError(f"windows: expected a window for {missing[0]!r}. Received: {windows}")
    # The panels of each row, and at their end the errors.
    rows, windows_of, named = _in_windows(rows, window_of, ct)
    panels = []
    for row, own in zip(rows, windows_of, strict=True):
        panels.append({k: _rgb(grey(shrink(v, largest), own[k])) for k, v in row.items()})
    if error is not None:
        errors = [_difference(row, error, own) for row, own in zip(rows, windows_of, strict=True)]
        limit = _error_limit(errors) if error_limit is None else error_limit
        shown_unit = unit if unit != "1" else ""
        names.append(f"{error[0]} - {error[1]}, ±{limit:g} {shown_unit}".strip())
        for shown, difference in zip(panels, errors, strict=True):
            if difference is not None:
                shown[names[-1]] = diverging(shrink(difference, largest), limit)
    canvas, last = _laid_out(panels, names, captions or named, panel, 0 if error is None else 8)
    if error is not None:  # the colour bar, under the last column
        ramp = diverging(np.linspace(-1, 1, last)[None], 1.0)
        canvas[-8 - _GAP // 2 : -_GAP // 2, -last:] = ramp
    return canvas


def _error_limit(errors: Sequence[np.ndarray | None]) -> float:
    """A rounded 99th percentile of all errors."""
    found = [np.abs(each).ravel() for each in errors if each is not None]
    return round_limit(float(np.nanpercentile(np.concatenate(found), 99))) if found else 1.0


def _laid_out(
    rows: Sequence[Mapping[str, np.ndarray]],
    names: Sequence[str],
    captions: Sequence[str],
    panel: int,
    bar: int,
) -> tuple[np.ndarray, int]:
    """Panels in rows and columns, with names above the columns and captions below the rows.

    Args:
        rows: column name to panel, uint8 `[H, W, 3]`.
        names: of the columns, from left to right.
        captions: one a row, "" for none.
        panel: smaller panels are enlarged to at least this many pixels.
        bar: pixels kept free at the bottom; 0 for none.

    Returns:
        The picture, uint8 `[H, W, 3]`, and the width of the last column.
    """
    # All panels as large as the largest, but for a part of a whole factor.
    sides = [max(image.shape[:2]) for row in rows for image in row.values()]
    cell = max(panel, *sides)
    lines, heights, widths = [], [], []
    for row in rows:
        line = {name: _enlarge(image, cell) for name, image in row.items()}
        lines.append(line)
        heights.append(max([image.shape[0] for image in line.values()], default=cell))
    for name in names:
        widths.append(max([line[name].shape[1] for line in lines if name in line], default=panel))
    # Where each row begins.
    below = _LABEL if any(captions) else 0
    tops = np.cumsum([_LABEL, *(height + _GAP + below for height in heights)])
    height = tops[-1] + (bar + _GAP if bar else 0)
    canvas = np.full((height, sum(widths) + _GAP * (len(names) - 1), 3), _BACKGROUND, np.uint8)
    # Column by column, with its name above.
    left = 0
    for name, width in zip(names, widths, strict=True):
        for line, top in zip(lines, tops[:-1], strict=True):
            if name in line:
                image = line[name]
                canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
        _write(canvas, name, 0, left, width)
        left += width + _GAP
    # The rows' captions, each below its row.
    for caption, top, row_height in zip(captions, tops[:-1], heights, strict=True):
        if caption:
            _write(canvas, caption, top + row_height, 0, canvas.shape[1])
    return canvas, widths[-1]


def sample_grid(
    images: np.ndarray,
    window: Window,
    *,
    columns: int | None = None,
    panel: int = 64,
    caption: str = "",
) -> np.ndarray:
    """Images `[N, H, W, C]` side by side, about as wide as high: `[H', W', 3]` uint8.

    A caption stands in a line below them.
    """
    images = np.asarray(images)
    if images.ndim not in (3, 4) or not len(images):
        raise ValueError(
            f"images: expected [N, H, W] or [N, H, W, C], N at least 1. Received: {images.shape}"
        )
    tiles = [_enlarge(_rgb(grey(shrink(image, 512), window)), panel) for image in images]
    columns = columns or int(np.ceil(np.sqrt(len(tiles))))
    height, width = tiles[0].shape[:2]
    lines = -(-len(tiles) // columns)
    canvas = np.full(
        (lines * (height + 2) - 2, min(columns, len(tiles)) * (width + 2) - 2, 3),
        _BACKGROUND,
        np.uint8,
    )
    for i, tile in enumerate(tiles):
        top, left = (i // columns) * (height + 2), (i % columns) * (width + 2)
        canvas[top : top + height, left : left + width] = tile
    if caption:
        canvas = np.pad(canvas, ((0, _LABEL), (0, 0), (0, 0)), constant_values=_BACKGROUND)
        _write(canvas, caption, len(canvas) - _LABEL, 0, canvas.shape[1])
    return canvas


def png(array: np.ndarray) -> bytes:
    """A uint8 array `[H, W]` or `[H, W, 3]` as a PNG file."""
    if array.dtype != np.uint8 or not (array.ndim == 2 or array.shape[2:] == (3,)):
        raise ValueError(
            "array: expected uint8 [H, W] or [H, W, 3]. "
            f"Received: {array.dtype} {tuple(array.shape)}"
        )
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def save_png(path: str | os.PathLike, array: np.ndarray) -> None:
    """Writes a uint8 array as a PNG file; readers never see half of it."""
    write_atomic(path, png(array))


def middle(image: np.ndarray) -> np.ndarray:
    """The image, or its middle channel, as float32 `[H, W]`."""
    image = np.asarray(image, np.float32)
    if image.ndim not in (2, 3):
        raise ValueError(f"image: expected [H, W] or [H, W, C]. Received: shape {image.shape}")
    return image if image.ndim == 2 else image[..., image.shape[-1] // 2]


def _in_windows(
    rows: Sequence[Mapping[str, np.ndarray]], windows: Mapping[str, Window], ct: Collection[str]
) -> tuple[list[Mapping[str, np.ndarray]], list[dict[str, Window]], list[str]]:
    """Rows, each as often as its CT is looked at; their windows, and what these are called."""
    shown, windows_of, captions = [], [], []
    for row in rows:
        looks: dict[str, Window] = {"": (0.0, 1.0)}
        names = [name for name in row if name in ct]
        if names:
            looks = display_windows([row[names[-1]]], "HU", windows[names[-1]])
        for label, window in list(looks.items())[:2]:
            shown.append(row)
            windows_of.append({**windows, **dict.fromkeys(names, window)})
            captions.append(label)
    return shown, windows_of, captions


def _difference(
    row: Mapping[str, np.ndarray], names: tuple[str, str], windows: Mapping[str, Window]
) -> np.ndarray | None:
    """First minus second in the first's window, or None where the row has no such pair."""
    if any(name not in row for name in names):
        return None
    a, b = (middle(row[name]) for name in names)
    if a.shape != b.shape:
        return None
    window = windows[names[0]]
    return np.clip(a, *window) - np.clip(b, *window)


def _rgb(image: np.ndarray) -> np.ndarray:
    return np.repeat(image[..., None], 3, axis=-1)


def _enlarge(image: np.ndarray, size: int) -> np.ndarray:
    """Repeats pixels by the largest whole factor that keeps the longer side within `size`."""
    factor = max(1, size // max(image.shape[:2]))
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def _write(canvas: np.ndarray, text: str, top: int, left: int, width: int) -> None:
    """Draws a line of text into `canvas`, cut to `width`."""
    strip = Image.new("RGB", (width, _LABEL), (_BACKGROUND,) * 3)
    drawing = ImageDraw.Draw(strip)
    font = ImageFont.load_default(size=12)
    if drawing.textlength(text, font=font) > width - 4:
        font = ImageFont.load_default(size=9)
    drawing.text((3, 2), text, fill=(230, 230, 230), font=font)
    canvas[top : top + _LABEL, left : left + width] = np.asarray(strip)
