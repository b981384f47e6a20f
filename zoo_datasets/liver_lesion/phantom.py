"""Random livers and the lesions in them: the examples of `liver_lesion/phantom`.

A patient is one liver in the portal venous phase: parenchyma, three-dimensional trees of portal
and hepatic veins, sometimes steatosis, and beside it abdominal fat, wall and ribs, stomach, kidney
and gall bladder, as far as a patch shows them. Coordinates are mm from the liver's middle, as in
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
SPACING = 1.0  # mm
LABELS = ("none", "cyst", "metastasis", "haemangioma")
_THICKNESS = 3.0  # mm, of a slice
_EDGE_SHARE = 0.35  # of the patches lie near the liver's surface


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A protocol: so many patches of each patient."""

    patches: int = 8


class Liver:
    """A random liver; everything about it comes from `rng`."""

    def __init__(self, rng: np.random.Generator):
        self.outline = Contour(
            0, 0, rng.uniform(72, 92), rng.uniform(58, 74), rng.normal(0, 0.2),
            anatomy.harmonics(rng, 0.035), ((rng.uniform(-0.4, 0.9), 0.4, -0.18),),
        )  # fmt: skip
        fatty = rng.uniform() < 0.2
        self.hu = rng.uniform(70, 95) if fatty else rng.uniform(96, 128)
        self.portal = rng.uniform(150, 195)
        self.hepatic = self.portal - rng.uniform(0, 20)
        self.noise = rng.uniform(7, 14)  # HU
        self.wall = rng.uniform(2, 6), rng.uniform(6, 14)  # mm: peritoneal fat, muscles and ribs
        self.phase = rng.uniform(0, 2 * np.pi, 3)
        self.portal_trees = [self._tree(rng, (18.0, 14.0), 4.0, 6.0) for _ in range(4)]
        self.hepatic_trees = [self._tree(rng, (24.0, -26.0), 3.0, 5.0) for _ in range(4)]
        self.neighbours = [self._neighbour(rng) for _ in range(4)]
        self.fields = anatomy.textures(rng, SIZE, SPACING)

    def _tree(self, rng, root: tuple[float, float], thin: float, thick: float) -> np.ndarray:
        start = np.array([*root, 0.0]) + rng.normal(0, (6, 6, 14))
        aim = np.array([-rng.uniform(0.2, 1.2), rng.normal(), rng.normal(0, 0.8)])
        aim /= np.linalg.norm(aim)
        return anatomy.vessel_tree(
            rng, start, aim, rng.uniform(24, 32), rng.uniform(thin, thick), 5
        )

    def _neighbour(self, rng) -> tuple[float, float, float, float]:
        """Angle, size in mm, HU and texture of an organ that touches the liver."""
        kind = rng.choice(3)  # gall bladder, kidney or spleen-like, bowel
        value = (rng.uniform(2, 12), rng.uniform(140, 190), rng.uniform(20, 60))[kind]
        return rng.uniform(-0.8, 2.2), rng.uniform(14, 32), value, (2.0, 8.0, 15.0)[kind]

    def patch(self, rng: np.random.Generator, label: int) -> np.ndarray:
        """One patch in HU, float32 `[SIZE, SIZE]`; `label` is an index of `LABELS`."""
        name = LABELS[label]
        low = 4.0 if name == "cyst" else 6.5
        radius = float(np.exp(rng.uniform(*np.log((low, 18.0)))))
        x, y = self._place(rng, radius)
        z = rng.uniform(-45, 45)
        canvas = Canvas(SIZE, SPACING, anatomy.mixed(rng, self.fields))
        inside = self._surroundings(rng, canvas, x, y)
        whole = (slice(None), slice(None))
        canvas.paint(whole, inside, self.hu, (3, 5, 4))
        trees = [(t, self.portal) for t in self.portal_trees]
        trees += [(t, self.hepatic) for t in self.hepatic_trees]
        # Deep inside only: vessels do not reach the capsule.
        deep = gaussian_filter(inside, 3) > 0.9
        for tree, value in trees:
            anatomy.draw_vessels(
                canvas,
                anatomy.near(tree, x, y, SIZE * SPACING),
                z,
                value,
                deep.astype(np.float32),
                _THICKNESS,
            )
        if name != "none":
            centre = rng.normal(0, 1.5, 2).tolist()  # as an annotation's, not exact
            _LESIONS[name](rng, self, canvas, inside, centre, radius)
        hu = gaussian_filter(canvas.hu, 0.7, mode="nearest")  # a soft kernel's blur
        hu += np.float32(self.noise) * gaussian_filter(
            2.2 * fbp_noise(rng, hu.shape), 0.6, mode="wrap"
        )
        return hu

    def _place(self, rng, radius: float) -> tuple[float, float]:
        """The patch's centre: inside the liver, sometimes near its surface."""
        phi = rng.uniform(0, 2 * np.pi)
        if rng.uniform() < _EDGE_SHARE:
            gap = rng.uniform(0.9, 1.3) * radius + rng.uniform(2, 12)
            share = 1 - gap / (0.5 * (self.outline.a + self.outline.b))
        else:
            share = 0.6 * np.sqrt(rng.uniform(0.02, 1))
        return self.outline.point(phi, max(share, 0.0))

    def _surroundings(self, rng, canvas: Canvas, x: float, y: float) -> np.ndarray:
        """Paint what lies around the liver; returns the liver's coverage of each pixel."""
        outline = self.outline
        moved = Contour(
            outline.x - x, outline.y - y, outline.a, outline.b, outline.tilt, outline.harmonics,
            outline.dents,
        )  # fmt: skip
        inside = np.zeros((SIZE, SIZE), np.float32)
        where, mask = canvas.mask(moved)
        inside[where] = mask
        if inside.min() > 0.999:
            return inside
        fat, muscle = self.wall
        whole = (slice(None), slice(None))
        canvas.paint(whole, np.ones_like(inside), -102.0, (4, 8, 6))
        # Left of the picture lies the abdominal wall, right of it the other organs.
        canvas.blob(moved.grown(fat + muscle), 55.0, (4, 8, 4))
        canvas.blob(moved.grown(fat), -95.0, (4, 14))
        for k in range(14):
            phi = k * 2 * np.pi / 14 + self.phase[0]
            ring = moved.grown(fat + 0.5 * muscle)
            cx, cy = ring.point(phi)
            px, py = ring.point(phi + 0.05)
            if np.cos(phi) < 0.1:
                canvas.bone(Contour(cx, cy, 8, 4, np.arctan2(py - cy, px - cx)), 1.4, 620, 190)
        right = np.clip((canvas.axis - moved.x - 0.35 * moved.a) / 6 + 0.5, 0, 1)
        canvas.paint(whole, np.broadcast_to(right, inside.shape).copy(), -98.0, (4, 10, 8))
        for angle, size, value, texture in self.neighbours:
            cx, cy = moved.point(angle)
            out = np.arctan2(cy - moved.y, cx - moved.x)
            cx, cy = cx + 0.8 * size * np.cos(out), cy + 0.8 * size * np.sin(out)
            organ = Contour(cx, cy, size, 0.8 * size, angle, outline.harmonics)
            canvas.blob(organ, value, (3, texture))
        return inside


def _cyst(rng, liver: Liver, canvas: Canvas, inside, centre, radius: float) -> None:
    """Water behind a sharp, smooth edge, the same everywhere."""
    shape = Contour(
        centre[0], centre[1], radius, radius * rng.uniform(0.82, 1.0), rng.uniform(0, np.pi),
        anatomy.harmonics(rng, 0.02),
    )  # fmt: skip
    canvas.blob(shape, rng.uniform(0, 14), (1.5, 2), inside, edge=0.8)


def _metastasis(rng, liver: Liver, canvas: Canvas, inside, centre, radius: float) -> None:
    """Less dense than liver, lobed and blurred, often with a rim and a necrotic middle."""
    shape = Contour(
        centre[0], centre[1], radius, radius * rng.uniform(0.7, 1.0), rng.uniform(0, np.pi),
        anatomy.harmonics(rng, 0.07, orders=(2, 3, 4, 5, 6)),
    )  # fmt: skip
    value = liver.hu - rng.uniform(40, 68)
    if rng.uniform() < 0.6:
        canvas.blob(shape.grown(2.0), liver.hu + rng.uniform(10, 22), (3, 4), inside, edge=2.5)
    canvas.blob(shape, value, (5, 9, 5), inside, edge=rng.uniform(2.5, 4.5))
    if radius > 7 and rng.uniform() < 0.6:
        core = shape.grown(-rng.uniform(0.35, 0.55) * radius)
        canvas.blob(core, value - rng.uniform(12, 28), (3, 6), inside, edge=4.0)


def _haemangioma(rng, liver: Liver, canvas: Canvas, inside, centre, radius: float) -> None:
    """Less dense than liver, with globules at its edge as bright as the veins."""
    shape = Contour(
        centre[0], centre[1], radius, radius * rng.uniform(0.75, 1.0), rng.uniform(0, np.pi),
        anatomy.harmonics(rng, 0.06, orders=(2, 3, 4, 5)),
    )  # fmt: skip
    canvas.blob(shape, liver.hu - rng.uniform(42, 62), (3, 5), inside, edge=1.2)
    first, count = rng.uniform(0, 2 * np.pi), rng.integers(5, 9)
    for phi in first + np.arange(count) * 2 * np.pi / count + rng.normal(0, 0.2, count):
        size = radius * rng.uniform(0.16, 0.34)
        x, y = shape.point(phi, 1 - 0.8 * size / radius)
        globule = Contour(
            x, y, size, size * rng.uniform(0.6, 1.0), phi, anatomy.harmonics(rng, 0.1)
        )
        canvas.blob(globule, liver.portal + rng.uniform(-10, 15), (3, 5), inside, edge=1.0)


_LESIONS = {"cyst": _cyst, "metastasis": _metastasis, "haemangioma": _haemangioma}


def patient(seed: int, number: int, patches: int) -> list[tuple[int, np.ndarray]]:
    """Patches of patient `number`: label, and HU int16 `[SIZE, SIZE]`.

    Everything follows from (seed, number).
    """
    rng = np.random.default_rng([seed, number])
    liver = Liver(rng)
    labels = rng.integers(len(LABELS), size=patches).tolist()
    return [(label, stored(liver.patch(rng, label))) for label in labels]


def read(case: Case, config: SimulatedConfig[Protocol]) -> Examples:
    """The patches of a simulated patient."""
    patches = patient(config.seed, case.facts["number"], config.protocol.patches)
    yield from numbered(
        case,
        (
            {"image": image[..., None], "label": label, "spacing": (SPACING, SPACING)}
            for label, image in patches
        ),
    )
