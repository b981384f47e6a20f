"""Make training pairs for denoising from noisy sinograms alone, without a clean image.

    python examples/split_sinograms.py --input=SINOGRAMS --output=DIR --size=256 --spacing=0.8

SINOGRAMS holds parallel-beam sinograms in NPY files, line integrals [views, detectors] or stacks
[N, views, detectors], whose view k lies at (k + 1/2) 180° / views; of one patient in each file. The
views are divided into interleaved sets, each of which is reconstructed; the mean of all sets but
one and that one are a pair (Noise2Inverse, Hendriksen, Pelt and Batenburg 2020). Writes DIR/trainA
and DIR/trainB (pairs in HU, for the data set `folder`), and DIR/whole (what all views give
together, which the trained model denoises).
"""

import pathlib

import numpy as np
from absl import app, flags

from zoo.physics import noise, radon

_INPUT = flags.DEFINE_string("input", None, "Folder of sinograms in NPY files.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "Folder to write, new or empty.", required=True)
_SIZE = flags.DEFINE_integer("size", None, "Rows and columns of the images.", required=True)
_SPACING = flags.DEFINE_float("spacing", None, "Pixel pitch of the images, in mm.", required=True)
_DETECTOR = flags.DEFINE_float("detector", None, "Detector pitch in mm; the pixels' if left out.")
_PARTS = flags.DEFINE_integer("parts", 4, "Sets that the views are divided into.")
_MU_WATER = flags.DEFINE_float("mu_water", radon.MU_WATER, "Attenuation of water, per mm.")


def pairs(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The images of a file, by the folder that they go into; HU, float32 `[N, size, size]`."""
    sinograms = np.load(path, allow_pickle=False)
    if sinograms.ndim not in (2, 3):
        raise ValueError(
            f"{path.name}: expected [views, detectors] or [N, views, detectors]. "
            f"Received: shape {sinograms.shape}"
        )
    views, detectors = sinograms.shape[-2:]
    pitch = _DETECTOR.value or _SPACING.value
    beam = radon.ParallelBeam(_SIZE.value, _SPACING.value, views, detectors, pitch)
    sinograms = sinograms.reshape(-1, views, detectors)
    parts = beam.split_fbp(sinograms, _PARTS.value, "hann")
    hu = radon.attenuation_to_hu(parts, _MU_WATER.value)
    sources, targets = noise.noise2inverse(hu)
    return {"trainA": sources, "trainB": targets, "whole": hu.mean(1)}


def main(_) -> None:
    files = sorted(pathlib.Path(_INPUT.value).glob("*.npy"))
    output = pathlib.Path(_OUTPUT.value)
    if not files or (output.exists() and any(output.iterdir())):
        raise app.UsageError(
            "expected --input with .npy files, and an --output that is new or empty. "
            f"Received: {len(files)} files, and {output}"
        )
    for path in files:
        for folder, images in pairs(path).items():
            (output / folder).mkdir(parents=True, exist_ok=True)
            np.save(output / folder / path.name, images.astype(np.float32))
    print(f"Wrote {len(files)} files each to {output}/trainA, trainB and whole")


if __name__ == "__main__":
    app.run(main)
