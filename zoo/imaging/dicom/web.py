"""DICOMweb: series found by QIDO-RS, fetched by WADO-RS and stored by STOW-RS.

    dicomweb://HOST[:PORT]/ROOT/studies/STUDY/series/SERIES    one series
    dicomweb://HOST[:PORT]/ROOT/studies/STUDY                  a study
    dicomweb://HOST[:PORT]/ROOT?Modality=CT&StudyDate=…        what QIDO-RS finds
    dicomweb://HOST[:PORT]/ROOT                                where STOW-RS stores

The connection is HTTPS, but to this machine itself, and where an address begins with
`dicomweb+http://`. User and password are those of ~/.netrc, or a token is in ZOO_DICOMWEB_TOKEN.
"""

import contextlib
import dataclasses
import ipaddress
import os
import re
import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pydicom

from zoo.imaging.dicom import headers, provenance
from zoo.imaging.dicom.images import is_dicom

TOKEN = "ZOO_DICOMWEB_TOKEN"
_SCHEMES = ("dicomweb", "dicomweb+http", "dicomweb+https")
_BATCH = 32 * 2**20  # bytes of files that go into one request to store
_PATH = re.compile(r"(?P<root>.*?)(/studies/(?P<study>[\d.]+)(/series/(?P<series>[\d.]+))?)?/?")
_AS_STORED = (("application/dicom", "*"),)
_FIELDS = ("StudyInstanceUID", "SeriesInstanceUID")
_SECONDS = 120.0  # without an answer
_ATTEMPTS, _WAIT = 3, 500  # of a request, and milliseconds before the second, doubled each time


def is_address(text: str) -> bool:
    """Whether this is an address of DICOMweb and no path."""
    return text.partition("://")[0].lower() in _SCHEMES


@dataclasses.dataclass(frozen=True)
class Address:
    """A parsed address.

    Attributes:
        root: of the service, http or https.
        study, series: their UIDs, "" where the address names none.
        filters: of QIDO-RS.
    """

    root: str
    study: str = ""
    series: str = ""
    filters: dict[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def parse(cls, text: str, flag: str) -> "Address":
        """Of a text for which `is_address` holds.

        Raises:
            ValueError: for another form, naming the flag.
        """
        wanted = f"{flag}: expected dicomweb://HOST[:PORT]/ROOT[/studies/UID[/series/UID]]"
        try:
            parts = urllib.parse.urlsplit(text)
            host, port = parts.hostname or "", parts.port
        except ValueError as error:
            raise ValueError(f"{wanted}. Received: {text}") from error
        match = _PATH.fullmatch(parts.path)
        if not host or match is None or "/studies" in match["root"] or parts.fragment:
            raise ValueError(f"{wanted}. Received: {text}")
        if parts.username is not None:  # it would be seen in the list of processes
            raise ValueError(f"{wanted}, and the password in ~/.netrc. Received: a user name")
        plain = parts.scheme.lower() == "dicomweb+http" or (
            parts.scheme.lower() == "dicomweb" and _is_here(host)
        )
        place = f"[{host}]" if ":" in host else host
        place += f":{port}" if port else ""
        root = f"{'http' if plain else 'https'}://{place}{match['root']}"
        filters = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))
        return cls(root, match["study"] or "", match["series"] or "", filters)


def fetch(text: str, folder: Path) -> int:
    """Fetch the series of an address, each into a folder of its own, named by numbers.

    What this package made, and an archive keeps beside its origin, is left out, unless its series
    is named.

    Args:
        text: the address.
        folder: an empty one.

    Returns:
        The number of files.

    Raises:
        ValueError: for an address that names neither study nor search.
        OSError: where the service is not there, refuses, or finds none.
    """
    address = Address.parse(text, "input")
    if not address.study and not address.filters:
        raise ValueError(f"input: expected a study, a series or a search. Received: {text}")
    count = 0
    with _errors("input", address.root), headers.quiet():
        client = _client(address)
        for number, (study, series) in enumerate(_found(client, address), 1):
            place = folder / f"{number:04d}"
            place.mkdir()
            images = client.iter_series(study, series, media_types=_AS_STORED)
            for index, image in enumerate(images, 1):
                if not address.series and provenance.made_here(image):
                    break
                image.save_as(place / f"{index:05d}.dcm", enforce_file_format=True)
                count += 1
    if not count:
        raise OSError(f"input: expected images at {address.root}. Received: none")
    return count


def store(files: Sequence[Path], text: str) -> None:
    """Store DICOM files at an address.

    Raises:
        ValueError: for files of another kind.
        OSError: where the service is not there, or refuses one of them.
    """
    address = Address.parse(text, "output")
    for path in files:
        if not is_dicom(path):
            raise ValueError(f"output: {text} takes DICOM. Received: {path.name}")
    with _errors("output", address.root), headers.quiet():
        client = _client(address)
        for batch in _batches(files):
            images = [pydicom.dcmread(path) for path in batch]
            answer = client.store_instances(images, address.study or None)
            failed = headers.items(answer, "FailedSOPSequence")
            if failed:
                code = failed[0].get("FailureReason", 0)
                raise OSError(
                    f"output: expected {address.root} to store {len(batch)} objects. "
                    f"Received: {len(failed)} refused, the first with reason {code:#06x}"
                )


def _found(client: Any, address: Address) -> Iterator[tuple[str, str]]:
    """Study and series UIDs of what an address names."""
    if address.series:
        yield address.study, address.series
        return
    rows = client.search_for_series(
        address.study or None, search_filters=address.filters or None, get_remaining=True
    )
    for row in rows:
        found = pydicom.Dataset.from_json(row)
        study, series = (headers.text(found, name) for name in _FIELDS)
        yield address.study or study, series


def _batches(files: Sequence[Path]) -> Iterator[list[Path]]:
    """The files in their order, some megabytes at once."""
    batch: list[Path] = []
    size = 0
    for path in files:
        more = path.stat().st_size
        if batch and size + more > _BATCH:
            yield batch
            batch, size = [], 0
        batch.append(path)
        size += more
    if batch:
        yield batch


def _client(address: Address) -> Any:
    try:
        import dicomweb_client
    except ImportError as error:
        raise OSError(
            "dicomweb:// needs the extra `pacs`: pip install 'zoo-medical[pacs]'. "
            "Received: no dicomweb_client"
        ) from error
    token = os.environ.get(TOKEN)
    told = {"Authorization": f"Bearer {token}"} if token else None
    # A request to store goes as a whole: of one in chunks a second attempt would be empty.
    client = dicomweb_client.DICOMwebClient(
        address.root, headers=told, chunk_size=2 * _BATCH, timeout=_SECONDS
    )
    client.set_http_retry_params(max_attempts=_ATTEMPTS, wait_exponential_multiplier=_WAIT // 2)
    return client


@contextlib.contextmanager
def _errors(flag: str, root: str) -> Iterator[None]:
    """What the client raises, as an OSError that quotes no UID."""
    try:
        yield
    except Exception as error:  # the client has kinds of its own
        if isinstance(error, OSError) and str(error).startswith((flag, "dicomweb")):
            raise
        response = getattr(error, "response", None)
        status = getattr(response, "status_code", None)
        received = f"status {status}" if status else type(error).__name__
        raise OSError(f"{flag}: expected DICOMweb at {root}. Received: {received}") from error


def _is_here(host: str) -> bool:
    """Whether a host is this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
