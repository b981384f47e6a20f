"""zoo.imaging.dicom.write: derived series, exact, traceable and no less valid than their input."""

import numpy as np
import pydicom
import pydicom.uid
import pytest

from dicom_files import bundled, dciodvfy, derivation, enhanced, lookup_table, single, write
from stand_in import with_peak
from zoo.domain import Domain
from zoo.imaging.dicom.encoding import Encoding
from zoo.imaging.files import open_volume

FILES = [
    "CT_small", "MR_small", "MR_small_RLE", "MR_small_jpeg_ls_lossless", "MR_small_jp2klossless",
    "MR_small_bigendian", "MR_small_implicit", "MR_small_padded", "J2K_pixelrep_mismatch",
    "693_J2KI", "examples_overlay", "JPEGLSNearLossless_16",
]  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_identity_round_trip_is_exact_and_no_less_valid(tmp_path, name):
    source = open_volume(bundled(name))
    result = write(source, tmp_path / "out")
    np.testing.assert_array_equal(result.read(0), source.read(0))
    assert result.frames[0].encoding == source.frames[0].encoding
    assert (result.spacing, result.modality, result.unit) == (
        source.spacing, source.modality, source.unit,
    )  # fmt: skip
    assert source.patient in (result.patient, "")  # a study without a UID got one
    assert dciodvfy(result.paths[0]) - dciodvfy(bundled(name)) == set()


def test_derived_header(tmp_path):
    source = open_volume(bundled("CT_small"))
    before = pydicom.dcmread(bundled("CT_small"))
    result = write(source, tmp_path, lambda x: x + 5)
    after = pydicom.dcmread(result.paths[0])
    assert after.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
    assert after.file_meta.MediaStorageSOPInstanceUID == after.SOPInstanceUID
    assert after.file_meta.MediaStorageSOPClassUID == before.SOPClassUID
    assert list(after.ImageType) == ["DERIVED", "SECONDARY", *list(before.ImageType)[2:]]
    assert after.SOPInstanceUID != before.SOPInstanceUID
    assert after.SeriesInstanceUID != before.SeriesInstanceUID
    reference = after.SourceImageSequence[0]
    assert reference.ReferencedSOPInstanceUID == before.SOPInstanceUID
    assert reference.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
    assert "pix2pix" in after.DerivationDescription
    assert "ab" * 32 in after.DerivationDescription
    assert after.ContributingEquipmentSequence[-1].ManufacturerModelName == "pix2pix"
    np.testing.assert_array_equal(after.pixel_array[40:80], before.pixel_array[40:80] + 5)
    assert after.PixelPaddingValue == before.PixelPaddingValue
    for keyword in [
        "StudyInstanceUID", "FrameOfReferenceUID", "ImagePositionPatient", "PixelSpacing",
        "ImageOrientationPatient", "SliceThickness", "PatientID", "Manufacturer", "RescaleSlope",
        "RescaleIntercept",
    ]:  # fmt: skip
        assert after[keyword].value == before[keyword].value, keyword


def test_negative_values_in_an_unsigned_series_get_a_new_intercept(tmp_path):
    pixels = np.full((16, 16), 5, np.uint16)
    path = single(
        tmp_path, pixels=pixels, PixelRepresentation=0, RescaleIntercept=0,
        SmallestImagePixelValue=("US", 5), LargestImagePixelValue=("US", 5),
        PixelPaddingValue=None, BitsStored=12, HighBit=11,
    )  # fmt: skip
    source = open_volume(path)
    values = np.linspace(-1500, 2600, 256).reshape(16, 16).astype(np.float32)
    result = write(source, tmp_path / "out", lambda _: values)
    assert np.abs(result.read(0) - values).max() <= 0.5
    header = pydicom.dcmread(result.paths[0])
    assert (header.PixelRepresentation, header.RescaleSlope) == (0, 1)
    assert header.SmallestImagePixelValue == header.pixel_array.min()
    assert header.LargestImagePixelValue == header.pixel_array.max()
    assert dciodvfy(result.paths[0]) - dciodvfy(path) == set()


def test_negative_values_in_an_unsigned_image_without_rescale_become_signed(tmp_path):
    source = open_volume(bundled("examples_overlay"))
    result = write(source, tmp_path, lambda x: x - 300.4)
    assert np.abs(result.read(0) - (source.read(0) - 300.4)).max() <= 0.5 + 1e-3
    header = pydicom.dcmread(result.paths[0])
    assert header.PixelRepresentation == 1
    assert "RescaleSlope" not in header
    assert dciodvfy(result.paths[0]) - dciodvfy(bundled("examples_overlay")) == set()


def test_one_encoding_serves_the_whole_series(tmp_path):
    for i in range(3):
        single(
            tmp_path, f"{i}.dcm", SOPInstanceUID=pydicom.uid.generate_uid(), InstanceNumber=i,
            ImagePositionPatient=[0, 0, float(i)], BitsStored=12, HighBit=11,
            PixelPaddingValue=None, pixels=np.full((8, 8), 100 * i, np.int16),
        )  # fmt: skip
    source = open_volume(tmp_path)
    unnamed: list[int] = []

    def change(x):
        unnamed.append(len(list((tmp_path / "out").iterdir())))
        return x + 4000 * (len(unnamed) == 3)

    result = write(source, tmp_path / "out", change)
    # Each was written before the next was asked for; the first two again, for the sake of the last.
    assert unnamed == [unnamed[0] + i for i in range(3)]
    headers = [pydicom.dcmread(path) for path in result.paths]
    assert len({(h.BitsStored, h.RescaleIntercept, h.SeriesInstanceUID) for h in headers}) == 1
    assert len({h.SOPInstanceUID for h in headers}) == 3
    assert result.read(2).max() == source.read(2).max() + 4000
    np.testing.assert_array_equal(result.read(0), source.read(0))


def test_padding_reads_as_the_least_value_and_is_put_back(tmp_path):
    pixels = np.arange(64, dtype=np.int16).reshape(8, 8)
    pixels[0] = -2000
    # a VR of the wrong signedness, as some scanners write it
    path = single(tmp_path, pixels=pixels, PixelPaddingValue=("US", 65536 - 2000))
    source = open_volume(path)
    assert source.read(0).min() == source.read(0)[0, 0] == 8 - 1024
    result = write(source, tmp_path / "out", lambda x: x + 100)
    header = pydicom.dcmread(result.paths[0])
    expected = np.where(pixels == -2000, -2000, pixels + 100)
    np.testing.assert_array_equal(header.pixel_array, expected)
    assert header.PixelPaddingValue == -2000


def test_padding_at_the_end_of_the_range_stays_apart_from_new_values(tmp_path):
    pixels = np.arange(64, dtype=np.uint16).reshape(8, 8)
    path = single(
        tmp_path, pixels=pixels, PixelRepresentation=0, PixelPaddingValue=("US", 0)
    )  # stored 0 is the least value there is
    source = open_volume(path)
    result = write(source, tmp_path / "out", lambda x: x - 1500)
    header = pydicom.dcmread(result.paths[0])
    assert header.pixel_array[0, 0] == header.PixelPaddingValue == 0
    assert (header.pixel_array == 0).sum() == 1
    np.testing.assert_array_equal(result.read(0), source.read(0) - 1500)


def test_a_range_of_padding_in_monochrome1_ends_with_its_lesser_value(tmp_path):
    pixels = np.arange(64, dtype=np.uint16).reshape(8, 8)
    path = single(
        tmp_path, pixels=pixels, PhotometricInterpretation="MONOCHROME1", Modality="MG",
        PixelRepresentation=0, RescaleSlope=None, RescaleIntercept=None,
        PixelPaddingValue=("US", 63), PixelPaddingRangeLimit=("US", 56),
    )  # fmt: skip
    source = open_volume(path)
    np.testing.assert_array_equal(source.read(0)[7], source.read(0)[:7].min())
    header = pydicom.dcmread(write(source, tmp_path / "out", lambda x: x - 5).paths[0])
    assert (header.PixelPaddingValue, header.PixelPaddingRangeLimit) == (63, 56)
    np.testing.assert_array_equal(header.pixel_array[7], pixels[7])
    np.testing.assert_array_equal(header.pixel_array[:7], pixels[:7] + 5)


def test_modality_table(tmp_path):
    pixels = np.arange(16, dtype=np.uint16).reshape(4, 4) % 4
    path = single(
        tmp_path, pixels=pixels, PixelRepresentation=0, RescaleSlope=None, RescaleIntercept=None,
        PixelPaddingValue=None, ModalityLUTSequence=[lookup_table([7, 100, 1000, 60_000])],
    )  # fmt: skip
    source = open_volume(path)
    assert source.read(0)[0].tolist() == [7, 100, 1000, 60_000]
    result = write(source, tmp_path / "out")
    np.testing.assert_array_equal(result.read(0), source.read(0))
    assert "ModalityLUTSequence" not in pydicom.dcmread(result.paths[0])


def test_stored_values_are_unsigned_where_an_intercept_moves_them(tmp_path):
    # signed words with an intercept of 32768, which ITK refuses, hold 0 ... 65535 as well
    pixels = (np.arange(16, dtype=np.int16) % 4 - 2).reshape(4, 4)
    path = single(
        tmp_path, pixels=pixels, RescaleSlope=None, RescaleIntercept=None,
        PixelPaddingValue=None, ModalityLUTSequence=[lookup_table([0, 100, 1000, 65_535], -2)],
    )  # fmt: skip
    result = write(open_volume(path), tmp_path / "out")
    header = pydicom.dcmread(result.paths[0])
    assert (header.PixelRepresentation, "RescaleIntercept" in header) == (0, False)
    assert result.read(0)[0].tolist() == [0, 100, 1000, 65_535]
    shifted = Encoding(signed=True, rescaled=True).fit(0, 65_535)
    assert (shifted.signed, shifted.intercept) == (False, 0)


@pytest.mark.parametrize("slopes", [(1.0, 1.0, 1.0), (0.5, 1.0, 2.0)])
def test_enhanced_multi_frame_round_trip(tmp_path, slopes):
    path, physical = enhanced(tmp_path, slopes)
    source = open_volume(path)
    assert (source.length, source.shape, source.spacing) == (3, (6, 8), (0.5, 0.7))
    assert source.unit == "HU"
    # frames lie from top to bottom, slices are read along the normal
    np.testing.assert_array_equal([source.read(i) for i in range(3)], physical[::-1])
    result = write(source, tmp_path / "out")
    np.testing.assert_array_equal([result.read(i) for i in range(3)], physical[::-1])
    header = pydicom.dcmread(result.paths[0])
    np.testing.assert_array_equal(header.pixel_array, pydicom.dcmread(path).pixel_array)
    assert header.NumberOfFrames == 3
    shared = header.SharedFunctionalGroupsSequence[0]
    reference = shared.DerivationImageSequence[0].SourceImageSequence[0]
    assert reference.ReferencedSOPInstanceUID == pydicom.dcmread(path).SOPInstanceUID
    assert shared.CTImageFrameTypeSequence[0].FrameType[0] == header.ImageType[0] == "DERIVED"
    assert dciodvfy(result.paths[0]) - dciodvfy(path) == set()


@pytest.mark.parametrize("slopes", [(1.0, 1.0, 1.0), (0.5, 1.0, 2.0)])
def test_enhanced_multi_frame_widens_where_the_values_do_not_fit(tmp_path, slopes):
    path, physical = enhanced(tmp_path, slopes)
    source = open_volume(path)
    result = write(source, tmp_path / "out", lambda x: x * 1.5 - 900.2)
    for i, (values, slope) in enumerate(zip(physical[::-1], slopes[::-1], strict=True)):
        assert np.abs(result.read(i) - (values * 1.5 - 900.2)).max() <= slope * 0.501


def test_another_unit_loses_hu(tmp_path):
    target = Domain(modality="MR", unit="signal", window=(0, 800))
    source = open_volume(bundled("CT_small"))
    values = np.random.default_rng(0).uniform(0, 800, source.shape).astype(np.float32)
    result = write(source, tmp_path, lambda _: values, derivation(target, same_unit=False))
    header = pydicom.dcmread(result.paths[0])
    assert header.RescaleType == "US"
    assert (header.WindowCenter, header.WindowWidth) == (400, 800)
    assert np.abs(result.read(0) - values)[5:-5, 5:-5].max() <= header.RescaleSlope / 2 + 1e-4
    assert not [element for element in header if element.tag.is_private]
    assert dciodvfy(result.paths[0]) - dciodvfy(bundled("CT_small")) == set()


def test_lossy_input_says_so(tmp_path):
    result = write(open_volume(bundled("JPEGLSNearLossless_16")), tmp_path)
    header = pydicom.dcmread(result.paths[0])
    assert header.LossyImageCompression == "01"
    assert header.LossyImageCompressionMethod == "ISO_14495_1"


def test_output_must_be_finite(tmp_path):
    source = open_volume(bundled("CT_small"))
    with pytest.raises(ValueError, match="not finite"):
        write(source, tmp_path, lambda x: x * np.nan)
    assert not list(tmp_path.iterdir())


def test_memory_does_not_grow_with_the_series(tmp_path):
    def peak(count):
        folder = tmp_path / str(count)
        folder.mkdir()
        for i in range(count):
            single(
                folder, f"{i}.dcm", SOPInstanceUID=pydicom.uid.generate_uid(), InstanceNumber=i,
                ImagePositionPatient=[0, 0, float(i)], pixels=np.full((256, 256), i, np.int16),
                PixelPaddingValue=None,
            )  # fmt: skip
        volume = open_volume(folder)
        return with_peak(lambda: write(volume, folder / "out"))[1]

    peak(2)
    assert peak(12) < 1.2 * peak(3)
