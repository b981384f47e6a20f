"""Super-resolution: CT slices, MR slices and MR volumes with their low-resolution scans."""

import dataclasses

import numpy as np
import tensorflow_datasets as tfds

from zoo_datasets.sr import phantom

# As in `ldct` and `mri_contrast`.
WINDOWS = {"CT": ("HU", [-1024.0, 1500.0]), "MR": ("signal", [0.0, float(phantom.MAXIMUM)])}


@dataclasses.dataclass
class Config(tfds.core.BuilderConfig):
    """A scan of simulated patients; `patients` counts train, validation and test."""

    scan: phantom.Scan = dataclasses.field(default_factory=phantom.Scan)
    patients: tuple[int, int, int] = (4, 1, 1)
    seed: int = 0


class Builder(tfds.core.GeneratorBasedBuilder):
    """`target` and `source_x2`, `source_x4`, `source_x8`: `[H, W, 1]` or `[D, H, W, 1]`."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    BUILDER_CONFIGS = [
        Config(
            name="phantom_ct",
            description="Simulated chest and abdomen CT, 256 x 256 at 1.4 mm.",
            scan=phantom.Scan(),
            patients=(40, 6, 10),
        ),
        Config(
            name="phantom_mr",
            description="Simulated T1-weighted MR of the head, 256 x 256 at 0.9 mm.",
            scan=phantom.Scan("MR", field=230.4),
            patients=(40, 6, 10),
            seed=1,
        ),
        Config(
            name="phantom_tiny",
            description="The same MR at 64 x 64 and 3.6 mm, for trying things out.",
            scan=phantom.Scan("MR", size=64, field=230.4),
            patients=(6, 2, 2),
            seed=2,
        ),
        Config(
            name="phantom_3d",
            description="Simulated T1-weighted MR volumes of the head, 32 x 64 x 64 at 3.25 mm.",
            scan=phantom.Scan("MR", size=64, depth=32, field=208.0),
            patients=(30, 4, 8),
            seed=3,
        ),
        Config(
            name="phantom_3d_tiny",
            description="The same volumes at 16 x 32 x 32 and 6.5 mm, for trying things out.",
            # Scale 8 would leave two slices.
            scan=phantom.Scan("MR", size=32, depth=16, field=208.0, scales=(2, 4)),
            patients=(6, 2, 2),
            seed=4,
        ),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        scan = self.builder_config.scan
        unit, window = WINDOWS[scan.modality]
        features, domains = {}, {}
        for scale in (1, *scan.scales):
            name = "target" if scale == 1 else f"source_x{scale}"
            features[name] = tfds.features.Tensor(
                shape=(*scan.shape(scale), 1),
                dtype=scan.dtype,
                encoding=tfds.features.Encoding.ZLIB,
            )
            domains[name] = {
                "modality": scan.modality,
                "unit": unit,
                "window": window,
                "channels": 1,
                "spacing": [scale * scan.spacing] * scan.dimensions,
            }
        features |= {"patient": tfds.features.Text(), "name": tfds.features.Text()}
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("source_x2", "target"),
            metadata=tfds.core.MetadataDict(
                {
                    "kind": "paired",
                    "aligned": True,
                    "dimensions": scan.dimensions,
                    "scales": list(scan.scales),
                    **domains,
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
            for i, images in enumerate(phantom.patient(config.scan, config.seed, number)):
                name = f"P{number:03d}-{i}"
                example = {key: image[..., None] for key, image in images.items()}
                yield name, example | {"patient": f"P{number:03d}", "name": name}
