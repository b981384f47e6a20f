"""What planning gains: three folders of simulated patients, the small recipe and the plan.

    python -m tools.plan_table sets      write the folders alone, as a user's files
    python -m tools.plan_table           train and measure what is missing, then print the table

Both runs of a folder take the same CPU seconds, which their own process counts. They are measured
on the same held-out patients, whom neither has seen, in one window for both. All is kept in the
folder `plan_table`; delete it to begin again.
"""

import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pydicom
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from zoo.data import batches, prepare
from zoo.recipe import Recipe

FOLDER = Path(__file__).resolve().parent.parent / "plan_table"
FOLDERS = {"train": "train", "validation": "val", "test": "test"}
STEP_MM = 40.0  # between the slices of a simulated patient, who has only a few
# Rows run to the back, columns to the left: as radiologists hang axial slices.
HUNG = np.array([[0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
# Name: the data set, the kind of files, the pixel spacing in mm.
SETS = {
    "low-dose CT": ("ldct/phantom", "dicom", 1.4),
    "T1 to T2": ("mri_contrast/phantom", "nifti", 1.75),
    "MR to CT": ("mr_ct/phantom", "nifti", 0.875),
}


def write_set(name: str, root: Path, data_dir: Path) -> Path:
    """A folder of a user's files, trainA, trainB, valA … of the patients of a simulated set."""
    dataset, kind, spacing = SETS[name]
    folder = root / name.replace(" ", "_")
    if folder.exists():
        return folder
    builder = prepare.load_builder(dataset, data_dir, Recipe())
    save = {"dicom": _save_dicom, "nifti": _save_nifti}[kind]
    for split, short in FOLDERS.items():
        for patient, source, target in _patients(batches.eval_dataset(builder, split)):
            save(folder / f"{short}A" / patient, source, spacing, patient)
            save(folder / f"{short}B" / patient, target, spacing, patient)
    return folder


def _patients(examples: Iterator[dict]) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Each patient with source and target, `[slices, H, W]`."""
    slices = defaultdict(list)
    for example in examples:
        slices[example["patient"]].append(example)
    for patient, group in sorted(slices.items()):
        group.sort(key=lambda example: example["name"])
        source, target = (
            np.stack([each[key][..., 0] for each in group]) for key in ("source", "target")
        )
        yield patient, source, target


def _save_nifti(path: Path, slices: np.ndarray, spacing: float, patient: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = HUNG @ np.diag([spacing, spacing, STEP_MM, 1.0])
    voxels = np.moveaxis(slices, 0, -1).astype(np.int16)
    nibabel.Nifti1Image(voxels, affine).to_filename(path.with_suffix(".nii.gz"))


def _save_dicom(path: Path, slices: np.ndarray, spacing: float, patient: str) -> None:
    path.mkdir(parents=True)
    file = pydicom.Dataset()
    file.file_meta = pydicom.dataset.FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.SOPClassUID = file.file_meta.MediaStorageSOPClassUID = CTImageStorage
    file.StudyInstanceUID = file.FrameOfReferenceUID = generate_uid(entropy_srcs=[patient])
    file.SeriesInstanceUID = generate_uid()
    file.Modality, file.PatientID, file.PatientName = "CT", patient, "Simulated"
    file.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    file.PixelSpacing = [spacing, spacing]
    file.Rows, file.Columns = slices.shape[1:]
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 16, 15, 1
    file.RescaleSlope, file.RescaleIntercept, file.RescaleType = 1, 0, "HU"
    for number, image in enumerate(slices):
        file.SOPInstanceUID = file.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        file.InstanceNumber = number + 1
        file.ImagePositionPatient = [0.0, 0.0, -STEP_MM * number]
        file.PixelData = image.astype("<i2").tobytes()
        file.save_as(path / f"{number:04d}.dcm", enforce_file_format=True)


def main(arguments: list[str]) -> int:
    for name in SETS:
        write_set(name, FOLDER / "sets", FOLDER / "data")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
