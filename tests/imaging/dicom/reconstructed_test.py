"""CT of measurements as DICOM: valid, in HU and mm, and honest on whom it shows."""

import numpy as np
import pydicom
import pytest

from dicom_files import dciodvfy
from zoo.imaging.dicom.reconstructed import Study
from zoo.imaging.files import open_volume

HU = np.random.default_rng(0).uniform(-1024, 3000, (2, 30, 41)).astype(np.float32)


def written(folder, study, images=HU):
    paths = [folder / f"{index}.dcm" for index in range(len(images))]
    for index, (path, image) in enumerate(zip(paths, images, strict=True)):
        path.write_bytes(study.encode(image, index, "Reconstructed by tv"))
    return paths


@pytest.mark.parametrize("slice_mm", [2.5, None])
def test_hu_and_mm_come_back_from_valid_files(slice_mm, tmp_path):
    paths = written(tmp_path, Study("tv", "ab" * 32, 260 / 362, slice_mm))
    headers = [pydicom.dcmread(path) for path in paths]
    for path, header, hu in zip(paths, headers, HU, strict=True):
        assert not dciodvfy(path)
        np.testing.assert_allclose(np.squeeze(open_volume(path).read(0)), hu, atol=0.5)
        assert (header.Modality, header.RescaleType) == ("CT", "HU")
        assert header.PixelSpacing == pytest.approx([260 / 362] * 2, rel=1e-6)
        # The centre of the image is that of rotation.
        centre = np.array(header.ImagePositionPatient[:2]) + np.array([20, 14.5]) * 260 / 362
        np.testing.assert_allclose(centre, 0, atol=1e-6)
    frames = {header.FrameOfReferenceUID for header in headers}
    series = {header.SeriesInstanceUID for header in headers}
    assert len(frames) == len(series) == (1 if slice_mm else 2)
    assert len({header.StudyInstanceUID for header in headers}) == 1
    if slice_mm:
        assert open_volume(tmp_path).slice_spacing == slice_mm


def test_it_says_that_it_is_derived_of_nobody_and_of_which_measurement(tmp_path):
    headers = []
    for _ in range(2):
        (path,) = written(tmp_path, Study("my \\ model", "ab" * 32, 1.0), HU[:1])
        headers.append(pydicom.dcmread(path))
    first, second = headers
    assert list(first.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
    assert "Unknown" in str(first.PatientName) and "No patient is stated" in first.PatientComments
    assert "ab" * 32 in first.DerivationDescription
    assert first.SeriesDescription == "my / model"
    for level in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        assert first[level].value != second[level].value


def test_values_beyond_16_bits_and_none_at_all(tmp_path):
    (path,) = written(tmp_path, Study("fbp", "ab" * 32, 1.0), 20 * HU[:1])
    header = pydicom.dcmread(path)
    values = header.pixel_array * float(header.RescaleSlope) + float(header.RescaleIntercept)
    np.testing.assert_allclose(values, 20 * HU[0], atol=float(header.RescaleSlope))
    with pytest.raises(ValueError, match="image: expected finite HU"):
        Study("fbp", "ab" * 32, 1.0).encode(np.full((4, 4), np.nan), 0, "")
