"""What the tables of docs/benchmarks.md are made with."""

import functools
import sys

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import __main__ as benchmarks
from benchmarks import measure, operators, reconstruction, scaling


def test_calls_are_made_in_turns_and_ratios_are_of_one_round(monkeypatch):
    clock, made = [0.0], []
    monkeypatch.setattr(measure.time, "perf_counter", lambda: clock[0])

    def call(name, seconds):
        def run():
            made.append(name)
            clock[0] += next(seconds)

        return run

    # The machine slows down: in each round the second takes twice as long as the first, or 3 times.
    first, second = iter([1.0, 1.0, 10.0, 100.0]), iter([1.0, 2.0, 30.0, 200.0])
    seconds = measure.in_turns({"a": call("a", first), "b": call("b", second)}, 3)
    assert "".join(made) == "ab" + "ab" * 3  # the first pair says how many make a measurement
    assert seconds == {"a": [1, 10, 100], "b": [2, 30, 200]}
    assert measure.ratio(seconds, "b", "a") == "2.00 (2.00 to 3.00)"
    assert measure.middle(seconds["b"]) == "30.0"
    short = measure.in_turns({"a": call("a", iter([0.03] * 99))}, 1)["a"]
    assert made[8:] == ["a"] * 5 and short[0] == pytest.approx(0.03)  # at least 0.1 s


@pytest.mark.parametrize(
    "value, text",
    [(1234.4, "1230"), (9.996, "10.0"), (0.012345, "0.0123"), (0.0, "0"), (31.02, "31.0")],
)
def test_numbers_have_three_digits(value, text):
    assert float(measure.three(value)) == pytest.approx(float(text), rel=1e-9)


def test_a_peer_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "astra", None)
    monkeypatch.setitem(sys.modules, "torch", None)
    text = operators.beams(True, 1).text
    assert "ASTRA (astra is not installed); deepinv (torch is not installed)." in text
    rows = [line for line in text.splitlines() if line.startswith("| 24²")]
    assert len(rows) == 2 and all(float(row.split("|")[3]) > 0 for row in rows)


def test_a_peer_that_fails_is_left_out_and_named():
    def broken():
        raise RuntimeError("not for this\nnetwork")

    calls, skipped = measure.peers({"here": lambda: int, "there": lambda: broken})
    assert calls == {"here": int} and skipped == {"there": "RuntimeError: not for this"}


@pytest.mark.parametrize(
    "measured, most, missed, said",
    [(1.0, False, 0.2, "missed by 20.0 %: why"), (1.25, False, 0, "met"), (1.0, True, 0, "met"),
     (2.5, True, 1.0, "missed by 100 %: why")],
)  # fmt: skip
def test_a_target_says_by_how_much_it_is_missed(measured, most, missed, said):
    target = measure.Target("speed", 1.25, measured, "why", most)
    assert target.missed == pytest.approx(missed)
    assert target.row()[2:] == [measure.three(measured), said]


def test_the_fewest_iterations_that_reach_the_quality_are_found():
    image = np.ones((4, 4), np.float32)
    tried = []

    def run(rate, count):
        tried.append((rate, count))
        return image * (1 - 2.0 ** -(rate * count))

    # 20 log10(2^n) dB after n iterations of rate 1: 30 dB need 4.98 of them.
    runs = [functools.partial(run, rate) for rate in (0.5, 1, 1)]
    best = reconstruction.fewest(iter(runs), image, (2, 5, 10, 20))
    assert (best.count, round(best.psnr, 1)) == (5, 30.1)
    assert tried == [(0.5, 2), (0.5, 5), (0.5, 10), (1, 2), (1, 5), (1, 2)]
    never = reconstruction.fewest(iter(runs[:1]), image, (2, 5))
    assert never.count == 5 and never.psnr < reconstruction.TARGET


def test_the_time_of_a_step_goes_where_its_operations_are():
    x = tf.random.normal((700, 700))
    step = tf.function(
        lambda: tf.reduce_sum(tf.matmul(x, x) + tf.math.real(tf.signal.fft(tf.complex(x, x))))
    )
    step()
    found = measure.operations(step)
    assert list(found)[0] in ("matrix products", "Fourier transforms")
    assert {"matrix products", "Fourier transforms", "by element"} <= set(found)
    assert 0 < sum(found.values()) < 10
    assert measure.shares({"a": 3.0, "b": 1.0, "c": 0.5, "d": 0.5}) == "a 60 %, b 20 %, c 10 %"


def test_a_process_says_its_own_memory_and_its_failure(tmp_path):
    ran = measure.process(["-c", "data = b'x' * (60 << 20)"], tmp_path)
    assert 60 < ran.mib < 150 and ran.seconds >= 0.01
    with pytest.raises(RuntimeError, match="no such thing"):
        measure.process(["-c", "raise SystemExit('no such thing')"], tmp_path)


def test_the_page_is_written_and_says_what_it_was_made_on(tmp_path, capsys):
    page = tmp_path / "page.md"
    assert benchmarks.main(["--quick", "--only=startup", f"--output={page}"]) == 0
    text = page.read_text()
    for said in ("cores", "keras", "load average", "figures say nothing", "`zoo list`"):
        assert said in text
    with pytest.raises(SystemExit) as stopped:
        benchmarks.main(["--only=speed"])
    assert stopped.value.code == 2 and "Received: speed" in capsys.readouterr().err


@pytest.mark.slow
def test_devices_and_processes_train_what_one_device_does():
    text = scaling.several(True, 1, ["1 device", "2 devices", "2 processes"]).text
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith(("| 1", "| 2"))]
    assert [row[0].strip() for row in rows] == ["1 device", "2 devices", "2 processes"]
    assert all(float(row[1]) > 0 and float(row[3]) < 1e-3 for row in rows)
