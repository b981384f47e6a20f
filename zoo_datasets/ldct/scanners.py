"""Scanners by the noise that they make: beams, detectors, reconstructions and kernels of all kinds.

What noise looks like in an image follows from how it was measured and reconstructed: in parallel or
fan beams, by detectors of any pitch that pass some of a reading on to their neighbours,
back-projected with one interpolation or another, under a kernel. Noise is drawn for each ray by the
ray's attenuation, and reconstructed by itself. Importable without TensorFlow.
"""

import dataclasses
import functools

import numpy as np
import scipy.fft
from scipy.ndimage import gaussian_filter1d, map_coordinates

from zoo.physics import noise, radon, resolution

_VIEWS = 256  # of the projections that the variance of noise is taken from; it is smooth


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A reconstruction kernel by what it does to the ramp filter at the frequency f.

    1 + boost * (f / cutoff)^2, times a Hann or cosine window or none, up to `cutoff` of the
    Nyquist frequency.
    """

    window: str
    cutoff: float
    boost: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Kernel":
        return cls(
            window=str(rng.choice(["hann", "cosine", "none"], p=[0.5, 0.3, 0.2])),
            cutoff=float(rng.uniform(0.35, 1.1)),
            boost=float(rng.choice([0.0, rng.uniform(0, 3)], p=[0.7, 0.3])),
        )

    def apply(self, images: np.ndarray) -> np.ndarray:
        """Images `[..., n, n]` reconstructed with a bare ramp, as this kernel makes them."""
        size = images.shape[-1]
        x, y = np.abs(scipy.fft.rfftfreq(size)), scipy.fft.fftfreq(size)[:, None]
        f = 2 * np.hypot(x, y) / self.cutoff
        response = (1 + self.boost * f**2) * (f < 1)
        if self.window != "none":
            cosine = np.cos(np.pi / 2 * np.minimum(f, 1))
            response *= cosine**2 if self.window == "hann" else cosine
        spectrum = scipy.fft.rfft2(images) * response.astype(np.float32)
        return scipy.fft.irfft2(spectrum, s=(size, size))


RAMP = Kernel("none", 1.5, 0.0)  # all that the pixels and the detector hold


@dataclasses.dataclass(frozen=True)
class Scanner:
    """How a slice is measured and reconstructed.

    Attributes:
        kernel: of the reconstruction.
        photons: of a ray, as in `zoo.physics.noise.tube_current`.
        views: over half a turn, a multiple of 4; a fan beam has twice as many over a whole one.
        pitch: of the detectors, in pixels, at the middle.
        source: distance of a fan beam's focus from the middle, in widths of the image; 0 is a
            parallel beam.
        nearest: take the fan's ray that is nearest to a parallel one, rather than interpolate.
        crosstalk: standard deviation, in detectors, of what a reading passes on.
        interpolation: of the back-projection, see `zoo.physics.radon.ParallelBeam.fbp`.
    """

    kernel: Kernel = RAMP
    photons: float = 1e5
    views: int = 512
    pitch: float = 1.0
    source: float = 0.0
    nearest: bool = False
    crosstalk: float = 0.0
    interpolation: str = "sinc"

    @classmethod
    def draw(cls, rng: np.random.Generator, kernel: Kernel, views: int) -> "Scanner":
        """Any scanner with this kernel; half of them have fan beams."""
        fan, even, clean = rng.uniform(size=3) < (0.5, 0.5, 0.6)

        def some(there: bool, low: float, high: float) -> float:
            return float(rng.uniform(low, high)) if there else 0.0

        return cls(
            kernel=kernel,
            photons=float(np.exp(rng.uniform(*np.log((1e3, 3e4))))),
            views=int(views * rng.choice([0.75, 1.0, 1.0, 1.25])) // 4 * 4,
            pitch=some(not even, 0.7, 1.5) or 1.0,
            source=some(fan, 1.0, 2.5),
            nearest=bool(rng.uniform() < 0.5),
            crosstalk=some(not clean, 0.2, 0.7),
            interpolation=str(rng.choice(["sinc", "linear", "nearest"], p=[0.4, 0.45, 0.15])),
        )

    def noise(self, rng: np.random.Generator, p: np.ndarray, size: int) -> np.ndarray:
        """Noise of one slice, of standard deviation 1 in the image's middle; float32 `[n, n]`.

        Args:
            rng: draws it.
            p: the slice's `line_integrals`.
            size: n, rows and columns.
        """
        beam = radon.ParallelBeam(size, 1.0, self.views, detector_mm=self.pitch)
        rays = (np.arange(beam.detectors) - (beam.detectors - 1) / 2) * self.pitch
        if self.source:
            sinogram = self._fan(rng, p, beam.angles, rays, size)
        else:
            sinogram = self._drawn(rng, _at(p, beam.angles[:, None], rays))
        field = self.kernel.apply(beam.fbp(sinogram, interpolation=self.interpolation))
        third = size // 3
        return field / field[third:-third, third:-third].std()

    def _drawn(self, rng: np.random.Generator, p: np.ndarray) -> np.ndarray:
        """Noise of the readings of these line integrals, `[views, detectors]`."""
        counts = noise.tube_current(p, self.photons) * np.exp(-p)
        counts = np.maximum(counts, noise.ELECTRONIC)
        deviation = np.sqrt(1 / counts + (noise.ELECTRONIC / counts) ** 2)
        drawn = deviation * rng.standard_normal(p.shape, np.float32)
        return gaussian_filter1d(drawn, self.crosstalk, -1) if self.crosstalk else drawn

    def _fan(
        self,
        rng: np.random.Generator,
        p: np.ndarray,
        angles: np.ndarray,
        rays: np.ndarray,
        size: int,
    ) -> np.ndarray:
        """Noise of a fan beam's readings, rebinned to the parallel `rays` (pixels) at `angles`.

        A ray at gamma in the fan whose middle ray has the angle beta is the parallel one of the
        angle beta + gamma at the distance R sin(gamma), R the source's. A whole turn measures each
        twice.
        """
        # Equal angles between the detectors.
        distance = self.source * size
        step = self.pitch / distance
        half = int(np.arcsin(rays[-1] / distance) / step) + 2
        gamma = np.arange(-half, half + 1) * step
        beta = np.arange(2 * self.views) * np.pi / self.views
        drawn = self._drawn(rng, _at(p, beta[:, None] + gamma, distance * np.sin(gamma)))
        # The two rays of the fan along each parallel one.
        there = np.arcsin(rays / distance)
        total = np.zeros((len(angles), len(rays)), np.float32)
        for turn, sign in ((0.0, 1), (np.pi, -1)):
            view = (angles[:, None] + turn - sign * there) / np.pi * self.views
            element = np.broadcast_to(sign * there / step + half, view.shape)
            places = np.stack([view % len(beta), element])
            total += map_coordinates(drawn, places, order=int(not self.nearest), mode="grid-wrap")
        return total / 2


@functools.cache
def _beam(size: int) -> radon.ParallelBeam:
    return radon.ParallelBeam(size, 1.0, _VIEWS)


def line_integrals(hu: np.ndarray, spacing: float) -> np.ndarray:
    """Of slices `[slices, n, n]` at a pixel pitch in mm, n even: `[slices, views, rays]`.

    Projected at half the resolution: the variance of noise is smooth, and the noise itself is not
    made of them.
    """
    beam = _beam(hu.shape[-1] // 2)
    return beam.forward(resolution.block_mean(radon.hu_to_attenuation(hu), 2)) * 2 * spacing


def _at(p: np.ndarray, angles: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """`line_integrals` of one slice at other angles, and distances in pixels of the slice."""
    views, detectors = p.shape
    # The other half of the turn sees the same lines from behind.
    turn = np.concatenate([p, p[:, ::-1]])
    view = (angles / np.pi * views - 0.5) % (2 * views)
    ray = np.clip(rays / 2 + (detectors - 1) / 2, 0, detectors - 1)
    places = np.stack(np.broadcast_arrays(view, ray))
    return map_coordinates(turn, places, order=1, mode="grid-wrap")
