"""What a folder, or a list, of images says: pairs, two domains or single images, and splits."""

import csv
import dataclasses
import hashlib
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from zoo.imaging import files, geometry
from zoo.imaging.dicom.series import Series
from zoo.imaging.volume import Problem, Volume

_SPLITS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
_ENDS = "|".join(map(re.escape, sorted((".dcm", ".dicom", ".ima", *files.SUFFIXES), key=len)[::-1]))
_SUFFIX = re.compile(f"({_ENDS})$", re.IGNORECASE)
_SHARED = "#[0-9a-f]{8}$"  # what the reader appends where several series share a folder
_LONGEST = 4096  # characters of a path in a list


class Item(NamedTuple):
    """A volume, or the pair of volumes (source, target), of one patient.

    Attributes:
        volumes: one or two volumes.
        patient: who it is, as files or list say; never written as it is.
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
        problems: files that cannot be read and are left out; harmless ones too.
        notes: what else the user should know, a line each.
        shared_patients: whether a patient is in more than one split.
        plane: that volumes which state an affine are presented in; None where no training image
            says how it lies.
    """

    kind: str
    domains: list[dict[str, list[Item]]]
    problems: list[Problem]
    shared_patients: bool = False
    notes: list[str] = dataclasses.field(default_factory=list)
    plane: str | None = None

    @property
    def unknown(self) -> int:
        """How many items are a patient each, since nobody says whose they are."""
        return sum(
            not item.known for domain in self.domains for items in domain.values() for item in items
        )


def read(path: Path, allow_shared_patients: bool = False, dimensions: int = 2) -> Layout:
    """Find out what the user's folder or list holds.

    Args:
        path: a folder with trainA, trainB, ... or with train, test, ... or with images; a file
            of images; or a .tsv list with the columns source and target (or image) and possibly
            split and patient.
        allow_shared_patients: permit one patient in several splits.
        dimensions: 3 takes whole volumes, and leaves out series whose slices are not evenly spaced.

    Raises:
        FileNotFoundError: for files that are not there.
        ValueError: for files that do not pair, a patient in several splits, or no image at all.
    """
    if is_list(path):
        layout = _from_list(path, dimensions)
    elif folders := _folders(path):
        is_paired = "" not in {letter for _, letter in folders}
        read_folders = _from_two_domains if is_paired else _from_splits
        layout = read_folders(folders, dimensions)
        others = _others(path, folders)
        if others:
            layout.notes.append(f"warning: in no folder of a split, and left out: {some(others)}")
    else:
        found = _find(path, dimensions)
        layout = Layout("single", [{"": _items(found.volumes, "")}], found.problems)
    for domain in layout.domains:
        if not any(domain.values()):
            lost = [p for p in layout.problems if not p.harmless] or layout.problems
            reasons = "; ".join(f"{p.path.name}: {p.reason}" for p in lost[:3]) or "no file"
            raise ValueError(f"input: no readable image is left. Received: {path} ({reasons})")
    _join_links(layout.domains)
    _carve(layout.domains)
    if not all(domain.get("train") for domain in layout.domains):
        raise ValueError(f"input: no readable image is left for training. Received: {path}")
    _check_patients(layout, allow_shared_patients)
    return layout


def present(found: Layout) -> None:
    """Presents all volumes in the plane that those for training were acquired in, in place.

    Axial where they were acquired in several: slices of one plane are what a network learns from.
    A pair of which one file does not say how it lies stays as both are stored.
    """
    training = [item for domain in found.domains for item in domain["train"]]
    planes = {volume.acquired for item in training for volume in item.volumes} - {None}
    if not planes:
        return
    found.plane = planes.pop() if len(planes) == 1 else "axial"
    if planes:
        found.notes.append(
            "volumes were acquired in several planes; where files state an affine "
            "they are presented as axial slices"
        )
    kept = 0
    for domain in found.domains:
        for items in domain.values():
            for number, item in enumerate(items):
                if any(v.kind != "dicom" and v.affine is None for v in item.volumes):
                    kept += 1
                    continue
                volumes = tuple(volume.presented(found.plane) for volume in item.volumes)
                items[number] = item._replace(volumes=volumes)
    if kept:
        found.notes.append(
            f"{kept} images or pairs are taken as they are stored: a file does not say how it lies"
        )


def is_list(path: Path) -> bool:
    """Whether the input is a .tsv list."""
    return path.suffix.lower() == ".tsv" and not path.is_dir()


def listed_paths(path: Path) -> list[Path]:
    """Files and folders that a .tsv list names, for a digest; missing ones included."""
    return [p for row in _rows(path)[1] for p in row.paths]


def pseudonym(key: bytes, text: str) -> str:
    """16 hexadecimal digits that stand for a patient, and cannot be found again without the key."""
    content = f"patient:{text}".encode("utf-8", "surrogateescape")
    return hashlib.blake2b(content, key=key, digest_size=8).hexdigest()


def _find(path: Path, dimensions: int) -> files.Found:
    """The volumes in a file or folder; series that are no even volume are problems where it asks
    for volumes.
    """
    found = files.find(path)
    if dimensions == 2:
        return found
    whole, problems = [], list(found.problems)
    for volume in found.volumes:
        try:
            if isinstance(volume, Series):
                geometry.slice_step([frame.position for frame in volume.frames])
            whole.append(volume)
        except ValueError as error:
            problems += [Problem(file, f"no volume: {error}") for file in volume.paths]
    return files.Found(whole, problems)


# Folders.


def _folders(root: Path) -> dict[tuple[str, str], Path]:
    """The folders of splits in a folder, by split and letter: A, B, or none for single images.

    Raises:
        ValueError: for two of one split, single images beside pairs or domains, and other splits
            without one to train on.
    """
    folders: dict[tuple[str, str], Path] = {}
    for path in sorted(root.iterdir()) if root.is_dir() else []:
        name, letter = re.fullmatch("(.*?)([AB]?)", path.name, re.IGNORECASE | re.DOTALL).groups()
        place = _SPLITS.get(name.lower(), ""), letter.upper()
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


def _others(root: Path, folders: dict[tuple[str, str], Path]) -> list[str]:
    """What else lies in the folder, but for notes and hidden files."""
    return [
        path.name
        for path in sorted(root.iterdir())
        if path not in folders.values()
        and not path.name.startswith(".")
        and (path.is_dir() or not files.is_note(path))
    ]


def _from_two_domains(folders: dict[tuple[str, str], Path], dimensions: int) -> Layout:
    found: dict[str, list[files.Found]] = {}
    matches, problems = {}, []
    for split in dict.fromkeys(_SPLITS.values()):
        places = [folders[split, letter] for letter in "AB" if (split, letter) in folders]
        if len(places) == 1:
            name = places[0].name[:-1]
            raise ValueError(
                f"input: expected both {name}A and {name}B in {places[0].parent}. "
                f"Received: {places[0].name} alone"
            )
        if places:
            found[split] = [_find(place, dimensions) for place in places]
            problems += found[split][0].problems + found[split][1].problems
            matches[split] = _match(found[split], places)
    if not matches["train"][0]:
        domains = [
            {split: _items(both[i].volumes, f"{split}{'AB'[i]}") for split, both in found.items()}
            for i in range(2)
        ]
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
    pairs = {split: _pairs(matched, split) for split, (matched, _, _) in matches.items()}
    for _, _, alone in matches.values():
        problems += [Problem(volume.path(0), "its partner cannot be read") for volume in alone]
    return Layout("paired", [pairs], problems)


def _from_splits(folders: dict[tuple[str, str], Path], dimensions: int) -> Layout:
    domain, problems = {}, []
    for (split, _), folder in folders.items():
        found = _find(folder, dimensions)
        domain[split] = _items(found.volumes, split)
        problems += found.problems
    return Layout("single", [domain], problems)


def _items(volumes: list[Volume], salt: str) -> list[Item]:
    return [Item((v,), v.patient or f"{salt}/{v.name}", bool(v.patient)) for v in volumes]


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
    in_folder = defaultdict(int)
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
    sides = [{(v.patient, _number(v)): v for v in volumes} for volumes in both]
    patients = [{volume.patient for volume in volumes} for volumes in both]
    known = "" not in patients[0] | patients[1]
    if known and not patients[0] & patients[1]:
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
    return [(volume, sides[1][place]) for place, volume in sides[0].items()]


def _number(volume: Volume) -> int:
    """Of a time point, echo or the like among those of its series."""
    return volume.number if isinstance(volume, Series) else 0


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
        items.append(Item(pair, patient or f"{salt}/{pair[0].name}", bool(patient)))
    return items


def some(names: list[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


# Lists.


class _Row(NamedTuple):
    """A line of a list: its number in the file, its image or source and target, and what else."""

    line: int
    paths: list[Path]
    split: str
    patient: str


def _rows(path: Path) -> tuple[list[str], list[_Row]]:
    """The columns that name images, and the lines of a list.

    Raises:
        ValueError: for what is no such list; names the line.
    """
    table = list(_fields(path))
    columns = [name.strip() for name in table[0][1]] if table else []
    keys = ["source", "target"] if "source" in columns else ["image"]
    allowed = {*keys, "split", "patient"}
    if not set(keys) <= set(columns) or not set(columns) <= allowed:
        raise ValueError(
            f"{path.name}: expected a tab-separated header with source and target (or image), and "
            f"possibly split and patient, and one line an example. Received: {columns}"
        )
    if len(set(columns)) < len(columns):
        raise ValueError(f"{path.name}: expected each column once. Received: {columns}")
    rows: list[_Row] = []
    seen: dict[Path, _Row] = {}
    for line, fields in table[1:]:
        where = f"{path.name}, line {line}"
        if len(fields) != len(columns):
            raise ValueError(
                f"{where}: expected {len(columns)} fields, {', '.join(columns)}. "
                f"Received: {len(fields)}"
            )
        row = dict(zip(columns, map(str.strip, fields), strict=True))
        split = row.get("split", "").lower()
        if split not in _SPLITS and "split" in columns:
            raise ValueError(
                f"{where}: split: expected train, validation or test. Received: {split[:40]!r}"
            )
        paths = [_resolve(path.parent.resolve(), row[key], f"{where}: {key}") for key in keys]
        read = _Row(line, paths, _SPLITS.get(split, ""), row.get("patient", ""))
        for file in paths:
            before = seen.setdefault(file, read)
            if before is not read and (before.paths == paths or before.split != read.split):
                raise ValueError(
                    f"{where}: expected each file once, or in one split only. "
                    f"Received: {file.name} in line {before.line} as well"
                )
        rows.append(read)
    return keys, rows


def _fields(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The lines of a tab-separated file that are not empty: number, and fields."""
    content = path.read_bytes()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError(f"{path.name}: expected text in UTF-8. Received: UTF-16")
    for number, line in enumerate(re.split(rb"\r\n|\r|\n", content), 1):
        where = f"{path.name}, line {number}"
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{where}: expected text in UTF-8. Received: byte {line[error.start]:#04x}"
            ) from error
        if "\0" in text:
            raise ValueError(f"{where}: expected text. Received: a NUL byte")
        if not text.strip():
            continue
        # Line by line: a stray quotation mark would swallow the following ones.
        try:
            yield number, next(csv.reader([text], delimiter="\t", strict=True))
        except csv.Error as error:
            raise ValueError(
                f"{where}: expected fields between tabs, quoted as a whole or not at all. "
                f"Received: {error}"
            ) from error


def _resolve(folder: Path, text: str, where: str) -> Path:
    """The path that a field of a list in `folder` names."""
    if not text or len(text) > _LONGEST:
        raise ValueError(f"{where}: expected a path. Received: {len(text)} characters")
    try:
        named = Path(text).expanduser()
    except RuntimeError as error:  # no such user
        raise ValueError(f"{where}: expected a path. Received: {text} ({error})") from error
    path = Path(os.path.normpath(folder / named))
    if not named.is_absolute() and not path.is_relative_to(folder):
        raise ValueError(
            f"{where}: expected a path inside the list's folder, or an absolute one. "
            f"Received: {text}"
        )
    return path


def _from_list(path: Path, dimensions: int) -> Layout:
    keys, rows = _rows(path)
    domain: dict[str, list[Item]] = defaultdict(list)
    problems = []
    for row in rows:
        where = f"{path.name}, line {row.line}"
        try:
            found = [_find(p, dimensions) for p in row.paths]
        except OSError as error:
            raise FileNotFoundError(f"{where}: {error}") from error
        bad = [p for part in found for p in part.problems]
        problems += bad
        counts = [len(part.volumes) for part in found]
        if 0 in counts and any(not p.harmless for p in bad):
            continue
        parts = [sorted(part.volumes, key=_number) for part in found]
        # one volume, or the time points, echoes and the like of one series
        numbers = [[_number(volume) for volume in part] for part in parts]
        if 0 in counts or any(part != list(range(counts[0])) for part in numbers):
            raise ValueError(
                f"{where}: expected one file or series under each path. "
                f"Received: {' and '.join(map(str, counts))} volumes"
            )
        for volumes in zip(*parts, strict=True):
            if row.patient:
                item = Item(volumes, f"list:{row.patient}", True)
            elif len(volumes) == 2:
                item = _pairs([volumes], f"{row.paths[0]}")[0]
            else:
                item = _items(list(volumes), f"{row.paths[0]}")[0]
            domain[row.split].append(item)
    return Layout("paired" if len(keys) == 2 else "single", [dict(domain)], problems)


# Splits.


def _shuffled(patient: str) -> str:
    """An order of patients that has nothing to do with their names; it is never written."""
    return hashlib.sha256(patient.encode("utf-8", "surrogateescape")).hexdigest()


def _join_links(domains: list[dict[str, list[Item]]]) -> None:
    """Gives a file that links lead to one patient, where nobody knows who it is, in place."""
    patients: dict[str, str] = {}
    for items in [items for domain in domains for items in domain.values()]:
        for number, item in enumerate(items):
            if not item.known:
                file = os.path.realpath(item.volumes[0].path(0))
                items[number] = item._replace(patient=patients.setdefault(file, item.patient))


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
        members.sort(key=_shuffled)
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
