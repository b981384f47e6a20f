"""The DICOM node by pynetdicom's own client and server, on loopback, and by kills."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pydicom
import pytest
from pynetdicom import AE, evt
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import CTImageStorage, Verification

import dicom_files
import zoo
from stand_in import CT, Model
from zoo.imaging import files
from zoo.imaging.volume import Problem
from zoo.inference import predict
from zoo.inference.report import Report
from zoo.serving.node import node, rules, spool

ROOT = Path(__file__).resolve().parent.parent.parent
WORKER = Path(__file__).with_name("node_worker.py")
ADDING = Model(plus=7.0, source=CT, target=CT)


class Archive:
    """A C-STORE server that keeps what it gets, and can refuse."""

    def __init__(self):
        self.got, self.times, self.status = {}, 0, 0
        self.entity = AE("ARCHIVE")
        self.entity.add_supported_context(CTImageStorage)
        self.server = None

    def store(self, event):
        self.times += 1
        if not self.status:
            image = event.dataset
            image.file_meta = event.file_meta
            self.got[image.SOPInstanceUID] = image
        return self.status

    def start(self, port=0):
        handlers = [(evt.EVT_C_STORE, self.store)]
        self.server = self.entity.start_server(
            ("127.0.0.1", port), block=False, evt_handlers=handlers
        )
        return self.server.server_address[1]

    def stop(self):
        self.server.shutdown()


def until(holds, seconds=20.0):
    """Waits for what must come to hold."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


class Running:
    """A node that translates all CT by a stand-in, and its log."""

    def __init__(self, folder, port, limit=10**9, **fields):
        self.lines = []
        destination = rules.Destination("ARCHIVE", "127.0.0.1", port)
        known = rules.Rules(
            (rules.Rule("CT", "adding", "archive"),), {"archive": destination}, **fields
        )
        self.spool = spool.Spool(folder, limit)

        def translate(name, given, made):
            return predict.translate(ADDING, given, made, progress=False)

        self.node = node.Node(known, self.spool, translate, self.lines.append)
        self.port = self.node.start("127.0.0.1", 0)

    def send(self, paths):
        """The statuses of C-STORE, and of C-ECHO before."""
        entity = AE("SCANNER")
        entity.add_requested_context(Verification)
        for path in paths:
            meta = pydicom.filereader.read_file_meta_info(path)
            context = build_context(meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID)
            if context.abstract_syntax not in {
                c.abstract_syntax for c in entity.requested_contexts
            }:
                entity.requested_contexts = [*entity.requested_contexts, context]
        association = entity.associate("127.0.0.1", self.port)
        assert association.is_established
        assert association.send_c_echo().Status == 0
        found = [association.send_c_store(path).Status for path in paths]
        association.release()
        return found

    def stop(self):
        self.node.stop()
        self.spool.close()


@pytest.fixture
def archive():
    made = Archive()
    made.port = made.start()
    yield made
    made.stop()


@pytest.fixture
def running(archive, tmp_path):
    made = Running(tmp_path / "spool", archive.port, quiet_seconds=0.4)
    yield made
    made.stop()


def test_a_series_is_translated_as_predict_does_and_sent_on(running, archive, tmp_path):
    folder = dicom_files.series(tmp_path / "in", 3)
    paths = sorted(folder.iterdir())
    for path in paths:
        image = pydicom.dcmread(path)
        image.SeriesDescription = "Mrs Example's liver"
        image.save_as(path)
    assert running.send(paths) == [0, 0, 0]
    until(lambda: running.spool.counts() == {"done": 1})
    # What predict makes of the files, but for the UIDs that each run gives.
    predict.translate(ADDING, folder, tmp_path / "out", progress=False)
    expected = {}
    for path in (tmp_path / "out").iterdir():
        image = pydicom.dcmread(path)
        expected[image.SourceImageSequence[0].ReferencedSOPInstanceUID] = image
    assert len(archive.got) == len(expected) == 3
    for image in archive.got.values():
        wanted = expected[image.SourceImageSequence[0].ReferencedSOPInstanceUID]
        assert image.PixelData == wanted.PixelData
        assert image.ImagePositionPatient == wanted.ImagePositionPatient
        assert image.DerivationDescription == wanted.DerivationDescription
    assert len({image.SeriesInstanceUID for image in archive.got.values()}) == 1
    # What comes again, and what the node made, is taken and dropped.
    copy = tmp_path / "back.dcm"
    next(iter(archive.got.values())).save_as(copy, enforce_file_format=True)
    assert running.send([*paths, copy]) == [0, 0, 0, 0]
    time.sleep(0.8)
    assert running.spool.counts() == {"done": 1} and archive.times == 3
    assert not [path for path in (tmp_path / "spool").iterdir() if path.is_dir()]
    # The log says what was done, and of whom nothing.
    log = "\n".join(running.lines)
    assert re.search(r"series 1: 3 slices translated by adding in [\d.]+ s", log)
    assert "series 1: sent to archive" in log
    header = pydicom.dcmread(paths[0])
    secrets = [header.PatientID, *str(header.PatientName).split("^"), header.StudyInstanceUID]
    secrets += [header.SOPInstanceUID, header.SeriesDescription, header.get("AccessionNumber")]
    database = b"".join(path.read_bytes() for path in (tmp_path / "spool").glob("queue*"))
    for secret in filter(None, map(str, secrets)):
        assert secret.encode() not in database and (len(secret) < 6 or secret not in log)


def test_what_no_rule_fits_is_dropped_and_what_cannot_be_translated_is_kept(
    running, archive, tmp_path
):
    good = dicom_files.single(tmp_path, "good.dcm")
    cut = dicom_files.single(tmp_path, "cut.dcm", SOPInstanceUID="1.2.3", SeriesInstanceUID="1.2")
    header = pydicom.dcmread(cut)
    del header.PixelData
    header.save_as(cut)
    other = dicom_files.single(tmp_path, "other.dcm", Modality="NM", SOPInstanceUID="1.2.4")
    assert running.send([other, cut, good]) == [0, 0, 0]
    until(lambda: running.spool.counts() == {"done": 1, "failed": 1})
    assert len(archive.got) == 1
    (reason,) = (tmp_path / "spool").glob("*/reason.txt")
    assert reason.read_text().strip() and len(list(reason.parent.glob("given/*.dcm"))) == 1
    (line,) = [line for line in running.lines if "failed" in line]
    assert str(reason) in line


def test_a_destination_that_is_away_or_refuses_gets_all_later(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(node, "_LONGEST", 0.3)
    archive.stop()
    running = Running(tmp_path / "spool", archive.port, quiet_seconds=0.2)
    try:
        running.send(sorted(dicom_files.series(tmp_path / "in", 2).iterdir()))
        until(lambda: any("takes no association" in line for line in running.lines))
        archive.status = 0xA700
        archive.start(archive.port)
        until(lambda: any("status 0xa700" in line for line in running.lines))
        assert not archive.got
        archive.status = 0
        until(lambda: running.spool.counts() == {"done": 1})
        assert len(archive.got) == 2
        assert all("patient" not in line.lower() for line in running.lines)
    finally:
        running.stop()


def test_the_disk_it_takes_is_bounded(tmp_path):
    path = dicom_files.single(tmp_path)
    size = path.stat().st_size
    queue = spool.Spool(tmp_path / "spool", 3 * size)
    try:
        for name in ("a", "b", "c"):
            assert queue.keep("series", name, "model", "archive", path.read_bytes())
        with pytest.raises(spool.Full):
            queue.keep("other", "d", "model", "archive", path.read_bytes())
        assert not queue.keep("series", "a", "model", "archive", path.read_bytes())
        # What failed gives way.
        queue.fail(1, "a reason")
        assert queue.keep("other", "d", "model", "archive", path.read_bytes())
        assert queue.counts() == {"arriving": 1}
        kept = sum(file.stat().st_size for file in (tmp_path / "spool").rglob("*.dcm"))
        assert kept == size
        with pytest.raises(OSError, match="no other node uses"):
            spool.Spool(tmp_path / "spool", 1)
    finally:
        queue.close()
    running = Running(tmp_path / "small", 1, limit=size - 1)
    try:
        assert running.send([path]) == [0xA700]
    finally:
        running.stop()


def test_a_full_disk_refuses_images_until_it_has_room(tmp_path):
    queue = spool.Spool(tmp_path / "spool", 10**6)
    try:
        queue._db.execute("PRAGMA max_page_count=1")  # it keeps what it has
        with pytest.raises(OSError, match="No space left"):
            for number in range(200):
                queue.keep(f"series {number}", f"image {number}", "m", "archive", b"1")
        queue._db.execute("PRAGMA max_page_count=100000")
        assert queue.keep("series", f"image {number}", "m", "archive", b"1")
        assert queue.counts() == {"arriving": number + 1}
    finally:
        queue.close()


def test_a_full_disk_is_no_fault_of_a_series(running, archive, tmp_path, monkeypatch):
    paths = sorted(dicom_files.series(tmp_path / "in", 2).iterdir())
    with monkeypatch.context() as full:
        full.setattr(running.spool, "keep", mock.Mock(side_effect=OSError(errno.ENOSPC, "full")))
        assert running.send(paths[:1]) == [0xA700]
    translate, times = running.node.translate, []

    def full_at_first(name, given, made):
        times.append(name)
        if len(times) == 1:
            return Report(skipped=[Problem(made, "[Errno 28] No space left on device")])
        return translate("adding", given, made)

    running.node.translate = full_at_first
    assert running.send(paths) == [0, 0]
    until(lambda: running.spool.counts() == {"done": 1})
    assert len(archive.got) == 2


def test_a_fault_that_nobody_foresaw_is_one_series(tmp_path):
    queue, lines = spool.Spool(tmp_path / "spool", 10**6), []

    def translate(name, given, made):
        if next(given.iterdir()).read_bytes() == b"1":
            raise RuntimeError("a fault")
        made.mkdir()
        (made / "1.dcm").write_bytes(b"3")
        return Report(outputs=[made / "1.dcm"])

    known = rules.Rules((), {}, quiet_seconds=1e-3)
    working = node.Node(known, queue, translate, lines.append)
    try:
        queue.keep("one", "a", "model", "archive", b"1")
        queue.keep("two", "b", "model", "archive", b"2")
        time.sleep(0.01)
        assert working.translate_next() and working.translate_next()
        assert queue.counts() == {"failed": 1, "made": 1}
        assert "RuntimeError: a fault" in (tmp_path / "spool" / "1" / "reason.txt").read_text()
    finally:
        queue.close()


def test_images_that_come_late_make_a_series_of_their_own(tmp_path):
    queue = spool.Spool(tmp_path / "spool", 10**6)
    try:
        queue.keep("series", "a", "model", "archive", b"1")
        queue.close_quiet(0)
        assert queue.keep("series", "b", "model", "archive", b"2")
        assert queue.counts() == {"complete": 1, "arriving": 1}
        assert [path.read_bytes() for path in queue.given(1).iterdir()] == [b"1"]
        assert [path.read_bytes() for path in queue.given(2).iterdir()] == [b"2"]
    finally:
        queue.close()


def killed(folder: Path, stride: int) -> None:
    command = [sys.executable, str(WORKER), str(folder), str(stride)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    told = json.loads(done.stdout)
    assert told["lines"] > 200 and not told["wrong"]


def test_a_node_that_is_killed_loses_and_repeats_nothing(tmp_path):
    killed(tmp_path, 37)


@pytest.mark.slow
def test_a_node_that_is_killed_at_any_line_loses_and_repeats_nothing(tmp_path):
    killed(tmp_path, 1)


GOOD = """
ae_title: ZOO
quiet_seconds: 5
destinations:
  archive: {ae_title: ORTHANC, host: localhost, port: 4242}
rules:
  - {modality: CT, description: "*Low Dose*", model: encoder_decoder_ldct, send_to: archive}
  - {modality: CT, model: pix2pix_ldct, send_to: archive}
"""


def test_the_first_rule_that_fits_counts(tmp_path):
    (tmp_path / "rules.yaml").write_text(GOOD)
    found = rules.read(tmp_path / "rules.yaml")
    assert found.find("CT", "thorax LOW dose 1 mm").model == "encoder_decoder_ldct"
    assert found.find("CT", "").model == "pix2pix_ldct"
    assert found.find("MR", "low dose") is None
    assert found.destinations["archive"] == rules.Destination("ORTHANC", "localhost", 4242)
    assert (found.ae_title, found.quiet_seconds, found.accept_from) == ("ZOO", 5, ())


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("ae_title: ZOO", "ae_title: A title of some length", "ae_title: expected 1 to 16"),
        ("quiet_seconds: 5", "quiet_seconds: -1", "quiet_seconds: expected above 0"),
        ("quiet_seconds: 5", "quiet: 5", "Received: 'quiet'"),
        ("4242", "99999", "destinations: archive: port: expected 1 to 65535. Received: 99999"),
        (", host: localhost", "", "destinations: archive: .* Received: no host"),
        ("send_to: archive}\n  -", "send_to: vault}\n  -", "rules: 1: send_to: expected archive"),
        ("modality: CT, model", "modality: 3, model", "rules: 2: modality: expected a text"),
        ("rules:", "rules: 3\nothers:", "Received: 'others'"),
        ("quiet_seconds: 5", "accept_from: [3]", "accept_from: expected 1 to 16"),
        ("ae_title: ZOO", "ae_title: [", "expected YAML"),
        ("ae_title: ZOO", "ae_title: !!python/object:os.system {}", "expected YAML"),
    ],
)
def test_a_rule_file_that_is_wrong_says_where(tmp_path, old, new, error):
    path = tmp_path / "rules.yaml"
    assert old in GOOD
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(ValueError, match=error) as caught:
        rules.read(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_the_command_works_until_it_is_told_to_stop(archive, tmp_path):
    path = tmp_path / "rules.yaml"
    text = GOOD.replace("4242", str(archive.port)).replace("seconds: 5", "seconds: 0.5")
    path.write_text(text.replace("encoder_decoder_ldct", "pix2pix_ldct"))
    command = [sys.executable, "cli.py", "dicom-node", f"--rules={path}", "--dicom_port=0"]
    command += [f"--spool={tmp_path / 'spool'}", "--engine=keras"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        found = re.fullmatch(
            r"ZOO at 127.0.0.1:(\d+), 0 series waiting\n", process.stdout.readline()
        )
        images = sorted(dicom_files.series(tmp_path / "in", 2).iterdir())
        assert Running.send(type("Any", (), {"port": int(found[1])}), images) == [0, 0]
        until(lambda: len(archive.got) == 2, 60)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        log = process.stdout.read()
        assert "2 slices translated by pix2pix_ldct" in log and "sent to archive" in log
    finally:
        process.kill()
        process.stdout.close()
    # The same values as the model gives.
    volume = files.open_volume(tmp_path / "in")
    model = zoo.load("pix2pix_ldct")
    for image in archive.got.values():
        height = image.ImagePositionPatient[2]
        expected = model.translate(volume.read(int(height)))
        values = image.pixel_array * image.RescaleSlope + image.RescaleIntercept
        np.testing.assert_allclose(values, expected, atol=1)
