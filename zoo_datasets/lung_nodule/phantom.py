"""Random lungs and the nodules in them: the examples of `lung_nodule`.

A patient is one lung: an outline with chest wall and ribs around it, and the vessels and airways
that fan out from the hilum as three-dimensional trees. Each patch is a slice of it somewhere, with
whatever vessels cross there. Coordinates are mm from the lung's middle, as in
`zoo_datasets.phantoms.anatomy`, whose painting tools draw here. Importable without TensorFlow.
"""

import dataclasses

import numpy as np
from scipy.ndimage import gaussian_filter

from zoo_datasets.cases import Case, Examples
from zoo_datasets.phantoms import anatomy
from zoo_datasets.phantoms.anatomy import Canvas, Contour
from zoo_datasets.phantoms.ct_scan import stored
from zoo_datasets.phantoms.noise import fbp_noise
from zoo_datasets.simulated import SimulatedConfig, numbered

SIZE = 64  # pixels of a patch
SPACING = 0.7  # mm
LABELS = ("no_nodule", "solid", "ground_glass")
_WALL_SHARE = 0.3  # of the patches lie near the pleura
_TREES = 14
_THICKNESS = 1.5  # mm, of a slice


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A protocol: so many patches of each patient."""

    patches: int = 8


class Lung:
    """A random lung; everything about it comes from `rng`."""

    def __init__(self, rng: np.random.Generator):
        self.outline = Contour(
            0, 0, rng.uniform(48, 62), rng.uniform(72, 90), rng.normal(0, 0.15),
            anatomy.harmonics(rng, 0.02),
        )  # fmt: skip
        self.side = rng.choice([-1, 1])  # where the hilum lies
        self.hu = rng.uniform(-900, -830)
        self.emphysema = rng.choice([0.0, 1.0], p=[0.8, 0.2]) * rng.uniform(0.4, 1.0)
        self.blood = rng.choice([35.0, 140.0]) + rng.normal(0, 10)
        self.wall = rng.uniform(3, 8), rng.uniform(8, 16)  # mm: inner muscles, with the ribs
        self.rib_phase = rng.uniform(0, 2 * np.pi)
        self.noise = rng.uniform(12, 30)  # HU
        self.vessels = [self._tree(rng, 2.2, 3.8) for _ in range(_TREES)]
        self.airways = [self._tree(rng, 2.2, 3.2, depth=3) for _ in range(4)]
        self.fields = anatomy.textures(rng, SIZE, SPACING)

    def _tree(self, rng, thin: float, thick: float, depth: int = 6) -> np.ndarray:
        hilum = np.array([self.side * 34.0, 6.0, 0.0]) + rng.normal(0, (4, 8, 14))
        aim = np.array([-self.side * rng.uniform(0.3, 1.2), rng.normal(), rng.normal(0, 1.1)])
        aim /= np.linalg.norm(aim)
        radius = rng.uniform(thin, thick)
        return anatomy.vessel_tree(rng, hilum, aim, rng.uniform(20, 28), radius, depth)

    def patch(self, rng: np.random.Generator, label: int) -> np.ndarray:
        """One patch in HU, float32 `[SIZE, SIZE]`; `label` is an index of `LABELS`."""
        name = LABELS[label]
        radius = float(np.exp(rng.uniform(*np.log((2.6, 9.0) if name == "solid" else (4.0, 10.0)))))
        x, y = self._place(rng, radius)
        z = rng.uniform(-45, 45)
        canvas = Canvas(SIZE, SPACING, anatomy.mixed(rng, self.fields))
        inside = self._walls(rng, canvas, x, y, z)
        self._tissue(rng, canvas, inside)
        centre = rng.normal(0, 1.0, 2).tolist()  # as an annotation's, not exact
        if name == "ground_glass":
            _ground_glass(rng, canvas, inside, centre, radius)
        for i, tree in enumerate(self.vessels):
            # Arteries and veins alternate; contrast medium reaches them unequally.
            value = self.blood - (20 if i % 2 else 0)
            anatomy.draw_vessels(
                canvas, anatomy.near(tree, x, y, SIZE * SPACING), z, value, inside, _THICKNESS
            )
        for tree in self.airways:
            for change, value in ((0.9, 0.0), (0.0, -980.0)):
                grown = anatomy.near(tree, x, y, SIZE * SPACING) + np.array(
                    [0, 0, 0, 0, 0, 0, change]
                )
                anatomy.draw_vessels(canvas, grown, z, value, inside, _THICKNESS)
        if name == "solid":
            _solid(rng, canvas, inside, centre, radius)
        # A body kernel's blur.
        hu = gaussian_filter(canvas.hu, 0.5, mode="nearest")
        hu += np.float32(self.noise) * fbp_noise(rng, hu.shape)
        return hu

    def _place(self, rng, radius: float) -> tuple[float, float]:
        """The patch's centre: inside the lung, sometimes near the pleura."""
        phi = rng.uniform(0, 2 * np.pi)
        if rng.uniform() < _WALL_SHARE:
            gap = rng.uniform(0.6, 1.0) * radius + rng.uniform(0, 12)
            share = 1 - gap / (0.5 * (self.outline.a + self.outline.b))
        else:
            share = 0.62 * np.sqrt(rng.uniform(0.02, 1))
        return self.outline.point(phi, share)

    def _walls(self, rng, canvas: Canvas, x: float, y: float, z: float) -> np.ndarray:
        """Paint chest wall and ribs; returns the lung's coverage of each pixel."""
        moved = Contour(
            self.outline.x - x, self.outline.y - y, self.outline.a, self.outline.b,
            self.outline.tilt, self.outline.harmonics,
        )  # fmt: skip
        inside = np.zeros((SIZE, SIZE), np.float32)
        where, mask = canvas.mask(moved)
        inside[where] = mask
        if mask.size and inside.min() > 0.999:
            return inside
        inner, outer = self.wall
        whole = (slice(None), slice(None))
        canvas.paint(whole, np.ones_like(inside), -100.0, (4, 8, 6))  # fat
        canvas.blob(moved.grown(inner + outer), 50.0, (5, 8, 4))
        canvas.blob(moved.grown(inner + 1.5), -60.0, (5, 20))
        canvas.blob(moved.grown(inner), 45.0, (5, 10))
        turn = z / 24 * 0.36 + self.rib_phase  # ribs run obliquely: each slice cuts others
        for k in range(16):
            phi = turn + k * 2 * np.pi / 16
            if np.cos(phi) * self.side > 0.55:  # the mediastinum has none
                continue
            ring = moved.grown(inner + 4)
            cx, cy = ring.point(phi)
            px, py = ring.point(phi + 0.05)
            rib = Contour(cx, cy, 9 + 2 * np.sin(3 * k), 4.2, np.arctan2(py - cy, px - cx))
            canvas.bone(rib, 1.4, 650.0, 180.0)
        return inside

    def _tissue(self, rng, canvas: Canvas, inside: np.ndarray) -> None:
        """Paint the parenchyma: what is too fine to draw is texture, and emphysema holes."""
        slope = rng.normal(0, 0.6) * canvas.axis[:, None]  # the dependent lung is denser
        whole = (slice(None), slice(None))
        canvas.paint(whole, inside, self.hu + slope, (10, 20, 14))
        holes = np.clip((canvas.textures[2] - 0.9) / 0.4, 0, 1) * self.emphysema
        canvas.paint(whole, inside * holes, -985.0, (6,))


def _solid(rng, canvas: Canvas, inside, centre, radius: float) -> None:
    """Paint a solid nodule: smooth, lobulated or spiculated, now and then calcified."""
    kind = rng.choice(["smooth", "lobulated", "spiculated"], p=[0.4, 0.3, 0.3])
    rough = {"smooth": 0.02, "lobulated": 0.1, "spiculated": 0.07}[kind]
    shape = Contour(
        centre[0], centre[1], radius, radius * rng.uniform(0.75, 1.0), rng.uniform(0, np.pi),
        anatomy.harmonics(rng, rough, orders=(2, 3, 4, 5, 6)),
    )  # fmt: skip
    value = rng.uniform(0, 70)
    if kind == "spiculated":
        for phi in rng.uniform(0, 2 * np.pi, rng.integers(7, 16)):
            start, reach = shape.point(phi, 0.6), rng.uniform(1.3, 2.2)
            bent = shape.point(phi + rng.normal(0, 0.12), reach)
            canvas.paint(
                *canvas.capsule(start[0], start[1], bent[0], bent[1], 0.45), value, (), inside
            )
    canvas.blob(shape, value, (8, 12), inside, edge=1.0)
    if kind == "smooth" and rng.uniform() < 0.25:
        canvas.blob(shape.grown(-0.45 * radius), rng.uniform(250, 600), (20, 30), inside)


def _ground_glass(rng, canvas: Canvas, inside, centre, radius: float) -> None:
    """Paint a hazy nodule that vessels show through, some with a small solid part."""
    shape = Contour(
        centre[0], centre[1], radius, radius * rng.uniform(0.7, 1.0), rng.uniform(0, np.pi),
        anatomy.harmonics(rng, 0.06, orders=(2, 3, 4, 5, 6)),
    )  # fmt: skip
    canvas.blob(shape, rng.uniform(-660, -420), (15, 35, 25), inside, edge=rng.uniform(1.5, 3.5))
    if rng.uniform() < 0.3:
        phi = rng.uniform(0, 2 * np.pi)
        x, y = shape.point(phi, 0.5)
        core = Contour(x, y, 0.25 * radius, 0.2 * radius, phi, anatomy.harmonics(rng, 0.1))
        canvas.blob(core, -50.0, (10, 20), inside, edge=1.5)


def patient(seed: int, number: int, patches: int) -> list[tuple[int, np.ndarray]]:
    """Patches of patient `number`: label, and HU int16 `[SIZE, SIZE]`.

    Everything follows from (seed, number).
    """
    rng = np.random.default_rng([seed, number])
    lung = Lung(rng)
    labels = rng.integers(len(LABELS), size=patches).tolist()
    return [(label, stored(lung.patch(rng, label))) for label in labels]


def read(case: Case, config: SimulatedConfig[Protocol]) -> Examples:
    """The patches of a simulated patient."""
    patches = patient(config.seed, case.facts["number"], config.protocol.patches)
    yield from numbered(
        case,
        ({"image": image[..., None], "label": label} for label, image in patches),
    )
