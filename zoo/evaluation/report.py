"""The evaluation report: one HTML page without scripts or anything to fetch."""

import html
from collections.abc import Sequence
from typing import Any

import numpy as np

from zoo import figures
from zoo.evaluation import intervals, segmentation_report
from zoo.evaluation.page import colour_bar, document, panels, section, table

Window = tuple[float, float]

# Measure: label, unit (None: the image's own), decimals.
MEASURES = {
    "psnr": ("PSNR", "dB", 2),
    "ssim": ("SSIM", "", 4),
    "ms_ssim": ("MS-SSIM", "", 4),
    "rmse_window": ("RMSE in window", None, None),
    "mae_window": ("MAE in window", None, None),
    "rmse": ("RMSE, all values", None, None),
    "mae": ("MAE, all values", None, None),
    "nmse": ("NMSE", "", 5),
    "psnr_body": ("PSNR in the body", "dB", 2),
    "rmse_body": ("RMSE in the body", None, None),
    "mae_body": ("MAE in the body", None, None),
    "ssim_synthrad": ("SSIM, SynthRAD2023", "", 4),
    "psnr_synthrad": ("PSNR, SynthRAD2023", "dB", 2),
    "mae_synthrad": ("MAE, SynthRAD2023", None, None),
    "ssim_fastmri": ("SSIM, fastMRI", "", 4),
    "psnr_fastmri": ("PSNR, fastMRI", "dB", 2),
    "nmse_fastmri": ("NMSE, fastMRI", "", 5),
}
_BODY = {
    "threshold": "the largest connected part of the target above -500 HU, filled",
    "mask of the data set": "the data set's mask",
}
_VOLUMES = {
    "SynthRAD2023": "SSIM in three dimensions and PSNR with the range of -1024 to 3000 HU, and the "
    "mean absolute error, all of them in the body",
    "fastMRI": "SSIM slice by slice, PSNR and NMSE, with the largest value of each volume's target "
    "as the range",
}

_LARGEST = 640  # longer sides are reduced to at most this for the page
_PLOTTED = 300  # images in the plot


def page(results: dict[str, Any], pictures: dict[str, Any]) -> str:
    """The report as HTML.

    Args:
        results: what `metrics.json` holds.
        pictures: "examples": (label, example) pairs, the examples' "input" being what to show of
            the source; or, for a generator, "sets": name to images and "pairs": (generated,
            nearest training image, facts).
    """
    kind = results["kind"]
    parts = [_head(results)]
    if kind == "translation":
        parts += [_tiles(results), _summary(results), _volumes(results), _plot(results)]
        parts += [_examples(results, pictures["examples"])]
        parts += [_patients(results)]
    elif kind == "unaligned translation":
        parts += [_distances(results)]
        parts += [_examples(results, pictures["examples"])]
    elif kind == "segmentation":
        parts += segmentation_report.sections(results, pictures["examples"])
    else:
        unit, window = results["unit"], tuple(results["window"])
        windows = figures.display_windows(pictures["sets"]["held out"], unit, window)
        parts += [_distances(results), _sets(pictures["sets"], windows)]
        parts += [_memorisation(results, pictures["pairs"], next(iter(windows.values())))]
    parts += [_limits(results)]
    title = f"{results['model']} on {results['dataset']['name']}"
    return document(title, "\n".join(parts))


def _head(results: dict[str, Any]) -> str:
    data, target, source = results["dataset"], results["target"], results["source"]
    counted = f"{results['images']} {'images' if results['dimensions'] == 2 else 'volumes'}"
    if results["patients"]:
        counted += f" of {results['patients']} patients"
    if results["limit"]:
        counted += f" (at most {results['limit']} asked for)"
    facts = {
        "Model": results["model"],
        "Weights": results["weights"][:16] and f"sha256 {results['weights'][:16]}…",
        "Data set": " ".join(filter(None, (data["name"], data["version"]))) + f", {data['split']}",
        "": data["description"],
        "Images": counted,
        "Source": _domain(source) if results["kind"] != "generation" else "",
        "Target" if results["kind"] != "generation" else "Domain": _domain(target),
        "Classes": ", ".join(results.get("label_names", ())),
        "Made": ", ".join(
            [results["created"]] + [f"{k} {v}" for k, v in results["versions"].items() if v]
        ),
    }
    rows = "".join(f"<dt>{_text(k)}</dt><dd>{_text(v)}</dd>" for k, v in facts.items() if v)
    title = _text(results["model"]) + ' <span class="soft">on</span> ' + _text(data["name"])
    what = {
        "translation": "Image translation, compared pixel by pixel with the target",
        "unaligned translation": "Image translation without aligned targets, compared as sets",
        "segmentation": "Pixel-wise classification, compared with the target's label map",
        "generation": "Image generation, compared with held-out images",
    }[results["kind"]]
    return f'<header><h1>{title}</h1><div class="soft">{what}</div><dl>{rows}</dl></header>'


def _tiles(results: dict[str, Any]) -> str:
    """The three numbers that most readers want."""
    tiles = []
    for key in ("psnr", "ssim", "rmse_window"):
        label, unit, _ = _measure(key, results)
        output = intervals.independent(results["summary"]["output"][key])
        line = _interval(output["ci95"], key, results)
        line += f", {output['count']} {output['of']}"
        gain = results["summary"].get("gain")
        if gain:
            difference = intervals.independent(gain[key])["mean"]
            better = difference * (-1 if key == "rmse_window" else 1) > 0
            line += (
                f'<br><span class="{"good" if better else "alarm"}">'
                f"{_number(difference, key, results, sign=True)} {_text(unit)}</span>"
                f" {_against(results)}"
            )
        value = _number(output["mean"], key, results)
        tiles.append(
            f'<div class="tile"><span class="soft">{label}</span>'
            f"<b>{value} <small>{_text(unit)}</small></b>"
            f'<span class="soft">{line}</span></div>'
        )
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _summary(results: dict[str, Any]) -> str:
    rows, head = _measures(results, results["summary"])
    low, high = results["window"]
    scales = ", ".join(map(str, results["ms_ssim_scales"]))
    note = (
        f"Mean ± standard deviation, and the 95 % bootstrap interval of the mean. The window is "
        f"{low:g} to {high:g} {_unit(results)}; its width is the data range of PSNR, SSIM and "
        f"MS-SSIM, for which values are clipped to it. MS-SSIM uses {scales} of 5 scales"
        + ("" if results["ms_ssim_scales"] == [5] else " (weights renormalised)")
        + ". By patient, each patient's mean counts once."
        + (
            " SSIM and MS-SSIM of a volume are means over its axial slices."
            if results["dimensions"] == 3
            else ""
        )
    )
    if results["unit"] == "HU":
        note += " NMSE counts values from air, -1000 HU."
    if results["body"]:
        note += f" The body is {_BODY[results['body']]}."
    return section("Summary", note, table(head, rows))


def _volumes(results: dict[str, Any]) -> str:
    """The measures that are defined of whole volumes."""
    volumes = results["volumes"]
    if volumes is None:
        return ""
    rows, head = _measures(results, volumes["summary"])
    note = (
        f"As {volumes['definition']} measures volumes: {_VOLUMES[volumes['definition']]}. Of "
        f"{volumes['volumes']} volumes, each of the slices that the data set holds of it."
    )
    if volumes["left_out"]:
        note += f" {volumes['left_out']} with a gap, or with too few slices, are left out."
    return section("Volumes", note, table(head, rows))


def _measures(
    results: dict[str, Any], summary: dict[str, dict[str, Any]]
) -> tuple[list[list[str]], list[str]]:
    """Rows and head of the table of all measures in a summary."""
    columns = {"output": "Output", "input": _capital(results["baseline"]), "gain": "Gain (paired)"}
    keys = [key for key in MEASURES if key in summary["output"]]
    by_patient = summary["output"][keys[0]]["patients"] is not None
    head = ["Measure"] + [columns[part] for part in summary]
    if by_patient:
        head += ["Output, by patient"]
        head += ["Gain, by patient"] if "gain" in summary else []
    rows = []
    for key in keys:
        label, unit, _ = _measure(key, results)
        cells = [f"{label} {f'<small>{_text(unit)}</small>' if unit else ''}"]
        for part in summary:
            cells.append(_cell(summary[part][key], key, results, sign=part == "gain"))
        if by_patient:
            cells.append(_cell(summary["output"][key]["patients"], key, results))
            if "gain" in summary:
                cells.append(_cell(summary["gain"][key]["patients"], key, results, sign=True))
        rows.append(cells)
    return rows, head


def _plot(results: dict[str, Any]) -> str:
    """Each image's PSNR before and after, in order of the output's."""
    rows = sorted(results["per_image"], key=lambda row: row["output"]["psnr"])
    if len(rows) < 2:
        return ""
    if len(rows) > _PLOTTED:
        rows = [rows[i] for i in np.linspace(0, len(rows) - 1, _PLOTTED).round().astype(int)]
    values = [row[part]["psnr"] for row in rows for part in ("output", "input") if part in row]
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or 1.0
    low, high = low - margin, high + margin
    step = figures.round_limit((high - low) / 6)

    def y(value: float) -> float:
        return 205 - 195 * (value - low) / (high - low)

    marks = []
    for tick in np.arange(np.ceil(low / step) * step, high, step):
        marks.append(
            f'<line class="grid" x1="48" x2="1050" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
            f'<text x="40" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
        )
    for i, row in enumerate(rows):
        x, after = 60 + 978 * i / (len(rows) - 1), y(row["output"]["psnr"])
        if "input" in row:
            before = y(row["input"]["psnr"])
            marks.append(
                f'<line class="join" x1="{x:.1f}" x2="{x:.1f}" y1="{before:.1f}" y2="{after:.1f}"/>'
                f'<circle class="in" cx="{x:.1f}" cy="{before:.1f}" r="3"/>'
            )
        title = html.escape(f"{row['name']}: {row['output']['psnr']:.2f} dB")
        marks.append(
            f'<circle class="out" cx="{x:.1f}" cy="{after:.1f}" r="3.5">'
            f"<title>{title}</title></circle>"
        )
    drawing = (
        '<svg viewBox="0 0 1060 215" role="img" aria-label="PSNR of each image">'
        + "".join(marks)
        + "</svg>"
    )
    note = "PSNR in dB of every image's output (filled)"
    note += f" and {results['baseline']} (open)" if "input" in rows[0] else ""
    note += ", in order of the output's."
    if len(results["per_image"]) > _PLOTTED:
        note += f" {_PLOTTED} of {len(results['per_image'])} images, evenly chosen."
    return section("Image by image", note, drawing)


def _examples(results, examples) -> str:
    """Each example with its errors, in every window that shows what is in it."""
    aligned = results["kind"] == "translation"
    name = _capital(results.get("baseline") or "input")
    target = results["target"]
    source = target if results["source"]["unit"] == "k-space" else results["source"]
    ct = source["unit"] == target["unit"] == "HU"
    looks = [_looks(example, source, target, aligned) for _, example in examples]
    limits = _limits_of(looks) if aligned else {}
    blocks = []
    for (title, example), look in zip(examples, looks, strict=True):
        about = [example["name"], example["patient"] and f"patient {example['patient']}"]
        if aligned:
            row = example["row"]
            score = f"PSNR {row['output']['psnr']:.2f} dB"
            if "gain" in row:
                gain = _number(row["gain"]["psnr"], "psnr", results, sign=True)
                score += f" ({gain} {_against(results)})"
            about += [score, f"SSIM {row['output']['ssim']:.4f}"]
        about = " · ".join(_text(item) for item in about if item)
        blocks.append(f"<h3>{_text(title)} <span>{about}</span></h3>")
        # A row of panels for each window; what is no CT looks alike in all of them.
        for label, (window, error) in look.items():
            input_window = window if ct else tuple(source["window"])
            shots = [
                (name, _grey(example["input"], input_window)),
                ("Output", _grey(example["output"], window)),
                ("Target" if aligned else "A real target", _grey(example["target"], window)),
            ]
            if error is not None:
                shown = figures.diverging(figures.shrink(error, _LARGEST), limits[label])
                shots.append(("Output − target", shown))
            caption = f'<p class="soft">{_text(_capital(label))}</p>' if label else ""
            blocks.append(caption + panels(shots))
    bars = _bars(results, name, source, ct, looks, limits)
    note = (
        "Within the display windows below; errors beyond the scale's ends show its end colours."
        if aligned
        else "Chosen at random. The real target is of another place or patient."
    )
    note += " Of volumes the middle slice is shown." if results["dimensions"] == 3 else ""
    return section("Examples", note, *blocks, f'<div class="bars">{bars}</div>')


def _looks(
    example: dict[str, Any], source: dict[str, Any], target: dict[str, Any], aligned: bool
) -> dict[str, tuple[Window, np.ndarray | None]]:
    """Label of a display window to its limits and, of an aligned example, the error within it."""
    # Where the two show different places, both must be seen.
    images = [example["target"]] if aligned else [example["target"], example["output"]]
    windows = figures.display_windows(images, target["unit"], tuple(target["window"]))
    looks: dict[str, tuple[Window, np.ndarray | None]] = {}
    for label, window in windows.items():
        error = None
        if aligned:
            error = np.clip(example["output"], *window) - np.clip(example["target"], *window)
        looks[label] = window, error
    return looks


def _limits_of(looks: Sequence[dict[str, tuple[Window, np.ndarray]]]) -> dict[str, float]:
    """One scale of errors a window for all rows, from the bulk of each row's errors."""
    limits: dict[str, float] = {}
    for look in looks:
        for label, (_, error) in look.items():
            bulk = float(np.percentile(np.abs(error), 99.5))
            limits[label] = max(limits.get(label, 0.0), bulk)
    return {label: figures.round_limit(limit) for label, limit in limits.items()}


def _bars(results, name: str, source, ct: bool, looks, limits: dict[str, float]) -> str:
    """The scales of the examples: grey levels, and colours of the errors."""
    ramp, unit = ("#000", "#fff"), results["unit"]
    own = (tuple(source["window"]), source["unit"])
    windows = {label: window for look in looks for label, (window, _) in look.items()}
    together = ct or own == (tuple(results["window"]), unit)
    bars = [] if together else [(name, ramp, *own)]
    for label, window in windows.items():
        shown = "All images" if together else "Output and target"
        bars.append((f"{shown}{_in(label)}", ramp, window, unit))
    colours = figures.diverging(np.linspace(-1, 1, 17)[None], 1.0)[0]
    colours = [f"rgb({r},{g},{b})" for r, g, b in colours]
    for label, limit in limits.items():
        bars.append((f"Output − target{_in(label)}", colours, (-limit, limit), unit))
    return "".join(colour_bar(*bar) for bar in bars)


def _in(label: str) -> str:
    """The window's name, without its limits."""
    return f", {label.partition(',')[0]}" if label else ""


def _patients(results: dict[str, Any]) -> str:
    if not results["per_patient"]:
        return ""
    gain = "gain" in results["summary"]
    keys = ("psnr", "ssim", "ms_ssim", "rmse_window", "mae_window")
    head = ["Patient", "Images"]
    for key in keys:
        label, unit, _ = _measure(key, results)
        head.append(f"{label}{f', {_text(unit)}' if unit else ''}")
        head += ["gain"] * (gain and key in ("psnr", "rmse_window"))
    rows = []
    for entry in results["per_patient"]:
        cells = [_text(entry["patient"]), str(entry["images"])]
        for key in keys:
            cells.append(_number(entry["output"][key], key, results))
            if gain and key in ("psnr", "rmse_window"):
                cells.append(_number(entry["gain"][key], key, results, sign=True))
        rows.append(cells)
    opened = " open" if len(rows) <= 30 else ""
    shown = f"<summary>{len(rows)} patients</summary>{table(head, rows)}"
    block = f"<details{opened}>{shown}</details>"
    return section("By patient", "Means over each patient's images.", block)


def _distances(results: dict[str, Any]) -> str:
    distances = dict(results["sliced_wasserstein"])
    count = distances.pop("images")
    levels = [key for key in next(iter(distances.values())) if key != "mean"]
    generation = results["kind"] == "generation"
    names = {"training": "Training images (reference)", "real target": "Real targets (reference)"}
    head = ["Set"] + [f"{level} px" for level in levels] + ["Mean"]
    keys = list(distances)
    if generation:
        head += ["MS-SSIM of pairs", f"Mean, {_unit(results)}", f"Deviation, {_unit(results)}"]
        keys.insert(1, "held out")
    rows = []
    for key in keys:
        cells = [_text(names.get(key, _capital(key)))]
        for level in levels + ["mean"]:
            cells.append(f"{distances[key][level]:.2f}" if key in distances else "–")
        if generation:
            similarity, intensity = results["pair_ms_ssim"][key], results["intensity"][key]
            cells.append("–" if similarity is None else f"{similarity:.3f}")
            cells += [f"{intensity['mean']:.4g}", f"{intensity['sd']:.4g}"]
        rows.append(cells)
    against = "the held-out images" if generation else "real targets"
    note = (
        f"Sliced Wasserstein distance × 10³ to {against}, {count} images each, by level of the "
        "Laplacian pyramid (Karras et al. 2018). Smaller is closer, but two sets of real images "
        "are not at 0 either: compare with the reference row, where there is one. It does not "
        "see a change of overall brightness or contrast."
    )
    if generation:
        note += (
            " MS-SSIM of pairs is the mean over random pairs within a set: well above the "
            "held-out images' value, the generator repeats itself."
        )
    return section("Distance between sets", note, table(head, rows))


def _sets(sets: dict[str, np.ndarray], windows: dict[str, Window]) -> str:
    captions = {"generated": "Generated", "training": "Training", "held out": "Held out"}
    shots = []
    for label, window in windows.items():
        for key in filter(sets.__contains__, captions):
            caption = ", ".join(filter(None, (captions[key], label)))
            shots.append((caption, figures.sample_grid(sets[key], window, columns=5)))
    return section("Samples", "Not selected.", panels(shots))


def _memorisation(results: dict[str, Any], pairs, window: Window) -> str:
    found = results["memorisation"]
    title = "Memorisation"
    if found is None:
        return section(title, "Not checked: no training images were given.")
    verdict = (
        f'<p class="alarm">{found["flagged"]} of {results["images"]} generated images are '
        "suspiciously close to a training image.</p>"
        if found["flagged"]
        else f'<p class="good">None of {results["images"]} generated images is flagged.</p>'
    )
    if found["held_out_copies"]:
        verdict += (
            f'<p class="alarm">{found["held_out_copies"]} held-out images are themselves in the '
            "training set: the split leaks, and the threshold means little.</p>"
        )
    unit = _unit(results)
    note = (
        f"Root mean squared difference at reduced resolution to the nearest of "
        f"{found['training_images']} training images (or its mirror image): median "
        f"{found['median_distance']:.3g} {unit}; held-out real images "
        f"{found['median_held_out_distance']:.3g} {unit}. Flagged below {found['threshold']:.3g} "
        f"{unit}, half of the held-out images' 5th percentile. A screen, not a proof of privacy. "
        ""
    )
    blocks = []
    for generated, nearest, facts in pairs:
        shots = [("Generated", _grey(generated, window)), ("Nearest", _grey(nearest, window))]
        mark = ' <span class="alarm">flagged</span>' if facts["copy"] else ""
        ratio = "" if facts["ratio"] is None else f", {facts['ratio']:.2f} of the median"
        text = f"<figcaption>{facts['distance']:.3g} {unit}{ratio}{mark}</figcaption>"
        blocks.append(f"<div>{panels(shots)}{text}</div>")
    verdict += "<h3>The closest pairs</h3>"
    return section(title, note, verdict, f'<div class="pairs">{"".join(blocks)}</div>')


def _limits(results: dict[str, Any]) -> str:
    data = results["dataset"]
    lines = [
        "For research use; not a medical device, and not for diagnosis.",
        f"All figures are of one data set, {data['name']} ({data['split']}), and say nothing of "
        "other scanners, protocols, anatomies or populations.",
    ]
    if results["kind"] == "segmentation":
        lines += [
            "Overlap says little of small structures and of where a boundary is wrong, and is only "
            "as good as the target's label maps. No reader or diagnostic task was tested."
        ]
    elif results["kind"] == "generation":
        lines += [
            "Distances between sets depend on the number of images and are comparable only at "
            "the same number and resolution. No reader has judged the images."
        ]
    else:
        lines += [
            "A translated image can look right and be wrong: structures may be invented or lost "
            "without much change of these measures. No reader or diagnostic task was tested."
        ]
    if results["kind"] in ("translation", "segmentation"):
        lines += [
            "Intervals reflect the choice of images and patients, not a repeated training."
            + (
                " From fewer than ten patients they are too narrow."
                if (results["patients"] or 0) < 10
                else ""
            )
        ]
    return section("Limits", " ".join(lines))


def _cell(summary: dict[str, Any], key: str, results: dict[str, Any], sign: bool = False) -> str:
    text = _number(summary["mean"], key, results, sign)
    if summary["sd"] is not None:
        text += f" ± {_number(summary['sd'], key, results)}"
    return f"{text}<br><small>{_interval(summary['ci95'], key, results)}</small>"


def _interval(ends: Sequence[float | None], key: str, results: dict[str, Any]) -> str:
    if ends[0] is None:
        return "no interval"
    return f"{_number(ends[0], key, results)} to {_number(ends[1], key, results)}"


def _number(value: float | None, key: str, results: dict[str, Any], sign: bool = False) -> str:
    if value is None:
        return "–"
    digits = _measure(key, results)[2]
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def _measure(key: str, results: dict[str, Any]) -> tuple[str, str, int]:
    """Label, unit and decimals; errors get four digits of a thousandth of the window."""
    label, unit, digits = MEASURES[key]
    if digits is None:
        span = results["window"][1] - results["window"][0]
        digits = int(np.clip(4 - np.floor(np.log10(span)), 0, 8))
    return label, _unit(results) if unit is None else unit, digits


def _against(results: dict[str, Any]) -> str:
    return "against " + ("zero filling" if results["baseline"] == "zero-filled" else "the input")


def _unit(results: dict[str, Any]) -> str:
    return "" if results["unit"] == "1" else results["unit"]


def _domain(domain: dict[str, Any]) -> str:
    low, high = domain["window"]
    if domain["unit"] == "class":
        return f"label map, classes {low:g} to {high:g}"
    text = f"{domain['modality']}, window {low:g} to {high:g}"
    text += f" {domain['unit']}" if domain["unit"] != "1" else ""
    if domain["spacing"]:
        text += ", spacing " + " × ".join(f"{value:g}" for value in domain["spacing"]) + " mm"
    return text


def _grey(image: np.ndarray, window: Window) -> np.ndarray:
    return figures.grey(figures.shrink(image, _LARGEST), window)


def _capital(text: str | None) -> str:
    return (text or "")[:1].upper() + (text or "")[1:]


def _text(value: Any) -> str:
    return html.escape(str(value))
