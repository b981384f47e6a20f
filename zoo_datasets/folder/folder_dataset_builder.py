"""`folder`: a user's own DICOM, NIfTI, PNG, TIFF, JPEG or NPY files."""

import dataclasses
import functools
import hashlib
import itertools
import json
import os
import re
import secrets
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import skimage.transform
import tensorflow_datasets as tfds

from zoo.atomic import write_json
from zoo.domain import Domain
from zoo.errors import contained, printable
from zoo.imaging import files, geometry
from zoo.imaging.dicom.series import Series
from zoo.imaging.volume import Problem, Volume
from zoo.recipe import Recipe
from zoo_datasets.folder import grids, layout

_CT_WINDOW = (-1024.0, 1500.0)  # that of the data set `ldct`
_PERCENTILES = (0.5, 99.5)
_SAMPLED = 64  # training images that a window is measured on
_DEPTHS = (1, 2, 4, 8, 10, 12, 14, 16)  # bits that detectors and label maps fill
_UNITS = ("HU", "SUV", "signal", "line integral", "1")  # known ones, whose spelling matters
_WIDEST = 1 << 16  # pixels along a side of a resampled image
_SHOWN = 20  # of the files that are left out, these are named
_TOLERANCE = 1e-3  # of label maps in files of floating-point numbers
_FIELDS = {"source": "source_window", "image": "source_window", "target": "target_window"}


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
        source_unit, target_unit: of the values in files that name none; "" leaves them without.
    """

    path: Path | None = None
    spacing: float = 0.0
    slices: int = 1
    allow_shared_patients: bool = False
    scale: int = 1
    dimensions: int = 2
    classes: int = 0
    source_unit: str = ""
    target_unit: str = ""

    @functools.cached_property
    def layout(self) -> layout.Layout:
        """What is in the folder, targets on their sources' grids; reads every header, once."""
        found = layout.read(self.path, self.allow_shared_patients, self.dimensions)
        _convert_units(found, self.source_unit, self.target_unit)
        layout.present(found)
        if found.kind == "paired":
            _match_grids(found, self)
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
        "source_unit": _unit("source_unit", recipe.source_unit),
        "target_unit": _unit("target_unit", recipe.target_unit),
    }
    if recipe.dimensions == 3 and (recipe.spacing or recipe.slices > 1):
        raise ValueError(
            "spacing, slices: volumes are taken as they are. "
            f"Received: spacing={recipe.spacing}, slices={recipe.slices}"
        )
    roots = [path, *(layout.listed_paths(path) if layout.is_list(path) else [])]
    content = json.dumps([os.fspath(path), options, sorted(set(_stamps(roots)))])
    digest = hashlib.sha256(content.encode()).hexdigest()[:16]
    return FolderConfig(name=f"files-{digest}", path=path, **options)


def _convert_units(found: layout.Layout, source: str, target: str) -> None:
    """Turns PET series in Bq/ml or counts into the unit that is asked for, in place.

    Raises:
        ValueError: where the headers of no training image have all that it takes.
    """
    for place, domain in enumerate(found.domains):
        # two domains, or one of images or of pairs
        units = (source, target)[place:] if found.kind == "unpaired" else (source, target)
        for split, items in domain.items():
            kept = []
            for item in items:
                try:
                    pairs = zip(item.volumes, units, strict=False)
                    volumes = tuple(_in_unit(volume, unit) for volume, unit in pairs)
                    kept.append(item._replace(volumes=volumes))
                except ValueError as error:
                    found.problems += [Problem(v.path(0), str(error)) for v in item.volumes]
            domain[split] = kept
        if not domain["train"]:
            lost = found.problems[-1]
            raise ValueError(
                f"input: no image is left for training. Received: {lost.path.name}: {lost.reason}"
            )


def _in_unit(volume: Volume, unit: str) -> Volume:
    """A PET series in another unit; what else names another unit is refused later."""
    if isinstance(volume, Series) and volume.modality == "PT" and unit:
        return volume.in_unit(unit)
    return volume


def _match_grids(found: layout.Layout, config: FolderConfig) -> None:
    """Puts targets that lie elsewhere in the patient onto the grids of their sources.

    Raises:
        ValueError: naming the pairs of which nobody knows how they lie, or that lie apart.
    """
    grid = geometry.Grid(scale=config.scale, depth=config.scale if config.dimensions == 3 else 1)
    wrong, shares, others = [], [], []
    for items in found.domains[0].values():
        for number, item in enumerate(items):
            source, target = item.volumes
            if config.classes:
                target = _label_map(target)
                items[number] = item._replace(volumes=(source, target))
            if grids.other_pixels(source, target, config.scale):
                others.append(f"{source.name} and {target.name}")
            try:
                if config.scale > 1:
                    grids.check_extent(source, target, grid)
                    continue
                matched, share = grids.on_source(source, target, bool(config.classes))
            except ValueError as error:
                wrong.append(f"{source.name} and {target.name} {error}")
                continue
            if matched is not target:
                items[number] = item._replace(volumes=(source, matched))
                shares.append(share)
    if wrong:
        raise ValueError(
            "input: expected pairs that show one part of one patient. "
            f"Received: {layout.some(wrong)}"
        )
    if others:
        found.notes.append(
            "warning: taken as they are stored, though their pixels are of other sizes and a file "
            f"does not say how it lies: {layout.some(others)}"
        )
    if shares:
        found.notes.append(
            f"{len(shares)} targets are resampled onto the grids of their sources, of which "
            f"they cover {min(shares):.0%} or more; the rest is filled with the low end of "
            "the window"
        )


def _label_map(volume: Volume) -> Volume:
    try:
        return volume.as_labels()
    except ValueError as error:
        raise ValueError(f"classes: {volume.name}: {error}") from error


def _unit(field: str, unit: str) -> str:
    """A unit as a recipe gives it, refused where it is none of a user's images."""
    known = {name.lower(): name for name in _UNITS}
    if known.get(unit.lower(), unit) != unit or unit in ("class", "k-space"):
        right = known.get(unit.lower(), "a unit of images; complex files are k-space by themselves")
        raise ValueError(f"{field}: expected {right}. Received: {unit}")
    return unit


def _stamps(roots: list[Path]) -> Iterator[tuple[str, int, int]]:
    """Path, size and time of change of every file that a search comes upon."""
    for root in roots:
        for path in files.every(root):
            try:
                status = path.stat()
            except OSError:  # named when it is to be read
                continue
            if stat.S_ISREG(status.st_mode):
                yield os.fspath(path), status.st_size, status.st_mtime_ns


def patient_key(data_dir: Path) -> bytes:
    """The secret behind the pseudonyms of a data directory, in its file `.patient_key`.

    It is made by the first data set that needs it, is the same for all of them, so that a patient
    keeps the pseudonym, and only its owner can read it.

    Raises:
        ValueError: for a file that holds no such key.
    """
    path = data_dir / ".patient_key"
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        for _ in range(20):  # another process may be writing it
            text = path.read_text(encoding="ascii", errors="replace").strip()
            if len(text) == 64 and set(text) <= set("0123456789abcdef"):
                return bytes.fromhex(text)
            time.sleep(0.05)
        raise ValueError(
            f"{path}: expected 64 hexadecimal digits; without the file a new key is made. "
            f"Received: {len(text)} other characters"
        ) from None
    key = secrets.token_bytes(32)
    with os.fdopen(descriptor, "w") as file:
        file.write(key.hex())
    return key


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
                "through zoo.data.prepare.load_builder. Received: None"
            )
        order = ("train", "validation", "test")
        counts = {split: len(_examples(config.layout, split, config.dimensions)) for split in order}
        empty = [split for domain in config.layout.domains for split in domain if not counts[split]]
        counts = {split: count for split, count in counts.items() if count}
        self._say(f"{config.layout.kind} images, {counts}")
        for split in dict.fromkeys(empty):
            self._say(f"warning: no readable image is left in the split {split}")
        for note in [*config.layout.notes, *_caveats(config.layout)]:
            self._say(note)
        for key in _keys(config.layout):
            domain = self.info.metadata[key]
            how = self.info.metadata["windows"][key]
            self._say(f"{key}: {domain['modality']}, window {domain['window']} ({how})")
        self._key, self._bad, self._above = patient_key(Path(self.data_dir_root)), [], {}
        harmless = [p for p in config.layout.problems if p.harmless]
        if harmless:
            self._say(f"{len(harmless)} files are no images, such as {harmless[0].path.name}")
        for problem in config.layout.problems:
            if not problem.harmless:
                self._leave_out(f"file {len(self._bad)}", "", problem.path.name, problem.reason)
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
        keys = _keys(config.layout)
        wrong: dict[str, str] = {}  # label maps
        written = 0
        for number, example in enumerate(_examples(config.layout, split, config.dimensions)):
            name = f"{split}/{number:06d}"
            patient = layout.pseudonym(self._key, example.patient)
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

    def _finish(self) -> None:
        """Says at the end of a split what its images had that the user should know."""
        for key, (most, name) in self._above.items():
            self._say(
                f"warning: {key}: values up to {most:g} lie above the window, in {name} for one; "
                f"`--set {_FIELDS[key]}=LOW,HIGH` sets it"
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
        low, high = self.info.metadata[key]["window"]
        if isinstance(volume, grids.OnGrid):
            image = np.where(np.isnan(image), np.float32(0 if labels else low), image)
        if not np.isfinite(image).all():
            raise ValueError(f"{volume.name}: expected finite values. Received: NaN or infinity")
        if labels:
            image = _checked_labels(image, config.classes)
        elif _stored_type(volume) in ("uint8", "uint16") and image.max() > high:
            self._above[key] = max(self._above.get(key, (0.0, "")), (image.max(), volume.name))
        # resample
        shape = self._shape(key, volume)
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
            "note": " ".join(_caveats(found)),
        }
        if config.dimensions == 3:
            metadata["dimensions"] = 3
        if found.kind != "single":
            metadata["aligned"] = found.kind == "paired"
        everything = []
        for number in range(len(keys)):
            unpaired = found.kind == "unpaired"
            items = sum(found.domains[number if unpaired else 0].values(), [])
            everything.append([item.volumes[0 if unpaired else number] for item in items])
        for key, volumes in zip(keys, everything, strict=True):
            others = [v for part in everything for v in part if found.kind == "paired"]
            metadata[key], metadata["windows"][key] = self._domain(key, volumes, others)
        if found.kind == "paired":
            self._check_shapes()
        return metadata

    def _domain(self, key: str, volumes: list[Volume], pairs: list[Volume]) -> tuple[dict, str]:
        """What the numbers of an image mean, and where its window comes from.

        Args:
            key: of the image.
            volumes: all that are such images.
            pairs: all sources and targets of paired data.
        """
        config = self.builder_config
        channels = {v.channels for v in volumes}
        if len(channels) > 1 or (channels != {1} and config.slices > 1 and key != "target"):
            colour = next(v.name for v in volumes if v.channels != 1)
            raise ValueError(
                f"input: expected grey images, or (with slices=1) all of them in colour. "
                f"Received: {colour} in colour with slices={config.slices}"
            )
        if key == "target" and config.classes and channels != {1}:
            raise ValueError(
                "classes: expected grey label maps, of one class number a pixel. "
                f"Received: {volumes[0].name} in colour"
            )
        if config.spacing:
            for volume in volumes:
                _resampled(volume, config.spacing)
        unit, modalities = self._common_unit(key, volumes), {v.modality for v in volumes}
        if key == "target" and config.classes:
            unit, modalities = "class", {"SEG"}
        modality = modalities.pop() if len(modalities) == 1 else "OT"
        window, how = self._window(key, unit, volumes, pairs)
        domain = Domain(
            modality="CT" if (modality, unit) == ("OT", "HU") else modality,
            unit=unit,
            window=window,
            channels=channels.pop() if config.slices == 1 or key == "target" else config.slices,
            spacing=(config.spacing / (config.scale if key == "target" else 1),) * 2
            if config.spacing
            else _common_spacing(volumes),
            plane=config.layout.plane,
        )
        return domain.to_dict(), how

    def _common_unit(self, key: str, volumes: list[Volume]) -> str:
        """The unit of all values: what the files say, or else the recipe.

        Raises:
            ValueError: for files that say different things, or another thing than the recipe.
        """
        field = _FIELDS[key].replace("window", "unit")
        given = getattr(self.builder_config, field)
        stated = {v.unit: v for v in volumes if _states_unit(v)}
        silent = [v for v in volumes if not _states_unit(v)]
        for unit, volume in stated.items():
            if given and unit != given:
                raise ValueError(
                    f"{field}: expected files in {given}, as --set {field} says. "
                    f"Received: {volume.name} in {unit}"
                )
        if given:
            return given
        if len(stated) > 1 or (stated and silent):
            texts = [f"{volume.name} in {unit}" for unit, volume in stated.items()]
            texts += [f"{volume.name} without a unit" for volume in silent[:1]]
            raise ValueError(
                f"input: expected one unit for all images of a domain (--set {field}=HU, or "
                f"another, says what files hold that name none). Received: {', '.join(texts)}"
            )
        units = {v.unit for v in volumes}
        return units.pop() if len(units) == 1 else "1"

    def _window(
        self, key: str, unit: str, volumes: list[Volume], pairs: list[Volume]
    ) -> tuple[tuple[float, float], str]:
        """An intensity window where the recipe names none, and where it comes from."""
        if unit == "class":
            return (0.0, float(self.builder_config.classes - 1)), "the classes"
        if unit == "HU":
            return _CT_WINDOW, "the default for HU"
        values = self._sample(key)
        types = {_stored_type(v) for v in volumes}
        if types in ({"uint8"}, {"uint16"}):
            if pairs and {_stored_type(v) for v in pairs} == types:  # one window for both sides
                values = np.concatenate([self._sample("source"), self._sample("target")])
            bits = max(v.bits for v in volumes)
            return _window_of_bits(values.max(), bits, _FIELDS[key])
        low, high = (float(v) for v in np.percentile(values, _PERCENTILES))
        return (low, high if high > low else low + 1.0), "percentiles 0.5 to 99.5 of training"

    def _sample(self, key: str) -> np.ndarray:
        """Some values of some training images.

        Raises:
            ValueError: where none of these images can be read.
        """
        found = self.builder_config.layout
        number = _keys(found).index(key)
        items = found.domains[number if found.kind == "unpaired" else 0]["train"]
        volumes = [item.volumes[0 if found.kind == "unpaired" else number] for item in items]
        volumes = [v.target if isinstance(v, grids.OnGrid) else v for v in volumes]
        planes = [(volume, index) for volume in volumes for index in range(volume.length)]
        values = []
        for place in np.unique(np.linspace(0, len(planes) - 1, _SAMPLED).astype(int)):
            volume, index = planes[place]
            try:
                with contained(volume.name):
                    image = volume.read(index).ravel()
            except ValueError:
                continue  # reported when its turn comes
            values.append(image[np.isfinite(image)][:: 1 + image.size // 2**16])
        pool = np.concatenate(values) if values else np.zeros(0)
        if not pool.size:
            raise ValueError(
                f"input: no readable image is left. Received: {self.builder_config.path}"
            )
        return pool

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

    def _say(self, text: str) -> None:
        print(printable(f"folder: {text}"), file=sys.stderr, flush=True)


def _caveats(found: layout.Layout) -> list[str]:
    """What figures measured on the data have to be read with."""
    caveats = []
    if found.unknown:
        caveats.append(f"Of {found.unknown} files nobody says whose they are: each is a patient.")
    if found.shared_patients:
        caveats.append("Patients are in several splits, so that results flatter.")
    return caveats


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
    if max(height, width) > _WIDEST:
        raise ValueError(
            f"spacing: {volume.name} would have {height} x {width} pixels, expected up to "
            f"{_WIDEST}. Received: spacing={spacing}"
        )
    return height, width


def _common_spacing(volumes: list[Volume]) -> tuple[float, float] | None:
    first = volumes[0].spacing
    if first is None or any(v.spacing is None for v in volumes):
        return None
    same = all(np.allclose(v.spacing, first, rtol=1e-3, atol=0) for v in volumes)
    return first if same else None


def _states_unit(volume: Volume) -> bool:
    """Whether the file itself says what its values are: only DICOM does, and complex arrays."""
    return volume.unit == "k-space" or (volume.kind == "dicom" and volume.unit != "1")


def _stored_type(volume: Volume) -> str:
    """The type of pixels whose range means something: that of PNG and TIFF files, or ""."""
    return getattr(volume, "dtype", "") if volume.kind == "raster" else ""


def _window_of_bits(most: float, bits: int, field: str) -> tuple[tuple[float, float], str]:
    """The window of files of so many bits, or of those bits that values up to `most` fill."""
    used = next(depth for depth in (*_DEPTHS, bits) if most < 2**depth)
    if used >= bits or most == 0:
        return (0.0, 2.0**bits - 1), f"the range of {bits} bits"
    whole = f"`--set {field}=0,{2**bits - 1}` takes them all"
    return (0.0, 2.0**used - 1), f"{used} of {bits} bits are in use; {whole}"


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
