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
from scipy.ndimage import uniform_filter1d

from zoo.physics import noise, radon
from zoo_datasets.ldct import anatomy
from zoo_datasets.ldct.patient import Patient

FIELD_MM = 358.4  # field of view: 256 pixels of 1.4 mm
_WORKER = "import sys; from zoo_datasets.ldct import phantom; phantom.work(*sys.argv[1:])"
STORED = (-1024, 3071)  # HU range of a scanner's 12-bit files


@dataclasses.dataclass(frozen=True)
class Scan:
    """A scan protocol; `photons` is meant as in `zoo.physics.noise.tube_current`.

    A view of a coarse protocol stands for the photons of many views and wide detectors, so its
    noise in HU is set through `photons` and `electronic` together: their ratio keeps the share of
    electronic noise, their size sets the level.
    """

    size: int = 256
    views: int = 512
    photons: float = 2.4e4
    electronic: float = 7.0
    dose: float = 0.25
    slices: int = 4

    @property
    def spacing(self) -> float:
        """Pixel and detector pitch of the reconstruction in mm."""
        return FIELD_MM / self.size


class Scanner:
    """The operators of one protocol, kept between patients."""

    def __init__(self, scan: Scan):
        self.scan = scan
        self.fine = radon.ParallelBeam(
            2 * scan.size, scan.spacing / 2, scan.views, detector_mm=scan.spacing
        )
        self.beam = radon.ParallelBeam(scan.size, scan.spacing, scan.views)

    def project(self, hu: np.ndarray) -> np.ndarray:
        """Noise-free line integrals of fine HU slices: `[..., 2n, 2n]` to `[..., views, n]`."""
        attenuation = radon.hu_to_attenuation(hu)
        for axis in (-2, -1):  # the detector's aperture, two fine pixels wide
            attenuation = uniform_filter1d(attenuation, 2, axis=axis, mode="nearest")
        # A filter of even length moves every image of the slice alike, by half a fine pixel.
        return self.fine.forward(attenuation)

    def reconstruct(self, sinogram: np.ndarray) -> np.ndarray:
        """Line integrals `[..., views, n]` to stored HU `[..., n, n]`, int16."""
        hu = radon.attenuation_to_hu(self.beam.fbp(sinogram, "hann"))
        return np.clip(np.rint(hu), *STORED).astype(np.int16)

    def patient(self, seed: int, number: int, clean: bool = False) -> dict[str, np.ndarray]:
        """Patient `number`: `source` and `target`, int16 HU `[slices, n, n]`.

        Everything follows from (seed, number). `clean` adds the noise-free reconstruction, which
        is what a perfect denoiser would return.
        """
        scan = self.scan
        rng = np.random.default_rng([seed, number])
        body = Patient(rng, 2 * scan.size, scan.spacing / 2)
        # One slice somewhere in each equal part of the length, all levels in every patient.
        z = (np.arange(scan.slices) + rng.uniform(size=scan.slices)) * anatomy.LENGTH / scan.slices
        p = self.project(np.stack([body.slice(height) for height in z]))
        photons = noise.tube_current(p, scan.photons)
        normal = noise.low_dose_sinogram(p, photons, scan.electronic, rng)
        low = noise.low_dose_sinogram(p, scan.dose * photons, scan.electronic, rng)
        images = {"source": self.reconstruct(low), "target": self.reconstruct(normal)}
        return images | ({"clean": self.reconstruct(p)} if clean else {})


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
