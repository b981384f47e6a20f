"""Which slices of the output are one series."""

import pydicom
import pytest

from dicom_files import bundled, enhanced
from stand_in import TO_CT, Model, translate


def test_series_numbers_are_new_and_in_range(tmp_path):
    numbers = [3, 1003, 2**31 - 1, None, "7\\8"]
    for index, number in enumerate(numbers):
        dataset = pydicom.dcmread(bundled("CT_small"))
        dataset.SeriesInstanceUID = f"1.2.{index}"
        with pydicom.config.disable_value_validation():
            dataset.SeriesNumber = number
        dataset.save_as(tmp_path / f"{index}.dcm")
    report = translate(Model(), tmp_path, tmp_path / "out")
    assert report.skipped == []
    found = [pydicom.dcmread(path).SeriesNumber for path in report.outputs]
    assert len({*found, 3, 1003, 2**31 - 1}) == 8
    assert found[0] == 1004
    assert all(0 < number < 2**31 for number in found)


@pytest.mark.parametrize("model", [Model(), TO_CT])
def test_echoes_that_become_another_modality_are_series_of_their_own(tmp_path, model):
    for echo in (1, 2):
        for place in (0, 1, 2):
            dataset = pydicom.dcmread(bundled("MR_small"))
            dataset.EchoNumbers, dataset.InstanceNumber = echo, 2 * place + echo
            dataset.SOPInstanceUID = f"1.2.{echo}.{place}"
            dataset.ImagePositionPatient = [0, 0, place]
            dataset.save_as(tmp_path / f"{echo}-{place}.dcm")
    report = translate(model, tmp_path, tmp_path / "out")
    assert (report.done, report.series, report.slices) == (1, 1, 6)
    headers = [pydicom.dcmread(path) for path in report.outputs]
    places = {(h.SeriesInstanceUID, h.InstanceNumber, *h.ImagePositionPatient) for h in headers}
    assert len(places) == 6
    count = 2 if model is TO_CT else 1
    assert len({header.SeriesInstanceUID for header in headers}) == count
    assert len({header.SeriesNumber for header in headers}) == count


def test_frames_of_two_echoes_that_become_another_modality_are_two_series(tmp_path):
    path, _ = enhanced(tmp_path, frames=6)
    dataset = pydicom.dcmread(path)
    for number, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        group.PlanePositionSequence[0].ImagePositionPatient = [0, 0, number // 2]
        echo = pydicom.Dataset()
        echo.EffectiveEchoTime = 10.0 + number % 2
        group.MREchoSequence = [echo]
    dataset.Modality = "MR"
    dataset.save_as(path)
    report = translate(TO_CT, path, tmp_path / "out")
    headers = [pydicom.dcmread(path) for path in report.outputs]
    frames = {}
    for header in headers:
        number = header.SourceImageSequence[0].ReferencedFrameNumber
        frames.setdefault(header.SeriesInstanceUID, []).append((header.InstanceNumber, number))
    assert sorted(frames.values()) == [[(1, 1), (2, 3), (3, 5)], [(1, 2), (2, 4), (3, 6)]]


def test_patients_whose_series_have_one_uid_get_two(tmp_path):
    for patient in ("a", "b"):
        dataset = pydicom.dcmread(bundled("CT_small"))
        dataset.PatientID = patient
        dataset.save_as(tmp_path / f"{patient}.dcm")
    report = translate(Model(), tmp_path, tmp_path / "out")
    assert report.series == 2
    assert len({pydicom.dcmread(path).SeriesInstanceUID for path in report.outputs}) == 2
