"""Parametric Maps: their places, units and patients."""

import numpy as np
import pydicom
import pytest

import dicom_files
from zoo.domain import Domain
from zoo.imaging.dicom import parametric
from zoo.imaging.dicom.deidentify import Deidentifier
from zoo.imaging.files import find, open_volume
from zoo.imaging.geometry import Grid


def written(volume, path, values, **options):
    slices = list(enumerate(values.astype("float32")))
    target = options.pop("target", None)
    derivation = dicom_files.derivation(target)
    assert parametric.write(volume, path, slices, derivation, "Half-width", **options) == [path]
    found = pydicom.dcmread(path)
    pixels = np.frombuffer(found.FloatPixelData, np.float32)
    return found, pixels.reshape(found.NumberOfFrames, found.Rows, found.Columns)


def positions(found):
    groups = found.PerFrameFunctionalGroupsSequence
    return [[float(x) for x in g.PlanePositionSequence[0].ImagePositionPatient] for g in groups]


def test_a_finer_map_lies_where_the_input_does(tmp_path):
    (volume,) = find(dicom_files.series(tmp_path / "in", 3))[0]
    values = np.random.default_rng(0).uniform(0, 50, (3, 256, 256))
    found, pixels = written(volume, tmp_path / "a.dcm", values, grid=Grid(scale=2))
    assert not dicom_files.dciodvfy(tmp_path / "a.dcm")
    spacing = np.array(volume.spacing)
    measures = found.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    np.testing.assert_allclose(measures.PixelSpacing, spacing / 2)
    # The first pixel's outer corner stays: its centre moves by a quarter of an input pixel.
    for place, image in zip(positions(found), pixels, strict=True):
        number = round(place[2])
        np.testing.assert_allclose(place[:2], -spacing[::-1] / 4, atol=1e-6)
        np.testing.assert_array_equal(image, values[number].astype("float32"))


def test_frames_of_one_file_and_a_unit_without_a_code(tmp_path):
    path, _ = dicom_files.enhanced(tmp_path)
    volume = open_volume(path)
    values = np.random.default_rng(0).uniform(0, 50, (3, *volume.shape))
    target = Domain(modality="MR", unit="signal", window=(0, 100))
    found, pixels = written(volume, tmp_path / "a.dcm", values, target=target)
    assert not dicom_files.dciodvfy(tmp_path / "a.dcm")
    mapping = found.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "1"
    heights = [volume.frames[k].position[2] for k in range(3)]
    for place, image in zip(positions(found), pixels, strict=True):
        expected = values[heights.index(place[2])].astype("float32")
        np.testing.assert_array_equal(image, expected)


def test_no_name_is_left_and_what_a_map_needs_is_asked_for(tmp_path):
    (volume,) = find(dicom_files.series(tmp_path / "in", 1))[0]
    values = np.ones((1, 128, 128))
    given = pydicom.dcmread(tmp_path / "in" / "0.dcm")
    found, _ = written(volume, tmp_path / "a.dcm", values, deidentify=Deidentifier())
    assert found.PatientID != given.PatientID
    assert str(given.PatientName) not in (tmp_path / "a.dcm").read_bytes().decode("latin-1")
    assert found.StudyInstanceUID != given.StudyInstanceUID
    del given.FrameOfReferenceUID
    given.save_as(tmp_path / "in" / "0.dcm")
    with pytest.raises(ValueError, match="expected FrameOfReferenceUID. Received: none"):
        written(volume, tmp_path / "b.dcm", values)
    assert not (tmp_path / "b.dcm").exists()
    with pytest.raises(ValueError, match="as many slices as the input has"):
        written(volume, tmp_path / "b.dcm", values, grid=Grid(scale=2, depth=2))
