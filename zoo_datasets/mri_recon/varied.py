"""Scans of many kinds of object, fully sampled or not: the examples of `mri_recon/varied`.

To train on: the objects of `sr/varied_mr` (simulated heads, the average brain, random shapes) at
any level of signal and noise. Half of the subjects are measured on all lines, the others on those
of the protocol's mask, so that one network learns both.
"""

import dataclasses

import numpy as np

from zoo_datasets.mri_recon import phantom
from zoo_datasets.phantoms import mr_varied

LEVEL = (0.35, 1.0)  # signal of the brightest half per cent of pixels
NOISE = (0.004, 0.08)  # standard deviation in the real and in the imaginary part


def patient(
    protocol: phantom.Protocol, seed: int, number: int
) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Slices of subject `number`: "", k-space `[n, n, 2]` and image `[n, n, 1]`, float32.

    Everything follows from (seed, number) and the protocol, whose `noise` is not used.

    Raises:
        FileNotFoundError: without `nilearn`.
    """
    rng = np.random.default_rng([seed, number])
    painted = mr_varied.draw(rng, protocol.slices, 2 * protocol.size, protocol.spacing / 2)
    painted *= rng.uniform(*LEVEL) / np.quantile(painted, 0.995)
    protocol = dataclasses.replace(
        protocol,
        noise=float(np.exp(rng.uniform(*np.log(NOISE)))),
        acceleration=float(rng.choice([1.0, protocol.acceleration])),
    )
    return phantom.measured(protocol, painted, [""] * protocol.slices, rng)
