"""Dice of a segmentation that is given with what an output shows of it: the alarm `dice`.

A user's label maps say where structures are in the inputs. An output shows a structure where its
grey values part it from what is around: of the pixels in it and in a rim about it those that are
nearer to its median than to the rim's. A structure that was moved, blurred away or erased overlaps
less with that than one that was kept. Imports no TensorFlow.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from zoo.errors import contained
from zoo.imaging import files
from zoo.imaging.volume import Volume

_FEWEST = 16  # pixels of a structure that is looked at
_RIM = 2.0  # pixels about it, at least


def dice(labels: np.ndarray, image: np.ndarray) -> float | None:
    """The least Dice of the structures, each with what an image shows of it.

    Args:
        labels: whole numbers `[h, w]`, 0 where there is no structure; of the image's field of view.
        image: `[H, W]`.

    Returns:
        0 to 1; None without a structure of `_FEWEST` pixels that has a rim.
    """
    rows, columns = (
        np.arange(side) * own // side for side, own in zip(image.shape, labels.shape, strict=True)
    )
    labels = labels[np.ix_(rows, columns)]
    found = []
    for number in np.unique(labels[labels != 0]):
        inside = labels == number
        # The rim is half as wide as a disc of the structure's area.
        reach = max(_RIM, np.sqrt(inside.sum() / np.pi) / 2)
        rim = ~inside & (ndimage.distance_transform_edt(~inside) <= reach)
        if inside.sum() < _FEWEST or not rim.any():
            continue
        own, around = np.median(image[inside]), np.median(image[rim])
        nearer = np.abs(image - own) < np.abs(image - around)
        shown = nearer & (inside | rim)
        found.append(2 * (shown & inside).sum() / (shown.sum() + inside.sum()))
    return float(min(found)) if found else None


def require(model: Any) -> None:
    """A ValueError for a model whose images have no label map each."""
    if model.dimensions != 2:
        raise ValueError("segmentation: expected a model of slices. Received: one of volumes")


class Segmentations:
    """A user's label maps, found by the names of the images that they belong to.

    Args:
        path: a folder of files named as the images are, in folders of the same names or in none,
            of any kind that is read but DICOM; or one file, for one image.

    Raises:
        FileNotFoundError: where there is nothing.
        ValueError: for a folder without such a file.
    """

    def __init__(self, path: Path):
        if not path.exists():
            raise FileNotFoundError(f"segmentation: expected a file or folder. Received: {path}")
        self.path = path
        self.only = path if path.is_file() else None
        self.files: dict[tuple[str, ...], Path] = {}
        for file in files.every(path) if self.only is None else ():
            if file.name.lower().endswith(files.SUFFIXES):
                self.files[_named(file.relative_to(path))] = file
        if self.only is None and not self.files:
            raise ValueError(f"segmentation: expected label maps in a folder. Received: {path}")
        self.last: tuple[Path, str | None, Volume] | None = None

    def of(self, volume: Volume, index: int, plane: str | None) -> np.ndarray:
        """The label map of a slice of an image, int32 `[H, W]`.

        Args:
            volume: the image, of several inputs the first.
            index: of the slice.
            plane: that the image is presented in.

        Raises:
            ValueError: where there is none, one of another size, or one that is no label map.
        """
        image = volume.path(index)
        labels = self._open(self._file(image), plane)
        alone = len(volume.paths) > 1  # each slice has a file of its own
        length, shape = (1 if alone else volume.length), volume.shape
        if (labels.length, *labels.shape, labels.channels) != (length, *shape, 1):
            raise ValueError(
                f"segmentation: expected {length} x {shape[0]} x {shape[1]} labels, as "
                f"{image.name} has pixels. Received: {labels.length} x {labels.shape[0]} x "
                f"{labels.shape[1]}, channels {labels.channels}"
            )
        with contained("segmentation"):
            values = labels.read(0 if alone else index)
        whole = np.rint(values)
        if not np.array_equal(whole, values):
            wrong = values[whole != values].flat[0]
            raise ValueError(
                f"segmentation: expected whole numbers in {labels.path(0).name}. "
                f"Received: {wrong:g}"
            )
        return whole.astype(np.int32)

    def labelled(
        self, builder: Any, examples: Iterable[dict[str, Any]]
    ) -> Iterator[dict[str, Any]]:
        """Examples of the data set `folder` with "labels", those of their sources.

        Raises:
            ValueError: for another data set, and as `of`.
        """
        if not hasattr(builder, "source"):
            raise ValueError(
                "segmentation: expected the data set folder, whose images have names. "
                f"Received: {builder.name}"
            )
        for example in examples:
            name = example["name"]
            volume, index = builder.source(name.decode() if isinstance(name, bytes) else str(name))
            plane = builder.builder_config.layout.plane
            yield example | {"labels": self.of(volume.parts[0], index, plane)}

    def _file(self, image: Path) -> Path:
        """That of an image: of those of its name the one in folders named most alike."""
        if self.only is not None:
            return self.only
        name = _named(image)
        for start in range(len(name)):
            if name[start:] in self.files:
                return self.files[name[start:]]
        raise ValueError(
            f"segmentation: expected a label map named as {image.name}. Received: none in "
            f"{self.path}"
        )

    def _open(self, file: Path, plane: str | None) -> Volume:
        """The last one that was asked for is kept: it is asked slice by slice."""
        if self.last is None or self.last[:2] != (file, plane):
            opened = files.open_volume(file).as_labels().presented(plane)
            self.last = file, plane, opened
        return self.last[2]


def _named(path: Path) -> tuple[str, ...]:
    """A path without the end of its name, in parts."""
    end = files.ending(path)
    return (*path.parts[:-1], path.name[: len(path.name) - len(end)])
