"""DICOM headers of images with more rows, columns and slices than the input has."""

import numpy as np
import pydicom
from pydicom.valuerep import format_number_as_ds

from zoo.imaging import geometry
from zoo.imaging.dicom import headers
from zoo.imaging.dicom.series import Series

_SPACINGS = (
    "PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing",
    "ObjectPixelSpacingInCenterOfBeam",
)  # fmt: skip
# Rows and columns of the image, counted from 1. AcquisitionMatrix and what counts the detector's
# own elements describe the acquisition and stay.
_COORDINATES = (
    "ShutterLeftVerticalEdge", "ShutterRightVerticalEdge", "ShutterUpperHorizontalEdge",
    "ShutterLowerHorizontalEdge", "CenterOfCircularShutter", "VerticesOfThePolygonalShutter",
    "CollimatorLeftVerticalEdge", "CollimatorRightVerticalEdge", "CollimatorUpperHorizontalEdge",
    "CollimatorLowerHorizontalEdge", "CenterOfCircularCollimator",
    "VerticesOfThePolygonalCollimator",
)  # fmt: skip
_LENGTHS = ("RadiusOfCircularShutter", "RadiusOfCircularCollimator")
# they count pixels too, and an image is whole without them
_REMOVED = ("SequenceOfUltrasoundRegions", "MaskSubtractionSequence", "ShutterOverlayGroup")
# of images whose place is told in other ways than those below
_UNKNOWN = ("TotalPixelMatrixColumns", "ImagePlanePixelSpacing", "PlanePositionVolumeSequence")
_LARGEST = 65_535  # Rows and Columns are of 16 bits
_LONGEST = 2**32 - 2  # bytes of Pixel Data


def enlarge(header: pydicom.Dataset, scale: int) -> None:
    """Makes a header that of an image with `scale` times the rows and columns, in place.

    Spacings, positions, shutters and collimators follow; overlays and ultrasound regions go, and
    so do private elements, which may count pixels.

    Raises:
        ValueError: for an image too large for DICOM, or of a kind whose geometry is not known.
    """
    # what can be enlarged
    for keyword in _UNKNOWN:
        if keyword in header or headers.functional(header, 0, keyword):
            raise ValueError(f"{keyword}: expected an image without it. Received: one that has it")
    rows, columns = header.Rows * scale, header.Columns * scale
    frames = int(header.get("NumberOfFrames") or 1)
    if max(rows, columns) > _LARGEST or 2 * rows * columns * frames > _LONGEST:
        raise ValueError(
            f"Rows, Columns: expected up to {_LARGEST} of each and 4 GiB of pixels in a file. "
            f"Received: {rows}, {columns} in {frames} frame(s)"
        )
    # what counts the input's pixels goes, and what is measured in them follows
    header.Rows, header.Columns = rows, columns
    header.remove_private_tags()
    for group in range(0x6000, 0x6020, 2):
        for element in header.group_dataset(group):
            del header[element.tag]
    headers.remove(header, _REMOVED)
    for position, orientation, measures in _planes(header):
        _move(position, orientation, measures, geometry.centre(0, scale))

    def change(_: pydicom.Dataset, element: pydicom.DataElement) -> None:
        if element.keyword in _SPACINGS and element.value:
            element.value = [format_number_as_ds(float(v) / scale) for v in element.value]
        elif element.keyword in _COORDINATES and element.value is not None:
            values = np.array(element.value, np.float64)  # to the middle of the pixel's block
            element.value = np.rint((values - 0.5) * scale + 0.5).astype(int).tolist()
        elif element.keyword in _LENGTHS and element.value is not None:
            element.value = element.value * scale

    header.walk(change)


def interpolate(header: pydicom.Dataset, series: Series, index: int, depth: int) -> None:
    """Makes the header of the nearest slice that of output slice `index`, in place.

    Args:
        header: of slice `index // depth` of the input.
        series: the input, whose slices lie at equal distances.
        index: from 0, along the slice normal.
        depth: output slices for one of the input.
    """
    first, last = series.frames[0], series.frames[-1]
    step = geometry.slice_step([frame.position for frame in series.frames])
    place = geometry.centre(index, depth)
    position = np.array(first.position) + place * step
    header.ImagePositionPatient = [format_number_as_ds(float(v)) for v in position]
    if "SliceLocation" in header:
        if first.location is None or last.location is None:
            del header.SliceLocation
        else:
            slope = (last.location - first.location) / (series.length - 1)
            header.SliceLocation = format_number_as_ds(first.location + place * slope)
    for keyword in ("SliceThickness", "SpacingBetweenSlices"):
        if header.get(keyword) is not None:
            header[keyword].value = format_number_as_ds(float(header[keyword].value) / depth)
    header.InstanceNumber = index + 1
    if "ImageIndex" in header:  # of PET, as are the number of slices below
        header.ImageIndex = index + 1
    for keyword in ("NumberOfSlices", "ImagesInAcquisition"):
        if header.get(keyword) is not None:
            header[keyword].value = int(header[keyword].value) * depth


def _planes(header: pydicom.Dataset) -> list[tuple[pydicom.Dataset, ...]]:
    """The items that hold a position, each with those of its orientation and its spacing."""
    sequences = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
    planes = {}  # frames may share an item, which must not move twice
    for frame in range(int(header.get("NumberOfFrames") or 1)):
        groups = [headers.functional(header, frame, sequence) for sequence in sequences]
        items = tuple(item for item in groups if item is not None)
        if len(items) == len(sequences):
            planes[id(items[0])] = items
    # nuclear medicine keeps the first slice's place with the detector
    for item in (header, *(header.get("DetectorInformationSequence") or [])):
        planes[id(item)] = (item, item, header)
    return list(planes.values())


def _move(
    position: pydicom.Dataset,
    orientation: pydicom.Dataset,
    measures: pydicom.Dataset,
    pixels: float,
) -> None:
    """Moves a position along both axes of the image by so many of its pixels."""
    place, axes = position.get("ImagePositionPatient"), orientation.get("ImageOrientationPatient")
    spacing = measures.get("PixelSpacing")
    if not place or not axes or not spacing:
        return
    along_row, along_column = np.array(axes, np.float64).reshape(2, 3)
    between_rows, between_columns = (float(value) for value in spacing)
    shift = pixels * (along_row * between_columns + along_column * between_rows)
    moved = np.array(place, np.float64) + shift
    position.ImagePositionPatient = [format_number_as_ds(float(value)) for value in moved]
