"""The evaluation report: one HTML page without scripts or anything to fetch."""

import html
from collections.abc import Sequence
from typing import Any

import numpy as np

from zoo import figures
from zoo.domain import Domain
from zoo.evaluation import formats, intervals, lesion_report, page, segmentation_report
from zoo.evaluation.examples import Example, input_domain
from zoo.figures import Window

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

_PLOTTED = 300  # images in the plot


def render(results: dict[str, Any], pictures: dict[str, Any]) -> str:
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
        parts.append(lesion_report.section(results))
        parts += [_examples(results, pictures["examples"]), _patients(results)]
    elif kind == "unaligned translation":
        parts += [_distances(results), _examples(results, pictures["examples"])]
    elif kind == "segmentation":
        parts += segmentation_report.sections(results, pictures["examples"])
    else:
        unit, window = results["unit"], tuple(results["window"])
        windows = figures.display_windows(pictures["sets"]["held out"], unit, window)
        parts += [_distances(results), _sets(pictures["sets"], windows)]
        parts += [_memorisation(results, pictures["pairs"], next(iter(windows.values())))]
    parts += [_limits(results)]
    title = f"{results['model']} on {results['dataset']['name']}"
    return page.document(title, "\n".join(parts))


def _head(results: dict[str, Any]) -> str:
    data, kind = results["dataset"], results["kind"]
    # How much was measured.
    counted = f"{results['images']} {'images' if results['dimensions'] == 2 else 'volumes'}"
    if results["patients"]:
        counted += f" of {results['patients']} patients"
    if results["limit"]:
        counted += f" (at most {results['limit']} asked for)"
    # What of, and with what; what is not known is left out.
    domains = {"Source": _domain(results["source"]), "Target": _domain(results["target"])}
    if kind == "generation":
        domains = {"Domain": _domain(results["target"])}
    digest = results["weights"][:16] and f"sha256 {results['weights'][:16]}…"
    made = [f"{name} {version}" for name, version in results["versions"].items() if version]
    facts = {
        "Model": results["model"],
        "Averaged": results.get("average", ""),
        "Weights": ", ".join(filter(None, (results.get("which_weights"), digest))),
        "Data set": " ".join(filter(None, (data["name"], data["version"]))) + f", {data['split']}",
        "": data["description"],
        "Images": counted,
        **domains,
        "Classes": ", ".join(results.get("label_names", ())),
        "Made": ", ".join([results["created"], *made]),
    }
    rows = "".join(f"<dt>{_text(k)}</dt><dd>{_text(v)}</dd>" for k, v in facts.items() if v)
    title = _text(results["model"]) + ' <span class="soft">on</span> ' + _text(data["name"])
    what = {
        "translation": "Image translation, compared pixel by pixel with the target",
        "unaligned translation": "Image translation without aligned targets, compared as sets",
        "segmentation": "Pixel-wise classification, compared with the target's label map",
        "generation": "Image generation, compared with held-out images",
    }[kind]
    return f'<header><h1>{title}</h1><div class="soft">{what}</div><dl>{rows}</dl></header>'


def _tiles(results: dict[str, Any]) -> str:
    """The three numbers that most readers want."""
    items = []
    for key in ("psnr", "ssim", "rmse_window"):
        unit = formats.unit(key, results)
        output = intervals.independent(results["summary"]["output"][key])
        line = formats.interval(output["ci95"], key, results)
        line += f", {output['count']} {output['of']}"
        if "gain" in results["summary"]:
            gain = intervals.independent(results["summary"]["gain"][key])["mean"]
            better = gain < 0 if key == "rmse_window" else gain > 0
            shown = f"{formats.number(gain, key, results, sign=True)} {unit}"
            line += f'<br><span class="{"good" if better else "alarm"}">{shown}</span>'
            line += f" {_against(results)}"
        value = formats.number(output["mean"], key, results)
        items.append((formats.label(key), f"{value} <small>{unit}</small>", line))
    return page.tiles(items)


def _summary(results: dict[str, Any]) -> str:
    rows, head = _measures(results, results["summary"])
    low, high = results["window"]
    # How the figures are to be read.
    unit = formats.image_unit(results)
    scales = ", ".join(map(str, results["ms_ssim_scales"]))
    reduced = "" if results["ms_ssim_scales"] == [5] else " (weights renormalised)"
    note = (
        f"Mean ± standard deviation, and the 95 % bootstrap interval of the mean. The window is "
        f"{low:g} to {high:g} {unit}; its width is the data range of PSNR, SSIM and "
        f"MS-SSIM, for which values are clipped to it. MS-SSIM uses {scales} of 5 scales"
        f"{reduced}. By patient, each patient's mean counts once."
    )
    if results["dimensions"] == 3:
        note += " SSIM and MS-SSIM of a volume are means over its axial slices."
    if results["unit"] == "HU":
        note += " NMSE counts values from air, -1000 HU."
    if results["body"]:
        note += f" The body is {_BODY[results['body']]}."
    return page.section("Summary", note, page.table(head, rows))


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
    return page.section("Volumes", note, page.table(head, rows))


def _measures(
    results: dict[str, Any], summary: dict[str, dict[str, Any]]
) -> tuple[list[list[str]], list[str]]:
    """Rows and head of the table of all measures in a summary."""
    columns = {"output": "Output", "input": _capital(results["baseline"]), "gain": "Gain (paired)"}
    keys = [key for key in formats.MEASURES if key in summary["output"]]
    head = ["Measure"] + [columns[part] for part in summary]
    # Parts that are also shown with each patient counted once.
    known = summary["output"][keys[0]]["patients"] is not None
    once = [part for part in ("output", "gain") if known and part in summary]
    head += [f"{part.capitalize()}, by patient" for part in once]
    rows = []
    for key in keys:
        unit = formats.unit(key, results)
        cells = [f"{formats.label(key)} {f'<small>{unit}</small>' if unit else ''}"]
        for part, values in summary.items():
            cells.append(formats.cell(values[key], key, results, sign=part == "gain"))
        for part in once:
            patients = summary[part][key]["patients"]
            cells.append(formats.cell(patients, key, results, sign=part == "gain"))
        rows.append(cells)
    return rows, head


def _plot(results: dict[str, Any]) -> str:
    """Each image's PSNR before and after, in order of the output's."""
    rows = sorted(results["per_image"], key=lambda row: row["output"]["psnr"])
    if len(rows) < 2:
        return ""
    note = "PSNR in dB of every image's output (filled)"
    if "input" in rows[0]:
        note += f" and {results['baseline']} (open)"
    note += ", in order of the output's."
    if len(rows) > _PLOTTED:
        note += f" {_PLOTTED} of {len(rows)} images, evenly chosen."
        rows = [rows[i] for i in np.linspace(0, len(rows) - 1, _PLOTTED).round().astype(int)]
    return page.section("Image by image", note, _drawing(rows))


def _drawing(rows: list[dict[str, Any]]) -> str:
    """The plot as SVG: images from left to right, PSNR upwards."""
    # The scale, with some room at both ends.
    values = [row[part]["psnr"] for row in rows for part in ("output", "input") if part in row]
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or 1.0
    low, high = low - margin, high + margin

    def y(value: float) -> float:
        return 205 - 195 * (value - low) / (high - low)

    # Lines at round values.
    step = figures.round_limit((high - low) / 6)
    marks = []
    for tick in np.arange(np.ceil(low / step) * step, high, step):
        marks.append(
            f'<line class="grid" x1="48" x2="1050" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
            f'<text x="40" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
        )
    # A dot for each output, joined with that of its baseline.
    for i, row in enumerate(rows):
        x, after = 60 + 978 * i / (len(rows) - 1), y(row["output"]["psnr"])
        if "input" in row:
            before = y(row["input"]["psnr"])
            marks.append(
                f'<line class="join" x1="{x:.1f}" x2="{x:.1f}" y1="{before:.1f}" y2="{after:.1f}"/>'
                f'<circle class="in" cx="{x:.1f}" cy="{before:.1f}" r="3"/>'
            )
        title = _text(f"{row['name']}: {row['output']['psnr']:.2f} dB")
        marks.append(
            f'<circle class="out" cx="{x:.1f}" cy="{after:.1f}" r="3.5">'
            f"<title>{title}</title></circle>"
        )
    label = 'role="img" aria-label="PSNR of each image"'
    return f'<svg viewBox="0 0 1060 215" {label}>{"".join(marks)}</svg>'


def _examples(results: dict[str, Any], examples: Sequence[tuple[str, Example]]) -> str:
    """Each example with its errors, in every window that shows what is in it."""
    # What the images mean, and the windows and scales that all examples share.
    aligned = results["kind"] == "translation"
    name = _capital(results.get("baseline") or "input")
    target = Domain.from_dict(results["target"])
    source = input_domain(Domain.from_dict(results["source"]), target)
    windows_of = [_windows(example, target, aligned) for _, example in examples]
    limits = _limits_of([example for _, example in examples], windows_of) if aligned else {}
    blocks = []
    for (title, example), windows in zip(examples, windows_of, strict=True):
        about = [example["name"], example["patient"] and f"patient {example['patient']}"]
        if aligned:
            about += _scores(example["row"], results)
        blocks.append(page.example_title(title, about))
        # A row of panels for each window.
        for label, window in windows.items():
            shots = [
                *_inputs(example, name, source, target, window),
                ("Output", page.grey(example["output"], window)),
                ("Target" if aligned else "A real target", page.grey(example["target"], window)),
            ]
            if aligned:
                error = figures.shrink(_error(example, window), page.LARGEST)
                shots.append(("Output − target", figures.diverging(error, limits[label])))
            caption = f'<p class="soft">{_text(_capital(label))}</p>' if label else ""
            blocks.append(caption + page.panels(shots))
    bars = _bars(results, name, source, windows_of, limits)
    note = "Chosen at random. The real target is of another place or patient."
    if aligned:
        note = "Within the display windows below; errors beyond the scale's ends show its end "
        note += "colours."
    if results["dimensions"] == 3:
        note += " Of volumes the middle slice is shown."
    return page.section("Examples", note, *blocks, f'<div class="bars">{bars}</div>')


def _inputs(
    example: Example, name: str, source: Domain, target: Domain, window: Window
) -> list[tuple[str, np.ndarray]]:
    """The panels of what went in: one, or one for each of several inputs."""
    shots = []
    for title, (part, channels) in source.parts.items():
        # Another unit than HU in both looks alike in all windows of CT, and is shown in its own.
        own = None if part.unit == target.unit == "HU" else part.window
        image = example["source"][..., channels] if source.inputs else example["input"]
        shots.append((title if source.inputs else name, page.grey(image, own or window)))
    return shots


def _scores(row: dict[str, Any], results: dict[str, Any]) -> list[str]:
    """The measures of one example, for the line above it."""
    score = f"PSNR {row['output']['psnr']:.2f} dB"
    if "gain" in row:
        gain = formats.number(row["gain"]["psnr"], "psnr", results, sign=True)
        score += f" ({gain} {_against(results)})"
    return [score, f"SSIM {row['output']['ssim']:.4f}"]


def _windows(example: Example, target: Domain, aligned: bool) -> dict[str, Window]:
    """The display windows that an example is shown in, by their labels."""
    # Where the two show different places, both must be seen.
    images = [example["target"]] if aligned else [example["target"], example["output"]]
    return figures.display_windows(images, target.unit, target.window)


def _error(example: Example, window: Window) -> np.ndarray:
    """Output minus target within a window."""
    return np.clip(example["output"], *window) - np.clip(example["target"], *window)


def _limits_of(
    examples: Sequence[Example], windows_of: Sequence[dict[str, Window]]
) -> dict[str, float]:
    """One scale of errors a window for all examples, from the bulk of each one's errors."""
    limits: dict[str, float] = {}
    for example, windows in zip(examples, windows_of, strict=True):
        for label, window in windows.items():
            bulk = float(np.percentile(np.abs(_error(example, window)), 99.5))
            limits[label] = max(limits.get(label, 0.0), bulk)
    return {label: figures.round_limit(limit) for label, limit in limits.items()}


def _bars(
    results: dict[str, Any],
    name: str,
    source: Domain,
    windows_of: Sequence[dict[str, Window]],
    limits: dict[str, float],
) -> str:
    """The scales of the examples: grey levels, and colours of the errors."""
    ramp, unit = ("#000", "#fff"), results["unit"]
    bars = ""
    for title, (part, _) in source.parts.items():
        in_hu = part.unit == unit == "HU"
        if not in_hu and (part.window, part.unit) != (tuple(results["window"]), unit):
            bars += page.colour_bar(title if source.inputs else name, ramp, part.window, part.unit)
    shown = "Output and target" if bars else "All images"
    for label, window in {k: v for windows in windows_of for k, v in windows.items()}.items():
        bars += page.colour_bar(f"{shown}{_in(label)}", ramp, window, unit)
    colours = figures.diverging(np.linspace(-1, 1, 17)[None], 1.0)[0]
    errors = [f"rgb({r},{g},{b})" for r, g, b in colours]
    for label, limit in limits.items():
        bars += page.colour_bar(f"Output − target{_in(label)}", errors, (-limit, limit), unit)
    return bars


def _in(label: str) -> str:
    """The window's name, without its limits."""
    return f", {label.partition(',')[0]}" if label else ""


def _patients(results: dict[str, Any]) -> str:
    if not results["per_patient"]:
        return ""
    keys = ("psnr", "ssim", "ms_ssim", "rmse_window", "mae_window")
    gained = ("psnr", "rmse_window") if "gain" in results["summary"] else ()
    head = ["Patient", "Images"]
    for key in keys:
        head.append(", ".join(filter(None, (formats.label(key), formats.unit(key, results)))))
        if key in gained:
            head.append("gain")
    rows = []
    for entry in results["per_patient"]:
        cells = [_text(entry["patient"]), str(entry["images"])]
        for key in keys:
            cells.append(formats.number(entry["output"][key], key, results))
            if key in gained:
                cells.append(formats.number(entry["gain"][key], key, results, sign=True))
        rows.append(cells)
    return page.by_patient("Means over each patient's images.", head, rows)


def _distances(results: dict[str, Any]) -> str:
    distances = dict(results["sliced_wasserstein"])
    count = distances.pop("images")
    levels = [key for key in next(iter(distances.values())) if key != "mean"]
    generation = results["kind"] == "generation"
    names = {"training": "Training images (reference)", "real target": "Real targets (reference)"}
    # A column for each level; of a generator's sets also what each is like by itself.
    head = ["Set", *(f"{level} px" for level in levels), "Mean"]
    keys = list(distances)
    if generation:
        unit = formats.image_unit(results)
        head += ["MS-SSIM of pairs", f"Mean, {unit}", f"Deviation, {unit}"]
        keys.insert(1, "held out")
    rows = []
    for key in keys:
        cells = [_text(names.get(key, _capital(key)))]
        for level in [*levels, "mean"]:
            cells.append(f"{distances[key][level]:.2f}" if key in distances else "–")
        if generation:
            similarity, intensity = results["pair_ms_ssim"][key], results["intensity"][key]
            cells.append("–" if similarity is None else f"{similarity:.3f}")
            cells += [f"{intensity['mean']:.4g}", f"{intensity['sd']:.4g}"]
        rows.append(cells)
    # How the figures are to be read.
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
    return page.section("Distance between sets", note, page.table(head, rows))


def _sets(sets: dict[str, np.ndarray], windows: dict[str, Window]) -> str:
    captions = {"generated": "Generated", "training": "Training", "held out": "Held out"}
    shots = []
    for label, window in windows.items():
        for key in filter(sets.__contains__, captions):
            caption = ", ".join(filter(None, (captions[key], label)))
            shots.append((caption, figures.sample_grid(sets[key], window, columns=5)))
    return page.section("Samples", "Not selected.", page.panels(shots))


def _memorisation(
    results: dict[str, Any],
    pairs: Sequence[tuple[np.ndarray, np.ndarray, dict[str, Any]]],
    window: Window,
) -> str:
    found = results["memorisation"]
    title = "Memorisation"
    if found is None:
        return page.section(title, "Not checked: no training images were given.")
    # The verdict, and what it depends on.
    count = results["images"]
    verdict = f'<p class="good">None of {count} generated images is flagged.</p>'
    if found["flagged"]:
        verdict = (
            f'<p class="alarm">{found["flagged"]} of {count} generated images are '
            "suspiciously close to a training image.</p>"
        )
    if found["held_out_copies"]:
        verdict += (
            f'<p class="alarm">{found["held_out_copies"]} held-out images are themselves in the '
            "training set: the split leaks, and the threshold means little.</p>"
        )
    note = (
        f"Similarity to the nearest of {found['training_images']} training images, from 0 to 1 of "
        "the same image, where mirror images, shifts and other windows of one image count as the "
        f"same: median {found['median_similarity']:.2f}; held-out real images "
        f"{found['median_held_out_similarity']:.2f}. Flagged above {found['threshold']:.2f}, by "
        f"which no held-out image is flagged and {100 * found['planted_copies_found']:.1f}% of "
        "planted copies are. A screen, not a proof of privacy. "
    )
    # The pairs to look at.
    blocks = ""
    for generated, nearest, facts in pairs:
        shots = [
            ("Generated", page.grey(generated, window)),
            ("Nearest", page.grey(nearest, window)),
        ]
        mark = ' <span class="alarm">flagged</span>' if facts["copy"] else ""
        text = f"<figcaption>similarity {facts['similarity']:.2f}{mark}</figcaption>"
        blocks += f"<div>{page.panels(shots)}{text}</div>"
    verdict += "<h3>The closest pairs</h3>"
    return page.section(title, note, verdict, f'<div class="pairs">{blocks}</div>')


# What each kind of figure does not tell.
_LIMITS = {
    "segmentation": "Overlap says little of small structures and of where a boundary is wrong, and "
    "is only as good as the target's label maps. No reader or diagnostic task was tested.",
    "generation": "Distances between sets depend on the number of images and are comparable only "
    "at the same number and resolution. No reader has judged the images.",
    "translation": "A translated image can look right and be wrong: structures may be invented or "
    "lost without much change of these measures. No reader or diagnostic task was tested.",
}
_LIMITS["unaligned translation"] = _LIMITS["translation"]


def _limits(results: dict[str, Any]) -> str:
    data, kind = results["dataset"], results["kind"]
    text = (
        "For research use; not a medical device, and not for diagnosis. "
        f"All figures are of one data set, {data['name']} ({data['split']}), and say nothing of "
        f"other scanners, protocols, anatomies or populations. {_LIMITS[kind]}"
    )
    if kind in ("translation", "segmentation"):
        text += " Intervals reflect the choice of images and patients, not a repeated training."
        if (results["patients"] or 0) < 10:
            text += " From fewer than ten patients they are too narrow."
    return page.section("Limits", text)


def _against(results: dict[str, Any]) -> str:
    quick = {"zero-filled": "zero filling", "FBP": "filtered back-projection"}
    return f"against {quick.get(results['baseline'], 'the input')}"


def _domain(domain: dict[str, Any]) -> str:
    if domain.get("inputs"):
        return "; ".join(f"{each['name']}: {_domain(each)}" for each in domain["inputs"])
    low, high = domain["window"]
    if domain["unit"] == "class":
        return f"label map, classes {low:g} to {high:g}"
    text = f"{domain['modality']}, window {low:g} to {high:g}"
    text += f" {domain['unit']}" if domain["unit"] != "1" else ""
    if domain["spacing"]:
        text += ", spacing " + " × ".join(f"{value:g}" for value in domain["spacing"]) + " mm"
    return text


def _capital(text: str | None) -> str:
    return (text or "")[:1].upper() + (text or "")[1:]


def _text(value: Any) -> str:
    return html.escape(str(value))
