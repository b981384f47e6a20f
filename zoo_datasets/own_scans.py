"""The user's own scans beside simulated subjects: a folder for each patient."""

import hashlib
from pathlib import Path

from zoo_datasets.cases import SPLITS, Case, by_patient
from zoo_datasets.simulated import patients


def find(root: Path, counts: tuple[int, int, int]) -> dict[str, list[Case]]:
    """The user's patients by split, and simulated subjects beside them.

    Args:
        root: holds a folder for each patient; or folders `train`, `validation` and `test` of such.
        counts: simulated subjects of each split.

    Raises:
        FileNotFoundError: where there is none.
    """
    named = {split: root / split for split in SPLITS if (root / split).is_dir()}
    found = {split: _scans(folder) for split, folder in named.items()} or by_patient(_scans(root))
    if not any(found.values()):
        raise FileNotFoundError(
            f"manual directory {root}: expected a folder for each patient, or such in folders "
            "called train and validation. Received: none"
        )
    return {split: found.get(split, []) + cases for split, cases in patients(counts).items()}


def _scans(root: Path) -> list[Case]:
    """A case for each folder, whose name may be a patient's and is not kept."""
    cases = []
    for path in sorted(path for path in root.glob("*") if path.is_dir()):
        key = f"S{hashlib.sha256(path.name.encode()).hexdigest()[:8]}"
        cases.append(Case(key=key, patient=key, files={"scan": path}))
    return cases
