"""From a data set and a recipe to batches of paired, unpaired or single images.

Example `g` of a run (counted from 0 over all epochs) is a function of (recipe, g) alone: order,
crop, augmentation and the seed that it hands to the model. So a run that resumes at `g` sees what
an undisturbed one would have seen, and several replicas see what one device would have.
"""

import contextlib
import dataclasses
import importlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from zoo import registry
from zoo.imaging.windows import MEASUREMENTS, Domain
from zoo.recipe import Recipe

# A split smaller than this is shuffled as a whole; of a larger one, this much is held at a time.
_SHUFFLE_BYTES = 2**30
_READERS = 16  # files of one split read in turn, `_READERS` records from each
_LAST_EPOCH = 2**31

_NOISE = 2  # beside the streams 0 and 1: what a seed folded into the example's is for
_EXACT = 3  # folded into a stream's seed: for flips up-down and turns


# Data sets.


def load_builder(
    dataset: str,
    data_dir: Path | None,
    recipe: Recipe,
    input: Path | None = None,
    *,
    prepare: bool = True,
) -> tfds.core.DatasetBuilder:
    """A data set that is ready to be read; downloads or generates it first where needed.

    Args:
        dataset: registered name, or "name/config"; the default config works offline.
        data_dir: where prepared data sets live; None: `$TFDS_DATA_DIR` or ~/tensorflow_datasets.
        recipe: `spacing`, `slices`, `source_unit`, `target_unit` and `allow_shared_patients` say
            how `folder` is prepared.
        input: the user's own folder or list of images, for the data set `folder` only.
        prepare: False only describes the data; `prepare_builder` then makes them ready.

    Raises:
        UnknownName: for an unknown data set or config.
        ValueError: for an option that the data set does not have, or data it cannot use.
        FileNotFoundError: where files are missing that have to be fetched by hand.
    """
    fields, config = registry.dataset_fields(dataset)
    name = fields["name"]
    module = importlib.import_module(f"{fields['module']}.{name}_dataset_builder")
    if hasattr(module, "configure"):  # made from the user's own files
        config = module.configure(input, recipe)
    else:
        _refuse_folder_options(name, recipe, input)
        config = config if module.Builder.BUILDER_CONFIGS else None
    builder = module.Builder(config=config, data_dir=data_root(data_dir))
    if not prepare:
        return builder
    builder = prepare_builder(builder)
    warn_of_bad_files(builder)
    return builder


def warn_of_bad_files(builder: tfds.core.DatasetBuilder) -> None:
    """Says on stderr how many files a prepared data set is without."""
    left_out = bad_files(builder)
    if left_out:
        print(f"warning: {builder.info.full_name}: {left_out}", file=sys.stderr, flush=True)


def bad_files(builder: tfds.core.DatasetBuilder) -> str:
    """Says what could not be read when a data set was prepared; "" where all could."""
    path = Path(builder.data_dir) / "bad_files.json"
    if not path.exists():
        return ""
    found = json.loads(path.read_text(encoding="utf-8"))
    return f"{len(found)} could not be read and were left out: {path}"


def data_root(data_dir: Path | None) -> Path:
    """Where prepared data sets live: the given folder, `$TFDS_DATA_DIR`, or TFDS's own."""
    root = Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")
    return root.expanduser()


def manual_dir(builder: tfds.core.DatasetBuilder) -> Path:
    """Where a config's files are looked for: `downloads/manual/NAME/CONFIG` of the data directory.

    Where that folder is not there but TFDS's own, `downloads/manual`, has files, it is that.
    """
    common = Path(builder.data_dir_root) / "downloads" / "manual"
    own = common / builder.name / getattr(builder.builder_config, "name", "")
    used = common.is_dir() and any(path.name not in _names() for path in common.iterdir())
    return common if used and not own.is_dir() else own


def _names() -> set[str]:
    return set(registry.index()["datasets"])


def prepare_builder(
    builder: tfds.core.DatasetBuilder,
    manual: Path | None = None,
    beam_options: Sequence[str] | None = None,
) -> tfds.core.DatasetBuilder:
    """The same data set, downloaded or generated where it is not there yet.

    Args:
        builder: from `load_builder`.
        manual: the user's files, for a config that reads such; None: `manual_dir(builder)`.
        beam_options: of Apache Beam, such as ["--runner=DirectRunner"], which then builds it.

    Raises:
        FileNotFoundError: for files that are missing; names them and how to get them.
        ValueError: for files that are wrong, and Beam options without Beam.
    """
    final = Path(builder.data_dir)
    if final.exists():  # TFDS renames a finished data set to this name
        return builder
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    config = builder.builder_config
    root = Path(builder.data_dir_root)
    with _locked(root / f".{builder.name}-{getattr(config, 'name', config)}.lock"):
        # Another process may have prepared it while this one waited.
        fresh = type(builder)(config=config, data_dir=root)
        if not final.exists():
            _prepare(fresh, manual or manual_dir(fresh), _pipeline_options(beam_options))
    return fresh


def _pipeline_options(options: Sequence[str] | None) -> Any:
    if not options:
        return None
    try:
        from apache_beam.options import pipeline_options
    except ImportError as error:
        raise ValueError(
            "beam_options: expected Apache Beam: pip install 'zoo-medical[beam]'. "
            f"Received: {error}"
        ) from error
    return pipeline_options.PipelineOptions(list(options))


def _refuse_folder_options(name: str, recipe: Recipe, input: Path | None) -> None:
    given = {
        "input": input,
        "spacing": recipe.spacing or None,
        "slices": recipe.slices if recipe.slices > 1 else None,
        "source_unit": recipe.source_unit or None,
        "target_unit": recipe.target_unit or None,
        "allow_shared_patients": recipe.allow_shared_patients or None,
    }
    for option, value in given.items():
        if value is not None:
            raise ValueError(
                f"{option}: only the data set `folder` has this option, {name} has not. "
                f"Received: {option}={value}"
            )


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an advisory lock, so that one of several processes prepares a data set."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # no such locks on this system: the slower process fails to rename
        yield
        return
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _prepare(builder: tfds.core.DatasetBuilder, manual: Path, beam_options: Any) -> None:
    final = Path(builder.data_dir)
    # A process that was killed leaves a folder of this kind; the lock says that it is nobody's.
    for stale in final.parent.glob(f"incomplete.*_{final.name}"):
        shutil.rmtree(stale)
    print(f"Preparing {builder.info.full_name} in {final}", file=sys.stderr, flush=True)
    options = tfds.download.DownloadConfig(
        try_download_gcs=False, manual_dir=manual, beam_options=beam_options
    )
    try:
        with contextlib.redirect_stdout(sys.stderr), _bars_on_terminals():
            builder.download_and_prepare(download_config=options)
    except AssertionError as error:
        if builder.MANUAL_DOWNLOAD_INSTRUCTIONS and "Manual directory" in str(error):
            raise FileNotFoundError(str(error)) from None
        raise


@contextlib.contextmanager
def _bars_on_terminals() -> Iterator[None]:
    """No progress bars of TFDS where standard error is a file."""
    if sys.stderr.isatty():
        yield
        return
    tfds.disable_progress_bar()
    try:
        yield
    finally:
        tfds.enable_progress_bar()


def domains(builder: tfds.core.DatasetBuilder, recipe: Recipe) -> tuple[Domain, Domain]:
    """What the numbers of source and target mean; for single images both are the image's.

    The recipe's windows replace the data set's own; `source_window` is that of single images.
    """
    metadata = _metadata(builder)
    keys = image_keys(builder, recipe.scale)
    windows = (recipe.source_window, recipe.target_window)
    found = [Domain.from_dict(metadata[key]) for key in keys]
    found = [
        dataclasses.replace(domain, window=window) if window else domain
        for domain, window in zip(found, windows, strict=False)
    ]
    return found[0], found[-1]


def image_keys(builder: tfds.core.DatasetBuilder, scale: int = 1) -> tuple[str, ...]:
    """Features that hold the images: ("image",), or those of source and target.

    A data set of several resolutions has a source for each: `source_x2` has half the target's.

    Raises:
        ValueError: for a scale that the data set has no source of.
    """
    metadata = _metadata(builder)
    if metadata["kind"] == "single":
        return ("image",)
    scales = metadata.get("scales")
    if scales is None:
        return "source", "target"
    if scale not in scales:
        raise ValueError(
            f"scale: {builder.info.full_name} has sources for the scales "
            f"{', '.join(map(str, scales))}. Received: {scale}"
        )
    return f"source_x{scale}", "target"


def example_count(builder: tfds.core.DatasetBuilder, split: str) -> int:
    """Examples in a split.

    Raises:
        ValueError: for a split that is not there; names those that are.
    """
    splits = builder.info.splits
    if split not in splits or not splits[split].num_examples:
        there = ", ".join(name for name in splits if splits[name].num_examples)
        raise ValueError(
            f"split: {builder.info.full_name} has the splits {there}. Received: {split}"
        )
    return splits[split].num_examples


def _metadata(builder: tfds.core.DatasetBuilder) -> dict[str, Any]:
    return dict((builder.info.metadata or {}).items())


# Reading.


def eval_dataset(
    builder: tfds.core.DatasetBuilder,
    split: str = "test",
    limit: int | None = None,
    size: int = 0,
    scale: int = 1,
) -> Iterator[dict[str, Any]]:
    """The examples of a split one by one, whole, always in the same order.

    Args:
        builder: a prepared data set.
        split: which examples.
        limit: the first so many only.
        size: height and width to which the central square is averaged down; 0 leaves all.
        scale: of a data set with sources of several resolutions, which of them.

    Returns:
        Dictionaries with "source" and "target", or "image", float32 `[H, W, C]` (volumes
        `[D, H, W, C]`) in physical units, the texts "patient" and "name", the number "label"
        where the data set has it, and "mask", bool `[H, W, 1]`, True inside the patient's body,
        where the data set knows it.

    Raises:
        ValueError: for a split that is not there.
    """
    example_count(builder, split)
    keys = image_keys(builder, scale)
    names = dict(zip(keys, ("image",) if len(keys) == 1 else ("source", "target"), strict=True))
    names |= {key: key for key in ("patient", "name", "label") if key in builder.info.features}
    mask = getattr(builder.builder_config, "mask", "")
    if mask:
        names[mask] = "mask"
    in_order = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
    dataset = builder.as_dataset(
        split=split,
        read_config=in_order,
        shuffle_files=False,
        decoders=tfds.decode.PartialDecoding(dict.fromkeys(names, True)),
    )
    dataset = dataset.take(-1 if limit is None else limit).prefetch(2)

    def examples():
        for example in dataset.as_numpy_iterator():
            yield {name: plain(name, example[key]) for key, name in names.items()}

    def plain(name: str, value: Any) -> Any:
        if isinstance(value, bytes):
            return value.decode()
        if not value.ndim:
            return int(value)
        if name == "mask":  # after averaging: where the body fills half of a pixel
            return reduced(value > 0) >= 0.5
        return reduced(value)

    def reduced(image: np.ndarray) -> np.ndarray:
        image = image.astype(np.float32)
        if size:
            side = min(image.shape[:2])
            top, left = ((length - side) // 2 for length in image.shape[:2])
            square = image[top : top + side, left : left + side]
            image = tf.image.resize(square, [size, size], method="area").numpy()
        return image

    return examples()


def train_dataset(
    builder: tfds.core.DatasetBuilder,
    recipe: Recipe,
    *,
    batch_size: int,
    size: int = 0,
    first_example: int = 0,
    unpaired: bool = False,
) -> tf.data.Dataset:
    """Endless batches of the split "train", shuffled anew in every epoch.

    Args:
        builder: a prepared data set.
        recipe: crop, flip, flip_up_down, turn, shift, rotation, zoom, noise and seed.
        batch_size: examples in a batch, over all replicas.
        size: height and width to which images are averaged down; 0 leaves them. Without a crop
            the central square is taken.
        first_example: examples already consumed, where a run resumes.
        unpaired: draw source and target independently, even from paired data.

    Returns:
        A dataset of dictionaries: float32 `[batch_size, H, W, C]` (volumes `[batch_size, D, H, W,
        C]`) in physical units under "source" and "target", or "image"; the recipe's
        `extra_features`; and "seed", int32 `[batch_size, 2]`, that no other example of the run has.

    Raises:
        ValueError: for images of several sizes without a crop, images smaller than `size`, and
            for `turn` of images that are not square without a crop.
    """
    example_count(builder, "train")
    kind = _metadata(builder)["kind"]
    if kind == "single" and recipe.noise:
        raise ValueError(
            f"noise: it is added to the source, and single images have none. "
            f"Received: noise={recipe.noise}"
        )
    groups = _groups(builder, recipe, unpaired or kind == "unpaired")
    _check_sizes(builder, [group[0][0] for group in groups], recipe, size, batch_size)
    parsers = [
        tfds.features.FeaturesDict({key: builder.info.features[key] for key, _, _ in group})
        for group in groups
    ]

    measured = _metadata(builder).get("source", {}).get("unit") in MEASUREMENTS

    def prepare(number: tf.Tensor, *records: tf.Tensor) -> dict[str, tf.Tensor]:
        example = {"seed": tf.stack([recipe.seed, tf.cast(number, tf.int32)])}
        for stream, (group, parser, record) in enumerate(
            zip(groups, parsers, records, strict=True)
        ):
            features = parser.deserialize_example(record)
            seed = tf.random.experimental.stateless_fold_in(example["seed"], stream)
            images = [part for part in group if features[part[0]].shape.rank]
            changed = [tf.cast(features[key], tf.float32) for key, _, _ in images]
            if not measured:  # each sample of a measurement has its place, and a size of its own
                changed = augment(
                    [features[key] for key, _, _ in images],
                    recipe,
                    seed,
                    size,
                    factors=[factor for _, _, factor in images],
                    labels=[_holds_labels(builder, key) for key, _, _ in images],
                )
            example |= {name: features[key] for key, name, _ in group}
            example |= {name: image for (_, name, _), image in zip(images, changed, strict=True)}
        if recipe.noise:
            seed = tf.random.experimental.stateless_fold_in(example["seed"], _NOISE)
            source = example["source"]
            noise = tf.random.stateless_normal(tf.shape(source), seed, stddev=recipe.noise)
            example["source"] = source + noise
        return example

    numbers = tf.data.Dataset.counter(first_example)
    streams = [
        _records(builder, recipe.seed, first_example, stream) for stream in range(len(groups))
    ]
    dataset = tf.data.Dataset.zip((numbers, *streams))
    dataset = dataset.map(prepare, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    dataset = dataset.batch(batch_size, drop_remainder=True)
    options = tf.data.Options()
    options.deterministic = True
    # Every worker reads everything and takes its part of each batch: together, one device's batch.
    policy = tf.data.experimental.AutoShardPolicy.DATA
    options.experimental_distribute.auto_shard_policy = policy
    return dataset.with_options(options).prefetch(tf.data.AUTOTUNE)


def _groups(
    builder: tfds.core.DatasetBuilder, recipe: Recipe, unpaired: bool
) -> list[list[tuple[str, str, int]]]:
    """Features drawn together: (feature, name in the batch, sides as a multiple of the source's).

    What belongs to the target, "target_label", goes with it where source and target are unpaired.
    """
    keys = image_keys(builder, recipe.scale)
    if len(keys) == 1:
        groups = [[("image", "image", 1)]]
    else:
        source, target = (keys[0], "source", 1), ("target", "target", recipe.scale)
        groups = [[source], [target]] if unpaired else [[source, target]]
    for name in recipe.extra_features:
        of_target = name.startswith("target")
        factor = recipe.scale if of_target else 1
        groups[-1 if of_target else 0].append((name, name, factor))
    return groups


def _holds_labels(builder: tfds.core.DatasetBuilder, key: str) -> bool:
    """Whether an image's values are numbers of classes, which have no mean."""
    return key.endswith("_label") or _metadata(builder).get(key, {}).get("unit") == "class"


def _records(
    builder: tfds.core.DatasetBuilder, seed: int, first: int, stream: int
) -> tf.data.Dataset:
    """Serialised examples in training order, endless, from the `first` on."""
    split = builder.info.splits["train"]
    if builder.info.file_format.value != "tfrecord":
        raise ValueError(
            f"{builder.info.full_name}: expected tfrecord files. "
            f"Received: {builder.info.file_format.value}"
        )
    files = [os.fspath(path) for path in split.filepaths]
    count = split.num_examples
    buffer = min(count, max(1, count * _SHUFFLE_BYTES // max(split.num_bytes, 1)))

    def epoch(number: tf.Tensor) -> tf.data.Dataset:
        # The seed of this function's own graph: without it the global seed would change the order.
        tf.random.set_seed(1)
        key = tf.stack([tf.constant(seed, tf.int64), 2 * number + stream])
        order = tf.random.experimental.stateless_shuffle(files, seed=key)
        records = tf.data.Dataset.from_tensor_slices(order).interleave(
            tf.data.TFRecordDataset, cycle_length=_READERS, block_length=_READERS
        )
        shuffle_seed = tf.random.stateless_uniform((), key, maxval=2**62, dtype=tf.int64)
        records = records.shuffle(buffer, shuffle_seed, reshuffle_each_iteration=False)
        done = tf.where(number == first // count, first % count, 0)
        return records.skip(tf.cast(done, tf.int64))

    return tf.data.Dataset.range(first // count, _LAST_EPOCH).flat_map(epoch)


def _check_sizes(
    builder: tfds.core.DatasetBuilder,
    keys: list[str],
    recipe: Recipe,
    size: int,
    batch_size: int,
) -> None:
    """Refuses images that a batch cannot hold."""
    crop = recipe.crop
    if 0 < crop < size:
        raise ValueError(f"crop: expected {size} or more, or 0. Received: {crop}")
    if crop % recipe.scale:
        raise ValueError(
            f"crop: expected a multiple of the scale {recipe.scale}, or 0. Received: {crop}"
        )
    if recipe.dimensions == 3 and (recipe.shift or recipe.rotation or recipe.zoom):
        raise ValueError(
            "shift, rotation, zoom: volumes are only cropped, mirrored and turned in their slices. "
            f"Received: shift={recipe.shift}, rotation={recipe.rotation}, zoom={recipe.zoom}"
        )
    if not size and (crop or (batch_size == 1 and not recipe.turn)):
        return
    for key in keys:
        sizes = _sizes(builder, key)
        if size and min(min(pair) for pair in sizes) < size:
            raise ValueError(
                f"size: {builder.info.full_name} has images smaller than {size} x {size} pixels. "
                f"Received: {min(sizes)}"
            )
        oblong = [sides for sides in sorted(sizes) if sides[-2] != sides[-1]]
        if recipe.turn and oblong and not crop and not size:
            raise ValueError(
                "turn: expected square images, or a crop. Received: crop=0 with images of "
                f"{'x'.join(map(str, oblong[0]))} pixels"
            )
        if not crop and not size and len(sizes) > 1 and batch_size > 1:
            raise ValueError(
                f"crop: {builder.info.full_name} has images of several sizes, which a batch of "
                f"{batch_size} cannot hold whole; set crop, or batch_size=1. Received: crop=0 "
                f"with sizes {sorted(sizes)[:4]}"
            )


def _sizes(builder: tfds.core.DatasetBuilder, key: str) -> set[tuple[int, ...]]:
    """Sides of the images of the split "train"; reads it through where they are not declared."""
    feature = builder.info.features[key]
    if None not in feature.shape:
        return {feature.shape[:-1]}
    raw = tfds.decode.PartialDecoding({key: True}, {key: tfds.decode.SkipDecoding()})
    dataset = builder.as_dataset(split="train", decoders=raw)

    def shape(example):
        raw = example[key]
        return raw["shape"] if isinstance(raw, dict) else tf.shape(feature.decode_example(raw))

    return {tuple(int(side) for side in s[:-1]) for s in dataset.map(shape).as_numpy_iterator()}


# Augmentation.


def noise_lost(builder: tfds.core.DatasetBuilder, recipe: Recipe) -> str:
    """A warning that the recipe's augmentations smooth the noise that is to be learned, or "".

    Only where the data are for denoising, and source and target mean the same.
    """
    used = [name for name in ("rotation", "zoom") if getattr(recipe, name)]
    fields, _ = registry.dataset_fields(builder.name)
    source, target = domains(builder, recipe)
    same = (source.modality, source.unit) == (target.modality, target.unit)
    paired = _metadata(builder)["kind"] != "single"
    if not (used and paired and same and "denoising" in fields["tasks"]):
        return ""
    return (
        f"Warning: {' and '.join(used)} interpolate, which takes about a third of the noise away "
        "that the model is to learn; turn, flip, flip_up_down and shift move pixels as they are."
    )


def augment(
    images: list[tf.Tensor],
    recipe: Recipe,
    seed: tf.Tensor,
    size: int = 0,
    factors: Sequence[int] | None = None,
    labels: Sequence[bool] | None = None,
) -> list[tf.Tensor]:
    """Crop, mirror, move, turn, scale and shrink images, all in the same way.

    Rotation and zoom make one bilinear resampling (label maps: nearest), which takes about a third
    of white noise away. Crop, flips, turns by 90° and shifts (of whole pixels) move pixels as they
    are. Beyond the border the image is mirrored.

    Args:
        images: images of one extent, `[H, W, C]` of any type; or volumes `[D, H, W, C]`, which are
            cropped, mirrored and turned in their slices only.
        recipe: crop, flip, flip_up_down, turn, shift, rotation and zoom; `shift` counts pixels of
            the coarsest image.
        seed: int32 `[2]`, a stateless seed.
        size: height and width of the result; 0 leaves those of the crop or of the image.
        factors: of each image, its sides over those of the first, which is the coarsest; None: 1.
        labels: of each image, whether it is a label map; None: none is.

    Returns:
        float32 images `[h, w, C]`, no value outside the range of the image's own; label maps
        keep their type.
    """
    factors = factors or [1] * len(images)
    labels = labels or [False] * len(images)
    axes = images[0].shape.rank - 1
    draws = tf.random.stateless_uniform((8,), seed, -1.0, 1.0)
    whole = tf.shape(images[0])[:axes]
    if recipe.crop:
        window = tf.fill([axes], recipe.crop // max(factors))
        room = whole - window
        place = tf.concat([draws[7:], draws[:2]], 0)[-axes:]
        place = (place + 1.0) / 2.0 * tf.cast(room + 1, tf.float32)
        # The product may round up to room + 1. A smaller image lies in the middle.
        start = tf.where(room > 0, tf.minimum(tf.cast(place, tf.int32), room), room // 2)
    else:
        window = tf.repeat(tf.reduce_min(whole), axes) if size else whole
        start = (whole - window) // 2
    if recipe.shift:
        start += tf.cast(tf.round(draws[2:4] * recipe.shift), tf.int32)
    mirror = draws[4] < 0 if recipe.flip else tf.constant(False)
    angle = draws[5] * recipe.rotation * np.pi / 180
    scale = 1.0 + draws[6] * recipe.zoom
    # Of a seed of their own, so that the draws above stay what they are.
    own_seed = tf.random.experimental.stateless_fold_in(seed, _EXACT)
    turned = tf.random.stateless_uniform((2,), own_seed, maxval=4, dtype=tf.int32)
    quarters, upside_down = turned[0], turned[1] < 2

    def change(image: tf.Tensor, factor: int, label: bool) -> tf.Tensor:
        cropped = recipe.crop // max(factors) * factor
        shape = [cropped or side for side in image.shape[:-1]] + [image.shape[-1]]
        first, sides = start * factor, window * factor
        if recipe.rotation or recipe.zoom:
            image = affine(image, first, sides, angle, scale, mirror, nearest=label)
        else:
            if recipe.crop or recipe.shift or size:
                image = _take(image, first, sides)
            if recipe.flip:  # `image[:, ::-1]` and `tf.where` are several times slower
                image = tf.cond(mirror, lambda: tf.reverse(image, [axes - 1]), lambda: image)
            if not label:
                image = tf.cast(image, tf.float32)
        if recipe.flip_up_down:
            flipped = image
            image = tf.cond(upside_down, lambda: tf.reverse(flipped, [axes - 2]), lambda: flipped)
        if recipe.turn:  # of a volume each slice
            image = tf.image.rot90(image, quarters)
        if size:
            image = tf.image.resize(image, [size, size], method="nearest" if label else "area")
            shape = [size, size, shape[-1]]
        return tf.ensure_shape(image, shape)

    for image, factor in zip(images, factors, strict=True):
        message = (
            f"source and target of a pair have different sizes, or not {factor} to 1"
            if factor > 1
            else "source and target of a pair have different sizes"
        )
        tf.debugging.assert_equal(tf.shape(image)[:axes], whole * factor, message)
    return [change(*each) for each in zip(images, factors, labels, strict=True)]


def _take(image: tf.Tensor, start: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    """The pixels of a window of `[..., C]`, mirrored where it reaches over the border."""
    axes = image.shape.rank - 1
    whole = tf.shape(image)[:axes]

    def mirrored():
        taken = image
        for axis in range(axes):
            index = (start[axis] + tf.range(window[axis])) % (2 * whole[axis])
            index = tf.minimum(index, 2 * whole[axis] - 1 - index)
            taken = tf.gather(taken, index, axis=axis)
        return taken

    def inside():
        begin, sides = tf.concat([start, [0]], 0), tf.concat([window, [-1]], 0)
        return tf.slice(image, begin, sides)

    fits = tf.reduce_all(start >= 0) & tf.reduce_all(start + window <= whole)
    return tf.cond(fits, inside, mirrored)


def affine(
    image: tf.Tensor,
    start: tf.Tensor,
    window: tf.Tensor,
    angle: tf.Tensor,
    scale: tf.Tensor,
    mirror: tf.Tensor,
    nearest: bool = False,
) -> tf.Tensor:
    """Resample a window of an image, turned, scaled and mirrored about the window's centre.

    The pixel at offset (y, x) from the centre takes the value at the offset
    (f x sin a + y cos a, f x cos a - y sin a) / s of the input, f = -1 where mirrored, else 1.

    Args:
        image: `[H, W, C]`.
        start: row and column of the window's first pixel, int32 `[2]`, possibly outside.
        window: its height and width, int32 `[2]`.
        angle: a, in radians; a positive one turns the content counter-clockwise.
        scale: s, magnification.
        mirror: bool, left to right.
        nearest: take the nearest pixel's value, as label maps need.

    Returns:
        float32 `[*window, C]`: bilinear, mirrored beyond the border; of the image's own type with
        `nearest`.
    """
    half = (tf.cast(window, tf.float32) - 1.0) / 2.0
    centre = tf.cast(start, tf.float32) + half
    cos, sin = tf.cos(angle) / scale, tf.sin(angle) / scale
    sign = tf.where(mirror, -1.0, 1.0)
    # (x, y) -> (a0 x + a1 y + a2, b0 x + b1 y + b2)
    a0, a1, b0, b1 = sign * cos, -sin, sign * sin, cos
    a2 = centre[1] - a0 * half[1] - a1 * half[0]
    b2 = centre[0] - b0 * half[1] - b1 * half[0]
    zero = tf.zeros_like(a0)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=(image if nearest else tf.cast(image, tf.float32))[None],
        transforms=tf.stack([a0, a1, a2, b0, b1, b2, zero, zero])[None],
        output_shape=window,
        fill_value=0.0,
        interpolation="NEAREST" if nearest else "BILINEAR",
        fill_mode="REFLECT",
    )[0]
