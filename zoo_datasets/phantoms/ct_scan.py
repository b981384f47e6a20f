"""A CT scanner that measures a simulated body."""

import dataclasses

import numpy as np
from scipy.ndimage import uniform_filter1d

from zoo.physics import noise, radon
from zoo_datasets.phantoms import anatomy
from zoo_datasets.phantoms.body import Patient

FIELD_MM = 358.4  # field of view: 256 pixels of 1.4 mm


STORED = (-1024, 3071)  # HU range of a scanner's 12-bit files


@dataclasses.dataclass(frozen=True)
class Scan:
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


class Scanner:
    """The operators of one protocol, kept between patients."""

    def __init__(self, scan: Scan):
        self.scan = scan
        self.fine = radon.ParallelBeam(
            2 * scan.size, scan.spacing / 2, scan.views, detector_mm=scan.spacing
        )
        self.beam = radon.ParallelBeam(scan.size, scan.spacing, scan.views)

    def project(self, hu: np.ndarray) -> np.ndarray:
        """Noise-free line integrals of fine HU slices: `[..., 2n, 2n]` to `[..., views, n]`."""
        attenuation = radon.hu_to_attenuation(hu)
        for axis in (-2, -1):  # the detector's aperture, two fine pixels wide
            attenuation = uniform_filter1d(attenuation, 2, axis=axis, mode="nearest")
        # A filter of even length moves every image of the slice alike, by half a fine pixel.
        return self.fine.forward(attenuation)

    def reconstruct(self, sinogram: np.ndarray) -> np.ndarray:
        """Line integrals `[..., views, n]` to stored HU `[..., n, n]`, int16."""
        hu = radon.attenuation_to_hu(self.beam.fbp(sinogram, "hann"))
        return np.clip(np.rint(hu), *STORED).astype(np.int16)

    def patient(self, seed: int, number: int, clean: bool = False) -> dict[str, np.ndarray]:
        """Patient `number`: `source` and `target`, int16 HU `[slices, n, n]`.

        Everything follows from (seed, number). `clean` adds the noise-free reconstruction, which
        is what a perfect denoiser would return.
        """
        scan = self.scan
        rng = np.random.default_rng([seed, number])
        body = Patient(rng, 2 * scan.size, scan.spacing / 2)
        # One slice somewhere in each equal part of the length, all levels in every patient.
        z = (np.arange(scan.slices) + rng.uniform(size=scan.slices)) * anatomy.LENGTH / scan.slices
        p = self.project(np.stack([body.slice(height) for height in z]))
        photons = noise.tube_current(p, scan.photons)
        normal = noise.low_dose_sinogram(p, photons, scan.electronic, rng)
        low = noise.low_dose_sinogram(p, scan.dose * photons, scan.electronic, rng)
        images = {"source": self.reconstruct(low), "target": self.reconstruct(normal)}
        return images | ({"clean": self.reconstruct(p)} if clean else {})
