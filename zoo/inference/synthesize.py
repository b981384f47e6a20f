"""Data sets of generated images, of any size: made shard by shard, so that a killed run goes on.

    OUT/synthetic.json              which model and seed it is of, and how many images
    OUT/shards/00000.json           the SHA-256 of a shard's files, written when all are there
    OUT/images/solid/00000/…        PNG or DICOM, by class and shard; without classes by shard
    OUT/synthetic-train.tfrecord-…  or a data set of tensorflow_datasets, a file for each shard

Image k depends on the weights, the seed and k alone. What is written names no moment and no
machine: the bytes are the same whether a run was stopped or not, and however it was divided.
"""

import dataclasses
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tqdm

from zoo.atomic import write_json
from zoo.cache import file_sha256
from zoo.domain import Domain
from zoo.imaging import png, raster
from zoo.imaging.dicom import synthetic
from zoo.imaging.dicom.encoding import Encoding
from zoo.inference.outputs import precision
from zoo.inference.slices import require_finite
from zoo.inference.targets import check_writable

FORMATS = ("png", "dicom", "tfds")
SHARD = 1000  # images
_SPLIT = "train"
_AT_ONCE = 64  # images in memory
_FOLDER = re.compile(r"[\w+-][\w+. -]{0,63}")  # a class's name, which may come from anywhere


class Image(NamedTuple):
    """A generated image.

    Attributes:
        number: from 0 on.
        label: its class, "" where the model knows none.
        values: float32 `[H, W, C]` in the target's unit.
    """

    number: int
    label: str
    values: np.ndarray


@dataclasses.dataclass(frozen=True)
class _Set:
    """What the files of a set have in common."""

    domain: Domain
    shape: tuple[int, ...]  # of an image
    model: str
    weights_sha256: str
    precision: str
    seed: int
    labels: tuple[str, ...]  # that the images have in turn

    @property
    def encoding(self) -> Encoding:
        """Whole HU; of other units whole ones, or 4096 levels in the window."""
        if self.domain.unit == "HU":
            return Encoding(signed=True)
        slope = min(1.0, 10.0 ** math.floor(math.log10(self.domain.span / 4096)))
        return Encoding(slope=slope, signed=self.domain.window[0] < 0)

    def label(self, number: int) -> str:
        return self.labels[number % len(self.labels)] if self.labels else ""

    def origin(self, image: Image) -> dict[str, Any]:
        """Where an image is from."""
        return {
            "model": self.model,
            "weights_sha256": self.weights_sha256,
            "precision": self.precision,
            "seed": self.seed,
            "number": image.number,
            "label": image.label,
        }


def synthesize(
    model: Any,
    n: int,
    output: str | os.PathLike,
    *,
    seed: int = 0,
    format: str = "png",
    label: str | None = None,
    part: tuple[int, int] = (1, 1),
    shard: int = SHARD,
    progress: bool = True,
) -> int:
    """Writes a data set of generated images, labelled where the model is conditional.

    Where some of it is there already, as a killed run leaves it, the rest is made.

    PNG is of 16 bits as `generate` writes it. DICOM and TFDS hold whole HU, or of another unit
    whole ones, in finer steps where the window has fewer than 4096. Every file, and every record
    of TFDS, says the model, the SHA-256 of its weights, the seed and the image's number.

    Args:
        model: a `zoo.Translator` that generates.
        n: number of images of the whole set, 1 or more.
        output: a folder: new, empty, or of the same set.
        seed: names the images.
        format: "png", "dicom" or "tfds".
        label: name of the class of all images, where the model is conditional; None: in turn.
        part: K and N: only the K-th of N parts of the shards. Whichever part ends last completes
            a set of TFDS.
        shard: images of a shard.
        progress: show a progress bar over images.

    Returns:
        How many images are still missing: those of other parts, else 0.

    Raises:
        ValueError: for numbers below 1, an unknown format or label, several channels in PNG or
            DICOM, a folder with other content, and images that are not finite.
    """
    # What is asked for.
    if min(n, shard) < 1 or seed < 0:
        text = f"n, shard: expected 1 or more, seed 0 or more. Received: {n}, {shard}, {seed}"
        raise ValueError(text)
    if format not in FORMATS:
        raise ValueError(f"format: expected one of {', '.join(FORMATS)}. Received: {format}")
    channels = model.target.channels
    if format != "tfds" and channels != 1:
        raise ValueError(f"format: {format} takes one channel, use tfds. Received: {channels}")
    names = tuple(getattr(model.recipe, "class_names", ()))
    if label is not None and label not in names:
        wanted = f"one of {', '.join(names)}" if names else "none, the model knows no classes"
        raise ValueError(f"label: expected {wanted}. Received: {label}")
    for name in names:
        if not _FOLDER.fullmatch(name):
            raise ValueError(f"class_names: expected names that files may have. Received: {name}")
    chosen = {"label": label} if label else {}
    made = _Set(
        domain=model.target,
        shape=model.generate(1, seed=seed, **chosen).shape[1:],
        model=model.name,
        weights_sha256=model.weights_hash,
        precision=precision(model),
        seed=seed,
        labels=(label,) if label else names,
    )
    output = Path(output)
    _begin(output, made, n, format, shard)
    # The shards of this part, those that are whole left as they are.
    write: Callable[..., None] = _write_records if format == "tfds" else _write_images
    starts = range(0, n, shard)
    with tqdm.tqdm(unit="image", total=n, disable=None if progress else True) as bar:
        for index, first in enumerate(starts):
            count = min(shard, n - first)
            if index % part[1] == part[0] - 1 and not _whole(output, index):
                images = _images(model, made, first, count, chosen, bar.update)
                work = _work(output, index)
                write(work, images, made, format, index, len(starts))
                _finish(output, work, index)
            elif index % part[1] == part[0] - 1:
                bar.update(count)
    # What is there now.
    missing = [index for index in range(len(starts)) if not _record(output, index).exists()]
    if not missing and format == "tfds":
        _write_info(output, made, n, shard)
    return sum(min(shard, n - starts[index]) for index in missing)


# Shards.


def _begin(output: Path, made: _Set, n: int, format: str, shard: int) -> None:
    """Says what a set is of; refuses a folder of anything else."""
    facts = dataclasses.asdict(made) | {"synthetic": True, "images": n, "format": format}
    facts |= {"shard": shard, "domain": made.domain.to_dict()}
    facts = json.loads(json.dumps(facts))
    sidecar = output / "synthetic.json"
    check_writable(output)
    if not sidecar.exists():
        if any(output.iterdir()):
            raise ValueError(
                f"output: expected a new or empty folder, or one of synthesize. Received: {output}"
            )
        write_json(sidecar, facts)
    try:
        there = json.loads(sidecar.read_text(encoding="utf-8"))
    except ValueError:
        there = None
    for name, value in facts.items():
        found = there.get(name) if isinstance(there, dict) else "another file"
        if found != value:
            raise ValueError(
                f"{sidecar}: expected a set whose {name} is {found}, as it was begun. "
                f"Received: {value}"
            )


def _record(output: Path, index: int) -> Path:
    return output / "shards" / f"{index:05d}.json"


def _whole(output: Path, index: int) -> bool:
    """Whether a shard's files are there as they were written."""
    record = _record(output, index)
    if not record.exists():
        return False
    for name, digest in json.loads(record.read_text(encoding="utf-8"))["files"].items():
        path = output / name
        if not path.is_file() or file_sha256(path) != digest:
            return False
    return True


def _work(output: Path, index: int) -> Path:
    """An empty folder to make a shard in."""
    work = output / "shards" / f"{index:05d}.part"
    shutil.rmtree(work, ignore_errors=True)  # what a killed run has left
    work.mkdir(parents=True)
    return work


def _finish(output: Path, work: Path, index: int) -> None:
    """Moves a shard's files to their places, and says that they are there."""
    digests = {}
    for path in sorted(work.rglob("*")):
        if path.is_file():
            name = path.relative_to(work)
            digests[name.as_posix()] = file_sha256(path)
            (output / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, output / name)
    write_json(_record(output, index), {"files": digests})
    shutil.rmtree(work)


def _images(
    model: Any,
    made: _Set,
    first: int,
    count: int,
    chosen: dict[str, str],
    done: Callable[[int], object],
) -> Iterator[Image]:
    """The images from number `first` on, each once it is asked for."""
    for start in range(first, first + count, _AT_ONCE):
        size = min(_AT_ONCE, first + count - start)
        images = model.generate(size, seed=made.seed, first=start, **chosen)
        images = np.asarray(images, np.float32)
        require_finite(images)
        for number, values in enumerate(images, start):
            yield Image(number, made.label(number), values)
        done(size)


# Files.


def _write_images(
    work: Path, images: Iterator[Image], made: _Set, format: str, index: int, _: int
) -> None:
    """A file for each image."""
    suffix = ".png" if format == "png" else ".dcm"
    for image in images:
        folder = work / "images" / image.label / f"{index:05d}"
        folder.mkdir(parents=True, exist_ok=True)
        encode = _png if format == "png" else _dicom
        (folder / f"{image.number:07d}{suffix}").write_bytes(encode(image, made))


def _png(image: Image, made: _Set) -> bytes:
    domain = made.domain
    levels = (image.values[..., 0] - domain.window[0]) / domain.span * 65535
    low, high = domain.window
    text = f"{_text(image, made)} 0 to 65535 are {low:g} to {high:g} {domain.unit}."
    if domain.spacing:
        text += f" Pixels of {' x '.join(f'{mm:g}' for mm in domain.spacing)} mm."
    return png.encode(raster.saturate(levels, np.dtype(np.uint16)), 16, description=text)


def _dicom(image: Image, made: _Set) -> bytes:
    identity = json.dumps(made.origin(image))
    text = _text(image, made)
    return synthetic.encode(
        image.values[..., 0], made.domain, made.encoding, identity, made.model, text
    )


def _text(image: Image, made: _Set) -> str:
    """Where an image is from, in words."""
    text = f"Synthetic image {image.number} by {made.model}, weights SHA-256 {made.weights_sha256}"
    text += f", {made.precision}, seed {made.seed}"
    return f"{text}, class {image.label}." if image.label else f"{text}."


# A data set of tensorflow_datasets.


def _features(made: _Set) -> Any:
    """What a record holds: the features of a labelled data set, and where the image is from."""
    import tensorflow_datasets as tfds

    text = tfds.features.Text()
    image = tfds.features.Tensor(shape=made.shape, dtype=np.float32, encoding="zlib")
    features: dict[str, Any] = {"image": image, "name": text, "patient": text}
    features |= {"model": text, "weights_sha256": text, "precision": text}
    features |= {"seed": np.int64, "number": np.int64}
    if made.labels:
        features["label"] = tfds.features.ClassLabel(names=list(made.labels))
    return tfds.features.FeaturesDict(features)


def _file(index: int, count: int) -> str:
    return f"synthetic-{_SPLIT}.tfrecord-{index:05d}-of-{count:05d}"


def _write_records(
    work: Path, images: Iterator[Image], made: _Set, _: str, index: int, count: int
) -> None:
    """One file of records."""
    import tensorflow as tf

    features = _features(made)
    with tf.io.TFRecordWriter(str(work / _file(index, count))) as file:
        for image in images:
            values = made.encoding.decode(made.encoding.encode(image.values))
            origin = made.origin(image)
            key = hashlib.sha256(json.dumps(origin).encode()).hexdigest()[:16]
            example = {"image": values, "name": key, "patient": key}
            example |= {name: value for name, value in origin.items() if name in features}
            record = tf.train.Example.FromString(features.serialize_example(example))
            file.write(record.SerializeToString(deterministic=True))


def _write_info(output: Path, made: _Set, n: int, shard: int) -> None:
    """What `tfds.builder_from_directory` reads, once all shards are there."""
    import tensorflow_datasets as tfds

    lengths = [min(shard, n - first) for first in range(0, n, shard)]
    files = [output / _file(index, len(lengths)) for index in range(len(lengths))]
    template = tfds.core.ShardedFileTemplate(
        data_dir=output, dataset_name="synthetic", split=_SPLIT, filetype_suffix="tfrecord"
    )
    split = tfds.core.SplitInfo(
        name=_SPLIT,
        shard_lengths=lengths,
        num_bytes=sum(file.stat().st_size for file in files),
        filename_template=template,
    )
    tfds.folder_dataset.write_metadata(
        data_dir=output,
        features=_features(made),
        split_infos=[split],
        version="1.0.0",
        check_data=False,
        description=f"Synthetic images by {made.model}, weights SHA-256 {made.weights_sha256}.",
        supervised_keys=("image", "label") if made.labels else None,
        metadata=tfds.core.MetadataDict({"kind": "single", "image": made.domain.to_dict()}),
    )
