"""Simulated sources: numbered patients, drawn by worker processes where they are many."""

import functools
from collections.abc import Iterable
from typing import Any

import numpy as np

from zoo_datasets.cases import SPLITS, Case, Examples
from zoo_datasets.sources import SourceBuilder
from zoo_datasets.workers import _one_thread_each, map_in_order

_FEW = 20  # patients that are drawn before worker processes have started


class SimulatedBuilder(SourceBuilder, skip_registration=True):
    """A builder whose simulated configs say in `patients` how many there are in each split."""

    def simulated_cases(self) -> dict[str, list[Case]]:
        return patients(self.builder_config.patients)

    def _generate_examples(self, cases: list[Case]) -> Examples:
        config = self.builder_config
        if config.find or len(cases) < _FEW:
            yield from super()._generate_examples(cases)
            return
        with _one_thread_each():
            for examples in map_in_order(functools.partial(_read, config=config), cases):
                yield from examples


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


def paired_slices(
    case: Case, sources: np.ndarray, targets: np.ndarray, labels: np.ndarray
) -> Examples:
    """A patient's slices `[slices, H, W]` as examples; source and target share their labels."""
    for i, (source, target, label) in enumerate(zip(sources, targets, labels, strict=True)):
        name = f"{case.key}-{i}"
        yield (
            name,
            {
                "source": source[..., None],
                "target": target[..., None],
                "source_label": label[..., None],
                "target_label": label[..., None],
                "patient": case.patient,
                "name": name,
            },
        )


def _read(case: Case, config: Any) -> list[tuple[str, dict[str, Any]]]:
    return list(config.read(case, config))
