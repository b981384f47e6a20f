"""Super-resolution: CT, MR and mammograms, and MR volumes, with their low-resolution scans."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from zoo_datasets import features, own_scans
from zoo_datasets.cases import Case, Examples, SourceConfig
from zoo_datasets.phantoms import atlas, mr_scan
from zoo_datasets.publishers import cbis_ddsm, lidc, mr_signal
from zoo_datasets.publishers import ixi as ixi_files
from zoo_datasets.simulated import SimulatedBuilder, SimulatedConfig
from zoo_datasets.sr import averaged, ixi, mni152, phantom, scanned, varied

_SCANS = """\
Your own MR, of whatever licence permits it, such as that of https://openneuro.org.
Put or link a folder for each patient into the manual directory, with DICOM series or NIfTI files.
Patients in a folder `validation` beside a folder `train` choose the weights; without such folders a
hash of each folder's name decides.
"""
_SUBJECTS = (160, 6, 2)  # simulated, of each split


def with_scans(root: Path) -> dict[str, list[Case]]:
    """The user's patients and simulated subjects, by split."""
    atlas.files()  # else each subject that lacks them would be called a bad file
    return own_scans.find(root, _SUBJECTS)


def simulated(case: Case, config: "Simulated") -> Examples:
    """The images of a simulated patient, or of one whose scans the user has."""
    if "scan" in case.files:
        yield from scanned.tiles(config.protocol, config.seed, case)
        return
    for i, images in enumerate(config.patient(config.protocol, config.seed, case.facts["number"])):
        pixels = {key: image[..., None] for key, image in images.items() if key != "spacing"}
        yield case.example(f"{case.key}-{i}", **images | pixels)


@dataclasses.dataclass(eq=False, kw_only=True)
class Simulated(SimulatedConfig[phantom.Protocol]):
    """Simulated patients.

    Attributes:
        patient: (protocol, seed, number) to the images of a patient, by feature.
    """

    read: Callable[[Case, Any], Examples] = simulated
    patient: Callable[[phantom.Protocol, int, int], list[dict[str, np.ndarray]]] = phantom.patient


@dataclasses.dataclass(eq=False, kw_only=True)
class Published(SourceConfig):
    """A publisher's images.

    Attributes:
        modality: "CT", "MR" or "MG".
        size: rows and columns of the targets, where all are alike.
        slices: of each CT series.
        scales: low-resolution forms that are made.
    """

    modality: str
    size: int = 0
    slices: int = 8
    scales: tuple[int, ...] = (2, 4, 8)


class Builder(SimulatedBuilder):
    """`target` and `source_x2`, `source_x4`, `source_x8`: `[H, W, 1]` or `[D, H, W, 1]`."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    BUILDER_CONFIGS = [
        Simulated(
            name="phantom_ct",
            description="Simulated chest and abdomen CT, 256 x 256 at 1.4 mm.",
            protocol=phantom.Protocol(),
            patients=(40, 6, 10),
        ),
        Simulated(
            name="mni152",
            description="T1 of a real average brain, deformed, 256 x 256 at 0.9 mm; needs nilearn.",
            protocol=phantom.Protocol("MR", field=230.4),
            patient=mni152.patient,
            check=atlas.files,
            patients=(40, 6, 10),
            seed=5,
        ),
        Simulated(
            name="phantom_mr",
            description="Simulated T1-weighted MR of the head, 256 x 256 at 0.9 mm.",
            protocol=phantom.Protocol("MR", field=230.4),
            patients=(40, 6, 10),
            seed=1,
        ),
        Simulated(
            name="varied_mr",
            description="Heads, the average brain and random shapes in many contrasts, 256 x 256 "
            "at 0.5 to 1.2 mm, sharp to soft, 0.3 to 4 % noise: to train on; needs nilearn.",
            protocol=phantom.Protocol("MR", slices=3),
            patient=varied.patient,
            check=atlas.files,
            patients=(380, 10, 20),
            seed=6,
        ),
        Simulated(
            name="varied_mr_files",
            description="The same in other subjects, reduced as finished files are, most of them "
            "with a background of zeros: to train on; needs nilearn.",
            protocol=phantom.Protocol("MR", slices=3),
            patient=scanned.patient,
            check=atlas.files,
            patients=_SUBJECTS,
            seed=7,
        ),
        Simulated(
            name="varied_mr_scans",
            description="The same beside your own MR, from the manual directory; needs nilearn.",
            find=with_scans,
            manual=_SCANS,
            licence="that of your scans",
            protocol=phantom.Protocol("MR", slices=3),
            patient=scanned.patient,
            patients=_SUBJECTS,
            seed=7,
        ),
        Simulated(
            name="phantom_tiny",
            description="The same MR at 64 x 64 and 3.6 mm, for trying things out.",
            protocol=phantom.Protocol("MR", size=64, field=230.4),
            patients=(6, 2, 2),
            seed=2,
        ),
        Simulated(
            name="phantom_3d",
            description="Simulated T1-weighted MR volumes of the head, 32 x 64 x 64 at 3.25 mm.",
            protocol=phantom.Protocol("MR", size=64, depth=32, field=208.0),
            patients=(30, 4, 8),
            seed=3,
        ),
        Simulated(
            name="phantom_3d_tiny",
            description="The same volumes at 16 x 32 x 32 and 6.5 mm, for trying things out.",
            # Scale 8 would leave two slices.
            protocol=phantom.Protocol("MR", size=32, depth=16, field=208.0, scales=(2, 4)),
            patients=(6, 2, 2),
            seed=4,
        ),
        Published(
            name="ixi",
            description="T2-weighted axial slices of the healthy subjects of IXI.",
            find=functools.partial(ixi_files.find, contrasts=("T2",)),
            read=ixi.read,
            manual=ixi_files.manual(("T2",), minutes=40),
            licence=ixi_files.LICENCE,
            modality="MR",
        ),
        Published(
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
        Published(
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
        if isinstance(config, Simulated):
            make, scales = _simulated_image, config.protocol.scales
            dimensions, others = config.protocol.dimensions, {}
            spacing = config.patient is not phantom.patient  # else the metadata tell it
        else:
            make, scales, dimensions = _published_image, config.scales, 2
            others = {"scale": np.float32} if config.modality == "MR" else {}
            spacing = config.modality != "MG"  # CBIS-DDSM files carry no pixel spacing
        images = {f"source_x{scale}": make(config, scale) for scale in scales}
        return features.info(
            self,
            images | {"target": make(config, 1)},
            others,
            spacing=spacing,
            supervised=("source_x2", "target"),
            metadata={"dimensions": dimensions, "scales": list(scales)},
        )


def _simulated_image(config: Simulated, scale: int) -> features.Image:
    protocol, spacing = config.protocol, None
    if config.patient not in (varied.patient, scanned.patient):  # whose pixels differ in size
        spacing = (scale * protocol.spacing,) * protocol.dimensions
    shape = (*protocol.shape(scale), 1)
    if protocol.modality == "CT":
        return features.Image(shape, np.int16, "CT", "HU", features.CT_WINDOW, spacing)
    return features.Image(shape, np.uint16, "MR", "signal", mr_scan.WINDOW, spacing)


def _published_image(config: Published, scale: int) -> features.Image:
    dtype, unit, window, plane = {
        "CT": (np.int16, "HU", features.CT_WINDOW, "axial"),
        "MR": (np.float32, "signal", mr_signal.WINDOW, "axial"),
        "MG": (np.uint16, "signal", (0.0, 65535.0), None),
    }[config.modality]
    side = config.size // scale or None
    return features.Image((side, side, 1), dtype, config.modality, unit, window, None, plane)
