"""CT images of a measurement that has no DICOM header: derived, valid, of no stated patient."""

import datetime

import numpy as np
import pydicom

from zoo.imaging.dicom import fresh, iods, provenance
from zoo.imaging.dicom.encoding import Encoding, decimal

_WINDOW = (-160.0, 240.0)  # HU, that programs show first: soft tissue
_NOBODY = "No patient is stated: the image was reconstructed from a measurement without a header"
_PLACE = "its place in the patient and the patient's sides are not known"


class Study:
    """The images of one measurement, a study of its own.

    Slices at a known distance are one series, from `z = 0` on, the centre of rotation at x = y = 0.
    Others are each a series in a frame of reference of its own: where they lie to each other nobody
    knows. Every study has fresh UIDs.

    Args:
        method: that reconstructs, the series' description.
        measurement: SHA-256 of what was measured, hexadecimal.
        spacing_mm: of the pixels.
        slice_mm: from one slice to the next; None where it is not known.
    """

    def __init__(
        self, method: str, measurement: str, spacing_mm: float, slice_mm: float | None = None
    ):
        self.method, self.measurement = method, measurement
        self.spacing_mm, self.slice_mm = spacing_mm, slice_mm
        self.moment = datetime.datetime.now()
        self.study, self.series, self.frame = (pydicom.uid.generate_uid() for _ in range(3))

    def encode(self, hu: np.ndarray, index: int, how: str) -> bytes:
        """A file of CT Image Storage in Explicit VR Little Endian, in whole HU.

        Args:
            hu: `[H, W]`, rows towards the back, columns towards the patient's left.
            index: of the slice, from 0.
            how: the image came about, in words.

        Raises:
            ValueError: for values that are not finite.
        """
        if not np.isfinite(hu).all():
            raise ValueError("image: expected finite HU. Received: others")
        header = fresh.header("CT", self.method)
        # Who it is, and where among the others.
        header.PatientName, header.PatientID = "Unknown^Patient", f"UNKNOWN-{self.study[-40:]}"
        header.PatientComments, header.Laterality = _NOBODY, None
        header.StudyDescription = "Reconstruction of a measurement of no stated patient"
        header.StudyInstanceUID, header.SOPInstanceUID = self.study, pydicom.uid.generate_uid()
        header.SeriesInstanceUID, header.FrameOfReferenceUID = self.series, self.frame
        header.InstanceNumber = index + 1
        if self.slice_mm is None:
            header.SeriesInstanceUID = pydicom.uid.generate_uid()
            header.FrameOfReferenceUID = pydicom.uid.generate_uid()
            header.SeriesNumber, header.InstanceNumber = index + 1, 1
        # Where it lies.
        rows, columns = hu.shape
        first = [-(count - 1) / 2 * self.spacing_mm for count in (columns, rows)]
        place = [*first, index * (self.slice_mm or 0.0)]
        header.ImagePositionPatient = list(map(decimal, place))
        header.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        header.PixelSpacing = [decimal(self.spacing_mm)] * 2
        header.ImageComments = fresh.text(f"{_NOBODY}; {_PLACE}", 10240)
        # What made it, of what, and when.
        words = f"{how}. Measurement: SHA-256 {self.measurement}"
        header.DerivationDescription = fresh.text(words, 1024)
        code = iods.code("RECONSTRUCTION", "99ZOO", "Image reconstruction from a measurement")
        header.DerivationCodeSequence = [code]
        made_by = provenance.equipment(self.method, how)
        date, time = self.moment.strftime("%Y%m%d %H%M%S").split()
        header.ContentDate = header.SeriesDate = header.InstanceCreationDate = date
        header.ContentTime = header.SeriesTime = header.InstanceCreationTime = time
        made_by.ContributionDateTime = date + time
        header.Manufacturer, header.ContributingEquipmentSequence = made_by.Manufacturer, [made_by]
        iods.complete(header, self.series)
        encoding = Encoding(signed=True, rescaled=True).fit(float(hu.min()), float(hu.max()))
        return fresh.encode(header, hu, encoding, "HU", _WINDOW)
