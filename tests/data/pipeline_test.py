"""Batches: order, exact resumption, crops, augmentation, units, distribution."""

import concurrent.futures
import dataclasses
import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf
import tensorflow_datasets as tfds

from zoo import registry
from zoo.data import augment, facts, prepare
from zoo.data.batches import eval_dataset, train_dataset
from zoo.models.encoder_decoder import EncoderDecoderRecipe
from zoo.recipe import Recipe

EVERYTHING = {"crop": 12, "flip": True, "shift": 3.0, "rotation": 10.0, "zoom": 0.1, "noise": 2.0}
EVERYTHING |= {"flip_up_down": True, "turn": True}


def picture(number, height=16, width=20):
    """uint16 [H, W, 1] whose first pixel is the example's number."""
    values = np.random.default_rng([3, number]).integers(100, 60000, (height, width, 1))
    values[0, 0] = number
    return values.astype("uint16")


class ToyPairs(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Pairs: the target is the source plus one, of 13 training and 3 test examples."""

    VERSION = tfds.core.Version("1.0.0")
    KIND, SHAPE, SIZES = "paired", (16, 20, 1), [(16, 20)]
    MANUAL_DOWNLOAD_INSTRUCTIONS = None

    def _info(self):
        keys = ("image",) if self.KIND == "single" else ("source", "target")
        image = lambda: tfds.features.Tensor(  # noqa: E731
            shape=self.SHAPE, dtype=np.uint16, encoding="zlib"
        )
        texts = {"patient": tfds.features.Text(), "name": tfds.features.Text()}
        domain = {"modality": "CT", "unit": "HU", "window": [0, 9], "channels": 1, "spacing": None}
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict({key: image() for key in keys} | texts),
            metadata=tfds.core.MetadataDict(
                {"kind": self.KIND} | {key: domain | {"unit": key} for key in keys}
            ),
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(13), "test": self._generate_examples(3)}

    def _generate_examples(self, count):
        for number in range(count):
            values = picture(number, *self.SIZES[number % len(self.SIZES)])
            images = {"source": values, "target": values + 1}
            images = {"image": values} if self.KIND == "single" else images
            yield number, images | {"patient": f"p{number}", "name": f"n{number}"}


class ToySingle(ToyPairs, skip_registration=True):
    """Single images of several sizes, of undeclared shape."""

    KIND, SHAPE, SIZES = "single", (None, None, 1), [(16, 20), (18, 16)]


class ToyUnpaired(ToyPairs, skip_registration=True):
    """As pairs, but declared to be unrelated."""

    KIND = "unpaired"


@pytest.fixture(scope="module")
def builders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    made = {}
    for cls in (ToyPairs, ToySingle, ToyUnpaired):
        made[cls.KIND] = cls(data_dir=folder)
        made[cls.KIND].download_and_prepare()
    return made


def batches(builder, count, *, batch_size=4, first_example=0, size=0, unpaired=False, **fields):
    dataset = train_dataset(
        builder,
        Recipe(**fields),
        batch_size=batch_size,
        size=size,
        first_example=first_example,
        unpaired=unpaired,
    )
    return list(itertools.islice(dataset.as_numpy_iterator(), count))


def joined(parts, key):
    return np.concatenate([part[key] for part in parts])


def numbers(values):
    return values[:, 0, 0, 0].astype(int).tolist()


def test_batches(builders):
    dataset = train_dataset(builders["paired"], Recipe(seed=5), batch_size=4)
    assert {key: (spec.shape, spec.dtype) for key, spec in dataset.element_spec.items()} == {
        "source": ((4, 16, 20, 1), tf.float32),
        "target": ((4, 16, 20, 1), tf.float32),
        "seed": ((4, 2), tf.int32),
    }
    found = batches(builders["paired"], 13, seed=5)  # four epochs
    source, target, seeds = (joined(found, key) for key in ("source", "target", "seed"))
    np.testing.assert_array_equal(target, source + 1)
    np.testing.assert_array_equal(seeds, [[5, number] for number in range(52)])
    order = numbers(source)
    epochs = [order[i : i + 13] for i in range(0, 52, 13)]
    assert all(sorted(epoch) == list(range(13)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    for image, number in zip(source, order, strict=True):
        np.testing.assert_array_equal(image, picture(number).astype("float32"))
    assert order != numbers(joined(batches(builders["paired"], 13, seed=6), "source"))


@pytest.mark.parametrize("kind", ["paired", "unpaired"])
def test_resume_is_exact(builders, kind):
    whole = batches(builders[kind], 8, **EVERYTHING)
    tf.random.set_seed(99)  # the global seed plays no part
    for skipped in (1, 4, 7):
        rest = batches(builders[kind], 8 - skipped, first_example=4 * skipped, **EVERYTHING)
        for one, other in zip(whole[skipped:], rest, strict=True):
            for key in one:
                np.testing.assert_array_equal(one[key], other[key])
    rest = batches(builders[kind], 2, first_example=13, batch_size=1, **EVERYTHING)
    np.testing.assert_array_equal(rest[0]["source"][0], joined(whole, "source")[13])


def test_bounded_shuffle_is_complete_and_resumes(builders, monkeypatch):
    quarter = builders["paired"].info.splits["train"].num_bytes // 4
    monkeypatch.setattr("zoo.data.batches._SHUFFLE_BYTES", quarter)
    order = numbers(joined(batches(builders["paired"], 26, batch_size=1), "source"))
    assert sorted(order[:13]) == sorted(order[13:]) == list(range(13))
    assert order[:13] != order[13:]
    rest = batches(builders["paired"], 6, batch_size=1, first_example=20)
    assert numbers(joined(rest, "source")) == order[20:]


@pytest.mark.parametrize("kind", ["paired", "unpaired"])
def test_unpaired_draws_are_independent(builders, kind):
    found = batches(builders[kind], 13, batch_size=4, unpaired=True)
    source = numbers(joined(found, "source"))
    target = [number - 1 for number in numbers(joined(found, "target"))]
    for order in (source, target):
        assert all(sorted(order[i : i + 13]) == list(range(13)) for i in range(0, 52, 13))
    assert sum(a == b for a, b in zip(source, target, strict=True)) < 26


def test_augmented_pairs_stay_aligned(builders):
    fields = EVERYTHING | {"noise": 0.0}
    for batch in batches(builders["paired"], 5, **fields):
        np.testing.assert_allclose(batch["target"], batch["source"] + 1, rtol=1e-5)
    plain = batches(builders["paired"], 5, **fields)
    noisy = batches(builders["paired"], 5, **EVERYTHING)
    for one, other in zip(plain, noisy, strict=True):
        np.testing.assert_array_equal(one["target"], other["target"])
    noise = joined(noisy, "source") - joined(plain, "source")
    assert noise.std() == pytest.approx(2.0, rel=0.1)
    assert len({float(example.mean()) for example in noise}) == len(noise)


def seeds(count):
    return [tf.constant([1, number]) for number in range(count)]


def test_crop_takes_every_place(builders):
    values = picture(0).astype("float32")
    places = set()
    for seed in seeds(60):
        cropped = augment.augment([tf.constant(values)], Recipe(crop=15), seed)[0].numpy()
        found = [
            (y, x)
            for y in range(2)
            for x in range(6)
            if np.array_equal(values[y : y + 15, x : x + 15], cropped)
        ]
        assert len(found) == 1
        places.update(found)
    assert len(places) == 2 * 6


def test_small_images_are_mirrored_up_to_the_crop():
    values = picture(0, 5, 30).astype("float32")
    for seed in seeds(5):
        cropped = augment.augment([tf.constant(values)], Recipe(crop=16), seed)[0].numpy()
        padded = np.pad(values, ((6, 5), (0, 0), (0, 0)), mode="symmetric")
        assert any(np.array_equal(padded[:, x : x + 16], cropped) for x in range(15))


def test_flip_and_shift_move_pixels_exactly():
    values = picture(0).astype("float32")
    flips = {
        augment.augment([tf.constant(values)], Recipe(flip=True), seed)[0].numpy().tobytes()
        for seed in seeds(20)
    }
    assert flips == {values.tobytes(), values[:, ::-1].tobytes()}
    padded = np.pad(values, ((3, 3), (3, 3), (0, 0)), mode="symmetric")
    moved = {padded[y : y + 16, x : x + 20].tobytes() for y in range(7) for x in range(7)}
    shifts = {
        augment.augment([tf.constant(values)], Recipe(shift=3), seed)[0].numpy().tobytes()
        for seed in seeds(60)
    }
    assert shifts <= moved
    assert len(shifts) > 25


def turns(values: np.ndarray) -> list[np.ndarray]:
    """An image, or the slices of a volume, turned and mirrored in every way."""
    quarters = [np.rot90(values, k, axes=(-3, -2)) for k in range(4)]
    return quarters + [np.flip(turned, -3) for turned in quarters]


@pytest.mark.parametrize("shape", [(6, 6, 1), (2, 6, 6, 1)])
def test_turns_and_flips_up_down_move_pixels_exactly(shape):
    rng = np.random.default_rng(0)
    values = rng.normal(0, 100, shape).astype("float32")
    finer = np.repeat(np.repeat(values, 2, -3), 2, -2)  # with each pixel a block of four
    finer = finer if len(shape) == 3 else np.repeat(finer, 2, 0)
    labels = rng.integers(0, 200, shape).astype("uint8")

    def augmented(seed, **fields):
        given = [tf.constant(values), tf.constant(finer), tf.constant(labels)]
        changed = augment.augment(
            given, Recipe(**fields), seed, factors=[1, 2, 1], labels=[False, False, True]
        )
        return [image.numpy() for image in changed]

    found = set()
    for seed in seeds(60):
        one, large, label = augmented(seed, turn=True, flip_up_down=True)
        (k,) = [k for k, turned in enumerate(turns(values)) if np.array_equal(turned, one)]
        np.testing.assert_array_equal(large, turns(finer)[k])
        np.testing.assert_array_equal(label, turns(labels)[k])
        assert label.dtype == np.uint8
        found.add(k)
        for again, before in zip(
            augmented(seed, turn=True, flip_up_down=True), (one, large, label), strict=True
        ):
            np.testing.assert_array_equal(again, before)
    assert found == set(range(8))
    flips = {augmented(seed, flip_up_down=True)[0].tobytes() for seed in seeds(20)}
    assert flips == {values.tobytes(), np.flip(values, -3).tobytes()}
    counts = [augmented(seed, turn=True)[0].tobytes() for seed in seeds(80)]
    assert min(counts.count(turned.tobytes()) for turned in turns(values)[:4]) > 8


def test_only_rotation_and_zoom_take_noise_away():
    noise = np.random.default_rng(0).normal(0, 20, (96, 96, 1)).astype("float32")

    def left(**fields):
        images = [
            augment.augment([tf.constant(noise)], Recipe(**fields), seed)[0] for seed in seeds(8)
        ]
        return np.std(images) / noise.std()

    exact = left(flip=True, flip_up_down=True, turn=True)
    assert exact == pytest.approx(1.0, abs=1e-5)
    assert left(rotation=20) == pytest.approx(2 / 3, abs=0.05)
    assert left(zoom=0.2) == pytest.approx(2 / 3, abs=0.08)


def test_turns_need_squares(builders):
    with pytest.raises(ValueError, match="turn: expected square.*Received: crop=0.* 16x20 pixels"):
        batches(builders["paired"], 1, batch_size=1, turn=True)
    assert batches(builders["paired"], 1, turn=True, crop=12)[0]["source"].shape == (4, 12, 12, 1)
    assert batches(builders["paired"], 1, turn=True, size=8)[0]["source"].shape == (4, 8, 8, 1)


def test_whole_images_have_sides_that_the_network_halves(builders):
    def first(**fields):
        recipe = EncoderDecoderRecipe(crop=0, flip=False, **fields)
        return next(iter(train_dataset(builders["paired"], recipe, batch_size=1)))

    assert first(levels=3)["source"].shape == (1, 16, 20, 1)
    with pytest.raises(ValueError, match="crop: expected .* multiples of 8.* crop=0 .* 16x20 pix"):
        first(levels=4)


def test_a_crop_has_a_side_for_each_axis(builders):
    found = batches(builders["paired"], 2, crop=(8, 14))
    assert {part["source"].shape for part in found} == {(4, 8, 14, 1)}
    with pytest.raises(ValueError, match="turn: expected a crop as wide as high.*crop=8,14"):
        batches(builders["paired"], 1, turn=True, crop=(8, 14))


def test_a_patch_of_a_volume_lies_anywhere_along_each_axis():
    """Every voxel holds its place: all starts come up."""
    places = np.stack(np.meshgrid(*map(range, (6, 9, 7)), indexing="ij"), -1).astype("float32")
    recipe = EncoderDecoderRecipe(dimensions=3, crop=(4, 6, 7), flip=False)
    starts = set()
    for seed in seeds(150):
        (patch,) = augment.augment([tf.constant(places)], recipe, seed)
        assert patch.shape == (4, 6, 7, 3)
        first = patch.numpy()[0, 0, 0]
        offsets = patch.numpy() - places[:4, :6, :7]
        assert (offsets == first).all()
        starts.add(tuple(first))
    assert len(starts) == 3 * 4 * 1


def test_the_loss_of_noise_is_said_where_noise_is_to_be_learned(tmp_path):
    def said(dataset, **fields):
        recipe = Recipe(**fields)
        builder = prepare.load_builder(dataset, tmp_path, recipe, prepare=False)
        return augment.noise_lost(dataset, facts.data_facts(builder, recipe), recipe)

    assert "rotation and zoom interpolate" in said("ldct/phantom_tiny", rotation=5, zoom=0.1)
    assert "third of the noise" in said("ldct/phantom_tiny", zoom=0.1)
    assert said("ldct/phantom_tiny", turn=True, flip_up_down=True, shift=4, flip=True) == ""
    assert said("mri_contrast/phantom_tiny", rotation=5) == ""
    assert said("mammo/phantom_tiny", rotation=5) == ""


@pytest.mark.parametrize("angle", [0.0, 7.0, -30.0])
@pytest.mark.parametrize("scale", [1.0, 1.25])
@pytest.mark.parametrize("mirror", [False, True])
def test_affine_against_scipy(angle, scale, mirror):
    values = scipy.ndimage.gaussian_filter(np.random.default_rng(0).normal(0, 100, (40, 50)), 2)
    a = np.deg2rad(angle)
    start, window = np.array([3, 6]), np.array([32, 36])
    found = augment.affine(
        tf.constant(values[..., None], tf.float32),
        tf.constant(start, tf.int32),
        tf.constant(window, tf.int32),
        tf.constant(a, tf.float32),
        tf.constant(scale, tf.float32),
        tf.constant(mirror),
    ).numpy()[..., 0]
    sign = -1 if mirror else 1
    matrix = np.array([[np.cos(a), sign * np.sin(a)], [-np.sin(a), sign * np.cos(a)]]) / scale
    half = (window - 1) / 2
    expected = scipy.ndimage.affine_transform(
        values, matrix, start + half - matrix @ half, window, order=1, mode="reflect"
    )
    np.testing.assert_allclose(found, expected, atol=0.05)
    if not angle and scale == 1.0:
        plain = values[3:35, 6:42].astype("float32")
        np.testing.assert_array_equal(found, plain[:, ::-1] if mirror else plain)


def test_positive_angle_turns_counter_clockwise():
    values = np.random.default_rng(0).normal(0, 1, (17, 17)).astype("float32")
    window = tf.constant([17, 17])
    turned = augment.affine(
        values[..., None], window * 0, window, tf.constant(np.pi / 2, tf.float32), 1.0, False
    )
    np.testing.assert_allclose(turned[..., 0], np.rot90(values), atol=1e-4)


@pytest.mark.parametrize("crop", [0, 12, 40])
def test_no_value_comes_from_outside(crop):
    """No air and no overshoot: the range of the result lies in the range of the image."""
    values = np.random.default_rng(0).uniform(500, 900, (20, 24, 1)).astype("float32")
    recipe = Recipe(crop=crop, flip=True, shift=9, rotation=45, zoom=0.3)
    for seed in seeds(20):
        result = augment.augment([tf.constant(values)], recipe, seed)[0].numpy()
        assert result.shape == ((crop, crop, 1) if crop else (20, 24, 1))
        assert values.min() - 1e-3 <= result.min()
        assert result.max() <= values.max() + 1e-3


def test_size_averages_areas(builders):
    batch = batches(builders["paired"], 1, size=4)[0]  # the central 16 x 16 of 16 x 20
    for image, number in zip(batch["source"], _numbers_of(batch, builders), strict=True):
        blocks = picture(number)[:, 2:18, 0].reshape(4, 4, 4, 4).mean((1, 3))
        np.testing.assert_allclose(image[..., 0], blocks, rtol=1e-5)
    assert batches(builders["paired"], 1, size=5, crop=15)[0]["target"].shape == (4, 5, 5, 1)
    assert batches(builders["single"], 1, size=8)[0]["image"].shape == (4, 8, 8, 1)


def _numbers_of(batch, builders):
    return numbers(batches(builders["paired"], 1)[0]["source"])


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("paired", {"size": 32}, "size: .* smaller than 32 x 32"),
        ("single", {"size": 17}, "size: .* smaller than 17 x 17"),
        ("paired", {"size": 16, "crop": 12}, "crop: expected 16 or more"),
        ("single", {}, "crop: .* several sizes"),
        ("single", {"crop": 8, "noise": 1.0}, "noise: "),
    ],
)
def test_errors(builders, kind, arguments, message):
    with pytest.raises(ValueError, match=message):
        batches(builders[kind], 1, **arguments)


def test_a_pair_has_one_size():
    images = [tf.zeros([8, 8, 1]), tf.zeros([8, 9, 1])]
    with pytest.raises(tf.errors.InvalidArgumentError, match="pair have different sizes"):
        augment.augment(images, Recipe(), tf.constant([0, 0]))


def test_whole_images_of_several_sizes_one_at_a_time(builders):
    shapes = {batch["image"].shape for batch in batches(builders["single"], 13, batch_size=1)}
    assert shapes == {(1, 16, 20, 1), (1, 18, 16, 1)}


def test_eval_dataset(builders):
    found = list(eval_dataset(builders["paired"], "test"))
    assert sorted(example["name"] for example in found) == ["n0", "n1", "n2"]
    for example in found:
        assert example["patient"] == "p" + example["name"][1:]
        assert example["source"].dtype == np.float32
        np.testing.assert_array_equal(example["source"], picture(int(example["name"][1:])))
    again = list(eval_dataset(builders["paired"], "test", limit=2))
    assert [example["name"] for example in again] == [example["name"] for example in found[:2]]


def test_missing_split(builders):
    assert facts.example_count(builders["paired"], "test") == 3
    with pytest.raises(ValueError, match="has the splits train, test. Received: validation"):
        eval_dataset(builders["paired"], "validation")


def test_domains(builders):
    found = facts.data_facts(builders["paired"], Recipe(source_window=(-5.0, 5.0)))
    source, target = found.source, found.target
    assert (source.unit, source.window) == ("source", (-5.0, 5.0))
    assert (target.unit, target.window) == ("target", (0.0, 9.0))
    found = facts.data_facts(builders["single"], Recipe(source_window=(-5.0, 5.0)))
    assert found.source is found.target
    assert (found.source.unit, found.source.window) == ("image", (-5.0, 5.0))


TOY = """
import os, time
import numpy as np
import tensorflow_datasets as tfds

class Builder(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = tfds.features.FeaturesDict({"image": np.int64})
        metadata = tfds.core.MetadataDict(kind="single")
        return tfds.core.DatasetInfo(builder=self, features=features, metadata=metadata)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        with open(os.environ["TOY_LOG"], "a") as log:
            log.write("built ")
        for number in range(3):
            time.sleep(float(os.environ.get("TOY_SLEEP", "0")))
            if os.environ.get("TOY_FAIL"):
                raise RuntimeError("interrupted")
            yield number, {"image": number}
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A data set "toy_plugin" of a third-party package."""
    package = tmp_path / "acme_data"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "toy_plugin_dataset_builder.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    fields = {"name": "toy_plugin", "module": "acme_data", "configs": ["only"]}
    monkeypatch.setitem(registry.index()["datasets"], "toy_plugin", fields)
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "log"))
    yield tmp_path
    sys.modules.pop("acme_data.toy_plugin_dataset_builder", None)
    tfds.core.registered._DATASET_REGISTRY.pop("toy_plugin", None)


def test_builders_are_prepared_once_and_leave_nothing_half_written(toy, monkeypatch, capfd):
    data = toy / "data"
    monkeypatch.setenv("TOY_FAIL", "1")
    with pytest.raises(RuntimeError, match="interrupted"):
        prepare.load_builder("toy_plugin", data, Recipe())
    assert not list(data.rglob("*.tfrecord*"))
    monkeypatch.delenv("TOY_FAIL")
    # What a killed process leaves is cleared away, and never taken for a data set.
    killed = data / "toy_plugin" / "incomplete.ABCDEF_1.0.0"
    killed.mkdir(parents=True)
    builder = prepare.load_builder("toy_plugin", data, Recipe())
    assert not killed.exists()
    assert facts.example_count(builder, "train") == 3
    printed = capfd.readouterr()
    assert f"Preparing toy_plugin/1.0.0 in {data}" in printed.err
    assert printed.out == ""
    prepare.load_builder("toy_plugin", data, Recipe())
    assert (toy / "log").read_text() == "built built "
    with pytest.raises(registry.UnknownName, match="toy_plugin"):
        prepare.load_builder("toy_plugim", data, Recipe())
    for option in ({"slices": 3}, {"spacing": 1.0}, {"allow_shared_patients": True}):
        with pytest.raises(ValueError, match=f"{next(iter(option))}: only the data set `folder`"):
            prepare.load_builder("toy_plugin", data, Recipe(**option))


REPLICAS = """
import sys
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from zoo.data import batches
from zoo.recipe import Recipe
recipe = Recipe(crop=8, flip=True, rotation=10.0, noise=1.0)
dataset = batches.train_dataset(
    tfds.builder_from_directory(sys.argv[1]), recipe, batch_size=4
)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
distributed = iter(strategy.experimental_distribute_dataset(dataset))
for batch, _ in zip(dataset, range(5)):
    shares = {k: strategy.experimental_local_results(v) for k, v in next(distributed).items()}
    for key, values in shares.items():
        assert [len(v) for v in values] == [2, 2]
        np.testing.assert_array_equal(np.concatenate([v.numpy() for v in values]), batch[key])
print("equal")
"""


def test_builders_asked_for_at_once_are_prepared_once(toy, monkeypatch):
    monkeypatch.setenv("TOY_SLEEP", "0.3")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        asked = [
            pool.submit(prepare.load_builder, "toy_plugin", toy / "data", Recipe())
            for _ in range(2)
        ]
        assert [facts.example_count(each.result(), "train") for each in asked] == [3, 3]
    assert (toy / "log").read_text() == "built "


def test_two_replicas_see_the_batches_of_one(builders):
    """In a process of its own: the number of devices is fixed when TensorFlow starts."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    finished = subprocess.run(
        [sys.executable, "-c", REPLICAS, builders["paired"].data_dir],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )
    assert finished.stdout.strip() == "equal", finished.stderr[-2000:]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Enlarging(Recipe):
    """A recipe of super-resolution that also wants the label map and the class."""

    scale: int = 2
    dimensions: int = 2

    @property
    def extra_features(self):
        return ("target_label", "label") if self.dimensions == 2 else ()


class ToyScales(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Targets with block means at half and a quarter of their size, a label map and a class."""

    VERSION = tfds.core.Version("1.0.0")
    AXES = 2

    def _info(self):
        def image(side, dtype=np.float32):
            return tfds.features.Tensor(shape=(side,) * self.AXES + (1,), dtype=dtype)

        domain = {"modality": "CT", "unit": "HU", "window": [0, 9], "channels": 1, "spacing": None}
        features = {
            "target": image(16),
            "source_x2": image(8),
            "source_x4": image(4),
            "target_label": image(16, np.uint8),
            "label": tfds.features.ClassLabel(names=["a", "b"]),
            "patient": tfds.features.Text(),
            "name": tfds.features.Text(),
        }
        domains = dict.fromkeys(("target", "source_x2", "source_x4"), domain)
        metadata = {"kind": "paired", "scales": [2, 4], "dimensions": self.AXES}
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            metadata=tfds.core.MetadataDict(metadata | domains),
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(6), "test": self._generate_examples(2)}

    def _generate_examples(self, count):
        for number in range(count):
            target = np.random.default_rng(number).normal(size=(16,) * self.AXES + (1,))
            target = target.astype("float32")
            yield (
                number,
                {
                    "target": target,
                    "source_x2": block_means(target, 2),
                    "source_x4": block_means(target, 4),
                    "target_label": (target > 0).astype("uint8"),
                    "label": number % 2,
                    "patient": f"p{number}",
                    "name": f"n{number}",
                },
            )


class ToyVolumes(ToyScales, skip_registration=True):
    """The same as volumes."""

    AXES = 3


def block_means(image, factor):
    for axis in range(image.ndim - 1):
        shape = image.shape[:axis] + (-1, factor) + image.shape[axis + 1 :]
        image = image.reshape(shape).mean(axis + 1)
    return image


@pytest.fixture(scope="module", params=[ToyScales, ToyVolumes])
def scales(request, tmp_path_factory):
    builder = request.param(data_dir=tmp_path_factory.mktemp("data"))
    builder.download_and_prepare()
    return builder


def drawn(builder, **fields):
    recipe = Enlarging(dimensions=builder.AXES, seed=3, **fields)
    dataset = train_dataset(builder, recipe, batch_size=4)
    return list(itertools.islice(dataset.as_numpy_iterator(), 3))


@pytest.mark.parametrize("scale", [2, 4])
def test_source_and_target_of_several_resolutions_are_cut_at_one_place(scales, scale):
    wanted = {"crop": 8, "flip": True, "scale": scale}
    wanted |= {"shift": 1.0} if scales.AXES == 2 else {}
    places = set()
    for batch in drawn(scales, **wanted):
        assert batch["target"].shape == (4, *(8,) * scales.AXES, 1)
        for source, target in zip(batch["source"], batch["target"], strict=True):
            np.testing.assert_allclose(source, block_means(target, scale), atol=1e-6)
            places.add(target.tobytes())
    assert len(places) > 6


def test_a_label_map_goes_with_its_image_and_is_not_interpolated(scales):
    if scales.AXES == 3:
        return
    for fields in ({"crop": 8, "flip": True}, {"rotation": 20.0, "zoom": 0.1}):
        for batch in drawn(scales, **fields):
            assert set(np.unique(batch["target_label"])) <= {0, 1}
            assert batch["target_label"].dtype == np.uint8
            agree = (batch["target_label"] > 0) == (batch["target"] > 0)
            assert agree.mean() > (0.999 if "crop" in fields else 0.75)
            assert set(batch["label"]) <= {0, 1}


def test_volumes_are_not_turned(scales):
    if scales.AXES == 3:
        with pytest.raises(ValueError, match="volumes are only cropped, mirrored and turned in"):
            drawn(scales, rotation=5.0)
    with pytest.raises(ValueError, match="crop: expected a multiple of the scale 2"):
        drawn(scales, crop=7)
    with pytest.raises(ValueError, match="has sources for the scales 2, 4. Received: 8"):
        drawn(scales, scale=8)


def test_evaluation_reads_the_source_of_its_scale(scales):
    example = next(eval_dataset(scales, scale=4))
    assert set(example) == {"source", "target", "patient", "name", "label"}
    assert example["source"].shape == (4,) * scales.AXES + (1,)
    np.testing.assert_allclose(example["source"], block_means(example["target"], 4), atol=1e-6)
