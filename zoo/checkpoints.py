"""The checkpoints of a run: the last two, found by their numbers and read only when whole."""

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from zoo.atomic import write_atomic
from zoo.errors import contained, reason

_KEPT = 2
_PART = ".part"  # one that is being written
_FILE = re.compile(r"ckpt-(\d+)\.(index$|data-)")


class Checkpoints:
    """What a `tf.train.CheckpointManager` does, for a folder of any name and after any accident.

    TensorFlow's own takes the path for a pattern, so that it neither finds nor removes what lies
    in a folder called `lr=1e-4 [2]`, and believes that the last checkpoint is whole.

    Args:
        state: what a checkpoint holds.
        folder: theirs; it may be new.
    """

    def __init__(self, state: tf.train.Checkpoint, folder: Path):
        self.state = state
        self.folder = folder
        self.good: list[int] = []  # steps whose checkpoints were written or read here

    @property
    def latest(self) -> Path | None:
        """The last one that is known to be whole."""
        return _prefix(self.folder, self.good[-1]) if self.good else None

    def restore(self, folder: Path) -> int | None:
        """Bring back the newest checkpoint of a folder that can be read, and say which cannot.

        Args:
            folder: this one, or another worker's.

        Returns:
            Its step; None where there is no checkpoint.

        Raises:
            ValueError: where there are some and none can be read, or holds this model's state.
        """
        bad = []
        for step in reversed(steps_in(folder)):
            prefix = _prefix(folder, step)
            with _plain(folder) as plain:
                try:
                    _check(_prefix(plain, step))
                except ValueError as error:
                    bad.append(f"{prefix.name} ({reason(error)})")
                    continue
                if bad:
                    print(f"{folder}: cannot be read: {', '.join(bad)}. {prefix.name} is used.")
                with contained(f"{prefix}: expected the state of this model"):
                    read = self.state.read(str(_prefix(plain, step)))
                    read.assert_existing_objects_matched()
            self.good = [step]
            return step
        if bad:
            raise ValueError(
                f"{folder}: expected a checkpoint that can be read; --resume=never starts anew. "
                f"Received: {', '.join(bad)}"
            )
        return None

    def save(self, step: int) -> None:
        """Write one, then remove all but the last two that are whole.

        Raises:
            OSError: where it cannot be written; nothing of it is left, and the others stay.
        """
        prefix = _prefix(self.folder, step)
        part = self.folder / _PART
        try:
            self._clear()
            part.mkdir(parents=True)
            with _plain(part) as plain:
                self.state.write(str(_prefix(plain, step)))
            # The index last: where it is there the rest is.
            for path in sorted(part.iterdir(), key=lambda path: path.suffix == ".index"):
                path.replace(self.folder / path.name)
            kept = [*(s for s in self.good if s != step), step][-_KEPT:]
            # What TensorFlow's own tools read to find the last one.
            lines = [f'model_checkpoint_path: "{prefix.name}"']
            lines += [f'all_model_checkpoint_paths: "ckpt-{s}"' for s in kept]
            write_atomic(self.folder / "checkpoint", ("\n".join(lines) + "\n").encode())
        except (OSError, tf.errors.OpError) as error:
            self._clear()
            raise OSError(f"{prefix}: could not be written. Received: {said(error)}") from error
        self.good = kept
        self._clear()

    def _clear(self) -> None:
        """Remove what was only begun and, once one was saved or read, all but the good ones."""
        shutil.rmtree(self.folder / _PART, ignore_errors=True)
        kept = {f"ckpt-{step}" for step in self.good}
        for path in list(self.folder.iterdir()) if self.folder.is_dir() else []:
            if kept and _FILE.match(path.name) and path.name.split(".")[0] not in kept:
                with contextlib.suppress(OSError):  # of each, so that one keeps no other
                    path.unlink()


def read_network(network: tf.Module, index: Path) -> None:
    """Give a served network the weights that it has in a run's checkpoint.

    Args:
        network: `Translator.network`.
        index: `ckpt-STEP.index`.

    Raises:
        ValueError: for a damaged checkpoint, or that of another model.
    """
    state = tf.train.Checkpoint(model=tf.train.Checkpoint(network=network))
    with _plain(index.parent) as plain:
        prefix = plain / index.stem
        _check(prefix)
        with contained(f"{index}: expected weights of {network.name}"):
            read = state.read(str(prefix))
            read.assert_existing_objects_matched()
            read.expect_partial()


def said(error: Exception) -> str:
    """What TensorFlow says of an error, in one line and without its names of graph nodes."""
    return re.sub(r"\{\{.*?\}\}:? ?|\[Op:\w*\]", "", reason(error)).strip()


@contextlib.contextmanager
def written(path: Path) -> Iterator[None]:
    """What TensorFlow and HDF5 raise where a file cannot be written, as an OSError of one line."""
    try:
        yield
    except (OSError, RuntimeError, tf.errors.OpError) as error:
        raise OSError(f"{path}: could not be written. Received: {said(error)}") from error


def steps_in(folder: Path) -> list[int]:
    """Steps of the checkpoints in a folder, in order; none where there is no folder."""
    if not folder.is_dir():
        return []
    found = (_FILE.match(path.name) for path in folder.iterdir())
    return sorted(int(match[1]) for match in found if match and match[2] == "index")


def _prefix(folder: Path, step: int) -> Path:
    return folder / f"ckpt-{step}"


@contextlib.contextmanager
def _plain(folder: Path) -> Iterator[Path]:
    """The folder by a path that is no pattern and is UTF-8: itself, or a link to it for a while."""
    if not re.search(r"[][*?{}\\\ud800-\udfff]", str(folder)):
        yield folder
        return
    with tempfile.TemporaryDirectory() as temporary:
        link = Path(temporary) / "checkpoints"
        os.symlink(folder.absolute(), link)
        yield link


def _check(prefix: Path) -> None:
    """Read all that a checkpoint holds: TensorFlow compares its checksums.

    Raises:
        ValueError: where it is damaged.
    """
    with contained("damaged"):
        reader = tf.train.load_checkpoint(str(prefix))
        for name in reader.get_variable_to_dtype_map():
            reader.get_tensor(name)
