"""nnU-Net's folders: imagesTr with a file for each input of a case, and the targets beside it."""

import json
from pathlib import Path

from zoo.imaging import files, inputs
from zoo.imaging.volume import Problem, Volume
from zoo_datasets.folder.items import Item, Layout, find, paired_items, some

TRAINING = "imagesTr"
_TEST = "imagesTs"
_TARGETS = ("labels", "targets", "target")  # with Tr and Ts, or without for both


def read(root: Path, dimensions: int) -> Layout:
    """Pairs of `imagesTr/case_0000`, `case_0001` … with `labelsTr/case`, or `targets/case`.

    `dataset.json`, where it is there, names the inputs (`channel_names`).

    Raises:
        ValueError: where no targets, or those of other cases, are beside the images.
    """
    names: tuple[str, ...] = ()
    domain: dict[str, list[Item]] = {}
    problems: list[Problem] = []
    notes = []
    for folder, ending, split in ((TRAINING, "Tr", "train"), (_TEST, "Ts", "test")):
        beside = _targets(root, ending)
        if not (root / folder).is_dir():
            continue
        if beside is None and split == "test":
            notes.append(f"{folder} is left out: it has no targets")
            continue
        if beside is None:
            wanted = ", ".join(f"{name}Tr" for name in _TARGETS)
            raise ValueError(f"input: expected targets, in one of {wanted}. Received: {root}")
        found, targets = find(root / folder, dimensions), find(beside, dimensions)
        problems += found.problems + targets.problems
        names = names or _names(root, found.volumes)
        cases = inputs.by_number(found.volumes, names)
        problems += cases.problems
        pairs, lost = _pairs(cases, found, targets, root / folder, beside)
        problems += lost
        domain[split] = paired_items(pairs, split)
    several = names if len(names) > 1 else ()
    return Layout("paired", [domain], problems, notes=notes, inputs=several)


def _targets(root: Path, ending: str) -> Path | None:
    """The folder of the targets of imagesTr or imagesTs."""
    places = [root / f"{name}{ending}" for name in _TARGETS]
    places += [root / name for name in _TARGETS]
    there = [place for place in places if place.is_dir()]
    if len(there) > 1:
        names = ", ".join(place.name for place in there)
        raise ValueError(f"input: expected one folder of targets. Received: {names}")
    return there[0] if there else None


def _names(root: Path, volumes: list[Volume]) -> tuple[str, ...]:
    """The inputs' names: those of dataset.json, or else their numbers."""
    numbers = inputs.numbers(volumes)
    path = root / "dataset.json"
    if path.is_file():
        try:
            stored = json.loads(path.read_text(encoding="utf-8-sig"))
            named = stored.get("channel_names") or stored.get("modality")
            if named:
                return tuple(str(named[str(number)]) for number in range(len(named)))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                'dataset.json: expected channel_names as {"0": "T1", "1": "T2"}. '
                f"Received: {type(error).__name__}"
            ) from error
    if not numbers:
        raise ValueError(
            f"input: expected files that end in the number of their input, case_0000. "
            f"Received: none in {root / TRAINING}"
        )
    return tuple(f"{number:04d}" for number in range(max(numbers) + 1))


def _pairs(
    cases: inputs.Cases, images: files.Found, targets: files.Found, root: Path, beside: Path
) -> tuple[list[tuple[Volume, Volume]], list[Problem]]:
    """Each case with its target; one of which a file is missing or damaged is left out."""
    of_case = {inputs.stem(volume): volume for volume in targets.volumes}
    known = {inputs.stem(volume) for volume in images.volumes} | _damaged(images, root)
    known = {name.rpartition("_")[0] for name in known}
    unread = _damaged(targets, beside)
    alone = [f"{name} of {TRAINING}" for name in cases.found if name not in unread | of_case.keys()]
    alone += [f"{beside.name}/{name}" for name in of_case if name not in known]
    if alone:
        raise ValueError(
            "input: expected each case to have one target of its name, and each target one case. "
            f"Received, without: {some(alone)}"
        )
    # What has lost the other half.
    lost = [name for name in of_case if name not in cases.found]
    problems = [Problem(of_case[name].path(0), "its images cannot be used") for name in lost]
    whole = [name for name in cases.found if name in of_case]
    for name in cases.found.keys() - set(whole):
        problems.append(Problem(cases.found[name].path(0), "its target cannot be read"))
    return [(cases.found[name], of_case[name]) for name in whole], problems


def _damaged(found: files.Found, folder: Path) -> set[str]:
    """What files that cannot be read would be called: by their names, or of a series its folder."""
    names = set()
    for problem in found.problems:
        if not problem.harmless:
            file = problem.path.relative_to(folder)
            names |= {file.as_posix().removesuffix(files.ending(file)), file.parent.as_posix()}
    return names
