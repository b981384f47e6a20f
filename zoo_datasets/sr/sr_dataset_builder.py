"""Super-resolution: CT, MR and mammograms, and MR volumes, with their low-resolution scans."""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import tensorflow_datasets as tfds

from zoo_datasets.cases import Case, Examples, SourceConfig
from zoo_datasets.features import domain, image_feature
from zoo_datasets.phantoms import atlas
from zoo_datasets.publishers import cbis_ddsm, lidc, mr_signal
from zoo_datasets.publishers import ixi as ixi_files
from zoo_datasets.simulated import SimulatedBuilder
from zoo_datasets.sr import averaged, ixi, mni152, phantom, varied

# As in `ldct` and `mri_contrast`.
WINDOWS = {
    "CT": (-1024.0, 1500.0),
    "MR": (0.0, float(phantom.MAXIMUM)),
    "MG": (0.0, 65535.0),
}
UNITS = {"CT": "HU", "MR": "signal", "MG": "signal"}


def simulated(case: Case, config: "Config") -> Examples:
    """The images of a simulated patient."""
    patient = config.patient(config.scan, config.seed, case.facts["number"])
    for i, images in enumerate(patient):
        name = f"{case.key}-{i}"
        own = {"spacing": images.pop("spacing")} if "spacing" in images else {}
        example = {key: image[..., None] for key, image in images.items()} | own
        if config.patient is mni152.patient:
            example["spacing"] = np.float32([config.scan.spacing, config.scan.spacing])
        yield name, example | {"patient": case.patient, "name": name}


@dataclasses.dataclass(eq=False)
class Config(SourceConfig):
    """A source of images at several resolutions.

    Attributes:
        scan: of simulated patients; None where files are read.
        patient: (scan, seed, number) to the images of a simulated patient.
        patients: simulated patients of train, validation and test.
        seed: of the simulation.
        modality: "CT", "MR" or "MG", of files; a simulation's is its scan's.
        size: rows and columns of files' targets, where all are alike.
        slices: of each CT series.
        scales: low-resolution forms made of files.
        window: of files; None: the modality's.
    """

    read: Callable[[Case, SourceConfig], Examples] | None = simulated
    scan: phantom.Scan | None = None
    patient: Callable = phantom.patient
    patients: tuple[int, int, int] = (4, 1, 1)
    seed: int = 0
    modality: str = "MR"
    size: int = 0
    slices: int = 8
    scales: tuple[int, ...] = (2, 4, 8)
    window: tuple[float, float] | None = None


class Builder(SimulatedBuilder):
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
            name="mni152",
            description="T1 of a real average brain, deformed, 256 x 256 at 0.9 mm; needs nilearn.",
            scan=phantom.Scan("MR", field=230.4),
            patient=mni152.patient,
            patients=(40, 6, 10),
            seed=5,
        ),
        Config(
            name="phantom_mr",
            description="Simulated T1-weighted MR of the head, 256 x 256 at 0.9 mm.",
            scan=phantom.Scan("MR", field=230.4),
            patients=(40, 6, 10),
            seed=1,
        ),
        Config(
            name="varied_mr",
            description="Heads, the average brain and random shapes in many contrasts, 256 x 256 "
            "at 0.5 to 1.2 mm, sharp to soft, 0.3 to 4 % noise: to train on; needs nilearn.",
            scan=phantom.Scan("MR", slices=3),
            patient=varied.patient,
            patients=(380, 10, 20),
            seed=6,
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
        Config(
            name="ixi",
            description="T2-weighted axial slices of the healthy subjects of IXI.",
            find=functools.partial(ixi_files.find, contrasts=("T2",)),
            read=ixi.read,
            manual=ixi_files.manual(("T2",), minutes=40),
            licence=ixi_files.LICENCE,
            window=mr_signal.WINDOW,
        ),
        Config(
            name="lidc",
            description="Axial slices of LIDC-IDRI: chest CT of 1010 patients, 512 x 512.",
            find=lidc.find_series,
            read=averaged.read_lidc,
            manual=lidc.MANUAL,
            modality="CT",
            licence="CC BY 3.0",
            idc="lidc_idri",
            bad_limit=0.05,  # some scans of the collection lack slices
        ),
        Config(
            name="cbis_ddsm",
            description="Mammograms of CBIS-DDSM, digitised film, fitted into 1024 x 1024.",
            find=cbis_ddsm.find,
            read=averaged.read_cbis_ddsm,
            manual=cbis_ddsm.MANUAL,
            modality="MG",
            size=1024,
            licence="CC BY 3.0",
            idc="cbis_ddsm",
        ),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        scan = config.scan
        modality = scan.modality if scan else config.modality
        scales = scan.scales if scan else config.scales
        features, domains = {}, {}
        for scale in (1, *scales):
            name = "target" if scale == 1 else f"source_x{scale}"
            side = config.size // scale or None
            shape = scan.shape(scale) if scan else (side, side)
            one = scan and config.patient is not varied.patient  # size of all pixels
            spacing = (scale * scan.spacing,) * scan.dimensions if one else None
            dtype = {"CT": np.int16, "MG": np.uint16, "MR": np.uint16 if scan else np.float32}
            features[name] = image_feature((*shape, 1), dtype[modality])
            window = config.window or WINDOWS[modality]
            domains[name] = domain(
                modality,
                UNITS[modality],
                window,
                spacing,
                plane=None if modality == "MG" else "axial",
            )
        if config.find and modality == "MR":
            features["scale"] = np.float32
        # CBIS-DDSM files carry no pixel spacing.
        if (config.find and modality != "MG") or config.patient in (mni152.patient, varied.patient):
            features["spacing"] = tfds.features.Tensor(shape=(2,), dtype=np.float32)
        features |= {"patient": tfds.features.Text(), "name": tfds.features.Text()}
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("source_x2", "target"),
            metadata=tfds.core.MetadataDict(
                {
                    "kind": "paired",
                    "aligned": True,
                    "dimensions": scan.dimensions if scan else 2,
                    "scales": list(scales),
                    **domains,
                }
            ),
        )

    def simulated_cases(self) -> dict[str, list[Case]]:
        """One case a patient."""
        if self.builder_config.patient in (mni152.patient, varied.patient):
            atlas.files()  # tells at once what is missing
        return super().simulated_cases()
