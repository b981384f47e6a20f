"""Cone-beam-like and planning CT of the digital patients of `ldct`: the examples of `cbct_ct`.

Both scans measure the same noise-free line integrals p of a slice. The planning CT adds the noise
of a normal dose. The cone beam's every third view adds, in this order:

1. scatter S, so that a ray's mean count is I0 (exp(-p) + S): smooth, so it matters most where
   little else arrives. Reconstructed values sink inside thick parts (cupping) and between dense
   ones (streaks). As in Ohnesorge, Flohr and Klingenbeck-Regn (Eur. Radiol. 9, 1999), it is
   the weighted projection p exp(-p) convolved with one broad kernel along the detector;
2. the noise of fewer photons, no exposure control and more electronic noise;
3. for one patient in five a detector narrower than the body, whose missing samples are extrapolated
   by half a cosine, from the last readings to zero;
4. a softer kernel, and a HU scale with a gain and an offset of its own.

A parallel beam in one plane stands for the cone.
"""

import dataclasses
import functools

import numpy as np
from scipy.ndimage import gaussian_filter1d

from zoo.physics import noise, radon
from zoo_datasets.cases import Case, Examples
from zoo_datasets.phantoms import anatomy, ct_scan
from zoo_datasets.phantoms.body import Patient
from zoo_datasets.phantoms.slices import heights
from zoo_datasets.simulated import SimulatedConfig, slices


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Both protocols; `photons` and `electronic` as in `zoo.physics.noise`.

    The cone beam's photons have no exposure control: every ray starts with as many.

    Attributes:
        scatter: scattered over primary photons, the range that `Cone` draws from.
        truncated: share of the patients whose cone beam does not see the whole body.
    """

    size: int = 256
    views: int = 480  # of the planning CT, a multiple of 12
    photons: float = 2.4e4
    electronic: float = 7.0
    cone_photons: float = 3.0e4
    cone_electronic: float = 8.0
    slices: int = 4
    scatter: tuple[float, float] = (0.06, 0.20)
    truncated: float = 0.2

    @property
    def spacing(self) -> float:
        """Pixel and detector pitch in mm."""
        return ct_scan.FIELD_MM / self.size


@dataclasses.dataclass(frozen=True)
class Cone:
    """What differs between the cone-beam scans of two patients.

    Attributes:
        scatter: scattered over primary photons behind the middle of the body.
        smear: standard deviation of the scatter's kernel in mm.
        radius: of the field of view in mm; None sees the whole body.
        gain: of the HU scale, about 0 HU.
        offset: of the HU scale, in HU.
    """

    scatter: float
    smear: float
    radius: float | None
    gain: float
    offset: float

    @classmethod
    def draw(cls, rng: np.random.Generator, protocol: Protocol) -> "Cone":
        """A random scan of one machine."""
        return cls(
            scatter=rng.uniform(*protocol.scatter),
            smear=rng.uniform(40.0, 80.0),
            radius=rng.uniform(105.0, 135.0) if rng.uniform() < protocol.truncated else None,
            # The drift that quality assurance leaves between two calibrations.
            gain=rng.uniform(0.98, 1.02),
            offset=rng.uniform(-15.0, 15.0),
        )


def scatter(p: np.ndarray, spacing: float, cone: Cone) -> np.ndarray:
    """Scattered photons per photon from the tube, of p's shape `[..., views, detectors]`.

    Scaled for each slice, so that over all rays of the detector's middle third the sum is
    `cone.scatter` times that of the primary photons.
    """
    primary = np.exp(-p)
    smooth = gaussian_filter1d(p * primary, cone.smear / spacing, axis=-1, mode="constant")
    third = p.shape[-1] // 3
    middle = np.s_[..., third:-third]
    ratio = primary[middle].sum((-2, -1)) / smooth[middle].sum((-2, -1))
    return smooth * (cone.scatter * ratio)[..., None, None].astype(np.float32)


def truncate(p: np.ndarray, spacing: float, radius: float, reach: float = 60.0) -> np.ndarray:
    """Line integrals as a detector of half width `radius` in mm knows them.

    Beyond its ends p falls from the mean of the last three readings to 0 within `reach` mm.
    """
    count = p.shape[-1]
    s = np.abs(np.arange(count) - (count - 1) / 2) * spacing
    seen = np.nonzero(s <= radius)[0]
    fade = 0.5 + 0.5 * np.cos(np.pi * np.clip((s - radius) / reach, 0, 1)).astype(np.float32)
    result = p.copy()
    left = p[..., seen[:3]].mean(-1, keepdims=True)
    right = p[..., seen[-3:]].mean(-1, keepdims=True)
    result[..., : seen[0]] = left * fade[: seen[0]]
    result[..., seen[-1] + 1 :] = right * fade[seen[-1] + 1 :]
    return result


class Scanner:
    """The operators of one protocol, kept between patients."""

    def __init__(self, protocol: Protocol):
        self.protocol = protocol
        self.ct = ct_scan.Scanner(
            ct_scan.Protocol(
                protocol.size,
                protocol.views,
                protocol.photons,
                protocol.electronic,
                slices=protocol.slices,
            )
        )
        self.beam = radon.ParallelBeam(protocol.size, protocol.spacing, protocol.views // 3)

    def cone_beam(self, p: np.ndarray, cone: Cone, rng: np.random.Generator) -> np.ndarray:
        """Noise-free line integrals `[..., views, n]` of all views to stored HU, int16."""
        protocol = self.protocol
        p = p[..., 1::3, :]  # these are the angles of a scan with a third of the views
        effective = -np.log(np.exp(-p) + scatter(p, protocol.spacing, cone))
        measured = noise.low_dose_sinogram(
            effective, protocol.cone_photons, protocol.cone_electronic, rng
        )
        if cone.radius is not None:
            measured = truncate(measured, protocol.spacing, cone.radius)
        measured = gaussian_filter1d(measured, 0.7, axis=-1)  # the soft kernel
        hu = radon.attenuation_to_hu(self.beam.fbp(measured, "hann"))
        return ct_scan.stored(cone.gain * hu + cone.offset)

    def patient(self, seed: int, number: int) -> dict[str, np.ndarray]:
        """Patient `number`: "source" (cone beam) and "target", int16 HU `[slices, n, n]`.

        Everything follows from (seed, number).
        """
        protocol = self.protocol
        rng = np.random.default_rng([seed, number])
        body = Patient(rng, 2 * protocol.size, protocol.spacing / 2)
        z = heights(rng, protocol.slices, anatomy.EXTENT)
        p = self.ct.project(np.stack([body.slice(height) for height in z]))
        cone = Cone.draw(rng, protocol)
        photons = noise.tube_current(p, protocol.photons)
        normal = noise.low_dose_sinogram(p, photons, protocol.electronic, rng)
        return {"source": self.cone_beam(p, cone, rng), "target": self.ct.reconstruct(normal)}


scanner = functools.lru_cache(maxsize=2)(Scanner)


def read(case: Case, config: SimulatedConfig[Protocol]) -> Examples:
    """The slices of a simulated patient."""
    images = scanner(config.protocol).patient(config.seed, case.facts["number"])
    yield from slices(case, images)
