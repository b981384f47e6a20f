"""A small DICOMweb service on loopback: QIDO-RS of series, WADO-RS of series, STOW-RS."""

import contextlib
import email
import email.policy
import io
import socket
import threading
import time

import pydicom
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


class Service:
    """What it holds, by SOPInstanceUID.

    Attributes:
        files: the stored files' bytes.
        refuse: the FailureReason that all objects are refused with; 0 stores them.
        searched: the queries of each search.
        tokens: the Authorization of each request.
    """

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.refuse = 0
        self.searched: list[dict[str, str]] = []
        self.tokens: list[str] = []
        series = "/dicom-web/studies/{study}/series/{series}"
        self.app = Starlette(
            routes=[
                Route("/dicom-web/series", self.search),
                Route("/dicom-web/studies/{study}/series", self.search),
                Route(series, self.retrieve),
                Route("/dicom-web/studies", self.store, methods=["POST"]),
            ]
        )

    def put(self, content: bytes) -> pydicom.Dataset:
        header = pydicom.dcmread(io.BytesIO(content))
        self.files[header.SOPInstanceUID] = content
        return header

    async def search(self, request):
        self.searched.append(dict(request.query_params))
        if int(request.query_params.get("offset", "0")):
            return Response(status_code=204)
        wanted, found = request.query_params.get("Modality"), {}
        for content in self.files.values():
            header = pydicom.dcmread(io.BytesIO(content))
            if wanted in (None, header.Modality):
                row = pydicom.Dataset()
                row.StudyInstanceUID = header.StudyInstanceUID
                row.SeriesInstanceUID = header.SeriesInstanceUID
                found[header.SeriesInstanceUID] = row.to_json_dict()
        return JSONResponse(list(found.values()), media_type="application/dicom+json")

    async def retrieve(self, request):
        self.tokens.append(request.headers.get("authorization", ""))
        body = b""
        for content in self.files.values():
            header = pydicom.dcmread(io.BytesIO(content))
            if header.SeriesInstanceUID == request.path_params["series"]:
                body += b"--part\r\nContent-Type: application/dicom\r\n\r\n" + content + b"\r\n"
        if not body:
            return Response(status_code=404)
        kind = 'multipart/related; type="application/dicom"; boundary=part'
        return Response(body + b"--part--\r\n", headers={"Content-Type": kind})

    async def store(self, request):
        start = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
        parts = email.message_from_bytes(
            start + await request.body(), policy=email.policy.HTTP
        ).get_payload()
        answer = pydicom.Dataset()
        answer.FailedSOPSequence, answer.ReferencedSOPSequence = [], []
        for part in parts:
            content = part.get_payload(decode=True)
            item = pydicom.Dataset()
            if self.refuse:
                item.FailureReason = self.refuse
                answer.FailedSOPSequence.append(item)
            else:
                item.ReferencedSOPInstanceUID = self.put(content).SOPInstanceUID
                answer.ReferencedSOPSequence.append(item)
        code = 409 if self.refuse == 0x0110 else 202 if self.refuse else 200
        return JSONResponse(answer.to_json_dict(), code, media_type="application/dicom+json")


@contextlib.contextmanager
def started(service):
    """The address of a running service."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(service.app, log_level="error"))
        thread = threading.Thread(target=server.run, args=[[listening]], daemon=True)
        thread.start()
        end = time.monotonic() + 20
        while not server.started:
            assert time.monotonic() < end
            time.sleep(0.01)
        yield f"dicomweb://127.0.0.1:{listening.getsockname()[1]}/dicom-web"
        server.should_exit = True
        thread.join(20)
