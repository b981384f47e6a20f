"""Files that appear under their name when they are whole, and scratch space on disk."""

import contextlib
import fcntl
import json
import math
import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

_PART = re.compile(r"\.[0-9a-f]{16}\.part")  # a file that is being written


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """A new empty file in the folder of `path` that takes its name if the block succeeds.

    Its own name cannot be guessed and is made anew, so that nothing is written through a link that
    somebody put there; it is short, so that `path` may have a name as long as the system takes. It
    is locked while the block runs: what is not, `sweep` takes for a killed process's.

    Raises:
        OSError: where the folder cannot be made or written, or the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = -1, path
    try:
        while True:
            temporary = path.with_name(f".{secrets.token_hex(8)}.part")
            # the permissions that a plain open() gives, and an error where the name exists
            descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
            with contextlib.suppress(OSError):  # where nothing can be locked, nothing is swept
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if temporary.exists():
                break
            os.close(descriptor)  # swept before it was locked
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.errno and error.filename in (None, os.fspath(temporary)):
            error.filename = os.fspath(path)  # the name that means something to the user
        raise
    finally:
        if descriptor >= 0:
            temporary.unlink(missing_ok=True)
            os.close(descriptor)


def sweep(folder: Path) -> None:
    """Removes files of `replacing` that killed processes left in a folder, half written."""
    for path in folder.glob(".*.part"):
        if not _PART.fullmatch(path.name):
            continue
        with contextlib.suppress(OSError):  # one that is being written, or gone by now
            descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            finally:
                os.close(descriptor)


def write_atomic(path: str | os.PathLike, content: bytes) -> None:
    """Writes a file under a temporary name beside `path`, then renames it."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Writes JSON, indented, as `write_atomic` does."""
    write_atomic(path, (json.dumps(content, indent=2) + "\n").encode())


@contextlib.contextmanager
def scratch(
    folder: str | os.PathLike, shape: tuple[int, ...], dtype: Any
) -> Iterator["np.ndarray"]:
    """An array of zeros that lives in a nameless file in `folder` while the block runs.

    Raises:
        OSError: where the disk has no room for it. It is asked for now: writing to a mapped file
            on a full disk would end the process with SIGBUS.
    """
    import numpy as np  # here: `zoo list` imports this module and answers without numpy

    size = math.prod(map(int, shape)) * np.dtype(dtype).itemsize
    with tempfile.TemporaryFile(dir=Path(folder)) as file:
        allocate(file.fileno(), size)
        yield np.memmap(file, dtype, "r+", shape=shape)


def allocate(descriptor: int, size: int) -> None:
    """Gives an empty file `size` bytes of disk, for mapping it into memory.

    Raises:
        OSError: where the disk has no room for them.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, max(1, size))
    else:
        os.truncate(descriptor, max(1, size))
