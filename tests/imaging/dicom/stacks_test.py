"""zoo.imaging.dicom.stacks: which slices are neighbours."""

import numpy as np
import pydicom
import pydicom.uid
import pytest
from pydicom.tag import Tag

from dicom_files import bundled, enhanced, item, series
from stand_in import Model, translate
from zoo.imaging.files import find, open_volume


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
