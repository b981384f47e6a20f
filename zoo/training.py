"""`train`: one loop for every model and every `tf.distribute` strategy."""

import contextlib
import dataclasses
import errno
import fcntl
import json
import math
import os
import platform
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from tqdm import tqdm

from zoo import figures, pipeline, registry, translator
from zoo.atomic import allocate, write_json
from zoo.checkpoints import Checkpoints, said, steps_in, written
from zoo.imaging.volume import reason
from zoo.imaging.windows import MEASUREMENTS, Domain
from zoo.recipe import Phase, Recipe
from zoo.registry import Entry
from zoo.translator import Translator

STRATEGIES = ("auto", "one", "mirrored", "multi_worker", "tpu")
# Fields that change what is written on the way and not the weights at the end.
_FREE_FIELDS = {"image_every", "checkpoint_every", "tile", "allow_shared_patients"}
_SECONDS_A_CALL = 1.0  # aim of one call into TensorFlow: Ctrl-C and the bar wait for it
_STEPS_A_CALL = 10  # under several workers


_RESERVE = 2**16  # bytes kept free for the state of a run that a full disk ends


class Interrupted(KeyboardInterrupt):
    """The run stopped at the user's wish and can be resumed."""


def train(
    entry: Entry,
    workdir: Path,
    *,
    data_dir: Path | None = None,
    input: Path | None = None,
    strategy: str = "auto",
    resume: str = "auto",
    init: Path | None = None,
) -> dict[str, Any]:
    """Train an entry's model on its data set.

    The run folder receives `run.json`, `checkpoints/`, `tensorboard/`, `samples/` and, at the
    end, `weights/<model>.weights.h5`. Started again with the same arguments a run goes on from
    its last checkpoint and ends with the weights that it would have had undisturbed.

    Args:
        entry: model, data set and recipe, from `registry.lookup`.
        workdir: the run folder.
        data_dir: where data sets are kept; None: TFDS's own.
        input: the user's files, for the data set `folder`.
        strategy: one of `STRATEGIES`.
        resume: "auto" goes on where there is something to go on from, "must" insists on it,
            "never" starts anew and moves the old run folder aside.
        init: weights of the served network to begin from.

    Returns:
        The content of `run.json`.

    Raises:
        ValueError: for a data set that does not suit the model, or a run folder of another run.
        FloatingPointError: at the first loss that is not finite.
        ConnectionError: where another worker is lost.
        Interrupted: after Ctrl-C or SIGTERM, with a checkpoint written.
    """
    if resume not in ("auto", "must", "never"):
        raise ValueError(f"resume: expected auto, must or never. Received: {resume}")
    workdir = Path(os.path.expanduser(workdir))
    # Several workers must find each other before TensorFlow does anything else.
    if strategy == "auto" and "TF_CONFIG" in os.environ:
        strategy = "multi_worker"
    distribution = None if strategy == "auto" else make_strategy(strategy)
    # All that can be refused is refused before anything is downloaded, made or written.
    builder = pipeline.load_builder(entry.dataset, data_dir, entry.recipe, input, prepare=False)
    entry = fit_to_data(entry, builder)
    phases = entry.recipe.phases()
    distribution = distribution or make_strategy("auto", phases)
    _check_batches(phases, distribution.num_replicas_in_sync)
    chief = distribution.cluster_resolver is None or _is_chief(distribution)
    with contextlib.ExitStack() as held:
        if chief:
            held.enter_context(_claimed(workdir))
        if chief and resume == "never" and (workdir / "run.json").exists():
            _move_aside(workdir)
            held.enter_context(_claimed(workdir))
        record = _run_record(entry, builder, workdir, resume)
        weights = (record.get("weights") or {}).get("file")
        if record["state"] == "done" and weights and (workdir / weights).exists():
            print(f"{workdir}: finished at step {record['step']}; nothing left to do.")
            return record
        builder = pipeline.prepare_builder(builder)
        if chief:
            pipeline.warn_of_bad_files(builder)
        tf.config.set_soft_device_placement(True)
        with distribution.scope():
            model = translator.build(entry)
            model.compile()
            step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
            if init is not None:
                translator.load_network(model, init, "")
                model.continue_from_network()
        folder = workdir / ("checkpoints" if chief else f"checkpoints-{os.getpid()}")
        checkpoints = Checkpoints(tf.train.Checkpoint(model=model, step=step), folder)
        resumed = None
        if resume != "never":
            resumed = checkpoints.restore(workdir / "checkpoints")
        if resumed is None and record["step"]:
            print(f"{workdir}: its checkpoints are gone. The run, which had come to step "
                  f"{record['step']}, starts again at step 0.")  # fmt: skip
            record["step"] = 0
        record |= {
            "state": "running",
            "strategy": type(distribution).__name__.replace("_DefaultDistributionStrategy", "one"),
            "replicas": distribution.num_replicas_in_sync,
            "precision": translator.resolve_precision(entry.recipe.precision),
        }
        loop = _Loop(
            model, phases, step, distribution, builder, checkpoints, workdir, record, chief
        )
        loop.announce(entry)
        loop.run()
    return record


def fit_to_data(entry: Entry, builder: tfds.core.DatasetBuilder) -> Entry:
    """The entry with the data set's domains, refused where model and data do not suit.

    Raises:
        ValueError: naming what the model takes and what the data set has.
    """
    cls, recipe = entry.model_class, entry.recipe
    metadata, features = dict(builder.info.metadata), builder.info.features

    def refuse(what: str) -> ValueError:
        fitting = registry.fitting(entry.model), registry.fitting(entry.dataset.split("/")[0])
        hints = zip((entry.model, entry.dataset), fitting, strict=True)
        suits = "; ".join(
            f"what suits {name}: {', '.join(there)}" for name, there in hints if there
        )
        return ValueError(f"dataset: {what} ({suits}). Received: {entry.model} on {entry.dataset}")

    kind, axes = metadata["kind"], metadata.get("dimensions", 2)
    if kind != cls.data and (kind, cls.data) != ("paired", "unpaired"):
        raise refuse(f"{entry.model} trains on {cls.data} images, and these are {kind}")
    if axes != recipe.dimensions:
        raise refuse(
            f"dimensions: the recipe is for images of {recipe.dimensions} axes, "
            f"and these have {axes}"
        )
    if metadata.get("scales") and recipe.scale == 1:
        raise refuse("the sources are smaller than the targets, which is for super-resolution")
    source, target = pipeline.domains(builder, recipe)
    if entry.source is not None:
        source = _kept_window(source, entry.source, recipe.source_window, "source_unit")
        window = recipe.target_window or recipe.source_window
        target = _kept_window(target, entry.target, window, "target_unit")
    given = MEASUREMENTS.get(source.unit, "images")
    if given not in cls.takes:
        also = metadata.get("images", "")
        also = f"; {also} has them as images" if also and "images" in cls.takes else ""
        takes = " or ".join(cls.takes)
        raise refuse(f"{entry.model} takes {takes}, and the sources are {given}{also}")
    facts = data_facts(builder, recipe)
    if getattr(recipe, "classes", 0):
        window = (0.0, recipe.classes - 1.0)
        target = dataclasses.replace(target, modality="SEG", unit="class", window=window)
    if target.unit == "class" and not cls.classifies:
        raise refuse(f"{entry.model} learns intensities, and the targets are classes")
    missing = [name for name in recipe.extra_features if name not in features]
    if missing:
        raise refuse(f"the recipe needs {missing[0]}, which the data lack")
    shapes = facts.source_shape, facts.target_shape
    fits = None in shapes or tuple(s * recipe.scale for s in shapes[0]) == shapes[1]
    if cls.data == "paired" and given == "images" and not fits:
        raise refuse(
            f"the recipe makes images {recipe.scale} times as large as its input, "
            f"and sources are {shapes[0]}, targets {shapes[1]}"
        )
    if target.unit == "class" and not recipe.label_names:
        recipe = dataclasses.replace(recipe, label_names=facts.label_names)
    recipe = cls.resolve(recipe, facts)
    sides = (recipe.crop // recipe.scale,) if recipe.crop else facts.source_shape or ()
    if any(side % recipe.size_multiple for side in sides):
        name = "crop" if recipe.crop else "dataset"
        raise ValueError(
            f"{name}: {entry.model} with this recipe takes sides that are multiples of "
            f"{recipe.size_multiple}; set crop to one. Received: {'x'.join(map(str, sides))}"
        )
    return dataclasses.replace(
        entry, recipe=recipe, source=source.to_dict(), target=target.to_dict()
    )


def _kept_window(
    domain: Domain, stored: dict, given: tuple[float, float] | None, field: str
) -> Domain:
    """The data's domain with the window that stored weights were trained in.

    Raises:
        ValueError: where the data are of another unit, whose numbers the weights never saw.
    """
    if domain.unit != stored["unit"]:
        raise ValueError(
            f"init: its weights take {stored['unit']}, and a window in it; "
            f"`--set {field}={stored['unit']}` says that your own files hold it. "
            f"Received: data in {domain.unit}"
        )
    return domain if given else dataclasses.replace(domain, window=tuple(stored["window"]))


def data_facts(builder: tfds.core.DatasetBuilder, recipe: Recipe) -> translator.DataFacts:
    """What of a data set a recipe may depend on."""
    features, metadata = builder.info.features, dict(builder.info.metadata)
    keys = pipeline.image_keys(builder, recipe.scale)
    shapes = [features[key].shape[:-1] for key in (keys[0], keys[-1])]
    shapes = [None if None in shape else tuple(shape) for shape in shapes]
    return translator.DataFacts(
        source_shape=shapes[0],
        target_shape=shapes[1],
        class_names=tuple(features["label"].names) if "label" in features else (),
        label_names=tuple(metadata.get("label_names") or ()),
    )


def make_strategy(name: str, phases: Sequence[Phase] = ()) -> tf.distribute.Strategy:
    """A `tf.distribute` strategy; "auto" takes what the machine and TF_CONFIG ask for.

    Of several GPUs "auto" takes as many as divide the batch of every phase, and says so where it
    leaves some idle; "mirrored" takes all of them.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in STRATEGIES:
        raise ValueError(f"strategy: expected one of {STRATEGIES}. Received: {name}")
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
    sizes = [phase.batch_size for phase in phases]
    return next(n for n in range(devices, 0, -1) if n == 1 or not any(s % n for s in sizes))


def _check_batches(phases: Sequence[Phase], replicas: int) -> None:
    """A ValueError, with batch sizes that fit, where replicas cannot share a phase's batch."""
    for phase in phases:
        if phase.batch_size % replicas:
            above = -(-phase.batch_size // replicas) * replicas
            fit = f"{above - replicas} or {above}" if above > replicas else f"{above}"
            raise ValueError(
                f"batch_size: expected a multiple of the {replicas} replicas, such as {fit}. "
                f"Received: {phase.batch_size} in the phase {phase.name}"
            )


def _is_chief(distribution: tf.distribute.Strategy) -> bool:
    resolver = distribution.cluster_resolver
    return resolver.task_type in (None, "", "chief") or (
        resolver.task_type == "worker"
        and resolver.task_id == 0
        and "chief" not in resolver.cluster_spec().jobs
    )


@contextlib.contextmanager
def _claimed(workdir: Path) -> Iterator[None]:
    """The run folder, made where it is not there, and kept from other runs while the block runs.

    The system lets go of the lock when the process ends, however it ends.

    Raises:
        OSError: for a folder that cannot be made or written, or in which another run goes on.
    """
    made = not workdir.exists()
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
        lock = os.fdopen(os.open(workdir / ".lock", flags, 0o666), "r+", errors="replace")
    except OSError as error:
        raise OSError(
            f"workdir: expected a folder that can be made and written. "
            f"Received: {workdir} ({error.strerror or reason(error)})"
        ) from error
    with lock:
        _lock(lock, workdir)
        try:
            yield
        finally:
            if not (workdir / "run.json").exists():  # refused before it began
                (workdir / ".lock").unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    if made:
                        workdir.rmdir()


def _lock(file: TextIO, workdir: Path) -> None:
    """Lock a file for this process alone, and write into it which one that is.

    Raises:
        BlockingIOError: where another process holds it.
    """
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # POSIX: no child process inherits it
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            print(f"{workdir}: its file system has no locks; see that no other run is in it.")
            return
        file.seek(0)
        holder = " ".join(file.read(200).replace("\0", "").split()) or "unknown"
        raise BlockingIOError(
            f"workdir: expected a folder without a run that goes on. "
            f"Received: {workdir}, in which another process trains ({holder})"
        ) from error
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    allocate(file.fileno(), _RESERVE)


def _move_aside(workdir: Path) -> None:
    number = 1
    while (aside := workdir.with_name(f"{workdir.name}.old{number}")).exists():
        number += 1
    workdir.rename(aside)
    print(f"{workdir}: the run that was there is now {aside}.")


def _run_record(entry: Entry, builder: Any, workdir: Path, resume: str) -> dict[str, Any]:
    """What `run.json` says, or will say of a new run.

    Raises:
        ValueError: for a run with other settings, or none where there must be one.
    """
    path = workdir / "run.json"
    wanted = {
        "model": entry.model,
        "dataset": entry.dataset,
        "dataset_version": str(builder.version),
        "dataset_config": builder.builder_config.name if builder.builder_config else "",
        "preset": entry.preset,
        "seed": entry.recipe.seed,
        "recipe": entry.recipe.to_dict(),
        "source": entry.source,
        "target": entry.target,
    }
    if resume == "must" and not steps_in(workdir / "checkpoints"):
        there = "no checkpoint" if path.exists() else "no run.json"
        raise ValueError(
            f"resume: expected a run in {workdir} to go on with. Received: {there} there"
        )
    if resume == "never" or not path.exists():
        return wanted | {
            "state": "new",
            "step": 0,
            "metrics": {},
            "versions": {
                "python": platform.python_version(),
                "tensorflow": tf.__version__,
                "keras": keras.__version__,
                "tensorflow_datasets": tfds.__version__,
                "numpy": np.__version__,
                "zoo": sys.modules["zoo"].__version__,
            },
        }
    record = {"metrics": {}} | registry.read_run(workdir)
    changed = _changes(record, json.loads(json.dumps(wanted)))
    if changed:
        raise ValueError(
            f"workdir: {workdir} holds another run ({', '.join(changed)}). Choose another "
            f"--workdir, or --resume=never to start anew; to go on training its model, "
            f"--init={workdir}"
        )
    return record


def _changes(record: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """What differs between a run and the one that is asked for, as "field=old → new"."""
    changed = []
    for field, new in wanted.items():
        old = record.get(field)
        if field in ("source", "target") and isinstance(old, dict):
            old = {"plane": None} | old  # runs from before domains had one
        if field == "recipe":
            names = [k for k in new if k not in _FREE_FIELDS and old.get(k) != new[k]]
            changed += [f"{k}={old.get(k)} → {new[k]}" for k in names]
        elif old != new:
            changed.append(f"{field}={old} → {new}")
    return changed


class _Loop:
    """The steps of a run, with checkpoints, progress and pictures around them."""

    def __init__(
        self, model, phases, step, distribution, builder, checkpoints, workdir, record, chief
    ):
        self.model: Translator = model
        self.recipe: Recipe = model.recipe
        self.phases: list[Phase] = phases
        self.step: tf.Variable = step
        self.distribution: tf.distribute.Strategy = distribution
        self.builder: tfds.core.DatasetBuilder = builder
        self.checkpoints: Checkpoints = checkpoints
        self.workdir: Path = workdir
        self.record: dict[str, Any] = record
        self.chief: bool = chief
        self.total = sum(phase.steps for phase in phases)
        self.stop = False

    def announce(self, entry: Entry) -> None:
        """Say what the run will do, and about how long that takes here."""
        done = int(self.step.numpy())
        split = pipeline.example_count(self.builder, "train")
        print(
            f"{entry.model} ({entry.preset} recipe) on {entry.dataset}: {self.total} steps over "
            f"{split} training images, {self.record['precision']}, strategy "
            f"{self.record['strategy']} ({self.record['replicas']} replica(s)), into {self.workdir}"
        )
        if lost := pipeline.noise_lost(self.builder, self.recipe):
            print(lost)
        if done:
            print(f"Resuming at step {done} of {self.total}.")
        print(f"This takes about {_duration(self._estimate(done))} here.", flush=True)

    def _estimate(self, done: int) -> float:
        speed = device_speed(self.record["precision"]) * self.record["replicas"]
        seconds, first = 0.0, 0
        for phase in self.phases:
            left = min(phase.steps, max(0, first + phase.steps - done))
            if left:
                shape = data_facts(self.builder, self.recipe).target_shape
                size = phase.size or self.recipe.crop or max(shape or [256])
                overhead = 0.02
                seconds += left * (self.model.training_flops(phase, size) / speed + overhead) + 20
            first += phase.steps
        return seconds

    def run(self) -> None:
        self._write_record()
        self.writer = tf.summary.create_noop_writer()
        if self.chief:
            self.writer = tf.summary.create_file_writer(os.fsencode(self.workdir / "tensorboard"))
        previous = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
        for number in previous:
            signal.signal(number, self._on_signal)
        self.bar = tqdm(
            total=self.total,
            initial=int(self.step.numpy()),
            unit="step",
            smoothing=0.05,
            disable=None if self.chief else True,  # None: where the output is no terminal
            mininterval=0.5,
            dynamic_ncols=True,
        )
        self.started = time.monotonic(), int(self.step.numpy())
        try:
            with self.bar:
                first, images = 0, 0
                for phase in self.phases:
                    if int(self.step.numpy()) < first + phase.steps:
                        self._phase(phase, first, images)
                    first += phase.steps
                    images += phase.steps * phase.batch_size
            with written(self.workdir / "tensorboard"):
                self.writer.close()
            self._finish()
        except Interrupted:
            self._write_state("interrupted")
            raise
        except tf.errors.OpError as error:
            if self.distribution.cluster_resolver is None:
                self._write_state(f"failed: {said(error)}")
                raise
            raise ConnectionError(
                f"a worker of the cluster was lost after step {int(self.step.numpy())}. Start all "
                f"workers again with the same command: the run goes on from its last checkpoint, "
                f"{self.checkpoints.latest}. Received: {said(error)}"
            ) from error
        except Exception as error:
            self._write_state(f"failed: {said(error)}")
            raise
        finally:
            with contextlib.suppress(tf.errors.OpError):
                self.writer.close()
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _phase(self, phase: Phase, first: int, images: int) -> None:
        done = int(self.step.numpy()) - first
        self.model.enter(phase)
        if done == 0:
            self.model.begin(phase)
        dataset = pipeline.train_dataset(
            self.builder,
            self.recipe,
            batch_size=phase.batch_size,
            size=phase.size,
            first_example=images + done * phase.batch_size,
            unpaired=self.model.data == "unpaired",
        )
        iterator = iter(self.distribution.experimental_distribute_dataset(dataset))
        run = self._function(iterator)
        self.bar.set_description(phase.name)
        chunk, last = 1, first + phase.steps
        every = [self.recipe.image_every, self.recipe.checkpoint_every]
        while (now := int(self.step.numpy())) < last:
            steps = min(chunk, last - now, *(e - now % e for e in every))
            started = time.monotonic()
            losses = {k: float(v) / steps for k, v in run(iterator, tf.constant(steps)).items()}
            seconds = (time.monotonic() - started) / steps
            if self.distribution.cluster_resolver is not None:
                # A collective's key holds the loop's iteration: calls of different lengths on two
                # workers would wait for each other for ever.
                chunk = _STEPS_A_CALL
            elif chunk > 1 or now > first + done:  # the first call compiles
                chunk = int(np.clip(_SECONDS_A_CALL / seconds, 1, 50))
            now = int(self.step.assign_add(steps).numpy())
            self._check(losses, now)
            self._tell(losses, now, steps, phase)
            if now % self.recipe.image_every == 0 or now == self.total:
                self._pictures(now)
            if now % self.recipe.checkpoint_every == 0 or now == last or self.stop:
                self._save(now)
            if self.stop:
                self._save_weights()
                raise Interrupted(
                    f"stopped at step {now} of {self.total}; the same command goes on from there."
                )

    def _function(self, iterator):
        """`steps` optimisation steps in one call, and the sums of their losses."""

        @tf.function(autograph=False)  # a step has no Python control flow on tensors
        def one(batch):
            losses = self.distribution.run(self.model.train_step, args=(batch,))
            return {
                name: tf.cast(self.distribution.reduce("MEAN", value, axis=None), tf.float32)
                for name, value in losses.items()
            }

        names = sorted(one.get_concrete_function(iterator.element_spec).structured_outputs)

        @tf.function(reduce_retracing=True)
        def run(iterator, steps):
            # One copy of the step: TensorFlow may fuse another one differently, and which of them
            # runs would depend on how many steps a call makes, and so on the machine's load.
            sums = {name: tf.zeros([]) for name in names}
            for _ in tf.range(steps):
                losses = one(next(iterator))
                sums = {name: sums[name] + losses[name] for name in names}
            return sums

        return run

    def _tell(self, losses: dict[str, float], now: int, steps: int, phase: Phase) -> None:
        """The losses to TensorBoard, and to the bar or, without a terminal, ten lines of a log."""
        with written(self.workdir / "tensorboard"), self.writer.as_default():
            for name, value in losses.items():
                tf.summary.scalar(f"train/{name}", value, step=now)
        self.record["metrics"]["train"] = losses
        shown = {name: f"{value:.4g}" for name, value in losses.items()}
        self.bar.update(steps)
        self.bar.set_postfix(shown)
        if (
            self.chief
            and self.bar.disable
            and (10 * now) // self.total > (10 * (now - steps) // self.total)
        ):
            began, first = self.started
            left = (time.monotonic() - began) / (now - first) * (self.total - now)
            print(
                f"step {now}/{self.total} ({phase.name}): "
                + ", ".join(f"{name}={value}" for name, value in shown.items())
                + (f"; {_duration(left)} left" if now < self.total else ""),
                flush=True,
            )

    def _check(self, losses: dict[str, float], now: int) -> None:
        bad = [name for name, value in losses.items() if not math.isfinite(value)]
        if bad:
            kept = self.checkpoints.latest
            raise FloatingPointError(
                f"the loss {bad[0]} is {losses[bad[0]]} at step {now}. "
                + (f"The last good checkpoint is {kept}. " if kept else "")
                + "Try a lower learning_rate, another seed or precision=float32."
            )

    def _save(self, now: int) -> None:
        for weight in self.model.trainable_variables:
            if not np.isfinite(weight.numpy()).all():
                raise FloatingPointError(
                    f"the weight {weight.path} is not finite at step {now}; "
                    f"the last good checkpoint is {self.checkpoints.latest}."
                )
        self.checkpoints.save(now)
        self.record["step"] = now
        self._write_record()

    def _write_state(self, state: str) -> None:
        """The state of a run that ends here, where the disk has room for it."""
        self.record["state"] = state
        with contextlib.suppress(OSError):
            os.truncate(self.workdir / ".lock", 0)  # the room kept for this
            self._write_record()

    def _write_record(self) -> None:
        if self.chief:
            write_json(self.workdir / "run.json", self.record)

    def _save_weights(self) -> None:
        if self.chief:
            path = self.workdir / "weights" / f"{self.model.name}.weights.h5"
            with written(path):
                sha256 = self.model.save_network(path)
            self.record["weights"] = {
                "file": str(path.relative_to(self.workdir)),
                "sha256": sha256,
                "step": int(self.step.numpy()),
            }

    def _pictures(self, now: int) -> None:
        if not self.chief:
            return
        picture = self.model.picture(self._examples())
        with written(self.workdir / "tensorboard"), self.writer.as_default():
            tf.summary.image("examples", picture[None], step=now)
        (self.workdir / "samples").mkdir(exist_ok=True)
        path = self.workdir / "samples" / f"step_{now:07d}.png"
        with written(path):
            figures.save_png(path, picture)

    def _examples(self) -> list[dict[str, np.ndarray]]:
        if not hasattr(self, "_held_out"):
            self._held_out = list(
                pipeline.eval_dataset(
                    self.builder, self._held_out_split(), limit=4, scale=self.recipe.scale
                )
            )
        return self._held_out

    def _held_out_split(self) -> str:
        splits = self.builder.info.splits
        return next((s for s in ("validation", "test") if s in splits), "train")

    def _finish(self) -> None:
        if not self.chief:
            shutil.rmtree(self.checkpoints.folder)  # only the chief's checkpoints count
            return
        self._save_weights()
        self.record["state"] = "done"
        self.record["step"] = self.total
        self._write_record()
        print(
            f"Done: {self.workdir}/{self.record['weights']['file']}. Look at "
            f"{self.workdir}/samples, or: tensorboard --logdir={self.workdir}"
        )

    def _on_signal(self, number: int, frame: Any) -> None:
        if self.stop:
            raise KeyboardInterrupt
        self.stop = True
        print("\nStopping after this step, with a checkpoint …", flush=True)


def device_speed(precision: str) -> float:
    """Floating-point operations a second that a convolution reaches on this machine, measured."""
    dtype = tf.bfloat16 if precision == "bfloat16" else tf.float32
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


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(10, round(seconds, -1)):.0f} seconds"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"
