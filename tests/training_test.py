"""Runs as a user starts them, killed and resumed."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import harness
import zoo
from harness import checkpointed
from zoo import command_line, devices, loading, training, translator
from zoo.checkpoints import Checkpoints
from zoo.recipe import Phase

ROOT = Path(__file__).parent.parent
TINY = {
    "pix2pix": ["dataset=ldct/phantom_tiny", "crop=32", "levels=4", "base_filters=4",
                "discriminator_filters=4", "norm=batch", "noise=5", "shift=2", "steps=40"],
    "pggan": ["dataset=mammo/phantom_tiny", "resolution=8", "fmap_base=128", "fmap_max=16",
              "latent=16", "batch_size=4", "steps=40"],
}  # fmt: skip


def command(model: str, workdir: Path, data_dir: Path, *more: str) -> list[str]:
    dataset, *fields = TINY[model]
    fields += ["checkpoint_every=5", "image_every=20", "validate_every=4", "validate_images=3"]
    return [
        *(sys.executable, str(ROOT / "cli.py"), "train", f"--model={model}", f"--{dataset}"),
        *(f"--workdir={workdir}", f"--data_dir={data_dir}"),
        *(f"--set={field}" for field in fields),
        *more,
    ]


def run(*arguments, **options) -> subprocess.CompletedProcess:
    return subprocess.run(arguments[0], capture_output=True, text=True, check=False, **options)


def run_here(arguments: list[str]) -> int:
    """The same command without the seconds that a process of its own takes to start."""
    return command_line.main(["zoo", *arguments[2:]])


def start_until_checkpoint(arguments: list[str], workdir: Path, after: int = 0) -> subprocess.Popen:
    """Start a run and return as soon as a checkpoint later than `after` is there."""
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        steps = [int(p.stem.split("-")[1]) for p in workdir.glob("checkpoints/ckpt-*.index")]
        if max(steps, default=0) > after:
            return process
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    raise AssertionError("no checkpoint in time")


def digest(workdir: Path, name: str) -> str:
    return hashlib.sha256((workdir / "weights" / f"{name}.weights.h5").read_bytes()).hexdigest()


@pytest.mark.parametrize("model", ["pix2pix", pytest.param("pggan", marks=pytest.mark.slow)])
def test_a_killed_run_ends_as_an_undisturbed_one(model, tmp_path, data_dir, capsys):
    # In a process of its own, as the others: what a process built before is in its graphs' names,
    # and TensorFlow may fuse operations by them, which rounds differently.
    assert run(command(model, tmp_path / "whole", data_dir)).returncode == 0
    broken = tmp_path / "broken"
    process = start_until_checkpoint(command(model, broken, data_dir), broken, after=14)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert json.loads((broken / "run.json").read_text())["state"] == "running"
    resumed = run(command(model, broken, data_dir, "--resume=must"))
    assert resumed.returncode == 0, resumed.stderr
    assert "Resuming at step" in resumed.stdout
    assert ("Phases: 4x4 (4 steps, batch 4, 4 x 4 pixels); 8x8 fade (" in resumed.stdout) == (
        model == "pggan"
    )
    one, two = checkpointed(tmp_path / "whole"), checkpointed(broken)
    assert one.keys() == two.keys()
    different = [name for name in one if not np.array_equal(one[name], two[name])]
    assert not different
    record, other = (json.loads((w / "run.json").read_text()) for w in (broken, tmp_path / "whole"))
    for part, name in (("weights", model), ("best", "best")):
        assert digest(tmp_path / "whole", name) == digest(broken, name) == record[part]["sha256"]
        assert record[part] == other[part]
    assert record["validation"] == other["validation"]
    assert record["validation"]["steps"][-1] == 40 and len(record["validation"]["steps"]) > 3
    assert record["state"] == "done"
    assert record["step"] == 40
    assert {p.name for p in (broken / "samples").iterdir()} >= {"step_0000040.png"}

    capsys.readouterr()
    assert run_here(command(model, broken, data_dir)) == 0
    assert "nothing left to do" in capsys.readouterr().out


def test_ctrl_c_leaves_a_run_that_resumes(tmp_path, data_dir):
    workdir = tmp_path / "run"
    process = start_until_checkpoint(command("pix2pix", workdir, data_dir), workdir)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "the same command goes on from there" in errors
    assert "Traceback" not in errors
    record = json.loads((workdir / "run.json").read_text())
    assert record["state"] == "interrupted"
    assert tf.train.latest_checkpoint(str(workdir / "checkpoints")).endswith(f"-{record['step']}")
    assert zoo.load(str(workdir)).weights_hash  # what there is can be looked at


def lookup(**overrides) -> zoo.registry.Entry:
    """Of one network, whose step is built in a third of the time."""
    fields = ["crop=32", "levels=3", "base_filters=4", "norm=batch"]
    return zoo.lookup("encoder_decoder", "ldct/phantom_tiny", "small", overrides, fields)


def test_stops_at_the_first_loss_that_is_not_finite(tmp_path, data_dir, monkeypatch):
    entry = lookup(checkpoint_every=2)
    step = entry.model_class.train_step

    def poisoned(self, batch):
        losses = step(self, batch)
        bad = self.network_optimizer.iterations > 5
        return losses | {"mae": tf.where(bad, float("nan"), losses["mae"])}

    monkeypatch.setattr(entry.model_class, "train_step", poisoned)
    with pytest.raises(FloatingPointError, match="mae is nan at step .*last good checkpoint"):
        training.train(entry, tmp_path / "run", data_dir=data_dir)
    latest = tf.train.latest_checkpoint(str(tmp_path / "run" / "checkpoints"))
    assert latest.endswith("ckpt-4")
    assert all(np.isfinite(v).all() for v in checkpointed(tmp_path / "run").values())
    assert json.loads((tmp_path / "run" / "run.json").read_text())["state"].startswith("failed")


def test_refuses_the_folder_of_another_run(tmp_path, data_dir):
    workdir = tmp_path / "run"
    training.train(lookup(steps=2), workdir, data_dir=data_dir)
    with pytest.raises(ValueError, match="holds another run .learning_rate=0.0005 → 0.1"):
        training.train(lookup(steps=2, learning_rate=0.1), workdir, data_dir=data_dir)
    # What cannot be begun moves nothing aside.
    with pytest.raises(ValueError, match="choose_by: expected auto or one of"):
        wrong = lookup(steps=2, choose_by="dice")
        training.train(wrong, workdir, data_dir=data_dir, resume="never", plan={"model": "other"})
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert not (workdir / "plan.json").exists()
    record = training.train(
        lookup(steps=2, learning_rate=0.1), workdir, data_dir=data_dir, resume="never"
    )
    assert record["recipe"]["learning_rate"] == 0.1
    assert (tmp_path / "run.old1" / "run.json").exists()  # nothing is lost


def test_nothing_to_resume_is_an_error(tmp_path, data_dir):
    with pytest.raises(ValueError, match="resume: expected a run in"):
        training.train(lookup(steps=2), tmp_path / "run", data_dir=data_dir, resume="must")
    assert not (tmp_path / "run").exists()


def interrupted(workdir: Path) -> None:
    """Make a finished run one that stopped after its last checkpoint."""
    record = json.loads((workdir / "run.json").read_text())
    record["state"] = "interrupted"
    (workdir / record.pop("weights")["file"]).unlink()
    (workdir / "run.json").write_text(json.dumps(record))


def test_a_damaged_checkpoint_costs_steps_and_not_the_run(tmp_path, data_dir, capsys):
    entry = lookup(steps=6, checkpoint_every=2)
    run = tmp_path / "rate [1e-4]*"
    training.train(entry, run, data_dir=data_dir)
    undisturbed = zoo.load(str(run)).weights_hash
    interrupted(run)
    data = run / "checkpoints" / "ckpt-6.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:1000])
    record = training.train(entry, run, data_dir=data_dir, resume="must")
    said = capsys.readouterr().out
    assert "cannot be read: ckpt-6" in said and "Resuming at step 4 of 6" in said
    assert zoo.load(str(run)).weights_hash == undisturbed
    assert record["weights"]["sha256"] == digest(run, "encoder_decoder")

    interrupted(run)
    for path in (run / "checkpoints").glob("ckpt-*"):
        path.unlink()
    with pytest.raises(ValueError, match="resume: expected a run in .*Received: no checkpoint"):
        training.train(entry, run, data_dir=data_dir, resume="must")
    training.train(entry, run, data_dir=data_dir)
    assert "had come to step 6, starts again at step 0" in capsys.readouterr().out
    assert zoo.load(str(run)).weights_hash == undisturbed


def test_a_lost_worker_is_said_and_the_same_command_goes_on(tmp_path, data_dir, monkeypatch):
    """Of a process that takes itself for one of two; distribution_test.py kills a real one."""
    entry, workdir, save = lookup(steps=4, checkpoint_every=2), tmp_path / "run", Checkpoints.save

    def lost(checkpoints, step):
        save(checkpoints, step)
        raise tf.errors.UnavailableError(None, None, "Collective ops is aborted")

    workers = tf.train.ClusterSpec({"worker": ["127.0.0.1:1", "127.0.0.1:2"]})
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(workers, "", "worker", 0)
    with monkeypatch.context() as patch:
        patch.setattr(type(tf.distribute.get_strategy()), "cluster_resolver", resolver)
        patch.setattr(Checkpoints, "save", lost)
        with pytest.raises(ConnectionError, match="worker of the cluster was lost after step 2.*"):
            training.train(entry, workdir, data_dir=data_dir, strategy="one")
    assert not list(workdir.glob("weights/*"))
    assert training.train(entry, workdir, data_dir=data_dir, resume="must")["step"] == 4


def test_two_runs_are_not_in_one_folder(tmp_path, data_dir):
    workdir = tmp_path / "run"
    workdir.mkdir()
    code = (
        "import fcntl, sys, time; file = open(sys.argv[1], 'w'); fcntl.lockf(file, fcntl.LOCK_EX);"
        "print('process 7 on host', file=file, flush=True); print('held', flush=True);"
        "time.sleep(60)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, workdir / ".lock"], stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "held\n"
    with pytest.raises(OSError, match=r"another process trains \(process 7 on host\)"):
        training.train(lookup(steps=1), workdir, data_dir=data_dir)
    assert [path.name for path in workdir.iterdir()] == [".lock"]
    other.kill()  # and the system lets go of the lock
    other.communicate()
    training.train(lookup(steps=1), workdir, data_dir=data_dir)


def test_a_folder_that_cannot_be_made_is_found_first(tmp_path):
    (tmp_path / "file").touch()
    for workdir in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(OSError, match="workdir: expected a folder that can be made"):
            training.train(lookup(steps=1), workdir, data_dir=tmp_path / "data")
    assert not list(tmp_path.rglob("*.tfrecord*"))


@pytest.mark.parametrize("part", ["checkpoint", "tensorboard", "weights"])
def test_a_full_disk_is_said_and_leaves_the_state(part, tmp_path, data_dir, monkeypatch):
    error = tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    def full(*_, **__):
        raise OSError(28, "No space left on device") if part == "weights" else error

    place = {
        "checkpoint": (tf.train.Checkpoint, "write"),
        "tensorboard": (tf.summary, "scalar"),
        "weights": (translator.Translator, "save_network"),
    }
    monkeypatch.setattr(*place[part], full)
    with pytest.raises(OSError, match="could not be written. Received: .*No space left"):
        training.train(lookup(steps=2), tmp_path / "run", data_dir=data_dir)
    state = json.loads((tmp_path / "run" / "run.json").read_text())["state"]
    assert state.startswith("failed: ") and "No space left" in state


@pytest.mark.parametrize(
    ("batches", "gpus", "used"),
    [([1], 2, 1), ([2], 2, 2), ([4], 3, 2), ([16, 6], 4, 2), ([12, 6], 4, 3), ([16, 3], 2, 1)],
)
def test_auto_takes_the_gpus_that_divide_every_batch(batches, gpus, used, monkeypatch, capsys):
    there = [tf.config.LogicalDevice(f"GPU:{n}", "GPU") for n in range(gpus)]
    for kind in ("physical", "logical"):
        monkeypatch.setattr(tf.config, f"list_{kind}_devices", lambda *_: there)
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", lambda names: names)
    phases = [Phase(str(n), 1, size) for n, size in enumerate(batches)]
    strategy = devices.make_strategy("auto", phases)
    if used == 1:
        assert strategy is tf.distribute.get_strategy()
    else:
        assert strategy == [device.name for device in there[:used]]
    assert (f"{used} of {gpus} GPUs used" in capsys.readouterr().out) == (used < gpus)
    assert len(devices.make_strategy("mirrored", phases)) == gpus


def test_starts_from_given_weights(tmp_path, data_dir):
    training.train(lookup(steps=2, norm="none"), tmp_path / "a", data_dir=data_dir)
    weights = tmp_path / "a" / "weights" / "encoder_decoder.weights.h5"
    frozen = lookup(steps=1, norm="none", learning_rate=0.0)
    training.train(frozen, tmp_path / "b", data_dir=data_dir, init=weights)
    assert zoo.load(str(tmp_path / "b")).weights_hash == zoo.load(str(tmp_path / "a")).weights_hash


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("dcgan", {"base_filters": 4, "ema": 0.5}),
        ("pggan", {"resolution": 16, "fmap_base": 64, "fmap_max": 8, "latent": 8}),
        ("cyclegan", {"base_filters": 4, "blocks": 1, "crop": 32, "ema": 0.5}),
    ],
)
def test_given_weights_reach_the_network_whose_average_is_served(name, fields, tmp_path):
    first, second = (harness.build(name, fields | {"seed": seed}) for seed in (1, 2))
    first.save_network(tmp_path / "first.weights.h5")
    loading.load_network(second, tmp_path / "first.weights.h5", "")
    second.continue_from_network()
    first, second = (m.trained if name == "cyclegan" else m.generator for m in (first, second))
    for given, received in zip(first.variables, second.variables, strict=True):
        np.testing.assert_array_equal(given, received)


def test_model_and_data_must_suit(tmp_path, data_dir):
    entry = zoo.lookup("pix2pix", "mammo/phantom_tiny", "small")
    with pytest.raises(ValueError, match="pix2pix trains on paired images.*single"):
        training.train(entry, tmp_path / "run", data_dir=data_dir)
    assert not (tmp_path / "run").exists()


def test_a_batch_that_replicas_cannot_share_is_refused(
    tmp_path, data_dir, two_replicas, monkeypatch
):
    monkeypatch.setattr(devices, "make_strategy", lambda *_: two_replicas)
    with pytest.raises(ValueError, match="2 replicas, such as 2 or 4. Received: 3"):
        training.train(lookup(steps=2, batch_size=3), tmp_path / "run", data_dir=data_dir)
    assert not (tmp_path / "run").exists()


def test_the_whole_loop_on_two_replicas_equals_one(tmp_path, data_dir, two_replicas, monkeypatch):
    harness.use_sgd(monkeypatch)
    _, *fields = TINY["pix2pix"]
    fields += ["steps=4", "batch_size=4", "precision=float32"]
    entry = zoo.lookup("pix2pix", "ldct/phantom_tiny", "small", {}, fields)
    training.train(entry, tmp_path / "one", data_dir=data_dir)
    monkeypatch.setattr(devices, "make_strategy", lambda *_: two_replicas)
    training.train(entry, tmp_path / "two", data_dir=data_dir)
    harness.gradient_sums_agree(checkpointed(tmp_path / "one"), checkpointed(tmp_path / "two"))
    one, two = zoo.load(str(tmp_path / "one")), zoo.load(str(tmp_path / "two"))
    start = zoo.load("pix2pix", **entry.recipe.to_dict())
    for a, b, s in zip(one.get_weights(), two.get_weights(), start.get_weights(), strict=True):
        assert np.abs(a - b).max() <= 1e-3 * np.abs(a - s).max() + 1e-6


def test_events_hold_scalars_and_pictures(tmp_path, data_dir):
    workdir = tmp_path / "run"
    training.train(lookup(steps=2, image_every=2), workdir, data_dir=data_dir)
    tags = set()
    for file in os.listdir(workdir / "tensorboard"):
        for event in tf.compat.v1.train.summary_iterator(str(workdir / "tensorboard" / file)):
            tags |= {value.tag for value in event.summary.value}
    assert {"train/mae", "train/loss", "examples"} <= tags
