"""Digital patients scanned at high and at low resolution: the examples of `sr`.

The anatomy is that of `ldct` (chest and abdomen, CT) and of `mri_contrast` (head, T1-weighted
MR), painted twice as fine as the high-resolution grid. One scan gives the target and, by physics,
its low-resolution forms: CT averages over wider detectors, MR measures less of k-space. So a pair
shares its noise as two reconstructions of one measurement do. Importable without TensorFlow.
"""

import dataclasses

import numpy as np

from zoo.physics import resolution
from zoo_datasets.phantoms import anatomy, brain, mr_scan
from zoo_datasets.phantoms.body import Patient
from zoo_datasets.phantoms.ct_scan import FIELD_MM, stored
from zoo_datasets.phantoms.noise import fbp_noise
from zoo_datasets.phantoms.slices import heights

CT_NOISE = 10.0  # HU, standard deviation in the target
MR_NOISE = 0.01  # a channel, where fluid has proton density 1: 2.5 % of white matter
_BOTTOM = -14.0  # mm, lowest slice of a volume: the temporal lobes; it ends above the vertex


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What is scanned and how.

    Attributes:
        modality: "CT" or "MR".
        size: rows and columns of the target.
        depth: slices of a volume, or 0 for single slices.
        slices: single slices of each patient.
        scales: low-resolution forms that are made.
        field: field of view in mm.
    """

    modality: str = "CT"
    size: int = 256
    depth: int = 0
    slices: int = 4
    scales: tuple[int, ...] = (2, 4, 8)
    field: float = FIELD_MM

    @property
    def spacing(self) -> float:
        """Pixel pitch of the target in mm, and distance of a volume's slices."""
        return self.field / self.size

    @property
    def dimensions(self) -> int:
        return 3 if self.depth else 2

    def shape(self, scale: int = 1) -> tuple[int, ...]:
        """Shape of an image at 1 / `scale` of the resolution, without channels."""
        size = self.size // scale
        return (self.depth // scale, size, size) if self.depth else (size, size)


def patient(protocol: Protocol, seed: int, number: int) -> list[dict[str, np.ndarray]]:
    """The examples of patient `number`: `target` and `source_x<scale>`, int16 HU or uint16 signal.

    Everything follows from (seed, number). Shapes are `protocol.shape(scale)`.
    """
    rng = np.random.default_rng([seed, number])
    if protocol.modality == "CT":
        return [_ct(protocol, image) for image in _ct_slices(protocol, rng)]
    return [stored_mr(protocol, image) for image in _mr_images(protocol, rng)]


def _ct_slices(protocol: Protocol, rng: np.random.Generator) -> np.ndarray:
    """Scanned slices in HU, float32 `[slices, size, size]`."""
    body = Patient(rng, 2 * protocol.size, protocol.spacing / 2)
    z = heights(rng, protocol.slices, anatomy.EXTENT)
    hu = resolution.block_mean(np.stack([body.slice(height) for height in z]), 2)
    return hu + np.float32(CT_NOISE) * fbp_noise(rng, hu.shape)


def _ct(protocol: Protocol, hu: np.ndarray) -> dict[str, np.ndarray]:
    """Target and sources of one slice, stored as a scanner's 12-bit files hold them."""
    images = {"target": hu}
    images |= {f"source_x{scale}": resolution.block_mean(hu, scale) for scale in protocol.scales}
    return {name: stored(image) for name, image in images.items()}


def _mr_images(protocol: Protocol, rng: np.random.Generator) -> np.ndarray:
    """Scanned complex images `[n, H, W]`, or one volume `[1, D, H, W]`."""
    head = brain.Brain(rng, 2 * protocol.size, protocol.spacing / 2)
    coil = brain.bias_field(rng, 2 * protocol.size, protocol.spacing / 2)
    if protocol.depth:
        z = _BOTTOM + (np.arange(2 * protocol.depth) + 0.5) * protocol.spacing / 2
        painted = (head.volume(z, "T1") * coil)[None]
    else:
        z = heights(rng, protocol.slices, brain.EXTENT)
        painted = head.volume(z, "T1") * coil
    return noisy(protocol, painted, rng)


def noisy(protocol: Protocol, painted: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The complex images of a scan of what is painted twice as fine, fluid of proton density 1."""
    signal = _scanned(painted, protocol, 2)
    noise = rng.standard_normal((2, *signal.shape), np.float32)
    return signal + np.float32(MR_NOISE) * (noise[0] + 1j * noise[1])


def stored_mr(protocol: Protocol, image: np.ndarray) -> dict[str, np.ndarray]:
    """Magnitude images of one complex image or volume."""
    images = {"target": np.abs(image)}
    images |= {f"source_x{scale}": _scanned(image, protocol, scale) for scale in protocol.scales}
    return {name: mr_scan.stored(image, "T1") for name, image in images.items()}


def _scanned(image: np.ndarray, protocol: Protocol, scale: int) -> np.ndarray:
    """Magnitude at 1 / `scale` of the resolution."""
    if not protocol.depth:
        return resolution.crop_kspace(image, scale)
    # A volume ends amidst the head, where the DFT would jump to the air above the vertex: with its
    # mirror image behind it, it goes on smoothly, as the head does beyond an excited slab.
    mirrored = np.concatenate([image, np.flip(image, -3)], axis=-3)
    low = resolution.crop_kspace(mirrored, scale, (-3, -2, -1))
    return low[..., : low.shape[-3] // 2, :, :]
