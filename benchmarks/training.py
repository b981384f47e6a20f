"""Training: the step of each model, its pipeline, PyTorch's step, what several hosts exchange."""

import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from benchmarks import measure, reading
from zoo import loading, registry
from zoo.domain import Domain

# Each model in its small preset; patches of the tiny data sets, which are made in seconds.
MODELS = {
    "automap": ("mri_recon/phantom_tiny", ()),
    "critic": ("ct_recon/phantom_fbp_tiny", ()),
    "cyclegan": ("cbct_ct/phantom_tiny", ("crop=64",)),
    "dcgan": ("lung_nodule/phantom_tiny", ()),
    "encoder_decoder": ("ldct/phantom_tiny", ("crop=64",)),
    "learned_primal_dual": ("ct_recon/phantom_tiny", ()),
    "pggan": ("mammo/phantom_tiny", ("resolution=32",)),
    "pix2pix": ("ldct/phantom_tiny", ("crop=64",)),
    "srcnn": ("sr/phantom_tiny", ()),
    "srgan": ("sr/phantom_tiny", ("crop=48",)),
    "unit": ("mri_contrast/phantom_tiny", ("crop=64",)),
    "varnet": ("mri_recon/phantom_tiny", ()),
}
HU = Domain(modality="CT", unit="HU", window=(-1000.0, 1000.0))
LINES = Domain(modality="CT", unit="line integral", window=(0.0, 8.0))
KSPACE = Domain(modality="MR", unit="k-space", window=(-16.0, 16.0), channels=2)
SIGNAL = Domain(modality="MR", unit="signal", window=(0.0, 1.0))


class Sizes(NamedTuple):
    """A network of which there is one in PyTorch, too.

    Attributes:
        fields: of the recipe here.
        peer: the same as arguments of PyTorch's step; the first two are batch and image side.
        sensors: views and detectors of a sinogram.
    """

    fields: dict[str, Any]
    peer: tuple
    sensors: tuple[int, int] | None = None


def _beam(n: int, views: int, detectors: int, iterations: int, filters: int) -> Sizes:
    geometry = {"n": n, "spacing_mm": 1.0, "views": views, "detectors": detectors}
    widths = {"detector_mm": 1.0, "iterations": iterations, "filters": filters}
    return Sizes(
        geometry | widths, (1, n, views, detectors, iterations, filters), (views, detectors)
    )


def _grown(side: int, base: int, most: int, latent: int, batch: int) -> Sizes:
    levels = range(side.bit_length() - 2)
    widths = [min(base >> (level + 1), most) for level in levels]
    fields = {"resolution": side, "fmap_base": base, "fmap_max": most, "latent": latent}
    return Sizes(fields, (batch, side, widths, latent))


# The paper's network, losses and updates, in sizes that take about a second.
AGAINST = {
    "encoder_decoder": Sizes({"base_filters": 32, "levels": 4}, (4, 128, 32, 4)),
    "pix2pix": Sizes({}, (1, 256, 64, 8)),
    "cyclegan": Sizes(
        {"base_filters": 32, "discriminator_filters": 32, "crop": 128}, (1, 128, 32, 9)
    ),
    "unit": Sizes({"base_filters": 32, "discriminator_filters": 32, "crop": 128}, (1, 128, 32, 4)),
    "srcnn": Sizes({}, (128, 40, 64, 2)),
    "srgan": Sizes({"steps": 2, "pretrain_steps": 2}, (16, 96, 64, 16, 4)),
    "dcgan": Sizes({}, (32, 64, 64, 100)),
    "pggan": _grown(64, 2048, 128, 128, 8),
    "automap": Sizes({"n": 64}, (100, 64, 64)),
    "critic": Sizes({}, (16, 128, 16, 3)),
    "learned_primal_dual": _beam(128, 60, 183, 5, 32),
    "varnet": Sizes({"cascades": 4}, (1, 128, 18, 5, 4)),
}
QUICK = {
    "encoder_decoder": Sizes({"base_filters": 2, "levels": 2}, (1, 16, 2, 2)),
    "pix2pix": Sizes(
        {"base_filters": 2, "levels": 5, "discriminator_filters": 2}, (1, 32, 2, 5)
    ),
    "cyclegan": Sizes(
        {"base_filters": 2, "discriminator_filters": 2, "blocks": 1, "crop": 32}, (1, 32, 2, 1)
    ),
    "unit": Sizes(
        {"base_filters": 2, "discriminator_filters": 2, "blocks": 1, "crop": 64}, (1, 64, 2, 1)
    ),
    "srcnn": Sizes({"filters1": 4, "filters2": 2}, (2, 40, 4, 2)),
    "srgan": Sizes(
        {"steps": 2, "pretrain_steps": 2, "base_filters": 2, "blocks": 1, "crop": 16,
         "discriminator_filters": 2, "discriminator_units": 4},
        (2, 16, 2, 1, 4),
    ),
    "dcgan": Sizes({"base_filters": 2, "discriminator_filters": 2}, (2, 64, 2, 100)),
    "pggan": _grown(16, 32, 8, 4, 4),
    "automap": Sizes({"n": 8, "filters": 2}, (2, 8, 2)),
    "critic": Sizes({"base_filters": 2, "levels": 1, "crop": 16}, (2, 16, 2, 1)),
    "learned_primal_dual": _beam(16, 8, 24, 1, 2),
    "varnet": Sizes({"cascades": 1, "base_filters": 2, "levels": 2}, (1, 16, 2, 2, 1)),
}  # fmt: skip
# PyTorch's layout of images, and whether it compiles.
PEERS = {
    "PyTorch nchw": ("contiguous_format", False),
    "channels_last": ("channels_last", False),
    "`torch.compile`": ("contiguous_format", True),
}
KERAS = "Keras"
AHEAD, PIPELINE = 1.25, 5  # wanted: PyTorch's time over ours, a step's time over the pipeline's
BOUND = "both call oneDNN's convolutions; time of the operations here"
SHARE = 0.1  # of a step that the exchange of gradients may take


def steps(quick: bool, rounds: int) -> measure.Part:
    """The step of each model beside its pipeline, and the gradients that hosts would exchange."""
    rows, exchanged, skipped = [], [], {}
    targets: list[measure.Target] = []
    peak = measure.peak(rounds)
    names = ["srcnn"] if quick else list(MODELS)
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            dataset, fields = MODELS[name]
            fields = (*fields, "precision=float32")
            try:
                made = reading.ready(dataset, name, Path(folder), fields)
                made.step()
            except Exception as error:  # the other rows are worth having
                skipped[name] = f"{type(error).__name__}: {error}".splitlines()[0][:90]
                continue
            seconds = measure.in_turns({"read": made.read, "step": made.step}, rounds)
            step = statistics.median(seconds["step"])
            key = "image" if "image" in made.batch else "target"
            sides = tuple(made.batch[key].shape[1:-1])
            flops = made.model.training_flops(made.phase, sides)
            shape = " × ".join(map(str, (made.phase.batch_size, *sides)))
            row = [f"`{name}`", made.name, shape, measure.three(step * 1000)]
            row += [measure.three(flops / 1e9), f"{100 * flops / step / peak:.0f} %"]
            row += [measure.shares(measure.operations(made.step))]
            rows.append([*row, measure.ratio(seconds, "step", "read")])
            exchanged.append((name, step, made.model))
            times = step / statistics.median(seconds["read"])
            bound = "a step this short is little more than the call of the pipeline"
            what = f"`{name}`: how many times as fast its pipeline is"
            targets.append(measure.Target(what, PIPELINE, times, bound))
    columns = ["model", "data", "batch", "step, ms", "GFLOP", "share of the peak"]
    columns += ["time of its operations"]
    text = f"""## Training steps

The small presets in their last phase, on patches of the simulated data, float32. The peak is
{peak / 1e9:.0f} GFLOP/s, of a matrix product in the same run; a backward pass counts as two forward
ones. What bounds a step is where the time of its operations goes, as TensorFlow's profiler has it:
in convolutions, which are far from the peak where images and channels are few, or between them ("by
element": activations, sums, losses, the optimizer). The last column is how many times as fast the
input pipeline is as the step, which wants it above 5.

{measure.table([*columns, "pipeline to step"], rows)}{measure.skipped_in_words(skipped)}
"""
    return measure.Part(text + _exchange(exchanged), targets)


def _exchange(made: list) -> str:
    """At which bandwidth the exchange of gradients takes a share of each model's step."""
    rows = []
    for name, step, model in made:
        size = sum(4 * tf.size(weight).numpy() for weight in model.trainable_variables)
        row = [f"`{name}`", measure.three(size / 2**20), measure.three(1000 * step)]
        for hosts in (2, 8):
            sent = 2 * (hosts - 1) / hosts * size
            row.append(measure.three(8 * sent / (SHARE * step) / 1e9))
        rows.append(row)
    columns = ["model", "gradients, MiB", "step, ms", "2 hosts, Gbit/s", "8 hosts, Gbit/s"]
    return f"""
## Several hosts, on paper

In every step a ring sends 2 (n - 1) / n times the gradients (float32, counted from the networks)
from each of n hosts. Below these bandwidths that takes more than {100 * SHARE:.0f} % of the step
above, where nothing overlaps; an accelerator that is k times as fast needs k times as much.

{measure.table(columns, rows)}
"""


def against_torch(quick: bool, rounds: int) -> measure.Part:
    """The steps of networks as published, here and in PyTorch."""
    rows, skipped = [], {}
    targets: list[measure.Target] = []
    for name, sizes in (QUICK if quick else AGAINST).items():
        makers: dict[str, Callable] = {"here": lambda n=name, s=sizes: _here(n, s)}
        for peer in PEERS:
            makers[peer] = lambda n=name, s=sizes.peer, by=peer: _torch(n, s, by)
        if name == "encoder_decoder":
            makers[KERAS] = lambda s=sizes.peer: _naive(*s)
        calls, missing = measure.peers(makers)
        skipped |= {f"{peer}, {name}": why for peer, why in missing.items()}
        seconds = measure.in_turns(calls, rounds)
        for peer, call in calls.items():
            if call.weights != calls["here"].weights:
                skipped[f"{name} as it should be"] = f"{peer} has {call.weights} weights"
        weights = f"{calls['here'].weights:,}"
        row = [f"`{name}`", f"{sizes.peer[0]} × {sizes.peer[1]}²", weights]
        row.append(measure.middle(seconds["here"]))
        for peer in (*PEERS, KERAS):
            found = peer in seconds
            row.append(measure.middle(seconds[peer]) if found else "")
            row.append(measure.ratio(seconds, peer, "here") if found else "")
        rows.append(row)
        fastest = [statistics.median(seconds[peer]) for peer in PEERS if peer in seconds]
        if fastest:
            times = min(fastest) / statistics.median(seconds["here"])
            what = f"`{name}`: a step's time in PyTorch, the fastest way, over that here"
            bound = f"{BOUND}: {measure.shares(measure.operations(calls['here'].run))}"
            targets.append(measure.Target(what, AHEAD, times, bound))
    columns = ["network", "batch", "weights", "here, s"]
    for peer in (*PEERS, KERAS):
        columns += [f"{peer}, s", "/ here"]
    text = f"""## Training against PyTorch

The same layers, losses and updates in float32, in turns; PyTorch eagerly, and by `torch.compile`,
which needs a C++ compiler; and the U-Net as a user of Keras writes it, with `compile` and
`train_on_batch`. A ratio above 1 says that the step here is faster. Of `srgan` it is the first
phase, SRResNet; of `pggan` the last level. `learned_primal_dual` has ASTRA's projector there, as
PyTorch has none.

{measure.table(columns, rows)}{measure.skipped_in_words(skipped)}
"""
    return measure.Part(text, targets)


class Here(NamedTuple):
    """A training step, and how many weights it trains."""

    run: Callable[[], object]
    weights: int

    def __call__(self) -> object:
        return self.run()


def _here(name: str, sizes: Sizes) -> Callable[[], object]:
    batch, side, *_ = sizes.peer
    given = sizes.fields | {"batch_size": batch, "precision": "float32"}
    source, target = {
        "automap": (KSPACE, SIGNAL), "varnet": (KSPACE, SIGNAL), "learned_primal_dual": (LINES, HU)
    }.get(name, (HU, HU))  # fmt: skip
    model = loading.build(registry.lookup(name, overrides=given), source, target)
    model.compile()
    # SRGAN's first phase, and the last level of what grows.
    model.enter(model.recipe.phases()[0 if name == "srgan" else -1])
    small = sizes.sensors or (side // model.scale,) * 2
    image = tf.random.uniform((batch, side, side, 1), *target.window)
    seeds = tf.stack([tf.zeros(batch, tf.int32), tf.range(batch)], 1)
    given_to = tf.random.uniform((batch, *small, source.channels), *source.window)
    example = {"source": given_to, "target": image, "image": image, "seed": seeds}
    step = tf.function(model.train_step, autograph=False)
    return Here(lambda: step(example), _count(name, model))


def _count(name: str, model: Any) -> int:
    """The weights that the step trains."""
    trained = [model]
    if name == "srgan":
        trained = [model.network]
    elif name == "pggan":
        level = model.phase.level
        trained = [*model.generator.parts(level, False), *model.critic.parts(level, False)]
    return sum(int(tf.size(w)) for each in trained for w in each.trainable_variables)


def _naive(batch: int, side: int, base: int, levels: int) -> Callable[[], object]:
    """The U-Net of `torch_steps` from Keras's own layers, optimizer and loop."""
    layers = keras.layers

    def twice(x, width):
        for _ in "ab":
            x = layers.Conv2D(width, 3, padding="same", activation="relu")(x)
        return x

    given = keras.Input((side, side, 1))
    kept = [twice(given, base)]
    for level in range(1, levels):
        kept.append(twice(layers.MaxPooling2D()(kept[-1]), base * 2**level))
    x = kept.pop()
    for level in reversed(range(levels - 1)):
        x = layers.Conv2DTranspose(base * 2**level, 2, 2)(x)
        x = twice(layers.Concatenate()([kept.pop(), x]), base * 2**level)
    network = keras.Model(given, layers.Conv2D(1, 1)(x))
    network.compile(keras.optimizers.Adam(2e-4, beta_1=0.5), "mse")
    source, target = tf.random.normal((2, batch, side, side, 1))
    return Here(lambda: network.train_on_batch(source, target), network.count_params())


def _torch(name: str, sizes: tuple, peer: str) -> Callable[[], object]:
    torch = measure.needed("torch")
    from benchmarks import torch_reconstruction, torch_steps

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    makers = torch_steps.STEPS | torch_reconstruction.STEPS
    layout, compiled = PEERS[peer]
    return makers[name](*sizes, getattr(torch, layout), compiled)
