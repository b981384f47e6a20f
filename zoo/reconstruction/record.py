"""What a reconstruction tells beside its image."""

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass
class Record:
    """How an image came about.

    Attributes:
        method: its name.
        seconds: that it took.
        iterations: of the last solve.
        objective: what was minimised, at the image; None where nothing is.
        gap: (objective - lower bound) / objective, the certificate: no image has an objective lower
            by more than this share. None where there is none.
        change: of a method without a certificate, the last change of the image as a share of it.
        lipschitz: of pnp, how far its denoiser moves images near the first one apart.
        damping: of pnp, what its denoiser's answer counts beside its input.
        converged: whether the gap or change asked for was reached, or a rule stopped in time.
        lam: weight of the prior, in the unit of the objective per that of the image.
        why: how `lam` was chosen.
        tried: (lam, what the rule looks at) of each solve; of dip with the iteration for lam.
        notes: what to read the image with, such as a bound that it touches.
    """

    method: str
    seconds: float = 0.0
    iterations: int = 0
    objective: float | None = None
    gap: float | None = None
    change: float | None = None
    lipschitz: float | None = None
    damping: float | None = None
    converged: bool = True
    lam: float | None = None
    why: str = ""
    tried: list[tuple[float, float]] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """For a JSON file, which has no number that is not finite: None stands there."""
        return {name: _finite(value) for name, value in dataclasses.asdict(self).items()}


def _finite(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


Result = tuple[np.ndarray, Record]
