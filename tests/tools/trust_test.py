"""The tables of docs/trust.md, and what they claim."""

import numpy as np
import pytest
from scipy import stats

import harness
import zoo
from tools import battery, explained, limits, trust
from zoo.trust.conformal import Misses
from zoo.trust.explain import Region
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


def test_real_patients_are_counted_by_what_simulated_ones_calibrate(monkeypatch):
    fields = {"levels": 2, "base_filters": 4, "output": "auto", "flip": True}
    model = harness.build("encoder_decoder", fields)
    monkeypatch.setattr(zoo, "load", lambda name: model)

    def pairs(seed, count, louder):
        rng = np.random.default_rng(seed)
        for number in range(count):
            target = rng.normal(40, 5, (32, 32, 1)).astype("float32")
            source = model.translate(target[None])[0]  # so that its error is the noise alone
            noise = louder * rng.normal(0, 10, target.shape).astype("float32")
            yield limits.Pair(f"{number}", target, source + noise)

    monkeypatch.setattr(limits, "simulated", lambda *given: pairs(0, 24, 1.0))
    for louder, most in ((0.5, 0), (1000.0, 3)):
        monkeypatch.setattr(limits, "real", lambda *given, by=louder: pairs(1, 3, by))
        told = trust.real_table().splitlines()
        assert "calibrated on 24 simulated patients of `ldct/varied_scans`" in told[0]
        cells = told[-1].split("|")
        assert (cells[1], cells[3]) == (" 3 ", f" {most} ")


def test_a_table_is_put_between_its_comments():
    page = "a\n<!-- x: begin -->\nold\n<!-- x: end -->\nb"
    assert trust.put(page, "x", "new") == "a\n<!-- x: begin -->\nnew\n<!-- x: end -->\nb"
    assert trust.put(trust.put(page, "x", "new"), "x", "old") == page
    assert "<!-- coverage: begin -->" in trust.PAGE.read_text(encoding="utf-8")


def test_a_real_lesion_is_explained_where_its_scan_is(tmp_path, monkeypatch, capsys):
    assert trust.lesion(None, False) == "" == trust.lesion(tmp_path, False)
    assert "left as it is, without --scans that holds CRLM-CT-1006" in capsys.readouterr().out
    file = tmp_path / explained.SLICE
    file.parent.mkdir(parents=True)
    file.write_bytes(b"another")
    with pytest.raises(ValueError, match="1-16.dcm: expected SHA-256 a137.*Received: "):
        explained.scan(file)
    # A disc of -50 HU in even tissue stands for it.
    full = np.full((64, 64), 60.0, "float32")
    region = Region(30, 34, 5)
    full[region.inside(full.shape)] = 10
    monkeypatch.setattr(explained, "scan", lambda path: (full, 0.8))
    monkeypatch.setattr(explained, "CORNER", (0, 0))
    monkeypatch.setattr(explained, "LESION", region)
    model = harness.build("encoder_decoder", {"levels": 2, "base_filters": 4, "output": "auto"})
    told = explained.real(model, tmp_path, tmp_path / "shown.png")
    assert "A disc of 8 mm about a lesion" in told and "is -50 HU as it was scanned" in told
    assert (tmp_path / "shown.png").exists()


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
