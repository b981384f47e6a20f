"""Patches of lung CT, labelled: simulated (`phantom`), or of LIDC-IDRI (`lidc`)."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from zoo_datasets.cases import SourceConfig
from zoo_datasets.features import domain, image_feature
from zoo_datasets.lung_nodule import lidc_patches, phantom
from zoo_datasets.publishers import lidc
from zoo_datasets.simulated import SimulatedBuilder

WINDOW = (-1000.0, 400.0)  # HU


@dataclasses.dataclass(eq=False)
class Config(SourceConfig):
    """A source of patches.

    Attributes:
        patients: simulated ones of train, validation and test.
        patches: of each simulated patient.
        seed: of the simulation.
        labels: classes of the patches.
        label: the class of a nodule by what its readers said.
        readers: of the four, how many must have marked a nodule.
        apart: mm, how far the middles of their marks may lie from each other.
    """

    patients: tuple[int, int, int] = (0, 0, 0)
    patches: int = 8
    seed: int = 0
    labels: tuple[str, ...] = phantom.LABELS
    label: Callable[[list[lidc.Mark]], str] | None = None
    readers: int = 3
    apart: float = 8.0
    read: Any = phantom.read


_LIDC = dict(
    find=lidc.find,
    read=lidc_patches.read,
    manual=lidc.MANUAL,
    licence="CC BY 3.0",
    idc="lidc_idri",
    bad_limit=0.05,  # some scans of the collection lack slices
)


class Builder(SimulatedBuilder):
    """`image`: HU int16 `[64, 64, 1]` at 0.7 mm; `label`: what is in the middle."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    BUILDER_CONFIGS = [
        Config(
            name="phantom",
            description="2000 simulated training patches, 64 x 64 at 0.7 mm.",
            patients=(250, 20, 40),
        ),
        Config(
            name="phantom_tiny",
            description="A few such patches of other patients, for trying things out.",
            patients=(6, 1, 1),
            patches=4,
            seed=1,
        ),
        Config(
            name="lidc",
            description="LIDC-IDRI: nodules that 3 of 4 readers marked, by their malignancy.",
            labels=lidc_patches.MALIGNANCY,
            label=lidc_patches.malignancy,
            **_LIDC,
        ),
        Config(
            name="lidc_texture",
            description="The same nodules, solid or ground glass, as the phantom's.",
            labels=lidc_patches.TEXTURE,
            label=lidc_patches.texture,
            **_LIDC,
        ),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        features = {
            "image": image_feature((phantom.SIZE, phantom.SIZE, 1)),
            "label": tfds.features.ClassLabel(names=list(config.labels)),
            "patient": tfds.features.Text(),
            "name": tfds.features.Text(),
        }
        if config.find:
            features["spacing"] = tfds.features.Tensor(shape=(2,), dtype=np.float32)
        image = domain("CT", "HU", WINDOW, (phantom.SPACING, phantom.SPACING))
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            homepage="https://www.cancerimagingarchive.net/collection/lidc-idri/",
            metadata=tfds.core.MetadataDict({"kind": "single", "image": image}),
        )
