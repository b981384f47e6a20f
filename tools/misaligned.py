"""What misaligned pairs cost, and how much of it registration wins back.

    python -m tools.misaligned [--steps=800] [--model=encoder_decoder] [--folder=runs/misaligned]

Trains three runs of equal steps and seed on the simulated heads of `mr_ct`: on aligned pairs, on
pairs whose targets are displaced by 3 to 8 pixels, and on these with `registration=true`. All are
judged on the same aligned test patients: PSNR, and how far outputs lie from their targets on
average, by phase correlation. Runs the commands that a user would type; runs that are there already
are not repeated.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from skimage.registration import phase_cross_correlation

import zoo
from tools import runs
from zoo import metrics
from zoo.data import batches, prepare
from zoo.recipe import Recipe

ROOT = Path(__file__).resolve().parent.parent
RUNS = {
    "aligned pairs": ("mr_ct/phantom", False),
    "misaligned pairs": ("mr_ct/phantom_misaligned", False),
    "misaligned pairs, registration=true": ("mr_ct/phantom_misaligned", True),
}
FIELDS = (
    "crop=128",
    "batch_size=4",
    "base_filters=16",
    "levels=4",
    "loss=l1",
    "learning_rate=2e-3",
)
MARGIN = 16  # pixels at the border that the shift is not measured on
STILL = 0.3  # pixels that outputs may be shifted on average


def trained(name: str, given: argparse.Namespace) -> Path:
    """The folder of a run, which is trained unless it is there."""
    dataset, registration = RUNS[name]
    fields = [*FIELDS, *given.set, f"registration={str(registration).lower()}"]
    fields += ["image_every=100000", "checkpoint_every=100000"]
    run = given.folder / f"{given.model}-{list(RUNS).index(name)}"
    arguments = [f"--model={given.model}", f"--dataset={dataset}"]
    arguments += [f"--data_dir={given.folder / 'data'}", "--preset=small", f"--steps={given.steps}"]
    arguments += [f"--set={field}" for field in fields]
    runs.train(run, arguments)
    return run


def judged(run: Path, data: Path) -> dict[str, np.ndarray]:
    """What a run makes of the test patients, whose pairs are aligned.

    Returns:
        "psnr" of each image, in dB; "shift" of each output against its target, rows and columns in
        pixels, by phase correlation; "patient" whose each is.
    """
    network = zoo.load(str(run))
    window = network.target.window
    builder = prepare.load_builder("mr_ct/phantom_misaligned", data, Recipe())
    inner = np.s_[MARGIN:-MARGIN, MARGIN:-MARGIN, 0]
    rows: dict[str, list] = {"psnr": [], "shift": [], "patient": []}
    for example in batches.eval_dataset(builder):
        output = network.translate(example["source"][None])[0]
        rows["psnr"].append(metrics.psnr(output, example["target"], window))
        pair = [np.clip(image[inner], *window) for image in (output, example["target"])]
        rows["shift"].append(phase_cross_correlation(*pair, upsample_factor=50)[0])
        rows["patient"].append(example["patient"])
    return {name: np.array(values) for name, values in rows.items()}


def main(arguments: list[str] | None = None) -> int:
    """Prints the table; 1 where less than half of the cost was won back, or outputs are shifted."""
    parser = argparse.ArgumentParser(prog="tools.misaligned")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--model", default="encoder_decoder")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "misaligned")
    parser.add_argument("--set", action="append", default=[], help="field=value, for all runs")
    given = parser.parse_args(arguments)
    rows = {name: judged(trained(name, given), given.folder / "data") for name in RUNS}
    # The table.
    first = next(iter(rows.values()))
    count, patients = len(first["psnr"]), len(set(first["patient"]))
    print(f"\n{given.model}, {given.steps} steps, {count} test images of {patients} patients\n")
    print("| trained on | PSNR, dB (± sd over images) | mean shift, pixels |\n|---|---|---|")
    for name, row in rows.items():
        down, right = row["shift"].mean(0)
        mean, spread = row["psnr"].mean(), row["psnr"].std()
        print(f"| {name} | {mean:.2f} ± {spread:.2f} | {down:+.2f}, {right:+.2f} |")
    # What it cost, and what came back.
    aligned, plain, registered = (row["psnr"].mean() for row in rows.values())
    back = (registered - plain) / (aligned - plain)
    print(f"\nMisalignment costs {aligned - plain:.2f} dB; registration wins back {back:.0%}.")
    still = np.abs(list(rows.values())[-1]["shift"].mean(0)).max() < STILL
    return 0 if back >= 0.5 and still else 1


if __name__ == "__main__":
    sys.exit(main())
