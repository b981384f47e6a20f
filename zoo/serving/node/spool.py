"""The queue of a DICOM node on disk, which a process may leave at any moment.

    queue.sqlite            jobs, and which images they have been given
    lock                    held by the node that uses it
    12/given/HASH.dcm       what has arrived of job 12
    12/made/…               what was made of it and has not been sent yet
    12/reason.txt           why it failed

An image is acknowledged when its file and its row are on the disk. What is made gets its UIDs once:
`made` appears whole, and nothing is sent before; what is sent again has the UIDs that it had.
The database holds hashes of UIDs and no header field.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from zoo.atomic import replacing

REMEMBERED = 90 * 86400.0  # seconds that an image is known to have been translated
_TABLES = """
CREATE TABLE IF NOT EXISTS job (
  number INTEGER PRIMARY KEY AUTOINCREMENT, series TEXT NOT NULL, model TEXT NOT NULL,
  send_to TEXT NOT NULL, state TEXT NOT NULL, changed REAL NOT NULL, due REAL NOT NULL DEFAULT 0,
  attempts INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS image (
  hash TEXT PRIMARY KEY, job INTEGER NOT NULL REFERENCES job ON DELETE CASCADE);
CREATE INDEX IF NOT EXISTS image_of_job ON image (job);
"""
_FIELDS = "number, model, send_to, state, attempts, changed"
# The states of a job, one after the other; a job that fails is "failed" from any.
ARRIVING, COMPLETE, MADE, DONE, FAILED = "arriving", "complete", "made", "done", "failed"


class Full(OSError):
    """There is no room for an image."""


class Job(NamedTuple):
    """A series on its way, as its row says it.

    Attributes:
        attempts: how often its next step has failed.
        changed: when its state or its images last changed, in seconds since 1970.
    """

    number: int
    model: str
    send_to: str
    state: str
    attempts: int
    changed: float


class Spool:
    """A folder of jobs, for one process and all of its threads.

    Args:
        folder: made as needed, closed to other users.
        limit: bytes that all files in it may have before images are refused.

    Raises:
        OSError: where another process has it, or it cannot be written.
    """

    def __init__(self, folder: Path, limit: int):
        self.folder, self.limit = folder, limit
        self._guard = threading.RLock()
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)  # it holds patients
        self._lock = open(folder / "lock", "w")  # noqa: SIM115 (held while the node lives)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise OSError(
                f"spool: expected one that no other node uses. Received: {folder}"
            ) from error
        self._db = sqlite3.connect(
            folder / "queue.sqlite", check_same_thread=False, isolation_level=None
        )
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute("PRAGMA foreign_keys=ON")
        self._db.executescript(_TABLES)
        self._recover()

    def close(self) -> None:
        """Leave it to another process."""
        with self._guard:
            self._db.close()
            self._lock.close()

    def place(self, number: int) -> Path:
        """The folder of a job."""
        return self.folder / str(number)

    def given(self, number: int) -> Path:
        """The folder of its images."""
        return self.place(number) / "given"

    def made(self, number: int) -> Path:
        """The folder of what was made of them; there when it is whole."""
        return self.place(number) / "made"

    def keep(self, series: str, image: str, model: str, send_to: str, content: bytes) -> bool:
        """Keep an image of a series that is still arriving; on the disk when this returns.

        Args:
            series, image: what tells series, and images, apart; kept as hashes.
            model, send_to: what is to happen to it.
            content: its file.

        Returns:
            Whether it is new.

        Raises:
            Full: where there is no room.
            OSError: where it cannot be written.
        """
        series, image = _hash(series, model, send_to), _hash(image, model, send_to)
        with self._changing():
            if self._db.execute("SELECT 1 FROM image WHERE hash = ?", [image]).fetchone():
                return False
            self._make_room(len(content))
            now = time.time()
            # a series whose images come late, when it has been closed, goes on as another job
            found = self._db.execute(
                "SELECT number FROM job WHERE series = ? AND state = ?", [series, ARRIVING]
            ).fetchone()
            if found is None:
                found = self._db.execute(
                    "INSERT INTO job (series, model, send_to, state, changed) "
                    "VALUES (?, ?, ?, ?, ?) RETURNING number",
                    [series, model, send_to, ARRIVING, now],
                ).fetchone()
            (number,) = found
            # first the file, then the row by which it counts
            path = self.given(number) / f"{image}.dcm"
            with replacing(path) as temporary:
                temporary.write_bytes(content)
                _sync(temporary)
            _sync(path.parent)
            self._db.execute("INSERT INTO image (hash, job) VALUES (?, ?)", [image, number])
            self._db.execute(
                "UPDATE job SET changed = ?, bytes = bytes + ? WHERE number = ?",
                [now, len(content), number],
            )
        return True

    def close_quiet(self, seconds: float) -> None:
        """Call series complete that have got no image for so long."""
        with self._changing():
            self._db.execute(
                "UPDATE job SET state = ? WHERE state = ? AND changed <= ?",
                [COMPLETE, ARRIVING, time.time() - seconds],
            )

    def next(self, state: str) -> Job | None:
        """The job in that state that is due longest."""
        with self._guard:
            row = self._db.execute(
                f"SELECT {_FIELDS} FROM job WHERE state = ? AND due <= ? "
                "ORDER BY due, number LIMIT 1",
                [state, time.time()],
            ).fetchone()
        return Job(*row) if row else None

    def counts(self) -> dict[str, int]:
        """How many jobs are in each state."""
        with self._guard:
            return dict(self._db.execute("SELECT state, COUNT(*) FROM job GROUP BY state"))

    @contextlib.contextmanager
    def making(self, number: int) -> Iterator[Path]:
        """A folder that does not exist yet, which is `made` of a job when the block succeeds."""
        part = self.place(number) / "part"
        shutil.rmtree(part, ignore_errors=True)
        self._drop_unacknowledged(number)
        try:
            yield part
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        for path in (*part.rglob("*"), part):
            _sync(path)
        os.replace(part, self.made(number))
        _sync(self.place(number))
        self.settle(number)

    def settle(self, number: int) -> None:
        """A job whose `made` is there waits to be sent."""
        size = _size(self.made(number))
        with self._changing():
            self._db.execute(
                "UPDATE job SET state = ?, changed = ?, due = 0, attempts = 0, bytes = bytes + ? "
                "WHERE number = ?",
                [MADE, time.time(), size, number],
            )

    def postpone(self, number: int, seconds: float) -> None:
        """Try the next step of a job again, not before so many seconds have passed."""
        with self._changing():
            self._db.execute(
                "UPDATE job SET due = ?, attempts = attempts + 1 WHERE number = ?",
                [time.time() + seconds, number],
            )

    def finish(self, number: int) -> None:
        """A job is done: its files go, and its images are remembered for a while."""
        with self._changing():
            now = time.time()
            self._db.execute(
                "UPDATE job SET state = ?, changed = ?, bytes = 0 WHERE number = ?",
                [DONE, now, number],
            )
            self._db.execute(
                "DELETE FROM job WHERE state = ? AND changed < ?", [DONE, now - REMEMBERED]
            )
        shutil.rmtree(self.place(number), ignore_errors=True)

    def fail(self, number: int, reason: str) -> None:
        """A job cannot be done; its images stay until there is no room, and may come again."""
        with replacing(self.place(number) / "reason.txt") as temporary:
            temporary.write_text(f"{reason}\n", encoding="utf-8")
        with self._changing():
            self._db.execute(
                "UPDATE job SET state = ?, changed = ? WHERE number = ?",
                [FAILED, time.time(), number],
            )
            self._db.execute("DELETE FROM image WHERE job = ?", [number])

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """A transaction, on the disk when it ends.

        Raises:
            OSError: where the database cannot be written.
        """
        with self._guard:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield
                self._db.execute("COMMIT")
            except BaseException as error:
                if self._db.in_transaction:  # a full disk has ended it already
                    self._db.execute("ROLLBACK")
                if not isinstance(error, sqlite3.Error):
                    raise
                full = error.sqlite_errorname == "SQLITE_FULL"
                code = errno.ENOSPC if full else errno.EIO
                raise OSError(code, os.strerror(code)) from error

    def _make_room(self, size: int) -> None:
        """Remove what failed, the oldest first, where there is no room for so many bytes."""
        failed = self._db.execute(
            "SELECT number FROM job WHERE state = ? ORDER BY changed", [FAILED]
        ).fetchall()
        while self._used() + size > self.limit:
            if not failed:
                raise Full(f"the spool holds {self.limit} bytes at most")
            ((number,), *failed) = failed
            self._db.execute("DELETE FROM job WHERE number = ?", [number])
            shutil.rmtree(self.place(number), ignore_errors=True)

    def _used(self) -> int:
        """Bytes of all jobs; of what has been sent as long as the job is not done."""
        return self._db.execute("SELECT COALESCE(SUM(bytes), 0) FROM job").fetchone()[0]

    def _recover(self) -> None:
        """Remove the files of jobs that are done or of which nothing was acknowledged."""
        states = dict(self._db.execute("SELECT number, state FROM job"))
        for place in self.folder.iterdir():
            if place.name.isdecimal() and states.get(int(place.name), DONE) == DONE:
                shutil.rmtree(place)
        # senders were cut off: they get the quiet time anew
        with self._changing():
            self._db.execute("UPDATE job SET changed = ? WHERE state = ?", [time.time(), ARRIVING])

    def _drop_unacknowledged(self, number: int) -> None:
        """Remove files without a row, whose sender sends them again or was told that it failed."""
        rows = self._db.execute("SELECT hash FROM image WHERE job = ?", [number])
        known = {f"{image}.dcm" for (image,) in rows}
        for path in self.given(number).iterdir():
            if path.name not in known:
                path.unlink()


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:40]


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _sync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
