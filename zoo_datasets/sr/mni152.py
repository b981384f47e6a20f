"""A real average brain, deformed, at high and at low resolution: the `mni152` examples of `sr`."""

import numpy as np

from zoo_datasets.phantoms import atlas, brain, mr_scan
from zoo_datasets.phantoms.slices import heights
from zoo_datasets.sr import phantom


def patient(protocol: phantom.Protocol, seed: int, number: int) -> list[dict[str, np.ndarray]]:
    """T1-weighted slices of subject `number`, as `phantom.patient` gives them.

    Everything follows from (seed, number).

    Raises:
        FileNotFoundError: without `nilearn`.
    """
    rng = np.random.default_rng([seed, number])
    size, spacing = 2 * protocol.size, protocol.spacing / 2
    head = atlas.Subject(rng, size, spacing)
    coil = brain.bias_field(rng, size, spacing)
    z = heights(rng, protocol.slices, atlas.EXTENT)
    painted = np.stack([head.signal(head.slice(height), "T1") for height in z.tolist()])
    # On the phantoms' scale of signal, so that what is stored is `atlas.GAIN` times the signal.
    painted *= coil * np.float32(atlas.GAIN["T1"] / mr_scan.GAIN["T1"])
    pitch = {"spacing": np.array([protocol.spacing, protocol.spacing], np.float32)}
    images = phantom.noisy(protocol, painted, rng)
    return [phantom.stored_mr(protocol, image) | pitch for image in images]
