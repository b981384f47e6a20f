"""Tests of zoo.imaging.nifti."""

import gzip
import re
import struct

import nibabel
import numpy as np
import pytest

from stand_in import stacked
from zoo.imaging import voxels
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
    np.testing.assert_array_equal(stacked(volume), np.asarray(source.dataobj, np.float32))

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


def changed(tmp_path, offset, form, *values, kind=nibabel.Nifti1Image):
    """The problem of a file of which some bytes of the header are others; "" where it is read."""
    folder = tmp_path / "in"
    folder.mkdir(exist_ok=True)
    save(folder / "a.nii", np.ones((6, 5, 3), np.int16), kind, (2.0, 1.0), "int16")
    content = bytearray((folder / "a.nii").read_bytes())
    struct.pack_into(form, content, offset, *values)
    for name, stored in (("a.nii", bytes(content)), ("b.nii.gz", gzip.compress(content))):
        (folder / name).write_bytes(stored)
    save(folder / "z.nii", np.ones((6, 5, 3), np.int16))
    found = find(folder)
    reasons = {problem.path.name: problem.reason for problem in found.problems}
    assert "z.nii" in [volume.name for volume in found.volumes]
    first, second = (reasons.get(name, "").split("Received")[0] for name in ("a.nii", "b.nii.gz"))
    assert first == second
    for volume in found.volumes:
        assert np.isfinite(volume.read(0)).all()
    return reasons.get("a.nii", "")


NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("offset", "form", "values", "expected"),
    [
        (0, "<i", (347,), "sizeof_hdr: expected 348 or 540"),
        (344, "4s", (b"ni1",), "magic: expected n\\+1 or n\\+2"),
        (40, "<h", (8,), "dim: expected a volume of 2 or 3 dimensions"),
        (42, "<h", (-6,), "dim: expected"),
        (42, "<hhh", (32767, 32767, 32767), r"voxels: expected 70\d+ bytes, as the header says"),
        (70, "<h", (255,), "datatype: expected integer or real voxels"),
        (70, "<h", (0,), "datatype: expected integer or real voxels"),
        (70, "<h", (64,), "voxels: expected 720 bytes, .* Received: 180 bytes$"),
        (108, "<f", (348.0,), "vox_offset: expected 352 to .* Received: 348"),
        (108, "<f", (NAN,), "vox_offset"),
        (108, "<f", (-400.0,), "vox_offset"),
        (108, "<f", (1e30,), "vox_offset"),
        (112, "<f", (INFINITE,), "scl_slope, scl_inter: expected finite numbers"),
        (116, "<f", (NAN,), "scl_slope, scl_inter: expected finite numbers"),
        (280, "<f", (NAN,), "affine: expected finite numbers"),
        (280, "<12f", (1, 2, 3, 4) * 3, "affine: expected .* axes that are no multiples"),
        (280, "<f", (1e30,), "spacing: expected up to 1000 mm"),
        # qform_code, sform_code, quatern_b, ...: no rotation
        (252, "<hh3f", (1, 0, 3, 3, 0), "quatern_b, quatern_c, quatern_d: expected a rotation"),
        (252, "<hh3f", (0, 1, 3, 3, 0), ""),
        (352, "<i", (1 << 30,), "esize: expected an extension of 8 to"),
        (352, "<i", (-16,), "esize: expected"),
        # these are read: the affine of the sform does not need them
        (76, "<8f", (NAN,) * 8, ""),
        (123, "B", (7,), ""),
        (112, "<f", (0.0,), ""),
        (112, "<f", (NAN,), ""),
    ],
)
def test_a_header_that_cannot_be_is_named_and_takes_no_other_file_with_it(
    tmp_path, offset, form, values, expected
):
    assert re.match(f"^{expected or '$'}", changed(tmp_path, offset, form, *values))


@pytest.mark.parametrize("pixdim", [0.0, -2.0, NAN, INFINITE, 1e30])
def test_pixdim_without_an_affine(tmp_path, pixdim):
    image = nibabel.Nifti1Image(np.zeros((6, 5, 3), np.int16), None)
    content = bytearray(image.to_bytes())
    struct.pack_into("<f", content, 80, pixdim)
    (tmp_path / "a.nii").write_bytes(content)
    if pixdim == 1e30:
        with pytest.raises(ValueError, match="spacing: expected up to 1000 mm"):
            open_volume(tmp_path / "a.nii")
        return
    volume = open_volume(tmp_path / "a.nii")
    assert volume.spacing is None and volume.affine is None


@pytest.mark.parametrize("damage", ["checksum", "length", "cut", "stream", "behind"])
def test_a_gz_file_is_read_to_its_end_before_it_is_believed(tmp_path, damage):
    (tmp_path / "in").mkdir()
    data = np.random.default_rng(0).integers(0, 999, (40, 40, 20)).astype(np.int16)
    for name in "abc":
        save(tmp_path / f"in/{name}.nii.gz", data)
    content = bytearray((tmp_path / "in/b.nii.gz").read_bytes())
    if damage == "cut":
        del content[len(content) // 2 :]
    elif damage == "behind":
        content += b"junk"
    else:
        place = {"checksum": -8, "length": -4, "stream": len(content) // 2}[damage]
        content[place] ^= 0xFF
    (tmp_path / "in/b.nii.gz").write_bytes(content)
    found = find(tmp_path / "in")
    assert [volume.name for volume in found.volumes] == ["a.nii.gz", "c.nii.gz"]
    (problem,) = found.problems
    assert problem.path.name == "b.nii.gz"
    assert re.match("damaged (gzip )?data: ", problem.reason)
    # as many members as there are, and zeros behind them, are gzip
    whole = (tmp_path / "in/a.nii.gz").read_bytes()
    parts = gzip.compress(gzip.decompress(whole)[:5000]) + gzip.compress(
        gzip.decompress(whole)[5000:]
    )
    (tmp_path / "in/b.nii.gz").write_bytes(parts + bytes(512))
    np.testing.assert_array_equal(stacked(open_volume(tmp_path / "in/b.nii.gz")), data)


def test_a_file_is_checked_once_and_again_when_it_changes(tmp_path, monkeypatch):
    save(tmp_path / "a.nii.gz", np.zeros((9, 9, 9), np.int16))
    read, inflated = [], voxels.inflated
    monkeypatch.setattr(voxels, "inflated", lambda *a: read.append(1) or inflated(*a))
    counts = []
    for change in (False, False, True):
        if change:
            save(tmp_path / "a.nii.gz", np.ones((9, 9, 9), np.int16))
        before = len(read)
        open_volume(tmp_path / "a.nii.gz")
        counts.append(len(read) - before)
    assert counts[0] == counts[2] == counts[1] + 1


@pytest.mark.parametrize("name", ["SCAN.NII.GZ", "scan.NII"])
def test_names_in_any_case(tmp_path, name):
    data = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    save(tmp_path / ("a.nii.gz" if name[-1] in "zZ" else "a.nii"), data)
    next(tmp_path.iterdir()).rename(tmp_path / name)
    volume = open_volume(tmp_path / name)
    volume.write(tmp_path / "out" / name, ((i, volume.read(i)) for i in range(4)))
    content = (tmp_path / "out" / name).read_bytes()
    assert (content[:2] == b"\x1f\x8b") == (name[-1] in "zZ")
    np.testing.assert_array_equal(nibabel.load(tmp_path / "out" / name).get_fdata(), data)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image, nibabel.Nifti1Pair])
def test_no_free_text_is_left_where_the_output_is_anonymous(tmp_path, kind):
    image = kind(np.zeros((4, 5, 3), np.int16), AFFINE)
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"DOE by hand"))
    for field in ("data_type", "db_name", "descrip", "aux_file", "intent_name"):
        if field in image.header:
            image.header[field] = b"DOE^JANE"
    name = "a.hdr" if kind is nibabel.Nifti1Pair else "a.nii"
    nibabel.save(image, tmp_path / name)
    assert b"DOE" in (tmp_path / name).read_bytes()
    volume = open_volume(tmp_path / name)
    out = tmp_path / "out" / name
    volume.write(out, ((i, volume.read(i)) for i in range(3)), "made here", anonymous=True)
    for path in out.parent.iterdir():
        assert b"DOE" not in path.read_bytes()
    assert nibabel.load(out).header["descrip"].item() == b"made here"
    np.testing.assert_array_equal(nibabel.load(out).affine, nibabel.load(tmp_path / name).affine)


def test_index_outside(tmp_path):
    save(tmp_path / "a.nii", np.zeros((3, 4, 2), np.float32))
    with pytest.raises(IndexError, match="from 0 to 1. Received: 2"):
        open_volume(tmp_path / "a.nii").read(2)
