"""Tissue segmentation: a T1-weighted slice of a simulated brain to its label map."""

import numpy as np
import tensorflow_datasets as tfds

from zoo_datasets import features
from zoo_datasets.cases import Case, Examples
from zoo_datasets.phantoms import brain, mr_scan
from zoo_datasets.simulated import SimulatedBuilder, SimulatedConfig, slices


def read(case: Case, config: SimulatedConfig[mr_scan.Protocol]) -> Examples:
    """The slices of a simulated patient."""
    images = mr_scan.patient(config.protocol, config.seed, case.facts["number"])
    yield from slices(case, {"source": images["T1"], "target": images["labels"]})


class Builder(SimulatedBuilder):
    """`source` (T1w signal, uint16) and `target` (tissue of each pixel, uint8), `[H, W, 1]`."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    BUILDER_CONFIGS = [
        SimulatedConfig(
            name="phantom",
            description="Simulated brains, 128 x 128 at 1.75 mm; no download.",
            read=read,
            protocol=mr_scan.Protocol(),
            patients=(60, 8, 12),
            seed=10,  # not those of `mri_contrast`: other patients
        ),
        SimulatedConfig(
            name="phantom_tiny",
            description="A few brains, 64 x 64 at 3.5 mm, for trying things out.",
            read=read,
            protocol=mr_scan.Protocol(size=64, slices=4),
            patients=(6, 2, 2),
            seed=12,
        ),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        protocol = self.builder_config.protocol
        shape, spacing = (protocol.size, protocol.size, 1), (protocol.spacing, protocol.spacing)
        classes = (0.0, len(brain.LABELS) - 1.0)
        image = features.Image
        mr = image(shape, np.uint16, "MR", "signal", mr_scan.WINDOW, spacing, plane=None)
        tissue = image(shape, np.uint8, "SEG", "class", classes, spacing, plane=None)
        return features.info(
            self,
            {"source": mr, "target": tissue},
            metadata={"label_names": list(brain.LABELS)},
        )
