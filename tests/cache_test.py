"""Downloads, from a server on this machine."""

import contextlib
import hashlib
import http.server
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import zoo
from zoo import cache, command_line, registry
from zoo.commands import learning

ROOT = Path(__file__).resolve().parent.parent
BODY = np.random.default_rng(0).bytes(3_000_000)
SHA256 = hashlib.sha256(BODY).hexdigest()
NAME = f"{SHA256[:16]}-net.weights.h5"
TINY = {"base_filters": 4, "levels": 3}


class Server(http.server.ThreadingHTTPServer):
    """Serves `body` under every path; the first folder of the path says how.

    `cut` stops half-way, `stuck` waits there until `go`, `together` until two have asked.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.body = BODY
        self.asked: list[str] = []
        self.half_sent, self.go = threading.Event(), threading.Event()
        self.two = threading.Barrier(2, timeout=60)
        self.thread = threading.Thread(target=self.serve_forever, args=(0.05,))
        self.thread.start()

    def url(self, path: str = "good/net.weights.h5") -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"

    def stop(self) -> None:
        self.go.set()
        self.shutdown()
        self.thread.join()
        self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, how = self.server, self.path.split("/")[1]
        server.asked.append(self.path)
        if how == "gone":
            return self.send_error(404)
        if how == "together":
            server.two.wait()
        self.send_response(200)
        self.send_header("Content-Length", str(len(server.body)))
        self.end_headers()
        half = len(server.body) // 2
        with contextlib.suppress(OSError):  # the client may be gone
            self.wfile.write(server.body[:half])
            if how == "stuck":
                server.half_sent.set()
                server.go.wait(60)
            if how != "cut":
                self.wfile.write(server.body[half:])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    running = Server()
    yield running
    running.stop()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def held(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def python(code: str, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


FETCH = "import sys; from zoo import cache; print(cache.fetch(*sys.argv[1:]))"


def test_a_file_is_downloaded_once_and_without_a_word(server, folder, capfd):
    path = cache.fetch(server.url(), SHA256)
    assert path == folder / NAME
    assert path.read_bytes() == BODY
    assert cache.fetch(server.url(), SHA256) == path
    assert server.asked == ["/good/net.weights.h5"]
    server.stop()
    assert cache.fetch(server.url(), SHA256) == path
    assert held(folder) == [NAME]
    assert capfd.readouterr() == ("", "")


def test_a_hash_of_another_kind_where_there_is_no_better(server, folder):
    md5 = hashlib.md5(BODY).hexdigest()
    assert cache.fetch(server.url(), md5=md5).name == f"{md5[:16]}-net.weights.h5"
    with pytest.raises(ValueError, match=f"expected md5 {'0' * 32}. Received: {md5}"):
        cache.fetch(server.url("good/other"), md5="0" * 32)


def test_the_cache_is_where_it_should_be(server, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ZOO_CACHE", "~/weights")
    assert cache.fetch(server.url(), SHA256).parent == tmp_path / "home" / "weights"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    for unset in (lambda: monkeypatch.setenv("ZOO_CACHE", ""), lambda: os.environ.pop("ZOO_CACHE")):
        unset()
        assert cache.fetch(server.url(), SHA256).parent == tmp_path / "xdg" / "zoo-medical"
    assert len(server.asked) == 2


def test_others_may_read_what_one_downloaded(server):
    before = os.umask(0o027)
    try:
        mode = cache.fetch(server.url(), SHA256).stat().st_mode
    finally:
        os.umask(before)
    assert mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("path", "sha256", "error", "message"),
    [
        ("good/net.weights.h5", "0" * 64, ValueError, f"sha256 {'0' * 64}. Received: {SHA256}"),
        ("cut/net.weights.h5", SHA256, ConnectionError, "Received: .*(IncompleteRead|broken)"),
        ("gone/net.weights.h5", SHA256, ConnectionError, "Received: 404 Client Error"),
    ],
)
def test_a_download_that_fails_leaves_nothing(server, folder, path, sha256, error, message):
    with pytest.raises(error, match=message) as raised:
        cache.fetch(server.url(path), sha256)
    assert str(raised.value).startswith(server.url(path))
    assert "\n" not in str(raised.value)
    assert server.asked
    assert held(folder) == []


def test_without_a_network_it_says_where_a_copy_can_be_put(server, folder):
    server.stop()
    with pytest.raises(ConnectionError, match="could not be downloaded.*refused") as raised:
        cache.fetch(server.url(), SHA256)
    assert f"put a copy at {folder / NAME}, or set ZOO_CACHE" in str(raised.value)
    assert held(folder) == []
    (folder / NAME).write_bytes(BODY[:-1])
    with pytest.raises(ConnectionError, match=r"net.weights.h5 \(what is there has another hash\)"):
        cache.fetch(server.url(), SHA256)
    (folder / NAME).write_bytes(BODY)
    assert cache.fetch(server.url(), SHA256) == folder / NAME


@pytest.mark.parametrize("there", [b"", BODY[:1000], BODY + b"x"])
def test_a_damaged_file_is_downloaded_again(server, folder, there):
    folder.mkdir()
    (folder / NAME).write_bytes(there)
    with pytest.raises(ConnectionError):
        cache.fetch(server.url("cut/net.weights.h5"), SHA256)
    assert (folder / NAME).read_bytes() == there
    assert cache.fetch(server.url(), SHA256).read_bytes() == BODY
    assert held(folder) == [NAME]


def test_a_process_killed_half_way_leaves_no_file_of_that_name(server, folder):
    process = python(FETCH, server.url("stuck/net.weights.h5"), SHA256)
    assert server.half_sent.wait(60)
    process.kill()
    process.communicate()
    assert NAME not in held(folder)
    server.go.set()
    assert cache.fetch(server.url(), SHA256).read_bytes() == BODY


def test_two_processes_at_once(server, folder):
    url = server.url("together/net.weights.h5")
    processes = [python(FETCH, url, SHA256) for _ in range(2)]
    for process in processes:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        assert Path(output.strip()).read_bytes() == BODY
    assert len(server.asked) == 2
    assert held(folder) == [NAME]


def test_a_read_only_cache_that_holds_the_file(server, folder):
    folder.mkdir()
    (folder / NAME).write_bytes(BODY)
    (folder / NAME).chmod(0o444)
    folder.chmod(0o555)
    os.utime(folder, ns=(0, 0))
    try:
        assert cache.fetch(server.url(), SHA256) == folder / NAME
        # Whoever may write all the same, as root may, has not: not even a file that is gone again.
        assert folder.stat().st_mtime_ns == 0
    finally:
        folder.chmod(0o755)
    assert not server.asked


def test_a_read_only_cache_without_the_file(server, folder, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    message = f"expected a folder that holds {NAME} or can be written. Set ZOO_CACHE to one, .*"
    folder.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr("tempfile.NamedTemporaryFile", refuse)
        with pytest.raises(OSError, match=f"^{folder}: {message}Read-only file system"):
            cache.fetch(server.url(), SHA256)
    (tmp_path / "file").touch()
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(OSError, match=f"^{tmp_path}/file/cache: {message}Not a directory"):
        cache.fetch(server.url(), SHA256)
    assert not server.asked


@pytest.mark.parametrize(
    "end",
    ["", "..", "../../out", "..%2f..%2fout", "..\\..\\out", "%00", "a b\u00e9?name=../../out#/x"],
)
def test_no_url_leads_out_of_the_cache(server, folder, tmp_path, end):
    path = cache.fetch(server.url(f"good/{end}"), SHA256)
    assert path.resolve().parent == folder
    assert path.name.startswith(f"{SHA256[:16]}-")
    assert path.name.isascii()
    assert held(tmp_path) == ["cache"]
    assert held(folder) == [path.name]


def test_a_long_name_keeps_its_end(server):
    path = cache.fetch(server.url(f"good/{'x' * 300}.weights.h5?download=1"), SHA256)
    assert len(path.name) < 200
    assert path.name.endswith("x.weights.h5")


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/net.weights.h5",
        "http://127.0.0.1.example.org/net.weights.h5",
        "http://localhost@example.org/net.weights.h5",
        "ftp://localhost/net.weights.h5",
        "file:///net.weights.h5",
        "https:///net.weights.h5",
    ],
)
def test_what_is_not_https_is_refused(url, tmp_path):
    with pytest.raises(ValueError, match="expected a URL that starts with https://. Received: "):
        cache.fetch(url, SHA256)
    assert held(tmp_path) == []


@pytest.mark.parametrize("sha256", ["", None, SHA256[:-1], SHA256.upper(), f"md5:{SHA256[:32]}"])
def test_a_url_needs_a_sha256(server, tmp_path, sha256):
    with pytest.raises(ValueError, match=f"{server.url()}: expected its sha256 in 64 hexadec"):
        cache.fetch(server.url(), sha256)
    assert not server.asked
    assert held(tmp_path) == []


@pytest.fixture
def entry(server, tmp_path, monkeypatch) -> dict:
    """A pretrained entry whose weights are a URL, and the network they are of."""
    model = zoo.load("encoder_decoder", **TINY, seed=7)
    digest = model.save_network(tmp_path / "net.weights.h5")
    server.body = (tmp_path / "net.weights.h5").read_bytes()
    domain = {"modality": "CT", "unit": "HU", "window": [-1000, 1000], "channels": 1}
    fields = {
        "name": "net_ldct",
        "owner": "test",
        "folder": tmp_path,
        "model": "encoder_decoder",
        "dataset": "ldct/phantom",
        "overrides": TINY,
        "source": domain,
        "target": domain,
        "weights": server.url(),
        "sha256": digest,
    }
    monkeypatch.setitem(registry.index()["pretrained"], "net_ldct", fields)
    return fields


def test_a_pretrained_name_with_a_url_is_the_same_model(entry, server, folder):
    image = np.random.default_rng(1).uniform(-900, 900, (40, 32)).astype("float32")
    downloaded = zoo.load("net_ldct").translate(image)
    server.stop()
    np.testing.assert_array_equal(zoo.load("net_ldct").translate(image), downloaded)
    assert len(server.asked) == len(held(folder)) == 1
    entry["weights"] = "net.weights.h5"
    np.testing.assert_array_equal(zoo.load("net_ldct").translate(image), downloaded)


def test_a_pretrained_name_with_another_hash_is_refused(entry, folder):
    entry["sha256"] = "0" * 64
    with pytest.raises(ValueError, match="expected sha256 0000"):
        zoo.load("net_ldct")
    assert held(folder) == []
    entry["sha256"] = ""
    with pytest.raises(ValueError, match="expected its sha256"):
        zoo.load("net_ldct")


def test_a_run_may_begin_from_weights_behind_a_url(entry, folder):
    command_line.FLAGS(["zoo", "--init=net_ldct"])
    path = learning.initial_weights()
    assert path.parent == folder
    assert hashlib.sha256(path.read_bytes()).hexdigest() == entry["sha256"]


def test_a_run_does_not_begin_from_a_file_with_another_hash(entry):
    command_line.FLAGS(["zoo", "--init=net_ldct"])
    entry |= {"weights": "net.weights.h5", "sha256": "0" * 64}
    with pytest.raises(ValueError, match="net.weights.h5: expected sha256 0000"):
        learning.initial_weights()


PLUGIN = """
pretrained:
  far_away:
    model: encoder_decoder
    dataset: ldct/phantom
    overrides: {base_filters: 4, levels: 3}
    source: {modality: CT, unit: HU, window: [-1000, 1000], channels: 1}
    target: {modality: CT, unit: HU, window: [-1000, 1000], channels: 1}
    weights: http://127.0.0.1:9/far_away.weights.h5
    sha256: "%s"
    licence: none
    metrics: {}
    summary: weights that nobody serves
"""


def test_the_command_line_says_in_one_line_that_it_cannot_download(folder, tmp_path):
    """In a process of its own, with a package that joins as an installed one does."""
    site = tmp_path / "site"
    for place, text in {
        "far/__init__.py": "",
        "far/registry.yaml": PLUGIN % SHA256,
        "far-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: far\nVersion: 1\n",
        "far-1.dist-info/entry_points.txt": "[zoo.plugins]\nfar = far\n",
    }.items():
        (site / place).parent.mkdir(parents=True, exist_ok=True)
        (site / place).write_text(text)
    command = [sys.executable, str(ROOT / "cli.py"), "predict", "--model=far_away"]
    # As a user has it: the tests' own setting would show TensorFlow's notes.
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [*command, f"--input={tmp_path}", f"--output={tmp_path / 'out'}"],
        env=environment | {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: http://127.0.0.1:9/far_away.weights.h5: could not be downloaded")
    assert str(folder / f"{SHA256[:16]}-far_away.weights.h5") in line
    assert not (tmp_path / "out").exists()
