"""`folder`: a user's own DICOM, NIfTI, PNG, TIFF, JPEG or NPY files."""

import dataclasses
import functools
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import skimage.transform
import tensorflow_datasets as tfds

from zoo.imaging import files
from zoo.imaging.volume import Volume
from zoo.imaging.windows import Domain
from zoo.recipe import Recipe
from zoo_datasets.folder import layout

_CT_WINDOW = (-1024.0, 1500.0)  # that of the data set `ldct`
_PERCENTILES = (0.5, 99.5)
_SAMPLED = 64  # training images that a window is measured on


@dataclasses.dataclass(eq=False)
class FolderConfig(tfds.core.BuilderConfig):
    """Whose files, and how they are prepared.

    Attributes:
        path: folder, file or .tsv list.
        spacing: pixel spacing in mm that images are resampled to; 0 keeps their own.
        slices: neighbouring slices that make the channels of a source, or of a single image.
        allow_shared_patients: permit one patient in several splits.
        scale: sides of a target over those of its source, for super-resolution.
        dimensions: 3 makes each file or series one example, a volume.
        classes: of targets that are label maps; they are never interpolated.
    """

    path: Path | None = None
    spacing: float = 0.0
    slices: int = 1
    allow_shared_patients: bool = False
    scale: int = 1
    dimensions: int = 2
    classes: int = 0

    @functools.cached_property
    def layout(self) -> layout.Layout:
        """What is in the folder; reads the header of every file, once."""
        found = layout.read(self.path, self.allow_shared_patients)
        if self.classes and found.kind == "paired":
            for split, items in found.domains[0].items():
                found.domains[0][split] = [_of_labels(item) for item in items]
        return found


def configure(input: Path | None, recipe: Recipe) -> FolderConfig:
    """The config of a user's folder: its name changes when a file or an option does.

    Raises:
        ValueError: without an input.
        FileNotFoundError: for an input that is not there.
    """
    if input is None:
        raise ValueError(
            "input: the data set `folder` expects a folder, or a .tsv list, of images. "
            "Received: None"
        )
    path = Path(input).expanduser().resolve()
    if not path.exists():
        raise FileNotFoundError(f"input: expected a folder or a .tsv list. Received: {path}")
    options = {
        "spacing": recipe.spacing,
        "slices": recipe.slices,
        "allow_shared_patients": recipe.allow_shared_patients,
        "scale": recipe.scale,
        "dimensions": recipe.dimensions,
        "classes": getattr(recipe, "classes", 0),
    }
    if recipe.dimensions == 3 and (recipe.spacing or recipe.slices > 1):
        raise ValueError(
            "spacing, slices: volumes are taken as they are. "
            f"Received: spacing={recipe.spacing}, slices={recipe.slices}"
        )
    roots = [path, *(layout.listed_paths(path) if path.suffix.lower() == ".tsv" else [])]
    content = json.dumps([os.fspath(path), options, sorted(set(_stamps(roots)))])
    digest = hashlib.sha256(content.encode()).hexdigest()[:16]
    return FolderConfig(name=f"files-{digest}", path=path, **options)


def _stamps(roots: list[Path]) -> Iterator[tuple[str, int, int]]:
    """Path, size and time of change of every file."""
    for root in roots:
        for path in files.every(root):
            if path.is_file():
                status = path.stat()
                yield os.fspath(path), status.st_size, status.st_mtime_ns


class _Example(NamedTuple):
    """One slice of an item; for unpaired data two slices that have nothing to do with each other.

    `slices` holds a volume and an index for each image of the example.
    """

    slices: tuple[tuple[Volume, int], ...]
    patient: str


class Builder(tfds.core.GeneratorBasedBuilder):
    """Examples {"source", "target"} or {"image"}, float32 `[H, W, C]`, "patient", "name".

    "patient" is a hash and "name" a number: no name of a file or a patient is stored.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    BUILDER_CONFIGS = [FolderConfig(name="files", description="Your own files.")]

    def _info(self) -> tfds.core.DatasetInfo:
        if Path(self.data_dir).exists():  # prepared: the files are not looked at again
            features = tfds.features.FeatureConnector.from_config(self.data_dir)
            return tfds.core.DatasetInfo(builder=self, features=features)
        keys, channels, metadata = ("image",), {"image": 1}, {"kind": "single"}
        if self.builder_config.path is not None:
            keys = _keys(self.builder_config.layout)
            metadata = self._describe(keys)
            channels = {key: metadata[key]["channels"] for key in keys}
        images = {
            key: tfds.features.Tensor(
                shape=(None,) * self.builder_config.dimensions + (channels[key],),
                dtype=np.float32,
                encoding=tfds.features.Encoding.ZLIB,
            )
            for key in keys
        }
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
                "through zoo.pipeline.load_builder. Received: None"
            )
        order = ("train", "validation", "test")
        counts = {split: len(_examples(config.layout, split, config.dimensions)) for split in order}
        counts = {split: count for split, count in counts.items() if count}
        self._skipped = [
            f"{p.path.name}: {p.reason}" for p in config.layout.problems if not p.harmless
        ]
        self._say(f"{config.layout.kind} images, {counts}")
        for key in _keys(config.layout):
            domain = self.info.metadata[key]
            how = self.info.metadata["windows"][key]
            self._say(f"{key}: {domain['modality']}, window {domain['window']} ({how})")
        self._report()
        return {split: self._generate_examples(split) for split in counts}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        config = self.builder_config
        keys = _keys(config.layout)
        self._skipped, written = [], 0
        for number, example in enumerate(_examples(config.layout, split, config.dimensions)):
            try:
                images = [
                    self._image(key, *part) for key, part in zip(keys, example.slices, strict=True)
                ]
            except (ValueError, OSError) as error:
                self._skipped.append(str(error))
                continue
            written += 1
            name = f"{split}/{number:06d}"
            fields = {"patient": example.patient, "name": name}
            yield name, dict(zip(keys, images, strict=True)) | fields
        self._report()
        if not written:
            raise ValueError(
                f"input: no readable image is left in the split {split}. "
                f"Received: {self.builder_config.path}"
            )

    def _image(self, key: str, volume: Volume, index: int) -> np.ndarray:
        """float32 `[H, W, C]`, resampled, with its neighbours as channels; or `[D, H, W, C]`."""
        config = self.builder_config
        if config.dimensions == 3:
            image = np.stack([volume.read(i) for i in range(volume.length)])
            image = image[..., None] if image.ndim == 3 else image
        else:
            image = volume.stack(index, 1 if key == "target" else config.slices)
            image = image[..., None] if image.ndim == 2 else image
        if not np.isfinite(image).all():
            raise ValueError(f"{volume.name}: expected finite values. Received: NaN or infinity")
        shape = self._shape(key, volume)
        if config.dimensions == 2 and shape != tuple(image.shape[:2]):
            labels = key == "target" and config.classes
            image = skimage.transform.resize(
                image,
                shape,
                order=0 if labels else 1,
                mode="edge",
                anti_aliasing=not labels,
                preserve_range=True,
            )
        return np.ascontiguousarray(image, np.float32)

    def _shape(self, key: str, volume: Volume) -> tuple[int, ...]:
        """Sides of an image in the data set."""
        config = self.builder_config
        if config.dimensions == 3:
            return (volume.length, *volume.shape)
        spacing = config.spacing / (config.scale if key == "target" else 1)
        return _resampled(volume, spacing)

    def _describe(self, keys: tuple[str, ...]) -> dict[str, Any]:
        """The metadata: kind of data and what each image's numbers mean."""
        config = self.builder_config
        found = config.layout
        metadata: dict[str, Any] = {
            "kind": found.kind,
            "shared_patients": found.shared_patients,
            "windows": {},
        }
        if config.dimensions == 3:
            metadata["dimensions"] = 3
        if found.kind != "single":
            metadata["aligned"] = found.kind == "paired"
        for number, key in enumerate(keys):
            volumes = [
                v
                for domain in found.domains
                for i in sum(domain.values(), [])
                for v in i.volumes[number : number + 1]
            ]
            if found.kind == "unpaired":
                volumes = [i.volumes[0] for i in sum(found.domains[number].values(), [])]
            metadata[key], metadata["windows"][key] = self._domain(key, number, volumes)
        if found.kind == "paired":
            self._check_shapes()
        return metadata

    def _domain(self, key: str, number: int, volumes: list[Volume]) -> tuple[dict, str]:
        config = self.builder_config
        channels = {v.channels for v in volumes}
        if len(channels) > 1 or (channels != {1} and config.slices > 1 and key != "target"):
            colour = next(v.name for v in volumes if v.channels != 1)
            raise ValueError(
                f"input: expected grey images, or (with slices=1) all of them in colour. "
                f"Received: {colour} in colour with slices={config.slices}"
            )
        if config.spacing:
            for volume in volumes:
                _resampled(volume, config.spacing)
        modality, unit = ({getattr(v, name) for v in volumes} for name in ("modality", "unit"))
        window, how = self._window(number, volumes)
        domain = Domain(
            modality=modality.pop() if len(modality) == 1 else "OT",
            unit=unit.pop() if len(unit) == 1 else "1",
            window=window,
            channels=channels.pop() if config.slices == 1 or key == "target" else config.slices,
            spacing=(config.spacing / (config.scale if key == "target" else 1),) * 2
            if config.spacing
            else _common_spacing(volumes),
        )
        return domain.to_dict(), how

    def _window(self, number: int, volumes: list[Volume]) -> tuple[tuple[float, float], str]:
        """An intensity window where the recipe names none, and where it comes from."""
        if {v.unit for v in volumes} == {"HU"}:
            return _CT_WINDOW, "the default for HU"
        types = {getattr(v, "dtype", "") if v.kind == "raster" else "" for v in volumes}
        if len(types) == 1 and types <= {"uint8", "uint16"}:
            bits = max(v.bits for v in volumes)
            return (0.0, float(2**bits - 1)), f"the range of {bits} bits"
        examples = _examples(self.builder_config.layout, "train")
        values = []
        for place in np.unique(np.linspace(0, len(examples) - 1, _SAMPLED).astype(int)):
            volume, index = examples[place].slices[number]
            try:
                image = volume.read(index).ravel()
            except (ValueError, OSError):
                continue  # reported when its turn comes
            values.append(image[np.isfinite(image)][:: 1 + image.size // 2**16])
        pool = np.concatenate(values) if values else np.zeros(0)
        if not pool.size:
            raise ValueError(
                f"input: no readable image is left. Received: {self.builder_config.path}"
            )
        low, high = (float(v) for v in np.percentile(pool, _PERCENTILES))
        return (low, high if high > low else low + 1.0), "percentiles 0.5 to 99.5 of training"

    def _check_shapes(self) -> None:
        config = self.builder_config
        pairs = [item.volumes for item in sum(config.layout.domains[0].values(), [])]
        wrong = [
            f"{source.name} ({source.length} slices of {source.shape}) and "
            f"{target.name} ({target.length} slices of {target.shape})"
            for source, target in pairs
            if source.length != target.length and config.dimensions == 2
        ]
        if wrong:
            raise ValueError(
                "input: expected as many slices in a source as in its target. "
                f"Received: {layout.some(wrong)}"
            )
        for source, target in pairs:
            shapes = self._shape("source", source), self._shape("target", target)
            if tuple(side * config.scale for side in shapes[0]) != shapes[1]:
                wrong.append(f"{source.name} {shapes[0]} and {target.name} {shapes[1]}")
        if wrong:
            wanted = "source and target of one height and width"
            if config.scale > 1:
                wanted = f"targets {config.scale} times as large as their sources"
            raise ValueError(f"input: expected {wanted}. Received: {layout.some(wrong)}")

    def _report(self) -> None:
        for reason in self._skipped[:5]:
            self._say(f"skipped {reason}")
        if self._skipped:
            self._say(f"{len(self._skipped)} unreadable files or slices were left out")

    def _say(self, text: str) -> None:
        print(f"folder: {text}", file=sys.stderr, flush=True)


def _of_labels(item: layout.Item) -> layout.Item:
    """A pair whose target is read as a label map."""
    source, target = item.volumes
    return item._replace(volumes=(source, target.as_labels()))


def _keys(found: layout.Layout) -> tuple[str, ...]:
    return ("image",) if found.kind == "single" else ("source", "target")


def _examples(found: layout.Layout, split: str, dimensions: int = 2) -> list[_Example]:
    """The slices or volumes of a split. The smaller of two unpaired domains comes round again."""
    lists = [
        [
            _Example(tuple((volume, index) for volume in item.volumes), item.patient)
            for item in domain.get(split, [])
            for index in range(item.volumes[0].length if dimensions == 2 else 1)
        ]
        for domain in found.domains
    ]
    if len(lists) == 1:
        return lists[0]
    if not all(lists):
        return []
    sources, targets = lists
    pairs = (
        (sources[i % len(sources)], targets[i % len(targets)])
        for i in range(max(len(sources), len(targets)))
    )
    return [_Example(source.slices + target.slices, source.patient) for source, target in pairs]


def _resampled(volume: Volume, spacing: float) -> tuple[int, int]:
    """Height and width after resampling to `spacing` mm; 0 leaves them."""
    if not spacing:
        return tuple(volume.shape)
    if volume.spacing is None:
        raise ValueError(
            f"spacing: {volume.name} does not state its pixel spacing, so it cannot be resampled. "
            f"Received: spacing={spacing}"
        )
    height, width = (
        max(1, round(pixels * own / spacing))
        for pixels, own in zip(volume.shape, volume.spacing, strict=True)
    )
    return height, width


def _common_spacing(volumes: list[Volume]) -> tuple[float, float] | None:
    first = volumes[0].spacing
    if first is None or any(v.spacing is None for v in volumes):
        return None
    same = all(np.allclose(v.spacing, first, rtol=1e-3, atol=0) for v in volumes)
    return first if same else None
