"""Random anatomy of the chest and abdomen as HU slices: the digital patients of `ldct/phantom`.

Coordinates are mm: x to the image's right (the patient's left), y down (towards the back), z from
the aortic arch (0) down to the lower kidneys (`LENGTH`). Organs are star-shaped contours with
Fourier perturbations and dents whose position, size and phase change smoothly with z; vessels are
random three-dimensional trees. No TensorFlow is imported: worker processes start quickly.
"""

import dataclasses

import numpy as np
import scipy.ndimage

LENGTH = 330.0
EXTENT = (0.0, LENGTH)
FRONT, BACK = -np.pi / 2, np.pi / 2  # angles of a contour
_ANGLES = np.arange(-1025, 1026, dtype=np.float32) * np.float32(np.pi / 1024)
_WAVELENGTHS = (0.9, 2.2, 7.0)  # mm, standard deviations of the three texture fields


@dataclasses.dataclass
class Contour:
    """r(phi) of an ellipse (a, b), turned by `tilt`, times 1 + harmonics + Gaussian dents."""

    x: float
    y: float
    a: float
    b: float
    tilt: float = 0.0
    harmonics: tuple = ()  # (order, amplitude, phase)
    dents: tuple = ()  # (angle, width, amplitude), all angles in radians

    def grown(self, mm: float, up: float | None = None) -> "Contour":
        """The contour with its half axes longer by `mm` and `up` (default: both by mm)."""
        up = mm if up is None else up
        return dataclasses.replace(self, a=max(self.a + mm, 0.3), b=max(self.b + up, 0.3))

    def radius(self, phi: float | np.ndarray) -> np.ndarray:
        """Radius relative to the ellipse at the angle `phi` of the scaled frame."""
        r = np.ones_like(phi, np.float32)
        for order, amplitude, phase in self.harmonics:
            r += amplitude * np.cos(order * phi + phase)
        for angle, width, amplitude in self.dents:
            r += amplitude * np.exp(-((((phi - angle + np.pi) % (2 * np.pi) - np.pi) / width) ** 2))
        return r

    def point(self, phi: float, scale: float = 1.0) -> tuple[float, float]:
        """The boundary point at `phi`, its distance from the centre times `scale`."""
        r = float(self.radius(phi)) * scale
        u, v = self.a * r * np.cos(phi), self.b * r * np.sin(phi)
        c, s = np.cos(self.tilt), np.sin(self.tilt)
        return self.x + c * u - s * v, self.y + s * u + c * v


def harmonics(rng: np.random.Generator, amplitude: float, orders=(2, 3, 4, 5)) -> tuple:
    """Random Fourier perturbation, falling with the order."""
    return tuple((n, amplitude * rng.normal() * 2 / n, rng.uniform(0, 2 * np.pi)) for n in orders)


class Canvas:
    """A slice in HU on a square grid, and the soft-edged shapes painted over it."""

    def __init__(self, size: int, spacing: float, textures: np.ndarray):
        self.size, self.spacing, self.textures = size, spacing, textures
        self.hu = np.full((size, size), -1000.0, np.float32)
        self.axis = ((np.arange(size) - (size - 1) / 2) * spacing).astype(np.float32)

    def box(self, x: float, y: float, half: float) -> tuple[slice, slice]:
        """Index ranges (rows, columns) of the square of half side `half` around (x, y)."""
        return self._range(y, half), self._range(x, half)

    def _range(self, middle: float, half: float) -> slice:
        first = self.axis[0]
        # `np.clip` of single numbers would take a tenth of a slice's time.
        low = int(min(max((middle - half - first) / self.spacing, 0), self.size))
        high = int(min(max((middle + half - first) / self.spacing + 2, 0), self.size))
        return slice(low, high)

    def mask(self, shape: Contour, edge: float = 1.0) -> tuple[tuple[slice, slice], np.ndarray]:
        """Coverage in [0, 1] of a contour, and where it lies; the edge is `edge` mm soft."""
        where = self.box(shape.x, shape.y, 1.35 * max(shape.a, shape.b) + 2 * edge)
        dx, dy = self.axis[where[1]] - shape.x, self.axis[where[0], None] - shape.y
        c, s = np.float32(np.cos(shape.tilt)), np.float32(np.sin(shape.tilt))
        u, v = (c * dx + s * dy) / shape.a, (c * dy - s * dx) / shape.b
        rho = np.hypot(u, v)
        distance = rho - np.float32(1.0)
        if shape.harmonics or shape.dents:  # no mere ellipse
            # The radius comes from a table: cosines of every sample would take most of the time.
            table = shape.radius(_ANGLES)
            index = np.arctan2(v, u) * np.float32(1024 / np.pi) + np.float32(1025.5)
            distance = rho / table[index.astype(np.intp)] - 1.0
        # A step of one in rho is between b and a mm long, by direction.
        step = np.sqrt((u * shape.a) ** 2 + (v * shape.b) ** 2 + 1e-6) / (rho + 1e-6)
        return where, np.clip(0.5 - distance * step / max(edge, self.spacing), 0, 1)

    def capsule(
        self, x1: float, y1: float, x2: float, y2: float, r: float, edge: float = 1.0
    ) -> tuple[tuple[slice, slice], np.ndarray]:
        """Coverage of a line from (x1, y1) to (x2, y2) of radius `r`, and where it lies."""
        edge = max(edge, self.spacing)
        half = np.hypot(x2 - x1, y2 - y1) / 2 + r + edge
        where = self.box((x1 + x2) / 2, (y1 + y2) / 2, half)
        dx, dy = self.axis[where[1]] - x1, self.axis[where[0], None] - y1
        ex, ey = x2 - x1, y2 - y1
        along = np.clip((dx * ex + dy * ey) / (ex * ex + ey * ey + 1e-6), 0, 1)
        distance = np.hypot(dx - along * ex, dy - along * ey) - r
        # Vessels thinner than the edge never cover a sample fully.
        return where, np.clip(0.5 - distance / edge, 0, 1) * min(1.0, 2 * r / edge)

    def paint(self, where, mask, value, texture: tuple = (), within: np.ndarray | None = None):
        """Blend `value` HU (and texture weights of `_WAVELENGTHS`, in HU) over the slice."""
        if not mask.size:
            return
        if within is not None:
            mask = mask * within[where]
        if np.ndim(value):
            value = np.broadcast_to(value, self.hu.shape)[where]
        for field, weight in zip(self.textures, texture, strict=False):
            if weight:
                value = value + weight * field[where]
        self.hu[where] += mask * (value - self.hu[where])

    def blob(self, shape: Contour, value, texture=(), within=None, edge=1.0):
        """Paint a contour."""
        self.paint(*self.mask(shape, edge), value, texture, within)

    def bone(self, shape: Contour, cortex: float, dense: float, spongy: float):
        """Paint a contour as a bone: a dense shell `cortex` mm thick around spongy bone."""
        self.blob(shape, dense, (25, 25))
        if min(shape.a, shape.b) > cortex:
            self.blob(shape.grown(-cortex), spongy, (35, 35, 15), edge=1.4)

    def rod(self, points, r: float, dense: float, spongy: float):
        """Paint a chain of capsules as a bone."""
        for radius, value in ((r, dense), (r - 1.6, spongy)):
            for p, q in zip(points[:-1], points[1:], strict=True):
                if radius > 0.4:
                    self.paint(*self.capsule(p[0], p[1], q[0], q[1], radius), value, (25, 25))


class Organ:
    """A solid whose slices are contours: an ellipsoid-like body along z, drifting sideways."""

    def __init__(self, rng, x, y, z, a, b, h, tilt=0.0, rough=0.04, dents=(), drift=4.0):
        self.x, self.y, self.z, self.a, self.b, self.h = x, y, z, a, b, h
        self.tilt, self.dents = tilt, dents
        self.shape = harmonics(rng, rough)
        self.turn = rng.normal(0, 1.0, len(self.shape))  # radians of phase per 100 mm
        self.drift = rng.normal(0, drift, 2)

    def at(self, z: float, power: float = 2.5) -> Contour | None:
        """The contour at height z, or None beyond the organ's ends."""
        t = (z - self.z) / self.h
        if abs(t) >= 0.995:
            return None
        scale = (1 - abs(t) ** power) ** (1 / power)
        shape = tuple(
            (n, amplitude, phase + turn * (z - self.z) / 100)
            for (n, amplitude, phase), turn in zip(self.shape, self.turn, strict=True)
        )
        x, y = self.x + self.drift[0] * t, self.y + self.drift[1] * t
        a, b = self.a * scale, self.b * scale
        return Contour(x, y, a, b, self.tilt, shape, self.dents)


def vessel_tree(rng, start, direction, length, radius, depth) -> np.ndarray:
    """A branching tree as segments `[n, 7]`: (x, y, z) of both ends and the radius, in mm."""
    p = np.array([start], float)
    d = np.array([direction], float)
    length, radius = np.array([length], float), np.array([radius], float)
    segments = []
    for level in range(depth + 1):
        for _ in range(2):  # two bends make a branch
            d = d + rng.normal(0, 0.14, d.shape)
            d /= np.linalg.norm(d, axis=1, keepdims=True)
            q = p + d * length[:, None] / 2
            segments.append(np.column_stack([p, q, radius]))
            p = q
        if level < depth:
            normal = np.cross(d, rng.normal(size=d.shape))
            normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9
            n = len(p)
            share = rng.uniform(0.35, 0.65, n)
            share = np.concatenate([share, 1 - share])
            spread = rng.uniform(0.35, 0.8, 2 * n) * np.repeat([1, -1], n) * (1.5 - share)
            p, d, normal = (np.concatenate([x, x]) for x in (p, d, normal))
            d = d + spread[:, None] * normal
            length = np.tile(length, 2) * rng.uniform(0.68, 0.9, 2 * n)
            # Murray's law: the cube of the radius is shared out.
            radius = np.tile(radius, 2) * share ** (1 / 3) * 0.95
    return np.concatenate(segments)


def near(tree: np.ndarray, x: float, y: float, side: float) -> np.ndarray:
    """The segments that can cross a square of `side` mm around (x, y), relative to its middle."""
    tree = tree - np.array([x, y, 0, x, y, 0, 0])
    ends = tree[:, [0, 1, 3, 4]].reshape(-1, 2, 2)
    reach = side / 2 + tree[:, 6, None] + 2
    return tree[((ends.min(1) < reach) & (ends.max(1) > -reach)).all(1)]


def draw_vessels(canvas: Canvas, tree, z, value, within, thickness=3.0):
    """Paint the parts of a tree that lie in the slice at z."""
    x1, y1, z1, x2, y2, z2, r = tree.T
    reach = thickness / 2 + r
    near = (np.minimum(z1, z2) < z + reach) & (np.maximum(z1, z2) > z - reach)
    for x1, y1, z1, x2, y2, z2, r in tree[near]:
        rise = z2 - z1 if abs(z2 - z1) > 1e-3 else 1e-3
        t = sorted(((z - r - thickness / 2 - z1) / rise, (z + r + thickness / 2 - z1) / rise))
        t0, t1 = (min(max(end, 0.0), 1.0) for end in t)
        ends = (x1 + t0 * (x2 - x1), y1 + t0 * (y2 - y1), x1 + t1 * (x2 - x1), y1 + t1 * (y2 - y1))
        canvas.paint(*canvas.capsule(*ends, r), value, (), within)


def textures(rng: np.random.Generator, size: int, spacing: float) -> np.ndarray:
    """Two independent sets of unit-variance texture fields, `[2, 3, size, size]`."""
    fields = np.empty((2, len(_WAVELENGTHS), size, size), np.float32)
    for i in range(2):
        for j, wavelength in enumerate(_WAVELENGTHS):
            white = rng.standard_normal((size, size), np.float32)
            field = scipy.ndimage.gaussian_filter(white, wavelength / spacing, mode="wrap")
            fields[i, j] = field / field.std()
    return fields


def mixed(rng: np.random.Generator, fields: np.ndarray) -> np.ndarray:
    """Fields `[3, size, size]` of one slice or patch, from the two sets of a patient."""
    turn, shift = rng.uniform(0, 2 * np.pi), rng.integers(fields.shape[-1], size=2)
    one = np.cos(turn) * fields[0] + np.sin(turn) * fields[1]
    return np.roll(one, shift, (-2, -1)).astype(np.float32)
