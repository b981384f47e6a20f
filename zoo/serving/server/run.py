"""Run a server until it is told to stop."""

import asyncio
import socket

import uvicorn

from zoo.serving.server.batches import Batches
from zoo.serving.server.rest import BODY, Rest
from zoo.serving.server.served import Served

GRACE = 60  # seconds that requests under way may take once it is told to stop


def run(
    served: Served,
    host: str = "127.0.0.1",
    port: int = 8501,
    grpc_port: int = 0,
    largest: int = 4,
    body: int = BODY,
) -> None:
    """Serve a model by REST, and by gRPC where that has a port, until SIGINT or SIGTERM.

    Requests that have arrived are answered before it ends.

    Args:
        served: the model.
        host: whose address it listens on; the default is reached from this machine alone.
        port: of REST; 0 takes a free one.
        grpc_port: 0 is none.
        largest: images in a batch.
        body: bytes that a request may have.

    Raises:
        OSError: where a port is taken.
    """
    taken = _listen(host, port)
    asyncio.run(_serve(served, taken, grpc_port, largest, body))


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        raise OSError(f"port: expected a free one. Received: {host}:{port}, {error}") from error
    return listening


async def _serve(
    served: Served, listening: socket.socket, grpc_port: int, largest: int, body: int
) -> None:
    batches = Batches(served, largest)
    rest = Rest(served, batches, body)
    batches.start()
    host, port = listening.getsockname()[:2]
    host = f"[{host}]" if ":" in host else host
    remote = None
    if grpc_port:
        from zoo.serving.server import grpc

        remote, _ = grpc.make(served, batches, f"{host}:{grpc_port}")
        await remote.start()
    # No log of requests: paths may name patients.
    config = uvicorn.Config(
        rest.app, log_level="warning", access_log=False, timeout_graceful_shutdown=GRACE
    )
    server = uvicorn.Server(config)
    await asyncio.to_thread(served.warm_up)
    rest.ready = True
    print(f"{served.name} at http://{host}:{port}/v1/models/{served.name}", flush=True)
    if remote:
        print(f"gRPC at {host}:{grpc_port}", flush=True)
    print("Ctrl-C stops it.", flush=True)
    await server.serve(sockets=[listening])
    # It takes nothing new any more; what is under way is answered.
    rest.ready = False
    await batches.stop()
    if remote:
        await remote.stop(GRACE)
