"""mammo: single mammograms, simulated (`phantom`, the default) or real (`cbis_ddsm`)."""

import dataclasses
import functools
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from zoo_datasets.cases import SPLITS, Case, Examples, SourceConfig
from zoo_datasets.features import domain, image_feature
from zoo_datasets.mammo import phantom
from zoo_datasets.publishers import cbis_ddsm
from zoo_datasets.sources import SourceBuilder
from zoo_datasets.workers import map_in_order

# Below this many pixels a split is done before worker processes have started.
_POOL_PIXELS = 2_000_000


def simulated(case: Case, config: "MammoConfig") -> Examples:
    """The simulated mammogram of a case."""
    yield case.key, phantom.example(case.facts["index"], config.seed, config.size)


@dataclasses.dataclass(eq=False)
class MammoConfig(SourceConfig):
    """A source of mammograms.

    Attributes:
        size: height and width of the images, in pixels.
        patients: simulated patients of the train, validation and test split, four images each.
        seed: seed of the simulation.
        labels: classes of the images; none where they have none.
    """

    size: int = 256
    patients: tuple[int, int, int] = (0, 0, 0)
    seed: int = 2024
    labels: tuple[str, ...] = ()
    read: Any = simulated


class Builder(SourceBuilder):
    """Mammograms {"image": uint16 [H, H, 1] signal, "patient", "name", "laterality", "view"}."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Initial release."}
    BUILDER_CONFIGS = [
        MammoConfig(
            name="phantom",
            description="Simulated mammograms, 256 x 256, 0.8 mm a pixel.",
            size=256,
            patients=(128, 16, 16),
        ),
        MammoConfig(
            name="phantom_small",
            description="Simulated mammograms of other patients, 64 x 64, 3.2 mm a pixel.",
            size=64,
            patients=(128, 8, 8),
            seed=2025,
        ),
        MammoConfig(
            name="phantom_tiny",
            description="A few simulated mammograms, 64 x 64, 3.2 mm a pixel, for tests.",
            size=64,
            patients=(4, 1, 1),
        ),
        MammoConfig(
            name="phantom_1024",
            description="Simulated mammograms, 1024 x 1024, 0.2 mm a pixel.",
            size=1024,
            patients=(24, 4, 4),
        ),
        MammoConfig(
            name="cbis_ddsm",
            description="CBIS-DDSM (TCIA), digitised film, fitted into 1024 x 1024.",
            size=1024,
            licence="CC BY 3.0",
            idc="cbis_ddsm",
            find=cbis_ddsm.find,
            read=cbis_ddsm.read,
            manual=cbis_ddsm.MANUAL,
        ),
        MammoConfig(
            name="cbis_ddsm_lesions",
            description="Lesions cropped from CBIS-DDSM, with their pathology, 256 x 256.",
            size=256,
            labels=cbis_ddsm.PATHOLOGIES,
            licence="CC BY 3.0",
            idc="cbis_ddsm_lesions",
            find=cbis_ddsm.find_lesions,
            read=cbis_ddsm.read_lesion,
            manual=cbis_ddsm.MANUAL_LESIONS,
        ),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        size = config.size
        real = config.find is not None
        features = {
            "image": image_feature((size, size, 1), np.uint16),
            "patient": tfds.features.Text(),
            "name": tfds.features.Text(),
            "laterality": tfds.features.Text(),
            "view": tfds.features.Text(),
        }
        if config.labels:
            features["label"] = tfds.features.ClassLabel(names=list(config.labels))
            features["kind"] = tfds.features.Text()
        image = domain(
            "MG",
            "signal",
            (0, 65535 if real else phantom.MAXIMUM),
            # CBIS-DDSM files carry no pixel spacing.
            None if real else (phantom.FIELD / size, phantom.FIELD / size),
            plane=None,
        )
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features),
            homepage="https://www.cancerimagingarchive.net/collection/cbis-ddsm/",
            metadata=tfds.core.MetadataDict({"kind": "single", "image": image}),
        )

    def simulated_cases(self) -> dict[str, list[Case]]:
        """One case an image, four images a patient."""
        ends = np.cumsum([0, *self.builder_config.patients]) * len(phantom.VIEWS)
        return {
            split: [
                Case(
                    key=phantom.name(index),
                    patient=phantom.patient_name(index),
                    facts={"index": index},
                )
                for index in range(ends[k], ends[k + 1])
            ]
            for k, split in enumerate(SPLITS)
        }

    def _generate_examples(self, cases: list[Case]) -> Examples:
        config = self.builder_config
        if config.find or len(cases) * config.size**2 < _POOL_PIXELS:
            yield from super()._generate_examples(cases)
            return
        read = functools.partial(phantom.example, seed=config.seed, size=config.size)
        for example in map_in_order(read, [case.facts["index"] for case in cases]):
            yield example["name"], example
