"""BraTS 2020 and 2021: four contrasts of glioma patients and the tumour's parts, as NIfTI.

    BraTS2021_00000/BraTS2021_00000_t1.nii.gz      and _t1ce, _t2, _flair, _seg

The publisher has put all contrasts of a patient on one grid of 240 x 240 x 155 voxels of 1 mm, and
set what is outside the brain to 0.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from zoo_datasets.cases import Case, Examples, SourceConfig, by_patient, need
from zoo_datasets.publishers import ixi, mr_signal
from zoo_datasets.publishers.volumes import read_nifti

CONTRASTS = ("t1", "t1ce", "t2", "flair")
# Label 3 is not used.
LABELS = ("background", "necrotic core", "oedema", "unused", "enhancing tumour")
_CASE = re.compile(r"BraTS2021_\d+|BraTS20_Training_\d+")
LICENCE = "terms of the challenge: research only, not to be passed on"
MANUAL = """
1. Register at https://www.synapse.org/brats (BraTS 2021, 1251 patients, 13 GB) or at
   https://www.med.upenn.edu/cbica/brats2020/ (BraTS 2020, 369 patients, 4 GB) and accept the
   terms of the challenge: research only, cite its papers, do not pass the files on.
2. Download the training data, which alone have labels, and unpack them below manual_dir, at any
   depth, so that each patient has a folder with five files:
   manual_dir/BraTS2021_00000/BraTS2021_00000_{t1,t1ce,t2,flair,seg}.nii.gz or
   manual_dir/BraTS20_Training_001/BraTS20_Training_001_{t1,t1ce,t2,flair,seg}.nii.gz
   Files ending in .nii do as well. In some copies the labels of BraTS20_Training_355 have another
   name: rename them.
3. Building takes about an hour for BraTS 2021.
"""


def find(root: Path, contrasts: Sequence[str]) -> dict[str, list[Case]]:
    """A case for each patient's folder, split by a hash of its name.

    Args:
        root: the manual directory.
        contrasts: of `CONTRASTS`, and "seg"; a patient who lacks one is reported when it is read.

    Raises:
        FileNotFoundError: where there are no such folders.
    """
    folders = need(root, "**/BraTS20*_*/", "folders of BraTS 2020 or 2021 patients")
    cases = []
    for folder in folders:
        name = folder.name
        if _CASE.fullmatch(name):
            files = {c: folder / f"{name}_{c}.nii.gz" for c in contrasts}
            plain = {c: folder / f"{name}_{c}.nii" for c in contrasts}
            files |= {c: path for c, path in plain.items() if path.exists()}
            cases.append(Case(key=name, patient=name, files=files))
    if not cases:
        need(root, "BraTS2021_00000/", "folders of BraTS 2020 or 2021 patients")
    return by_patient(cases)


def pairs(case: Case, config: SourceConfig) -> Examples:
    """Axial slices of two contrasts, with the tumour's parts.

    Raises:
        ValueError: for files of different grids, and for labels that are not BraTS's.
    """
    source, target = (mr_signal.read(case.files[contrast]) for contrast in config.contrasts)
    seg = case.files["seg"]
    labels = read_nifti(seg)
    if not (target.same_grid(source) and labels.same_grid(source)):
        raise ValueError(
            f"{case.key}: expected files of one grid. Received: shapes {source.values.shape}, "
            f"{target.values.shape} and {labels.values.shape}, or different places"
        )
    if not np.isin(labels.values, (0, 1, 2, 4)).all():
        raise ValueError(
            f"{seg.name}: expected the labels 0, 1, 2, 4. Received: {np.unique(labels.values)[:9]}"
        )
    (first, first_scale), (second, second_scale) = map(
        mr_signal.scaled, (source.values, target.values)
    )
    for i in mr_signal.full_slices(first, second):
        name = f"{case.key}-{i:03d}"
        label = labels.values[i].astype(np.uint8)[..., None]
        yield case.example(
            name,
            source=first[i, ..., None],
            target=second[i, ..., None],
            source_label=label,
            target_label=label,
            source_scale=first_scale,
            target_scale=second_scale,
            spacing=source.spacing[1:],
        )


images = ixi.images
