"""Scans of digital patients at normal and quarter dose: the examples of `ldct/phantom`.

The anatomy is painted on a grid twice as fine as the reconstruction, projected from that grid with
an aperture as wide as a detector, and measured twice with independent noise: once with all the
photons (target) and once with a quarter (source). Importable without TensorFlow.
"""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from zoo_datasets.phantoms.ct_scan import Scan, Scanner

_WORKER = "import sys; from zoo_datasets.ldct import phantom; phantom.work(*sys.argv[1:])"


def generate(
    scan: Scan, seed: int, numbers: list[int], processes: int = 2
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """`(number, Scanner.patient(seed, number))` for each of `numbers`, in order.

    With one process the work is done in this one. Otherwise the workers are interpreters of this
    module with pipes for input and output: unlike a process pool they do not run the caller's
    script again, so an unguarded script may ask for data.

    Raises:
        RuntimeError: when a worker dies; its traceback is on stderr.
    """
    if processes == 1:
        scanner = Scanner(scan)
        yield from ((number, scanner.patient(seed, number)) for number in numbers)
        return
    shape = (2, scan.slices, scan.size, scan.size)
    length = int(np.prod(shape)) * 2
    root = str(pathlib.Path(__file__).parents[2])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    env = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    workers: list[subprocess.Popen] = []
    local = threading.local()

    def run(number: int) -> dict[str, np.ndarray]:
        if not hasattr(local, "worker"):
            local.worker = subprocess.Popen(
                [sys.executable, "-c", _WORKER, json.dumps(dataclasses.asdict(scan)), str(seed)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=env,
            )
            workers.append(local.worker)
        try:
            local.worker.stdin.write(f"{number}\n".encode())
            local.worker.stdin.flush()
            data = local.worker.stdout.read(length)
        except BrokenPipeError:
            data = b""
        if len(data) != length:
            raise RuntimeError(f"ldct: the worker that simulates patient {number} stopped early.")
        images = np.frombuffer(data, np.int16).reshape(shape)
        return dict(zip(("source", "target"), images, strict=True))

    pool = ThreadPoolExecutor(processes)
    try:
        yield from zip(numbers, pool.map(run, numbers), strict=True)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.terminate()
            worker.wait()
            worker.stdin.close()
            worker.stdout.close()


def work(scan: str, seed: str) -> None:
    """Answer each number on stdin with a patient's images on stdout."""
    scanner = Scanner(Scan(**json.loads(scan)))
    for line in sys.stdin:
        images = scanner.patient(int(seed), int(line))
        sys.stdout.buffer.write(images["source"].tobytes() + images["target"].tobytes())
        sys.stdout.buffer.flush()
