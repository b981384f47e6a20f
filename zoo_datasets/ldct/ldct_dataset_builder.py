"""Low-dose to normal-dose CT: simulated phantoms, and two collections of TCIA."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from zoo_datasets.cases import Case, Examples, SourceConfig
from zoo_datasets.features import domain, image_feature
from zoo_datasets.ldct import cptac_sar, phantom, tcia, varied
from zoo_datasets.phantoms import ct_scan
from zoo_datasets.simulated import SimulatedBuilder

# Both doses share it. Soft tissue, lung and nearly all bone fit with their noise (quarter dose
# 80 HU); below -1024 scanners store nothing, and only dense cortical bone and metal exceed 1500.
WINDOW = [-1024.0, 1500.0]


_TCIA = """\
LDCT-and-Projection-data, Mayo Clinic: https://doi.org/10.7937/9NPB-2637 (CC BY 4.0; the images
are tens of GB, the projections, which are not needed, close to 1 TB).
1. Open https://www.cancerimagingarchive.net/collection/ldct-and-projection-data/ and accept the
   collection's data usage policy.
2. Download the "Images" manifest (.tcia) and open it with the NBIA Data Retriever, keeping its
   "Descriptive Directory Name" layout. Or `prepare --fetch` downloads the 100 patients whose two
   doses are at the Imaging Data Commons.
3. Put or link the patients' folders into the manual directory, so that it holds
   <patient>/<study>/<n>-Full Dose Images-<n>/*.dcm and
   <patient>/<study>/<n>-Low Dose Images-<n>/*.dcm, for example L067/…/1-001.dcm.
"""
_CPTAC_SAR = """\
CPTAC-SAR, National Cancer Institute: https://doi.org/10.7937/TCIA.2019.9BT23R95 (CC BY 4.0; the
CT of 18 patients is 13 GB).
1. Open https://www.cancerimagingarchive.net/collection/cptac-sar/ and download the manifest of
   the radiology images; the pathology slides are not needed. Open it with the NBIA Data
   Retriever. Or `prepare --fetch` downloads the CT from the Imaging Data Commons.
2. Put or link the patients' folders into the manual directory, so that it holds
   <patient>/<study>/<series>/*.dcm, for example C3L-00029/…/1-001.dcm.
3. Building simulates about one slice a second on each of up to four cores: 22 000 slices in hours.
"""


@dataclasses.dataclass(eq=False)
class Config(SourceConfig):
    """A source of pairs; `patients` (train, validation, test) counts simulated ones."""

    scan: ct_scan.Scan | varied.Scan | None = None
    patients: tuple[int, int, int] = (0, 0, 0)
    seed: int = 0
    processes: int = 2


def simulate(case: Case, config: Config) -> Examples:
    """The examples of one simulated patient."""
    yield from _simulated([case.facts["number"]], config, processes=1)


def _simulated(numbers: list[int], config: Config, processes: int) -> Iterator:
    for number, images in phantom.generate(config.scan, config.seed, numbers, processes):
        for i in range(config.scan.slices):
            name = f"P{number:03d}-{i}"
            pair = {key: images[key][i, ..., None] for key in ("source", "target")}
            yield name, pair | {"patient": f"P{number:03d}", "name": name}


class Builder(SimulatedBuilder):
    """Pairs `source` (quarter dose) and `target` (full dose), HU `[H, W, 1]` int16.

    Real pairs have their `spacing` (row, column) in mm, float32 `[2]`.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    BUILDER_CONFIGS = [
        Config(
            name="phantom",
            description="Simulated chest and abdomen, 256 x 256 at 1.4 mm; no download.",
            scan=ct_scan.Scan(),
            patients=(44, 6, 10),
            read=simulate,
        ),
        Config(
            name="phantom_small",
            description="Fewer patients, others than those of `phantom`; built in half a minute.",
            scan=ct_scan.Scan(),
            patients=(10, 2, 3),
            seed=1,
            read=simulate,
        ),
        Config(
            name="phantom_tiny",
            description="The same at 64 x 64 and 5.6 mm, for trying things out.",
            # Coarser pixels average more photons: fewer of them keep the noise in HU.
            scan=ct_scan.Scan(size=64, views=64, photons=1.2e4, electronic=5.0),
            patients=(6, 2, 2),
            seed=2,
            processes=1,  # starting a second one takes longer
            read=simulate,
        ),
        Config(
            name="varied",
            description="Patches of head, chest, abdomen and random shapes at 0.3 to 1 mm, "
            "9 to 140 HU of added noise, many kernels: to train on. Built in ten minutes.",
            scan=varied.Scan(),
            patients=(220, 5, 8),
            seed=10,
            read=varied.read,
        ),
        Config(
            name="varied_doses",
            description="The same of other subjects, for most of which the added noise is 0.7 to 4 "
            "times the full dose's, that of two thirds to a seventeenth of the dose.",
            scan=varied.Scan(head=(0.38, 1.0), ratio=(0.7, 4.0)),
            patients=(240, 2, 2),
            seed=12,
            read=varied.read,
        ),
        Config(
            name="varied_tiny",
            description="The same at 64 x 64, for trying things out.",
            scan=varied.Scan(
                size=64,
                slices=2,
                tile=32,
                views=64,
                body=(4.5, 7.0),
                head=(3.0, 4.0),
                shapes=(2.4, 5.0),
            ),
            patients=(6, 2, 2),
            seed=11,
            read=varied.read,
        ),
        Config(
            name="tcia",
            description="LDCT-and-Projection-data (Mayo Clinic), from the manual directory.",
            version="2.0.0",
            release_notes={"2.0.0": "Split by a hash of the patient; spacing."},
            find=tcia.find,
            read=tcia.read,
            manual=_TCIA,
            licence="CC BY 4.0",
            idc="ldct_and_projection_data",
        ),
        Config(
            name="cptac_sar",
            description="CT of CPTAC-SAR with simulated quarter dose, from the manual directory.",
            find=cptac_sar.find,
            read=cptac_sar.read,
            manual=_CPTAC_SAR,
            # Clinical series of many hospitals: some lack slices.
            bad_limit=0.2,
            licence="CC BY 4.0",
            idc="cptac_sar",
        ),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        scan = self.builder_config.scan
        size = getattr(scan, "tile", scan.size) if scan else None
        spacing = (scan.spacing,) * 2 if isinstance(scan, ct_scan.Scan) else None
        image = image_feature((size, size, 1))
        ct = domain("CT", "HU", WINDOW, spacing)
        features = {
            "source": image,
            "target": image,
            "patient": tfds.features.Text(),
            "name": tfds.features.Text(),
        }
        if not spacing:  # the pixels of the others all have the size that the metadata state
            features["spacing"] = tfds.features.Tensor(shape=(2,), dtype=np.float32)
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features),
            homepage="https://doi.org/10.7937/9NPB-2637",
            supervised_keys=("source", "target"),
            metadata=tfds.core.MetadataDict(
                {"kind": "paired", "aligned": True, "source": ct, "target": dict(ct)}
            ),
        )

    def _generate_examples(self, cases: list[Case]) -> Examples:
        config = self.builder_config
        if config.read is simulate:
            yield from _simulated(
                [case.facts["number"] for case in cases], config, config.processes
            )
        else:
            yield from super()._generate_examples(cases)
