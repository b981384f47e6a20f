"""FDG-PET-CT-Lesions of the autoPET challenge, as NIfTI.

The publisher's tree, one folder a patient and in it one a visit:

    FDG-PET-CT-Lesions/PETCT_0011f3deaf/03-23-2003-NA-PET-CT … -10445/SUV.nii.gz
                                                                      CTres.nii.gz
                                                                      SEG.nii.gz

SUV is the PET, CTres the CT resampled to its grid, SEG the lesions that a radiologist marked.
CT.nii.gz and PET.nii.gz lie beside them and are not read.
"""

from pathlib import Path

import numpy as np

from zoo_datasets.cases import Case, Examples, SourceConfig, by_patient, need
from zoo_datasets.publishers.volumes import read_nifti, to_int16

HOMEPAGE = "https://doi.org/10.7937/gkr0-xv29"
ROLES = ("SUV", "CTres", "SEG")
MANUAL = """
From https://fdat.uni-tuebingen.de/records/wf9fy-txq84 (University of Tübingen, NIfTI); the licence
of the files is stated on that page. The original DICOM files are at TCIA,
https://doi.org/10.7937/gkr0-xv29, whose agreement for images of heads must be signed there; they
become the same NIfTI files with `tcia2nifti.py` of https://github.com/lab-midas/autoPET.
1. Download the archive of 1014 studies of 900 patients: some hundred GB, a day at 25 Mbit/s and
   more. A part of the patients will do.
2. Unpack it into `manual_dir`, so that there is
   manual_dir/FDG-PET-CT-Lesions/PETCT_0011f3deaf/<study>/SUV.nii.gz
   manual_dir/FDG-PET-CT-Lesions/PETCT_0011f3deaf/<study>/CTres.nii.gz
   manual_dir/FDG-PET-CT-Lesions/PETCT_0011f3deaf/<study>/SEG.nii.gz
   and so on; a patient may have several studies. Prepared, all of it takes about 200 GB.
"""
_AIR = -500.0  # a CT has values below this, and a PET has none


def find(root: Path) -> dict[str, list[Case]]:
    """The studies, in splits hashed from the patients' names.

    Raises:
        FileNotFoundError: where there are none, or files of some are missing; names them.
    """
    what = "folder of a patient's study"
    folders = need(root, "FDG-PET-CT-Lesions/PETCT_*/*/", what)
    cases, missing = [], []
    for folder in folders:
        patient = folder.parent.name
        files = {role: folder / f"{role}.nii.gz" for role in ROLES}
        lost = [path.name for path in files.values() if not path.is_file()]
        missing += [f"{patient}/{folder.name}/{name}" for name in lost]
        # A study's name has a date and a free text; its last five digits tell it from others.
        cases.append(Case(key=f"{patient}-{folder.name[-5:]}", patient=patient, files=files))
    if missing:
        raise FileNotFoundError(
            f"manual directory {root}: expected {', '.join(ROLES)} (.nii.gz) of every study. "
            f"Received: {len(missing)} missing, {', '.join(missing[:3])}"
        )
    return by_patient(cases)


def read(case: Case, config: SourceConfig) -> Examples:
    """The axial slices of a study.

    Yields:
        "source" float32 SUV, as in the file; "target" int16 HU, rounded, for the file's were
        interpolated; "source_label" and "target_label", the lesions; all `[H, W, 1]`.

    Raises:
        ValueError: for volumes that are not on one grid, a CT without air, a PET with negative
            values as a CT has them, and lesions that are not marked by 0 and 1.
    """
    scans = {role: read_nifti(path) for role, path in case.files.items()}
    suv, ct, lesions = (scans[role] for role in ROLES)
    for role in ROLES[1:]:
        if not scans[role].same_grid(suv):
            raise ValueError(
                f"{case.key}/{role}.nii.gz: expected the grid of SUV.nii.gz, "
                f"{suv.values.shape} voxels. Received: {scans[role].values.shape}"
            )
    for role, wanted, right in (
        ("SUV", "SUV", suv.values.min() > _AIR),
        ("CTres", "HU, with air around the patient", ct.values.min() < _AIR),
        ("SEG", "0 and 1", np.isin(lesions.values, (0.0, 1.0)).all()),
    ):
        if not right:
            values = scans[role].values
            raise ValueError(
                f"{case.key}/{role}.nii.gz: expected {wanted}. "
                f"Received: {values.min():g} to {values.max():g}"
            )
    hu, labels = to_int16(ct.values), lesions.values.astype(np.uint8)[..., None]
    for i in range(len(hu)):
        key = f"{case.key}-{i:04d}"
        yield case.example(
            key,
            source=suv.values[i, ..., None],
            target=hu[i, ..., None],
            source_label=labels[i],
            target_label=labels[i],
            spacing=suv.spacing[1:],
        )
