"""Writes half-widths beside the outputs of `predict`, in the formats of the inputs."""

import os
from pathlib import Path
from typing import Any

from zoo.imaging.dicom import parametric
from zoo.imaging.dicom.series import Series
from zoo.imaging.files import ending
from zoo.imaging.volume import Volume
from zoo.inference.outputs import Writer
from zoo.inference.predict import Report, translate
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


def add(
    model: HalfWidth, input: str | os.PathLike, output: Path, report: Report, **options: Any
) -> Report:
    """Write half-widths beside outputs, of a DICOM series one file of float32 with its unit.

    Integer formats, such as PNG, are rounded to whole steps of their values.

    Args:
        model: what gives them.
        input: that `predict.translate` was given, and so the options; with the same object to
            de-identify by, half-widths have the pseudonyms and UIDs of the outputs.
        output: that it was given.
        report: that it gave; gets the new files, and what else was left out.

    Returns:
        What was written.
    """
    place = beside(output)
    # Outputs may lie in the input: they are none of it.
    written = translate(model, input, place, writer=MapWriter, exclude=output, **options)
    report.skipped += [each for each in written.skipped if each not in report.skipped]
    report.outputs += written.outputs
    return written
