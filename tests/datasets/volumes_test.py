"""publishers.volumes: any orientation comes out as one, with every voxel where it was."""

import itertools

import nibabel
import numpy as np
import pydicom
import pytest

import dummy_data
from zoo.imaging.files import open_volume
from zoo_datasets.publishers import volumes

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
CODES = [
    "".join(code)
    for pairs in itertools.permutations(["LR", "PA", "IS"])
    for code in itertools.product(*pairs)
]


def lump(shape=(6, 8, 10), seed=0):
    """Values that differ everywhere, [slice, row, column], as a CT has them."""
    rng = np.random.default_rng(seed)
    return rng.permutation(int(np.prod(shape))).reshape(shape).astype(np.int16) - 100


def tilted(degrees=0.0):
    """[4, 4], indices (i, j, k) to mm (right, front, up), turned about the long axis."""
    angle = np.deg2rad(degrees)
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([0.8, 0.9, 2.5])
    affine[:3, 3] = [-31.5, 12.25, 700]
    return affine


@pytest.mark.parametrize("degrees", [0, 20])
def test_nifti_of_any_axes_is_the_same_volume(tmp_path, degrees):
    assert len(CODES) == 48
    values, affine = lump((5, 6, 4)), tilted(degrees)
    scans = []
    for code in CODES:
        path = tmp_path / f"{code}.nii.gz"
        dummy_data.write_nifti(path, values, affine, code)
        assert nibabel.aff2axcodes(nibabel.load(path).affine) == tuple(code)
        scans.append(volumes.read_nifti(path))
    first = scans[0]
    assert first.values.dtype == np.float32 and first.values.shape == (4, 6, 5)
    np.testing.assert_allclose(first.spacing, [2.5, 0.9, 0.8], rtol=1e-6)
    assert nibabel.aff2axcodes(LPS @ first.affine) == ("S", "P", "L")
    for scan in scans[1:]:
        np.testing.assert_array_equal(scan.values, first.values)
        np.testing.assert_allclose(scan.affine, first.affine, atol=1e-4)
    # Every voxel is where the file's own affine had it.
    for index in np.ndindex(*values.shape):
        left_back_up = LPS @ affine @ [*index, 1]
        there = np.linalg.solve(first.affine, left_back_up)[:3]
        np.testing.assert_allclose(there, there.round(), atol=1e-3)
        assert first.values[tuple(there.round().astype(int))] == values[index]


# ImageOrientationPatient: axial from the feet and the head, prone, sagittal, coronal, oblique.
AXES = [
    (1, 0, 0, 0, 1, 0),
    (-1, 0, 0, 0, 1, 0),
    (-1, 0, 0, 0, -1, 0),
    (0, 1, 0, 0, 0, -1),
    (1, 0, 0, 0, 0, -1),
    (0.96, 0.28, 0, -0.28, 0.96, 0),
]


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("shuffle", [0, 1, 2])
def test_dicom_of_any_axes_and_order_is_hung_the_same(tmp_path, axes, shuffle):
    values = lump()
    order = [int(i) for i in np.random.default_rng(shuffle).permutation(len(values))]
    dummy_data.write_series(
        tmp_path / "series",
        values,
        axes=axes,
        order=order,
        origin=(-31.5, 12.25, 700),
        spacing=(2.5, 0.9, 0.8),
    )
    files = list((tmp_path / "series").glob("*.dcm"))
    scan = volumes.read_dicom(files, "CT")
    assert (scan.modality, scan.unit) == ("CT", "HU")
    assert nibabel.aff2axcodes(LPS @ scan.affine) == ("S", "P", "L")
    # The equation of PS3.3 C.7.6.2.1.1, file by file.
    for path in files:
        file = pydicom.dcmread(path)
        pixels = file.pixel_array.astype(float) - 1024
        across, down = np.array(file.ImageOrientationPatient, float).reshape(2, 3)
        for row, column in ((0, 0), (3, 7), (7, 9)):
            place = np.array(file.ImagePositionPatient, float)
            place = place + 0.8 * column * across + 0.9 * row * down
            there = np.linalg.solve(scan.affine, [*place, 1])[:3]
            np.testing.assert_allclose(there, there.round(), atol=1e-3)
            assert scan.values[tuple(there.round().astype(int))] == pixels[row, column]


@pytest.mark.parametrize("axes", AXES)
def test_affine_of_a_series_is_the_standards_equation(tmp_path, axes):
    dummy_data.write_series(
        tmp_path, lump(), axes=axes, origin=(-31.5, 12.25, 700), spacing=(2.5, 0.9, 0.8)
    )
    series = open_volume(tmp_path)
    for index, path in enumerate(series.paths):
        file = pydicom.dcmread(path)
        across, down = np.array(file.ImageOrientationPatient, float).reshape(2, 3)
        place = np.array(file.ImagePositionPatient, float) + 3 * 0.9 * down + 7 * 0.8 * across
        np.testing.assert_allclose(series.affine @ [3, 7, index, 1], LPS @ [*place, 1], atol=1e-9)
    series.paths[2].unlink()
    assert open_volume(tmp_path).affine is None  # no one matrix says where a gap is


def test_dicom_and_nifti_of_one_scan_are_the_same(tmp_path):
    values = lump()  # [slice, row, column] of an axial series: up, back, left
    dummy_data.write_series(
        tmp_path, values, origin=(-3.0, 5.0, 7.0), spacing=(2.5, 0.9, 0.8), order=[5, 0, 3, 1, 4, 2]
    )
    affine = np.array([[0, 0, 0.8, -3], [0, 0.9, 0, 5], [2.5, 0, 0, 7], [0, 0, 0, 1]])
    dummy_data.write_nifti(tmp_path / "scan.nii", values, LPS @ affine, "RAS")
    dicom = volumes.read_dicom(tmp_path.glob("*.dcm"))
    nifti = volumes.read_nifti(tmp_path / "scan.nii")
    np.testing.assert_array_equal(dicom.values, values)
    np.testing.assert_array_equal(nifti.values, values)
    np.testing.assert_allclose(dicom.affine, affine, atol=1e-5)
    assert dicom.same_grid(nifti) and nifti.same_grid(dicom)


def test_same_grid():
    affine = np.diag([2.0, 1.0, 1.0, 1.0])
    scan = volumes.Scan(values=np.zeros((100, 8, 8), np.float32), affine=affine)

    def other(values=scan.values, **changes):
        changed = affine.copy()
        for at, value in changes.items():
            changed[tuple(map(int, at[1:]))] += value
        return volumes.Scan(values=values, affine=changed)

    assert scan.same_grid(other())
    assert scan.same_grid(other(_03=0.05)) and not scan.same_grid(other(_03=0.2))
    # A spacing that is a little off moves the last slice by much.
    assert not scan.same_grid(other(_00=0.01))
    assert scan.same_grid(other(_00=0.01), tolerance=1.0)
    assert not scan.same_grid(other(np.zeros((99, 8, 8), np.float32)))


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
@pytest.mark.parametrize("kept", [0.0, 0.1, 0.6, 0.95])
def test_truncated_nifti_is_refused(tmp_path, suffix, kept):
    path = tmp_path / f"scan.{suffix}"
    dummy_data.write_nifti(path, lump((20, 20, 20)), tilted())
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(ValueError, match=f"^scan.{suffix}: cannot be read"):
        volumes.read_nifti(path)


def test_nifti_that_is_no_volume_is_refused(tmp_path):
    (tmp_path / "text.nii").write_text("no image")
    with pytest.raises(ValueError, match="text.nii: cannot be read"):
        volumes.read_nifti(tmp_path / "text.nii")
    with pytest.raises(ValueError, match="gone.nii: cannot be read"):
        volumes.read_nifti(tmp_path / "gone.nii")
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4, 2)), np.eye(4)), tmp_path / "two.nii")
    with pytest.raises(ValueError, match="expected three axes. Received: shape"):
        volumes.read_nifti(tmp_path / "two.nii")
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 5, 6, 1)), np.eye(4)), tmp_path / "one.nii")
    assert volumes.read_nifti(tmp_path / "one.nii").values.shape == (6, 5, 4)


@pytest.mark.parametrize("kept", [0.0, 0.2, 0.6, 0.98])
def test_truncated_dicom_is_refused(tmp_path, kept):
    dummy_data.write_series(tmp_path, lump((4, 40, 40)))
    file = tmp_path / "1-002.dcm"
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * kept)])
    with pytest.raises(ValueError):
        volumes.read_dicom(tmp_path.glob("*.dcm"))


def test_dicom_that_is_no_whole_series_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no files: expected one series. Received: 0"):
        volumes.read_dicom([])
    dummy_data.write_series(tmp_path / "a", lump())
    with pytest.raises(ValueError, match="expected modality MR. Received: CT"):
        volumes.read_dicom((tmp_path / "a").glob("*"), "MR")
    dummy_data.write_series(tmp_path / "b", lump())
    with pytest.raises(ValueError, match="expected one series. Received: 2"):
        volumes.read_dicom(tmp_path.rglob("*.dcm"))
    (tmp_path / "a" / "1-003.dcm").unlink()
    with pytest.raises(ValueError, match="a: .*equal distances.*from 2 to 4 mm"):
        volumes.read_dicom((tmp_path / "a").glob("*"))


def test_dicom_without_a_place_is_refused(tmp_path):
    dummy_data.write_series(tmp_path, lump())
    for keyword, message in (
        ("PixelSpacing", "expected PixelSpacing. Received: none"),
        ("ImageOrientationPatient", "expected ImageOrientationPatient and .* Received: none"),
    ):
        for path in tmp_path.glob("*.dcm"):
            file = pydicom.dcmread(path)
            del file[keyword]
            file.save_as(path)
        with pytest.raises(ValueError, match=message):
            volumes.read_dicom(tmp_path.glob("*.dcm"))
        for path in tmp_path.glob("*.dcm"):
            file = pydicom.dcmread(path)
            file.PixelSpacing = [1, 1]
            file.save_as(path)


def test_one_slice_is_a_volume_of_its_thickness(tmp_path):
    dummy_data.write_series(tmp_path, lump((1, 4, 4)), spacing=(3.0, 1.0, 1.0))
    assert volumes.read_dicom(tmp_path.glob("*.dcm")).spacing == (3.0, 1.0, 1.0)


def test_int16_is_rounded_and_clipped():
    values = np.array([-1000.4, 0.6, 4e4, -4e4])
    np.testing.assert_array_equal(volumes.to_int16(values), [-1000, 1, 32767, -32768])
