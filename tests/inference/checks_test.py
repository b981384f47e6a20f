"""What does not suit a model."""

import pydicom

from dicom_files import bundled, series
from stand_in import CT, Model, translate


def test_an_image_of_another_modality_is_refused(tmp_path):
    report = translate(Model(source=CT), bundled("MR_small"), tmp_path / "out")
    assert report.done == 0
    assert report.skipped[0].reason == "modality: the model takes CT images. Received: MR"
    assert not list((tmp_path / "out").glob("*"))


def test_neighbours_that_lie_apart_are_said(tmp_path):
    folder = series(tmp_path / "in", 5)
    (folder / "2.dcm").unlink()
    report = translate(Model(slices=3, source=CT, target=CT), folder, tmp_path / "a")
    text = "slices: expected equal distances from each to the next. Received: from 1 to 2 mm"
    assert [warning.reason for warning in report.warnings] == [text]
    header = pydicom.dcmread(report.outputs[0])
    assert f"Warning: {text}." in header.DerivationDescription
    assert translate(Model(), folder, tmp_path / "b").warnings == []


def test_slices_whose_neighbours_are_not_known_are_said(tmp_path):
    folder = series(tmp_path / "in", 4)
    for path in sorted(folder.iterdir())[1:3]:  # taken again, and nothing tells when
        dataset = pydicom.dcmread(path)
        dataset.SOPInstanceUID += ".9"
        dataset.save_as(path.with_stem(f"again{path.stem}"))
    report = translate(Model(slices=3), folder, tmp_path / "out")
    assert (report.series, report.slices) == (1, 6)
    assert len(report.warnings) == 6
    assert "neighbours are not known" in report.warnings[0].reason
    assert "neighbours" in pydicom.dcmread(report.outputs[0]).DerivationDescription
    assert not translate(Model(), folder, tmp_path / "out2").warnings
