"""DICOM objects of images that no DICOM file stands behind: their header from nothing."""

import io

import numpy as np
import pydicom
import pydicom.uid

from zoo.imaging.dicom import headers
from zoo.imaging.dicom.encoding import Encoding, decimal


def header(modality: str, title: str) -> pydicom.Dataset:
    """The header of an image in Explicit VR Little Endian, without class, identity and pixels.

    Args:
        modality: of the image, as DICOM has it.
        title: of the series.
    """
    found = pydicom.Dataset()
    found.file_meta = pydicom.dataset.FileMetaDataset()
    found.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    found.Modality, found.BurnedInAnnotation = modality, "NO"
    found.ImageType = ["DERIVED", "SECONDARY"]
    found.SeriesDescription = text(title, 64)
    found.SeriesNumber = found.InstanceNumber = 1
    return found


def text(words: str, most: int) -> str:
    """Words as a header takes them, of a length that it takes."""
    return words.replace("\\", "/")[:most]


def encode(
    header: pydicom.Dataset,
    image: np.ndarray,
    encoding: Encoding,
    unit: str,
    window: tuple[float, float],
) -> bytes:
    """A file of the header with the pixels of an image, and what they mean.

    Args:
        header: of the image, otherwise whole.
        image: float32 `[H, W]` in `unit`.
        encoding: how the values are stored.
        unit: of the values.
        window: that they are shown in.
    """
    stored = encoding.encode(image)
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.Rows, header.Columns = stored.shape
    header.BitsAllocated = header.BitsStored = encoding.bits
    header.HighBit, header.PixelRepresentation = encoding.bits - 1, int(encoding.signed)
    header.RescaleSlope, header.RescaleIntercept = encoding.slope, encoding.intercept
    header.RescaleType = "HU" if unit == "HU" else "US"
    low, high = window
    header.WindowCenter, header.WindowWidth = decimal((low + high) / 2), decimal(high - low)
    header.PixelData = stored.astype("<i2" if encoding.signed else "<u2").tobytes()
    header["PixelData"].VR = "OW"
    content = io.BytesIO()
    with headers.quiet():
        header.save_as(content, implicit_vr=False, little_endian=True, enforce_file_format=True)
    return content.getvalue()
