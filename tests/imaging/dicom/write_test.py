"""Tests of zoo.imaging.dicom.read, encoding, derived and deidentify."""

import copy
import datetime
import shutil
import tracemalloc

import numpy as np
import pydicom
import pydicom.encaps
import pydicom.uid
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_files import bundled, dciodvfy, enhanced, single
from zoo.domain import Domain
from zoo.imaging.dicom import iods
from zoo.imaging.dicom.deidentify import Deidentifier
from zoo.imaging.dicom.encoding import Encoding
from zoo.imaging.dicom.write import Derivation
from zoo.imaging.dicom.write import write as write_series
from zoo.imaging.files import find, open_volume

FILES = [
    "CT_small", "MR_small", "MR_small_RLE", "MR_small_jpeg_ls_lossless", "MR_small_jp2klossless",
    "MR_small_bigendian", "MR_small_implicit", "MR_small_padded", "J2K_pixelrep_mismatch",
    "693_J2KI", "examples_overlay", "JPEGLSNearLossless_16",
]  # fmt: skip


def derivation(target=None, same_unit=True):
    return Derivation(
        name="pix2pix",
        title="Identity",
        weights_hash="ab" * 32,
        description="a test",
        target=target or Domain(modality="CT", unit="HU", window=(-1000, 1000)),
        same_unit=same_unit,
        moment=datetime.datetime(2026, 1, 2, 3, 4, 5),
        precision="bfloat16",
        series=((pydicom.uid.generate_uid(), 1003),),
    )


def refuse(path, error):
    raise error


def write(volume, folder, change=lambda x: x, note=None, deidentify=None):
    """The volume, each slice changed, written and found again."""
    folder.mkdir(parents=True, exist_ok=True)
    slices = ((i, change(volume.read(i))) for i in range(volume.length))
    paths = [folder / f"{i}.dcm" for i in range(len(volume.paths))]
    write_series(volume, paths, slices, note or derivation(), refuse, deidentify)
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    return open_volume(folder)


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


@pytest.mark.parametrize(
    "name", ["RLE", "bigendian", "implicit", "jp2klossless", "jpeg_ls_lossless"]
)
def test_forms_of_one_image_read_alike(name):
    plain = open_volume(bundled("MR_small"))
    np.testing.assert_array_equal(open_volume(bundled(f"MR_small_{name}")).read(0), plain.read(0))


def test_wrong_signedness_in_a_jpeg_2000_stream():
    # the stream says unsigned, the header signed: the header is right, -2000 is the padding
    image = open_volume(bundled("J2K_pixelrep_mismatch")).read(0)
    dataset = pydicom.dcmread(bundled("J2K_pixelrep_mismatch"))
    np.testing.assert_array_equal(image, dataset.pixel_array)
    assert image.min() == -2000
    assert 1000 < image.max() < 3000


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
        "StudyInstanceUID",
        "FrameOfReferenceUID",
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "SliceThickness",
        "PatientID",
        "Manufacturer",
        "RescaleSlope",
        "RescaleIntercept",
    ]:
        assert after[keyword].value == before[keyword].value, keyword


@given(
    bits=st.integers(1, 16),
    signed=st.booleans(),
    slope=st.floats(1e-4, 1e4) | st.floats(-1e4, -1e-4),
    offset=st.integers(-100_000, 100_000),
    position=st.lists(st.floats(0, 1), min_size=1, max_size=20),
)
def test_stored_values_survive_decode_and_encode(bits, signed, slope, offset, position):
    encoding = Encoding(slope=slope, intercept=offset * slope, bits=bits, signed=signed)
    low, high = encoding.limits
    stored = np.array([round(low + p * (high - low)) for p in position])
    np.testing.assert_array_equal(encoding.encode(encoding.decode(stored)), stored)
    beyond = np.array([-1e12, 1e12]) * np.sign(slope)
    assert encoding.encode(beyond).tolist() == [low, high]


@given(
    bits=st.integers(8, 16),
    signed=st.booleans(),
    rescaled=st.booleans(),
    slope=st.sampled_from([1.0, 0.1, 2.5, 0.00390625, -1.0]),
    intercept=st.sampled_from([0.0, -1024.0, 7.3]),
    first=st.floats(-60_000, 60_000),
    width=st.floats(0, 65_000),
)
def test_fitted_encodings_hold_the_range_at_half_a_step(
    bits, signed, rescaled, slope, intercept, first, width
):
    if not rescaled:
        slope, intercept = 1.0, 0.0
    encoding = Encoding(
        slope=slope, intercept=intercept, bits=bits, signed=signed, rescaled=rescaled
    )
    low, high = sorted((first * slope, (first + width) * slope))
    fitted = encoding.fit(low, high)
    values = np.linspace(low, high, 97)
    error = np.abs(np.float64(fitted.slope) * fitted.encode(values) + fitted.intercept - values)
    assert error.max() <= abs(slope) * (0.5 + 1e-6)
    assert fitted.slope == slope
    assert encoding.fits(low, high) == (fitted == encoding)
    # old steps stay on the new grid, to what a decimal string of 16 characters holds
    shift = (fitted.intercept - intercept) / slope
    assert shift == pytest.approx(round(shift), abs=1e-6)


@given(st.floats(-1e6, 1e6), st.floats(70_000, 1e9), st.sampled_from([1.0, -1.0]))
def test_a_range_beyond_65536_steps_takes_coarser_steps_and_does_not_saturate(low, width, slope):
    encoding = Encoding(slope=slope, bits=12, rescaled=True).fit(low, low + width)
    values = np.linspace(low, low + width, 101)
    error = np.abs(encoding.slope * encoding.encode(values) + encoding.intercept - values)
    assert error.max() <= abs(encoding.slope) * 0.51
    assert abs(encoding.slope) < width / 65_000


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
    count = iter(range(3))
    result = write(source, tmp_path / "out", lambda x: x + 4000 * (next(count) == 2))
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


def test_overlay_in_unused_bits_is_masked(tmp_path):
    values = np.random.default_rng(0).integers(-2048, 2047, (8, 8))
    bits = (values & 0xFFF) | (np.random.default_rng(1).integers(0, 16, (8, 8)) << 12)
    path = single(
        tmp_path, pixels=bits.astype(np.uint16), BitsStored=12, HighBit=11, PixelPaddingValue=None
    )
    dataset = pydicom.dcmread(path)
    dataset.add_new((0x6000, 0x0010), "US", 8)
    dataset.add_new((0x6000, 0x0102), "US", 12)
    dataset.save_as(path)
    source = open_volume(path)
    np.testing.assert_array_equal(source.read(0), values - 1024.0)
    result = write(source, tmp_path / "out")
    header = pydicom.dcmread(result.paths[0])
    np.testing.assert_array_equal(header.pixel_array, values)
    assert (0x6000, 0x0010) not in header


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(("bits", "high"), [(12, 15), (10, 12), (14, 15)])
def test_values_in_the_upper_bits_of_their_words(tmp_path, bits, high, compressed):
    values = np.random.default_rng(0).integers(-(1 << (bits - 1)), 1 << (bits - 1), (8, 8))
    words = (values << (high + 1 - bits)).astype(np.int16)
    path = single(tmp_path, pixels=words, PixelPaddingValue=None)
    dataset = pydicom.dcmread(path)
    if compressed:
        dataset.compress(pydicom.uid.RLELossless)
    dataset.BitsStored, dataset.HighBit = bits, high
    dataset.save_as(path)
    source = open_volume(path)
    np.testing.assert_array_equal(source.read(0), values - 1024.0)
    header = pydicom.dcmread(write(source, tmp_path / "out").paths[0])
    assert header.HighBit == bits - 1
    np.testing.assert_array_equal(header.pixel_array, values)


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
    table = pydicom.Dataset()
    table.LUTDescriptor = [4, 0, 16]
    table["LUTDescriptor"].VR = "US"
    table.ModalityLUTType = "US"
    table.add_new("LUTData", "US", [7, 100, 1000, 60_000])
    pixels = np.arange(16, dtype=np.uint16).reshape(4, 4) % 4
    path = single(
        tmp_path, pixels=pixels, PixelRepresentation=0, RescaleSlope=None, RescaleIntercept=None,
        PixelPaddingValue=None, ModalityLUTSequence=[table],
    )  # fmt: skip
    source = open_volume(path)
    assert source.read(0)[0].tolist() == [7, 100, 1000, 60_000]
    result = write(source, tmp_path / "out")
    np.testing.assert_array_equal(result.read(0), source.read(0))
    assert "ModalityLUTSequence" not in pydicom.dcmread(result.paths[0])


@pytest.mark.parametrize("slopes", [(1.0, 1.0, 1.0), (0.5, 1.0, 2.0)])
def test_enhanced_multi_frame_round_trip(tmp_path, slopes):
    path, physical = enhanced(tmp_path, slopes)
    source = open_volume(path)
    assert (source.length, source.shape, source.spacing, source.unit) == (
        3,
        (6, 8),
        (0.5, 0.7),
        "HU",
    )
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


def test_enhanced_compressed(tmp_path):
    path, physical = enhanced(tmp_path)
    dataset = pydicom.dcmread(path)
    dataset.compress(pydicom.uid.RLELossless)
    dataset.save_as(path)
    np.testing.assert_array_equal(open_volume(path).read(0), physical[2])


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


CT = Domain(modality="CT", unit="HU", window=(-1000, 1000))
MR = Domain(modality="MR", unit="signal", window=(0, 800))
PT = Domain(modality="PT", unit="SUV", window=(0, 20))
DX = Domain(modality="DX", unit="1", window=(0, 4095))


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A valid file of each modality, and an enhanced one."""
    folder = tmp_path_factory.mktemp("sources")
    ct = open_volume(bundled("CT_small"))
    pet = write(ct, folder / "PT", lambda x: x * 0 + 3, derivation(PT, same_unit=False))
    enhanced_ct, _ = enhanced(folder)
    return {
        "CT": bundled("CT_small"), "MR": bundled("MR_small"), "PT": pet.paths[0],
        "enhanced CT": enhanced_ct,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (source, target)
        for source in ("CT", "MR", "PT", "enhanced CT")
        for target in (CT, MR, PT, DX)
        if target.modality not in source
    ],
)
def test_an_image_of_another_modality_is_an_object_of_that_modality(
    tmp_path, sources, source, target
):
    volume = open_volume(sources[source])
    count = volume.length * volume.shape[0] * volume.shape[1]
    values = np.linspace(*target.window, count).reshape(volume.length, *volume.shape)
    slices = ((i, values[i].astype(np.float32)) for i in range(volume.length))
    note = derivation(target, same_unit=False)
    paths = [tmp_path / f"{i}.dcm" for i in range(volume.length)]
    written, said = write_series(volume, paths, slices, note, refuse)
    assert written == paths
    name = {"CT": "CT Image Storage", "MR": "MR Image Storage"}.get(target.modality)
    name = name or {"PT": "Positron Emission Tomography Image Storage"}.get(target.modality)
    name = name or "Secondary Capture Image Storage"
    assert said == [f"modality: {volume.modality} became {target.modality}, written as {name}"]
    before = pydicom.dcmread(sources[source])
    result = open_volume(tmp_path)
    foreign = {"EchoTime", "ScanningSequence", "MagneticFieldStrength", "RepetitionTime"}
    foreign |= {"KVP", "XRayTubeCurrent", "Units", "CountsSource", "NumberOfFrames"}
    own = {"MR": {"EchoTime", "ScanningSequence", "RepetitionTime"}, "CT": {"KVP"}}
    own["PT"] = {"Units", "CountsSource"}
    for index, path in enumerate(paths):
        header = pydicom.dcmread(path)
        assert header.SOPClassUID.name == header.file_meta.MediaStorageSOPClassUID.name == name
        assert (header.Modality, header.FrameOfReferenceUID) == (
            target.modality, before.FrameOfReferenceUID,
        )  # fmt: skip
        present = {keyword for keyword in foreign if keyword in header}
        assert present == own.get(target.modality, set())
        assert header.SourceImageSequence[0].ReferencedSOPInstanceUID == before.SOPInstanceUID
        assert not dciodvfy(path) - dciodvfy(sources[source])
        frame = volume.frames[index]
        np.testing.assert_allclose(header.ImagePositionPatient, frame.position)
        np.testing.assert_allclose(header.PixelSpacing, volume.spacing)
        inside = np.s_[6:-6, 6:-6] if volume.shape[0] > 100 else np.s_[:]  # free of padding
        error = np.abs(result.read(index) - values[index])[inside].max()
        assert error <= abs(result.frames[index].encoding.slope) * 0.5 + 1e-3
    header = pydicom.dcmread(paths[0])
    if target is CT:
        assert list(header.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
        assert (header.RescaleSlope, header.RescaleIntercept, header.RescaleType) == (1, 0, "HU")
    if target is PT:
        assert list(header.ImageType) == ["DERIVED", "PRIMARY"]
        assert (header.Units, header.RescaleIntercept) == ("GML", 0)
        gantry = header.PatientGantryRelationshipCodeSequence
        expected = "headfirst" if source == "MR" else "feet-first"
        assert [code.CodeMeaning for code in gantry] == [expected]
    elif target is not DX:  # in codes, where the source is PET
        assert header.PatientPosition == ("HFS" if source == "MR" else "FFS")


def test_padding_is_the_least_value_of_another_modality(tmp_path):
    pixels = np.full((8, 8), 40, np.int16)
    pixels[0] = -2000
    path = single(tmp_path, pixels=pixels, PixelPaddingValue=("SS", -2000))
    note = derivation(MR, same_unit=False)
    result = write(open_volume(path), tmp_path / "out", lambda x: x * 0 + 500, note)
    assert "PixelPaddingValue" not in pydicom.dcmread(result.paths[0])
    np.testing.assert_array_equal(result.read(0)[0], 0)
    np.testing.assert_array_equal(result.read(0)[1:], 500)


@given(st.floats(-50, 50), st.floats(0, 1e5), st.sampled_from([1e-3, 1.0, -1.0]))
def test_pet_has_no_intercept(low, width, slope):
    encoding = Encoding(slope=slope, bits=12, rescaled=True).around_zero(low, low + width)
    values = np.linspace(low, low + width, 101)
    error = np.abs(encoding.slope * encoding.encode(values) - values)
    assert encoding.intercept == 0
    assert error.max() <= abs(encoding.slope) * 0.51


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("CTImageStorage", "SECONDARY"),
        ("MRImageStorage", "SECONDARY"),
        ("SecondaryCaptureImageStorage", "SECONDARY"),
        ("PositronEmissionTomographyImageStorage", "PRIMARY"),
        ("NuclearMedicineImageStorage", "PRIMARY"),
        ("LegacyConvertedEnhancedCTImageStorage", "PRIMARY"),
        ("LegacyConvertedEnhancedMRImageStorage", "PRIMARY"),
        ("LegacyConvertedEnhancedPETImageStorage", "PRIMARY"),
        ("EnhancedMRColorImageStorage", "PRIMARY"),
        ("VLWholeSlideMicroscopyImageStorage", "PRIMARY"),
        ("BreastTomosynthesisImageStorage", "PRIMARY"),
        ("XRay3DAngiographicImageStorage", "PRIMARY"),
        ("OphthalmicPhotography16BitImageStorage", "PRIMARY"),
    ],
)
def test_image_type_is_of_the_values_that_the_class_knows(tmp_path, kind, expected):
    uid = getattr(pydicom.uid, kind)
    path = single(tmp_path, SOPClassUID=uid, ImageType=["ORIGINAL", "PRIMARY", "X"])
    result = write(open_volume(path), tmp_path / "out")
    assert list(pydicom.dcmread(result.paths[0]).ImageType) == ["DERIVED", expected, "X"]
    wrong = [line for line in dciodvfy(result.paths[0]) if f"<{expected}>" in line]
    assert not wrong


def test_compressed_pixels_in_sequences_go(tmp_path):
    def icon(compressed):
        item = pydicom.Dataset()
        item.Rows = item.Columns = 2
        item.BitsAllocated = 8
        item.PixelData = pydicom.encaps.encapsulate([b"1234"]) if compressed else b"1234"
        item["PixelData"].VR = "OB"
        item["PixelData"].is_undefined_length = compressed
        return item

    header = pydicom.dcmread(bundled("MR_small_RLE"))
    block = header.private_block(0x0045, "SOMEBODY", create=True)
    block.add_new(0x01, "SQ", [icon(True)])
    block.add_new(0x02, "SQ", [icon(False)])
    outer = pydicom.Dataset()
    outer.ReferencedSOPClassUID = pydicom.uid.MRImageStorage
    outer.ReferencedSOPInstanceUID = "1.2.3"
    outer.IconImageSequence = [icon(True)]
    header.ReferencedImageSequence = [outer]
    header.save_as(tmp_path / "in.dcm")
    result = write(open_volume(tmp_path / "in.dcm"), tmp_path / "out")
    after = pydicom.dcmread(result.paths[0])
    assert b"\xfe\xff\x00\xe0\x04\x00\x00\x001234" not in result.paths[0].read_bytes()
    kept = after.private_block(0x0045, "SOMEBODY")
    assert 0x01 not in kept
    assert kept[0x02].value[0].PixelData == b"1234"
    assert after.ReferencedImageSequence[0].ReferencedSOPInstanceUID == "1.2.3"
    assert "IconImageSequence" not in after.ReferencedImageSequence[0]
    assert dciodvfy(result.paths[0]) - dciodvfy(bundled("MR_small_RLE")) == set()


@pytest.mark.parametrize(
    ("missing", "kind"),
    [
        ([], "CT Image Storage"),
        (["ImagePositionPatient"], "Secondary Capture Image Storage"),
        (["Modality"], "Secondary Capture Image Storage"),
        (["SOPInstanceUID", "StudyInstanceUID", "PatientName"], "CT Image Storage"),
    ],
)
def test_what_an_image_object_may_not_lack_is_given(tmp_path, missing, kind):
    header = pydicom.dcmread(bundled("CT_small"))
    for keyword in ["SOPClassUID", *missing]:
        del header[keyword]
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    header.save_as(tmp_path / "in.dcm", enforce_file_format=False)
    result = write(open_volume(tmp_path / "in.dcm"), tmp_path / "out")
    after = pydicom.dcmread(result.paths[0])
    assert after.SOPClassUID.name == kind
    assert after.StudyInstanceUID
    assert not dciodvfy(result.paths[0]) - dciodvfy(bundled("CT_small"))


def test_stored_values_are_unsigned_where_an_intercept_moves_them(tmp_path):
    # signed words with an intercept of 32768, which ITK refuses, hold 0 ... 65535 as well
    table = pydicom.Dataset()
    table.LUTDescriptor = [4, -2, 16]
    table["LUTDescriptor"].VR = "SS"
    table.ModalityLUTType = "US"
    table.add_new("LUTData", "US", [0, 100, 1000, 65_535])
    pixels = (np.arange(16, dtype=np.int16) % 4 - 2).reshape(4, 4)
    path = single(
        tmp_path, pixels=pixels, RescaleSlope=None, RescaleIntercept=None,
        PixelPaddingValue=None, ModalityLUTSequence=[table],
    )  # fmt: skip
    result = write(open_volume(path), tmp_path / "out")
    header = pydicom.dcmread(result.paths[0])
    assert (header.PixelRepresentation, "RescaleIntercept" in header) == (0, False)
    assert result.read(0)[0].tolist() == [0, 100, 1000, 65_535]
    shifted = Encoding(signed=True, rescaled=True).fit(0, 65_535)
    assert (shifted.signed, shifted.intercept) == (False, 0)


def test_lossy_input_says_so(tmp_path):
    result = write(open_volume(bundled("JPEGLSNearLossless_16")), tmp_path)
    header = pydicom.dcmread(result.paths[0])
    assert header.LossyImageCompression == "01"
    assert header.LossyImageCompressionMethod == "ISO_14495_1"


def test_big_endian_words_are_swapped(tmp_path):
    dataset = pydicom.dcmread(bundled("MR_small_bigendian"))
    overlay = np.arange(512, dtype=">u2")
    dataset.add_new((0x6000, 0x0010), "US", 64)
    dataset.add_new((0x6000, 0x3000), "OW", overlay.tobytes())
    dataset.save_as(tmp_path / "in.dcm")
    result = write(open_volume(tmp_path / "in.dcm"), tmp_path / "out")
    header = pydicom.dcmread(result.paths[0])
    assert header[0x6000, 0x3000].value == overlay.astype("<u2").tobytes()
    np.testing.assert_array_equal(header.pixel_array, dataset.pixel_array)


def test_curves_of_implicit_files_are_kept(tmp_path):
    dataset = pydicom.dcmread(bundled("MR_small_implicit"))
    dataset.add_new((0x5000, 0x0005), "US", 1)
    dataset.add_new((0x5000, 0x3000), "OW", b"\1\2\3\4")
    dataset.save_as(tmp_path / "in.dcm")
    result = write(open_volume(tmp_path / "in.dcm"), tmp_path / "out")
    assert pydicom.dcmread(result.paths[0])[0x5000, 0x3000].value == b"\1\2\3\4"


def test_files_without_preamble_and_deflated(tmp_path):
    plain = pydicom.dcmread(bundled("CT_small"))
    content = bundled("CT_small").read_bytes()
    plain.save_as(tmp_path / "plain.dcm")
    offset = 132 + 12 + plain.file_meta[0x0002, 0x0000].value
    (tmp_path / "bare").write_bytes(content[offset:])
    expected = open_volume(bundled("CT_small")).read(0)
    np.testing.assert_array_equal(open_volume(tmp_path / "bare").read(0), expected)
    deflated = copy.deepcopy(plain)
    deflated.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    deflated.save_as(tmp_path / "deflated.dcm")
    np.testing.assert_array_equal(open_volume(tmp_path / "deflated.dcm").read(0), expected)
    result = write(open_volume(tmp_path / "bare"), tmp_path / "out")
    np.testing.assert_array_equal(result.read(0), expected)


def test_series_are_grouped_and_sorted_along_the_normal(tmp_path):
    def add(name, z, number, **changes):
        single(
            tmp_path, name, SOPInstanceUID=pydicom.uid.generate_uid(), InstanceNumber=number,
            ImagePositionPatient=[0, 0, z], pixels=np.full((4, 5), number, np.int16), **changes,
        )  # fmt: skip

    (tmp_path / "a").mkdir()
    for number, z in enumerate((30.0, -5.0, 10.0, 2.5)):
        add(f"a/{number}", z, number)
    # a localizer of the same series, and another series in the same folder
    add("a/scout", 0.0, 9, ImageOrientationPatient=[0, 1, 0, 0, 0, -1])
    for number in range(2):
        add(f"a/other{number}", 2.0 * number, number, SeriesInstanceUID="1.2.3")
    found = find(tmp_path)
    assert not found.problems
    by_length = {volume.length: volume for volume in found.volumes}
    assert sorted(by_length) == [1, 2, 4]
    assert [p.name for p in by_length[4].paths] == ["1", "3", "2", "0"]
    assert [by_length[4].read(i)[0, 0] for i in range(4)] == [-1023, -1021, -1022, -1024]
    assert by_length[1].name == "a/scout"
    assert by_length[4].name.startswith("a#")
    assert by_length[4].name != by_length[2].name
    patient = pydicom.dcmread(bundled("CT_small")).PatientID
    assert by_length[4].patient.endswith(f"|{patient}")
    assert patient not in repr(by_length[4])


def test_patients_whose_series_have_one_uid_stay_apart(tmp_path):
    places = {"a0": 0, "b0": 1, "a1": 2, "b1": 3, "a2": 4, "b2": 5}
    for name, place in places.items():
        single(tmp_path, name, PatientID=name[0], ImagePositionPatient=[0, 0, place])
    volumes = find(tmp_path).volumes
    assert sorted([path.name for path in volume.paths] for volume in volumes) == [
        ["a0", "a1", "a2"], ["b0", "b1", "b2"],
    ]  # fmt: skip
    # one file that does not name the patient leaves its series whole
    for name in ("b0", "b1", "b2"):
        (tmp_path / name).unlink()
    single(tmp_path, "a1", PatientID=None, ImagePositionPatient=[0, 0, 2])
    assert find(tmp_path).volumes[0].length == 3


def test_many_private_elements_are_not_copied_for_each_frame(tmp_path):
    path, _ = enhanced(tmp_path)
    header = pydicom.dcmread(path)
    header.private_block(0x2005, "vendor", create=True).add_new(0x0F, "SQ", [pydicom.Dataset()])
    flat = iods.flatten(header, 1)
    assert [element.tag for element in flat if element.tag.is_private] == []
    assert (0x2005, 0x100F) in header
    assert flat.ImagePositionPatient == [0, 0, 8]


def test_files_that_hold_no_usable_image(tmp_path):
    for name in ("rtstruct", "test-SR", "rtdose", "SC_rgb_rle", "examples_palette"):
        shutil.copy(bundled(name), tmp_path)
    shutil.copy(bundled("CT_small"), tmp_path)
    single(tmp_path, "slope.dcm", RescaleSlope=0)
    single(tmp_path, "rows.dcm", Rows=None)
    (tmp_path / "nothing").write_bytes(b"")
    (tmp_path / "garbage.dcm").write_bytes(b"\x08\x00" + bytes(range(256)) * 9)
    (tmp_path / "text.dcm").write_text("not an image\n" * 50)
    found = find(tmp_path)
    assert [volume.name for volume in found.volumes] == ["CT_small.dcm"]
    reasons = {problem.path.name: problem.reason for problem in found.problems}
    assert reasons["rtstruct.dcm"] == "not an image (RT Structure Set Storage)"
    assert "not an image" in reasons["test-SR.dcm"]
    assert "not an image" in reasons["rtdose.dcm"]
    assert "colour" in reasons["SC_rgb_rle.dcm"]
    assert "PALETTE" in reasons["examples_palette.dcm"]
    assert "RescaleSlope" in reasons["slope.dcm"]
    assert {"garbage.dcm", "text.dcm"} <= set(reasons)
    harmless = {problem.path.name for problem in found.problems if problem.harmless}
    assert harmless == {"rtstruct.dcm", "test-SR.dcm", "rtdose.dcm"}
    assert reasons["nothing"] == "not a DICOM file"


def test_truncated_pixels(tmp_path):
    with pytest.raises(ValueError, match="cannot decode pixels"):
        open_volume(bundled("MR_truncated")).read(0)


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
        tracemalloc.start()
        write(volume, folder / "out")
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result

    peak(2)
    assert peak(12) < 1.2 * peak(3)


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
