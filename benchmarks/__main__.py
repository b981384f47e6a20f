"""Writes `docs/benchmarks.md`: each table is measured now, beside what peers do.

    python -m benchmarks [--quick] [--only=training,files] [--output=FILE]

All in less than half an hour on two quiet cores. `--quick` takes tiny sizes and one round, to
see that the tables come about; its figures say nothing, and the page says so. A peer that is not
installed (`pip install -e ".[bench]"`) is left out, and named.
"""

import argparse
import itertools
import sys
import time
from pathlib import Path

from benchmarks import bits, files, inference, measure, operators, reconstruction, scaling, training
from zoo.atomic import write_atomic

PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"
TABLES = {
    "training": training.against_torch,
    "steps": training.steps,
    "scaling": scaling.several,
    "inference": inference.by_size,
    "bits": bits.fewer,
    "tiles": inference.tiles,
    "operators": operators.beams,
    "reconstruction": reconstruction.to_psnr,
    "startup": files.start_up,
    "files": files.growth,
}
ROUNDS = 5


def page(names: list[str], quick: bool) -> str:
    """The document, each table measured as it is asked for."""
    began, parts = time.perf_counter(), []
    machine = measure.environment()
    for name in names:
        print(f"{name} ...", file=sys.stderr, flush=True)
        parts.append(TABLES[name](quick, 1 if quick else ROUNDS))
    rounds = "1 round" if quick else f"{ROUNDS} rounds"
    targets = list(itertools.chain.from_iterable(part.targets for part in parts))
    minutes = (time.perf_counter() - began) / 60
    warning = ""
    if quick:
        warning = "\n**Made with `--quick`: the sizes are tiny, and the figures say nothing.**\n"
    return f"""# Benchmarks

Written by `make bench` in {measure.three(minutes)} minutes; no figure is typed.
{warning}
{machine}

What is compared runs in turns, round after round; a ratio is the median over {rounds} of what each
round gave, with the extremes in brackets.

{_targets(targets)}{chr(10).join(part.text for part in parts)}"""


def _targets(targets: list[measure.Target]) -> str:
    """What is wanted of the figures below, and what came of it."""
    if not targets:
        return ""
    rows = [target.row() for target in targets]
    return f"""## Targets

{measure.table(["what", "wanted", "measured", ""], rows)}

"""


def main(arguments: list[str] | None = None) -> int:
    """Writes the page; 2 for tables that there are none of."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default=",".join(TABLES), help=f"of {', '.join(TABLES)}")
    parser.add_argument("--output", type=Path, default=PAGE)
    given = parser.parse_args(arguments)
    names = given.only.split(",")
    if not set(names) <= set(TABLES):
        parser.error(f"only: expected some of {', '.join(TABLES)}. Received: {given.only}")
    write_atomic(given.output, page(names, given.quick).encode())
    print(f"Wrote {given.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
