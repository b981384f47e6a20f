"""Finds image volumes in a file or a folder.

What becomes of each file (docs/files.md):

- DICOM is told by its content, whatever the name; other images by their suffix.
- Notes are ignored: names such as README, LICENSE or participants, suffixes of text, tables,
  documents, programs and checksums, and text in a file without a suffix. So are DICOMDIR, hidden
  files and folders, and DICOM objects that hold no image.
- Everything else is a problem that is named: a damaged image, a kind that is not read, a link to
  nothing, a pipe or a device (which is never opened), a folder that cannot be listed.

Folders behind links are entered, each folder once.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from zoo.errors import contained, reason
from zoo.imaging import metaimage, mgh, nifti, nrrd, raster
from zoo.imaging.dicom import images, read
from zoo.imaging.volume import NOT_AN_IMAGE, Problem, Volume

# What reads the files of a suffix; a suffix may be the end of another, the first that fits counts.
_READERS = (
    (nifti.SUFFIXES, nifti.open_volume),
    (mgh.SUFFIXES, mgh.open_volume),
    (metaimage.SUFFIXES, metaimage.open_volume),
    (nrrd.SUFFIXES, nrrd.open_volume),
    (raster.SUFFIXES, raster.open_volume),
)
SUFFIXES = sum((suffixes for suffixes, _ in _READERS), ())  # but for DICOM's
_DICOM = (".dcm", ".dicom", ".ima")
_NOTES = (
    *(".txt", ".md", ".rst", ".log", ".pdf", ".rtf", ".doc", ".docx", ".odt", ".tex", ".bib"),
    *(".csv", ".tsv", ".xls", ".xlsx", ".ods", ".json", ".jsonl", ".yaml", ".yml", ".toml"),
    *(".xml", ".html", ".htm", ".css", ".ini", ".cfg", ".bval", ".bvec", ".bvals", ".bvecs"),
    *(".py", ".ipynb", ".sh", ".m", ".r", ".md5", ".sha1", ".sha256", ".sha512", ".url"),
)
_NOTE_NAMES = (
    *("readme", "changes", "changelog", "license", "licence", "copying", "authors", "citation"),
    *("notice", "participants", "dicomdir", "thumbs.db", "md5sums", "sha1sums", "sha256sums"),
)

_CONTROL = frozenset(range(32)) - frozenset(b"\t\n\f\r\x1b")


class Found(NamedTuple):
    """What a search found: volumes sorted by name, and the files that give none.

    A problem is `harmless` where the file is no image in the first place, such as a note; these
    come last.
    """

    volumes: list[Volume]
    problems: list[Problem]


def find(path: str | os.PathLike, *, exclude: Path | None = None) -> Found:
    """The image volumes in `path`, a file or a folder with all folders below it.

    Args:
        path: where to search.
        exclude: a folder to leave out.

    Raises:
        FileNotFoundError: where `path` does not exist. A bad file is a Problem, never an error.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"input: expected a file or a folder. Received: {path}")
    volumes: list[Volume] = []
    problems: list[Problem] = []
    candidates: list[tuple[Path, str]] = []
    root = path if path.is_dir() else path.parent
    for file in _walk(path, exclude, problems):
        name = file.relative_to(root).as_posix()
        try:
            with contained("cannot be read"):
                volume = _open(file, name)
            if volume is None:
                candidates.append((file, name))
            else:
                volumes.append(volume)
        except ValueError as error:
            problems.append(Problem(file, str(error)))
    # the voxels of a header in another file have been read with it
    voxels = set().union(*(volume.companions for volume in volumes))
    problems = [problem for problem in problems if problem.path not in voxels]
    series, failed = read.find_series(candidates)
    volumes = sorted([*volumes, *series], key=lambda volume: volume.name)
    problems = sorted(problems + failed, key=lambda problem: (problem.harmless, problem))
    return Found(volumes, problems)


def open_volume(path: str | os.PathLike) -> Volume:
    """The only volume in `path`.

    Raises:
        FileNotFoundError: where `path` does not exist.
        ValueError: where it holds no volume, or several.
    """
    volumes, problems = find(path)
    if len(volumes) != 1:
        why = f": {problems[0].reason}" if problems else ""
        raise ValueError(f"{path}: expected one volume. Received: {len(volumes)}{why}")
    return volumes[0]


def is_note(path: Path) -> bool:
    """Whether a file is no image by its name, such as a README or a table."""
    lower = path.name.lower()
    return lower.endswith(_NOTES) or bool({lower, lower.split(".")[0]} & set(_NOTE_NAMES))


def every(path: str | os.PathLike) -> list[Path]:
    """Every file that a search in `path` looks at, those that it ignores included."""
    return list(_walk(Path(path), None, []))


def _open(file: Path, name: str) -> Volume | None:
    """The volume in a file, None where it is DICOM, whose series are put together later.

    Raises:
        ValueError: where it is no image, or none that can be read.
    """
    lower = file.name.lower()
    note = f"{NOT_AN_IMAGE}: a note"
    if file.is_symlink() and not file.exists():
        raise ValueError(note if is_note(file) else "a link to a file that is not there")
    # opening a pipe would wait for ever, and a device can do anything
    if not stat.S_ISREG(file.stat().st_mode):
        raise ValueError("no regular file. Received: a pipe, a socket or a device")
    for suffixes, opened in _READERS:
        if lower.endswith(suffixes):
            return opened(file, name)
    if lower == "dicomdir":
        raise ValueError(f"{NOT_AN_IMAGE}: a directory of DICOM files")
    if images.is_dicom(file):
        return None
    if is_note(file) or (not file.suffix and _is_text(file)):
        raise ValueError(note)
    if not file.suffix or lower.endswith(_DICOM):
        raise ValueError("not a DICOM file")
    kind = "".join(file.suffixes[-2:]).lower()
    raise ValueError(
        f"a kind that is not read: expected DICOM, {', '.join(SUFFIXES)}. Received: {kind}"
    )


def ending(path: Path) -> str:
    """The end of a name that says of what kind the file is, such as ".nii.gz", as it is written."""
    ends = [end for end in SUFFIXES if path.name.lower().endswith(end)]
    return path.name[-max(map(len, ends)) :] if ends else path.suffix


def _is_text(file: Path) -> bool:
    """Whether a file that is not empty begins without control characters, as text does."""
    with open(file, "rb") as opened:
        start = opened.read(4096)
    return bool(start) and not set(start) & _CONTROL


def _walk(path: Path, exclude: Path | None, problems: list[Problem]) -> Iterator[Path]:
    """The files in `path`, in the order of their names; what is not entered goes to `problems`."""
    if not path.is_dir():
        yield path
        return
    root, excluded = path.resolve(), exclude.resolve() if exclude else None
    folders, entered = [path], set()
    links: list[Path] = []
    while folders or links:
        # all that lies in the folder itself comes first, and so keeps its own name
        is_link = not folders
        folder = links.pop(0) if is_link else folders.pop()
        try:
            place, status = folder.resolve(), folder.stat()
            names = sorted(os.listdir(folder))
        except (OSError, RuntimeError) as error:
            problems.append(Problem(folder, f"a folder that cannot be listed: {reason(error)}"))
            continue
        # it is not entered twice, nor where the output goes
        identity = (status.st_dev, status.st_ino)
        if place == excluded and place != root:
            continue
        around = (root, folder.parent.resolve())
        if identity in entered or (is_link and any(p.is_relative_to(place) for p in around)):
            problems.append(Problem(folder, f"{NOT_AN_IMAGE}: a link to a folder that is searched"))
            continue
        if is_link and excluded and excluded != root and place.is_relative_to(excluded):
            problems.append(Problem(folder, f"{NOT_AN_IMAGE}: a link into the output"))
            continue
        # its files now, folders below it next, and links last
        entered.add(identity)
        below = []
        for name in names:
            inside = folder / name
            if name.startswith("."):
                problems.append(Problem(inside, f"{NOT_AN_IMAGE}: hidden"))
            elif not os.path.isdir(inside):
                yield inside
            elif inside.is_symlink():
                links.append(inside)
            else:
                below.append(inside)
        folders.extend(reversed(below))
