"""De-identification of DICOM headers by the Basic Profile of PS3.15."""

import re

import pydicom

from zoo.imaging.dicom import iods

_EXTRA = 'De-identification needs dicom-anonymizer: pip install "zoo-medical[deidentify]"'

_FREE = ("PN", "LT", "ST", "UT")
_SHORT = ("LO", "SH", "UC")  # text that says what the images need, and rarely a name


class Deidentifier:
    """Applies the PS3.15 Basic Application Level Confidentiality Profile (edition 2024b).

    One object serves one run: equal UIDs are replaced by equal UIDs, and each patient gets one
    pseudonym ("ANON0001", ...), so that patients stay apart and series together.

    Raises:
        ValueError: where the package dicom-anonymizer is not installed.
    """

    def __init__(self) -> None:
        try:
            from dicomanonymizer import simpledicomanonymizer as profile
        except ImportError as error:
            raise ValueError(_EXTRA) from error
        self._profile = profile
        self._rules = profile.initialize_actions_2024b()
        # The profile offers three actions for these sequences of references. UIDs inside are
        # replaced, item by item, which the package does not do by itself.
        for tag in ((0x0008, 0x1140), (0x0008, 0x2112)):
            self._rules[tag] = profile.keep
        # The package fills the items of these with blanks, which is not valid.
        removing = (
            profile.delete,
            profile.delete_or_empty,
            profile.delete_or_replace,
            profile.delete_or_empty_or_replace,
        )
        self._removable = {tag for tag, rule in self._rules.items() if rule in removing}
        profile.dictionary.clear()  # the package's map of old UIDs to new
        self._patients: dict[tuple[str, ...], str] = {}

    def __call__(self, dataset: pydicom.Dataset) -> None:
        """Removes or replaces all that identifies the patient, in place; pixels stay.

        Raises:
            ValueError: for a header that says that names are burned into the pixels.
        """
        if str(dataset.get("BurnedInAnnotation") or "NO").upper() == "YES":
            raise ValueError("Burned In Annotation: names in the pixels cannot be removed")
        patient = _patient(dataset)
        pseudonym = self._patients.setdefault(patient, f"ANON{len(self._patients) + 1:04d}")
        self._clean(dataset, _names(dataset))
        dataset.PatientID = dataset.PatientName = pseudonym
        dataset.PatientIdentityRemoved = "YES"
        dataset.DeidentificationMethod = "DICOM PS3.15 Basic Profile (dicom-anonymizer)"
        code = iods.code("113100", "DCM", "Basic Application Confidentiality Profile")
        dataset.DeidentificationMethodCodeSequence = [code]
        dataset.LongitudinalTemporalInformationModified = "REMOVED"

    def _clean(self, dataset: pydicom.Dataset, names: re.Pattern | None) -> None:
        for element in list(dataset):
            tag = (element.tag.group, element.tag.element)
            if element.VR != "SQ" or element.tag.is_private:
                continue
            if element.keyword == "AcquisitionContextSequence":  # of type 2, where it is
                element.value = []
                continue
            if tag in self._removable:
                del dataset[tag]
                continue
            for item in element.value:
                self._clean(item, names)
        present = {(element.tag.group, element.tag.element) for element in dataset}
        # rules of four numbers are for curves and overlays, 50xx and 60xx
        planes = any(group >> 8 in (0x50, 0x60) for group, _ in present)
        rules = {
            tag: action
            for tag, action in self._rules.items()
            if tag in present or (planes and len(tag) == 4)
        }
        self._profile.anonymize_dataset(dataset, base_rules_gen=lambda: rules)
        for element in list(dataset):
            self._redate(dataset, element)
            tag = (element.tag.group, element.tag.element)
            # the profile leaves text alone that it does not know
            if tag in self._rules or element.is_empty:
                continue
            named = names and element.VR in _SHORT and names.search(str(element.value))
            if element.VR in _FREE or named:
                element.value = "ANONYMIZED"

    def _redate(self, dataset: pydicom.Dataset, element: pydicom.DataElement) -> None:
        """The package's dummy dates lie in the year 1, which validators refuse."""
        tag = (element.tag.group, element.tag.element)
        if element.VR not in ("DA", "DT") or not str(element.value).startswith("00010101"):
            return
        if self._rules.get(tag) is self._profile.delete:
            del dataset[tag]
        elif self._rules.get(tag) in (self._profile.empty, self._profile.delete_or_empty):
            element.value = ""
        else:  # may not be empty
            element.value = "19000101" if element.VR == "DA" else "19000101000000"


def _patient(dataset: pydicom.Dataset) -> tuple[str, ...]:
    """What tells a patient from others: the number, else name and birth date, else the study."""
    for keywords in (
        ("PatientID", "IssuerOfPatientID"),
        ("PatientName", "PatientBirthDate"),
        ("StudyInstanceUID",),
    ):
        values = tuple(str(dataset.get(keyword) or "") for keyword in keywords)
        if values[0]:
            return values
    return ()


def _names(dataset: pydicom.Dataset) -> re.Pattern | None:
    """Finds the patient's names and number where they are words of a text; None without any.

    Those of fewer than four characters are words of many texts, and are not looked for.
    """
    text = f"{dataset.get('PatientName') or ''}^{dataset.get('PatientID') or ''}"
    names = [re.escape(part) for part in re.split(r"[\^=\s]+", text) if len(part) >= 4]
    return re.compile(rf"(?<!\w)({'|'.join(names)})(?!\w)", re.IGNORECASE) if names else None
