"""CT with the noise of many scanners: the examples of `ldct/varied_scanners` and `varied_scans`.

A pair is a slice, whose own noise stays in both images, and the same with more noise. In `varied`
the two are of one order; here the slice has as little noise as thick slices have, and what is added
is up to fifty times as strong and of any scanner of `scanners`. So a network learns that strong
noise is hardly ever the target's, and to average over large even regions.

Slices are simulated, or those of the user's own scans: a folder for each patient, which holds DICOM
or NIfTI. Importable without TensorFlow.
"""

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np

from zoo.imaging import files
from zoo.physics import noise
from zoo_datasets.cases import Case, Examples
from zoo_datasets.ldct import varied
from zoo_datasets.ldct.scanners import RAMP, Kernel, Scanner, line_integrals
from zoo_datasets.phantoms import brain, shapes
from zoo_datasets.phantoms.ct_scan import STORED
from zoo_datasets.phantoms.noise import correlated
from zoo_datasets.phantoms.slices import heights
from zoo_datasets.simulated import SimulatedConfig

_AIR = -950  # HU: what exceeds it is no air
KINDS = {"body": 0.4, "head": 0.35, "shapes": 0.25}  # and their shares
# The kernel of the noise that is added, and its share: that of the scan itself, as a real low dose
# has it; none, or a Hann window to the pixels' Nyquist frequency, as noise has that is inserted
# into finished images; any other; and white noise.
ADDED = {"own": 0.2, "ramp": 0.35, "hann": 0.15, "other": 0.2, "white": 0.1}


@dataclasses.dataclass(frozen=True)
class Protocol(varied.Protocol):
    """As `varied.Protocol`, whose `full` is that of shapes here.

    Attributes:
        full_body, full_head: standard deviation of the target's own noise, HU.
        draws: pairs that are made of each slice of a real scan.
        every: of the slices of a real scan, one in so many is taken.
    """

    views: int = 512
    tile: int = 256
    head: tuple[float, float] = (0.33, 0.6)
    full: tuple[float, float] = (1.5, 20.0)
    full_body: tuple[float, float] = (4.0, 22.0)
    full_head: tuple[float, float] = (1.5, 5.0)
    added: tuple[float, float] = (8.0, 200.0)
    draws: int = 2
    every: int = 1


def read(case: Case, config: SimulatedConfig[Protocol]) -> Examples:
    """Tiles of a subject's or a patient's slices, but those of air.

    Raises:
        ValueError: for a folder that holds no CT in square pixels.
    """
    protocol = config.protocol
    if "scan" in case.files:
        pairs = _inserted(protocol, case, config.seed)
    else:
        pairs = subject(protocol, config.seed, case.facts["number"])
    for name, source, target, spacing in pairs:
        for row, column in itertools.product(
            _corners(target.shape[0], protocol.tile), _corners(target.shape[1], protocol.tile)
        ):
            where = np.s_[row : row + protocol.tile, column : column + protocol.tile, None]
            if np.mean(target[where] > _AIR) >= 0.05:
                yield case.example(
                    f"{case.key}-{name}-{row}-{column}",
                    source=source[where],
                    target=target[where],
                    spacing=np.array([spacing, spacing], np.float32),
                )


def _corners(size: int, tile: int) -> list[int]:
    return [*range(0, size - tile, tile), size - tile]


# Name, source and target int16 HU [n, n], and spacing in mm.
Pairs = Iterator[tuple[str, np.ndarray, np.ndarray, float]]


def drawn_kind(rng: np.random.Generator) -> str:
    """One of `KINDS`, the first that is drawn of a subject."""
    return str(rng.choice(list(KINDS), p=list(KINDS.values())))


def subject(protocol: Protocol, seed: int, number: int) -> Pairs:
    """The slices of simulated subject `number`; everything follows from (seed, number)."""
    rng = np.random.default_rng([seed, number])
    kind = drawn_kind(rng)
    spacing = float(rng.uniform(*getattr(protocol, kind)))
    clean = {"body": varied.body, "head": _head, "shapes": _shapes}[kind](protocol, rng, spacing)
    clean = varied.sharpness(rng, clean)
    levels = {"body": protocol.full_body, "head": protocol.full_head, "shapes": protocol.full}
    kernel, level = Kernel.draw(rng), _in_logarithm(rng, levels[kind])
    for i, p in enumerate(line_integrals(clean, spacing)):
        scanner = dataclasses.replace(Scanner.draw(rng, kernel, protocol.views), photons=1e5)
        target = clean[i] + level * scanner.noise(rng, p, protocol.size)
        source = target + _added(protocol, rng, p, protocol.size, kernel)
        yield str(i), _stored(source), _stored(target), spacing


def _inserted(protocol: Protocol, case: Case, seed: int) -> Pairs:
    """The slices of a patient's scans; what is drawn follows from the patient's key."""
    rng = np.random.default_rng([seed, int(case.key[1:], 16)])
    volumes = files.find(case.files["scan"]).volumes
    if not volumes:
        raise ValueError(f"{case.key}: expected DICOM or NIfTI. Received: no image")
    for number, volume in enumerate(volumes):
        shown = volume.presented("axial")
        row, column = shown.spacing or (0.0, 0.0)
        if shown.modality not in ("CT", "OT") or not 0 < row <= 1.001 * column <= 1.002 * row:
            raise ValueError(
                f"{case.key}: expected CT in square pixels. Received: {shown.modality} of "
                f"{row:g} x {column:g} mm"
            )
        for index in range(0, shown.length, protocol.every):
            target = _padded(shown.read(index), protocol.tile)
            (p,) = line_integrals(target[None], row)
            for draw in range(protocol.draws):
                added = _added(protocol, rng, p, len(target), Kernel.draw(rng))
                pair = _stored(target + added), _stored(target)
                yield f"{number}-{index:04d}-{draw}", *pair, row


def _padded(hu: np.ndarray, tile: int) -> np.ndarray:
    """A slice in a square of air of an even number of pixels, no less than a tile."""
    size = max(*hu.shape, tile)
    size += size % 2
    margins = [((size - side) // 2, size - side - (size - side) // 2) for side in hu.shape]
    # Padding outside the circle of the scan lies lower than air.
    return np.pad(np.maximum(hu, STORED[0]), margins, constant_values=noise.AIR)


def _added(
    protocol: Protocol, rng: np.random.Generator, p: np.ndarray, size: int, own: Kernel
) -> np.ndarray:
    """The noise that the low dose has more than the slice, HU `[size, size]`."""
    level = _in_logarithm(rng, protocol.added)
    how = str(rng.choice(list(ADDED), p=list(ADDED.values())))
    if how == "white":
        return level * rng.standard_normal((size, size), np.float32)
    kernels = {"own": own, "ramp": RAMP, "hann": Kernel("hann", 1.0, 0.0)}
    kernel = kernels[how] if how in kernels else Kernel.draw(rng)
    return level * Scanner.draw(rng, kernel, protocol.views).noise(rng, p, size)


def _in_logarithm(rng: np.random.Generator, bounds: tuple[float, float]) -> float:
    return float(np.exp(rng.uniform(*np.log(bounds))))


def _stored(hu: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(hu), *STORED).astype(np.int16)


def _head(protocol: varied.Protocol, rng: np.random.Generator, spacing: float) -> np.ndarray:
    """Heads, half of them in thick slices; somewhere bone, air and soft tissue in a tangle."""
    head = brain.Brain(rng, protocol.size, spacing)
    values = brain.draw_hu(rng)
    thickness = float(rng.uniform(2, 6)) if rng.uniform() < 0.5 else 0.0
    images = []
    for z in heights(rng, protocol.slices, brain.EXTENT).tolist():
        fractions = head.fractions(z, thickness)
        hu = np.tensordot(values, fractions, 1)
        grain = correlated(rng, protocol.size, rng.uniform(0.6, 1.6) / spacing)
        hu += fractions[brain.BONE].sum(0) * rng.uniform(30, 300) * grain
        # As the base of the skull is; the rest of the head is even.
        tissues = [rng.normal(40, 30, 8), rng.uniform(200, 1600, 8), rng.uniform(-1000, -300, 6)]
        tangle = shapes.leaves(
            rng, protocol.size, np.concatenate(tissues).astype(np.float32), 20, (2.0, 25.0)
        )
        where = correlated(rng, protocol.size, rng.uniform(5, 20) / spacing) > rng.uniform(0.8, 4)
        images.append(np.where(where & (hu > _AIR), tangle, hu))
    return np.stack(images)


def _shapes(protocol: varied.Protocol, rng: np.random.Generator, _spacing: float) -> np.ndarray:
    """Shapes with the values of tissues, within an outline or filling the image.

    Most are even: texture that looks like noise teaches to leave noise.
    """
    images = []
    for _ in range(protocol.slices):
        near = rng.normal(40, rng.uniform(4, 50), 24)
        far = [rng.normal(-100, 20, 6), rng.uniform(-1000, -650, int(rng.integers(0, 10)))]
        dense = rng.uniform(120, 1600, int(rng.integers(0, 8)))
        values = np.concatenate([near, *far, dense]).astype(np.float32)
        rough = float(rng.uniform(0, 0.15)) if rng.uniform() < 0.3 else 0.0
        texture = float(rng.uniform(0, 25)) if rng.uniform() < 0.3 else float(rng.uniform(0, 4))
        image = shapes.leaves(
            rng,
            protocol.size,
            values,
            texture,
            (_in_logarithm(rng, (1.5, 5.0)), 160.0),
            (rough, _in_logarithm(rng, (30.0, 400.0))),
        )
        if rng.uniform() < 0.5:
            axis = np.linspace(-1, 1, protocol.size)
            across, down = axis / rng.uniform(0.6, 1), axis[:, None] / rng.uniform(0.5, 1)
            image[np.hypot(across, down) > 1] = noise.AIR
        images.append(image)
    return np.stack(images)
