"""IXI: T1-, T2- and proton-density-weighted volumes of nearly 600 healthy people, as NIfTI.

    IXI-T1/IXI012-HH-1211-T1.nii.gz     <subject>-<hospital>-<number>-<contrast>.nii.gz
    IXI-T2/IXI012-HH-1211-T2.nii.gz

T2 and PD come from one axial dual-echo scan and share their grid; T1 is another scan, sagittal,
and is resampled onto it.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from zoo_datasets.cases import Case, Examples, SourceConfig, by_patient, need
from zoo_datasets.publishers import mr_signal

CONTRASTS = ("T1", "T2", "PD")
_NAME = re.compile(r"(IXI\d+)-[A-Za-z]+-\d+")
LICENCE = "CC BY-SA 3.0"
MANUAL = """
1. Open https://brain-development.org/ixi-dataset/ and read the licence, CC BY-SA 3.0; there is
   nothing to sign.
2. Download {archives} (3.5 to 4.8 GB each, an hour at 10 MB/s for all). The archives have no
   folder inside: unpack each into its own below manual_dir,
   {commands}
3. There are then about 580 volumes in each folder, for example
   {example}
   Building takes about {minutes} minutes.
"""


def manual(contrasts: Sequence[str], minutes: int = 60) -> str:
    """How to get the files of some contrasts."""
    commands = [f"mkdir IXI-{c} && tar -xf IXI-{c}.tar -C IXI-{c}" for c in contrasts]
    examples = [f"manual_dir/IXI-{c}/IXI012-HH-1211-{c}.nii.gz" for c in contrasts]
    return MANUAL.format(
        archives=" and ".join(f"IXI-{c}.tar" for c in contrasts),
        commands="\n   ".join(commands),
        example="\n   ".join(examples),
        minutes=minutes,
    )


def find(root: Path, contrasts: Sequence[str]) -> dict[str, list[Case]]:
    """A case for each subject of any contrast's folder, split by a hash of the subject.

    A subject that lacks a wanted contrast is listed, and reported when it is read.

    Raises:
        FileNotFoundError: where a wanted contrast has no files.
        ValueError: for a file that is not named as IXI names them.
    """
    stems = set()
    for contrast in CONTRASTS:
        least = 1 if contrast in contrasts else 0
        pattern = f"IXI-{contrast}/*-{contrast}.nii.gz"
        paths = need(root, pattern, f"{contrast}-weighted volumes of IXI", least)
        stems |= {path.name.removesuffix(f"-{contrast}.nii.gz") for path in paths}
    cases = []
    for stem in stems:
        match = _NAME.fullmatch(stem)
        if match is None:
            raise ValueError(
                f"manual directory: expected names like IXI012-HH-1211-T1.nii.gz. Received: {stem}"
            )
        files = {c: root / f"IXI-{c}" / f"{stem}-{c}.nii.gz" for c in contrasts}
        cases.append(Case(key=stem, patient=match[1], files=files))
    return by_patient(cases)


def pairs(case: Case, config: SourceConfig) -> Examples:
    """Axial slices of two contrasts, on the grid of the one that is not T1."""
    scans = {contrast: mr_signal.read(path) for contrast, path in case.files.items()}
    grid = next(scan for contrast, scan in scans.items() if contrast != "T1")
    (source, source_scale), (target, target_scale) = (
        mr_signal.scaled(mr_signal.on_grid(scans[contrast], grid)) for contrast in config.contrasts
    )
    for i in mr_signal.full_slices(source, target):
        name = f"{case.key}-{i:03d}"
        yield case.example(
            name,
            source=source[i, ..., None],
            target=target[i, ..., None],
            source_scale=source_scale,
            target_scale=target_scale,
            spacing=grid.spacing[1:],
        )


def images(case: Case, config: SourceConfig) -> Examples:
    """Axial slices of one contrast, on its own grid."""
    (path,) = case.files.values()
    scan = mr_signal.read(path)
    image, scale = mr_signal.scaled(scan.values)
    for i in mr_signal.full_slices(image):
        name = f"{case.key}-{i:03d}"
        yield case.example(
            name,
            image=image[i, ..., None],
            scale=scale,
            spacing=scan.spacing[1:],
        )
