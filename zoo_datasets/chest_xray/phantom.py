"""Radiographs of digital patients: the examples of `chest_xray/phantom`.

The patients are those of `ldct`, with the shoulders, clavicles and lung apices that a CT of the
lower chest leaves out, arms down and without table or contrast medium. A patient is painted as a
coarse volume of HU, whose attenuation is summed along the X-rays from back to front (parallel
rays: at a distance of 1.8 m they nearly are). The vessels of the lungs, finer than the volume's
voxels, are projected as cylinders. With the line integral L of each ray,

    I = N exp(-L) + scatter,   Poisson noise,   detector blur,   signal ~ log(N / I),

after which tall differences are compressed, as a radiograph's processing does, and the tissues
brought to 12 bits: bright bone, dark lungs. Importable without TensorFlow.
"""

import dataclasses

import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_filter1d, map_coordinates, zoom

from zoo.physics import radon
from zoo_datasets.cases import Case, Examples
from zoo_datasets.phantoms.anatomy import Canvas, Contour
from zoo_datasets.phantoms.body import Patient
from zoo_datasets.simulated import SimulatedConfig, slices

FIELD = 358.4  # mm, side of the square field of view
TOP = -92.0  # mm, upper edge: above the shoulders; 0 is the aortic arch
MAXIMUM = 4095
_PHOTONS = 4.0e4  # detected in 1 mm² without a patient
_SCATTER = 0.25  # of the detected photons behind a grid
_BONE = 1.9  # attenuation of bone over what its HU say: a radiograph's photons are softer
# Half width of the trunk by z, relative to the chest's: neck, shoulders, armpits.
_SHOULDERS_Z = np.arange(-130.0, 120.0)
_SHOULDERS = gaussian_filter1d(
    np.interp(
        _SHOULDERS_Z,
        (-95.0, -82.0, -72.0, -63.0, -52.0, -35.0, 0.0, 40.0, 75.0),
        (0.36, 0.42, 0.62, 0.95, 1.15, 1.22, 1.18, 1.07, 1.0),
    ),
    6,
    mode="nearest",
)
_WIDEST = 110.0  # z of the chest cavity's greatest width
_DISC = 12  # points across a vessel
_LUNG = -500.0  # HU: below it a voxel belongs to the lungs or to gas


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What is painted and how it is projected.

    Attributes:
        size: rows and columns of the radiograph.
        voxels: rows and columns of the volume's slices.
        slices: of the volume.
        images: radiographs of a patient, each turned a little otherwise.
    """

    size: int = 256
    voxels: int = 192
    slices: int = 96
    images: int = 2

    @property
    def spacing(self) -> float:
        """Pixel pitch of the radiograph in mm."""
        return FIELD / self.size


class Chest(Patient):
    """A patient of `ldct`, up to the neck."""

    def __init__(self, rng: np.random.Generator, size: int, spacing: float):
        super().__init__(rng, size, spacing)
        self.hu["liver"] -= 50 * self.contrast
        self.hu["muscle"] -= 8 * self.contrast
        self.hu["spleen"] -= 70 * self.contrast
        self.hu["kidney"] -= 130 * self.contrast
        self.contrast, self.blood = 0.0, 42.0
        # Drawn by `_vessels`, finer than a slice can hold them; the bronchi stay the first two.
        self.vessels, self.lung_trees = self.lung_trees, []
        self.air_trees = [tree[:2] for tree in self.air_trees]
        self.apex = rng.uniform(58, 72)  # mm above the arch
        self.collar = rng.uniform(-38, -26), rng.uniform(4, 20)  # z of the clavicles, their rise
        self.heart.a *= rng.uniform(0.85, 1.2)
        self.heart.z += 10  # standing, the heart hangs lower

    def slice(self, z: float) -> np.ndarray:
        """See `Patient.slice`; z may be negative, up to the neck."""
        canvas = Canvas(self.size, self.spacing, self.fields[0])
        canvas.hu = super().slice(z)
        self._shoulders(canvas, z)
        return canvas.hu

    def contours(self, z: float) -> tuple[Contour, Contour, Contour]:
        body, muscle, cavity = super().contours(max(z, 0.0))
        wide = np.interp(z, _SHOULDERS_Z, _SHOULDERS)
        deep = np.interp(z, [-95, -45, 20], [0.62, 0.85, 1.0])
        for shape in (body, muscle):
            shape.a *= wide
            shape.b *= deep
        if z < _WIDEST:
            share = min((_WIDEST - z) / (_WIDEST + self.apex), 1.0)
            narrow = (1 - share**2.3) ** (1 / 2.3)
            cavity.a = max(cavity.a * narrow, 1.0)
            cavity.b = max(cavity.b * narrow, 1.0)
            cavity.y += 0.2 * max(-z, 0.0)
        return body, muscle, cavity

    def _lungs(self, canvas: Canvas, z: float, cavity: Contour, inside: np.ndarray) -> np.ndarray:
        # Above 20 mm, `Patient` narrows them for want of a cavity that does.
        return super()._lungs(canvas, max(z, 20.0), cavity, inside)

    def _table(self, canvas: Canvas, body: Contour) -> None:
        """None: the patient stands."""

    def _mediastinum(self, canvas: Canvas, z: float) -> None:
        if z > -12:
            super()._mediastinum(canvas, z)
            return
        for x, y, r in ((-24, -8, 9), (22, -4, 8), (8, -2, 6)):  # veins and arteries of the neck
            canvas.blob(Contour(x, y, r, r), self.blood, (2, 3))
        canvas.blob(Contour(0, 12, 11, 10), 25, (2, 4))
        canvas.blob(Contour(0, 12, 8.5, 8), -985)

    def _shoulders(self, canvas: Canvas, z: float) -> None:
        """Clavicles and the heads of the upper arms."""
        dense, spongy = self.hu["dense"], self.hu["spongy"]
        body, _, _ = self.contours(z)
        level, rise = self.collar
        along = np.linspace(0, 1, 13)
        for side in (-1, 1):
            x, y = side * (14 + 122 * along), -0.45 * self.body[1] + 34 * along**2
            for k in range(len(along) - 1):
                gap = z - (level - rise * along[k : k + 2].mean())
                if abs(gap) < 6:
                    ends = [(x[k], y[k]), (x[k + 1], y[k + 1])]
                    canvas.rod(ends, np.sqrt(36 - gap**2), dense * 1.3, 1.3 * spongy)
            reach = 24**2 - (z + 42) ** 2
            r = np.sqrt(reach) if reach > 0 and z < -42 else 24 - 12 * min(max(z + 42, 0) / 30, 1)
            if z > -66:
                middle = side * 0.9 * min(1.08 * self.body[0], body.a * 1.02)
                canvas.bone(Contour(middle, 4, max(r, 1.0), max(r, 1.0)), 2.0, dense * 0.8, spongy)


def patient(protocol: Protocol, seed: int, number: int) -> list[np.ndarray]:
    """Radiographs of patient `number`: uint16 `[size, size]`; all follows from (seed, number)."""
    rng = np.random.default_rng([seed, number])
    chest = Chest(rng, protocol.voxels, FIELD / protocol.voxels)
    step = FIELD / protocol.slices
    hu = np.stack([chest.slice(TOP + (k + 0.5) * step) for k in range(protocol.slices)])
    return [_radiograph(protocol, chest, hu, rng) for _ in range(protocol.images)]


def read(case: Case, config: SimulatedConfig[Protocol]) -> Examples:
    """The radiographs of a simulated patient."""
    images = patient(config.protocol, config.seed, case.facts["number"])
    yield from slices(case, {"image": images}, spacing=(config.protocol.spacing,) * 2)


def line_integrals(protocol: Protocol, hu: np.ndarray, angle: float) -> np.ndarray:
    """Attenuation along parallel rays from back to front.

    Args:
        protocol: the size of the result; `hu` covers its field of view in all directions.
        hu: `[slices, rows, columns]`; rows run from front to back.
        angle: of the rays to the rows' axis, in radians; the patient is turned by it.

    Returns:
        float32 `[size, size]`, no unit.
    """
    pitch = FIELD / hu.shape[1]
    attenuation = radon.hu_to_attenuation(np.where(hu > 100, 100 + _BONE * (hu - 100), hu))
    columns = np.arange(hu.shape[2])
    flat = np.zeros((hu.shape[0], hu.shape[2]), np.float32)
    for row in range(hu.shape[1]):  # a sheared sum: every ray meets each row once
        shift = (row - (hu.shape[1] - 1) / 2) * np.tan(angle)
        low = int(np.floor(shift))
        for offset, weight in ((low, 1 - (shift - low)), (low + 1, shift - low)):
            source = np.clip(columns - offset, 0, hu.shape[2] - 1)
            flat += np.float32(weight * pitch / np.cos(angle)) * attenuation[:, row, source]
    flat = gaussian_filter1d(flat, 0.6, axis=0, mode="nearest")  # slices are thin cuts, not slabs
    scale = [protocol.size / n for n in flat.shape]
    return zoom(flat, scale, order=1 if min(scale) < 1 else 3, mode="nearest", grid_mode=True)


def _radiograph(
    protocol: Protocol, chest: Chest, hu: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """A radiograph of a volume, uint16 `[size, size]`."""
    angle = rng.normal(0, 0.035)
    integral = line_integrals(protocol, hu, angle)
    integral += _vessels(protocol, chest, hu, angle)
    integral = np.maximum(integral, 0)
    photons = _PHOTONS * protocol.spacing**2 * rng.uniform(0.5, 1.5)
    primary = photons * np.exp(-integral)
    scatter = gaussian_filter(primary, 40 / protocol.spacing, mode="nearest")
    share = _SCATTER / (1 - _SCATTER)
    measured = gaussian_filter(primary, 0.35 / protocol.spacing) + share * scatter
    measured = rng.poisson(measured).astype(np.float32)
    measured = gaussian_filter(measured, 0.45 / protocol.spacing)  # the scintillator's glow
    signal = np.log(photons * (1 + share) / np.maximum(measured, 1))
    return _processed(signal, protocol, rng)


def _processed(signal: np.ndarray, protocol: Protocol, rng: np.random.Generator) -> np.ndarray:
    """Compress slow differences and spread the tissues over 12 bits."""
    body = signal > 0.4
    wide, near = (gaussian_filter(signal, mm / protocol.spacing, mode="nearest") for mm in (28, 7))
    harmonised = signal - rng.uniform(0.35, 0.5) * (wide - wide[body].mean())
    harmonised += rng.uniform(0.8, 1.4) * (signal - near)
    low, high = np.percentile(harmonised[body], [1, 99.5])
    low -= 0.12 * (high - low)
    value = np.clip((harmonised - low) / (high - low), 0, 1.15) / 1.15
    value *= np.clip(signal / 0.3, 0, 1)  # air beside the patient is black
    return np.rint(MAXIMUM * value).clip(0, MAXIMUM).astype(np.uint16)


def _vessels(protocol: Protocol, chest: Chest, hu: np.ndarray, angle: float) -> np.ndarray:
    """Line integrals of the vessels in place of lung, float32 `[size, size]`.

    Points along each cylinder carry its cross-section, so that what is thinner than a pixel keeps
    its mass.
    """
    scale = 4  # the splatting grid is finer than the detector
    pitch = protocol.spacing / scale
    size = protocol.size * scale
    total = np.zeros(size * size)
    # Points along the cylinders.
    tree = np.concatenate(chest.vessels)
    length = np.linalg.norm(tree[:, 3:6] - tree[:, :3], axis=1)
    counts = np.maximum(np.ceil(length / (2 * pitch)).astype(int), 1)
    part = np.repeat(np.arange(len(tree)), counts)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    t = ((np.arange(len(part)) - first + 0.5) / counts[part])[:, None]
    x, y, z = (tree[part, :3] * (1 - t) + tree[part, 3:6] * t).T
    radius, step = tree[part, 6], (length / counts)[part]
    where = np.stack(
        [
            (z - TOP) / FIELD * hu.shape[0] - 0.5,
            y / FIELD * hu.shape[1] + (hu.shape[1] - 1) / 2,
            x / FIELD * hu.shape[2] + (hu.shape[2] - 1) / 2,
        ]
    )
    # Blood in place of the air that is there.
    air = map_coordinates(hu, where, order=1, mode="nearest")
    mass = np.where(air < _LUNG, radius**2 * np.pi * step, 0) * (40 - air) / 1000
    # A disc of points gives the cylinder its width.
    for k in range(_DISC):
        phi, r = 2.399963 * k, radius * np.sqrt((k + 0.5) / _DISC)  # the golden angle
        column = (x + y * np.tan(angle) + r * np.cos(phi)) / pitch + (size - 1) / 2
        row = (z + r * np.sin(phi) - TOP) / pitch - 0.5
        row, column = np.rint(row).astype(int), np.rint(column).astype(int)
        fits = (row >= 0) & (row < size) & (column >= 0) & (column < size)
        index = (row * size + column)[fits]
        total += np.bincount(index, mass[fits] / _DISC, minlength=size * size)
    fine = total.reshape(protocol.size, scale, protocol.size, scale).sum((1, 3))
    fine = gaussian_filter(fine, 0.9 / protocol.spacing)  # as soft as the volume's structures
    return (fine * radon.MU_WATER / protocol.spacing**2).astype(np.float32)
