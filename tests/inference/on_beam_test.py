"""`predict` on Apache Beam, by the runner that works in this process."""

import functools
import json
import shutil

import nibabel
import numpy as np
import pydicom.data
import pytest

from stand_in import Model, contents, translate
from zoo import command_line
from zoo.inference import on_beam
from zoo.inference.predict import Options
from zoo.inference.report import Report

RUNNER = ["--runner=DirectRunner"]


class Counting(Model):
    """Counts its batches, those of all models of this process together."""

    seen: list = []

    def translate(self, images, batch_size=1):
        self.seen.append(1)
        return super().translate(images, batch_size)


def entries(manifest):
    """What became of each volume, of all files of a manifest, without what the moment decides."""
    found = {}
    for path in manifest.parent.glob(f"{manifest.name}*"):
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            if "ended" in entry and entry["ended"] != "files":
                assert entry["ended"] not in found
                found[entry["ended"]] = entry | {
                    "outputs": set(entry["outputs"]),
                    "of": "of" in entry,
                }
    return found


def test_the_runner_does_what_predict_does_and_goes_on(tmp_path, mixed):
    np.save(mixed / "poisoned.npy", np.full((2, 5, 4), np.nan))
    (mixed / "broken.nii").write_bytes(b"nothing")
    expected = translate(
        Model(plus=5), mixed, tmp_path / "whole", manifest=tmp_path / "whole.jsonl"
    )
    Counting.seen.clear()
    run = functools.partial(
        on_beam.translate,
        Counting(plus=5),
        functools.partial(Counting, plus=5),
        mixed,
        tmp_path / "out",
        RUNNER,
        Options(manifest=tmp_path / "beam.jsonl", progress=False),
    )
    report = run()
    assert (report.done, report.series, report.slices) == (
        (expected.done, expected.series, expected.slices)
    )
    names = {problem.path.name for problem in report.skipped}
    assert names == {"poisoned.npy", "broken.nii"} == {p.path.name for p in expected.skipped}
    whole, out = contents(tmp_path / "whole"), contents(tmp_path / "out")
    assert whole.keys() == out.keys()
    for key, pixels in whole.items():
        np.testing.assert_array_equal(pixels, out[key])
    assert entries(tmp_path / "beam.jsonl") == entries(tmp_path / "whole.jsonl")
    # Again: nothing is repeated, what failed is named again, and what is lost is made again.
    seen = len(Counting.seen)
    assert seen > 0
    (tmp_path / "out/brain.nii.gz").unlink()
    again = run()
    slices = nibabel.load(mixed / "brain.nii.gz").shape[2]
    assert len(Counting.seen) - seen == slices
    assert (again.done, again.before) == (expected.done, expected.done)
    assert {problem.path.name for problem in again.skipped} == names


def test_a_file_that_is_there_is_not_replaced(tmp_path, mixed):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/grey.png").touch()
    with pytest.raises(FileExistsError):
        options = Options(manifest=tmp_path / "beam.jsonl", progress=False)
        on_beam.translate(Model(), Model, mixed, tmp_path / "out", RUNNER, options)
    assert not [path for path in (tmp_path / "out").iterdir() if path.name != "grey.png"]


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--runner=DirectRunner", "--workers=2"], "the runner says how many"),
        (["--runner=FlinkRunner"], "needs a --manifest"),
        (["--beam_options=--x=1"], "beam_options: expected --runner beside it"),
        (["--runner=DirectRunner", '--beam_options="--x'], 'closing quotation. Received: "--x'),
        (["--runner=DirectRunner", "--deidentify"], "a share of a run"),
        (["--runner=DirectRunner", "--input=dicomweb://x/studies/1"], "expected folders on disk"),
    ],
)
def test_the_command_line_refuses(tmp_path, capsys, flags, said):
    given = ["--model=srcnn_mri_x2", f"--input={tmp_path}", f"--output={tmp_path / 'out'}"]
    assert command_line.main(["zoo", "predict", *given, *flags]) == 2
    assert said in capsys.readouterr().err


def test_processes_take_the_engine_that_predict_would(tmp_path, monkeypatch):
    asked = []

    def run(model, make, *rest):
        asked.append(make.args[-2:])
        return Report(done=1)

    monkeypatch.setattr(on_beam, "translate", run)
    (tmp_path / "in").mkdir()
    shutil.copy(pydicom.data.get_testdata_file("MR_small.dcm"), tmp_path / "in")
    given = ["--model=srcnn_mri_x2", f"--input={tmp_path / 'in'}", f"--output={tmp_path / 'out'}"]
    assert command_line.main(["zoo", "predict", *given, *RUNNER]) == 0
    assert asked == [("keras", 1)]  # of one slice
