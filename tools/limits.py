"""The limits of the pretrained models' alarms: into registry.yaml, the cards and docs/trust.md.

    python -m tools.limits [--write] [NAME ...]

Patients are drawn anew by the simulation that a model learned from: some give the limits, and of
others the images are counted that raise an alarm, as they are and with the faults of
`tools/battery.py` planted into the outputs. The real scans of `tools/scans.py` are counted too
where they are what a model takes. Some minutes of processor time a model, most of them for the
patients, which models of one data set share.
"""

import argparse
import collections
import dataclasses
import functools
import itertools
import sys
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

import zoo
from tools import battery, cards, pretrained, scans
from tools.judges.low_dose import LEVELS, few, noisy
from tools.judges.super_resolution import at_level
from zoo import guards, registry
from zoo.data import facts, prepare
from zoo.physics import resolution
from zoo.trust import alarms
from zoo.trust.limits import Breach, Figures, Limits, Usual
from zoo_datasets.ldct import scanned

PATIENTS = 100  # that give the limits, and as many who are judged
# Added to the seed of the simulation: patients whom no training, test or other judge had.
CALIBRATING, JUDGED = 5000, 6000
IMAGES = 2  # of each patient: the first and the third
PLANTED = 20  # patients whose first image has each fault planted into its output
HONEST = "none"
_RANGE = 2000.0  # HU; faults in other units are as large in the range of the output's values
_DOSE = 0.25  # whose noise has the texture that is inserted into real CT


class Pair(NamedTuple):
    """An image of a patient; `target` is None where it is not known."""

    patient: str
    source: np.ndarray
    target: np.ndarray | None


@dataclasses.dataclass
class Judged:
    """What is measured of the images of patients.

    Attributes:
        owners: of each image its patient.
        figures: by fault those of the first image of `PLANTED` patients; of `HONEST` outputs
            those of every image, with the reference.
    """

    owners: list[str] = dataclasses.field(default_factory=list)
    figures: dict[str, list[Figures]] = dataclasses.field(default_factory=dict)

    def raised(self, limits: Limits, fault: str) -> list[list[Breach]]:
        return [limits.breaches(each) for each in self.figures[fault]]


def simulated(model: Any, dataset: str, added: int) -> Iterator[Pair]:
    """Patients of a pretrained model's simulation, without the scans that it has beside."""
    builder = prepare.load_builder(dataset, pretrained.FOLDER / "data", model.recipe, prepare=False)
    source, target = facts.image_keys(builder, model.scale)
    numbers = _numbers(dataset, builder.builder_config.seed + added)
    for number in itertools.islice(numbers, PATIENTS):
        for example in _drawn(dataset, type(builder), builder.builder_config, added, number):
            images = (example[key].astype(np.float32) for key in (source, target))
            yield Pair(f"{number}", *images)


def _numbers(dataset: str, seed: int) -> Iterator[int]:
    """Of subjects, but for random shapes, which networks of CT learn from and which are nobody."""
    for number in itertools.count():
        rng = np.random.default_rng([seed, number])
        if not dataset.startswith("ldct/") or scanned.drawn_kind(rng) != "shapes":
            yield number


@functools.lru_cache(2 * PATIENTS)
def _drawn(dataset: str, maker: Any, shipped: Any, added: int, number: int) -> list[dict]:
    """`IMAGES` of a patient, with all features."""
    config = dataclasses.replace(
        shipped, name="limits", find=None, patients=(number + 1, 0, 0), seed=shipped.seed + added
    )
    case = maker(config=config, data_dir=pretrained.FOLDER / "data").simulated_cases()
    read = config.read(case["train"][number], config)
    return [example for _, example in itertools.islice(read, 0, 2 * IMAGES - 1, 2)]


def real(model: Any, dataset: str) -> list[Pair]:
    """Real scans that trained nothing, as a denoiser or a super-resolution of MR is given them."""
    if model.scale > 1:
        found = []
        for scan in few(scans.mr()):
            target = at_level(scan.image)[..., None]
            source = resolution.crop_kspace(target[..., 0], model.scale)[..., None]
            found.append(Pair(scan.patient, source, target))
        return found
    found = []
    if not dataset.startswith("ldct/"):
        return found
    for index, scan in enumerate(few(scans.ct())):
        level = LEVELS[index % len(LEVELS)]
        source = noisy(scan, level, _DOSE, "hann").astype(np.float32)
        found.append(Pair(scan.patient, source[..., None], scan.image[..., None]))
    return found


def faults(model: Any, compared: alarms.Compared) -> list[str]:
    """Those of `battery.FAULTS` that the alarms of a model can tell of."""
    without = set()
    if compared.removed is None:  # nothing says whether structure of another contrast is right
        without |= {"painter of a lesion", "eraser of a lesion"}
    if model.source.measured:
        without.add("eraser of a lesion")
    if compared.removed is None or model.target.unit != "HU":
        without.add("offset of 30 HU")
    return [name for name in battery.FAULTS if name not in without]


def planted(
    name: str, model: Any, pair: Pair, output: np.ndarray, compared: alarms.Compared, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Input and output of a model with a fault."""
    if name == "identity":
        return pair.source, compared.given[..., None]
    # As HU, which the faults are given in.
    unit, middle = 1.0, 0.0
    if model.target.unit != "HU":
        low, high = np.percentile(output, [0.5, 99.5])
        unit, middle = (high - low) / _RANGE, (low + high) / 2
    source = (pair.source - middle) / unit
    rng = np.random.default_rng(seed)
    given, made = battery.FAULTS[name].plant(source, (output - middle) / unit, rng)
    changed = given is not source
    given = (given * unit + middle).astype(np.float32) if changed else pair.source
    return given, (made * unit + middle).astype(np.float32)


def measured(model: Any, pairs: Iterable[Pair], plant: bool = True) -> Judged:
    """The figures of patients, without a fault and with each."""
    found = Judged()
    for number, pair in enumerate(pairs):
        with guards.silent():
            output = np.asarray(model.translate(pair.source[None])[0], np.float32)
        honest, compared = alarms.figures(model, pair.source, output, pair.target)
        seen = set(found.owners)
        chosen = plant and pair.patient not in seen and len(seen) < PLANTED
        found.owners.append(pair.patient)
        found.figures.setdefault(HONEST, []).append(honest)
        for name in faults(model, compared) if chosen else ():
            wrong = planted(name, model, pair, output, compared, number)
            figures, _ = alarms.figures(_Forth(model), *wrong)
            found.figures.setdefault(name, []).append(figures)
    return found


class _Forth:
    """A model that tells nothing of its way back, which no fault of an output changes."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return None if name == "there_and_back" else getattr(self._model, name)


def found(model: Any, dataset: str) -> dict[str, Any]:
    """What an entry has: "alarms", the limits, and "alarms_raised", what other patients raise."""
    usual = Usual()
    calibrating = measured(model, simulated(model, dataset, CALIBRATING), plant=False)
    for owner, figures in zip(calibrating.owners, calibrating.figures[HONEST], strict=True):
        usual.add(owner, figures)
    limits = usual.limits(model, dataset, "")
    judged = measured(model, simulated(model, dataset, JUDGED))
    told: dict[str, Any] = {"judged_on": f"{_words(judged)}, {dataset}, simulated anew"}
    measures = set(itertools.chain(*calibrating.figures[HONEST]))
    told["unlimited"] = [key for key in alarms.ALARMS if key in measures - set(limits.limits)]
    told["false"] = _false(limits, judged)
    told["planted"] = min(PLANTED, len(set(judged.owners)))
    told["faults"] = {}
    for name in judged.figures:
        if name != HONEST:
            told["faults"][name] = _shares(judged.raised(limits, name))
    if pairs := real(model, dataset):
        scanned = measured(model, pairs, plant=False)
        shares = _shares(scanned.raised(limits, HONEST))
        told["real"] = {"judged_on": _words(scanned)} | shares
    return {"alarms": limits.to_dict(), "alarms_raised": told}


def _words(judged: Judged) -> str:
    return f"{len(judged.owners)} images of {len(set(judged.owners))} patients"


def _false(limits: Limits, judged: Judged) -> float:
    """The share of patients of whom an honest output raises any alarm."""
    raised: dict[str, bool] = {}
    for owner, breaches in zip(judged.owners, judged.raised(limits, HONEST), strict=True):
        raised[owner] = raised.get(owner, False) or bool(breaches)
    return round(float(np.mean(list(raised.values()))), 3)


def _shares(images: list[list[Breach]]) -> dict[str, float]:
    """Of images the share that raises "any" alarm, and each that some raise."""
    counts = collections.Counter(breach.alarm for breaches in images for breach in breaches)
    counts["any"] = sum(map(bool, images))
    order = ["any", *alarms.ALARMS]
    return {name: round(counts[name] / len(images), 3) for name in order if counts[name]} or {
        "any": 0.0
    }


def table(entries: dict[str, dict[str, Any]]) -> str:
    """Markdown: of each model that has limits what raises any alarm."""
    head = ["model", "patients without a fault", *battery.FAULTS, "no limit"]
    lines = [cards.row(head), cards.row(["---"] * len(head))]
    for name, entry in entries.items():
        told = entry.get("alarms_raised")
        if told is None:
            continue
        shares = [_shown(f"{told['false']:.1%}", told["false"] <= cards.MOST_FALSE)]
        for fault in battery.FAULTS:
            shares.append(_percent(told["faults"].get(fault)))
        lines.append(cards.row([f"`{name}`", *shares, cards.unlimited(entry) or "–"]))
    return "\n".join(lines)


def _percent(shares: dict[str, float] | None) -> str:
    if shares is None:
        return "–"
    return _shown(f"{shares['any']:.0%}", shares["any"] >= cards.LEAST_FOUND)


def _shown(text: str, good: bool) -> str:
    """A share, bold where it falls short of what was aimed at."""
    return text if good else f"**{text}**"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--write", action="store_true", help="take them as the new ones")
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all translators")
    options = parser.parse_args(arguments)
    entries = registry.index()["pretrained"]
    unknown = set(options.names) - set(entries)
    if unknown:
        parser.error(f"expected names of {', '.join(entries)}. Received: {', '.join(unknown)}")
    for name in options.names or entries:
        model, stored = zoo.load(name, precision="float32"), dict(entries[name])
        if model.data == "single":
            continue
        told = found(model, stored["dataset"])
        print(f"{name}: {told['alarms']['limits']}\n{told['alarms_raised']}")
        if options.write:
            entries[name] |= told
            pretrained.write_entry(name, stored | told | {"summary": stored.pop("summary")})
            cards.write_alarms(name, entries[name])
    if options.write:
        cards.put("limits", table(entries))
    return 0


if __name__ == "__main__":
    sys.exit(main())
