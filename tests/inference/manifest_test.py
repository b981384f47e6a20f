"""Runs over many files: parts, a record on disk, and going on after a stop at any moment."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pydicom
import pytest

from dicom_files import series
from stand_in import CT, Model, contents, translate, with_peak
from zoo import command_line
from zoo.cache import file_sha256
from zoo.imaging.files import find
from zoo.inference import manifest
from zoo.inference.manifest import share, total

ROOT = Path(__file__).parent.parent.parent


def equal(one, two):
    assert one.keys() == two.keys()
    for key, pixels in one.items():
        np.testing.assert_array_equal(pixels, two[key], str(key))


def test_parts_are_of_one_size_and_hold_each_volume_once(mixed):
    series(mixed / "long", 40)
    volumes = find(mixed).volumes
    parts = [share(volumes, (number, 3)) for number in (1, 2, 3)]
    assert sorted(index for part in parts for index in part) == list(range(len(volumes)))
    assert [index for index, v in enumerate(volumes) if v.length == 40] in map(sorted, parts)
    many = [share(volumes, (number, 10**12)) for number in range(1, len(volumes) + 2)]
    assert sorted(map(len, many)) == [0] + [1] * len(volumes)


def test_all_parts_are_the_whole(tmp_path, mixed):
    model, parts = Model(plus=5), tmp_path / "parts"
    whole = translate(model, mixed, tmp_path / "whole")
    reports = [translate(model, mixed, parts, part=(number, 3)) for number in (3, 1, 2)]
    equal(contents(tmp_path / "whole"), contents(tmp_path / "parts"))
    assert sum(report.done for report in reports) == whole.done
    assert all(report.others + report.done == whole.done for report in reports)


@dataclasses.dataclass
class Counting(Model):
    """Counts the batches that it gets, and is killed when it gets one too many."""

    left: int = 10**6
    seen: int = 0

    def translate(self, images, batch_size=1):
        self.seen += 1
        if self.seen > self.left:
            raise KeyboardInterrupt
        return super().translate(images, batch_size)


@pytest.mark.parametrize("after", range(9))
def test_a_run_that_is_stopped_goes_on_and_repeats_nothing(tmp_path, mixed, after):
    (mixed / "broken.nii").write_bytes(b"nothing")
    whole, record = Counting(plus=5), tmp_path / "manifest.jsonl"
    expected = translate(whole, mixed, tmp_path / "whole")
    killed, again = Counting(plus=5, left=after), Counting(plus=5)
    with pytest.raises(KeyboardInterrupt):
        translate(killed, mixed, tmp_path / "out", manifest=record)
    ended = [line for line in record.read_text().splitlines() if '"ended"' in line][1:]
    report = translate(again, mixed, tmp_path / "out", manifest=record)
    equal(contents(tmp_path / "whole"), contents(tmp_path / "out"))
    assert (report.done, report.slices) == (expected.done, expected.slices)
    assert report.before == len(ended)
    assert [p.path.name for p in report.skipped] == ["broken.nii"]
    assert sorted(p.name for p in report.outputs) == sorted(p.name for p in expected.outputs)
    # Nothing is done twice but the volume that was cut off.
    largest = max(volume.length for volume in find(mixed).volumes)
    assert whole.seen <= again.seen + after <= whole.seen + largest
    idle = Counting(plus=5)
    assert translate(idle, mixed, tmp_path / "out", manifest=record).before == expected.done
    assert idle.seen == 0


def test_the_parts_of_a_manifest_with_brackets_are_found(tmp_path, mixed):
    record = tmp_path / "run [1].jsonl"
    parts = [
        translate(Counting(), mixed, tmp_path / "out", manifest=record, part=(number, 2))
        for number in (1, 2)
    ]
    assert total(record, tmp_path / "out").done == sum(part.done for part in parts) > 1
    again = Counting()
    translate(again, mixed, tmp_path / "out", manifest=record)
    assert again.seen == 0


def test_what_failed_is_named_again_and_not_tried_until_it_changes(tmp_path, mixed, monkeypatch):
    record, path = tmp_path / "manifest.jsonl", mixed / "array.npy"
    np.save(path, np.full((2, 5, 4), np.nan))
    first = translate(Counting(), mixed, tmp_path / "out", manifest=record)
    again = Counting()
    second = translate(again, mixed, tmp_path / "out", manifest=record)
    assert (
        [p.path.name for p in first.skipped]
        == ["array.npy"]
        == [p.path.name for p in second.skipped]
    )
    assert again.seen == 0
    np.save(path, np.zeros((2, 5, 4)))  # of the same size
    third = translate(again, mixed, tmp_path / "out", manifest=record)
    assert (third.skipped, again.seen, third.done) == ([], 2, first.done + 1)
    # So is an input whose output is there.
    np.save(path, np.ones((2, 5, 4)))
    fourth = translate(again, mixed, tmp_path / "out", manifest=record)
    assert (fourth.before, again.seen, fourth.done) == (third.done - 1, 4, third.done)
    np.testing.assert_array_equal(np.load(tmp_path / "out/array.npy"), np.load(path))
    # Each file is hashed once.
    calls = []
    monkeypatch.setattr(
        manifest, "file_sha256", lambda path: calls.append(path) or file_sha256(path)
    )
    fifth = translate(again, mixed, tmp_path / "out", manifest=record)
    assert fifth.before == fifth.done
    read = [call for call in calls if call.is_relative_to(mixed)]
    assert len(read) == len(set(read)) == len([p for p in mixed.rglob("*") if p.is_file()])


def test_memory_does_not_grow_with_the_number_of_files(tmp_path):
    def peak(count):
        folder = tmp_path / f"{count}"
        folder.mkdir()
        for number in range(count):
            np.save(folder / f"{number}.npy", np.zeros((256, 256), np.float32))
        record, out = tmp_path / f"{count}.jsonl", tmp_path / f"out{count}"
        return with_peak(lambda: translate(Model(), folder, out, manifest=record))[1]

    peak(2)
    # An image has 262 kB.
    assert peak(40) < peak(4) + 36 * 20_000


def test_an_output_that_was_lost_or_changed_is_made_again(tmp_path, mixed):
    record, out = tmp_path / "manifest.jsonl", tmp_path / "out"
    translate(Model(plus=5), mixed, out, manifest=record)
    before = contents(out)
    (out / "grey.png").unlink()
    (out / "ct/.0123456789abcdef.part").touch()  # as a killed run leaves it
    np.save(out / "array.npy", np.zeros((2, 5, 4)))
    again = Counting(plus=5)
    translate(again, mixed, out, manifest=record)
    equal(before, contents(out))
    assert not list(out.rglob("*.part"))
    assert again.seen == 3  # one of the PNG, two of the array


def test_series_in_parts_have_the_uids_of_one_run(tmp_path):
    """Two time points of a series are two volumes."""
    for time_point in (1, 2):
        folder = series(tmp_path / "in" / str(time_point), 3)
        for path in folder.iterdir():
            dataset = pydicom.dcmread(path)
            dataset.AcquisitionNumber = time_point
            uid = f"{dataset.SOPInstanceUID}.{time_point}"
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
            dataset.save_as(path)
    assert len(find(tmp_path / "in").volumes) == 2
    record = tmp_path / "manifest.jsonl"
    for number in (1, 2):
        translate(Model(source=CT, target=CT), tmp_path / "in", tmp_path / "out", manifest=record,
                  part=(number, 2))  # fmt: skip
    headers = [pydicom.dcmread(path) for path in (tmp_path / "out").rglob("*.dcm")]
    assert len(headers) == 6
    assert len({str(header.SeriesInstanceUID) for header in headers}) == 1
    assert len({str(header.SOPInstanceUID) for header in headers}) == 6
    # It is one series, whoever did it, and to a run that has nothing left to do.
    assert (total(record, tmp_path / "out").done, total(record, tmp_path / "out").series) == (1, 1)
    again = translate(
        Model(source=CT, target=CT), tmp_path / "in", tmp_path / "out", manifest=record
    )
    assert (again.done, again.series, again.slices, again.before) == (1, 1, 6, 1)


def test_a_manifest_of_another_run_is_refused(tmp_path, mixed):
    record = tmp_path / "manifest.jsonl"
    translate(Model(), mixed, tmp_path / "out", manifest=record)
    other = dataclasses.replace(Model(), weights_hash="ef" * 32)
    with pytest.raises(ValueError, match=f"expected a run with weights {'cd' * 32}.*Received: ef"):
        translate(other, mixed, tmp_path / "out", manifest=record)
    (tmp_path / "notes.txt").write_text("dear diary\n")
    with pytest.raises(ValueError, match="expected a manifest of predict. Received: another file"):
        translate(Model(), mixed, tmp_path / "more", manifest=tmp_path / "notes.txt")
    old = tmp_path / "old.jsonl"
    old.write_text(record.read_text().replace('"format": 2, ', ""))
    with pytest.raises(ValueError, match="old.jsonl: expected a manifest that knows.*of format 1"):
        translate(Model(), mixed, tmp_path / "more", manifest=old)
    for place in (tmp_path, tmp_path / "notes.txt" / "record.jsonl"):
        with pytest.raises(ValueError, match="manifest: expected a file that can be written"):
            translate(Model(), mixed, tmp_path / "more", manifest=place)
    with pytest.raises(ValueError, match="deidentify: expected one whole run"):
        translate(Model(), mixed, tmp_path / "more", manifest=record, deidentify=True)
    with pytest.raises(ValueError, match="input: expected a folder"):
        translate(Model(), mixed / "grey.png", tmp_path / "more", part=(1, 2))
    assert not (tmp_path / "more").exists()
    # What others wrote is not replaced.
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "grey.png").write_bytes(b"theirs")
    with pytest.raises(FileExistsError):
        translate(Model(), mixed, tmp_path / "theirs", manifest=tmp_path / "new.jsonl")


def test_a_manifest_has_one_process_at_a_time_and_survives_a_torn_line(tmp_path, mixed):
    record = tmp_path / "manifest.jsonl"
    translate(Model(), mixed, tmp_path / "out", manifest=record)
    with open(record, "a") as file:
        file.write('{"ended": "5c')
    assert translate(Counting(), mixed, tmp_path / "out", manifest=record).before == 5
    assert translate(Counting(), mixed, tmp_path / "out", manifest=record).before == 5

    class Nosy(Model):
        def translate(self, images, batch_size=1):
            with pytest.raises(ValueError, match="one that no other process uses"):
                translate(Model(), mixed, tmp_path / "out", manifest=record)
            return super().translate(images, batch_size)

    (tmp_path / "out" / "grey.png").unlink()
    assert translate(Nosy(), mixed, tmp_path / "out", manifest=record).done == 5


ARGUMENTS = ["--model=encoder_decoder_ldct", "--engine=keras"]


def many(folder, count, poisoned):
    """Small arrays in HU; each of the poisoned has none."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        image = rng.normal(0, 30, (16, 16)).astype("float32")
        if number in poisoned:
            image[3, 3] = np.inf
        np.save(folder / f"{number:04d}.npy", image)


def test_workers_do_what_one_process_does(tmp_path, capsys):
    many(tmp_path / "in", 9, {2, 7})
    flags = [*ARGUMENTS, f"--input={tmp_path / 'in'}"]
    assert command_line.main(["zoo", "predict", *flags, f"--output={tmp_path / 'one'}"]) == 1
    told = capsys.readouterr()
    shared = [*flags, f"--output={tmp_path / 'two'}", "--workers=2"]
    assert command_line.main(["zoo", "predict", *shared]) == 1
    assert told.err.count("skipped: ") == 2
    of_workers = capsys.readouterr()
    assert sorted(of_workers.err.splitlines()) == sorted(told.err.splitlines())
    assert of_workers.out == told.out.replace(str(tmp_path / "one"), str(tmp_path / "two"))
    equal(contents(tmp_path / "one"), contents(tmp_path / "two"))
    assert command_line.main(["zoo", "predict", *flags, "--output=x", "--part=3/2"]) == 2
    assert "part: expected K/N, such as 1/4. Received: 3/2" in capsys.readouterr().err


@pytest.mark.slow
def test_a_thousand_with_ten_poisoned_and_a_kill(tmp_path):
    """990 are done, 10 named, and none is repeated; workers end with the process they are of."""
    poisoned = set(range(5, 1000, 100))
    many(tmp_path / "in", 1000, poisoned)
    record = tmp_path / "manifest.jsonl"
    command = [sys.executable, str(ROOT / "cli.py"), "predict", *ARGUMENTS, "--workers=2"]
    command += [f"--input={tmp_path / 'in'}", f"--output={tmp_path / 'out'}"]
    command += [f"--manifest={record}"]

    def ended():
        text = "".join(path.read_text() for path in tmp_path.glob("manifest.jsonl*"))
        whole = [line for line in text.split("\n")[:-1] if line.startswith('{"ended"')]
        return [json.loads(line) for line in whole if line.endswith("}")]

    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while len(ended()) < 300:
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(2)  # for the workers
    before = {entry["ended"] for entry in ended()}
    assert 300 <= len(before) < 990
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert second.stderr.count("skipped: ") == 10
    assert "Translated 990 files, 990 slices" in second.stdout
    names = [entry["ended"] for entry in ended() if entry["ended"] != "files"]
    assert len(names) == len(set(names)) == 1000
    assert len(list((tmp_path / "out").glob("[0-9]*.npy"))) == 990
    # A worker's own error is the run's.
    third = subprocess.run(command[:-1], capture_output=True, text=True, check=False)
    assert third.returncode == 1
    assert "error: output exists; pass overwrite" in third.stderr
