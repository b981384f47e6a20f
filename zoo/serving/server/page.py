"""The page, what it is made of, and the path that it sends files to."""

import shutil
import tempfile
from pathlib import Path

from starlette.background import BackgroundTask
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import Message

from zoo import registry
from zoo.errors import reason
from zoo.figures import CT_WINDOWS
from zoo.serving.server import viewing
from zoo.serving.server.batches import Batches, Busy
from zoo.serving.server.refusals import TooLarge, refused
from zoo.serving.server.served import Served
from zoo.trust.half_width import HalfWidth
from zoo.trust.watch import Watch

FILES = 5000  # of an upload
# Of CT, from and to in HU; a brain's grey and white matter besides, which figures do not look for.
_WINDOWS = CT_WINDOWS | {"brain": (0.0, 80.0)}
_STATIC = Path(__file__).parent / "static"
# All comes from this server, and nothing that it shows may call another.
_POLICY = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; "
    "style-src 'self' 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class Page:
    """The viewer of one model.

    Args:
        served: the model.
        batches: whose thread translates.
        body: bytes that an upload may have.
    """

    def __init__(self, served: Served, batches: Batches, body: int):
        self.served, self.batches, self.body = served, batches, body
        self.routes = [
            Route("/", self.index),
            Route("/static/{name}", self.static),
            Route("/about", self.about),
            Route("/translate", self.translate, methods=["POST"]),
        ]

    async def index(self, request: Request) -> Response:
        return FileResponse(_STATIC / "index.html", headers=_POLICY)

    async def static(self, request: Request) -> Response:
        names = {path.name: path for path in _STATIC.iterdir()}
        path = names.get(request.path_params["name"])
        if path is None:
            raise HTTPException(404)
        return FileResponse(path, headers=_POLICY)

    async def about(self, request: Request) -> Response:
        entry = registry.index()["pretrained"].get(self.served.name, {})
        widths = self.served.widths
        told = {
            "name": self.served.name,
            "summary": entry.get("summary", ""),
            "windows": _WINDOWS,
            "uncertainty": widths.calibration.words if widths else "",
            "report": self.served.watch() is not None,
        }
        return JSONResponse(told)

    async def translate(self, request: Request) -> Response:
        """The files of a form, translated; the body is that of `zoo.serving.server.viewing`.

        With `?uncertainty=yes` it has half-widths, where the model has them, and with `report=yes`
        the safety report.
        """
        scratch = Path(tempfile.mkdtemp(prefix="zoo-"))
        asked = request.query_params
        widths = self.served.widths if asked.get("uncertainty") == "yes" else None
        watch = self.served.watch() if asked.get("report") == "yes" else None
        try:
            if int(request.headers.get("content-length", "0")) > self.body:
                raise TooLarge(f"expected files up to {self.body} bytes")
            folder = scratch / "given"
            await self._keep(request, folder)
            answer = await self.batches.run(self._answer, folder, scratch, widths, watch)
        except (ValueError, OSError, Busy, MultiPartException) as error:
            shutil.rmtree(scratch, ignore_errors=True)
            return refused(error)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        done = BackgroundTask(shutil.rmtree, scratch, ignore_errors=True)
        return FileResponse(answer, media_type="application/octet-stream", background=done)

    def _answer(
        self, folder: Path, scratch: Path, widths: HalfWidth | None, watch: Watch | None
    ) -> Path:
        try:
            return viewing.translated(self.served.model, folder, scratch, widths, watch)
        except ValueError as error:
            # Names of folders here mean nothing to who asks.
            raise ValueError(reason(error).replace(str(folder), "the files")) from error

    async def _keep(self, request: Request, folder: Path) -> None:
        """Write an upload's files into a folder.

        Raises:
            ValueError: for a form without files, and more bytes than are allowed.
        """
        size, number = 0, 0

        async def receive() -> Message:
            # What comes in chunks has told no length before.
            nonlocal size
            message = await request.receive()
            size += len(message.get("body", b""))
            if size > self.body:
                raise TooLarge(f"expected files up to {self.body} bytes")
            return message

        async with Request(request.scope, receive).form(max_files=FILES) as form:
            for number, upload in enumerate(form.getlist("files"), 1):
                if not isinstance(upload, UploadFile):
                    raise ValueError("files: expected files. Received: a text")
                path = folder / viewing.safe_name(upload.filename or "", number)
                path.parent.mkdir(parents=True, exist_ok=True)
                if path.exists():
                    path = path.with_name(f"{number}-{path.name}")
                with open(path, "wb") as file:
                    shutil.copyfileobj(upload.file, file)
        if not number:
            raise ValueError("files: expected at least one. Received: none")
