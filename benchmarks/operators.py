"""Operators of reconstruction against ASTRA and deepinv, on the CPU."""

from collections.abc import Callable

import numpy as np

from benchmarks import measure
from zoo.physics import tomography

VIEWS = 180


def _here(side: int, views: int) -> dict[str, Callable[[], object]]:
    import tensorflow as tf

    beam = tomography.ParallelBeam(side, 1.0, views, side)
    image = tf.constant(np.random.default_rng(0).uniform(0, 1, (1, side, side)), tf.float32)
    forward, adjoint = (tf.function(each) for each in (beam.forward, beam.adjoint))
    sinogram = forward(image)
    calls = {"forward": lambda: forward(image), "adjoint": lambda: adjoint(sinogram)}
    for call in calls.values():
        call()
    return calls


def _astra(side: int, views: int, kind: str) -> Callable[[], object]:
    astra = measure.needed("astra")
    angles = np.arange(views) * np.pi / views
    geometry = astra.create_proj_geom("parallel", 1.0, side, angles)
    volume = astra.create_vol_geom(side, side)
    projector = astra.create_projector("linear", geometry, volume)
    image = np.random.default_rng(0).uniform(0, 1, (side, side)).astype(np.float32)
    _, sinogram = astra.create_sino(image, projector)

    def forward() -> None:
        number, _ = astra.create_sino(image, projector)
        astra.data2d.delete(number)

    def adjoint() -> None:
        number, _ = astra.create_backprojection(sinogram, projector)
        astra.data2d.delete(number)

    return forward if kind == "forward" else adjoint


def _deepinv(side: int, views: int, kind: str) -> Callable[[], object]:
    torch, physics = measure.needed("torch"), measure.needed("deepinv.physics")
    beam = physics.Tomography(angles=views, img_width=side, circle=False, device="cpu")
    image = torch.rand(1, 1, side, side)
    with torch.no_grad():
        sinogram = beam.A(image)

    def call() -> object:
        with torch.no_grad():
            return beam.A(image) if kind == "forward" else beam.A_adjoint(sinogram)

    return call


def beams(quick: bool, rounds: int) -> measure.Part:
    """Parallel beams: forward and adjoint."""
    rows, skipped, views = [], {}, 12 if quick else VIEWS
    for side in (24,) if quick else (128, 256):
        own = _here(side, views)
        for kind, call in own.items():
            makers: dict[str, Callable] = {"here": lambda c=call: c}
            makers["ASTRA"] = lambda s=side, k=kind: _astra(s, views, k)
            makers["deepinv"] = lambda s=side, k=kind: _deepinv(s, views, k)
            calls, missing = measure.peers(makers)
            skipped |= missing
            seconds = measure.in_turns(calls, rounds)
            row = [f"{side}²", kind, measure.middle([1000 * each for each in seconds["here"]])]
            for peer in ("ASTRA", "deepinv"):
                row.append(measure.ratio(seconds, peer, "here") if peer in seconds else "")
            rows.append(row)
    columns = ["image", "operator", "here, ms", "ASTRA / here", "deepinv / here"]
    return measure.Part(f"""## Operators of reconstruction

Parallel beams, {views} views, float32, one image. ASTRA's projector on the CPU is Joseph's, as here
(`linear`); deepinv turns the image and sums. Ratios above 1 say that the operator here is faster.

{measure.table(columns, rows)}{measure.skipped_in_words(skipped)}
""")
