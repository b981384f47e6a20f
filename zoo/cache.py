"""Files that are downloaded once: fetched, checked against their hash, kept. No TensorFlow here."""

import hashlib
import os
import re
from pathlib import Path
from urllib.parse import urlsplit

_DIGITS = {"sha256": 64, "md5": 32}


def place(url: str, digest: str) -> Path:
    """Where the cache keeps a file, whether it is there or not.

    Args:
        url: whose end the file is named after.
        digest: of the file, in hexadecimal.
    """
    import pooch  # here, because it takes a while

    folder = Path(os.environ.get("ZOO_CACHE") or pooch.os_cache("zoo-medical"))
    # No character that could lead out of the folder; the end is kept, and with it the suffix.
    end = re.sub("[^A-Za-z0-9._-]", "_", urlsplit(url).path.rsplit("/", 1)[-1])[-100:]
    return folder.expanduser().absolute() / f"{digest[:16]}-{end}"


def fetch(url: str, sha256: str = "", *, md5: str = "") -> Path:
    """A file in the cache, downloaded where it is not there yet or is not what its hash says.

    The cache is the folder `$ZOO_CACHE`, else the user's own (~/.cache/zoo-medical on Linux). A
    file that is there is read only: the folder may be read-only and shared, and no network is
    needed. A download gets its name when it is whole and its hash is right, and not before.

    Args:
        url: https, or http on this machine.
        sha256: of the file, 64 hexadecimal digits.
        md5: in place of it, 32 digits, where the publisher states nothing better.

    Returns:
        The file, named after the digits of its hash and the end of the URL.

    Raises:
        ValueError: for a URL of another kind or without a hash, or a download with another hash.
        ConnectionError: where it cannot be downloaded; says where a copy can be put.
        OSError: where the cache neither holds it nor can be written.
    """
    kind, digest = ("md5", md5) if md5 else ("sha256", sha256 or "")
    if not re.fullmatch(f"[0-9a-f]{{{_DIGITS[kind]}}}", digest):
        raise ValueError(
            f"{url}: expected its {kind} in {_DIGITS[kind]} hexadecimal digits. "
            f"Received: {digest!r}"
        )
    parts = urlsplit(url)
    here = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and here)):
        raise ValueError(f"weights: expected a URL that starts with https://. Received: {url}")

    import pooch  # here, because it takes a while
    import tqdm

    kept = place(url, digest)
    folder, name = kept.parent, kept.name
    # Of interest where a copy was put there by hand; a good one meets no error.
    bad = " (what is there has another hash)" if os.path.exists(folder / name) else ""

    def download(url: str, temporary: str, _: object) -> None:
        # Pooch made it readable for its owner alone, and others may share the cache.
        os.remove(temporary)
        # Seen on a terminal only; gone again before the next line is written. Pooch sets the total.
        bar = tqdm.tqdm(total=1, unit="B", unit_scale=True, desc=name, leave=False, disable=None)
        try:
            with bar:
                pooch.HTTPDownloader(progressbar=bar, chunk_size=2**18)(url, temporary, None)
        except OSError as error:  # as those of requests are
            raise ConnectionError(
                f"{url}: could not be downloaded. Where there is no network, put a copy at "
                f"{folder / name}{bad}, or set ZOO_CACHE to a folder that holds {name}. "
                f"Received: {' '.join(str(error).split())}"
            ) from error
        received = pooch.file_hash(temporary, alg=kind)
        if received != digest:  # so would Pooch, but at greater length
            raise ValueError(f"{url}: expected {kind} {digest}. Received: {received}")

    pooch.get_logger().setLevel("WARNING")  # what can go wrong is said here
    try:
        return Path(pooch.retrieve(url, f"{kind}:{digest}", name, folder, downloader=download))
    except ConnectionError:
        raise
    except OSError as error:
        raise OSError(
            f"{folder}: expected a folder that holds {name}{bad} or can be written. Set ZOO_CACHE "
            f"to one, or put a copy of {url} there under that name. Received: {error}"
        ) from error


def weights_file(weights: Path | str, sha256: str) -> Path:
    """The file of a path or, through the cache, of a URL, whose hash is the one expected.

    Args:
        weights: a `.weights.h5` file, or the https URL of one.
        sha256: of the file; "" where nothing is known, which a URL may not be.

    Raises:
        FileNotFoundError: where the file is not there.
        OSError: where a URL cannot be had (`cache.fetch`).
        ValueError: where its sha256 is not `sha256`.
    """
    if "://" in str(weights):
        return fetch(str(weights), sha256)
    path = Path(weights)
    if not path.is_file():
        raise FileNotFoundError(f"weights: expected a file. Received: {path}")
    if sha256 and (received := file_sha256(path)) != sha256:
        raise ValueError(f"{path}: expected sha256 {sha256}. Received: {received}")
    return path


def file_sha256(path: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
