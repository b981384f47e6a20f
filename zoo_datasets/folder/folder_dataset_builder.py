"""`folder`: a user's own DICOM, NIfTI, PNG, TIFF, JPEG or NPY files."""

import functools
import itertools
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import skimage.transform
import tensorflow_datasets as tfds

from zoo.atomic import write_json
from zoo.domain import Domain
from zoo.errors import contained, printable
from zoo.imaging import grids
from zoo.imaging.volume import Volume
from zoo_datasets.cases import SPLITS
from zoo_datasets.features import image_feature
from zoo_datasets.folder.config import FolderConfig, configure
from zoo_datasets.folder.describe import (
    FIELDS,
    caveats,
    describe,
    keys_of,
    shape_of,
    stored_type,
    voxels,
)
from zoo_datasets.folder.items import Layout
from zoo_datasets.folder.pseudonyms import patient_key, pseudonym

__all__ = ["Builder", "FolderConfig", "configure"]

_SHOWN = 20  # of the files that are left out, these are named
_TOLERANCE = 1e-3  # of label maps in files of floating-point numbers


class _Example(NamedTuple):
    """One slice of an item; for unpaired data two slices that have nothing to do with each other.

    `slices` holds a volume and an index for each image of the example.
    """

    slices: tuple[tuple[Volume, int], ...]
    patient: str


class _WrongLabels(ValueError):
    """Pixels of a label map that are no class; says which."""


class Builder(tfds.core.GeneratorBasedBuilder):
    """Examples {"source", "target"} or {"image"}, float32 `[H, W, C]`, "patient", "name".

    "patient" is a hash with a secret key and "name" a number: no name of a file or a patient is
    stored. Files that are left out are counted in `bad_files.json`, also without their names.
    """

    VERSION = tfds.core.Version("2.0.0")
    RELEASE_NOTES = {
        "2.0.0": "Pseudonyms have a secret key; targets lie on the grids of their sources.",
        "1.0.0": "First release.",
    }
    BUILDER_CONFIGS = [FolderConfig(name="files", description="Your own files.")]

    def _info(self) -> tfds.core.DatasetInfo:
        if Path(self.data_dir).exists():  # prepared: the files are not looked at again
            features = tfds.features.FeatureConnector.from_config(self.data_dir)
            return tfds.core.DatasetInfo(builder=self, features=features)
        config = self.builder_config
        channels: dict[str, int] = {"image": 1}
        metadata: dict[str, Any] = {"kind": "single"}
        if config.path is not None:
            keys = keys_of(config.layout)
            metadata = describe(config, keys)
            channels = {key: metadata[key]["channels"] for key in keys}
        sides = (None,) * config.dimensions
        images = {key: image_feature((*sides, n), np.float32) for key, n in channels.items()}
        texts = {"patient": tfds.features.Text(), "name": tfds.features.Text()}
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(images | texts),
            metadata=tfds.core.MetadataDict(metadata),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        config = self.builder_config
        if config.path is None:
            raise ValueError(
                "input: the data set `folder` expects a folder, or a .tsv list, of images, "
                "through zoo.data.prepare.load_builder. Received: None"
            )
        # Say what was found.
        counts = {
            split: len(_examples(config.layout, split, config.dimensions)) for split in SPLITS
        }
        empty = [split for domain in config.layout.domains for split in domain if not counts[split]]
        counts = {split: count for split, count in counts.items() if count}
        self._say(f"{config.layout.kind} images, {counts}")
        for split in dict.fromkeys(empty):
            self._say(f"warning: no readable image is left in the split {split}")
        told = voxels(config.layout) if config.dimensions == 3 else []
        for note in [*config.layout.notes, *told, *caveats(config.layout)]:
            self._say(note)
        for key in keys_of(config.layout):
            domain = self.info.metadata[key]
            how = self.info.metadata["windows"][key]
            windows = [each["window"] for each in domain.get("inputs", [domain])]
            shown = ", ".join(map(str, windows))
            self._say(f"{key}: {domain['modality']}, window {shown} ({how})")
        # Count what cannot be read.
        self._key = patient_key(Path(self.data_dir_root))
        self._bad: list[dict[str, str]] = []
        self._above: dict[str, tuple[float, str]] = {}
        harmless = [p for p in config.layout.problems if p.harmless]
        if harmless:
            self._say(f"{len(harmless)} files are no images, such as {harmless[0].path.name}")
        for problem in config.layout.problems:
            if not problem.harmless:
                self._leave_out(f"file {len(self._bad)}", "", problem.path.name, problem.reason)
        # Splits of which something can be read.
        generators = {}
        for split in counts:
            examples = self._generate_examples(split)
            first = next(examples, None)
            if first:
                generators[split] = itertools.chain([first], examples)
            else:  # TFDS takes no empty ones
                self._say(f"warning: no readable image is left in the split {split}")
        return generators

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        config = self.builder_config
        keys = keys_of(config.layout)
        wrong: dict[str, str] = {}  # label maps
        written = 0
        for number, example in enumerate(_examples(config.layout, split, config.dimensions)):
            name = f"{split}/{number:06d}"
            patient = pseudonym(self._key, example.patient)
            images = {}
            for key, (volume, index) in zip(keys, example.slices, strict=True):
                try:
                    images[key] = self._image(key, volume, index)
                except _WrongLabels as error:
                    wrong.setdefault(volume.name, str(error))
                    break
                except (ValueError, OSError) as error:
                    self._leave_out(name, patient, volume.name, str(error))
                    break
            if len(wrong) == 3:
                break
            if len(images) == len(keys):
                written += 1
                yield name, images | {"patient": patient, "name": name}
        # Where a label map was wrong, the data set is.
        if wrong:
            found = "; ".join(f"{name} with {what}" for name, what in wrong.items())
            raise ValueError(
                f"classes: expected label maps whose pixels are the numbers 0 to "
                f"{config.classes - 1} of --set classes={config.classes}. Write every class as its "
                "number (a mask of 0 and 255 as 0 and 1), or set classes to how many there are. "
                f"Received: {found}"
            )
        if not written and split == "train":
            raise ValueError(
                f"input: no readable image is left for training. Received: {config.path}"
            )
        self._finish()

    def source(self, name: str) -> tuple[Volume, int]:
        """What an example's source, or single image, was read from, by its name: file and slice."""
        split, _, number = name.partition("/")
        return self._sources[split][int(number)]

    @functools.cached_property
    def _sources(self) -> dict[str, list[tuple[Volume, int]]]:
        config, found = self.builder_config, {}
        for split in SPLITS:
            examples = _examples(config.layout, split, config.dimensions)
            found[split] = [example.slices[0] for example in examples]
        return found

    def _finish(self) -> None:
        """Says at the end of a split what its images had that the user should know."""
        for key, (most, name) in self._above.items():
            self._say(
                f"warning: {key}: values up to {most:g} lie above the window, in {name} for one; "
                f"`--set {FIELDS[key]}=LOW,HIGH` sets it"
            )
        self._above.clear()
        if self._bad:
            write_json(self.data_path / "bad_files.json", self._bad)

    def _leave_out(self, case: str, patient: str, name: str, reason: str) -> None:
        """Names what cannot be used here, and counts it in `bad_files.json` without its name."""
        if len(self._bad) < _SHOWN:
            self._say(f"left out {name}: {reason}")
        elif len(self._bad) == _SHOWN:
            self._say("more are left out, without a line each")
        # names of files and folders, which may tell who the patient is, and what headers hold
        told = re.sub(r"'[^']*'|\"[^\"]*\"|\S*/\S*", "…", reason.replace(name, "the file"))
        told = told.replace(Path(name).name, "the file")
        self._bad.append({"case": case, "patient": patient, "reason": told})

    def _image(self, key: str, volume: Volume, index: int) -> np.ndarray:
        """float32 `[H, W, C]`, resampled, with its neighbours as channels; or `[D, H, W, C]`.

        Raises:
            ValueError: for a file that cannot be read, or holds values that are not finite.
            _WrongLabels: for values that are no class.
        """
        config = self.builder_config
        # read
        with contained(volume.name):
            if config.dimensions == 3:
                image = np.stack([volume.read(i) for i in range(volume.length)])
                rank = 4
            else:
                image = volume.stack(index, 1 if key == "target" else config.slices)
                rank = 3
        image = image.astype(np.float32, copy=False)
        image = image if image.ndim == rank else image[..., None]
        # check
        labels = key == "target" and config.classes
        domain = Domain.from_dict(self.info.metadata[key])
        for part, (meaning, at) in zip(volume.parts, domain.parts.values(), strict=True):
            if isinstance(part, grids.OnGrid):
                low = 0 if labels else meaning.window[0]
                image[..., at] = np.nan_to_num(
                    image[..., at], nan=low, posinf=np.inf, neginf=-np.inf
                )
            if not labels and stored_type(part) in ("uint8", "uint16"):
                self._note_above(key, part, image[..., at].max(), meaning.window[1])
        if not np.isfinite(image).all():
            raise ValueError(f"{volume.name}: expected finite values. Received: NaN or infinity")
        if labels:
            image = _checked_labels(image, config.classes)
        # resample
        shape = shape_of(config, key, volume)
        if config.dimensions == 2 and shape != tuple(image.shape[:2]):
            image = skimage.transform.resize(
                image,
                shape,
                order=0 if labels else 1,
                mode="edge",
                anti_aliasing=not labels,
                preserve_range=True,
            )
        return np.ascontiguousarray(image, np.float32)

    def _note_above(self, key: str, volume: Volume, most: float, high: float) -> None:
        if most > high:
            self._above[key] = max(self._above.get(key, (0.0, "")), (most, volume.name))

    def _say(self, text: str) -> None:
        print(printable(f"folder: {text}"), file=sys.stderr, flush=True)


def _examples(found: Layout, split: str, dimensions: int = 2) -> list[_Example]:
    """The slices or volumes of a split. The smaller of two unpaired domains comes round again."""
    lists = []
    for domain in found.domains:
        examples = []
        for item in domain.get(split, []):
            count = item.volumes[0].length if dimensions == 2 else 1
            for index in range(count):
                slices = tuple((volume, index) for volume in item.volumes)
                examples.append(_Example(slices, item.patient))
        lists.append(examples)
    if len(lists) == 1:
        return lists[0]
    if not all(lists):
        return []
    sources, targets = lists
    pairs = []
    for i in range(max(len(sources), len(targets))):
        source, target = sources[i % len(sources)], targets[i % len(targets)]
        pairs.append(_Example(source.slices + target.slices, source.patient))
    return pairs


def _checked_labels(image: np.ndarray, classes: int) -> np.ndarray:
    """A label map, rounded to its whole numbers.

    Raises:
        _WrongLabels: where a value is none of 0 ... classes - 1.
    """
    labels = np.rint(image)
    if np.abs(image - labels).max() <= _TOLERANCE and 0 <= labels.min() <= labels.max() < classes:
        return labels
    values = [f"{value:g}" for value in np.unique(image)]
    if len(values) > 6:
        values = [*values[:3], "…", values[-1]]
    raise _WrongLabels(", ".join(values))
