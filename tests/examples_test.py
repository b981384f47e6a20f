"""The scripts of `examples/`, run as the tutorials and the guide run them, small."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest

from zoo.physics import radon

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


def test_sinograms_become_pairs_of_independent_noise(tmp_path):
    beam = radon.ParallelBeam(32, 5.0, 128)
    axis = np.arange(32) - 15.5
    image = radon.hu_to_attenuation(np.where(np.hypot(axis, axis[:, None]) < 12, 0.0, -1000.0))
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    noisy = beam.forward(image) + rng.normal(0, 0.1, (2, 128, beam.detectors))
    np.save(tmp_path / "in" / "a.npy", noisy.astype("float32"))
    out = tmp_path / "out"
    where = f"--input={tmp_path / 'in'}", f"--output={out}"
    run("split_sinograms.py", *where, "--size=32", "--spacing=5")
    source, target, whole = (np.load(out / f / "a.npy") for f in ("trainA", "trainB", "whole"))
    assert source.shape == target.shape == (8, 32, 32) and whole.shape == (2, 32, 32)
    clean = radon.attenuation_to_hu(beam.fbp(beam.forward(image), "hann"))
    np.testing.assert_allclose(whole, radon.attenuation_to_hu(beam.fbp(noisy, "hann")), atol=0.5)
    inner = np.s_[:, 8:-8, 8:-8]
    apart = [(stack - clean)[inner].ravel() for stack in (source, target)]
    assert abs(np.corrcoef(*apart)[0, 1]) < 0.15 and apart[1].std() > 1.4 * apart[0].std()
