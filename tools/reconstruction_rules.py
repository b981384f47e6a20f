"""How far each rule for the weight of TV is from the best one.

    python -m tools.reconstruction_rules            # 3 anatomies x 3 doses, minutes
    python -m tools.reconstruction_rules head/10000 # one case
    python -m tools.reconstruction_rules --others   # other patients, `holdout` alone; the page

A slice of a digital patient is projected from a grid twice as fine as the one it is reconstructed
on, each ray counts photons, and the image is compared with the slice averaged over its pixels. The
best weight is that of highest PSNR among weights a factor of 1.5 apart, which knows the slice. What
is found is kept in `build/reconstruction_rules`; when all cases are there, the table is printed.
The nine cases decided what `holdout` allows; those of other patients did not, and their figures go
into docs/reconstruction.md.
"""

import functools
import itertools
import json
import re
import sys
from pathlib import Path

import numpy as np

import zoo
from zoo.atomic import write_atomic, write_json
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
PATIENT, OTHERS = 7, (8, 9, 10)  # seeds of the patient who decided, and of those who did not
PAGE = ROOT / "docs" / "reconstruction.md"
_OTHERS = re.compile(r"(?<=<!-- others: begin -->\n).*?(?=<!-- others: end -->)", re.DOTALL)
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


def anatomy(name: str, seed: int = PATIENT) -> np.ndarray:
    """A slice on the finer grid, HU `[2 n, 2 n]`."""
    rng, size = np.random.default_rng(seed), 2 * PROTOCOL.size
    spacing = PROTOCOL.spacing / 2
    if name == "head":
        fractions = brain.Brain(rng, size, spacing).fractions(20.0)
        hu = np.tensordot(brain.draw_hu(rng), fractions, 1)
    else:
        hu = Patient(rng, size, spacing).slice({"chest": 90.0, "abdomen": 270.0}[name])
    return np.maximum(hu, -1000.0)


def case(name: str, photons: int, seed: int = PATIENT) -> tuple[np.ndarray, np.ndarray]:
    """Noisy line integrals `[views, detectors]`, and the true slice, HU `[n, n]`."""
    fine, n = anatomy(name, seed), PROTOCOL.size
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


def measure(
    name: str, photons: int, rules: tuple[str, ...] = weight.RULES, seed: int = PATIENT
) -> dict[str, float]:
    """PSNR in dB of filtered back-projection, of each rule, and of the best weight."""
    y, truth = case(name, photons, seed)
    options = {"photons": photons, "tolerance": 1e-3, "iterations": 600}
    found, weights = {"fbp": quality(beam().pseudo_inverse(y, "hann").numpy(), truth)}, []
    for rule in rules:
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


def found_of(name: str, seed: int, measured: bool) -> dict[str, float] | None:
    """What `measure` gave of a case such as "head/3000", from the folder where it is there.

    Args:
        name: of the case.
        seed: of its patient; of others than `PATIENT` `holdout` alone is asked.
        measured: whether a case that is not there is measured; else None.
    """
    own, anatomy_name, photons = seed == PATIENT, *name.split("/")
    path = FOLDER / f"{anatomy_name}-{photons}{'' if own else f'-{seed}'}.json"
    if measured and not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        rules = weight.RULES if own else ("holdout",)
        write_json(path, measure(anatomy_name, int(photons), rules, seed))
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def others(cases: list[dict[str, float]]) -> str:
    """What the page says of patients who decided nothing."""
    below = np.array([found["best"] - found["holdout"] for found in cases])
    return (
        f"Of {len(below)} slices of {len(OTHERS)} other patients of each anatomy at the same doses "
        f"`holdout` is {below.mean():.2f} dB below the best weight, of {np.sum(below <= 0.2)} of "
        f"them at most 0.2 dB, of one {below.max():.2f} dB.\n"
    )


def main(wanted: list[str]) -> None:
    """Measures the cases that are not there yet, and prints the table when all are.

    With "--others" those of other patients, by `holdout` alone, which go into the page.

    Raises:
        ValueError: for a page without a place for them.
    """
    names = [f"{name}/{photons}" for name, photons in itertools.product(ANATOMIES, DOSES)]
    if wanted == ["--others"]:
        each = [found_of(name, seed, True) for seed, name in itertools.product(OTHERS, names)]
        text, count = _OTHERS.subn(
            lambda _: others([found for found in each if found]), PAGE.read_text(encoding="utf-8")
        )
        if count != 1:
            raise ValueError(f"{PAGE.name}: expected one place of others. Received: {count}")
        write_atomic(PAGE, text.encode())
        return
    cases = {}
    for name in names:
        found = found_of(name, PATIENT, not wanted or name in wanted)
        if found:
            cases[name.replace("/", ", ")] = found
            print(name, found, flush=True)
    if len(cases) == len(names):
        print(table(cases))


if __name__ == "__main__":
    main(sys.argv[1:])
