"""ct_recon: CT images from few and noisy projections, simulated (`phantom`) or LoDoPaB-CT."""

import dataclasses
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from zoo.physics import radon
from zoo_datasets.cases import SourceConfig
from zoo_datasets.ct_recon import lodopab, phantom
from zoo_datasets.features import domain, image_feature
from zoo_datasets.simulated import SimulatedBuilder

# As in `ldct`: stored values start at -1024 HU, and only dense cortical bone exceeds 1500.
HU_WINDOW = (-1024.0, 1500.0)
# About the same in LoDoPaB-CT's normalised attenuation: 0.62 are 1524 HU.
ATTENUATION_WINDOW = (0.0, 0.62)
LINE_WINDOW = (0.0, 8.0)  # 8 are 40 cm of water


@dataclasses.dataclass(eq=False)
class Config(SourceConfig):
    """A source of pairs.

    Attributes:
        scan: the simulated protocol; None for files.
        fbp: whether the source is the sinogram's filtered back-projection, an image.
        images: for a config whose sources are sinograms, the one that has them as images.
        patients: simulated patients of train, validation and test.
        seed: seed of the simulation.
    """

    scan: phantom.Scan | None = None
    fbp: bool = False
    images: str = ""
    patients: tuple[int, int, int] = (0, 0, 0)
    seed: int = 60
    read: Any = phantom.read


_SCAN, _TINY = phantom.Scan(), phantom.Scan(size=64, views=32, photons=1.2e4, electronic=5.0)
_LODOPAB = {
    "find": lodopab.find,
    "read": lodopab.read,
    "manual": lodopab.MANUAL,
    "licence": "CC BY 4.0",
}


class Builder(SimulatedBuilder):
    """Pairs `source` (sinogram, or its filtered back-projection) and `target` (CT image)."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    BUILDER_CONFIGS = [
        Config(
            name="phantom",
            description="Simulated chest and abdomen, 256 x 256 at 1.4 mm, from 64 noisy views.",
            scan=_SCAN,
            images="phantom_fbp",
            patients=(40, 5, 10),
        ),
        Config(
            name="phantom_fbp",
            description="The same patients; the source is the image that 64 views give, in HU.",
            scan=_SCAN,
            fbp=True,
            patients=(40, 5, 10),
        ),
        Config(
            name="phantom_tiny",
            description="A few other patients, 64 x 64 at 5.6 mm, from 32 views, for trying out.",
            scan=_TINY,
            images="phantom_fbp_tiny",
            patients=(4, 1, 2),
            seed=61,
        ),
        Config(
            name="phantom_fbp_tiny",
            description="The patients of `phantom_tiny`; the source is the image, in HU.",
            scan=_TINY,
            fbp=True,
            patients=(4, 1, 2),
            seed=61,
        ),
        Config(
            name="lodopab",
            description="LoDoPaB-CT: chest CT, 362 x 362, from 1000 noisy views of 513 detectors.",
            images="lodopab_fbp",
            **_LODOPAB,
        ),
        Config(
            name="lodopab_fbp",
            description="LoDoPaB-CT; the source is the filtered back-projection, an image.",
            fbp=True,
            **_LODOPAB,
        ),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        beam, mm, number, target, formula = _simulated(config) if config.scan else _published()
        image = (beam["size"], beam["size"], 1)
        sinogram = (beam["views"], beam["detectors"], 1)
        source = (
            target if config.fbp else domain("CT", "line integral", LINE_WINDOW, None, plane=None)
        )
        features = {
            "source": image_feature(
                image if config.fbp else sinogram, number if config.fbp else np.float32
            ),
            "target": image_feature(image, number),
            "patient": tfds.features.Text(),
            "name": tfds.features.Text(),
        }
        if config.find:
            features["spacing"] = tfds.features.Tensor(shape=(2,), dtype=np.float32)
        metadata = {
            "kind": "paired",
            "aligned": True,
            "source": source,
            "target": target,
            "attenuation": formula,
            # The arguments of `zoo.physics.radon.ParallelBeam`.
            "parallel_beam": beam | {"spacing_mm": mm},
        }
        if config.images:
            metadata["images"] = f"{self.name}/{config.images}"
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features),
            homepage=lodopab.SOURCE,
            supervised_keys=("source", "target"),
            metadata=tfds.core.MetadataDict(metadata),
        )


def _simulated(config: Config) -> tuple[dict, float, Any, dict, str]:
    """Geometry, pixel pitch in mm, the images' type, their domain, their attenuation in words."""
    scan = config.scan
    beam = {
        "size": scan.size,
        "views": scan.views,
        "detectors": scan.detectors,
        "detector_mm": scan.spacing,
    }
    target = domain("CT", "HU", HU_WINDOW, (scan.spacing, scan.spacing))
    formula = f"mu = (HU / 1000 + 1) * {radon.MU_WATER} per mm"
    return beam, scan.spacing, np.int16, target, formula


def _published() -> tuple[dict, float, Any, dict, str]:
    beam = {
        "size": lodopab.SIZE,
        "views": lodopab.VIEWS,
        "detectors": lodopab.DETECTORS,
        "detector_mm": lodopab.DETECTOR,
    }
    mm = lodopab.SPACING
    target = domain("CT", "normalised attenuation", ATTENUATION_WINDOW, (mm, mm))
    formula = "mu = value * 0.08135858 per mm; HU = 1000 * (value * 81.35858 - 20) / (20 - 0.02)"
    return beam, mm, np.float32, target, formula
