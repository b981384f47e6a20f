"""Risk control: the bound against other computations of it, and that it holds."""

import math

import numpy as np
import pytest
import scipy.optimize
import scipy.special

from zoo.trust import conformal


def hoeffding_bentkus(risk, n, alpha):
    """The p-value by sums of factorials and the tight form of Hoeffding's inequality."""
    if risk >= alpha:
        return 1.0
    bernoulli = scipy.special.rel_entr([risk, 1 - risk], [alpha, 1 - alpha]).sum()
    k = math.ceil(round(n * risk, 9))
    tail = sum(math.comb(n, i) * alpha**i * (1 - alpha) ** (n - i) for i in range(k + 1))
    return min(1.0, math.exp(-n * bernoulli), math.e * tail)


@pytest.mark.parametrize("n", [1, 7, 22, 60, 138])
@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
def test_the_bound_is_that_of_the_paper(n, alpha):
    for risk in np.linspace(0, alpha, 7):
        expected = hoeffding_bentkus(risk, n, alpha)
        assert conformal.p_value(risk, n, alpha) == pytest.approx(expected, rel=1e-9)
    for risk in (0.0, 0.02, 0.21):
        bound = conformal.upper_bound(risk, n, 0.1)
        ends = risk + 1e-9, 1 - 1e-12
        at = [hoeffding_bentkus(risk, n, a) for a in (bound - 1e-7, min(bound + 1e-7, 1.0))]
        assert risk < bound <= 1 and at[0] >= 0.1 - 1e-6
        if bound < ends[1]:
            assert at[1] <= 0.1 + 1e-6


def test_so_many_patients_are_needed():
    assert conformal.patients_needed(0.1, 0.1) == 22
    for alpha, delta in ((0.1, 0.1), (0.05, 0.1), (0.2, 0.05), (0.5, 0.5)):
        n = conformal.patients_needed(alpha, delta)
        assert conformal.largest_risk(n, alpha, delta) is not None
        assert n == 1 or conformal.largest_risk(n - 1, alpha, delta) is None
    # 138 patients allow half of alpha by Hoeffding's part.
    exact = scipy.optimize.brentq(
        lambda r: math.exp(-138 * scipy.special.rel_entr([r, 1 - r], [0.1, 0.9]).sum()) - 0.1,
        1e-6,
        0.0999,
    )
    assert conformal.largest_risk(138, 0.1, 0.1) >= exact - 1e-9
    assert exact == pytest.approx(0.05, abs=2e-3)
    with pytest.raises(ValueError, match=r"expected 22 or more .* Received: 5, .* alpha=0.37"):
        conformal.require_patients(5, 0.1, 0.1)


def pixels(rng, patients, size=400):
    """Errors of patients who differ, and a spread that knows some of it."""
    for number in range(patients):
        spread = rng.gamma(2.0, 1.0, size) + 0.1
        yield f"{number}", np.abs(rng.normal(0, spread * rng.uniform(0.5, 2.0))), spread


def test_the_factor_is_the_smallest_that_controls():
    rng, misses = np.random.default_rng(0), conformal.Misses()
    people = list(pixels(rng, 40))
    for patient, errors, spread in people:
        misses.add(patient, errors[:100], spread[:100])
        misses.add(patient, errors[100:], spread[100:])
    factor, risk = misses.factor(0.1, 0.1)
    allowed = conformal.largest_risk(40, 0.1, 0.1)

    def mean_loss(at):
        return np.mean([np.mean(errors > at * spread) for _, errors, spread in people])

    assert risk == pytest.approx(mean_loss(factor)) and risk <= allowed < mean_loss(factor / 1.003)
    with pytest.raises(ValueError, match="expected 138 or more"):
        misses.factor(1 - 0.1 ** (1 / 137.5), 0.1)


def test_a_spread_of_nothing_is_refused():
    misses = conformal.Misses()
    for number in range(30):
        misses.add(str(number), np.ones(9), np.full(9, 1e-9))
    with pytest.raises(ValueError, match=r"100.00% of the pixels are missed at 100000 times"):
        misses.factor(0.1, 0.1)


def test_the_risk_is_controlled_in_nine_of_ten_draws():
    """The promise itself: over calibrations, the risk of new patients exceeds alpha seldom."""
    rng = np.random.default_rng(1)
    new = list(pixels(rng, 300, size=100))
    broken = 0
    for _ in range(60):
        misses = conformal.Misses()
        for patient, errors, spread in pixels(rng, 30, size=100):
            misses.add(patient, errors, spread)
        factor, _ = misses.factor(0.1, 0.1)
        broken += np.mean([np.mean(errors > factor * spread) for _, errors, spread in new]) > 0.1
    assert broken <= 12  # 6 are allowed on average; more than 12 has a chance of 0.5 %
