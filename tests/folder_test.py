"""The data set `folder`: layouts, pairing, splits, windows, resampling, privacy."""

import hashlib

import nibabel
import numpy as np
import PIL.Image
import pydicom
import pydicom.data
import pydicom.uid
import pytest
import skimage.transform
import tifffile

from zoo import pipeline
from zoo.models.encoder_decoder import EncoderDecoderRecipe
from zoo.recipe import Recipe
from zoo_datasets.folder import folder_dataset_builder


def image(number, shape=(12, 10)):
    """A float32 test image unlike any other."""
    return np.random.default_rng([7, number]).normal(100, 20, shape).astype("float32")


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)


def build(path, data_dir, **options):
    return pipeline.load_builder("folder", data_dir, Recipe(**options), path)


def examples(builder, split="test"):
    found = list(pipeline.eval_dataset(builder, split))
    return sorted(found, key=lambda example: example["name"])


def every(builder):
    return {split: examples(builder, split) for split in builder.info.splits}


def dicom(path, *, base="CT_small.dcm", patient="Ann^Example", series="s", position=0, pixels=None):
    """A copy of one of pydicom's files as a slice of a series of its own."""
    dataset = pydicom.dcmread(pydicom.data.get_testdata_file(base, download=False))
    uid = lambda text: pydicom.uid.generate_uid(entropy_srcs=[text])  # noqa: E731
    dataset.PatientID = dataset.PatientName = patient
    dataset.StudyInstanceUID = uid(f"study {patient}")
    dataset.SeriesInstanceUID = uid(f"{patient} {series}")
    dataset.SOPInstanceUID = uid(f"{patient} {series} {position}")
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.InstanceNumber = position + 1
    dataset.ImagePositionPatient = [0, 0, 5.0 * position]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.SliceLocation = 5.0 * position
    if pixels is not None:
        dataset.PixelData = pixels.astype(dataset.pixel_array.dtype).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path)
    return dataset.pixel_array * float(dataset.get("RescaleSlope", 1)) + float(
        dataset.get("RescaleIntercept", 0)
    )


def test_pairs_by_name(tmp_path):
    for number in range(3):
        save(tmp_path / f"in/trainA/sub/{number}.npy", image(number))
        path = tmp_path / f"in/trainB/sub/{number}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, image(number) + 1000)
    for letter, offset in (("A", 0), ("B", 1000)):
        save(tmp_path / f"in/test{letter}/x.npy", image(9) + offset)
        save(tmp_path / f"in/val{letter}/y.npy", image(8) + offset)
    builder = build(tmp_path / "in", tmp_path / "data")
    assert builder.info.metadata["kind"] == "paired"
    assert builder.info.metadata["aligned"] is True
    found = every(builder)
    assert {split: len(part) for split, part in found.items()} == {
        "train": 3,
        "validation": 1,
        "test": 1,
    }
    for number, example in enumerate(found["train"]):
        assert example["name"] == f"train/{number:06d}"
        np.testing.assert_array_equal(example["source"][..., 0], image(number))
        np.testing.assert_array_equal(example["target"][..., 0], image(number) + 1000)
    source, target = pipeline.domains(builder, Recipe(target_window=(1.0, 2.0)))
    everything = np.stack([image(number) for number in range(3)])
    assert source.window == pytest.approx(np.percentile(everything, (0.5, 99.5)), rel=1e-5)
    assert target.window == (1.0, 2.0)
    assert source.spacing is None


def test_prepared_data_are_read_again_and_change_with_files(tmp_path, monkeypatch):
    for number in range(4):
        save(tmp_path / f"in/{number}.npy", image(number))
    first = build(tmp_path / "in", tmp_path / "data")
    before = every(first)
    with monkeypatch.context() as patch:
        patch.setattr(folder_dataset_builder.layout, "read", None)  # nothing is read again
        again = build(tmp_path / "in", tmp_path / "data")
    assert again.data_dir == first.data_dir
    assert dict(again.info.metadata.items()) == dict(first.info.metadata.items())
    for split, part in every(again).items():
        for one, other in zip(before[split], part, strict=True):
            np.testing.assert_array_equal(one["image"], other["image"])
    assert build(tmp_path / "in", tmp_path / "data", slices=3).data_dir != first.data_dir
    save(tmp_path / "in/4.npy", image(4))
    changed = build(tmp_path / "in", tmp_path / "data")
    assert changed.data_dir != first.data_dir
    assert sum(s.num_examples for s in changed.info.splits.values()) == 5


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (["1.npy", "2.npy", "3.npy"], ["1.npy", "2.npy", "4.npy"], "trainA/3.npy, trainB/4.npy"),
        (["1.npy", "2.npy"], ["1.npy"], "trainA/2.npy"),
        (["1.npy"], None, "expected both trainA and trainB"),
    ],
)
def test_pairing_errors(tmp_path, a, b, message):
    for letter, names in (("A", a), ("B", b or [])):
        for name in names:
            save(tmp_path / f"in/train{letter}/{name}", image(1))
    with pytest.raises(ValueError, match=message):
        build(tmp_path / "in", tmp_path / "data")
    assert not list((tmp_path / "data").rglob("*.tfrecord*"))


def test_mismatched_pairs_are_named(tmp_path):
    save(tmp_path / "in/trainA/p.npy", image(1))
    save(tmp_path / "in/trainB/p.npy", image(1, (12, 11)))
    with pytest.raises(ValueError, match=r"p.npy \(12, 10\) and p.npy \(12, 11\)"):
        build(tmp_path / "in", tmp_path / "data")
    save(tmp_path / "in/trainB/p.npy", image(1, (3, 12, 10)))
    with pytest.raises(ValueError, match="as many slices"):
        build(tmp_path / "in", tmp_path / "data")


def test_unpaired(tmp_path):
    for number in range(5):
        save(tmp_path / f"in/trainA/a{number}.npy", image(number))
    for number in range(2):
        save(tmp_path / f"in/trainB/b{number}.npy", image(number + 50, (7, 8)))
    builder = build(tmp_path / "in", tmp_path / "data")
    assert builder.info.metadata["kind"] == "unpaired"
    assert builder.info.metadata["aligned"] is False
    found = every(builder)
    sizes = {split: len(part) for split, part in found.items()}
    assert sizes == {"train": 4, "test": 1}  # B has 2 images: one trains, one tests
    means = {split: {float(e["source"].mean()) for e in part} for split, part in found.items()}
    assert not means["train"] & means["test"]
    means = {split: {float(e["target"].mean()) for e in part} for split, part in found.items()}
    assert len(means["train"]) == 1
    assert not means["train"] & means["test"]


@pytest.mark.parametrize("split_column", [False, True])
def test_list(tmp_path, split_column):
    lines = ["source\ttarget\tpatient" + "\tsplit" * split_column]
    for number in range(24):
        save(tmp_path / f"in/x/{number}.npy", image(number))
        save(tmp_path / f"elsewhere/{number}.npy", image(number) + 5)
        target = tmp_path / f"elsewhere/{number}.npy"
        split = "\ttest" if number < 2 else "\ttrain"
        lines.append(f"x/{number}.npy\t{target}\tpatient {number // 2}" + split * split_column)
    (tmp_path / "in/list.tsv").write_text("\n".join(lines) + "\n")
    found = every(build(tmp_path / "in/list.tsv", tmp_path / "data"))
    patients = [{example["patient"] for example in part} for part in found.values()]
    assert sum(len(some) for some in patients) == len(set().union(*patients)) == 12
    assert "patient 0" not in set().union(*patients)
    assert sum(len(part) for part in found.values()) == 24
    for example in sum(found.values(), []):
        np.testing.assert_allclose(example["target"], example["source"] + 5, rtol=1e-6)
    if split_column:
        assert {split: len(part) for split, part in found.items()} == {"train": 22, "test": 2}
    else:
        assert {split: len(part) for split, part in found.items()} == {
            "train": 20,
            "validation": 2,
            "test": 2,
        }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("source\tcolour\na.npy\tb.npy\n", "expected a tab-separated header"),
        ("image\n../a.npy\n", "inside the list's folder"),
        ("image\tsplit\na.npy\tholdout\n", "split: expected train"),
        ("source\ttarget\na.npy\n", "line 2"),
        ("image\tsplit\tpatient\na.npy\ttrain\tp\nb.npy\ttest\tp\n", "allow_shared_patients"),
    ],
)
def test_list_errors(tmp_path, text, message):
    save(tmp_path / "a.npy", image(1))
    save(tmp_path / "b.npy", image(2))
    (tmp_path / "list.tsv").write_text(text)
    with pytest.raises(ValueError, match=message):
        build(tmp_path / "list.tsv", tmp_path / "data")


def test_dicom_series(tmp_path):
    """Slices pair by position, values are HU, patients are known, and nothing names them."""
    values = {}
    for patient in range(3):
        for letter in "AB":
            for position in (2, 0, 1):
                pixels = np.full((128, 128), 1000 + 100 * patient + 10 * position + (letter == "B"))
                values[letter, patient, position] = dicom(
                    tmp_path / f"in/train{letter}/case{patient}/{9 - position}{letter}.dcm",
                    patient=f"Doe^Jane{patient}",
                    series=letter,
                    position=position,
                    pixels=pixels,
                ).mean()
    builder = build(tmp_path / "in", tmp_path / "data")
    found = every(builder)
    assert {split: len(part) for split, part in found.items()} == {
        "train": 3,
        "validation": 3,
        "test": 3,
    }
    seen = set()
    for example in sum(found.values(), []):
        pair = (float(example["source"].mean()), float(example["target"].mean()))
        assert pair[1] == pair[0] + 1
        seen.add(pair[0])
    assert seen == {v for (letter, *_), v in values.items() if letter == "A"}
    for part in found.values():
        assert len({example["patient"] for example in part}) == 1
    source, _ = pipeline.domains(builder, Recipe())
    assert (source.modality, source.unit, source.window) == ("CT", "HU", (-1024.0, 1500.0))
    assert source.spacing == pytest.approx((0.661468, 0.661468), rel=1e-4)
    for path in (tmp_path / "data").rglob("*"):
        assert b"Doe" not in (path.read_bytes() if path.is_file() else b"")
        assert "Doe" not in path.name


def test_shared_patients(tmp_path):
    for split in ("train", "test"):
        dicom(tmp_path / f"in/{split}/a.dcm", base="MR_small.dcm", series=split)
    dicom(tmp_path / "in/train/other.dcm", base="MR_small.dcm", patient="other")
    with pytest.raises(ValueError, match="--set allow_shared_patients=true"):
        build(tmp_path / "in", tmp_path / "data")
    builder = build(tmp_path / "in", tmp_path / "data", allow_shared_patients=True)
    assert builder.info.metadata["shared_patients"] is True
    domain, same = pipeline.domains(builder, Recipe())
    assert domain is same
    assert (domain.modality, domain.unit) == ("MR", "signal")


def test_flat_dicom_folders_pair_by_patient(tmp_path):
    for patient in ("p", "q"):
        for letter in "AB":
            for position in range(2):
                dicom(
                    tmp_path / f"in/train{letter}/{letter}{patient}{position}.dcm",
                    patient=patient,
                    series=letter,
                    position=position,
                    pixels=np.full((128, 128), 500 * (patient == "q") + position),
                )
    found = every(build(tmp_path / "in", tmp_path / "data"))
    assert {split: len(part) for split, part in found.items()} == {"train": 2, "test": 2}
    for example in sum(found.values(), []):
        np.testing.assert_array_equal(example["source"], example["target"])


def test_nifti_and_slices(tmp_path):
    volume = np.random.default_rng(0).normal(300, 50, (6, 5, 4)).astype("float32")
    for letter in "AB":
        (tmp_path / f"in/train{letter}").mkdir(parents=True)
        for case in range(2):
            header = nibabel.Nifti1Image(volume + case, np.diag([0.5, 0.8, 3.0, 1.0]))
            nibabel.save(header, tmp_path / f"in/train{letter}/case{case}.nii.gz")
    builder = build(tmp_path / "in", tmp_path / "data", slices=3)
    source, target = pipeline.domains(builder, Recipe(slices=3))
    assert (source.channels, target.channels) == (3, 1)
    assert source.spacing == pytest.approx((0.5, 0.8), rel=1e-5)
    for part in every(builder).values():
        case = round(float(part[0]["target"].mean() - volume[..., 0].mean()))
        for index, example in enumerate(part):
            around = np.clip([index - 1, index, index + 1], 0, 3)
            np.testing.assert_allclose(example["source"], volume[..., around] + case, rtol=1e-6)
            np.testing.assert_array_equal(example["target"][..., 0], example["source"][..., 1])


def test_resampling(tmp_path):
    for case in range(2):
        (tmp_path / "in").mkdir(exist_ok=True)
        affine = np.diag([0.5, 0.8, 3.0, 1.0])
        rows, columns = np.mgrid[:40, :30]
        volume = (100 + rows * 2 - columns + case)[..., None].astype("float32")
        nibabel.save(nibabel.Nifti1Image(volume, affine), tmp_path / f"in/{case}.nii")
    builder = build(tmp_path / "in", tmp_path / "data", spacing=1.25)
    domain, _ = pipeline.domains(builder, Recipe())
    assert domain.spacing == (1.25, 1.25)
    example = examples(builder, "train")[0]["image"][..., 0]
    assert example.shape == (16, 19)  # 40 x 0.5 / 1.25, 30 x 0.8 / 1.25 rounded
    case = round(float(example.mean() - (100 + 39 - 14.5)))
    plane = (100 + rows * 2 - columns + case).astype("float32")
    expected = skimage.transform.resize(plane, (16, 19), order=1, mode="edge", anti_aliasing=True)
    np.testing.assert_allclose(example, expected, atol=1e-3)
    assert abs(float(example.mean() - plane.mean())) < 0.1
    # A slope of 2 a pixel of 0.5 mm is one of 5 a pixel of 1.25 mm.
    assert np.diff(example, axis=0)[4:-4].mean() == pytest.approx(5, rel=0.01)


def test_spacing_needs_a_known_spacing(tmp_path):
    save(tmp_path / "in/a.npy", image(1))
    with pytest.raises(ValueError, match="spacing: a.npy does not state"):
        build(tmp_path / "in", tmp_path / "data", spacing=1.0)


@pytest.mark.parametrize(("dtype", "high"), [("uint8", 255), ("uint16", 65535)])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_raster_values_are_exact(tmp_path, dtype, high, suffix):
    (tmp_path / "in").mkdir()
    arrays = {}
    for number in range(2):
        array = np.random.default_rng(number).integers(0, high, (9, 11), endpoint=True)
        array[0, :2] = 0, high
        arrays[hashlib.sha256(array.astype("float32").tobytes()).hexdigest()] = array
        path = tmp_path / f"in/{number}.{suffix}"
        if suffix == "png":
            PIL.Image.fromarray(array.astype(dtype)).save(path)
        else:
            tifffile.imwrite(path, array.astype(dtype))
    builder = build(tmp_path / "in", tmp_path / "data")
    domain, _ = pipeline.domains(builder, Recipe())
    assert domain.window == (0.0, float(high))
    stored = sum(every(builder).values(), [])
    digests = {hashlib.sha256(e["image"].tobytes()).hexdigest() for e in stored}
    assert digests == set(arrays)


def test_unreadable_files_are_left_out_and_counted(tmp_path, capfd):
    for number in range(4):
        for letter in "AB":
            save(tmp_path / f"in/train{letter}/{number}.npy", image(number))
    (tmp_path / "in/trainA/2.npy").write_bytes(b"\x93NUMPY broken")
    save(tmp_path / "in/trainA/3.npy", np.full((12, 10), np.nan, "float32"))
    save(tmp_path / "in/testA/t.npy", image(20))
    save(tmp_path / "in/testB/t.npy", image(20))
    builder = build(tmp_path / "in", tmp_path / "data")
    assert len(examples(builder, "train")) == 2
    log = capfd.readouterr().err
    assert "2.npy" in log
    assert "3.npy" in log
    assert "1 unreadable files or slices were left out" in log
    assert "window" in log


def test_nothing_left(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="no readable image is left"):
        build(tmp_path / "in", tmp_path / "data")
    with pytest.raises(ValueError, match="Received: None"):
        build(None, tmp_path / "data")
    with pytest.raises(FileNotFoundError, match="expected a folder"):
        build(tmp_path / "nowhere", tmp_path / "data")


def test_a_palette_of_a_target_is_its_classes(tmp_path):
    indices = np.arange(20, dtype=np.uint8).reshape(4, 5) % 3
    for letter in "AB":
        (tmp_path / f"in/train{letter}").mkdir(parents=True)
    for number in range(3):
        image = PIL.Image.fromarray(indices, "P")
        image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
        image.save(tmp_path / f"in/trainB/{number}.png")
        np.save(tmp_path / f"in/trainA/{number}.npy", np.ones((4, 5), np.float32))
    recipe = EncoderDecoderRecipe(classes=3)
    builder = pipeline.load_builder("folder", tmp_path / "data", recipe, tmp_path / "in")
    target = examples(builder, "train")[0]["target"]
    np.testing.assert_array_equal(target[..., 0], indices)


def test_a_file_behind_a_linked_folder_that_changes_makes_another_data_set(tmp_path):
    save(tmp_path / "store/1.npy", image(1))
    (tmp_path / "in").mkdir()
    (tmp_path / "in/linked").symlink_to(tmp_path / "store")
    before = folder_dataset_builder.configure(tmp_path / "in", Recipe()).name
    assert folder_dataset_builder.configure(tmp_path / "in", Recipe()).name == before
    save(tmp_path / "store/1.npy", image(1, (13, 10)))
    assert folder_dataset_builder.configure(tmp_path / "in", Recipe()).name != before
