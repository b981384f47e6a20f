"""Cone-beam-like CT to planning CT of the same simulated patient."""

import dataclasses

import numpy as np
import tensorflow_datasets as tfds

from zoo_datasets.cbct_ct import phantom

# Both domains share it, as in `ldct`: stored values start at -1024 HU, and only dense cortical
# bone exceeds 1500.
WINDOW = [-1024.0, 1500.0]


@dataclasses.dataclass
class Config(tfds.core.BuilderConfig):
    """A pair of protocols; `patients` counts those of train, validation and test."""

    scan: phantom.Scan = phantom.Scan()
    patients: tuple[int, int, int] = (40, 5, 10)
    seed: int = 20  # not those of ldct: other patients


class Builder(tfds.core.GeneratorBasedBuilder):
    """Pairs `source` (cone beam) and `target` (planning CT), HU `[H, W, 1]` int16."""

    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES = {
        "1.1.0": "One machine's scatter and drift; one scan in five is truncated, not two.",
        "1.0.0": "First release.",
    }
    # Coarser pixels and fewer views: the photons are fewer so that the noise in HU stays.
    BUILDER_CONFIGS = [
        Config(
            name="phantom",
            description="Simulated chest and abdomen, 256 x 256 at 1.4 mm; no download.",
        ),
        Config(
            name="phantom_small",
            description="Other patients, 128 x 128 at 2.8 mm; built in half a minute.",
            scan=phantom.Scan(128, 240, 1.2e4, 5.0, cone_photons=1.8e4, cone_electronic=5.0),
            patients=(24, 3, 6),
            seed=21,
        ),
        Config(
            name="phantom_tiny",
            description="A few patients, 64 x 64 at 5.6 mm, for trying things out.",
            scan=phantom.Scan(64, 96, 1.0e4, 4.0, cone_photons=1.4e4, cone_electronic=4.0),
            patients=(4, 1, 2),
            seed=22,
        ),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        scan = self.builder_config.scan
        image = tfds.features.Tensor(
            shape=(scan.size, scan.size, 1),
            dtype=np.int16,
            encoding=tfds.features.Encoding.ZLIB,
        )
        domain = {
            "modality": "CT",
            "unit": "HU",
            "window": WINDOW,
            "channels": 1,
            "spacing": [scan.spacing, scan.spacing],
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "source": image,
                    "target": image,
                    "patient": tfds.features.Text(),
                    "name": tfds.features.Text(),
                }
            ),
            supervised_keys=("source", "target"),
            metadata=tfds.core.MetadataDict(
                {"kind": "paired", "aligned": True, "source": domain, "target": dict(domain)}
            ),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        scanner = phantom.Scanner(self.builder_config.scan)
        splits, first = {}, 0
        counts = self.builder_config.patients
        for name, count in zip(("train", "validation", "test"), counts, strict=True):
            splits[name] = self._generate_examples(scanner, range(first, first + count))
            first += count
        return splits

    def _generate_examples(self, scanner, numbers):
        config = self.builder_config
        for number in numbers:
            images = scanner.patient(config.seed, number)
            for i in range(config.scan.slices):
                name = f"P{number:03d}-{i}"
                pair = {key: images[key][i, ..., None] for key in ("source", "target")}
                yield name, pair | {"patient": f"P{number:03d}", "name": name}
