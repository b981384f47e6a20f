"""`train`: one loop for every model and every `tf.distribute` strategy."""

import contextlib
import dataclasses
import math
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from tqdm import tqdm

from zoo import curves, devices, figures, loading, run
from zoo.atomic import write_json
from zoo.checkpoints import Checkpoints, said, steps_in, written
from zoo.data import batches, folds, prepare
from zoo.data.augment import noise_lost
from zoo.data.facts import example_count, fit_to_data
from zoo.pace import Pace, duration, in_words
from zoo.recipe import DataFacts, Phase, Recipe
from zoo.registry import Entry
from zoo.step import require_ready
from zoo.translator import Translator
from zoo.validation import Validation, new_record

_SECONDS_A_CALL = 1.0  # aim of one call into TensorFlow: Ctrl-C and the bar wait for it
_STEPS_A_CALL = 10  # under several workers
_POINTS = 100  # of each loss in `run.json` and `curves.png`


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
    plan: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Train an entry's model on its data set.

    The run folder receives `run.json`, `checkpoints/`, `tensorboard/`, `samples/`, `curves.png`,
    `weights/best.weights.h5`, chosen by validation, and at the end `weights/<model>.weights.h5`,
    the last ones. Started again with the same arguments a run goes on from its last checkpoint and
    ends with the weights, best and last, that it would have had undisturbed.

    Args:
        entry: model, data set and recipe, from `registry.lookup`.
        workdir: the run folder.
        data_dir: where data sets are kept; None: TFDS's own.
        input: the user's files, for the data set `folder`.
        strategy: one of `STRATEGIES`.
        resume: "auto" goes on where there is something to go on from, "must" insists on it,
            "never" starts anew and moves the old run folder aside.
        init: weights of the served network to begin from.
        plan: what the recipe was made from (`zoo.plan`), kept as `plan.json` in the run folder.

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
    distribution = None if strategy == "auto" else devices.make_strategy(strategy)
    # All that can be refused is refused before anything is downloaded, made or written.
    builder = prepare.load_builder(entry.dataset, data_dir, entry.recipe, input, prepare=False)
    entry = fit_to_data(entry, builder)
    phases = entry.recipe.phases()
    distribution = distribution or devices.make_strategy("auto", phases)
    devices.check_batches(phases, distribution.num_replicas_in_sync)
    chief = distribution.cluster_resolver is None or devices.is_chief(distribution)
    with contextlib.ExitStack() as held:
        if chief:
            held.enter_context(run.claimed(workdir))
        resumable = bool(steps_in(workdir / "checkpoints"))
        defaults = type(entry.recipe)().to_dict()
        record = run.begin(workdir, _settings(entry, builder), defaults, resume, resumable)
        weights = (record.get("weights") or {}).get("file")
        if record["state"] == "done" and weights and (workdir / weights).exists():
            early = f" of {entry.recipe.steps}" if record["step"] < entry.recipe.steps else ""
            print(f"{workdir}: finished at step {record['step']}{early}; nothing left to do.")
            return record
        builder = prepare.prepare_builder(builder)
        if chief:
            prepare.warn_of_bad_files(builder)
        tf.config.set_soft_device_placement(True)
        with distribution.scope():
            model = loading.build(entry)
            model.compile()
            require_ready(model)
            step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
            if init is not None:
                loading.load_network(model, init, "")
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
            "precision": devices.resolve_precision(entry.recipe.precision),
        }
        loop = _Loop(
            model=model,
            phases=phases,
            step=step,
            distribution=distribution,
            builder=builder,
            facts=entry.facts,
            checkpoints=checkpoints,
            workdir=workdir,
            record=record,
            chief=chief,
        )
        loop.announce(entry)
        loop.prepare()
        # From here on nothing is refused but what the images themselves say.
        if chief and resume == "never" and run.exists(workdir):
            run.move_aside(workdir)
            held.enter_context(run.claimed(workdir))
        if chief and plan is not None:
            write_json(workdir / "plan.json", plan)
        loop.run()
    return record


def _settings(entry: Entry, builder: tfds.core.DatasetBuilder) -> dict[str, Any]:
    """What makes a run what it is, as `run.json` names it."""
    return {
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


@dataclasses.dataclass(eq=False, kw_only=True)
class _Loop:
    """The steps of a run, with checkpoints, validations, progress and pictures around them."""

    model: Translator
    phases: list[Phase]
    step: tf.Variable
    distribution: tf.distribute.Strategy
    builder: tfds.core.DatasetBuilder
    facts: DataFacts
    checkpoints: Checkpoints
    workdir: Path
    record: dict[str, Any]
    chief: bool
    stop: bool = False  # the user wishes it
    ended: bool = False  # patience is at its end
    validation: Validation | None = None

    def __post_init__(self) -> None:
        self.recipe: Recipe = self.model.recipe
        self.total = sum(phase.steps for phase in self.phases)
        self.sums: dict[str, float] = {}  # of the losses since their last point
        self.summed = 0  # steps

    def announce(self, entry: Entry) -> None:
        """Say what the run will do."""
        split = example_count(self.builder, "train", self.recipe.fold)
        print(
            f"{entry.model} ({entry.preset} recipe) on {entry.dataset}: {self.total} steps over "
            f"{split} training images, {self.record['precision']}, strategy "
            f"{self.record['strategy']} ({self.record['replicas']} replica(s)), into {self.workdir}"
        )
        if self.recipe.fold:
            print(folds.words(self.builder, self.recipe.fold))
        if lost := noise_lost(entry.dataset, self.facts, self.recipe):
            print(lost)

    def prepare(self) -> None:
        """How the run is validated, what it has been through, and about how long it takes here."""
        record, precision = self.record, self.record["precision"]
        # What a step of each phase costs.
        flops, axes = [], self.recipe.dimensions
        taken = self.recipe.crop_sides or self.facts.target_shape or (256,) * axes
        for phase in self.phases:
            sides = (phase.size,) * axes if phase.size else taken
            flops.append(self.model.training_flops(phase, sides) * self.recipe.accumulate)
        # The schedule of a run that goes on is the one with which it began.
        about = self.model, self.builder, self.facts, self.phases
        if "validation" not in record:
            record["validation"] = new_record(*about, flops, precision)
        if record["validation"]:
            self.validation = Validation(*about, record["validation"])
        # What came after the checkpoint from which it goes on will come again.
        done = int(self.step.numpy())
        record.setdefault("losses", {"steps": [], "values": {}})
        curves.cut(record["losses"], done)
        if self.validation:
            curves.cut(self.validation.record, done)
        if not (self.validation and self.validation.holds(record.get("best"), self.workdir, done)):
            record.pop("best", None)
        # What to expect of it.
        speed = devices.device_speed(precision) * record["replicas"]
        self.pace = Pace(self.phases, flops, speed)
        if len(self.phases) > 1:
            print("Phases: " + "; ".join(map(in_words, self.phases)) + ".")
        if self.validation:
            print(self.validation.describe())
        if done:
            print(f"Resuming at step {done} of {self.total}.")
        print(f"This takes about {duration(self._left(done))} here.", flush=True)

    def _left(self, now: int) -> float:
        """Seconds from a step to the end."""
        return self.pace.left(now, self.validation.left(now) if self.validation else 0)

    def run(self) -> None:
        self._write_record()
        self.writer = tf.summary.create_noop_writer()
        if self.chief:
            self.writer = tf.summary.create_file_writer(os.fsencode(self.workdir / "tensorboard"))
        # Ctrl-C and SIGTERM end the run after a step, with a checkpoint.
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
        self.told = False  # the pace that was measured
        # Phase after phase; however the run ends, `run.json` says how.
        try:
            with self.bar:
                first, images = 0, 0
                if self._due(int(self.step.numpy())):  # killed between checkpoint and validation
                    self._validate(int(self.step.numpy()))
                for phase in self.phases:
                    if int(self.step.numpy()) < first + phase.steps and not self.ended:
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
        dataset = batches.train_dataset(
            self.builder,
            self.recipe,
            batch_size=phase.batch_size,
            size=phase.size,
            first_example=(images + done * phase.batch_size) * self.recipe.accumulate,
            unpaired=self.model.data == "unpaired",
            facts=self.facts,
        )
        iterator = iter(self.distribution.experimental_distribute_dataset(dataset))
        call = self._function(iterator)
        self.bar.set_description(phase.name)
        chunk, last = 1, first + phase.steps
        every = [self.recipe.image_every, self.recipe.checkpoint_every]
        if self.validation:
            every.append(self.validation.record["every"])
        while (now := int(self.step.numpy())) < last and not self.ended:
            steps = min(chunk, last - now, *(e - now % e for e in every))
            started = time.monotonic()
            count = steps * self.recipe.accumulate
            losses = {k: float(v) / count for k, v in call(iterator, tf.constant(count)).items()}
            seconds = (time.monotonic() - started) / steps
            if self.distribution.cluster_resolver is not None:
                # A collective's key holds the loop's iteration: calls of different lengths on two
                # workers would wait for each other for ever.
                chunk = _STEPS_A_CALL
            elif chunk > 1 or now > first + done:  # the first call compiles
                chunk = int(np.clip(_SECONDS_A_CALL / seconds, 1, 50))
            if now > first + done:
                self.pace.measured(phase, steps, seconds * steps)
            now = int(self.step.assign_add(steps).numpy())
            self._check(losses, now)
            self._tell(losses, now, steps, phase)
            if now % self.recipe.image_every == 0 or now == self.total:
                self._pictures(now)
            due = self._due(now)
            if due or now % self.recipe.checkpoint_every == 0 or now == last or self.stop:
                self._save(now)
            if self.stop:
                self._save_weights()
                raise Interrupted(
                    f"stopped at step {now} of {self.total}; the same command goes on from there."
                )
            if due:
                self._validate(now)

    def _function(self, iterator):
        """The steps of so many batches in one call, and the sums of their losses."""

        @tf.function(autograph=False)  # a step has no Python control flow on tensors
        def one(batch):
            losses = self.distribution.run(self.model.train_step, args=(batch,))
            return {
                name: tf.cast(self.distribution.reduce("MEAN", value, axis=None), tf.float32)
                for name, value in losses.items()
            }

        names = sorted(one.get_concrete_function(iterator.element_spec).structured_outputs)

        @tf.function(reduce_retracing=True)
        def run(iterator, count):
            # One copy of the step: TensorFlow may fuse another one differently, and which of them
            # runs would depend on how many a call makes, and so on the machine's load.
            sums = {name: tf.zeros([]) for name in names}
            for _ in tf.range(count):
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
        self._remember(losses, now, steps)
        if not (self.chief and self.bar.disable):
            return
        left = f"{duration(self._left(now))} left" if now < self.total else ""
        if (10 * now) // self.total > (10 * (now - steps) // self.total):
            print(
                f"step {now}/{self.total} ({phase.name}): "
                + ", ".join(f"{name}={value}" for name, value in shown.items())
                + (f"; {left}" if left else ""),
                flush=True,
            )
        elif left and self.pace.known and not self.told:
            print(f"About {left}, measured.", flush=True)
        self.told |= self.pace.known

    def _remember(self, losses: dict[str, float], now: int, steps: int) -> None:
        """Means of the losses for `run.json`, over a hundredth of the run each."""
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + steps * value
        self.summed += steps
        if self.summed * _POINTS >= self.total or now == self.total:
            means = {name: total / self.summed for name, total in self.sums.items()}
            curves.append(self.record["losses"], now, means)
            self.sums, self.summed = {}, 0

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
            run.write(self.workdir, self.record)

    def _save_weights(self) -> None:
        if self.chief:
            self.record["weights"] = self._write_weights(self.model.name)

    def _write_weights(self, name: str) -> dict[str, Any]:
        """Write `weights/<name>.weights.h5`; returns what `run.json` says of it."""
        path = self.workdir / "weights" / f"{name}.weights.h5"
        with written(path):
            sha256 = self.model.save_network(path)
        file = str(path.relative_to(self.workdir))
        return {"file": file, "sha256": sha256, "step": int(self.step.numpy())}

    def _due(self, now: int) -> bool:
        return self.validation is not None and self.validation.due(now)

    def _validate(self, now: int) -> None:
        """Validate, keep the weights where they are the best so far, and see whether to go on.

        A checkpoint of this step is there already: whoever goes on from it validates again, with
        the same figures, where `run.json` does not have them yet.
        """
        held_out = self.validation
        assert held_out is not None
        if self.chief and not held_out.done(now):
            started = time.monotonic()
            figures = held_out.add(now)
            with written(self.workdir / "tensorboard"), self.writer.as_default():
                for name, value in figures.items():
                    tf.summary.scalar(f"validation/{name}", value, step=now)
            best = held_out.best()
            if best and best[0] == now:
                chosen = {"measure": held_out.record["choose_by"], "value": best[1]}
                self.record["best"] = self._write_weights("best") | chosen
            self._write_record()
            if len(held_out.record["steps"]) > 1:
                path = self.workdir / "curves.png"
                title = f"{self.record['model']} on {self.record['dataset']}"
                with written(path):
                    held_out.draw(path, title, self.record["losses"])
            self.pace.validation = time.monotonic() - started
        if self.recipe.patience and now < self.total:
            stale = self.chief and held_out.stale(now) >= self.recipe.patience
            self.ended = self._any_worker(stale)

    def _any_worker(self, wish: bool) -> bool:
        """Whether any of the workers wishes it; all of them ask after the same step."""
        if self.distribution.cluster_resolver is None:
            return wish
        wishes = self.distribution.run(lambda: tf.constant(float(wish)))
        return bool(self.distribution.reduce("SUM", wishes, axis=None) > 0)

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
                batches.eval_dataset(
                    self.builder,
                    self._held_out_split(),
                    limit=4,
                    scale=self.recipe.scale,
                    fold=self.recipe.fold,
                )
            )
        return self._held_out

    def _held_out_split(self) -> str:
        splits = self.builder.info.splits
        if self.recipe.fold:
            return "validation"
        return next((s for s in ("validation", "test") if s in splits), "train")

    def _finish(self) -> None:
        if not self.chief:
            shutil.rmtree(self.checkpoints.folder)  # only the chief's checkpoints count
            return
        self._save_weights()
        best, now = self.record.get("best"), int(self.step.numpy())
        self.record["state"] = "done"
        self.record["step"] = now
        self._write_record()
        if self.ended and best:
            print(f"Stopped at step {now} of {self.total}: {self.recipe.patience} validations in "
                  f"a row were no better than that of step {best['step']}.")  # fmt: skip
        if best and best["step"] != now:
            print(f"The best weights are those of step {best['step']}: validation "
                  f"{best['measure']} {best['value']}.")  # fmt: skip
        print(
            f"Done: {self.workdir}/{(best or self.record['weights'])['file']}. Look at "
            f"{self.workdir}/samples, or: tensorboard --logdir={self.workdir}"
        )

    def _on_signal(self, number: int, frame: Any) -> None:
        if self.stop:
            raise KeyboardInterrupt
        self.stop = True
        print("\nStopping after this step, with a checkpoint …", flush=True)
