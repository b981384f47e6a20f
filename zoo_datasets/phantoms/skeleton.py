"""The bones of a digital patient's slice."""

import numpy as np

from zoo_datasets.phantoms import anatomy
from zoo_datasets.phantoms.anatomy import BACK, FRONT, Canvas, Contour


def draw(canvas: Canvas, patient, z: float, muscle: Contour, cavity: Contour) -> None:
    """Paint spine, ribs, sternum and shoulder blades of a `Patient` at height z in mm."""
    dense, spongy = patient.hu["dense"], patient.hu["spongy"]
    y = patient.spine_y
    level = (z / 27 + patient.phase[0]) % 1.0  # where in a vertebra (below 0.8) or a disc
    # Vertebra or disc, its arch, the spinal canal.
    body = Contour(
        0,
        y,
        20 + 4 * z / anatomy.LENGTH,
        16 + 2 * z / anatomy.LENGTH,
        0,
        ((2, 0.04, 0.0),),
        ((BACK, 0.5, -0.16),),
    )
    canal = y + body.b + 6
    points = [
        (-10, canal - 9),
        (-13, canal - 1),
        (-8, canal + 9),
        (0, canal + 12),
        (8, canal + 9),
        (13, canal - 1),
        (10, canal - 9),
    ]
    if level < 0.8:
        canvas.rod(points, 3.6, dense * 0.85, spongy * 1.3)
        sweep = 10 * level
        for side in (-1, 1):
            canvas.rod(
                [(side * 12, canal + 1), (side * 34, canal + 6 + sweep)],
                4.2,
                dense * 0.7,
                spongy,
            )
    canvas.rod([(0, canal + 13), (0, canal + 22 + 8 * level)], 3.4, dense * 0.8, spongy)
    canvas.blob(Contour(0, canal, 9.5, 8), patient.hu["fat"] + 40, (3, 5))
    canvas.blob(Contour(0, canal, 6.5, 5.8), 35, (2, 3))
    if level < 0.8:
        canvas.bone(body, 1.6 + 3 * (level < 0.1 or level > 0.7), dense, spongy)
    else:
        canvas.blob(body, 130, (3, 4))
        canvas.blob(body.grown(-5), 80, (3, 4), edge=4)
    # Ribs run down and forwards, so each slice cuts several, each at another angle.
    for side in (-1, 1):
        for k in range(-2, 12):
            phi = 1.28 - (z / 24 - k + patient.phase[1] / 6) * 0.36
            if not -1.15 < phi < 1.25 or (z > 200 and phi < (z - 200) / 110 - 0.7):
                continue
            angle = phi if side > 0 else np.pi - phi
            ring = cavity.grown(6, 6)
            cx, cy = ring.point(angle)
            px, py = ring.point(angle + 0.05)
            shape = Contour(
                cx,
                cy,
                13 + 3 * np.sin(k),
                5.2,
                np.arctan2(py - cy, px - cx),
                ((4, -0.04, 0.0),),
            )
            if phi < -0.85:  # cartilage
                canvas.blob(shape.grown(2, -0.5), 105, (5, 12))
            else:
                canvas.bone(shape, 1.5, dense, spongy)
    # Sternum.
    if z < 150:
        x, front = cavity.point(FRONT)
        canvas.bone(
            Contour(x, front - 8, 17 - z / 30, 5.5, 0, ((2, 0.05, 0.0),)),
            1.2,
            dense * 0.6,
            spongy * 0.8,
        )
    if z < 70:  # scapulae
        for side in (-1, 1):
            cx, cy = muscle.point(0.72 if side > 0 else np.pi - 0.72, 0.97)
            dx = 24 - z / 5
            blade = [(cx - side * dx, cy + 12), (cx, cy), (cx + side * dx * 0.55, cy - 22)]
            canvas.rod(blade, 2.9, dense, spongy)
