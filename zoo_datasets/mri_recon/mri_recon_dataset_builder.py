"""Image reconstruction from undersampled k-space: simulated MR of the head."""

import dataclasses

import numpy as np
import tensorflow_datasets as tfds

from zoo_datasets.mri_recon import phantom


@dataclasses.dataclass
class Config(tfds.core.BuilderConfig):
    """A protocol and the simulated patients of train, validation and test."""

    scan: phantom.Scan = dataclasses.field(default_factory=phantom.Scan)
    patients: tuple[int, int, int] = (4, 1, 1)
    seed: int = 0


class Builder(tfds.core.GeneratorBasedBuilder):
    """`source`: k-space `[n, n, 2]`; `target`: magnitude image `[n, n, 1]`; both float32."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    BUILDER_CONFIGS = [
        Config(
            name="phantom",
            description="Simulated T1- and T2-weighted heads, 64 x 64 at 3.5 mm, 2.5-fold.",
            patients=(400, 25, 50),
        ),
        Config(
            name="phantom_32",
            description="The same at 32 x 32 and 7 mm, for small dense networks.",
            scan=phantom.Scan(size=32),
            patients=(500, 25, 50),
            seed=1,
        ),
        Config(
            name="phantom_128",
            description="The same at 128 x 128 and 1.75 mm, 4-fold.",
            scan=phantom.Scan(size=128, acceleration=4, centre=0.08),
            patients=(120, 10, 20),
            seed=2,
        ),
        Config(
            name="phantom_tiny",
            description="A few scans of the protocol of `phantom_32`, for trying things out.",
            scan=phantom.Scan(size=32),
            patients=(6, 2, 2),
            seed=3,
        ),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        scan = self.builder_config.scan
        n, spacing = scan.size, [scan.spacing, scan.spacing]
        zlib = tfds.features.Encoding.ZLIB
        image = {"modality": "MR", "unit": "signal", "window": [0.0, 1.0], "channels": 1}
        # The largest value is the zero frequency, n times the image's mean, which is below 0.25.
        window = [-0.375 * n, 0.375 * n]
        kspace = {"modality": "MR", "unit": "k-space", "window": window, "channels": 2}
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "source": tfds.features.Tensor(
                        shape=(n, n, 2), dtype=np.float32, encoding=zlib
                    ),
                    "target": tfds.features.Tensor(
                        shape=(n, n, 1), dtype=np.float32, encoding=zlib
                    ),
                    "contrast": tfds.features.Text(),
                    "patient": tfds.features.Text(),
                    "name": tfds.features.Text(),
                }
            ),
            supervised_keys=("source", "target"),
            metadata=tfds.core.MetadataDict(
                {
                    "kind": "paired",
                    "aligned": True,
                    "source": kspace | {"spacing": None},
                    "target": image | {"spacing": spacing},
                    "acceleration": scan.operator.acceleration,
                    "noise": scan.noise,
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
            slices = phantom.patient(config.scan, config.seed, number)
            for i, (contrast, source, target) in enumerate(slices):
                name = f"P{number:03d}-{i}"
                yield (
                    name,
                    {
                        "source": source,
                        "target": target,
                        "contrast": contrast,
                        "patient": f"P{number:03d}",
                        "name": name,
                    },
                )
