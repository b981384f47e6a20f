"""`run_translator_test`: what every model must do, in one call."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import zoo
from zoo import loading, registry, step
from zoo.domain import Domain
from zoo.serving import export, verify
from zoo.translator import Translator

HU = Domain(modality="CT", unit="HU", window=(-1000.0, 1000.0))

KSPACE = Domain(modality="MR", unit="k-space", window=(-16.0, 16.0), channels=2)
SINOGRAM = Domain(modality="CT", unit="line integral", window=(0.0, 8.0))
MEASURED = {"automap": KSPACE, "learned_primal_dual": SINOGRAM, "varnet": KSPACE}

Batch = dict[str, tf.Tensor]

SLOW_RATE = 1e-6  # of `use_sgd`: a step moves a weight by less than a millionth of its gradient


def build(name: str, overrides: dict, source: Domain = HU, target: Domain = HU):
    entry = registry.lookup(name, overrides={"precision": "float32"} | overrides)
    return loading.build(entry, source, target)


def batch_of(size: int, count: int, seed: int = 0, source: Domain = HU) -> Batch:
    """Pairs of images and the same with noise, in HU."""
    rng = np.random.default_rng(seed)
    clean = rng.uniform(-800, 800, [count, size, size, 1]).astype("float32")
    noisy = clean + rng.normal(0, 50, clean.shape).astype("float32")
    noisy = np.repeat(noisy, source.channels, axis=-1)
    return tensors({"source": noisy, "target": clean}, seed)


def measured_of(model: Translator, count: int, seed: int = 0) -> Batch:
    """Measurements as a model of these takes them, and images of 16 x 16 pixels in HU."""
    rng = np.random.default_rng(seed)
    sides = (side or 16 for side in model.network.input_shape[1:])
    source = rng.normal(size=(count, *sides)).astype("float32")
    target = rng.uniform(-800, 800, (count, 16, 16, 1)).astype("float32")
    return tensors({"source": source, "target": target}, seed)


def singles_of(size: int, count: int, seed: int = 0, classes: int = 0) -> Batch:
    """Single images in HU, with a class each where there are `classes`."""
    rng = np.random.default_rng(seed)
    images = rng.uniform(-800, 800, [count, size, size, 1]).astype("float32")
    labels = {"label": np.arange(count) % classes} if classes else {}
    return tensors({"image": images} | labels, seed)


def enlarged_of(shape: tuple[int, ...], scale: int, count: int, seed: int = 0) -> Batch:
    """Images `scale` times as large as their sources of `shape`, in HU."""
    rng = np.random.default_rng(seed)
    source = rng.uniform(-800, 800, [count, *shape, 1]).astype("float32")
    target = source
    for axis in range(1, len(shape) + 1):
        target = np.repeat(target, scale, axis)
    target = target + rng.normal(0, 50, target.shape).astype("float32")
    return tensors({"source": source, "target": target}, seed)


def tensors(arrays: dict[str, np.ndarray], seed: int) -> Batch:
    """A batch with a seed for each example."""
    count = len(next(iter(arrays.values())))
    seeds = np.stack([np.full(count, seed), np.arange(count)], 1).astype("int32")
    return {k: tf.constant(v) for k, v in (arrays | {"seed": seeds}).items()}


def run_translator_test(
    name: str,
    overrides: dict,
    batch: Callable[[int, int], Batch],
    tmp_path,
    monkeypatch,
    two_replicas=None,
    *,
    source: Domain = HU,
    target: Domain = HU,
    unused: Callable[[Translator], list] = lambda model: [],
) -> None:
    """Shapes, gradients, round trips, the export, and one replica against two.

    Args:
        name: registered name.
        overrides: recipe fields that make it small.
        batch: a training batch from a number of examples and a seed.
        tmp_path, monkeypatch: the fixtures.
        two_replicas: the fixture; None leaves that part out.
        source, target: the data's domains.
        unused: trainable weights that a step rightly leaves as they are.
    """
    make = lambda: build(name, overrides, source, target)  # noqa: E731
    model = make()
    if model.generates:
        _generates(model, batch(2, 0)["image"].shape[1:])
    else:
        _translates(model, batch(2, 0))
    learner = make()
    every_weight_learns(learner, batch, but=tuple(v.path for v in unused(learner)))
    _round_trips(model, batch(1, 1), tmp_path)
    export_in_this_process(monkeypatch)
    export.export(model, tmp_path / "served")  # loads it and compares
    if two_replicas is not None:
        _two_replicas_equal_one(make, batch, monkeypatch, two_replicas)


def _translates(model, batch: Batch) -> None:
    """Shapes, of images of the training size and, where the network is free, of any other."""
    source = batch["source"].numpy()
    shapes = [source.shape]
    if model.tiles:  # H and W are free
        sides = (37, 51) if model.dimensions == 2 else (7, 10, 9)
        shapes += [(2, *(side // model.scale for side in sides), model.source.channels)]
    low, high = model.source.window
    for shape in shapes:
        images = np.random.default_rng(0).uniform(low, high, shape).astype("float32")
        sides = [side * model.scale for side in shape[1:-1]]
        if not model.tiles:  # a measurement of one size, and its image of one
            sides = list(batch["target"].shape[1:-1])
        for given in (images, images[0, ..., 0]) if shape[-1] == 1 else (images,):
            output = model.translate(given)
            batched = given.ndim == images.ndim
            wanted = [shape[0], *sides, model.target.channels] if batched else sides
            assert list(output.shape) == wanted
            assert output.dtype == np.float32
            assert np.isfinite(output).all()


def _generates(model, shape) -> None:
    images = model.generate(3, seed=5)
    assert images.shape == (3, *shape)
    assert np.isfinite(images).all()
    np.testing.assert_array_equal(model.generate(1, seed=5, first=2)[0], images[2])
    assert np.abs(images[0] - images[1]).max() > 0


def every_weight_learns(model, batch, but: tuple[str, ...] = ()) -> None:
    """Two steps move every trainable weight (`but` some paths), and the losses are finite."""
    model.compile()
    before = [v.numpy().copy() for v in model.trainable_variables]
    assert before
    for seed in range(2):
        losses = model.train_step(batch(2, seed))
    assert all(np.isfinite(float(v)) for v in losses.values())
    still = [
        v.path
        for v, old in zip(model.trainable_variables, before, strict=True)
        if np.array_equal(v.numpy(), old) and v.path not in but
    ]
    assert not still, f"no gradient reaches {still}"


def _answer(model, batch: Batch) -> np.ndarray:
    if "source" in batch:
        return model(batch["source"]).numpy()
    return model.generate(2, seed=3)


def _round_trips(model, batch: Batch, tmp_path) -> None:
    expected = _answer(model, batch)
    path = tmp_path / f"{model.name}.weights.h5"
    sha256 = model.save_network(path)
    twin = type(model).from_config(model.get_config())
    assert twin.get_config() == model.get_config()
    loading.load_network(twin, path, sha256)
    np.testing.assert_array_equal(_answer(twin, batch), expected)
    assert twin.weights_hash == model.weights_hash
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(_answer(again, batch), expected)


def export_in_this_process(monkeypatch) -> None:
    """Answers of a SavedModel without a process of its own, which takes many seconds."""

    @contextlib.contextmanager
    def answers(folder: Path, questions: dict) -> Iterator[dict[str, np.ndarray]]:
        signatures = tf.saved_model.load(str(folder)).signatures
        given = {"memory": np.array(3 * 2**20)}
        for key, inputs in questions.items():
            tensors = {name: tf.constant(value) for name, value in inputs.items()}
            answer = signatures[key.split(" ")[0]](**tensors)
            answer = answer["half_width"] if len(answer) == 2 else next(iter(answer.values()))
            if answer.dtype == tf.string:
                answer = tf.stack([tf.io.decode_png(png, dtype=tf.uint16) for png in answer])
            given[key] = answer.numpy()
        yield given

    monkeypatch.setattr(verify, "_fresh_answers", answers)


def use_sgd(monkeypatch) -> None:
    """Plain descent, so slow that the weights hardly move, which adds the gradients up.

    Adam and RMSprop divide by the gradient's size, so that a wrong scale would not show; and steps
    of a size that trains let two runs' rounding errors grow, on some processors beyond any bound.
    """
    sgd = keras.optimizers.SGD
    for name in ("Adam", "AdamW", "RMSprop", "SGD"):
        monkeypatch.setattr(keras.optimizers, name, lambda *_, **__: sgd(SLOW_RATE, momentum=1.0))
    monkeypatch.setattr(step, "Adam", lambda *_, **__: sgd(SLOW_RATE, momentum=1.0))


def gradient_sums(model) -> list[tuple[str, np.ndarray]]:
    """What each of a model's optimizers has added up of a weight's gradients, after `use_sgd`."""
    optimizers = [v for v in vars(model).values() if hasattr(v, "momentums")]
    return [
        (weight.path, momentum.numpy() / -SLOW_RATE)
        for optimizer in optimizers
        for weight, momentum in zip(
            optimizer._trainable_variables, optimizer.momentums, strict=True
        )
    ]


def checkpointed(workdir: Path, name: str = "") -> dict[str, np.ndarray]:
    """All that a run's last checkpoint, or that of a name, holds: weights, optimizers, step."""
    reader = tf.train.load_checkpoint(str(workdir / "checkpoints" / name))
    names = reader.get_variable_to_dtype_map()
    return {n: reader.get_tensor(n) for n, kind in names.items() if kind != tf.string}


def gradient_sums_agree(one: dict[str, np.ndarray], two: dict[str, np.ndarray]) -> None:
    """Of two runs' checkpoints what the optimizers have added up, after `use_sgd`, within 1e-3."""
    assert one.keys() == two.keys()
    sums = [k for k in one if "_optimizer/_variables/" in k and one[k].dtype == np.float32]
    largest = max(np.abs(one[key]).max() for key in sums)
    assert largest > 0
    for key in sums:
        apart, size = np.abs(one[key] - two[key]).max(), np.abs(one[key]).max()
        assert apart <= 1e-3 * size + 2e-6 * largest, key


def _two_replicas_equal_one(make, batch, monkeypatch, two_replicas) -> None:
    """Of two steps the gradients, the state and the losses; float32 allows 1e-3 of each.

    Eager: to trace a step of two replicas takes many times as long as to run it.
    """
    use_sgd(monkeypatch)
    batches = [batch(4, seed) for seed in range(2)]
    results = []
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        with strategy.scope():
            model = make()
            model.compile()
        start = [v.numpy().copy() for v in model.variables]

        dataset = tf.data.Dataset.from_tensor_slices(
            {k: tf.concat([b[k] for b in batches], 0) for k in batches[0]}
        ).batch(len(batches[0]["seed"]), drop_remainder=True)
        for global_batch in strategy.experimental_distribute_dataset(dataset):
            each = strategy.run(model.train_step, args=(global_batch,))
            losses = {k: strategy.reduce("MEAN", v, axis=None) for k, v in each.items()}
        weights = [v.numpy() for v in model.variables]
        losses = {k: float(v) for k, v in losses.items()}
        results.append((weights, start, gradient_sums(model), losses))
    (one, start, sums_one, losses_one), (two, start_two, sums_two, losses_two) = results
    names = [v.path for v in model.variables]
    for path, a, b, s, t in zip(names, one, two, start, start_two, strict=True):
        np.testing.assert_array_equal(s, t)
        moved = np.abs(a.astype(float) - s).max()
        assert np.abs(a.astype(float) - b).max() <= 1e-3 * moved + 1e-6, path
    largest = max(np.abs(a).max() for _, a in sums_one)
    for (path, a), (_, b) in zip(sums_one, sums_two, strict=True):
        assert np.abs(a - b).max() <= 1e-3 * np.abs(a).max() + 2e-6 * largest, path
    for key, value in losses_one.items():
        np.testing.assert_allclose(losses_two[key], value, rtol=1e-3, atol=1e-6)


def output_scales_with_input(name: str, **fields: Any) -> None:
    """Without biases a sixteenth of the signal gives a sixteenth of the output, with them not."""
    domain = Domain(modality="MR", unit="signal", window=(0, 4095))
    rng = np.random.default_rng(0)
    image = rng.uniform(0, 3000, (24, 20)).astype("float32")
    apart = {}
    for bias in (True, False):
        model = zoo.load(name, bias=bias, output="residual", source=domain, target=domain, **fields)
        for weight in model.network.variables:
            weight.assign(weight + 0.05 * rng.standard_normal(weight.shape))
        whole = model.translate(image)
        apart[bias] = np.abs(16 * model.translate(image / 16) - whole).max() / np.abs(whole).max()
    assert apart[False] < 1e-4 < 1e-2 < apart[True]


def equivariant_to_scale_and_level(name: str, within: float, **fields: Any) -> None:
    """Half the noise at another HU is restored alike: f(a x + b) = a f(x) + b, but for `within`."""
    domain = Domain(modality="CT", unit="HU", window=(-1024, 1500))
    rng = np.random.default_rng(0)
    image = rng.uniform(-100, 100, (40, 48)).astype("float32")
    apart = {}
    for equivariant in (True, False):
        model = zoo.load(
            name, equivariant=equivariant, output="residual", source=domain, target=domain, **fields
        )
        for weight in model.network.variables:
            weight.assign(weight + 0.1 * rng.standard_normal(weight.shape))
        plain = model.translate(image) - image
        moved = model.translate(0.5 * image - 850) - (0.5 * image - 850)
        apart[equivariant] = np.abs(2 * moved - plain).mean() / np.abs(plain).mean()
    assert apart[True] < within < 0.5 < apart[False]


def relative_losses_count_weak_noise_alike(name: str, overrides: dict) -> None:
    """A tenth of an image's contrast and noise: the same losses, a tenth of the error in HU."""
    rng = np.random.default_rng(0)
    clean = rng.uniform(-500, 500, (2, 32, 32, 1)).astype("float32")
    noisy = clean + 100 * rng.standard_normal(clean.shape, np.float32)
    logs = []
    for share in (1.0, 0.1):
        model = build(
            name, overrides | {"equivariant": True, "relative": True, "output": "residual"}
        )
        model.compile()
        logs.append(model.train_step({"source": share * noisy, "target": share * clean}))
    whole, tenth = logs
    for key in whole:
        expected = float(whole[key]) * (0.1 if key == "mae" else 1)
        np.testing.assert_allclose(tenth[key], expected, rtol=0.02)


def served_weights_are_the_moving_average(
    name: str, overrides: dict, batch: Batch, trained: str
) -> None:
    """After a step from v to w the served network holds 0.9 v + 0.1 w, and goes on from itself.

    Args:
        name, overrides: of the model.
        batch: for one step.
        trained: the model's attribute that is the network whose average is served.
    """
    model = build(name, overrides | {"ema": 0.9})
    model.compile()
    before = [v.numpy() for v in model.network.variables]
    model.train_step(batch)
    served, weights = model.network.variables, getattr(model, trained).variables
    for average, old, new in zip(served, before, weights, strict=True):
        np.testing.assert_allclose(average, 0.9 * old + 0.1 * new.numpy(), atol=1e-6)
    assert served[0] is not weights[0]
    model.continue_from_network()
    np.testing.assert_array_equal(weights[0], served[0])
