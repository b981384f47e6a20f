"""ct_recon: CT images from few and noisy projections, simulated (`phantom`) or LoDoPaB-CT."""

import dataclasses
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from zoo.physics import noise, radon
from zoo_datasets import features
from zoo_datasets.cases import SourceConfig
from zoo_datasets.ct_recon import lodopab, phantom
from zoo_datasets.features import CT_WINDOW, Image
from zoo_datasets.simulated import SimulatedBuilder, SimulatedConfig

# `CT_WINDOW` in LoDoPaB-CT's normalised attenuation: 0.62 are 1524 HU.
ATTENUATION_WINDOW = (0.0, 0.62)
LINE_WINDOW = (0.0, 8.0)  # 8 are 40 cm of water


@dataclasses.dataclass(eq=False, kw_only=True)
class _Form:
    """What the source is.

    Attributes:
        fbp: whether it is the sinogram's filtered back-projection, an image.
        split: with `fbp`, for training alone, into how many sets of views a sinogram is divided:
            the source is the image of all sets but one and the target that of this one; 0: none.
        images: for a config whose sources are sinograms, the one that has them as images.
    """

    fbp: bool = False
    split: int = 0
    images: str = ""


@dataclasses.dataclass(eq=False, kw_only=True)
class Simulated(_Form, SimulatedConfig[phantom.Protocol]):
    """Simulated patients."""

    @property
    def quick(self) -> str:
        """The filter that the sources were made by, "" of sinograms."""
        return phantom.FILTER if self.fbp else ""

    def deviation(self, sinogram: np.ndarray) -> np.ndarray:
        """Standard deviation of the noise of a sinogram `[views, detectors]`, of each ray."""
        return noise.deviation(sinogram, self.protocol.photons, self.protocol.electronic)


@dataclasses.dataclass(eq=False, kw_only=True)
class Published(_Form, SourceConfig):
    """LoDoPaB-CT."""

    @property
    def quick(self) -> str:
        """As of `Simulated`."""
        return lodopab.FILTER if self.fbp else ""


def _phantom(name: str, description: str, **fields) -> Simulated:
    whole: dict[str, Any] = {"protocol": phantom.Protocol(), "patients": (40, 5, 10), "seed": 60}
    return Simulated(name=name, description=description, read=phantom.read, **whole | fields)


def _lodopab(name: str, description: str, **fields) -> Published:
    return Published(
        name=name,
        description=description,
        find=lodopab.find,
        read=lodopab.read,
        manual=lodopab.MANUAL,
        licence="CC BY 4.0",
        **fields,
    )


_MANY: dict[str, Any] = {"patients": (160, 5, 10), "seed": 64}
_TINY: dict[str, Any] = {
    "protocol": phantom.Protocol(size=64, views=32, photons=1.2e4, electronic=5.0),
    "patients": (4, 1, 2),
    "seed": 61,
}


class Builder(SimulatedBuilder):
    """Pairs `source` (sinogram, or its filtered back-projection) and `target` (CT image)."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    BUILDER_CONFIGS = [
        _phantom(
            "phantom",
            "Simulated chest and abdomen, 256 x 256 at 1.4 mm, from 64 noisy views.",
            images="phantom_fbp",
        ),
        _phantom(
            "phantom_fbp",
            "The same patients; the source is the image that 64 views give, in HU.",
            fbp=True,
        ),
        _phantom(
            "phantom_many",
            "As `phantom`, four times as many patients to train on, and others to judge by.",
            images="phantom_many_fbp",
            **_MANY,
        ),
        _phantom(
            "phantom_many_fbp",
            "The patients of `phantom_many`; the source is the image, in HU.",
            fbp=True,
            **_MANY,
        ),
        _phantom(
            "phantom_tiny",
            "A few other patients, 64 x 64 at 5.6 mm, from 32 views, for trying out.",
            images="phantom_fbp_tiny",
            **_TINY,
        ),
        _phantom(
            "phantom_fbp_tiny",
            "The patients of `phantom_tiny`; the source is the image, in HU.",
            fbp=True,
            **_TINY,
        ),
        _phantom(
            "phantom_split",
            "Other patients at a quarter of the dose, 512 views in four sets: no clean image is "
            "needed to train.",
            fbp=True,
            split=4,
            protocol=phantom.Protocol(views=512, photons=6e3),
            seed=62,
        ),
        _phantom(
            "phantom_split_tiny",
            "A few other patients, 64 x 64, 128 views in four sets, for trying out.",
            fbp=True,
            split=4,
            protocol=phantom.Protocol(size=64, views=128, photons=1.5e3, electronic=2.0),
            patients=(8, 2, 4),
            seed=63,
        ),
        _lodopab(
            "lodopab",
            "LoDoPaB-CT: chest CT, 362 x 362, from 1000 noisy views of 513 detectors.",
            images="lodopab_fbp",
        ),
        _lodopab(
            "lodopab_fbp",
            "LoDoPaB-CT; the source is the filtered back-projection, an image.",
            fbp=True,
        ),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        if isinstance(config, Simulated):
            beam, dtype, unit, window = config.protocol.beam, "int16", "HU", CT_WINDOW
            formula = f"mu = (HU / 1000 + 1) * {radon.MU_WATER} per mm"
        else:
            beam, dtype, window = lodopab.BEAM, "float32", ATTENUATION_WINDOW
            unit, formula = "normalised attenuation", lodopab.FORMULA
        shape, spacing = (beam["size"], beam["size"], 1), (beam["spacing_mm"],) * 2
        target = Image(shape, np.dtype(dtype), "CT", unit, window, spacing)
        shape = (beam["views"], beam["detectors"], 1)
        sinogram = Image(shape, np.float32, "CT", "line integral", LINE_WINDOW, None, None)
        metadata = {"attenuation": formula, "parallel_beam": beam}
        if config.images:
            metadata["images"] = f"{self.name}/{config.images}"
        return features.info(
            self,
            {"source": target if config.fbp else sinogram, "target": target},
            spacing=isinstance(config, Published),
            metadata=metadata,
            homepage=lodopab.SOURCE,
        )
