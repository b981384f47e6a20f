"""Simulated mammograms: compressed breasts in CC and MLO view, drawn in millimetres.

Every structure is a path length in mm along the X-ray, so a picture shows the same anatomy at
every matrix size. The log attenuation of a breast of thickness t(x, y) with glandular fraction
g(x, y) is

    L = mu_fat * t + (mu_gland - mu_fat) * (t * g + ducts, septa, vessels, skin, masses)
        + mu_calcium * calcifications,

measured with Poisson noise, L' = -log(Poisson(N exp(-L)) / N), blurred by the detector, and shown
through one display curve, `signal = 16383 * (L' / 4.5) ** 1.6`: air is near 0, as in a processed
("for presentation") mammogram, and the values fill 14 bits.

The tissue texture is a Gaussian random field with a power spectrum 1 / f^3 (Burgess, Jacobson and
Judy, "Human observer detection experiments with mammograms and power-law noise", Med. Phys. 28,
2001); pressing it through a sigmoid gives glandular islands with edges, whose spectrum also falls
as 1 / f^3.

Image `i` depends on (seed, i) alone. This module imports no TensorFlow: worker processes load it.
"""

import dataclasses
from typing import Any

import numpy as np
from scipy import ndimage, spatial, special

FIELD = 204.8  # mm, side of the square field of view
MAXIMUM = 16383  # 14 bits
VIEWS = (("L", "CC"), ("L", "MLO"), ("R", "CC"), ("R", "MLO"))  # the images of one patient

MU_FAT, MU_GLAND, MU_CALCIUM = 0.044, 0.078, 1.1  # 1/mm, near 20 keV
PHOTONS = 4.0e6  # detected in 1 mm² without a breast
TEXTURE_EXPONENT = 3.0
OUTER_SCALE = 0.4  # of the field: the power law ends where structures are as large as a breast
DENSITIES = ("A", "B", "C", "D")  # almost entirely fat ... extremely dense (BI-RADS)
DENSITY_SHARES = (0.1, 0.4, 0.4, 0.1)


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A protocol: images of `size` x `size` pixels."""

    size: int = 256


@dataclasses.dataclass(frozen=True)
class Image:
    """One simulated mammogram.

    Attributes:
        pixels: uint16 [size, size, 1], signal in 0 ... 16383; the chest wall is the left edge of
            a left breast and the right edge of a right one.
        patient: patient identifier.
        name: unique name.
        laterality: "L" or "R".
        view: "CC" or "MLO".
        density: "A" ... "D".
        finding: "none", "mass", "spiculated mass" or "calcifications".
    """

    pixels: np.ndarray
    patient: str
    name: str
    laterality: str
    view: str
    density: str
    finding: str


@dataclasses.dataclass(frozen=True)
class _Breast:
    """The anatomy that the two views of one breast share (lengths in mm)."""

    thickness: float
    depth: float  # chest wall to nipple
    height: float  # half height of the outline in the CC view
    density: str
    gland: float  # size of the glandular disc, relative to the breast
    finding: str
    lesion: tuple[float, float]  # distance behind the nipple and off its axis, relative
    radius: float  # of the lesion


def simulate(seed: int, index: int, size: int = 256) -> Image:
    """Draws mammogram `index`: images 4p ... 4p + 3 are both views of both breasts of patient p.

    Args:
        seed: seed of the whole collection.
        index: number of the image; the result depends on (seed, index, size) alone.
        size: height and width in pixels; a pixel is `FIELD / size` mm.

    Returns:
        The `Image`.

    Raises:
        ValueError: for a size below 16 or a negative index.
    """
    if size < 16 or index < 0:
        raise ValueError(
            f"size, index: expected size >= 16 and index >= 0. Received: {size}, {index}"
        )
    patient, which = divmod(index, len(VIEWS))
    laterality, view = VIEWS[which]
    breast = _breast(seed, patient, laterality)
    # The second number keeps the streams of patients, breasts and images apart.
    rng = np.random.default_rng([seed, 3, index])
    pixels = _render(rng, breast, view, size)
    if laterality == "R":
        pixels = pixels[:, ::-1]
    return Image(
        pixels=np.ascontiguousarray(pixels[..., None]),
        patient=patient_name(index),
        name=name(index),
        laterality=laterality,
        view=view,
        density=breast.density,
        finding=breast.finding,
    )


def patient_name(index: int) -> str:
    """The patient of image `index`."""
    return f"phantom-{index // len(VIEWS):05d}"


def name(index: int) -> str:
    """The name of image `index`."""
    laterality, view = VIEWS[index % len(VIEWS)]
    return f"{patient_name(index)}_{laterality}_{view}"


def example(index: int, seed: int, size: int) -> dict[str, Any]:
    """`simulate` as the data set's example: image, patient, name, laterality, view."""
    image = simulate(seed, index, size)
    return {
        "image": image.pixels,
        "patient": image.patient,
        "name": image.name,
        "laterality": image.laterality,
        "view": image.view,
    }


def _breast(seed: int, patient: int, laterality: str) -> _Breast:
    """Both breasts of a patient are alike; a finding is drawn for each."""
    woman = np.random.default_rng([seed, 1, patient])
    density = int(woman.choice(len(DENSITIES), p=DENSITY_SHARES))
    depth = woman.uniform(75, 125)
    height = depth * woman.uniform(0.72, 0.9)
    thickness = 20 + 0.30 * depth + woman.uniform(-6, 8)
    gland = (0.32, 0.56, 0.8, 1.05)[density] + woman.uniform(-0.08, 0.08)

    rng = np.random.default_rng([seed, 2, 2 * patient + (laterality == "R")])
    like = rng.normal(1.0, 0.03, size=4)
    return _Breast(
        thickness=thickness * like[0],
        depth=depth * like[1],
        height=height * like[2],
        density=DENSITIES[density],
        gland=gland * like[3],
        finding=str(
            rng.choice(
                ["none", "mass", "spiculated mass", "calcifications"], p=[0.64, 0.12, 0.12, 0.12]
            )
        ),
        lesion=(rng.uniform(0.25, 0.7), rng.uniform(-0.45, 0.45)),
        radius=rng.uniform(4, 10),
    )


def _render(rng: np.random.Generator, breast: _Breast, view: str, size: int) -> np.ndarray:
    """The mammogram [size, size] uint16 with the chest wall on the left."""
    pixel = FIELD / size
    centre = (np.arange(size) + 0.5) * pixel
    y, x = np.meshgrid(centre, centre, indexing="ij")

    nipple, inside, radius = _outline(rng, breast, view, x, y)
    roll = 0.42 * breast.thickness  # the free edge bulges like a quarter circle
    edge = np.clip(1 - inside / roll, 0, 1)
    thickness = breast.thickness * np.sqrt(1 - edge**2)

    texture = power_law_field(rng, size)
    fraction, muscle = _glandular_fraction(rng, breast, view, x, y, inside, radius, nipple, texture)
    extra = _lines(rng, breast, nipple, size)
    extra += _septa(rng, x, y, inside, pixel, texture) * (1 - muscle)
    # Skin: thin above and below, seen edge-on along the outline.
    extra += 2.5 + 7.0 * np.exp(-(((inside - 1.2) / 1.3) ** 2))
    mass, calcium = _lesion(rng, breast, nipple, size, x, y)
    extra += mass
    extra = np.minimum(extra, 0.6 * breast.thickness)

    # Harder radiation for a thicker breast, so that the exposure stays alike (automatic control).
    harder = (50.0 / breast.thickness) ** 0.6
    shape = np.clip(inside / pixel + 0.5, 0, 1)  # share of the pixel that the breast covers
    log_attenuation = (
        shape
        * harder
        * (
            MU_FAT * thickness
            + (MU_GLAND - MU_FAT) * (fraction * thickness + extra * thickness / breast.thickness)
            + MU_CALCIUM * calcium
        )
    )
    log_attenuation = ndimage.gaussian_filter(log_attenuation, 0.45, mode="nearest")

    photons = PHOTONS * pixel**2
    counts = rng.poisson(photons * np.exp(-log_attenuation))
    measured = -np.log(np.maximum(counts, 1) / photons)
    signal = MAXIMUM * np.clip(measured / 4.5, 0, 1) ** 1.6
    return np.round(signal).astype(np.uint16)


def power_law_field(
    rng: np.random.Generator, size: int, exponent: float = TEXTURE_EXPONENT
) -> np.ndarray:
    """A Gaussian random field with the power spectrum P(f) ~ 1 / f^exponent (Burgess, 2001).

    Args:
        rng: random generator.
        size: height and width.
        exponent: beta, about 3 for mammograms.

    Returns:
        float64 [size, size], mean 0, standard deviation 1.
    """
    fy = np.fft.fftfreq(size)[:, None]
    fx = np.fft.rfftfreq(size)[None, :]
    frequency = np.hypot(fy, fx)
    frequency = np.hypot(frequency, 1.0 / (OUTER_SCALE * size))
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) * frequency ** (-exponent / 2)
    spectrum[0, 0] = 0.0
    field = np.fft.irfft2(spectrum, s=(size, size))
    return field / field.std()


def _outline(rng, breast, view, x, y):
    """Where the breast is.

    Returns:
        nipple: (x, y) in mm.
        inside: [H, W] distance to the skin line in mm, positive inside.
        radius: [H, W] 0 at the chest wall behind the nipple, 1 on the skin line.
    """
    pixel = x[0, 1] - x[0, 0]
    if view == "CC":
        level = FIELD / 2 + rng.uniform(-6, 6)
        above = min(breast.height * rng.uniform(0.98, 1.12), level - 8)
        below = min(breast.height * rng.uniform(0.9, 1.02), FIELD - level - 8)
        depth, droop = breast.depth * 0.97, rng.uniform(-0.04, 0.04)
    else:  # the outline leaves the picture at the top, towards the armpit
        level = FIELD * rng.uniform(0.53, 0.59)
        above = level * rng.uniform(1.12, 1.4)
        below = min(breast.height * rng.uniform(0.95, 1.08), FIELD - level - 18)
        depth, droop = breast.depth * 1.04, rng.uniform(0.04, 0.16)
    up = y - (level + droop * (x - depth))
    wobble = 1 + 0.015 * np.sin(up / 34 + rng.uniform(0, 6))
    wobble += 0.01 * np.sin(up / 17 + rng.uniform(0, 6))
    roundness = rng.uniform(1.95, 2.3)
    radius = (
        np.abs(up / np.where(up < 0, above, below)) ** roundness
        + np.abs(x / (depth * wobble)) ** roundness
    ) ** (1 / roundness)
    gy, gx = np.gradient(radius, pixel)
    inside = (1 - radius) / np.maximum(np.hypot(gy, gx), 1e-3)
    # The gradient vanishes at the centre of the ellipse: bound the distance there.
    inside = np.minimum(inside, 1.5 * depth)
    nipple = (depth * float(wobble[np.abs(y[:, 0] - level).argmin(), -1]), level)
    size = rng.uniform(4.0, 5.5)
    bump = size - np.hypot(x - nipple[0] + 0.5, y - nipple[1])
    inside = np.logaddexp(inside / 1.2, bump / 1.2) * 1.2  # a smooth union
    return nipple, inside, radius


def _glandular_fraction(rng, breast, view, x, y, inside, radius, nipple, texture):
    """Glandular fraction in [0, 1] and the share of pectoral muscle in [0, 1], both [H, W]."""
    size = len(x)
    # A disc behind the nipple that reaches further back the denser the breast is.
    along = (nipple[0] - x) / nipple[0]
    across = (y - nipple[1] + (0.2 * (nipple[0] - x) if view == "MLO" else 0)) / breast.height
    disc = np.hypot((along - 0.42) / (0.62 * breast.gland), across / (0.74 * breast.gland))
    streaks = _radial(power_law_field(rng, size), x, y, nipple)
    wanted = 3.4 * (0.92 - disc) + 0.9 * texture + 1.1 * streaks
    wanted -= 4.0 * np.exp(-inside / 8.0)  # fat under the skin
    gland = 0.62 + 0.12 * power_law_field(rng, size)
    fraction = 0.06 + gland * special.expit(1.1 * wanted) + 0.035 * (texture + streaks)

    muscle = np.zeros_like(x)
    if view == "MLO":
        wide, long = rng.uniform(0.36, 0.52) * nipple[0], rng.uniform(0.75, 1.0) * nipple[1]
        bulge = rng.uniform(2, 7) * np.sin(np.pi * np.clip(y / long, 0, 1))
        distance = (wide * (1 - y / long) + bulge - x) * np.cos(np.arctan2(wide, long))
        muscle = special.expit(distance / 1.3)
        beside = special.expit((distance + 9) / 2.5)  # fat between muscle and gland
        tissue = 0.5 + 0.14 * np.clip(distance / 40, 0, 1) + 0.03 * texture
        fraction = fraction * (1 - 0.6 * beside)
        fraction = fraction * (1 - muscle) + tissue * muscle
    return np.clip(fraction, 0, 1), muscle


def _radial(field, x, y, nipple):
    """A texture [H, W] drawn out along the rays from the nipple, as ducts and fibres run."""
    size = len(field)
    pixel = FIELD / size
    across, along = y - nipple[1], nipple[0] + 12 - x
    ray, distance = np.arctan2(across, along), np.hypot(across, along)
    rows, columns = 90.0 * ray / pixel, 0.6 * distance / pixel
    return ndimage.map_coordinates(field, (rows, columns), order=1, mode="grid-wrap")


def _deposit(image: np.ndarray, x, y, volume) -> None:
    """Adds volumes in mm³ at points in mm: bilinear, as path length in mm."""
    size = len(image)
    pixel = FIELD / size
    column, row = np.asarray(x) / pixel - 0.5, np.asarray(y) / pixel - 0.5
    left, top = np.floor(column).astype(int), np.floor(row).astype(int)
    right, down = column - left, row - top
    share = np.asarray(volume) / pixel**2
    for dy, dx, weight in (
        (0, 0, (1 - down) * (1 - right)),
        (0, 1, (1 - down) * right),
        (1, 0, down * (1 - right)),
        (1, 1, down * right),
    ):
        i, j = top + dy, left + dx
        ok = (i >= 0) & (i < size) & (j >= 0) & (j < size)
        np.add.at(image, (i[ok], j[ok]), (share * weight)[ok])


def _walk(rng, x, y, angle, length, wander, step=0.5):
    """A curve [n] of points in mm: its direction does a random walk."""
    turns = np.cumsum(rng.normal(0, wander * np.sqrt(step), max(int(length / step), 2)))
    headings = angle + turns
    return x + np.cumsum(step * np.cos(headings)), y + np.cumsum(step * np.sin(headings)), headings


def _lines(rng, breast, nipple, size) -> np.ndarray:
    """Ducts that fan out from the nipple and branch, and a few vessels: path length [H, W] mm."""
    layers: dict[float, list] = {1.4: [], 0.8: []}  # width in mm: x, y, volume
    step = 0.5
    queue = []
    for angle in np.linspace(-0.85, 0.85, 9) + rng.normal(0, 0.07, 9):
        length = breast.depth * rng.uniform(0.25, 0.45)
        queue.append((nipple[0] - 2, nipple[1], np.pi + angle, length, rng.uniform(2.2, 3.4), 0))
    # Ducts branch three times.
    while queue:
        x, y, angle, length, diameter, level = queue.pop()
        xs, ys, headings = _walk(rng, x, y, angle, length, 0.05)
        volume = np.pi / 4 * diameter**2 * step * rng.uniform(0.7, 1.3, len(xs))
        layers[1.4 if diameter > 2.0 else 0.8].append((xs, ys, volume))
        if level < 3:
            for turn in (rng.uniform(0.15, 0.5), -rng.uniform(0.15, 0.5)):
                at = rng.integers(len(xs) // 2, len(xs))
                queue.append(
                    (
                        xs[at],
                        ys[at],
                        headings[at] + turn,
                        length * rng.uniform(0.5, 0.8),
                        diameter * 0.8,
                        level + 1,
                    )
                )
    # Vessels run from the chest wall.
    for _ in range(rng.integers(2, 5)):
        x, y = 0.0, nipple[1] + rng.uniform(-0.75, 0.6) * breast.height
        aim = np.arctan2(nipple[1] - y, nipple[0]) * 0.5
        xs, ys, _ = _walk(rng, x, y, aim, breast.depth * rng.uniform(0.5, 0.85), 0.06)
        bore = np.linspace(rng.uniform(2.6, 3.8), 1.6, len(xs))
        layers[0.8].append((xs, ys, np.pi / 4 * bore**2 * step))
    # Each width is blurred as wide as it is.
    pixel = FIELD / size
    paths = np.zeros((size, size))
    for width, curves in layers.items():
        layer = np.zeros((size, size))
        _deposit(layer, *(np.concatenate(part) for part in zip(*curves, strict=True)))
        paths += ndimage.gaussian_filter(layer, width / 2 / pixel)
    return paths


def _septa(rng, x, y, inside, pixel, texture) -> np.ndarray:
    """Cooper's ligaments: thin curved walls between fat lobules, path length [H, W] in mm."""
    count = int(FIELD**2 / 14.0**2)
    seeds = rng.uniform(0, FIELD, (count, 2))
    walls = np.zeros_like(x)
    where = inside > 0
    shift = 5.0 * np.stack([texture, np.roll(texture, len(x) // 3, axis=1)], -1)[where]
    points = np.stack([y[where], x[where]], -1) + shift
    near = np.asarray(spatial.cKDTree(seeds).query(points, k=2)[0])
    width = max(0.8, 0.7 * pixel)  # a wall thinner than a pixel would alias
    strength = rng.uniform(1.0, 2.2) * special.expit(2.0 * np.roll(texture, len(x) // 2, 0)[where])
    gap = near[:, 1] - near[:, 0]  # 0 on the walls of the Voronoi cells
    walls[where] = 3.0 * (0.8 / width) * strength * np.exp(-((gap / width) ** 2))
    return walls


def _lesion(rng, breast, nipple, size, x, y) -> tuple[np.ndarray, np.ndarray]:
    """Extra path in mm through a mass and through calcium, each [H, W].

    Both views see a lesion at the same distance behind the nipple.
    """
    mass, calcium = np.zeros_like(x), np.zeros_like(x)
    if breast.finding == "none":
        return mass, calcium
    cx = nipple[0] * (1 - breast.lesion[0])
    cy = nipple[1] + breast.lesion[1] * breast.height * rng.uniform(0.7, 1.0)
    if breast.finding == "calcifications":
        count = rng.integers(8, 25)
        # A cluster of grains.
        spread = 0.6 * breast.radius
        diameter = rng.uniform(0.3, 0.9, count)
        _deposit(
            calcium,
            rng.normal(cx, spread, count),
            rng.normal(cy, spread, count),
            np.pi / 6 * diameter**3,
        )
        return mass, ndimage.gaussian_filter(calcium, min(0.2 / (FIELD / size), 1.0))

    # A mass, whose border is rougher where it is spiculated.
    angle = np.arctan2(y - cy, x - cx)
    rough = 0.05 if breast.finding == "mass" else 0.14
    border = breast.radius * (
        1
        + sum(
            rough * rng.normal() / np.sqrt(k - 1) * np.cos(k * angle + rng.uniform(0, 6.3))
            for k in range(2, 8)
        )
    )
    distance = np.hypot(x - cx, y - cy) / border
    mass = 1.8 * breast.radius * np.sqrt(np.clip(1 - distance**2, 0, None))
    if breast.finding == "spiculated mass":
        spicules = np.zeros_like(x)
        for direction in rng.uniform(0, 2 * np.pi, rng.integers(18, 32)):
            length = breast.radius * rng.uniform(1.4, 3.0)
            xs, ys, _ = _walk(rng, cx, cy, direction, length, 0.03)
            bore = np.linspace(2.2, 0.5, len(xs))
            _deposit(spicules, xs, ys, np.pi / 4 * bore**2 * 0.5)
        mass = ndimage.gaussian_filter(mass, 1.0 / (FIELD / size))
        mass += ndimage.gaussian_filter(spicules, 0.35 / (FIELD / size))
    return mass, calcium
