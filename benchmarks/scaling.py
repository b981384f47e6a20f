"""Training on several devices and in several processes: the same result, and what it costs.

    python -m benchmarks.scaling DEVICES STEPS FILE

is one process of a run, with simulated devices; TF_CONFIG says what other processes there are.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks import measure

MODEL = "encoder_decoder"
FIELDS = {"base_filters": 16, "levels": 3, "precision": "float32"}
BATCH, SIDE = 8, 64
RATE = 1e-3  # of plain descent, which shows a gradient of the wrong size
RUNS = {"1 device": (1, 1), "2 devices": (2, 1), "4 devices": (4, 1), "2 processes": (1, 2)}
_WARM = 3  # steps that are not counted
_SECONDS = 300  # that a run may take


def several(quick: bool, rounds: int, names: Sequence[str] = tuple(RUNS)) -> measure.Part:
    """Steps a second of one global batch, shared by devices and processes, and the same weights."""
    steps = 2 if quick else 30
    seconds: measure.Seconds = {name: [] for name in names}
    weights: dict[str, list[np.ndarray]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(min(3, rounds)):
            for name in names:
                told = _run(*RUNS[name], steps, Path(folder))
                seconds[name].append(float(told.pop("seconds")))
                start = [told[f"start{k}"] for k in range(len(told) // 2)]
                weights[name] = [told[f"end{k}"] for k in range(len(told) // 2)]
    # How far the weights are from those of one device, of what training has moved them.
    rows = []
    moved = _largest(weights[names[0]], start)
    for name in names:
        apart = _largest(weights[name], weights[names[0]]) / moved
        rate = [1 / each for each in seconds[name]]
        row = [name, measure.middle(rate), measure.ratio(seconds, names[0], name)]
        rows.append([*row, f"{apart:.1e}"])
    columns = ["shared by", "steps/s", "rate to that of 1 device", "weights apart"]
    return measure.Part(f"""## Several devices, simulated

The step of `{MODEL}` ({BATCH} × {SIDE}², {FIELDS["base_filters"]} filters, float32) by
`MirroredStrategy` on devices that TensorFlow makes of this machine's processor, and by
`MultiWorkerMirroredStrategy` in two processes on loopback. The batch is one and the same, and so
are the cores: nothing can be gained here, and what is lost is what sharing costs. The last column
is the largest difference of a weight from one device's, of the largest move of training, after
{steps + _WARM} steps of plain descent.

{measure.table(columns, rows)}
""")


def _largest(one: list[np.ndarray], other: list[np.ndarray]) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(one, other, strict=True))


def _run(devices: int, processes: int, steps: int, folder: Path) -> dict[str, np.ndarray]:
    """What the first process of a run tells."""
    root = str(Path(__file__).resolve().parent.parent)
    threads = str(max(1, len(os.sched_getaffinity(0)) // processes))
    environment = os.environ | {"PYTHONPATH": root, "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment |= {"TF_NUM_INTRAOP_THREADS": threads} if processes > 1 else {}
    configs = _cluster(processes) if processes > 1 else [""]
    started = []
    for number, config in enumerate(configs):
        given = [str(devices), str(steps), str(folder / f"{number}.npz")]
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.scaling", *given],
                env=environment | ({"TF_CONFIG": config} if config else {}),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    try:
        for process in started:
            text, _ = process.communicate(timeout=_SECONDS)
            if process.returncode:
                raise RuntimeError(f"scaling: {text[-500:]}")
    finally:
        for process in started:
            process.kill()
    with np.load(folder / "0.npz") as told:
        return dict(told)


def _cluster(count: int) -> list[str]:
    """TF_CONFIG of each process, on free ports of this machine."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    hosts = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    found = []
    for number in range(count):
        task = {"type": "worker", "index": number}
        found.append(json.dumps({"cluster": {"worker": hosts}, "task": task}))
    return found


def main(devices: int, steps: int, file: Path) -> None:
    """Trains, and writes the weights before and after, and the seconds of a step."""
    import keras
    import tensorflow as tf

    from zoo import loading, registry
    from zoo.devices import make_strategy
    from zoo.domain import Domain

    # The devices, before TensorFlow looks at them.
    (processor,) = tf.config.list_physical_devices("CPU")
    logical = [tf.config.LogicalDeviceConfiguration()] * devices
    tf.config.set_logical_device_configuration(processor, logical)
    alone = "mirrored" if devices > 1 else "one"
    strategy = make_strategy("multi_worker" if "TF_CONFIG" in os.environ else alone)
    # The model, and one batch again and again.
    domain = Domain(modality="CT", unit="HU", window=(-1000.0, 1000.0))
    entry = registry.lookup(MODEL, overrides=FIELDS | {"batch_size": BATCH})
    with strategy.scope():
        model = loading.build(entry, domain, domain)
        model.compile(optimizer=keras.optimizers.SGD(RATE))
        model.enter(model.recipe.phases()[0])
    images = np.random.default_rng(0).uniform(-1000, 1000, (2, BATCH, SIDE, SIDE, 1))
    source, target = images.astype(np.float32)
    seeds = np.stack([np.zeros(BATCH), np.arange(BATCH)], 1).astype(np.int32)
    example = {"source": source, "target": target, "seed": seeds}
    dataset = tf.data.Dataset.from_tensor_slices(example).repeat().batch(BATCH, drop_remainder=True)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    batches = iter(strategy.experimental_distribute_dataset(dataset.with_options(options)))

    @tf.function
    def step(batch):
        return strategy.run(model.train_step, args=(batch,))

    told = {f"start{k}": w.numpy() for k, w in enumerate(model.trainable_variables)}
    for number in range(_WARM + steps):
        if number == _WARM:
            began = time.perf_counter()
        step(next(batches))
    weights = [w.numpy() for w in model.trainable_variables]  # once the last step has ended
    told["seconds"] = np.array((time.perf_counter() - began) / steps)
    np.savez(file, **told, **{f"end{k}": w for k, w in enumerate(weights)})


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
