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
    """A DICOM series of slices [D, H, W], 1 mm apart, of stored values; None removes a field."""
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
            if value is None:
                dataset.pop(keyword, None)
            else:
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


def whole_body(folder: Path, patient: str, number: int) -> dict[str, np.ndarray]:
    """A study with PET in Bq/ml on pixels of 2 mm, MR and CT of 1 mm; in SUV, signal and HU."""
    ramp = np.add.outer(np.arange(32), np.zeros(32, int)) * np.ones((3, 1, 1), int)
    stored = 100 * (np.arange(16)[:, None] + number) * np.ones((3, 16, 16), int)
    drug = pydicom.Dataset()
    drug.RadionuclideTotalDose, drug.RadionuclideHalfLife = 370e6, 6586.2
    drug.RadiopharmaceuticalStartTime = "110000"
    dicom_series(
        folder, "pet wb", stored, patient=patient, base="CT_small", Modality="PT", Units="BQML",
        SOPClassUID=pydicom.uid.PositronEmissionTomographyImageStorage, PatientWeight=70,
        DecayCorrection="START", CorrectedImage=["ATTN", "DECY"], RescaleSlope=200,
        RescaleIntercept=0, RescaleType=None, SeriesDate="20200102", SeriesTime="120000",
        AcquisitionDate="20200102", AcquisitionTime="120500", PixelPaddingValue=None,
        RadiopharmaceuticalInformationSequence=[drug], PixelSpacing=[2, 2],
    )  # fmt: skip
    for name, base in (("MR T1", "MR_small"), ("CT low dose", "CT_small")):
        dicom_series(folder, name, 10 * ramp + 1000, patient=patient, base=base)
    suv = 200 * stored * 70_000 / (370e6 * 0.5 ** (3600 / 6586.2))
    return {"PET": suv, "MR": 10.0 * ramp + 1000, "CT": 10.0 * ramp + 1000 - 1024}
