"""Checkpoints in folders of any name, and after accidents."""

import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from zoo.checkpoints import Checkpoints, steps_in

NAMES = ["lr=1e-4 [2]", "a*b?", "{x}", "back\\slash", "Straße 5", "%20#~", os.fsdecode(b"\xff")]


@pytest.fixture
def state():
    return tf.train.Checkpoint(step=tf.Variable(0), weight=tf.Variable(tf.zeros([1000])))


def saved(state, folder: Path, *steps: int) -> Checkpoints:
    checkpoints = Checkpoints(state, folder)
    for step in steps:
        state.step.assign(step)
        state.weight.assign(tf.fill([1000], float(step)))
        checkpoints.save(step)
    return checkpoints


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def data(folder: Path, step: int) -> Path:
    return folder / f"ckpt-{step}.data-00000-of-00001"


@pytest.mark.parametrize("name", NAMES)
def test_the_last_two_are_kept_and_found(name, state, tmp_path):
    folder = tmp_path / name / "checkpoints"
    assert Checkpoints(state, folder).restore(folder) is None
    saved(state, folder, 3, 6, 9, 12)
    assert steps_in(folder) == [9, 12]
    assert len(list(folder.iterdir())) == 5  # two files each, and the names of both
    state.weight.assign(tf.zeros([1000]))
    assert Checkpoints(state, folder).restore(folder) == 12
    np.testing.assert_array_equal(state.weight, np.full(1000, 12.0))


def test_where_the_last_is_damaged_the_one_before_is_used(state, tmp_path, capsys):
    saved(state, tmp_path, 3, 6)
    cut(data(tmp_path, 6))
    checkpoints = Checkpoints(state, tmp_path)
    assert checkpoints.restore(tmp_path) == 3 == state.step.numpy()
    assert "cannot be read: ckpt-6 (damaged: " in capsys.readouterr().out
    checkpoints.save(4)  # and the damaged one is gone
    assert steps_in(tmp_path) == [3, 4]
    assert checkpoints.latest == tmp_path / "ckpt-4"


def test_what_cannot_be_removed_keeps_nothing_else(state, tmp_path):
    (tmp_path / "ckpt-99.index").mkdir()
    saved(state, tmp_path, *range(1, 9))
    assert steps_in(tmp_path) == [7, 8, 99]
    assert Checkpoints(state, tmp_path).restore(tmp_path) == 8


@pytest.mark.parametrize("part", ["bits", "index", "no data"])
def test_every_damage_is_noticed(part, state, tmp_path):
    saved(state, tmp_path, 3, 6)
    if part == "bits":  # as long as it was: TensorFlow's checksums tell
        content = bytearray(data(tmp_path, 6).read_bytes())
        content[len(content) // 2] ^= 1
        data(tmp_path, 6).write_bytes(content)
    elif part == "index":
        cut(tmp_path / "ckpt-6.index")
    else:
        data(tmp_path, 6).unlink()
    assert Checkpoints(state, tmp_path).restore(tmp_path) == 3


def test_none_that_can_be_read_is_one_error(state, tmp_path):
    saved(state, tmp_path, 3, 6)
    cut(data(tmp_path, 3))
    cut(tmp_path / "ckpt-6.index")
    with pytest.raises(
        ValueError, match=r"resume=never .*ckpt-6 \(damaged.*ckpt-3 \(dam"
    ) as caught:
        Checkpoints(state, tmp_path).restore(tmp_path)
    assert "\n" not in str(caught.value)


def test_another_models_state_is_an_error(state, tmp_path):
    saved(state, tmp_path, 3)
    other = tf.train.Checkpoint(step=tf.Variable(0), more=tf.Variable(1.0))
    with pytest.raises(ValueError, match="ckpt-3: expected the state of this model"):
        Checkpoints(other, tmp_path).restore(tmp_path)


def test_what_cannot_be_written_leaves_nothing(state, tmp_path, monkeypatch):
    checkpoints = saved(state, tmp_path, 3)
    there = sorted(tmp_path.iterdir())

    def full(prefix):
        Path(f"{prefix}.data-00000-of-00001").write_bytes(b"half")
        raise tf.errors.ResourceExhaustedError(None, None, "{{node x}} No space left on device")

    monkeypatch.setattr(state, "write", full)
    with pytest.raises(OSError, match=r"ckpt-6: could .*Received: No space left on device$"):
        checkpoints.save(6)
    assert sorted(tmp_path.iterdir()) == there


def test_a_kill_in_the_middle_of_the_first_is_no_checkpoint(state, tmp_path):
    (tmp_path / ".part").mkdir()
    (tmp_path / ".part" / "ckpt-3.index").touch()
    checkpoints = Checkpoints(state, tmp_path)
    assert checkpoints.restore(tmp_path) is None
    checkpoints.save(3)
    assert not (tmp_path / ".part").exists()
