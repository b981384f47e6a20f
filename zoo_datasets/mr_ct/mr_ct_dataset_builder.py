"""mr_ct: MR and CT of the same patient, simulated (`phantom`) or SynthRAD2023 (Task 1)."""

import dataclasses
import functools

import numpy as np
import tensorflow_datasets as tfds

from zoo_datasets import features
from zoo_datasets.cases import SourceConfig
from zoo_datasets.mr_ct import phantom
from zoo_datasets.phantoms import brain, mr_scan
from zoo_datasets.publishers import synthrad
from zoo_datasets.simulated import SimulatedBuilder, SimulatedConfig


def _synthrad(region: str) -> SourceConfig:
    return SourceConfig(
        name=f"synthrad2023_{region}",
        description=f"SynthRAD2023, Task 1: MR and planning CT of the {region}, registered.",
        find=functools.partial(synthrad.find, task=1, region=region),
        read=synthrad.read,
        manual=synthrad.manual(1, region),
        licence=synthrad.LICENCE,
        mask="target_label",
    )


class Builder(SimulatedBuilder):
    """Pairs `source` (MR, signal) and `target` (CT, int16 HU), `[H, W, 1]`, with label maps.

    Volumes are `[D, H, W, 1]`.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    BUILDER_CONFIGS = [
        SimulatedConfig(
            name="phantom",
            description="Simulated heads, T1-weighted MR and CT, 256 x 256 at 0.875 mm.",
            read=phantom.read,
            protocol=phantom.Protocol(),
            patients=(60, 8, 12),
            seed=40,
        ),
        SimulatedConfig(
            name="phantom_tiny",
            description="A few other heads, 64 x 64 at 3.5 mm, for trying things out.",
            read=phantom.read,
            protocol=phantom.Protocol(size=64, slices=4),
            patients=(6, 2, 2),
            seed=41,
        ),
        SimulatedConfig(
            name="phantom_misaligned",
            description="`phantom` with the training patients' CT displaced by 3 to 8 pixels.",
            read=phantom.read,
            protocol=phantom.Protocol(misaligned=(3.0, 8.0)),
            patients=(60, 8, 12),
            seed=40,
        ),
        SimulatedConfig(
            name="phantom_misaligned_tiny",
            description="`phantom_tiny` with the training patients' CT displaced by 1 to 2 pixels.",
            read=phantom.read,
            protocol=phantom.Protocol(size=64, slices=4, misaligned=(1.0, 2.0)),
            patients=(6, 2, 2),
            seed=41,
        ),
        SimulatedConfig(
            name="phantom_3d",
            description="Simulated heads as volumes, 24 x 64 x 64 at 3.5 mm.",
            read=phantom.read,
            protocol=phantom.Protocol(size=64, depth=24),
            patients=(30, 8, 8),
            seed=42,
        ),
        _synthrad("brain"),
        _synthrad("pelvis"),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        image = features.Image
        if isinstance(config, SimulatedConfig):
            protocol, facts = config.protocol, {}
            shape: tuple[int | None, ...] = (protocol.size, protocol.size, 1)
            if protocol.depth:
                shape, facts = (protocol.depth, *shape), {"dimensions": 3}
            spacing = (protocol.spacing,) * (len(shape) - 1)
            mr = dataclasses.replace(
                mr_scan.image(protocol.size, protocol.spacing), shape=shape, spacing=spacing
            )
            ct = image(shape, np.int16, "CT", "HU", features.CT_WINDOW, spacing)
            labels, others = list(brain.LABELS), {}
        else:
            shape, facts = (None, None, 1), {}
            mr = image(shape, np.float32, "MR", "signal", (0.0, 1.5 * synthrad.SCALED))
            ct = image(shape, np.int16, "CT", "HU", features.CT_WINDOW)
            labels, others = (
                list(synthrad.LABELS),
                {"scale": tfds.features.Scalar(dtype=np.float32)},
            )
        return features.info(
            self,
            {"source": mr, "target": ct},
            others,
            spacing=bool(others),
            label_names=labels,
            metadata=facts,
            homepage=synthrad.HOMEPAGE,
        )
