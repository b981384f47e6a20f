"""Risk control by patient: how far a spread must be scaled so that it misses few pixels.

Bates, Angelopoulos, Lei, Malik, Jordan: Distribution-Free, Risk-Controlling Prediction Sets,
J. ACM 2021, arXiv:2101.02703, with the Hoeffding-Bentkus bound. A patient's loss is the share of
pixels whose error exceeds `factor` times the spread there; the risk is its mean over patients. The
smallest factor whose risk is shown to be at most `alpha` with a confidence of 1 - `delta` is taken.
It holds for a patient drawn as those were that it was found on, whatever the model and the spread
are; patients are independent, and pixels or slices of one are not. Imports no TensorFlow.
"""

import math

import numpy as np
import scipy.stats

# Factors that are tried: each is 0.23 % above the one before, and so is the price of the grid.
FACTORS = np.geomspace(1e-3, 1e5, 8001)


def p_value(risk: float, patients: int, alpha: float) -> float:
    """Of the hypothesis that the true risk exceeds `alpha`: the Hoeffding-Bentkus bound.

    Args:
        risk: the mean loss, 0 to 1, of so many `patients`.
        patients: how many, 1 or more.
        alpha: the greatest risk that is allowed, between 0 and 1.
    """
    if risk >= alpha:
        return 1.0
    # Hoeffding's tail, by the relative entropy of two coins, and Bentkus's, by a binomial's.
    entropy = (1 - risk) * math.log((1 - risk) / (1 - alpha))
    entropy += risk * math.log(risk / alpha) if risk else 0.0
    misses = math.ceil(patients * risk - 1e-9)  # of 3 / 22 times 22 no rounding makes 4
    bentkus = math.e * float(scipy.stats.binom.cdf(misses, patients, alpha))
    return min(math.exp(-patients * entropy), bentkus, 1.0)


def upper_bound(risk: float, patients: int, delta: float) -> float:
    """What the true risk does not exceed, with a confidence of 1 - `delta`."""
    low, high = risk, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if p_value(risk, patients, middle) > delta else (low, middle)
    return high


def largest_risk(patients: int, alpha: float, delta: float) -> float | None:
    """The greatest mean loss of so many patients which shows that the risk is at most `alpha`.

    None where they are too few: even a loss of 0 would not show it.
    """
    if p_value(0.0, patients, alpha) > delta:
        return None
    low, high = 0.0, alpha
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if p_value(middle, patients, alpha) <= delta else (low, middle)
    return low


def patients_needed(alpha: float, delta: float) -> int:
    """The fewest patients that can show anything: of whom no pixel would be missed.

    22 for 0.1 and 0.1. With so few nothing may be missed, and intervals are wide; 138 allow half of
    `alpha`.
    """
    return math.ceil(math.log(delta) / math.log1p(-alpha) - 1e-9)


class Misses:
    """Of each patient, which share of the pixels each of `FACTORS` would miss.

    No more is held than one count a factor and patient.
    """

    def __init__(self) -> None:
        self.counts: dict[str, np.ndarray] = {}

    def add(self, patient: str, errors: np.ndarray, spread: np.ndarray) -> None:
        """Pixels of a patient.

        Args:
            patient: a pseudonym.
            errors: absolute errors, of any shape.
            spread: what is scaled, above 0, of the same shape and unit.
        """
        # What misses at one factor is covered from the next one on.
        needed = np.searchsorted(FACTORS, np.ravel(errors / spread), side="left")
        counts = np.bincount(needed, minlength=len(FACTORS) + 1)
        self.counts[patient] = self.counts.get(patient, 0) + counts

    def losses(self) -> np.ndarray:
        """float64 [patients, factors], the share of each patient's pixels that is missed."""
        counts = np.stack(list(self.counts.values()))
        covered = np.cumsum(counts[:, :-1], axis=1) / counts.sum(1, keepdims=True)
        return 1.0 - covered

    def factor(self, alpha: float, delta: float) -> tuple[float, float]:
        """The smallest factor that controls the risk, and the mean loss that it has here.

        Raises:
            ValueError: for too few patients, or a spread that no factor makes wide enough.
        """
        losses = self.losses()
        allowed = largest_risk(len(losses), alpha, delta)
        if allowed is None:
            require_patients(len(losses), alpha, delta)
        risks = losses.mean(0)
        enough = np.flatnonzero(risks <= (allowed or 0.0) + 1e-12)
        if not len(enough):
            raise ValueError(
                f"spread: expected one that grows where the error does. Received: {risks[-1]:.2%} "
                f"of the pixels are missed at {FACTORS[-1]:g} times the spread"
            )
        return float(FACTORS[enough[0]]), float(risks[enough[0]])


def require_patients(patients: int, alpha: float, delta: float) -> None:
    """A ValueError where so many patients cannot show that at most `alpha` is missed."""
    needed = patients_needed(alpha, delta)
    if patients < needed:
        supported = 1 - delta ** (1 / max(patients, 1))
        raise ValueError(
            f"patients: expected {needed} or more for alpha={alpha:g} and delta={delta:g}. "
            f"Received: {patients}, which are enough for alpha={math.ceil(supported * 100) / 100:g}"
        )
