"""Translates a user's files, and writes generated images."""

import collections
import contextlib
import dataclasses
import datetime
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import PIL.Image
import pydicom.uid
import tqdm

from zoo import guards
from zoo.atomic import replacing, write_json
from zoo.imaging import derived, geometry, nifti, raster
from zoo.imaging.deidentify import Deidentifier
from zoo.imaging.dicom import Series
from zoo.imaging.files import find
from zoo.imaging.geometry import Grid
from zoo.imaging.resampling import resampling
from zoo.imaging.volume import Problem, Volume


@dataclasses.dataclass
class Report:
    """What a run did.

    Attributes:
        done: volumes written.
        outputs: the files written.
        skipped: the files that were not translated, and why.
        ignored: the files that are no images, such as notes and RT structure sets.
        warnings: images that were translated although they are far from what the model was
            trained on, each by its first file, and why.
    """

    done: int = 0
    outputs: list[Path] = dataclasses.field(default_factory=list)
    skipped: list[Problem] = dataclasses.field(default_factory=list)
    ignored: list[Problem] = dataclasses.field(default_factory=list)
    warnings: list[Problem] = dataclasses.field(default_factory=list)


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
    Bad files are reported and skipped. What a pretrained model was not trained on (`zoo.guards`, by
    the header's spacing and three slices of each image) is reported, and said in the
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
        ValueError: where there is nothing to translate, or an output would replace an input.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size: expected 1 or more. Received: {batch_size}")
    input, output = Path(input), Path(output)
    deidentifier = Deidentifier() if deidentify else None
    found = find(input, exclude=output)
    if not found.volumes:
        first = f" ({found.problems[0].reason})" if found.problems else ""
        raise ValueError(f"input: expected image files{first}. Received: {input}")
    grid = Grid(scale=model.scale, depth=model.scale if model.dimensions == 3 else 1)
    targets = _targets(found.volumes, input, output, deidentify, grid.depth)
    _check_targets(found.volumes, targets, overwrite)
    report = Report(
        skipped=[problem for problem in found.problems if not problem.harmless],
        ignored=[problem for problem in found.problems if problem.harmless],
    )
    uids: dict[str, str] = collections.defaultdict(pydicom.uid.generate_uid)
    total = sum(volume.length for volume in found.volumes)
    with tqdm.tqdm(total=total, unit="slice", disable=not progress) as bar:
        for volume, paths in zip(found.volumes, targets, strict=True):
            before, skipped, reasons = bar.n, [], []
            try:
                _check_volume(model, volume)
                reasons = _reasons(model, volume)
                if model.dimensions == 3:
                    slices = _translated_volume(model, volume, grid, batch_size)
                else:
                    slices = _translated(model, volume, grid, batch_size, bar, skipped)
                written = _write(
                    model, volume, grid, paths, slices, description, reasons, deidentifier, uids
                )
            except (ValueError, OSError) as error:
                skipped = [Problem(volume.paths[0], str(error))]
                written = []
            report.skipped += skipped
            report.outputs += written
            report.done += bool(written)
            if written:
                report.warnings += [Problem(volume.paths[0], reason) for reason in reasons]
            bar.update(before + volume.length - bar.n)
    return report


def generate(
    model: Any,
    n: int,
    output: str | os.PathLike,
    *,
    seed: int = 0,
    batch_size: int = 16,
    format: Literal["png", "npy"] = "png",
    overwrite: bool = False,
    label: str | None = None,
) -> list[Path]:
    """Writes `n` generated images, a contact sheet and a description.

    PNG files (one channel) are of 16 bits: 0 is the low end of the model's window, 65535 the
    high end. NPY files hold float32 [H, W, C] in physical units. `images.json` states window,
    unit, seed and model. Image k depends on the seed and k alone.

    Args:
        model: a `zoo.Translator` that generates.
        n: number of images, 1 or more.
        output: the folder to write.
        seed: names the images.
        batch_size: images made at once.
        format: "png" or "npy".
        overwrite: replace files that exist.
        label: name of the class of all images, where the model is conditional; None: in turn.

    Returns:
        The files written; the contact sheet is the last.
    """
    if n < 1 or batch_size < 1:
        raise ValueError(f"n, batch_size: expected 1 or more. Received: {n}, {batch_size}")
    names = getattr(model.recipe, "class_names", ())
    if label is not None and label not in names:
        wanted = f"one of {', '.join(names)}" if names else "none, the model knows no classes"
        raise ValueError(f"label: expected {wanted}. Received: {label}")
    if format not in ("png", "npy"):
        raise ValueError(f"format: expected png or npy. Received: {format}")
    output = Path(output)
    paths = [output / f"image_{i + 1:05d}.{format}" for i in range(n)]
    sheet, sidecar = output / "contact_sheet.png", output / "images.json"
    for path in [*paths, sheet, sidecar]:
        if path.exists() and not overwrite:
            raise FileExistsError(f"output exists; pass overwrite to replace it. Received: {path}")
    domain = model.target
    if format == "png" and domain.channels != 1:
        raise ValueError(f"format: png takes one channel, use npy. Received: {domain.channels}")
    output.mkdir(parents=True, exist_ok=True)
    shown = []
    for first in range(0, n, batch_size):
        count, of_class = min(batch_size, n - first), {"label": label} if label else {}
        images = model.generate(count, seed=seed, first=first, **of_class)
        for i, image in enumerate(np.asarray(images, np.float32), first):
            levels = (image - domain.window[0]) / domain.span * 65535
            levels = raster.saturate(levels, np.uint16)
            if len(shown) < 64:
                shown.append(raster.saturate(levels / 257.0, np.uint8))
            with replacing(paths[i]) as temporary:
                if format == "npy":
                    with open(temporary, "wb") as file:
                        np.save(file, image)
                else:
                    _save_png(temporary, levels)
    with replacing(sheet) as temporary:
        _save_png(temporary, _sheet(shown))
    description = {
        "model": model.name,
        "weights_sha256": model.weights_hash,
        "seed": seed,
        "labels": [label or names[i % len(names)] for i in range(n)] if names else [],
        "files": [path.name for path in paths],
        "unit": domain.unit,
        "window": list(domain.window),
        "pixel_values": "physical units"
        if format == "npy"
        else "window[0] + value / 65535 * (window[1] - window[0])",
    }
    write_json(sidecar, description)
    return [*paths, sidecar, sheet]


def _targets(
    volumes: list[Volume], input: Path, output: Path, deidentify: bool, depth: int
) -> list[list[Path]]:
    """Where each volume goes: one path for each of its files, `depth` for a DICOM slice's."""
    suffixes = {
        path: ".nii.gz" if path.name.lower().endswith(".nii.gz") else path.suffix
        for volume in volumes
        for path in volume.paths
    }
    if input.is_file() and not output.is_dir() and output.suffix:
        kind = suffixes[volumes[0].paths[0]]
        if output.name.lower().endswith(kind.lower()) or volumes[0].kind == "dicom":
            return [[output]]
        if output.suffix.lower() in (".dcm", ".nii", ".gz", ".png", ".tif", ".tiff", ".npy"):
            raise ValueError(f"output: expected a {kind} file, as the input. Received: {output}")
    if input.is_dir() and input.resolve() == output.resolve():
        raise ValueError(f"output: expected another folder than the input. Received: {output}")
    if not deidentify:
        root = input if input.is_dir() else input.parent
        targets = [[output / path.relative_to(root) for path in v.paths] for v in volumes]
        return [
            [
                path.with_name(f"{path.stem}-{k + 1}{path.suffix}")
                for path in p
                for k in range(depth)
            ]
            if depth > 1 and len(p) > 1
            else p
            for p in targets
        ]
    targets = []
    for number, volume in enumerate(volumes, 1):
        if volume.kind == "dicom" and len(volume.paths) > 1:
            folder, count = output / f"SE_{number:04d}", len(volume.paths) * depth
            targets.append([folder / f"IM_{i:04d}.dcm" for i in range(1, count + 1)])
        else:
            suffix = ".dcm" if volume.kind == "dicom" else suffixes[volume.paths[0]].lower()
            targets.append([output / f"IM_{number:04d}{suffix}"])
    return targets


def _check_targets(volumes: list[Volume], targets: list[list[Path]], overwrite: bool) -> None:
    inputs = {path.resolve() for volume in volumes for path in volume.paths}
    every = collections.Counter(path for paths in targets for path in paths)
    for path, count in every.items():
        if count > 1:
            raise ValueError(f"output: two images would get one name. Received: {path}")
        if path.resolve() in inputs:
            raise ValueError(f"output: would replace an input file. Received: {path}")
        if path.exists() and not overwrite:
            raise FileExistsError(f"output exists; pass overwrite to replace it. Received: {path}")


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


def _reasons(model: Any, volume: Volume) -> list[str]:
    """What `guards.reasons` finds in the first, middle and last slice that can be read."""
    if getattr(model, "trained_on", None) is None:
        return []
    images = []
    for index in sorted({0, volume.length // 2, volume.length - 1}):
        with contextlib.suppress(ValueError):  # the translation itself will come to it
            images.append(volume.read(index))
    if not images:
        return []
    stack = np.stack(images) if volume.channels > 1 else np.stack(images)[..., None]
    bits = 8 if getattr(volume, "dtype", "") == "uint8" else None
    if isinstance(volume, Series):
        bits = volume.frames[0].encoding.bits
    return guards.reasons(model, stack, volume.spacing, bits)


def _translated_volume(
    model: Any, volume: Volume, grid: Grid, batch_size: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Pairs of (index, slice of the translated volume on the output's grid), ascending.

    Raises:
        ValueError: where a slice cannot be read: a volume has no holes.
    """
    forward, back = resampling(
        volume, model.recipe.spacing, grid, whole=True, nearest=bool(model.classes)
    )

    def read(index: int) -> np.ndarray:
        try:
            return volume.read(index)
        except ValueError as error:
            raise ValueError(
                f"slices: expected a volume without gaps. Received: {volume.path(index).name}, "
                f"slice {index}: {error}"
            ) from error

    images = forward(np.stack([read(index) for index in range(volume.length)]))[None]
    images = images[..., None] if volume.channels == 1 else images
    with guards.silent():
        result = np.asarray(model.translate(images, batch_size=batch_size), np.float32)[0]
    yield from enumerate(back(result[..., 0] if model.target.channels == 1 else result))


def _translated(
    model: Any,
    volume: Volume,
    grid: Grid,
    batch_size: int,
    bar: tqdm.tqdm,
    skipped: list[Problem],
) -> Iterator[tuple[int, np.ndarray]]:
    """Pairs of (index, translated slice on the output's grid), in ascending order.

    A slice in a file of its own that cannot be read goes to `skipped`; it is left out, and where
    it is another slice's neighbour, the next one inward stands in.
    """
    reach = model.recipe.slices // 2
    forward, back = resampling(volume, model.recipe.spacing, grid, nearest=bool(model.classes))
    window: dict[int, np.ndarray | None] = {}

    def get(index: int) -> np.ndarray | None:
        if index not in window:
            try:
                window[index] = forward(volume.read(index))
            except ValueError as error:
                if len(volume.paths) == 1:
                    raise
                window[index] = None
                skipped.append(Problem(volume.path(index), str(error)))
        return window[index]

    def run(batch: dict[int, np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
        images = np.stack(list(batch.values()))
        with guards.silent():
            results = np.asarray(model.translate(images, batch_size=batch_size), np.float32)
        for index, result in zip(batch, results, strict=True):
            yield index, back(result[..., 0] if model.target.channels == 1 else result)
            bar.update()

    batch: dict[int, np.ndarray] = {}
    for index in range(volume.length):
        centre = get(index)
        if centre is not None and volume.channels == 1:
            stack = {0: centre}
            for sign in (-1, 1):
                for step in range(1, reach + 1):
                    inside = min(max(index + sign * step, 0), volume.length - 1)
                    found = get(inside)
                    stack[sign * step] = stack[sign * (step - 1)] if found is None else found
            batch[index] = np.stack([stack[step] for step in sorted(stack)], axis=-1)
        elif centre is not None:
            batch[index] = centre
        window.pop(index - reach, None)
        if len(batch) == batch_size:
            yield from run(batch)
            batch = {}
    if batch:
        yield from run(batch)


def _write(
    model: Any,
    volume: Volume,
    grid: Grid,
    paths: list[Path],
    slices: Iterator[tuple[int, np.ndarray]],
    description: str,
    reasons: list[str],
    deidentifier: Deidentifier | None,
    uids: dict[str, str],
) -> list[Path]:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(volume, Series):
        derivation = derived.Derivation(
            name=model.name,
            title=getattr(model, "title", model.name),
            weights_hash=model.weights_hash,
            description=" ".join([*(f"Warning: {reason}." for reason in reasons), description]),
            target=model.target,
            same_unit=(model.source.unit, model.source.modality)
            == (model.target.unit, model.target.modality),
            moment=None if deidentifier else datetime.datetime.now(),
            labels=tuple(getattr(model, "label_names", ())),
        )
        uid = uids[volume.uid or volume.name]
        return derived.write(volume, paths, slices, derivation, uid, deidentifier, grid)
    with replacing(paths[0]) as temporary:
        if volume.kind == "nifti":
            text = description or f"{model.name} {model.weights_hash[:16]}"
            anonymous = deidentifier is not None
            nifti.write(volume, temporary, slices, text, anonymous, grid, model.classes)
        else:
            raster.write(volume, temporary, slices, grid, model.classes)
    return paths


def _save_png(path: Path, image: np.ndarray) -> None:
    if image.shape[-1] == 1:
        image = image[..., 0]
    PIL.Image.fromarray(image).save(path, format="PNG")


def _sheet(images: list[np.ndarray]) -> np.ndarray:
    """[H, W, C] images side by side, row by row, in a near-square sheet."""
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    height, width, channels = images[0].shape
    sheet = np.zeros((rows * height, columns * width, channels), images[0].dtype)
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = image
    return sheet
