"""How long a run takes: by its arithmetic, then by what was measured."""

import pytest

from zoo.pace import Pace, duration, in_words
from zoo.recipe import Phase

PHASES = [Phase("4x4", 10, 8, 4), Phase("8x8", 30, 4, 8)]


def pace() -> Pace:
    return Pace(PHASES, [1e9, 3e9], speed=1e9)


def test_before_anything_is_measured_arithmetic_counts():
    there = pace()
    step = [1.02, 3.02]  # seconds, with what a step takes beside its arithmetic
    whole = 10 * step[0] + 30 * step[1] + 2 * 20.0
    assert there.left(0, 0) == pytest.approx(whole)
    assert there.left(0, 5) == pytest.approx(whole + 5 * there.validation)
    assert there.left(10, 0) == pytest.approx(30 * step[1] + 20.0)
    # A run that goes on compiles the phase it is in, too.
    assert there.left(25, 0) == pytest.approx(15 * step[1] + 20.0)
    assert there.left(40, 0) == 0


def test_what_was_measured_corrects_the_phases_to_come():
    there = pace()
    for _ in range(3):
        assert not there.known
        there.measured(PHASES[0], 2, 4 * 1.02)  # twice as slow as expected
    assert there.known
    assert there.left(6, 0) == pytest.approx(2 * (4 * 1.02 + 30 * 3.02) + 20.0)
    there.validation = 7.0
    assert there.left(6, 2) - there.left(6, 0) == pytest.approx(14.0)


def test_in_words():
    assert in_words(PHASES[0]) == "4x4 (10 steps, batch 8, 4 x 4 pixels)"
    assert in_words(Phase("train", 5, 2)) == "train (5 steps, batch 2)"
    said = [duration(s) for s in (1, 47, 89, 600, 5400, 100_000, 200_000)]
    assert said == [
        "10 seconds", "50 seconds", "90 seconds", "10 minutes", "1.5 hours", "27.8 hours", "2 days"
    ]  # fmt: skip
