"""Training: the step of each model, its pipeline, PyTorch's step, what several hosts exchange."""

import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import keras
import tensorflow as tf

from benchmarks import measure, reading
from zoo import loading, registry
from zoo.domain import Domain

# Each model in its small preset; patches of the tiny data sets, which are made in seconds.
MODELS = {
    "automap": ("mri_recon/phantom_tiny", ()),
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
# The paper's network, losses and updates, in sizes that take about a second: the recipe's fields,
# and the same as arguments of PyTorch's step.
AGAINST = {
    "encoder_decoder": ({"base_filters": 32, "levels": 4}, (4, 128, 32, 4)),
    "pix2pix": ({}, (1, 256, 64, 8)),
    "cyclegan": ({"base_filters": 32, "discriminator_filters": 32, "crop": 128}, (1, 128, 32, 9)),
    "srcnn": ({}, (128, 40, 64, 2)),
    "srgan": ({"steps": 2, "pretrain_steps": 2}, (16, 96, 64, 16, 4)),
    "dcgan": ({}, (32, 64, 64, 100)),
}
QUICK = {
    "encoder_decoder": ({"base_filters": 2, "levels": 2}, (1, 16, 2, 2)),
    "pix2pix": ({"base_filters": 2, "levels": 5, "discriminator_filters": 2}, (1, 32, 2, 5)),
    "cyclegan": ({"base_filters": 2, "discriminator_filters": 2, "blocks": 1, "crop": 32},
                 (1, 32, 2, 1)),
    "srcnn": ({"filters1": 4, "filters2": 2}, (2, 40, 4, 2)),
    "srgan": ({"steps": 2, "pretrain_steps": 2, "base_filters": 2, "blocks": 1, "crop": 16,
               "discriminator_filters": 2, "discriminator_units": 4}, (2, 16, 2, 1, 4)),
    "dcgan": ({"base_filters": 2, "discriminator_filters": 2}, (2, 64, 2, 100)),
}  # fmt: skip
# PyTorch's layout of images, and whether it compiles.
PEERS = {
    "PyTorch nchw": ("contiguous_format", False),
    "channels_last": ("channels_last", False),
    "`torch.compile`": ("contiguous_format", True),
}
KERAS = "Keras"
AHEAD, PIPELINE = 1.25, 5  # wanted: PyTorch's time over ours, a step's time over the pipeline's
BOUND = "both call oneDNN's convolutions, in which most of the time goes"
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
            rows.append([*row, measure.ratio(seconds, "step", "read")])
            exchanged.append((name, step, made.model))
            times = step / statistics.median(seconds["read"])
            bound = "a step this short is little more than the call of the pipeline"
            what = f"`{name}`: how many times as fast its pipeline is"
            targets.append(measure.Target(what, PIPELINE, times, bound))
    columns = ["model", "data", "batch", "step, ms", "GFLOP", "share of the peak"]
    text = f"""## Training steps

The small presets, on patches of the simulated data, float32. The peak is {peak / 1e9:.0f} GFLOP/s,
of a matrix product in the same run; a backward pass counts as two forward ones. Under a half, what
is between the convolutions bounds a step: activations, norms, losses, the optimizer, and calls of
small networks. The last column is how many times as fast the input pipeline is as the step, which
wants it above 5.

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
    for name, (fields, sizes) in (QUICK if quick else AGAINST).items():
        makers: dict[str, Callable] = {"here": lambda n=name, f=fields, s=sizes: _here(n, f, s)}
        for peer in PEERS:
            makers[peer] = lambda n=name, s=sizes, by=peer: _torch(n, s, by)
        if name == "encoder_decoder":
            makers[KERAS] = lambda s=sizes: _naive(*s)
        calls, missing = measure.peers(makers)
        skipped |= {f"{peer}, {name}": why for peer, why in missing.items()}
        seconds = measure.in_turns(calls, rounds)
        for peer, call in calls.items():
            if call.weights != calls["here"].weights:
                skipped[f"{name} as it should be"] = f"{peer} has {call.weights} weights"
        weights = f"{calls['here'].weights:,}"
        row = [f"`{name}`", f"{sizes[0]} × {sizes[1]}²", weights]
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
            targets.append(measure.Target(what, AHEAD, times, BOUND))
    columns = ["network", "batch", "weights", "here, s"]
    for peer in (*PEERS, KERAS):
        columns += [f"{peer}, s", "/ here"]
    text = f"""## Training against PyTorch

The same layers, losses and updates in float32, in turns; PyTorch eagerly, and by `torch.compile`,
which needs a C++ compiler; and the U-Net as a user of Keras writes it, with `compile` and
`train_on_batch`. A ratio above 1 says that the step here is faster. Of `srgan` it is the first
phase, SRResNet. Not compared are `unit` and `pggan`, which are made of such layers too, and
`automap`, `learned_primal_dual` and `varnet`, whose time goes into transforms of measurements:
their steps have not been written in PyTorch.

{measure.table(columns, rows)}{measure.skipped_in_words(skipped)}
"""
    return measure.Part(text, targets)


class Here(NamedTuple):
    """A training step, and how many weights it trains."""

    run: Callable[[], object]
    weights: int

    def __call__(self) -> object:
        return self.run()


def _here(name: str, fields: dict, sizes: tuple[int, ...]) -> Callable[[], object]:
    batch, side, *_ = sizes
    given = fields | {"batch_size": batch, "precision": "float32"}
    model = loading.build(registry.lookup(name, overrides=given), HU, HU)
    model.compile()
    model.enter(model.recipe.phases()[0])
    small = side // model.scale
    source = tf.random.uniform((batch, small, small, 1), -1000, 1000)
    target = tf.random.uniform((batch, side, side, 1), -1000, 1000)
    seeds = tf.stack([tf.zeros(batch, tf.int32), tf.range(batch)], 1)
    example = {"source": source, "target": target, "image": target, "seed": seeds}
    step = tf.function(model.train_step, autograph=False)
    trained = model.network if name == "srgan" else model  # in its first phase
    return Here(lambda: step(example), sum(int(tf.size(w)) for w in trained.trainable_variables))


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
        x = layers.Conv2DTranspose(base * 2**level, 2, 2, activation="relu")(x)
        x = twice(layers.Concatenate()([x, kept.pop()]), base * 2**level)
    network = keras.Model(given, layers.Conv2D(1, 1)(x))
    network.compile(keras.optimizers.Adam(2e-4, beta_1=0.5), "mse")
    source, target = tf.random.normal((2, batch, side, side, 1))
    return Here(lambda: network.train_on_batch(source, target), network.count_params())


def _torch(name: str, sizes: tuple[int, ...], peer: str) -> Callable[[], object]:
    torch = measure.needed("torch")
    from benchmarks import torch_steps

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    makers = {
        "encoder_decoder": torch_steps.unet_step,
        "pix2pix": torch_steps.pix2pix_step,
        "cyclegan": torch_steps.cyclegan_step,
        "srcnn": torch_steps.srcnn_step,
        "srgan": torch_steps.srresnet_step,
        "dcgan": torch_steps.dcgan_step,
    }
    layout, compiled = PEERS[peer]
    return makers[name](*sizes, getattr(torch, layout), compiled)
