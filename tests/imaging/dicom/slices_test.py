"""What zoo.imaging.dicom.slices believes of a header: damage, rescale, frames, polarity."""

import numpy as np
import pydicom
import pydicom.uid
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from dicom_files import dciodvfy, enhanced, item, lookup_table, series, single
from stand_in import Model, translate
from zoo.domain import Domain
from zoo.imaging.files import find, open_volume


def raw(keyword, vr, value):
    """A change of a dataset that no check of pydicom sees."""
    tag = Tag(keyword)
    element = RawDataElement(tag, vr, len(value), value, 0, False, True)
    return lambda dataset: dataset.__setitem__(tag, element)


def absent(*keywords):
    def change(dataset):
        for keyword in keywords:
            del dataset[keyword]

    return change


def table(*items):
    def change(dataset):
        absent("RescaleSlope", "RescaleIntercept")(dataset)
        dataset.ModalityLUTSequence = list(items)

    return change


def short_table():
    entry = lookup_table([1, 2, 3], kind="HU")
    entry.LUTDescriptor[0] = 0
    return table(entry)


DAMAGE = [
    ("PixelPaddingValue", raw("PixelPaddingValue", "SS", b"\1\0\2\0\3\0")),
    ("RescaleSlope", raw("RescaleSlope", "DS", b"one ")),
    ("RescaleSlope", raw("RescaleSlope", "DS", b"nan ")),
    ("RescaleSlope", raw("RescaleSlope", "DS", b"0 ")),
    ("RescaleSlope", absent("RescaleSlope", "RescaleIntercept")),
    ("RescaleSlope", table()),
    ("RescaleIntercept", raw("RescaleIntercept", "DS", b"1\\2 ")),
    ("PixelSpacing", raw("PixelSpacing", "DS", b"inf\\inf ")),
    ("PixelSpacing", raw("PixelSpacing", "DS", b"1 ")),
    ("ImagePositionPatient", raw("ImagePositionPatient", "DS", b"0\\0 ")),
    ("ImagePositionPatient", absent("ImagePositionPatient")),
    ("ImageOrientationPatient", raw("ImageOrientationPatient", "DS", b"1\\x\\0\\0\\1\\0")),
    ("NumberOfFrames", raw("NumberOfFrames", "IS", b"99999999")),
    ("NumberOfFrames", raw("NumberOfFrames", "IS", b"-3")),
    ("NumberOfFrames", raw("NumberOfFrames", "IS", b"many")),
    ("Rows", raw("Rows", "US", b"\xff\xff")),
    ("Rows", raw("Rows", "US", b"\1\0\2\0")),
    ("BitsStored", raw("BitsStored", "US", b"\x11\0")),
    ("HighBit", raw("HighBit", "US", b"\xff\0")),
    ("PixelRepresentation", raw("PixelRepresentation", "US", b"\7\0")),
    ("SamplesPerPixel", raw("SamplesPerPixel", "US", b"\1\0\1\0")),
    ("ModalityLUTSequence", table(item())),
    ("LUTData", short_table()),
    ("FunctionalGroupsSequence", raw("SharedFunctionalGroupsSequence", "LO", b"hello ")),
    ("FunctionalGroupsSequence", raw("PerFrameFunctionalGroupsSequence", "UT", b"hello ")),
]  # fmt: skip


@pytest.mark.parametrize("field, change", DAMAGE)
def test_one_bad_header_leaves_the_others_of_its_series(tmp_path, field, change):
    folder = series(tmp_path / "in", 4)
    dataset = pydicom.dcmread(folder / "2.dcm")
    change(dataset)
    dataset.save_as(folder / "2.dcm")
    found = find(folder)
    (volume,) = found.volumes
    assert [path.name for path in volume.paths] == ["0.dcm", "1.dcm", "3.dcm"]
    (problem,) = found.problems
    assert problem.path.name == "2.dcm"
    assert field in problem.reason
    assert "Received: " in problem.reason
    assert "\n" not in problem.reason
    assert not problem.harmless


def one_frame(tmp_path):
    path, physical = enhanced(tmp_path)
    dataset = pydicom.dcmread(path)
    dataset.NumberOfFrames = 1
    dataset.PerFrameFunctionalGroupsSequence = dataset.PerFrameFunctionalGroupsSequence[:1]
    dataset.PixelData = dataset.PixelData[: 6 * 8 * 2]
    return path, dataset, physical


def test_an_enhanced_object_of_one_frame_is_read_by_its_functional_groups(tmp_path):
    path, dataset, physical = one_frame(tmp_path)
    dataset.save_as(path)
    volume = open_volume(path)
    np.testing.assert_array_equal(volume.read(0), physical[0])
    assert (volume.spacing, volume.unit, volume.thickness) == ((0.5, 0.7), "HU", 2)
    assert volume.frames[0].position == (0, 0, 10)
    (output,) = translate(Model(), path, tmp_path / "out").outputs
    np.testing.assert_array_equal(open_volume(output).read(0), physical[0])
    assert dciodvfy(output) - dciodvfy(path) == set()


def test_enhanced_objects_of_one_frame_each_make_a_series(tmp_path):
    path, dataset, _ = one_frame(tmp_path)
    path.unlink()
    for number, z in enumerate((4, 0, 2)):
        place = dataset.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0]
        place.ImagePositionPatient = [0, 0, z]
        dataset.SOPInstanceUID = pydicom.uid.generate_uid()
        dataset.save_as(tmp_path / f"{number}.dcm")
    volume = open_volume(tmp_path)
    assert [p.name for p in volume.paths] == ["1.dcm", "2.dcm", "0.dcm"]
    assert volume.slice_spacing == 2


def test_a_frame_without_rescale_among_others_is_refused(tmp_path):
    path, _ = enhanced(tmp_path, slopes=(1.0, 2.0, 0.5))
    dataset = pydicom.dcmread(path)
    del dataset.PerFrameFunctionalGroupsSequence[1].PixelValueTransformationSequence
    dataset.save_as(path)
    assert "PixelValueTransformationSequence" in find(path).problems[0].reason


def test_a_frame_without_rescale_takes_the_shared_one(tmp_path):
    path, physical = enhanced(tmp_path, slopes=(1.0, 2.0, 0.5))
    dataset = pydicom.dcmread(path)
    own = dataset.PerFrameFunctionalGroupsSequence[1].PixelValueTransformationSequence
    dataset.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence = own
    del dataset.PerFrameFunctionalGroupsSequence[1].PixelValueTransformationSequence
    dataset.save_as(path)
    volume = open_volume(path)
    np.testing.assert_array_equal([volume.read(i) for i in range(3)], physical[::-1])
    for plus in (0, 20_000):
        (output,) = translate(Model(plus=plus), path, tmp_path / str(plus)).outputs
        result = open_volume(output)
        for i in range(3):
            assert np.abs(result.read(i) - physical[2 - i] - plus).max() <= 1


def test_stored_values_are_never_taken_for_hu(tmp_path):
    path, _ = enhanced(tmp_path)
    dataset = pydicom.dcmread(path)
    del dataset.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence
    dataset.save_as(path)
    assert open_volume(path).unit == "1"
    for lost in (["RescaleSlope", "RescaleIntercept"], ["RescaleIntercept"]):
        bare = single(tmp_path, "bare.dcm", **dict.fromkeys(lost))
        assert open_volume(bare).unit == "1"
    model = Model(source=Domain(modality="CT", unit="HU", window=(-1000, 1000)))
    report = translate(model, tmp_path, tmp_path / "out")
    assert report.done == 0
    assert all("RescaleType" in problem.reason for problem in report.skipped)


HU = Domain(modality="CT", unit="HU", window=(-1000, 1000))


@pytest.mark.parametrize(
    "changes, model, right",
    [
        ({}, HU, True),
        ({"RescaleType": "HU"}, HU, True),
        ({"RescaleType": "US"}, HU, False),
        ({"RescaleType": "Z_EFF"}, HU, False),
        ({"RescaleType": "Z_EFF"}, Domain(modality="CT", unit="1", window=(0, 9)), True),
        ({"Modality": "MR"}, Domain(modality="MR", unit="signal", window=(0, 9)), True),
        ({"Modality": "MR"}, Domain(unit="HU", window=(0, 9)), False),
        ({"Modality": "DX"}, Domain(modality="DX", unit="signal", window=(0, 9)), True),
        ({"Modality": "OT"}, HU, False),
    ],
)
def test_the_units_of_header_and_model_are_compared(tmp_path, changes, model, right):
    single(tmp_path, **changes)
    report = translate(Model(source=model, target=model), tmp_path, tmp_path / "out")
    assert (report.done, len(report.skipped)) == (int(right), int(not right))
    if not right:
        assert report.skipped[0].reason.startswith("unit: expected ")


def radiograph(tmp_path, name, pixels, turned, **changes):
    return single(
        tmp_path, name, pixels=pixels.astype(np.uint16), Modality="DX", PixelRepresentation=0,
        SOPClassUID=pydicom.uid.DigitalXRayImageStorageForPresentation, BitsStored=12, HighBit=11,
        PhotometricInterpretation="MONOCHROME1" if turned else "MONOCHROME2",
        PresentationLUTShape="INVERSE" if turned else "IDENTITY", RescaleType="US",
        RescaleIntercept=0, PixelPaddingValue=None, WindowCenter=1000, WindowWidth=300, **changes,
    )  # fmt: skip


def seen(path):
    """What a viewer shows of an image, white as 1: PS3.3 C.11.2 and C.7.6.3.1.2."""
    dataset = pydicom.dcmread(path)
    values = pydicom.pixels.apply_modality_lut(dataset.pixel_array, dataset)
    low = float(dataset.WindowCenter) - 0.5 - (float(dataset.WindowWidth) - 1) / 2
    shown = np.clip((values - low) / (float(dataset.WindowWidth) - 1), 0, 1)
    return 1 - shown if dataset.PhotometricInterpretation == "MONOCHROME1" else shown


def test_radiographs_read_alike_in_either_polarity(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 4096, (16, 16))
    plain = open_volume(radiograph(tmp_path, "2.dcm", pixels, turned=False))
    turned = open_volume(radiograph(tmp_path, "1.dcm", 4095 - pixels, turned=True))
    np.testing.assert_array_equal(plain.read(0), pixels)
    np.testing.assert_array_equal(turned.read(0), pixels)


@pytest.mark.parametrize("plus", [0, 37, 9000, -3000])
def test_a_turned_radiograph_is_written_as_it_was(tmp_path, plus):
    pixels = np.random.default_rng(0).integers(0, 4000, (16, 16))
    path = radiograph(tmp_path, "in.dcm", pixels, turned=True)
    (output,) = translate(Model(plus=plus), path, tmp_path / "out").outputs
    header = pydicom.dcmread(output)
    assert header.PhotometricInterpretation == "MONOCHROME1"
    np.testing.assert_array_equal(open_volume(output).read(0), open_volume(path).read(0) + plus)
    if plus == 0:
        np.testing.assert_array_equal(header.pixel_array, pixels)
    elif plus != 37:  # more bits do not move the window: brighter by so much in any viewer
        change = pydicom.pixels.apply_modality_lut(header.pixel_array, header) - pixels
        assert set(np.unique(change)) == {-plus}
    if plus >= 0:
        assert (seen(output) >= seen(path)).all()


@pytest.mark.parametrize(
    ("stored", "entries", "written", "plus"),
    [(12, 12, 12, 0), (12, 12, 16, -7), (12, 16, 16, 0), (16, 12, 12, 0), (16, 12, 16, -7)],
)
def test_a_turned_radiograph_with_a_table_fits_its_window(tmp_path, stored, entries, written, plus):
    values = np.random.default_rng(0).integers(0, 1 << entries, 64)
    values[0] = (1 << entries) - 1
    path = single(
        tmp_path, pixels=np.arange(64, dtype=np.uint16).reshape(8, 8), Modality="CR",
        SOPClassUID=pydicom.uid.ComputedRadiographyImageStorage, BitsStored=stored,
        PhotometricInterpretation="MONOCHROME1", HighBit=stored - 1, PixelRepresentation=0,
        PixelPaddingValue=None, RescaleSlope=None, RescaleIntercept=None,
        ModalityLUTSequence=[lookup_table(values.tolist(), bits=entries)],
    )  # fmt: skip
    brightness = (1 << entries) - 1 - values.reshape(8, 8)
    np.testing.assert_array_equal(open_volume(path).read(0), brightness)
    (output,) = translate(Model(plus=plus), path, tmp_path / "out").outputs
    np.testing.assert_array_equal(open_volume(output).read(0), brightness + plus)
    header = pydicom.dcmread(output)
    shown = header.pixel_array + float(header.get("RescaleIntercept", 0))
    np.testing.assert_array_equal(shown, values.reshape(8, 8) - plus)  # as before, for the window
    assert header.BitsStored == written


def test_monochrome1_is_not_turned_where_values_are_measured(tmp_path):
    for name, changes in {
        "ct": {},
        "mr": {"Modality": "MR"},
        "od": {"Modality": "DX", "RescaleType": "OD"},
    }.items():
        read = []
        for kind in ("MONOCHROME1", "MONOCHROME2"):
            path = single(tmp_path, f"{name}.dcm", PhotometricInterpretation=kind, **changes)
            read.append(open_volume(path).read(0))
        np.testing.assert_array_equal(*read)


def test_another_quantity_is_written_as_monochrome2(tmp_path):
    path = radiograph(tmp_path, "in.dcm", np.arange(256).reshape(16, 16), turned=True)
    model = Model(
        source=Domain(modality="DX", unit="1", window=(0, 4095)),
        target=Domain(modality="DX", unit="class", window=(0, 20)),
    )
    (output,) = translate(model, path, tmp_path / "out").outputs
    header = pydicom.dcmread(output)
    assert header.PhotometricInterpretation == "MONOCHROME2"
    assert header.PresentationLUTShape == "IDENTITY"
    classes = np.clip(open_volume(path).read(0) // 100, 0, 20)
    np.testing.assert_array_equal(header.pixel_array, classes)
    np.testing.assert_array_equal(open_volume(output).read(0), classes)
