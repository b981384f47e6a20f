"""A real archive: Orthanc by C-STORE and by DICOMweb; `make pacs` runs it."""

import time

import numpy as np
import pydicom
import pytest

import dicom_files
import orthanc
import zoo
from zoo import command_line
from zoo.inference import predict
from zoo.serving.node import node, rules, spool

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(orthanc.MISSING, reason=orthanc.REASON),
]
MODEL = "encoder_decoder_ldct"
SLICES = 200


@pytest.fixture(scope="module")
def model():
    return zoo.load(MODEL)


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """200 slices of 64 x 64 pixels, each with noise of its own."""
    folder = tmp_path_factory.mktemp("given")
    draw = np.random.default_rng(0)
    small = pydicom.dcmread(dicom_files.bundled("CT_small")).pixel_array[32:96, 32:96]
    for number in range(SLICES):
        pixels = (small + draw.normal(0, 20, small.shape)).clip(0, 4000).astype(small.dtype)
        dicom_files.single(
            folder,
            f"{number:03d}.dcm",
            pixels,
            SOPInstanceUID=pydicom.uid.generate_uid(),
            InstanceNumber=number + 1,
            ImagePositionPatient=[-158.1, -179.0, 2.5 * number],
        )
    return folder


def values(paths):
    """Stored values and headers by the slice's position."""
    found = {}
    for path in paths:
        image = pydicom.dcmread(path)
        found[float(image.ImagePositionPatient[2])] = image
    return found


def test_200_slices_go_to_the_node_and_come_back(model, series, tmp_path):
    port = orthanc.free_port()
    with orthanc.started(tmp_path, node=port) as archive:
        destination = rules.Destination("ORTHANC", "127.0.0.1", archive.dicom)
        known = rules.Rules(
            (rules.Rule("CT", MODEL, "archive"),), {"archive": destination}, quiet_seconds=5.0
        )

        def translate(name, given, made):
            return predict.translate(model, given, made, batch_size=4, progress=False)

        queue, lines = spool.Spool(tmp_path / "spool", 2**30), []
        working = node.Node(known, queue, translate, lines.append)
        working.start("127.0.0.1", port)
        (given,) = {archive.add(path) for path in sorted(series.iterdir())}
        sent = archive.http.post("/modalities/zoo/store", content=given)
        assert sent.status_code == 200 and sent.json()["FailedInstancesCount"] == 0
        end = time.monotonic() + 300
        while queue.counts() != {"done": 1}:
            assert time.monotonic() < end, lines
            time.sleep(0.2)
        working.stop()
        queue.close()
        (made,) = set(archive.series()) - {given}
        results = archive.files(made, tmp_path / "results")
    # The pixels that predict makes, in one derived series that refers to its origin.
    predict.translate(model, series, tmp_path / "out", batch_size=4, progress=False)
    received, expected = values(results), values((tmp_path / "out").iterdir())
    assert received.keys() == expected.keys() and len(received) == SLICES
    for position, image in received.items():
        assert image.PixelData == expected[position].PixelData
        (source,) = image.SourceImageSequence
        (wanted,) = expected[position].SourceImageSequence
        assert source.ReferencedSOPInstanceUID == wanted.ReferencedSOPInstanceUID
    assert f"series 1: {SLICES} slices translated by {MODEL}" in "\n".join(lines)
    before = dicom_files.dciodvfy(series / "000.dcm")
    for path in results[::20]:
        assert dicom_files.dciodvfy(path) <= before


def test_predict_reads_from_and_writes_to_the_archive_by_dicomweb(series, tmp_path):
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(series.iterdir())[:12]:
        (few / path.name).write_bytes(path.read_bytes())
    header = pydicom.dcmread(few / "000.dcm")
    with orthanc.started(tmp_path) as archive:
        (given,) = {archive.add(path) for path in sorted(few.iterdir())}
        web = archive.web.replace("http:", "dicomweb:")
        words = [f"--model={MODEL}", "--engine=keras", f"--output={web}"]
        study = f"{web}/studies/{header.StudyInstanceUID}"
        source = f"--input={study}/series/{header.SeriesInstanceUID}"
        assert command_line.main(["zoo", "predict", *words, source]) == 0
        (made,) = set(archive.series()) - {given}
        results = archive.files(made, tmp_path / "results")
        # A search finds the series, of which the study now has two.
        local = [f"--model={MODEL}", "--engine=keras", f"--output={tmp_path / 'local'}"]
        search = f"--input={web}?Modality=CT&SeriesInstanceUID={header.SeriesInstanceUID}"
        assert command_line.main(["zoo", "predict", *local, search]) == 0
        # By the command too: a model that has answered batches rounds otherwise.
        plain = [f"--model={MODEL}", "--engine=keras", f"--output={tmp_path / 'out'}"]
        assert command_line.main(["zoo", "predict", *plain, f"--input={few}"]) == 0
    expected = values((tmp_path / "out").iterdir())
    for found in (results, (tmp_path / "local").rglob("*.dcm")):
        received = values(found)
        assert received.keys() == expected.keys() and len(received) == 12
        for position, image in received.items():
            assert image.PixelData == expected[position].PixelData
    before = dicom_files.dciodvfy(few / "000.dcm")
    assert all(dicom_files.dciodvfy(path) <= before for path in results)
