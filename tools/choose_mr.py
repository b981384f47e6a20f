"""What super-resolution of MR is chosen by, so that the judges need not be looked at.

    python -m tools.choose_mr --scans=FOLDER NAME ...     pretrained models, or folders of runs

The images are simulated subjects, and planes of the patients whose folders are in FOLDER: scans
that no weights were trained on and that are none of `tools/scans.yaml` (`docs/judging.md`). SSIM is
also that of the head and that of the background, where a network can make faint ringing sharper.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import skimage.metrics
from scipy import ndimage

import zoo
from tools.judges.super_resolution import at_level, scores
from zoo.imaging import files
from zoo.physics import resolution
from zoo.translator import Translator
from zoo_datasets.sr import phantom, scanned

PLANES = (0.3, 0.5, 0.7)  # of each scan, as shares of its length
SUBJECTS = 8
SEED = 77  # that of no data set
FIGURES = ("psnr", "ssim", "ssim, head", "ssim, background", "sharpness")


def images(folder: Path | None, scale: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Patient or "simulated", source `[h, w]` and target `[H, W]`, signal."""
    protocol = phantom.Protocol("MR", slices=1)
    for number in range(SUBJECTS):
        (image,) = scanned.patient(protocol, SEED, number)
        yield "simulated", image[f"source_x{scale}"], image["target"].astype(np.float32)
    for path in sorted(folder.iterdir()) if folder else ():
        for volume in files.find(path).volumes:
            for share in PLANES:
                target = at_level(np.maximum(volume.read(int(share * volume.length)), 0))
                yield path.name, resolution.crop_kspace(target, scale), target


def regions(image: np.ndarray, target: np.ndarray, window: tuple[float, float]) -> dict[str, float]:
    """SSIM in the head and outside it, NaN where there is none of the two."""
    whole = skimage.metrics.structural_similarity(
        *(each.clip(*window) for each in (target, image)),
        data_range=window[1],
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )[1]
    bright = ndimage.binary_opening(target > 0.05 * window[1], iterations=2)
    head = ndimage.binary_fill_holes(ndimage.binary_closing(bright, iterations=3))
    named = {"head": head, "background": ~head}
    return {f"ssim, {k}": whole[at].mean() if at.any() else np.nan for k, at in named.items()}


def report(model: Translator, folder: Path | None) -> None:
    """Print what it has over bicubic interpolation, means over each patient's planes and all."""
    rows: dict[str, list[list[float]]] = {}
    for patient, source, target in images(folder, model.scale):
        window = (0.0, float(target.max()))
        bicubic = model.baseline(source[..., None].astype(np.float32))[0][..., 0]
        both = [
            scores(image, target, window) | regions(image, target, window)
            for image in (model.translate(source), bicubic)
        ]
        own, other = ([each[key] for key in FIGURES] for each in both)
        over = np.subtract(own[:-1], other[:-1])
        rows.setdefault(patient, []).append([*over, own[-1]])
    heads = " ".join(f"{name:>16}" for name in FIGURES)
    print(f"{'over bicubic':24} {heads}  lowest SSIM")
    for patient, values in rows.items():
        means = " ".join(f"{mean:+16.4f}" for mean in np.nanmean(values, 0))
        print(f"{patient:24} {means}  {min(row[1] for row in values):+.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scans", type=Path, help="folder of a folder of each patient's scans")
    parser.add_argument("--weights", default="best", help="of runs: best, last or a step")
    parser.add_argument("names", nargs="+", metavar="NAME")
    options = parser.parse_args()
    for name in options.names:
        print(f"\n{name}")
        report(zoo.load(name, weights=options.weights), options.scans)


if __name__ == "__main__":
    main()
