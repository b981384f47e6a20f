"""Low-dose to normal-dose CT: simulated phantoms, and the Mayo data of TCIA."""

import dataclasses

import numpy as np
import tensorflow_datasets as tfds

from zoo_datasets.ldct import phantom, tcia

# Both doses share it. Soft tissue, lung and nearly all bone fit with their noise (quarter dose
# 80 HU); below -1024 scanners store nothing, and only dense cortical bone and metal exceed 1500.
WINDOW = [-1024.0, 1500.0]


@dataclasses.dataclass
class Config(tfds.core.BuilderConfig):
    """A source of pairs; `patients` (train, validation, test) counts simulated ones."""

    scan: phantom.Scan | None = None
    patients: tuple[int, int, int] = (0, 0, 0)
    seed: int = 0
    processes: int = 2


class Builder(tfds.core.GeneratorBasedBuilder):
    """Pairs `source` (quarter dose) and `target` (full dose), HU `[H, W, 1]` int16."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    BUILDER_CONFIGS = [
        Config(
            name="phantom",
            description="Simulated chest and abdomen, 256 x 256 at 1.4 mm; no download.",
            scan=phantom.Scan(),
            patients=(44, 6, 10),
        ),
        Config(
            name="phantom_small",
            description="Fewer patients, others than those of `phantom`; built in half a minute.",
            scan=phantom.Scan(),
            patients=(10, 2, 3),
            seed=1,
        ),
        Config(
            name="phantom_tiny",
            description="The same at 64 x 64 and 5.6 mm, for trying things out.",
            # Coarser pixels average more photons: fewer of them keep the noise in HU.
            scan=phantom.Scan(size=64, views=64, photons=1.2e4, electronic=5.0),
            patients=(6, 2, 2),
            seed=2,
            processes=1,  # starting a second one takes longer
        ),
        Config(
            name="tcia",
            description="LDCT-and-Projection-data (Mayo Clinic), from the manual directory.",
        ),
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    Only the config `tcia` needs this; `phantom` is simulated.
    1. Open https://www.cancerimagingarchive.net/collection/ldct-and-projection-data/ and accept
       the collection's data usage policy.
    2. Download the "Images" manifest (.tcia) and open it with the NBIA Data Retriever, keeping
       its "Descriptive Directory Name" layout. The projections (DICOM-CT-PD) are not needed.
    3. Put or link the patients' folders into the manual directory, so that it holds
       <patient>/<study>/<n>-Full Dose Images-<n>/*.dcm and
       <patient>/<study>/<n>-Low Dose Images-<n>/*.dcm, for example L067/…/1-001.dcm.
    """

    @property
    def manual_download_instructions(self) -> str | None:
        """Asked of the user only where the config reads the user's files."""
        return None if self.builder_config.scan else self.MANUAL_DOWNLOAD_INSTRUCTIONS

    def _info(self) -> tfds.core.DatasetInfo:
        scan = self.builder_config.scan
        size = scan.size if scan else None
        image = tfds.features.Tensor(
            shape=(size, size, 1), dtype=np.int16, encoding=tfds.features.Encoding.ZLIB
        )
        domain = {
            "modality": "CT",
            "unit": "HU",
            "window": WINDOW,
            "channels": 1,
            "spacing": [scan.spacing, scan.spacing] if scan else None,
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
            homepage="https://doi.org/10.7937/9NPB-2637",
            supervised_keys=("source", "target"),
            metadata=tfds.core.MetadataDict(
                {"kind": "paired", "aligned": True, "source": domain, "target": dict(domain)}
            ),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        config = self.builder_config
        if config.scan is None:
            splits = tcia.split(tcia.patients(dl_manager.manual_dir))
            return {
                name: self._generate_examples(self._read(folders))
                for name, folders in splits.items()
            }
        splits, first = {}, 0
        for name, count in zip(("train", "validation", "test"), config.patients, strict=True):
            splits[name] = self._generate_examples(self._simulate(range(first, first + count)))
            first += count
        return splits

    def _generate_examples(self, examples):
        return examples

    def _simulate(self, numbers):
        config = self.builder_config
        for number, images in phantom.generate(
            config.scan, config.seed, list(numbers), config.processes
        ):
            for i in range(config.scan.slices):
                name = f"P{number:03d}-{i}"
                pair = {key: images[key][i, ..., None] for key in ("source", "target")}
                yield name, pair | {"patient": f"P{number:03d}", "name": name}

    def _read(self, folders):
        for folder in folders:
            for i, source, target in tcia.pairs(folder):
                name = f"{folder.name}-{i:04d}"
                yield name, {
                    "source": source, "target": target, "patient": folder.name, "name": name
                }  # fmt: skip
