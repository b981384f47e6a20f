"""One magnetic resonance contrast to another: simulated brains, IXI and BraTS."""

import dataclasses
import functools
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from zoo_datasets import features, own_scans
from zoo_datasets.cases import Case, Examples, SourceConfig
from zoo_datasets.mri_contrast import heads
from zoo_datasets.phantoms import atlas, brain, mr_scan
from zoo_datasets.publishers import brats, ixi, mr_signal
from zoo_datasets.simulated import SimulatedBuilder, SimulatedConfig, slices

_HEADS = """\
Your own heads, of whatever licence permits it, such as the longitudinal data of multiple sclerosis
at https://github.com/muschellij2/open_ms_data (CC BY).
Put or link a folder for each patient into the manual directory. It holds one NIfTI file, or one
folder of DICOM, for each contrast, with T1, T2 or FLAIR in its name: patient01/study1_T1W.nii.gz.
Patients in a folder `validation` beside a folder `train` choose the weights; without such folders
a hash of each folder's name decides.
"""
_SUBJECTS = (30, 4, 2)  # simulated, of each split


@dataclasses.dataclass(eq=False, kw_only=True)
class Average(SimulatedConfig[atlas.Protocol]):
    """The average brain, deformed.

    Attributes:
        contrasts: source and target, of `atlas.CONTRASTS`.
    """

    contrasts: tuple[str, str]


@dataclasses.dataclass(eq=False, kw_only=True)
class Published(SourceConfig):
    """A publisher's pairs.

    Attributes:
        contrasts: source and target, as the publisher names them.
        label_names: of the label maps; none where there are none.
    """

    contrasts: tuple[str, str]
    label_names: tuple[str, ...] = ()


def _pairs(
    case: Case, images: dict[str, np.ndarray], contrasts: tuple[str, ...], **same
) -> Examples:
    *sources, target = (images[contrast] for contrast in contrasts)
    source = np.stack(sources, axis=-1) if len(sources) > 1 else sources[0]
    stacks = dict.fromkeys(("source_label", "target_label"), images["labels"])
    stacks |= {"source": source, "target": target}
    yield from slices(case, stacks, **same)


def average(case: Case, config: Average) -> Examples:
    """The slices of a subject deformed from the average brain."""
    protocol = config.protocol
    images = atlas.subject(protocol, config.seed, case.facts["number"])
    yield from _pairs(case, images, config.contrasts, spacing=(protocol.spacing,) * 2)


def phantom(case: Case, config: SimulatedConfig[mr_scan.Protocol]) -> Examples:
    """The slices of a simulated head."""
    images = mr_scan.patient(config.protocol, config.seed, case.facts["number"])
    yield from _pairs(case, images, config.protocol.contrasts)


def phantom_config(name: str, description: str, **fields: Any) -> SimulatedConfig[mr_scan.Protocol]:
    """Simulated heads."""
    whole: dict[str, Any] = {"protocol": mr_scan.Protocol(), "patients": (60, 8, 12)}
    return SimulatedConfig(name=name, description=description, read=phantom, **whole | fields)


def mni152_config(
    name: str,
    source: str = "T1",
    target: str = "T2",
    *,
    size: int = 256,
    spacing: float = 0.9,
    **fields,
) -> Average:
    """Deformations of the ICBM 2009a average brain; contrasts of `atlas.CONTRASTS`."""
    return Average(
        name=name,
        description=f"{source} to {target} of a real average brain, deformed; needs nilearn.",
        read=average,
        protocol=atlas.Protocol(size, spacing, contrasts=(source, target)),
        contrasts=(source, target),
        check=atlas.files,
        **fields,
    )


def ixi_config(name: str, source: str = "T1", target: str = "T2") -> Published:
    """IXI; contrasts of `ixi.CONTRASTS`."""
    contrasts = (source, target)
    return Published(
        name=name,
        description=f"{source} to {target} of the healthy subjects of IXI.",
        find=functools.partial(ixi.find, contrasts=contrasts),
        read=ixi.pairs,
        manual=ixi.manual(contrasts),
        licence=ixi.LICENCE,
        contrasts=contrasts,
    )


def brats_config(name: str, source: str = "t1", target: str = "t2") -> Published:
    """BraTS 2020 or 2021; contrasts of `brats.CONTRASTS`."""
    return Published(
        name=name,
        description=f"{source} to {target} of the glioma patients of BraTS 2020 or 2021.",
        find=functools.partial(brats.find, contrasts=(source, target, "seg")),
        read=brats.pairs,
        manual=brats.MANUAL,
        licence=brats.LICENCE,
        contrasts=(source, target),
        label_names=brats.LABELS,
    )


def heads_config(name: str, *contrasts: str) -> SimulatedConfig[heads.Protocol]:
    """The user's own heads and simulated ones; contrasts of `mr_scan.GAIN`, the last the target."""
    return SimulatedConfig(
        name=name,
        description=f"{' and '.join(contrasts[:-1])} to {contrasts[-1]} of simulated heads and "
        "your own, not stripped, registered, at levels of signal that differ.",
        find=functools.partial(own_scans.find, counts=_SUBJECTS),
        read=heads.read,
        manual=_HEADS,
        licence="that of your scans",
        protocol=heads.Protocol(contrasts=contrasts),
        patients=_SUBJECTS,
        seed=50,
    )


class Builder(SimulatedBuilder):
    """Pairs `source` and `target`, signal `[H, W, 1]`, most with label maps.

    Where a config has two source contrasts, they are the channels of a source `[H, W, 2]`.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    BUILDER_CONFIGS = [
        mni152_config("mni152", patients=(120, 15, 25), seed=40),
        mni152_config("mni152_128", size=128, spacing=1.6, patients=(240, 15, 25), seed=41),
        phantom_config("phantom", "Simulated brains, 128 x 128 at 1.75 mm; no download."),
        phantom_config(
            "phantom_256",
            "Other brains, 256 x 256 at 0.875 mm.",
            protocol=mr_scan.Protocol(size=256),
            seed=1,
        ),
        phantom_config(
            "phantom_tiny",
            "A few brains, 64 x 64 at 3.5 mm, for trying things out.",
            protocol=mr_scan.Protocol(size=64, slices=4),
            patients=(6, 2, 2),
            seed=2,
        ),
        mni152_config("mni152_flair", "T2", "FLAIR", patients=(120, 15, 25), seed=40),
        *(
            phantom_config(
                f"phantom_{'_'.join(contrasts).lower()}",
                f"{' and '.join(contrasts[:-1])} to FLAIR of the brains of `phantom`.",
                protocol=mr_scan.Protocol(contrasts=contrasts),
            )
            for contrasts in (("T1", "T2", "FLAIR"), ("T1", "FLAIR"), ("T2", "FLAIR"))
        ),
        heads_config("heads", "T1", "T2"),
        heads_config("heads_flair", "T1", "FLAIR"),
        heads_config("heads_t1_t2_flair", "T1", "T2", "FLAIR"),
        ixi_config("ixi"),
        ixi_config("ixi_pd", "T2", "PD"),
        brats_config("brats"),
        brats_config("brats_t1ce", "t1", "t1ce"),
        brats_config("brats_flair", "t2", "flair"),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        if isinstance(config, Published):
            image, contrasts, labels = mr_signal.IMAGE, config.contrasts, config.label_names
            others = dict.fromkeys(("source_scale", "target_scale"), np.float32)
        else:
            image, others = mr_scan.image(config.protocol.size, config.protocol.spacing), {}
            contrasts, labels = config.protocol.contrasts, brain.LABELS
            if isinstance(config.protocol, heads.Protocol):
                labels = ()
        if isinstance(config, Average):
            contrasts, labels = config.contrasts, atlas.LABELS
        inputs = contrasts[:-1]
        source = image
        if len(inputs) > 1:
            shape = (*image.shape[:-1], len(inputs))
            source = dataclasses.replace(image, shape=shape, inputs=inputs)
        return features.info(
            self,
            {"source": source, "target": image},
            others,
            spacing=isinstance(config, (Published, Average)),
            label_names=labels,
            metadata={"contrasts": list(contrasts)},
        )
