"""mr_ct: MR and CT of the same patient, simulated (`phantom`) or SynthRAD2023 (Task 1)."""

import dataclasses
import functools
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from zoo_datasets.cases import SourceConfig
from zoo_datasets.features import domain, image_feature
from zoo_datasets.mr_ct import phantom
from zoo_datasets.phantoms import brain
from zoo_datasets.publishers import synthrad
from zoo_datasets.simulated import SimulatedBuilder

# As in `ldct`: stored values start at -1024 HU, and only dense cortical bone exceeds 1500.
CT_WINDOW = (-1024.0, 1500.0)


@dataclasses.dataclass(eq=False)
class Config(SourceConfig):
    """A source of pairs.

    Attributes:
        scan: the simulated protocols; None for files.
        patients: simulated patients of train, validation and test.
        seed: seed of the simulation.
        mr_window: intensity window of the MR.
    """

    scan: phantom.Scan | None = None
    patients: tuple[int, int, int] = (0, 0, 0)
    seed: int = 40
    mr_window: tuple[float, float] = (0.0, float(phantom.MAXIMUM))
    read: Any = phantom.read


def _synthrad(region: str) -> Config:
    return Config(
        name=f"synthrad2023_{region}",
        description=f"SynthRAD2023, Task 1: MR and planning CT of the {region}, registered.",
        find=functools.partial(synthrad.find, task=1, region=region),
        read=synthrad.read,
        manual=synthrad.manual(1, region),
        licence=synthrad.LICENCE,
        mask="target_label",
        mr_window=(0.0, 1.5 * synthrad.SCALED),
    )


class Builder(SimulatedBuilder):
    """Pairs `source` (MR, signal) and `target` (CT, int16 HU), `[H, W, 1]`, with label maps."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    BUILDER_CONFIGS = [
        Config(
            name="phantom",
            description="Simulated heads, T1-weighted MR and CT, 256 x 256 at 0.875 mm.",
            scan=phantom.Scan(),
            patients=(60, 8, 12),
        ),
        Config(
            name="phantom_tiny",
            description="A few other heads, 64 x 64 at 3.5 mm, for trying things out.",
            scan=phantom.Scan(size=64, slices=4),
            patients=(6, 2, 2),
            seed=41,
        ),
        _synthrad("brain"),
        _synthrad("pelvis"),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        scan = config.scan
        shape = (scan.size, scan.size, 1) if scan else (None, None, 1)
        spacing = (scan.spacing, scan.spacing) if scan else None
        label = image_feature(shape, np.uint8)
        features = {
            "source": image_feature(shape, np.uint16 if scan else np.float32),
            "target": image_feature(shape, np.int16),
            "source_label": label,
            "target_label": label,
            "patient": tfds.features.Text(),
            "name": tfds.features.Text(),
        }
        if not scan:
            features["spacing"] = tfds.features.Tensor(shape=(2,), dtype=np.float32)
            features["scale"] = tfds.features.Scalar(dtype=np.float32)
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features),
            homepage=synthrad.HOMEPAGE,
            supervised_keys=("source", "target"),
            metadata=tfds.core.MetadataDict(
                {
                    "kind": "paired",
                    "aligned": True,
                    "source": domain("MR", "signal", config.mr_window, spacing),
                    "target": domain("CT", "HU", CT_WINDOW, spacing),
                    "label_names": list(brain.LABELS if scan else synthrad.LABELS),
                }
            ),
        )
