"""The data set `folder` with several images in: nnU-Net's folders, lists, DICOM studies."""

import json
import shutil

import numpy as np
import pydicom
import pytest

from inputs_files import HUNG, cases, dicom_series, images, nifti, study
from zoo.data import batches, prepare
from zoo.data.facts import data_facts
from zoo.recipe import Recipe

PATTERNS = {"source_series": "T1=*T1*,T2=*t2*", "target_series": "FLAIR=*flair*"}


def build(path, data_dir, **options):
    return prepare.load_builder("folder", data_dir, Recipe(**options), path)


def everything(builder) -> list[dict]:
    splits = [list(batches.eval_dataset(builder, split)) for split in builder.info.splits]
    return sum(splits, [])


def case_of(example, number: int, index: int) -> bool:
    """Whether an example holds slice `index` of a case of `images`, to float32."""
    case = images(number)
    source = np.stack([case["T1"][index], case["T2"][index]], axis=-1)
    same = np.allclose(example["source"], source, rtol=1e-6)
    return same and np.allclose(example["target"][..., 0], case["FLAIR"][index], rtol=1e-6)


def test_numbered_files_are_the_channels_of_a_source(tmp_path):
    root = cases(tmp_path / "in")
    builder = build(root, tmp_path / "data", source_unit="signal,1")
    facts = data_facts(builder, Recipe())
    assert facts.source.names == "0000, 0001"
    assert [part.unit for part in facts.source.inputs] == ["signal", "1"]
    # Windows are the percentiles of each input's own values.
    (_, t1), (_, t2) = (part.window for part in facts.source.inputs)
    assert 850 < t1 < 900 and 85 < t2 < 90
    found = everything(builder)
    assert len(found) == 12
    for number in range(4):
        for index in range(3):
            assert sum(case_of(example, number, index) for example in found) == 1


def test_dataset_json_names_the_inputs(tmp_path):
    root = cases(tmp_path / "in", 2)
    channels = {"channel_names": {"0": "T1", "1": "T2"}, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(channels))
    (root / "labelsTr").rename(root / "target")
    builder = build(root, tmp_path / "data", source_window=(0, 900, 0, 90))
    facts = data_facts(builder, Recipe(source_window=(0, 800, 1, 80)))
    assert facts.source.names == "T1, T2"
    assert [part.window for part in facts.source.inputs] == [(0, 800), (1, 80)]
    with pytest.raises(ValueError, match="window: expected LOW,HIGH of each of T1, T2 in turn"):
        data_facts(builder, Recipe(source_window=(0, 800)))
    (root / "dataset.json").write_text('{"channel_names": {"1": "T1"}}')
    with pytest.raises(ValueError, match="dataset.json: expected channel_names .* Received: KeyE"):
        build(root, tmp_path / "data")


def test_the_given_test_split_is_kept(tmp_path):
    root = cases(tmp_path / "in", 3)
    for name in ("images", "labels"):
        (root / f"{name}Ts").mkdir()
        for file in (root / f"{name}Tr").glob("case2*"):
            file.rename(root / f"{name}Ts" / file.name)
    builder = build(root, tmp_path / "data")
    assert {s: n.num_examples for s, n in builder.info.splits.items()} == {"train": 6, "test": 3}
    assert all(any(case_of(e, 2, k) for k in range(3)) for e in batches.eval_dataset(builder))


def test_a_missing_input_leaves_its_case_out(tmp_path, capsys):
    root = cases(tmp_path / "in")
    (root / "imagesTr/case1_0001.nii.gz").unlink()
    builder = build(root, tmp_path / "data")
    assert "left out case1_0000.nii.gz: expected one image of each input" in capsys.readouterr().err
    assert sum(split.num_examples for split in builder.info.splits.values()) == 9
    bad = json.loads((builder.data_path / "bad_files.json").read_text())
    assert len(bad) == 2 and "0001 (_0001): 0" in bad[0]["reason"]
    # A case without a target, and a target without a case, are no accident of one file.
    shutil.copy(root / "labelsTr/case0.nii.gz", root / "labelsTr/other.nii.gz")
    with pytest.raises(ValueError, match="one target of its name.*without: labelsTr/other"):
        build(root, tmp_path / "data")


@pytest.mark.parametrize(
    ("damaged", "told"),
    [
        (["imagesTr/case1_0000", "imagesTr/case1_0001"], "case1.nii.gz: its images cannot be used"),
        (["labelsTr/case1"], "case1_0000.nii.gz: its target cannot be read"),
    ],
)
def test_damaged_files_leave_their_case_out(damaged, told, tmp_path, capsys):
    root = cases(tmp_path / "in")
    for name in damaged:
        (root / f"{name}.nii.gz").write_bytes(b"no gzip")
    builder = build(root, tmp_path / "data")
    assert f"left out {told}" in capsys.readouterr().err
    found = everything(builder)
    assert len(found) == 9 and not any(case_of(e, 1, k) for e in found for k in range(3))


def test_a_series_on_another_grid_keeps_the_unit_of_its_header(tmp_path):
    for number in range(2):
        study(tmp_path / f"in/exam{number}", number)
    values = np.rint(images(0)["T2"])[:, ::2, ::2]
    dicom_series(tmp_path / "in/exam0", "Ax T2 tse", values, patient="P0", PixelSpacing=[2, 2])
    for file in (tmp_path / "in/exam0").glob("*T2*"):
        assert pydicom.dcmread(file).PixelSpacing == [2, 2]
    source = data_facts(build(tmp_path / "in", tmp_path / "data", **PATTERNS), Recipe()).source
    assert [(part.modality, part.unit) for part in source.inputs] == 2 * [("MR", "signal")]
    with pytest.raises(ValueError, match="source_unit: expected files in SUV.* in signal"):
        build(tmp_path / "in", tmp_path / "data", source_unit="SUV", **PATTERNS)


def test_a_list_names_the_sources(tmp_path):
    root = cases(tmp_path / "in", 2)
    rows = ["source_T1\tsource_T2\ttarget\tsplit\tpatient"]
    for number, split in enumerate(("train", "test")):
        files = [f"imagesTr/case{number}_000{k}.nii.gz" for k in range(2)]
        rows.append("\t".join([*files, f"labelsTr/case{number}.nii.gz", split, f"p{number}"]))
    (root / "list.tsv").write_text("\n".join(rows))
    builder = build(root / "list.tsv", tmp_path / "data")
    assert data_facts(builder, Recipe()).source.names == "T1, T2"
    assert all(any(case_of(e, 1, k) for k in range(3)) for e in batches.eval_dataset(builder))
    twice = "imagesTr/case0_0000.nii.gz\t" * 2 + "labelsTr/case0.nii.gz"
    (root / "list.tsv").write_text(f"source1\tsource2\ttarget\n{twice}")
    with pytest.raises(ValueError, match="list.tsv, line 2: expected another file for each input"):
        build(root / "list.tsv", tmp_path / "data")
    (root / "list.tsv").write_text("source1\ttarget\n")
    with pytest.raises(ValueError, match="of several inputs source1, source2"):
        build(root / "list.tsv", tmp_path / "data")


def test_patterns_pick_the_series_of_a_study(tmp_path, capsys):
    for number in range(3):
        study(tmp_path / "in" / f"exam{number}", number)
    # A study with two T1, and one without a FLAIR.
    case = study(tmp_path / "in/exam3", 3)
    dicom_series(tmp_path / "in/exam3", "Sag T1", case["T1"], patient="P3")
    shutil.copytree(tmp_path / "in/exam3", tmp_path / "in/exam4")
    for file in (tmp_path / "in/exam4").glob("*"):
        file.unlink()
    dicom_series(tmp_path / "in/exam4", "T1", case["T1"], patient="P4")
    builder = build(tmp_path / "in", tmp_path / "data", **PATTERNS)
    source = data_facts(builder, Recipe()).source
    assert source.names == "T1, T2"
    assert [part.modality for part in source.inputs] == ["MR", "MR"]
    found = everything(builder)
    assert len(found) == 9
    first = {k: np.rint(v) for k, v in images(0).items()}
    wanted = np.stack([first["T1"][1], first["T2"][1]], axis=-1)
    assert any(np.array_equal(example["source"], wanted) for example in found)
    said = capsys.readouterr().err
    assert "T1: expected one series of the study like *T1*. Received: several, '" in said
    assert "T2: expected one series of the study like *t2*. Received: none of 'T1'" in said
    bad = json.loads((builder.data_path / "bad_files.json").read_text())
    assert len(bad) == 2 and "Ax T1" not in json.dumps(bad)


def test_inputs_of_other_grids_are_resampled_onto_the_first(tmp_path, capsys):
    coarse = HUNG @ np.diag([2.0, 2.0, 1.0, 1.0])
    coarse[:3, 3] = HUNG[:3, :3] @ [0.5, 0.5, 0]  # the middle of two pixels
    rows = np.add.outer(np.arange(16.0), np.zeros(16)) * np.ones((3, 1, 1))
    for number in range(2):
        nifti(tmp_path / f"in/imagesTr/c{number}_0000.nii", rows + number)
        nifti(tmp_path / f"in/imagesTr/c{number}_0001.nii", rows[:, ::2, ::2] + 0.5, coarse)
        nifti(tmp_path / f"in/labelsTr/c{number}.nii", rows)
    builder = build(tmp_path / "in", tmp_path / "data")
    assert "2 inputs are resampled onto the grid of the first" in capsys.readouterr().err
    example = next(batches.eval_dataset(builder, "train"))
    # A ramp is a ramp on any grid, but at the rim, where the outermost values are repeated.
    np.testing.assert_allclose(example["source"][1:-1, 1:-1, 1], rows[0, 1:-1, 1:-1], atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("size", "0000 and 0001 have different sizes, and a file does not say how it lies"),
        ("apart", "0000 and 0001 lie apart: 0001 covers 0% of 0000"),
    ],
)
def test_inputs_that_do_not_belong_together(change, message, tmp_path):
    root = cases(tmp_path / "in", 2)
    file = root / "imagesTr/case1_0001.nii.gz"
    if change == "apart":
        away = HUNG.copy()
        away[:3, 3] = 500
        nifti(file, images(1)["T2"], away)
    else:
        file.unlink()
        np.save(root / "imagesTr/case1_0001.npy", images(1)["T2"][:, :8])
    with pytest.raises(ValueError, match=message):
        build(root, tmp_path / "data")


def test_neighbouring_slices_of_several_inputs(tmp_path):
    builder = build(cases(tmp_path / "in", 2), tmp_path / "data", slices=3)
    assert data_facts(builder, Recipe()).source.channels == 6
    case = images(0)
    wanted = np.stack([case[name][k] for name in ("T1", "T2") for k in (0, 0, 1)], axis=-1)
    assert any(np.allclose(example["source"], wanted) for example in everything(builder))


def test_images_without_targets(tmp_path):
    root = cases(tmp_path / "in", 2)
    (root / "labelsTr").rename(root / "annotations")
    with pytest.raises(ValueError, match="input: expected targets, in one of labelsTr, targetsTr"):
        build(root, tmp_path / "data")
    for name in ("labels", "target"):
        shutil.copytree(root / "annotations", root / name)
    with pytest.raises(ValueError, match="one folder of targets. Received: labels, target"):
        build(root, tmp_path / "data")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source_series": "T1=*T1*"}, "target_series: expected NAME=PATTERN"),
        ({"target_series": "T1=*T1*"}, "source_series: expected patterns of the sources beside"),
        (
            {"source_series": "*a*,*b*", "target_series": "c"},
            "source_series: expected NAME=PATTERN",
        ),
        ({"source_series": "T=a", "target_series": "T=b"}, "target_series: expected one pattern"),
        ({"source_series": "target=a", "target_series": "b"}, "target_series: expected one patter"),
        ({"source_unit": "HU,SUV,1"}, "source_unit: expected one. Received: HU,SUV,1"),
    ],
)
def test_what_the_fields_cannot_say(options, message, tmp_path):
    study(tmp_path / "in", 0)
    with pytest.raises(ValueError, match=message):
        build(tmp_path / "in", tmp_path / "data", **options)
