"""chest_xray: frontal chest radiographs, simulated (`phantom`) or real (`nih14`)."""

import numpy as np
import tensorflow_datasets as tfds

from zoo_datasets import features
from zoo_datasets.cases import SourceConfig
from zoo_datasets.chest_xray import nih14, phantom
from zoo_datasets.simulated import SimulatedBuilder, SimulatedConfig


class Builder(SimulatedBuilder):
    """`image`: grey `[H, W, 1]`, bright bone, the patient's left on the right."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    BUILDER_CONFIGS = [
        SimulatedConfig(
            name="phantom",
            description="Radiographs of simulated patients, 256 x 256 at 1.4 mm; no download.",
            read=phantom.read,
            protocol=phantom.Protocol(),
            patients=(100, 10, 20),
        ),
        SimulatedConfig(
            name="phantom_tiny",
            description="The same at 64 x 64 and 5.6 mm, for trying things out.",
            read=phantom.read,
            protocol=phantom.Protocol(size=64, voxels=64, slices=48),
            patients=(6, 2, 2),
            seed=1,
        ),
        SourceConfig(
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
        if isinstance(config, SimulatedConfig):
            size, window = config.protocol.size, (0.0, float(phantom.MAXIMUM))
            spacing = (config.protocol.spacing, config.protocol.spacing)
            image = features.Image(
                (size, size, 1), np.uint16, "DX", "signal", window, spacing, plane=None
            )
            others = {}
        else:
            shape = (nih14.SIZE, nih14.SIZE, 1)
            image = features.Image(shape, np.uint8, "DX", "signal", (0.0, 255.0), plane=None)
            finding = tfds.features.ClassLabel(names=list(nih14.FINDINGS))
            others = {"findings": tfds.features.Sequence(finding), "view": tfds.features.Text()}
        return features.info(
            self,
            {"image": image},
            others,
            spacing=True,
            homepage="https://nihcc.app.box.com/v/ChestXray-NIHCC",
        )
