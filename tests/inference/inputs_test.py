"""predict with several images in: which file is which input, on one grid, and what is written."""

import dataclasses
import types

import nibabel
import numpy as np
import pydicom
import pydicom.uid
import pytest

from dicom_files import dciodvfy, enhanced
from inputs_files import HUNG, cases, dicom_series, images, nifti, study
from stand_in import CT, Model, translate, translated
from zoo.domain import Domain
from zoo.imaging.files import find

T1 = Domain(modality="MR", unit="signal", window=(0, 900), name="T1")
T2 = Domain(modality="MR", unit="signal", window=(0, 90), name="T2")
FLAIR = Domain(modality="MR", unit="signal", window=(0, 200))


@dataclasses.dataclass
class Ninth(Model):
    """T1 / 9 + T2, as the FLAIR of `images`; of neighbouring slices of the middle ones."""

    source: Domain = Domain(inputs=(T1, T2))
    target: Domain = FLAIR

    @property
    def recipe(self):
        series = "T1=*T1*,T2=*T2*"
        return types.SimpleNamespace(slices=self.slices, spacing=self.spacing, source_series=series)

    def translate(self, images, batch_size=1):
        self.shapes.append(images.shape)
        middle = self.slices // 2
        return images[..., middle, None] / 9 + images[..., self.slices + middle, None]


def values(path) -> np.ndarray:
    """Slices [D, H, W] of a NIfTI file in its own axes."""
    return np.moveaxis(np.asarray(nibabel.load(path).dataobj), -1, 0)


def test_numbered_files_become_one_file_a_case(tmp_path):
    root = cases(tmp_path / "in", 2)
    report = translate(Ninth(), root / "imagesTr", tmp_path / "out")
    assert (report.done, report.slices, report.skipped, report.warnings) == (2, 6, [], [])
    for number in range(2):
        out = tmp_path / f"out/case{number}.nii.gz"
        np.testing.assert_allclose(values(out), images(number)["FLAIR"], rtol=1e-4)
        np.testing.assert_array_equal(nibabel.load(out).affine, HUNG)


def test_neighbours_are_of_each_input(tmp_path):
    parts = [dataclasses.replace(domain, channels=3) for domain in (T1, T2)]
    model = Ninth(slices=3, source=Domain(inputs=tuple(parts)))
    root = cases(tmp_path / "in", 1) / "imagesTr"
    assert not translate(model, root, tmp_path / "out").skipped
    assert set(model.shapes) == {(1, 16, 16, 6)}
    out = tmp_path / "out/case0.nii.gz"
    np.testing.assert_allclose(values(out), images(0)["FLAIR"], rtol=1e-4)
    first, second = root / "case0_0000.nii.gz", root / "case0_0001.nii.gz"
    report = translate(model, f"T1={second},T2={first}", tmp_path / "exchanged.nii.gz")
    assert any("T1 looks like T2" in warning.reason for warning in report.warnings)


def test_volumes_go_through_whole(tmp_path):
    model = Ninth(dimensions=3)
    translate(model, cases(tmp_path / "in", 1) / "imagesTr", tmp_path / "out")
    assert model.shapes == [(1, 3, 16, 16, 2)]


def test_a_case_that_lacks_an_input_is_named_and_the_others_go_on(tmp_path):
    root = cases(tmp_path / "in", 3)
    (root / "imagesTr/case1_0001.nii.gz").unlink()
    report, skipped = translated(Ninth(), root / "imagesTr", tmp_path / "out")
    assert report.done == 2
    assert report.skipped[0].path.name == "case1_0000.nii.gz"
    assert skipped == ["expected one image of each input beside it. Received, T2 (_0001): 0"]


def test_files_by_name(tmp_path):
    root = cases(tmp_path / "in", 1) / "imagesTr"
    first, second = root / "case0_0000.nii.gz", root / "case0_0001.nii.gz"
    out = tmp_path / "out.nii.gz"
    translate(Ninth(), f"T2={second},T1={first}", out)
    np.testing.assert_allclose(values(out), images(0)["FLAIR"], rtol=1e-4)
    with pytest.raises(ValueError, match=r"input: expected T1=FILE,T2=FILE. Received: no T2"):
        translate(Ninth(), f"T1={first}", out)
    with pytest.raises(FileNotFoundError, match="input: T2: expected a file or a series"):
        translate(Ninth(), f"T1={first},T2={root}/none.nii", out)
    with pytest.raises(ValueError, match="input: expected another file for each input"):
        translate(Ninth(), f"T1={first},T2={first}", out)
    for wrong in (f"T1={first},T2={second},T2={second}", f"T1={first},T2={second},other.nii"):
        with pytest.raises(ValueError, match="input: expected T1=FILE,T2=FILE. Received: "):
            translate(Ninth(), wrong, out)
    with pytest.raises(ValueError, match="input: expected a folder, a .tsv list or T1=FILE,T2=F"):
        translate(Ninth(), first, out)


@pytest.mark.parametrize("columns", [("source_T2", "source_T1"), ("source1", "source2")])
def test_a_list(columns, tmp_path):
    root = cases(tmp_path / "in", 2)
    order = (1, 0) if columns[0] == "source_T2" else (0, 1)
    rows = ["\t".join((*columns, "target"))]
    rows += ["\t".join([f"imagesTr/case{n}_000{k}.nii.gz" for k in order] + ["-"]) for n in (0, 1)]
    rows.append("imagesTr/case0_0000.nii.gz\timagesTr/none.nii.gz\t-")
    (root / "list.tsv").write_text("\n".join(rows))
    report, skipped = translated(Ninth(), root / "list.tsv", tmp_path / "out")
    (root / "other.tsv").write_text("source_T1c\tsource_T2\n")
    with pytest.raises(ValueError, match="other.tsv: expected the columns source_T1, source_T2. R"):
        translate(Ninth(), root / "other.tsv", tmp_path / "other")
    np.testing.assert_allclose(
        values(tmp_path / "out/case1_0000.nii.gz"), images(1)["FLAIR"], rtol=1e-4
    )
    assert report.done == 2 and len(skipped) == 1 and "list.tsv, line 4: T" in skipped[0]


def test_a_dicom_study_comes_out_with_references_to_all_inputs(tmp_path):
    case = study(tmp_path / "in", 0)
    before = dciodvfy(tmp_path / "in/Ax_T1_tse-0.dcm")
    report = translate(Ninth(), tmp_path / "in", tmp_path / "out")
    assert (report.done, report.series, report.skipped) == (1, 1, [])
    # What no pattern picks is no fault.
    assert {p.path.name.split("-")[0] for p in report.ignored} == {"localizer", "Ax_FLAIR_tse"}
    files = sorted((tmp_path / "out").rglob("*.dcm"))
    assert len(files) == 3
    for number, file in enumerate(files):
        header = pydicom.dcmread(file)
        sources = [item.ReferencedSOPInstanceUID for item in header.SourceImageSequence]
        inputs = [f"in/Ax_{name}_tse-{number}.dcm" for name in ("T1", "T2")]
        assert sources == [pydicom.dcmread(tmp_path / i).SOPInstanceUID for i in inputs]
        wanted = case["T1"][number] / 9 + case["T2"][number]
        np.testing.assert_allclose(header.pixel_array, wanted, atol=0.51)
        assert dciodvfy(file) <= before


def test_frames_of_one_file_refer_to_all_inputs_too(tmp_path):
    @dataclasses.dataclass
    class Mean(Model):
        def translate(self, images, batch_size=1):
            return images.mean(-1, keepdims=True)

    for name in ("low", "high"):
        (tmp_path / name).mkdir()
        path, stored = enhanced(tmp_path / name)
        header = pydicom.dcmread(path)
        header.SeriesInstanceUID = pydicom.uid.generate_uid(entropy_srcs=[name])
        header.save_as(path)
    parts = [dataclasses.replace(CT, name=name) for name in ("low", "high")]
    model = Mean(source=Domain(inputs=tuple(parts)), target=CT)
    files = [tmp_path / f"{name}/enhanced.dcm" for name in ("low", "high")]
    translate(model, f"low={files[0]},high={files[1]}", tmp_path / "out.dcm")
    made, (low, high) = pydicom.dcmread(tmp_path / "out.dcm"), map(pydicom.dcmread, files)
    (derivation,) = made.SharedFunctionalGroupsSequence[0].DerivationImageSequence
    sources = [item.ReferencedSOPInstanceUID for item in derivation.SourceImageSequence]
    assert sources == [low.SOPInstanceUID, high.SOPInstanceUID]
    series = [item.SeriesInstanceUID for item in made.ReferencedSeriesSequence]
    assert series == [low.SeriesInstanceUID, high.SeriesInstanceUID]
    assert dciodvfy(tmp_path / "out.dcm") <= dciodvfy(files[0])


def test_references_of_a_deidentified_study_are_replaced(tmp_path):
    study(tmp_path / "in", 0)
    translate(Ninth(), tmp_path / "in", tmp_path / "out", deidentify=True)
    header = pydicom.dcmread(next((tmp_path / "out").rglob("*.dcm")))
    old = {pydicom.dcmread(file).SOPInstanceUID for file in (tmp_path / "in").glob("*.dcm")}
    sources = {item.ReferencedSOPInstanceUID for item in header.SourceImageSequence}
    assert len(sources) == 2 and not sources & old


def test_a_study_without_an_input(tmp_path):
    study(tmp_path / "in/a", 0)
    case = images(1)
    dicom_series(tmp_path / "in/b", "Ax T1", case["T1"], patient="B")
    report, skipped = translated(Ninth(), tmp_path / "in", tmp_path / "out")
    assert report.done == 1
    (text,) = skipped
    assert "T2: expected one series of the study like *T2*. Received: none of 'Ax T1'" in text


def test_inputs_of_another_grid_are_resampled_with_a_note(tmp_path):
    coarse = HUNG @ np.diag([2.0, 2.0, 1.0, 1.0])
    coarse[:3, 3] = HUNG[:3, :3] @ [0.5, 0.5, 0]
    ramp = np.add.outer(np.arange(16.0), np.zeros(16)) * np.ones((3, 1, 1))
    one = nifti(tmp_path / "one.nii", 9 * ramp)
    two = nifti(tmp_path / "two.nii", ramp[:, ::2, ::2] + 0.5, coarse)
    report = translate(Ninth(), f"T1={one},T2={two}", tmp_path / "out.nii")
    notes = [warning.reason for warning in report.warnings]
    assert "T2: resampled onto the grid of T1, of which it covers 100%" in notes
    np.testing.assert_allclose(values(tmp_path / "out.nii")[:, 1:-1], 2 * ramp[:, 1:-1], atol=1e-4)
    # What does not reach is the low end of that input's window.
    half = nifti(tmp_path / "half.nii", ramp[:, :8] + 5)
    translate(Ninth(), f"T1={one},T2={half}", tmp_path / "half_out.nii")
    np.testing.assert_allclose(values(tmp_path / "half_out.nii")[:, 9:], ramp[:, 9:], atol=1e-4)


def test_inputs_that_do_not_belong_together_are_refused(tmp_path):
    one = dicom_series(tmp_path / "one", "T1", images(0)["T1"], patient="A")
    other = dicom_series(tmp_path / "two", "T2", images(0)["T2"], patient="B")
    _, skipped = translated(Ninth(), f"T1={one},T2={other}", tmp_path / "out")
    assert "inputs: expected those of one patient. Received: several" in skipped[0]
    np.save(tmp_path / "small.npy", np.zeros((3, 8, 8)))
    _, skipped = translated(Ninth(), f"T1={one},T2={tmp_path / 'small.npy'}", tmp_path / "out")
    assert "T1 and T2 have different sizes" in skipped[0]


def test_exchanged_inputs_are_seen_by_their_values(tmp_path):
    root = cases(tmp_path / "in", 1) / "imagesTr"
    first, second = root / "case0_0000.nii.gz", root / "case0_0001.nii.gz"
    report = translate(Ninth(), f"T1={second},T2={first}", tmp_path / "out.nii.gz")
    (warning,) = report.warnings
    assert "inputs: T1 looks like T2, and T2 like T1; are they exchanged?" in warning.reason


def test_exchanged_inputs_are_seen_by_their_modality_and_unit(tmp_path):
    source = Domain(
        inputs=(
            Domain(modality="CT", unit="HU", window=(-1000, 1000), name="CT"),
            Domain(modality="MR", unit="signal", window=(0, 900), name="MR"),
        )
    )
    ct = dicom_series(tmp_path / "ct", "ct", images(0)["T1"], base="CT_small")
    mr = dicom_series(tmp_path / "mr", "mr", images(0)["T1"])
    model = Ninth(source=source)
    _, skipped = translated(model, f"CT={mr},MR={ct}", tmp_path / "out")
    assert "CT: modality: the model takes CT images. Received: MR" in skipped[0]
    _, skipped = translated(model, f"CT={ct},MR={mr}", tmp_path / "out")
    assert skipped == []


def test_arrays_and_what_is_read_of_them(tmp_path):
    case = images(0)
    for number, name in enumerate(("T1", "T2")):
        np.save(tmp_path / f"case_000{number}.npy", case[name])
    translate(Ninth(), tmp_path, tmp_path / "out")
    np.testing.assert_allclose(np.load(tmp_path / "out/case.npy"), case["FLAIR"], rtol=1e-5)
    assert len(find(tmp_path / "out").volumes) == 1
