"""The table of the prior's stops: which image a rule takes, and how far it is from the best."""

import numpy as np
import pytest

import zoo
from tools import reconstruction_methods as methods
from tools import reconstruction_stops as stops
from zoo.physics import radon, tomography


def test_it_finds_the_image_that_the_rule_takes(monkeypatch):
    monkeypatch.setattr(stops, "PATIENCE", 20)
    beam = tomography.ParallelBeam(16, 8.0, 12)
    axis = np.linspace(-1, 1, 16)
    disc = (np.hypot(axis, axis[:, None]) < 0.7).astype(np.float32)
    y = beam.forward(radon.MU_WATER * disc).numpy()
    y += np.random.default_rng(0).normal(0, 0.2, y.shape).astype(np.float32)
    case = methods.Case(y, beam, 0.2, 1000 * (disc - 1))
    options = {"iterations": 60, "levels": 2, "base_filters": 4, "rate": 1e-2}
    kind = methods.KINDS["dose"]
    found = stops.distances(case, kind, **options)
    assert list(found) == ["tv", "variance", "holdout", "discrepancy"]
    for rule in ("variance", "holdout", "discrepancy"):
        taken, peak = found[rule]
        image, _ = zoo.reconstruct(y, beam, "dip", stop=rule, sigma=0.2, patience=20, **options)
        low, high = kind.window
        error = np.clip(radon.attenuation_to_hu(image), low, high) - case.target
        psnr = 20 * np.log10((high - low) / np.sqrt(np.mean(error**2)))
        assert taken == pytest.approx(psnr, abs=1e-3)
        assert taken <= peak


def test_a_rule_takes_the_best_look_before_its_patience_ends():
    looks = [(10.0, 3.0), (20.0, 1.0), (150.0, 2.0), (320.0, 2.0), (330.0, 0.5)]
    assert stops.stopped(looks) == 1
    assert stops.stopped(looks[:2] + looks[3:4]) == 1
    assert stops.stopped([*looks[:2], (310.0, 0.5)]) == 2


def test_the_table_counts_the_slices_that_come_near():
    each = [
        {"tv": [30.0, 30.0], "discrepancy": [29.6, 30.0], "holdout": [31.0, 31.5],
         "variance": [28.0, 30.0]},
        {"tv": [30.0, 30.0], "discrepancy": [30.0, 31.0], "holdout": [31.0, 31.0],
         "variance": [30.0, 31.0]},
    ]  # fmt: skip
    lines = stops.table(each).splitlines()
    assert lines[2] == "| `discrepancy` | 1 of 2 | 0.70 | 1.00 | 1 of 2 | -0.20 |"
    assert lines[3] == "| `holdout` | 2 of 2 | 0.25 | 0.50 | 2 of 2 | +1.00 |"
    assert lines[4].startswith("| `variance` | 0 of 2 | 1.50 | 2.00 |")
