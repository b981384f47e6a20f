"""DICOM objects of images that no scanner made: Secondary Capture, marked as synthetic."""

import io

import numpy as np
import pydicom
import pydicom.uid

from zoo.domain import Domain
from zoo.imaging.dicom import headers, iods, provenance
from zoo.imaging.dicom.encoding import Encoding

_MARK = "SYNTHETIC IMAGE, made by a neural network; it shows no patient"


def encode(
    image: np.ndarray, domain: Domain, encoding: Encoding, identity: str, title: str, text: str
) -> bytes:
    """A file of Secondary Capture Image Storage in Explicit VR Little Endian.

    Its conversion type is SYN, Synthetic Data is YES, and it has no date, so that equal arguments
    give equal bytes. Each image is a patient, a study and a series of its own.

    Args:
        image: float32 `[H, W]` in the domain's unit.
        domain: what the values mean.
        encoding: how they are stored.
        identity: of the image, other than any other's.
        title: of the series, and what made the image.
        text: where the image is from.
    """
    header = pydicom.Dataset()
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    # What it is, and that it is nobody.
    header.SOPClassUID, header.Modality = iods.SECONDARY_CAPTURE, domain.modality
    header.ConversionType, header.SyntheticData = "SYN", "YES"
    header.ImageType = ["DERIVED", "SECONDARY"]
    header.BurnedInAnnotation = "NO"
    for level in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        setattr(header, level, pydicom.uid.generate_uid(entropy_srcs=[level, identity]))
    header.PatientName = "Synthetic^Image"
    header.PatientID = f"SYNTHETIC-{header.StudyInstanceUID[-40:]}"
    header.StudyDescription = "Synthetic images of no patient"
    header.SeriesDescription = f"Synthetic: {title}".replace("\\", "/")[:64]
    header.SeriesNumber = header.InstanceNumber = 1
    header.Laterality = header.PatientOrientation = None  # of no patient
    header.ImageComments = f"{_MARK}. {text}".replace("\\", "/")[:10240]
    header.DerivationDescription = f"{_MARK}. {text}".replace("\\", "/")[:1024]
    made_by = provenance.equipment(title, _MARK)
    header.Manufacturer, header.ContributingEquipmentSequence = made_by.Manufacturer, [made_by]
    iods.complete(header, header.SeriesInstanceUID)
    # Its pixels, and what they mean.
    stored = encoding.encode(image)
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.Rows, header.Columns = stored.shape
    header.BitsAllocated = header.BitsStored = encoding.bits
    header.HighBit, header.PixelRepresentation = encoding.bits - 1, int(encoding.signed)
    if domain.spacing:
        header.PixelSpacing = list(domain.spacing[-2:])
    header.RescaleSlope, header.RescaleIntercept = encoding.slope, encoding.intercept
    header.RescaleType = "HU" if domain.unit == "HU" else "US"
    low, high = domain.window
    header.WindowCenter, header.WindowWidth = (low + high) / 2, high - low
    header.PixelData = stored.astype("<i2" if encoding.signed else "<u2").tobytes()
    header["PixelData"].VR = "OW"
    content = io.BytesIO()
    with headers.quiet():
        header.save_as(content, implicit_vr=False, little_endian=True, enforce_file_format=True)
    return content.getvalue()
