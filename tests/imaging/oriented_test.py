"""zoo.imaging.oriented: a scan is one to a model however it is stored, and is written as it was."""

import itertools

import nibabel
import numpy as np
import pytest

import dummy_data
from stand_in import Model, stacked, translate
from zoo import registry
from zoo.domain import HANGS, Domain
from zoo.imaging.files import open_volume

CODES = [
    "".join(code)
    for pairs in itertools.permutations(["LR", "PA", "IS"])
    for code in itertools.product(*pairs)
]
SPACING = np.array([0.8, 0.9, 2.5])  # mm to the right, front and up


def scan(shape=(5, 6, 4)):
    return np.random.default_rng(0).permutation(int(np.prod(shape))).reshape(shape).astype("int16")


def affine(degrees=15.0):
    """Axes to the right, front and up, turned about the long axis."""
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    result = np.eye(4)
    result[:3, :3] = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) * SPACING
    result[:3, 3] = -31.5, 12.25, 700
    return result


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_every_storage_is_presented_as_one_volume_and_written_as_it_was(tmp_path, plane, suffix):
    values, first = scan(), None
    for code in CODES:
        path = tmp_path / f"{code}{suffix}"
        dummy_data.write_nifti(path, values, affine(), code)
        volume = open_volume(path).presented(plane)
        array = stacked(volume)
        assert volume.plane == plane and volume.acquired == "axial"
        # where each voxel lies, by the file's own affine
        for index in ((0, 0, 0), (1, 2, 3), (3, 1, 0)):
            place = volume.affine @ [*index, 1]
            there = np.linalg.solve(affine(), place)[:3]
            np.testing.assert_allclose(there, there.round(), atol=1e-4)
            assert array[index] == values[tuple(there.round().astype(int))]
        first = (volume, array) if first is None else first
        np.testing.assert_array_equal(array, first[1])
        np.testing.assert_allclose(volume.affine, first[0].affine, atol=1e-4)
        assert "".join(nibabel.aff2axcodes(volume.affine)) == HANGS[plane]

        volume.write(tmp_path / f"out{suffix}", enumerate(array.transpose(2, 0, 1)))
        written, source = nibabel.load(tmp_path / f"out{suffix}"), nibabel.load(path)
        np.testing.assert_array_equal(written.get_fdata(), source.get_fdata())
        np.testing.assert_array_equal(written.affine, source.affine)


def test_planes_look_as_radiologists_hang_them(tmp_path):
    """A point at the left, in front and above is found where it is looked for."""
    values = np.zeros((8, 8, 8), np.int16)
    values[1, 6, 7] = 1  # of axes right, front, up: to the left, in front, above
    dummy_data.write_nifti(tmp_path / "a.nii", values, np.eye(4))
    volume = open_volume(tmp_path / "a.nii")
    for plane, place in (
        ("axial", (1, 6, 7)),  # near the top row, at the right edge, in the upper slices
        ("coronal", (0, 6, 1)),  # the head at the top, the left at the right, front slices first
        ("sagittal", (0, 1, 1)),  # the head at the top, the face to the left, left slices first
    ):
        array = stacked(volume.presented(plane))
        assert np.argwhere(array == 1).tolist() == [list(place)]


@pytest.mark.parametrize(
    ("shape", "steps", "plane"),
    [
        ((6, 7, 8), (1, 1, 5), "axial"),
        ((6, 7, 8), (5, 1, 1), "sagittal"),
        ((6, 7, 8), (1, 5, 1), "coronal"),
        ((6, 7, 8), (1, 1.05, 1), "axial"),
        ((6, 1, 8), (1, 1, 1), "coronal"),
        ((6, 7), (1, 1, 1), "axial"),
    ],
)
def test_the_plane_of_acquisition_is_across_the_longest_step(tmp_path, shape, steps, plane):
    image = nibabel.Nifti1Image(np.zeros(shape, np.int16), np.diag([*steps, 1.0]))
    nibabel.save(image, tmp_path / "a.nii")
    volume = open_volume(tmp_path / "a.nii")
    assert volume.acquired == plane
    if len(shape) < 3 or 1 in shape:  # a single slice is what it is
        assert volume.presented("sagittal").plane == plane
        assert volume.presented("sagittal").length == 1


def test_a_file_that_does_not_say_how_it_lies_is_read_as_stored(tmp_path):
    image = nibabel.Nifti1Image(scan(), None)
    image.header.set_zooms((0.8, 0.9, 2.5))
    nibabel.save(image, tmp_path / "a.nii")
    volume = open_volume(tmp_path / "a.nii")
    assert (volume.affine, volume.plane, volume.acquired) == (None, None, None)
    assert volume.presented("coronal") == volume
    np.testing.assert_array_equal(stacked(volume), scan())
    np.testing.assert_allclose((*volume.spacing, volume.slice_spacing), (0.8, 0.9, 2.5))


class Ramp(Model):
    """Adds what depends on the place in the slice: it sees which way up that is."""

    def translate(self, images, batch_size=1):
        rows, columns = np.mgrid[: images.shape[-3], : images.shape[-2]]
        return images + (100 * rows + columns)[..., None].astype(np.float32)


@pytest.mark.parametrize("code", ["RAS", "LAS", "LPS", "PIR", "ASL", "SRP"])
def test_one_scan_in_several_storages_gives_one_result(tmp_path, code):
    values = scan()
    dummy_data.write_nifti(tmp_path / "in.nii.gz", values, affine(), code)
    model = Ramp(source=Domain(plane="axial"), target=Domain(plane="axial"))
    report = translate(model, tmp_path / "in.nii.gz", tmp_path / "out.nii.gz")
    assert report.done == 1 and not report.warnings
    result = nibabel.as_closest_canonical(nibabel.load(tmp_path / "out.nii.gz"))
    # axial slices: rows from the front to the back, columns from the right to the left
    ramp = 100 * np.arange(6)[::-1][None, :, None] + np.arange(5)[::-1][:, None, None]
    np.testing.assert_array_equal(result.get_fdata(), values + ramp)
    np.testing.assert_allclose(result.affine, affine(), atol=1e-4)


def test_a_model_that_knows_its_plane_warns_of_others(tmp_path):
    axes = {"axial": (1, 0, 0, 0, 1, 0), "sagittal": (0, 1, 0, 0, 0, -1)}
    for name, orientation in axes.items():
        values = np.arange(60).reshape(3, 4, 5)
        dummy_data.write_series(tmp_path / "in" / name, values, modality="MR", axes=orientation)
    nibabel.save(nibabel.Nifti1Image(scan(), None), tmp_path / "in/unknown.nii")
    dummy_data.write_nifti(tmp_path / "in/known.nii", scan(), affine(), "ASL")
    np.save(tmp_path / "in/picture.npy", np.zeros((4, 5), np.float32))
    for plane, expected in (("axial", {"1-001.dcm", "unknown.nii"}), (None, set())):
        domain = Domain(plane=plane)
        model = Model(source=domain, target=domain)
        report = translate(model, tmp_path / "in", tmp_path / str(plane))
        assert report.done == 5
        warned = {problem.path.name: problem.reason for problem in report.warnings}
        assert set(warned) == expected
        if plane:
            # slices run to the right: the first is the one furthest to the left
            assert warned["1-001.dcm"].endswith("from axial slices. Received: sagittal ones")
            assert "does not say how it lies, read as it is stored" in warned["unknown.nii"]


def test_planes_of_domains():
    with pytest.raises(ValueError, match="plane: expected one of axial, coronal, sagittal"):
        Domain(plane="transverse")
    assert Domain.from_dict(Domain(plane="coronal").to_dict()).plane == "coronal"
    for name, entry in registry.index()["pretrained"].items():
        expected = "axial" if entry["source"]["modality"] in ("CT", "MR") else None
        source = Domain.from_dict(entry["source"])
        assert source.plane == (None if source.measured else expected), name
