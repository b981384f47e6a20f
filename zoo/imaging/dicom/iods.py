"""What DICOM asks of an image object: its SOP class and the attributes of its modules (PS3.3).

An image that was translated into another modality becomes an object of that modality. It keeps what
is said of the patient, the study, the place in the patient and the pixels, and loses how the input
was acquired: planning systems import a synthetic CT as CT, and an echo time of CT is no truth.
CT, MR and PET become the classes of one slice a file, which every program reads, also where the
input is an enhanced multi-frame object. Other modalities, and slices whose place is not known,
become Secondary Capture images.
"""

import copy
from collections.abc import Sequence
from typing import Any

import pydicom
from pydicom.datadict import dictionary_has_tag, keyword_for_tag
from pydicom.uid import UID

from zoo.domain import Domain
from zoo.imaging.dicom import headers

SECONDARY_CAPTURE = pydicom.uid.SecondaryCaptureImageStorage
CLASSES = {
    "CT": pydicom.uid.CTImageStorage,
    "MR": pydicom.uid.MRImageStorage,
    "PT": pydicom.uid.PositronEmissionTomographyImageStorage,
}
ENHANCED = (
    pydicom.uid.EnhancedCTImageStorage,
    pydicom.uid.EnhancedMRImageStorage,
    pydicom.uid.EnhancedPETImageStorage,
)
# whose second value of Image Type is always PRIMARY, as of the multi-frame functional groups
# fmt: off
PRIMARY_ONLY = (
    *ENHANCED,
    UID("1.2.840.10008.5.1.4.1.1.2.2"),        # Legacy Converted Enhanced CT
    UID("1.2.840.10008.5.1.4.1.1.4.3"),        # Enhanced MR Color
    UID("1.2.840.10008.5.1.4.1.1.4.4"),        # Legacy Converted Enhanced MR
    UID("1.2.840.10008.5.1.4.1.1.13.1.1"),     # X-Ray 3D Angiographic
    UID("1.2.840.10008.5.1.4.1.1.13.1.2"),     # X-Ray 3D Craniofacial
    UID("1.2.840.10008.5.1.4.1.1.13.1.3"),     # Breast Tomosynthesis
    UID("1.2.840.10008.5.1.4.1.1.14.1"),       # Intravascular OCT for presentation
    UID("1.2.840.10008.5.1.4.1.1.14.2"),       # Intravascular OCT for processing
    UID("1.2.840.10008.5.1.4.1.1.20"),         # Nuclear Medicine
    UID("1.2.840.10008.5.1.4.1.1.77.1.5.1"),   # Ophthalmic Photography 8 Bit
    UID("1.2.840.10008.5.1.4.1.1.77.1.5.2"),   # Ophthalmic Photography 16 Bit
    UID("1.2.840.10008.5.1.4.1.1.77.1.5.7"),   # Ophthalmic OCT En Face
    UID("1.2.840.10008.5.1.4.1.1.77.1.6"),     # VL Whole Slide Microscopy
    pydicom.uid.PositronEmissionTomographyImageStorage,
    UID("1.2.840.10008.5.1.4.1.1.128.1"),      # Legacy Converted Enhanced PET
)
# Attributes of type 1 and 2 of each class: what they get where nothing is known. None: empty.
_REQUIRED: dict[UID, dict[str, Any]] = {
    CLASSES["CT"]: {"KVP": None, "AcquisitionNumber": None},
    CLASSES["MR"]: {
        "ScanningSequence": "RM", "SequenceVariant": "NONE", "ScanOptions": None,
        "MRAcquisitionType": None, "RepetitionTime": None, "EchoTime": None,
        "EchoTrainLength": None,
    },
    CLASSES["PT"]: {
        "CountsSource": "EMISSION", "SeriesType": ["STATIC", "IMAGE"], "DecayCorrection": "NONE",
        "CorrectedImage": None, "CollimatorType": None, "FrameReferenceTime": 0,
        "ActualFrameDuration": None, "AcquisitionDate": None, "AcquisitionTime": None,
        "RadiopharmaceuticalInformationSequence": [],
        # where the patient's dates were removed; type 1
        "SeriesDate": "19000101", "SeriesTime": "000000",
    },
    SECONDARY_CAPTURE: {"ConversionType": "WSD", "PatientOrientation": None},
}
_IMAGE_KIND = {CLASSES["CT"]: ["AXIAL"], CLASSES["MR"]: ["OTHER"]}
# of the place in the patient: type 1, and 2
_PLACE = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
_PLACE_EMPTY = ("SliceThickness", "PatientPosition", "PositionReferenceIndicator")
_IDENTITY_EMPTY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
    "AccessionNumber", "ReferringPhysicianName", "StudyID", "InstanceNumber", "Manufacturer",
)
# Groups that describe how an image was acquired, and what in them is true of any image.
_ACQUISITION = (
    0x0014, 0x0018, 0x0022, 0x0046, 0x0048, 0x0052, 0x0054, 0x0060, 0x0066, 0x0068, 0x3002, 0x5200,
)
_KEPT = (
    "BodyPartExamined", "PatientPosition", "SliceThickness", "SpacingBetweenSlices",
    "DeviceSerialNumber", "SoftwareVersions", "GantryID", "SpatialResolution",
    "DateOfLastCalibration", "TimeOfLastCalibration",
)
# others of the acquisition, outside those groups
_FOREIGN = (
    "AcquisitionContextSequence", "TemporalPositionIdentifier", "NumberOfTemporalPositions",
    "TemporalResolution", "CorrectedImage", "PixelIntensityRelationship",
    "PixelIntensityRelationshipSign", "PresentationLUTShape", "NumberOfFrames",
    "FrameIncrementPointer", "PixelSpacingCalibrationType", "PixelSpacingCalibrationDescription",
    "DimensionOrganizationSequence", "ReferencedRawDataSequence",
    "PixelAspectRatio", "ImagesInAcquisition", "AnatomicRegionSequence",
)
# SNOMED codes of the patient's position, for PET, whose images may not state Patient Position
_GANTRY = {"HF": ("102540008", "headfirst"), "FF": ("102541007", "feet-first")}
_POSTURE = {
    "S": ("40199007", "supine"), "P": ("1240000", "prone"),
    "DL": ("102536004", "left lateral decubitus"), "DR": ("102535000", "right lateral decubitus"),
}
_UNITS = {"SUV": "GML", "Bq/ml": "BQML", "BQML": "BQML", "GML": "GML"}
# fmt: on


def changes(modality: str, target: Domain, same_unit: bool) -> bool:
    """Whether images of `modality` become objects of another class.

    Label maps keep the class of the image that they describe, and a model whose target's modality
    is not known ("OT") keeps everything.
    """
    known = target.modality not in ("", "OT") and not target.classes
    return known and not same_unit and target.modality != modality


def convert(header: pydicom.Dataset, target: Domain, count: int, index: int) -> None:
    """Makes a header that of an image of the target's modality, in place.

    Args:
        header: of one slice, its place at the top of the data set.
        target: what the new values mean.
        count: the slices of the series.
        index: the slice, from 0.
    """
    position = _position(header)
    for tag in list(header.keys()):
        keyword = keyword_for_tag(tag) if dictionary_has_tag(tag) else ""
        # attributes of enhanced objects have element numbers from 9000 on
        enhanced = tag.group in (0x0008, 0x0020, 0x0028) and 0x9000 <= tag.element < 0xA000
        if keyword not in _KEPT and (tag.group in _ACQUISITION or keyword in _FOREIGN or enhanced):
            del header[tag]
    header.Modality = target.modality
    if position:
        header.PatientPosition = position
    placed = all(header.get(keyword) for keyword in _PLACE)
    header.SOPClassUID = CLASSES.get(target.modality) if placed else None
    header.SOPClassUID = header.SOPClassUID or SECONDARY_CAPTURE
    header.ImageType = ["DERIVED", "SECONDARY", *_IMAGE_KIND.get(header.SOPClassUID, [])]
    if header.SOPClassUID == CLASSES["PT"]:
        header.NumberOfSlices, header.ImageIndex = count, index + 1
        set_pet_unit(header, target)
        _set_pet_position(header)
    header.InstanceNumber = index + 1
    if not header.get("BodyPartExamined") and "ImageLaterality" not in header:
        _set_missing(header, {"Laterality": None})  # enhanced objects have it with the anatomy
    _fill(header)
    if "PatientOrientationCodeSequence" in header:
        del header.PatientPosition


def set_pet_unit(header: pydicom.Dataset, target: Domain) -> None:
    """States the unit of PET values."""
    header.Units = _UNITS.get(target.unit, "NONE")
    if "SUVType" in header and header.Units != "GML":
        del header.SUVType


def _position(header: pydicom.Dataset) -> str:
    """Patient Position, such as HFS, or what the codes of PET say instead; "" where unknown."""
    stated = str(header.get("PatientPosition") or "")
    if stated[:2] in _GANTRY and stated[2:] in _POSTURE:
        return stated
    found = ""
    for codes, values in (
        (headers.items(header, "PatientGantryRelationshipCodeSequence"), _GANTRY),
        (_modifiers(header), _POSTURE),
    ):
        names = {value: name for name, (value, _) in values.items()}
        found += names.get(codes[0].get("CodeValue"), "") if codes else ""
    return found if found[:2] in _GANTRY and found[2:] in _POSTURE else ""


def _modifiers(header: pydicom.Dataset) -> Sequence[pydicom.Dataset]:
    postures = headers.items(header, "PatientOrientationCodeSequence")
    return headers.items(postures[0], "PatientOrientationModifierCodeSequence") if postures else []


def _set_pet_position(header: pydicom.Dataset) -> None:
    """Says in codes what Patient Position says, which PET images may not have beside them."""
    position = _position(header)
    header.PatientOrientationCodeSequence = []
    header.PatientGantryRelationshipCodeSequence = []
    if position:
        recumbent = code("102538003", "SCT", "recumbent")
        modifier = code(_POSTURE[position[2:]][0], "SCT", _POSTURE[position[2:]][1])
        recumbent.PatientOrientationModifierCodeSequence = [modifier]
        header.PatientOrientationCodeSequence = [recumbent]
        gantry = code(_GANTRY[position[:2]][0], "SCT", _GANTRY[position[:2]][1])
        header.PatientGantryRelationshipCodeSequence = [gantry]


def code(value: str, scheme: str, meaning: str) -> pydicom.Dataset:
    """An item of a sequence of codes."""
    return headers.item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def complete(header: pydicom.Dataset, derived_uid: str) -> None:
    """Gives a header what no image object may lack, in place: some real files do.

    A class that is not stated is the file meta information's, else the modality's, else Secondary
    Capture.

    Args:
        header: of the input.
        derived_uid: from which a missing study's and frame of reference's UID are made, so that
            they are equal for the slices of a series.

    Raises:
        ValueError: for a multi-frame object without a class.
    """
    if not header.get("SOPClassUID"):
        stated = header.file_meta.get("MediaStorageSOPClassUID")
        if not stated and int(header.get("NumberOfFrames") or 1) > 1:
            raise ValueError("SOPClassUID: expected that of a multi-frame image. Received: none")
        placed = all(header.get(keyword) for keyword in _PLACE)
        known = CLASSES.get(header.get("Modality")) if placed else None
        header.SOPClassUID = stated or known or SECONDARY_CAPTURE
        if not stated:
            if len(header.get("ImageType") or []) < 3:
                kind = _IMAGE_KIND.get(header.SOPClassUID, [])
                header.ImageType = ["DERIVED", "SECONDARY", *kind]
            if "RescaleSlope" in header and not header.get("RescaleType"):
                header.RescaleType = "HU" if header.get("Modality") == "CT" else "US"
            _fill(header)
    if not header.get("StudyInstanceUID"):
        header.StudyInstanceUID = _uid("study", derived_uid)
    if header.SOPClassUID in CLASSES.values() and not header.get("FrameOfReferenceUID"):
        header.FrameOfReferenceUID = _uid("frame of reference", derived_uid)
    if not header.get("Modality"):
        header.Modality = "OT"
    _set_missing(header, dict.fromkeys(_IDENTITY_EMPTY))


def flatten(header: pydicom.Dataset, frame: int) -> pydicom.Dataset:
    """The header of one frame of a multi-frame object, its place at the top; a copy.

    Private elements go: they tell of the acquisition, and may be thousands to copy for each frame.
    """
    flat = header[:]
    for tag in [tag for tag in flat.keys() if tag.is_private]:  # noqa: SIM118 (not elements)
        del flat[tag]
    headers.remove(flat, ["PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"])
    flat = copy.deepcopy(flat)
    for sequence in ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence"):
        item = headers.functional(header, frame, sequence)
        if item is not None:
            flat.update(copy.deepcopy(item))
    return flat


def _fill(header: pydicom.Dataset) -> None:
    """Sets what the header's class requires and what is not there."""
    _set_missing(header, _REQUIRED.get(header.SOPClassUID, {}))
    if header.SOPClassUID in CLASSES.values():
        _set_missing(header, dict.fromkeys(_PLACE_EMPTY))


def _set_missing(header: pydicom.Dataset, values: dict[str, Any]) -> None:
    for keyword, value in values.items():
        if keyword not in header or (value is not None and header[keyword].is_empty):
            setattr(header, keyword, value)


def _uid(what: str, source: str) -> str:
    return pydicom.uid.generate_uid(entropy_srcs=[what, source])
