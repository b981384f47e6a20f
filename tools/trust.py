"""Whether intervals keep their promise, and lesions stay: the tables of `docs/trust.md`.

    python -m tools.trust [--patients=80] [--only=NAME] [--write]
        [--models=NAME,NAME] [--scans=FOLDER]

Shipped models translate simulated patients that nothing was trained on. Of these some calibrate and
the others are counted, in 100 random splits by patient: in how many no more than `alpha` of the
pixels lies outside, what a naive factor (the normal distribution's, 1.645) would have missed, and
what is missed where the noise is another. The real scans of `tools/scans.py` are counted too. Then
lesions are put into others, and faults are planted into what becomes of still others, which must
raise alarms (`tools/battery.py`). A painted and a real lesion are explained
(`tools/explained.py`), and a generator learns 20 images by heart (`tools/memorised.py`). Some
fifteen minutes of processor time, ten of them for the last.
"""

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import zoo
from tools import battery, cards, explained, limits, memorised
from tools.judges.low_dose import LEVELS
from zoo import figures, guards, registry
from zoo.atomic import write_atomic
from zoo.evaluation import intervals, lesions
from zoo.evaluation.translation import body
from zoo.trust import calibrate
from zoo.trust.conformal import FACTORS, Misses
from zoo.trust.spread import Spread
from zoo_datasets.phantoms import ct_scan

PAGE = Path(__file__).resolve().parent.parent / "docs" / "trust.md"
ALPHA = DELTA = 0.1
SPLITS = 100
NAIVE = 1.645  # would hold 90 % of a normal distribution's values
# A quarter and a twelfth of the dose, of coarse slices that take a moment to simulate.
PROTOCOL = ct_scan.Protocol(size=64, views=64, photons=1.2e4, electronic=5.0, slices=2)
OTHER = dataclasses.replace(PROTOCOL, dose=1 / 12)
FINER = ct_scan.Protocol(size=128, views=192, photons=1.2e4, electronic=5.0, slices=2)
MODELS = ("encoder_decoder_ldct", "pix2pix_ldct")
REAL = "encoder_decoder_ldct_fast"  # whose intervals are asked of real scans


def patients(count: int, protocol: ct_scan.Protocol, seed: int = 77) -> Iterator[dict[str, Any]]:
    """Pairs of low and full dose in HU, `[H, W, 1]`, of simulated patients."""
    scanner = ct_scan.scanner(protocol)
    for number in range(count):
        images = scanner.patient(seed, number)
        for source, target in zip(images["source"], images["target"], strict=True):
            pair = {"source": source, "target": target}
            example: dict[str, Any] = {"patient": f"{number}", "name": f"{number}"}
            yield example | {k: v[..., None].astype(np.float32) for k, v in pair.items()}


@dataclasses.dataclass
class Seen:
    """What a spread is worth on some patients.

    Attributes:
        losses: float64 [patients, factors], as `Misses.losses`.
        misses: that they come from.
        correlation: as a `Calibration` has it.
        width: mean spread in the body, in HU.
    """

    losses: np.ndarray
    misses: Misses
    correlation: float | None
    width: float


def seen(spread: Spread, examples: Iterator[dict[str, Any]]) -> Seen:
    """A spread's misses of examples."""
    misses, widths = Misses(), []
    pieces: dict[str, list[np.ndarray]] = {}
    for example in examples:
        with guards.silent():
            answer, width = (part[0] for part in spread(example["source"][None]))
        mask = np.asarray(body(example, spread.model.target), bool)
        error = np.abs(answer - example["target"])
        misses.add(example["patient"], error[mask], width[mask])
        widths.append(width[mask].mean())
        found = calibrate.blocks(np.stack([error, width]), mask)
        pieces.setdefault(example["patient"], []).append(found)
    correlation = calibrate.correlation(list(pieces.values()))
    return Seen(misses.losses(), misses, correlation, float(np.mean(widths)))


@dataclasses.dataclass
class Coverage:
    """What `SPLITS` random splits by patient gave.

    Attributes:
        kept: share of splits in which no more than `ALPHA` was outside, of the patients that did
            not calibrate.
        outside: the mean share outside of these.
        other: the same of patients with other noise.
        naive: the same of the first patients by the factor `NAIVE`.
        factor: the median one.
    """

    kept: float
    outside: float
    other: float
    naive: float
    factor: float


def coverage(own: Seen, other: Seen, calibrating: int, seed: int = 0) -> Coverage:
    """Calibrate by so many of the patients, and count the others, again and again."""
    rng, keys = np.random.default_rng(seed), list(own.misses.counts)
    kept, outside, elsewhere, factors = 0, [], [], []
    for _ in range(SPLITS):
        order = rng.permutation(len(keys))
        chosen = Misses()
        chosen.counts = {keys[k]: own.misses.counts[keys[k]] for k in order[:calibrating]}
        factor, _ = chosen.factor(ALPHA, DELTA)
        place = int(np.searchsorted(FACTORS, factor * (1 - 1e-9)))
        outside.append(own.losses[order[calibrating:], place].mean())
        elsewhere.append(other.losses[:, place].mean())
        kept += outside[-1] <= ALPHA
        factors.append(factor)
    naive = own.losses[:, int(np.searchsorted(FACTORS, NAIVE))].mean()
    return Coverage(
        kept / SPLITS,
        float(np.mean(outside)),
        float(np.mean(elsewhere)),
        float(naive),
        float(np.median(factors)),
    )


def rows(count: int, models: list[str]) -> list[str]:
    """A line of the table for each model."""
    lines = []
    for name in models:
        spread = Spread(zoo.load(name), "auto")
        own = seen(spread, patients(count, PROTOCOL))
        other = seen(spread, patients(count // 4, OTHER, seed=78))
        found = coverage(own, other, count // 2)
        half, title = found.factor * own.width, f"`{Path(name).name}`, {spread.name}"
        lines.append(
            f"| {title} | {SPLITS * found.kept:.0f} | {found.outside:.1%} | {half:.0f} HU | "
            f"{own.correlation or 0:.2f} | {found.naive:.1%} | {found.other:.1%} |"
        )
    return lines


def table(count: int, models: list[str]) -> str:
    """Markdown, with what was measured above it."""
    text = (
        f"{count} simulated chests and abdomens of a quarter of the dose (64 × 64 pixels, two "
        f"slices each), {count // 2} of them for the calibration and {count - count // 2} "
        f"counted, in {SPLITS} random splits by patient; `alpha` and `delta` 0.1:\n\n"
        "| model and spread | splits of 100 that kept the promise | outside | mean half-width | "
        "rank correlation | outside at 1.645 spreads | outside at a twelfth of the dose |\n"
        "|---|---|---|---|---|---|---|"
    )
    return "\n".join([text, *rows(count, models)])


def real_table(name: str = REAL) -> str:
    """Markdown: of real patients the share outside by what simulated ones have calibrated.

    Args:
        name: of a pretrained denoiser of CT.
    """
    model, dataset = zoo.load(name), registry.index()["pretrained"][name]["dataset"]
    spread = Spread(model)
    own = seen(spread, _pairs(limits.simulated(model, dataset, limits.CALIBRATING)))
    factor, _ = own.misses.factor(ALPHA, DELTA)
    real = seen(spread, _pairs(limits.real(model, dataset)))
    # By patient, who are few.
    shares = real.losses[:, int(np.searchsorted(FACTORS, factor * (1 - 1e-9)))]
    low, high = intervals.bootstrap(list(shares))
    count, most = len(shares), int((shares > ALPHA).sum())
    return (
        f"`{name}`, {spread.name}, calibrated on {len(own.losses)} simulated patients of "
        f"`{dataset}` and counted on real CT slices of {count} patients, head and body, with noise "
        f"of {min(LEVELS)} to {max(LEVELS)} HU inserted; `alpha` and `delta` 0.1:\n\n"
        "| real patients | outside, mean over patients | patients with more than 10 % outside | "
        "most of a patient | mean half-width | rank correlation |\n|---|---|---|---|---|---|\n"
        f"| {count} | {shares.mean():.1%} ({low:.1%} to {high:.1%}) | {most} | {shares.max():.1%} "
        f"| {factor * real.width:.0f} HU | {real.correlation or 0:.2f} |"
    )


def _pairs(found: Iterable[limits.Pair]) -> Iterator[dict[str, Any]]:
    for pair in found:
        example = {"patient": pair.patient, "name": pair.patient}
        yield example | {"source": pair.source, "target": pair.target}


def lesion_table(count: int) -> str:
    """Markdown: what becomes of lesions, of each model by size and contrast."""
    text = (
        f"{count} other simulated patients of a quarter of the dose, two slices of 128 × 128 "
        "pixels each. In brackets what a share does not exceed (95 %, by patient), the blobs of "
        "the input, and the AUC's 95 % interval over patients:\n\n"
        "| model | diameter, contrast | lesions | d′ in the input | lost | contrast kept | "
        "invented in 100 images | AUC, input | AUC, output |\n|---|---|---|---|---|---|---|---|---|"
    )
    lines = [text]
    for name in MODELS:
        found = lesions.measure(zoo.load(name), patients(count, FINER, seed=79))
        lost = found["lost_of_seen"]
        for row in found["rows"]:
            areas = [row[f"detected_{key}"] for key in ("input", "output")]
            shown = " | ".join(map(_area, areas))
            lines.append(
                f"| `{name}` | {row['diameter_px']} pixels, {row['contrast']:.0f} HU | "
                f"{row['lesions']} | {row['ideal']:.1f} | {_share(row['lost'])} | "
                f"{row['kept']:.0%} | {row['blobs_output']:.0f} ({row['blobs_input']:.0f}) | "
                f"{shown} |"
            )
        seen = f"all that an ideal observer sees (d′ ≥ {lesions.SEEN:g})"
        lines.append(f"| `{name}` | {seen} | {lost['lesions']} | | {_share(lost)} | | | | |")
    return "\n".join(lines)


def _area(detected: dict[str, Any] | None) -> str:
    if detected is None:
        return "–"
    low, high = detected["auc_ci95"]
    return f"{detected['auc']:.2f} ({low:.2f} to {high:.2f})"


def _share(lost: dict[str, Any]) -> str:
    return "–" if lost["share"] is None else f"{lost['share']:.0%} (≤ {lost['at_most']:.0%})"


def alarm_table(count: int, write: bool) -> str:
    """Markdown: of each model and fault the share of images that raise an alarm; and the picture.

    Args:
        count: patients, half of which give the limits.
        write: the picture too.
    """
    text = (
        f"{count} other simulated patients, two slices of 128 × 128 pixels each: {count // 2} give "
        "the limits, and the images of the others are counted, as they are and with a fault "
        "planted into each:\n\n"
        "| model | fault planted | raise any alarm | by alarm |\n|---|---|---|---|"
    )
    lines = [text]
    examples = list(patients(count, FINER, seed=90))
    for name in MODELS:
        model = zoo.load(name)
        limits, pairs = battery.calibrated(model, examples)
        lines += battery.rows(name, model, limits, pairs)
        if write and name == MODELS[0]:
            image = battery.picture(model, limits, pairs[len(pairs) // 2])
            figures.save_png(PAGE.parent / "pictures" / "alarms.png", image)
    return "\n".join(lines)


def painted(write: bool) -> str:
    """What is told of a disc in an input of the first model; and its picture."""
    image = next(patients(1, FINER, seed=90))["source"]
    return explained.painted(zoo.load(MODELS[0]), image, _picture("explained", write))


def lesion(folder: Path | None, write: bool) -> str:
    """What is told of a real lesion, and its picture; "" where its scan is not there."""
    if folder is None or not (folder / explained.SLICE).exists():
        print(f"explained_real: left as it is, without --scans that holds {explained.SLICE}.")
        return ""
    return explained.real(zoo.load(MODELS[0]), folder, _picture("explained_real", write))


def _picture(name: str, write: bool) -> Path | None:
    return PAGE.parent / "pictures" / f"{name}.png" if write else None


def put(page: str, name: str, text: str) -> str:
    """The page with a text between its two comments of that name."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{text}\n{end}{after}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patients", type=int, default=80)
    parser.add_argument("--models", default=",".join(MODELS), help="of the first, runs too")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/trust.md")
    parser.add_argument("--scans", type=Path, help=f"folder that holds {explained.SLICE}")
    makers: dict[str, Callable[[argparse.Namespace], str]] = {
        "coverage": lambda given: table(given.patients, given.models.split(",")),
        "coverage_real": lambda given: real_table(),
        "lesions": lambda given: lesion_table(given.patients // 4),
        "alarms": lambda given: alarm_table(given.patients // 2, given.write),
        "explained": lambda given: painted(given.write),
        "explained_real": lambda given: lesion(given.scans, given.write),
        "memorised": lambda given: memorised.table(_picture("memorised", given.write)),
    }
    parser.add_argument("--only", choices=makers, help="one of them")
    given = parser.parse_args(arguments)
    for name in [given.only] if given.only else makers:
        text = makers[name](given)
        if text:
            print(text)
        if given.write and text:
            page = put(PAGE.read_text(encoding="utf-8"), name, text)
            write_atomic(PAGE, page.encode())
    if given.write:
        for name in MODELS:  # whose cards have some of the tables
            cards.write_alarms(name, registry.index()["pretrained"][name])
    return 0


if __name__ == "__main__":
    sys.exit(main())
