"""A model without a network, that takes the place of a `Translator`."""

import dataclasses
import tracemalloc
import types

import numpy as np

from zoo.domain import Domain
from zoo.imaging.files import find
from zoo.inference import predict

CT = Domain(modality="CT", unit="HU", window=(-1000, 1000))
MR = Domain(modality="MR", unit="signal", window=(0, 800))


def translate(model, source, target, **options):
    """What is translated without a bar of progress."""
    return predict.translate(model, source, target, progress=False, **options)


def translated(model, source, target, **options):
    """The report, and why files were skipped."""
    report = translate(model, source, target, **options)
    return report, [problem.reason for problem in report.skipped]


def stacked(volume):
    """All slices of a volume, the last axis along them."""
    return np.stack([volume.read(i) for i in range(volume.length)], axis=-1)


def contents(folder):
    """The pixels of all files in a folder, by their names."""
    found = {}
    for volume in find(folder).volumes:
        for index in range(volume.length):
            found[volume.name, index] = volume.read(index)
    return found


def with_peak(function):
    """What a call gives, and the most bytes of memory that it holds meanwhile."""
    tracemalloc.start()
    try:
        return function(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@dataclasses.dataclass
class Model:
    """Adds `plus` and enlarges by whole pixels; it stands in for a Translator.

    Of k-space it takes the magnitude; of neighbouring slices it makes one number; with a target of
    classes it counts how many of 100, 200, ... a value exceeds.
    """

    plus: float = 0.0
    slices: int = 1
    spacing: float = 0.0
    source: Domain = dataclasses.field(default_factory=Domain)
    target: Domain = dataclasses.field(default_factory=Domain)
    name: str = "stand-in"
    title: str = "Stand-in"
    weights_hash: str = "cd" * 32
    precision: str = "float32"
    scale: int = 1
    dimensions: int = 2
    label_names: tuple[str, ...] = ()
    trained_on: dict | None = None
    shapes: list = dataclasses.field(default_factory=list)

    @property
    def recipe(self):
        return types.SimpleNamespace(slices=self.slices, spacing=self.spacing)

    @property
    def classes(self):
        return self.target.classes

    def translate(self, images, batch_size=1):
        self.shapes.append(images.shape)
        assert images.ndim == self.dimensions + 2
        if self.slices > 1:
            # tells centre, both neighbours and their order apart
            return images[..., :1] * 10_000 + images[..., 1:2] * 100 + images[..., 2:]
        if self.source.unit == "k-space":
            images = np.linalg.norm(images, axis=-1, keepdims=True)
        if self.classes:
            images = np.clip(np.floor(images[..., :1] / 100), 0, self.classes - 1)
        for axis in range(1, images.ndim - 1):
            images = images.repeat(self.scale, axis)
        return images + self.plus

    def generate(self, n, seed=0, first=0):
        draws = [np.random.default_rng([seed, k]) for k in range(first, first + n)]
        values = [draw.uniform(*self.target.window, (6, 5, 1)) for draw in draws]
        return np.array(values, np.float32)


TO_CT = Model(source=MR, target=CT)
