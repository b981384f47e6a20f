"""cbct_ct: cone-beam and planning CT, simulated (`phantom`) or SynthRAD2023 (Task 2)."""

import functools

import numpy as np
import tensorflow_datasets as tfds

from zoo_datasets import features
from zoo_datasets.cases import SourceConfig
from zoo_datasets.cbct_ct import phantom
from zoo_datasets.publishers import synthrad
from zoo_datasets.simulated import SimulatedBuilder, SimulatedConfig


def _synthrad(region: str) -> SourceConfig:
    return SourceConfig(
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
        SimulatedConfig(
            name="phantom",
            description="Simulated chest and abdomen, 256 x 256 at 1.4 mm; no download.",
            read=phantom.read,
            protocol=phantom.Protocol(),
            patients=(40, 5, 10),
            seed=20,  # not those of `ldct`: other patients
        ),
        SimulatedConfig(
            name="phantom_small",
            description="Other patients, 128 x 128 at 2.8 mm; built in half a minute.",
            read=phantom.read,
            protocol=phantom.Protocol(
                128, 240, 1.2e4, 5.0, cone_photons=1.8e4, cone_electronic=5.0
            ),
            patients=(24, 3, 6),
            seed=21,
        ),
        SimulatedConfig(
            name="phantom_tiny",
            description="A few patients, 64 x 64 at 5.6 mm, for trying things out.",
            read=phantom.read,
            protocol=phantom.Protocol(64, 96, 1.0e4, 4.0, cone_photons=1.4e4, cone_electronic=4.0),
            patients=(4, 1, 2),
            seed=22,
        ),
        SimulatedConfig(
            name="phantom_scatter",
            description="128 x 128 at 2.8 mm, scatter uncorrected (30 to 70 %), none truncated.",
            read=phantom.read,
            protocol=phantom.Protocol(
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
        config = self.builder_config
        size, spacing, labels = None, None, list(synthrad.LABELS)
        if isinstance(config, SimulatedConfig):
            protocol = config.protocol
            size, spacing, labels = protocol.size, (protocol.spacing, protocol.spacing), []
        ct = features.Image((size, size, 1), np.int16, "CT", "HU", features.CT_WINDOW, spacing)
        return features.info(
            self,
            {"source": ct, "target": ct},
            spacing=not spacing,
            label_names=labels,
            homepage=synthrad.HOMEPAGE,
        )
