"""zoo.imaging.dicom.iods: objects of the modality that an image was translated into."""

import numpy as np
import pydicom
import pydicom.uid
import pytest

from dicom_files import bundled, dciodvfy, derivation, enhanced, refuse, single, write
from zoo.domain import Domain
from zoo.imaging.dicom import iods
from zoo.imaging.dicom.write import write as write_series
from zoo.imaging.files import open_volume

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
    names = {"CT": "CT", "MR": "MR", "PT": "Positron Emission Tomography"}
    name = f"{names.get(target.modality, 'Secondary Capture')} Image Storage"
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
        assert header.Modality == target.modality
        assert header.FrameOfReferenceUID == before.FrameOfReferenceUID
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


@pytest.mark.parametrize(
    "kind",
    [
        "CT", "MR", "SecondaryCapture", "PositronEmissionTomography", "NuclearMedicine",
        "LegacyConvertedEnhancedCT", "LegacyConvertedEnhancedMR", "LegacyConvertedEnhancedPET",
        "EnhancedMRColor", "VLWholeSlideMicroscopy", "BreastTomosynthesis", "XRay3DAngiographic",
        "OphthalmicPhotography16Bit",
    ],
)  # fmt: skip
def test_image_type_is_of_the_values_that_the_class_knows(tmp_path, kind):
    expected = "SECONDARY" if kind in ("CT", "MR", "SecondaryCapture") else "PRIMARY"
    uid = getattr(pydicom.uid, f"{kind}ImageStorage")
    path = single(tmp_path, SOPClassUID=uid, ImageType=["ORIGINAL", "PRIMARY", "X"])
    result = write(open_volume(path), tmp_path / "out")
    assert list(pydicom.dcmread(result.paths[0]).ImageType) == ["DERIVED", expected, "X"]
    wrong = [line for line in dciodvfy(result.paths[0]) if f"<{expected}>" in line]
    assert not wrong


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


def test_many_private_elements_are_not_copied_for_each_frame(tmp_path):
    path, _ = enhanced(tmp_path)
    header = pydicom.dcmread(path)
    header.private_block(0x2005, "vendor", create=True).add_new(0x0F, "SQ", [pydicom.Dataset()])
    flat = iods.flatten(header, 1)
    assert [element.tag for element in flat if element.tag.is_private] == []
    assert (0x2005, 0x100F) in header
    assert flat.ImagePositionPatient == [0, 0, 8]
