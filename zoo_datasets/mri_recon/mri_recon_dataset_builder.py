"""Image reconstruction from undersampled k-space: simulated heads, and fastMRI."""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import tensorflow_datasets as tfds

from zoo_datasets.cases import Case, Examples, SourceConfig
from zoo_datasets.features import domain, image_feature
from zoo_datasets.mri_recon import fastmri, mni152, phantom, varied
from zoo_datasets.simulated import SimulatedBuilder


def simulated(case: Case, config: "Config") -> Examples:
    """The slices of a simulated patient."""
    slices = config.patient(config.scan, config.seed, case.facts["number"])
    for i, (contrast, source, target) in enumerate(slices):
        name = f"{case.key}-{i}"
        example = {
            "source": source,
            "target": target,
            "contrast": contrast,
            "patient": case.patient,
            "name": name,
        }
        if config.patient is not phantom.patient:
            example["spacing"] = np.float32([config.scan.spacing, config.scan.spacing])
        yield name, example


@dataclasses.dataclass(eq=False)
class Config(SourceConfig):
    """A source of pairs.

    Attributes:
        scan: the protocol of simulated patients; None where files are read.
        patient: (scan, seed, number) to the examples of a simulated patient.
        patients: simulated patients of train, validation and test.
        seed: of the simulation.
        coil: "singlecoil" or "multicoil" files of fastMRI.
        coils: of the source; files with fewer leave the last ones 0.
        sampling: of fastMRI's k-space.
        size: 0, or rows and columns of k-space's middle, of the square image.
    """

    read: Callable[[Case, SourceConfig], Examples] | None = simulated
    scan: phantom.Scan | None = None
    patient: Callable = phantom.patient
    patients: tuple[int, int, int] = (4, 1, 1)
    seed: int = 0
    coil: str = "singlecoil"
    coils: int = 1
    sampling: fastmri.Sampling = fastmri.Sampling()
    size: int = 0


def fastmri_config(name: str, description: str, coil: str = "singlecoil", **fields) -> Config:
    """fastMRI's files, undersampled."""
    return Config(
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
        Config(
            name="mni152",
            description="A real average brain, deformed, 64 x 64, 3.5 mm, 2.5-fold; needs nilearn.",
            scan=phantom.Scan(),
            patient=mni152.patient,
            patients=(400, 25, 50),
            seed=50,
        ),
        Config(
            name="phantom",
            description="Simulated T1- and T2-weighted heads, 64 x 64 at 3.5 mm, 2.5-fold.",
            scan=phantom.Scan(),
            patients=(400, 25, 50),
        ),
        Config(
            name="phantom_32",
            description="Heads as of `phantom`, 32 x 32 at 7 mm, for small dense networks.",
            scan=phantom.Scan(size=32),
            patients=(500, 25, 50),
            seed=1,
        ),
        Config(
            name="phantom_128",
            description="Heads as of `phantom`, 128 x 128 at 1.75 mm, 4-fold.",
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
        Config(
            name="mni152_128",
            description="Other subjects of the average brain, 128 x 128 at 1.75 mm, 4-fold.",
            scan=phantom.Scan(size=128, acceleration=4, centre=0.08),
            patient=mni152.patient,
            patients=(120, 10, 20),
            seed=51,
        ),
        Config(
            name="varied",
            description="Heads, the average brain and random shapes, 64 x 64, fully sampled or "
            "2.5-fold, 0.4 to 8 % noise: to train on; needs nilearn.",
            scan=phantom.Scan(),
            patient=varied.patient,
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
        scan = config.scan
        n = scan.size if scan else config.size or None
        spacing = (scan.spacing, scan.spacing) if scan else None
        # The largest value is the zero frequency, n times the image's mean, which is below 0.25.
        most = 0.375 * (n or 344)  # fastMRI has about 368 lines of 320 samples
        kspace = domain("MR", "k-space", (-most, most), None, channels=2 * config.coils, plane=None)
        features = {
            "source": image_feature((n, n, 2 * config.coils), np.float32),
            "target": image_feature((n, n, 1), np.float32),
            "contrast": tfds.features.Text(),
        }
        if config.find:
            features["scale"] = np.float32
        if config.patient is not phantom.patient or config.find:
            features["spacing"] = tfds.features.Tensor(shape=(2,), dtype=np.float32)
        features |= {"patient": tfds.features.Text(), "name": tfds.features.Text()}
        metadata = {
            "kind": "paired",
            "aligned": True,
            "source": kspace,
            "target": domain("MR", "signal", (0.0, 1.0), spacing, plane="axial" if scan else None),
        }
        if scan:
            metadata |= {"acceleration": scan.operator.acceleration, "noise": scan.noise}
        else:
            metadata |= {"acceleration": config.sampling.acceleration, "coils": config.coils}
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("source", "target"),
            metadata=tfds.core.MetadataDict(metadata),
        )

    def simulated_cases(self) -> dict[str, list[Case]]:
        """One case a patient."""
        if self.builder_config.patient is not phantom.patient:
            mni152.atlas.files()  # tells at once what is missing
        return super().simulated_cases()
