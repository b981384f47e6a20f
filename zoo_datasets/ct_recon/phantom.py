"""Few and noisy projections of the digital patients of `ldct`: the examples of `ct_recon/phantom`.

A slice is painted on a grid twice as fine as the image and projected from there onto detectors
twice as fine, whose pairs are averaged, at an eighth of the views that the image needs. The
measurement is y = A x + e with e the noise of few photons; the target is what was painted, averaged
over the four fine pixels of each pixel: no reconstruction's noise or blur is in it.

Sinogram and image belong together by `zoo.physics.radon.ParallelBeam(size, spacing, views)`:

    p = A mu,   mu = (HU / 1000 + 1) MU_WATER,   MU_WATER = 0.0192 per mm.
"""

import dataclasses
import functools

import numpy as np

from zoo.physics import noise, radon
from zoo_datasets.cases import Case, Examples
from zoo_datasets.phantoms import anatomy, ct_scan
from zoo_datasets.phantoms.body import Patient


@dataclasses.dataclass(frozen=True)
class Scan:
    """A protocol; `photons` and `electronic` as in `zoo.physics.noise`."""

    size: int = 256
    views: int = 64  # a multiple of 4
    photons: float = 2.4e4
    electronic: float = 7.0
    slices: int = 4

    @property
    def spacing(self) -> float:
        """Pixel and detector pitch in mm."""
        return ct_scan.FIELD_MM / self.size

    @property
    def detectors(self) -> int:
        """Detector elements of a view: they cover the image's diagonal."""
        return radon.ParallelBeam(self.size, self.spacing, self.views).detectors


class Scanner:
    """The operators of a protocol, kept between patients."""

    def __init__(self, scan: Scan):
        self.beam = radon.ParallelBeam(scan.size, scan.spacing, scan.views)
        half = scan.spacing / 2
        self.fine = radon.ParallelBeam(
            2 * scan.size, half, scan.views, 2 * self.beam.detectors, half
        )

    def project(self, hu: np.ndarray) -> np.ndarray:
        """Noise-free line integrals of fine HU slices: `[..., 2n, 2n]` to `[..., views, m]`."""
        p = self.fine.forward(radon.hu_to_attenuation(hu))
        return p.reshape(*p.shape[:-1], -1, 2).mean(-1)

    def reconstruct(self, sinogram: np.ndarray) -> np.ndarray:
        """Line integrals `[..., views, m]` to stored HU `[..., n, n]`, int16."""
        hu = radon.attenuation_to_hu(self.beam.fbp(sinogram, "hann"))
        return np.clip(np.rint(hu), *ct_scan.STORED).astype(np.int16)


scanner = functools.lru_cache(maxsize=2)(Scanner)


def patient(scan: Scan, seed: int, number: int) -> dict[str, np.ndarray]:
    """Patient `number`: "sinogram" float32 `[slices, views, detectors]`, "image" int16 HU.

    Everything follows from (seed, number). The image is `[slices, n, n]`.
    """
    rng = np.random.default_rng([seed, number])
    body = Patient(rng, 2 * scan.size, scan.spacing / 2)
    z = (np.arange(scan.slices) + rng.uniform(size=scan.slices)) * anatomy.LENGTH / scan.slices
    # Texture goes below air in places, where there is no attenuation to measure.
    fine = np.maximum(np.stack([body.slice(height) for height in z]), -1000.0)
    p = scanner(scan).project(fine)
    photons = noise.tube_current(p, scan.photons)
    image = fine.reshape(scan.slices, scan.size, 2, scan.size, 2).mean((2, 4))
    return {
        "sinogram": noise.low_dose_sinogram(p, photons, scan.electronic, rng),
        "image": np.clip(np.rint(image), *ct_scan.STORED).astype(np.int16),
    }


def read(case: Case, config) -> Examples:
    """The slices of a simulated patient; `config` has the `scan`, `seed` and `fbp`."""
    scan = config.scan
    images = patient(scan, config.seed, case.facts["number"])
    sources = images["sinogram"]
    if config.fbp:
        sources = scanner(scan).reconstruct(sources)
    for i in range(scan.slices):
        key = f"{case.key}-{i}"
        yield (
            key,
            {
                "source": sources[i, ..., None],
                "target": images["image"][i, ..., None],
                "patient": case.patient,
                "name": key,
            },
        )
