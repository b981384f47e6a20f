"""Membership inference: whether weights tell which patients they were trained on.

As many patients as were trained on are drawn anew by the same simulation. Each patient has a score
that an attacker would expect to be higher for those of the training:

- of translators how much smaller the model's error is than that of what there is without a model
  (Yeom et al. 2018, arXiv:1709.01604, calibrated by how hard an image is as in Watson et al. 2022,
  arXiv:2111.08440), or how small it is where there is nothing without one;
- of networks of two ways, which see no pairs, how small the error of the way there and back is;
- of generators how near the nearest of 1000 generated images comes (Chen et al. 2020,
  arXiv:1909.03935), in the embedding in which copies are looked for.

The area under the curve of that score is 0.5 where nothing can be told, and 1 where everything can.
"""

import collections
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from tools import pretrained
from zoo import metrics
from zoo.data import batches, prepare
from zoo.evaluation import copies, intervals
from zoo.translator import Translator

MOST = 0.55  # that what is shipped may have
IMAGES = 2  # of each patient: they are alike
OTHERS = 1000  # added to the seed of the simulation, for patients apart
GENERATED = 1000
_SCANS = ("_scans", "/heads")  # of data sets that have real patients beside simulated ones
# Patients on each side: as many as are drawn in minutes, and as the training has.
_FEW = 30
PATIENTS = {
    "cbct_ct/phantom_scatter": 80,
    "ct_recon/phantom_many": 160,
    "lung_nodule/phantom": 200,
    "mammo/phantom_128": 100,
    "mri_contrast/mni152_128": 100,
    "mri_recon/phantom_128_many": 300,
    "mri_recon/varied": 200,
    "sr/varied_mr": 300,
    "sr/varied_mr_scans": 80,
}


def membership(model: Translator, dataset: str) -> dict[str, Any]:
    """What an entry says of a pretrained model: "judged_on", and "auc" with its 95 % interval."""
    count = PATIENTS.get(dataset, _FEW)
    members, others = (list(drawn(model, dataset, known, count)) for known in (True, False))
    if model.data == "single":
        made = model.generate(GENERATED, seed=2)
        given = (example["image"] for example in [*members, *others])
        scored = copies.nearness(made, given, model.target.window)
    else:
        scored = [_score(model, example) for example in [*members, *others]]
    patients = [example["patient"] for example in [*members, *others]]
    sides = []
    for start, stop in ((0, len(members)), (len(members), len(scored))):
        means = intervals.group_means(scored[start:stop], patients[start:stop])
        sides.append(np.array(list(means.values())))
    judged = (
        f"{len(sides[0])} simulated patients of the training and {len(sides[1])} apart, {dataset}"
    )
    if any(key in dataset for key in _SCANS):
        judged += "; the real patients of the training are too few to tell, and not among them"
    return {"judged_on": judged, "auc": [round(value, 3) for value in area(*sides)]}


def drawn(
    model: Translator, dataset: str, trained_on: bool, count: int
) -> Iterator[dict[str, Any]]:
    """Images of simulated patients, at the size that the model has, the first few of each patient.

    Args:
        model: of the data set.
        dataset: whose config is simulated; scans that it has beside are left out.
        trained_on: the first patients of the training, or as many of another seed.
        count: of patients.
    """
    data, recipe = pretrained.FOLDER / "data", model.recipe
    shipped = prepare.load_builder(dataset, data, recipe, prepare=False)
    config = shipped.builder_config
    changed = dataclasses.replace(
        config,
        name=f"{config.name}_{'members' if trained_on else 'others'}_{count}",
        find=None,
        patients=(count, 0, 0),
        seed=config.seed + (0 if trained_on else OTHERS),
    )
    builder = prepare.prepare_builder(type(shipped)(config=changed, data_dir=data))
    size, scale = recipe.phases()[-1].size, model.scale
    seen: collections.Counter[str] = collections.Counter()
    for example in batches.eval_dataset(builder, "train", size=size, scale=scale):
        seen[example["patient"]] += 1
        if seen[example["patient"]] <= IMAGES:
            yield example


def area(members: np.ndarray, others: np.ndarray, resamples: int = 2000) -> list[float]:
    """The share of pairs in which the member's score is higher, and its 95 % bootstrap interval.

    Args:
        members: a score of each patient of the training.
        others: of each patient apart; equal scores count half.
        resamples: of the patients of both sides.
    """
    higher = (members[:, None] > others) + 0.5 * (members[:, None] == others)
    rng = np.random.default_rng(0)
    # How often each patient is drawn.
    times = [rng.multinomial(n, np.full(n, 1 / n), resamples) / n for n in higher.shape]
    resampled = np.einsum("rm,mn,rn->r", times[0], higher, times[1], optimize=True)
    return [float(higher.mean()), *map(float, np.quantile(resampled, [0.025, 0.975]))]


def _score(model: Translator, example: dict[str, Any]) -> float:
    """Of an image of a translator."""
    source, target = example["source"], example["target"]
    back = getattr(model, "there_and_back", None)
    if back is not None:
        return -_log_error(back(source[None])[0], source)
    error = _log_error(model.translate(source[None])[0], target)
    without, _ = model.baseline(source)
    return (0.0 if without is None else _log_error(without, target)) - error


def _log_error(image: np.ndarray, truth: np.ndarray) -> float:
    return float(np.log(max(metrics.rmse(image, truth), 1e-12)))
