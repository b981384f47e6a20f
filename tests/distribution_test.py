"""Two processes on loopback train what one does, and one that is killed is started again."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import harness
from harness import checkpointed
from runs import RUNS
from zoo import registry, training

WORKER = Path(__file__).with_name("train_worker.py")
TAME = {"pggan": ["batch_size=8"]}  # whose discriminator groups four images of one replica
ALWAYS = ("pix2pix",)
MODELS = [
    pytest.param(name, marks=() if name in ALWAYS else pytest.mark.distributed)
    for name in sorted(RUNS)
]


def cluster(workers: int) -> list[str]:
    """TF_CONFIG of each worker, on free ports of this machine."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(workers)]
    hosts = [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]
    for s in sockets:
        s.close()
    return [
        json.dumps({"cluster": {"worker": hosts}, "task": {"type": "worker", "index": i}})
        for i in range(workers)
    ]


def start(name: str, workdir: Path, data_dir: Path, fields: list[str], config: str):
    """One worker, a process of its own."""
    dataset, *own = RUNS[name]
    arguments = [sys.executable, WORKER, name, dataset, workdir, data_dir]
    return subprocess.Popen(
        [*map(str, arguments), *own, "precision=float32", *fields],
        env=os.environ | {"TF_CONFIG": config},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(processes: list[subprocess.Popen]) -> list[tuple[int, str]]:
    return [(p.communicate(timeout=420)[0], p.returncode)[::-1] for p in processes]


def train(name: str, workdir: Path, data_dir: Path, fields: list[str]) -> None:
    """Two workers, until both are done."""
    for code, text in finish([start(name, workdir, data_dir, fields, c) for c in cluster(2)]):
        assert code == 0, text


def train_here(name: str, workdir: Path, data_dir: Path, fields: list[str]) -> None:
    """The same in this process, whose optimizers the caller has made those of train_worker.py."""
    dataset, *own = RUNS[name]
    entry = registry.lookup(name, dataset, "small", None, [*own, "precision=float32", *fields])
    training.train(entry, workdir, data_dir=data_dir, strategy="one")


@pytest.mark.parametrize("name", MODELS)
def test_two_processes_train_what_one_does(name, tmp_path, data_dir, monkeypatch):
    steps = 6 if name == "pggan" else 4
    fields = ["batch_size=4", f"steps={steps}", "checkpoint_every=1", *TAME.get(name, [])]
    harness.use_sgd(monkeypatch)
    train_here(name, tmp_path / "one", data_dir, fields)
    train(name, tmp_path / "two", data_dir, fields)
    one, two = checkpointed(tmp_path / "one"), checkpointed(tmp_path / "two")
    before = checkpointed(tmp_path / "one", f"ckpt-{steps - 1}")
    harness.gradient_sums_agree(one, two)
    for key, value in one.items():
        moved = np.abs(value.astype(float) - before[key]).max()  # in the last step alone
        rounding = 2e-6 * max(1.0, np.abs(value.astype(float)).max())
        assert np.abs(value.astype(float) - two[key]).max() <= 0.02 * moved + rounding, key
    record = json.loads((tmp_path / "two" / "run.json").read_text())
    assert record["state"] == "done" and record["replicas"] == 2
    assert record["strategy"] == "CollectiveAllReduceStrategy"
    # The other worker leaves nothing behind.
    assert [p.name for p in (tmp_path / "two").glob("checkpoints*")] == ["checkpoints"]


@pytest.mark.distributed
def test_a_killed_worker_is_started_again(tmp_path, data_dir):
    name = "encoder_decoder"  # with batch norm, and the soonest to begin
    fields = ["batch_size=4", "steps=60", "checkpoint_every=5", "norm=batch"]
    train(name, tmp_path / "whole", data_dir, fields)
    broken = tmp_path / "broken"
    workers = [start(name, broken, data_dir, fields, c) for c in cluster(2)]
    deadline = time.monotonic() + 300
    while not list(broken.glob("checkpoints/ckpt-*.index")):
        assert time.monotonic() < deadline and workers[1].poll() is None
        time.sleep(0.02)
    workers[1].send_signal(signal.SIGKILL)
    (code, text), _ = finish(workers)
    assert code != 0  # the survivor does not wait for ever
    assert "a worker of the cluster was lost" in text, text
    before = json.loads((broken / "run.json").read_text())["step"]
    assert 0 < before < 60
    train(name, broken, data_dir, fields)
    one, two = checkpointed(tmp_path / "whole"), checkpointed(broken)
    different = [key for key in one if not np.array_equal(one[key], two[key])]
    assert not different


@pytest.mark.distributed
def test_workers_lose_their_patience_together(tmp_path, data_dir):
    """Only the chief validates, and all of them end after the same step."""
    fields = ["batch_size=4", "steps=60", "validate_every=3", "validate_images=2", "patience=2"]
    train("encoder_decoder", tmp_path, data_dir, [*fields, "learning_rate=0"])
    record = json.loads((tmp_path / "run.json").read_text())
    # The first of equals is the best; two more are no better.
    assert (record["state"], record["step"], record["best"]["step"]) == ("done", 9, 3)
    assert record["validation"]["steps"] == [3, 6, 9]
    assert [p.name for p in tmp_path.glob("checkpoints*")] == ["checkpoints"]
