"""The table of rules: its data are of a finer grid, and it says how far from the best each is."""

import numpy as np
import pytest

from tools import reconstruction_rules as rules
from zoo.physics import radon, tomography


def test_the_same_operator_for_data_and_image_is_warned_of():
    used = tomography.ParallelBeam(16, 4.0, 4)
    assert "operator that reconstructs them, ParallelBeam of 16 x 16" in rules.same_grid(used, used)
    assert not rules.same_grid(tomography.ParallelBeam(32, 2.0, 4), used)
    fan = tomography.FanBeam(16, 4.0, 4, 24, 8.0, 100.0, 200.0)
    assert not rules.same_grid(fan, used)
    assert not rules.same_grid(rules.beam(2), rules.beam())


@pytest.mark.parametrize("name", rules.ANATOMIES)
def test_the_data_are_those_of_the_slice(name):
    """Where photons are many, the projection of the slice's own pixels is near the measurement."""
    y, truth = rules.case(name, 10**7)
    assert truth.min() >= -1000 and truth.max() > 100
    own = rules.beam().forward(radon.hu_to_attenuation(truth)).numpy()
    apart = np.sqrt(np.mean((own - y) ** 2))
    assert 0 < apart < 0.02 * own.max()


def test_other_patients_are_others_and_their_figures_have_a_place():
    mine, other = (rules.anatomy("chest", seed) for seed in (rules.PATIENT, rules.OTHERS[0]))
    assert np.abs(mine - other).max() > 100 and rules.PATIENT not in rules.OTHERS
    text = rules.others([{"holdout": 33.9, "best": 34.0}, {"holdout": 33.6, "best": 34.0}])
    assert text.startswith("Of 2 slices of 3 other patients")
    assert "0.25 dB below the best weight, of 1 of them at most 0.2 dB, of one 0.40 dB." in text
    assert len(rules._OTHERS.findall(rules.PAGE.read_text(encoding="utf-8"))) == 1


def test_the_table_tells_how_far_below_the_best_each_rule_is():
    found = {"fbp": 30.04, "discrepancy": 33.5, "sure": 34.0, "holdout": 33.9, "best": 34.0}
    other = found | {"discrepancy": 34.0}
    lines = rules.table({"head, 1000": found, "chest, 1000": other}).splitlines()
    assert lines[2] == "| head, 1000 | 30.0 dB | 34.0 dB | -0.50 | +0.00 | -0.10 |"
    assert lines[-1] == "| mean |  |  | -0.25 | +0.00 | -0.10 |"
