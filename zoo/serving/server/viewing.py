"""What the page asks: files in, and back what to draw and what to keep, in one body.

    uint32, little-endian: length of the head
    head: JSON, see `translated`
    stacks of slices: uint16, little-endian, value = slope * stored + intercept
    archive: a ZIP of the files that `predict` wrote
    report: HTML, where it is asked for

Files are in a temporary folder while they are worked on, and nowhere after.
"""

import contextlib
import itertools
import json
import struct
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np

from zoo.domain import Domain
from zoo.imaging import files
from zoo.imaging.dicom import parametric
from zoo.imaging.dicom.series import Series
from zoo.imaging.volume import Volume
from zoo.inference import half_widths, predict
from zoo.serving.png16 import Scale
from zoo.translator import Translator
from zoo.trust.half_width import HalfWidth
from zoo.trust.watch import Watch


def safe_name(name: str, number: int) -> Path:
    """Where an uploaded file goes below its folder: its own path, without what leads out of it."""
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if _plain(part)]
    return Path(*parts) if parts else Path(f"file{number}")


def _plain(part: str) -> bool:
    return part not in ("/", ".", "..") and part.isprintable() and len(part.encode()) < 200


def translated(
    model: Translator,
    folder: Path,
    scratch: Path,
    widths: HalfWidth | None = None,
    watch: Watch | None = None,
) -> Path:
    """Translate the files in `folder`; the answer is a file in `scratch`.

    The head has `volumes`: name, `source` and `result` (offset behind the head, shape [slices,
    rows, columns], slope, intercept, unit), spacing of a result's pixel (row, column), of DICOM
    the result's `affine` (`Volume.affine`, else null), the window to show it in, whether both are
    `comparable`, and with `widths` a stack `half_width`;
    `warnings`: texts; `archive`: offset, size; and with `watch` `report`: likewise.

    Args:
        model: what translates.
        folder: of the files.
        scratch: an empty folder.
        widths: what gives half-widths of the model's intervals.
        watch: the model's alarms, which see what is translated.

    Raises:
        ValueError: where there is no image.
    """
    made = scratch / "translated"
    doubts: dict[str, Path] = {}
    if widths is None:
        report = predict.translate(model, folder, made, progress=False, watch=watch)
    else:
        report, told = half_widths.translate(
            model, widths, folder, made, progress=False, watch=watch
        )
        # A header has its voxels behind it.
        outputs = iter(told.outputs)
        for volume in told.volumes:
            doubts[volume.name], *_ = itertools.islice(outputs, len(volume.files(volume.paths[0])))
    warnings = [f"{path.name}: {text}" for path, text in (*report.warnings, *report.skipped)]
    # Slices go to the disk one by one, and behind them the files.
    pixels, volumes = scratch / "pixels", []
    with open(pixels, "wb") as file:
        for source, result in _pairs(model, report.volumes, made):
            shown = _shown(model, source, result, file)
            if source.name in doubts:
                values = _values(model, source, doubts[source.name])
                shown["half_width"] = _half_widths(values, model.target, file)
            volumes.append(shown)
        offset = file.tell()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for path in report.outputs:
                archive.write(path, path.relative_to(made))
        size = file.tell() - offset
        head = {
            "volumes": volumes,
            "warnings": warnings,
            "archive": {"offset": offset, "size": size},
        }
        if watch is not None:
            told_of = watch.page().encode()
            head["report"] = {"offset": file.tell(), "size": len(told_of)}
            file.write(told_of)
    # The head's length makes the slices begin at an even byte.
    words = json.dumps(head).encode()
    words += b" " * (len(words) % 2)
    answer = scratch / "answer"
    with open(answer, "wb") as file, open(pixels, "rb") as slices:
        file.write(struct.pack("<I", len(words)) + words)
        for part in iter(lambda: slices.read(2**20), b""):
            file.write(part)
    return answer


def _pairs(model: Translator, given: list[Volume], made: Path) -> Iterator[tuple[Volume, Volume]]:
    """The volumes that were translated, each with what became of it."""
    if not given:
        return
    results = {volume.name.partition("#")[0]: volume for volume in files.find(made).volumes}
    for volume in given:
        found = results.get(volume.name.partition("#")[0])
        if found is not None:
            yield volume, found.presented(model.source.plane)


def _shown(model: Translator, source: Volume, result: Volume, file: IO[bytes]) -> dict[str, Any]:
    """Write both stacks, and tell of them."""
    row, column = result.spacing or (1.0, 1.0)
    given, made = _stack(source, model.source, file), _stack(result, model.target, file)
    whole = isinstance(result, Series) and made["shape"][0] == result.length
    affine = result.affine if whole else None
    return {
        "name": source.name,
        "source": given,
        "result": made,
        "spacing": [row, column],
        "affine": None if affine is None else affine.tolist(),
        "window": list(model.target.window),
        "comparable": source.unit == result.unit and model.source.window == model.target.window,
    }


def _stack(volume: Volume, domain: Domain, file: IO[bytes]) -> dict[str, Any]:
    """Write a volume's slices; of several channels the first."""
    scale, offset, shown = Scale.of(domain), file.tell(), []
    for index in range(volume.length):
        # A slice that cannot be read is named among the warnings.
        with contextlib.suppress(ValueError):
            image = volume.read(index)
            image = image[..., 0] if image.ndim == 3 else image
            file.write(scale.numbers(image).astype("<u2").tobytes())
            shown.append(image.shape)
    return _told(offset, shown, scale, volume.unit if volume.unit != "1" else domain.unit)


def _told(offset: int, shown: list[tuple[int, ...]], scale: Scale, unit: str) -> dict[str, Any]:
    """What the head says of a stack of slices of these shapes."""
    (rows, columns), *_ = itertools.chain(shown, [(0, 0)])
    return {
        "offset": offset,
        "shape": [len(shown), rows, columns],
        "slope": scale.slope,
        "intercept": scale.intercept,
        "unit": unit,
    }


def _values(model: Translator, source: Volume, path: Path) -> Iterable[np.ndarray]:
    """The slices of the half-widths of a volume."""
    if isinstance(source, Series):
        return parametric.read(path)
    volume = files.open_volume(path).presented(model.source.plane)
    return (volume.read(index) for index in range(volume.length))


def _half_widths(values: Iterable[np.ndarray], domain: Domain, file: IO[bytes]) -> dict[str, Any]:
    """Write the slices of half-widths, of which the widest shown is the window."""
    scale, offset, shown = Scale(domain.span / 65535, 0.0), file.tell(), []
    for image in values:
        image = image[..., 0] if image.ndim == 3 else image
        file.write(scale.numbers(image).astype("<u2").tobytes())
        shown.append(image.shape)
    return _told(offset, shown, scale, domain.unit)
