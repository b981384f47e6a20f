"""How near to the best of its images each rule stops the deep image prior.

    python -m tools.reconstruction_stops    # half an hour; writes the table of the docs

Ten simulated slices of 64 x 64 pixels: CT at a low dose, CT from an arc, MRI from few lines. The
prior goes on for all its steps and its images are compared with the slice: the best is its peak.
Total variation (`lam` by its own rule) stands beside it. What a slice gave is kept in
`build/reconstruction_stops`.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np

import zoo
from tools import reconstruction_methods as methods
from zoo import metrics
from zoo.atomic import write_atomic
from zoo.reconstruction import dip, measured

FOLDER = methods.ROOT / "build" / "reconstruction_stops"
_TABLE = re.compile(r"^\| `stop` \| within.*\n(?:\|.*\n)+", re.MULTILINE)
CASES = [("dose", number) for number in range(4)]
CASES += [(key, number) for key in ("limited", "automap") for number in range(3)]
ITERATIONS, PATIENCE, NEAR = 2000, 300, 0.5  # steps, steps, dB


def distances(case: methods.Case, kind: methods.Kind, **options: Any) -> dict[str, list[float]]:
    """By rule of `dip.STOPS` the PSNR of its image and of its peak, in dB; of "tv" its PSNR twice.

    Args:
        case, kind: what is reconstructed, in which unit and window.
        options: of the prior.
    """
    target = case.target[..., None]

    def quality(image: np.ndarray) -> float:
        values = measured.in_unit(image, kind.unit)
        return float(metrics.psnr(values[..., None], target, kind.window))

    options = {"iterations": ITERATIONS, "sigma": case.sigma} | options
    image, _ = zoo.reconstruct(case.measured, case.operator, "tv", tolerance=1e-3, iterations=600)
    found = {"tv": [quality(image)] * 2}
    for rule in ("variance", "holdout"):
        seen: list[float] = []
        all_steps = options | {"stop": rule, "patience": options["iterations"]}
        _, record = zoo.reconstruct(
            case.measured, case.operator, "dip", **all_steps,
            watch=lambda _, image, seen=seen: seen.append(quality(image)),
        )  # fmt: skip
        found[rule] = [seen[stopped(record.tried)], max(seen)]
    # It fits all of the measurement, as "variance" does: the same images, of which it stops at one.
    image, _ = zoo.reconstruct(case.measured, case.operator, "dip", stop="discrepancy", **options)
    return found | {"discrepancy": [quality(image), found["variance"][1]]}


def stopped(tried: list[tuple[float, float]]) -> int:
    """Which look a rule takes that has not had a better one for `PATIENCE` steps."""
    best = 0
    for look, (done, value) in enumerate(tried):
        if value < tried[best][1]:
            best = look
        if done - tried[best][0] >= PATIENCE:
            break
    return best


def table(each: list[dict[str, list[float]]]) -> str:
    """Markdown of what each rule's images were on all slices."""
    columns = ["`stop`", f"within {NEAR} dB of its peak", "below its peak, dB", "at most, dB"]
    columns += ["as good as total variation", "above it, dB"]
    lines = [columns, ["---"] * len(columns)]
    tv = np.array([one["tv"][0] for one in each])
    for rule in dip.STOPS:
        quality, peak = np.array([one[rule] for one in each]).T
        below, over = peak - quality, quality - tv
        row = [f"`{rule}`", f"{np.sum(below <= NEAR)} of {len(each)}", f"{below.mean():.2f}"]
        row += [f"{below.max():.2f}", f"{np.sum(over >= 0)} of {len(each)}", f"{over.mean():+.2f}"]
        lines.append(row)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> int:
    """Makes what is not there yet, and writes the table into the page."""
    each = []
    for key, number in CASES:
        path = FOLDER / f"{key}-{number}.json"
        if not path.exists():
            kind = methods.KINDS[key]
            found = distances(kind.case(number), kind)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, json.dumps(found).encode())
        each.append(json.loads(Path(path).read_text(encoding="utf-8")))
        print(key, number, each[-1], flush=True)
    text = methods.PAGE.read_text(encoding="utf-8")
    if len(_TABLE.findall(text)) != 1:
        print(f"{methods.PAGE.name}: expected one table of stops.", file=sys.stderr)
        return 1
    write_atomic(methods.PAGE, _TABLE.sub(lambda _: table(each) + "\n", text).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
