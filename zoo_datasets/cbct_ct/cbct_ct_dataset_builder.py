"""cbct_ct: cone-beam and planning CT, simulated (`phantom`) or SynthRAD2023 (Task 2)."""

import dataclasses
import functools
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from zoo_datasets.cases import SourceConfig
from zoo_datasets.cbct_ct import phantom
from zoo_datasets.features import domain, image_feature
from zoo_datasets.publishers import synthrad
from zoo_datasets.simulated import SimulatedBuilder

# Both domains share it, as in `ldct`: stored values start at -1024 HU, and only dense cortical
# bone exceeds 1500.
WINDOW = (-1024.0, 1500.0)


@dataclasses.dataclass(eq=False)
class Config(SourceConfig):
    """A source of pairs.

    Attributes:
        scan: the simulated protocols; None for files.
        patients: simulated patients of train, validation and test.
        seed: seed of the simulation; not those of `ldct`: other patients.
    """

    scan: phantom.Scan | None = None
    patients: tuple[int, int, int] = (0, 0, 0)
    seed: int = 20
    read: Any = phantom.read


def _synthrad(region: str) -> Config:
    return Config(
        name=f"synthrad2023_{region}",
        description=f"SynthRAD2023, Task 2: cone-beam and planning CT of the {region}, registered.",
        find=functools.partial(synthrad.find, task=2, region=region),
        read=synthrad.read,
        manual=synthrad.manual(2, region),
        licence=synthrad.LICENCE,
        mask="target_label",
    )


class Builder(SimulatedBuilder):
    """Pairs `source` (cone beam) and `target` (planning CT), HU `[H, W, 1]` int16."""

    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES = {
        "1.1.0": "One machine's scatter and drift; one scan in five is truncated, not two.",
        "1.0.0": "First release.",
    }
    # Coarser pixels and fewer views: the photons are fewer so that the noise in HU stays.
    BUILDER_CONFIGS = [
        Config(
            name="phantom",
            description="Simulated chest and abdomen, 256 x 256 at 1.4 mm; no download.",
            scan=phantom.Scan(),
            patients=(40, 5, 10),
        ),
        Config(
            name="phantom_small",
            description="Other patients, 128 x 128 at 2.8 mm; built in half a minute.",
            scan=phantom.Scan(128, 240, 1.2e4, 5.0, cone_photons=1.8e4, cone_electronic=5.0),
            patients=(24, 3, 6),
            seed=21,
        ),
        Config(
            name="phantom_tiny",
            description="A few patients, 64 x 64 at 5.6 mm, for trying things out.",
            scan=phantom.Scan(64, 96, 1.0e4, 4.0, cone_photons=1.4e4, cone_electronic=4.0),
            patients=(4, 1, 2),
            seed=22,
        ),
        Config(
            name="phantom_scatter",
            description="128 x 128 at 2.8 mm, scatter uncorrected (30 to 70 %), none truncated.",
            scan=phantom.Scan(
                128,
                240,
                1.2e4,
                5.0,
                cone_photons=1.8e4,
                cone_electronic=5.0,
                scatter=(0.3, 0.7),
                truncated=0.0,
            ),
            patients=(80, 5, 16),
            seed=23,
        ),
        _synthrad("brain"),
        _synthrad("pelvis"),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        scan = self.builder_config.scan
        shape = (scan.size, scan.size, 1) if scan else (None, None, 1)
        image = image_feature(shape, np.int16)
        features = {
            "source": image,
            "target": image,
            "patient": tfds.features.Text(),
            "name": tfds.features.Text(),
        }
        metadata = {"kind": "paired", "aligned": True}
        if not scan:
            label = image_feature(shape, np.uint8)
            features |= {"source_label": label, "target_label": label}
            features["spacing"] = tfds.features.Tensor(shape=(2,), dtype=np.float32)
            metadata["label_names"] = list(synthrad.LABELS)
        spacing = (scan.spacing, scan.spacing) if scan else None
        for name in ("source", "target"):
            metadata[name] = domain("CT", "HU", WINDOW, spacing)
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features),
            homepage=synthrad.HOMEPAGE,
            supervised_keys=("source", "target"),
            metadata=tfds.core.MetadataDict(metadata),
        )
