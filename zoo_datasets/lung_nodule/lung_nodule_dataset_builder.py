"""Patches of lung CT, labelled: simulated (`phantom`), or of LIDC-IDRI (`lidc`)."""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow_datasets as tfds

from zoo_datasets import features
from zoo_datasets.cases import SourceConfig
from zoo_datasets.lung_nodule import lidc_patches, phantom
from zoo_datasets.publishers import lidc
from zoo_datasets.simulated import SimulatedBuilder, SimulatedConfig

WINDOW = (-1000.0, 400.0)  # HU


@dataclasses.dataclass(eq=False, kw_only=True)
class Lidc(SourceConfig):
    """Patches of LIDC-IDRI.

    Attributes:
        labels: classes of the patches.
        label: the class of a nodule by what its readers said.
        readers: of the four, how many must have marked a nodule.
        apart: mm, how far the middles of their marks may lie from each other.
    """

    labels: tuple[str, ...]
    label: Callable[[list[lidc.Mark]], str]
    readers: int = 3
    apart: float = 8.0


def _lidc(name: str, description: str, **fields) -> Lidc:
    return Lidc(
        name=name,
        description=description,
        find=lidc.find,
        read=lidc_patches.read,
        manual=lidc.MANUAL,
        licence="CC BY 3.0",
        idc="lidc_idri",
        bad_limit=0.05,  # some scans of the collection lack slices
        **fields,
    )


class Builder(SimulatedBuilder):
    """`image`: HU int16 `[64, 64, 1]` at 0.7 mm; `label`: what is in the middle."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    BUILDER_CONFIGS = [
        SimulatedConfig(
            name="phantom",
            description="2000 simulated training patches, 64 x 64 at 0.7 mm.",
            read=phantom.read,
            protocol=phantom.Protocol(),
            patients=(250, 20, 40),
        ),
        SimulatedConfig(
            name="phantom_tiny",
            description="A few such patches of other patients, for trying things out.",
            read=phantom.read,
            protocol=phantom.Protocol(patches=4),
            patients=(6, 1, 1),
            seed=1,
        ),
        _lidc(
            "lidc",
            "LIDC-IDRI: nodules that 3 of 4 readers marked, by their malignancy.",
            labels=lidc_patches.MALIGNANCY,
            label=lidc_patches.malignancy,
        ),
        _lidc(
            "lidc_texture",
            "The same nodules, solid or ground glass, as the phantom's.",
            labels=lidc_patches.TEXTURE,
            label=lidc_patches.texture,
        ),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        real = isinstance(config, Lidc)
        labels = list(config.labels if real else phantom.LABELS)
        shape, spacing = (phantom.SIZE, phantom.SIZE, 1), (phantom.SPACING, phantom.SPACING)
        image = features.Image(shape, np.int16, "CT", "HU", WINDOW, spacing)
        return features.info(
            self,
            {"image": image},
            {"label": tfds.features.ClassLabel(names=labels)},
            spacing=real,
            supervised=("image", "label"),
            homepage="https://www.cancerimagingarchive.net/collection/lidc-idri/",
        )
