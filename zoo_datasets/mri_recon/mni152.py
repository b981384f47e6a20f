"""Simulated Cartesian scans of a real average brain, deformed: the `mni152` examples.

The measurement is that of `phantom`; the heads are those of `zoo_datasets.phantoms.atlas`.
"""

import numpy as np

from zoo_datasets.mri_recon import phantom
from zoo_datasets.phantoms import atlas, brain
from zoo_datasets.phantoms.slices import heights


def patient(
    protocol: phantom.Protocol, seed: int, number: int
) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Slices of subject `number`: contrast, k-space `[n, n, 2]` and image `[n, n, 1]`, float32.

    The signal is 0 to about 1, on the scale that `atlas.GAIN` stores. Everything follows from
    (seed, number) and the protocol.

    Raises:
        FileNotFoundError: without `nilearn`.
    """
    rng = np.random.default_rng([seed, number])
    head = atlas.Subject(rng, 2 * protocol.size, protocol.spacing / 2)
    coil = brain.bias_field(rng, 2 * protocol.size, protocol.spacing / 2)
    z = heights(rng, protocol.slices, atlas.EXTENT)
    contrasts = rng.choice(atlas.CONTRASTS, protocol.slices).tolist()
    painted = [
        atlas.GAIN[contrast] / atlas.MAXIMUM * coil * head.signal(head.slice(at), contrast)
        for at, contrast in zip(z.tolist(), contrasts, strict=True)
    ]
    return phantom.measured(protocol, np.array(painted, np.float32), contrasts, rng)
