"""MR and CT of the simulated heads of `phantoms.brain`: the examples of `mr_ct/phantom`.

Both scanners see the same tissue fractions of a slice, so a pair is aligned exactly:

- MR: the T1-weighted spin echo of `brain.Brain`, one coil's sensitivity, Rician noise, 12 bits;
- CT: the tissues' HU averaged by their fractions, grains in the bone, a scanner's blur, and
  noise with the short correlation that a smooth kernel leaves.

Bone, air and fluid are alike dark in the MR and far apart in HU: what a network has to learn
is where in a head it is.

With `misaligned` the CT of a training patient is displaced, smoothly and in each slice at random;
those that a model is chosen and judged on stay aligned.
"""

import dataclasses

import numpy as np
from scipy.ndimage import gaussian_filter

from zoo_datasets.cases import Case, Examples
from zoo_datasets.phantoms import brain, ct_scan, displaced, mr_scan
from zoo_datasets.phantoms.noise import correlated
from zoo_datasets.phantoms.slices import heights
from zoo_datasets.simulated import SimulatedConfig, slices

_BOTTOM = -14.0  # mm, lower end of a volume


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Both protocols: `slices` images of `size` x `size` pixels a patient, or one volume.

    `misaligned` is how far training targets are displaced at most, drawn for each slice, in pixels.
    """

    size: int = 256
    slices: int = 6
    mr_noise: tuple[float, float] = (0.006, 0.014)  # standard deviation, of signal 1; by patient
    ct_noise: tuple[float, float] = (3.0, 6.0)  # HU, by patient
    blur: float = 0.45  # of the CT: standard deviation in mm
    misaligned: tuple[float, float] | None = None
    depth: int = 0  # slices of a volume, a pixel apart from the temporal lobes up; 0: no volume

    @property
    def spacing(self) -> float:
        """Pixel pitch in mm."""
        return brain.FIELD_MM / self.size

    def heights(self, rng: np.random.Generator) -> np.ndarray:
        """Of a patient's slices, in mm."""
        if self.depth:
            return _BOTTOM + (np.arange(self.depth) + 0.5) * self.spacing
        return heights(rng, self.slices, brain.EXTENT)


def patient(protocol: Protocol, seed: int, number: int) -> dict[str, np.ndarray]:
    """Patient `number`: "mr" uint16, "ct" int16 HU, "labels" uint8, each `[slices, n, n]`.

    Everything follows from (seed, number). The labels are indices of `brain.LABELS`.
    """
    rng = np.random.default_rng([seed, number])
    head = brain.Brain(rng, protocol.size, protocol.spacing)
    zs = protocol.heights(rng)
    coil = brain.bias_field(rng, protocol.size, protocol.spacing)
    sigma, noise = rng.uniform(*protocol.mr_noise), rng.uniform(*protocol.ct_noise)
    values = brain.draw_hu(rng)
    images: dict[str, list[np.ndarray]] = {"mr": [], "ct": [], "labels": []}
    for z in zs.tolist():
        fractions = head.fractions(z)
        signal = brain.rician(coil * head.signal_of(fractions, z, "T1"), sigma, rng)
        images["mr"].append(mr_scan.stored(signal, "T1"))
        hu = np.tensordot(values, fractions, 1)
        hu += (
            fractions[brain.BONE].sum(0)
            * 90
            * correlated(rng, protocol.size, 1.3 / protocol.spacing)
        )
        hu = gaussian_filter(hu, protocol.blur / protocol.spacing)
        hu += noise * correlated(rng, protocol.size, 0.5 / protocol.spacing)
        images["ct"].append(ct_scan.stored(hu))
        images["labels"].append(brain.labels_of(fractions))
    return {name: np.stack(stack) for name, stack in images.items()}


def read(case: Case, config: SimulatedConfig[Protocol]) -> Examples:
    """The slices of a simulated patient, or the volume."""
    number = case.facts["number"]
    images = patient(config.protocol, config.seed, number)
    labels = {"source_label": images["labels"], "target_label": images["labels"]}
    if config.protocol.misaligned and number < config.patients[0]:  # of the split "train"
        rng = np.random.default_rng([config.seed, number, 1])
        reach = config.protocol.misaligned
        fields = [displaced.field(rng, config.protocol.size, reach) for _ in images["ct"]]
        images["ct"] = _moved(images["ct"], fields)
        labels["target_label"] = _moved(images["labels"], fields, labels=True)
    stacks = {"source": images["mr"], "target": images["ct"]} | labels
    if config.protocol.depth:
        stacks = {name: stack[None, ..., None] for name, stack in stacks.items()}
    yield from slices(case, stacks)


def _moved(stack: np.ndarray, fields: list[np.ndarray], labels: bool = False) -> np.ndarray:
    pairs = zip(stack, fields, strict=True)
    return np.stack([displaced.moved(image, field, labels) for image, field in pairs])
