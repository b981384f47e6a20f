"""The devices of this machine: strategies, precision, speed."""

import contextlib
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from zoo.recipe import Phase

_CPU = Path("/proc/cpuinfo")
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


def prepare() -> None:
    """Settings of TensorFlow, for the whole process; before it first uses a GPU.

    GPU memory is taken as it is needed, so that a second process fits beside. TensorFloat-32 is
    off: what a network computes in float32, such as its last layer, would otherwise be multiplied
    with 10 bits on newer GPUs.
    """
    tf.config.experimental.enable_tensor_float_32_execution(False)
    for gpu in tf.config.list_physical_devices("GPU"):
        # Where a program used the GPU before, its own choice stands.
        with contextlib.suppress(RuntimeError, ValueError):
            tf.config.experimental.set_memory_growth(gpu, True)


def resolve_precision(precision: str) -> str:
    """ "auto" to what the hardware multiplies fast: bfloat16, float16 or else float32.

    GPUs of compute capability 8 and above take bfloat16, those of 7 float16; of several GPUs the
    oldest decides.
    """
    if precision != "auto":
        return precision
    if tf.config.list_logical_devices("TPU"):
        return "bfloat16"
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        oldest = min(d.get("compute_capability", (0, 0)) for d in details)
        if oldest >= (8, 0):
            return "bfloat16"
        return "float16" if oldest >= (7, 0) else "float32"
    # Without AMX a CPU gains little by bfloat16, or emulates it, many times slower than float32.
    found = _CPU.read_text().split() if _CPU.exists() else []
    return "bfloat16" if "amx_bf16" in found else "float32"


def accelerated() -> bool:
    """Whether there is a GPU or a TPU."""
    return any(tf.config.list_physical_devices(kind) for kind in ("GPU", "TPU"))


STRATEGIES = ("auto", "one", "mirrored", "multi_worker", "tpu")


def make_strategy(name: str, phases: Sequence[Phase] = ()) -> tf.distribute.Strategy:
    """A `tf.distribute` strategy; "auto" takes what the machine and TF_CONFIG ask for.

    Of several GPUs "auto" takes as many as divide the batch of every phase, and says so where it
    leaves some idle; "mirrored" takes all of them.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in STRATEGIES:
        raise ValueError(f"strategy: expected one of {STRATEGIES}. Received: {name}")
    prepare()
    if name == "auto" and "TF_CONFIG" in os.environ:
        name = "multi_worker"
    kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    if name == "mirrored" or (name == "auto" and kind == "GPU"):
        devices = [device.name for device in tf.config.list_logical_devices(kind)]
        count = len(devices) if name == "mirrored" else _shared_by(phases, len(devices))
        if count < len(devices):
            sizes = ", ".join(map(str, sorted({phase.batch_size for phase in phases})))
            print(
                f"{count} of {len(devices)} GPUs used: no more of them divide the batch of "
                f"{sizes}. A --batch_size that is a multiple of {len(devices)} uses all."
            )
        if count > 1 or name == "mirrored":
            return tf.distribute.MirroredStrategy(devices[:count])
    if name == "multi_worker":
        options = tf.distribute.experimental.CommunicationOptions(
            implementation=tf.distribute.experimental.CommunicationImplementation.RING,
            timeout_seconds=600,  # the chief draws pictures while the others wait
        )
        return tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
    if name == "tpu":
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver("")
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    return tf.distribute.get_strategy()


def _shared_by(phases: Sequence[Phase], devices: int) -> int:
    """The most of so many devices that divide the batch of every phase."""
    # What divides every size divides their greatest common divisor; without phases that is 0.
    together = math.gcd(*(phase.batch_size for phase in phases))
    return max(n for n in range(1, devices + 1) if n == 1 or together % n == 0)


def check_batches(phases: Sequence[Phase], replicas: int) -> None:
    """A ValueError, with batch sizes that fit, where replicas cannot share a phase's batch."""
    for phase in phases:
        if phase.batch_size % replicas:
            above = -(-phase.batch_size // replicas) * replicas
            fit = f"{above - replicas} or {above}" if above > replicas else f"{above}"
            raise ValueError(
                f"batch_size: expected a multiple of the {replicas} replicas, such as {fit}. "
                f"Received: {phase.batch_size} in the phase {phase.name}"
            )


def is_chief(distribution: tf.distribute.Strategy) -> bool:
    resolver = distribution.cluster_resolver
    return resolver.task_type in (None, "", "chief") or (
        resolver.task_type == "worker"
        and resolver.task_id == 0
        and "chief" not in resolver.cluster_spec().jobs
    )


def device_speed(precision: str) -> float:
    """Floating-point operations a second that a convolution reaches on this machine, measured."""
    dtype = tf.dtypes.as_dtype(precision)
    size, channels = 64, 64
    images = tf.ones([4, size, size, channels], dtype)
    kernel = tf.ones([3, 3, channels, channels], dtype)
    run = tf.function(lambda: tf.reduce_sum(tf.nn.conv2d(images, kernel, 1, "SAME")))
    run().numpy()
    count, started = 0, time.monotonic()
    while time.monotonic() - started < 0.3:
        run().numpy()
        count += 1
    flops = 2 * 9 * channels * channels * size * size * 4 * count
    # Real networks reach about half of a plain convolution's rate.
    return 0.5 * flops / (time.monotonic() - started)
