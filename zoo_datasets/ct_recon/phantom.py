"""Few and noisy projections of the digital patients of `ldct`: the examples of `ct_recon/phantom`.

A slice is painted on a grid twice as fine as the image and projected from there onto detectors
twice as fine, whose pairs are averaged, at an eighth of the views that the image needs. The
measurement is y = A x + e with e the noise of few photons; the target is what was painted, averaged
over the four fine pixels of each pixel: no reconstruction's noise or blur is in it. Where a config
splits the views, training sees reconstructions of their parts alone.

Sinogram and image belong together by `zoo.physics.radon.ParallelBeam(size, spacing, views)`:

    p = A mu,   mu = (HU / 1000 + 1) MU_WATER,   MU_WATER = 0.0192 per mm.
"""

import dataclasses
import functools
from typing import Any

import numpy as np

from zoo.physics import noise, radon
from zoo_datasets.cases import Case, Examples
from zoo_datasets.phantoms import anatomy, ct_scan
from zoo_datasets.phantoms.body import Patient
from zoo_datasets.phantoms.slices import heights
from zoo_datasets.simulated import slices

FILTER = "hann"  # of filtered back-projection


@dataclasses.dataclass(frozen=True)
class Protocol:
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
    def beam(self) -> dict[str, Any]:
        """The arguments of `radon.ParallelBeam`: detectors cover the image's diagonal."""
        detectors = radon.ParallelBeam(self.size, self.spacing, self.views).detectors
        return {
            "size": self.size,
            "spacing_mm": self.spacing,
            "views": self.views,
            "detectors": detectors,
            "detector_mm": self.spacing,
        }


class Scanner:
    """The operators of a protocol, kept between patients."""

    def __init__(self, protocol: Protocol):
        self.beam = radon.ParallelBeam(protocol.size, protocol.spacing, protocol.views)
        half = protocol.spacing / 2
        self.fine = radon.ParallelBeam(
            2 * protocol.size, half, protocol.views, 2 * self.beam.detectors, half
        )

    def project(self, hu: np.ndarray) -> np.ndarray:
        """Noise-free line integrals of fine HU slices: `[..., 2n, 2n]` to `[..., views, m]`."""
        p = self.fine.forward(radon.hu_to_attenuation(hu))
        return p.reshape(*p.shape[:-1], -1, 2).mean(-1)

    def reconstruct(self, sinogram: np.ndarray) -> np.ndarray:
        """Line integrals `[..., views, m]` to stored HU `[..., n, n]`, int16."""
        return ct_scan.stored(radon.attenuation_to_hu(self.beam.fbp(sinogram, FILTER)))


scanner = functools.lru_cache(maxsize=2)(Scanner)


def patient(protocol: Protocol, seed: int, number: int) -> dict[str, np.ndarray]:
    """Patient `number`: "sinogram" float32 `[slices, views, detectors]`, "image" int16 HU.

    Everything follows from (seed, number). The image is `[slices, n, n]`.
    """
    rng = np.random.default_rng([seed, number])
    body = Patient(rng, 2 * protocol.size, protocol.spacing / 2)
    z = heights(rng, protocol.slices, anatomy.EXTENT)
    # Texture goes below air in places, where there is no attenuation to measure.
    fine = np.maximum(np.stack([body.slice(height) for height in z]), -1000.0)
    return measured(protocol, fine, rng)


def measured(
    protocol: Protocol, fine: np.ndarray, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """What the protocol measures of slices twice as fine, `[slices, 2 n, 2 n]` in HU from -1000."""
    p = scanner(protocol).project(fine)
    photons = noise.tube_current(p, protocol.photons)
    image = fine.reshape(len(fine), protocol.size, 2, protocol.size, 2).mean((2, 4))
    return {
        "sinogram": noise.low_dose_sinogram(p, photons, protocol.electronic, rng),
        "image": ct_scan.stored(image),
    }


def read(case: Case, config: Any) -> Examples:
    """The slices of a simulated patient; `config.fbp` and `config.split` say what the source is."""
    number, scans = case.facts["number"], scanner(config.protocol)
    images = patient(config.protocol, config.seed, number)
    sources = images["sinogram"]
    if config.split:  # not clipped as scanners do: noise must keep its mean, in air too
        parts = radon.attenuation_to_hu(scans.beam.split_fbp(sources, config.split, FILTER))
        if number < config.patients[0]:  # of the split "train"
            source, target = map(_rounded, noise.noise2inverse(parts))
            yield from slices(case, {"source": source, "target": target})
            return
        sources = _rounded(parts.mean(1))
    elif config.fbp:
        sources = scans.reconstruct(sources)
    yield from slices(case, {"source": sources, "target": images["image"]})


def _rounded(hu: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(hu), -(2**15), 2**15 - 1).astype(np.int16)
