"""What planning gains: three folders of simulated patients, the small recipe and the plan.

    python -m tools.plan_table sets      write the folders alone, as a user's files
    python -m tools.plan_table 6         train for 6 CPU minutes a run, measure, write the table
    python -m tools.plan_table 1 "T1 to T2"    of one folder alone

Both runs of a folder are to take the same CPU seconds of training, which their own process counts:
a few steps are timed first, and as many are made as fit; the table says what each took. Both are
measured on the same held-out patients, whom neither has seen, in one window. What is there already
in `plan_table` is not repeated; delete it to begin again. The table goes into docs/training.md.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import tensorflow as tf
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from zoo import guards, loading, metrics, registry, training
from zoo.data import batches, prepare
from zoo.data.facts import fit_to_data
from zoo.evaluation import intervals
from zoo.plan import planning
from zoo.recipe import Recipe
from zoo.registry import Entry

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "training.md"
MARKS = "<!-- plan_table: begin -->\n", "<!-- plan_table: end -->\n"
FOLDER = ROOT / "plan_table"
FOLDERS = {"train": "train", "validation": "val", "test": "test"}
STEP_MM = 40.0  # between the slices of a simulated patient, who has only a few
# Rows run to the back, columns to the left: as radiologists hang axial slices.
HUNG = np.array([[0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
# Name: the data set, the kind of files, the pixel spacing in mm.
SETS = {
    "low-dose CT": ("ldct/phantom", "dicom", 1.4),
    "T1 to T2": ("mri_contrast/phantom", "nifti", 1.75),
    "MR to CT": ("mr_ct/phantom", "nifti", 0.875),
}
# In which figures are taken, and their unit; the network's own windows may be others.
WINDOWS = {
    "low-dose CT": ((-1024.0, 1500.0), "HU"),
    "T1 to T2": ((0.0, 4095.0), "signal"),
    "MR to CT": ((-1024.0, 1500.0), "HU"),
}
MODEL = "encoder_decoder"
ARMS = ("small", "plan")
FIGURES = {"psnr": ".2f", "ssim": ".3f", "mae": ".1f"}
_WARM, _TIMED = 3, 8  # steps before those that are timed, and those


def write_set(name: str, root: Path, data_dir: Path) -> Path:
    """A folder of a user's files, trainA, trainB, valA … of the patients of a simulated set."""
    dataset, kind, spacing = SETS[name]
    folder = root / name.replace(" ", "_")
    if folder.exists():
        return folder
    builder = prepare.load_builder(dataset, data_dir, Recipe())
    save = {"dicom": save_dicom, "nifti": save_nifti}[kind]
    for split, short in FOLDERS.items():
        for patient, source, target in patients(batches.eval_dataset(builder, split)):
            save(folder / f"{short}A" / patient, source, spacing, patient)
            save(folder / f"{short}B" / patient, target, spacing, patient)
    return folder


def patients(examples: Iterator[dict]) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Each patient with source and target, `[slices, H, W]`."""
    slices = defaultdict(list)
    for example in examples:
        slices[example["patient"]].append(example)
    for patient, group in sorted(slices.items()):
        group.sort(key=lambda example: example["name"])
        source, target = (
            np.stack([each[key][..., 0] for each in group]) for key in ("source", "target")
        )
        yield patient, source, target


def save_nifti(path: Path, slices: np.ndarray, spacing: float, patient: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = HUNG @ np.diag([spacing, spacing, STEP_MM, 1.0])
    voxels = np.moveaxis(slices, 0, -1).astype(np.int16)
    nibabel.Nifti1Image(voxels, affine).to_filename(path.with_suffix(".nii.gz"))


def save_dicom(path: Path, slices: np.ndarray, spacing: float, patient: str) -> None:
    path.mkdir(parents=True)
    file = pydicom.Dataset()
    file.file_meta = pydicom.dataset.FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.SOPClassUID = file.file_meta.MediaStorageSOPClassUID = CTImageStorage
    file.StudyInstanceUID = file.FrameOfReferenceUID = generate_uid(entropy_srcs=[patient])
    file.SeriesInstanceUID = generate_uid()
    file.Modality, file.PatientID, file.PatientName = "CT", patient, "Simulated"
    file.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    file.PixelSpacing = [spacing, spacing]
    file.Rows, file.Columns = slices.shape[1:]
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 16, 15, 1
    file.RescaleSlope, file.RescaleIntercept, file.RescaleType = 1, 0, "HU"
    for number, image in enumerate(slices):
        file.SOPInstanceUID = file.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        file.InstanceNumber = number + 1
        file.ImagePositionPatient = [0.0, 0.0, -STEP_MM * number]
        file.PixelData = image.astype("<i2").tobytes()
        file.save_as(path / f"{number:04d}.dcm", enforce_file_format=True)


def learn(name: str, arm: str, minutes: float) -> dict[str, Any]:
    """Train one run for so many CPU minutes; its figures of each held-out patient."""
    folder, data = write_set(name, FOLDER / "sets", FOLDER / "data"), FOLDER / "data"
    # The recipe, with the steps that fit.
    started = time.process_time()
    preset, fields = "small", {}
    if arm == "plan":
        wall = minutes / (os.cpu_count() or 1)
        preset, fields = _planned(folder, wall)
    planning_seconds = time.process_time() - started
    fields |= {"image_every": 10**6, "checkpoint_every": 10**6}
    entry = registry.lookup(MODEL, "folder", preset, fields)
    builder = prepare.load_builder("folder", data, entry.recipe, folder)
    seconds = _seconds_a_step(fit_to_data(entry, builder), builder)
    steps = max(1, int(60 * minutes / seconds))
    entry = registry.lookup(MODEL, "folder", preset, fields | {"steps": steps})
    # The run.
    workdir = FOLDER / "runs" / f"{folder.name}-{arm}"
    started = time.process_time()
    training.train(entry, workdir, data_dir=data, input=folder, resume="never")
    used = time.process_time() - started
    # What it reached.
    model = loading.build(registry.lookup(workdir))
    figures: dict[str, list] = defaultdict(list)
    window, _ = WINDOWS[name]
    for example in batches.eval_dataset(builder, "test"):
        with guards.silent():
            output = model.translate(example["source"][None])[0]
        target = example["target"]
        image = [metrics.psnr(output, target, window), metrics.ssim(output, target, window)]
        figures[example["patient"]].append([*image, metrics.mae(output, target)])
    means = {patient: np.mean(rows, axis=0).tolist() for patient, rows in figures.items()}
    times = {"cpu_seconds": used, "planning_seconds": planning_seconds, "steps": steps}
    return times | {"patients": means}


def _planned(folder: Path, minutes: float) -> tuple[str, dict[str, Any]]:
    plan = planning.plan(folder, model=MODEL, minutes=minutes)
    print(plan.table(), flush=True)
    return plan.preset.value, plan.values()


def _seconds_a_step(entry: Entry, builder: Any) -> float:
    """CPU seconds that a step takes, with the reading of its batch."""
    model = loading.build(entry)
    model.compile()
    size, recipe = entry.recipe.batch_size, entry.recipe
    dataset = batches.train_dataset(builder, recipe, batch_size=size, facts=entry.facts)
    stream, step = iter(dataset), tf.function(model.train_step)
    for _ in range(_WARM):
        step(next(stream))
    started = time.process_time()
    for _ in range(_TIMED):
        losses = step(next(stream))
    float(next(iter(losses.values())))
    return (time.process_time() - started) / _TIMED


def table(results: dict[str, dict[str, dict[str, Any]]], minutes: float) -> str:
    """Markdown: a row for each folder and figure."""
    rows = [
        "| folder | figure | small | plan | difference (95 % interval) | patients |",
        "|---|---|---|---|---|---|",
    ]
    used = []
    for name, arms in results.items():
        patients = sorted(arms["small"]["patients"])
        values = {}
        for arm in ARMS:
            values[arm] = np.array([arms[arm]["patients"][patient] for patient in patients])
            seconds, steps = arms[arm]["cpu_seconds"], arms[arm]["steps"]
            used.append(f"{name}, {arm}: {seconds:.0f} CPU seconds, {steps} steps")
        units = dict(zip(FIGURES, ("PSNR, dB", "SSIM", f"MAE, {WINDOWS[name][1]}"), strict=True))
        for place, (figure, form) in enumerate(FIGURES.items()):
            small, plan = (values[arm][:, place] for arm in ARMS)
            low, high = intervals.bootstrap((plan - small).tolist())
            spread = [f"{each.mean():{form}} ± {each.std(ddof=1):{form}}" for each in (small, plan)]
            rows.append(
                f"| {name} | {units[figure]} | {' | '.join(spread)} "
                f"| {(plan - small).mean():+{form}} ({low:+{form}} to {high:+{form}}) "
                f"| {len(patients)} |"
            )
    return (
        f"`{MODEL}`, about {minutes:g} CPU minutes of training each, without an accelerator; ± is "
        "the standard deviation over\nheld-out patients, the interval a bootstrap of their paired "
        f"differences. It took\n{'; '.join(used)}.\n\n" + "\n".join(rows) + "\n"
    )


def main(arguments: list[str]) -> int:
    """See the module; 0, or 1 where a plan does not win by PSNR."""
    if arguments[:1] == ["sets"]:
        for name in SETS:
            write_set(name, FOLDER / "sets", FOLDER / "data")
        return 0
    if arguments[:1] == ["learn"]:  # in a process of its own
        name, arm, path, minutes = arguments[1:]
        found = learn(name, arm, float(minutes))
        Path(path).write_text(json.dumps(found, indent=1))
        return 0
    # What is not there yet, one after another.
    minutes = float(arguments[0]) if arguments else 6.0
    results: dict[str, dict[str, Any]] = {name: {} for name in arguments[1:] or SETS}
    for name in results:
        for arm in ARMS:
            kept = FOLDER / f"{name.replace(' ', '_')}-{arm}-{minutes:g}.json"
            if not kept.exists():
                command = [sys.executable, "-m", "tools.plan_table", "learn", name, arm, str(kept)]
                FOLDER.mkdir(exist_ok=True)
                subprocess.run([*command, str(minutes)], cwd=ROOT, check=True)
            results[name][arm] = json.loads(kept.read_text())
    # The table, into its place.
    text = table(results, minutes)
    print(text)
    page = PAGE.read_text(encoding="utf-8")
    between = re.compile(f"(?<={re.escape(MARKS[0])}).*(?={re.escape(MARKS[1])})", re.DOTALL)
    PAGE.write_text(between.sub(lambda _: text, page), encoding="utf-8")
    worse = [name for name, arms in results.items() if _gain(arms) <= 0]
    return 1 if worse else 0


def _gain(arms: dict[str, dict[str, Any]]) -> float:
    """Of the PSNR, over patients."""
    means = [np.mean([row[0] for row in arms[arm]["patients"].values()]) for arm in ARMS]
    return float(means[1] - means[0])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
