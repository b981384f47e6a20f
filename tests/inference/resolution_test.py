"""Files written by models that enlarge images and volumes: all stays in its place."""

import nibabel
import numpy as np
import PIL.Image
import pydicom
import pydicom.uid
import pytest
import tifffile

from dicom_files import dciodvfy, enhanced, series, single
from stand_in import CT, Model, translated
from zoo.domain import Domain
from zoo.imaging import geometry
from zoo.imaging.files import open_volume

TILTED = [0.8, 0.6, 0, -0.48, 0.64, 0.6]  # orthonormal


def blocks(image, scale):
    """The mean of each block of an image, or of a volume, of scale pixels along every axis."""
    for axis in range(image.ndim):
        image = np.moveaxis(image, axis, -1)
        image = image.reshape(*image.shape[:-1], -1, scale).mean(-1)
        image = np.moveaxis(image, -1, axis)
    return image


def place(header, row, column):
    """Patient coordinates of a pixel's centre: the equation of PS3.3 C.7.6.2.1.1."""
    x, y = np.array(header.ImageOrientationPatient, float).reshape(2, 3)
    down, across = map(float, header.PixelSpacing)
    return np.array(header.ImagePositionPatient, float) + x * across * column + y * down * row


def tilted_series(folder, count, step=2.5, **changes):
    """Slices of 6 x 8 pixels, each its own ramp, in a rotated frame, stored out of order."""
    folder.mkdir(parents=True, exist_ok=True)
    normal = np.cross(TILTED[:3], TILTED[3:])
    for i in range(count):
        pixels = (np.arange(48).reshape(6, 8) + 100 * i).astype(np.int16)
        position = np.array([-40.0, 12.5, 700.0]) + step * i * normal
        single(
            folder, f"{(i + 1) % count}.dcm", pixels, SOPInstanceUID=f"1.2.3.{i + 1}",
            InstanceNumber=count - i, ImageOrientationPatient=TILTED, PixelSpacing=[0.5, 0.8],
            ImagePositionPatient=[f"{v:.8g}" for v in position], SliceLocation=str(5 - step * i),
            SliceThickness="2", SpacingBetweenSlices=str(step), PixelPaddingValue=None, **changes,
        )  # fmt: skip
    return folder


@pytest.mark.parametrize("scale", [2, 3])
def test_an_enlarged_dicom_image_stays_in_its_place(tmp_path, scale):
    source = tilted_series(tmp_path / "in", 2)
    translated(Model(scale=scale, source=CT, target=CT), source, tmp_path / "out")
    for path in sorted(source.iterdir()):
        old, new = pydicom.dcmread(path), pydicom.dcmread(tmp_path / "out" / path.name)
        assert (new.Rows, new.Columns) == (6 * scale, 8 * scale)
        np.testing.assert_allclose(new.PixelSpacing, [0.5 / scale, 0.8 / scale])
        for row, column in ((0, 0), (5, 0), (0, 7), (3, 4)):
            middle = [scale * index + (scale - 1) / 2 for index in (row, column)]
            np.testing.assert_allclose(place(new, *middle), place(old, row, column), atol=1e-6)
        np.testing.assert_array_equal(blocks(new.pixel_array, scale), old.pixel_array)
        for keyword in ("ImageOrientationPatient", "SliceThickness", "SpacingBetweenSlices",
                        "SliceLocation", "InstanceNumber", "FrameOfReferenceUID"):  # fmt: skip
            assert new[keyword].value == old[keyword].value
        assert dciodvfy(tmp_path / "out" / path.name) - dciodvfy(path) == set()
    before, after = open_volume(source), open_volume(tmp_path / "out")
    assert [f.path.name for f in before.frames] == [f.path.name for f in after.frames]
    assert after.slice_spacing == pytest.approx(2.5)


def test_what_counts_pixels_follows_or_goes(tmp_path):
    region = pydicom.Dataset()
    region.PhysicalDeltaX = 0.01
    path = single(
        tmp_path, "in.dcm", np.zeros((8, 6), np.int16), ImagerPixelSpacing=[0.2, 0.4],
        NominalScannedPixelSpacing=[0.2, 0.4], AcquisitionMatrix=[0, 6, 8, 0],
        ShutterShape=["RECTANGULAR", "CIRCULAR"], ShutterLeftVerticalEdge=2,
        CenterOfCircularShutter=[4, 3], RadiusOfCircularShutter=2, PixelPaddingValue=None,
        SequenceOfUltrasoundRegions=[region], PixelAspectRatio=[2, 1],
    )  # fmt: skip
    header = pydicom.dcmread(path)
    header.add_new((0x6000, 0x0010), "US", 8)
    header.add_new((0x6000, 0x0011), "US", 6)
    header.add_new((0x6000, 0x3000), "OW", b"\0" * 6)
    header.save_as(path)
    assert any(element.tag.is_private for element in header)
    translated(Model(scale=3, source=CT, target=CT), path, tmp_path / "out.dcm")
    result = pydicom.dcmread(tmp_path / "out.dcm")
    for keyword in ("ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        np.testing.assert_allclose(result[keyword].value, [0.2 / 3, 0.4 / 3])
    # the middle of pixel 2's block, which covers 4, 5 and 6
    assert result.ShutterLeftVerticalEdge == 5
    assert list(result.CenterOfCircularShutter) == [11, 8]
    assert result.RadiusOfCircularShutter == 6
    assert list(result.AcquisitionMatrix) == [0, 6, 8, 0]
    assert list(result.PixelAspectRatio) == [2, 1]
    assert "SequenceOfUltrasoundRegions" not in result
    assert (0x6000, 0x3000) not in result
    assert not any(element.tag.is_private for element in result)


def test_padding_covers_the_block_of_each_padded_pixel(tmp_path):
    pixels = np.arange(12, dtype=np.int16).reshape(3, 4) + 50
    pixels[1, 2] = pixels[0, 0] = -2000
    path = single(tmp_path, "in.dcm", pixels, PixelPaddingValue=-2000)
    translated(Model(scale=2, plus=7.0, source=CT, target=CT), path, tmp_path / "out.dcm")
    result = pydicom.dcmread(tmp_path / "out.dcm").pixel_array
    expected = np.where(pixels == -2000, -2000, pixels + 7).repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("shared", [False, True])
def test_enhanced_frames_move_once_each(tmp_path, shared):
    path, physical = enhanced(tmp_path)
    header = pydicom.dcmread(path)
    if shared:  # all frames of one plane
        item = header.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence
        header.SharedFunctionalGroupsSequence[0].PlanePositionSequence = item
        for group in header.PerFrameFunctionalGroupsSequence:
            del group.PlanePositionSequence
        header.save_as(path)
    translated(Model(scale=2, source=CT, target=CT), path, tmp_path / "out.dcm")
    result = pydicom.dcmread(tmp_path / "out.dcm")
    assert (result.NumberOfFrames, result.Rows, result.Columns) == (3, 12, 16)
    groups = result.SharedFunctionalGroupsSequence[0], *result.PerFrameFunctionalGroupsSequence
    assert list(groups[0].PixelMeasuresSequence[0].PixelSpacing) == [0.25, 0.35]
    assert groups[0].PixelMeasuresSequence[0].SliceThickness == 2
    heights = [10, 8, 6]
    for group, height in zip(groups[:1] if shared else groups[1:], heights, strict=False):
        position = group.PlanePositionSequence[0].ImagePositionPatient
        np.testing.assert_allclose(position, [-0.7 / 4, -0.5 / 4, height])
    volume = open_volume(tmp_path / "out.dcm")
    order = range(3) if shared else (2, 1, 0)
    for index, frame in enumerate(order):
        np.testing.assert_array_equal(blocks(volume.read(index), 2), physical[frame])
    assert dciodvfy(tmp_path / "out.dcm") - dciodvfy(path) == set()


def test_an_image_too_large_for_dicom_is_refused(tmp_path):
    path = single(tmp_path, "in.dcm", np.zeros((2, 40_000), np.int16), PixelPaddingValue=None)
    _, reasons = translated(Model(scale=2, source=CT, target=CT), path, tmp_path / "out.dcm")
    assert "up to 65535" in reasons[0]
    assert "Received: 4, 80000" in reasons[0]
    assert not (tmp_path / "out.dcm").exists()


AFFINE = np.array([[-0.7, 0.1, 0.2, 90], [0.05, 1.2, 0.2, -80], [0, -0.1, 3, 12], [0, 0, 0, 1]])


def nifti(path, shape, codes=(1, 4)):
    data = np.random.default_rng(0).integers(0, 450, shape).astype(np.int16)
    image = nibabel.Nifti1Image(data, AFFINE)
    other = AFFINE.copy()
    other[:3, 3] = 5, 6, 7  # the two need not agree
    image.set_sform(AFFINE, codes[1])
    image.set_qform(other, codes[0], strip_shears=True)
    image.header.set_xyzt_units("mm")
    if len(shape) == 3:
        image.header["slice_end"], image.header["slice_code"] = shape[2] - 1, 1
        image.header["slice_duration"] = 0.5
    nibabel.save(image, path)
    return nibabel.load(path)


@pytest.mark.parametrize("codes", [(1, 4), (0, 2), (1, 0), (0, 0)])
@pytest.mark.parametrize(
    ("shape", "scale", "dimensions"), [((5, 6), 2, 2), ((5, 6, 4), 3, 2), ((5, 6, 4), 2, 3)]
)
def test_nifti_voxels_stay_in_their_place(tmp_path, shape, scale, dimensions, codes):
    source = nifti(tmp_path / "a.nii", shape, codes)
    translated(Model(scale=scale, dimensions=dimensions), tmp_path / "a.nii", tmp_path / "b.nii")
    result = nibabel.load(tmp_path / "b.nii")
    steps = np.ones(3) * scale
    steps[dimensions:] = 1
    assert result.shape == tuple(int(n * s) for n, s in zip(shape, steps, strict=False))
    np.testing.assert_allclose(
        result.header["pixdim"][1:4] * steps, source.header["pixdim"][1:4], rtol=1e-6
    )
    index = np.indices([*shape, 1][:3]).reshape(3, -1)
    finer = index * steps[:, None] + (steps[:, None] - 1) / 2
    for old, new in (
        (source.affine, result.affine),
        (source.header.get_sform(), result.header.get_sform()),
        (source.header.get_qform(), result.header.get_qform()),
    ):
        before = nibabel.affines.apply_affine(old, index.T)
        after = nibabel.affines.apply_affine(new, finer.T)
        np.testing.assert_allclose(after, before, atol=1e-3)
    assert (result.header["qform_code"], result.header["sform_code"]) == codes
    fine = tuple(slice(int(step) - 1, None, int(step)) for step in steps[: len(shape)])
    np.testing.assert_array_equal(result.get_fdata()[fine], source.get_fdata())
    if dimensions == 3:
        assert (result.header["slice_end"], result.header["slice_code"]) == (0, 0)


def test_nifti_1_holds_sides_up_to_32767(tmp_path):
    image = nibabel.Nifti1Image(np.zeros((20_000, 2, 1), np.uint8), np.eye(4))
    nibabel.save(image, tmp_path / "a.nii")
    _, reasons = translated(Model(scale=2), tmp_path / "a.nii", tmp_path / "b.nii")
    assert reasons == ["dim: expected up to 32767 voxels. Received: [40000, 4, 1]"]
    assert not (tmp_path / "b.nii").exists()


def test_resampling_and_enlarging_keep_the_place(tmp_path):
    """Resampled to 1 mm, enlarged, resampled to half the input's pixels: nothing moves."""
    y, x, z = np.mgrid[:30, :40, :12]
    image = (np.sin(y / 7) + np.cos(x / 9) + z / 6).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(image, np.diag([2.0, 1.5, 3, 1])), tmp_path / "a.nii")
    for dimensions, shape in ((2, (1, 60, 60, 1)), (3, (1, 36, 60, 60, 1))):
        model = Model(spacing=1.0, scale=2, dimensions=dimensions)
        translated(model, tmp_path / "a.nii", tmp_path / f"{dimensions}.nii")
        assert model.shapes[0] == shape
        result = nibabel.load(tmp_path / f"{dimensions}.nii")
        y, x, z = nibabel.affines.apply_affine(
            np.linalg.inv(np.diag([2.0, 1.5, 3, 1])) @ result.affine,
            np.moveaxis(np.indices(result.shape), 0, -1),
        ).transpose(3, 0, 1, 2)
        expected = np.sin(y / 7) + np.cos(x / 9) + z / 6
        inside = (slice(2, -2),) * 3
        # a quarter of a pixel of misplacement would be an error of 0.04
        np.testing.assert_allclose(result.get_fdata()[inside], expected[inside], atol=0.03)
        assert result.shape == (60, 80, 24 if dimensions == 3 else 12)


def test_enlarged_raster_files(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (5, 4, 3), np.uint8)
    PIL.Image.fromarray(pixels).save(tmp_path / "colour.png", dpi=(300, 150))
    pages = rng.integers(0, 60_000, (3, 6, 5)).astype(np.uint16)
    tifffile.imwrite(
        tmp_path / "pages.tif", pages, photometric="minisblack", resolution=(100, 50),
        resolutionunit="CENTIMETER",
    )  # fmt: skip
    np.save(tmp_path / "stack.npy", pages)
    np.save(tmp_path / "plane.npy", pages[0])
    colour = Model(scale=2, source=Domain(channels=3), target=Domain(channels=3))
    translated(colour, tmp_path / "colour.png", tmp_path / "out/colour.png")
    with PIL.Image.open(tmp_path / "out/colour.png") as image:
        np.testing.assert_allclose(image.info["dpi"], (600, 300), rtol=1e-3)
        np.testing.assert_array_equal(np.asarray(image), pixels.repeat(2, 0).repeat(2, 1))
    for dimensions in (2, 3):
        model, out = Model(scale=2, dimensions=dimensions), tmp_path / f"{dimensions}"
        expected = pages.repeat(2, 1).repeat(2, 2)
        expected = expected.repeat(2, 0) if dimensions == 3 else expected
        for name in ("pages.tif", "stack.npy", "plane.npy"):
            translated(model, tmp_path / name, out / name)
        with tifffile.TiffFile(out / "pages.tif") as file:
            assert file.pages.first.resolution == (200, 100)
            assert file.pages.first.resolutionunit == 3
            np.testing.assert_array_equal(file.asarray(), expected)
        np.testing.assert_array_equal(np.load(out / "stack.npy"), expected)
        if dimensions == 2:
            np.testing.assert_array_equal(np.load(out / "plane.npy"), expected[0])
        else:
            assert not (out / "plane.npy").exists()


def test_a_volume_becomes_a_series_of_finer_slices(tmp_path):
    source = tilted_series(tmp_path / "in", 4)
    model = Model(scale=2, dimensions=3, source=CT, target=CT)
    report, reasons = translated(model, source, tmp_path / "out")
    assert (report.done, len(report.outputs), reasons) == (1, 8, [])
    assert model.shapes == [(1, 4, 6, 8, 1)]
    before, after = open_volume(source), open_volume(tmp_path / "out")
    assert (after.length, after.shape, after.slice_spacing) == (8, (12, 16), pytest.approx(1.25))
    np.testing.assert_array_equal(
        blocks(np.stack([after.read(i) for i in range(8)]), 2),
        np.stack([before.read(i) for i in range(4)]),
    )
    inputs = [pydicom.dcmread(frame.path) for frame in before.frames]
    outputs = [pydicom.dcmread(frame.path) for frame in after.frames]
    for i, old in enumerate(inputs):
        # the middle of the two slices' blocks is the old slice's pixel
        for row, column in ((0, 0), (5, 7)):
            corners = [
                place(h, 2 * row + 0.5, 2 * column + 0.5) for h in outputs[2 * i : 2 * i + 2]
            ]
            np.testing.assert_allclose(np.mean(corners, 0), place(old, row, column), atol=1e-6)
        for new in outputs[2 * i : 2 * i + 2]:
            reference = new.SourceImageSequence[0].ReferencedSOPInstanceUID
            assert reference == old.SOPInstanceUID
    assert len({h.SOPInstanceUID for h in outputs} | {h.SOPInstanceUID for h in inputs}) == 12
    assert len({h.SeriesInstanceUID for h in outputs}) == 1
    assert [h.InstanceNumber for h in outputs] == list(range(1, 9))
    assert {(h.SliceThickness, h.SpacingBetweenSlices) for h in outputs} == {(1, 1.25)}
    locations = [float(h.SliceLocation) for h in outputs]
    np.testing.assert_allclose(locations, 5 + 0.625 - 1.25 * np.arange(8))
    errors = dciodvfy(before.frames[0].path)
    for path in report.outputs[:3]:
        assert dciodvfy(path) - errors == set()


def test_names_of_finer_slices(tmp_path):
    source = tilted_series(tmp_path / "in", 2)
    model = Model(scale=2, dimensions=3, source=CT, target=CT)
    translated(model, source, tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["0-1.dcm", "0-2.dcm", "1-1.dcm", "1-2.dcm"]
    report, _ = translated(model, source, tmp_path / "anonymous", deidentify=True)
    assert [path.name for path in report.outputs] == [f"IM_000{i}.dcm" for i in range(1, 5)]
    single(source, "0-1.dcm", SeriesInstanceUID="1.2.9")
    # a file that would get the name of one of the slices, were it a volume
    single(source, "0-1.dcm", SeriesInstanceUID="1.2.9", SOPInstanceUID="1.2.9.1")
    report, reasons = translated(model, source, tmp_path / "again")
    assert (report.done, len(reasons)) == (1, 1)


def test_volumes_that_are_none_are_refused(tmp_path):
    model = Model(scale=2, dimensions=3, source=CT, target=CT)
    uneven = tilted_series(tmp_path / "uneven", 5)
    next(path for path in uneven.iterdir() if pydicom.dcmread(path).InstanceNumber == 3).unlink()
    _, reasons = translated(model, uneven, tmp_path / "a")
    assert reasons == [
        "slices: expected equal distances from each to the next. "
        "Received: from 2.5 to 5 mm (a series of 4 files)"
    ]
    one = tilted_series(tmp_path / "one", 1)
    _, reasons = translated(model, one, tmp_path / "b")
    assert reasons == ["slices: the model takes volumes of several. Received: a single slice"]
    frames, _ = enhanced(tmp_path)
    _, reasons = translated(model, frames, tmp_path / "c.dcm")
    assert "Received: 3 frames in one file" in reasons[0]
    damaged = tilted_series(tmp_path / "damaged", 3)
    content = (damaged / "1.dcm").read_bytes()
    (damaged / "1.dcm").write_bytes(content[: content.index(b"\xe0\x7f\x10\x00") + 20])
    _, reasons = translated(model, damaged, tmp_path / "d")
    assert len(reasons) == 1
    assert reasons[0].startswith("slices: expected a volume without gaps. Received: 1.dcm, slice")
    nowhere = tilted_series(tmp_path / "nowhere", 3)
    for path in nowhere.iterdir():
        header = pydicom.dcmread(path)
        del header.ImagePositionPatient
        header.save_as(path)
    _, reasons = translated(model, nowhere, tmp_path / "e")
    assert "known positions. Received: slices without a position" in reasons[0]
    assert not [path for name in "abde" for path in (tmp_path / name).rglob("*.dcm")]


def test_a_model_of_volumes_of_scale_1_keeps_frames_and_names(tmp_path):
    frames, physical = enhanced(tmp_path)
    model = Model(dimensions=3, source=CT, target=CT)
    translated(model, frames, tmp_path / "out.dcm")
    result = open_volume(tmp_path / "out.dcm")
    np.testing.assert_array_equal(np.stack([result.read(i) for i in range(3)]), physical[::-1])
    translated(model, series(tmp_path / "in", 3), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "0.dcm", "1.dcm", "2.dcm",
    ]  # fmt: skip


def test_slices_may_be_a_tenth_out_of_step():
    positions = [(0, 0, z) for z in (0.0, 1.0, 2.09, 3.0)]
    np.testing.assert_allclose(geometry.slice_step(positions), [0, 0, 1])
    for bad in ([(0, 0, 0)], [(0, 0, 0), None], [(0, 0, 1)] * 3, [(0, 0, z) for z in (0, 1, 3)]):
        with pytest.raises(ValueError, match="^slices: .*Received"):
            geometry.slice_step(bad)
