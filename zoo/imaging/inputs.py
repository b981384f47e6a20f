"""Which volumes are the inputs of one case: by the numbers of their names, or by descriptions."""

import dataclasses
import fnmatch
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from zoo.imaging import files
from zoo.imaging.dicom.series import Series
from zoo.imaging.several import together
from zoo.imaging.volume import Problem, Volume

_NUMBERED = re.compile(r"(.+)_(\d{4})")
_SHARED = re.compile("#[0-9a-f]{8}$")  # what the reader appends where several series share a folder


class Cases(NamedTuple):
    """Cases whose images are all there, by name, and what is left out."""

    found: dict[str, Volume]
    problems: list[Problem]


def stem(volume: Volume) -> str:
    """A volume's name without what says its kind: of a series its folder."""
    if volume.kind == "dicom" and len(volume.paths) > 1:
        return _SHARED.sub("", volume.name)
    return volume.name.removesuffix(files.ending(Path(volume.name)))


def numbers(volumes: Sequence[Volume]) -> list[int]:
    """The numbers of inputs that names end in, `case_0000` and `case_0001`, each once."""
    matches = [_NUMBERED.fullmatch(stem(volume)) for volume in volumes]
    return sorted({int(match.group(2)) for match in matches if match})


def by_number(volumes: Sequence[Volume], names: Sequence[str]) -> Cases:
    """Cases of files `case_0000`, `case_0001` …, as nnU-Net names them.

    Args:
        volumes: of all cases.
        names: of the inputs, that of number 0 first.

    Returns:
        The cases; one of several files is called as they are without the number.
    """
    cases: dict[str, dict[int, list[Volume]]] = defaultdict(lambda: defaultdict(list))
    problems = []
    last = f"_{len(names) - 1:04d}"
    for volume in volumes:
        match = _NUMBERED.fullmatch(stem(volume))
        if match is None or int(match.group(2)) >= len(names):
            wanted = f"a name that ends in the number of its input, _0000 to {last}"
            received = match.group(2) if match else "none"
            problems.append(Problem(volume.path(0), f"expected {wanted}. Received: {received}"))
        else:
            cases[match.group(1)][int(match.group(2))].append(volume)
    found = {}
    for case, given in cases.items():
        counts = {f"{name} (_{k:04d})": len(given[k]) for k, name in enumerate(names)}
        wrong = [f"{name}: {count}" for name, count in counts.items() if count != 1]
        if wrong:
            text = f"expected one image of each input beside it. Received, {', '.join(wrong)}"
            first = next(each[0] for each in given.values() if each)
            problems.append(Problem(first.path(0), text))
        else:
            whole = together([given[k][0] for k in range(len(names))], names)
            if len(names) > 1 and len(whole.paths) == 1:
                whole = dataclasses.replace(whole, name=case + files.ending(whole.paths[0]))
            found[case] = whole
    return Cases(found, problems)


def patterns(field: str, text: str) -> dict[str, str]:
    """`T1=*T1*,T2=*T2*` as names and patterns; without a name, one pattern of the name "".

    Raises:
        ValueError: for anything else; names the field.
    """
    found: dict[str, str] = {}
    for part in text.split(","):
        name, _, pattern = part.rpartition("=")
        name, pattern = name.strip(), pattern.strip()
        if not pattern or name in found or (not name and "," in text):
            raise ValueError(
                f"{field}: expected NAME=PATTERN, each name once, as T1=*T1*,T2=*T2*. "
                f"Received: {text}"
            )
        found[name] = pattern
    return found


def studies(
    volumes: Sequence[Volume], wanted: dict[str, str]
) -> tuple[dict[str, dict[str, Series]], list[Problem]]:
    """Of each study the one series that each pattern picks by SeriesDescription.

    Args:
        volumes: of all studies.
        wanted: patterns of the shell by the names of what they pick; upper and lower case are one.

    Returns:
        The series by name, by the name of the study's first, and what is left out.
    """
    groups: dict[tuple[str, str], list[Series]] = defaultdict(list)
    problems = []
    for volume in volumes:
        if isinstance(volume, Series):
            groups[volume.study, volume.patient].append(volume)
        else:
            text = "expected a DICOM series, which a pattern can pick. Received: a file without one"
            problems.append(Problem(volume.path(0), text))
    found = {}
    for group in groups.values():
        picked, wrong = {}, ""
        for name, pattern in wanted.items():
            matching = [each for each in group if _matches(each, pattern)]
            if len(matching) != 1 and not wrong:
                received = ", ".join(f"'{each.description}'" for each in matching or group)
                kind = "none of" if not matching else "several,"
                wrong = f"{name or 'source'}: expected one series of the study like {pattern}. "
                wrong += f"Received: {kind} {received}"
            picked[name] = matching[0] if matching else group[0]
        if not wrong and len({each.path(0) for each in picked.values()}) < len(picked):
            wrong = "expected another series for each pattern. Received: one series for two"
        if wrong:
            problems.append(Problem(group[0].path(0), wrong))
        else:
            found[group[0].name] = picked
    return found, problems


def _matches(series: Series, pattern: str) -> bool:
    return fnmatch.fnmatchcase(series.description.casefold(), pattern.casefold())
