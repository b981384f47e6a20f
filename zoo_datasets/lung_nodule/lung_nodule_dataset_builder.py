"""Patches of lung CT, labelled: no nodule, a solid or a ground-glass nodule; simulated."""

import dataclasses

import numpy as np
import tensorflow_datasets as tfds

from zoo_datasets.lung_nodule import phantom


@dataclasses.dataclass
class Config(tfds.core.BuilderConfig):
    """Simulated patients of train, validation and test, and patches of each."""

    patients: tuple[int, int, int] = (250, 20, 40)
    patches: int = 8
    seed: int = 0


class Builder(tfds.core.GeneratorBasedBuilder):
    """`image`: HU int16 `[64, 64, 1]`; `label`: no_nodule, solid or ground_glass."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    BUILDER_CONFIGS = [
        Config(
            name="phantom",
            description="2000 simulated training patches, 64 x 64 at 0.7 mm.",
        ),
        Config(
            name="phantom_tiny",
            description="A few such patches of other patients, for trying things out.",
            patients=(6, 1, 1),
            patches=4,
            seed=1,
        ),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Tensor(
                        shape=(phantom.SIZE, phantom.SIZE, 1),
                        dtype=np.int16,
                        encoding=tfds.features.Encoding.ZLIB,
                    ),
                    "label": tfds.features.ClassLabel(names=list(phantom.LABELS)),
                    "patient": tfds.features.Text(),
                    "name": tfds.features.Text(),
                }
            ),
            supervised_keys=("image", "label"),
            metadata=tfds.core.MetadataDict(
                {
                    "kind": "single",
                    "image": {
                        "modality": "CT",
                        "unit": "HU",
                        "window": [-1000.0, 400.0],
                        "channels": 1,
                        "spacing": [phantom.SPACING, phantom.SPACING],
                    },
                }
            ),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        ends = np.cumsum([0, *self.builder_config.patients]).tolist()
        return {
            split: self._generate_examples(range(ends[k], ends[k + 1]))
            for k, split in enumerate(("train", "validation", "test"))
        }

    def _generate_examples(self, numbers):
        config = self.builder_config
        for number in numbers:
            patches = phantom.patient(config.seed, number, config.patches)
            for i, (label, image) in enumerate(patches):
                name = f"P{number:03d}-{i}"
                yield (
                    name,
                    {
                        "image": image[..., None],
                        "label": label,
                        "patient": f"P{number:03d}",
                        "name": name,
                    },
                )
