"""LoDoPaB-CT: chest CT of LIDC-IDRI and simulated low-dose parallel-beam measurements.

The publisher's files, in one folder, with three-digit numbers from 000:

    observation_train_000.hdf5   ground_truth_train_000.hdf5  …   patient_ids_rand_train.csv
    observation_validation_…     ground_truth_validation_…        patient_ids_rand_validation.csv
    observation_test_…           ground_truth_test_…              patient_ids_rand_test.csv

Each HDF5 file has one dataset "data" of 128 samples: observations `[128, 1000, 513]` and images
`[128, 362, 362]`, float32. The last one of a split has the rest, perhaps followed by empty samples.
Line n of a table is the patient of sample n. The publisher's conventions, attenuation in 1/m and
lengths in m:

    mu = (HU / 1000) (20 - 0.02) + 20,   image = mu / MU_MAX in [0, 1],   MU_MAX = mu(3071 HU),
    observation = line integral / MU_MAX.

Stored here are images transposed, so that rows run towards the back, and true line integrals
(the observation times MU_MAX). Then sinogram and image belong together by
`zoo.physics.radon.ParallelBeam(362, SPACING, 1000, 513, DETECTOR)`: the publisher's angles and
axes are the same.
"""

import functools
import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from zoo.physics import radon
from zoo_datasets.cases import SPLITS, Case, Examples
from zoo_datasets.sources import reading

SIZE, VIEWS, DETECTORS = 362, 1000, 513
MU_WATER, MU_AIR = 20.0, 0.02  # 1/m
MU_MAX = 3.071 * (MU_WATER - MU_AIR) + MU_WATER  # 81.35858 1/m
FIELD_MM = 260.0
SPACING = FIELD_MM / SIZE
DETECTOR = FIELD_MM * math.sqrt(2.0) / DETECTORS  # the detector covers the image's diagonal
# The arguments of `radon.ParallelBeam`.
BEAM: dict[str, Any] = {
    "size": SIZE,
    "spacing_mm": SPACING,
    "views": VIEWS,
    "detectors": DETECTORS,
    "detector_mm": DETECTOR,
}
FORMULA = "mu = value * 0.08135858 per mm; HU = 1000 * (value * 81.35858 - 20) / (20 - 0.02)"
FILTER = "ramp"  # of filtered back-projection
PER_FILE = 128
_BATCH = 16  # read at once: HDF5 keeps parts of several samples together
SOURCE = "https://doi.org/10.5281/zenodo.3384092"
MANUAL = """
From https://doi.org/10.5281/zenodo.3384092 (CC BY 4.0, no registration):
1. Download observation_train.zip, ground_truth_train.zip, observation_validation.zip,
   ground_truth_validation.zip, observation_test.zip, ground_truth_test.zip and the tables
   patient_ids_rand_train.csv, patient_ids_rand_validation.csv, patient_ids_rand_test.csv:
   about 55 GB, five hours at 25 Mbit/s; unpacked 115 GB.
2. Unpack the archives into `manual_dir`, all into one folder, so that there are
   manual_dir/observation_train_000.hdf5, manual_dir/ground_truth_train_000.hdf5 and so on
   (280 files of each kind for train, 28 for validation, 28 for test), beside the three tables.
"""


def to_hu(image: np.ndarray) -> np.ndarray:
    """Normalised attenuation to Hounsfield units, as the publisher defines them."""
    return 1000.0 * (np.asarray(image) * MU_MAX - MU_WATER) / (MU_WATER - MU_AIR)


def find(root: Path) -> dict[str, list[Case]]:
    """The files in the publisher's splits; a case is a pair of files.

    Raises:
        FileNotFoundError: where a table or files are missing; names them.
        ValueError: for a table that is not one patient a line, and a patient in two tables.
    """
    tables = {split: root / f"patient_ids_rand_{split}.csv" for split in SPLITS}
    patients = {split: _patients(path) for split, path in tables.items() if path.is_file()}
    missing = [path.name for path in tables.values() if not path.is_file()]
    cases: dict[str, list[Case]] = {}
    for split, ids in patients.items():
        for other, others in cases.items():
            if shared := {p for c in others for p in c.facts["patients"]} & set(ids):
                raise ValueError(
                    f"manual directory {root}: expected no patient in both {tables[other].name} "
                    f"and {tables[split].name}. Received: {min(shared)} in both"
                )
        cases[split] = []
        for number in range(math.ceil(len(ids) / PER_FILE)):
            key = f"{split}-{number:03d}"
            kinds = ("observation", "ground_truth")
            files = {kind: root / f"{kind}_{split}_{number:03d}.hdf5" for kind in kinds}
            missing += [file.name for file in files.values() if not file.is_file()]
            facts = {"patients": ids[PER_FILE * number :][:PER_FILE]}
            # The patient stands for many; each example has its own.
            cases[split].append(Case(key=key, patient=key, files=files, facts=facts))
    if missing:
        raise FileNotFoundError(
            f"manual directory {root}: expected the tables of patients and all HDF5 files that "
            f"they speak of. Received: {len(missing)} missing, {', '.join(missing[:4])}"
        )
    return cases


def read(case: Case, config: Any) -> Examples:
    """The samples of a pair of files; `config.fbp` says what the source is.

    Yields:
        "source" float32 line integrals `[1000, 513, 1]`, or with `fbp` their filtered
        back-projection, normalised attenuation `[362, 362, 1]`; "target" float32 normalised
        attenuation `[362, 362, 1]`.

    Raises:
        ValueError: for files of another shape or values, or that cannot be read to their end.
    """
    shapes = {"observation": (VIEWS, DETECTORS), "ground_truth": (SIZE, SIZE)}
    patients = case.facts["patients"]
    for first in range(0, len(patients), _BATCH):
        last = min(first + _BATCH, len(patients))
        observations, images = (
            _samples(case.files[kind], first, last, shape) for kind, shape in shapes.items()
        )
        if images.min() < 0 or images.max() > 1:
            raise ValueError(
                f"{case.files['ground_truth'].name}: expected normalised attenuation in [0, 1]. "
                f"Received: {images.min():g} to {images.max():g} in the samples from {first} on"
            )
        sources = (observations * np.float64(MU_MAX)).astype(np.float32)
        if config.fbp:
            # Of true line integrals comes the attenuation in 1/mm.
            sources = _beam().fbp(sources, FILTER) * np.float32(1000.0 / MU_MAX)
        for i, patient in enumerate(patients[first:last]):
            key = f"{case.key}-{first + i:03d}"
            yield case.example(
                key,
                source=sources[i, ..., None],
                target=np.ascontiguousarray(images[i].T)[..., None],
                spacing=(SPACING, SPACING),
                patient=f"{patient:04d}",
            )


@functools.cache
def _beam() -> radon.ParallelBeam:
    return radon.ParallelBeam(**BEAM)


def _patients(path: Path) -> list[int]:
    try:
        return [int(line) for line in path.read_text(encoding="utf-8").split()]
    except ValueError as error:
        raise ValueError(f"{path.name}: expected a number a line. Received: {error}") from None


def _samples(path: Path, first: int, last: int, shape: tuple[int, int]) -> np.ndarray:
    """Samples `first` to `last` of a file, float32."""
    with reading(path.name), h5py.File(path) as file:
        data = file["data"]
        received = data.shape
        if len(received) == 3 and received[0] >= last and received[1:] == shape:
            return data[first:last].astype(np.float32, copy=False)
    raise ValueError(
        f"{path.name}: expected {last} samples or more of {shape[0]} x {shape[1]}. "
        f"Received: {received}"
    )
