"""The model cards of the pretrained models, their pictures, and the table in docs/pretrained.md."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tools import pretrained
from tools.judges.membership import MOST
from tools.judges.result import Result
from zoo import figures, registry
from zoo.atomic import write_atomic
from zoo.trust.limits import Limits

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs" / "pictures"
PAGE = ROOT / "docs" / "pretrained.md"
TRUST = ROOT / "docs" / "trust.md"
_ALARMS, _MEMORY = "## Alarms\n\n", "## Memorisation\n\n"
_CURVES = "\n\n## Learning curves\n"
MOST_FALSE, LEAST_FOUND = 0.05, 0.95  # of patients without a fault, and of images with one
_TABLE = re.compile(r"^\| pretrained model \|.*\n(?:\|.*\n)+", re.MULTILINE)
# What a machine cannot know: the job, the data, the limits, in words.
PROSE = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))


def write(name: str, entry: dict[str, Any], result: Result) -> None:
    """Write `zoo/weights/NAME.md` and its picture from the entry and what it has shown."""
    prose, run = PROSE[name], pretrained.WEIGHTS / f"{name}.run.json"
    picture = PICTURES / f"pretrained_{name}.png"
    if result.pictures:
        figures.save_png(picture, _picture(result.pictures))
    chosen = prose.get("chosen", "Nothing was chosen by them.")
    earlier = [
        f"{name}.{each.rpartition('_')[2]}.run.json" for each in pretrained.earlier_runs(name)
    ]
    files = [*earlier, run.name]
    records = [json.loads((run.parent / file).read_text(encoding="utf-8")) for file in files]
    unit = entry["source"]["unit"]
    low, high = entry["source"]["window"]
    size = (pretrained.WEIGHTS / f"{name}.weights.h5").stat().st_size / 1e6
    lines = [f"- {'yes' if good else '**no**'}: {text}" for text, good in result.checks.items()]
    rows = [f"| {key} | {as_text(value)} |" for key, value in result.figures.items()]
    table = ""
    if result.table:
        head, *body = result.table
        table = "\n".join(["", row(head), row(["---"] * len(head)), *map(row, body), ""])
    trained_on = entry.get("trained_on")
    ranges = "".join(f"- {key}: {_range(value)}\n" for key, value in (trained_on or {}).items())
    text = f"""# {name}

{prose["job"]} `zoo.load("{name}")`.

**For research. Not a medical device: not for diagnosis or treatment.**

| | |
|---|---|
| intended use | {prose["use"]} |
| architecture | `{entry["model"]}`; {_overrides(entry["overrides"])} |
| input | {unit}, window {low:g} to {high:g} |
| training data | {prose["data"]} |
| trained by | {" and then ".join(f"`{record['command']}`" for record in records)} |
| record | {", ".join(f"[{file}]({file})" for file in files)}; learning curves below |
| weights | {size:.1f} MB, sha256 `{entry["sha256"]}` |
| licence | {entry["licence"]} |

## Measured

On {result.judged_on}. None of them was trained on. {chosen} Figures are
means over patients with their 95 % bootstrap interval over patients.

| figure | value |
|---|---|
{chr(10).join(rows)}
{table}
{chr(10).join(lines)}

`make verify-weights` measures all of this again from the weights.

## Where it fails

{prose["limits"]}

![{prose["picture"]}](../../docs/pictures/pretrained_{name}.png)

{prose["picture"]}

## Range it was made for

{ranges or "Not restricted by a guard."}
{_ALARMS}{alarms(entry)}{trusted(name)}

{_apart(name, entry)}

![losses]({name}.curves.png)
"""
    write_atomic(pretrained.WEIGHTS / f"{name}.md", text.encode())


def memorisation(name: str, entry: dict[str, Any]) -> str:
    """What a card says of what the weights remember, of which membership is measured."""
    found = entry.get("membership")
    if found is None:
        return (
            f"{PROSE[name]['memorisation']}\n\nWhether patients of the training can be told from "
            "others has not been measured."
        )
    good = "yes" if found["auc"][0] <= MOST else "**no**"
    return f"""{PROSE[name]["memorisation"]}

An attacker who knows a patient's images guesses whether they were trained on, by how well the
model does on them (`tools/judges/membership.py`): the share of pairs that he ranks rightly, 0.5 by
chance.

| figure | value |
|---|---|
| membership_auc | {as_text(found["auc"])} |

On {found["judged_on"]}.

- {good}: membership AUC at most {MOST}"""


def fewer_bits(entry: dict[str, Any]) -> str:
    """What a card says of the PSNR lost by numbers of fewer bits."""
    found = entry.get("fewer_bits")
    if found is None:
        does = "makes images from noise" if _generates(entry) else "takes measurements"
        if entry["model"] == "critic":
            does = "answers by a network's gradient, which is a SavedModel alone"
        return f"Not measured; it {does}."
    rows = [f"| {key} | {as_text(found[key])} |" for key in found if key != "judged_on"]
    several = "" if "int8_psnr_lost_db" in found else " A network of several inputs is never int8."
    return f"""The PSNR lost to float32 (below 0: gained) by `--precision=bfloat16`, and in int8 by
`zoo export --format=openvino --int8`, calibrated on other patients of the simulation
(`tools/judges/bits.py`). Both gain time where the processor has the instructions
([benchmarks](../../docs/benchmarks.md)).

| figure | value |
|---|---|
{chr(10).join(rows)}

On {found["judged_on"]}.{several}"""


def write_apart(name: str, entry: dict[str, Any]) -> None:
    """Write what can be measured by itself into a card that there is, and nothing else."""
    _write_between(name, _MEMORY, _apart(name, entry), _CURVES)


def write_alarms(name: str, entry: dict[str, Any]) -> None:
    """Write what a card says of alarms, intervals and lesions into one that there is."""
    _write_between(name, _ALARMS, f"{_ALARMS}{alarms(entry)}{trusted(name)}\n\n{_MEMORY}", _MEMORY)


def _write_between(name: str, start: str, text: str, end: str) -> None:
    """Write a text in place of what stands from a start to an end, both included."""
    card = pretrained.WEIGHTS / f"{name}.md"
    before, _, rest = card.read_text(encoding="utf-8").partition(start)
    _, _, after = rest.partition(end)
    write_atomic(card, (before + text + after).encode())


def _apart(name: str, entry: dict[str, Any]) -> str:
    bits = fewer_bits(entry)
    return f"{_MEMORY}{memorisation(name, entry)}\n\n## Fewer bits\n\n{bits}{_CURVES}"


def alarms(entry: dict[str, Any]) -> str:
    """What a card says of the limits of `predict --report`."""
    if "alarms" in entry:
        limits = Limits.from_dict(entry["alarms"])
        text = f"{limits.markdown(entry['target']['unit'])}\n\n`zoo predict --report` raises them."
        return text + _raised(entry)
    if _generates(entry):
        return "Not applicable; it makes images from noise."
    return (
        "Not calibrated: `zoo predict --report` measures without limits, which `zoo calibrate "
        "--spread=none` finds on your own patients."
    )


def trusted(name: str) -> str:
    """The rows that docs/trust.md has of a model's intervals and lesions; "" where it has none."""
    page, parts = TRUST.read_text(encoding="utf-8"), []
    for place in ("coverage", "lesions"):
        _, _, rest = page.partition(f"<!-- {place}: begin -->\n")
        said, _, table = rest.partition(f"<!-- {place}: end -->")[0].partition("\n\n")
        head, under, *body = table.splitlines()
        own = [line for line in body if line.startswith(f"| `{name}`")]
        if own:
            parts.append("\n".join([said, "", head, under, *own]))
    if not parts:
        return ""
    source = "Of [docs/trust.md](../../docs/trust.md), which says how they were measured."
    return "\n\n".join(["", "## Intervals and lesions", source, *parts])


def unlimited(entry: dict[str, Any]) -> str:
    """The alarms that were measured and have no limit, since honest outputs show any value."""
    return ", ".join(f"`{name}`" for name in entry["alarms_raised"]["unlimited"])


def _raised(entry: dict[str, Any]) -> str:
    """Of patients who gave no limits what raises any alarm."""
    told = entry.get("alarms_raised")
    if told is None:
        return ""
    if none := unlimited(entry):
        text = f" No limit: {none}, of which honest outputs show any value."
    else:
        text = ""
    # Simulated patients, as they are and with each fault.
    rows = [row(["fault planted", "images that raise any alarm", "by alarm"]), row(["---"] * 3)]
    for name, shares in told["faults"].items():
        rows.append(row([name, f"{shares['any']:.0%}", _by_alarm(shares)]))
    missed = [name for name, shares in told["faults"].items() if shares["any"] < LEAST_FOUND]
    checks = {f"false alarms of at most {MOST_FALSE:.0%} of patients": told["false"] <= MOST_FALSE}
    checks[f"each planted fault found in {LEAST_FOUND:.0%} of images or more"] = not missed
    return f"""{text}

On {told["judged_on"]}, others than those of the limits, but looked at while the rule that
makes limits was settled: {told["false"]:.1%} of the
patients raise any alarm without a fault. With faults planted into one image of
{told["planted"]} of them each (`tools/battery.py`: lesions of 250 HU, texture of 40 HU and an
offset of 30 HU, or as large in the range of the output's values):

{chr(10).join(rows)}

{chr(10).join(f"- {'yes' if good else '**no**'}: {check}" for check, good in checks.items())}

{_on_scans(told.get("real"))} `python -m tools.limits` measures all of this."""


def _on_scans(found: dict[str, Any] | None) -> str:
    """What real scans raise by limits that come from a simulation."""
    apart = "`zoo calibrate --spread=none` finds limits on your own."
    if found is None:
        return f"The limits are those of a simulation, and real scans may raise more: {apart}"
    by = f" (by alarm: {_by_alarm(found)})" if found["any"] else ""
    return (
        "The limits are those of a simulation, and real scans are not like it: of "
        f"{found['judged_on']}, real ones that nothing was trained on, {found['any']:.0%} raise an "
        f"alarm without a fault{by}. {apart}"
    )


def _by_alarm(shares: dict[str, Any]) -> str:
    """Those of which at least 2 % of the images raise."""
    told = {k: v for k, v in shares.items() if k not in ("any", "judged_on") and v >= 0.02}
    return ", ".join(f"`{name}` {share:.0%}" for name, share in told.items()) or "–"


def _generates(entry: dict[str, Any]) -> bool:
    return registry.index()["models"][entry["model"]]["data"] == "single"


def write_table(entries: dict[str, dict[str, Any]]) -> None:
    """Write the table of docs/pretrained.md from the registry.

    Raises:
        ValueError: for a page that has not exactly one table of them.
    """
    rows = ["| pretrained model | job | judged on | result |", "|---|---|---|---|"]
    for name, entry in entries.items():
        if entry.get("owner", "zoo") != "zoo" or "judged_on" not in entry["metrics"]:
            continue
        values = {k: as_text(v) for k, v in entry["metrics"].items()}
        result = PROSE[name]["result"].format_map(values)
        card = f"[`{name}`](../zoo/weights/{name}.md)"
        rows.append(f"| {card} | {entry['summary']} | {values['judged_on']} | {result} |")
    text, count = _TABLE.subn(lambda _: "\n".join(rows) + "\n", PAGE.read_text(encoding="utf-8"))
    if count != 1:
        raise ValueError(
            f"{PAGE.name}: expected one table that starts | pretrained model |. Received: {count}"
        )
    write_atomic(PAGE, text.encode())


def write_membership(entries: dict[str, dict[str, Any]]) -> None:
    """Write the table of docs/trust.md from the registry."""
    rows = [
        "| pretrained model | patients of the training, and apart | membership AUC |",
        "|---|---|---|",
    ]
    for name, entry in entries.items():
        found = entry.get("membership")
        if entry.get("owner", "zoo") != "zoo":
            continue
        cells = [found["judged_on"], as_text(found["auc"])] if found else ["not measured", ""]
        rows.append(row([f"[`{name}`](../zoo/weights/{name}.md)", *cells]))
    put("membership", "\n".join(rows))


def put(name: str, table: str) -> None:
    """Write a table of docs/trust.md between its two comments.

    Raises:
        ValueError: for a page that has not exactly one place for it.
    """
    place = re.compile(f"(?<=<!-- {name}: begin -->\n).*?(?=<!-- {name}: end -->)", re.DOTALL)
    text, count = place.subn(lambda _: table + "\n", TRUST.read_text(encoding="utf-8"))
    if count != 1:
        raise ValueError(f"{TRUST.name}: expected one place for {name}. Received: {count}")
    write_atomic(TRUST, text.encode())


def _picture(rows: list) -> np.ndarray:
    """Rows of labelled images under one another, each with its own window."""
    parts = [
        figures.grid([images], window, captions=[label], panel=160, largest=288)
        for label, images, window in rows
    ]
    width = max(part.shape[1] for part in parts)
    padded = [np.pad(p, ((0, 6), (0, width - p.shape[1]), (0, 0))) for p in parts]
    return np.vstack(padded)


def as_text(value: Any) -> str:
    """A figure as the cards and the table show it, with its interval where it has one."""
    if isinstance(value, list):
        mean, low, high = value
        return f"{mean:g} ({low:g} to {high:g})"
    return f"{value}"


def _range(value: Any) -> str:
    if isinstance(value, dict):  # of one of several inputs
        return ", ".join(f"{key} {_range(own)}" for key, own in value.items())
    return f"{value[0]:g} to {value[1]:g}" if isinstance(value, list) else f"{value}"


def _overrides(overrides: dict[str, Any]) -> str:
    skipped = {"image_every", "checkpoint_every", "precision"}
    return ", ".join(f"{k} {v}" for k, v in overrides.items() if k not in skipped)


def row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
