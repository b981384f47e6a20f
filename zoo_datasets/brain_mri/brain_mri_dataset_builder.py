"""Single magnetic resonance images of the brain: a deformed average, IXI, BraTS, phantoms."""

import dataclasses
import functools

import numpy as np
import tensorflow_datasets as tfds

from zoo_datasets.cases import Case, Examples, SourceConfig
from zoo_datasets.features import domain, image_feature
from zoo_datasets.phantoms import atlas, mr_scan
from zoo_datasets.publishers import brats, ixi, mr_signal
from zoo_datasets.simulated import SimulatedBuilder


@dataclasses.dataclass(eq=False)
class Config(SourceConfig):
    """A source of images.

    Attributes:
        scan: the protocol of simulated patients; None where files are read.
        patients: simulated patients of train, validation and test.
        seed: of the simulation.
        contrast: as the source of the data names it.
        window: of the signal.
    """

    scan: mr_scan.Scan | atlas.Scan | None = None
    patients: tuple[int, int, int] = (60, 8, 12)
    seed: int = 0
    contrast: str = "T1"
    window: tuple[float, float] = (0.0, float(mr_scan.MAXIMUM))


def simulated(case: Case, config: Config) -> Examples:
    """The slices of a simulated patient."""
    scan = config.scan
    patient = atlas.subject if isinstance(scan, atlas.Scan) else mr_scan.patient
    images = patient(scan, config.seed, case.facts["number"])[config.contrast]
    for i, image in enumerate(images):
        name = f"{case.key}-{i}"
        yield (
            name,
            {
                "image": image[..., None],
                "spacing": np.float32([scan.spacing, scan.spacing]),
                "patient": case.patient,
                "name": name,
            },
        )


class Builder(SimulatedBuilder):
    """`image`, T1-weighted signal `[H, W, 1]` (uint16, real ones float32), with `spacing` in mm."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    BUILDER_CONFIGS = [
        Config(
            name="mni152",
            description="T1 of a real average brain, deformed, 256 x 256 at 0.9 mm; needs nilearn.",
            read=simulated,
            scan=atlas.Scan(slices=8, contrasts=("T1",)),
            patients=(200, 20, 30),
            seed=41,
        ),
        Config(
            name="mni152_128",
            description="The same, other subjects, 128 x 128 at 1.6 mm.",
            read=simulated,
            scan=atlas.Scan(size=128, spacing=1.6, slices=8, contrasts=("T1",)),
            patients=(200, 20, 30),
            seed=42,
        ),
        Config(
            name="phantom",
            description="T1 of simulated heads, 128 x 128 at 1.75 mm; needs nothing.",
            read=simulated,
            scan=mr_scan.Scan(),
            patients=(200, 20, 30),
            seed=43,
        ),
        Config(
            name="phantom_tiny",
            description="A few simulated heads, 64 x 64 at 3.5 mm, for trying things out.",
            read=simulated,
            scan=mr_scan.Scan(size=64, slices=4),
            patients=(6, 2, 2),
            seed=44,
        ),
        Config(
            name="ixi",
            description="T1 of the healthy subjects of IXI, axial slices.",
            find=functools.partial(ixi.find, contrasts=("T1",)),
            read=ixi.images,
            manual=ixi.manual(("T1",), minutes=30),
            licence=ixi.LICENCE,
            window=mr_signal.WINDOW,
        ),
        Config(
            name="brats",
            description="T1 of the glioma patients of BraTS 2020 or 2021.",
            find=functools.partial(brats.find, contrasts=("t1",)),
            read=brats.images,
            manual=brats.MANUAL,
            licence=brats.LICENCE,
            contrast="t1",
            window=mr_signal.WINDOW,
        ),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        scan = config.scan
        size = scan.size if scan else None
        spacing = (scan.spacing, scan.spacing) if scan else None
        features = {"image": image_feature((size, size, 1), np.uint16 if scan else np.float32)}
        if config.find:
            features["scale"] = np.float32
        features |= {
            "spacing": tfds.features.Tensor(shape=(2,), dtype=np.float32),
            "patient": tfds.features.Text(),
            "name": tfds.features.Text(),
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features),
            metadata=tfds.core.MetadataDict(
                {
                    "kind": "single",
                    "contrast": config.contrast,
                    "image": domain("MR", "signal", config.window, spacing),
                }
            ),
        )

    def simulated_cases(self) -> dict[str, list[Case]]:
        """One case a patient."""
        if isinstance(self.builder_config.scan, atlas.Scan):
            atlas.files()  # tells at once what is missing
        return super().simulated_cases()
