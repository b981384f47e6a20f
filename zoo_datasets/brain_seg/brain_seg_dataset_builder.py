"""Tissue segmentation: a T1-weighted slice of a simulated brain to its label map."""

import dataclasses

import numpy as np
import tensorflow_datasets as tfds

from zoo_datasets.phantoms import brain, mr_scan


@dataclasses.dataclass
class Config(tfds.core.BuilderConfig):
    """A protocol; `patients` counts those of train, validation and test."""

    scan: mr_scan.Scan = mr_scan.Scan()
    patients: tuple[int, int, int] = (60, 8, 12)
    seed: int = 10  # not those of mri_contrast: other patients


class Builder(tfds.core.GeneratorBasedBuilder):
    """`source` (T1w signal, uint16) and `target` (tissue of each pixel, uint8), `[H, W, 1]`."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    BUILDER_CONFIGS = [
        Config(name="phantom", description="Simulated brains, 128 x 128 at 1.75 mm; no download."),
        Config(
            name="phantom_tiny",
            description="A few brains, 64 x 64 at 3.5 mm, for trying things out.",
            scan=mr_scan.Scan(size=64, slices=4),
            patients=(6, 2, 2),
            seed=12,
        ),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        scan = self.builder_config.scan
        zlib = tfds.features.Encoding.ZLIB
        shape = (scan.size, scan.size, 1)
        spacing = [scan.spacing, scan.spacing]
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "source": tfds.features.Tensor(shape=shape, dtype=np.uint16, encoding=zlib),
                    "target": tfds.features.Tensor(shape=shape, dtype=np.uint8, encoding=zlib),
                    "patient": tfds.features.Text(),
                    "name": tfds.features.Text(),
                }
            ),
            supervised_keys=("source", "target"),
            metadata=tfds.core.MetadataDict(
                {
                    "kind": "paired",
                    "aligned": True,
                    "source": {
                        "modality": "MR",
                        "unit": "signal",
                        "window": [0.0, float(mr_scan.MAXIMUM)],
                        "channels": 1,
                        "spacing": spacing,
                    },
                    "target": {
                        "modality": "SEG",
                        "unit": "class",
                        "window": [0.0, len(brain.LABELS) - 1.0],
                        "channels": 1,
                        "spacing": spacing,
                    },
                    "label_names": list(brain.LABELS),
                }
            ),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        splits, first = {}, 0
        counts = self.builder_config.patients
        for name, count in zip(("train", "validation", "test"), counts, strict=True):
            splits[name] = self._generate_examples(range(first, first + count))
            first += count
        return splits

    def _generate_examples(self, numbers):
        config = self.builder_config
        for number in numbers:
            images = mr_scan.patient(config.scan, config.seed, number)
            for i in range(config.scan.slices):
                name = f"P{number:03d}-{i}"
                yield (
                    name,
                    {
                        "source": images["T1"][i, ..., None],
                        "target": images["labels"][i, ..., None],
                        "patient": f"P{number:03d}",
                        "name": name,
                    },
                )
