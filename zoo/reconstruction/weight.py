"""The weight of a prior, found without knowing the image.

    discrepancy  lam such that the sum of w |A x - y|^2 and div is the number of measured values
                 (twice that of complex ones), which is what noise makes of it: the image itself
                 takes div of the noise away, much where views are few, and a rule without it
                 smooths too much (the equivalent degrees of freedom of Hall and Titterington, J. R.
                 Stat. Soc. B 49, 1987)
    sure         lam of least sum of w |A x - y|^2 + 2 div, Stein's unbiased estimate of the error
                 in what is measured
    holdout      lam whose image fits best to a tenth of y that it has not seen, of a beam views
                 where it has 30 or more. There it is the largest lam that fits as well, give or
                 take one standard error (Breiman, Friedman, Olshen and Stone, Classification and
                 Regression Trees, 1984, 3.4.3): the misfit to other views is nearly flat below the
                 best weight, as errors of the model pass for structure

div is the divergence of A x as a function of y, by the answer to one random change of y (Ramani et
al., IEEE Trans. Image Process. 17, 2008). The first two need to know the noise, and take errors of
the model of the measurement for structure; notes of the record tell where what is left is not what
the noise makes. Where no weight leaves as little as that, "discrepancy" takes the largest one that
leaves about the least. "holdout" is taken where no rule is named.
"""

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from zoo.physics.operators import Operator
from zoo.reconstruction.record import Record

RULES = ("discrepancy", "sure", "holdout")
_SOLVES = 8  # at most, until the weight is found
_NEAR = 0.1  # two weights, as logarithms
_LEFT_OUT = 0.1  # of what is measured
_VIEWS = 30  # fewer have none to spare
_LEFT = 1.1  # times the least misfit, where none is as small as the noise's
_OFF = 0.1  # of the misfit that noise makes, from which on the noise is doubted
_DOUBT = (
    "the misfit is {total:.3g} times that of such noise: is it as stated? errors of the model of "
    "the measurement, as of large pixels, count as structure too; holdout needs to know neither"
)
_CHANGE = 0.1  # of y for `sure`, in standard deviations of the noise


def of_noise(y: tf.Tensor, operator: Operator, sigma, photons: float | None) -> tf.Tensor:
    """The weights w: one over the variance of what the operator sees, and 0 of what it does not.

    Args:
        y: the measurement.
        operator: A.
        sigma, photons: the noise, as of `zoo.reconstruction.tv.reconstruct`; None: w is 1.

    Raises:
        ValueError: for both, or either one wrong.
    """
    if sigma is not None and photons is not None:
        raise ValueError("sigma, photons: expected one of them. Received: both")
    real = operator.dtype.real_dtype
    if photons is not None:
        if not photons > 0 or y.dtype.is_complex:
            raise ValueError(
                "photons: expected a positive number, and real line integrals. "
                f"Received: {photons}, {y.dtype.name}"
            )
        weights = photons * tf.exp(-y)
    else:
        deviation = np.asarray(1.0 if sigma is None else sigma, np.float64)
        if not (deviation > 0).all() or deviation.shape not in ((), operator.range_shape):
            raise ValueError(
                f"sigma: expected positive numbers, one or of shape {operator.range_shape}. "
                f"Received: shape {deviation.shape}, from {deviation.min():g} on"
            )
        weights = tf.fill(operator.range_shape, tf.cast(1, real)) / tf.cast(deviation**2, real)
    anything = np.random.default_rng(0).uniform(0.5, 1, operator.domain_shape)
    seen = tf.abs(operator.forward(anything)) > 0
    return tf.where(seen, tf.cast(weights, real), 0)


def held_out(
    operator: Operator, weights: tf.Tensor, rng: np.random.Generator
) -> tuple[tf.Tensor, tf.Tensor]:
    """Weights of a tenth of the values, drawn at random, of coils the same; and of the others.

    Of a beam with 30 views or more, whole views, one of each tenth: how rays differ from their
    model (pixels larger than anatomy, say) is alike in neighbouring ones, which would show a ray
    what it has not seen.
    """
    rows, columns = weights.shape[-2:]
    if _by_views(operator):
        first = np.linspace(0, rows, round(rows * _LEFT_OUT) + 1).astype(int)
        unseen = np.isin(np.arange(rows), rng.integers(first[:-1], first[1:]))
        held = tf.constant(np.repeat(unseen[:, None], columns, axis=1))
    else:
        held = tf.constant(rng.uniform(size=(rows, columns)) < _LEFT_OUT)
    nothing = tf.zeros_like(weights)
    return tf.where(held, weights, nothing), tf.where(held, nothing, weights)


def _by_views(operator: Operator) -> bool:
    return getattr(operator, "views", 0) >= _VIEWS


class Solution(NamedTuple):
    """The best iterate found (with x and A x), its objective, how far from the end, iterations.

    `gap` is what `tolerance` bounds: of a certificate the gap, else the last change of the image.
    """

    state: Any
    objective: float | None
    gap: float
    iterations: int


class Search:
    """Solves a problem with a weight that is given or found.

    Args:
        method: its name.
        problem: makes the problem of y and weights: it has `start()`, `solve(lam, start, tolerance,
            iterations, progress)`, a `fidelity`, the weight to begin at, `guess`, and the
            factor from one weight to the next, `stride`.
        operator: A.
        y: the measurement.
        weights: 1 / variance of each value.
        known: whether they are so; else all are 1.
        tolerance, iterations, seed, progress: as of `zoo.reconstruction.tv.reconstruct`.
    """

    def __init__(
        self,
        method: str,
        problem: Callable[[tf.Tensor, tf.Tensor], Any],
        operator: Operator,
        y: tf.Tensor,
        weights: tf.Tensor,
        known: bool,
        tolerance: float,
        iterations: int,
        seed: int,
        progress: Callable[[int, float], None] | None,
    ):
        self.make, self.operator, self.y, self.weights = problem, operator, y, weights
        self.known, self.tolerance, self.iterations = known, tolerance, iterations
        self.progress = progress
        self.rng = np.random.default_rng(seed)
        self.problem = problem(y, weights)
        self.record = Record(method)

    def solved(self, lam: float | str | None) -> tuple[Any, Record]:
        """The solution, and a record of the weight.

        Raises:
            ValueError: for an unknown rule, one that needs the noise, or a weight below 0.
        """
        begun = time.perf_counter()
        rule = "holdout" if lam is None else lam
        start = self.problem.start()
        if isinstance(rule, str):
            self._check(rule)
            rules = {"discrepancy": self._discrepancy, "sure": self._sure, "holdout": self._holdout}
            chosen, start = rules[rule](start)
        else:
            chosen = float(rule)
            self.record.why = "as given"
            if not 0 <= chosen < math.inf:
                raise ValueError(f"lam: expected a number, 0 or more. Received: {lam}")
        found = self.problem.solve(chosen, start, self.tolerance, self.iterations, self.progress)
        self.record.lam, self.record.seconds = chosen, time.perf_counter() - begun
        return found, self.record

    def _check(self, rule: str) -> None:
        if rule not in RULES:
            raise ValueError(f"lam: expected a number or {', '.join(RULES)}. Received: {rule!r}")
        if rule != "holdout" and not self.known:
            raise ValueError(
                f"lam: expected sigma or photons for the rule {rule}; without them take holdout. "
                "Received: neither"
            )

    def _noise(self) -> np.ndarray:
        """White noise of y's shape and kind, each real part of variance 1."""
        drawn = self.rng.standard_normal(self.operator.range_shape)
        if self.operator.dtype.is_complex:
            drawn = drawn + 1j * self.rng.standard_normal(self.operator.range_shape)
        return drawn

    def _solve(self, problem: Any, lam: float, start: Any, tolerance: float) -> Any:
        return problem.solve(lam, start, max(self.tolerance, tolerance), self.iterations)

    def _expected(self) -> float:
        """What noise makes of the sum of w |A x - y|^2 of the true image."""
        parts = 2 if self.operator.dtype.is_complex else 1
        return parts * float(np.count_nonzero(self.weights))

    def _discrepancy(self, start: Any) -> tuple[float, Any]:
        expected = self._expected()
        look = self._with_divergence(start)
        known: dict[float, float] = {}

        def excess(at: float) -> float:
            misfit, divergence, _ = look(math.exp(at))
            self.record.tried.append((math.exp(at), misfit + divergence))
            known[at] = misfit + divergence - expected
            return known[at]

        # From the first weight towards the one where the sum is right, until it is passed.
        step, passed = math.log(self.problem.stride), False
        at = other = math.log(self.problem.guess)
        excess(at)
        while len(known) < _SOLVES and not passed:
            at, other = other, other - math.copysign(step, known[other])
            passed = excess(other) * known[at] <= 0
        # And between the last two.
        while passed and len(known) < _SOLVES and abs(at - other) > _NEAR:
            middle = (known[other] * at - known[at] * other) / (known[other] - known[at])
            low, high = sorted((at, other))
            middle = min(max(middle, low + 0.1 * (high - low)), high - 0.1 * (high - low))
            at, other = middle, other if excess(middle) * known[at] > 0 else at
        found = min(known, key=lambda key: abs(known[key]))
        if not passed:
            self.record.notes.append(_DOUBT.format(total=known[found] / expected + 1))
        if not passed and known[found] > 0:
            # What no image explains is left at the least weights, and counts as noise.
            enough = _LEFT * (known[found] + expected)
            found = max(key for key in known if known[key] + expected <= enough)
        value = known[found] + expected
        self.record.why = (
            f"discrepancy: misfit and what the image took of the noise {value:.6g}, "
            f"expected of the noise {expected:.6g}"
        )
        return math.exp(found), look(math.exp(found))[2]

    def _holdout(self, start: Any) -> tuple[float, Any]:
        kept, weights = held_out(self.operator, self.weights, self.rng)
        rest, by_views = self.make(self.y, weights), _by_views(self.operator)
        misfits: dict[float, np.ndarray] = {}

        def score(lam: float, start: Any) -> tuple[float, Any]:
            state = self._solve(rest, lam, start, 1e-3).state
            each = (kept * tf.abs(state.ax - self.y) ** 2).numpy()
            misfits[lam] = each[kept.numpy() > 0].astype(np.float64)
            return float(misfits[lam].sum()), state

        def errors(lam: float, least: float) -> float:
            """How many standard errors the misfit is above the least."""
            more = misfits[lam] - misfits[least]
            return float(more.sum() / max(more.std() * math.sqrt(more.size), 1e-300))

        lam, value, start = self._least(score, start, errors if by_views else None)
        near = "at most one standard error above the " if by_views else ""
        self.record.why = f"holdout: {near}least misfit to a tenth of the values, {value:.6g}"
        return lam, start

    def _sure(self, start: Any) -> tuple[float, Any]:
        look = self._with_divergence(start)

        totals: dict[float, float] = {}

        def score(lam: float, _: Any) -> tuple[float, Any]:
            misfit, divergence, state = look(lam)
            totals[misfit + 2 * divergence] = misfit + divergence
            return misfit + 2 * divergence, state

        lam, value, start = self._least(score, start)
        self.record.why = f"sure: least estimate, {value:.6g}"
        # There misfit and divergence are what noise makes, give or take four deviations.
        expected = self._expected()
        if abs(totals[value] - expected) > _OFF * expected + 4 * math.sqrt(2 * expected):
            self.record.notes.append(_DOUBT.format(total=totals[value] / expected))
        return lam, start

    def _with_divergence(self, start: Any) -> Callable[[float], tuple[float, float, Any]]:
        """A function of lam: the misfit, the divergence of A x by y, and the solution.

        The divergence is by the answer to one random change of y.
        """
        change = self._noise()
        root = tf.cast(tf.math.divide_no_nan(1.0, tf.sqrt(self.weights)), self.y.dtype)
        moved = self.make(self.y + _CHANGE * root * tf.cast(change, self.y.dtype), self.weights)
        last = [start, start]
        known: dict[float, tuple[float, float, Any]] = {}

        def look(lam: float) -> tuple[float, float, Any]:
            if lam not in known:
                for k, problem in enumerate((self.problem, moved)):
                    last[k] = self._solve(problem, lam, last[k], 1e-4).state
                answer = np.sqrt(self.weights) * (last[1].ax - last[0].ax).numpy()
                divergence = float(np.real(np.vdot(change, answer))) / _CHANGE
                misfit = float(self.problem.fidelity.squares(last[0].ax))
                known[lam] = misfit, divergence, last[0]
            return known[lam]

        return look

    def _least(
        self,
        score: Callable[[float, Any], tuple[float, Any]],
        start: Any,
        errors: Callable[[float, float], float] | None = None,
    ) -> tuple[float, float, Any]:
        """The weight of least score, the score, and where the last solve ended.

        By strides downhill, then the least of a parabola; with `errors`, how many of its own
        standard errors the score of a weight is above that of another, on to where that is one.
        """
        at = math.log(self.problem.guess)
        step = math.log(self.problem.stride)
        found: dict[int, float] = {}

        def weight_at(k: float) -> float:
            return math.exp(at + k * step)

        def look(k: int) -> float:
            nonlocal start
            if k not in found:
                found[k], start = score(weight_at(k), start)
                self.record.tried.append((weight_at(k), found[k]))
            return found[k]

        # Downhill by strides.
        k = 0
        while len(found) < _SOLVES:
            if look(k + 1) < look(k):
                k += 1
            elif look(k - 1) < look(k):
                k -= 1
            else:
                break
        # Between them.
        least = k = min(found, key=lambda key: found[key])
        offset = above = 0.0
        if errors is not None:
            # On while it is within the error, and as far into the next stride as it may be.
            while len(found) < 2 * _SOLVES:
                look(k + 1)
                before, above = above, errors(weight_at(k + 1), weight_at(least))
                if above > 1:
                    offset = (1 - before) / (above - before)
                    break
                k += 1
        elif k - 1 in found and k + 1 in found:
            bend = found[k - 1] - 2 * found[k] + found[k + 1]
            offset = 0.5 * (found[k - 1] - found[k + 1]) / bend if bend > 0 else 0.0
        return weight_at(k + offset), found[least], start
