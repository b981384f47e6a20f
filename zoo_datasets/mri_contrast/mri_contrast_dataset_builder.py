"""One magnetic resonance contrast to another: simulated brains, IXI and BraTS."""

import dataclasses
import functools

import numpy as np
import tensorflow_datasets as tfds

from zoo_datasets.cases import Case, Examples, SourceConfig
from zoo_datasets.features import domain, image_feature
from zoo_datasets.phantoms import atlas, brain, mr_scan
from zoo_datasets.publishers import brats, ixi, mr_signal
from zoo_datasets.simulated import SimulatedBuilder


@dataclasses.dataclass(eq=False)
class Config(SourceConfig):
    """A source of pairs.

    Attributes:
        scan: the protocol of simulated patients; None where files are read.
        patients: simulated patients of train, validation and test.
        seed: of the simulation.
        contrasts: source and target, as the source of the data names them.
        window: of both.
        label_names: of the label maps; none where there are none.
    """

    scan: mr_scan.Scan | atlas.Scan | None = None
    patients: tuple[int, int, int] = (60, 8, 12)
    seed: int = 0
    contrasts: tuple[str, str] = ("T1", "T2")
    window: tuple[float, float] = (0.0, float(mr_scan.MAXIMUM))
    label_names: tuple[str, ...] = brain.LABELS


def simulated(case: Case, config: Config) -> Examples:
    """The slices of a simulated patient."""
    scan, real = config.scan, isinstance(config.scan, atlas.Scan)
    patient = atlas.subject if real else mr_scan.patient
    images = patient(scan, config.seed, case.facts["number"])
    source, target = (images[contrast] for contrast in config.contrasts)
    for i in range(scan.slices):
        name = f"{case.key}-{i}"
        labels = images["labels"][i, ..., None]
        example = {
            "source": source[i, ..., None],
            "target": target[i, ..., None],
            "source_label": labels,
            "target_label": labels,
            "patient": case.patient,
            "name": name,
        }
        if real:
            example["spacing"] = np.float32([scan.spacing, scan.spacing])
        yield name, example


def phantom_config(name: str, description: str, **fields) -> Config:
    """Simulated heads."""
    fields = {"scan": mr_scan.Scan()} | fields
    return Config(name=name, description=description, read=simulated, **fields)


def mni152_config(
    name: str,
    source: str = "T1",
    target: str = "T2",
    *,
    size: int = 256,
    spacing: float = 0.9,
    **fields,
) -> Config:
    """Deformations of the ICBM 2009a average brain; contrasts of `atlas.CONTRASTS`."""
    return Config(
        name=name,
        description=f"{source} to {target} of a real average brain, deformed; needs nilearn.",
        read=simulated,
        scan=atlas.Scan(size, spacing, contrasts=(source, target)),
        contrasts=(source, target),
        label_names=atlas.LABELS,
        **fields,
    )


def ixi_config(name: str, source: str = "T1", target: str = "T2") -> Config:
    """IXI; contrasts of `ixi.CONTRASTS`."""
    contrasts = (source, target)
    return Config(
        name=name,
        description=f"{source} to {target} of the healthy subjects of IXI.",
        find=functools.partial(ixi.find, contrasts=contrasts),
        read=ixi.pairs,
        manual=ixi.manual(contrasts),
        licence=ixi.LICENCE,
        contrasts=contrasts,
        window=mr_signal.WINDOW,
        label_names=(),
    )


def brats_config(name: str, source: str = "t1", target: str = "t2") -> Config:
    """BraTS 2020 or 2021; contrasts of `brats.CONTRASTS`."""
    return Config(
        name=name,
        description=f"{source} to {target} of the glioma patients of BraTS 2020 or 2021.",
        find=functools.partial(brats.find, contrasts=(source, target, "seg")),
        read=brats.pairs,
        manual=brats.MANUAL,
        licence=brats.LICENCE,
        contrasts=(source, target),
        window=mr_signal.WINDOW,
        label_names=brats.LABELS,
    )


class Builder(SimulatedBuilder):
    """Pairs `source` and `target`, signal `[H, W, 1]`, most with label maps."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    BUILDER_CONFIGS = [
        mni152_config("mni152", patients=(120, 15, 25), seed=40),
        mni152_config("mni152_128", size=128, spacing=1.6, patients=(240, 15, 25), seed=41),
        phantom_config("phantom", "Simulated brains, 128 x 128 at 1.75 mm; no download."),
        phantom_config(
            "phantom_256",
            "Other brains, 256 x 256 at 0.875 mm.",
            scan=mr_scan.Scan(size=256),
            seed=1,
        ),
        phantom_config(
            "phantom_tiny",
            "A few brains, 64 x 64 at 3.5 mm, for trying things out.",
            scan=mr_scan.Scan(size=64, slices=4),
            patients=(6, 2, 2),
            seed=2,
        ),
        mni152_config("mni152_flair", "T2", "FLAIR", patients=(120, 15, 25), seed=40),
        ixi_config("ixi"),
        ixi_config("ixi_pd", "T2", "PD"),
        brats_config("brats"),
        brats_config("brats_t1ce", "t1", "t1ce"),
        brats_config("brats_flair", "t2", "flair"),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        scan, labels = config.scan, list(config.label_names)
        size = scan.size if scan else None
        spacing = (scan.spacing, scan.spacing) if scan else None
        image = domain("MR", "signal", config.window, spacing)
        features = dict.fromkeys(
            ("source", "target"), image_feature((size, size, 1), np.uint16 if scan else np.float32)
        )
        if labels:
            label = image_feature((size, size, 1), np.uint8)
            features |= dict.fromkeys(("source_label", "target_label"), label)
        if config.find:
            features |= {"source_scale": np.float32, "target_scale": np.float32}
        if not isinstance(scan, mr_scan.Scan):
            features["spacing"] = tfds.features.Tensor(shape=(2,), dtype=np.float32)
        features |= {"patient": tfds.features.Text(), "name": tfds.features.Text()}
        metadata = {"kind": "paired", "aligned": True, "source": image, "target": dict(image)}
        metadata |= {"contrasts": list(config.contrasts)}
        if labels:
            metadata["label_names"] = labels
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("source", "target"),
            metadata=tfds.core.MetadataDict(metadata),
        )

    def simulated_cases(self) -> dict[str, list[Case]]:
        """One case a patient."""
        if isinstance(self.builder_config.scan, atlas.Scan):
            atlas.files()  # tells at once what is missing
        return super().simulated_cases()
