"""Which files a model is asked to translate: of a model of several inputs the cases."""

from pathlib import Path
from typing import Any, NamedTuple

from zoo.domain import Domain
from zoo.imaging import files, inputs, lists
from zoo.imaging.dicom.series import Series
from zoo.imaging.several import together
from zoo.imaging.volume import NOT_AN_IMAGE, Problem, Volume


class Found(NamedTuple):
    """What there is to translate.

    Attributes:
        volumes: each a file or series, or the inputs of a case together.
        problems: what is left out, and why.
        place: the folder that outputs are named in, or the only input's file.
    """

    volumes: list[Volume]
    problems: list[Problem]
    place: Path


def find(model: Any, input: Path, output: Path) -> Found:
    """What a model is asked to translate.

    For a model of several inputs `input` is one of
    - a folder of files `case_0000`, `case_0001` …, or of DICOM studies whose series the patterns
      of the model's recipe pick (`source_series`);
    - a .tsv list with a column for each input, `source_T1`, or `source1` in their order;
    - `T1=FILE,T2=FILE`, one case.

    Args:
        model: a `zoo.Translator`.
        input: a file, a folder or, of several inputs, also what is said above.
        output: a folder to leave out.

    Raises:
        FileNotFoundError: where `input` does not exist.
        ValueError: where it does not say which image is which input.
    """
    source = model.source
    if not source.inputs:
        return Found(*files.find(input, exclude=output), input)
    if str(input).partition("=")[0] in source.parts and "=" in str(input):
        return _named(source, str(input))
    if lists.is_list(input) and input.is_file():
        return _listed(source, input)
    if input.is_file():
        example = ",".join(f"{name}=FILE" for name in source.parts)
        raise ValueError(f"input: expected a folder, a .tsv list or {example}. Received: {input}")
    return _in_folder(model, input, output)


def _in_folder(model: Any, folder: Path, output: Path) -> Found:
    """Cases by the numbers of their files or, of DICOM, by the patterns of the model."""
    found, names = files.find(folder, exclude=output), tuple(model.source.parts)
    text = getattr(model.recipe, "source_series", "")
    patterns = inputs.patterns("source_series", text) if text else {}
    picks = set(patterns) == set(names)
    series = [volume for volume in found.volumes if picks and isinstance(volume, Series)]
    # Each kind by its own rule.
    cases = inputs.by_number([v for v in found.volumes if v not in series], names)
    studies, lost = inputs.studies(series, {name: patterns[name] for name in names if picks})
    volumes = list(cases.found.values())
    for picked in studies.values():
        volumes.append(together([picked[name] for name in names], names))
        series = [each for each in series if each not in picked.values()]
    # What else a study holds.
    failed = {problem.path for problem in lost}
    unused = [each.path(0) for each in series if each.path(0) not in failed]
    reason = f"{NOT_AN_IMAGE} that the model takes, by its description"
    problems = [*found.problems, *cases.problems, *lost]
    return Found(volumes, problems + [Problem(path, reason) for path in unused], folder)


def _named(source: Domain, text: str) -> Found:
    """One case, of files or folders named as `T1=FILE,T2=FILE`."""
    parts = [part.partition("=")[::2] for part in text.split(",")]
    given = dict(parts)
    if set(given) != set(source.parts) or len(parts) > len(given):
        missing = [name for name in source.parts if name not in given]
        example = ",".join(f"{name}=FILE" for name in source.parts)
        what = f"no {missing[0]}" if missing else text
        raise ValueError(f"input: expected {example}. Received: {what}")
    paths = [Path(given[name]).expanduser() for name in source.parts]
    return Found([_case(source, paths, "input")], [], paths[0])


def _listed(source: Domain, path: Path) -> Found:
    """A case for each line of a list; those that lack an input are left out."""
    table = list(lists.lines(path))
    columns = lists.columns(path, table)
    named = lists.inputs(columns)
    if not set(source.parts) <= set(named):
        # Plain numbers stand for the inputs in their order, other names for no other.
        numbered = sorted(named.keys() & set(columns), key=lambda name: int(name[6:]))
        if len(numbered) != len(source.inputs) or len(numbered) < len(named):
            wanted = ", ".join(f"source_{name}" for name in source.parts)
            raise ValueError(f"{path.name}: expected the columns {wanted}. Received: {columns}")
        named = dict(zip(source.parts, numbered, strict=True))
    volumes: list[Volume] = []
    problems = []
    for line, fields in table[1:]:
        where = f"{path.name}, line {line}"
        row, folder = lists.row(where, columns, fields), path.parent.resolve()
        try:
            keys = [named[name] for name in source.parts]
            paths = [lists.resolve(folder, row[key], f"{where}: {key}") for key in keys]
            volumes.append(_case(source, paths, where))
        except (ValueError, FileNotFoundError) as error:
            problems.append(Problem(path, str(error)))
    return Found(volumes, problems, _above(volumes) if volumes else path.parent)


def _above(volumes: list[Volume]) -> Path:
    """The folder that all first inputs lie in, somewhere."""
    folder = volumes[0].path(0).parent
    while not all(file.is_relative_to(folder) for v in volumes for file in v.paths):
        folder = folder.parent
    return folder


def _case(source: Domain, paths: list[Path], where: str) -> Volume:
    """The inputs of a case, each the only file or series at its path.

    Raises:
        FileNotFoundError, ValueError: naming the input and the case.
    """
    if len(set(paths)) < len(paths):
        raise ValueError(f"{where}: expected another file for each input. Received: one for two")
    volumes = []
    for name, path in zip(source.parts, paths, strict=True):
        if not path.exists():
            raise FileNotFoundError(
                f"{where}: {name}: expected a file or a series. Received: {path}"
            )
        found = files.find(path)
        if len(found.volumes) != 1:
            why = f" ({found.problems[0].reason})" if found.problems else ""
            raise ValueError(
                f"{where}: {name}: expected one file or series. "
                f"Received: {len(found.volumes)} in {path}{why}"
            )
        volumes.append(found.volumes[0])
    return together(volumes, tuple(source.parts))
