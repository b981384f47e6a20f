"""What this machine's memory and speed allow."""

import math
import subprocess
import time
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from zoo import loading
from zoo.devices import resolve_precision
from zoo.recipe import Recipe
from zoo.registry import Entry

# Bytes that a training step takes over those of the outputs of its network's operations. On a CPU
# it was 0.55 (encoder_decoder) to 0.8 (pix2pix); the rest is for what a GPU's convolutions work in.
FACTOR = 1.5
SHARE = 0.6  # of what is free that a run may take
_UNKNOWN = 4 * 2**30  # bytes, where nothing says how many there are
_SAME = {"Identity", "Reshape", "Placeholder"}  # operations whose output is their input
_COPIES = 4  # of each weight: itself, its gradient, and two moments of Adam


def memory() -> tuple[int, str]:
    """Free bytes of the device that trains, and what they are of."""
    if tf.config.list_physical_devices("GPU"):
        query = ["nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits"]
        try:
            told = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
            return min(map(int, told.stdout.split())) * 2**20, "GPU memory"
        except (OSError, ValueError, subprocess.SubprocessError):
            return _UNKNOWN, "GPU memory, which nothing tells, so assumed"
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        sizes = dict(line.split(":") for line in lines)
        free = int(sizes["MemAvailable"].split()[0]) * 2**10
    except (OSError, KeyError, ValueError):
        return _UNKNOWN, "memory, of which nothing tells how much is free"
    limits = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    try:  # of a container
        most, used = (int(path.read_text()) for path in limits)
        free = min(free, most - used)
    except (OSError, ValueError):
        pass
    return free, "memory"


def network_bytes(
    network: keras.Model, sides: tuple[int, ...], channels: int, precision: str
) -> tuple[int, int]:
    """Bytes that training takes: for the weights, and for each example of a batch.

    Args:
        network: that is trained.
        sides: height and width of an example, or depth, height and width.
        channels: of it.
        precision: what the network computes in.
    """
    spec = tf.TensorSpec((1, *sides, channels), tf.float32)
    graph = tf.function(lambda x: network(x)).get_concrete_function(spec).graph
    values = 0
    for operation in graph.get_operations():
        for output in operation.outputs if operation.type not in _SAME else ():
            if output.shape.rank == len(sides) + 2 and output.shape[0] == 1:
                values += math.prod(side or 0 for side in output.shape)
    size = 4 if precision == "float32" else 2
    return 4 * _COPIES * network.count_params(), int(FACTOR * size * values)


def largest_batch(model: Any, sides: tuple[int, ...], free: int) -> int:
    """Examples of these sides that a training step of a model can hold in free memory; 0 for none.

    Networks beside the one that is served (discriminators, the way back) count as much as it.
    """
    precision = resolve_precision(model.recipe.precision)
    fixed, each = network_bytes(model.network, sides, model.source.channels, precision)
    weights = sum(math.prod(variable.shape) for variable in model.variables)
    others = max(1.0, weights / max(model.network.count_params(), 1))
    room = SHARE * free - fixed * others
    return max(0, int(room // (each * min(others, 3.0))))


def seconds_a_step(entry: Entry, sides: tuple[int, ...]) -> float:
    """Seconds that a training step takes here now, measured; the first, which compiles, is not.

    Args:
        entry: a model and a recipe, with the domains.
        sides: of a target.
    """
    recipe: Recipe = entry.recipe
    model = loading.build(entry)
    model.compile()
    phase = recipe.phases()[-1]
    model.enter(phase)
    random = tf.random.Generator.from_seed(0)

    def images(domain: Any, scale: int) -> tf.Tensor:
        shape = [phase.batch_size, *(side // scale for side in sides), domain.channels]
        return random.uniform(shape, *domain.window)

    batch = {"source": images(model.source, recipe.scale), "target": images(model.target, 1)}
    if model.data == "single":
        batch = {"image": batch["target"]}
    batch["seed"] = tf.zeros([phase.batch_size, 2], tf.int32)
    step = tf.function(model.train_step)
    step(batch)
    count, started = 0, time.monotonic()
    while count < 3 or time.monotonic() - started < 0.5:
        losses = step(batch)
        count += 1
    float(next(iter(losses.values())))
    return (time.monotonic() - started) / count
