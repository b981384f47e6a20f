"""Where the translations of a user's files go: found, and refused, before any work is done."""

import itertools
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from zoo import atomic
from zoo.imaging import raster
from zoo.imaging.dicom.series import Series
from zoo.imaging.files import SUFFIXES, ending
from zoo.imaging.geometry import Grid
from zoo.imaging.volume import Volume
from zoo.inference.series import changes


def targets(
    model: Any,
    volumes: list[Volume],
    grid: Grid,
    input: Path,
    output: Path,
    *,
    deidentify: bool,
    mine: set[int],
    replaceable: Callable[[Path], bool],
) -> tuple[list[list[Path]], Path]:
    """The files that each volume is written to, and the folder that all of them lie in.

    Of several inputs the first says where.

    Raises:
        FileExistsError: where one of `mine`, the volumes of this part, exists and is not
            `replaceable`.
        ValueError: where one would replace an input, or `output` names a file of another kind.
    """
    inputs, volumes = volumes, [volume.parts[0] for volume in volumes]
    counts = [_file_count(model, volume, grid) for volume in volumes]
    suffixes = _suffixes(volumes, bool(model.classes))
    alone = input.is_file() and counts == [1]
    if alone and _names_a_file(output, volumes[0], suffixes[volumes[0].paths[0]]):
        found, root = [[output]], output.parent
    elif input.is_dir() and input.resolve() == output.resolve():
        raise ValueError(f"output: expected another folder than the input. Received: {output}")
    else:
        found, root = [], output
        base = input if input.is_dir() else input.parent
        for number, (volume, count) in enumerate(zip(volumes, counts, strict=True), 1):
            if deidentify:
                found.append(_without_names(volume, count, number, output, suffixes))
                continue
            places = _named_as_input(volume, count, base, output, suffixes)
            case = inputs[number - 1]
            if len(case.parts) > 1 and len(places) == 1:
                places = [places[0].with_name(_named_as_case(case, suffixes))]
            found.append(places)
    # A header's voxels lie beside it.
    for place, (volume, paths) in enumerate(zip(volumes, found, strict=True)):
        if len(paths) == 1:
            found[place] = volume.files(paths[0])
    _check_free(inputs, [found[index] for index in sorted(mine)], replaceable)
    return found, root


def _file_count(model: Any, volume: Volume, grid: Grid) -> int:
    """How many files a volume is written to."""
    if isinstance(volume, Series) and (len(volume.paths) > 1 or changes(model, volume)):
        return volume.length * grid.depth
    return 1


def _suffixes(volumes: list[Volume], labels: bool) -> dict[Path, str]:
    """How the name of each input's output ends: as its own, but for the label map of a JPEG."""
    suffixes = {path: ending(path) for volume in volumes for path in volume.paths}
    for path, suffix in suffixes.items():
        if labels and suffix.lower() in raster.JPEG_SUFFIXES:  # would not keep a class's number
            suffixes[path] = ".png"
    return suffixes


def _names_a_file(output: Path, volume: Volume, suffix: str) -> bool:
    """Whether `output` is the file to write a single volume to, and no folder.

    Raises:
        ValueError: for a name that says another kind of file.
    """
    if output.is_dir() or not output.suffix:
        return False
    is_dicom = volume.kind == "dicom"
    others = (".gz", *SUFFIXES) if is_dicom else (".dcm", ".gz", *SUFFIXES)
    is_other = ending(output).lower() in others
    if output.name.lower().endswith(suffix.lower()) or (is_dicom and not is_other):
        return True
    if is_other:
        kind = "DICOM" if is_dicom else suffix
        raise ValueError(f"output: expected a {kind} file, as the input. Received: {output}")
    return False


def _named_as_input(
    volume: Volume, count: int, base: Path, output: Path, suffixes: dict[Path, str]
) -> list[Path]:
    """The input's names and folders, with numbers where one file becomes several."""
    each = count // len(volume.paths)
    paths = []
    for path in volume.paths:
        name = path.name.removesuffix(ending(path)) + suffixes[path]
        place = (output / path.relative_to(base)).with_name(name)
        if each > 1:
            paths += [_numbered(place, k) for k in range(1, each + 1)]
        else:
            paths.append(place)
    return paths


def _named_as_case(case: Volume, suffixes: dict[Path, str]) -> str:
    """The name of a case of several inputs, of the kind of its first file."""
    name = Path(case.name).name
    return name.removesuffix(ending(Path(name))) + suffixes[case.paths[0]]


def _without_names(
    volume: Volume, count: int, number: int, output: Path, suffixes: dict[Path, str]
) -> list[Path]:
    """Numbers alone: an input's name may be a patient's."""
    if count > 1:
        folder = output / f"SE_{number:04d}"
        return [folder / f"IM_{i:04d}.dcm" for i in range(1, count + 1)]
    suffix = ".dcm" if volume.kind == "dicom" else suffixes[volume.paths[0]].lower()
    return [output / f"IM_{number:04d}{suffix}"]


def _numbered(path: Path, number: int) -> Path:
    """`path` with a number behind its stem, which is cut where the name would get too long."""
    stem, suffix = path.stem, path.suffix
    if len(suffix) > 10:  # the last part of a UID
        stem, suffix = path.name, ""
    end = f"-{number}{suffix}"
    while len(os.fsencode(stem + end)) > 255:
        stem = stem[:-1]
    return path.with_name(stem + end)


def _check_free(
    volumes: list[Volume], targets: list[list[Path]], replaceable: Callable[[Path], bool]
) -> None:
    inputs = {os.path.realpath(path) for v in volumes for path in (*v.paths, *v.companions)}
    for path in itertools.chain.from_iterable(targets):
        if os.path.realpath(path) in inputs:
            raise ValueError(f"output: would replace an input file. Received: {path}")
        if os.path.lexists(path):
            check_replaceable(path, replaceable(path))


def check_replaceable(path: Path, overwrite: bool) -> None:
    """A FileExistsError where a file is there and may not be replaced."""
    if os.path.lexists(path) and not overwrite:
        raise FileExistsError(f"output exists; pass overwrite to replace it. Received: {path}")


def check_writable(folder: Path) -> None:
    """Makes the folder for what is written.

    Raises:
        ValueError: where there is a file of its name, or of a folder's above it.
        OSError: where no file can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(
            f"output: expected a folder. Received: {folder}, which is a file or lies in one"
        ) from error
    with tempfile.TemporaryFile(dir=folder):
        pass


def sweep(places: Iterable[list[Path]], root: Path) -> None:
    """Removes what killed runs left half written beside outputs, but where a link leads out."""
    inside = os.path.realpath(root)
    for folder in {path.parent for paths in places for path in paths}:
        if _within(folder, inside):
            atomic.sweep(folder)


def check_paths(paths: list[Path], root: Path, claimed: set[Path]) -> None:
    """Raises a ValueError where a name is taken, or a link leads out of the folder `root`."""
    for path in paths:
        if path in claimed:
            raise ValueError(f"output: expected a name of its own. Received: {path.name} again")
    inside = os.path.realpath(root)
    for folder in {path.parent for path in paths}:
        if not _within(folder, inside):
            raise ValueError(
                f"output: expected a folder within {root}. "
                f"Received: {os.path.realpath(folder)}, by a link"
            )


def _within(folder: Path, inside: str) -> bool:
    return os.path.commonpath([inside, os.path.realpath(folder)]) == inside
