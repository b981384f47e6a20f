"""Translates a user's files, and writes generated images."""

import collections
import contextlib
import dataclasses
import datetime
import functools
import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pydicom.uid
import tqdm

from zoo import guards
from zoo.atomic import replacing
from zoo.errors import contained, reason
from zoo.imaging import geometry, raster
from zoo.imaging.dicom import iods, provenance, write
from zoo.imaging.dicom.deidentify import Deidentifier
from zoo.imaging.dicom.series import Series
from zoo.imaging.files import SUFFIXES, ending, find
from zoo.imaging.geometry import Grid
from zoo.imaging.oriented import Oriented
from zoo.imaging.resampling import resampling
from zoo.imaging.volume import Problem, Volume


@dataclasses.dataclass
class Report:
    """What a run did.

    Attributes:
        done: what was written of: files, and DICOM series, of which each counts once.
        series: how many of them are DICOM series.
        slices: the slices of the inputs that were translated.
        outputs: the files written.
        skipped: the files that were not translated, and why.
        ignored: the files that are no images, such as notes and RT structure sets.
        warnings: what there is to say of images that were translated, each by its first file:
            that they are far from what the model was trained on, or became another kind of DICOM
            object.
    """

    done: int = 0
    series: int = 0
    slices: int = 0
    outputs: list[Path] = dataclasses.field(default_factory=list)
    skipped: list[Problem] = dataclasses.field(default_factory=list)
    ignored: list[Problem] = dataclasses.field(default_factory=list)
    warnings: list[Problem] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(kw_only=True)
class _Run:
    """What the volumes of a run have in common.

    Attributes:
        grid: how much finer the outputs' grids are.
        batch_size: slices that the model gets at once.
        description: free text for the headers.
        uids: SeriesInstanceUIDs of the outputs by `_identities`, made as they are asked for.
        numbers: SeriesNumbers of the outputs, likewise.
        alone: series, by `_identity`, with several slices of one view that are alone.
        series: the input's series of which there is output, by `_identity`.
        bar: counts slices.
    """

    model: Any
    grid: Grid
    batch_size: int
    description: str
    deidentifier: Deidentifier | None
    uids: dict[tuple, str]
    numbers: dict[tuple, int]
    alone: set[tuple]
    series: set[tuple]
    bar: tqdm.tqdm
    report: Report


def translate(
    model: Any,
    input: str | os.PathLike,
    output: str | os.PathLike,
    *,
    deidentify: bool = False,
    overwrite: bool = False,
    batch_size: int = 1,
    description: str = "",
    progress: bool = True,
) -> Report:
    """Translates every image in `input`, each into its own format, in its own place.

    A model of scale s writes s times the rows and columns, at 1/s of the pixel spacing, over the
    same field of view; a model of volumes also s times the slices. A model of classes writes
    their numbers, as integers.

    Slices are resampled to the recipe's spacing, and the result to s times the input's own grid;
    an image without a known spacing is taken as it is. Of a volume all three axes are resampled.
    A file that states an affine, such as NIfTI, is presented to a model that knows the plane of its
    slices in that plane, hung as radiologists do, and written in its own axes.
    Whatever goes wrong with a file is reported, and the others go on; with ZOO_DEBUG=1 in the
    environment the exception is raised. What a pretrained model was not trained on (`zoo.guards`,
    by the header's spacing and three slices of each image) is reported, and said in the
    DerivationDescription of DICOM output. A file appears under its name only when it is complete.

    Args:
        model: a `zoo.Translator`.
        input: a file or a folder.
        output: a folder (made as needed), or a file name where `input` is a file that is. DICOM
            slices between those of the input get numbers behind the name of the nearest one.
        deidentify: apply the PS3.15 Basic Profile to DICOM headers, drop free text from the
            others, and name files by number.
        overwrite: replace output files that exist.
        batch_size: slices that the model gets at once.
        description: free text for the output headers.
        progress: show a progress bar over slices.

    Raises:
        FileNotFoundError: where `input` does not exist.
        FileExistsError: where an output file exists and `overwrite` is False.
        ValueError: where there is no image, good or bad, or an output would replace an input.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size: expected 1 or more. Received: {batch_size}")
    # what there is
    input, output = Path(input), Path(output)
    deidentifier = Deidentifier() if deidentify else None
    found = find(input, exclude=output)
    report = Report(
        skipped=[problem for problem in found.problems if not problem.harmless],
        ignored=[problem for problem in found.problems if problem.harmless],
    )
    if not found.volumes:
        if report.skipped:
            return report
        first = f" ({report.ignored[0].reason})" if report.ignored else ""
        raise ValueError(f"input: expected image files{first}. Received: {input}")
    # where it goes, with faults of the call found before any work is done
    grid = Grid(scale=model.scale, depth=model.scale if model.dimensions == 3 else 1)
    volumes = [volume.presented(model.source.plane) for volume in found.volumes]
    counts = [_file_count(model, volume, grid) for volume in volumes]
    targets = _targets(volumes, counts, input, output, deidentify, bool(model.classes))
    root = output.parent if targets == [[output]] else output
    # a header's voxels lie beside it
    for place, (volume, paths) in enumerate(zip(volumes, targets, strict=True)):
        if len(paths) == 1:
            targets[place] = volume.files(paths[0])
    _check_targets(volumes, targets, overwrite)
    _check_writable(root)
    # one volume after the other, each within a boundary of its own
    total = sum(volume.length for volume in volumes)
    claimed: set[Path] = set()
    # None: no bar where stderr is no terminal
    with tqdm.tqdm(total=total, unit="slice", disable=None if progress else True) as bar:
        run = _Run(
            model=model,
            grid=grid,
            batch_size=batch_size,
            description=description,
            deidentifier=deidentifier,
            uids=collections.defaultdict(pydicom.uid.generate_uid),
            numbers=_series_numbers(model, volumes),
            alone={
                _identity(volume)
                for volume in volumes
                if isinstance(volume, Series) and volume.length == 1 and volume.number > 0
            },
            series=set(),
            bar=bar,
            report=report,
        )
        for volume, paths in zip(volumes, targets, strict=True):
            before = bar.n
            try:
                with contained("translation"):
                    _check_paths(paths, root, claimed)
                    _translate_one(run, volume, paths)
                claimed.update(paths)
            except ValueError as error:
                count = len(volume.paths)
                whole = f" (a series of {count} files)" if count > 1 else ""
                _skip(volume.paths[0], error, report.skipped, whole)
            bar.update(before + volume.length - bar.n)
    return report


def _translate_one(run: _Run, volume: Volume, paths: list[Path]) -> None:
    """Translates one volume and adds it to the report; of a failure it leaves no file behind."""
    _check_volume(run.model, volume)
    volume = _in_unit(run.model, volume)
    reasons = _reasons(run.model, volume)
    single = isinstance(volume, Series) and volume.length == 1
    if run.model.recipe.slices > 1 and single and _identity(volume) in run.alone:
        taken = f"the model takes {run.model.recipe.slices} neighbouring ones"
        reasons.append(f"slices: {taken}. Received: a slice whose neighbours are not known")
    skipped: list[Problem] = []
    if run.model.dimensions == 3:
        slices = _translated_volume(run, volume)
    else:
        slices = _translated(run, volume, skipped)
    with contained("output"):
        written, notes = _write(run, volume, paths, slices, reasons, skipped)
    # what was left out is known once all slices have gone through
    report = run.report
    report.skipped += skipped
    report.outputs += written
    if written:
        # the time points or echoes of a series are volumes of one
        series = _identity(volume) if isinstance(volume, Series) else None
        report.done += series not in run.series
        report.series += series is not None and series not in run.series
        run.series.update([series] if series else [])
        report.slices += volume.length - len(skipped)
        report.warnings += [Problem(volume.paths[0], note) for note in [*reasons, *notes]]


def _skip(path: Path, error: ValueError, skipped: list[Problem], end: str = "") -> None:
    """Reports a file that could not be translated; with ZOO_DEBUG in the environment, raises."""
    if os.environ.get("ZOO_DEBUG"):
        raise error
    skipped.append(Problem(path, reason(error) + end))


def _file_count(model: Any, volume: Volume, grid: Grid) -> int:
    """How many files a volume is written to."""
    if isinstance(volume, Series) and (
        len(volume.paths) > 1 or iods.changes(volume.modality, model.target, _same_unit(model))
    ):
        return volume.length * grid.depth
    return 1


def _same_unit(model: Any) -> bool:
    source, target = model.source, model.target
    return (source.unit, source.modality) == (target.unit, target.modality)


def _precision(model: Any) -> str:
    return getattr(model, "precision", "float32")


def _targets(
    volumes: list[Volume],
    counts: list[int],
    input: Path,
    output: Path,
    deidentify: bool,
    labels: bool,
) -> list[list[Path]]:
    """Where each volume goes, to as many files as `counts` says."""
    suffixes = {path: ending(path) for volume in volumes for path in volume.paths}
    if labels:  # JPEG would not keep the numbers of classes
        pictures = [p for p, end in suffixes.items() if end.lower() in raster.JPEG_SUFFIXES]
        suffixes |= dict.fromkeys(pictures, ".png")
    if input.is_file() and not output.is_dir() and output.suffix and counts == [1]:
        kind, is_dicom = suffixes[volumes[0].paths[0]], volumes[0].kind == "dicom"
        # of names that say another kind
        ends = (".gz", *SUFFIXES) if is_dicom else (".dcm", ".gz", *SUFFIXES)
        other = ending(output).lower() in ends
        if output.name.lower().endswith(kind.lower()) or (is_dicom and not other):
            return [[output]]
        if other:
            kind = "DICOM" if is_dicom else kind
            raise ValueError(f"output: expected a {kind} file, as the input. Received: {output}")
    if input.is_dir() and input.resolve() == output.resolve():
        raise ValueError(f"output: expected another folder than the input. Received: {output}")
    targets = []
    if not deidentify:
        root = input if input.is_dir() else input.parent
        for volume, count in zip(volumes, counts, strict=True):
            paths = [
                (output / path.relative_to(root)).with_name(
                    path.name.removesuffix(ending(path)) + suffixes[path]
                )
                for path in volume.paths
            ]
            each = count // len(paths)
            if each > 1:
                paths = [_numbered(path, k) for path in paths for k in range(1, each + 1)]
            targets.append(paths)
        return targets
    for number, (volume, count) in enumerate(zip(volumes, counts, strict=True), 1):
        if count > 1:
            folder = output / f"SE_{number:04d}"
            targets.append([folder / f"IM_{i:04d}.dcm" for i in range(1, count + 1)])
        else:
            suffix = ".dcm" if volume.kind == "dicom" else suffixes[volume.paths[0]].lower()
            targets.append([output / f"IM_{number:04d}{suffix}"])
    return targets


def _numbered(path: Path, number: int) -> Path:
    """`path` with a number behind its stem, which is cut where the name would get too long."""
    stem, suffix = path.stem, path.suffix
    if len(suffix) > 10:  # the last part of a UID
        stem, suffix = path.name, ""
    end = f"-{number}{suffix}"
    while len(os.fsencode(stem + end)) > 255:
        stem = stem[:-1]
    return path.with_name(stem + end)


def _check_targets(volumes: list[Volume], targets: list[list[Path]], overwrite: bool) -> None:
    inputs = {os.path.realpath(path) for v in volumes for path in (*v.paths, *v.companions)}
    for path in itertools.chain.from_iterable(targets):
        if os.path.realpath(path) in inputs:
            raise ValueError(f"output: would replace an input file. Received: {path}")
        if os.path.lexists(path) and not overwrite:
            raise FileExistsError(f"output exists; pass overwrite to replace it. Received: {path}")


def _check_writable(folder: Path) -> None:
    """Makes the folder; raises an OSError where no file can be written there."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


def _check_paths(paths: list[Path], root: Path, claimed: set[Path]) -> None:
    """Raises a ValueError where a name is taken, or a link leads out of the folder `root`."""
    for path in paths:
        if path in claimed:
            raise ValueError(f"output: expected a name of its own. Received: {path.name} again")
    inside = os.path.realpath(root)
    for folder in {path.parent for path in paths}:
        real = os.path.realpath(folder)
        if os.path.commonpath([inside, real]) != inside:
            raise ValueError(
                f"output: expected a folder within {root}. Received: {real}, by a link"
            )


def _series_numbers(model: Any, volumes: list[Volume]) -> dict[tuple, int]:
    """A SeriesNumber for each series of the output, by `_identities`.

    It is the input's and 1000, or what is free above that: none is another series' here.
    """
    found: dict[tuple, int] = {}
    for volume in volumes:
        if isinstance(volume, Series):
            identities = _identities(model, volume)
            if not found.keys() >= set(identities):
                number = provenance.series_number(volume.paths[0])
                found.update((identity, number) for identity in identities)
    taken = set(found.values())
    numbers = {}
    for identity, number in found.items():
        number = number + 1000 if number + 1000 <= provenance.LARGEST_NUMBER else 1000
        while number in taken:
            number += 1
        taken.add(number)
        numbers[identity] = number
    return numbers


def _identity(series: Series) -> tuple[str, ...]:
    """What is equal for volumes of one series, whose UID may be that of several patients."""
    return (series.uid, series.patient) if series.uid else (series.name,)


def _identities(model: Any, series: Series) -> list[tuple]:
    """Of each part of the input what is equal for slices of one output series.

    That is the input's series. An object of another modality does not say echo, time or b value,
    by which slices of one place would be told apart: there each part of each volume is a series.
    """
    identity = _identity(series)
    parts = range(1 + max(frame.part for frame in series.frames))
    if iods.changes(series.modality, model.target, _same_unit(model)):
        return [(*identity, series.name, part) for part in parts]
    return [identity for _ in parts]


def _check_volume(model: Any, volume: Volume) -> None:
    known = {model.source.modality, volume.modality} - {"OT", ""}
    if len(known) > 1:
        raise ValueError(
            f"modality: the model takes {model.source.modality} images. Received: {volume.modality}"
        )
    if (model.source.unit == "k-space") != (volume.unit == "k-space"):
        takes = "images" if volume.unit == "k-space" else "k-space, complex NPY files"
        received = "k-space" if volume.unit == "k-space" else "an image of real numbers"
        raise ValueError(f"unit: the model takes {takes}. Received: {received}")
    if model.source.unit == "line integral" and volume.kind != "array":
        raise ValueError(
            "unit: the model takes sinograms, NPY files [views, detectors] of line integrals. "
            f"Received: a {volume.kind} image"
        )
    slices = model.recipe.slices
    expected = 1 if slices > 1 else model.source.channels
    if volume.channels != expected:
        kind = "colour (RGB)" if volume.channels == 3 else f"{volume.channels}-channel"
        raise ValueError(f"channels: the model takes {expected}. Received: a {kind} image")
    # k-space becomes a real image, and any image one label map
    written = 1 if model.classes or volume.unit == "k-space" else volume.channels
    if written != model.target.channels:
        raise ValueError(
            f"channels: expected a model that writes {written}, as the file has. "
            f"Received: {model.target.channels}"
        )
    if model.dimensions == 3:
        if volume.length == 1:
            raise ValueError("slices: the model takes volumes of several. Received: a single slice")
        if isinstance(volume, Series):
            geometry.slice_step([frame.position for frame in volume.frames])
            if model.scale > 1 and len(volume.paths) == 1:
                raise ValueError(
                    "slices: the model writes more slices than it reads, which takes a series of "
                    f"single-frame files. Received: {volume.length} frames in one file"
                )


def _in_unit(model: Any, volume: Volume) -> Volume:
    """The volume with its values in the model's unit; only DICOM headers tell what they are in.

    Raises:
        ValueError: for values in another unit.
    """
    wanted = model.source.unit
    if not isinstance(volume, Series) or wanted in ("1", volume.unit):
        return volume
    if wanted == "signal" and volume.unit == "1":  # neither has a scale
        return volume
    return volume.in_unit(wanted)


def _reasons(model: Any, volume: Volume) -> list[str]:
    """What there is to warn of: gaps between slices that the model takes for neighbours, another
    plane, and what `guards.reasons` finds in the first, middle and last slice that can be read.
    """
    found = []
    if model.recipe.slices > 1 and isinstance(volume, Series) and volume.length > 1:
        parts = collections.defaultdict(list)
        for frame in volume.frames:
            parts[frame.part].append(frame.position)
        for positions in parts.values():
            try:
                geometry.slice_step(positions)
            except ValueError as error:
                found += [] if None in positions or len(positions) == 1 else [str(error)]
        found = found[:1]
    found += guards.plane_reasons(model, volume)
    if getattr(model, "trained_on", None) is None:
        return found
    images = []
    for index in sorted({0, volume.length // 2, volume.length - 1}):
        # the translation itself will come to what cannot be read
        with contextlib.suppress(ValueError), contained("unreadable"):
            images.append(volume.read(index))
    if not images:
        return found
    stack = np.stack(images) if volume.channels > 1 else np.stack(images)[..., None]
    bits = 8 if getattr(volume, "dtype", "") == "uint8" else None
    if isinstance(volume, Series):
        bits = volume.frames[0].encoding.bits
    return found + guards.reasons(model, stack, volume.spacing, bits)


def _translated_volume(run: _Run, volume: Volume) -> Iterator[tuple[int, np.ndarray]]:
    """Pairs of (index, slice of the translated volume on the output's grid), ascending.

    Raises:
        ValueError: where a slice cannot be read: a volume has no holes.
    """
    model = run.model
    forward, back = resampling(
        volume, model.recipe.spacing, run.grid, whole=True, nearest=bool(model.classes)
    )

    def read(index: int) -> np.ndarray:
        try:
            with contained("unreadable"):
                return volume.read(index)
        except ValueError as error:
            raise ValueError(
                f"slices: expected a volume without gaps. Received: {volume.path(index).name}, "
                f"slice {index}: {error}"
            ) from error

    with contained("resampling"):
        images = forward(np.stack([read(index) for index in range(volume.length)]))[None]
    images = images[..., None] if volume.channels == 1 else images
    with guards.silent(), contained("model"):
        result = np.asarray(model.translate(images, batch_size=run.batch_size), np.float32)[0]
    _check_finite(result)
    yield from enumerate(back(result[..., 0] if model.target.channels == 1 else result))


def _translated(
    run: _Run, volume: Volume, skipped: list[Problem]
) -> Iterator[tuple[int, np.ndarray]]:
    """Pairs of (index, translated slice on the output's grid), in ascending order.

    A slice in a file of its own that cannot be read goes to `skipped`; it is left out, and where
    it is another slice's neighbour, the next one inward stands in.
    """
    model, batch_size = run.model, run.batch_size
    reach = model.recipe.slices // 2
    forward, back = resampling(volume, model.recipe.spacing, run.grid, nearest=bool(model.classes))
    window: dict[int, np.ndarray | None] = {}

    def get(index: int) -> np.ndarray | None:
        if index not in window:
            try:
                with contained("unreadable"):
                    window[index] = forward(volume.read(index))
            except ValueError as error:
                if len(volume.paths) == 1:
                    raise
                window[index] = None
                _skip(volume.path(index), error, skipped)
        return window[index]

    def translated(batch: dict[int, np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
        images = np.stack(list(batch.values()))
        with guards.silent(), contained("model"):
            results = np.asarray(model.translate(images, batch_size=batch_size), np.float32)
        _check_finite(results)
        for index, result in zip(batch, results, strict=True):
            yield index, back(result[..., 0] if model.target.channels == 1 else result)
            run.bar.update()

    batch: dict[int, np.ndarray] = {}
    for index in range(volume.length):
        centre = get(index)
        if centre is not None and volume.channels == 1:
            stack = {0: centre}
            for sign in (-1, 1):
                for step in range(1, reach + 1):
                    found = get(volume.neighbour(index, sign * step))
                    stack[sign * step] = stack[sign * (step - 1)] if found is None else found
            batch[index] = np.stack([stack[step] for step in sorted(stack)], axis=-1)
        elif centre is not None:
            batch[index] = centre
        window.pop(index - reach, None)
        if len(batch) == batch_size:
            yield from translated(batch)
            batch = {}
    if batch:
        yield from translated(batch)


def _check_finite(values: np.ndarray) -> None:
    """Raises a ValueError for numbers that no integer stands for."""
    if not np.isfinite(values).all():
        raise ValueError("model: expected finite numbers. Received: NaN or infinity")


def _write(
    run: _Run,
    volume: Volume,
    paths: list[Path],
    slices: Iterator[tuple[int, np.ndarray]],
    reasons: list[str],
    skipped: list[Problem],
) -> tuple[list[Path], list[str]]:
    """The files written, and what there is to say of them; `skipped` gets slices left out."""
    model, anonymous = run.model, run.deidentifier is not None
    for folder in {path.parent for path in paths}:
        folder.mkdir(parents=True, exist_ok=True)
    if isinstance(volume, Series):
        derivation = write.Derivation(
            name=model.name,
            title=getattr(model, "title", model.name),
            weights_hash=model.weights_hash,
            precision=_precision(model),
            description=" ".join([*(f"Warning: {text}." for text in reasons), run.description]),
            target=model.target,
            same_unit=_same_unit(model),
            moment=None if anonymous else datetime.datetime.now(),
            labels=tuple(getattr(model, "label_names", ())),
            series=tuple(
                (run.uids[identity], run.numbers[identity])
                for identity in _identities(model, volume)
            ),
        )
        skip = functools.partial(_skip, skipped=skipped)
        return write.write(volume, paths, slices, derivation, skip, run.deidentifier, run.grid)
    origin = f"{model.name}, weights SHA-256 {model.weights_hash}, {_precision(model)}"
    if isinstance(volume, Oriented):
        # what fits into 79 characters
        text = f"{model.name[:40]} {model.weights_hash[:16]} {_precision(model)}"
        text = f"{text}. {run.description}" if run.description else text
        new = [path for path in paths if not os.path.lexists(path)]
        try:
            volume.write(paths[0], slices, text, anonymous, run.grid, model.classes)
        except BaseException:
            for path in new:  # of a pair of files
                path.unlink(missing_ok=True)
            raise
        return paths, []
    with replacing(paths[0]) as temporary:
        origin = f"{origin}. {run.description}" if run.description else origin
        raster.write(volume, temporary, slices, run.grid, model.classes, origin)
    return paths, []


def _save_png(path: Path, image: np.ndarray) -> None:
    if image.shape[-1] == 1:
        image = image[..., 0]
    PIL.Image.fromarray(image).save(path, format="PNG")
