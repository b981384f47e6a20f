"""MGH, MetaImage, NRRD, Analyze and pairs: read as ITK and nibabel do, and written back."""

import nibabel
import numpy as np
import pytest
import SimpleITK

from stand_in import stacked
from zoo.imaging.files import find, open_volume
from zoo.imaging.geometry import Grid

SHAPE = (5, 6, 4)
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def voxels(dtype="int16", shape=SHAPE):
    return np.random.default_rng(0).permutation(int(np.prod(shape))).reshape(shape).astype(dtype)


def tilted():
    """[4, 4], indices to mm (right, front, up): an oblique volume of axes that run P, S, L."""
    angle = np.deg2rad(20)
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.array([[0, 0, -3.0], [-0.7, 0, 0], [0, 0.9, 0]])
    affine[:3, 3] = 12.5, -80.25, 300
    return affine


def itk_image(values, affine):
    image = SimpleITK.GetImageFromArray(values.transpose())
    lps = LPS @ affine
    steps = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(steps.tolist())
    image.SetDirection((lps[:3, :3] / steps).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def itk_affine(image):
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return LPS @ affine


@pytest.mark.parametrize("name", ["a.mha", "a.mhd", "a.nrrd", "a.nhdr"])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", ["int16", "uint8", "float32", "float64", "int32"])
def test_itk_files_are_read_and_written_as_itk_does(tmp_path, name, compressed, dtype):
    values, affine = voxels(dtype), tilted()
    (tmp_path / "in").mkdir()
    image = itk_image(values, affine)
    image.SetMetaData("0010|0010", "Doe^Jane")
    SimpleITK.WriteImage(image, tmp_path / "in" / name, compressed)
    found = find(tmp_path / "in")
    assert [p for p in found.problems if not p.harmless] == []
    (volume,) = found.volumes
    np.testing.assert_array_equal(stacked(volume), values.astype(np.float32))
    np.testing.assert_allclose(volume.affine, affine, atol=1e-6)
    np.testing.assert_allclose((*volume.spacing, volume.slice_spacing), (0.7, 0.9, 3))
    assert (volume.unit, volume.modality) == ("signal", "OT")
    assert sorted([*volume.paths, *volume.companions]) == sorted((tmp_path / "in").iterdir())

    hung = volume.presented("sagittal")
    assert hung.plane == "sagittal"
    (tmp_path / "out").mkdir()
    slices = ((i, hung.read(i) + 0.5) for i in range(hung.length))
    hung.write(tmp_path / "out" / name, slices, "a description", anonymous=True)
    written = sorted((tmp_path / "out").iterdir())
    assert sorted(hung.files(tmp_path / "out" / name)) == written
    result = SimpleITK.ReadImage(tmp_path / "out" / name)
    array = SimpleITK.GetArrayFromImage(result).transpose()
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, values.astype(np.float32) + 0.5)
    np.testing.assert_allclose(itk_affine(result), affine, atol=1e-6)
    assert not any(b"Jane" in path.read_bytes() for path in written)
    again = open_volume(tmp_path / "out" / name)
    np.testing.assert_array_equal(stacked(again), array)


@pytest.mark.parametrize(
    "name", ["a.mha", "a.mhd", "a.nrrd", "a.nhdr", "a.mgz", "a.nii", "a.nii.gz", "a.hdr"]
)
@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_a_finer_grid_keeps_its_place_in_every_format(tmp_path, name, plane):
    values, affine = voxels(), tilted()
    (tmp_path / "in").mkdir()
    if name in ("a.mgz", "a.nii", "a.nii.gz"):
        kind = nibabel.MGHImage if name == "a.mgz" else nibabel.Nifti1Image
        nibabel.save(kind(values, affine), tmp_path / "in" / name)
    elif name == "a.hdr":
        nibabel.save(nibabel.Nifti1Pair(values, affine), tmp_path / "in" / name)
    else:
        SimpleITK.WriteImage(itk_image(values, affine), tmp_path / "in" / name)
    hung = open_volume(tmp_path / "in").presented(plane)
    grid = Grid(scale=2, depth=3)
    finer = stacked(hung).repeat(2, 0).repeat(2, 1).repeat(3, 2)
    (tmp_path / "out").mkdir()
    hung.write(tmp_path / "out" / name, enumerate(finer.transpose(2, 0, 1)), grid=grid)
    result = open_volume(tmp_path / "out" / name).presented(plane)
    np.testing.assert_array_equal(stacked(result), finer)
    # output voxel (2r + a, 2c + b, 3s + d) lies in input voxel (r, c, s)
    for index in ((0, 0, 0), (1, 3, 2)):
        centre = hung.affine @ [*index, 1]
        block = [
            result.affine @ [2 * index[0] + a, 2 * index[1] + b, 3 * index[2] + d, 1]
            for a in (0, 1)
            for b in (0, 1)
            for d in (0, 1, 2)
        ]
        np.testing.assert_allclose(np.mean(block, 0), centre, atol=1e-4)


def test_the_size_of_compressed_voxels_is_written_where_it_belongs(tmp_path):
    path = tmp_path / "a.mha"
    SimpleITK.WriteImage(itk_image(voxels(), tilted()), path, True)
    note = b"Scanner = " + b"?" * 20  # as many as stand in for a number
    path.write_bytes(path.read_bytes().replace(b"NDims", note + b"\nNDims", 1))
    volume = open_volume(path)
    volume.write(tmp_path / "b.mha", enumerate(stacked(volume).transpose(2, 0, 1)))
    assert note + b"\n" in (tmp_path / "b.mha").read_bytes()
    image = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(tmp_path / "b.mha"))
    np.testing.assert_array_equal(image.transpose(), voxels())


def test_analyze_does_not_say_how_it_lies(tmp_path):
    image = nibabel.AnalyzeImage(voxels(), np.diag([0.7, 0.9, 3, 1]))
    image.header["descrip"] = image.header["patient_id"] = b"DOE"
    nibabel.save(image, tmp_path / "a.hdr")
    (volume,) = (found := find(tmp_path)).volumes
    assert not found.problems  # its voxels belong to it
    alone = find(tmp_path / "a.img").problems
    assert [p.reason for p in alone] == ["not an image: the voxels of a.hdr"]
    assert volume.affine is None and volume.presented("coronal") == volume
    np.testing.assert_allclose((*volume.spacing, volume.slice_spacing), (0.7, 0.9, 3))
    np.testing.assert_array_equal(stacked(volume), voxels())
    volume.write(tmp_path / "out/a.hdr", ((i, volume.read(i)) for i in range(4)), anonymous=True)
    result = nibabel.load(tmp_path / "out/a.hdr")
    np.testing.assert_array_equal(np.asarray(result.dataobj), voxels())
    assert not isinstance(result, nibabel.Nifti1Pair)
    assert b"DOE" not in (tmp_path / "out/a.hdr").read_bytes()


@pytest.mark.parametrize("name", ["a.mgz", "a.mgh"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32"])
def test_mgh_is_read_as_nibabel_does(tmp_path, name, dtype):
    nibabel.save(nibabel.MGHImage(voxels(dtype), tilted()), tmp_path / name)
    if name == "a.mgh":
        with open(tmp_path / name, "ab") as file:  # a tag with the command that made it
            file.write(b"mri_convert DOE^JANE.dcm")
    volume = open_volume(tmp_path / name)
    np.testing.assert_array_equal(stacked(volume), voxels(dtype).astype("f4"))
    np.testing.assert_allclose(volume.affine, tilted(), atol=1e-4)
    out = tmp_path / "out" / name
    for anonymous in (False, True):
        hung = volume.presented("axial")
        hung.write(out, ((i, hung.read(i)) for i in range(hung.length)), "", anonymous)
        result = nibabel.load(out)
        np.testing.assert_array_equal(result.get_fdata(), voxels(dtype))
        np.testing.assert_allclose(result.affine, tilted(), atol=1e-4)
        assert (b"JANE" in out.read_bytes()) == (name == "a.mgh" and not anonymous)


@pytest.mark.parametrize("suffix", ["mhd", "nhdr"])
@pytest.mark.parametrize(
    ("named", "reason"),
    [
        ("../secret.raw", "expected a file in the header's folder"),
        ("/etc/passwd", "expected a file in the header's folder"),
        ("..\\secret.raw", "expected a file in the header's folder"),
        ("C:\\secret.raw", "expected a file in the header's folder"),
        ("gone.raw", "expected a file that is there"),
        ("SELF", "expected another file than the header"),
        ("slice%03d.raw 1 4 1", "expected one file"),
        ("LIST", "expected one file"),
        ("short.raw", "voxels: expected 240 bytes"),
    ],
)
def test_a_header_takes_voxels_from_its_own_folder_only(tmp_path, suffix, named, reason):
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.raw").write_bytes(bytes(1000))
    (tmp_path / "in/short.raw").write_bytes(bytes(100))
    path = tmp_path / "in" / f"a.{suffix}"
    SimpleITK.WriteImage(itk_image(voxels(), tilted()), path)
    text = path.read_text().replace("a.raw", named.replace("SELF", path.name))
    path.write_text(text)
    found = find(tmp_path / "in")
    assert found.volumes == []
    reasons = {problem.path.name: problem.reason for problem in found.problems}
    assert reason in reasons[path.name]


@pytest.mark.parametrize(
    ("name", "old", "new", "reason"),
    [
        ("a.mha", "DimSize = 5 6 4", "DimSize = 50000 60000 40000", "voxels: expected"),
        ("a.mha", "DimSize = 5 6 4", "DimSize = 5 6 nan", "DimSize: expected 3 number"),
        ("a.mha", "NDims = 3", "NDims = 4", "NDims: expected 2 or 3. Received: 4"),
        ("a.mha", "MET_SHORT", "MET_OTHER", "ElementType: expected one of"),
        ("a.mha", "BinaryData = True", "BinaryData = False", "BinaryData: expected True"),
        ("a.mha", "TransformMatrix = ", "TransformMatrix = 0 0 0 0 0 0 0 0 0 1", "9 number"),
        ("a.nrrd", "sizes: 5 6 4", "sizes: 50000 60000 40000", "voxels: expected"),
        ("a.nrrd", "dimension: 3", "dimension: 4", "dimension: expected 2 or 3. Received: 4"),
        ("a.nrrd", "encoding: raw", "encoding: ascii", "encoding: expected raw or gzip"),
        ("a.nrrd", "endian: little", "endian: middle", "endian: expected little or big"),
        ("a.nrrd", "kinds: domain", "kinds: RGB-color", "kinds: expected one number a voxel"),
        ("a.nrrd", "NRRD0004", "NRRD0009", "magic: expected NRRD0001"),
    ],
)
def test_headers_that_cannot_be_are_named(tmp_path, name, old, new, reason):
    SimpleITK.WriteImage(itk_image(voxels(), tilted()), tmp_path / name)
    content = (tmp_path / name).read_bytes()
    assert old.encode() in content
    (tmp_path / name).write_bytes(content.replace(old.encode(), new.encode()))
    with pytest.raises(ValueError, match=reason):
        open_volume(tmp_path / name)


@pytest.mark.parametrize("name", ["a.mha", "a.nrrd", "a.mgz"])
def test_several_channels_and_damaged_streams_are_refused(tmp_path, name):
    if name != "a.mgz":
        image = SimpleITK.GetImageFromArray(np.zeros((4, 5, 6, 3), np.uint8), isVector=True)
        SimpleITK.WriteImage(image, tmp_path / name)
        with pytest.raises(ValueError, match="expected"):
            open_volume(tmp_path / name)
        SimpleITK.WriteImage(itk_image(voxels(), tilted()), tmp_path / name, True)
    else:
        nibabel.save(nibabel.MGHImage(voxels(), tilted()), tmp_path / name)
    content = bytearray((tmp_path / name).read_bytes())
    content[-1 if name == "a.mha" else -5] ^= 0xFF  # of the checksum
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match="damaged (gzip|zlib) data"):
        open_volume(tmp_path / name)
