"""What the tables are made with: calls in turns, ratios with their spread, processes, peers."""

import collections
import importlib
import importlib.metadata
import itertools
import math
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

_LEAST = 0.1  # seconds that a measurement takes at least
_LOOK = 0.005  # seconds between looks at a process
Seconds = dict[str, list[float]]


class Target(NamedTuple):
    """What a figure should be, and what bounds it where it is not.

    Attributes:
        what: is measured.
        wanted: at least, or at most where `most`.
        measured: on this machine, now.
        bound: what it is bound by, said where it is missed.
    """

    what: str
    wanted: float
    measured: float
    bound: str = ""
    most: bool = False

    @property
    def missed(self) -> float:
        """By which share of what is wanted; 0 where it is met."""
        beyond = self.measured - self.wanted
        return max(0.0, (beyond if self.most else -beyond) / self.wanted)

    def row(self) -> list[str]:
        """Of a table: what, wanted, measured, and whether it is met."""
        wanted = f"{'at most' if self.most else 'at least'} {self.wanted:g}"
        found = f"missed by {three(100 * self.missed)} %: {self.bound}" if self.missed else "met"
        return [self.what, wanted, three(self.measured), found]


class Part(NamedTuple):
    """A section of the document, and what its figures should be."""

    text: str
    targets: Sequence[Target] = ()


class Missing(Exception):
    """A peer that is not installed, or does not do it; says why."""


def needed(module: str) -> Any:
    """A peer's module.

    Raises:
        Missing: where it is not installed, or cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except Exception as error:
        why = f"{type(error).__name__}: {error}".splitlines()[0][:90]
        missing = isinstance(error, ModuleNotFoundError)
        raise Missing(f"{module} is not installed" if missing else f"{module}: {why}") from error


def peers(makers: Mapping[str, Callable[[], Callable[[], object]]]) -> tuple[dict, dict[str, str]]:
    """The calls that can be made, and of the others why not."""
    calls, skipped = {}, {}
    for name, make in makers.items():
        try:
            call = make()
            call()  # compiled, and warm
        except Missing as error:
            skipped[name] = str(error)
        except Exception as error:  # of a peer, whose interface may have changed
            skipped[name] = f"{type(error).__name__}: {error}".splitlines()[0][:90]
        else:
            calls[name] = call
    return calls, skipped


def in_turns(calls: Mapping[str, Callable[[], object]], rounds: int) -> Seconds:
    """Seconds of each call, which was made before, one after the other in each round."""
    counts = {}
    for name, call in calls.items():
        began = time.perf_counter()
        call()
        counts[name] = max(1, math.ceil(_LEAST / max(time.perf_counter() - began, 1e-6)))
    seconds: Seconds = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            began = time.perf_counter()
            for _ in range(counts[name]):
                call()
            seconds[name].append((time.perf_counter() - began) / counts[name])
    return seconds


def ratio(seconds: Seconds, of: str, to: str) -> str:
    """The median over the rounds of how many times as long, and the extremes."""
    ratios = [a / b for a, b in zip(seconds[of], seconds[to], strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def middle(values: Sequence[float]) -> str:
    """The median in three digits."""
    return three(statistics.median(values))


def three(value: float) -> str:
    """A number in three digits, without an exponent."""
    digits = 2 - math.floor(math.log10(abs(value))) if value else 0
    return f"{round(value, digits):.{max(digits, 0)}f}"


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table of Markdown."""
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    for row in rows:
        lines.append(f"| {' | '.join(map(str, row))} |")
    return "\n".join(lines)


def skipped_in_words(skipped: Mapping[str, str]) -> str:
    """A paragraph on what could not be measured; "" where all was."""
    if not skipped:
        return ""
    return (
        "\n\nNot measured: " + "; ".join(f"{name} ({why})" for name, why in skipped.items()) + "."
    )


class Ran(NamedTuple):
    """A process that ended.

    Attributes:
        seconds: on the clock.
        processor: seconds of processor time, of all threads.
        mib: the most memory that it held.
    """

    seconds: float
    processor: float
    mib: float


def process(arguments: Sequence[str], folder: Path) -> Ran:
    """Run this Python with arguments.

    Raises:
        RuntimeError: where it fails.
    """
    root = str(Path(__file__).resolve().parent.parent)
    environment = os.environ | {"PYTHONPATH": root, "TF_CPP_MIN_LOG_LEVEL": "3"}
    with open(folder / "told.txt", "w+") as told:
        began = time.perf_counter()
        child = subprocess.Popen(
            [sys.executable, *arguments], stdout=told, stderr=told, env=environment
        )
        # Linux counts what this process held before the other began as its own: not so VmHWM.
        ended, kib = 0, 0
        while not ended:
            kib = max(kib, _most_held(child.pid))
            time.sleep(_LOOK)
            ended, status, used = os.wait4(child.pid, os.WNOHANG)
        seconds = time.perf_counter() - began
        child.returncode = os.waitstatus_to_exitcode(status)
        told.seek(0)
        if child.returncode:
            raise RuntimeError(f"{' '.join(arguments)}: {told.read()[-500:]}")
    return Ran(seconds, used.ru_utime + used.ru_stime, kib / 1024)


def _most_held(pid: int) -> int:
    """KiB that a process has held at most until now."""
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) if found else 0


def peak(rounds: int) -> float:
    """Floating-point operations a second of a float32 matrix product, the most that is reached."""
    import tensorflow as tf

    side = 1536
    values = tf.random.normal((side, side))
    product = tf.function(lambda: tf.reduce_sum(tf.matmul(values, values)))
    product().numpy()
    seconds = in_turns({"product": lambda: product().numpy()}, rounds)["product"]
    return 2 * side**3 / min(seconds)


# What operations do, by a part of TensorFlow's names for them; the first that fits.
_KINDS = {
    "convolutions": ("Conv",),
    "matrix products": ("MatMul", "Einsum"),
    "Fourier transforms": ("FFT",),
    "normalisation": ("BatchNorm",),
    "moving data": (
        *("Concat", "Pad", "Slice", "Transpose", "Reshape", "Gather", "Scatter", "Tile", "Pack"),
        *("Split", "Roll", "Reverse", "Fill", "Cast", "Resize"),
    ),
}


def operations(step: Callable[[], object]) -> dict[str, float]:
    """Seconds of a TensorFlow step by what its operations do, the most first.

    Operations that run at the same time each count whole. What has no name of its own is
    arithmetic by element: activations, sums, losses, the optimizer.
    """
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    options = tf.profiler.experimental.ProfilerOptions(host_tracer_level=2)
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder, options):
            step()
        (file,) = Path(folder).rglob("*.xplane.pb")
        space = xplane_pb2.XSpace.FromString(file.read_bytes())
    seconds: collections.Counter[str] = collections.Counter()
    for plane in space.planes:
        for event in itertools.chain.from_iterable(line.events for line in plane.lines):
            # Others than "name of the node:its operation" are calls that hold these.
            name = plane.event_metadata[event.metadata_id].name
            if found := re.fullmatch(r"[^:]+:([A-Z_]\w+)", name):
                seconds[_kind(found[1])] += event.duration_ps / 1e12
    return dict(seconds.most_common())


def _kind(operation: str) -> str:
    for kind, parts in _KINDS.items():
        if any(part in operation for part in parts):
            return kind
    return "by element"


def shares(seconds: Mapping[str, float], count: int = 3) -> str:
    """The largest shares of what `operations` found, in words."""
    total = sum(seconds.values())
    each = (f"{kind} {100 * found / total:.0f} %" for kind, found in seconds.items())
    return ", ".join(itertools.islice(each, count))


def environment() -> str:
    """The machine and what runs on it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    flags = set(facts.get("flags", "").split())
    units = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags]
    versions = []
    for name in ("tensorflow", "keras", "openvino", "torch", "monai", "deepinv", "astra-toolbox"):
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{name} not installed")
    cores = len(os.sched_getaffinity(0))
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return "\n".join(
        [
            f"- {facts.get('model name', platform.machine())}, {cores} cores, {', '.join(units)}; "
            f"{memory:.0f} GiB; {platform.system()} {platform.release()}",
            f"- Python {platform.python_version()}; {', '.join(versions)}",
            f"- load average before it began: {load} (what else ran; 0 is a quiet machine)",
        ]
    )
