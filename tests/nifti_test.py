"""Tests of zoo.imaging.nifti."""

import nibabel
import numpy as np
import pytest

from zoo.imaging.files import find, open_volume

AFFINE = np.array([[-0.7, 0.1, 0, 90], [0.05, 1.2, 0.2, -80], [0, -0.1, 3, 12], [0, 0, 0, 1.0]])


def save(path, data, kind=nibabel.Nifti1Image, slope=None, dtype=None):
    image = kind(data, AFFINE)
    image.header.set_xyzt_units("mm", "sec")
    image.set_qform(AFFINE, code=1, strip_shears=True)
    image.set_sform(AFFINE, code=4)
    image.header["descrip"] = b"Doe^Jane"
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"written by hand"))
    if dtype:
        image.set_data_dtype(dtype)
    if slope:
        image.header.set_slope_inter(*slope)
    nibabel.save(image, path)
    return nibabel.load(path)


def stack(volume):
    return np.stack([volume.read(i) for i in range(volume.length)], axis=2)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize(
    ("dtype", "slope"), [("int16", (0.37, -11.0)), ("uint8", None), (">f4", None)]
)
def test_round_trip_keeps_values_geometry_and_header(tmp_path, suffix, kind, dtype, slope):
    data = np.random.default_rng(0).uniform(0, 80, (7, 9, 5)).round().astype(np.float32)
    source = save(tmp_path / f"a{suffix}", data, kind, slope, dtype)
    volume = open_volume(tmp_path / f"a{suffix}")
    assert (volume.length, volume.shape, volume.unit) == (5, (7, 9), "signal")
    np.testing.assert_allclose(volume.spacing, source.header.get_zooms()[:2])
    np.testing.assert_array_equal(stack(volume), np.asarray(source.dataobj, np.float32))

    path = tmp_path / f"b{suffix}"
    volume.write(path, ((i, volume.read(i)) for i in range(5)), "identity")
    result = nibabel.load(path)
    np.testing.assert_array_equal(result.get_fdata(), source.get_fdata().astype(np.float32))
    np.testing.assert_array_equal(result.affine, source.affine)
    changed = {"datatype", "bitpix", "scl_slope", "scl_inter", "descrip", "vox_offset"}
    for field in set(source.header.keys()) - changed:
        np.testing.assert_array_equal(result.header[field], source.header[field], field)
    assert type(result) is type(source)
    assert result.get_data_dtype() == np.float32
    assert result.header["descrip"].item() == b"identity"
    assert result.header.extensions[0].get_content() == b"written by hand"
    if suffix == ".nii.gz":
        assert path.read_bytes()[:2] == b"\x1f\x8b"


def test_anonymous_output_has_no_free_text(tmp_path):
    save(tmp_path / "a.nii", np.zeros((3, 4, 2), np.float32))
    volume = open_volume(tmp_path / "a.nii")
    volume.write(tmp_path / "b.nii", ((i, volume.read(i)) for i in range(2)), "", True)
    content = (tmp_path / "b.nii").read_bytes()
    assert b"Jane" not in content
    assert b"hand" not in content
    np.testing.assert_array_equal(nibabel.load(tmp_path / "b.nii").affine, AFFINE.astype("f4"))


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1), (6, 5, 3, 1)])
def test_shapes_are_kept(tmp_path, shape):
    data = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    nibabel.save(nibabel.Nifti1Image(data, np.eye(4)), tmp_path / "a.nii.gz")
    volume = open_volume(tmp_path / "a.nii.gz")
    volume.write(tmp_path / "b.nii.gz", ((i, volume.read(i)) for i in range(volume.length)))
    np.testing.assert_array_equal(nibabel.load(tmp_path / "b.nii.gz").get_fdata(), data)


def test_units_in_metres(tmp_path):
    image = nibabel.Nifti1Image(np.zeros((3, 4, 2), np.float32), np.diag([2e-3, 3e-3, 1e-3, 1]))
    image.header.set_xyzt_units("meter")
    nibabel.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(open_volume(tmp_path / "a.nii").spacing, (2, 3), rtol=1e-6)


def test_affine_is_that_of_the_form_with_a_code_in_millimetres(tmp_path):
    image = nibabel.Nifti1Image(np.zeros((3, 4, 2), np.float32), None)
    image.header.set_xyzt_units("micron")
    micron = np.diag([1000.0, 1000, 1000, 1])
    for qform, sform, expected in ((0, 0, None), (1, 0, AFFINE), (1, 2, 2 * AFFINE)):
        image.set_qform(micron @ AFFINE, code=qform, strip_shears=True)
        image.set_sform(micron @ AFFINE * [[2], [2], [2], [1]], code=sform)
        nibabel.save(image, tmp_path / "a.nii")
        affine = open_volume(tmp_path / "a.nii").affine
        if expected is None:
            assert affine is None
            continue
        if not sform:
            expected = nibabel.load(tmp_path / "a.nii").get_qform() / 1e3
        np.testing.assert_allclose(affine[:3], expected[:3], rtol=1e-5, atol=1e-6)


def test_bad_files_become_problems(tmp_path):
    save(tmp_path / "good.nii", np.zeros((3, 4, 2), np.float32))
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 3, 3, 2)), np.eye(4)), tmp_path / "time.nii")
    nibabel.save(
        nibabel.Nifti1Image(np.zeros((3, 3, 3), np.complex64), np.eye(4)), tmp_path / "complex.nii"
    )
    (tmp_path / "noise.nii").write_bytes(b"not an image" * 99)
    (tmp_path / "empty.nii.gz").write_bytes(b"")
    found = find(tmp_path)
    assert [volume.name for volume in found.volumes] == ["good.nii"]
    reasons = {problem.path.name: problem.reason for problem in found.problems}
    assert sorted(reasons) == ["complex.nii", "empty.nii.gz", "noise.nii", "time.nii"]
    assert "2 or 3 dimensions" in reasons["time.nii"]
    assert "complex64" in reasons["complex.nii"]


def test_index_outside(tmp_path):
    save(tmp_path / "a.nii", np.zeros((3, 4, 2), np.float32))
    with pytest.raises(IndexError, match="from 0 to 1. Received: 2"):
        open_volume(tmp_path / "a.nii").read(2)
