"""Numbered patients: the cases of a simulated source."""

from collections.abc import Iterable

import numpy as np

from zoo_datasets.sources import SPLITS, Case


def patients(counts: Iterable[int]) -> dict[str, list[Case]]:
    """Cases `P000`, `P001` … with the fact "number", so many of them in each of `SPLITS`."""
    ends = np.cumsum([0, *counts]).tolist()
    return {
        split: [
            Case(key=f"P{number:03d}", patient=f"P{number:03d}", facts={"number": number})
            for number in range(ends[k], ends[k + 1])
        ]
        for k, split in enumerate(SPLITS)
    }
