"""The command line: start-up, and file to file by side, length of the series and processes."""

import itertools
import tempfile
from pathlib import Path

import numpy as np
import pydicom
import pydicom.data

from benchmarks import measure

MODEL, FAST = "encoder_decoder_ldct", "encoder_decoder_ldct_fast"
SLICE = 512  # pixels of a side


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


def start_up(quick: bool, rounds: int) -> str:
    """The shortest calls of the command line."""
    rows = []
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
            row = [what, measure.middle([each.seconds for each in ran])]
            row.append(measure.middle([each.processor for each in ran]))
            rows.append([*row, measure.middle([each.mib for each in ran])])
    columns = ["command", "s on the clock", "s of the processors", "MiB at most"]
    return f"""## Start-up

From the shell, medians. `list` should answer within 0.3 s, and `predict` of one slice within 6 s on
two quiet cores. Most of that is the import of TensorFlow, which no command that runs a network can
do without; the rest is the import of what reads images, the network's weights, and its first
answer, for which it is traced. OpenVINO is left out where there are so few slices.

{measure.table(columns, rows)}
"""


def growth(quick: bool, rounds: int) -> str:
    """Time and memory of `predict` by side, by length of the series, and by processes."""
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sides = () if quick else (256, 1024)
        lengths = [(MODEL, 1), (MODEL, 16), (MODEL, 48), (FAST, 48), (FAST, 240)]
        rates = []
        for side in sides:
            ran = _predict(folder, _series(folder / f"side{side}", 4, side))
            rows.append([f"`{MODEL}`", f"one series of 4, {side}²", 1, *_cells(ran)])
        for model, length in [(MODEL, 2)] if quick else lengths:
            side = 128 if quick else SLICE
            source = _series(folder / f"{model}{length}", length, side)
            ran = _predict(folder, source, model=model)
            rates.append((model, length, ran.seconds))
            rows.append([f"`{model}`", f"one series of {length}, {side}²", 1, *_cells(ran)])
        several = folder / "several"
        for number in range(1 if quick else 8):
            _series(several / f"{number}", 1 if quick else 6, 128 if quick else SLICE)
        for workers in () if quick else (1, 2):
            ran = _predict(folder, several, f"--workers={workers}")
            rows.append([f"`{MODEL}`", f"8 series of 6, {SLICE}²", workers, *_cells(ran)])
    said = ""
    for (model, few, short), (same, many, long) in itertools.pairwise(rates):
        if model == same and few > 1:
            more = measure.three((many - few) / (long - short))
            said += f"\nFrom {few} slices to {many} `{model}` takes {more} a second."
    columns = ["model", "input", "workers", "s on the clock", "s of the processors", "MiB at most"]
    return f"""## File to file

`zoo predict`, DICOM in and out, start-up included, each once; the memory of workers is not
counted.{said}

{measure.table(columns, rows)}
"""


def _cells(ran: measure.Ran) -> list[str]:
    return [measure.three(value) for value in ran]
