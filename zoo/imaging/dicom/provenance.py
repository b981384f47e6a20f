"""What the header of a derived image says of its origin."""

import dataclasses
import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pydicom
import pydicom.uid

from zoo import __version__
from zoo.domain import Domain
from zoo.imaging.dicom import headers, iods
from zoo.imaging.volume import Volume

_LOSSY = {  # transfer syntaxes that lose information, and the method's name
    pydicom.uid.JPEGBaseline8Bit: "ISO_10918_1",
    pydicom.uid.JPEGExtended12Bit: "ISO_10918_1",
    pydicom.uid.JPEGLSNearLossless: "ISO_14495_1",
    pydicom.uid.JPEG2000: "ISO_15444_1",
}
# of enhanced MR: how original images were acquired; not allowed in derived ones
# fmt: off
_ORIGINAL_ONLY = (
    "BulkMotionCompensationTechnique", "CoverageOfKSpace", "EchoPlanarPulseSequence",
    "EchoPulseSequence", "GeometryOfKSpaceTraversal", "MRAcquisitionType", "MultiPlanarExcitation",
    "NumberOfKSpaceTrajectories", "OversamplingPhase", "PhaseContrast", "PulseSequenceName",
    "RectilinearPhaseEncodeReordering", "SaturationRecovery", "SegmentedKSpaceTraversal",
    "SpectrallySelectedSuppression", "SteadyStatePulseSequence", "TimeOfFlightContrast",
)
# fmt: on


LARGEST_NUMBER = 2**31 - 1  # of an integer string
_MAKER = "zoo"  # in ContributingEquipmentSequence


@dataclasses.dataclass(frozen=True, kw_only=True)
class Derivation:
    """What was done to the images, for the header.

    Attributes:
        name, title: the model's name and its title for people.
        weights_hash: SHA-256 of the weights, hexadecimal.
        precision: what the network computed in, "float32", "bfloat16" or "float16".
        description: free text of the user.
        target: the meaning of the new values.
        same_unit: whether they mean the same as the input's.
        moment: when; None leaves the input's dates.
        others: what it was made of besides, on the grid of the first input.
        labels: of a label map, the names of the classes 0, 1, ... where they are known.
        series: SeriesInstanceUID and SeriesNumber of the new series, for each part of the input.
    """

    name: str
    title: str
    weights_hash: str
    precision: str
    description: str
    target: Domain
    same_unit: bool
    moment: datetime.datetime | None
    series: tuple[tuple[str, int], ...]
    labels: tuple[str, ...] = ()
    others: tuple[Volume, ...] = ()

    @property
    def classes(self) -> int:
        """The number of classes of a label map, 0 for images."""
        return self.target.classes


class Origin(NamedTuple):
    """An instance that an image was made from, and the study and series that it belongs to."""

    study: str
    series: str
    image: pydicom.Dataset  # the reference to it

    @classmethod
    def of(cls, header: pydicom.Dataset, image: pydicom.Dataset) -> "Origin":
        """Of the instance whose header it is."""
        study, series = header.get("StudyInstanceUID", ""), header.get("SeriesInstanceUID", "")
        return cls(study, series, image)


def keep_lossy(header: pydicom.Dataset, path: Path) -> None:
    """States that the input was lossy, where only its transfer syntax says so."""
    syntax = header.file_meta.TransferSyntaxUID
    if syntax in _LOSSY and not header.get("LossyImageCompression"):
        frames = int(header.get("NumberOfFrames") or 1)
        size = header.Rows * header.Columns * frames * header.BitsAllocated / 8
        header.LossyImageCompression = "01"
        header.LossyImageCompressionRatio = round(size / path.stat().st_size, 2)
        header.LossyImageCompressionMethod = _LOSSY[syntax]


def derive(
    header: pydicom.Dataset,
    derivation: Derivation,
    source: pydicom.Dataset | None,
    part: int = 0,
    others: Sequence[Origin] = (),
) -> None:
    """Makes a header that of a new instance, in place.

    Args:
        header: of the class that the new instance has.
        derivation: what was done.
        source: the reference to the instance that it was made from, where it has an identity.
        part: of the input, to which the instance belongs.
        others: further instances that it was made from.
    """
    # what the image is, and what was done to which other
    primary = header.SOPClassUID in iods.PRIMARY_ONLY
    kind = ["DERIVED", "PRIMARY" if primary else "SECONDARY"]
    header.ImageType = kind + list(header.get("ImageType") or [])[2:]
    text = f"{derivation.title} ({derivation.name}), weights SHA-256 {derivation.weights_hash}, "
    text += derivation.precision
    if derivation.classes:
        text += ". Pixel values are class numbers"
        text += "".join(f", {k} {label}" for k, label in enumerate(derivation.labels))
    text = f"{text}. {derivation.description}" if derivation.description else text
    method = iods.code("TRANSLATION", "99ZOO", "Image translation by a neural network")
    image = headers.item(
        DerivationDescription=text.replace("\\", "/")[:1024], DerivationCodeSequence=[method]
    )
    if source is not None:
        image.SourceImageSequence = [source, *(other.image for other in others)]
    if header.SOPClassUID in iods.ENHANCED and source is not None:
        _derive_enhanced(header, [Origin.of(header, source), *others], image)
    else:
        header.update(image)
    # the new instance and its series
    header.SOPInstanceUID = pydicom.uid.generate_uid()
    header.SeriesInstanceUID, header.SeriesNumber = derivation.series[part]
    name = f"{header.get('SeriesDescription') or ''} {derivation.title}".strip()
    name = f"Class numbers: {name}" if derivation.classes else name
    header.SeriesDescription = name.replace("\\", "/")[:64].strip()
    # who made it, and when
    made_by = equipment(derivation.name, derivation.title)
    if derivation.moment is not None:
        date, time = derivation.moment.strftime("%Y%m%d %H%M%S").split()
        header.ContentDate = header.InstanceCreationDate = date
        header.ContentTime = header.InstanceCreationTime = time
        header.SeriesDate, header.SeriesTime = date, time
        made_by.ContributionDateTime = date + time
    earlier = headers.items(header, "ContributingEquipmentSequence")
    header.ContributingEquipmentSequence = [*earlier, made_by]
    header.preamble = b"\0" * 128  # the input's may hold anything
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian


def equipment(name: str, contribution: str) -> pydicom.Dataset:
    """What made an image: a model of that name, and what it did."""
    return headers.item(
        PurposeOfReferenceCodeSequence=[iods.code("109102", "DCM", "Processing Equipment")],
        Manufacturer=_MAKER,
        ManufacturerModelName=name.replace("\\", "/")[:64],
        SoftwareVersions=__version__,
        ContributionDescription=contribution.replace("\\", "/")[:1024],
    )


def made_here(header: pydicom.Dataset) -> bool:
    """Whether `derive` has made a header.

    Raises:
        ValueError: for a header that is damaged there.
    """
    equipment = headers.items(header, "ContributingEquipmentSequence")
    return any(headers.text(item, "Manufacturer") == _MAKER for item in equipment)


def _derive_enhanced(
    header: pydicom.Dataset, sources: list[Origin], image: pydicom.Dataset
) -> None:
    """Puts the derivation `image` where enhanced objects keep it, with the evidence they need."""
    headers.remove(header, _ORIGINAL_ONLY)
    shared = headers.items(header, "SharedFunctionalGroupsSequence")
    if not shared:  # an old object that keeps all at the top
        header.update(image)
        return
    shared[0].DerivationImageSequence = [image]
    for group in headers.functional_groups(header):
        for keyword in ("CTImageFrameTypeSequence", "MRImageFrameTypeSequence"):
            for item in headers.items(group, keyword):
                item.FrameType = ["DERIVED", *list(item.get("FrameType") or [])[1:]]
        if group is not shared[0]:
            headers.remove(group, ["DerivationImageSequence"])
    for source in sources:
        instance = headers.item(
            ReferencedSOPClassUID=source.image.ReferencedSOPClassUID,
            ReferencedSOPInstanceUID=source.image.ReferencedSOPInstanceUID,
        )
        uid = source.series
        series = headers.item(SeriesInstanceUID=uid, ReferencedInstanceSequence=[instance])
        evidence = headers.item(SeriesInstanceUID=uid, ReferencedSOPSequence=[instance])
        study = headers.item(StudyInstanceUID=source.study, ReferencedSeriesSequence=[evidence])
        for keyword, item in (
            ("ReferencedSeriesSequence", series),
            ("SourceImageEvidenceSequence", study),
        ):
            setattr(header, keyword, [*headers.items(header, keyword), item])


def reference(header: pydicom.Dataset, frame: int | None = None) -> pydicom.Dataset | None:
    """The reference to an instance, or to a frame (from 0) of it; None where it has no identity."""
    if not header.get("SOPClassUID") or not header.get("SOPInstanceUID"):
        return None
    purpose = iods.code("121322", "DCM", "Source image for image processing operation")
    item = headers.item(
        ReferencedSOPClassUID=header.SOPClassUID,
        ReferencedSOPInstanceUID=header.SOPInstanceUID,
        PurposeOfReferenceCodeSequence=[purpose],
    )
    if frame is not None:
        item.ReferencedFrameNumber = frame + 1
    return item


def series_number(path: Path) -> int:
    """SeriesNumber of a file, 0 where it has none that is one whole number."""
    try:
        with headers.quiet():
            number = int(headers.read(path, headers.tags(["SeriesNumber"])).SeriesNumber)
    except Exception:  # a damaged header raises errors of many types
        return 0
    return number if abs(number) <= LARGEST_NUMBER else 0
