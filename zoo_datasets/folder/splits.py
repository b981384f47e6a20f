"""Splits by patient: what is taken for validation and test, and who is in which."""

import hashlib
import os
from collections import defaultdict

from zoo_datasets.folder.items import Item, Layout


def join_links(domains: list[dict[str, list[Item]]]) -> None:
    """Gives a file that links lead to one patient, where nobody knows who it is, in place."""
    patients: dict[str, str] = {}
    for items in [items for domain in domains for items in domain.values()]:
        for number, item in enumerate(items):
            if not item.known:
                file = os.path.realpath(item.volumes[0].path(0))
                items[number] = item._replace(patient=patients.setdefault(file, item.patient))


def carve(domains: list[dict[str, list[Item]]]) -> None:
    """Take a test split, and a validation split where there is neither, from the training items.

    About a tenth of the patients each, by the order of their hashes; the same every time.
    """
    given = set().union(*domains)
    if "test" in given:
        return
    pools, patients = [], []
    for domain in domains:
        pools.append(domain.pop("", []) + domain.pop("train", []))
        patients.append({item.patient for item in pools[-1]})
    # Patients of both domains, and of each alone, are divided apart: each part serves both.
    groups = defaultdict(list)
    for patient in sorted(set().union(*patients)):
        groups[tuple(patient in some for some in patients)].append(patient)
    split_of = {}
    for members in groups.values():
        members.sort(key=_shuffled)
        tenth = max(1, round(len(members) / 10))
        names = ["test"] + ([] if "validation" in given else ["validation"])
        # Three patients are the fewest for three splits, two for two; one stays in training.
        taken = names[: max(len(members) - 1, 0)]
        for number, patient in enumerate(members):
            part = number // tenth
            split_of[patient] = taken[part] if part < len(taken) else "train"
    for domain, pool in zip(domains, pools, strict=True):
        for item in pool:
            domain.setdefault(split_of[item.patient], []).append(item)
    for split in ("validation", "test"):  # useful only where every domain has it
        if split not in given and not all(domain.get(split) for domain in domains):
            for domain in domains:
                domain.setdefault("train", []).extend(domain.pop(split, []))


def _shuffled(patient: str) -> str:
    """An order of patients that has nothing to do with their names; it is never written."""
    return hashlib.sha256(patient.encode("utf-8", "surrogateescape")).hexdigest()


def check_patients(layout: Layout, allowed: bool) -> None:
    """Notes in the layout whether a patient is in several splits.

    Raises:
        ValueError: where one is and that is not allowed.
    """
    splits: defaultdict[str, set[str]] = defaultdict(set)
    for domain in layout.domains:
        for split, items in domain.items():
            for item in items:
                splits[item.patient].add(split)
    shared = [patient for patient, names in splits.items() if len(names) > 1]
    layout.shared_patients = bool(shared)
    if shared and not allowed:
        names = sorted(set().union(*(splits[patient] for patient in shared)))
        raise ValueError(
            f"allow_shared_patients: expected each patient in one split only, or "
            f"`--set allow_shared_patients=true` to permit results that flatter. "
            f"Received: {len(shared)} patients in several of {', '.join(names)}"
        )
