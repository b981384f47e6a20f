"""Simulated Cartesian scans of random heads: the examples of `mri_recon`.

A head of `mri_contrast` is painted on a grid twice as fine as the image's, and what a fully
sampled noise-free scan shows of it is the target x. The source is

    y = M (F x + e),

F the centred unitary DFT (`zoo.physics.fourier`), e complex normal noise and M the one sampling
mask of the protocol. Importable without TensorFlow.
"""

import dataclasses

import numpy as np

from zoo.physics import fourier, resolution
from zoo_datasets.phantoms import brain
from zoo_datasets.phantoms.slices import heights

CONTRASTS = ("T1", "T2")


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A protocol.

    Attributes:
        size: rows (phase-encoding lines) and columns of image and k-space.
        slices: slices of each patient, T1- or T2-weighted at random.
        acceleration: lines of full k-space over lines measured.
        centre: share of the lines, in the middle, that are all measured.
        noise: standard deviation of the noise in the real and in the imaginary part of k-space,
            and so of the image, where fluid has proton density 1.
        mask: seed of the sampling mask.
    """

    size: int = 64
    slices: int = 4
    acceleration: float = 2.5
    centre: float = 0.12
    noise: float = 0.01
    mask: int = 0

    @property
    def spacing(self) -> float:
        """Pixel pitch in mm."""
        return brain.FIELD_MM / self.size

    @property
    def operator(self) -> fourier.Cartesian:
        """The measurement M F."""
        lines = fourier.random_lines(self.size, self.acceleration, self.mask, self.centre)
        return fourier.Cartesian(lines)


def patient(protocol: Protocol, seed: int, number: int) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Slices of patient `number`: contrast, k-space `[n, n, 2]` and image `[n, n, 1]`, float32.

    Everything follows from (seed, number) and the protocol.
    """
    rng = np.random.default_rng([seed, number])
    head = brain.Brain(rng, 2 * protocol.size, protocol.spacing / 2)
    coil = brain.bias_field(rng, 2 * protocol.size, protocol.spacing / 2)
    z = heights(rng, protocol.slices, brain.EXTENT)
    contrasts = rng.choice(CONTRASTS, protocol.slices).tolist()
    painted = [
        head.signal(at, contrast) for at, contrast in zip(z.tolist(), contrasts, strict=True)
    ]
    return measured(protocol, np.stack(painted) * coil, contrasts, rng)


def measured(
    protocol: Protocol, painted: np.ndarray, contrasts: list[str], rng: np.random.Generator
) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """What the protocol measures of slices painted twice as fine, `[slices, 2 n, 2 n]`."""
    images = resolution.crop_kspace(painted, 2)
    noise = np.float32(protocol.noise) * rng.standard_normal((2, *images.shape), np.float32)
    kspace = protocol.operator.forward(images)
    kspace += protocol.operator.lines[:, None] * (noise[0] + 1j * noise[1])
    sources = fourier.to_channels(kspace)
    return list(zip(contrasts, sources, images[..., None], strict=True))
