"""Cases of several images, for tests: NIfTI, and DICOM studies of pydicom's CT and MR."""

from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pydicom.data
import pydicom.uid

# Rows run to the back, columns to the left: axial slices are presented as they are stored.
HUNG = np.array([[0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])


def nifti(path: Path, values: np.ndarray, affine: np.ndarray = HUNG) -> Path:
    """A NIfTI file of slices [D, H, W], which are read as they are given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(np.moveaxis(values, 0, -1).astype(np.float32), affine), path)
    return path


def images(number: int, shape: tuple[int, int, int] = (3, 16, 16)) -> dict[str, np.ndarray]:
    """T1, T2 and FLAIR of a case, which has nothing to do with any other."""
    draw = np.random.default_rng([5, number])
    t1, t2 = draw.uniform(0, 900, shape), draw.uniform(0, 90, shape)
    return {"T1": t1, "T2": t2, "FLAIR": t1 / 9 + t2}


def cases(root: Path, count: int = 4) -> Path:
    """nnU-Net's folders of `count` cases."""
    for number in range(count):
        case = images(number)
        nifti(root / f"imagesTr/case{number}_0000.nii.gz", case["T1"])
        nifti(root / f"imagesTr/case{number}_0001.nii.gz", case["T2"])
        nifti(root / f"labelsTr/case{number}.nii.gz", case["FLAIR"])
    return root


def dicom_series(
    folder: Path,
    description: str,
    pixels: np.ndarray,
    *,
    patient: str = "A",
    base: str = "MR_small",
    study: str = "",
    **changes,
) -> Path:
    """A DICOM series of slices [D, H, W], 1 mm apart, of stored values."""
    folder.mkdir(parents=True, exist_ok=True)

    def uid(*texts: str) -> str:
        return pydicom.uid.generate_uid(entropy_srcs=[patient, study, *texts])

    for number, image in enumerate(pixels):
        dataset = pydicom.dcmread(pydicom.data.get_testdata_file(f"{base}.dcm", download=False))
        dataset.PatientID = dataset.PatientName = patient
        dataset.StudyInstanceUID, dataset.FrameOfReferenceUID = uid("study"), uid("frame")
        dataset.SeriesInstanceUID = uid(description)
        dataset.SOPInstanceUID = uid(description, str(number))
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.SeriesDescription, dataset.InstanceNumber = description, number + 1
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.ImagePositionPatient, dataset.PixelSpacing = [0, 0, float(number)], [1, 1]
        dataset.Rows, dataset.Columns = image.shape
        dataset.PixelData = np.ascontiguousarray(image, "<i2").tobytes()
        dataset["PixelData"].VR = "OW"
        for keyword, value in changes.items():
            setattr(dataset, keyword, value)
        dataset.save_as(folder / f"{description.replace(' ', '_')}-{number}.dcm")
    return folder


def study(folder: Path, number: int) -> dict[str, np.ndarray]:
    """A study with T1, T2 and FLAIR, and a localizer that no pattern picks; its stored values."""
    case = {name: np.rint(values) for name, values in images(number).items()}
    for name, values in case.items():
        dicom_series(folder, f"Ax {name} tse", values, patient=f"P{number}")
    dicom_series(folder, "localizer", case["T1"][:1], patient=f"P{number}")
    return case
