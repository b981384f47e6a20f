"""From a prepared data set and a recipe to examples one by one, and to endless batches.

Example `g` of a run (counted from 0 over all epochs) is a function of (recipe, g) alone: order,
crop, augmentation and the seed that it hands to the model. So a run that resumes at `g` sees what
an undisturbed one would have seen, and several replicas see what one device would have.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from zoo.data import folds
from zoo.data.augment import augment, check_signal, vary_signal
from zoo.data.facts import data_facts, example_count, image_keys, varied
from zoo.recipe import DataFacts, Recipe

# A split smaller than this is shuffled as a whole; of a larger one, this much is held at a time.
_SHUFFLE_BYTES = 2**30
_READERS = 16  # files of one split read in turn, `_READERS` records from each
_LAST_EPOCH = 2**31
_NOISE, _SWAP = 2, 4  # beside the streams 0 and 1: what a seed folded into the example's is for


def eval_dataset(
    builder: tfds.core.DatasetBuilder,
    split: str = "test",
    limit: int | None = None,
    size: int = 0,
    scale: int = 1,
    fold: str = "",
) -> Iterator[dict[str, Any]]:
    """The examples of a split one by one, whole, always in the same order.

    Args:
        builder: a prepared data set.
        split: which examples.
        limit: the first so many only.
        size: height and width to which the central square is averaged down; 0 leaves all.
        scale: of a data set with sources of several resolutions, which of them.
        fold: such as "2/5", whose patients are trained or validated on (`zoo.data.folds`).

    Returns:
        Dictionaries with "source" and "target", or "image", float32 `[H, W, C]` (volumes
        `[D, H, W, C]`) in physical units, the texts "patient" and "name", the number "label"
        where the data set has it, and "mask", bool `[H, W, 1]`, True inside the patient's body,
        where the data set knows it.

    Raises:
        ValueError: for a split that is not there, and as `folds.part`.
    """
    example_count(builder, split, fold)
    keys = image_keys(builder, scale)
    # The features that are read, and their names in an example.
    names = {"image": "image"} if len(keys) == 1 else {keys[0]: "source", keys[1]: "target"}
    names |= {key: key for key in ("patient", "name", "label") if key in builder.info.features}
    mask = getattr(builder.builder_config, "mask", "")
    if mask:
        names[mask] = "mask"
    # In order, and no other feature decoded.
    if fold and split in folds.DEALT:
        wanted = tfds.features.FeaturesDict({key: builder.info.features[key] for key in names})
        records = folds.part(builder, split, fold).in_order()
        dataset = records.map(wanted.deserialize_example, tf.data.AUTOTUNE)
    else:
        dataset = builder.as_dataset(
            split=split,
            read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),
            shuffle_files=False,
            decoders=tfds.decode.PartialDecoding(dict.fromkeys(names, True)),
        )
    dataset = dataset.take(-1 if limit is None else limit).prefetch(2)

    def examples():
        for example in dataset.as_numpy_iterator():
            yield {name: _plain(name, example[key], size) for key, name in names.items()}

    return examples()


def _plain(name: str, value: Any, size: int) -> Any:
    """A feature as Python has it: a text, a number, or an image that is averaged down to a size."""
    if isinstance(value, bytes):
        return value.decode()
    if not value.ndim:
        return int(value)
    if name == "mask":  # after averaging: where the body fills half of a pixel
        return _reduced(value > 0, size) >= 0.5
    return _reduced(value, size)


def _reduced(image: np.ndarray, size: int) -> np.ndarray:
    image = image.astype(np.float32)
    if not size:
        return image
    side = min(image.shape[:2])
    top, left = ((length - side) // 2 for length in image.shape[:2])
    square = image[top : top + side, left : left + side]
    return tf.image.resize(square, [size, size], method="area").numpy()


def train_dataset(
    builder: tfds.core.DatasetBuilder,
    recipe: Recipe,
    *,
    batch_size: int,
    size: int = 0,
    first_example: int = 0,
    unpaired: bool = False,
    facts: DataFacts | None = None,
) -> tf.data.Dataset:
    """Endless batches of the split "train", shuffled anew in every epoch.

    Args:
        builder: a prepared data set.
        recipe: fold, crop, flips, turn, shift, rotation, zoom, gamma, bias_field, noise
            and seed.
        batch_size: examples in a batch, over all replicas.
        size: height and width to which images are averaged down; 0 leaves them. Without a crop
            the central square is taken.
        first_example: examples already consumed, where a run resumes.
        unpaired: draw source and target independently, even from paired data.
        facts: of the data set; None asks it.

    Returns:
        A dataset of dictionaries: float32 `[batch_size, H, W, C]` (volumes `[batch_size, D, H, W,
        C]`) in physical units under "source" and "target", or "image"; the recipe's
        `extra_features`; and "seed", int32 `[batch_size, 2]`, that no other example of the run has.

    Raises:
        ValueError: without a crop for images of several sizes, for sides that are no multiples of
            the network's `size_multiple`, and for `turn` of images that are not square; for images
            smaller than `size`, and for `gamma` and `bias_field` of what is no MR signal.
    """
    example_count(builder, "train", recipe.fold)
    facts = facts or data_facts(builder, recipe)
    check_signal(recipe, facts.source)
    changing = varied(builder.name, facts) if recipe.gamma or recipe.bias_field else {}
    if facts.kind == "single" and recipe.noise:
        raise ValueError(
            f"noise: it is added to the source, and single images have none. "
            f"Received: noise={recipe.noise}"
        )
    groups = _groups(facts, recipe, unpaired or facts.kind == "unpaired")
    _check_sizes(builder, [group[0].key for group in groups], recipe, size, batch_size)
    # A stream of records for what is drawn together.
    streams, part = [], folds.part(builder, "train", recipe.fold)
    for number, group in enumerate(groups):
        records = _records(part, recipe.seed, first_example, number)
        features = tfds.features.FeaturesDict({f.key: builder.info.features[f.key] for f in group})
        streams.append(records.map(features.deserialize_example, tf.data.AUTOTUNE))

    def prepare(number: tf.Tensor, *drawn: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        example = {"seed": tf.stack([recipe.seed, tf.cast(number, tf.int32)])}
        for stream, (group, features) in enumerate(zip(groups, drawn, strict=True)):
            seed = tf.random.experimental.stateless_fold_in(example["seed"], stream)
            example |= {feature.name: features[feature.key] for feature in group}
            changed = _augmented(group, features, facts, recipe, seed, size)
            for name in [name for name in changed if name in changing]:
                changed[name] = vary_signal(changed[name], changing[name], recipe, seed)
            example |= changed
        if recipe.noise:
            seed = tf.random.experimental.stateless_fold_in(example["seed"], _NOISE)
            source = example["source"]
            noise = tf.random.stateless_normal(tf.shape(source), seed, stddev=recipe.noise)
            example["source"] = source + noise
        if recipe.target == "copy":
            seed = tf.random.experimental.stateless_fold_in(example["seed"], _SWAP)
            pair = tf.stack([example["source"], example["target"]])
            first = tf.random.stateless_uniform((), seed, maxval=2, dtype=tf.int32)
            example |= {"source": pair[first], "target": pair[1 - first]}
        return example

    # Each example with its number, from which all that is random in it follows.
    dataset = tf.data.Dataset.zip((tf.data.Dataset.counter(first_example), *streams))
    dataset = dataset.map(prepare, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    dataset = dataset.batch(batch_size, drop_remainder=True)
    options = tf.data.Options()
    options.deterministic = True
    # Every worker reads everything and takes its part of each batch: together, one device's batch.
    policy = tf.data.experimental.AutoShardPolicy.DATA
    options.experimental_distribute.auto_shard_policy = policy
    return dataset.with_options(options).prefetch(tf.data.AUTOTUNE)


class _Feature(NamedTuple):
    """A feature of the data set as it comes into a batch."""

    key: str  # in the data set
    name: str  # in the batch
    factor: int  # its sides, as a multiple of the source's


def _groups(facts: DataFacts, recipe: Recipe, unpaired: bool) -> list[list[_Feature]]:
    """Features that are drawn together.

    What belongs to the target, "target_label", goes with it where source and target are unpaired.
    """
    if facts.kind == "single":
        groups = [[_Feature("image", "image", 1)]]
    else:
        source = _Feature(facts.keys[0], "source", 1)
        target = _Feature("target", "target", recipe.scale)
        groups = [[source], [target]] if unpaired else [[source, target]]
    for name in recipe.extra_features:
        if name.startswith("target"):
            groups[-1].append(_Feature(name, name, recipe.scale))
        else:
            groups[0].append(_Feature(name, name, 1))
    return groups


def _augmented(
    group: list[_Feature],
    features: dict[str, tf.Tensor],
    facts: DataFacts,
    recipe: Recipe,
    seed: tf.Tensor,
    size: int,
) -> dict[str, tf.Tensor]:
    """The images of a group, all changed in the same way; numbers among the features are left."""
    images = [feature for feature in group if features[feature.key].shape.rank]
    pixels = [features[feature.key] for feature in images]
    if facts.source.measured:
        # Each sample of a measurement has its place, and a size of its own.
        changed = [tf.cast(each, tf.float32) for each in pixels]
    else:
        factors = [feature.factor for feature in images]
        labels = [facts.holds_labels(feature.key) for feature in images]
        changed = augment(pixels, recipe, seed, size, factors, labels)
    return {feature.name: image for feature, image in zip(images, changed, strict=True)}


def _records(part: folds.Part, seed: int, first: int, stream: int) -> tf.data.Dataset:
    """Serialised examples in training order, endless, from the `first` on."""
    count, numbers = part.records, tf.range(len(part.files))
    buffer = min(count, max(1, count * _SHUFFLE_BYTES // max(part.size, 1)))

    def epoch(number: tf.Tensor) -> tf.data.Dataset:
        # The seed of this function's own graph: without it the global seed would change the order.
        tf.random.set_seed(1)
        key = tf.stack([tf.constant(seed, tf.int64), 2 * number + stream])
        order = tf.random.experimental.stateless_shuffle(numbers, seed=key)
        records = tf.data.Dataset.from_tensor_slices(order).interleave(
            part.read, cycle_length=_READERS, block_length=_READERS
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
    crop = recipe.crop_sides
    # What the recipe itself says.
    if any(side < size for side in crop):
        raise ValueError(f"crop: expected {size} or more, or 0. Received: {recipe.crop}")
    if any(side % recipe.scale for side in crop):
        raise ValueError(
            f"crop: expected a multiple of the scale {recipe.scale}, or 0. Received: {recipe.crop}"
        )
    if recipe.turn and crop and crop[-1] != crop[-2]:
        raise ValueError(
            "turn: expected a crop as wide as high, which a quarter turn leaves as it is. "
            f"Received: crop={','.join(map(str, crop))}"
        )
    if recipe.flip_slices and recipe.dimensions == 2:
        raise ValueError("flip_slices: expected volumes. Received: dimensions=2")
    if recipe.dimensions == 3 and (recipe.shift or recipe.rotation or recipe.zoom):
        raise ValueError(
            "shift, rotation, zoom: volumes are only cropped, mirrored and turned in their slices. "
            f"Received: shift={recipe.shift}, rotation={recipe.rotation}, zoom={recipe.zoom}"
        )
    multiple = recipe.size_multiple
    if not size and (crop or (batch_size == multiple == 1 and not recipe.turn)):
        return
    # What the images say that are not cropped to one size.
    for key in keys:
        sizes = _sizes(builder, key, recipe.fold)
        if size and min(min(pair) for pair in sizes) < size:
            raise ValueError(
                f"size: {builder.info.full_name} has images smaller than {size} x {size} pixels. "
                f"Received: {min(sizes)}"
            )
        uneven = [sides for sides in sorted(sizes) if np.any(np.mod(sides, multiple))]
        if uneven and not crop and not size:
            raise ValueError(
                f"crop: expected images whose sides are multiples of {multiple}, as this network "
                "halves them, or a crop. Received: crop=0 with images of "
                f"{'x'.join(map(str, uneven[0]))} pixels"
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


def _sizes(builder: tfds.core.DatasetBuilder, key: str, fold: str) -> set[tuple[int, ...]]:
    """Sides of the images that are trained on; reads it through where they are not declared."""
    feature = builder.info.features[key]
    if None not in feature.shape:
        return {feature.shape[:-1]}
    raw = tfds.decode.PartialDecoding({key: True}, {key: tfds.decode.SkipDecoding()})
    split = "+".join(folds.splits(builder, "train", fold))
    dataset = builder.as_dataset(split=split, decoders=raw)

    def shape(example):
        raw = example[key]
        return raw["shape"] if isinstance(raw, dict) else tf.shape(feature.decode_example(raw))

    return {tuple(map(int, found[:-1])) for found in dataset.map(shape).as_numpy_iterator()}
