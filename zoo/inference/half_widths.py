"""Writes half-widths beside the outputs of `predict`, in the formats of the inputs."""

import contextlib
import dataclasses
import os
from pathlib import Path
from typing import Any

from zoo.imaging.dicom import parametric
from zoo.imaging.dicom.deidentify import Deidentifier
from zoo.imaging.dicom.series import Series
from zoo.imaging.files import ending
from zoo.imaging.volume import Volume
from zoo.inference import predict
from zoo.inference.outputs import Writer
from zoo.inference.report import Report
from zoo.inference.slices import Skip, Slices
from zoo.trust.half_width import HalfWidth

FOLDER = "half_width"


class MapWriter(Writer):
    """As `Writer`; a DICOM series becomes one Parametric Map, which has float values and a unit."""

    def write(
        self,
        volume: Volume,
        paths: list[Path],
        slices: Slices,
        reasons: list[str],
        skip: Skip,
        note: str = "",
    ) -> tuple[list[Path], list[str]]:
        first = volume.parts[0]
        if not isinstance(first, Series):
            return super().write(volume, paths, slices, reasons, skip, note)
        paths[0].parent.mkdir(parents=True, exist_ok=True)
        derivation = self.derivation(first, reasons, note, volume.parts[1:])
        what = "Half-width of intervals"
        grid, deidentify = self.grid, self.deidentifier
        return parametric.write(first, paths[0], slices, derivation, what, deidentify, grid), []


def beside(output: Path) -> Path:
    """Where half-widths go: into a folder in the output's, or a file named like it.

    Args:
        output: that `predict` was given, and wrote.
    """
    if output.is_dir():
        return output / FOLDER
    end = ending(output)
    return output.with_name(f"{output.name.removesuffix(end)}_{FOLDER}{end}")


def translate(
    model: Any,
    widths: HalfWidth,
    input: str | os.PathLike,
    output: str | os.PathLike,
    **options: Any,
) -> tuple[Report, Report]:
    """What `predict.translate` does, and half-widths beside it.

    Of a DICOM series they are one file of float32 with its unit; integer formats, such as PNG, are
    rounded to whole steps of their values.

    Args:
        model: that translates.
        widths: what gives its half-widths.
        input, output, **options: of `predict.translate`.

    Returns:
        What was made, half-widths included, and of these alone.

    Raises:
        FileNotFoundError, FileExistsError, ValueError: as `predict.translate`, before any work is
            done also for half-widths that are there.
    """
    given = predict.Options(**options)
    if given.deidentify is True:  # both have the pseudonyms of one
        given = dataclasses.replace(given, deidentify=Deidentifier())
    with predict.plan(model, input, output, given) as planned:
        if not planned.mine:
            return planned.run(), Report()
        # Outputs may lie in the input: they are none of it.
        place = beside(Path(output))
        added = dataclasses.replace(given, writer=MapWriter, exclude=Path(output), watch=None)
        with predict.plan(widths, input, place, added) as half_widths:
            report = planned.run()
            if not report.outputs:
                with contextlib.suppress(OSError):
                    place.rmdir()
                return report, Report()
            written = half_widths.run()
    report.skipped += [each for each in written.skipped if each not in report.skipped]
    report.outputs += written.outputs
    return report, written
