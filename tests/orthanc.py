"""Debian's Orthanc, an archive with DICOMweb, on loopback for the length of a test."""

import contextlib
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

PROGRAM = shutil.which("Orthanc") or shutil.which("/usr/sbin/Orthanc")
_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
MISSING = not PROGRAM or not _PLUGIN.exists()
REASON = "apt-get install orthanc orthanc-dicomweb"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Orthanc:
    """A running one.

    Attributes:
        dicom: the port of C-STORE.
        http: a client of its own REST interface.
        web: the address of DICOMweb.
    """

    def __init__(self, dicom: int, port: int):
        self.dicom = dicom
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120)
        self.web = f"http://127.0.0.1:{port}/dicom-web"

    def add(self, path: Path) -> str:
        """Put a file into it; returns its number for the instance's series."""
        response = self.http.post("/instances", content=path.read_bytes())
        response.raise_for_status()
        return response.json()["ParentSeries"]

    def series(self) -> list[str]:
        return self.http.get("/series").json()

    def files(self, series: str, folder: Path) -> list[Path]:
        """All files of a series, downloaded."""
        folder.mkdir(parents=True)
        found = []
        for number in self.http.get(f"/series/{series}").json()["Instances"]:
            path = folder / f"{number}.dcm"
            path.write_bytes(self.http.get(f"/instances/{number}/file").content)
            found.append(path)
        return found


@contextlib.contextmanager
def started(folder: Path, node: int = 104) -> Iterator[Orthanc]:
    """Orthanc with an empty archive in a folder, which knows "zoo" at a port of this machine."""
    dicom, port = free_port(), free_port()
    settings = {
        "Name": "Orthanc",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [str(_PLUGIN)],
        "HttpPort": port,
        "DicomPort": dicom,
        "DicomAet": "ORTHANC",
        "DicomCheckCalledAet": False,
        "DicomAlwaysAllowStore": True,
        "DicomScuTimeout": 60,  # a busy disk may take longer than the usual 10 s to keep an image
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomModalities": {"zoo": ["ZOO", "127.0.0.1", node]},
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "storage").mkdir(parents=True)
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with open(folder / "orthanc.log", "w") as log:
        process = subprocess.Popen(
            [PROGRAM, str(folder / "orthanc.json")], stdout=log, stderr=subprocess.STDOUT
        )
    try:
        orthanc = Orthanc(dicom, port)
        end = time.monotonic() + 60
        while True:
            with contextlib.suppress(httpx.TransportError):
                if orthanc.http.get("/system").status_code == 200:
                    break
            assert time.monotonic() < end and process.poll() is None, "Orthanc does not start"
            time.sleep(0.1)
        yield orthanc
    finally:
        process.terminate()
        process.wait(30)
