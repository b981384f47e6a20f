"""A node at work: what arrives, what is translated and what is sent, each in its own thread.

Lines of its log name jobs, modalities and models: nothing of a patient.
"""

import errno
import logging
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zoo.serving.node import spool as states
from zoo.serving.node import transfer
from zoo.serving.node.rules import Rules
from zoo.serving.node.spool import Job, Spool

_TICK = 0.2  # seconds between looks at the queue
_LONGEST = 600.0  # seconds between two attempts
GIVE_UP = 7 * 86400.0  # seconds after which a series that cannot be sent has failed


class Node:
    """A DICOM node.

    Args:
        rules: of the node.
        spool: its queue.
        translate: translates a folder into another by a model's name, and gives the report of
            `zoo.inference.predict.translate`; raises what that does.
        tell: is given the lines of the log.
    """

    def __init__(
        self,
        rules: Rules,
        spool: Spool,
        translate: Callable[[str, Path, Path], Any],
        tell: Callable[[str], Any] = print,
    ):
        self.rules, self.spool, self.translate, self.tell = rules, spool, translate, tell
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._server: Any = None

    def start(self, host: str, port: int) -> int:
        """Listen and work; returns the port.

        Raises:
            OSError: where the port is taken.
        """
        self._server = transfer.listen(self.rules, self.spool, host, port, self.tell)
        for step in (self.translate_next, self.send_next):
            thread = threading.Thread(target=self._repeat, args=[step], daemon=True)
            thread.start()
            self._threads.append(thread)
        return self._server.server_address[1]

    def stop(self, seconds: float = 5.0) -> None:
        """Take no more, and end when the steps under way do, or after so many seconds.

        A step that is cut off is begun anew by the next node that uses the spool.
        """
        self._stopping.set()
        self._server.shutdown()
        until = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _repeat(self, step: Callable[[], bool]) -> None:
        while not self._stopping.is_set():
            try:
                busy = step()
            except Exception as error:  # such as a disk that is full: what is queued stays
                self.tell(f"the queue cannot go on: {type(error).__name__}")
                busy = False
                self._stopping.wait(_LONGEST / 60)
            if not busy:
                self._stopping.wait(_TICK)

    def translate_next(self) -> bool:
        """Translate a series that is complete; whether there was one."""
        self.spool.close_quiet(self.rules.quiet_seconds)
        job = self.spool.next(states.COMPLETE)
        if job is None:
            return False
        if self.spool.made(job.number).exists():  # a process ended before it could say so
            self.spool.settle(job.number)
            return True
        try:
            self._translate(job)
        except ValueError as error:
            # The reason may quote a header: it is beside the images.
            self._fail(job, str(error))
        except OSError as error:
            self._postpone(job, f"cannot be written: {error.strerror or 'no room'}")
        except Exception as error:  # a fault that nobody foresaw: the others go on
            self._fail(job, f"{type(error).__name__}: {error}")
        return True

    def _translate(self, job: Job) -> None:
        began = time.monotonic()
        with self.spool.making(job.number) as folder:
            report = self.translate(job.model, self.spool.given(job.number), folder)
            # A disk that was full for a while is no fault of the series.
            full = os.strerror(errno.ENOSPC)
            if any(full in problem.reason for problem in report.skipped):
                raise OSError(errno.ENOSPC, full)
            if not report.outputs:
                raise ValueError("; ".join(sorted({p.reason for p in report.skipped})))
        left_out = f", {len(report.skipped)} left out" if report.skipped else ""
        warned = f", {len(report.warnings)} warnings" if report.warnings else ""
        seconds = time.monotonic() - began
        self.tell(
            f"series {job.number}: {report.slices} slices translated by {job.model} "
            f"in {seconds:.1f} s{left_out}{warned}"
        )

    def send_next(self) -> bool:
        """Send what was made of a series; whether there was something."""
        job = self.spool.next(states.MADE)
        if job is None:
            return False
        folder = self.spool.made(job.number)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        try:
            destination = self.rules.destinations.get(job.send_to)
            if destination is None:
                raise OSError("the rules have no such destination")
            # A file that is gone has been taken.
            if files:
                transfer.send(files, destination, self.rules.ae_title, Path.unlink)
        except OSError as error:
            if time.time() - job.changed > GIVE_UP:
                self._fail(job, f"not sent to {job.send_to}: {error}")
            else:
                self._postpone(job, f"not sent to {job.send_to}: {error}")
            return True
        self.spool.finish(job.number)
        self.tell(f"series {job.number}: sent to {job.send_to}")
        return True

    def _postpone(self, job: Job, why: str) -> None:
        seconds = min(_LONGEST, 2.0 ** min(job.attempts, 20))
        self.spool.postpone(job.number, seconds)
        self.tell(f"series {job.number}: {why}; again in {seconds:.0f} s")

    def _fail(self, job: Job, why: str) -> None:
        self.spool.fail(job.number, why)
        self.tell(
            f"series {job.number}: failed; {self.spool.place(job.number)}/reason.txt says why"
        )


def run(node: Node, host: str, port: int) -> None:
    """Have a node work until SIGINT or SIGTERM.

    Raises:
        OSError: where the port is taken.
    """
    # What pydicom and pynetdicom say may quote headers.
    for name in ("pydicom", "pynetdicom"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    warnings.simplefilter("ignore")
    told = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: told.set())
    port = node.start(host, port)
    waiting = sum(n for state, n in node.spool.counts().items() if state not in _ENDS)
    node.tell(f"{node.rules.ae_title} at {host}:{port}, {waiting} series waiting")
    node.tell("Ctrl-C stops it.")
    told.wait()
    node.stop()


_ENDS = (states.DONE, states.FAILED)
