"""DICOM objects of images that no scanner made: Secondary Capture, marked as synthetic."""

import numpy as np
import pydicom.uid

from zoo.domain import Domain
from zoo.imaging.dicom import fresh, iods, provenance
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
    header = fresh.header(domain.modality, f"Synthetic: {title}")
    # What it is, and that it is nobody.
    header.SOPClassUID = iods.SECONDARY_CAPTURE
    header.ConversionType, header.SyntheticData = "SYN", "YES"
    for level in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        setattr(header, level, pydicom.uid.generate_uid(entropy_srcs=[level, identity]))
    header.PatientName = "Synthetic^Image"
    header.PatientID = f"SYNTHETIC-{header.StudyInstanceUID[-40:]}"
    header.StudyDescription = "Synthetic images of no patient"
    header.Laterality = header.PatientOrientation = None  # of no patient
    header.ImageComments = fresh.text(f"{_MARK}. {text}", 10240)
    header.DerivationDescription = fresh.text(f"{_MARK}. {text}", 1024)
    made_by = provenance.equipment(title, _MARK)
    header.Manufacturer, header.ContributingEquipmentSequence = made_by.Manufacturer, [made_by]
    iods.complete(header, header.SeriesInstanceUID)
    if domain.spacing:
        header.PixelSpacing = list(domain.spacing[-2:])
    return fresh.encode(header, image, encoding, domain.unit, domain.window)
