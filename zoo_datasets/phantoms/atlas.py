"""Many subjects from one real brain: the ICBM 2009a average, deformed, scanned and made ill.

The `nilearn` wheel ships the symmetric nonlinear average of 152 healthy brains at 1 mm: its
T1-weighted image and the shares of grey and white matter, 0 to 255. Fluid is what remains within
the T1-weighted image's mask. A subject is a random smooth deformation of that average.

"T1" is the average's own image. Any other contrast is the mean over the shares p of the tissues

    S = sum over tissues of p(tissue) S(PD, T1, T2)

with S the signal equation of the sequence: a spin echo (`brain.spin_echo`), or
`brain.inversion_recovery` for FLAIR. Lesions, a coil's sensitivity and Rician noise are added to
all. No TensorFlow is imported.
"""

import dataclasses
import functools
import importlib.util
import math
from pathlib import Path

import numpy as np
from scipy import ndimage

from zoo_datasets.phantoms import brain
from zoo_datasets.phantoms.slices import heights
from zoo_datasets.publishers import volumes

MAXIMUM = 4095  # 12 bits
EXTENT = (-42.0, 62.0)  # mm, MNI: from the cerebellum to the centrum semiovale
LABELS = ("background", "csf", "grey", "white", "lesion")
TISSUES = ("fluid", "cortex", "white", "oedema", "tumour", "necrosis")  # of `brain.TISSUES`
SPIN_ECHOES = {"T2": (4000.0, 100.0), "PD": (4000.0, 15.0)}  # TR, TE in ms
# Stored value of signal 1; of T1, of the average's brightest value. Fluid and coil just fit.
GAIN = {"T1": 2800.0, "T2": 5000.0, "PD": 3900.0, "FLAIR": 12000.0}
CONTRASTS = tuple(GAIN)

_CENTRE = np.array([0.0, 18.0, 10.0])  # mm (left, back, up): subjects turn about it
_VENTRICLES = np.array([[0.0, 15.0, 18.0], [22.0, 42.0, 20.0]])  # mm: their middle and reach
# Deformations in mm, their wavelengths and how many waves: the shape of the head, of lobes, and of
# single folds. The finer one is, the smaller it must be, or tissue would be folded over.
_WARPS = ((2.5, (90.0, 180.0), 12), (1.3, (35.0, 70.0), 16), (0.6, (16.0, 30.0), 24))
# The average's T1-weighted level (of 255) in pure fluid, grey and white matter.
_LEVELS = (68.0, 166.0, 222.0)


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A protocol.

    Attributes:
        size: rows and columns.
        spacing: pixel pitch in mm.
        slices: of each subject, 1 mm thick.
        contrasts: what is scanned, of `CONTRASTS`.
        noise: standard deviation in each channel, of 4095; drawn by subject.
    """

    size: int = 256
    spacing: float = 0.9
    slices: int = 6
    contrasts: tuple[str, ...] = ("T1", "T2")
    noise: tuple[float, float] = (0.006, 0.015)


def subject(protocol: Protocol, seed: int, number: int) -> dict[str, np.ndarray]:
    """Subject `number`: uint16 signal under each contrast's name, uint8 "labels"; `[slices, n, n]`.

    Everything follows from (seed, number). The labels are indices of `LABELS`.

    Raises:
        FileNotFoundError: without `nilearn`.
    """
    rng = np.random.default_rng([seed, number])
    head = Subject(rng, protocol.size, protocol.spacing)
    zs = heights(rng, protocol.slices, EXTENT)
    coil = brain.bias_field(rng, protocol.size, protocol.spacing)
    sigma = rng.uniform(*protocol.noise) * MAXIMUM
    images: dict[str, list[np.ndarray]] = {name: [] for name in (*protocol.contrasts, "labels")}
    for z in zs.tolist():
        tissue = head.slice(z)
        images["labels"].append(tissue.labels)
        for contrast in protocol.contrasts:
            signal = GAIN[contrast] * coil * head.signal(tissue, contrast)
            stored = np.rint(brain.rician(signal, sigma, rng)).clip(0, MAXIMUM)
            images[contrast].append(stored.astype(np.uint16))
    return {name: np.stack(slices) for name, slices in images.items()}


@dataclasses.dataclass(frozen=True, eq=False)
class Slice:
    """What lies in a slice.

    Attributes:
        average: the deformed T1-weighted average, float32 `[n, n]`, 0 to 1.
        shares: of each of `TISSUES`, float32 `[6, n, n]`; their sum is 1 within the brain.
        texture: relative proton density, about 1.
    """

    average: np.ndarray
    shares: np.ndarray
    texture: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """The index in `LABELS` of what fills most of each pixel, uint8 `[n, n]`."""
        fluid, grey, white, *ill = self.shares
        outside = 1 - self.shares.sum(0)
        return np.stack([outside, fluid, grey, white, sum(ill)]).argmax(0).astype(np.uint8)


class Subject:
    """The average brain, deformed at random; everything about it comes from `rng`.

    Args:
        rng: random generator.
        size: height and width of the slices in pixels.
        spacing: pixel pitch in mm.

    Attributes:
        tissues: `{name: (T1 ms, T2 ms, proton density)}` of this subject.
        lesion: "none", "tumour" or "foci" (small ones in the white matter).
    """

    def __init__(self, rng: np.random.Generator, size: int, spacing: float):
        self.axis = ((np.arange(size) - (size - 1) / 2) * spacing).astype(np.float32)
        self.spacing = spacing
        self.tissues = {}
        for name in TISSUES:
            _, *values, spread = brain.TISSUES[name]
            self.tissues[name] = tuple(v * (1 + spread * rng.standard_normal()) for v in values)
        # Python's numbers, not NumPy's: those would turn the slices into double precision.
        self.scale = rng.uniform(0.92, 1.08, 3).tolist()
        self.turn, self.nod = np.deg2rad(rng.normal(0, (3.0, 4.0))).tolist()
        self.shift = rng.normal(0, 2.5, 2).tolist()
        self.atrophy = float(rng.uniform(-0.15, 0.45))  # how much wider the ventricles are
        self.warps = []
        for mm, wavelengths, count in _WARPS:
            waves = [brain.Waves(rng, wavelengths, count) for _ in range(3)]
            self.warps.append((mm, waves))
        self.texture = brain.Waves(rng, (3.0, 15.0), 40)
        self.rough = brain.Waves(rng, (9.0, 22.0), 16)
        self.lesion = str(rng.choice(["none", "tumour", "foci"], p=[0.45, 0.35, 0.2]))
        self.lesions = self._draw_lesions(rng)

    def slice(self, z: float) -> Slice:
        """The slice at the MNI height z in mm (of an undeformed head)."""
        p = self._place(z)
        t1, grey, white, mask = average().at(p)
        shares = np.zeros((len(TISSUES), *t1.shape), np.float32)
        shares[:3] = np.clip(mask - grey - white, 0, 1), grey, white
        for name, cover in self._lesion_layers(p, white, mask):
            shares *= 1 - cover
            shares[TISSUES.index(name)] += cover * mask
        # Proton density varies by 2.5 % within a tissue, alike for all contrasts.
        texture = 1 + np.float32(0.025) * self.texture.grid(self.axis, self.axis, z)
        return Slice(t1, shares, texture)

    def signal(self, tissue: Slice, contrast: str) -> np.ndarray:
        """Noise-free signal of a slice, float32 `[n, n]`; of T1 0 to 1, else per proton density.

        Raises:
            ValueError: for a contrast that is not in `CONTRASTS`.
        """
        if contrast not in CONTRASTS:
            raise ValueError(f"contrast: expected {', '.join(CONTRASTS)}. Received: {contrast!r}")
        if contrast == "T1":
            ill = self._t1_levels()[3:]
            kept = 1 - tissue.shares[3:].sum(0)
            signal = tissue.average * kept + np.tensordot(ill, tissue.shares[3:], 1)
        else:
            signals = [self._equation(contrast, *values) for values in self.tissues.values()]
            signal = np.tensordot(np.array(signals, np.float32), tissue.shares, 1)
        return signal * tissue.texture

    @staticmethod
    def _equation(contrast: str, t1: float, t2: float, pd: float) -> float:
        if contrast == "FLAIR":
            return brain.inversion_recovery(pd, t1, t2, *brain.FLAIR)
        return brain.spin_echo(pd, t1, t2, *SPIN_ECHOES[contrast])

    def _t1_levels(self) -> np.ndarray:
        """T1-weighted level of each of `TISSUES`, 0 to 1, on the scale of the average.

        The average's sequence is unknown: a spin echo's signals are put on its scale so that
        fluid, grey and white matter of the standard relaxation times get its levels.
        """

        def echo(values):
            t1, t2, pd = values
            return brain.spin_echo(pd, t1, t2, *brain.PROTOCOLS["T1"])

        known = [echo(brain.TISSUES[name][1:4]) for name in TISSUES[:3]]
        mine = [echo(self.tissues[name]) for name in TISSUES]
        return np.interp(mine, known, _LEVELS).astype(np.float32) / np.float32(255)

    def _place(self, z: float) -> np.ndarray:
        """Where in the average the pixels at height z come from: `[3, n, n]` mm, left, back, up."""
        dx, dy = np.meshgrid(self.axis - self.shift[0], self.axis - self.shift[1])
        dz = z - float(_CENTRE[2])
        c, s = math.cos(self.turn), math.sin(self.turn)
        x, y = c * dx + s * dy, c * dy - s * dx
        c, s = math.cos(self.nod), math.sin(self.nod)
        y, up = c * y + s * dz, c * dz - s * y
        p = np.stack([x, y, up]).astype(np.float32)
        for i in range(3):
            p[i] = p[i] / self.scale[i] + float(_CENTRE[i])
            for amplitude, waves in self.warps:
                p[i] += np.float32(amplitude) * waves[i].grid(self.axis, self.axis, z)
        middle, reach = _VENTRICLES.astype(np.float32)[..., None, None]
        d = p - middle
        p -= d * (self.atrophy * np.exp(-((d / reach) ** 2).sum(0)))
        for centre, radius, oedema, _ in self.lesions:
            if oedema:  # a mass pushes what is around it away
                d = p - np.array(centre, np.float32)[:, None, None]
                p -= d * (0.35 * np.exp(-((d / (1.6 * radius + 0.6 * oedema)) ** 2).sum(0)))
        return p

    def _draw_lesions(
        self, rng: np.random.Generator
    ) -> list[tuple[list[float], float, float, float]]:
        """(centre in the average, radius, reach of the oedema, radius of the dead middle), mm."""
        if self.lesion == "none":
            return []
        tumour = self.lesion == "tumour"
        lesions = []
        for _ in range(1 if tumour else int(rng.integers(8, 30))):
            side = rng.choice([-1.0, 1.0])
            centre = [side * rng.uniform(16, 42), rng.uniform(-35, 65), rng.uniform(0, 45)]
            radius = rng.uniform(7, 17) if tumour else rng.uniform(1.5, 4)
            oedema = rng.uniform(4, 16) if tumour else 0.0
            dead = radius * rng.uniform(0.4, 0.7) if tumour and rng.uniform() < 0.6 else 0.0
            lesions.append((centre, float(radius), float(oedema), float(dead)))
        return lesions

    def _lesion_layers(self, p, white, mask) -> list[tuple[str, np.ndarray]]:
        """(tissue, coverage `[n, n]`) of the lesions, each over those before it."""
        layers = []
        for centre, radius, oedema, dead in self.lesions:
            apart = np.sqrt(((p - np.array(centre, np.float32)[:, None, None]) ** 2).sum(0))
            near = apart < radius + oedema + 10
            if not near.any():
                continue
            rough = np.zeros_like(apart)
            rough[near] = self.rough.at(p[:, near].T)[0]
            depth = np.where(near, radius - apart + 0.15 * radius * rough, np.float32(-1e3))
            if oedema:  # it spreads in the white matter
                spread = self._step(depth + oedema * (1 + 0.4 * rough)) * white
                layers.append(("oedema", spread))
                layers.append(("tumour", self._step(depth)))
            else:
                layers.append(("oedema", self._step(depth) * white))
            if dead:
                layers.append(("necrosis", self._step(depth - radius + dead)))
        return layers

    def _step(self, depth: np.ndarray) -> np.ndarray:
        """Coverage of a pixel whose centre is `depth` mm inside an edge."""
        return np.clip(0.5 + depth / max(1.5, self.spacing), 0, 1).astype(np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class Average:
    """The average brain.

    Attributes:
        volumes: T1-weighted image, grey and white matter, mask: uint8 `[slice, row, column]`, 0
            to 255, at 1 mm, slices upwards, rows backwards, columns to the left.
        origin: mm (left, back, up) of voxel (0, 0, 0), MNI.
    """

    volumes: tuple[np.ndarray, ...]
    origin: np.ndarray

    def at(self, p: np.ndarray) -> np.ndarray:
        """The volumes at points `[3, n, n]` in mm (left, back, up): float32 `[4, n, n]`, 0 to 1."""
        # The arrays run upwards, backwards and left.
        index = (p - self.origin.astype(np.float32)[:, None, None])[::-1].reshape(3, -1)
        values = np.zeros((4, index.shape[1]), np.float32)
        # The mask where it may be, the others where it is: most of an image is air.
        where = np.ones(index.shape[1], bool)
        for axis, size in zip(index, self.volumes[0].shape, strict=True):
            where &= (axis > 0) & (axis < size - 1)
        for i in (3, 0, 1, 2):
            (flat,) = where.nonzero()
            points = np.take(index, flat, 1)
            values[i, flat] = ndimage.map_coordinates(self.volumes[i], points, np.float32, order=1)
            where = values[3] > 0
        return values.reshape(4, *p.shape[1:]) / np.float32(255)


def files() -> dict[str, Path]:
    """The average's files in the `nilearn` wheel, which is not imported.

    Raises:
        FileNotFoundError: where `nilearn` is not installed, or a file is not in it.
    """
    spec = importlib.util.find_spec("nilearn")
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            "nilearn: expected this package, which holds the ICBM 2009a brain that the mni152 "
            'configs deform; pip install "zoo-medical[mni]". Received: not installed'
        )
    folder = Path(spec.origin).parent / "datasets" / "data"
    paths = {
        name: folder / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
        for name in ("t1", "gm", "wm")
    }
    for path in paths.values():
        if not path.is_file():
            raise FileNotFoundError(
                f"nilearn: expected {path.name} in its datasets/data; version 0.11 and later have "
                "it. Received: none"
            )
    return paths


@functools.cache
def average() -> Average:
    """The average brain, read once a process (half a second, 20 MB)."""
    scans = [volumes.read_nifti(path) for path in files().values()]
    t1 = scans[0].values
    inside = t1 > 0
    box = tuple(slice(max(i.min() - 2, 0), i.max() + 3) for i in np.nonzero(inside))
    arrays = [np.where(inside, scan.values, 0)[box].astype(np.uint8) for scan in scans]
    arrays.append(np.where(inside, 255, 0)[box].astype(np.uint8))
    first = np.array([side.start for side in box] + [1.0])
    return Average(tuple(arrays), (scans[0].affine @ first)[:3])
