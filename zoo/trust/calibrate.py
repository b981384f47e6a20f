"""`calibrate`: intervals that miss few pixels of a new patient, and the limits of alarms."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import scipy.stats
import tqdm

from zoo import averaging
from zoo.data import prepare
from zoo.data.facts import data_facts
from zoo.evaluation import measure, translation
from zoo.evaluation.examples import (
    Example,
    checked,
    require_finite,
    require_shape,
    translated,
)
from zoo.registry import Entry
from zoo.trust import alarms, structures
from zoo.trust.calibration import Calibration
from zoo.trust.conformal import Misses, require_patients
from zoo.trust.limits import Limits, Usual
from zoo.trust.spread import Spread
from zoo.trust.structures import Segmentations

NONE = "none"  # in place of a spread: alarms alone
_BLOCK = 8  # pixels along a block whose mean error is compared with its mean width


def calibrate(
    entry: Entry,
    *,
    data_dir: Path | None = None,
    input: Path | None = None,
    split: str = "validation",
    ensemble: Sequence[Entry] = (),
    tta: bool = False,
    spread: str = "auto",
    alpha: float = 0.1,
    delta: float = 0.1,
    segmentations: Segmentations | None = None,
) -> tuple[Calibration | None, Limits | None]:
    """Find the factor that makes an entry's spread cover what its data set's patients show.

    And the limits of its alarms, on the same images.

    Args:
        entry: model with weights, data set and recipe, from `registry.lookup`.
        data_dir: where data sets are kept; None: TFDS's own.
        input: the user's files, for the data set `folder`.
        split: whose patients; the network must not have been trained on them.
        ensemble: entries of other models; the mean of all answers.
        tta: average over mirror images and turns, as `zoo.Average` does.
        spread: as `zoo.trust.spread.Spread` takes it; "none" for alarms alone, which need no pairs.
        alpha, delta: see `Calibration`; between 0 and 1.
        segmentations: of the sources of the data set `folder`: the alarm `dice` gets a limit too.

    Returns:
        The calibration, None without a spread; and the limits, None of a single patient.

    Raises:
        ValueError: for too few patients, saying how many are needed, patients that nobody tells
            apart, and as `Spread` and `zoo.Average`.
    """
    # What can be refused at once.
    for name, value in (("alpha", alpha), ("delta", delta)):
        if not 0 < value < 1:
            raise ValueError(f"{name}: expected between 0 and 1. Received: {value:g}")
    if split not in ("validation", "test"):
        raise ValueError(f"split: expected validation or test. Received: {split}")
    if ensemble and split != "test" and any(each.recipe.fold for each in (entry, *ensemble)):
        raise ValueError(
            "split: expected test for models of folds, each of which was trained on what the "
            f"others are validated on. Received: {split}"
        )
    # The patients are counted before any work is done.
    builder = prepare.load_builder(entry.dataset, data_dir, entry.recipe, input, prepare=False)
    builder = prepare.prepare_builder(builder)
    facts = data_facts(builder, entry.recipe)
    alone = spread == NONE
    if facts.kind == "single" or not (facts.aligned or alone):
        raise ValueError(
            "dataset: expected aligned pairs, whose targets are the truth. "
            f"Received: {entry.dataset}"
        )
    size = entry.recipe.phases()[-1].size

    def examples() -> Iterable[Example]:
        found = measure.split_examples(builder, entry.recipe, split, None, size)
        return found if segmentations is None else segmentations.labelled(builder, found)

    patients = {str(each.get("patient", "")) for each in examples()}
    if not alone:
        require_patients(len(patients), alpha, delta)
    model, usual = averaging.build([entry, *ensemble], tta), Usual()
    alarms.require(model)
    if segmentations is not None:
        structures.require(model)

    def seen(example: Example) -> None:
        reference = example["target"] if facts.aligned else None
        given = example["source"], example["output"], reference, example.get("labels")
        for figures, _ in alarms.of_slices(model, *given):
            usual.add(example["patient"], figures)

    # Intervals and alarms of the same answers.
    intervals = None
    if alone:
        keys = ("source", "target") if facts.aligned else ("source",)
        bar = tqdm.tqdm(examples(), desc="calibrate", unit="image", disable=None)
        checks = (_named(checked(each, keys, model.dimensions)) for each in bar)
        for example in translated(model, checks, 1):
            seen(example)
    else:
        given = Spread(model, spread), examples(), entry.dataset, split
        intervals = fitted(*given, alpha=alpha, delta=delta, seen=seen)
    if len(patients) < 2 and not alone:
        return intervals, None
    return intervals, usual.limits(model, entry.dataset, split)


def _named(example: Example) -> Example:
    """A ValueError for an example that does not say whose it is."""
    if not example["patient"]:
        raise ValueError("dataset: expected examples that say whose they are. Received: none")
    return example


def fitted(
    spread: Spread,
    examples: Iterable[Example],
    dataset: str,
    split: str,
    *,
    alpha: float = 0.1,
    delta: float = 0.1,
    seen: Callable[[Example], None] | None = None,
) -> Calibration:
    """The calibration of a spread by examples from anywhere, as `measure.measure` takes them.

    Each is given to `seen` too, with its "output".

    Raises:
        ValueError: as `calibrate`, and for images that are not finite or have other shapes.
    """
    # What is kept of each patient: counts of misses, mean widths, and blocks to correlate.
    model, misses = spread.model, Misses()
    images, kinds = 0, set()
    widths: dict[str, list[float]] = {}
    pieces: dict[str, list[np.ndarray]] = {}
    for each in tqdm.tqdm(examples, desc="calibrate", unit="image", disable=None):
        example = checked(each, ("source", "target"), model.dimensions)
        answer, width = (part[0] for part in spread(example["source"][None]))
        example["output"] = answer
        require_finite(answer, "model", f"its output for {example['name']!r}")
        require_shape(example)
        _named(example)
        if seen is not None:
            seen(example)
        # The pixels that count: air around a patient is easy, and would hide what is missed.
        mask, patient = translation.body(example, model.target), example["patient"]
        kinds.add("all" if mask is None else "body")
        counted = np.ones(answer.shape, bool)
        if mask is not None and mask.any():
            counted = np.broadcast_to(mask, answer.shape)
        error = np.abs(answer - example["target"])
        misses.add(patient, error[counted], width[counted])
        widths.setdefault(patient, []).append(float(width[counted].mean()))
        pieces.setdefault(patient, []).append(blocks(np.stack([error, width]), counted))
        images += 1
    # The factor, and what intervals by it are like.
    factor, risk = misses.factor(alpha, delta)
    means = [float(np.mean(each)) for each in widths.values()]
    return Calibration(
        spread=spread.name,
        average=getattr(model, "note", ""),
        factor=factor,
        alpha=float(alpha),
        delta=float(delta),
        risk=risk,
        patients=len(means),
        images=images,
        pixels="body" if kinds == {"body"} else "all",
        half_width=factor * float(np.mean(means)),
        correlation=correlation(list(pieces.values())),
        unit=model.target.unit,
        dataset=dataset,
        split=split,
        weights=model.weights_hash,
    )


def blocks(pair: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Mean error and mean width `[2, blocks]` of the blocks of 8 x 8 pixels that wholly count.

    Args:
        pair: absolute error and width, each `[H, W, C]`, or volumes.
        counted: bool of one's shape.
    """
    height, width = (side // _BLOCK for side in pair.shape[-3:-1])
    means = []
    for images in (*pair, counted):
        cut = images[..., : height * _BLOCK, : width * _BLOCK, :]
        cut = cut.reshape(-1, height, _BLOCK, width, _BLOCK, images.shape[-1])
        means.append(cut.mean((2, 4)).ravel())
    error, spread, whole = means
    return np.stack([error, spread])[:, whole == 1]


def correlation(patients: list[list[np.ndarray]]) -> float | None:
    """The mean over patients of Spearman's correlation of the blocks' errors and widths.

    Args:
        patients: of each patient what `blocks` gives of each image.

    Returns:
        -1 to 1; None where no patient has ten blocks.
    """
    found = []
    for parts in patients:
        error, width = np.concatenate(parts, axis=1)
        if len(error) > 9 and np.ptp(error) and np.ptp(width):
            found.append(float(scipy.stats.spearmanr(error, width).statistic))
    return float(np.mean(found)) if found else None
