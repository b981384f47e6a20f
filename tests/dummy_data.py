"""Tiny data in the layouts of publishers, one function for each: their trees, made-up values.

Each writes below a folder; what it returns is known of the examples, in physical units:
{name: {feature: {(row, column, channel): value}}}.
"""

import hashlib
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pydicom.uid

Known = dict[str, dict[str, dict[tuple[int, ...], float]]]


def write_series(
    folder: Path,
    values: np.ndarray,
    *,
    modality: str = "CT",
    patient: str = "",
    description: str = "",
    spacing: tuple[float, float, float] = (2.0, 1.5, 1.5),
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0),
    axes: tuple[float, ...] = (1, 0, 0, 0, 1, 0),
    order: list[int] | None = None,
    uid: str = "",
) -> str:
    """A DICOM series of single frames, as scanners write them; returns its SeriesInstanceUID.

    Args:
        folder: receives 1-001.dcm, 1-002.dcm …
        values: `[slice, row, column]`, HU for CT; stored as 12 bits with slope 1, intercept -1024.
        modality: "CT", "MR", "PT" …
        spacing: slice, row and column, in mm.
        origin: ImagePositionPatient of slice 0; the others follow along the slice normal.
        order: the slice that each file holds, where they are not in order.
        axes: ImageOrientationPatient.
    """
    classes = {
        "CT": pydicom.uid.CTImageStorage,
        "MR": pydicom.uid.MRImageStorage,
        "PT": pydicom.uid.PositronEmissionTomographyImageStorage,
        "MG": pydicom.uid.DigitalMammographyXRayImageStorageForPresentation,
    }
    folder.mkdir(parents=True, exist_ok=True)
    series = uid or pydicom.uid.generate_uid(entropy_srcs=[str(folder)])
    normal = np.cross(axes[:3], axes[3:])
    intercept = -1024 if modality == "CT" else 0
    for number, index in enumerate(order or range(len(values)), 1):
        file = pydicom.Dataset()
        file.file_meta = pydicom.dataset.FileMetaDataset()
        file.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        file.SOPClassUID = classes[modality]
        file.SOPInstanceUID = pydicom.uid.generate_uid(entropy_srcs=[series, str(index)])
        file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID
        file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID
        file.Modality, file.PatientID, file.SeriesDescription = modality, patient, description
        file.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        file.SeriesInstanceUID, file.StudyInstanceUID = series, f"{series[:40]}.9"
        file.InstanceNumber = number
        file.Rows, file.Columns = values.shape[1:]
        file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
        file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 16, 15, 0
        file.RescaleSlope, file.RescaleIntercept = "1", str(intercept)
        file.PixelSpacing, file.SliceThickness = list(spacing[1:]), str(spacing[0])
        file.ImageOrientationPatient = list(axes)
        file.ImagePositionPatient = list(np.array(origin) + index * spacing[0] * normal)
        file.PixelData = (values[index] - intercept).round().astype("<u2").tobytes()
        file.save_as(folder / f"1-{number:03d}.dcm", enforce_file_format=True)
    return series


def write_nifti(path: Path, values: np.ndarray, affine: np.ndarray, codes: str = "RAS") -> None:
    """A NIfTI file of the same voxels at the same places, its axes turned to `codes`.

    Args:
        path: ends in .nii or .nii.gz.
        values: `[i, j, k]`.
        affine: `[4, 4]`, indices to mm (right, front, up).
        codes: such as "LPS": where its axes run to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(values, affine)
    here = nibabel.orientations.io_orientation(affine)
    turn = nibabel.orientations.ornt_transform(here, nibabel.orientations.axcodes2ornt(codes))
    nibabel.save(image.as_reoriented(turn), path)


def head(seed: int, shape: tuple[int, int, int] = (5, 24, 24)) -> np.ndarray:
    """A ball of soft tissue with some bone and texture, HU `[slice, row, column]`, int16."""
    rng = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    body = np.hypot(y * 1.1, x) < 0.8 - 0.1 * z**2
    values = np.where(body, 40.0, -1000.0) + np.where(body, rng.normal(0, 10, shape), 0)
    values[(np.hypot(y + 0.3, x - 0.2) < 0.2) & body] = 900
    return np.round(values).astype(np.int16)


# LDCT-and-Projection-data and CPTAC-SAR, The Cancer Imaging Archive.


def ldct_tcia(root: Path) -> Known:
    """<patient>/<study>/<n>-Full Dose Images-<n> and …Low Dose Images…, files out of order."""
    known = {}
    for number, patient in enumerate(["C002", "C007", "L006", "L007", "N003", "N006"]):
        full = head(number)
        low = np.where(full > -900, full + 7, full)
        study = root / "LDCT-and-Projection-data" / patient / f"08-30-2018-NA-NA-{12345 + number}"
        for kind, values, order in (
            ("Full Dose Images", full, [2, 0, 4, 1, 3]),
            ("Low Dose Images", low, [0, 1, 2, 3, 4]),
        ):
            write_series(
                study / f"1.000000-{kind}-{98000 + number}",
                values,
                patient=patient,
                description=kind,
                order=order,
                spacing=(2.0, 0.75, 0.75),
            )
        known[f"{patient}-0001"] = {
            "source": {(12, 12, 0): low[1, 12, 12]},
            "target": {(12, 12, 0): full[1, 12, 12], (0, 0, 0): -1000},
            "spacing": {(0,): 0.75, (1,): 0.75},
        }
    return known


def ldct_cptac_sar(root: Path) -> Known:
    """<collection>/<patient>/<study>/<series>, with series that are no axial CT among them."""
    known = {}
    for number, patient in enumerate(["C3L-00029", "C3L-00027", "C3N-00843", "C3N-00014"]):
        study = root / "CPTAC-SAR" / patient / "12-14-1999-NA-CT-58421"
        series = write_series(
            study / "2.000000-Chest-12345",
            head(number, (9, 24, 24)),
            patient=patient,
            order=[*range(8, -1, -1)],
        )
        write_series(study / "1.000000-Scout-12344", head(9, (1, 24, 24)), patient=patient)
        coronal = (1, 0, 0, 0, 0, -1)
        write_series(study / "3.000000-MPR-12346", head(8), patient=patient, axes=coronal)
        write_series(study / "4.000000-MR-12347", abs(head(7)), patient=patient, modality="MR")
        name = f"{patient}-{hash_of(series)}-0003"
        known[name] = {"target": {(12, 12, 0): head(number, (9, 24, 24))[3, 12, 12]}}
    return known


def hash_of(text: str) -> str:
    """What stands for a UID in a name."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]
