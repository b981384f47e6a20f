"""How far each rule for the weight of TV is from the best one.

    python -m tools.reconstruction_rules            # 3 anatomies x 3 doses, minutes
    python -m tools.reconstruction_rules head/10000 # one case

A slice of a digital patient is projected from a grid twice as fine as the one it is reconstructed
on, each ray counts photons, and the image is compared with the slice averaged over its pixels. The
best weight is that of highest PSNR among weights a factor of 1.5 apart, which knows the slice. What
is found is kept in `build/reconstruction_rules`; when all cases are there, the table is printed.
"""

import functools
import itertools
import json
import sys
from pathlib import Path

import numpy as np

import zoo
from zoo.atomic import write_json
from zoo.metrics import psnr
from zoo.physics import radon, tomography
from zoo.physics.operators import Operator
from zoo.reconstruction import weight
from zoo_datasets.ct_recon import phantom
from zoo_datasets.features import CT_WINDOW
from zoo_datasets.phantoms import brain
from zoo_datasets.phantoms.body import Patient

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "reconstruction_rules"
ANATOMIES, DOSES = ("chest", "abdomen", "head"), (3_000, 10_000, 100_000)
PROTOCOL = phantom.Protocol(size=64, views=48)


def same_grid(made: Operator, used: Operator) -> str:
    """A warning where the data were made by the operator that reconstructs them, else "".

    Such data hold no error of the model of the measurement, and every method looks better on them
    than on any scan: the "inverse crime" (Colton and Kress, Inverse Acoustic and Electromagnetic
    Scattering Theory, 1992).
    """
    if type(made) is not type(used) or made.domain_shape != used.domain_shape:
        return ""
    return (
        f"the data were made by the operator that reconstructs them, {type(used).__name__} of "
        f"{' x '.join(map(str, used.domain_shape))} pixels: figures will be too good"
    )


@functools.cache
def beam(finer: int = 1) -> tomography.ParallelBeam:
    """The beam of `PROTOCOL`, with pixels and detectors so many times finer."""
    fields = dict(PROTOCOL.beam)
    fields["size"] *= finer
    fields["detectors"] *= finer
    for name in ("spacing_mm", "detector_mm"):
        fields[name] /= finer
    return tomography.ParallelBeam(**fields)


def anatomy(name: str) -> np.ndarray:
    """A slice on the finer grid, HU `[2 n, 2 n]`."""
    rng, size = np.random.default_rng(7), 2 * PROTOCOL.size
    spacing = PROTOCOL.spacing / 2
    if name == "head":
        fractions = brain.Brain(rng, size, spacing).fractions(20.0)
        hu = np.tensordot(brain.draw_hu(rng), fractions, 1)
    else:
        hu = Patient(rng, size, spacing).slice({"chest": 90.0, "abdomen": 270.0}[name])
    return np.maximum(hu, -1000.0)


def case(name: str, photons: int) -> tuple[np.ndarray, np.ndarray]:
    """Noisy line integrals `[views, detectors]`, and the true slice, HU `[n, n]`."""
    fine, n = anatomy(name), PROTOCOL.size
    if warning := same_grid(beam(2), beam()):
        print(f"Warning: {warning}", file=sys.stderr)
    y = beam(2).forward(radon.hu_to_attenuation(fine)).numpy()
    y = y.reshape(len(y), -1, 2).mean(-1)
    counts = np.random.default_rng(photons).poisson(photons * np.exp(-y))
    y = np.log(photons / np.maximum(counts, 1))
    return y.astype(np.float32), fine.reshape(n, 2, n, 2).mean((1, 3))


def quality(image: np.ndarray, truth: np.ndarray) -> float:
    """PSNR in dB in the window of CT."""
    hu = radon.attenuation_to_hu(image)
    return float(psnr(np.clip(hu, *CT_WINDOW)[..., None], truth[..., None], CT_WINDOW))


def measure(name: str, photons: int) -> dict[str, float]:
    """PSNR in dB of filtered back-projection, of each rule, and of the best weight."""
    y, truth = case(name, photons)
    options = {"photons": photons, "tolerance": 1e-3, "iterations": 600}
    found, weights = {"fbp": quality(beam().pseudo_inverse(y, "hann").numpy(), truth)}, []
    for rule in weight.RULES:
        image, record = zoo.reconstruct(y, beam(), lam=rule, **options)
        found[rule] = quality(image, truth)
        weights.append(record.lam)
    # From the middle of what the rules found, to both sides as long as it gets better.
    middle, tried = float(np.median(weights)), {}

    def look(k: int) -> float:
        if k not in tried:
            image, _ = zoo.reconstruct(y, beam(), lam=middle * 1.5**k, **options)
            tried[k] = quality(image, truth)
        return tried[k]

    for side in (1, -1):
        k = 0
        while look(k + side) > look(k):
            k += side
    return found | {"best": max(tried.values())}


def table(cases: dict[str, dict[str, float]]) -> str:
    """Markdown: each case's PSNR, and how far below the best each rule is."""
    head = ["anatomy, photons a ray", "FBP", "best weight", *(f"`{rule}`" for rule in weight.RULES)]
    rows = [head, ["---"] * len(head)]
    for name, found in cases.items():
        below = [f"{found[rule] - found['best']:+.2f}" for rule in weight.RULES]
        rows.append([name, f"{found['fbp']:.1f} dB", f"{found['best']:.1f} dB", *below])
    means = [
        np.mean([found[rule] - found["best"] for found in cases.values()]) for rule in weight.RULES
    ]
    rows.append(["mean", "", "", *(f"{mean:+.2f}" for mean in means)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main(wanted: list[str]) -> None:
    """Measures the cases that are not there yet, and prints the table when all are."""
    names = [f"{name}/{photons}" for name, photons in itertools.product(ANATOMIES, DOSES)]
    cases = {}
    for name in names:
        path = FOLDER / f"{name.replace('/', '-')}.json"
        if not path.is_file() and (not wanted or name in wanted):
            path.parent.mkdir(parents=True, exist_ok=True)
            anatomy_name, photons = name.split("/")
            write_json(path, measure(anatomy_name, int(photons)))
        if path.is_file():
            cases[name.replace("/", ", ")] = json.loads(path.read_text(encoding="utf-8"))
            print(name, cases[name.replace("/", ", ")], flush=True)
    if len(cases) == len(names):
        print(table(cases))


if __name__ == "__main__":
    main(sys.argv[1:])
