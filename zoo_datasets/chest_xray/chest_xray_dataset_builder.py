"""chest_xray: frontal chest radiographs, simulated (`phantom`) or real (`nih14`)."""

import dataclasses
import functools
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from zoo_datasets.chest_xray import nih14, phantom
from zoo_datasets.sources import (
    SPLITS,
    Case,
    Examples,
    SourceBuilder,
    SourceConfig,
    domain,
    image_feature,
    map_in_order,
)


def simulated(case: Case, config: "Config") -> Examples:
    """The radiographs of a simulated patient."""
    for example in phantom.example(case.facts["number"], config.exposure, config.seed):
        yield example["name"], example


@dataclasses.dataclass(eq=False)
class Config(SourceConfig):
    """A source of radiographs.

    Attributes:
        exposure: how simulated patients are imaged.
        patients: simulated ones of train, validation and test.
        seed: of the simulation.
        processes: that simulate.
    """

    exposure: phantom.Exposure = dataclasses.field(default_factory=phantom.Exposure)
    patients: tuple[int, int, int] = (0, 0, 0)
    seed: int = 0
    processes: int | None = None
    read: Any = simulated


class Builder(SourceBuilder):
    """`image`: grey `[H, W, 1]`, bright bone, the patient's left on the right."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    BUILDER_CONFIGS = [
        Config(
            name="phantom",
            description="Radiographs of simulated patients, 256 x 256 at 1.4 mm; no download.",
            patients=(100, 10, 20),
        ),
        Config(
            name="phantom_tiny",
            description="The same at 64 x 64 and 5.6 mm, for trying things out.",
            exposure=phantom.Exposure(size=64, voxels=64, slices=48),
            patients=(6, 2, 2),
            seed=1,
            processes=1,  # starting a second one takes longer
        ),
        Config(
            name="nih14",
            description="NIH ChestX-ray14: 112120 radiographs, 1024 x 1024, with 14 findings.",
            find=nih14.find,
            read=nih14.read,
            manual=nih14.MANUAL,
        ),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        real = config.find is not None
        size = nih14.SIZE if real else config.exposure.size
        features = {
            "image": image_feature((size, size, 1), np.uint8 if real else np.uint16),
            "spacing": tfds.features.Tensor(shape=(2,), dtype=np.float32),
            "patient": tfds.features.Text(),
            "name": tfds.features.Text(),
        }
        if real:
            names = list(nih14.FINDINGS)
            features["findings"] = tfds.features.Sequence(tfds.features.ClassLabel(names=names))
            features["view"] = tfds.features.Text()
        image = domain(
            "DX",
            "signal",
            (0, 255 if real else phantom.MAXIMUM),
            None if real else (config.exposure.spacing,) * 2,
        )
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features),
            homepage="https://nihcc.app.box.com/v/ChestXray-NIHCC",
            metadata=tfds.core.MetadataDict({"kind": "single", "image": image}),
        )

    def simulated_cases(self) -> dict[str, list[Case]]:
        """One case a patient."""
        ends = np.cumsum([0, *self.builder_config.patients]).tolist()
        return {
            split: [
                Case(key=f"P{n:03d}", patient=f"P{n:03d}", facts={"number": n})
                for n in range(ends[k], ends[k + 1])
            ]
            for k, split in enumerate(SPLITS)
        }

    def _generate_examples(self, cases: list[Case]) -> Examples:
        config = self.builder_config
        if config.find or config.processes == 1:
            yield from super()._generate_examples(cases)
            return
        make = functools.partial(phantom.example, exposure=config.exposure, seed=config.seed)
        numbers = [case.facts["number"] for case in cases]
        for examples in map_in_order(make, numbers, config.processes):
            for example in examples:
                yield example["name"], example
