"""CT of many kinds at many doses: the examples of `ldct/varied`, to train what works elsewhere.

A subject is a chest or an abdomen (the digital patients of `ldct/phantom`), a head (that of
`mr_ct/phantom`) or an image of random shapes, with a pixel size, a reconstruction kernel, a dose
and a share of electronic noise of its own. Noise is made in the projections: each ray's variance
follows from its attenuation, and filtered back-projection of the noise alone gives it its texture
and its streaks. The target keeps the noise of a full dose, as real ones do, and the source has
more of it. Importable without TensorFlow.
"""

import dataclasses
import functools
import itertools

import numpy as np
from scipy.ndimage import gaussian_filter

from zoo.physics import noise, radon, resolution
from zoo_datasets.cases import Case, Examples
from zoo_datasets.ldct.scanners import Kernel
from zoo_datasets.phantoms import anatomy, brain, shapes
from zoo_datasets.phantoms.body import Patient
from zoo_datasets.phantoms.ct_scan import STORED
from zoo_datasets.phantoms.noise import correlated
from zoo_datasets.phantoms.slices import heights
from zoo_datasets.simulated import SimulatedConfig

_BODY = -950  # HU: what exceeds it is no air
KINDS = {"body": 0.5, "head": 0.25, "shapes": 0.25}  # and their shares
# What is added to the full dose's noise, and its share: noise of the scan's own kernel, as a real
# low dose has it; of a kernel as fine as the pixels (Hann or ramp), as noise has that is inserted
# into a finished image; white noise.
ADDED = {"scanned": 0.25, "inserted": 0.6, "white": 0.15}
LIKE = 2 / 3  # share of the subjects to which a `ratio` applies


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What is drawn for each subject; ranges are drawn from evenly, those of noise in logarithm.

    Attributes:
        size: rows and columns, an even number.
        slices: of each subject.
        tile: rows and columns of the examples that a slice is cut into; a reader need not unpack
            a whole slice for one training patch.
        views: projection angles, a multiple of 4.
        body, head, shapes: pixel pitch in mm.
        full: standard deviation of the target's noise in the middle of the body, HU.
        added: that of the noise that the low dose adds.
        ratio: of the added noise to the target's for most subjects; None draws both apart from
            each other for all.
    """

    size: int = 512
    slices: int = 4
    tile: int = 128
    views: int = 512
    body: tuple[float, float] = (0.5, 1.0)
    head: tuple[float, float] = (0.38, 0.6)
    shapes: tuple[float, float] = (0.3, 0.7)
    full: tuple[float, float] = (3.0, 35.0)
    added: tuple[float, float] = (9.0, 140.0)
    ratio: tuple[float, float] | None = None


def subject(protocol: Protocol, seed: int, number: int) -> dict[str, np.ndarray]:
    """Subject `number`: `source` and `target`, int16 HU `[slices, n, n]`, and `spacing` in mm.

    Everything follows from (seed, number).
    """
    rng = np.random.default_rng([seed, number])
    kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    spacing = float(rng.uniform(*getattr(protocol, kind)))
    clean = {"body": body, "head": _head, "shapes": _shapes}[kind](protocol, rng, spacing)
    clean = sharpness(rng, clean)
    kernel = Kernel.draw(rng)
    full, added = _noise_levels(protocol, rng)
    p = _line_integrals(protocol, clean, spacing)
    target = clean + full * _noise(protocol, rng, p, 1e5, kernel)
    how = str(rng.choice(list(ADDED), p=list(ADDED.values())))
    if how == "white":
        more = rng.standard_normal(clean.shape, np.float32)
    else:
        fine = Kernel(str(rng.choice(["hann", "none"])), 1.0, 0.0)
        photons = float(np.exp(rng.uniform(*np.log((1e3, 3e4)))))
        more = _noise(protocol, rng, p, photons, kernel if how == "scanned" else fine)
    source = target + added * more
    # Most scanners store nothing below -1024 HU, and some nothing outside a circle.
    if rng.uniform() < 0.3:
        axis = np.arange(protocol.size) - (protocol.size - 1) / 2
        outside = np.hypot(axis, axis[:, None]) > rng.uniform(0.47, 0.55) * protocol.size
        source[:, outside] = target[:, outside] = STORED[0]
    floor = STORED[0] if rng.uniform() < 0.8 else -3000
    images = {"source": source, "target": target}
    images = {
        name: np.clip(np.rint(image), floor, STORED[1]).astype(np.int16)
        for name, image in images.items()
    }
    return images | {"spacing": np.array([spacing, spacing], np.float32)}


def _noise_levels(protocol: Protocol, rng: np.random.Generator) -> tuple[float, float]:
    """Standard deviations of the target's noise and of what is added to it, HU.

    A model sees their sum alone. How much of it to leave, as the target's own, it learns from how
    often they go together: half of a dose adds as much as is there, a tenth three times as much.
    """
    full, added = (
        float(np.exp(rng.uniform(*np.log(each)))) for each in (protocol.full, protocol.added)
    )
    if protocol.ratio:
        ratio = float(np.exp(rng.uniform(*np.log(protocol.ratio))))
        if rng.uniform() < LIKE:
            added = float(np.clip(full * ratio, *protocol.added))
    return full, added


def read(case: Case, config: SimulatedConfig[Protocol]) -> Examples:
    """Tiles of a subject's slices, but those of air."""
    images = subject(config.protocol, config.seed, case.facts["number"])
    tile = config.protocol.tile
    corners = range(0, config.protocol.size, tile)
    for i, row, column in itertools.product(range(config.protocol.slices), corners, corners):
        where = np.s_[i, row : row + tile, column : column + tile, None]
        source, target = images["source"][where], images["target"][where]
        if np.mean(target > _BODY) >= 0.05:
            yield case.example(
                f"{case.key}-{i}-{row}-{column}",
                source=source,
                target=target,
                spacing=images["spacing"],
            )


def body(protocol: Protocol, rng: np.random.Generator, spacing: float) -> np.ndarray:
    patient = Patient(rng, protocol.size, spacing)
    z = heights(rng, protocol.slices, anatomy.EXTENT)
    return np.stack([patient.slice(height) for height in z.tolist()])


def _head(protocol: Protocol, rng: np.random.Generator, spacing: float) -> np.ndarray:
    head = brain.Brain(rng, protocol.size, spacing)
    z = heights(rng, protocol.slices, brain.EXTENT)
    values = brain.draw_hu(rng)
    images = []
    for height in z.tolist():
        fractions = head.fractions(height)
        hu = np.tensordot(values, fractions, 1)
        solid = fractions[brain.BONE].sum(0)
        grain = correlated(rng, protocol.size, rng.uniform(0.6, 1.6) / spacing)
        hu += solid * rng.uniform(60, 300) * grain
        # Somewhere a tangle of bone, air and soft tissue, as the base of the skull is.
        tissues = [rng.normal(40, 30, 8), rng.uniform(200, 1600, 8), rng.uniform(-1000, -300, 6)]
        tangle = shapes.leaves(
            rng, protocol.size, np.concatenate(tissues).astype(np.float32), 60, (2.0, 25.0)
        )
        where = correlated(rng, protocol.size, rng.uniform(5, 20) / spacing) > rng.uniform(0.3, 3)
        hu = np.where(where & (hu > _BODY), tangle, hu)
        images.append(hu)
    return np.stack(images)


def _shapes(protocol: Protocol, rng: np.random.Generator, _spacing: float) -> np.ndarray:
    """Shapes with the values of tissues, within a body's outline or filling the image."""
    images = []
    for _ in range(protocol.slices):
        values = np.concatenate(
            [
                rng.normal(40, rng.uniform(10, 50), 24),
                rng.normal(-100, 20, 6),
                rng.uniform(-1000, -650, int(rng.integers(0, 10))),
                rng.uniform(120, 1600, int(rng.integers(0, 8))),
            ]
        )
        rough = (rng.uniform(0, 0.15), float(np.exp(rng.uniform(*np.log((30, 400))))))
        values = values.astype(np.float32)
        image = shapes.leaves(rng, protocol.size, values, rng.uniform(0, 25), rough=rough)
        if rng.uniform() < 0.5:
            axis = np.linspace(-1, 1, protocol.size)
            image[np.hypot(axis / rng.uniform(0.6, 1), axis[:, None] / rng.uniform(0.5, 1)) > 1] = (
                noise.AIR
            )
        images.append(image)
    return np.stack(images)


def sharpness(rng: np.random.Generator, images: np.ndarray) -> np.ndarray:
    """Blurred as a scanner does, and sharpened again by some kernels."""
    sigma = rng.uniform(0.2, 1.1)
    images = gaussian_filter(images, (0, sigma, sigma))
    if rng.uniform() < 0.3:
        images += rng.uniform(0, 0.8) * (images - gaussian_filter(images, (0, 1, 1)))
    return images


@functools.cache
def _beam(size: int, views: int) -> radon.ParallelBeam:
    return radon.ParallelBeam(size, 1.0, views)


def _line_integrals(protocol: Protocol, hu: np.ndarray, spacing: float) -> np.ndarray:
    """Of images `[slices, n, n]`: `[slices, views, detectors]` of the beam of n pixels.

    Projected at half the resolution: the variance of noise is smooth, and the noise itself is not
    made here.
    """
    coarse, fine = (_beam(size, protocol.views) for size in (protocol.size // 2, protocol.size))
    p = coarse.forward(resolution.block_mean(radon.hu_to_attenuation(hu), 2)) * 2 * spacing
    at = (np.arange(fine.detectors) - (fine.detectors - 1) / 2) / 2 + (coarse.detectors - 1) / 2
    low = np.clip(at.astype(int), 0, coarse.detectors - 2)
    share = np.clip(at - low, 0, 1).astype(np.float32)
    return p[..., low] * (1 - share) + p[..., low + 1] * share


def _noise(
    protocol: Protocol, rng: np.random.Generator, p: np.ndarray, photons: float, kernel: Kernel
) -> np.ndarray:
    """Noise of a scan at these line integrals, of standard deviation 1 in the image's middle."""
    counts = noise.tube_current(p, photons) * np.exp(-p)
    counts = np.maximum(counts, noise.ELECTRONIC)
    deviation = np.sqrt(1 / counts + (noise.ELECTRONIC / counts) ** 2)
    field = _beam(protocol.size, protocol.views).fbp(
        deviation * rng.standard_normal(p.shape, np.float32)
    )
    field = kernel.apply(field)
    third = protocol.size // 3
    return field / field[:, third:-third, third:-third].std()
