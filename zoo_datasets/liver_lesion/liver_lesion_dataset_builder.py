"""liver_lesion: patches of liver CT by lesion, simulated (`phantom`) or real (`lits`)."""

import dataclasses

import numpy as np
import tensorflow_datasets as tfds

from zoo_datasets import features
from zoo_datasets.cases import SourceConfig
from zoo_datasets.liver_lesion import lits, phantom
from zoo_datasets.simulated import SimulatedBuilder, SimulatedConfig

WINDOW = (-160.0, 240.0)  # HU: fat to the brightest veins, what a radiologist looks at livers with


@dataclasses.dataclass(eq=False, kw_only=True)
class Lits(SourceConfig):
    """Patches of LiTS.

    Attributes:
        least: mm, diameter of the smallest lesion that gets a patch.
    """

    least: float = 5.0


class Builder(SimulatedBuilder):
    """`image`: HU int16 `[64, 64, 1]` at 1 mm; `label`: the kind of lesion in the middle."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    BUILDER_CONFIGS = [
        SimulatedConfig(
            name="phantom",
            description="2000 simulated training patches, 64 x 64 at 1 mm.",
            read=phantom.read,
            protocol=phantom.Protocol(),
            patients=(250, 20, 40),
        ),
        SimulatedConfig(
            name="phantom_tiny",
            description="A few such patches of other patients, for trying things out.",
            read=phantom.read,
            protocol=phantom.Protocol(patches=4),
            patients=(6, 2, 2),
            seed=1,
        ),
        Lits(
            name="lits",
            description="LiTS: patches around each tumour, and of liver without one.",
            find=lits.find,
            read=lits.read,
            manual=lits.MANUAL,
            licence="CC BY-NC-SA 4.0",
        ),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        labels = lits.LABELS if isinstance(self.builder_config, Lits) else phantom.LABELS
        shape, spacing = (phantom.SIZE, phantom.SIZE, 1), (phantom.SPACING, phantom.SPACING)
        image = features.Image(shape, np.int16, "CT", "HU", WINDOW, spacing)
        return features.info(
            self,
            {"image": image},
            {"label": tfds.features.ClassLabel(names=list(labels))},
            spacing=True,
            supervised=("image", "label"),
            homepage="https://competitions.codalab.org/competitions/17094",
        )
