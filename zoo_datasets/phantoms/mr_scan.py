"""Scans of random brains: the examples of `mri_contrast` and `brain_seg`.

What a scanner adds to `brain.Brain`'s signal: partial volume over the slice's thickness, one
receive coil's smooth sensitivity (the same for all contrasts of a patient), Rician noise, and a
fixed gain for each contrast before 12-bit storage. Importable without TensorFlow.
"""

import dataclasses

import numpy as np

from zoo_datasets.phantoms import brain

MAXIMUM = 4095  # 12 bits
GAIN = {"T1": 5000.0, "T2": 5000.0}  # stored value of signal 1; fat and fluid just fit


@dataclasses.dataclass(frozen=True)
class Scan:
    """A protocol: `slices` images of `size` x `size` pixels a patient, `thickness` mm thick."""

    size: int = 128
    slices: int = 6
    thickness: float = 4.0
    noise: tuple[float, float] = (0.006, 0.014)  # standard deviation, of signal 1; by patient

    @property
    def spacing(self) -> float:
        """Pixel pitch in mm."""
        return brain.FIELD_MM / self.size


def patient(scan: Scan, seed: int, number: int) -> dict[str, np.ndarray]:
    """Patient `number`: "T1" and "T2" uint16 signal, "labels" uint8, each `[slices, n, n]`.

    Everything follows from (seed, number). The labels are indices of `brain.LABELS`.
    """
    rng = np.random.default_rng([seed, number])
    head = brain.Brain(rng, scan.size, scan.spacing)
    low, high = brain.EXTENT
    # One slice somewhere in each equal part of the brain.
    zs = low + (np.arange(scan.slices) + rng.uniform(size=scan.slices)) * (high - low) / scan.slices
    coil = brain.bias_field(rng, scan.size, scan.spacing)
    sigma = rng.uniform(*scan.noise)
    images = {"T1": [], "T2": [], "labels": []}
    for z in zs.tolist():
        fractions = head.fractions(z, scan.thickness)
        images["labels"].append(brain.labels_of(fractions))
        for contrast, gain in GAIN.items():
            signal = brain.rician(coil * head.signal_of(fractions, z, contrast), sigma, rng)
            stored = np.clip(np.rint(gain * signal), 0, MAXIMUM).astype(np.uint16)
            images[contrast].append(stored)
    return {name: np.stack(slices) for name, slices in images.items()}
