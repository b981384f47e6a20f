"""Damaged files of every kind: none may end a command otherwise than with a line that says why.

Each mutated image lies beside two good files, which must be translated; each mutated run.json,
registry and weights file meets the command line. Whatever happens to a worker (an exception, a
crash, 20 s without an answer, a file left behind, too much memory) is a fault, and the file that
did it is kept. `make fuzz` tries thousands; the ordinary suite some of each, always the same.
"""

import hashlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import fuzzing
from dicom_files import single

pytestmark = pytest.mark.filterwarnings("ignore")  # of pydicom, which damages files here
TESTS = Path(__file__).resolve().parent
FOUND = Path(tempfile.gettempdir()) / "fuzz_found"
SECONDS = 20
GOOD = np.arange(24, dtype=np.float32).reshape(4, 6)
COLOUR = {"rgb", "rgba", "rgb16", "palette", "jpeg", "colour"}  # the seeds that are so

# Kind: what makes the good files, what changes a field, files in a long run and in a short one.
IMAGES = {
    "dcm": (fuzzing.dicom_seeds, fuzzing.dicom_field, 1200, 24),
    "nii": (fuzzing.nifti_seeds, fuzzing.nifti_field, 400, 8),
    "nii.gz": (fuzzing.nifti_seeds, fuzzing.nifti_field, 400, 8),
    "mgz": (fuzzing.mgh_seeds, fuzzing.no_field, 150, 4),
    "mha": (fuzzing.metaimage_seeds, fuzzing.line_field, 300, 6),
    "nrrd": (fuzzing.nrrd_seeds, fuzzing.line_field, 300, 6),
    "png": (fuzzing.png_seeds, fuzzing.png_field, 400, 8),
    "tif": (fuzzing.tiff_seeds, fuzzing.tiff_field, 600, 12),
    "jpg": (fuzzing.jpeg_seeds, fuzzing.no_field, 150, 4),
    "npy": (fuzzing.npy_seeds, fuzzing.npy_field, 250, 8),
}
TEXTS = {"run.json": (250, 4), "registry.yaml": (250, 8), "weights.h5": (150, 2)}


class Worker:
    """A process that runs damaged files, and is made anew when one has ended it."""

    def __init__(self, kind: str, folder: Path):
        self.command = [sys.executable, os.fspath(TESTS / "fuzz_worker.py"), kind, folder]
        self.process = None
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""},
        )  # fmt: skip
        self.ready = self.answer(120)

    def answer(self, seconds: float):
        """The next answer, None where there is none in time or ever."""
        end, line = time.monotonic() + seconds, b""
        while not line.endswith(b"\n"):
            left = max(0, end - time.monotonic())
            if not select.select([self.process.stdout], [], [], left)[0]:
                return None
            read = os.read(self.process.stdout.fileno(), 65536)
            if not read:
                return None
            line += read
        return json.loads(line)

    def run(self, **task) -> tuple[str, str]:
        """What is wrong, "" for nothing, and what became of the file."""
        self.process.stdin.write(json.dumps(task).encode() + b"\n")
        answer = self.answer(SECONDS)
        if answer is not None:
            return tuple(answer)
        code = self.process.poll()
        self.stop()
        self.start()
        if code is None:
            return f"no end after {SECONDS} s", "hang"
        return f"the process ended with {code}", "crash"

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def predicting(tmp_path_factory):
    folder = tmp_path_factory.mktemp("predict")
    (folder / "in").mkdir()
    np.save(folder / "in/z_good.npy", GOOD)
    worker = Worker("predict", folder)
    yield worker, folder
    worker.stop()


@pytest.fixture(scope="module")
def commanding(tmp_path_factory):
    folder = tmp_path_factory.mktemp("command")
    np.save(folder / "good.npy", np.zeros((16, 16), np.float32))
    worker = Worker("command", folder)
    yield worker, folder
    worker.stop()


def search(kind: str, count: int, always_same: bool, cases, attempt) -> None:
    """Attempts `count` cases, and fails with all that was found, the files kept in `FOUND`."""
    faults: dict[str, str] = {}
    outcomes: Counter = Counter()

    @settings(
        max_examples=count, deadline=None, database=None, derandomize=always_same,
        phases=[Phase.generate], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(cases)
    def run(case):
        content, (wrong, outcome) = attempt(*case)
        outcomes[outcome] += 1
        if wrong and len(faults) < 20 and wrong[-200:] not in faults:
            FOUND.mkdir(exist_ok=True)
            path = FOUND / f"{hashlib.sha256(content).hexdigest()[:12]}.{kind}"
            path.write_bytes(content)
            faults[wrong[-200:]] = f"{path}: {wrong}"

    began = time.monotonic()
    run()
    told = ", ".join(f"{number} {outcome}" for outcome, number in sorted(outcomes.items()))
    print(f"{kind}: {outcomes.total()} files in {time.monotonic() - began:.0f} s: {told}")
    assert not faults, "\n".join([f"{len(faults)} faults", *faults.values()])


def images(kind: str, always_same: bool, predicting, tmp_path) -> None:
    worker, folder = predicting
    make, field, *counts = IMAGES[kind]
    seeds = make(tmp_path) if kind == "dcm" else make()
    path = folder / "in" / f"a_bad.{kind}"
    if kind == "dcm":  # series are told apart by what is in all files of a folder
        pixels = GOOD.astype(np.int16)
        single(folder / "in", "z_good.dcm", pixels, SeriesInstanceUID="1.2.3", PatientID="x")

    def attempt(name, changes, inside, deidentify):
        content = seeds[name]
        is_zipped = kind in ("nii.gz", "mgz")
        if is_zipped and not inside:
            content = fuzzing.zipped(content)
        content = fuzzing.mutate(content, changes, field)
        if is_zipped and inside:
            content = fuzzing.zipped(content)
        if kind == "png" and inside:
            content = fuzzing.checked(content)
        path.write_bytes(content)
        channels = 3 if name in COLOUR else 1
        np.save(folder / "in/z_good.npy", GOOD[..., None].repeat(channels, -1))
        try:
            return content, worker.run(deidentify=deidentify, channels=channels)
        finally:
            path.unlink()

    cases = st.tuples(
        st.sampled_from(sorted(seeds)), fuzzing.mutations(), st.booleans(), st.booleans()
    )
    try:
        for name in sorted(seeds.keys() - {"complex"}):  # the model takes no k-space
            assert (name, attempt(name, [], True, False)[1]) == (name, ("", "translated"))
        search(kind, counts[always_same], always_same, cases, attempt)
    finally:
        (folder / "in/z_good.dcm").unlink(missing_ok=True)


def commands(kind: str, always_same: bool, commanding) -> None:
    worker, folder = commanding
    run = folder / "run"
    record = json.loads(worker.ready)
    weights = run / record["weights"]["file"]
    good = weights.read_bytes()
    options = [f"--input={folder / 'good.npy'}", f"--output={folder / 'out'}", "--overwrite"]
    predict = [f"--model={run}/", *options, "predict"]
    whole = yaml.safe_load((TESTS.parent / "registry.yaml").read_text(encoding="utf-8"))
    few = {section: dict(list(rows.items())[:3]) for section, rows in whole.items()}
    seed, field = {
        "run.json": (json.dumps(record).encode(), fuzzing.json_field),
        "registry.yaml": (yaml.safe_dump(few).encode(), fuzzing.yaml_field),
        "weights.h5": (good, fuzzing.weights_field),
    }[kind]

    def attempt(changes):
        content = fuzzing.mutate(seed, changes, field)
        shutil.rmtree(folder / "out", ignore_errors=True)
        if kind == "registry.yaml":
            path = folder / "registry.yaml"
            path.write_bytes(content)
            lines = [["list"], ["list", "--json", "--task=denoising"], ["describe", "automap"]]
            return content, worker.run(arguments=lines, index=str(path))
        if kind == "weights.h5":
            weights.write_bytes(content)
            named = {"file": record["weights"]["file"]}
            named["sha256"] = hashlib.sha256(content).hexdigest()
            (run / "run.json").write_text(json.dumps(record | {"weights": named}))
        else:
            weights.write_bytes(good)
            (run / "run.json").write_bytes(content)
        return content, worker.run(arguments=[predict], index="")

    cases = st.tuples(fuzzing.mutations(fields=8))
    try:
        assert attempt([])[1] == ("", "taken")
        search(kind, TEXTS[kind][always_same], always_same, cases, attempt)
        assert attempt([])[1] == ("", "taken")
    finally:
        weights.write_bytes(good)


@pytest.mark.parametrize("kind", IMAGES)
def test_some_damaged_images(kind, predicting, tmp_path):
    images(kind, True, predicting, tmp_path)


@pytest.mark.parametrize("kind", TEXTS)
def test_some_damaged_texts_and_weights(kind, commanding):
    commands(kind, True, commanding)


@pytest.mark.fuzz
@pytest.mark.parametrize("kind", IMAGES)
def test_many_damaged_images(kind, predicting, tmp_path):
    images(kind, False, predicting, tmp_path)


@pytest.mark.fuzz
@pytest.mark.parametrize("kind", TEXTS)
def test_many_damaged_texts_and_weights(kind, commanding):
    commands(kind, False, commanding)
