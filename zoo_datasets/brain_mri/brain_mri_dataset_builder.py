"""Single magnetic resonance images of the brain: a deformed average, IXI, BraTS, phantoms."""

import dataclasses
import functools

import numpy as np
import tensorflow_datasets as tfds

from zoo_datasets import features
from zoo_datasets.cases import Case, Examples, SourceConfig
from zoo_datasets.phantoms import atlas, mr_scan
from zoo_datasets.publishers import brats, ixi, mr_signal
from zoo_datasets.simulated import SimulatedBuilder, SimulatedConfig, slices


def average(case: Case, config: SimulatedConfig[atlas.Protocol]) -> Examples:
    """The slices of a subject deformed from the average brain."""
    protocol = config.protocol
    images = atlas.subject(protocol, config.seed, case.facts["number"])
    yield from slices(case, {"image": images["T1"]}, spacing=(protocol.spacing,) * 2)


def phantom(case: Case, config: SimulatedConfig[mr_scan.Protocol]) -> Examples:
    """The slices of a simulated head."""
    protocol = config.protocol
    images = mr_scan.patient(protocol, config.seed, case.facts["number"])
    yield from slices(case, {"image": images["T1"]}, spacing=(protocol.spacing,) * 2)


@dataclasses.dataclass(eq=False, kw_only=True)
class Published(SourceConfig):
    """A publisher's images; `contrast` is T1 as the publisher names it."""

    contrast: str = "T1"


class Builder(SimulatedBuilder):
    """`image`, T1-weighted signal `[H, W, 1]` (uint16, real ones float32), with `spacing` in mm."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    BUILDER_CONFIGS = [
        SimulatedConfig(
            name="mni152",
            description="T1 of a real average brain, deformed, 256 x 256 at 0.9 mm; needs nilearn.",
            read=average,
            protocol=atlas.Protocol(slices=8, contrasts=("T1",)),
            check=atlas.files,
            patients=(200, 20, 30),
            seed=41,
        ),
        SimulatedConfig(
            name="mni152_128",
            description="The same, other subjects, 128 x 128 at 1.6 mm.",
            read=average,
            protocol=atlas.Protocol(size=128, spacing=1.6, slices=8, contrasts=("T1",)),
            check=atlas.files,
            patients=(200, 20, 30),
            seed=42,
        ),
        SimulatedConfig(
            name="phantom",
            description="T1 of simulated heads, 128 x 128 at 1.75 mm; needs nothing.",
            read=phantom,
            protocol=mr_scan.Protocol(),
            patients=(200, 20, 30),
            seed=43,
        ),
        SimulatedConfig(
            name="phantom_tiny",
            description="A few simulated heads, 64 x 64 at 3.5 mm, for trying things out.",
            read=phantom,
            protocol=mr_scan.Protocol(size=64, slices=4),
            patients=(6, 2, 2),
            seed=44,
        ),
        Published(
            name="ixi",
            description="T1 of the healthy subjects of IXI, axial slices.",
            find=functools.partial(ixi.find, contrasts=("T1",)),
            read=ixi.images,
            manual=ixi.manual(("T1",), minutes=30),
            licence=ixi.LICENCE,
        ),
        Published(
            name="brats",
            description="T1 of the glioma patients of BraTS 2020 or 2021.",
            find=functools.partial(brats.find, contrasts=("t1",)),
            read=brats.images,
            manual=brats.MANUAL,
            licence=brats.LICENCE,
            contrast="t1",
        ),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        if isinstance(config, SimulatedConfig):
            image = mr_scan.image(config.protocol.size, config.protocol.spacing)
            contrast, others = "T1", {}
        else:
            image, contrast, others = mr_signal.IMAGE, config.contrast, {"scale": np.float32}
        return features.info(
            self, {"image": image}, others, spacing=True, metadata={"contrast": contrast}
        )
