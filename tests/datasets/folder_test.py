"""The data set `folder`: layouts, pairing, splits, windows, resampling, privacy."""

import dataclasses
import hashlib
import json
import os
import shutil
import stat
import unicodedata
from pathlib import Path

import nibabel
import numpy as np
import PIL.Image
import pydicom
import pydicom.data
import pydicom.uid
import pytest
import skimage.transform
import tifffile

from dicom_files import item, single
from zoo import command_line
from zoo.data import batches, prepare
from zoo.data.facts import data_facts
from zoo.models.encoder_decoder import EncoderDecoderRecipe
from zoo.recipe import Recipe
from zoo_datasets.folder import config, describe, layout, pseudonyms

# Rows run to the back, columns to the left: axial slices are presented as they are stored.
HUNG = np.array([[0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])


def domains(builder, recipe):
    found = data_facts(builder, recipe)
    return found.source, found.target


def image(number, shape=(12, 10)):
    """A float32 test image unlike any other."""
    return np.random.default_rng([7, number]).normal(100, 20, shape).astype("float32")


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(Recipe):
    """A recipe with the fields that only some models have."""

    classes: int = 0
    scale: int = 1
    dimensions: int = 2


def build(path, data_dir, **options):
    return prepare.load_builder("folder", data_dir, Options(**options), path)


def examples(builder, split="test"):
    found = list(batches.eval_dataset(builder, split))
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
    source, target = domains(builder, Recipe(target_window=(1.0, 2.0)))
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
        patch.setattr(layout, "read", None)  # nothing is read again
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
    source, _ = domains(builder, Recipe())
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
    assert (
        builder.info.metadata["note"] == "Patients are in several splits, so that results flatter."
    )
    domain, same = domains(builder, Recipe())
    assert domain is same
    assert (domain.modality, domain.unit) == ("MR", "signal")


def test_files_that_do_not_say_whose_they_are_are_counted(tmp_path, capfd):
    dicom(tmp_path / "in/p/0.dcm")
    for number in range(3):
        save(tmp_path / f"in/{number}.npy", image(number))
    builder = build(tmp_path / "in", tmp_path / "data", source_unit="HU")
    note = "Of 3 files nobody says whose they are: each is a patient."
    assert builder.info.metadata["note"] == note
    assert note in capfd.readouterr().err


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


@pytest.mark.parametrize("listed", [False, True])
def test_time_points_of_a_series_pair_in_their_order(tmp_path, listed):
    for letter in "AB":
        for time in range(2):
            for position in range(3):
                path = tmp_path / f"in/train{letter}/p/{letter}{time}{position}.dcm"
                pixels = np.full((128, 128), 100 * (time + 1) + position)
                dicom(path, patient="p", series=letter, position=position, pixels=pixels)
                dataset = pydicom.dcmread(path)
                dataset.AcquisitionNumber = time + 1
                dataset.SOPInstanceUID = pydicom.uid.generate_uid()
                dataset.save_as(path)
    where = tmp_path / "in"
    if listed:
        where = tmp_path / "in/list.tsv"
        where.write_text("source\ttarget\ntrainA/p\ttrainB/p\n")
    found = every(build(where, tmp_path / "data", slices=3))
    assert sum(len(part) for part in found.values()) == 6
    for example in sum(found.values(), []):
        stack = example["source"][0, 0].astype(int) + 1024
        assert stack[1] == example["target"][0, 0, 0] + 1024
        assert len(set(stack // 100)) == 1
        assert stack.tolist() == sorted(stack)


def test_nifti_and_slices(tmp_path):
    volume = np.random.default_rng(0).normal(300, 50, (6, 5, 4)).astype("float32")
    for letter in "AB":
        (tmp_path / f"in/train{letter}").mkdir(parents=True)
        for case in range(2):
            header = nibabel.Nifti1Image(volume + case, HUNG @ np.diag([0.5, 0.8, 3, 1]))
            nibabel.save(header, tmp_path / f"in/train{letter}/case{case}.nii.gz")
    builder = build(tmp_path / "in", tmp_path / "data", slices=3)
    source, target = domains(builder, Recipe(slices=3))
    assert (source.channels, target.channels) == (3, 1)
    assert source.spacing == pytest.approx((0.5, 0.8), rel=1e-5)
    for part in every(builder).values():
        case = round(float(part[0]["target"].mean() - volume[..., 0].mean()))
        for index, example in enumerate(part):
            around = np.clip([index - 1, index, index + 1], 0, 3)
            np.testing.assert_allclose(example["source"], volume[..., around] + case, rtol=1e-6)
            np.testing.assert_array_equal(example["target"][..., 0], example["source"][..., 1])


def test_volumes_are_presented_in_the_plane_that_they_were_acquired_in(tmp_path, capfd):
    """Sagittal slices of 5 mm, one patient's turned to axes right, front, up."""
    volume = np.random.default_rng(0).normal(300, 50, (12, 10, 4)).astype("float32")
    # rows down, columns to the back, slices to the right: as sagittal slices are hung
    down_back_right = np.array([[0, 0, 5.0, 0], [0, -0.9, 0, 0], [-1.1, 0, 0, 0], [0, 0, 0, 1]])
    for number in range(3):
        scan = nibabel.Nifti1Image(volume + number, down_back_right)
        if number:
            scan = nibabel.as_closest_canonical(scan)
        nifti(tmp_path / f"in/{number}.nii.gz", scan.get_fdata().astype("f4"), scan.affine)
    builder = build(tmp_path / "in", tmp_path / "data")
    domain, _ = domains(builder, Recipe())
    assert domain.plane == "sagittal"
    assert domain.spacing == pytest.approx((1.1, 0.9), rel=1e-5)
    for part in every(builder).values():
        for k, example in enumerate(part):
            number = round(float(np.mean(example["image"][..., 0] - volume[..., k])))
            np.testing.assert_allclose(example["image"][..., 0], volume[..., k] + number, rtol=1e-5)
    # With axial slices among them all are axial.
    nifti(tmp_path / "in/other.nii", np.zeros((9, 8, 4), "f4"))
    nifti(tmp_path / "in/others.nii", np.zeros((9, 8, 4), "f4"))
    builder = build(tmp_path / "in", tmp_path / "data")
    assert domains(builder, Recipe())[0].plane == "axial"
    assert "acquired in several planes" in capfd.readouterr().err
    shapes = {e["image"].shape[:2] for part in every(builder).values() for e in part}
    assert shapes == {(10, 4), (9, 8)}


def test_resampling(tmp_path):
    for case in range(2):
        (tmp_path / "in").mkdir(exist_ok=True)
        affine = HUNG @ np.diag([0.5, 0.8, 3.0, 1.0])
        rows, columns = np.mgrid[:40, :30]
        volume = (100 + rows * 2 - columns + case)[..., None].astype("float32")
        nibabel.save(nibabel.Nifti1Image(volume, affine), tmp_path / f"in/{case}.nii")
    builder = build(tmp_path / "in", tmp_path / "data", spacing=1.25)
    domain, _ = domains(builder, Recipe())
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


def test_spacing_that_asks_for_too_many_pixels(tmp_path):
    nibabel_image = nibabel.Nifti1Image(image(0, (9, 8, 3)), np.eye(4))
    (tmp_path / "in").mkdir()
    nibabel.save(nibabel_image, tmp_path / "in/a.nii")
    with pytest.raises(ValueError, match="spacing: a.nii would have 80000 x 90000 pixels"):
        build(tmp_path / "in", tmp_path / "data", spacing=1e-4)


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
    domain, _ = domains(builder, Recipe())
    assert domain.window == (0.0, float(high))
    stored = sum(every(builder).values(), [])
    digests = {hashlib.sha256(e["image"].tobytes()).hexdigest() for e in stored}
    assert digests == set(arrays)


def bad_files(builder):
    path = Path(builder.data_dir) / "bad_files.json"
    return json.loads(path.read_text()) if path.exists() else []


def test_unreadable_files_are_left_out_and_counted(tmp_path, capfd):
    for number in range(4):
        for letter in "AB":
            save(tmp_path / f"in/train{letter}/Ann{number}.npy", image(number))
    (tmp_path / "in/trainA/Ann2.npy").write_bytes(b"\x93NUMPY broken")
    save(tmp_path / "in/trainA/Ann3.npy", np.full((12, 10), np.nan, "float32"))
    (tmp_path / "in/trainA/README").write_text("notes")
    save(tmp_path / "in/testA/t.npy", image(20))
    save(tmp_path / "in/testB/t.npy", image(20))
    builder = build(tmp_path / "in", tmp_path / "data")
    assert len(examples(builder, "train")) == 2
    log = capfd.readouterr().err
    assert "left out Ann2.npy: " in log
    assert "left out Ann2.npy: its partner cannot be read" in log
    assert "left out Ann3.npy: " in log
    assert "1 files are no images, such as README" in log
    assert "window" in log
    # Who they are is said here, and not stored.
    bad = bad_files(builder)
    assert len(bad) == 3
    assert bad[2]["reason"] == "the file: expected finite values. Received: NaN or infinity"
    assert "Ann" not in json.dumps(bad)
    build(tmp_path / "in", tmp_path / "data")
    assert "3 could not be read and were left out" in capfd.readouterr().err
    flags = [f"--input={tmp_path / 'in'}", f"--data_dir={tmp_path / 'data'}"]
    arguments = ["cli.py", "--dataset=folder", *flags, "prepare"]
    assert command_line.main(arguments) == 1
    (tmp_path / "in/trainA/Ann2.npy").unlink()
    (tmp_path / "in/trainB/Ann2.npy").unlink()
    save(tmp_path / "in/trainA/Ann3.npy", image(3))
    assert command_line.main(arguments) == 0


def test_a_file_in_a_folder_that_cannot_be_entered_is_left_out(tmp_path, monkeypatch):
    for number in range(4):
        save(tmp_path / f"in/{number}.npy", image(number))
    look = Path.stat

    def denied(self, **options):
        if self.name == "3.npy":
            raise PermissionError(13, "Permission denied", str(self))
        return look(self, **options)

    monkeypatch.setattr(Path, "stat", denied)
    builder = build(tmp_path / "in", tmp_path / "data")
    assert sum(map(len, every(builder).values())) == 3
    assert "Permission denied" in bad_files(builder)[0]["reason"]


def test_names_of_any_characters_are_said_in_one_line(tmp_path, capfd):
    for number in range(3):
        save(tmp_path / f"in/{number}.npy", image(number))
    (tmp_path / "in/two\nlines\x1b[2J.npy").write_bytes(b"no image")
    build(tmp_path / "in", tmp_path / "data")
    assert "folder: left out two\\nlines\\x1b[2J.npy: " in capfd.readouterr().err


def test_what_a_damaged_file_throws_costs_that_file_alone(tmp_path, capfd):
    """Compressed data that are wrong in the middle are found before a slice is taken."""
    (tmp_path / "in").mkdir()
    volume = np.random.default_rng(0).integers(0, 4000, (40, 40, 6)).astype("int16")
    for number in range(4):
        nibabel.save(nibabel.Nifti1Image(volume, HUNG), tmp_path / f"in/{number}.nii.gz")
    content = bytearray((tmp_path / "in/0.nii.gz").read_bytes())
    content[len(content) // 2 : len(content) // 2 + 40] = bytes(40)
    (tmp_path / "in/0.nii.gz").write_bytes(content)
    builder = build(tmp_path / "in", tmp_path / "data")
    found = sum(every(builder).values(), [])
    assert len(found) == 18
    assert sum(np.array_equal(e["image"][..., 0], volume[..., 0]) for e in found) == 3
    assert "left out 0.nii.gz: " in capfd.readouterr().err
    assert len(bad_files(builder)) == 1


def test_a_split_of_which_nothing_is_left(tmp_path, capfd):
    for name, value in (("train/a", 1.0), ("val/b", 2.0), ("test/c", np.nan)):
        save(tmp_path / f"in/{name}.npy", np.full((4, 4), value, "float32"))
    builder = build(tmp_path / "in", tmp_path / "data")
    assert {split: len(part) for split, part in every(builder).items()} == {
        "train": 1,
        "validation": 1,
    }
    assert "no readable image is left in the split test" in capfd.readouterr().err
    assert len(bad_files(builder)) == 1
    save(tmp_path / "in/train/a.npy", np.full((4, 4), np.nan, "float32"))
    with pytest.raises(ValueError, match="no readable image is left"):
        build(tmp_path / "in", tmp_path / "data")


def test_nothing_left(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="no readable image is left"):
        build(tmp_path / "in", tmp_path / "data")
    with pytest.raises(ValueError, match="Received: None"):
        build(None, tmp_path / "data")
    with pytest.raises(FileNotFoundError, match="expected a folder"):
        build(tmp_path / "nowhere", tmp_path / "data")


@pytest.mark.parametrize(
    ("places", "message"),
    [
        (["train", "val", "validation"], "one folder of each split. Received: val and validation"),
        (["train", "Train"], "one folder of each split. Received: Train and train"),
        (["trainA", "trainB", "test"], "for single images. Received: test, trainA, trainB"),
        (["test", "val"], "expected train in .*Received: test, val"),
        (["testA", "testB"], "expected trainA and trainB in .*Received: testA, testB"),
    ],
)
def test_folders_of_splits_that_do_not_go_together(tmp_path, places, message):
    for place in places:
        save(tmp_path / "in" / place / "0.npy", image(0))
    with pytest.raises(ValueError, match=message):
        build(tmp_path / "in", tmp_path / "data")


def test_a_file_is_one_patient_whatever_links_lead_to_it(tmp_path):
    for number in range(4):
        save(tmp_path / f"in/{number}.npy", image(number))
        (tmp_path / f"in/link{number}.npy").symlink_to(tmp_path / f"in/{number}.npy")
    builder = build(tmp_path / "in", tmp_path / "data")
    patients = [{e["patient"] for e in found} for found in every(builder).values()]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 4
    shutil.copytree(tmp_path / "in", tmp_path / "two/train", symlinks=True)
    (tmp_path / "two/test").mkdir()
    (tmp_path / "two/test/9.npy").symlink_to(tmp_path / "two/train/0.npy")
    with pytest.raises(ValueError, match="1 patients in several of test, train"):
        build(tmp_path / "two", tmp_path / "data")


def test_what_lies_beside_the_folders_of_splits_is_named(tmp_path, capfd):
    for place in ("trainA", "trainB", "tstA", "."):
        save(tmp_path / f"in/{place}/0.npy", image(0))
    (tmp_path / "in/README.md").write_text("a note")
    (tmp_path / "in/.hidden").mkdir()
    (tmp_path / "in/testA").mkdir()
    (tmp_path / "in/testB").mkdir()
    assert list(build(tmp_path / "in", tmp_path / "data").info.splits) == ["train"]
    said = capfd.readouterr().err
    assert "warning: in no folder of a split, and left out: 0.npy, tstA\n" in said
    assert "warning: no readable image is left in the split test" in said


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
    builder = prepare.load_builder("folder", tmp_path / "data", recipe, tmp_path / "in")
    target = examples(builder, "train")[0]["target"]
    np.testing.assert_array_equal(target[..., 0], indices)


def test_a_file_behind_a_linked_folder_that_changes_makes_another_data_set(tmp_path):
    save(tmp_path / "store/1.npy", image(1))
    (tmp_path / "in").mkdir()
    (tmp_path / "in/linked").symlink_to(tmp_path / "store")
    before = config.configure(tmp_path / "in", Recipe()).name
    assert config.configure(tmp_path / "in", Recipe()).name == before
    save(tmp_path / "store/1.npy", image(1, (13, 10)))
    assert config.configure(tmp_path / "in", Recipe()).name != before


# Intensities.


@pytest.mark.parametrize(
    ("dtype", "most", "high"),
    [("uint16", 4000, 4095), ("uint16", 300, 1023), ("uint16", 40_000, 65535), ("uint8", 3, 3)],
)
def test_bits_that_are_not_in_use_are_left_out_of_the_window(tmp_path, capfd, dtype, most, high):
    for number in range(3):
        for letter, part in (("A", 1), ("B", 2)):  # a darker target has the same window
            array = np.random.default_rng(number).integers(0, most // part, (9, 11), endpoint=True)
            array[0, 0] = most // part
            path = tmp_path / f"in/train{letter}/{number}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(path, array.astype(dtype))
    builder = build(tmp_path / "in", tmp_path / "data")
    source, target = domains(builder, Recipe())
    assert source.window == target.window == (0.0, float(high))
    said = f"--set source_window=0,{np.iinfo(dtype).max}"
    assert (said in capfd.readouterr().err) == (high < np.iinfo(dtype).max)
    source, target = domains(builder, Recipe(source_window=(0.0, 7.0)))
    assert source.window == (0.0, 7.0)


def test_values_above_the_window_are_said(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(describe, "_SAMPLED", 1)
    for number in range(4):
        (tmp_path / "in").mkdir(exist_ok=True)
        array = np.full((8, 8), 1000 if number < 3 else 5000, "uint16")
        tifffile.imwrite(tmp_path / f"in/{number}.tif", array)
    build(tmp_path / "in", tmp_path / "data")
    log = capfd.readouterr().err
    assert "values up to 5000 lie above the window, in 3.tif for one" in log
    assert "--set source_window=LOW,HIGH" in log


def nifti(path, array, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = HUNG @ np.diag([0.7, 0.7, 3.0, 1.0]) if affine is None else affine
    nibabel.save(nibabel.Nifti1Image(array, affine), path)


def test_the_unit_of_files_that_name_none(tmp_path):
    for number in range(3):
        volume = np.random.default_rng(number).normal(0, 300, (8, 8, 2)).astype("float32")
        nifti(tmp_path / f"in/trainA/{number}.nii.gz", volume)
        nifti(tmp_path / f"in/trainB/{number}.nii.gz", volume)
    source, target = domains(build(tmp_path / "in", tmp_path / "data"), Recipe())
    assert (source.unit, target.unit, source.modality) == ("signal", "signal", "OT")
    builder = build(tmp_path / "in", tmp_path / "data", source_unit="SUV", target_unit="HU")
    source, target = domains(builder, Recipe())
    assert (source.unit, target.unit, target.modality) == ("SUV", "HU", "CT")
    assert target.window == (-1024.0, 1500.0)
    for wrong in ("hu", "class", "k-space"):
        with pytest.raises(ValueError, match=f"source_unit: expected .* Received: {wrong}"):
            build(tmp_path / "in", tmp_path / "data", source_unit=wrong)
    with pytest.raises(ValueError, match="source_unit: only the data set `folder`"):
        recipe = Recipe(source_unit="HU")
        prepare.load_builder("ldct/phantom_tiny", tmp_path / "data", recipe)


def test_files_that_name_another_unit_are_refused(tmp_path):
    for patient in "ab":
        dicom(tmp_path / f"in/{patient}.dcm", patient=patient, series=patient)
    for unit in ("", "HU"):
        domain, _ = domains(build(tmp_path / "in", tmp_path / "data", source_unit=unit), Recipe())
        assert domain.unit == "HU"
    with pytest.raises(ValueError, match=r"expected files in SUV.*Received: \w\.dcm in HU"):
        build(tmp_path / "in", tmp_path / "data", source_unit="SUV")
    save(tmp_path / "in/c.npy", image(1))
    with pytest.raises(ValueError, match=r"--set source_unit=HU.*dcm in HU, c.npy without a unit"):
        build(tmp_path / "in", tmp_path / "data")
    builder = build(tmp_path / "in", tmp_path / "data", source_unit="HU")
    assert domains(builder, Recipe())[0].unit == "HU"


def test_positron_emission_becomes_uptake(tmp_path, capfd):
    """370 MBq injected an hour before the scan, for 70 kg; one series does not state the weight."""
    drug = item(
        RadionuclideTotalDose=370e6,
        RadionuclideHalfLife=6586.2,
        RadiopharmaceuticalStartTime="110000",
    )
    pixels = np.arange(64, dtype=np.int16).reshape(8, 8)
    (tmp_path / "in").mkdir()
    for name, weight in (("a", 70), ("b", 70), ("c", None)):
        path = single(
            tmp_path / "in", f"{name}.dcm", pixels, PatientID=name, Modality="PT", Units="BQML",
            SOPClassUID=pydicom.uid.PositronEmissionTomographyImageStorage, PatientWeight=weight,
            SeriesInstanceUID=f"1.2.3.{ord(name)}", DecayCorrection="START",
            CorrectedImage=["ATTN", "DECY"], RescaleSlope=2, RescaleIntercept=0,
            SeriesDate="20200102", SeriesTime="120000", AcquisitionDate="20200102",
            AcquisitionTime="120500", RadiopharmaceuticalInformationSequence=[drug],
            PixelPaddingValue=None,
        )  # fmt: skip
        assert path.exists()
    domain, _ = domains(build(tmp_path / "in", tmp_path / "data"), Recipe())
    assert domain.unit == "Bq/ml"
    builder = build(tmp_path / "in", tmp_path / "data", source_unit="SUV")
    assert domains(builder, Recipe())[0].unit == "SUV"
    found = sum(every(builder).values(), [])
    expected = 2.0 * pixels * 70_000.0 / (370e6 * 0.5 ** (3600 / 6586.2))
    assert len(found) == 2
    for example in found:
        np.testing.assert_allclose(example["image"][..., 0], expected, rtol=1e-5)
    assert "left out c.dcm: SUV: expected PatientWeight" in capfd.readouterr().err


# Label maps.


def with_labels(folder, arrays, suffix="npy"):
    for number, array in enumerate(arrays):
        for letter, content in (("A", image(number, array.shape)), ("B", array)):
            path = folder / f"train{letter}/{number}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, content)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ([0, 255], "1.npy with 0, 255"),
        ([0, 1, 2], "1.npy with 0, 1, 2"),
        ([0.0, 0.5, 1.0], "1.npy with 0, 0.5, 1"),
        ([-1, 0, 1], "1.npy with -1, 0, 1"),
        (range(12), "1.npy with 0, 1, 2, …, 11"),
    ],
)
def test_label_maps_with_values_that_are_no_class(tmp_path, values, named):
    right = np.tile([0, 1], (12, 6))
    with_labels(tmp_path / "in", [right, np.resize(list(values), (12, 12)), right])
    with pytest.raises(ValueError, match=r"classes: expected .* 0 to 1.*Received") as caught:
        build(tmp_path / "in", tmp_path / "data", classes=2)
    assert named in str(caught.value)
    assert not list((tmp_path / "data").rglob("*.tfrecord*"))
    build(tmp_path / "in", tmp_path / "data")  # as images they are what they are


def test_label_maps_in_jpeg_are_refused(tmp_path):
    with_labels(tmp_path / "in", [np.zeros((12, 12))] * 3)
    (tmp_path / "in/trainB/1.npy").unlink()
    PIL.Image.new("L", (12, 12)).save(tmp_path / "in/trainB/1.jpg")
    with pytest.raises(ValueError, match="classes: 1.jpg: JPEG: expected a lossless format"):
        build(tmp_path / "in", tmp_path / "data", classes=2)


def test_label_maps_stay_whole_numbers(tmp_path):
    labels = np.random.default_rng(0).integers(0, 4, (16, 16)).astype("float32")
    with_labels(tmp_path / "in", [labels, labels * 0.99999, labels])
    builder = build(tmp_path / "in", tmp_path / "data", classes=4)
    for example in sum(every(builder).values(), []):
        np.testing.assert_array_equal(example["target"][..., 0], labels)
    _, target = domains(builder, Recipe())
    assert (target.unit, target.modality, target.window) == ("class", "SEG", (0.0, 3.0))
    turned = batches.train_dataset(builder, Recipe(rotation=30.0, zoom=0.2), batch_size=1)
    for batch in turned.take(4):
        assert set(np.unique(batch["target"])) <= {0, 1, 2, 3}


# Pairs on different grids.


def plane(shape, affine, slope=(3.0, -2.0, 5.0), offset=400.0):
    """A linear function of the place in the patient, which interpolation gives back exactly."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return (index @ affine[:3, :3].T + affine[:3, 3]) @ np.array(slope) + offset


def grid(spacing, origin, turn=0.0):
    cos, sin = np.cos(turn), np.sin(turn)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) * np.array(spacing)
    affine[:3, 3] = origin
    return HUNG @ affine


@pytest.mark.parametrize("turn", [0.0, 0.2])
def test_targets_are_resampled_onto_the_grids_of_their_sources(tmp_path, capfd, turn):
    here, there = grid((1.0, 1.0, 2.0), (0, 0, 0)), grid((0.8, 1.3, 1.5), (2.0, -6.0, 1.5), turn)
    shape = (20, 18, 6), (26, 26, 7)
    for number in range(3):
        nifti(tmp_path / f"in/trainA/{number}.nii.gz", plane(shape[0], here).astype("f4"), here)
        nifti(tmp_path / f"in/trainB/{number}.nii.gz", plane(shape[1], there).astype("f4"), there)
    builder = build(tmp_path / "in", tmp_path / "data", target_unit="HU")
    assert "3 targets are resampled onto the grids of their sources" in capfd.readouterr().err
    found = examples(builder, "train")
    assert len(found) == 6
    # Where the target reaches: of each place, its index in the target by the inverse affine.
    index = np.stack(np.meshgrid(*map(np.arange, shape[0]), indexing="ij"), axis=-1)
    world = index @ here[:3, :3].T + here[:3, 3]
    places = (world - there[:3, 3]) @ np.linalg.inv(there[:3, :3]).T
    last = np.array(shape[1]) - 1
    inside = ((places >= 0) & (places <= last)).all(-1)
    outside = ((places < -0.51) | (places > last + 0.51)).any(-1)
    assert 0.4 < inside.mean() < 0.95 and outside.any()
    for example in found:
        k = int(example["name"][-6:]) % 6
        for key in ("source", "target"):
            stacked = example[key][..., 0]
            expected = plane(shape[0], here)[..., k]
            np.testing.assert_allclose(stacked[inside[..., k]], expected[inside[..., k]], atol=1e-3)
        assert (example["target"][..., 0][outside[..., k]] == -1024).all()


def test_label_maps_are_resampled_to_the_nearest_voxel(tmp_path):
    here, there = grid((1.0, 1.0, 2.0), (0, 0, 0)), grid((1.0, 1.0, 2.0), (0.4, -0.3, 0.0))
    labels = np.random.default_rng(1).integers(1, 5, (16, 16, 3)).astype("uint8")
    for number in range(2):
        nifti(tmp_path / f"in/trainA/{number}.nii", image(number, labels.shape), here)
        nifti(tmp_path / f"in/trainB/{number}.nii", labels, there)
    for example in examples(build(tmp_path / "in", tmp_path / "data", classes=5), "train"):
        k = int(example["name"][-6:]) % 3
        np.testing.assert_array_equal(example["target"][..., 0], labels[..., k])


def test_pairs_on_one_grid_are_not_touched(tmp_path, capfd):
    affine = grid((0.7, 0.9, 3.0), (-11.3, 4.1, 17.0), 0.3)
    volume = np.random.default_rng(0).normal(0, 1, (9, 8, 3)).astype("float32")
    for number in range(2):
        nifti(tmp_path / f"in/trainA/{number}.nii", volume, affine)
        nifti(tmp_path / f"in/trainB/{number}.nii", volume, affine + 1e-5)  # another's rounding
    for part in every(build(tmp_path / "in", tmp_path / "data")).values():
        for example in part:
            np.testing.assert_array_equal(example["source"], example["target"])
    assert "resampled" not in capfd.readouterr().err


def test_a_pair_of_which_one_does_not_say_how_it_lies_stays_as_it_is_stored(tmp_path, capfd):
    for number in range(2):
        volume = image(number, (9, 9, 3))
        nifti(tmp_path / f"in/trainB/{number}.nii", volume)
        save(tmp_path / f"in/trainA/{number}.npy", volume.transpose(2, 0, 1))
    for part in every(build(tmp_path / "in", tmp_path / "data")).values():
        for example in part:
            np.testing.assert_array_equal(example["source"], example["target"])
    assert "2 images or pairs are taken as they are stored" in capfd.readouterr().err


def test_pairs_of_other_pixels_that_do_not_say_how_they_lie_are_said(tmp_path, capfd):
    for letter, step in (("A", 0.7), ("B", 0.9)):
        (tmp_path / f"in/train{letter}").mkdir(parents=True)
        for number in range(3):
            stored = nibabel.Nifti1Image(image(number, (9, 8, 2)), None)
            stored.header["pixdim"][1:4] = step if number else 0.8
            nibabel.save(stored, tmp_path / f"in/train{letter}/{number}.nii")
    build(tmp_path / "in", tmp_path / "data")
    said = capfd.readouterr().err
    assert "pixels are of other sizes" in said
    assert "1.nii and 1.nii" in said and "2.nii and 2.nii" in said and "0.nii" not in said


def test_pairs_that_lie_apart_are_refused(tmp_path):
    volume = image(0, (10, 10, 4))
    nifti(tmp_path / "in/trainA/p.nii", volume, grid((1, 1, 1), (0, 0, 0)))
    nifti(tmp_path / "in/trainB/p.nii", volume, grid((1, 1, 1), (7, 0, 0)))
    with pytest.raises(ValueError, match="p.nii and p.nii lie apart: the target covers 30%"):
        build(tmp_path / "in", tmp_path / "data")


def test_frames_of_reference_that_differ(tmp_path):
    """Equal places mean nothing where the origins differ; on one grid there is nothing to do."""
    for letter in "AB":
        for position in range(2):
            path = tmp_path / f"in/train{letter}/p/{position}.dcm"
            dicom(path, series=letter, position=position)
            dataset = pydicom.dcmread(path)
            dataset.FrameOfReferenceUID = f"1.2.3.{letter == 'A':d}"
            dataset.save_as(path)
    build(tmp_path / "in", tmp_path / "data")
    for path in (tmp_path / "in/trainB").rglob("*.dcm"):
        dataset = pydicom.dcmread(path)
        dataset.ImagePositionPatient = [3.5, 0, dataset.ImagePositionPatient[2]]
        dataset.save_as(path)
    with pytest.raises(ValueError, match="frames of reference differ"):
        build(tmp_path / "in", tmp_path / "data")
    for path in (tmp_path / "in").rglob("*.dcm"):
        dataset = pydicom.dcmread(path)
        dataset.FrameOfReferenceUID = "1.2.3"
        dataset.save_as(path)
    build(tmp_path / "in", tmp_path / "data")


def test_large_targets_cover_what_their_sources_cover(tmp_path):
    coarse, fine = grid((2, 2, 3), (0.5, 0.5, 0)), grid((1, 1, 3), (0, 0, 0))
    nifti(tmp_path / "in/trainA/p.nii", image(0, (6, 6, 2)), coarse)
    nifti(tmp_path / "in/trainB/p.nii", image(1, (12, 12, 2)), fine)
    build(tmp_path / "in", tmp_path / "data", scale=2)
    nifti(tmp_path / "in/trainB/p.nii", image(1, (12, 12, 2)), grid((1, 1, 3), (6, 0, 0)))
    with pytest.raises(ValueError, match="cover different parts of the patient"):
        build(tmp_path / "in", tmp_path / "data", scale=2)


def test_a_shift_by_whole_voxels_changes_no_value(tmp_path):
    volume = image(0, (12, 10, 6))
    here, there = grid((0.7, 0.9, 2.1), (3, 4, 5)), grid((0.7, 0.9, 2.1), (4.4, 4, 2.9))
    for number in range(2):  # two voxels along the first axis, one along the last
        nifti(tmp_path / f"in/trainA/{number}.nii", volume, here)
        nifti(tmp_path / f"in/trainB/{number}.nii", np.roll(volume, (-2, 1), (0, 2)), there)
    for example in examples(build(tmp_path / "in", tmp_path / "data"), "train"):
        same = (example["source"] == example["target"])[..., 0]
        filled = np.ptp(example["target"][..., 0][~same]) == 0
        last = example["name"].endswith("5")  # where the target has no slice
        assert same.mean() == (0 if last else pytest.approx(10 / 12)) and filled


def test_a_series_with_a_gap_is_no_volume(tmp_path, capfd):
    for case, positions in (("gap", (0, 1, 2, 9)), ("even", (0, 1, 2, 3)), ("too", (4, 5, 6, 7))):
        for position in positions:
            path = tmp_path / f"in/train/{case}/{position}.dcm"
            dicom(path, patient=case, series=case, position=position)
    builder = build(tmp_path / "in", tmp_path / "data", dimensions=3)
    assert [e["image"].shape for e in examples(builder, "train")] == [(4, 128, 128, 1)]
    assert "expected equal distances from each to the next" in capfd.readouterr().err
    assert len(bad_files(builder)) == 4


# Names, links and lists.


def test_names_in_two_unicode_forms_are_one(tmp_path):
    for letter, form in (("A", "NFC"), ("B", "NFD")):
        for number in range(3):
            name = unicodedata.normalize(form, f"müller_{number}.npy")
            save(tmp_path / f"in/train{letter}/{name}", image(number))
    builder = build(tmp_path / "in", tmp_path / "data")
    assert builder.info.metadata["kind"] == "paired"
    for example in sum(every(builder).values(), []):
        np.testing.assert_array_equal(example["source"], example["target"])


def test_names_that_almost_match_are_told(tmp_path, capfd):
    for a, b in (("p/Case_01", "p/case_1"), ("x", "y")):
        save(tmp_path / f"in/trainA/{a}.npy", image(1))
        save(tmp_path / f"in/trainB/{b}.npy", image(1))
    build(tmp_path / "in", tmp_path / "data")
    message = "trainA/p/Case_01.npy and trainB/p/case_1.npy differ in capitals, separators"
    assert message in capfd.readouterr().err
    for letter in "AB":
        save(tmp_path / f"in/train{letter}/same.npy", image(2))
    with pytest.raises(ValueError, match=message):
        build(tmp_path / "in", tmp_path / "data")


def test_a_file_behind_a_link_counts(tmp_path):
    save(tmp_path / "elsewhere/0.npy", image(0))
    save(tmp_path / "in/1.npy", image(1))
    os.symlink(tmp_path / "elsewhere", tmp_path / "in/linked")
    os.symlink(tmp_path / "in", tmp_path / "in/itself")
    first = build(tmp_path / "in", tmp_path / "data")
    assert sum(split.num_examples for split in first.info.splits.values()) == 2
    save(tmp_path / "elsewhere/0.npy", image(5))
    os.utime(tmp_path / "elsewhere/0.npy", (1, 1))
    assert build(tmp_path / "in", tmp_path / "data").data_dir != first.data_dir


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'source\ttarget\n"a.npy\tb.npy\n', "line 2: expected fields between tabs"),
        (b"image\n\na.npy\n" + b"x" * 200_000 + b"\n", "line 4"),
        (b"image\n" + b"x" * 5000 + b"\n", "line 2: image: expected a path. Received: 5000"),
        (b"image\na.npy\nb\0.npy\n", "line 3: expected text. Received: a NUL byte"),
        (b"image\r\nm\xfcller.npy\r\n", "line 2: expected text in UTF-8. Received: byte 0xfc"),
        ("image\na.npy\n".encode("utf-16"), "expected text in UTF-8. Received: UTF-16"),
        (b"image\ta.npy\n", "expected a tab-separated header"),
        (b"", "expected a tab-separated header"),
        (b"image\timage\na.npy\tb.npy\n", "expected each column once"),
        (b"image\tpatient\na.npy\n", "line 2: expected 2 fields, image, patient. Received: 1"),
        (b"image\na.npy\tb.npy\n", "line 2: expected 1 fields, image. Received: 2"),
        (b"image\na.npy\nb.npy\na.npy\n", "line 4: .*Received: a.npy in line 2 as well"),
        (b"image\tsplit\na.npy\ttrain\n./a.npy\ttest\n", "line 3: .*a.npy in line 2 as well"),
        (b"image\nc.npy\n", r"line 2: .*Received: .*c.npy"),
        (b"image\n~nosuchuser1/c.npy\n", "line 2: image: expected a path"),
        (b"image\nfolder\n", "line 2: expected one file or series .*Received: 2 volumes"),
    ],
)
def test_a_list_that_is_wrong_names_the_line(tmp_path, content, message):
    for name in ("a", "b", "folder/1", "folder/2"):
        save(tmp_path / f"{name}.npy", image(1))
    (tmp_path / "list.tsv").write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        build(tmp_path / "list.tsv", tmp_path / "data")
    assert len(str(caught.value)) < 500


def test_a_list_as_a_spreadsheet_writes_it(tmp_path, monkeypatch):
    """A byte-order mark, Windows' line ends, quoted fields, empty lines and a home folder."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    save(tmp_path / "a b.npy", image(1))
    save(tmp_path / "home/c.npy", image(2))
    lines = ["\ufeffimage\tpatient", '"a b.npy"\t1', "", "~/c.npy\t2", f"{tmp_path}/d.npy\t3", ""]
    save(tmp_path / "d.npy", image(3))
    (tmp_path / "list.tsv").write_bytes("\r\n".join(lines).encode())
    builder = build(tmp_path / "list.tsv", tmp_path / "data")
    found = sum(every(builder).values(), [])
    assert {e["image"].tobytes() for e in found} == {image(n).tobytes() for n in (1, 2, 3)}
    assert len({e["patient"] for e in found}) == 3


# Privacy.


def test_pseudonyms_have_a_secret_key(tmp_path):
    for number in range(2):
        dicom(tmp_path / f"in/{number}.dcm", patient="0471199", series=f"{number}")
        dicom(tmp_path / f"more/{number}.dcm", patient="0471199", series=f"{number}")
    seen = {}
    for place in ("data", "other"):
        for folder in ("in", "more"):
            builder = build(tmp_path / folder, tmp_path / place)
            (seen[place, folder],) = {e["patient"] for e in sum(every(builder).values(), [])}
    # One patient, in one data directory, is one; another directory has another key.
    assert seen["data", "in"] == seen["data", "more"] != seen["other", "in"]
    path = tmp_path / "data/.patient_key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    key = path.read_text()
    dataset = pydicom.dcmread(tmp_path / "in/0.dcm")
    identity = f"{dataset.get('IssuerOfPatientID', '')}|0471199"
    assert pseudonyms.pseudonym(bytes.fromhex(key), identity) == seen["data", "in"]
    for file in Path(builder.data_dir_root).parent.rglob("*"):
        if file.is_file() and not file.name.startswith(".") and "data" in file.parts:
            assert key.encode() not in file.read_bytes() and b"0471199" not in file.read_bytes()
    path.write_text("short")
    with pytest.raises(ValueError, match="expected 64 hexadecimal digits"):
        pseudonyms.patient_key(tmp_path / "data")


# Volumes.


def test_the_sides_of_voxels_are_told(tmp_path, capfd):
    def made(name, *steps):
        for number, step in enumerate(steps):
            path = tmp_path / f"{name}/train/{number}.nii"
            path.parent.mkdir(parents=True, exist_ok=True)
            volume = image(number, (8 + number, 9, 5))
            nibabel.save(nibabel.Nifti1Image(volume, np.diag([0.8, 0.8, step, 1])), path)
        builder = build(tmp_path / name, tmp_path / "data", dimensions=3)
        return builder.info.metadata["image"]["spacing"], capfd.readouterr().err

    assert made("cubes", 0.8, 0.8)[0] == pytest.approx([0.8, 0.8, 0.8])
    spacing, told = made("flat", 5.0, 5.0)
    assert spacing == pytest.approx([5.0, 0.8, 0.8])
    assert "voxels of 5 x 0.8 x 0.8 mm (slice, row, column), taken as they are" in told
    spacing, told = made("mixed", 5.0, 2.0)
    assert spacing is None
    assert "warning: voxels of 2 x 0.8 x 0.8 to 5 x 0.8 x 0.8 mm" in told
