"""Tests of what zoo.imaging.dicom.read believes of a header: damage, frames, neighbours, units."""

import struct
import tracemalloc
import zlib

import numpy as np
import pydicom
import pydicom.encaps
import pydicom.uid
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from dicom_files import bundled, dciodvfy, enhanced, item, series, single
from stand_in import Model
from zoo.domain import Domain
from zoo.imaging.dicom import pet, pixels
from zoo.imaging.files import find, open_volume
from zoo.inference import predict


def translate(model, source, target, **options):
    return predict.translate(model, source, target, progress=False, **options)


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
    entry = item(ModalityLUTType="HU")
    entry.add_new("LUTDescriptor", "US", [0, 0, 16])
    entry.add_new("LUTData", "US", [1, 2, 3])
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


def nested(content):
    """CT_small with sequences in sequences, 3000 deep."""
    inner = b""
    for _ in range(3000):
        inner = struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner
        inner = struct.pack("<HH2sHI", 8, 0x2112, b"SQ", 0, len(inner)) + inner
    place = content.find(struct.pack("<HH", 0x0010, 0x0010))
    return content[:place] + inner + content[place:]


def unknown_vr(content):
    place = content.find(struct.pack("<HH2s", 0x0028, 0x1053, b"DS"))
    return content[: place + 4] + b"D@" + content[place + 6 :]


@pytest.mark.parametrize("damage", [nested, unknown_vr, lambda content: content[:700]])
def test_what_pydicom_throws_is_one_line(tmp_path, damage):
    folder = series(tmp_path / "in", 3)
    (folder / "1.dcm").write_bytes(damage((folder / "1.dcm").read_bytes()))
    report = translate(Model(), folder, tmp_path / "out")
    assert {path.name for path in report.outputs} >= {"0.dcm", "2.dcm"}
    for problem in report.skipped:
        assert problem.path.name == "1.dcm"
        assert problem.reason.strip()
        assert "\n" not in problem.reason


def test_a_decoder_that_panics_is_contained(tmp_path):
    dataset = pydicom.dcmread(bundled("MR_small_RLE"))
    dataset.Rows = 63
    dataset.save_as(tmp_path / "bad.dcm")
    with pytest.raises(ValueError, match="cannot decode pixels: [^\n]+$"):
        open_volume(tmp_path / "bad.dcm").read(0)


@pytest.mark.parametrize(
    "name", ["MR_small_jp2klossless", "MR_small_jpeg_ls_lossless", "JPEG2000", "JPGExtended"]
)
def test_a_compressed_frame_of_another_size_is_refused_before_it_is_decoded(tmp_path, name):
    dataset = pydicom.dcmread(bundled(name))
    size = dataset.Rows, dataset.Columns
    frame = pydicom.encaps.get_frame(dataset.PixelData, 0)
    assert pixels.coded_size(frame) == size
    dataset.Rows += 1
    dataset.save_as(tmp_path / "bad.dcm")
    with pytest.raises(ValueError, match=rf"Rows, Columns: .*\[{size[0]}, {size[1]}\]"):
        open_volume(tmp_path / "bad.dcm").read(0)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_header_that_asks_for_gigabytes_asks_in_vain(tmp_path, compressed):
    dataset = pydicom.dcmread(bundled("MR_small_RLE" if compressed else "MR_small"))
    dataset.Rows = dataset.Columns = 65_535
    dataset.save_as(tmp_path / "bad.dcm")
    tracemalloc.start()
    found = find(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not found.volumes
    assert "bytes can hold" in found.problems[0].reason
    assert peak < 20e6


def deflated(tmp_path, content):
    """A deflated file whose data set is the one given, as bytes."""
    syntax = pydicom.uid.DeflatedExplicitVRLittleEndian.encode()
    meta = struct.pack("<HH2sH", 2, 0x10, b"UI", len(syntax)) + syntax
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    path = tmp_path / "deflated.dcm"
    path.write_bytes(bytes(128) + b"DICM" + meta + deflate.compress(content) + deflate.flush())
    return path


def test_a_deflated_bomb_is_not_inflated(tmp_path):
    content = bundled("CT_small").read_bytes()
    begin = content.find(struct.pack("<HH", 8, 5))
    path = deflated(tmp_path, content[begin:])
    expected = open_volume(bundled("CT_small")).read(0)
    np.testing.assert_array_equal(open_volume(path).read(0), expected)
    length = struct.pack("<HH2sHI", 9, 0x1010, b"OB", 0, 200 << 20)
    bomb = deflated(tmp_path, length + bytes(200 << 20) + content[begin:])
    tracemalloc.start()
    found = find(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "deflated data set" in found.problems[0].reason
    assert peak < 150e6


def test_a_deflated_file_that_ends_too_early(tmp_path):
    content = bundled("CT_small").read_bytes()
    path = deflated(tmp_path, content[content.find(struct.pack("<HH", 8, 5)) :])
    path.write_bytes(path.read_bytes()[:-2000])
    assert "deflated data set" in find(path).problems[0].reason


# Compressed frames.


def compressed(tmp_path, fragments, offsets=None, frames=3):
    """The enhanced CT with RLE frames in so many fragments each, and a table of offsets."""
    path, physical = enhanced(tmp_path)
    dataset = pydicom.dcmread(path)
    dataset.compress(pydicom.uid.RLELossless)
    coded = list(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=3))
    data = pydicom.encaps.encapsulate(coded[:frames], fragments, has_bot=True)
    if offsets is not None:
        table = struct.pack(f"<{len(offsets)}L", *offsets)
        data = data[:4] + struct.pack("<L", len(table)) + table + data[8 + 4 * frames :]
    dataset.PixelData = data
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)
    return path, physical


@pytest.mark.parametrize("fragments, offsets", [(1, None), (2, None), (1, []), (1, [5, 3, 9])])
def test_frames_are_found_by_fragments_or_by_a_table_that_is_right(tmp_path, fragments, offsets):
    path, physical = compressed(tmp_path, fragments, offsets)
    volume = open_volume(path)
    np.testing.assert_array_equal([volume.read(i) for i in range(3)], physical[::-1])


@pytest.mark.parametrize("offsets", [[0, 6, 9], [0, 4_000_000_000, 8], [0], [8, 8, 8]])
def test_a_table_that_lies_is_refused(tmp_path, offsets):
    path, _ = compressed(tmp_path, 2, offsets)
    (problem,) = find(path).problems
    assert "Offset Table" in problem.reason


def test_fewer_frames_than_announced_are_refused(tmp_path):
    path, _ = compressed(tmp_path, 1, frames=2)
    assert "Received: " in find(path).problems[0].reason


def test_an_enhanced_file_is_parsed_once_and_read_in_time(tmp_path, monkeypatch):
    path, _ = enhanced(tmp_path, frames=96, shape=(128, 128))
    parsed, decoded = [], []
    parse, decode = pydicom.dcmread, pixels.Pixels.read
    monkeypatch.setattr(pydicom, "dcmread", lambda *a, **k: parsed.append(1) or parse(*a, **k))
    monkeypatch.setattr(
        pixels.Pixels, "read", lambda self, number: decoded.append(number) or decode(self, number)
    )
    report = translate(Model(), path, tmp_path / "out")
    assert report.done == 1
    assert len(parsed) == 3  # for the search, the output's SeriesNumber and its header
    assert sorted(decoded) == list(range(96))
    whole = parse(path).pixel_array
    np.testing.assert_array_equal(parse(report.outputs[0]).pixel_array, whole)


# Enhanced objects.


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


# Neighbours.


def points(tmp_path, times, places, **changes):
    """MR slices whose value is 100 x time + place; a change is a function of (time, place)."""
    tmp_path.mkdir(exist_ok=True)
    dataset = pydicom.dcmread(bundled("MR_small"))
    for keyword in ("PixelPaddingValue", "AcquisitionTime", "ContentTime"):
        dataset.pop(keyword, None)
    dataset.Rows = dataset.Columns = 4
    for t in range(times):
        for z in range(places):
            dataset.InstanceNumber = 1 + t * places + z
            dataset.SOPInstanceUID = pydicom.uid.generate_uid()
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            dataset.ImagePositionPatient = [0, 0, 3.0 * z]
            for keyword, change in changes.items():
                setattr(dataset, keyword, change(t, z))
            dataset.PixelData = np.full((4, 4), 100 * (t + 1) + z, np.int16).tobytes()
            dataset.save_as(tmp_path / f"{t}_{z}.dcm")
    return tmp_path


def neighbours(volume):
    return [volume.stack(i, 3)[0, 0].astype(int).tolist() for i in range(volume.length)]


def expected(t, places=4):
    values = [100 * (t + 1) + min(max(z, 0), places - 1) for z in range(-1, places + 1)]
    return [values[z : z + 3] for z in range(places)]


@pytest.mark.parametrize(
    "changes",
    [
        {"AcquisitionNumber": lambda t, z: t + 1},
        {"TemporalPositionIdentifier": lambda t, z: t + 1},
        {"EchoNumbers": lambda t, z: t + 1},
        {"EchoTime": lambda t, z: 2.3 * (t + 1)},
        {"DiffusionBValue": lambda t, z: 500.0 * t},
        {"DiffusionGradientOrientation": lambda t, z: [float(t == 0), float(t == 1), 0.0]},
        {"ImageType": lambda t, z: ["ORIGINAL", "PRIMARY", "MPR"[t]]},
        {"AcquisitionTime": lambda t, z: f"1200{t:02}"},
        # of each slice its own: told apart by order
        {"TriggerTime": lambda t, z: 30.0 * z + 200 * t},
        {"InstanceNumber": lambda t, z: 1 + 3 * z + t},
        {},
        # an echo of each of two contrasts
        {"EchoTime": lambda t, z: 2.3 * (t % 2), "FlipAngle": lambda t, z: 10 * (t // 2)},
    ],
)
@pytest.mark.parametrize("times", [2, 3])
def test_slices_of_other_times_are_no_neighbours(tmp_path, changes, times):
    folder = points(tmp_path, times, 4, **changes)
    found = find(folder)
    assert not found.problems
    assert len({volume.name for volume in found.volumes}) == times
    volumes = sorted(found.volumes, key=lambda volume: volume.read(0)[0, 0])
    assert [neighbours(volume) for volume in volumes] == [expected(t) for t in range(times)]
    assert sorted(volume.number for volume in volumes) == list(range(times))
    assert {volume.slice_spacing for volume in volumes} == {3}


def test_a_time_point_that_lacks_a_slice_keeps_to_itself(tmp_path):
    folder = points(tmp_path, 2, 4, AcquisitionNumber=lambda t, z: t + 1)
    (folder / "0_1.dcm").unlink()
    by_length = {volume.length: volume for volume in find(folder).volumes}
    assert neighbours(by_length[4]) == expected(1)
    assert neighbours(by_length[3])[1] == [100, 102, 103]


def test_where_nothing_tells_which_slices_are_neighbours_none_are(tmp_path):
    folder = points(tmp_path, 2, 3)
    (folder / "0_1.dcm").unlink()
    found = find(folder)
    assert [volume.length for volume in found.volumes] == [1] * 5
    report = translate(Model(), folder, tmp_path / "out")
    assert {path.name for path in report.outputs} == {path.name for path in folder.glob("*.dcm")}


def test_copies_of_a_slice_do_not_break_its_series(tmp_path):
    folder = points(tmp_path, 1, 4)
    (folder / "copy.dcm").write_bytes((folder / "0_2.dcm").read_bytes())
    by_length = {volume.length: volume for volume in find(folder).volumes}
    assert neighbours(by_length[4]) == expected(0)
    assert [path.name for path in by_length[1].paths] == ["copy.dcm"]


def test_a_slice_taken_once_more_does_not_break_its_series(tmp_path):
    folder = points(tmp_path, 1, 12)
    dataset = pydicom.dcmread(folder / "0_5.dcm")
    dataset.SOPInstanceUID, dataset.InstanceNumber = pydicom.uid.generate_uid(), 99
    dataset.save_as(folder / "again.dcm")
    by_length = {volume.length: volume for volume in find(folder).volumes}
    assert neighbours(by_length[12]) == expected(0, 12)
    assert [path.name for path in by_length[1].paths] == ["again.dcm"]


def test_every_output_of_a_time_series_keeps_its_file(tmp_path):
    folder = points(tmp_path / "in", 3, 4, AcquisitionNumber=lambda t, z: t + 1)
    report = translate(Model(slices=3), folder, tmp_path / "out")
    assert len(report.outputs) == 12
    for path in report.outputs:
        t, z = (int(part) for part in path.stem.split("_"))
        before, own, after = expected(t)[z]
        value = before * 10_000 + own * 100 + after
        written = open_volume(path)
        assert abs(written.read(0)[0, 0] - value) <= written.frames[0].encoding.slope
    assert len({pydicom.dcmread(path).SeriesInstanceUID for path in report.outputs}) == 1


@pytest.mark.parametrize(
    "sequence, keyword, values",
    [
        ("FrameContentSequence", "TemporalPositionIndex", (1, 2)),
        ("FrameContentSequence", "StackID", ("a", "b")),
        ("FrameContentSequence", "DimensionIndexValues", ([1, 1], [2, 1])),
        ("MRDiffusionSequence", "DiffusionBValue", (0.0, 1000.0)),
        ("MREchoSequence", "EffectiveEchoTime", (2.3, 4.6)),
        ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime", (10.0, 200.0)),
        (None, None, None),
    ],
)
@pytest.mark.parametrize("interleaved", [False, True])
def test_frames_of_other_times_are_no_neighbours(tmp_path, sequence, keyword, values, interleaved):
    path, _ = enhanced(tmp_path, frames=6)
    dataset = pydicom.dcmread(path)
    stored = np.zeros((6, 6, 8), "<u2")
    for k, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        t, z = (k % 2, k // 2) if interleaved else (k // 3, k % 3)
        stored[k] = 1024 + 100 * (t + 1) + z
        group.PlanePositionSequence[0].ImagePositionPatient = [0, 0, 2.0 * z]
        if sequence:
            setattr(group, sequence, [item(**{keyword: values[t]})])
    dataset.PixelData = stored.tobytes()
    dataset.save_as(path)
    volume = open_volume(path)
    assert neighbours(volume) == expected(0, 3) + expected(1, 3)
    assert volume.slice_spacing is None
    assert volume.affine is None
    (output,) = translate(Model(), path, tmp_path / "out").outputs
    np.testing.assert_array_equal(pydicom.dcmread(output).pixel_array, stored)
    model = Model(dimensions=3)
    assert "equal distances" in translate(model, path, tmp_path / "volume").skipped[0].reason


def test_a_volume_side_by_side_in_one_image_is_refused(tmp_path):
    kind = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
    single(tmp_path, "mosaic.dcm", Modality="MR", ImageType=kind)
    single(tmp_path, "slice.dcm")
    report = translate(Model(), tmp_path, tmp_path / "out")
    assert report.done == 1
    ((path, reason),) = report.skipped
    assert (path.name, "ImageType" in reason) == ("mosaic.dcm", True)


def test_frames_of_a_film_are_no_neighbours(tmp_path):
    dataset = pydicom.dcmread(bundled("MR_small"))
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelPaddingValue"):
        dataset.pop(keyword, None)
    dataset.Modality, dataset.NumberOfFrames, dataset.FrameTime = "XA", 3, 40
    dataset.SOPClassUID = pydicom.uid.XRayAngiographicImageStorage
    dataset.PixelData = dataset.PixelData * 3
    dataset.save_as(tmp_path / "slices.dcm")
    dataset.ImagePositionPatient = [0, 0, 0]  # of the first frame
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.save_as(tmp_path / "placed.dcm")
    dataset.FrameIncrementPointer = Tag("FrameTime")
    dataset.save_as(tmp_path / "film.dcm")
    for name, parts in {"slices": [0, 0, 0], "placed": [0, 0, 0], "film": [0, 1, 2]}.items():
        assert [frame.part for frame in open_volume(tmp_path / f"{name}.dcm").frames] == parts


@pytest.mark.parametrize(
    "keyword, one, other",
    [
        ("PixelSpacing", ["0.703125"] * 2, ["0.70312"] * 2),
        ("PixelSpacing", ["0.7035"] * 2, ["0.70349999"] * 2),  # to three digits they differ
        ("ImageOrientationPatient", [1, 0, 0, 0, 1, 0], [1, "0.0005", 0, "-0.00051", 1, 0]),
    ],
)
def test_last_digits_do_not_break_a_series(tmp_path, keyword, one, other):
    folder = series(tmp_path / "in", 5)
    for i in range(5):
        dataset = pydicom.dcmread(folder / f"{i}.dcm")
        setattr(dataset, keyword, other if i % 2 else one)
        dataset.save_as(folder / f"{i}.dcm")
    volume = open_volume(folder)
    assert [path.name for path in volume.paths] == [f"{i}.dcm" for i in range(5)]
    dataset.PixelSpacing = [1.4, 1.4]
    dataset.save_as(folder / "4.dcm")
    assert sorted(volume.length for volume in find(folder).volumes) == [1, 4]


# Kinds of objects.

STORAGE = "1.2.840.10008.5.1.4.1.1"


@pytest.mark.parametrize(
    "change",
    [
        {"SOPClassUID": f"{STORAGE}.66.7"},  # Label Map Segmentation
        {"SOPClassUID": f"{STORAGE}.66.99"},
        {"SOPClassUID": f"{STORAGE}.30"},
        {"SOPClassUID": f"{STORAGE}.481.2"},
        {"SOPClassUID": f"{STORAGE}.11.99"},
        {"SOPClassUID": f"{STORAGE}.9.1.1"},
        {"SegmentationType": "LABELMAP"},
        {"SegmentSequence": [item(SegmentNumber=1)]},
        {"DoseGridScaling": 0.001},
    ],
)
def test_what_is_no_image_is_harmless(tmp_path, change):
    single(tmp_path, **change)
    found = find(tmp_path)
    assert not found.volumes
    assert found.problems[0].harmless


@pytest.mark.parametrize("uid", [f"{STORAGE}.481.1", f"{STORAGE}.2", f"{STORAGE}.999"])
def test_images_of_radiotherapy_and_of_new_classes_are_images(tmp_path, uid):
    assert open_volume(single(tmp_path, SOPClassUID=uid)).shape == (128, 128)


# MONOCHROME1.


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
    entry = item(ModalityLUTType="US")
    entry.add_new("LUTDescriptor", "US", [64, 0, entries])
    entry.add_new("LUTData", "US", values.tolist())
    path = single(
        tmp_path, pixels=np.arange(64, dtype=np.uint16).reshape(8, 8), Modality="CR",
        SOPClassUID=pydicom.uid.ComputedRadiographyImageStorage, BitsStored=stored,
        PhotometricInterpretation="MONOCHROME1", HighBit=stored - 1, PixelRepresentation=0,
        PixelPaddingValue=None, RescaleSlope=None, RescaleIntercept=None,
        ModalityLUTSequence=[entry],
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
        paths = [
            single(
                tmp_path, f"{name}{p}.dcm", PhotometricInterpretation=f"MONOCHROME{p}", **changes
            )
            for p in (1, 2)
        ]
        one, two = (open_volume(path).read(0) for path in paths)
        np.testing.assert_array_equal(one, two)


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


# Units.

HALF_LIFE = 6586.2  # s, of fluorine-18


def scan(tmp_path, name="pet.dcm", **changes):
    """A PET slice of 0, 2, 4, ... Bq/ml; 370 MBq at 11:00 for 70 kg, scanned at 12:00."""
    drug = item(
        RadionuclideTotalDose=370e6,
        RadionuclideHalfLife=HALF_LIFE,
        RadiopharmaceuticalStartTime="110000",
    )
    drug.update({k: v for k, v in changes.items() if k.startswith("Radi") and v is not None})
    for keyword in [k for k, v in changes.items() if k.startswith("Radi") and v is None]:
        del drug[keyword]
    fields = {
        "SOPClassUID": pydicom.uid.PositronEmissionTomographyImageStorage,
        "Modality": "PT", "Units": "BQML", "PatientWeight": 70, "DecayCorrection": "START",
        "CorrectedImage": ["ATTN", "DECY"], "RescaleSlope": 2, "RescaleIntercept": 0,
        "SeriesDate": "20200102", "SeriesTime": "120000", "AcquisitionDate": "20200102",
        "AcquisitionTime": "120500", "RadiopharmaceuticalInformationSequence": [drug],
        "RescaleType": None, "PixelPaddingValue": None, "WindowCenter": 1000, "WindowWidth": 2000,
    }  # fmt: skip
    fields |= {k: v for k, v in changes.items() if not k.startswith("Radi")}
    present = pydicom.dcmread(bundled("CT_small"))
    fields = {k: v for k, v in fields.items() if v is not None or k in present}
    pixels = np.arange(64, dtype=np.int16).reshape(8, 8)
    return single(tmp_path, name, pixels=pixels, **fields)


def decayed(seconds):
    return 70_000 / (370e6 * 0.5 ** (seconds / HALF_LIFE))


@pytest.mark.parametrize(
    "changes, factor",
    [
        ({}, decayed(3600)),
        ({"DecayCorrection": "ADMIN"}, decayed(0)),
        ({"DecayCorrection": "ADMIN", "RadionuclideHalfLife": None}, decayed(0)),
        ({"SeriesTime": "120000.500000"}, decayed(3600.5)),
        ({"RadiopharmaceuticalStartTime": "101530.25"}, decayed(6269.75)),
        ({"RadiopharmaceuticalStartDateTime": "20200102103000.00"}, decayed(5400)),
        # in the time zone of the scan, in another, and where that of the scan is not known
        ({"TimezoneOffsetFromUTC": "+0100",
          "RadiopharmaceuticalStartDateTime": "20200102103000+0100"}, decayed(5400)),
        ({"TimezoneOffsetFromUTC": "+0100",
          "RadiopharmaceuticalStartDateTime": "20200102040000.0-0530"}, decayed(5400)),
        ({"TimezoneOffsetFromUTC": None,
          "RadiopharmaceuticalStartDateTime": "20200102103000+0900"}, decayed(5400)),
        # over midnight, with and without a date
        ({"SeriesTime": "001000", "AcquisitionTime": "001200",
          "RadiopharmaceuticalStartTime": "233000"}, decayed(2400)),
        ({"SeriesTime": "001000", "AcquisitionTime": "001200",
          "RadiopharmaceuticalStartDateTime": "20200101233000"}, decayed(2400)),
        # a series made after the scan
        ({"SeriesTime": "150000"}, decayed(3900)),
        ({"SeriesTime": "150000", "FrameReferenceTime": 300_000, "ActualFrameDuration": 1000},
         decayed(3600.5)),
        ({"SeriesTime": None, "SeriesDate": None}, decayed(3900)),
        ({"Units": "GML"}, 1.0),
        ({"PatientWeight": 35}, decayed(3600) / 2),
    ],
)  # fmt: skip
def test_pet_becomes_suv_by_its_header(tmp_path, changes, factor):
    volume = open_volume(scan(tmp_path, **changes))
    suv = volume.in_unit("SUV")
    assert suv.unit == "SUV"
    np.testing.assert_allclose(suv.read(0), volume.read(0) * factor, rtol=1e-5)
    assert volume.unit == ("SUV" if changes.get("Units") == "GML" else "Bq/ml")


def test_vendors_own_fields(tmp_path):
    dataset = pydicom.dcmread(scan(tmp_path, SeriesTime="150000"))
    dataset.private_block(0x0009, "GEMS_PETD_01", create=True).add_new(0x0D, "DT", "20200102113000")
    assert pet.suv_factors([dataset]) == pytest.approx([decayed(1800)])
    dataset = pydicom.dcmread(scan(tmp_path, Units="CNTS"))
    with pytest.raises(ValueError, match=r"\(7053,1000\)"):
        pet.suv_factors([dataset])
    dataset.add_new((0x7053, 0x1009), "DS", "3.5")
    assert pet.suv_factors([dataset]) == pytest.approx([3.5 * decayed(3600)])
    dataset.add_new((0x7053, 0x1000), "UN", b"0.0 ")  # as files without VRs give it
    assert pet.suv_factors([dataset]) == pytest.approx([3.5 * decayed(3600)])
    dataset.add_new((0x7053, 0x1000), "DS", "0.25")
    assert pet.suv_factors([dataset]) == [0.25]


@pytest.mark.parametrize(
    "field, value",
    [
        ("PatientWeight", None),
        ("PatientWeight", 0),
        ("PatientWeight", 70_000),
        ("RadionuclideTotalDose", 370),
        ("RadionuclideTotalDose", None),
        ("RadionuclideHalfLife", None),
        ("RadiopharmaceuticalStartTime", None),
        pytest.param(
            "RadiopharmaceuticalStartTime",
            "noon",
            marks=pytest.mark.filterwarnings("ignore:Invalid value"),
        ),
        ("DecayCorrection", "NONE"),
        ("DecayCorrection", None),
        ("CorrectedImage", ["DECY"]),
        ("CorrectedImage", ["ATTN"]),
        ("Units", None),
        ("Units", "PROPCPS"),
    ],
)
def test_pet_without_a_field_is_refused_by_its_name(tmp_path, field, value):
    scan(tmp_path, "pet.dcm", **{field: value})
    model = Model(source=Domain(modality="PT", unit="SUV", window=(0, 15)))
    report = translate(model, tmp_path, tmp_path / "out")
    assert report.done == 0
    (problem,) = report.skipped
    assert field in problem.reason
    assert "\n" not in problem.reason


def test_pet_of_another_body_size_is_not_suv_by_weight(tmp_path):
    volume = open_volume(scan(tmp_path, Units="GML", SUVType="LBM"))
    assert volume.unit == "SUV (LBM)"
    with pytest.raises(ValueError, match="SUVType"):
        volume.in_unit("SUV")


def test_translated_pet_says_that_it_is_suv(tmp_path):
    path = scan(tmp_path)
    domain = Domain(modality="PT", unit="SUV", window=(0, 15))
    model = Model(plus=1.5, source=domain, target=domain)
    (output,) = translate(model, path, tmp_path / "out").outputs
    header = pydicom.dcmread(output)
    assert header.Units == "GML"
    assert (header.WindowCenter, header.WindowWidth) == (7.5, 15)
    expected = np.arange(64).reshape(8, 8) * 2 * decayed(3600) + 1.5
    values = header.pixel_array * float(header.RescaleSlope) + float(header.RescaleIntercept)
    assert np.abs(values - expected).max() <= float(header.RescaleSlope) * 0.51
    again = open_volume(output)
    assert again.unit == "SUV"
    np.testing.assert_allclose(again.read(0), values, rtol=1e-5)
    assert dciodvfy(output) - dciodvfy(path) == set()


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
