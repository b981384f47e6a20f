"""What the evaluation report says of lesions that were put into the inputs."""

from typing import Any

from zoo.evaluation import formats, page
from zoo.evaluation.lesions import KEPT, SEEN


def section(results: dict[str, Any]) -> str:
    """A table by size and contrast, as HTML; "" where none were put in.

    Args:
        results: what `metrics.json` holds.
    """
    measured = results.get("lesions")
    if not measured:
        return ""
    unit = formats.image_unit(results)
    head = ["Diameter", "Contrast", "Lesions", "d′ in the input", "Lost", "Contrast kept"]
    head += ["Invented in 100 images", "AUC, input", "AUC, output"]
    rows = [_row(row, unit) for row in measured["rows"]]
    noise, lost = measured["noise"], measured["lost_of_seen"]
    note = (
        f"Discs, bright and dark in turn, were added to {measured['images']} inputs at "
        f"{measured['lesions']} places in the patient. Lost: less than {KEPT:.0%} of the contrast "
        "is in the output; behind it what the share does not exceed (95 %, by patient). "
        "Invented: blobs at least as strong that the target does not have, and in brackets those "
        "of the input, which are noise. d′ is the ideal observer's; AUC that of a channelized "
        "Hotelling observer which knows the background, with its 95 % interval over patients. Of "
        f"the {lost['lesions']} that an ideal observer sees in the input (d′ of {SEEN:g} or more) "
        f"{_plain(lost)} are lost. The error in the patient has a standard deviation of "
        f"{noise['input']['sd']:.3g} {unit} in the input and {noise['output']['sd']:.3g} {unit} in "
        f"the output, at {noise['input']['mean_frequency']:.2f} and "
        f"{noise['output']['mean_frequency']:.2f} cycles a pixel on average."
    )
    return page.section("Lesions", note, page.table(head, rows), _transfer(measured, unit))


def _row(row: dict[str, Any], unit: str) -> list[str]:
    size = f"{row['diameter_px']} pixels"
    if row["diameter_mm"]:
        size += f"<br><small>{row['diameter_mm']:.1f} mm</small>"
    cells = [size, f"{row['contrast']:.3g} {unit}", f"{row['lesions']}"]
    if row["lesions"]:
        cells += [f"{row['ideal']:.1f}", _share(row["lost"]), f"{row['kept']:.0%}"]
    else:
        cells += ["–", "–", "–"]
    cells.append(f"{row['blobs_output']:.0f} <small>({row['blobs_input']:.0f})</small>")
    return [*cells, _area(row["detected_input"]), _area(row["detected_output"])]


def _share(lost: dict[str, Any]) -> str:
    share, _, most = _plain(lost).partition(" ")
    return f"{share} <small>{most}</small>" if most else share


def _plain(lost: dict[str, Any]) -> str:
    """Such as "1.2% (≤ 7.9%)"."""
    if lost["share"] is None:
        return "none"
    most = "" if lost["at_most"] is None else f" (≤ {lost['at_most']:.1%})"
    return f"{lost['share']:.1%}{most}"


def _area(detected: dict[str, Any] | None) -> str:
    if detected is None:
        return "–"
    low, high = detected["auc_ci95"]
    text = f"{detected['auc']:.3f}"
    return text if low is None else f"{text}<br><small>{low:.3f} to {high:.3f}</small>"


def _transfer(measured: dict[str, Any], unit: str) -> str:
    """The frequency at which half of the contrast of the smallest discs is left."""
    found = []
    for curve in measured["transfer"]:
        if curve["transfer"]:
            half = curve["half"]
            at = "beyond 0.25" if half is None else f"at {half:.2f}"
            found.append(f"{at} cycles a pixel for {curve['contrast']:.3g} {unit}")
    if not found:
        return ""
    return f"<p>The task transfer function falls to a half {', '.join(found)}.</p>"
