"""Work on what comes next while what is there is used: reading, translating and writing overlap."""

import collections
import concurrent.futures
import contextvars
from collections.abc import Iterator
from typing import Any, TypeVar

T = TypeVar("T")


def ahead(items: Iterator[T], size: int) -> Iterator[T]:
    """The items, in their order, which a thread of their own makes ahead of their use.

    What making one raises is raised in its place. A generator that is left is closed.

    Args:
        items: made one at a time.
        size: how many are made, or being made, that have not been asked for.
    """
    end: Any = object()
    context = contextvars.copy_context()  # what holds here holds in the thread

    def make() -> T:
        return context.run(next, items, end)

    pool = concurrent.futures.ThreadPoolExecutor(1)
    try:
        waiting = collections.deque(pool.submit(make) for _ in range(size))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(pool.submit(make))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)
        if close := getattr(items, "close", None):
            close()
