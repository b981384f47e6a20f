"""zoo.imaging.dicom.deidentify: what is left of a patient in a header."""

import numpy as np
import pydicom
import pydicom.uid
import pytest

from dicom_files import bundled, dciodvfy, single, write
from zoo.imaging.dicom.deidentify import Deidentifier
from zoo.imaging.files import open_volume


def test_deidentified_series(tmp_path):
    for i in range(2):
        request = pydicom.Dataset()
        request.ReferencedSOPClassUID = pydicom.uid.CTImageStorage
        request.ReferencedSOPInstanceUID = f"1.2.3.{1 - i}"
        single(
            tmp_path, f"{i}.dcm", SOPInstanceUID=f"1.2.3.{i}", ImagePositionPatient=[0, 0, i],
            PatientName="Doe^Jane", PatientID="SECRET7", PatientBirthDate="19610203",
            InstitutionName="Saint Elsewhere", ReferencedImageSequence=[request],
            StudyDescription="for Jane Doe", PatientComments="Jane", OtherPatientIDs="SECRET7",
            preamble=b"Jane".ljust(128),
        )  # fmt: skip
    before = dciodvfy(tmp_path / "0.dcm")
    result = write(open_volume(tmp_path), tmp_path / "out", deidentify=Deidentifier())
    headers = [pydicom.dcmread(path) for path in result.paths]
    for path in result.paths:
        content = path.read_bytes()
        for secret in (b"Doe", b"Jane", b"SECRET7", b"Elsewhere", b"19610203", b"1.2.3."):
            assert secret not in content, secret
        assert dciodvfy(path) - before == set()
    header = headers[0]
    assert header.PatientIdentityRemoved == "YES"
    assert header.DeidentificationMethodCodeSequence[0].CodeValue == "113100"
    assert header.PatientID == headers[1].PatientID == "ANON0001"
    assert header.StudyInstanceUID == headers[1].StudyInstanceUID
    assert header.FrameOfReferenceUID == headers[1].FrameOfReferenceUID
    assert not [element for element in header if element.tag.is_private]
    # each slice refers to the other: the new UIDs agree with those of the source references
    sources = [h.SourceImageSequence[0].ReferencedSOPInstanceUID for h in headers]
    others = [h.ReferencedImageSequence[0].ReferencedSOPInstanceUID for h in headers]
    assert sources == others[::-1]
    np.testing.assert_array_equal(result.read(0), open_volume(bundled("CT_small")).read(0))


def test_names_in_text_that_the_profile_does_not_know(tmp_path):
    content = pydicom.Dataset()
    content.TextValue, content.CodeMeaning = "about Jane", "seen by Doe, twice"
    table = pydicom.Dataset()
    table.LUTDescriptor, table.LUTData = [1, 0, 8], b"\0\0"
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "OW"
    table.LUTExplanation = "for doedoe"
    single(
        tmp_path, PatientName="Doedoe^Jane", PatientID="Q-77", WindowCenterWidthExplanation="JANE",
        VOILUTSequence=[table], ProtocolContextSequence=[content], EvaluatorName="Roe^Richard",
        ConvolutionKernel="Janet", Manufacturer="made for Q-77",
    )  # fmt: skip
    result = write(open_volume(tmp_path), tmp_path / "out", deidentify=Deidentifier())
    content = result.paths[0].read_bytes()
    for secret in (b"Jane ", b"JANE", b"doedoe", b"Q-77", b"Richard"):
        assert secret not in content, secret
    header = pydicom.dcmread(result.paths[0])
    assert header.ConvolutionKernel == "Janet"  # another word
    assert header.ProtocolContextSequence[0].CodeMeaning == "seen by Doe, twice"


def test_patients_without_a_number_get_pseudonyms_of_their_own():
    deidentify, names = Deidentifier(), []
    for name, study in (("Doe", "1.1"), ("Roe", "1.1"), ("Doe", "1.2"), (None, "1.1"), ("", "1.2")):
        dataset = pydicom.Dataset()
        dataset.PatientName, dataset.StudyInstanceUID = name, study
        deidentify(dataset)
        names.append(dataset.PatientID)
    assert names == ["ANON0001", "ANON0002", "ANON0001", "ANON0003", "ANON0004"]


def test_names_in_the_pixels_are_refused(tmp_path):
    path = single(tmp_path, BurnedInAnnotation="YES")
    with pytest.raises(ValueError, match="Burned In"):
        write(open_volume(path), tmp_path / "out", deidentify=Deidentifier())


def test_deidentification_needs_its_package(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "dicomanonymizer", None)
    with pytest.raises(ValueError, match=r"pip install .*\[deidentify\]"):
        Deidentifier()
