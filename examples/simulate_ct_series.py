"""Simulate a CT series in DICOM: a digital patient from the chest to the abdomen, at a normal dose.

    python examples/simulate_ct_series.py --output=ct_series --slices=24

Stands in for a series of your own, so that everything can be tried offline. Nobody was scanned.
"""

import pathlib

import numpy as np
import pydicom
from absl import app, flags
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from zoo.physics import noise
from zoo_datasets.phantoms import anatomy
from zoo_datasets.phantoms.body import Patient
from zoo_datasets.phantoms.ct_scan import Protocol, Scanner

_OUTPUT = flags.DEFINE_string("output", None, "Folder to write, new or empty.", required=True)
_SLICES = flags.DEFINE_integer("slices", 24, "How many slices, spread over the body.", 2)
_SIZE = flags.DEFINE_integer("size", 384, "Rows and columns of a slice.", 32)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the patient and of the noise.", 0)

_CHUNK = 4  # slices simulated at a time


def header(protocol: Protocol) -> pydicom.Dataset:
    """What all slices of the series say."""
    file = pydicom.Dataset()
    file.file_meta = pydicom.dataset.FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.SOPClassUID = file.file_meta.MediaStorageSOPClassUID = CTImageStorage
    for uid in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        setattr(file, uid, generate_uid())
    file.Modality, file.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    file.PatientName, file.PatientID = "Simulated", f"simulated-{_SEED.value}"
    file.PatientBirthDate = file.PatientSex = ""
    file.StudyDate, file.StudyTime = "20260101", "120000"
    file.AccessionNumber = file.ReferringPhysicianName = file.StudyID = ""
    file.Manufacturer, file.SeriesDescription = "simulation", "digital patient, normal dose"
    file.SeriesNumber, file.AcquisitionNumber, file.KVP = 1, 1, "120"
    file.BodyPartExamined = "CHEST"
    file.PatientPosition, file.PositionReferenceIndicator = "HFS", ""
    file.PixelSpacing = [f"{protocol.spacing:.6f}"] * 2
    file.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    file.Rows = file.Columns = protocol.size
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 16, 15, 1
    file.RescaleSlope, file.RescaleIntercept, file.RescaleType = 1, 0, "HU"
    return file


def main(argv):
    """Simulate and write."""
    if len(argv) > 1:
        raise app.UsageError(f"expected flags only. Received: {argv[1:]}")
    output = pathlib.Path(_OUTPUT.value)
    if output.exists() and any(output.iterdir()):
        raise app.UsageError(f"--output: expected a new or empty folder. Received: {output}")
    output.mkdir(parents=True, exist_ok=True)

    # The patient, and the heights of the slices, in mm from the top.
    rng = np.random.default_rng(_SEED.value)
    # As in `ldct/phantom`, with four times the photons: the images of a diagnostic scan.
    protocol = Protocol(size=_SIZE.value, photons=9.6e4, electronic=14.0)
    scanner, body = Scanner(protocol), Patient(rng, 2 * protocol.size, protocol.spacing / 2)
    step = 0.9 * anatomy.LENGTH / _SLICES.value
    heights = 0.05 * anatomy.LENGTH + step * np.arange(_SLICES.value)

    file = header(protocol)
    corner = -(protocol.size - 1) / 2 * protocol.spacing
    for first in range(0, len(heights), _CHUNK):
        chunk = heights[first : first + _CHUNK]
        rays = scanner.project(np.stack([body.slice(height) for height in chunk]))
        photons = noise.tube_current(rays, protocol.photons)
        images = scanner.reconstruct(
            noise.low_dose_sinogram(rays, photons, protocol.electronic, rng)
        )
        for number, (height, hu) in enumerate(zip(chunk, images, strict=True), first + 1):
            file.SOPInstanceUID = file.file_meta.MediaStorageSOPInstanceUID = generate_uid()
            file.InstanceNumber = number
            file.ImagePositionPatient = [f"{corner:.3f}", f"{corner:.3f}", f"{-height:.3f}"]
            file.SliceThickness, file.SliceLocation = f"{step:.3f}", f"{-height:.3f}"
            file.PixelData = hu.astype("<i2").tobytes()
            file.save_as(output / f"{number:04d}.dcm", enforce_file_format=True)
    print(f"{len(heights)} slices of {protocol.size} x {protocol.size} pixels in {output}.")


if __name__ == "__main__":
    app.run(main)
