"""zoo.imaging.dicom.read: which files are one series, and whose."""

import numpy as np
import pydicom
import pydicom.uid

from dicom_files import bundled, single
from zoo.imaging.files import find


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
