"""What each model learns in minutes: train, measure against a baseline, and write the table.

    python -m tools.learn            all models, then docs/results.md and its pictures
    python -m tools.learn srcnn      one of them, and its row

Runs the commands that a user would type, in the folder `learn`. The runs that are there already
are not repeated; delete the folder to begin again.
"""

import json
import math
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from zoo import registry, run

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "learn"
PAGE = ROOT / "docs" / "results.md"
PICTURES = ROOT / "docs" / "pictures"

# Model: its default data set, and the options of a run of minutes.
RUNS = {
    "automap": ("mri_recon/phantom", []),
    "critic": ("ct_recon/phantom_fbp_tiny", []),
    "cyclegan": ("mri_contrast/phantom", []),
    "dcgan": ("lung_nodule", []),
    "encoder_decoder": ("ldct", ["--steps=800"]),
    "learned_primal_dual": ("ct_recon/phantom_tiny", []),
    "pggan": ("mammo", []),
    "pix2pix": ("ldct", ["--steps=1500"]),
    "srcnn": ("sr", []),
    "srgan": ("sr", []),
    "unit": ("mri_contrast/phantom", []),
    "varnet": ("mri_recon/phantom", []),
}
_ROW = re.compile(r"^\| `.*$", re.MULTILINE)
EARLY_STEPS = 60  # of a generator's first measurement
BASELINES = {
    "input": "the input itself",
    "input, bicubic": "bicubic interpolation",
    "FBP": "filtered back-projection",
    "zero-filled": "inverse Fourier transform, gaps zero",
}


def cli(*arguments: str) -> None:
    print(f"\n$ python cli.py {' '.join(arguments)}", flush=True)
    subprocess.run([sys.executable, str(ROOT / "cli.py"), *arguments], cwd=ROOT, check=True)


def learn(name: str) -> dict[str, Any]:
    """Train and measure one model; its row of the table, kept in `learn/NAME.json`.

    Returns:
        "beats": whether the 95 % interval of the gain in PSNR lies above 0 (for unpaired models
        that of the mean absolute error below 0), or, for a generator, whether the sliced
        Wasserstein distance to held-out images fell by a third or more.
    """
    dataset, options = RUNS[name]
    data = f"--data_dir={FOLDER / 'data'}"
    cli("prepare", f"--dataset={dataset}", data)
    workdir = FOLDER / "runs" / name
    model = [f"--model={name}", f"--dataset={dataset}", data]
    started = time.monotonic()
    cli("train", *model, f"--workdir={workdir}", *options)
    minutes = (time.monotonic() - started) / 60
    cli("evaluate", *model, f"--workdir={workdir}")
    metrics = json.loads((workdir / "evaluation" / "metrics.json").read_text())
    record = run.read(workdir)
    row = {
        "model": name,
        "dataset": record["dataset"],
        "steps": record["step"],
        "minutes": minutes,
        "precision": record["precision"],
        "images": metrics["images"],
        "patients": metrics["patients"],
        "picture": str(sorted((workdir / "samples").glob("*.png"))[-1].relative_to(FOLDER)),
    }
    row |= _early(name, model) if metrics["kind"] == "generation" else {}
    row |= _figures(name, metrics, row.get("early"))
    kept = FOLDER / f"{name}.json"
    if kept.exists():  # nothing was trained again: the time is that of the first run
        row["minutes"] = max(minutes, json.loads(kept.read_text())["minutes"])
    kept.write_text(json.dumps(row, indent=1))
    return row


def _early(name: str, model: list[str]) -> dict[str, Any]:
    """A generator's distance after a few steps."""
    workdir = FOLDER / "runs" / f"{name}-early"
    cli("train", *model, f"--workdir={workdir}", f"--steps={EARLY_STEPS}")
    cli("evaluate", *model, f"--workdir={workdir}")
    metrics = json.loads((workdir / "evaluation" / "metrics.json").read_text())
    return {"early": metrics["sliced_wasserstein"]["generated"]["mean"]}


def _figures(name: str, metrics: dict[str, Any], early: float | None) -> dict[str, Any]:
    if early is not None:
        distances = metrics["sliced_wasserstein"]
        late = distances["generated"]["mean"]
        return {
            "measure": "sliced Wasserstein distance × 1000",
            "baseline": f"{early:.1f} after {EARLY_STEPS} steps",
            "result": f"{late:.1f} (training images: {distances['training']['mean']:.1f})",
            "gain": f"{late - early:+.1f}",
            "beats": late < early * 2 / 3,
        }
    summary = metrics["summary"]
    # Unpaired translation is judged by its mean absolute error, as its authors do; PSNR, which
    # punishes every edge that is a pixel off, is stated beside it.
    unpaired = registry.index()["models"][name]["data"] == "unpaired"
    key, form = ("mae", ".1f") if unpaired else ("psnr", ".2f")
    part = {kind: summary[kind][key] for kind in ("input", "output", "gain")}
    mean, (low, high) = part["gain"]["mean"], part["gain"]["ci95"]
    psnr = summary["gain"]["psnr"]
    return {
        "measure": f"mean absolute error, {metrics['unit']}" if unpaired else "PSNR, dB",
        "baseline": f"{part['input']['mean']:{form}}, {BASELINES[metrics['baseline']]}",
        "result": f"{part['output']['mean']:{form}} ± {part['output']['sd']:{form}}",
        "gain": f"{mean:+{form}} ({low:+{form}} to {high:+{form}})"
        + (
            f"; PSNR {psnr['mean']:+.2f} dB ({psnr['ci95'][0]:+.2f} to {psnr['ci95'][1]:+.2f})"
            if unpaired
            else ""
        ),
        "beats": high < 0 if unpaired else low > 0,
    }


def _line(row: dict[str, Any]) -> str:
    """Of the table."""
    return (
        f"| `{row['model']}` | `{row['dataset']}` "
        f"| {row['steps']} in {math.ceil(row['minutes'])} min, {row['precision']} "
        f"| {row['images']} images of {row['patients']} patients "
        f"| {row['measure']} | {row['baseline']} | {row['result']} | {row['gain']} |"
    )


def write_page() -> None:
    """`docs/results.md` and its pictures; of models that were not run here they stay.

    Raises:
        ValueError: where a model is neither on the page nor was run.
    """
    lines = {line.split("`")[1]: line for line in _ROW.findall(PAGE.read_text("utf-8"))}
    for name in RUNS:
        if (kept := FOLDER / f"{name}.json").exists():
            row = json.loads(kept.read_text())
            lines[name] = _line(row)
            shutil.copy(FOLDER / row["picture"], PICTURES / f"learn_{name}.png")
    if missing := RUNS.keys() - lines:
        raise ValueError(f"{PAGE.name}: expected rows of all models. Received none of {missing}")
    table = "\n".join(lines[name] for name in RUNS)
    pictures = [f"### {name}\n\n![{name}](pictures/learn_{name}.png)\n" for name in RUNS]
    PAGE.write_text(
        f"""# What each model learns in minutes

Written by `make learn`, which trains every model with its small preset on the default data set of
its kind, measures it on the test split, whose patients it has never seen, and fails where it does
not beat the baseline. All these data are simulated: the figures show that the recipes learn, and
say nothing about patients.

Machine: {os.cpu_count()} CPU cores, {platform.machine()}, no accelerator; other work ran on it too,
so the minutes are upper bounds. Gains have their 95 % bootstrap interval over images; ± is the
standard deviation over images.

| model | data set | steps | measured on | measure | baseline | result | gain |
|---|---|---|---|---|---|---|---|
{table}

For a generator the distance should fall; in brackets that between training and held-out images,
which a perfect generator reaches.

## Pictures

Images of the validation split, as each run drew them at its end: source, output, target and the
error; for the generators samples. For `cyclegan` and `unit`: source, its translation and the way
back, then the same from the target.

{chr(10).join(pictures)}""",
        encoding="utf-8",
    )


def main(names: list[str]) -> int:
    """Learn the models named, or all, and write the page; 1 where one misses its baseline."""
    rows = [learn(name) for name in names or RUNS]
    for row in rows:
        verdict = "beats the baseline" if row["beats"] else "DOES NOT BEAT THE BASELINE"
        print(f"{row['model']}: {row['baseline']} -> {row['result']}: {verdict}")
    write_page()
    return 0 if all(row["beats"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
