"""The command line: start-up, and file to file by side, length of the series and processes."""

import statistics
import tempfile
from pathlib import Path

import numpy as np
import pydicom
import pydicom.data

from benchmarks import inference, measure

MODEL, FAST = "encoder_decoder_ldct", "encoder_decoder_ldct_fast"
SLICE = 512  # pixels of a side
BATCH = 4  # slices at once of a network that is given arrays
# Wanted from file to file: slices a second of the fast model, and a share of the large one's own.
FASTEST, SHARE = 24, 0.9
# Wanted of commands: seconds, and what bounds them.
WITHIN = {
    "`zoo list`": (0.3, "the start of Python, and reading the registry"),
    f"`zoo predict` of one slice, {SLICE}²": (6, "the import of TensorFlow, whose row is below"),
}


def _series(folder: Path, slices: int, side: int = SLICE) -> Path:
    """A DICOM series of one patient, from pydicom's CT image, enlarged."""
    folder.mkdir(parents=True)
    scan = pydicom.dcmread(pydicom.data.get_testdata_file("CT_small.dcm"))
    times = max(1, side // scan.Rows)
    pixels = np.kron(scan.pixel_array, np.ones((times, times), scan.pixel_array.dtype))
    scan.Rows = scan.Columns = times * scan.Rows
    scan.PixelSpacing = [value / times for value in scan.PixelSpacing]
    scan.PixelData = pixels.tobytes()
    scan.StudyInstanceUID, scan.SeriesInstanceUID = (pydicom.uid.generate_uid() for _ in "ab")
    for number in range(slices):
        uid = pydicom.uid.generate_uid()
        scan.SOPInstanceUID = scan.file_meta.MediaStorageSOPInstanceUID = uid
        scan.InstanceNumber = number + 1
        scan.ImagePositionPatient = [-158.1, -179.0, 5.0 * number]
        scan.save_as(folder / f"{number:04d}.dcm")
    return folder


def _predict(folder: Path, source: Path, *flags: str, model: str = MODEL) -> measure.Ran:
    with tempfile.TemporaryDirectory(dir=folder) as output:
        given = [f"--model={model}", f"--input={source}", f"--output={output}/out", *flags]
        return measure.process(["-m", "zoo", "predict", *given], folder)


def start_up(quick: bool, rounds: int) -> measure.Part:
    """The shortest calls of the command line."""
    rows, found = [], {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        one = _series(folder / "one", 1)
        calls = {"`zoo list`": lambda: measure.process(["-m", "zoo", "list"], folder)}
        if not quick:
            calls |= {
                "`import zoo`": lambda: measure.process(["-c", "import zoo"], folder),
                "`import tensorflow`": lambda: measure.process(["-c", "import tensorflow"], folder),
                f"`zoo predict` of one slice, {SLICE}²": lambda: _predict(folder, one),
            }
        for what, call in calls.items():
            ran = [call() for _ in range(1 if quick else min(3, rounds))]
            found[what] = statistics.median([each.seconds for each in ran])
            row = [what, measure.three(found[what])]
            row.append(measure.middle([each.processor for each in ran]))
            rows.append([*row, measure.middle([each.mib for each in ran])])
    targets = []
    for what, (most, bound) in WITHIN.items():
        if what in found:
            targets.append(measure.Target(f"{what}, s", most, found[what], bound, most=True))
    columns = ["command", "s on the clock", "s of the processors", "MiB at most"]
    text = f"""## Start-up

From the shell, medians. Most of `predict` of one slice is the import of TensorFlow, which no
command that runs a network can do without; the rest is the import of what reads images, the
network's weights, and its first answer, for which it is traced. OpenVINO is left out where there
are so few slices.

{measure.table(columns, rows)}
"""
    return measure.Part(text, targets)


def growth(quick: bool, rounds: int) -> measure.Part:
    """Time and memory of `predict` by side, by length of the series, and by processes."""
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sides = () if quick else (256, 1024)
        lengths = [(MODEL, 1), (MODEL, 16), (MODEL, 48), (FAST, 48), (FAST, 240)]
        lengths = [(model, length, "float32") for model, length in lengths]
        lengths += [(FAST, 48, "bfloat16"), (FAST, 240, "bfloat16")]
        ran_for: dict[tuple[str, str], list[tuple[int, float]]] = {}
        for side in sides:
            ran = _predict(folder, _series(folder / f"side{side}", 4, side))
            rows.append([f"`{MODEL}`", f"one series of 4, {side}²", 1, *_cells(ran)])
        for model, length, precision in [(MODEL, 2, "float32")] if quick else lengths:
            side = 128 if quick else SLICE
            source = _series(folder / f"{model}{length}{precision}", length, side)
            ran = _predict(folder, source, f"--precision={precision}", model=model)
            ran_for.setdefault((model, precision), []).append((length, ran.seconds))
            what = f"`{model}`" if precision == "float32" else f"`{model}`, {precision}"
            rows.append([what, f"one series of {length}, {side}²", 1, *_cells(ran)])
        several = folder / "several"
        for number in range(1 if quick else 8):
            _series(several / f"{number}", 1 if quick else 6, 128 if quick else SLICE)
        for workers in () if quick else (1, 2):
            ran = _predict(folder, several, f"--workers={workers}")
            rows.append([f"`{MODEL}`", f"8 series of 6, {SLICE}²", workers, *_cells(ran)])
    said, targets = "", []
    for (model, precision), ran_of in ran_for.items():
        if len(ran_of) > 1:
            (few, short), (many, long) = ran_of[-2:]
            rate, own = (many - few) / (long - short), _own_rate(model, precision, rounds)
            said += (
                f"\nFrom {few} slices to {many} `{model}` in {precision} takes "
                f"{measure.three(rate)} a second; the network alone, from array to array, "
                f"{measure.three(own)}."
            )
            targets.append(_wanted(model, precision, rate, own))
    columns = ["model", "input", "workers", "s on the clock", "s of the processors", "MiB at most"]
    text = f"""## File to file

`zoo predict`, DICOM in and out, start-up included, each once; the memory of workers is not
counted. Where one process fills the cores, another gains nothing and costs its own start.{said}

{measure.table(columns, rows)}
"""
    return measure.Part(text, targets)


def _own_rate(model: str, precision: str, rounds: int) -> float:
    """Slices a second of a network that is given arrays, by the engine that `predict` takes."""
    images = inference.images_of(SLICE, BATCH)
    call = inference.run_by(model, "auto", images, precision)
    return BATCH / statistics.median(measure.in_turns({"own": call}, rounds)["own"])


def _wanted(model: str, precision: str, rate: float, own: float) -> measure.Target:
    """What the rate from file to file should be."""
    if model == MODEL:
        bound = "DICOM is decoded and encoded by the cores that the network has"
        what = f"`{model}`, file to file: share of the network's own rate"
        return measure.Target(what, SHARE, rate / own, bound)
    bound = (
        f"the network alone takes {measure.three(own)}, and DICOM is decoded and encoded beside it"
    )
    return measure.Target(f"`{model}`, {precision}, file to file, slices/s", FASTEST, rate, bound)


def _cells(ran: measure.Ran) -> list[str]:
    return [measure.three(value) for value in ran]
