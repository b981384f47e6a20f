"""Random brains: tissue fractions, labels and spin-echo signals of simulated heads.

A head is a set of smooth functions of (x, y, z) in mm: x to the image's right (the patient's
left), y down (towards the back), z up, with 0 at the level of the basal ganglia and the vertex of
the brain near 68. So a slice is cheap at any height and pixel size, and neighbouring slices fit
together. The cortex is folded along the zero set of a random field on the brain's surface.

The signal is that of a spin echo, per unit of proton density of cerebrospinal fluid:

    S = PD (1 - exp(-TR / T1)) exp(-TE / T2)        (TR, TE, T1, T2 in ms),

averaged over the tissues of a pixel by their fractions. No TensorFlow is imported.
"""

import dataclasses
import math
from collections.abc import Iterable

import numpy as np

FIELD_MM = 224.0  # a field of view that holds every head
EXTENT = (-12.0, 58.0)  # mm: between these heights slices look like a head's
LABELS = ("background", "scalp", "skull", "csf", "grey", "white", "lesion")
PROTOCOLS = {"T1": (500.0, 15.0), "T2": (4000.0, 100.0), "PD": (4000.0, 15.0)}  # TR, TE in ms
# TR, TE, TI in ms. TI nulls fluid of T1 2569 ms, BrainWeb's; a real patient's needs a longer one.
FLAIR = (9000.0, 120.0, 1700.0)

# name: label, T1 ms, T2 ms, proton density, relative spread between patients. Brain, fluid, fat
# and muscle are near the values of BrainWeb at 1.5 T (Kwan, Evans and Pike, 1999).
TISSUES = {
    "air": ("background", 1000.0, 50.0, 0.0, 0.0),
    "skin": ("scalp", 900.0, 45.0, 0.75, 0.05),
    "fat": ("scalp", 350.0, 70.0, 1.0, 0.05),
    "muscle": ("scalp", 900.0, 47.0, 0.9, 0.05),
    "bone": ("skull", 1000.0, 10.0, 0.1, 0.05),
    "marrow": ("skull", 450.0, 60.0, 0.45, 0.15),
    "fluid": ("csf", 2569.0, 329.0, 1.0, 0.04),
    "cortex": ("grey", 833.0, 83.0, 0.86, 0.03),
    "nuclei": ("grey", 760.0, 77.0, 0.85, 0.03),
    "pallidum": ("grey", 680.0, 66.0, 0.83, 0.03),
    "white": ("white", 500.0, 70.0, 0.77, 0.03),
    "oedema": ("lesion", 1050.0, 125.0, 0.86, 0.08),
    "tumour": ("lesion", 1250.0, 105.0, 0.88, 0.1),
    "necrosis": ("lesion", 2000.0, 230.0, 0.95, 0.1),
}
# HU of the tissues at 120 kV, and their standard deviation between patients.
HU = {
    "air": (-1000.0, 0.0),
    "skin": (25.0, 8.0),
    "fat": (-98.0, 5.0),
    "muscle": (56.0, 4.0),
    "bone": (1350.0, 150.0),
    "marrow": (520.0, 130.0),  # between the tables of the skull, with its trabeculae
    "fluid": (8.0, 2.0),
    "cortex": (38.0, 1.5),
    "nuclei": (38.0, 1.5),
    "pallidum": (42.0, 3.0),
    "white": (29.0, 1.5),
    "oedema": (20.0, 2.0),
    "tumour": (43.0, 7.0),
    "necrosis": (15.0, 3.0),
}
BONE = [list(TISSUES).index(name) for name in ("bone", "marrow")]
_LABEL = np.array([LABELS.index(tissue[0]) for tissue in TISSUES.values()])
_INDEX = {name: i for i, name in enumerate(TISSUES)}

# Middle lines of a lateral ventricle, |x| y z, and its radius, in mm.
_VENTRICLE = (
    ((6.5, -32, 5), (8, -16, 12), 4.2),
    ((8, -16, 12), (11, 8, 19), 4.2),
    ((11, 8, 19), (23, 27, 12), 4.6),
    ((23, 27, 12), (22, 46, 4), 3.0),
    ((23, 27, 12), (32, 14, -8), 3.0),
    ((32, 14, -8), (30, -6, -16), 2.4),
)


def draw_hu(rng: np.random.Generator) -> np.ndarray:
    """HU of each of `TISSUES` in one patient, float32 `[tissues]`."""
    return np.array(
        [mean + spread * rng.standard_normal() for mean, spread in HU.values()], np.float32
    )


def spin_echo(pd, t1, t2, tr: float, te: float):
    """Signal of a spin echo; times in ms, in units of the proton density `pd`."""
    return pd * (1.0 - np.exp(-tr / t1)) * np.exp(-te / t2)


def inversion_recovery(pd, t1, t2, tr: float, te: float, ti: float):
    """Magnitude of an inversion-recovery spin echo; times in ms, in units of `pd`.

    S = PD |1 - 2 exp(-TI / T1) + exp(-TR / T1)| exp(-TE / T2)
    """
    return pd * np.abs(1 - 2 * np.exp(-ti / t1) + np.exp(-tr / t1)) * np.exp(-te / t2)


def rician(signal: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Magnitude of `signal` plus complex normal noise of `sigma` a channel; float32."""
    noise = np.float32(sigma) * rng.standard_normal((2, *np.shape(signal)), np.float32)
    return np.hypot(signal + noise[0], noise[1]).astype(np.float32)


def bias_field(rng: np.random.Generator, size: int, spacing: float, strength=0.15) -> np.ndarray:
    """A receive coil's sensitivity, float32 `[size, size]`: smooth, of geometric mean 1.

    Its logarithm is `strength` times a field with wavelengths of 150 to 400 mm.
    """
    axis = _axis(size, spacing)
    field = Waves(rng, (150.0, 400.0), 12).grid(axis, axis, 0.0)
    return np.exp(strength * (field - field.mean()))


class Waves:
    """A random field in space: plane waves of random direction, wavelength (mm) and phase.

    Mean 0 and variance 1 over all fields of these wavelengths.
    """

    def __init__(self, rng: np.random.Generator, wavelengths: tuple[float, float], count: int = 24):
        k = rng.standard_normal((count, 3))
        k *= 2 * np.pi / np.linalg.norm(k, axis=1, keepdims=True)
        self.k = (k / rng.uniform(*wavelengths, (count, 1))).astype(np.float32)
        self.phase = rng.uniform(0, 2 * np.pi, count).astype(np.float32)
        self.amplitude = np.float32(np.sqrt(2.0 / count))

    def grid(self, x: np.ndarray, y: np.ndarray, z: float) -> np.ndarray:
        """The field on the grid of the axes `y` (rows) and `x` at height z, float32 `[H, W]`."""
        # cos(a + b) = cos a cos b - sin a sin b makes the sum over waves a matrix product.
        a = y[:, None] * self.k[:, 1] + (z * self.k[:, 2] + self.phase)
        b = self.k[:, 0, None] * x
        return self.amplitude * (np.cos(a) @ np.cos(b) - np.sin(a) @ np.sin(b))

    def at(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The field `[n]` at points `[n, 3]` in mm, and the length of its gradient in 1/mm."""
        phase = points @ self.k.T + self.phase
        slope = np.sin(phase) @ self.k
        value = self.amplitude * np.cos(phase).sum(1)
        return value, self.amplitude * np.sqrt((slope**2).sum(1))


@dataclasses.dataclass(frozen=True)
class _Lesion:
    """A roundish body; lengths in mm."""

    centre: np.ndarray
    radius: float
    oedema: float  # reach around it
    necrosis: float  # radius of the dead centre, 0: none
    solid: bool


class Brain:
    """A random head; everything about it comes from `rng`.

    Args:
        rng: random generator.
        size: height and width of the slices in pixels.
        spacing: pixel pitch in mm; `size * spacing` should be at least about `FIELD_MM`.

    Attributes:
        tissues: `{name: (T1 ms, T2 ms, proton density)}` of this patient.
        lesion: "none", "tumour" or "foci" (small ones in the white matter).
    """

    def __init__(self, rng: np.random.Generator, size: int, spacing: float):
        self.size, self.spacing = int(size), float(spacing)
        self.axis = _axis(self.size, self.spacing)
        self.tissues = {}
        for name, (_, t1, t2, pd, spread) in TISSUES.items():
            values = (v * (1 + spread * rng.standard_normal()) for v in (t1, t2, pd))
            self.tissues[name] = tuple(values)
        # Python's numbers, not NumPy's: those would turn the slices into double precision.
        self.half = (np.array([67.0, 80.0, 68.0]) * rng.uniform(0.95, 1.05, 3)).tolist()  # mm
        self.egg = rng.uniform(0.04, 0.12)  # how much wider the back is
        self.turn, self.nod = np.deg2rad(rng.normal(0, (3.0, 4.0))).tolist()
        self.shift = rng.normal(0, 2.0, 2).tolist()
        self.atrophy = rng.uniform() ** 1.7  # 0 young, 1 wide sulci and ventricles
        self.thickness = rng.uniform(2.8, 3.4) - 0.4 * self.atrophy  # cortex, mm
        self.subdural = rng.uniform(1.2, 2.0) + 2.5 * self.atrophy
        self.skull, self.scalp = rng.uniform(5.0, 7.5), rng.uniform(2.5, 6.0)
        self.marrow = rng.uniform(0.25, 0.5)  # of the skull
        self.temporalis = rng.uniform(3.0, 6.0)
        self.ventricles = rng.uniform(0.75, 1.05) + 0.7 * self.atrophy
        self.warp = [Waves(rng, (90.0, 180.0)) for _ in range(3)]
        self.bone_waves = Waves(rng, (60.0, 120.0))
        self.folds, self.depths = Waves(rng, (17.0, 24.0), 32), Waves(rng, (25.0, 50.0), 16)
        self.detail = [Waves(rng, (28.0, 60.0), 16) for _ in range(3)]
        self.texture = Waves(rng, (3.0, 15.0), 60)
        self.rough = Waves(rng, (10.0, 25.0), 12)
        self.lesion = str(rng.choice(["none", "tumour", "foci"], p=[0.35, 0.45, 0.2]))
        self.lesions = self._draw_lesions(rng)

    def fractions(self, z: float, thickness: float = 0.0) -> np.ndarray:
        """Share of each of `TISSUES` in every pixel, float32 `[tissues, size, size]`, sum 1.

        `thickness` in mm averages over a slice that thick around z (three levels of it).
        """
        if thickness > 0:
            first, *others = (self.fractions(z + thickness * t) for t in (-1 / 3, 0, 1 / 3))
            return sum(others, first) / 3
        out = np.zeros((len(TISSUES), self.size, self.size), np.float32)
        free = np.ones((self.size, self.size), np.float32)
        for name, cover in reversed(self._layers(float(z))):
            out[_INDEX[name]] += free * cover
            free *= 1 - cover
        out[_INDEX["air"]] += free
        return out

    def labels(self, z: float, thickness: float = 0.0) -> np.ndarray:
        """The index in `LABELS` of what fills most of each pixel, uint8 `[size, size]`."""
        return labels_of(self.fractions(z, thickness))

    def signal(self, z: float, contrast: str, thickness: float = 0.0) -> np.ndarray:
        """Noise-free signal at z, float32 `[size, size]`, from 0 to about 0.8."""
        return self.signal_of(self.fractions(z, thickness), z, contrast)

    def signal_of(self, fractions: np.ndarray, z: float, contrast: str) -> np.ndarray:
        """Signal of the `fractions` at z: contrasts of one slice can share them.

        Raises:
            ValueError: for a contrast that is neither in `PROTOCOLS` nor FLAIR.
        """
        tissues = self.tissues.values()
        if contrast == "FLAIR":
            signals = [inversion_recovery(pd, t1, t2, *FLAIR) for t1, t2, pd in tissues]
        elif contrast in PROTOCOLS:
            signals = [spin_echo(pd, t1, t2, *PROTOCOLS[contrast]) for t1, t2, pd in tissues]
        else:
            known = ", ".join([*PROTOCOLS, "FLAIR"])
            raise ValueError(f"contrast: expected {known}. Received: {contrast!r}")
        # Proton density varies by 2.5 % within a tissue, alike for all contrasts.
        texture = 1 + np.float32(0.025) * self.texture.grid(self.axis, self.axis, z)
        return np.tensordot(np.array(signals, np.float32), fractions, 1) * texture

    def volume(self, zs: Iterable[float], contrast: str, thickness: float = 0.0) -> np.ndarray:
        """Signals at the heights `zs`, float32 `[D, size, size]`."""
        return np.stack([self.signal(z, contrast, thickness) for z in zs])

    def label_volume(self, zs: Iterable[float], thickness: float = 0.0) -> np.ndarray:
        """Labels at the heights `zs`, uint8 `[D, size, size]`."""
        return np.stack([self.labels(z, thickness) for z in zs])

    def _draw_lesions(self, rng: np.random.Generator) -> list[_Lesion]:
        if self.lesion == "none":
            return []
        tumour = self.lesion == "tumour"
        lesions = []
        for _ in range(1 if tumour else rng.integers(6, 25)):
            side = rng.choice([-1.0, 1.0])
            centre = side * rng.uniform(16, 40), rng.uniform(-40, 45), rng.uniform(-2, 42)
            radius = rng.uniform(7, 16) if tumour else rng.uniform(1.5, 4)
            oedema = rng.uniform(3, 14) if tumour else 0.0
            dead = radius * rng.uniform(0.4, 0.7) if tumour and rng.uniform() < 0.6 else 0.0
            lesions.append(_Lesion(np.array(centre), radius, oedema, dead, tumour))
        return lesions

    def _place(self, z: float) -> np.ndarray:
        """Template coordinates `[3, size, size]` of the pixels at height z."""
        c, s = math.cos(self.turn), math.sin(self.turn)
        dx, dy = self.axis - self.shift[0], self.axis[:, None] - self.shift[1]
        x, y = c * dx + s * dy, c * dy - s * dx
        c, s = math.cos(self.nod), math.sin(self.nod)
        y, z_ = c * y + s * z, c * z - s * y
        p = np.stack(np.broadcast_arrays(x, y, z_)).astype(np.float32)
        for i, waves in enumerate(self.warp):
            p[i] += np.float32(1.8) * waves.grid(self.axis, self.axis, z)
        for lesion in self.lesions:
            if lesion.solid:  # a mass pushes what is around it away
                d = p - lesion.centre.astype(np.float32)[:, None, None]
                reach = 1.8 * (lesion.radius + 0.5 * lesion.oedema)
                p -= d * (0.3 * np.exp(-((d / reach) ** 2).sum(0)))
        return p

    def _layers(self, z: float) -> list[tuple[str, np.ndarray]]:
        """(tissue, coverage `[size, size]`) from the bottom up; each hides those before it."""
        x, y, w = p = self._place(z)
        a, b, c = self.half
        # Depth under the brain's envelope in mm, negative outside: first order in the ellipsoid.
        wide = a * (1 + self.egg * y / b)
        e = np.stack([x / wide, y / b, np.where(w > 0, w / c, w / (2 * c))])
        rho = np.sqrt((e**2).sum(0)) + 1e-6
        slope = np.sqrt((e[0] / wide) ** 2 + (e[1] / b) ** 2 + (e[2] / c) ** 2) + 1e-6
        depth = (1 - rho) * rho / slope
        front = np.clip((depth + 30) / 10, 0, 1)  # farther out, the first order misleads
        depth = front * depth + (1 - front) * -30
        uneven = self.bone_waves.grid(self.axis, self.axis, z)
        inner = -self.subdural
        outer = inner - self.skull * (1 + 0.1 * uneven + 0.2 * (y / b) ** 2)
        # The temporal muscles.
        side = np.exp(-(((y + 20) / 28) ** 2)) * np.clip((34 - w) / 25, 0, 1)
        side *= np.clip(np.abs(x) / a - 0.45, 0, 0.4) / 0.4
        flesh = outer - self.temporalis * side
        skin = flesh - self.scalp * (1 - 0.1 * uneven)
        middle, half = (inner + outer) / 2, self.marrow * (inner - outer) / 2
        step = self._step
        layers = [
            ("skin", step(depth - skin)),
            ("fat", step(depth - skin - 1.6)),
            ("muscle", step(depth - flesh - 0.8) * (side > 0.15)),
            ("bone", step(depth - outer)),
            ("marrow", step(half - np.abs(depth - middle))),
            ("fluid", step(depth - inner)),
        ]
        near = (depth > -3).nonzero()
        q = p[:, near[0], near[1]]
        q += np.stack([1.9 * f.grid(self.axis, self.axis, z)[near] for f in self.detail])
        cortical = self._cortical(q, e[:, near[0], near[1]], depth[near])

        def full(values):
            image = np.zeros((self.size, self.size), np.float32)
            image[near] = values
            return image

        white = step(cortical - self.thickness)
        layers += [("cortex", full(step(cortical))), ("white", full(white))]
        layers += [(name, full(cover * white)) for name, cover in self._nuclei(q)]
        layers.append(("fluid", full(step(-self._ventricular(q)))))
        inside = step(depth[near])
        for name, cover in self._lesion_layers(q, white):
            layers.append((name, full(cover * inside)))
        return layers

    def _step(self, distance: np.ndarray) -> np.ndarray:
        """Coverage of a pixel whose centre is `distance` mm inside an edge."""
        return np.clip(0.5 + distance / max(self.spacing, 0.8), 0, 1)

    def _cortical(self, p, e, depth) -> np.ndarray:
        """Distance in mm from the fluid outside and in the sulci, negative in it; `[n]`."""
        x, y, z = p
        result = depth.copy()
        band = (depth < 30).nonzero()[0]
        q, d = p[:, band], depth[band]
        # The folds' field lives on the envelope; some dependence on the depth bends the sulci.
        centre = np.linalg.norm(e[:, band], axis=0) + 1e-3
        onto = q / centre * (1 - 0.006 * d)
        value, gradient = self.folds.at(onto.T)
        # Deeper, the same direction moves less: distances shrink with the radius.
        away = np.abs(value) / np.sqrt(gradient**2 + 0.02**2) * np.clip(centre, 0.5, 1)
        reach, _ = self.depths.at(onto.T)
        floor = np.clip(15 + 5 * reach, 4, 26)
        sulci = np.hypot(away, np.maximum(d - floor, 0)) - (0.4 + 0.9 * self.atrophy)
        result[band] = np.minimum(d, sulci)
        # Between the hemispheres, down to the corpus callosum.
        callosum = 1 - np.hypot((y - 3) / 38, np.maximum(z + 2, 0) / 27)
        wide = 0.6 + 0.8 * self.atrophy + np.clip((12 - depth) / 12, 0, 1)
        middle = np.hypot(x, 30 * np.maximum(callosum, 0)) - wide
        result = np.minimum(result, middle)
        # The Sylvian fissures and the cleft over the insula.
        lateral = np.abs(x)
        opening = -14 + 0.9 * (z + 8)
        cleft = np.minimum(
            _segment(lateral, y, (40, -18), (39, 17)),
            np.hypot(np.maximum(41 - lateral, 0), y - opening - 0.35 * (lateral - 41)),
        )
        beyond = np.maximum(np.maximum(z - 18, -16 - z), 0)
        cleft = np.hypot(cleft, beyond) - (0.8 + 1.4 * self.atrophy)
        return np.minimum(result, cleft)

    def _nuclei(self, p) -> list[tuple[str, np.ndarray]]:
        """Coverage of the deep grey nuclei."""
        p = np.stack([np.abs(p[0]), p[1], p[2]])
        blob = lambda *args: self._step(_ellipsoid(p, *args))  # noqa: E731
        return [
            ("nuclei", blob((12, 13, 4), (8, 13.5, 10), 0.25)),  # thalamus
            ("nuclei", blob((14.5, -19, 7), (5, 10, 11), 0.2)),  # head of the caudate
            ("nuclei", blob((15.5, 2, 19), (3, 17, 4), 0.2)),  # its body
            ("nuclei", blob((27.5, -3, 1), (5, 15, 10), 0.15)),  # putamen
            ("pallidum", blob((20.5, -1, -1), (4.2, 9, 7), 0.3)),
        ]

    def _ventricular(self, p) -> np.ndarray:
        """Distance in mm from the ventricles, negative inside; `[n]`."""
        lateral = np.stack([np.abs(p[0]), p[1], p[2]])
        distance = np.full(p.shape[1], 1e3, np.float32)
        box = ((lateral[0] < 46) & (np.abs(p[1]) < 64) & (np.abs(p[2]) < 34)).nonzero()[0]
        q = lateral[:, box]
        best = distance[box]
        for first, last, radius in _VENTRICLE:
            start, end = np.array([first, last], np.float32)[..., None]
            along = end - start
            t = np.clip((along * (q - start)).sum(0) / (along**2).sum(), 0, 1)
            apart = np.sqrt(((q - start - t * along) ** 2).sum(0))
            best = np.minimum(best, apart - radius * self.ventricles)
        best = np.maximum(best, 1.0 - q[0])  # the septum
        third = _ellipsoid(q, (0, 3, -3), (1.2 + 2 * (self.ventricles - 0.7), 13, 8), 0.0)
        distance[box] = np.minimum(best, -third)
        return distance

    def _lesion_layers(self, p, white) -> list[tuple[str, np.ndarray]]:
        """Coverage of the lesions; oedema spreads in the white matter only."""
        layers = []
        for lesion in self.lesions:
            apart = np.sqrt(((p - lesion.centre.astype(np.float32)[:, None]) ** 2).sum(0))
            reach = lesion.radius + lesion.oedema + 8
            if not (close := (apart < reach).nonzero()[0]).size:
                continue
            rough, _ = self.rough.at(p[:, close].T)
            d = lesion.radius - apart[close] + 0.12 * lesion.radius * rough
            parts = [("tumour" if lesion.solid else "oedema", d, False)]
            if lesion.oedema:
                parts.insert(0, ("oedema", d + lesion.oedema * (1 + 0.4 * rough), True))
            if lesion.necrosis:
                parts.append(("necrosis", d - lesion.radius + lesion.necrosis, False))
            for name, distance, spreads in parts:
                cover = np.zeros(p.shape[1], np.float32)
                cover[close] = self._step(distance)
                keep = white if spreads or not lesion.solid else 1.0
                layers.append((name, cover * keep))
        return layers


def labels_of(fractions: np.ndarray) -> np.ndarray:
    """The index in `LABELS` with the largest share: `[tissues, H, W]` to uint8 `[H, W]`."""
    share = np.zeros((len(LABELS), *fractions.shape[1:]), np.float32)
    np.add.at(share, _LABEL, fractions)
    return share.argmax(0).astype(np.uint8)


def _axis(size: int, spacing: float) -> np.ndarray:
    return ((np.arange(size) - (size - 1) / 2) * spacing).astype(np.float32)


def _ellipsoid(p, centre, half, tilt: float) -> np.ndarray:
    """Distance in mm inside an ellipsoid turned by `tilt` rad in the plane, to first order."""
    x, y, z = (p[i] - np.float32(centre[i]) for i in range(3))
    c, s = math.cos(tilt), math.sin(tilt)
    u, v, w = (c * x - s * y) / half[0], (s * x + c * y) / half[1], z / half[2]
    rho = np.sqrt(u * u + v * v + w * w) + 1e-3
    slope = np.sqrt((u / half[0]) ** 2 + (v / half[1]) ** 2 + (w / half[2]) ** 2) + 1e-3
    return np.clip((1 - rho) * rho / slope, -30, 30)


def _segment(x, y, start, end) -> np.ndarray:
    """Distance in the plane from the line between two points."""
    ex, ey = end[0] - start[0], end[1] - start[1]
    t = np.clip(((x - start[0]) * ex + (y - start[1]) * ey) / (ex * ex + ey * ey), 0, 1)
    return np.hypot(x - start[0] - t * ex, y - start[1] - t * ey)
