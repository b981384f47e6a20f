"""Radiographs, mammograms, nodules and liver lesions in their publishers' layouts."""

import dataclasses

import numpy as np
import PIL.Image
import pydicom
import pytest
from scipy import ndimage

import dummy_xray
from source_harness import check_source, read
from zoo.physics import resolution
from zoo_datasets.chest_xray import nih14
from zoo_datasets.chest_xray.chest_xray_dataset_builder import Builder as ChestXray
from zoo_datasets.liver_lesion import lits
from zoo_datasets.liver_lesion.liver_lesion_dataset_builder import Builder as LiverLesion
from zoo_datasets.lung_nodule.lung_nodule_dataset_builder import Builder as LungNodule
from zoo_datasets.mammo.mammo_dataset_builder import Builder as Mammo
from zoo_datasets.publishers import lidc
from zoo_datasets.sr.sr_dataset_builder import Builder as SuperResolution


def test_nih14(tmp_path):
    builder = check_source(ChestXray, "nih14", dummy_xray.nih14, tmp_path)
    splits = read(builder)
    assert [e["name"] for e in splits["test"]] == ["00000003_000"]
    assert len(splits["train"]) == 3 and len(splits["validation"]) == 1
    names = builder.info.features["findings"].feature.names
    by_name = {e["name"]: e for e in splits["train"]}
    assert [names[k] for k in by_name["00000001_001"]["findings"]] == ["Cardiomegaly", "Emphysema"]
    assert not len(by_name["00000002_000"]["findings"])


def test_nih14_names_what_is_missing(tmp_path):
    dummy_xray.nih14(tmp_path)
    find = ChestXray(config="nih14", data_dir=tmp_path / "tfds").builder_config.find
    (tmp_path / "images_001" / "images" / "00000002_000.png").unlink()
    with pytest.raises(FileNotFoundError, match="none for 1 of them, such as 00000002_000.png"):
        find(tmp_path)
    (tmp_path / "train_val_list.txt").unlink()
    with pytest.raises(FileNotFoundError, match="train_val_list.txt"):
        find(tmp_path)


def test_nih14_refuses_what_is_no_grey_png(tmp_path):
    dummy_xray.nih14(tmp_path)
    path = tmp_path / "images_001" / "images" / "00000001_000.png"
    PIL.Image.fromarray(np.zeros((64, 64), np.uint8)).save(path)
    with pytest.raises(ValueError, match=r"00000001_000.png.*Received: L \[64, 64\]"):
        nih14.read_grey(path)
    colours = np.zeros((1024, 1024, 3), np.uint8)
    colours[5, 5, 1] = 1
    PIL.Image.fromarray(colours).save(path)
    with pytest.raises(ValueError, match="Received: colours"):
        nih14.read_grey(path)


def test_lits(tmp_path):
    builder = check_source(LiverLesion, "lits", dummy_xray.lits, tmp_path)
    splits = read(builder)
    names = [e["name"] for examples in splits.values() for e in examples]
    assert sum("tumour" in name for name in names) == 4  # the tiny one gets none
    assert sum("none" in name for name in names) == 8
    labels = builder.info.features["label"].names
    for example in (e for examples in splits.values() for e in examples):
        assert labels[example["label"]] in example["name"]
        liver = (example["image"] > 80).mean()
        assert 0.55 < liver <= 1
        # The tumour, 78 pixels of 40 HU, is in one kind of patch only.
        dark = (example["image"] > 25) & (example["image"] < 55)
        dark = ndimage.binary_opening(dark[..., 0], iterations=2).sum()
        assert dark > 40 if "tumour" in example["name"] else dark == 0


def test_lits_names_the_missing_half(tmp_path):
    dummy_xray.lits(tmp_path)
    next(tmp_path.rglob("segmentation-*.nii.gz")).unlink()
    with pytest.raises(FileNotFoundError, match=r"expected segmentation-\d+.nii"):
        lits.find(tmp_path)


def test_lits_refuses_other_values(tmp_path):
    dummy_xray.lits(tmp_path)
    (case, *_) = lits.find(tmp_path)["train"]
    for role, other, message in (
        ("volume", "segmentation", "expected CT in HU"),
        ("segmentation", "volume", "expected labels 0, 1 and 2"),
    ):
        files = case.files | {role: case.files[other]}
        with pytest.raises(ValueError, match=message):
            lits.load(dataclasses.replace(case, files=files))


@pytest.mark.parametrize("config", ["lidc", "lidc_texture"])
def test_lidc(config, tmp_path):
    builder = check_source(LungNodule, config, dummy_xray.lidc, tmp_path)
    labels = builder.info.features["label"].names
    examples = [e for split in read(builder).values() for e in split]
    by_name = {e["name"]: labels[e["label"]] for e in examples}
    names = [n for split in ("train", "validation", "test") for n in dummy_xray.patients(split, 2)]
    names = [n for n in names if f"{n}_1-00" in by_name]
    found = [by_name[f"{n}_1-00"] for n in names]
    if config == "lidc":
        assert found == list(dummy_xray.LIDC_LABELS)
    else:
        assert found == ["solid", "ground_glass", "solid", "no_nodule"]
    for example in examples:
        middle = example["image"][30:34, 30:34]
        nodule = labels[example["label"]] != "no_nodule"
        assert abs(middle.mean() - 40) < 10 if nodule else middle.min() < -700  # the wall is near
    assert len(examples) == 7  # one with and one without a nodule, or one without


def _marks(*places, reader=None):
    return [
        lidc.Mark(
            reader=i if reader is None else reader,
            centre=np.array(place, float),
            diameter=6.0,
            malignancy=3,
            texture=5,
        )
        for i, place in enumerate(places)
    ]


def test_readers_agree_by_place():
    three = _marks((0, 0, 0), (3, 0, 0), (0, 4, 0))
    assert [len(g) for g in lidc.nodules(three, 3, 8.0)] == [3]
    assert lidc.nodules(three, 4, 8.0) == []
    assert lidc.nodules(three, 3, 4.5) == []  # the second and third are 5 mm apart
    # Two nodules of one reader, side by side, stay two.
    pair = three + _marks((6, 0, 0), reader=0)
    assert sorted(len(g) for g in lidc.nodules(pair, 1, 8.0)) == [1, 3]
    small = [dataclasses.replace(mark, diameter=0.0) for mark in three]
    assert lidc.nodules(small, 1, 8.0) == []


def test_lidc_names_what_is_missing(tmp_path):
    dummy_xray.lidc(tmp_path)
    xml = next(tmp_path.rglob("070.xml"))
    moved = tmp_path / "tcia-lidc-xml" / "157" / "158.xml"
    moved.parent.mkdir(parents=True)
    xml.rename(moved)
    cases = [case for cases in lidc.find(tmp_path).values() for case in cases]
    assert moved in [case.files["xml"] for case in cases]  # as in LIDC-XML-only.zip
    (case,) = [case for case in cases if case.files["xml"] == moved]
    series = lidc.slices(case.files["series"])
    with pytest.raises(ValueError, match="expected the slice .* at z = 5 mm"):
        lidc.marks(moved, [one for one in series if one.origin[2] != 5.0])
    moved.unlink()
    with pytest.raises(FileNotFoundError, match=f"none for {case.key}"):
        lidc.find(tmp_path)


def test_lidc_of_two_slices_at_one_place_the_first_counts(tmp_path):
    dummy_xray.lidc(tmp_path)
    folder = lidc.find(tmp_path)["train"][0].files["series"]
    before = lidc.slices(folder)
    copy = pydicom.dcmread(before[2].path)
    copy.InstanceNumber = 99
    copy.SOPInstanceUID = copy.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    copy.save_as(folder / "1-099.dcm")
    assert [one.uid for one in lidc.slices(folder)] == [one.uid for one in before]


def test_cbis_ddsm(tmp_path):
    builder = check_source(Mammo, "cbis_ddsm", dummy_xray.cbis_ddsm_full, tmp_path)
    counts = {split: len(examples) for split, examples in read(builder).items()}
    assert counts == {"train": 2, "validation": 1, "test": 2}


def test_cbis_ddsm_lesions(tmp_path):
    builder = check_source(Mammo, "cbis_ddsm_lesions", dummy_xray.cbis_ddsm_lesions, tmp_path)
    names = builder.info.features["label"].names
    splits = read(builder)
    found = {split: [names[e["label"]] for e in examples] for split, examples in splits.items()}
    assert found == {
        "train": ["BENIGN", "BENIGN"],
        "validation": ["BENIGN_WITHOUT_CALLBACK"],
        "test": ["MALIGNANT", "MALIGNANT"],
    }
    assert {e["kind"] for e in splits["test"]} == {"mass", "calcification"}
    assert all(e["image"].min() >= 20000 for examples in splits.values() for e in examples)


def test_sr_cbis_ddsm(tmp_path):
    check_source(SuperResolution, "cbis_ddsm", dummy_xray.cbis_ddsm_sr, tmp_path)


def test_sr_lidc(tmp_path):
    builder = check_source(SuperResolution, "lidc", dummy_xray.lidc_sr, tmp_path)
    examples = [e for split in read(builder).values() for e in split]
    assert len(examples) == 4 * 5
    for example in examples:
        assert example["target"].shape == (176, 200, 1)
        for scale in (2, 4, 8):
            mean = resolution.block_mean(example["target"][..., 0], scale)
            np.testing.assert_allclose(example[f"source_x{scale}"][..., 0], mean, atol=0.5)
