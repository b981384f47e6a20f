"""Seconds to an image of a given PSNR: total variation here and by deepinv, and ASTRA's methods."""

import statistics
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from benchmarks import measure
from zoo import metrics

SIDE, VIEWS = 128, 60
TARGET = 30.0  # dB
NOISE = 0.01  # of the largest line integral
COUNTS = (5, 10, 20, 40, 80, 160)  # iterations that are tried
WEIGHTS = (0.1, 0.3, 1.0)  # of total variation, of what each begins with

Run = Callable[[int], np.ndarray]  # so many iterations to an image


class Found(NamedTuple):
    """The fewest iterations that a method took, and what they made.

    Attributes:
        run: the method.
        count: iterations; the most that were tried where none were enough.
        psnr: of the image.
    """

    run: Run
    count: int
    psnr: float


def phantom(side: int) -> np.ndarray:
    """Shepp and Logan's head, float32 `[side, side]` from 0 to 1."""
    from skimage import data, transform

    made = transform.resize(data.shepp_logan_phantom(), (side, side), anti_aliasing=True)
    return made.astype(np.float32)


def noisy(sinogram: np.ndarray) -> np.ndarray:
    """A measurement: the same noise for all, of what their own projector makes."""
    draw = np.random.default_rng(0).standard_normal(sinogram.shape)
    return (sinogram + NOISE * sinogram.max() * draw).astype(np.float32)


def _here(image: np.ndarray, views: int) -> Iterator[Run]:
    import tensorflow as tf

    from zoo.physics import tomography
    from zoo.reconstruction.fidelity import Fidelity
    from zoo.reconstruction.tv import TotalVariation

    beam = tomography.ParallelBeam(len(image), 1.0, views, len(image))
    y = tf.constant(noisy(beam.forward(tf.constant(image)).numpy()))
    problem = TotalVariation(beam, Fidelity("l2", y, tf.ones_like(y)), 2.0)
    for weight in WEIGHTS:
        lam = 2 * weight * problem.guess * NOISE * float(tf.reduce_max(y))

        def run(count: int, lam: float = lam) -> np.ndarray:
            return problem.solve(lam, problem.start(), 0.0, count).state.x.numpy()

        yield run


def _astra(image: np.ndarray, views: int, name: str) -> Iterator[Run]:
    astra = measure.needed("astra")
    angles = np.arange(views) * np.pi / views
    volume = astra.create_vol_geom(*image.shape)
    geometry = astra.create_proj_geom("parallel", 1.0, len(image), angles)
    projector = astra.create_projector("linear", geometry, volume)
    number, sinogram = astra.create_sino(image, projector)
    astra.data2d.store(number, noisy(sinogram))

    def run(count: int) -> np.ndarray:
        made = astra.data2d.create("-vol", volume)
        settings = astra.astra_dict(name)
        settings |= {"ProjectorId": projector, "ProjectionDataId": number}
        settings["ReconstructionDataId"] = made
        if name == "SIRT":
            settings["option"] = {"MinConstraint": 0.0}
        algorithm = astra.algorithm.create(settings)
        astra.algorithm.run(algorithm, count)
        found = astra.data2d.get(made)
        astra.algorithm.delete(algorithm)
        astra.data2d.delete(made)
        return found

    yield run


def _deepinv(image: np.ndarray, views: int) -> Iterator[Run]:
    torch, physics = measure.needed("torch"), measure.needed("deepinv.physics")
    optim = measure.needed("deepinv.optim")
    beam = physics.Tomography(
        angles=views, img_width=len(image), circle=False, normalize=True, device="cpu"
    )
    with torch.no_grad():
        y = torch.from_numpy(noisy(beam.A(torch.from_numpy(image[None, None])).numpy()))
    for weight in WEIGHTS:
        strength = weight * NOISE * float(y.max())

        def run(count: int, strength: float = strength) -> np.ndarray:
            solver = optim.FISTA(
                data_fidelity=optim.L2(),
                prior=optim.TVPrior(n_it_max=20),
                lambda_reg=strength,
                stepsize=0.9,
                max_iter=count,
                thres_conv=0.0,
            )
            with torch.no_grad():
                return solver(y, beam)[0, 0].numpy()

        yield run


def to_psnr(quick: bool, rounds: int) -> measure.Part:
    """How long each method takes to `TARGET`, each with the fewest iterations that suffice."""
    side, views, counts = (24, 12, COUNTS[:1]) if quick else (SIDE, VIEWS, COUNTS)
    image = phantom(side)
    makers: dict[str, Callable[[], Iterator[Run]]] = {
        "total variation, here": lambda: _here(image, views),
        "total variation, deepinv": lambda: _deepinv(image, views),
        "SIRT, ASTRA": lambda: _astra(image, views, "SIRT"),
        "CGLS, ASTRA": lambda: _astra(image, views, "CGLS"),
    }
    found: dict[str, Found] = {}

    def made(name: str) -> Callable[[], object]:
        best = found[name] = fewest(makers[name](), image, counts)
        return lambda: best.run(best.count)

    calls, skipped = measure.peers({name: lambda n=name: made(n) for name in makers})
    seconds = measure.in_turns(calls, rounds)
    own, *_ = makers
    rows = []
    for name in calls:
        best = found[name]
        reached = best.psnr >= TARGET
        row = [name, best.count, f"{best.psnr:.1f}" + ("" if reached else ", not reached")]
        row.append(measure.three(statistics.median(seconds[name])))
        rows.append([*row, measure.ratio(seconds, name, own)])
    tried = ", ".join(map(str, counts))
    columns = ["method", "iterations", "PSNR, dB", "s", "/ here"]
    text = f"""## Reconstruction to a given PSNR

Shepp and Logan's head, {side}², {views} parallel views, noise of {100 * NOISE:g} % of the largest
line integral, each by its own projector on the CPU. Each takes the fewest of {tried} iterations
after which the image is within {TARGET:g} dB, and where none suffices those of its best image;
total variation with the best of {len(WEIGHTS)} weights, deepinv's by FISTA and 20 inner iterations.
What is made once for a geometry is not counted.

{measure.table(columns, rows)}{measure.skipped_in_words(skipped)}
"""
    return measure.Part(text)


def fewest(runs: Iterator[Run], image: np.ndarray, counts: tuple[int, ...]) -> Found:
    """The fewest iterations of a method's variants that reach `TARGET`, else the best there is."""
    best: Found | None = None
    for run in runs:
        for count in counts:
            enough = best is not None and best.psnr >= TARGET
            if best is not None and enough and count >= best.count:
                break
            psnr = metrics.psnr(run(count), image, (0.0, 1.0))
            if best is None or psnr >= TARGET or (not enough and psnr > best.psnr):
                best = Found(run, count, psnr)
    assert best is not None
    return best
