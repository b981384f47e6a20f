"""tools/judges/membership.py: who was trained on is told where it can be."""

import types

import numpy as np
import pytest
import scipy.stats

from measured import Double, image
from tools.judges import membership


def test_the_area_is_mann_whitneys_and_lies_in_its_interval():
    rng = np.random.default_rng(0)
    members, others = rng.normal(0.6, 1, 30).round(1), rng.normal(0, 1, 50).round(1)
    expected = scipy.stats.mannwhitneyu(members, others).statistic / (30 * 50)
    auc, low, high = membership.area(members, others)
    assert auc == pytest.approx(expected)
    # Hanley and McNeil's standard error is that of the bootstrap, about.
    first, second = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + 29 * (first - auc**2) + 49 * (second - auc**2)
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(variance / 1500), rel=0.15)
    assert low < auc < high
    assert membership.area(others, others)[0] == 0.5


@pytest.fixture
def patients(monkeypatch):
    """Two images of each of 12 patients on either side."""

    def drawn(model, dataset, trained_on, count):
        for number in range(24):
            target = image(3 if trained_on else 4, number)
            noise = np.random.default_rng([trained_on, number]).normal(0, 30, target.shape)
            source = (target + noise).astype("float32")
            named = {"patient": f"P{number // 2}", "image": target}
            yield named | {"source": source, "target": target}

    monkeypatch.setattr(membership, "drawn", drawn)


class Learner(Double):
    """Takes away a share of the noise, and all but a tenth of it of the images that it knows."""

    data = "paired"

    def __init__(self, known):
        self.known = {target.tobytes(): target for target in known}

    def translate(self, batch):
        for target in self.known.values():
            if np.abs(batch[0] - target).mean() < 40:
                return target[None] + 0.1 * (batch - target)
        return 0.7 * batch + 12


def test_a_translator_that_knows_its_patients_is_told(patients):
    known = [image(3, number) for number in range(24)]
    found = membership.membership(Learner(known), "ldct/varied")
    assert found["auc"] == [1, 1, 1]
    assert found["judged_on"] == "12 simulated patients of the training and 12 apart, ldct/varied"
    auc, low, high = membership.membership(Learner([]), "ldct/varied_scans")["auc"]
    assert low < 0.5 < high and 0.2 < auc < 0.8


def test_a_generator_that_repeats_its_patients_is_told(patients, monkeypatch):
    monkeypatch.setattr(membership, "GENERATED", 24)

    def generator(seed):
        made = np.stack([image(seed, number) for number in range(24)])
        made = np.ascontiguousarray(made[:, :, ::-1])
        domain = types.SimpleNamespace(window=(-160.0, 240.0))
        return types.SimpleNamespace(
            data="single", target=domain, generate=lambda count, seed: made[:count]
        )

    assert membership.membership(generator(3), "mammo/phantom")["auc"][0] > 0.95
    assert membership.membership(generator(7), "mammo/phantom")["auc"][0] < 0.85
