"""How long a run takes: first by its arithmetic, then by what was measured."""

from collections.abc import Sequence

from zoo.recipe import Phase

_OVERHEAD, _COMPILATION = 0.02, 20.0  # seconds a step beside its arithmetic, and a phase
_VALIDATION = 2.0  # seconds
_MEASURED = 3  # calls after which the measured pace is believed


class Pace:
    """The seconds that are left of a run.

    Args:
        phases: of the run.
        flops: of one step of each.
        speed: operations a second of this machine, measured.

    Attributes:
        validation: seconds of one; a guess until somebody measures it.
    """

    def __init__(self, phases: Sequence[Phase], flops: Sequence[float], speed: float):
        self.phases = phases
        self.expected = [each / speed + _OVERHEAD for each in flops]
        self.validation = _VALIDATION
        self.spent = self.foreseen = 0.0  # seconds of the steps that were measured
        self.calls = 0

    @property
    def known(self) -> bool:
        """Whether enough was measured."""
        return self.calls >= _MEASURED

    def measured(self, phase: Phase, count: int, seconds: float) -> None:
        """So many steps of a phase took so long, compilation not among it."""
        place = next(i for i, each in enumerate(self.phases) if each is phase)
        self.spent += seconds
        self.foreseen += count * self.expected[place]
        self.calls += 1

    def left(self, done: int, validations: int) -> float:
        """Seconds from a step to the end, with so many validations still to come."""
        ratio = self.spent / self.foreseen if self.known else 1.0
        seconds, first = validations * self.validation, 0
        for phase, expected in zip(self.phases, self.expected, strict=True):
            steps = min(phase.steps, max(0, first + phase.steps - done))
            seconds += steps * expected * ratio
            begun = self.known and steps < phase.steps
            if steps and not begun:
                seconds += _COMPILATION
            first += phase.steps
        return seconds


def duration(seconds: float) -> str:
    """Such as "3 minutes"."""
    if seconds < 90:
        return f"{max(10, round(seconds, -1)):.0f} seconds"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"


def in_words(phase: Phase) -> str:
    """Such as "8x8 fade (40 steps, batch 16, 8 x 8 pixels)"."""
    size = f", {phase.size} x {phase.size} pixels" if phase.size else ""
    return f"{phase.name} ({phase.steps} steps, batch {phase.batch_size}{size})"
