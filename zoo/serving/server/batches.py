"""Micro-batching: requests of one shape that come together are answered together.

A request waits a few milliseconds for others, in a queue that has an end: what does not fit is
refused at once, so that nobody waits for an answer that comes too late.
"""

import asyncio
import collections
import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from zoo.serving.server.served import InvalidRequest, Served

LONG = 4  # whole uploads that may wait for the model, or have it
WAIT = 0.005  # seconds that a request waits for others


class Busy(RuntimeError):
    """The queue is full, or the server is stopping."""


@dataclasses.dataclass(eq=False)
class _Request:
    signature: str
    arrays: dict[str, np.ndarray]
    answer: asyncio.Future

    @property
    def count(self) -> int:
        return len(next(iter(self.arrays.values())))

    @property
    def kind(self) -> tuple:
        """What all requests of a batch share: the signature, and its inputs' sides."""
        shapes: list = [self.signature]
        for name, array in sorted(self.arrays.items()):
            # Of PNG the header says width, height, depth and colours.
            headers = {each[16:26] for each in array} if array.dtype == object else ()
            shapes += [name, array.shape[1:], *sorted(headers)]
        return tuple(shapes)


class Batches:
    """One worker that runs a model, and the queue before it.

    Args:
        served: the model.
        largest: images in a batch.
        waiting: requests in the queue.
    """

    def __init__(self, served: Served, largest: int = 4, waiting: int = 64):
        self.served, self.largest, self.waiting = served, largest, waiting
        self._queue: collections.deque[_Request] = collections.deque()
        self._arrived = asyncio.Event()
        self._stopping = False
        self._thread = ThreadPoolExecutor(1, "model")
        self._long = 0
        self._worker: asyncio.Task | None = None
        self.sizes: collections.Counter[int] = collections.Counter()  # batches by their images

    def __len__(self) -> int:
        return len(self._queue)

    def start(self) -> None:
        """Begin to answer; needs a running loop."""
        self._worker = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Answer what is waiting, and take no more."""
        self._stopping = True
        self._arrived.set()
        if self._worker:
            await self._worker
        self._thread.shutdown()

    async def ask(self, signature: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The answer to `Signature.checked` arrays; more than a batch holds go in several.

        Raises:
            Busy: where the queue is full.
            InvalidRequest: for what the model refuses, and more than the queue ever holds.
        """
        count = len(next(iter(arrays.values())))
        starts = range(0, max(count, 1), self.largest)
        if len(starts) > self.waiting:
            most = self.waiting * self.largest
            raise InvalidRequest(f"inputs: expected up to {most} examples. Received: {count}")
        if self._stopping or len(self._queue) + len(starts) > self.waiting:
            raise Busy("the server is stopping" if self._stopping else "the queue is full")
        loop = asyncio.get_running_loop()
        requests = []
        for start in starts:
            part = {name: array[start : start + self.largest] for name, array in arrays.items()}
            requests.append(_Request(signature, part, loop.create_future()))
        self._queue.extend(requests)
        self._arrived.set()
        answers = await asyncio.gather(*(request.answer for request in requests))
        return _joined(answers)

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a function gives that uses the model: it has the model's thread to itself.

        Raises:
            Busy: where others wait for that already.
        """
        if self._stopping or self._long >= LONG:
            raise Busy("the server is stopping" if self._stopping else "others wait already")
        self._long += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, function, *arguments)
        finally:
            self._long -= 1

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self._queue or not self._stopping:
            if not self._queue:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            # Others may be on their way.
            if len(self._queue) < self.largest and not self._stopping:
                await asyncio.sleep(WAIT)
            batch = self._next_batch()
            if batch:
                await loop.run_in_executor(self._thread, self._answer, batch, loop)

    def _next_batch(self) -> list[_Request]:
        """The oldest request, and those behind it of its kind that fit."""
        while self._queue and self._queue[0].answer.cancelled():
            self._queue.popleft()  # nobody waits for it any more
        if not self._queue:
            return []
        first, count = self._queue[0], 0
        batch: list[_Request] = []
        for request in list(self._queue):
            fits = not batch or count + request.count <= self.largest
            if request.kind == first.kind and fits:
                batch.append(request)
                self._queue.remove(request)
                count += request.count
        self.sizes[count] += 1
        return batch

    def _answer(self, batch: list[_Request], loop: asyncio.AbstractEventLoop) -> None:
        """Run in the model's thread."""
        signature = self.served.signatures[batch[0].signature]
        try:
            answers = signature.answer(_joined([request.arrays for request in batch]))
        except Exception as error:
            if len(batch) == 1:
                loop.call_soon_threadsafe(_fail, batch[0].answer, error)
                return
            # One is at fault, such as by a damaged PNG: the others have their answers.
            for request in batch:
                self._answer([request], loop)
            return
        start = 0
        for request in batch:
            end = start + request.count
            part = {name: array[start:end] for name, array in answers.items()}
            loop.call_soon_threadsafe(_give, request.answer, part)
            start = end


def _joined(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Arrays of several parts, one after the other."""
    found = {}
    for name in parts[0]:
        found[name] = np.concatenate([part[name] for part in parts])
    return found


def _give(answer: asyncio.Future, value: dict[str, np.ndarray]) -> None:
    if not answer.done():
        answer.set_result(value)


def _fail(answer: asyncio.Future, error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
