"""Make training pairs for low-dose CT from a normal CT series.

    python examples/simulate_low_dose.py --input=DICOM_DIR --output=DIR --dose=0.25 --test_slices=12

Writes DIR/trainA and DIR/testA (DICOM slices with the added noise of a scan at that dose) and
DIR/trainB and DIR/testB (the slices as they were), one file name a pair. The last slices are the
test set: of the same patient, so they show that training works, not that it generalises.
"""

import os
import pathlib

import numpy as np
import pydicom
from absl import app, flags, logging

from zoo.physics import noise

_INPUT = flags.DEFINE_string("input", None, "Folder of one CT series in DICOM.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "Folder to write, new or empty.", required=True)
_DOSE = flags.DEFINE_float("dose", 0.25, "Fraction of the dose to simulate, in (0, 1].")
_PHOTONS = flags.DEFINE_float("photons", noise.PHOTONS, "Full-dose photons per ray.")
_TEST_SLICES = flags.DEFINE_integer("test_slices", 12, "How many of the last slices to test on.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the noise.")

_CHUNK = 8  # slices simulated at a time


def read_series(folder: pathlib.Path) -> list[pydicom.Dataset]:
    """The slices of the series in `folder`, sorted along the slice normal, decompressed.

    Raises:
        ValueError: where the folder does not hold exactly one CT series of one shape and spacing.
    """
    slices = [pydicom.dcmread(path) for path in sorted(folder.glob("**/*.dcm"))]
    kinds = {(s.Modality, s.SeriesInstanceUID, s.Rows, s.Columns, *s.PixelSpacing) for s in slices}
    if len(kinds) != 1 or slices[0].Modality != "CT":
        raise ValueError(
            f"--input: expected .dcm files of one CT series, of one shape and spacing. "
            f"Received: {len(slices)} files, {len(kinds)} different series or shapes in {folder}"
        )
    row, column = (float(mm) for mm in slices[0].PixelSpacing)
    if abs(row - column) > 1e-3 * row:
        raise ValueError(f"--input: expected square pixels. Received: {row} x {column} mm")
    axes = np.asarray(slices[0].ImageOrientationPatient, float)
    normal = np.cross(axes[:3], axes[3:])
    slices.sort(key=lambda s: float(normal @ np.asarray(s.ImagePositionPatient, float)))
    for s in slices:
        if s.file_meta.TransferSyntaxUID.is_compressed:
            s.decompress()
    return slices


def to_hu(file: pydicom.Dataset) -> np.ndarray:
    """HU `[H, W]`, float32."""
    slope, intercept = float(file.get("RescaleSlope", 1)), float(file.get("RescaleIntercept", 0))
    return file.pixel_array.astype(np.float32) * slope + intercept


def with_pixels(file: pydicom.Dataset, hu: np.ndarray, dose: float, series: str) -> pydicom.Dataset:
    """A copy of a slice with other pixels, clipped to what its stored integers can hold."""
    slope, intercept = float(file.get("RescaleSlope", 1)), float(file.get("RescaleIntercept", 0))
    signed = file.PixelRepresentation == 1
    low = -(2 ** (file.BitsStored - 1)) if signed else 0
    stored = np.clip(np.rint((hu - intercept) / slope), low, low + 2**file.BitsStored - 1)
    copy = pydicom.dcmread(file.filename) if file.filename else file
    copy.file_meta.TransferSyntaxUID = file.file_meta.TransferSyntaxUID
    copy.SOPInstanceUID = copy.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    copy.SeriesInstanceUID = series
    copy.ImageType = ["DERIVED", "SECONDARY", *list(file.get("ImageType", []))[2:]]
    copy.DerivationDescription = f"Simulated noise of {100 * dose:g} % dose"
    kind = f"{'i' if signed else 'u'}{file.BitsAllocated // 8}"
    order = "<" if file.file_meta.TransferSyntaxUID.is_little_endian else ">"
    copy.PixelData = stored.astype(order + kind).tobytes()
    return copy


def save(file: pydicom.Dataset, path: pathlib.Path) -> None:
    """Write a file under a temporary name, then move it to its own."""
    temporary = path.with_suffix(".tmp")
    file.save_as(temporary)
    os.replace(temporary, path)


def main(argv):
    """Read, simulate, write."""
    if len(argv) > 1:
        raise app.UsageError(f"expected flags only. Received: {argv[1:]}")
    slices = read_series(pathlib.Path(_INPUT.value))
    if not 0 < _TEST_SLICES.value < len(slices):
        raise app.UsageError(f"--test_slices: expected 1 to {len(slices) - 1}. "
                             f"Received: {_TEST_SLICES.value}")  # fmt: skip
    output = pathlib.Path(_OUTPUT.value)
    if output.exists() and any(output.iterdir()):
        raise app.UsageError(f"--output: expected a new or empty folder. Received: {output}")
    for split in ("trainA", "trainB", "testA", "testB"):
        (output / split).mkdir(parents=True)
    spacing = float(slices[0].PixelSpacing[0])
    series, rng = pydicom.uid.generate_uid(), np.random.default_rng(_SEED.value)
    for first in range(0, len(slices), _CHUNK):
        chunk = slices[first : first + _CHUNK]
        hu = np.stack([to_hu(s) for s in chunk])
        noisy = noise.simulate_low_dose(hu, spacing, _DOSE.value, photons=_PHOTONS.value, rng=rng)
        for i, (file, pixels) in enumerate(zip(chunk, noisy, strict=True), first):
            split = "train" if i < len(slices) - _TEST_SLICES.value else "test"
            save(with_pixels(file, pixels, _DOSE.value, series), output / f"{split}A/{i:04d}.dcm")
            save(file, output / f"{split}B/{i:04d}.dcm")
        body = hu > -300
        deviation = float((noisy - hu)[body].std()) if body.any() else 0.0
        logging.info("%d of %d slices, noise added to soft tissue and bone: %.0f HU",
                     first + len(chunk), len(slices), deviation)  # fmt: skip
    print(
        f"{len(slices) - _TEST_SLICES.value} training and {_TEST_SLICES.value} test pairs at "
        f"{100 * _DOSE.value:g} % dose in {output}, {spacing:g} mm pixels (in the DICOM headers)."
    )


if __name__ == "__main__":
    app.run(main)
