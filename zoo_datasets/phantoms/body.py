"""One random patient of `ldct/phantom`: where the organs lie and what they measure in HU."""

import numpy as np
from scipy.ndimage import gaussian_filter1d

from zoo_datasets.phantoms import anatomy, skeleton
from zoo_datasets.phantoms.anatomy import BACK, FRONT, Canvas, Contour, Organ

# Half width of the mediastinum in mm, front (-1) to back (1) of the chest.
_MEDIASTINUM = ((-1.0, -0.8, -0.45, 0.0, 0.4, 0.7, 1.0), (26.0, 10.0, 24.0, 36.0, 33.0, 24.0, 26.0))


class Patient:
    """Random anatomy; `slice(z)` paints it at any height between 0 and `anatomy.LENGTH` mm.

    Args:
        rng: the generator that everything about the patient comes from.
        size: height and width of the slices in pixels.
        spacing: pixel pitch in mm; the body is up to 345 mm wide.
    """

    def __init__(self, rng: np.random.Generator, size: int, spacing: float):
        self.size, self.spacing = size, spacing
        self.fields = anatomy.textures(rng, size, spacing)
        a = rng.uniform(134, 162)
        b = a * rng.uniform(0.67, 0.76)
        self.body = (a, b)
        self.outline = anatomy.harmonics(rng, 0.012) + ((4, rng.uniform(-0.035, -0.01), 0.0),)
        self.groove = (BACK, rng.uniform(0.15, 0.25), rng.uniform(-0.05, -0.02))
        self.belly = rng.uniform(0.0, 0.08)
        self.fat = rng.uniform(6, 20)  # mm under the skin at the sides
        self.wall = rng.uniform(13, 18)  # mm of muscle and ribs
        self.phase = rng.uniform(0, 2 * np.pi, 6)
        self.contrast = rng.choice([0.0, 1.0], p=[0.3, 0.7]) * rng.uniform(0.6, 1.0)
        c = self.contrast
        self.blood = 42 + 120 * c
        self.hu = {
            "fat": rng.normal(-105, 4),
            "muscle": rng.normal(52, 4) + 8 * c,
            "liver": rng.normal(55, 7) + 50 * c,
            "spleen": rng.normal(48, 4) + 70 * c,
            "kidney": 32 + 130 * c,
            "lung": rng.uniform(-880, -810),
            "dense": rng.uniform(550, 900),
            "spongy": rng.uniform(120, 260),
        }
        self.dome = (rng.uniform(125, 150), rng.uniform(135, 165))  # diaphragm, right and left
        self._lay_out(rng)

    def _lay_out(self, rng):
        ca, cb = self.body[0] - self.fat - self.wall, self.body[1] - self.fat - self.wall
        self.cavity_axes = (ca, cb)
        self.spine_y = self.body[1] - rng.uniform(60, 66)  # the spinous process ends under the skin
        n = rng.normal
        organ = lambda *args, **kw: Organ(rng, *args, **kw)  # noqa: E731
        # Solid organs.
        self.heart = organ(
            0.14 * ca, -0.22 * cb, 95, 0.44 * ca, 0.42 * cb, 62, tilt=0.5, rough=0.03
        )
        self.liver = organ(
            -0.42 * ca,
            -0.08 * cb,
            215,
            0.62 * ca,
            0.8 * cb,
            100,
            rough=0.05,
            dents=((0.55 + n() * 0.1, 0.45, -0.28),),
            drift=10,
        )
        self.left_lobe = organ(0.12 * ca, -0.55 * cb, 200, 0.38 * ca, 0.28 * cb, 50, rough=0.06)
        self.spleen = organ(
            0.78 * ca,
            0.32 * cb,
            200,
            0.2 * ca,
            0.42 * cb,
            52,
            tilt=0.25,
            dents=((np.pi, 0.6, -0.22),),
        )
        self.stomach = organ(0.45 * ca, -0.25 * cb, 205, 0.36 * ca, 0.42 * cb, 58, rough=0.06)
        self.gallbladder = organ(-0.3 * ca, -0.35 * cb, 250, 15, 20, 26, tilt=n() * 0.4)
        self.kidneys = [
            organ(
                side * rng.uniform(64, 72),
                self.spine_y - rng.uniform(8, 16),
                z,
                24,
                31,
                58,
                tilt=side * 0.5,
                rough=0.025,
                dents=((np.pi if side > 0 else 0.0, 0.45, -0.35),),
            )
            for side, z in ((-1, rng.uniform(275, 290)), (1, rng.uniform(262, 280)))
        ]
        # The gut.
        self.colon = [
            organ(side * 0.78 * ca, rng.uniform(-0.1, 0.25) * cb, 310, 23, 25, 75, rough=0.07)
            for side in (-1, 1)
        ]
        self.loops = []
        for _ in range(300):  # small bowel: loops that keep out of each other's way
            x, y = rng.uniform(-0.68, 0.68) * ca, rng.uniform(-0.85, 0.3) * cb
            z, r = rng.uniform(240, 350), rng.uniform(10, 19)
            if np.hypot(x / ca, y / cb) < 0.82 and all(
                np.linalg.norm([x - o.x, y - o.y, 0.6 * (z - o.z)]) > 0.95 * (r + o.a)
                for o, *_ in self.loops
            ):
                loop = organ(
                    x,
                    y,
                    z,
                    r,
                    r * rng.uniform(0.75, 1.1),
                    r * rng.uniform(1.3, 2.2),
                    tilt=rng.uniform(0, np.pi),
                    rough=0.07,
                )
                self.loops.append((loop, rng.uniform(5, 60), rng.uniform(-0.9, 1.0)))
        # Lesions of the liver and nodules of the lungs.
        self.lesions = []
        for _ in range(rng.poisson(5)):
            t, phi, z = (
                np.sqrt(rng.uniform()) * 0.75,
                rng.uniform(0, 2 * np.pi),
                rng.uniform(150, 290),
            )
            r, step = rng.uniform(3, 11), rng.choice([-22, -32, -45, 30])
            x = self.liver.x + t * self.liver.a * np.cos(phi)
            y = self.liver.y + t * self.liver.b * np.sin(phi)
            self.lesions.append((organ(x, y, z, r, r * rng.uniform(0.8, 1), r * 1.6), step))
        self.nodules = []
        for _ in range(rng.poisson(3)):
            side, r = rng.choice([-1, 1]), rng.uniform(2, 7)
            x, y = side * rng.uniform(0.45, 0.85) * ca, rng.uniform(-0.5, 0.6) * cb
            self.nodules.append(
                (organ(x, y, rng.uniform(0, 140), r, r, 2.5 * r, rough=0.12), rng.uniform(-30, 90))
            )
        # Vessels and airways.
        self.lung_trees, self.air_trees = [], []
        for side in (-1, 1):
            for _ in range(16):
                start = (side * rng.uniform(24, 36), rng.uniform(-12, 22), rng.uniform(35, 75))
                aim = np.array([side * rng.uniform(0.3, 1.2), n() * 0.8, n() * 1.1])
                aim /= np.linalg.norm(aim)
                self.lung_trees.append(
                    anatomy.vessel_tree(
                        rng, start, aim, rng.uniform(22, 32), rng.uniform(2.6, 4.4), 7
                    )
                )
            self.air_trees.append(
                anatomy.vessel_tree(rng, (side * 4, 8, 30), (side, 0.15, 0.7), 38, 5.5, 2)
            )
        liver = (self.liver.x + 0.3 * self.liver.a, self.liver.y, 205)
        self.liver_trees = [
            anatomy.vessel_tree(rng, liver, (-1.0, n() * 0.6, n() * 0.8), 34, 6.0, 4)
            for _ in range(4)
        ]
        gut = (0.0, 0.25 * cb, 240)
        self.gut_trees = [
            anatomy.vessel_tree(rng, gut, (n(), -abs(n()) - 0.2, n() + 0.8), 36, 3.2, 5)
            for _ in range(6)
        ]

    def contours(self, z: float) -> tuple[Contour, Contour, Contour]:
        """Body, muscle and cavity outlines at z."""
        a, b = self.body
        t = z / anatomy.LENGTH
        swell = 0.015 * np.sin(5 * t + self.phase[0])
        shape = tuple((n, c, p + 0.8 * t * (n < 4)) for n, c, p in self.outline)
        belly = (FRONT, 0.9, self.belly * t**2)
        body = Contour(
            0, 0, a * (1 + swell - 0.02 * t), b * (1 + swell), 0, shape, (self.groove, belly)
        )
        front = self.fat * (0.55 + 0.9 * self.belly * 10 * t)
        muscle = body.grown(-self.fat, -(self.fat * 0.7 + front) / 2)
        muscle.y += (front - self.fat * 0.7) / 2
        cavity = muscle.grown(-self.wall * (1 - 0.15 * t), -self.wall * 0.9)
        cavity.dents = ((BACK, 0.3, -0.26), (FRONT, 0.3, -0.03))
        return body, muscle, cavity

    def slice(self, z: float) -> np.ndarray:
        """HU `[size, size]` float32 at height z in mm."""
        turn = 2 * np.pi * z / 80 + self.phase[1]
        fields = np.cos(turn) * self.fields[0] + np.sin(turn) * self.fields[1]
        canvas = Canvas(self.size, self.spacing, fields.astype(np.float32))
        hu = self.hu
        body, muscle, cavity = self.contours(z)
        self._table(canvas, body)
        canvas.blob(body, 30, (5, 10))  # skin
        canvas.blob(body.grown(-2.0), hu["fat"], (3, 5, 4))
        # Strands of fat between the muscles' bundles.
        strands = np.clip(fields[1] * 0.6 + fields[2] * 0.8 - 1.1, 0, 1)
        canvas.blob(muscle, hu["muscle"] - 110 * strands, (3, 4, 3))
        # A thin layer of fat parts the outer muscles from the ribs and their muscles.
        seam = muscle.grown(-0.42 * self.wall)
        canvas.blob(seam, hu["fat"] + 40, (5, 25, 20))
        canvas.blob(seam.grown(-1.8), hu["muscle"] - 60 * strands, (3, 5, 4))
        self._back(canvas, z)
        where, inside = canvas.mask(cavity)
        canvas.paint(where, inside, hu["fat"] + 8, (3, 6, 6))
        full = np.zeros_like(canvas.hu)
        full[where] = inside
        lungs = self._lungs(canvas, z, cavity, full)
        self._mediastinum(canvas, z)
        self._abdomen(canvas, z, full * (1 - lungs))
        skeleton.draw(canvas, self, z, muscle, cavity)
        return canvas.hu

    def _table(self, canvas, body):
        y = body.y + body.b * 0.97 + 6
        top = Contour(0, y - 330, 345, 345)
        for shape, value in ((top, -250), (top.grown(-2), -1000)):
            where, mask = canvas.mask(shape)
            rows = np.clip((canvas.axis[where[0], None] - y + 12) / 4, 0, 1)
            sides = np.clip((150 - np.abs(canvas.axis[where[1]])) / 4, 0, 1)
            canvas.paint(where, mask * rows * sides, value)

    def _back(self, canvas, z):
        """Paraspinal muscles and the vertebra's surroundings."""
        y = self.spine_y + 36
        for side in (-1, 1):
            shape = Contour(side * 29, y, 24, 15, side * 0.25, ((2, 0.05, self.phase[2]),))
            canvas.blob(shape.grown(1.5), self.hu["fat"], (3, 5))
            canvas.blob(shape, self.hu["muscle"], (4, 6, 3))

    def _lungs(self, canvas, z, cavity, inside) -> np.ndarray:
        """Paint the lungs; returns their coverage [size, size]."""
        x = canvas.axis
        depth = (canvas.axis - cavity.y) / cavity.b
        half = np.interp(depth, *_MEDIASTINUM) * (1 + 0.12 * np.sin(z / 30 + self.phase[3]))
        half += 3 * np.sin(depth * 7 + z / 25 + self.phase[4])
        half = gaussian_filter1d(half, 6 / self.spacing, mode="nearest")[:, None]
        shrink = np.clip(1.0 - max(0.0, 20 - z) / 120, 0.7, 1)
        where, pleura = canvas.mask(
            cavity.grown(-2.5 - (1 - shrink) * 90, -2.5 - (1 - shrink) * 50)
        )
        # Cavity without the mediastinum and without what the diaphragm lifts.
        lungs = np.zeros_like(inside)
        lungs[where] = pleura
        lungs *= np.clip((np.abs(x + 2) - half) / 1.0 + 0.5, 0, 1)
        for side, top in zip((-1, 1), self.dome, strict=True):
            if z > top:
                s = np.sqrt((z - top) / 62)
                dome = Contour(
                    side * 0.42 * cavity.a,
                    cavity.y - 0.12 * cavity.b,
                    0.62 * cavity.a * s,
                    0.88 * cavity.b * s,
                    0,
                    self.outline[:3],
                )
                where, mask = canvas.mask(dome)
                keep = np.where(x * side > 0, 1.0, 0.0)
                lungs[where] *= 1 - mask * np.broadcast_to(keep, lungs.shape)[where]
        if not lungs.any():
            return lungs
        # Tissue, vessels, nodules and airways.
        whole = (slice(None), slice(None))
        # The dependent lung is denser, and texture stands for what is too fine to draw.
        tissue = self.hu["lung"] + 45 * np.clip(depth, -1, 1)[:, None]
        canvas.paint(whole, lungs, tissue, (14, 24, 14))
        for i, tree in enumerate(self.lung_trees):
            anatomy.draw_vessels(canvas, tree, z, 30 + (self.blood - 42) * 0.6 * (i % 2), lungs)
        for nodule, value in self.nodules:
            if (shape := nodule.at(z)) is not None:
                canvas.blob(shape, value, (4, 4), lungs)
        for tree in self.air_trees:
            wall = tree[2:] + np.array([0, 0, 0, 0, 0, 0, 0.8 - 1.5])
            anatomy.draw_vessels(canvas, wall, z, 10, lungs)
            anatomy.draw_vessels(canvas, wall - np.array([0, 0, 0, 0, 0, 0, 1.0]), z, -960, lungs)
        return lungs

    def _mediastinum(self, canvas, z):
        hu, blood = self.hu, self.blood
        wave = lambda k: 2.0 * np.sin(z / 40 + self.phase[k])  # noqa: E731
        if z < 75:  # great vessels, soft-tissue strands of the mediastinum
            if z < 12:
                arch = [(-16, -16), (4, -6), (20, 14), (24, 32)]
                for p, q in zip(arch[:-1], arch[1:], strict=True):
                    canvas.paint(*canvas.capsule(*p, *q, 12.5), blood + 20, (2, 3))
            canvas.blob(Contour(-17 + wave(0), -20, 15.5, 15.5), blood + 15, (2, 3))
            canvas.blob(Contour(-34, -12 + wave(1), 9.5, 11), blood + 40, (2, 3))
            if z > 18:
                reach = 1 - abs(z - 45) / 35
                canvas.blob(Contour(8 + wave(2), -24, 14.5, 15), blood + 5, (2, 3))
                for side in (-1, 1):
                    if reach > 0:
                        canvas.paint(
                            *canvas.capsule(6, -14, side * (20 + 16 * reach), 6, 8.5),
                            blood + 5,
                            (2,),
                        )
        # Windpipe and gullet.
        if z < 45:
            canvas.blob(Contour(-2, 12, 11.5, 10.5), 25, (2, 4))
            canvas.blob(Contour(-2, 12, 9.5, 8.5), -985)
        elif z < 85:
            for tree in self.air_trees:
                wall = tree[:2] + np.array([0, 0, 0, 0, 0, 0, 1.8])
                anatomy.draw_vessels(canvas, wall, z, 25, None)
                anatomy.draw_vessels(canvas, tree[:2], z, -980, None)
        if z < 190:
            canvas.blob(Contour(8 + wave(3), self.spine_y - 34, 8, 6), 38, (3, 4))  # oesophagus
        # Heart with its chambers.
        heart = self.heart.at(z)
        if heart is not None:
            canvas.blob(heart.grown(4), hu["fat"] + 15, (3, 5))
            canvas.blob(heart, 55 + 45 * self.contrast, (3, 5, 3))
            for dx, dy, share, extra in (
                (0.3, 0.15, 0.42, 0),
                (-0.38, -0.1, 0.45, 12),
                (0.02, 0.52, 0.36, 5),
            ):
                turned = (
                    heart.x + dx * heart.a - 0.3 * dy * heart.b,
                    heart.y + dy * heart.b + 0.3 * dx * heart.a,
                )
                room = Contour(
                    *turned, share * heart.a, share * heart.b * 1.1, 0.5, heart.harmonics
                )
                canvas.blob(room, blood + extra, (2, 4), edge=3)
        # Descending aorta: from behind the left hilum to the front of the spine.
        down = np.clip(z / 260, 0, 1)
        canvas.blob(
            Contour(
                24 - 18 * down + wave(4),
                self.spine_y - 16 - 16 * down**2,
                12.5 - 3 * down,
                12.5 - 3 * down,
            ),
            blood + 20,
            (2, 3),
        )
        if z > 150:
            canvas.blob(
                Contour(-20 + wave(5), self.spine_y - 34, 13, 10, 0.2),
                blood - 8 * self.contrast,
                (2, 3),
            )

    def _abdomen(self, canvas, z, within):
        hu, blood = self.hu, self.blood
        # Behind the gut.
        if z > 205:
            for side in (-1, 1):  # psoas
                grow = np.clip((z - 205) / 90, 0.25, 1)
                canvas.blob(
                    Contour(
                        side * (30 + 6 * grow), self.spine_y - 2, 18 * grow, 21 * grow, -side * 0.3
                    ),
                    hu["muscle"],
                    (3, 5),
                    within,
                )
            for tree in self.gut_trees:
                anatomy.draw_vessels(canvas, tree, z, blood * 0.8, within)
        if 222 < z < 268:  # pancreas: a lobulated band in front of the great vessels
            y = self.spine_y - 56
            points = [(-34, y + 10), (-12, y - 2), (18, y - 8), (46, y + 4)]
            for p, q in zip(points[:-1], points[1:], strict=True):
                canvas.paint(
                    *canvas.capsule(*p, *q, 10 - abs(z - 245) / 6),
                    42 + 45 * self.contrast,
                    (6, 16, 4),
                    within,
                )
        # The gut.
        for loop, content, level in self.loops:
            self._hollow(canvas, loop.at(z), within, 45 + 45 * self.contrast, content, level, 2.2)
        for colon in self.colon:
            shape = colon.at(z)
            if shape is not None:
                canvas.blob(shape, 45 + 25 * self.contrast, (3, 4), within)
                stool = np.where(canvas.textures[1] > 0.7, -650, -20 + 30 * canvas.textures[0])
                where, mask = canvas.mask(shape.grown(-2.5), 1.5)
                canvas.paint(where, mask, stool, (0, 0, 60), within)
        self._hollow(canvas, self.stomach.at(z), within, 45 + 40 * self.contrast, 25, -0.25, 4)
        # Spleen, liver with its vessels and lesions, gall bladder.
        for organ, name in (
            (self.spleen, "spleen"),
            (self.left_lobe, "liver"),
            (self.liver, "liver"),
        ):
            if (shape := organ.at(z)) is not None:
                canvas.blob(shape, hu[name], (2, 3, 3), within)
        liver = self.liver.at(z)
        if liver is not None:
            where, mask = canvas.mask(liver.grown(-4))
            parenchyma = np.zeros_like(within)
            parenchyma[where] = mask
            parenchyma *= within
            for tree in self.liver_trees:
                anatomy.draw_vessels(
                    canvas, tree, z, hu["liver"] + 12 + 40 * self.contrast, parenchyma
                )
            for lesion, step in self.lesions:
                if (shape := lesion.at(z)) is not None:
                    canvas.blob(shape, hu["liver"] + step, (2, 3), parenchyma, edge=2.5)
        if (shape := self.gallbladder.at(z)) is not None:
            canvas.blob(shape, 45 + 30 * self.contrast, (2,), within)
            canvas.blob(shape.grown(-1.8), 8, (2, 2), within)
        # Kidneys in their fat.
        for kidney in self.kidneys:
            if (shape := kidney.at(z)) is None:
                continue
            canvas.blob(shape.grown(9), hu["fat"], (3, 6), within)
            canvas.blob(shape, hu["kidney"] + 25 * self.contrast, (2, 4), within)
            medulla = shape.grown(-7)
            canvas.blob(
                medulla, hu["kidney"] - 40 * self.contrast, (2, 14 * self.contrast), within, edge=4
            )
            side = np.sign(shape.x)
            sinus = Contour(
                shape.x - side * shape.a * 0.35,
                shape.y,
                shape.a * 0.42,
                shape.b * 0.36,
                shape.tilt,
                shape.harmonics,
            )
            canvas.blob(sinus, hu["fat"] + 30, (5, 25), within, edge=3)

    def _hollow(self, canvas, shape, within, wall_hu, content, level, wall):
        """A gut loop: wall, fluid, and gas above the fluid's level (the patient lies face up)."""
        if shape is None:
            return
        canvas.blob(shape, wall_hu, (2, 4), within)
        where, mask = canvas.mask(shape.grown(-wall), 1.5)
        canvas.paint(where, mask, content, (3, 8, 6), within)
        if level < 0.3:
            surface = shape.y + level * shape.b
            gas = np.clip((surface - canvas.axis[where[0], None]) / 1.0 + 0.5, 0, 1)
            canvas.paint(where, mask * gas, -970, (), within)
