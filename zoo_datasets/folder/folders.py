"""Folders of splits: trainA and trainB for pairs and two domains, train for single images."""

import re
import unicodedata
from collections import defaultdict
from pathlib import Path

from zoo.imaging import files
from zoo.imaging.volume import Problem, Volume
from zoo_datasets.folder.items import (
    SPLITS,
    Item,
    Layout,
    find,
    number_of,
    paired_items,
    single_items,
    some,
)

_ENDS = "|".join(map(re.escape, sorted((".dcm", ".dicom", ".ima", *files.SUFFIXES), key=len)[::-1]))
_SUFFIX = re.compile(f"({_ENDS})$", re.IGNORECASE)
_SHARED = "#[0-9a-f]{8}$"  # what the reader appends where several series share a folder


def split_folders(root: Path) -> dict[tuple[str, str], Path]:
    """The folders of splits in a folder, by split and letter: A, B, or none for single images.

    Raises:
        ValueError: for two of one split, single images beside pairs or domains, and other splits
            without one to train on.
    """
    folders: dict[tuple[str, str], Path] = {}
    for path in sorted(root.iterdir()) if root.is_dir() else []:
        letter = path.name[-1:].upper()
        letter = letter if letter in ("A", "B") else ""
        name = path.name[: len(path.name) - len(letter)]
        place = SPLITS.get(name.lower(), ""), letter
        if place[0] and path.is_dir():
            other = folders.setdefault(place, path)
            if other is not path:
                raise ValueError(
                    f"input: expected one folder of each split. Received: {other.name} and "
                    f"{path.name}"
                )
    names = ", ".join(path.name for path in folders.values())
    letters = {letter for _, letter in folders}
    if "" in letters and len(letters) > 1:
        raise ValueError(
            "input: expected trainA, trainB, testA ... for pairs and for two domains, or train, "
            f"test ... for single images. Received: {names}"
        )
    if folders and "train" not in {split for split, _ in folders}:
        wanted = "train" if "" in letters else "trainA and trainB"
        raise ValueError(f"input: expected {wanted} in {root}. Received: {names}")
    return folders


def others(root: Path, folders: dict[tuple[str, str], Path]) -> list[str]:
    """What else lies in the folder, but for notes and hidden files."""
    return [
        path.name
        for path in sorted(root.iterdir())
        if path not in folders.values()
        and not path.name.startswith(".")
        and (path.is_dir() or not files.is_note(path))
    ]


def two_domains(folders: dict[tuple[str, str], Path], dimensions: int) -> Layout:
    """Pairs where images of A and B share their names, and two domains where none do.

    Raises:
        ValueError: for a split with one folder alone, and where some have a partner and some none.
    """
    found: dict[str, list[files.Found]] = {}
    matches, problems = {}, []
    # What is in the two folders of each split, and what pairs there.
    for split in dict.fromkeys(SPLITS.values()):
        places = [folders[split, letter] for letter in "AB" if (split, letter) in folders]
        if len(places) == 1:
            name = places[0].name[:-1]
            raise ValueError(
                f"input: expected both {name}A and {name}B in {places[0].parent}. "
                f"Received: {places[0].name} alone"
            )
        if places:
            found[split] = [find(place, dimensions) for place in places]
            problems += found[split][0].problems + found[split][1].problems
            matches[split] = _match(found[split], places)
    # No pair in training: two domains.
    if not matches["train"][0]:
        domains: list[dict[str, list[Item]]] = [{}, {}]
        for split, both in found.items():
            for domain, part, letter in zip(domains, both, "AB", strict=True):
                domain[split] = single_items(part.volumes, f"{split}{letter}")
        alike = _alike([name for _, names, _ in matches.values() for name in names])
        notes = [f"no image of A has its name in B, so they are unpaired{alike}"] if alike else []
        return Layout("unpaired", domains, problems, notes=notes)
    unmatched = [name for _, names, _ in matches.values() for name in names]
    if unmatched:
        raise ValueError(
            "input: expected each image of A to have one of its name in B and each of B one in A "
            f"(or, for unpaired domains, none at all). "
            f"Received, without: {some(unmatched)}{_alike(unmatched)}"
        )
    pairs = {split: paired_items(matched, split) for split, (matched, _, _) in matches.items()}
    for _, _, alone in matches.values():
        problems += [Problem(volume.path(0), "its partner cannot be read") for volume in alone]
    return Layout("paired", [pairs], problems)


def splits(folders: dict[tuple[str, str], Path], dimensions: int) -> Layout:
    """Single images of each split."""
    domain: dict[str, list[Item]] = {}
    problems = []
    for (split, _), folder in folders.items():
        found = find(folder, dimensions)
        domain[split] = single_items(found.volumes, split)
        problems += found.problems
    return Layout("single", [domain], problems)


def _key(volume: Volume, alone: bool) -> str:
    """What a volume is called when it looks for its partner."""
    if volume.kind == "dicom" and len(volume.paths) > 1:
        return _composed(re.sub(_SHARED, "", volume.name))
    if volume.kind == "dicom" and alone:
        # A series of one file, whose name is often a mere identifier, is its folder.
        return _composed(Path(volume.name).parent.as_posix())
    return _composed(_SUFFIX.sub("", volume.name))


def _composed(name: str) -> str:
    """A name in Unicode's composed form: macOS writes decomposed ones, which look the same."""
    return unicodedata.normalize("NFC", name)


def _alike(names: list[str]) -> str:
    """What to say of names "trainA/..." and "trainB/..." that a reader would take for one."""

    def loose(name: str) -> str:
        name = unicodedata.normalize("NFKC", _SUFFIX.sub("", name.partition("/")[2])).casefold()
        return re.sub(r"0+(?=\d)|[\s_.-]+", "", name)

    groups = defaultdict(list)
    for name in names:
        groups[loose(name)].append(name)
    for group in groups.values():
        for one in group:
            others = [name for name in group if name.split("/")[0] != one.split("/")[0]]
            if others:
                return f"; {one} and {others[0]} differ in capitals, separators or leading zeros"
    return ""


def _keyed(volumes: list[Volume]) -> dict[str, list[Volume]]:
    in_folder: defaultdict[Path, int] = defaultdict(int)
    for volume in volumes:
        in_folder[volume.paths[0].parent] += 1
    keyed = defaultdict(list)
    for volume in volumes:
        keyed[_key(volume, in_folder[volume.paths[0].parent] == 1)].append(volume)
    return keyed


def _match(
    found: list[files.Found], roots: list[Path]
) -> tuple[list[tuple[Volume, Volume]], list[str], list[Volume]]:
    """Pairs (source, target) of two folders, the names that have no partner, and the volumes whose
    partner cannot be read.
    """
    sides = [_keyed(part.volumes) for part in found]
    lost = {
        _composed(_SUFFIX.sub("", p.path.relative_to(root).as_posix()))
        for part, root in zip(found, roots, strict=True)
        for p in part.problems
        if not p.harmless
    }
    # so are those of series, which are called after their folder
    lost |= {Path(name).parent.as_posix() for name in lost if "/" in name}
    pairs, unmatched, alone = [], [], []
    for key in sorted(set(sides[0]) | set(sides[1])):
        both = [side.get(key, []) for side in sides]
        if all(len(volumes) == 1 for volumes in both):
            pairs.append((both[0][0], both[1][0]))
        elif both[0] and both[1]:
            matched = _by_patient(both, roots)
            pairs += matched
            unmatched += [] if matched else _names(both, roots)
        elif key in lost:
            alone += both[0] + both[1]
        else:
            unmatched += _names(both, roots)
    return pairs, unmatched, alone


def _by_patient(both: list[list[Volume]], roots: list[Path]) -> list[tuple[Volume, Volume]]:
    """Pairs among volumes that share a folder or a name; none where no patient is in both.

    Time points, echoes and the like of one DICOM series pair in their order.
    """
    sources, targets = map(_by_place, both)
    first, second = map(_patients, both)
    known = "" not in first | second
    if known and not first & second:
        return []
    unique = len(sources) == len(both[0]) and len(targets) == len(both[1])
    if not (known and unique and sources.keys() == targets.keys()):
        raise ValueError(
            "input: expected one series of each patient in a folder, or a folder for each series, "
            "to pair them; or list the pairs in a .tsv. "
            f"Received: {some(_names(both, roots))}"
        )
    return [(volume, targets[place]) for place, volume in sources.items()]


def _by_place(volumes: list[Volume]) -> dict[tuple[str, int], Volume]:
    return {(volume.patient, number_of(volume)): volume for volume in volumes}


def _patients(volumes: list[Volume]) -> set[str]:
    return {volume.patient for volume in volumes}


def _names(both: list[list[Volume]], roots: list[Path]) -> list[str]:
    return [
        f"{root.name}/{volume.name}"
        for root, volumes in zip(roots, both, strict=True)
        for volume in volumes
    ]
