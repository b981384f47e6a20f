"""Writes translated slices as the file, or the series of files, that they belong to."""

import datetime
import os
from pathlib import Path
from typing import Any

import pydicom.uid

from zoo.atomic import replacing
from zoo.imaging import raster
from zoo.imaging.dicom import write
from zoo.imaging.dicom.deidentify import Deidentifier
from zoo.imaging.dicom.series import Series
from zoo.imaging.dicom.write import Derivation
from zoo.imaging.geometry import Grid
from zoo.imaging.oriented import Oriented
from zoo.imaging.volume import Volume
from zoo.inference.series import numbers, output_identities, same_unit
from zoo.inference.slices import Skip, Slices


class _Uids(dict):
    """A UID for each key; with a token, the same in every process that knows the token."""

    def __init__(self, token: str):
        super().__init__()
        self.token = token

    def __missing__(self, key: tuple) -> str:
        sources = [self.token, *map(str, key)] if self.token else None
        self[key] = pydicom.uid.generate_uid(entropy_srcs=sources)
        return self[key]


class Writer:
    """What the outputs of a run have in common, such as UIDs by which their series hang together.

    Args:
        model: whose outputs they are.
        volumes: all inputs of the run.
        grid: how much finer the outputs' grids are.
        deidentifier: of DICOM headers; None leaves these, and free text, as they are.
        description: free text for the headers.
        token: of runs whose series have the same UIDs; without one these are random.
    """

    def __init__(
        self,
        model: Any,
        volumes: list[Volume],
        grid: Grid,
        deidentifier: Deidentifier | None,
        description: str,
        token: str = "",
    ):
        self.model, self.grid = model, grid
        self.deidentifier, self.description = deidentifier, description
        # Of the output series, by `output_identities`; UIDs are made as they are asked for.
        self.uids: dict[tuple, str] = _Uids(token)
        self.numbers = numbers(model, volumes)

    def write(
        self,
        volume: Volume,
        paths: list[Path],
        slices: Slices,
        reasons: list[str],
        skip: Skip,
        note: str = "",
    ) -> tuple[list[Path], list[str]]:
        """Writes a volume's slices, as they come, in its own format.

        Args:
            volume: the input; of several the first is the one that is written anew.
            paths: from `targets`.
            slices: what is written.
            reasons: what was warned of, for the header.
            skip: reports slices that cannot be written.
            note: for the header, on how they were made.

        Returns:
            The files written, and what there is to say of them.
        """
        for folder in {path.parent for path in paths}:
            folder.mkdir(parents=True, exist_ok=True)
        others, volume = volume.parts[1:], volume.parts[0]
        if isinstance(volume, Series):
            derivation = self.derivation(volume, reasons, note, others)
            return write.write(
                volume, paths, slices, derivation, skip, self.deidentifier, self.grid
            )
        if isinstance(volume, Oriented):
            self._write_oriented(volume, paths, slices, note)
        else:
            with replacing(paths[0]) as temporary:
                raster.write(
                    volume, temporary, slices, self.grid, self.model.classes, self._origin(note)
                )
        return paths, []

    def derivation(
        self, series: Series, reasons: list[str], note: str, others: tuple[Volume, ...]
    ) -> Derivation:
        """What the headers of a DICOM series say of where it is from."""
        model = self.model
        warnings = [f"Warning: {text}." for text in reasons]
        identities = output_identities(model, series)
        return Derivation(
            name=model.name,
            title=getattr(model, "title", model.name),
            weights_hash=model.weights_hash,
            precision=precision(model),
            description=" ".join([*warnings, ". ".join(self._said(note))]),
            target=model.target,
            same_unit=same_unit(model),
            moment=None if self.deidentifier else datetime.datetime.now(),
            labels=tuple(getattr(model, "label_names", ())),
            series=tuple((self.uids[each], self.numbers[each]) for each in identities),
            others=others,
        )

    def _write_oriented(
        self, volume: Oriented, paths: list[Path], slices: Slices, note: str
    ) -> None:
        """A file that states an affine; of a pair of files both or none."""
        model, anonymous = self.model, self.deidentifier is not None
        # what fits into 79 characters
        text = f"{model.name[:40]} {model.weights_hash[:16]} {precision(model)}"
        text = ". ".join([text, *self._said(note)])
        new = [path for path in paths if not os.path.lexists(path)]
        try:
            volume.write(paths[0], slices, text, anonymous, self.grid, model.classes)
        except BaseException:
            for path in new:
                path.unlink(missing_ok=True)
            raise

    def _said(self, note: str) -> list[str]:
        """What stands in a header on how it was made, and the user's own text."""
        return [text for text in (note, self.description) if text]

    def _origin(self, note: str) -> str:
        model = self.model
        text = f"{model.name}, weights SHA-256 {model.weights_hash}, {precision(model)}"
        return ". ".join([text, *self._said(note)])


def precision(model: Any) -> str:
    """What a model computes in, and by what where that is not Keras."""
    # A model of somebody's own need not say.
    found = getattr(model, "precision", "float32")
    engine = getattr(getattr(model, "serve", None), "name", "")
    return f"{found}, {engine}" if engine else found
