"""pet_ct: FDG-PET and CT of the same patient, simulated (`phantom`) or of autoPET."""

import dataclasses
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from zoo_datasets.cases import SourceConfig
from zoo_datasets.features import domain, image_feature
from zoo_datasets.pet_ct import autopet, phantom
from zoo_datasets.simulated import SimulatedBuilder

# Liver is near 2, most lesions are below 15; urine and the hottest lesions are beyond.
SUV_WINDOW = (0.0, 15.0)
# As in `ldct`: stored values start at -1024 HU, and only dense cortical bone exceeds 1500.
CT_WINDOW = (-1024.0, 1500.0)


@dataclasses.dataclass(eq=False)
class Config(SourceConfig):
    """A source of pairs.

    Attributes:
        scan: the simulated protocols; None for files.
        patients: simulated patients of train, validation and test.
        seed: seed of the simulation.
    """

    scan: phantom.Scan | None = None
    patients: tuple[int, int, int] = (0, 0, 0)
    seed: int = 50
    read: Any = phantom.read


class Builder(SimulatedBuilder):
    """Pairs `source` (PET, float32 SUV) and `target` (CT, int16 HU), `[H, W, 1]`, with lesions."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    BUILDER_CONFIGS = [
        Config(
            name="phantom",
            description="Simulated chest and abdomen, FDG-PET and CT, 256 x 256 at 1.4 mm.",
            scan=phantom.Scan(),
            patients=(60, 8, 12),
        ),
        Config(
            name="phantom_tiny",
            description="A few other patients, 64 x 64 at 5.6 mm, for trying things out.",
            scan=phantom.Scan(size=64, slices=4),
            patients=(6, 2, 2),
            seed=51,
        ),
        Config(
            name="autopet",
            description="FDG-PET-CT-Lesions (autoPET): whole-body PET and CT, lesions marked.",
            find=autopet.find,
            read=autopet.read,
            manual=autopet.MANUAL,
            licence="stated at https://fdat.uni-tuebingen.de/records/wf9fy-txq84",
        ),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        scan = self.builder_config.scan
        shape = (scan.size, scan.size, 1) if scan else (None, None, 1)
        spacing = (scan.spacing, scan.spacing) if scan else None
        label = image_feature(shape, np.uint8)
        features = {
            "source": image_feature(shape, np.float32),
            "target": image_feature(shape, np.int16),
            "source_label": label,
            "target_label": label,
            "patient": tfds.features.Text(),
            "name": tfds.features.Text(),
        }
        if not scan:
            features["spacing"] = tfds.features.Tensor(shape=(2,), dtype=np.float32)
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features),
            homepage=autopet.HOMEPAGE,
            supervised_keys=("source", "target"),
            metadata=tfds.core.MetadataDict(
                {
                    "kind": "paired",
                    "aligned": True,
                    "source": domain("PT", "SUV", SUV_WINDOW, spacing),
                    "target": domain("CT", "HU", CT_WINDOW, spacing),
                    "label_names": list(phantom.LABELS),
                }
            ),
        )
