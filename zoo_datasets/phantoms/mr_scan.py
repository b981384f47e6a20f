"""An MR scanner that measures simulated heads.

What a scanner adds to `brain.Brain`'s signal: partial volume over the slice's thickness, one
receive coil's smooth sensitivity (the same for all contrasts of a patient), Rician noise, and a
fixed gain for each contrast before 12-bit storage. Importable without TensorFlow.
"""

import dataclasses

import numpy as np

from zoo_datasets.features import Image
from zoo_datasets.phantoms import brain
from zoo_datasets.phantoms.slices import heights

MAXIMUM = 4095  # 12 bits
WINDOW = (0.0, float(MAXIMUM))
# Stored value of signal 1; fat, fluid and oedema just fit.
GAIN = {"T1": 5000.0, "T2": 5000.0, "FLAIR": 12000.0}


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A protocol: `slices` images of `size` x `size` pixels a patient, `thickness` mm thick.

    `contrasts` are measured one after the other, each with noise of its own, of one level as it
    is stored.
    """

    size: int = 128
    slices: int = 6
    thickness: float = 4.0
    noise: tuple[float, float] = (0.006, 0.014)  # standard deviation, of T1's signal 1; by patient
    contrasts: tuple[str, ...] = ("T1", "T2")

    @property
    def spacing(self) -> float:
        """Pixel pitch in mm."""
        return brain.FIELD_MM / self.size


def stored(signal: np.ndarray, contrast: str) -> np.ndarray:
    """Signal as a scanner's files hold it: uint16, up to `MAXIMUM`."""
    return np.clip(np.rint(GAIN[contrast] * signal), 0, MAXIMUM).astype(np.uint16)


def image(size: int, spacing: float) -> Image:
    """How the images of these and other simulated heads are stored."""
    return Image((size, size, 1), np.uint16, "MR", "signal", WINDOW, (spacing, spacing))


def patient(protocol: Protocol, seed: int, number: int) -> dict[str, np.ndarray]:
    """Patient `number`: uint16 signal by contrast, and "labels" uint8, each `[slices, n, n]`.

    Everything follows from (seed, number). The labels are indices of `brain.LABELS`.
    """
    rng = np.random.default_rng([seed, number])
    head = brain.Brain(rng, protocol.size, protocol.spacing)
    zs = heights(rng, protocol.slices, brain.EXTENT)
    coil = brain.bias_field(rng, protocol.size, protocol.spacing)
    sigma = rng.uniform(*protocol.noise)
    images: dict[str, list[np.ndarray]] = {name: [] for name in (*protocol.contrasts, "labels")}
    for z in zs.tolist():
        fractions = head.fractions(z, protocol.thickness)
        images["labels"].append(brain.labels_of(fractions))
        for contrast in protocol.contrasts:
            signal = coil * head.signal_of(fractions, z, contrast)
            signal = brain.rician(signal, sigma * GAIN["T1"] / GAIN[contrast], rng)
            images[contrast].append(stored(signal, contrast))
    return {name: np.stack(slices) for name, slices in images.items()}
