"""A CT scanner that measures a simulated body."""

import dataclasses
import functools

import numpy as np
from scipy.ndimage import uniform_filter1d

from zoo.physics import noise, radon
from zoo_datasets.phantoms import anatomy
from zoo_datasets.phantoms.body import Patient
from zoo_datasets.phantoms.slices import heights

FIELD_MM = 358.4  # field of view: 256 pixels of 1.4 mm
STORED = (-1024, 3071)  # HU range of a scanner's 12-bit files


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A scan protocol; `photons` is meant as in `zoo.physics.noise.tube_current`.

    A view of a coarse protocol stands for the photons of many views and wide detectors, so its
    noise in HU is set through `photons` and `electronic` together: their ratio keeps the share of
    electronic noise, their size sets the level.
    """

    size: int = 256
    views: int = 512
    photons: float = 2.4e4
    electronic: float = 7.0
    dose: float = 0.25
    slices: int = 4

    @property
    def spacing(self) -> float:
        """Pixel and detector pitch of the reconstruction in mm."""
        return FIELD_MM / self.size


def stored(hu: np.ndarray) -> np.ndarray:
    """HU as a scanner's files hold them: int16, within `STORED`."""
    return np.clip(np.rint(hu), *STORED).astype(np.int16)


class Scanner:
    """The operators of one protocol, kept between patients."""

    def __init__(self, protocol: Protocol):
        self.protocol = protocol
        self.fine = radon.ParallelBeam(
            2 * protocol.size, protocol.spacing / 2, protocol.views, detector_mm=protocol.spacing
        )
        self.beam = radon.ParallelBeam(protocol.size, protocol.spacing, protocol.views)

    def project(self, hu: np.ndarray) -> np.ndarray:
        """Noise-free line integrals of fine HU slices: `[..., 2n, 2n]` to `[..., views, n]`."""
        attenuation = radon.hu_to_attenuation(hu)
        for axis in (-2, -1):  # the detector's aperture, two fine pixels wide
            attenuation = uniform_filter1d(attenuation, 2, axis=axis, mode="nearest")
        # A filter of even length moves every image of the slice alike, by half a fine pixel.
        return self.fine.forward(attenuation)

    def reconstruct(self, sinogram: np.ndarray) -> np.ndarray:
        """Line integrals `[..., views, n]` to stored HU `[..., n, n]`, int16."""
        return stored(radon.attenuation_to_hu(self.beam.fbp(sinogram, "hann")))

    def patient(self, seed: int, number: int, clean: bool = False) -> dict[str, np.ndarray]:
        """Patient `number`: `source` and `target`, int16 HU `[slices, n, n]`.

        Everything follows from (seed, number). `clean` adds the noise-free reconstruction, which
        is what a perfect denoiser would return.
        """
        protocol = self.protocol
        rng = np.random.default_rng([seed, number])
        body = Patient(rng, 2 * protocol.size, protocol.spacing / 2)
        z = heights(rng, protocol.slices, anatomy.EXTENT)
        p = self.project(np.stack([body.slice(height) for height in z]))
        photons = noise.tube_current(p, protocol.photons)
        normal = noise.low_dose_sinogram(p, photons, protocol.electronic, rng)
        low = noise.low_dose_sinogram(p, protocol.dose * photons, protocol.electronic, rng)
        images = {"source": self.reconstruct(low), "target": self.reconstruct(normal)}
        return images | ({"clean": self.reconstruct(p)} if clean else {})


scanner = functools.lru_cache(maxsize=2)(Scanner)
