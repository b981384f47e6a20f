"""TF Serving's REST interface (2.20) over Starlette: the same paths, bodies and errors.

    GET  /v1/models/NAME[/versions/V|/labels/L]            status
    GET  /v1/models/NAME[/versions/V|/labels/L]/metadata   signatures
    POST /v1/models/NAME[/versions/V|/labels/L]:predict    {"instances": …} or {"inputs": …}
    GET  /healthz, /readyz, /monitoring/prometheus/metrics

Nothing of a body is kept or logged.
"""

import asyncio
import base64
import json
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import json_format
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, exposition
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tensorflow.core.protobuf import meta_graph_pb2

from zoo.serving.export import SIGNATURE
from zoo.serving.server.batches import Batches, Busy
from zoo.serving.server.page import Page
from zoo.serving.server.refusals import TooLarge, refused
from zoo.serving.server.served import InvalidRequest, Served, UnknownServable

BODY = 256 * 2**20  # bytes that a request may have


class Rest:
    """The application of one model.

    Args:
        served: the model.
        batches: answers its requests.
        body: bytes that a request may have.
    """

    def __init__(self, served: Served, batches: Batches, body: int = BODY):
        self.served, self.batches, self.body = served, batches, body
        self.ready = False
        self.metrics = CollectorRegistry()
        self.requests = Counter(
            "zoo_requests", "Requests to predict, by their end.", ["code"], registry=self.metrics
        )
        self.seconds = Histogram(
            "zoo_request_seconds", "From a request's arrival to its answer.", registry=self.metrics
        )
        waiting = Gauge("zoo_waiting", "Requests in the queue.", registry=self.metrics)
        waiting.set_function(lambda: len(batches))
        base = "/v1/models/{name}"
        routes = []
        for middle in ("", "/versions/{version}", "/labels/{label}"):
            routes += [
                Route(f"{base}{middle}:predict", self.predict, methods=["POST"]),
                Route(f"{base}{middle}/metadata", self.metadata),
                Route(f"{base}{middle}", self.status),
            ]
        routes += [
            Route("/healthz", self.alive),
            Route("/readyz", self.is_ready),
            Route("/monitoring/prometheus/metrics", self.prometheus),
            *Page(served, batches, body).routes,
        ]
        handlers = {404: _not_found, 405: _not_found, 500: _broken}
        self.app = Starlette(routes=routes, exception_handlers=handlers)

    async def alive(self, request: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def is_ready(self, request: Request) -> Response:
        """503 before the model is warm."""
        return JSONResponse({"ready": self.ready}, 200 if self.ready else 503)

    async def prometheus(self, request: Request) -> Response:
        text = exposition.generate_latest(self.metrics)
        return Response(text, media_type=exposition.CONTENT_TYPE_LATEST)

    async def status(self, request: Request) -> Response:
        def told() -> dict[str, Any]:
            self._check(request)
            state = "AVAILABLE" if self.ready else "LOADING"
            status = {"error_code": "OK", "error_message": ""}
            version = {"version": str(self.served.version), "state": state, "status": status}
            return {"model_version_status": [version]}

        return _told(told)

    async def metadata(self, request: Request) -> Response:
        def told() -> dict[str, Any]:
            self._check(request)
            return metadata(self.served)

        return _told(told)

    async def predict(self, request: Request) -> Response:
        began = time.monotonic()
        try:
            self._check(request)
            body = await self._read(request)
            name, arrays, rows = await asyncio.to_thread(asked, self.served, body)
            answers = await self.batches.ask(name, arrays)
            response = Response(
                await asyncio.to_thread(answered, answers, rows), media_type="application/json"
            )
        except (InvalidRequest, UnknownServable, Busy, TooLarge) as error:
            response = refused(error)
        except ClientDisconnect:
            response = Response(status_code=499)  # nobody reads it
        self.requests.labels(str(response.status_code)).inc()
        self.seconds.observe(time.monotonic() - began)
        return response

    def _check(self, request: Request) -> None:
        self.served.check_name(**request.path_params)

    async def _read(self, request: Request) -> bytes:
        """The body, no more of it than is allowed."""
        parts, size = [], 0
        announced = request.headers.get("content-length", "0")
        async for part in request.stream():
            size += len(part)
            if max(size, int(announced)) > self.body:
                raise TooLarge(f"expected a body up to {self.body} bytes")
            parts.append(part)
        return b"".join(parts)


def metadata(served: Served) -> dict[str, Any]:
    """What TF Serving tells of a model's signatures, as JSON."""
    signatures = meta_graph_pb2.MetaGraphDef().signature_def
    told = {}
    for name, signature in served.signatures.items():
        signatures[name].CopyFrom(signature.proto())
        # Defaults too: TF Serving writes "unknown_rank": false.
        told[name] = json_format.MessageToDict(
            signatures[name], preserving_proto_field_name=True, **_DEFAULTS
        )
    specification = {"name": served.name, "signature_name": "", "version": str(served.version)}
    return {
        "model_spec": specification,
        "metadata": {"signature_def": {"signature_def": told}},
    }


_DEFAULTS = {"always_print_fields_with_no_presence": True}


def asked(served: Served, body: bytes) -> tuple[str, dict[str, np.ndarray], bool]:
    """What a request to predict asks: signature, arrays, and whether in rows ("instances").

    Raises:
        InvalidRequest: for what is no JSON, no such request, or nothing the signature takes.
    """
    try:
        told = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"JSON Parse error: {error}") from error
    rows = isinstance(told, dict) and "instances" in told
    if not isinstance(told, dict) or rows == ("inputs" in told):
        raise InvalidRequest('expected a JSON object with "instances" or with "inputs"')
    name = told.get("signature_name", "")
    signature = served.signature(name if isinstance(name, str) else repr(name))
    given = _columns(told["instances"], signature.inputs) if rows else told["inputs"]
    if not isinstance(given, dict) or set(given) == {"b64"}:
        if len(signature.inputs) > 1:
            raise InvalidRequest(f"inputs: expected by name {', '.join(signature.inputs)}")
        given = dict.fromkeys(signature.inputs, given)
    arrays = signature.checked({key: _decoded(value) for key, value in given.items()})
    return name or SIGNATURE, arrays, rows


def _columns(instances: Any, inputs: Mapping[str, Any]) -> dict[str, list]:
    """The inputs of examples that are told one by one."""
    if not isinstance(instances, list) or not instances:
        raise InvalidRequest("instances: expected a list of examples. Received: none")
    named = [isinstance(each, dict) and set(each) != {"b64"} for each in instances]
    if not any(named):
        if len(inputs) > 1:
            raise InvalidRequest(f"instances: expected by name {', '.join(inputs)}")
        return dict.fromkeys(inputs, instances)
    names = instances[named.index(True)].keys()
    if not all(named) or any(each.keys() != names for each in instances):
        raise InvalidRequest("instances: expected the same names in each")
    columns: dict[str, list] = {name: [] for name in names}
    for each in instances:
        for name, value in each.items():
            columns[name].append(value)
    return columns


def _decoded(value: Any) -> Any:
    """Where an input holds {"b64": …}, its bytes."""
    if isinstance(value, dict) and set(value) == {"b64"}:
        try:
            return base64.b64decode(value["b64"], validate=True)
        except (ValueError, TypeError) as error:
            raise InvalidRequest(f"b64: expected base64. Received: {error}") from error
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [_decoded(each) for each in value]
    return value


def answered(answers: Mapping[str, np.ndarray], rows: bool) -> bytes:
    """The body of an answer: "predictions" in rows, or "outputs"."""
    told: Any = {name: _encoded(name, array) for name, array in answers.items()}
    if len(told) == 1:
        (told,) = told.values()
    elif rows:
        told = [dict(zip(told, row, strict=True)) for row in zip(*told.values(), strict=True)]
    return json.dumps({"predictions" if rows else "outputs": told}).encode()


def _encoded(name: str, array: np.ndarray) -> list:
    """Numbers; of an output whose name ends in _bytes base64, as TF Serving has it."""
    if array.dtype != object:
        return array.tolist()
    texts = [each if isinstance(each, bytes) else bytes(each) for each in array]
    if name.endswith("_bytes"):
        return [{"b64": base64.b64encode(each).decode()} for each in texts]
    return [each.decode("utf-8", "replace") for each in texts]


def _told(make: Callable[[], dict[str, Any]]) -> Response:
    try:
        return JSONResponse(make())
    except UnknownServable as error:
        return refused(error)


async def _not_found(request: Request, error: Exception) -> Response:
    code = getattr(error, "status_code", 404)
    return JSONResponse({"error": f"Malformed request: {request.method} {request.url.path}"}, code)


async def _broken(request: Request, error: Exception) -> Response:
    """Its place in the code is said; its text may quote what was sent."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(place.filename).name}, line {place.lineno}"
    print(f"internal error: {type(error).__name__} in {where}", file=sys.stderr, flush=True)
    return JSONResponse({"error": "internal error"}, 500)
