"""What a client is told whose request is not answered."""

from starlette.responses import JSONResponse, Response

from zoo.serving.server.batches import Busy
from zoo.serving.server.served import UnknownServable

_RETRY = {"Retry-After": "1"}  # seconds


class TooLarge(ValueError):
    """A body beyond the limit."""


def refused(error: Exception) -> Response:
    """404, 413 and 503 for what is unknown, too large and too much now; else 400."""
    code = 400
    if isinstance(error, UnknownServable):
        code = 404
    elif isinstance(error, TooLarge):
        code = 413
    elif isinstance(error, Busy):
        code = 503
    return JSONResponse({"error": str(error)}, code, headers=_RETRY if code == 503 else None)
