"""mammo: single mammograms, simulated (`phantom`, the default) or real (`cbis_ddsm`)."""

import dataclasses

import numpy as np
import tensorflow_datasets as tfds

from zoo_datasets import features
from zoo_datasets.cases import Case, Examples, SourceConfig
from zoo_datasets.mammo import phantom
from zoo_datasets.publishers import cbis_ddsm
from zoo_datasets.simulated import SimulatedBuilder, SimulatedConfig, numbered_cases


def simulated(case: Case, config: SimulatedConfig[phantom.Protocol]) -> Examples:
    """The simulated mammogram of a case."""
    yield case.key, phantom.example(case.facts["index"], config.seed, config.protocol.size)


@dataclasses.dataclass(eq=False, kw_only=True)
class Published(SourceConfig):
    """Images of CBIS-DDSM.

    Attributes:
        size: height and width, in pixels.
        labels: classes of the images; none where they have none.
    """

    size: int
    labels: tuple[str, ...] = ()


class Builder(SimulatedBuilder):
    """Mammograms {"image": uint16 [H, H, 1] signal, "patient", "name", "laterality", "view"}."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Initial release."}
    BUILDER_CONFIGS = [
        SimulatedConfig(
            name="phantom",
            description="Simulated mammograms, 256 x 256, 0.8 mm a pixel.",
            read=simulated,
            protocol=phantom.Protocol(256),
            patients=(128, 16, 16),
            seed=2024,
        ),
        SimulatedConfig(
            name="phantom_small",
            description="Simulated mammograms of other patients, 64 x 64, 3.2 mm a pixel.",
            read=simulated,
            protocol=phantom.Protocol(64),
            patients=(128, 8, 8),
            seed=2025,
        ),
        SimulatedConfig(
            name="phantom_tiny",
            description="A few simulated mammograms, 64 x 64, 3.2 mm a pixel, for tests.",
            read=simulated,
            protocol=phantom.Protocol(64),
            patients=(4, 1, 1),
            seed=2024,
        ),
        SimulatedConfig(
            name="phantom_128",
            description="Simulated mammograms of many other patients, 128 x 128, 1.6 mm a pixel.",
            read=simulated,
            protocol=phantom.Protocol(128),
            patients=(3000, 16, 128),
            seed=2026,
        ),
        SimulatedConfig(
            name="phantom_1024",
            description="Simulated mammograms, 1024 x 1024, 0.2 mm a pixel.",
            read=simulated,
            protocol=phantom.Protocol(1024),
            patients=(24, 4, 4),
            seed=2024,
        ),
        Published(
            name="cbis_ddsm",
            description="CBIS-DDSM (TCIA), digitised film, fitted into 1024 x 1024.",
            size=1024,
            licence="CC BY 3.0",
            idc="cbis_ddsm",
            find=cbis_ddsm.find,
            read=cbis_ddsm.read,
            manual=cbis_ddsm.MANUAL,
        ),
        Published(
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
        others = {"laterality": tfds.features.Text(), "view": tfds.features.Text()}
        if isinstance(config, SimulatedConfig):
            size, most = config.protocol.size, phantom.MAXIMUM
            spacing = (phantom.FIELD / size, phantom.FIELD / size)
        else:
            size, most, spacing = config.size, 65535, None  # the files carry no pixel spacing
            if config.labels:
                others["label"] = tfds.features.ClassLabel(names=list(config.labels))
                others["kind"] = tfds.features.Text()
        image = features.Image((size, size, 1), np.uint16, "MG", "signal", (0, most), spacing, None)
        return features.info(
            self,
            {"image": image},
            others,
            homepage="https://www.cancerimagingarchive.net/collection/cbis-ddsm/",
        )

    def simulated_cases(self) -> dict[str, list[Case]]:
        """One case an image, four images a patient."""
        images = [len(phantom.VIEWS) * count for count in self.builder_config.patients]
        return numbered_cases(images, _case)


def _case(index: int) -> Case:
    patient = phantom.patient_name(index)
    return Case(key=phantom.name(index), patient=patient, facts={"index": index})
