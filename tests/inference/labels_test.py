"""Files written by models that make label maps, and by those that take k-space."""

import nibabel
import numpy as np
import PIL.Image
import pydicom
import pydicom.uid
import pytest
import tifffile

from dicom_files import bundled, dciodvfy, enhanced, single
from stand_in import CT, Model, translated
from zoo.domain import Domain
from zoo.imaging.files import find, open_volume

ORGANS = Domain(modality="SEG", unit="class", window=(0, 4))
KSPACE = Model(source=Domain(modality="MR", unit="k-space", window=(-9, 9), channels=2))


@pytest.mark.parametrize("shape", [(6, 6), (3, 6, 6)])
@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_k_space_becomes_real_images(tmp_path, shape, dtype):
    rng = np.random.default_rng(0)
    values = (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(dtype)
    np.save(tmp_path / "a.npy", values)
    volume = open_volume(tmp_path / "a.npy")
    assert (volume.unit, volume.channels, volume.shape) == ("k-space", 2, (6, 6))
    first = values if values.ndim == 2 else values[0]
    np.testing.assert_allclose(volume.read(0)[..., 1], first.imag, rtol=1e-6)
    report, reasons = translated(KSPACE, tmp_path / "a.npy", tmp_path / "b.npy", batch_size=2)
    assert (report.done, reasons) == (1, [])
    result = np.load(tmp_path / "b.npy")
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, np.abs(values), rtol=1e-5)


def test_k_space_and_images_are_not_taken_for_each_other(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((6, 6), np.complex64))
    np.save(tmp_path / "b.npy", np.ones((6, 6), np.float32))
    _, reasons = translated(Model(), tmp_path / "a.npy", tmp_path / "out")
    assert reasons == ["unit: the model takes images. Received: k-space"]
    _, reasons = translated(KSPACE, tmp_path / "b.npy", tmp_path / "out")
    assert reasons == [
        "unit: the model takes k-space, complex NPY files. Received: an image of real numbers"
    ]
    assert not list((tmp_path / "out").rglob("*.npy"))


@pytest.mark.parametrize("classes", [5, 300])
def test_label_maps_are_integers(tmp_path, classes):
    target = Domain(modality="SEG", unit="class", window=(0, classes - 1))
    model = Model(target=target)
    image = np.random.default_rng(0).integers(0, 60_000, (4, 8, 7)).astype(np.uint16)
    expected = np.clip(image // 100, 0, classes - 1)
    PIL.Image.fromarray(image[0]).save(tmp_path / "a.png")
    np.save(tmp_path / "b.npy", image)
    tifffile.imwrite(tmp_path / "c.tif", image, photometric="minisblack")
    data = image.astype(np.int32).transpose(1, 2, 0)
    nibabel.save(nibabel.Nifti1Image(data, np.eye(4)), tmp_path / "d.nii.gz")
    report, reasons = translated(model, tmp_path, tmp_path / "out")
    assert (report.done, reasons) == (4, [])
    dtype = np.uint8 if classes == 5 else np.uint16
    found = [
        np.asarray(PIL.Image.open(tmp_path / "out/a.png"))[None],
        np.load(tmp_path / "out/b.npy"),
        tifffile.imread(tmp_path / "out/c.tif"),
    ]
    for array in found:
        assert array.dtype == dtype
        np.testing.assert_array_equal(array, expected[: len(array)])
    labels = nibabel.load(tmp_path / "out/d.nii.gz")
    assert labels.get_data_dtype() == (np.uint8 if classes == 5 else np.int16)
    assert labels.header.get_intent()[0] == "label"
    np.testing.assert_array_equal(np.asarray(labels.dataobj).transpose(2, 0, 1), expected)


def test_a_label_map_in_dicom_holds_class_numbers(tmp_path):
    pixels = (np.arange(48).reshape(6, 8) * 12 + 1024).astype(np.int16)  # 0 to 564 HU
    pixels[0, 7] = -2000
    path = single(tmp_path, "in.dcm", pixels, PixelPaddingValue=-2000, SeriesDescription="Head")
    model = Model(source=CT, target=ORGANS)
    model.label_names = ("air", "fat", "water", "muscle", "bone")
    translated(model, path, tmp_path / "out.dcm", description="a trial")
    header = pydicom.dcmread(tmp_path / "out.dcm")
    assert (header.PixelRepresentation, header.BitsAllocated) == (0, 16)
    assert (header.RescaleSlope, header.RescaleIntercept, header.RescaleType) == (1, 0, "US")
    expected = np.clip((pixels.astype(int) - 1024) // 100, 0, 4)
    np.testing.assert_array_equal(header.pixel_array, expected)
    assert header.pixel_array[0, 7] == 0
    assert "PixelPaddingValue" not in header
    assert (header.Modality, header.SOPClassUID) == ("CT", pydicom.uid.CTImageStorage)
    assert header.ImageType[0] == "DERIVED"
    assert header.SeriesDescription == "Class numbers: Head Stand-in"
    assert "class numbers, 0 air, 1 fat, 2 water" in header.DerivationDescription
    assert header.DerivationDescription.endswith("a trial")
    assert (header.WindowCenter, header.WindowWidth) == (2, 4)
    assert dciodvfy(tmp_path / "out.dcm") - dciodvfy(path) == set()


def test_a_label_map_of_8_bits_stays_at_8(tmp_path):
    header = pydicom.dcmread(bundled("examples_overlay"))
    pixels = np.random.default_rng(0).integers(0, 255, (9, 10), np.uint8)
    header.Rows, header.Columns, header.PixelData = 9, 10, pixels.tobytes()
    header.BitsAllocated = header.BitsStored = 8
    header.HighBit, header.PixelRepresentation = 7, 0
    header["PixelData"].VR = "OB"
    header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    header.save_as(tmp_path / "in.dcm")
    translated(Model(target=ORGANS), tmp_path / "in.dcm", tmp_path / "out.dcm")
    result = pydicom.dcmread(tmp_path / "out.dcm")
    assert (result.BitsAllocated, result.BitsStored) == (8, 8)
    assert "RescaleSlope" not in result
    np.testing.assert_array_equal(result.pixel_array, pixels // 100)


def test_a_label_map_in_an_enhanced_object(tmp_path):
    path, physical = enhanced(tmp_path, slopes=(0.5, 1.0, 2.0))
    translated(Model(source=CT, target=ORGANS), path, tmp_path / "out.dcm")
    result = open_volume(tmp_path / "out.dcm")
    assert {frame.encoding.slope for frame in result.frames} == {1.0}
    expected = np.clip(np.floor(physical[::-1] / 100), 0, 4)
    np.testing.assert_array_equal(np.stack([result.read(i) for i in range(3)]), expected)
    # Enhanced CT knows no unit but HU, and class numbers are none
    errors = dciodvfy(tmp_path / "out.dcm") - dciodvfy(path)
    assert [error for error in errors if "<Rescale Type>" not in error] == []


def test_labels_are_not_blended_on_the_way_back_to_the_files_grid(tmp_path):
    image = np.zeros((12, 10, 2), np.int16)
    image[:, 5:] = 450  # class 4, beside class 0
    nibabel.save(nibabel.Nifti1Image(image, np.diag([2.0, 1.5, 5, 1])), tmp_path / "a.nii")
    translated(Model(target=ORGANS, spacing=0.5), tmp_path / "a.nii", tmp_path / "b.nii")
    result = np.asarray(nibabel.load(tmp_path / "b.nii").dataobj)
    np.testing.assert_array_equal(result, np.where(image > 0, 4, 0))


def test_a_colour_image_has_one_label_map(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (5, 6, 3), np.uint8)
    PIL.Image.fromarray(image).save(tmp_path / "a.png")
    model = Model(source=Domain(channels=3), target=ORGANS)
    translated(model, tmp_path / "a.png", tmp_path / "b.png")
    np.testing.assert_array_equal(
        np.asarray(PIL.Image.open(tmp_path / "b.png")), image[..., 0] // 100
    )
    assert find(tmp_path / "b.png").volumes[0].channels == 1


def test_the_label_map_of_a_jpeg_picture_is_png(tmp_path):
    steps = np.arange(0, 480, 30).clip(0, 255).repeat(8).astype(np.uint8)
    PIL.Image.fromarray(np.tile(steps, (16, 1))).save(tmp_path / "a.jpg", quality=100)
    target = Domain(modality="SEG", unit="class", window=(0, 2))
    report, skipped = translated(Model(target=target), tmp_path / "a.jpg", tmp_path / "out")
    assert not skipped and report.outputs == [tmp_path / "out/a.png"]
    expected = np.floor(open_volume(tmp_path / "a.jpg").read(0) / 100)
    np.testing.assert_array_equal(np.asarray(PIL.Image.open(report.outputs[0])), expected)
    translated(Model(target=target), tmp_path / "a.jpg", tmp_path / "mask.png")
    assert (tmp_path / "mask.png").exists()
    with pytest.raises(ValueError, match="expected a .png file"):
        translated(Model(target=target), tmp_path / "a.jpg", tmp_path / "mask.jpg")
    PIL.Image.fromarray(steps[None]).save(tmp_path / "a.png")
    (tmp_path / "both").mkdir()
    for name in ("a.jpg", "a.png"):
        (tmp_path / name).rename(tmp_path / "both" / name)
    report, skipped = translated(Model(target=target), tmp_path / "both", tmp_path / "out2")
    assert report.done == 1 and len(skipped) == 1
