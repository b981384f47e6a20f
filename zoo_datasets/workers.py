"""Work in several processes, in order."""

import collections
import concurrent.futures
import contextlib
import functools
import multiprocessing
import os
import sys
import types
from collections.abc import Callable, Iterable, Iterator


def map_in_order(
    function: Callable, items: Iterable, workers: int | None = None, waiting: int | None = None
) -> Iterator:
    """`map(function, items)` over worker processes; what `function` raises is raised here.

    New processes ("spawn") rather than forks: TensorFlow's threads do not survive a fork. They do
    not run the caller's script again, so that one without a guard may ask for data.

    Args:
        function: picklable, of a module.
        items: picklable; consumed no faster than results are.
        workers: processes; None: one a core, at most 8.
        waiting: items that are being worked on or wait for their turn; None: 4 a worker.

    Raises:
        BrokenProcessPool: where a worker was killed, for want of memory as a rule.
    """
    workers = workers or min(os.cpu_count() or 1, 8)
    waiting = waiting or 4 * workers
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(workers, mp_context=context)
    queue: collections.deque = collections.deque()
    try:
        for item in items:
            with _main_hidden(function):
                queue.append(pool.submit(function, item))
            if len(queue) >= waiting:
                yield queue.popleft().result()
        while queue:
            yield queue.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _main_hidden(function: Callable) -> Iterator[None]:
    """New processes find no script to run, unless the function is the script's own."""
    while isinstance(function, functools.partial):
        function = function.func
    main = sys.modules["__main__"]
    if function.__module__ != "__main__":
        sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextlib.contextmanager
def one_thread_each() -> Iterator[None]:
    """Processes that start in here multiply small matrices on one thread, not all on all cores."""
    name = "OPENBLAS_NUM_THREADS"
    old = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if old is None:
            del os.environ[name]
        else:
            os.environ[name] = old
