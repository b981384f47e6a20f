"""DICOMweb against a small service on loopback."""

import io

import numpy as np
import pydicom
import pytest

import dicom_files
import dicomweb
from stand_in import CT, Model
from zoo import averaging, command_line
from zoo.imaging.dicom import web
from zoo.inference import predict

ADDING = Model(plus=7.0, source=CT, target=CT)


@pytest.fixture
def service(tmp_path):
    """A service that holds three slices of CT and one of MR."""
    found = dicomweb.Service()
    paths = sorted(dicom_files.series(tmp_path / "in", 3).iterdir())
    for path in [*paths, dicom_files.bundled("MR_small")]:
        found.put(path.read_bytes())
    with dicomweb.started(found) as found.address:
        yield found


def uids(path):
    header = pydicom.dcmread(path)
    return header.StudyInstanceUID, header.SeriesInstanceUID


def test_a_search_a_study_and_a_series_are_fetched_to_the_byte(service, tmp_path):
    study, series = uids(tmp_path / "in" / "0.dcm")
    address = service.address
    for number, place in enumerate(
        ("?Modality=CT&PatientID=*", f"/studies/{study}/series/{series}", f"/studies/{study}")
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        count = web.fetch(address + place, folder)
        assert count == (4 if place.endswith(study) else 3)
        images = [pydicom.dcmread(path) for path in sorted(folder.glob("0001/*.dcm"))]
        wanted = [pydicom.dcmread(path) for path in sorted((tmp_path / "in").iterdir())]
        assert images == wanted
    assert service.searched[0]["Modality"] == "CT" and "PatientID" in service.searched[0]


def test_predict_takes_and_gives_addresses(service, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ZOO_DICOMWEB_TOKEN", "a-token")
    monkeypatch.setattr(averaging, "build", lambda entries, tta: ADDING)
    before = set(service.files)
    words = ["--model=pix2pix_ldct", "--engine=keras", f"--input={service.address}?Modality=CT"]
    assert command_line.main(["zoo", "predict", *words, f"--output={service.address}"]) == 0
    assert f"1 series, 3 slices, into {service.address}" in capsys.readouterr().out
    assert service.tokens == ["Bearer a-token"]
    # What predict makes of the same files.
    predict.translate(ADDING, tmp_path / "in", tmp_path / "out", progress=False)
    expected = [pydicom.dcmread(path) for path in (tmp_path / "out").iterdir()]
    made = [pydicom.dcmread(io.BytesIO(service.files[uid])) for uid in set(service.files) - before]
    assert len(made) == 3 and len({image.SeriesInstanceUID for image in made}) == 1
    assert {image.PixelData for image in made} == {image.PixelData for image in expected}
    assert made[0].ImageType[0] == "DERIVED"
    # Found again, beside its origin, it is left out; where it is named it is taken.
    (tmp_path / "again").mkdir()
    assert web.fetch(f"{service.address}?Modality=CT", tmp_path / "again") == 3
    series = f"/studies/{made[0].StudyInstanceUID}/series/{made[0].SeriesInstanceUID}"
    (tmp_path / "named").mkdir()
    assert web.fetch(service.address + series, tmp_path / "named") == 3
    named = pydicom.dcmread(tmp_path / "named" / "0001" / "00001.dcm")
    assert named.SeriesInstanceUID == made[0].SeriesInstanceUID
    # What an archive does not take is refused before any work is done.
    before = set(service.files)
    np.save(tmp_path / "array.npy", np.zeros((20, 20), "float32"))
    other = ["--model=pix2pix_ldct", "--engine=keras", f"--input={tmp_path / 'array.npy'}"]
    with monkeypatch.context() as patched:
        patched.setattr(type(ADDING), "translate", lambda *_: pytest.fail("translated"))
        assert command_line.main(["zoo", "predict", *other, f"--output={service.address}"]) == 1
    assert "output: DICOMweb takes DICOM. Received: array.npy" in capsys.readouterr().err
    assert set(service.files) == before
    # To a folder.
    assert command_line.main(["zoo", "predict", *words, f"--output={tmp_path / 'local'}"]) == 0
    assert len(list((tmp_path / "local").rglob("*.dcm"))) == 3


def test_what_goes_wrong_is_one_error_without_uids(service, tmp_path, monkeypatch):
    monkeypatch.setattr(web, "_WAIT", 2)
    path = tmp_path / "in" / "0.dcm"
    for code in (0xA700, 0x0110):
        service.refuse = code
        with pytest.raises(OSError, match="^output: expected .* Received: (1 refused|status 409)"):
            web.store([path], service.address)
    (tmp_path / "empty").mkdir()
    for place, why in (("?Modality=US", "Received: none"), ("/studies/1.2/series/1.3", "404")):
        with pytest.raises(OSError, match=f"^input: .*{why}"):
            web.fetch(service.address + place, tmp_path / "empty")
    with pytest.raises(OSError, match="expected DICOMweb at http://127.0.0.1:9/x. Received: C"):
        web.fetch("dicomweb://127.0.0.1:9/x?Modality=CT", tmp_path)
    with pytest.raises(ValueError, match="a study, a series or a search"):
        web.fetch(service.address, tmp_path)
    note = tmp_path / "image.png"
    note.write_bytes(b"\x89PNG")
    with pytest.raises(ValueError, match=r"takes DICOM. Received: image.png"):
        web.store([note], service.address)


@pytest.mark.parametrize(
    ("text", "root"),
    [
        ("dicomweb://pacs.example.org/dicom-web", "https://pacs.example.org/dicom-web"),
        ("dicomweb://pacs:8443/a/b/studies/1.2.3", "https://pacs:8443/a/b"),
        ("dicomweb+http://pacs:8042/x/studies/1.2/series/3.4", "http://pacs:8042/x"),
        ("dicomweb://localhost:8042?Modality=CT", "http://localhost:8042"),
        ("dicomweb://[::1]:8042/x/", "http://[::1]:8042/x"),
        ("dicomweb+https://127.0.0.1/x", "https://127.0.0.1/x"),
    ],
)
def test_addresses(text, root):
    assert web.is_address(text)
    address = web.Address.parse(text, "input")
    assert address.root == root
    assert (address.study != "") == ("studies" in text)
    assert (address.series == "3.4") == ("series" in text)
    assert address.filters == ({"Modality": "CT"} if "?" in text else {})


@pytest.mark.parametrize(
    "text",
    [
        "dicomweb://",
        "dicomweb:///x",
        "dicomweb://pacs:port/x",
        "dicomweb://pacs/x/studies/../1",
        "dicomweb://pacs/x/studies/1/instances/2",
        "dicomweb://me:secret@pacs/x",
    ],
)
def test_other_addresses_are_refused(text):
    with pytest.raises(ValueError, match="^input: expected dicomweb://HOST") as caught:
        web.Address.parse(text, "input")
    assert "secret" not in str(caught.value)
    assert not web.is_address(text.removeprefix("dicomweb://") or "a")
