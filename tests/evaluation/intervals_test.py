import numpy as np
import pytest

from zoo.evaluation import intervals


def test_bootstrap_covers_and_repeats():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        low, high = intervals.bootstrap(rng.normal(3.0, 2.0, 40), n=400, seed=trial)
        covered += low <= 3.0 <= high
    assert 0.88 <= covered / 200 <= 0.99
    values = rng.normal(size=30)
    assert intervals.bootstrap(values, seed=1) == intervals.bootstrap(values, seed=1)
    assert intervals.bootstrap(values, seed=1) != intervals.bootstrap(values, seed=2)
    # As wide as the normal interval of the mean.
    low, high = intervals.bootstrap(values)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(30), rel=0.15)
    assert np.isnan(intervals.bootstrap([1.0])).all()


def test_bootstrap_by_patient_sees_that_images_of_a_patient_are_alike():
    rng = np.random.default_rng(0)
    patients = np.repeat([f"p{i}" for i in range(15)], 20)
    values = np.repeat(rng.normal(size=15), 20) + 0.1 * rng.normal(size=300)
    wide, narrow = (np.diff(intervals.bootstrap(values, g))[0] for g in (patients, None))
    assert wide > 3 * narrow
    assert np.isnan(intervals.bootstrap(values, ["one"] * 300)).all()
    with pytest.raises(ValueError, match="300 values, 2 groups"):
        intervals.bootstrap(values, ["a", "b"])


def test_group_means_count_each_patient_once():
    means = intervals.group_means([1.0, 3.0, 10.0], ["b", "b", "a"])
    assert means == {"b": 2.0, "a": 10.0}
    low, high = intervals.bootstrap([1.0, 3.0, 10.0], ["b", "b", "a"])
    assert (low, high) == (2.0, 10.0)


def test_summaries_leave_out_what_does_not_count():
    nan = float("nan")
    rows = [
        {"patient": "b", "output": {"x": 1.0, "y": nan}},
        {"patient": "b", "output": {"x": 3.0, "y": nan}},
        {"patient": "a", "output": {"x": 8.0, "y": 5.0}},
    ]
    summary, patients = intervals.summaries(rows, ("output", "gain"))
    assert list(summary) == ["output"]
    x, y = summary["output"]["x"], summary["output"]["y"]
    assert (x["images"], x["mean"], x["median"], x["min"], x["max"]) == (3, 4.0, 3.0, 1.0, 8.0)
    assert x["sd"] == pytest.approx(np.sqrt((9 + 1 + 16) / 2))
    assert (x["patients"]["mean"], y["images"], y["mean"]) == (5.0, 1, 5.0)
    assert [(p["patient"], p["images"], p["output"]["x"]) for p in patients] == [
        ("b", 2, 2.0),
        ("a", 1, 8.0),
    ]
    assert np.isnan(patients[0]["output"]["y"]) and patients[1]["output"]["y"] == 5.0
    # Where one patient is unknown there is nothing by patient.
    rows[1]["patient"] = ""
    summary, patients = intervals.summaries(rows, ("output",))
    assert patients == [] and summary["output"]["x"]["patients"] is None
    assert np.isnan(intervals.summary([])["mean"])


def test_what_is_stated_is_over_patients_where_they_are_known():
    values, patients = [1.0, 2.0, 3.0, 10.0], ["a", "a", "a", "b"]
    stated = intervals.independent(intervals.summary(values, patients))
    assert (stated["mean"], stated["count"], stated["of"]) == (6.0, 2, "patients")
    assert stated["ci95"] == [2.0, 10.0]
    stated = intervals.independent(intervals.summary(values))
    assert (stated["mean"], stated["count"], stated["of"]) == (4.0, 4, "images")
    assert 1 < stated["ci95"][0] < 4 < stated["ci95"][1] < 10
