"""Lives of a DICOM node's queue, each killed at another line. Prints what went wrong, as JSON.

    python node_worker.py FOLDER STRIDE

Each life is a process of its own: it is sent three images of one series until it acknowledges them,
and translates and sends on by stand-ins. The next life, which is not killed, does the rest. Imports
no TensorFlow: a fork is quick.
"""

import json
import os
import secrets
import shutil
import signal
import sys
from pathlib import Path

from zoo.serving.node import node, transfer
from zoo.serving.node.rules import Destination, Rule, Rules
from zoo.serving.node.spool import Spool

IMAGES = ("a", "b", "c")
RULES = Rules(
    rules=(Rule("CT", "model", "archive"),),
    destinations={"archive": Destination("ARCHIVE", "127.0.0.1", 104)},
    quiet_seconds=0.0,
)
OWN = {module.__file__ for module in (node, sys.modules[Spool.__module__])} | {__file__}


class Report:
    slices, skipped, warnings, outputs = 3, (), (), (1,)


def translate(model: str, given: Path, made: Path) -> Report:
    """Writes each image under new names, in a new series, as `predict` does."""
    made.mkdir()
    series = secrets.token_hex(4)
    for path in given.iterdir():
        derived = f"{path.read_text()} {series} {secrets.token_hex(4)}"
        (made / path.name).write_text(derived)
    return Report()


def sender(archive: Path):
    """An archive that has each object once, however often it is sent."""

    def send(files, destination, ae_title, sent):
        for path in files:
            temporary = archive / ".part"
            temporary.write_text("")
            os.replace(temporary, archive / path.read_text())
            sent(path)

    return send


def live(folder: Path, last: int) -> int:
    """One life, killed at line `last` of it, 0 never; returns its lines."""
    lines = 0

    def count(frame, event, argument):
        nonlocal lines
        if frame.f_code.co_filename not in OWN:
            return None
        lines += event == "line"
        if 0 < last <= lines:
            os.kill(os.getpid(), signal.SIGKILL)
        return count

    transfer.send = sender(folder / "archive")
    sys.settrace(count)
    try:
        queue = Spool(folder / "spool", 10**6)
        worker = node.Node(RULES, queue, translate, lambda text: None)
        for image in IMAGES:
            acknowledged = folder / f"acknowledged-{image}"
            if not acknowledged.exists():
                queue.keep("series", image, "model", "archive", image.encode())
                acknowledged.touch()
        while worker.translate_next() or worker.send_next():
            pass
        queue.close()
    finally:
        sys.settrace(None)
    return lines


def process(folder: Path, last: int) -> int:
    """A life in a process of its own; returns how that ended."""
    child = os.fork()
    if not child:
        os._exit(live(folder, last) == 0)
    return os.waitpid(child, 0)[1]


def wrong(folder: Path, last: int) -> str:
    """What is wrong after a life that was killed there and another that was not; "" if nothing."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "archive").mkdir(parents=True)
    if process(folder, last) != signal.SIGKILL:
        return "was not killed"
    if process(folder, 0):
        return "the second life failed"
    found = [path.name.split() for path in (folder / "archive").iterdir() if path.name != ".part"]
    if sorted(name for name, _, _ in found) != list(IMAGES):
        return f"expected each image once. Received: {found}"
    if len({series for _, series, _ in found}) > 1:
        return f"expected one series. Received: {found}"
    left = [path.name for path in (folder / "spool").iterdir() if path.name.isdecimal()]
    return f"left behind: {left}" if left else ""


def main(folder: Path, stride: int) -> None:
    (folder / "whole" / "archive").mkdir(parents=True)
    lines = live(folder / "whole", 0)
    told = {}
    for last in range(1, lines + 1, stride):
        text = wrong(folder / "killed", last)
        if text:
            told[last] = text
    print(json.dumps({"lines": lines, "wrong": told}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
