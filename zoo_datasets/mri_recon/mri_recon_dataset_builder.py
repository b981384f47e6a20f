"""Image reconstruction from undersampled k-space: simulated heads, and fastMRI."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from zoo.physics import fourier
from zoo_datasets import features
from zoo_datasets.cases import Case, Examples, SourceConfig
from zoo_datasets.mri_recon import fastmri, mni152, phantom, varied
from zoo_datasets.phantoms import atlas
from zoo_datasets.simulated import SimulatedBuilder, SimulatedConfig


def simulated(case: Case, config: "Simulated") -> Examples:
    """The slices of a simulated patient."""
    same = {}
    if config.patient is not phantom.patient:
        same["spacing"] = (config.protocol.spacing,) * 2
    slices = config.patient(config.protocol, config.seed, case.facts["number"])
    for i, (contrast, source, target) in enumerate(slices):
        if config.filled:
            source = fourier.zero_filled(source)
        yield case.example(
            f"{case.key}-{i}", source=source, target=target, contrast=contrast, **same
        )


@dataclasses.dataclass(eq=False, kw_only=True)
class Simulated(SimulatedConfig[phantom.Protocol]):
    """Simulated patients.

    Attributes:
        patient: (protocol, seed, number) to contrast, source and target of a patient's slices.
        filled: whether the source is the image that zero filling gives.
        images: for a config whose sources are k-space, the one that has them as images.
    """

    read: Callable[[Case, Any], Examples] = simulated
    patient: Callable[[phantom.Protocol, int, int], list[tuple[str, np.ndarray, np.ndarray]]] = (
        phantom.patient
    )
    filled: bool = False
    images: str = ""

    @property
    def quick(self) -> str:
        """How the sources were made of k-space, "" where they are k-space."""
        return "zero filling" if self.filled else ""

    def deviation(self, kspace: np.ndarray) -> float | None:
        """Standard deviation of the noise in the real part of k-space; None where it varies."""
        return None if self.patient is varied.patient else self.protocol.noise


@dataclasses.dataclass(eq=False, kw_only=True)
class FastMRI(SourceConfig):
    """Files of fastMRI.

    Attributes:
        coil: "singlecoil" or "multicoil".
        coils: of the source; files with fewer leave the last ones 0.
        sampling: of k-space.
        size: 0, or rows and columns of k-space's middle, of the square image.
    """

    coil: str
    coils: int = 1
    sampling: fastmri.Sampling = fastmri.Sampling()
    size: int = 0


def fastmri_config(name: str, description: str, coil: str = "singlecoil", **fields) -> FastMRI:
    """fastMRI's files, undersampled."""
    return FastMRI(
        name=name,
        description=description,
        find=functools.partial(fastmri.find, coil=coil),
        read=fastmri.read,
        manual=fastmri.manual(coil),
        licence=fastmri.LICENCE,
        coil=coil,
        **fields,
    )


class Builder(SimulatedBuilder):
    """`source`: k-space `[H, W, 2 coils]`; `target`: magnitude image `[H, W, 1]`; both float32."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    BUILDER_CONFIGS = [
        Simulated(
            name="mni152",
            description="A real average brain, deformed, 64 x 64, 3.5 mm, 2.5-fold; needs nilearn.",
            protocol=phantom.Protocol(),
            patient=mni152.patient,
            check=atlas.files,
            patients=(400, 25, 50),
            seed=50,
        ),
        Simulated(
            name="phantom",
            description="Simulated T1- and T2-weighted heads, 64 x 64 at 3.5 mm, 2.5-fold.",
            protocol=phantom.Protocol(),
            patients=(400, 25, 50),
        ),
        Simulated(
            name="phantom_32",
            description="Heads as of `phantom`, 32 x 32 at 7 mm, for small dense networks.",
            protocol=phantom.Protocol(size=32),
            patients=(500, 25, 50),
            seed=1,
        ),
        Simulated(
            name="phantom_128",
            description="Heads as of `phantom`, 128 x 128 at 1.75 mm, 4-fold.",
            protocol=phantom.Protocol(size=128, acceleration=4, centre=0.08),
            patients=(120, 10, 20),
            seed=2,
            images="phantom_128_filled",
        ),
        Simulated(
            name="phantom_128_filled",
            description="The heads of `phantom_128`; the source is the image by zero filling.",
            protocol=phantom.Protocol(size=128, acceleration=4, centre=0.08),
            patients=(120, 10, 20),
            seed=2,
            filled=True,
        ),
        Simulated(
            name="phantom_128_many",
            description="As `phantom_128`, four times as many heads to train on, and others to "
            "judge by.",
            patients=(480, 10, 20),
            seed=4,
            images="phantom_128_many_filled",
            protocol=phantom.Protocol(size=128, acceleration=4, centre=0.08),
        ),
        Simulated(
            name="phantom_128_many_filled",
            description="The heads of `phantom_128_many`; the source is the image by zero filling.",
            protocol=phantom.Protocol(size=128, acceleration=4, centre=0.08),
            patients=(480, 10, 20),
            seed=4,
            filled=True,
        ),
        Simulated(
            name="phantom_tiny",
            description="A few scans of the protocol of `phantom_32`, for trying things out.",
            protocol=phantom.Protocol(size=32),
            patients=(6, 2, 2),
            seed=3,
        ),
        Simulated(
            name="mni152_128",
            description="Other subjects of the average brain, 128 x 128 at 1.75 mm, 4-fold.",
            protocol=phantom.Protocol(size=128, acceleration=4, centre=0.08),
            patient=mni152.patient,
            check=atlas.files,
            patients=(120, 10, 20),
            seed=51,
        ),
        Simulated(
            name="varied",
            description="Heads, the average brain and random shapes, 64 x 64, fully sampled or "
            "2.5-fold, 0.4 to 8 % noise: to train on; needs nilearn.",
            protocol=phantom.Protocol(),
            patient=varied.patient,
            check=atlas.files,
            patients=(1200, 20, 50),
            seed=52,
        ),
        fastmri_config("fastmri", "fastMRI knees, one emulated coil, random lines, 4-fold."),
        fastmri_config(
            "fastmri_8x",
            "fastMRI knees, one emulated coil, random lines, 8-fold.",
            sampling=fastmri.Sampling("random", 8, 0.04),
        ),
        fastmri_config(
            "fastmri_128",
            "The same as fastmri, the middle 128 x 128 of k-space, for networks of one size.",
            size=128,
        ),
        fastmri_config(
            "fastmri_multicoil",
            "fastMRI knees, up to 15 coils, equispaced lines, 4-fold.",
            "multicoil",
            coils=15,
            sampling=fastmri.Sampling("equispaced", 4, 0.08),
        ),
        fastmri_config(
            "fastmri_multicoil_8x",
            "fastMRI knees, up to 15 coils, equispaced lines, 8-fold.",
            "multicoil",
            coils=15,
            sampling=fastmri.Sampling("equispaced", 8, 0.04),
        ),
        fastmri_config(
            "fastmri_brain",
            "fastMRI brains, up to 32 coils, equispaced lines, 4-fold.",
            "multicoil",
            coils=32,
            sampling=fastmri.Sampling("equispaced", 4, 0.08),
        ),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        if isinstance(config, Simulated):
            protocol, others = config.protocol, {}
            n, coils, mm, plane = protocol.size, 1, (protocol.spacing,) * 2, "axial"
            spacing = config.patient is not phantom.patient  # else the metadata tell it
            facts: dict[str, Any] = {
                "acceleration": protocol.operator.acceleration,
                "noise": protocol.noise,
            }
            if config.images:
                facts["images"] = f"{self.name}/{config.images}"
        else:
            others, spacing = {"scale": np.float32}, True
            n, coils, mm, plane = config.size, config.coils, None, None
            facts = {"acceleration": config.sampling.acceleration, "coils": coils}
        # The largest value is the zero frequency, n times the image's mean, which is below 0.25.
        most = 0.375 * (n or 344)  # fastMRI has about 368 lines of 320 samples
        window, side = (-most, most), n or None
        kspace = features.Image(
            (side, side, 2 * coils), np.float32, "MR", "k-space", window, None, None
        )
        image = features.Image((side, side, 1), np.float32, "MR", "signal", (0.0, 1.0), mm, plane)
        filled = isinstance(config, Simulated) and config.filled
        return features.info(
            self,
            {"source": image if filled else kspace, "target": image},
            others | {"contrast": tfds.features.Text()},
            spacing=spacing,
            metadata=facts,
        )
