"""A real average brain, deformed, at high and at low resolution: the `mni152` examples of `sr`."""

import numpy as np

from zoo_datasets.phantoms import atlas, brain
from zoo_datasets.sr import phantom


def patient(scan: phantom.Scan, seed: int, number: int) -> list[dict[str, np.ndarray]]:
    """T1-weighted slices of subject `number`, as `phantom.patient` gives them.

    Everything follows from (seed, number).

    Raises:
        FileNotFoundError: without `nilearn`.
    """
    rng = np.random.default_rng([seed, number])
    size, spacing = 2 * scan.size, scan.spacing / 2
    head = atlas.Subject(rng, size, spacing)
    coil = brain.bias_field(rng, size, spacing)
    low, high = atlas.EXTENT
    z = low + (np.arange(scan.slices) + rng.uniform(size=scan.slices)) * (high - low) / scan.slices
    painted = np.stack([head.signal(head.slice(height), "T1") for height in z.tolist()])
    # On the phantoms' scale of signal, so that what is stored is `atlas.GAIN` times the signal.
    painted *= coil * np.float32(atlas.GAIN["T1"] / phantom.GAIN["T1"])
    return [phantom.stored_mr(scan, image) for image in phantom.noisy(scan, painted, rng)]
