"""One `predict` by several processes, each a part of the volumes."""

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import tqdm

from zoo.inference import manifest
from zoo.inference.report import Report

_WORKER = "ZOO_WORKER"  # set in the environment of a worker
_POOLS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
_LOOK = 1.0  # seconds between looks at what is done


def run(
    arguments: list[str], workers: int, part: tuple[int, int], record: Path, output: Path
) -> Report:
    """Have processes of their own run the command `predict`, and return what all of them did.

    Args:
        arguments: its flags but those of this call.
        workers: how many; they share the cores.
        part: K of N, which the workers divide further.
        record: the manifest.
        output: the folder that is written to.

    Raises:
        ValueError: with a worker's own error, or for one that was killed. What all had done is in
            the manifest.
    """
    before = manifest.total(record, output).done if record.exists() else 0
    number, count = part
    threads = str(max(1, len(os.sched_getaffinity(0)) // workers))
    environment = os.environ | dict.fromkeys(_POOLS, threads) | {_WORKER: "1"}
    command = [sys.executable, "-m", "zoo", "predict", *arguments, f"--manifest={record}"]
    processes, errors = [], []
    with contextlib.ExitStack() as held:
        # All of them at once; none outlives this call, or this process (`end_with_parent`).
        for worker in range(1, workers + 1):
            errors.append(held.enter_context(tempfile.TemporaryFile("w+", errors="replace")))
            process = subprocess.Popen(
                [*command, f"--part={(number - 1) * workers + worker}/{count * workers}"],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors[-1],
            )
            held.callback(process.kill)
            processes.append(process)
        with tqdm.tqdm(unit="series or file", disable=None) as bar:
            while any(process.poll() is None for process in processes):
                time.sleep(_LOOK)
                bar.update(manifest.count(record) - bar.n)
        # What went wrong with one as a whole.
        for process, file in zip(processes, errors, strict=True):
            file.seek(0)
            told = [line[7:].strip() for line in file if line.startswith("error: ")]
            if told or process.returncode not in (0, 1):
                raise ValueError(told[0] if told else f"a worker ended by {process.returncode}")
    report = manifest.total(record, output)
    report.before = before
    return report


def end_with_parent() -> None:
    """Of a worker: end when the process that started it does, however that ends."""
    if _WORKER in os.environ:
        threading.Thread(target=_wait, daemon=True).start()


def _wait() -> None:
    sys.stdin.read()
    os._exit(1)
