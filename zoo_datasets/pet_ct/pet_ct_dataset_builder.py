"""pet_ct: FDG-PET and CT of the same patient, simulated (`phantom`) or of autoPET."""

import numpy as np
import tensorflow_datasets as tfds

from zoo_datasets import features
from zoo_datasets.cases import SourceConfig
from zoo_datasets.pet_ct import autopet, phantom
from zoo_datasets.simulated import SimulatedBuilder, SimulatedConfig

# Liver is near 2, most lesions are below 15; urine and the hottest lesions are beyond.
SUV_WINDOW = (0.0, 15.0)


class Builder(SimulatedBuilder):
    """Pairs `source` (PET, float32 SUV) and `target` (CT, int16 HU), `[H, W, 1]`, with lesions."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    BUILDER_CONFIGS = [
        SimulatedConfig(
            name="phantom",
            description="Simulated chest and abdomen, FDG-PET and CT, 256 x 256 at 1.4 mm.",
            read=phantom.read,
            protocol=phantom.Protocol(),
            patients=(60, 8, 12),
            seed=50,
        ),
        SimulatedConfig(
            name="phantom_tiny",
            description="A few other patients, 64 x 64 at 5.6 mm, for trying things out.",
            read=phantom.read,
            protocol=phantom.Protocol(size=64, slices=4),
            patients=(6, 2, 2),
            seed=51,
        ),
        SourceConfig(
            name="autopet",
            description="FDG-PET-CT-Lesions (autoPET): whole-body PET and CT, lesions marked.",
            find=autopet.find,
            read=autopet.read,
            manual=autopet.MANUAL,
            licence="stated at https://fdat.uni-tuebingen.de/records/wf9fy-txq84",
        ),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        size, spacing = None, None
        if isinstance(config, SimulatedConfig):
            size, spacing = config.protocol.size, (config.protocol.spacing,) * 2
        shape = (size, size, 1)
        pet = features.Image(shape, np.float32, "PT", "SUV", SUV_WINDOW, spacing)
        ct = features.Image(shape, np.int16, "CT", "HU", features.CT_WINDOW, spacing)
        return features.info(
            self,
            {"source": pet, "target": ct},
            spacing=not spacing,
            label_names=phantom.LABELS,
            homepage=autopet.HOMEPAGE,
        )
