"""C-STORE both ways, and C-ECHO, by pynetdicom."""

import errno
import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pydicom
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.presentation import build_context

from zoo.imaging.dicom import headers, provenance
from zoo.serving.node.rules import Destination, Rules
from zoo.serving.node.spool import Full, Spool

ASSOCIATIONS = 10  # at once
_TIMEOUT = 30.0  # seconds
# Statuses of C-STORE (PS3.4 B.2.3, PS3.7 C).
_STORED, _NO_ROOM, _FAILED, _NOT_UNDERSTOOD = 0x0000, 0xA700, 0x0110, 0xC000
_VERIFICATION = "1.2.840.10008.1.1"  # the SOP class of C-ECHO
_TAGS = headers.tags(
    [
        *("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID"),
        *("IssuerOfPatientID", "Modality", "SeriesDescription", "ContributingEquipmentSequence"),
    ]
)


def listen(rules: Rules, spool: Spool, host: str, port: int, tell: Callable[[str], Any]) -> Any:
    """A C-STORE and C-ECHO server that runs in threads of its own until `shutdown()`.

    Args:
        rules: what is kept, and of whom.
        spool: where.
        host, port: its address; port 0 is any free one (`server_address`).
        tell: is given a line for each refusal.

    Raises:
        OSError: where the port is taken.
    """
    entity = AE(rules.ae_title)
    entity.maximum_associations = ASSOCIATIONS
    entity.network_timeout = entity.dimse_timeout = entity.acse_timeout = _TIMEOUT
    entity.require_calling_aet = list(rules.accept_from)
    entity.add_supported_context(_VERIFICATION)
    # As it is sent, compressed or not: what cannot be decoded is found when the series is read.
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(str(context.abstract_syntax), _SYNTAXES)

    def store(event: Any) -> int:
        try:
            keep(rules, spool, event.encoded_dataset())
        except Full as error:
            tell(f"refused an image: {error}")
            return _NO_ROOM
        except OSError as error:
            tell(f"refused an image: {error.strerror or 'it cannot be written'}")
            return _NO_ROOM if error.errno in (errno.ENOSPC, errno.EDQUOT) else _FAILED
        except Exception:  # damaged headers raise errors of many types, which may quote them
            tell("refused an image: its header cannot be read")
            return _NOT_UNDERSTOOD
        return _STORED

    try:
        return entity.start_server(
            (host, port), block=False, evt_handlers=[(evt.EVT_C_STORE, store)]
        )
    except OSError as error:
        raise OSError(f"dicom_port: expected a free one. Received: {host}:{port}") from error


# What this package decodes, compressed or not.
_SYNTAXES = [
    pydicom.uid.ExplicitVRLittleEndian,
    pydicom.uid.ImplicitVRLittleEndian,
    pydicom.uid.ExplicitVRBigEndian,
    pydicom.uid.DeflatedExplicitVRLittleEndian,
    pydicom.uid.RLELossless,
    pydicom.uid.JPEGBaseline8Bit,
    pydicom.uid.JPEGExtended12Bit,
    pydicom.uid.JPEGLossless,
    pydicom.uid.JPEGLosslessSV1,
    pydicom.uid.JPEGLSLossless,
    pydicom.uid.JPEGLSNearLossless,
    pydicom.uid.JPEG2000Lossless,
    pydicom.uid.JPEG2000,
]


def keep(rules: Rules, spool: Spool, content: bytes) -> bool:
    """Keep an image that a rule fits.

    What no rule fits is left out, since archives send whole studies; and so is what this package
    made, which an archive that sends on what it gets would send back without end.

    Args:
        rules: of the node.
        spool: where it is kept.
        content: a DICOM file.

    Returns:
        Whether it was kept.

    Raises:
        Full, OSError: where there is no room.
        Exception: of many types, for a damaged header.
    """
    header = headers.parse(io.BytesIO(content), _TAGS)
    modality = headers.text(header, "Modality")
    rule = rules.find(modality, headers.text(header, "SeriesDescription"))
    if rule is None or provenance.made_here(header):
        return False
    patient = headers.text(header, "PatientID"), headers.text(header, "IssuerOfPatientID")
    series = "\0".join([*patient, str(header.StudyInstanceUID), str(header.SeriesInstanceUID)])
    image = f"{series}\0{header.SOPInstanceUID}"
    return spool.keep(series, image, rule.model, rule.send_to, content)


def send(
    files: Iterable[Path], destination: Destination, ae_title: str, sent: Callable[[Path], Any]
) -> None:
    """Send DICOM files in one association.

    Args:
        files: what to send.
        destination: where to.
        ae_title: of the sender.
        sent: is called with each file when it has been taken.

    Raises:
        OSError: where the destination is not there, ends the association or refuses a file.
    """
    files = list(files)
    entity = AE(ae_title)
    entity.connection_timeout = entity.acse_timeout = entity.dimse_timeout = _TIMEOUT
    entity.network_timeout = _TIMEOUT
    contexts = [build_context(*kind) for kind in sorted(set(_kinds(files)))]
    association = entity.associate(
        destination.host, destination.port, contexts, ae_title=destination.ae_title
    )
    if not association.is_established:
        raise OSError("the destination takes no association")
    try:
        for path in files:
            _send_one(association, path)
            sent(path)
    finally:
        if association.is_established:
            association.release()


def _kinds(files: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """SOP class and transfer syntax of each file."""
    for path in files:
        meta = pydicom.filereader.read_file_meta_info(path)
        yield meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID


def _send_one(association: Any, path: Path) -> None:
    try:
        status = association.send_c_store(path).get("Status")
    except (
        RuntimeError,
        ValueError,
    ) as error:  # no context was accepted, or no association is left
        raise OSError("the destination takes no such object") from error
    if status is None:
        raise OSError("the destination has ended the association")
    if status != _STORED and status >> 12 != 0xB:  # a warning: it was stored
        raise OSError(f"the destination refused an object with status {status:#06x}")
