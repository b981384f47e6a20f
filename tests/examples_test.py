"""The scripts of `examples/`, run as the tutorials and the guide run them, small."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest

ROOT = Path(__file__).parent.parent
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


def run(name: str, *flags: str) -> None:
    command = [sys.executable, str(ROOT / "examples" / name), *flags]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def values(path: Path) -> np.ndarray:
    file = pydicom.dcmread(path)
    return file.pixel_array * float(file.RescaleSlope) + float(file.RescaleIntercept)


def test_a_series_and_its_low_dose_pairs(tmp_path):
    series, pairs = tmp_path / "series", tmp_path / "pairs"
    run("simulate_ct_series.py", f"--output={series}", "--slices=3", "--size=64")
    scans = [values(path) for path in sorted(series.iterdir())]
    assert len(scans) == 3 and scans[0].shape == (64, 64)
    # Air around a body of soft tissue, in HU.
    assert all(np.median(scan[:4]) == pytest.approx(-1000, abs=30) for scan in scans)
    assert all(abs(np.median(scan[24:40, 24:40])) < 900 for scan in scans)
    run("simulate_low_dose.py", f"--input={series}", f"--output={pairs}", "--test_slices=1")
    assert {len(list((pairs / split).iterdir())) for split in ("trainA", "trainB")} == {2}
    assert {len(list((pairs / split).iterdir())) for split in ("testA", "testB")} == {1}


def test_brains(tmp_path):
    run("simulate_brains.py", f"--output={tmp_path}", "--patients=1", "--test_patients=1")
    first, last = "patient00.nii.gz", "patient01.nii.gz"
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*")}
    assert files == {f"trainA/{first}", f"trainB/{first}", f"testA/{last}", f"testB/{last}"}
