"""Run a server until it is told to stop."""

import asyncio
import contextlib
import logging
import signal
import socket
import warnings
from collections.abc import Iterator

import uvicorn

from zoo.serving.server.batches import Batches
from zoo.serving.server.rest import BODY, Rest
from zoo.serving.server.served import Served

GRACE = 600  # seconds that requests under way may take once it is told to stop
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run(
    served: Served,
    host: str = "127.0.0.1",
    port: int = 8501,
    grpc_port: int = 0,
    largest: int = 4,
    body: int = BODY,
) -> None:
    """Serve a model by REST, and by gRPC where that has a port, until SIGINT or SIGTERM.

    Requests that have arrived are answered before it ends; a second signal ends it at once.

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
    # What libraries say of a request, or of a file, may quote it.
    logging.disable()
    warnings.simplefilter("ignore")
    asyncio.run(_serve(served, taken, grpc_port, largest, body))


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        raise OSError(f"port: expected a free one. Received: {host}:{port}, {error}") from error
    return listening


class _Server(uvicorn.Server):
    """Leaves the signals to `_serve`: uvicorn would end the process before gRPC has answered."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _serve(
    served: Served, listening: socket.socket, grpc_port: int, largest: int, body: int
) -> None:
    batches = Batches(served, largest)
    rest = Rest(served, batches, body)
    host, port = listening.getsockname()[:2]
    host = f"[{host}]" if ":" in host else host
    remote = None
    if grpc_port:
        from zoo.serving.server import grpc

        remote, _ = grpc.make(served, batches, f"{host}:{grpc_port}", body)
    server = _Server(uvicorn.Config(rest.app, access_log=False, timeout_graceful_shutdown=GRACE))
    told = _told_to_stop()
    # It answers from the start that it lives and is not ready; what is asked waits.
    batches.start()
    ending = [asyncio.create_task(server.serve(sockets=[listening]))]
    ending[0].add_done_callback(lambda _: told.set())  # of a fault that nobody foresaw
    try:
        await batches.run(served.warm_up)
        rest.ready = True
        print(f"{served.name} at http://{host}:{port}/v1/models/{served.name}", flush=True)
        if remote:
            await remote.start()
            print(f"gRPC at {host}:{grpc_port}", flush=True)
        print("Ctrl-C stops it.", flush=True)
        await told.wait()
    finally:
        # It takes nothing new any more; what is under way is answered.
        rest.ready = False
        server.should_exit = True
        if remote:
            ending.append(asyncio.create_task(remote.stop(GRACE)))
        await asyncio.gather(*ending)
        await batches.stop()


def _told_to_stop() -> asyncio.Event:
    """Set by the first SIGINT or SIGTERM; the second one ends the process at once."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        told.set()
        for number in _SIGNALS:
            loop.remove_signal_handler(number)

    for number in _SIGNALS:
        loop.add_signal_handler(number, stop)
    return told
