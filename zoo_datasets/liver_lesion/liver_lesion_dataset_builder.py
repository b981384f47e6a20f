"""liver_lesion: patches of liver CT by lesion, simulated (`phantom`) or real (`lits`)."""

import dataclasses
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from zoo_datasets.cases import SourceConfig
from zoo_datasets.features import domain, image_feature
from zoo_datasets.liver_lesion import lits, phantom
from zoo_datasets.simulated import SimulatedBuilder

WINDOW = (-160.0, 240.0)  # HU: fat to the brightest veins, what a radiologist looks at livers with


@dataclasses.dataclass(eq=False)
class Config(SourceConfig):
    """A source of patches.

    Attributes:
        patients: simulated ones of train, validation and test.
        patches: of each simulated patient.
        seed: of the simulation.
        labels: classes of the patches.
        least: mm, diameter of the smallest lesion that gets a patch.
    """

    patients: tuple[int, int, int] = (0, 0, 0)
    patches: int = 8
    seed: int = 0
    labels: tuple[str, ...] = phantom.LABELS
    least: float = 5.0
    read: Any = phantom.read


class Builder(SimulatedBuilder):
    """`image`: HU int16 `[64, 64, 1]` at 1 mm; `label`: the kind of lesion in the middle."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    BUILDER_CONFIGS = [
        Config(
            name="phantom",
            description="2000 simulated training patches, 64 x 64 at 1 mm.",
            patients=(250, 20, 40),
        ),
        Config(
            name="phantom_tiny",
            description="A few such patches of other patients, for trying things out.",
            patients=(6, 2, 2),
            patches=4,
            seed=1,
        ),
        Config(
            name="lits",
            description="LiTS: patches around each tumour, and of liver without one.",
            labels=lits.LABELS,
            find=lits.find,
            read=lits.read,
            manual=lits.MANUAL,
            licence="CC BY-NC-SA 4.0",
        ),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        labels = list(self.builder_config.labels)
        image = domain("CT", "HU", WINDOW, (phantom.SPACING, phantom.SPACING))
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": image_feature((phantom.SIZE, phantom.SIZE, 1)),
                    "label": tfds.features.ClassLabel(names=labels),
                    "spacing": tfds.features.Tensor(shape=(2,), dtype=np.float32),
                    "patient": tfds.features.Text(),
                    "name": tfds.features.Text(),
                }
            ),
            homepage="https://competitions.codalab.org/competitions/17094",
            supervised_keys=("image", "label"),
            metadata=tfds.core.MetadataDict({"kind": "single", "image": image}),
        )
