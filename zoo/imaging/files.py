"""Finds image volumes in a file or a folder."""

import os
from pathlib import Path
from typing import NamedTuple

from zoo.imaging import dicom, nifti, raster
from zoo.imaging.volume import NOT_AN_IMAGE, Problem, Volume

_RASTER = raster.PNG_SUFFIXES + raster.TIFF_SUFFIXES + raster.ARRAY_SUFFIXES
_DICOM = (".dcm", ".dicom", ".ima")
_IGNORED = (".json", ".txt", ".csv", ".md", ".tsv", ".yaml", ".yml", ".html", ".bval", ".bvec")


class Found(NamedTuple):
    """What a search found: volumes sorted by name, and the files that cannot be used."""

    volumes: list[Volume]
    problems: list[Problem]


def find(path: str | os.PathLike, *, exclude: Path | None = None) -> Found:
    """The image volumes in `path`, a file or a folder with all folders below it.

    DICOM files are told by their content, whatever their name; others by their suffix. Hidden
    files, DICOMDIR and notes (.txt, .json, ...) are passed over.

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
    for file in _walk(path, exclude):
        name = file.relative_to(root).as_posix()
        lower = file.name.lower()
        try:
            if lower.endswith(nifti.SUFFIXES):
                volumes.append(nifti.open_volume(file, name))
            elif lower.endswith(_RASTER):
                volumes.append(raster.open_volume(file, name))
            elif dicom.is_dicom(file):
                candidates.append((file, name))
            elif not file.suffix or lower.endswith(_DICOM):
                problems.append(Problem(file, "not a DICOM file"))
            elif not lower.endswith(_IGNORED) or file == path:
                problems.append(Problem(file, f"{NOT_AN_IMAGE} file of a known kind"))
        except (ValueError, OSError) as error:
            problems.append(Problem(file, str(error)))
    series, failed = dicom.find_series(candidates)
    volumes = sorted(volumes + series, key=lambda volume: volume.name)
    return Found(volumes, sorted(problems + failed))


def open_volume(path: str | os.PathLike) -> Volume:
    """The only volume in `path`.

    Raises:
        FileNotFoundError: where `path` does not exist.
        ValueError: where it holds no volume, or several.
    """
    volumes, problems = find(path)
    if len(volumes) != 1:
        reason = f": {problems[0].reason}" if problems else ""
        raise ValueError(f"{path}: expected one volume. Received: {len(volumes)}{reason}")
    return volumes[0]


def _walk(path: Path, exclude: Path | None) -> list[Path]:
    if path.is_file():
        return [path]
    files = []
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and (exclude is None or (Path(folder) / name).resolve() != exclude.resolve())
        )
        files.extend(
            Path(folder) / name
            for name in sorted(names)
            if not name.startswith(".") and name.upper() != "DICOMDIR"
        )
    return files
