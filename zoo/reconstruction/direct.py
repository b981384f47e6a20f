"""Images in one step, without a prior: filtered back-projection and zero filling."""

import time

from zoo.physics.operators import Operator
from zoo.reconstruction.record import Record, Result


def fbp(measured, operator: Operator, filter: str = "ramp") -> Result:
    """Filtered back-projection; `filter` is "ramp" or "hann".

    Raises:
        ValueError: for an unknown filter, or an operator that is no tomography.
    """
    if not hasattr(operator, "angles"):
        raise ValueError(f"operator: expected rays for fbp. Received: {type(operator).__name__}")
    begun = time.perf_counter()
    image = operator.pseudo_inverse(measured, filter).numpy()  # type: ignore[call-arg] # tomography's
    return image, Record("fbp", time.perf_counter() - begun)


def zero_filled(measured, operator: Operator) -> Result:
    """The operator's quick inverse: what is not measured counts as zero."""
    begun = time.perf_counter()
    image = operator.pseudo_inverse(measured).numpy()
    return image, Record("zero_filled", time.perf_counter() - begun)
