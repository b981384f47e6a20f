"""Does GAN augmentation help a classifier? `docs/augmentation.md` and its picture.

    python -m tools.augmentation [--repeats=5] [--patients=20] [--folder=DIR] [--write]

A small network learns which of three things is in the middle of a patch of `lung_nodule/phantom`.
It gets few patients, and besides them nothing, traditional augmentation, images of a conditional
`dcgan` that was trained on the same patients and no others, or both. Each repetition has patients,
a generator and seeds of its own; all are judged on the 40 patients of the test split. All arms of
a repetition take the same number of steps. Some ten minutes of processor time; what is in
`--folder` already is not made again.
"""

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

import zoo
from zoo import figures
from zoo.atomic import write_atomic, write_json
from zoo.domain import Domain
from zoo.inference.synthesize import synthesize
from zoo.models.dcgan import DcganRecipe
from zoo_datasets.lung_nodule import phantom
from zoo_datasets.lung_nodule.lung_nodule_dataset_builder import WINDOW, Builder

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE, PICTURE = DOCS / "augmentation.md", DOCS / "pictures" / "augmentation.png"
CONFIG = Builder.BUILDER_CONFIGS[0]
TRAIN, _, TEST = CONFIG.patients
DOMAIN = Domain(modality="CT", unit="HU", window=WINDOW, spacing=(0.7, 0.7), plane="axial")
MORE = 5  # times the patients, in the arm that shows what more of them would bring
# The generator: the objective of the shipped one, without refinement, which learns in a minute.
GAN = {
    "conditional": True, "class_names": phantom.LABELS, "batch_size": 16, "learning_rate": 5e-4,
    "resolution": 64, "base_filters": 16, "discriminator_filters": 16, "adversarial": "bce",
    "r1": 0.5, "diff_augment": True, "ema": 0.995,
}  # fmt: skip
BATCH = 32  # of the classifier; of synthetic images half of it
SHIFT = 4  # pixels, of traditional augmentation at most


@dataclasses.dataclass(frozen=True)
class Arm:
    """What the classifier learns from.

    Attributes:
        name: for the table.
        traditional: whether images are mirrored, turned, shifted and changed in brightness.
        synthetic: the share of a batch that is generated.
        more: whether the real patients are `MORE` times as many.
    """

    name: str
    traditional: bool
    synthetic: float
    more: bool = False


BASE = Arm("traditional augmentation", True, 0.0)
ARMS = (
    Arm("the real patches alone", False, 0.0),
    BASE,
    Arm("GAN augmentation", False, 0.5),
    Arm("traditional and GAN augmentation", True, 0.5),
    Arm("synthetic patches alone, traditional augmentation", True, 1.0),
    Arm(f"traditional augmentation of {MORE} times the patients", True, 0.0, more=True),
)


@dataclasses.dataclass
class Patches:
    """Patches and what they show.

    Attributes:
        images: float32 `[N, 64, 64, 1]` in HU.
        labels: int64 `[N]`.
        patients: int64 `[N]`, by number.
    """

    images: np.ndarray
    labels: np.ndarray
    patients: np.ndarray


def simulated(numbers: range) -> Patches:
    """The patches of patients of `lung_nodule/phantom`."""
    images, labels, patients = [], [], []
    for number in numbers:
        for label, image in phantom.patient(CONFIG.seed, number, CONFIG.protocol.patches):
            images.append(image[..., None].astype(np.float32))
            labels.append(label)
            patients.append(number)
    return Patches(np.stack(images), np.array(labels), np.array(patients))


def changed(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Traditional augmentation of `[N, 64, 64, 1]` in HU: mirrors, turns, shifts, brightness."""
    out = np.empty_like(images)
    for k, image in enumerate(images):
        image = np.rot90(image, rng.integers(4))
        image = image[:, ::-1] if rng.uniform() < 0.5 else image
        padded = np.pad(image, ((SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)), "reflect")
        y, x = rng.integers(2 * SHIFT + 1, size=2)
        side = image.shape[0]
        moved = padded[y : y + side, x : x + side]
        out[k] = (moved + 1000) * rng.normal(1, 0.03) - 1000 + rng.normal(0, 10)
    return out


def generator(real: Patches, steps: int, seed: int) -> zoo.Translator:
    """A conditional DCGAN that has seen these patches and no others."""
    recipe = DcganRecipe.preset("paper", **GAN, steps=steps, seed=seed)
    keras.utils.set_random_seed(seed)
    model = zoo.registry.model_class("dcgan")(recipe, DOMAIN, DOMAIN)
    model.compile()
    (phase,) = recipe.phases()
    model.enter(phase)
    step, rng = tf.function(model.train_step, autograph=False), np.random.default_rng([seed, 1])
    for number in range(steps):
        drawn = rng.integers(len(real.labels), size=recipe.batch_size)
        mirrored = rng.uniform(size=(len(drawn), 1, 1, 1)) < 0.5
        images = real.images[drawn]
        count = np.arange(len(drawn)) + number * len(drawn)
        seeds = np.stack([np.full(len(drawn), seed), count], 1)
        step(
            {
                "image": tf.constant(np.where(mirrored, images[:, :, ::-1], images)),
                "label": tf.constant(real.labels[drawn], tf.int64),
                "seed": tf.constant(seeds, tf.int32),
            }
        )
    return model


def generated(folder: Path) -> Patches:
    """What `synthesize` has written."""
    records = tfds.as_numpy(tfds.builder_from_directory(folder).as_dataset("train"))
    records = sorted(records, key=lambda record: record["number"])
    return Patches(
        np.stack([record["image"] for record in records]),
        np.array([record["label"] for record in records]),
        np.full(len(records), -1),
    )


def classifier() -> keras.Model:
    """Logits of the three classes of patches whose window is [-1, 1]; 60,000 weights."""
    layers = [keras.layers.Input((phantom.SIZE, phantom.SIZE, 1))]
    for filters in (16, 32, 64, 64):
        layers.append(keras.layers.Conv2D(filters, 3, 2, "same", activation="relu"))
    layers += [keras.layers.GlobalAveragePooling2D(), keras.layers.Dropout(0.3)]
    return keras.Sequential([*layers, keras.layers.Dense(len(phantom.LABELS))])


def encoded(images: np.ndarray) -> np.ndarray:
    return np.clip((images - WINDOW[0]) / DOMAIN.span * 2 - 1, -1, 1).astype(np.float32)


def scores(arm: Arm, real: Patches, synthetic: Patches, test: Patches, steps: int, seed: int):
    """Probabilities of the test patches, `[N, 3]`, after learning from an arm's images."""
    keras.utils.set_random_seed(seed)
    network, rng = classifier(), np.random.default_rng([seed, 2])
    rate = keras.optimizers.schedules.CosineDecay(1e-3, steps)
    optimizer = keras.optimizers.Adam(rate)
    optimizer.build(network.trainable_variables)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function
    def step(images: tf.Tensor, labels: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            value = loss(labels, network(images, training=True))
        gradients = tape.gradient(value, network.trainable_variables)
        optimizer.apply_gradients(zip(gradients, network.trainable_variables, strict=True))

    counts = round(BATCH * (1 - arm.synthetic)), round(BATCH * arm.synthetic)
    for _ in range(steps):
        images, labels = [], []
        for source, count in zip((real, synthetic), counts, strict=True):
            drawn = rng.integers(len(source.labels), size=count)
            images.append(source.images[drawn])
            labels.append(source.labels[drawn])
        batch = np.concatenate(images)
        batch = changed(batch, rng) if arm.traditional else batch
        step(tf.constant(encoded(batch)), tf.constant(np.concatenate(labels)))
    logits = network(encoded(test.images), training=False)
    return tf.nn.softmax(logits).numpy()


def auc(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the classes of the area under the ROC curve of each against the others."""
    areas = []
    for label in range(probabilities.shape[1]):
        own, others = (probabilities[labels == label, label], probabilities[labels != label, label])
        above = (own[:, None] > others).mean() + 0.5 * (own[:, None] == others).mean()
        areas.append(above)
    return float(np.mean(areas))


def repetition(number: int, patients: int, steps: tuple[int, int], folder: Path, test: Patches):
    """Of each arm the share of right answers by test patient, and the AUC; kept in a file."""
    path = folder / f"{patients}-{steps[0]}-{steps[1]}-{number}.json"
    if path.exists():
        return json.loads(path.read_text())
    began, first = time.process_time(), number * patients
    real = simulated(range(first, first + patients))
    more = simulated(range(first, first + MORE * patients))
    made = synthetic_folder(folder, patients, steps[0], number)
    if not (made / "dataset_info.json").exists():  # the last that is written
        model, count = generator(real, steps[0], number), MORE * len(real.labels)
        synthesize(model, count, made, seed=number, format="tfds", progress=False)
    synthetic = generated(made)
    found = {}
    for arm in ARMS:
        given = more if arm.more else real
        probabilities = scores(arm, given, synthetic, test, steps[1], number)
        right = probabilities.argmax(1) == test.labels
        by_patient = [float(right[test.patients == p].mean()) for p in np.unique(test.patients)]
        found[arm.name] = {"right": by_patient, "auc": auc(probabilities, test.labels)}
        print(f"{number}, {arm.name}: {np.mean(by_patient):.3f}, {found[arm.name]['auc']:.3f}")
    result = {"arms": found, "minutes": (time.process_time() - began) / 60}
    write_json(path, result)
    return result


def synthetic_folder(folder: Path, patients: int, steps: int, number: int) -> Path:
    """Where the synthetic patches of a repetition are."""
    return folder / f"synthetic-{patients}-{steps}-{number}"


def interval(values: np.ndarray, n: int = 4000) -> tuple[float, float]:
    """95 % bootstrap interval of the mean of `[repetitions, patients]`, both drawn anew."""
    rng, (rows, columns) = np.random.default_rng(0), values.shape
    means = []
    for _ in range(n):
        chosen = np.ix_(rng.integers(rows, size=rows), rng.integers(columns, size=columns))
        means.append(values[chosen].mean())
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def verdict(gain: np.ndarray) -> str:
    """What a gain in percent, `[repetitions, patients]`, says."""
    low, high = interval(gain)
    if low > 0:
        said = "helps"
    elif high < 0:
        said = "harms"
    else:
        said = "no difference that shows"
    return f"**{said}**, {gain.mean():+.1f} ({low:+.1f} to {high:+.1f})"


def page(results: list[dict], patients: int, steps: tuple[int, int]) -> str:
    """The document."""
    right = {
        arm.name: 100 * np.array([result["arms"][arm.name]["right"] for result in results])
        for arm in ARMS
    }
    lines = []
    for arm in ARMS:
        own, gain = right[arm.name], right[arm.name] - right[BASE.name]
        low, high = interval(own)
        row = f"| {arm.name} | {own.mean():.1f} ({low:.1f} to {high:.1f}) "
        areas = [result["arms"][arm.name]["auc"] for result in results]
        row += f"| {np.mean(areas):.3f} ± {np.std(areas, ddof=1):.3f} "
        low, high = interval(gain)
        less = f"{gain.mean():+.1f} ({low:+.1f} to {high:+.1f})" if arm != BASE else ""
        lines.append(f"{row}| {less} |")
    none, _, by_gan, by_both, *_ = (right[arm.name] for arm in ARMS)
    both, alone = by_both - right[BASE.name], by_gan - none
    more = right[ARMS[-1].name] - right[BASE.name]
    blunt = ""
    if interval(more)[0] <= 0:
        blunt = f"""

So it is not images that this classifier lacks after {steps[1]} steps, and what GAN augmentation
could bring where they are lacking, this cannot tell."""
    count, minutes = len(results), sum(result["minutes"] for result in results)
    patches, judged = (each * CONFIG.protocol.patches for each in (patients, TEST))
    return f"""# Does GAN augmentation help a classifier?

Written by `python -m tools.augmentation --write`: {count} repetitions, {minutes:.0f} minutes of
processor time.

On these simulated patches, in points of right answers with 95 % intervals:

- GAN augmentation beside traditional augmentation, against traditional alone: {verdict(both)}
- GAN augmentation, against none: {verdict(alone)}
- traditional augmentation, against none: {verdict(right[BASE.name] - none)}
- {MORE} times the real patients, all with traditional augmentation: {verdict(more)}{blunt}

A classifier of four convolutions says what is in the middle of a patch of `lung_nodule/phantom`:
no nodule, a solid one or ground glass. It learns from {patients} patients ({patches} patches). A
conditional `dcgan` is trained on the same patches and no others, {steps[0]} steps, and
`synthesize` makes {MORE} times as many. Each repetition has other patients, another generator and
other seeds; all are judged on the {TEST} patients of the test split ({judged} patches), which no
network has seen. All arms take {steps[1]} steps of {BATCH} patches; with GAN augmentation half of
each batch is synthetic. Traditional augmentation is mirrors, quarter turns, shifts of up to {SHIFT}
pixels, and changes of brightness and contrast.

| the classifier learns from | right, % | AUC | gain over traditional augmentation |
|---|---|---|---|
{chr(10).join(lines)}

In brackets 95 % bootstrap intervals over repetitions and patients together; AUC is the mean of the
three classes, each against the others, ± its standard deviation over repetitions.

![real and synthetic patches](pictures/augmentation.png)

*Above real patches of the first repetition, below synthetic ones; from left to right no nodule,
solid, ground glass, and so on.*

A generator of {patients} patients knows no more of lungs than these patients show, and what it gets
wrong the classifier learns as well. The figures say nothing of other tasks, of larger generators,
or of generators that were trained on more patients than have labels. To measure it on your own
data: `zoo synthesize`, and a test split that no network has seen.
"""


def picture(made: Path, patients: int) -> bytes:
    """Real patches over synthetic ones, the classes in turn."""
    real, rows = simulated(range(patients)), []
    for source in (real, generated(made)):
        places = [np.flatnonzero(source.labels == label)[:4] for label in range(3)]
        order = np.stack(places, 1).ravel()
        rows.append(np.concatenate(list(source.images[order, ..., 0]), 1))
    return figures.png(figures.grey(np.concatenate(rows), WINDOW))


def main(arguments: list[str] | None = None) -> int:
    """Prints the figures; with --write, writes the page and its picture."""
    parser = argparse.ArgumentParser(prog="tools.augmentation")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--patients", type=int, default=20)
    parser.add_argument("--steps", type=int, nargs=2, default=(1500, 1000))
    parser.add_argument("--folder", type=Path, default=Path("runs/augmentation"))
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args(arguments)
    if given.repeats < 2 or (given.repeats - 1 + MORE) * given.patients > TRAIN:
        parser.error(f"expected 2 repeats or more, of patients that are {TRAIN} together")
    given.folder.mkdir(parents=True, exist_ok=True)
    first = sum(CONFIG.patients[:2])
    test, steps = simulated(range(first, first + TEST)), tuple(given.steps)
    results = [
        repetition(number, given.patients, steps, given.folder, test)
        for number in range(given.repeats)
    ]
    text = page(results, given.patients, steps)
    print(text)
    if given.write:
        write_atomic(PAGE, text.encode())
        made = synthetic_folder(given.folder, given.patients, steps[0], 0)
        write_atomic(PICTURE, picture(made, given.patients))
    return 0


if __name__ == "__main__":
    sys.exit(main())
