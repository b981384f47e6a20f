"""Simulate brain MR of several patients as NIfTI files: a T1- and a T2-weighted volume of each.

    python examples/simulate_brains.py --output=brains --patients=12 --test_patients=3

Writes brains/trainA and brains/testA (T1) and brains/trainB and brains/testB (T2), one file name a
patient. Each is a random deformation of a real average brain (needs `pip install
"zoo-medical[mni]"`), some with a lesion. Stands in for files of your own; nobody was scanned.
"""

import pathlib

import nibabel
import numpy as np
from absl import app, flags

from zoo_datasets.phantoms import atlas, brain

_OUTPUT = flags.DEFINE_string("output", None, "Folder to write, new or empty.", required=True)
_PATIENTS = flags.DEFINE_integer("patients", 12, "How many patients to train on.", 1)
_TEST_PATIENTS = flags.DEFINE_integer("test_patients", 3, "How many to test on.", 1)
_SLICES = flags.DEFINE_integer("slices", 16, "Axial slices of each.", 2)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the patients.", 0)

SIZE, SPACING = 128, 1.6  # pixels, mm
CONTRASTS = {"A": "T1", "B": "T2"}


def patient(number: int) -> tuple[dict[str, np.ndarray], float]:
    """The volumes `[slice, row, column]` of a patient by contrast, uint16, and their step in mm."""
    rng = np.random.default_rng([_SEED.value, number])
    head = atlas.Subject(rng, SIZE, SPACING)
    heights, step = np.linspace(*atlas.EXTENT, _SLICES.value, retstep=True)
    coil = brain.bias_field(rng, SIZE, SPACING)
    sigma = rng.uniform(0.006, 0.015) * atlas.MAXIMUM
    slices = {name: [] for name in CONTRASTS.values()}
    for height in heights.tolist():
        tissue = head.slice(height)
        for contrast, images in slices.items():
            signal = atlas.GAIN[contrast] * coil * head.signal(tissue, contrast)
            stored = np.rint(brain.rician(signal, sigma, rng)).clip(0, atlas.MAXIMUM)
            images.append(stored.astype(np.uint16))
    return {name: np.stack(images) for name, images in slices.items()}, float(step)


def main(argv):
    """Simulate and write."""
    if len(argv) > 1:
        raise app.UsageError(f"expected flags only. Received: {argv[1:]}")
    output = pathlib.Path(_OUTPUT.value)
    if output.exists() and any(output.iterdir()):
        raise app.UsageError(f"--output: expected a new or empty folder. Received: {output}")
    for number in range(_PATIENTS.value + _TEST_PATIENTS.value):
        volumes, step = patient(number)
        split = "train" if number < _PATIENTS.value else "test"
        # NIfTI's axes run to the right, front and top; the arrays' upwards, backwards and left.
        affine = np.diag([-SPACING, -SPACING, step, 1.0])
        affine[:3, 3] = SPACING * SIZE / 2, SPACING * SIZE / 2, atlas.EXTENT[0]
        for letter, contrast in CONTRASTS.items():
            folder = output / f"{split}{letter}"
            folder.mkdir(parents=True, exist_ok=True)
            image = nibabel.Nifti1Image(volumes[contrast].transpose(2, 1, 0), affine)
            image.header.set_xyzt_units("mm")
            nibabel.save(image, folder / f"patient{number:02d}.nii.gz")
    print(
        f"{_PATIENTS.value} patients to train on and {_TEST_PATIENTS.value} to test on in {output}."
    )


if __name__ == "__main__":
    app.run(main)
