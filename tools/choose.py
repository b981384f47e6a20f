"""What the denoisers of low-dose CT are chosen by, so that the judges need not be looked at.

    python -m tools.choose --scans=FOLDER NAME ...     pretrained models, or folders of runs

The images are simulated heads and a chest, and slices of the patients whose folders are in FOLDER:
scans that no weights were trained on and that are none of `tools/scans.yaml`. Noise is ASTRA's, of
37 to 196 HU, and BM3D is told 1.2 times of it (`docs/judging.md`). Both are kept in `verify`.
"""

import argparse
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

import zoo
from tools.judges import astra_noise, denoising
from zoo.imaging import files
from zoo.translator import Translator
from zoo_datasets.ldct import scanned, scanners, varied
from zoo_datasets.phantoms import brain
from zoo_datasets.phantoms.body import Patient

TOLD = 1.2  # times the noise's standard deviation: what BM3D is told
# Level in HU, beam and kernel of the noise; each slice has one of each row.
NOISE = (
    ((37, "fan", "ramp"), (37, "parallel", "hann")),
    ((90, "parallel", "ramp"), (75, "fan", "hann")),
    ((196, "fan", "ramp"), (150, "parallel", "ramp")),
)


@dataclasses.dataclass
class Case:
    """A slice with noise, and what BM3D made of it.

    Attributes:
        name: of the slice and of its noise; a head's begins so.
        full, source, bm3d: HU `[n, n]`.
    """

    name: str
    full: np.ndarray
    source: np.ndarray
    bm3d: np.ndarray


def cases(folder: Path | None) -> list[Case]:
    """All images with their noise: simulated ones, and two slices of each patient in a folder."""
    found = []
    slices = [*simulated(), *(real(folder) if folder else ())]
    for number, (name, full, spacing) in enumerate(slices):
        for level, beam, kernel in (rows[number % 2] for rows in NOISE):
            what = f"{level} HU, {beam}, {kernel}"
            source = astra_noise.kept(name, full, spacing, level, beam, kernel)
            bm3d = denoising.kept("BM3D", source, TOLD * level, denoising.DENOISERS["BM3D"])
            found.append(Case(f"{name}: {what}", full, source, bm3d))
    return found


def simulated() -> Iterator[tuple[str, np.ndarray, float]]:
    """Name, HU `[512, 512]` and pixel pitch in mm of heads and a chest that none is trained on."""
    size = scanned.Protocol.size
    for name, spacing, own in (("head 0", 0.4, 3.0), ("head 1", 0.45, 3.0), ("chest", 0.7, 10.0)):
        rng = np.random.default_rng([77, *name.encode()])
        if name == "chest":
            clean = Patient(rng, size, spacing).slice(90.0)
        else:
            fractions = brain.Brain(rng, size, spacing).fractions(rng.uniform(5, 35), 5.0)
            clean = np.tensordot(brain.draw_hu(rng), fractions, 1)
        clean = varied.sharpness(rng, clean[None])
        (p,) = scanners.line_integrals(clean, spacing)
        scanner = scanners.Scanner(scanners.Kernel("hann", 0.8, 0.0))
        full = clean[0] + own * scanner.noise(rng, p, size)
        yield name, np.clip(np.rint(full), -1024, 3071).astype(np.float32), spacing


def real(folder: Path) -> Iterator[tuple[str, np.ndarray, float]]:
    """The same of two slices of each patient's scan, in a square of air."""
    for path in sorted(folder.iterdir()):
        volume = files.open_volume(path).presented("axial")
        if volume.spacing is None:
            raise ValueError(f"{path}: expected a pixel spacing. Received: none")
        for index in (volume.length // 3, 2 * volume.length // 3):
            full = np.maximum(volume.read(index), -1024)
            size = max(full.shape)
            margins = [((size - n) // 2, size - n - (size - n) // 2) for n in full.shape]
            full = np.pad(full, margins, constant_values=-1000)
            yield f"{path.name} {index}", full, volume.spacing[0]


def report(model: Translator, images: list[Case]) -> None:
    """Print PSNR over BM3D, edges in the error, and noise left by octave, of each and all."""
    bands = zip(denoising.OCTAVES, denoising.OCTAVES[1:], strict=False)
    octaves = ", ".join(f"{low:g}-{high:g}" for low, high in bands)
    print(f"{'':40}   PSNR   over  structure    edges off    noise left, % (BM3D's): {octaves}")
    rows = []
    for case in images:
        output = model.translate(case.source)
        own, other = (denoising.fidelity(image, case.full) for image in (output, case.bm3d))
        over = own["psnr"] - other["psnr"]
        rows.append((over, own["structure"], other["structure"], own["edges"], other["edges"]))
        left = [
            denoising.noise_left(image, case.source, case.full) for image in (output, case.bm3d)
        ]
        shares = " ".join(f"{100 * a:5.1f}({100 * b:.1f})" for a, b in zip(*left, strict=True))
        print(f"{case.name:40} {own['psnr']:6.2f} {over:+6.2f}  {_edges(rows[-1])} {shares}")
    heads = np.array([case.name.startswith("head") for case in images])
    for title, chosen in (("heads", heads), ("others", ~heads)):
        table = np.array(rows)[chosen]
        means = table.mean(0)
        lowest = f"lowest {table[:, 0].min():+.2f}"
        print(f"{title:40} {'':6} {means[0]:+6.2f}  {_edges(means)} {lowest}")


def _edges(row: Sequence[float]) -> str:
    """What edges show in the error, of a model and of BM3D."""
    _, structure, other, edges, others = row
    return f"{structure:.3f}({other:.3f}) {edges:.3f}({others:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scans", type=Path, help="folder of a folder of each patient's scan")
    parser.add_argument("--weights", default="best", help="of runs: best, last or a step")
    parser.add_argument("names", nargs="+", metavar="NAME")
    options = parser.parse_args()
    images = cases(options.scans)
    for name in options.names:
        print(f"\n{name}, {len(images)} images")
        report(zoo.load(name, weights=options.weights), images)


if __name__ == "__main__":
    main()
