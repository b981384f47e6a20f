"""chest_xray: frontal chest radiographs, simulated (`phantom`) or real (`nih14`)."""

import dataclasses
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from zoo_datasets.cases import SourceConfig
from zoo_datasets.chest_xray import nih14, phantom
from zoo_datasets.features import domain, image_feature
from zoo_datasets.simulated import SimulatedBuilder


@dataclasses.dataclass(eq=False)
class Config(SourceConfig):
    """A source of radiographs.

    Attributes:
        exposure: how simulated patients are imaged.
        patients: simulated ones of train, validation and test.
        seed: of the simulation.
    """

    exposure: phantom.Exposure = dataclasses.field(default_factory=phantom.Exposure)
    patients: tuple[int, int, int] = (0, 0, 0)
    seed: int = 0
    read: Any = phantom.read


class Builder(SimulatedBuilder):
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
        ),
        Config(
            name="nih14",
            description="NIH ChestX-ray14: 112120 radiographs, 1024 x 1024, with 14 findings.",
            find=nih14.find,
            read=nih14.read,
            manual=nih14.MANUAL,
            licence="free to use, with acknowledgement (NIH Clinical Center)",
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
            plane=None,
        )
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features),
            homepage="https://nihcc.app.box.com/v/ChestXray-NIHCC",
            metadata=tfds.core.MetadataDict({"kind": "single", "image": image}),
        )
