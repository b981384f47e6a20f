"""The tables of docs/trust.md, and what they claim."""

import numpy as np
import pytest
from scipy import stats

import zoo
from tools import battery, trust
from zoo.trust.conformal import Misses
from zoo.trust.spread import Spread


def drawn(count, seed, louder=1.0):
    """Patients whose errors are normal, and a spread of 1."""
    rng, misses = np.random.default_rng(seed), Misses()
    for number in range(count):
        errors = np.abs(rng.normal(0, louder * rng.uniform(0.8, 1.25), 500))
        misses.add(f"{number}", errors, np.ones(500))
    return trust.Seen(misses.losses(), misses, None, 1.0)


def test_coverage_counts_the_patients_that_did_not_calibrate(monkeypatch):
    monkeypatch.setattr(trust, "SPLITS", 20)
    found = trust.coverage(drawn(80, 0), drawn(20, 1, louder=2.0), 40)
    assert found.kept >= 0.9 and 0.005 < found.outside < 0.05
    # Two standard deviations in place of one: what is outside follows from the factor.
    assert found.factor > trust.NAIVE and found.naive == pytest.approx(0.11, abs=0.02)
    assert 0.1 < found.other < 0.4


def test_a_table_is_put_between_its_comments():
    page = "a\n<!-- x: begin -->\nold\n<!-- x: end -->\nb"
    assert trust.put(page, "x", "new") == "a\n<!-- x: begin -->\nnew\n<!-- x: end -->\nb"
    assert trust.put(trust.put(page, "x", "new"), "x", "old") == page
    assert "<!-- coverage: begin -->" in trust.PAGE.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_promise_is_kept_for_simulated_patients():
    """In at least 90 of 100 splits by patient, and wider where the error is larger."""
    spread = Spread(zoo.load("encoder_decoder_ldct"))
    own = trust.seen(spread, trust.patients(60, trust.PROTOCOL))
    other = trust.seen(spread, trust.patients(8, trust.OTHER, seed=78))
    found = trust.coverage(own, other, 30)
    assert found.kept >= 0.9 and own.correlation > 0.2
    assert found.naive > 2 * trust.ALPHA  # what a spread by itself would have missed


@pytest.mark.slow
def test_planted_faults_raise_alarms_and_honest_outputs_none():
    """Of `encoder_decoder_ldct`: 95 % of the faults, and 5 % of patients without any, or fewer."""
    model = zoo.load("encoder_decoder_ldct")
    examples = list(trust.patients(60, trust.FINER, seed=91))
    limits, pairs = battery.calibrated(model, examples)
    honest = battery.raised(model, limits, pairs)
    by_patient = [one | other for one, other in zip(honest[::2], honest[1::2], strict=True)]
    raised = sum(map(bool, by_patient))  # of so few patients 5 % may be two or three
    assert stats.binomtest(raised, len(by_patient), 0.05, "greater").pvalue > 0.05
    for name, fault in battery.FAULTS.items():
        assert battery.share(battery.raised(model, limits, pairs, fault)) >= 0.95, name
