"""MR and CT of the simulated heads of `mri_contrast`: the examples of `mr_ct/phantom`.

Both scanners see the same tissue fractions of a slice, so a pair is aligned exactly:

- MR: the T1-weighted spin echo of `brain.Brain`, one coil's sensitivity, Rician noise, 12 bits;
- CT: the tissues' HU averaged by their fractions, grains in the bone, a scanner's blur, and
  noise with the short correlation that a smooth kernel leaves.

Bone, air and fluid are alike dark in the MR and far apart in HU: what a network has to learn
is where in a head it is.
"""

import dataclasses

import numpy as np
from scipy.ndimage import gaussian_filter

from zoo_datasets.cases import Case, Examples
from zoo_datasets.phantoms import brain
from zoo_datasets.phantoms.brain import HU
from zoo_datasets.phantoms.noise import correlated
from zoo_datasets.simulated import paired_slices

MAXIMUM = 4095  # the MR has 12 bits
GAIN = 5000.0  # stored value of signal 1; fat just fits
STORED = (-1024, 3071)  # HU range of a scanner's 12-bit files


@dataclasses.dataclass(frozen=True)
class Scan:
    """Both protocols: `slices` images of `size` x `size` pixels a patient."""

    size: int = 256
    slices: int = 6
    mr_noise: tuple[float, float] = (0.006, 0.014)  # standard deviation, of signal 1; by patient
    ct_noise: tuple[float, float] = (3.0, 6.0)  # HU, by patient
    blur: float = 0.45  # of the CT: standard deviation in mm

    @property
    def spacing(self) -> float:
        """Pixel pitch in mm."""
        return brain.FIELD_MM / self.size


def patient(scan: Scan, seed: int, number: int) -> dict[str, np.ndarray]:
    """Patient `number`: "mr" uint16, "ct" int16 HU, "labels" uint8, each `[slices, n, n]`.

    Everything follows from (seed, number). The labels are indices of `brain.LABELS`.
    """
    rng = np.random.default_rng([seed, number])
    head = brain.Brain(rng, scan.size, scan.spacing)
    low, high = brain.EXTENT
    # One slice somewhere in each equal part of the brain.
    zs = low + (np.arange(scan.slices) + rng.uniform(size=scan.slices)) * (high - low) / scan.slices
    coil = brain.bias_field(rng, scan.size, scan.spacing)
    sigma, noise = rng.uniform(*scan.mr_noise), rng.uniform(*scan.ct_noise)
    values = np.float32([mean + spread * rng.standard_normal() for mean, spread in HU.values()])
    bone = [list(HU).index(name) for name in ("bone", "marrow")]
    images = {"mr": [], "ct": [], "labels": []}
    for z in zs.tolist():
        fractions = head.fractions(z)
        signal = brain.rician(coil * head.signal_of(fractions, z, "T1"), sigma, rng)
        images["mr"].append(np.clip(np.rint(GAIN * signal), 0, MAXIMUM).astype(np.uint16))
        hu = np.tensordot(values, fractions, 1)
        hu += fractions[bone].sum(0) * 90 * correlated(rng, scan.size, 1.3 / scan.spacing)
        hu = gaussian_filter(hu, scan.blur / scan.spacing)
        hu += noise * correlated(rng, scan.size, 0.5 / scan.spacing)
        images["ct"].append(np.clip(np.rint(hu), *STORED).astype(np.int16))
        images["labels"].append(brain.labels_of(fractions))
    return {name: np.stack(slices) for name, slices in images.items()}


def read(case: Case, config) -> Examples:
    """The slices of a simulated patient; `config` has the `scan` and `seed`."""
    images = patient(config.scan, config.seed, case.facts["number"])
    yield from paired_slices(case, images["mr"], images["ct"], images["labels"])
