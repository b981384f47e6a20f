"""What the header of a derived image says of its origin."""

import dataclasses
import datetime
import importlib.metadata
from pathlib import Path

import pydicom
import pydicom.uid

from zoo.imaging import headers
from zoo.imaging.windows import Domain

_LOSSY = {  # transfer syntaxes that lose information, and the method's name
    pydicom.uid.JPEGBaseline8Bit: "ISO_10918_1",
    pydicom.uid.JPEGExtended12Bit: "ISO_10918_1",
    pydicom.uid.JPEGLSNearLossless: "ISO_14495_1",
    pydicom.uid.JPEG2000: "ISO_15444_1",
}
_ENHANCED = (
    pydicom.uid.EnhancedCTImageStorage,
    pydicom.uid.EnhancedMRImageStorage,
    pydicom.uid.EnhancedPETImageStorage,
)
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Derivation:
    """What was done to the images, for the header.

    Attributes:
        name, title: the model's name and its title for people.
        weights_hash: SHA-256 of the weights, hexadecimal.
        description: free text of the user.
        target: the meaning of the new values.
        same_unit: whether they mean the same as the input's.
        moment: when; None leaves the input's dates.
        labels: of a label map, the names of the classes 0, 1, ... where they are known.
    """

    name: str
    title: str
    weights_hash: str
    description: str
    target: Domain
    same_unit: bool
    moment: datetime.datetime | None
    labels: tuple[str, ...] = ()

    @property
    def classes(self) -> int:
        """The number of classes of a label map, 0 for images."""
        return round(self.target.window[1]) + 1 if self.target.unit == "class" else 0


def keep_lossy(header: pydicom.Dataset, path: Path) -> None:
    """States that the input was lossy, where only its transfer syntax says so."""
    syntax = header.file_meta.TransferSyntaxUID
    if syntax in _LOSSY and not header.get("LossyImageCompression"):
        frames = int(header.get("NumberOfFrames") or 1)
        size = header.Rows * header.Columns * frames * header.BitsAllocated / 8
        header.LossyImageCompression = "01"
        header.LossyImageCompressionRatio = round(size / path.stat().st_size, 2)
        header.LossyImageCompressionMethod = _LOSSY[syntax]


def derive(header: pydicom.Dataset, derivation: Derivation, series_uid: str) -> None:
    """Makes a header that of a new instance derived from it, in series `series_uid`, in place."""
    source = _reference(header)
    enhanced = source.ReferencedSOPClassUID in _ENHANCED
    # enhanced objects know no SECONDARY
    kind = ["DERIVED", "PRIMARY" if enhanced else "SECONDARY"]
    header.ImageType = kind + list(header.get("ImageType") or [])[2:]
    text = f"{derivation.title} ({derivation.name}), weights SHA-256 {derivation.weights_hash}"
    if derivation.classes:
        text += ". Pixel values are class numbers"
        text += "".join(f", {k} {label}" for k, label in enumerate(derivation.labels))
    text = f"{text}. {derivation.description}" if derivation.description else text
    image = pydicom.Dataset()
    image.DerivationDescription = text.replace("\\", "/")[:1024]
    image.DerivationCodeSequence = [
        _code("TRANSLATION", "99ZOO", "Image translation by a neural network")
    ]
    image.SourceImageSequence = [source]
    if enhanced:
        _derive_enhanced(header, source, image)
    else:
        header.update(image)
    header.SOPInstanceUID = pydicom.uid.generate_uid()
    header.SeriesInstanceUID = series_uid
    number = header.get("SeriesNumber")
    header.SeriesNumber = (int(number) if number not in (None, "") else 0) + 1000
    name = f"{header.get('SeriesDescription') or ''} {derivation.title}".strip()
    name = f"Class numbers: {name}" if derivation.classes else name
    header.SeriesDescription = name.replace("\\", "/")[:64].strip()
    equipment = pydicom.Dataset()
    equipment.PurposeOfReferenceCodeSequence = [_code("109102", "DCM", "Processing Equipment")]
    equipment.Manufacturer = "zoo"
    equipment.ManufacturerModelName = derivation.name.replace("\\", "/")[:64]
    equipment.SoftwareVersions = _version()
    equipment.ContributionDescription = derivation.title.replace("\\", "/")[:1024]
    if derivation.moment is not None:
        date, time = derivation.moment.strftime("%Y%m%d %H%M%S").split()
        header.ContentDate = header.InstanceCreationDate = date
        header.ContentTime = header.InstanceCreationTime = time
        header.SeriesDate, header.SeriesTime = date, time
        equipment.ContributionDateTime = date + time
    header.ContributingEquipmentSequence = [
        *(header.get("ContributingEquipmentSequence") or []),
        equipment,
    ]
    header.preamble = b"\0" * 128  # the input's may hold anything
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian


def _derive_enhanced(
    header: pydicom.Dataset, source: pydicom.Dataset, image: pydicom.Dataset
) -> None:
    """Puts the derivation `image` where enhanced objects keep it, with the evidence they need."""
    for keyword in _ORIGINAL_ONLY:
        if keyword in header:
            del header[keyword]
    shared = header.get("SharedFunctionalGroupsSequence") or []
    if not shared:  # an old object that keeps all at the top
        header.update(image)
        return
    shared[0].DerivationImageSequence = [image]
    for group in headers.functional_groups(header):
        for keyword in ("CTImageFrameTypeSequence", "MRImageFrameTypeSequence"):
            for item in group.get(keyword) or []:
                item.FrameType = ["DERIVED", *list(item.get("FrameType") or [])[1:]]
        if group is not shared[0] and "DerivationImageSequence" in group:
            del group.DerivationImageSequence
    instance = pydicom.Dataset()
    instance.ReferencedSOPClassUID = source.ReferencedSOPClassUID
    instance.ReferencedSOPInstanceUID = source.ReferencedSOPInstanceUID
    series, evidence = pydicom.Dataset(), pydicom.Dataset()
    series.SeriesInstanceUID = evidence.SeriesInstanceUID = header.get("SeriesInstanceUID", "")
    series.ReferencedInstanceSequence = [instance]
    evidence.ReferencedSOPSequence = [instance]
    study = pydicom.Dataset()
    study.StudyInstanceUID = header.get("StudyInstanceUID", "")
    study.ReferencedSeriesSequence = [evidence]
    header.ReferencedSeriesSequence = [*(header.get("ReferencedSeriesSequence") or []), series]
    header.SourceImageEvidenceSequence = [
        *(header.get("SourceImageEvidenceSequence") or []),
        study,
    ]


def _reference(header: pydicom.Dataset) -> pydicom.Dataset:
    item = pydicom.Dataset()
    item.ReferencedSOPClassUID = header.get("SOPClassUID", "")
    item.ReferencedSOPInstanceUID = header.get("SOPInstanceUID", "")
    item.PurposeOfReferenceCodeSequence = [
        _code("121322", "DCM", "Source image for image processing operation")
    ]
    return item


def _code(value: str, scheme: str, meaning: str) -> pydicom.Dataset:
    item = pydicom.Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _version() -> str:
    try:
        return importlib.metadata.version("zoo-medical")
    except importlib.metadata.PackageNotFoundError:
        return "0"
