"""What a folder, or a list, of images says: pairs, two domains or single images, and splits."""

import csv
import dataclasses
import hashlib
import re
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from zoo.imaging import files
from zoo.imaging.volume import Problem, Volume

_SPLITS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
_SUFFIX = re.compile(r"\.(nii\.gz|nii|dcm|dicom|ima|png|jpe?g|tiff?|npy)$", re.IGNORECASE)
_SHARED = "#[0-9a-f]{8}$"  # what the reader appends where several series share a folder


class Item(NamedTuple):
    """A volume, or the pair of volumes (source, target), of one patient.

    Attributes:
        volumes: one or two volumes.
        patient: hash of who it is.
        known: False where no file and no list says who it is: then each item is a patient.
    """

    volumes: tuple[Volume, ...]
    patient: str
    known: bool


@dataclasses.dataclass
class Layout:
    """What was found.

    Attributes:
        kind: "paired", "unpaired" or "single".
        domains: split name to items; one dictionary, or for unpaired data one a domain.
        problems: files that cannot be read and are left out.
        shared_patients: whether a patient is in more than one split.
    """

    kind: str
    domains: list[dict[str, list[Item]]]
    problems: list[Problem]
    shared_patients: bool = False


def read(path: Path, allow_shared_patients: bool = False) -> Layout:
    """Find out what the user's folder or list holds.

    Args:
        path: a folder with trainA, trainB, ... or with train, test, ... or with images; a file
            of images; or a .tsv list with the columns source and target (or image) and possibly
            split and patient.
        allow_shared_patients: permit one patient in several splits.

    Raises:
        FileNotFoundError: for files that are not there.
        ValueError: for files that do not pair, a patient in several splits, or no image at all.
    """
    if path.suffix.lower() == ".tsv":
        layout = _from_list(path)
    else:
        folders = {p.name.lower(): p for p in path.iterdir()} if path.is_dir() else {}
        if "traina" in folders or "trainb" in folders:
            layout = _from_two_domains(path, folders)
        elif "train" in folders:
            layout = _from_splits(folders)
        else:
            found = files.find(path)
            layout = Layout("single", [{"": _items(found.volumes, "")}], found.problems)
    for domain in layout.domains:
        if not any(domain.values()):
            reasons = "; ".join(f"{p.path.name}: {p.reason}" for p in layout.problems[:3])
            raise ValueError(f"input: no readable image is left. Received: {path} ({reasons})")
    _carve(layout.domains)
    if not all(domain.get("train") for domain in layout.domains):
        raise ValueError(f"input: no readable image is left for training. Received: {path}")
    _check_patients(layout, allow_shared_patients)
    return layout


def listed_paths(path: Path) -> list[Path]:
    """Files and folders that a .tsv list names, for a digest; missing ones included."""
    return [p for row in _rows(path)[1] for p in row["paths"]]


def anonymous(text: str) -> str:
    """16 hexadecimal digits that stand for a patient."""
    return hashlib.sha256(f"patient:{text}".encode()).hexdigest()[:16]


# Folders.


def _from_two_domains(root: Path, folders: dict[str, Path]) -> Layout:
    found: dict[str, list[files.Found]] = {}
    matches = {}
    for name, split in _SPLITS.items():
        places = [folders[name + letter] for letter in "ab" if name + letter in folders]
        if len(places) == 1:
            raise ValueError(
                f"input: expected both {name}A and {name}B in {root}. "
                f"Received: {places[0].name} alone"
            )
        if places:
            found[split] = [files.find(place) for place in places]
            matches[split] = _match(found[split], places)
    problems = [problem for both in found.values() for part in both for problem in part.problems]
    if not matches["train"][0]:
        domains = [
            {split: _items(both[i].volumes, f"{split}{'AB'[i]}") for split, both in found.items()}
            for i in range(2)
        ]
        return Layout("unpaired", domains, problems)
    unmatched = [name for _, names in matches.values() for name in names]
    if unmatched:
        raise ValueError(
            "input: expected each image of A to have one of its name in B and each of B one in A "
            f"(or, for unpaired domains, none at all). Received, without: {some(unmatched)}"
        )
    pairs = {split: _pairs(matched, split) for split, (matched, _) in matches.items()}
    return Layout("paired", [pairs], problems)


def _from_splits(folders: dict[str, Path]) -> Layout:
    domain, problems = {}, []
    for name, split in _SPLITS.items():
        if name in folders:
            found = files.find(folders[name])
            domain[split] = _items(found.volumes, split)
            problems += found.problems
    return Layout("single", [domain], problems)


def _items(volumes: list[Volume], salt: str) -> list[Item]:
    return [
        Item((v,), v.patient or anonymous(f"{salt}/{v.name}"), bool(v.patient)) for v in volumes
    ]


def _key(volume: Volume, alone: bool) -> str:
    """What a volume is called when it looks for its partner."""
    if volume.kind != "dicom":
        return _SUFFIX.sub("", volume.name)
    if len(volume.paths) > 1:
        return re.sub(_SHARED, "", volume.name)
    # A series of one file, whose name is often a mere identifier, is its folder where it can be.
    return Path(volume.name).parent.as_posix() if alone else _SUFFIX.sub("", volume.name)


def _keyed(volumes: list[Volume]) -> dict[str, list[Volume]]:
    in_folder = defaultdict(int)
    for volume in volumes:
        in_folder[volume.paths[0].parent] += 1
    keyed = defaultdict(list)
    for volume in volumes:
        keyed[_key(volume, in_folder[volume.paths[0].parent] == 1)].append(volume)
    return keyed


def _match(found: list[files.Found], roots: list[Path]) -> tuple[list, list[str]]:
    """Pairs (source, target) of two folders, and the names that have no partner."""
    sides = [_keyed(part.volumes) for part in found]
    lost = {  # partners of unreadable files are left out with them
        _SUFFIX.sub("", p.path.relative_to(root).as_posix())
        for part, root in zip(found, roots, strict=True)
        for p in part.problems
    }
    pairs, unmatched = [], []
    for key in sorted(set(sides[0]) | set(sides[1])):
        both = [side.get(key, []) for side in sides]
        if all(len(volumes) == 1 for volumes in both):
            pairs.append((both[0][0], both[1][0]))
        elif both[0] and both[1]:
            matched = _by_patient(both, roots)
            pairs += matched
            unmatched += [] if matched else _names(both, roots)
        elif key not in lost:
            unmatched += _names(both, roots)
    return pairs, unmatched


def _by_patient(both: list[list[Volume]], roots: list[Path]) -> list[tuple[Volume, Volume]]:
    """Pairs among volumes that share a folder or a name; none where no patient is in both."""
    sides = [{v.patient: v for v in volumes} for volumes in both]
    known = not any("" in side for side in sides)
    if known and not sides[0].keys() & sides[1].keys():
        return []
    if (
        not known
        or sides[0].keys() != sides[1].keys()
        or any(len(side) != len(volumes) for side, volumes in zip(sides, both, strict=True))
    ):
        raise ValueError(
            "input: expected one series of each patient in a folder, or a folder for each series, "
            "to pair them; or list the pairs in a .tsv. "
            f"Received: {some(_names(both, roots))}"
        )
    return [(volume, sides[1][patient]) for patient, volume in sides[0].items()]


def _names(both: list[list[Volume]], roots: list[Path]) -> list[str]:
    return [
        f"{root.name}/{volume.name}"
        for root, volumes in zip(roots, both, strict=True)
        for volume in volumes
    ]


def _pairs(pairs: list[tuple[Volume, Volume]], salt: str) -> list[Item]:
    wrong = [
        f"{source.name} and {target.name}"
        for source, target in pairs
        if source.patient and target.patient and source.patient != target.patient
    ]
    if wrong:
        raise ValueError(
            "input: expected source and target of one patient; where the files name different "
            "patients for one, list the pairs in a .tsv with a column patient. "
            f"Received: {some(wrong)}"
        )
    items = []
    for pair in pairs:
        patient = pair[0].patient or pair[1].patient
        items.append(Item(pair, patient or anonymous(f"{salt}/{pair[0].name}"), bool(patient)))
    return items


def some(names: list[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


# Lists.


def _rows(path: Path) -> tuple[list[str], list[dict]]:
    with open(path, newline="", encoding="utf-8-sig") as file:
        table = list(csv.DictReader(file, delimiter="\t", strict=True))
    columns = list(table[0]) if table else []
    keys = ["source", "target"] if "source" in columns else ["image"]
    allowed = {*keys, "split", "patient"}
    if not set(keys) <= set(columns) or set(columns) - allowed:
        raise ValueError(
            f"{path.name}: expected a tab-separated header with source and target (or image), and "
            f"possibly split and patient, and one line an example. Received: {columns}"
        )
    for number, row in enumerate(table, 2):
        if any(not isinstance(row[key], str) or not row[key].strip() for key in keys):
            raise ValueError(f"{path.name}, line {number}: expected {keys}. Received: {row}")
        row["paths"] = [_resolve(path, row[key].strip(), number) for key in keys]
        split = (row.get("split") or "").strip().lower()
        if (split and split not in _SPLITS) or ("split" in columns and not split):
            raise ValueError(
                f"{path.name}, line {number}: split: expected train, validation or test. "
                f"Received: {split!r}"
            )
        row["split"] = _SPLITS.get(split, "")
    return keys, table


def _resolve(listing: Path, text: str, number: int) -> Path:
    folder = listing.parent.resolve()
    path = (folder / text).resolve()
    if not Path(text).is_absolute() and not path.is_relative_to(folder):
        raise ValueError(
            f"{listing.name}, line {number}: expected a path inside the list's folder, or an "
            f"absolute one. Received: {text}"
        )
    return path


def _from_list(path: Path) -> Layout:
    keys, table = _rows(path)
    domain: dict[str, list[Item]] = defaultdict(list)
    problems = []
    for number, row in enumerate(table, 2):
        found = [files.find(p) for p in row["paths"]]
        bad = [p for part in found for p in part.problems]
        problems += bad
        counts = [len(part.volumes) for part in found]
        if 0 in counts and bad:
            continue
        if counts != [1] * len(keys):
            raise ValueError(
                f"{path.name}, line {number}: expected one file or series under each path. "
                f"Received: {counts} volumes"
            )
        volumes = tuple(part.volumes[0] for part in found)
        named = (row.get("patient") or "").strip()
        if named:
            item = Item(volumes, anonymous(named), True)
        elif len(volumes) == 2:
            item = _pairs([volumes], f"{row['paths'][0]}")[0]
        else:
            item = _items(list(volumes), f"{row['paths'][0]}")[0]
        domain[row["split"]].append(item)
    return Layout("paired" if len(keys) == 2 else "single", [dict(domain)], problems)


# Splits.


def _carve(domains: list[dict[str, list[Item]]]) -> None:
    """Take a test split, and a validation split where there is neither, from the training items.

    About a tenth of the patients each, by the order of their hashes; the same every time.
    """
    given = set().union(*domains)
    if "test" in given:
        return
    pools = [domain.pop("", []) + domain.pop("train", []) for domain in domains]
    patients = [{item.patient for item in pool} for pool in pools]
    # Patients of both domains, and of each alone, are divided apart: each part serves both.
    groups = defaultdict(list)
    for patient in sorted(set().union(*patients)):
        groups[tuple(patient in some for some in patients)].append(patient)
    split_of = {}
    for members in groups.values():
        members.sort(key=anonymous)  # not the hash itself: a user might have sorted by it
        tenth = max(1, round(len(members) / 10))
        names = ["test"] + ([] if "validation" in given else ["validation"])
        # Three patients are the fewest for three splits, two for two; one stays in training.
        taken = names[: max(len(members) - 1, 0)]
        for number, patient in enumerate(members):
            part = number // tenth
            split_of[patient] = taken[part] if part < len(taken) else "train"
    for domain, pool in zip(domains, pools, strict=True):
        for item in pool:
            domain.setdefault(split_of[item.patient], []).append(item)
    for split in ("validation", "test"):  # useful only where every domain has it
        if split not in given and not all(domain.get(split) for domain in domains):
            for domain in domains:
                domain.setdefault("train", []).extend(domain.pop(split, []))


def _check_patients(layout: Layout, allowed: bool) -> None:
    splits = defaultdict(set)
    for domain in layout.domains:
        for split, items in domain.items():
            for item in items:
                if item.known:
                    splits[item.patient].add(split)
    shared = [patient for patient, names in splits.items() if len(names) > 1]
    layout.shared_patients = bool(shared)
    if shared and not allowed:
        names = sorted(set().union(*(splits[patient] for patient in shared)))
        raise ValueError(
            f"allow_shared_patients: expected each patient in one split only, or "
            f"`--set allow_shared_patients=true` to permit results that flatter. "
            f"Received: {len(shared)} patients in several of {', '.join(names)}"
        )
