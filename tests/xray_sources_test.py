"""Radiographs, mammograms, nodules and liver lesions in their publishers' layouts."""

import dataclasses

import dummy_xray
import numpy as np
import PIL.Image
import pytest
from scipy import ndimage
from source_harness import check_source, read

from zoo_datasets.chest_xray import nih14
from zoo_datasets.chest_xray.chest_xray_dataset_builder import Builder as ChestXray
from zoo_datasets.liver_lesion import lits
from zoo_datasets.liver_lesion.liver_lesion_dataset_builder import Builder as LiverLesion


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
    swapped = {"volume": case.files["segmentation"], "segmentation": case.files["volume"]}
    with pytest.raises(ValueError, match="expected CT in HU"):
        lits.load(dataclasses.replace(case, files=swapped))
    both = case.files | {"segmentation": case.files["volume"]}
    with pytest.raises(ValueError, match="expected labels 0, 1 and 2"):
        lits.load(dataclasses.replace(case, files=both))
