"""Simulated sources: numbered patients, drawn by worker processes where they are many."""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from zoo_datasets.cases import SPLITS, Case, Example, Examples, SourceConfig
from zoo_datasets.sources import SourceBuilder
from zoo_datasets.workers import map_in_order, one_thread_each

_FEW = 20  # patients that are drawn before worker processes have started

P = TypeVar("P")


@dataclasses.dataclass(eq=False, kw_only=True)
class SimulatedConfig(SourceConfig, Generic[P]):
    """A simulated source; a data set's own config adds its fields.

    Attributes:
        protocol: how a patient is scanned.
        patients: how many in each of `SPLITS`.
        seed: of the simulation; other seeds give other patients.
        check: raises FileNotFoundError where what is simulated needs a file that is not there.
    """

    protocol: P
    patients: tuple[int, int, int]
    seed: int = 0
    check: Callable[[], object] | None = None


class SimulatedBuilder(
    SourceBuilder,
    skip_registration=True,  # type: ignore[call-arg]  # TFDS's class has no types
):
    """A builder with a `SimulatedConfig` for each simulated source."""

    def simulated_cases(self) -> dict[str, list[Case]]:
        """One case a patient."""
        config = self.builder_config
        if config.check:
            config.check()
        return patients(config.patients)

    def _generate_examples(self, cases: list[Case]) -> Examples:
        config = self.builder_config
        if config.find or len(cases) < _FEW:
            yield from super()._generate_examples(cases)
            return
        with one_thread_each():
            for examples in map_in_order(functools.partial(_read, config=config), cases):
                yield from examples


def patients(counts: Iterable[int]) -> dict[str, list[Case]]:
    """Cases `P000`, `P001` … with the fact "number", so many of them in each of `SPLITS`."""
    return numbered_cases(counts, _patient)


def numbered_cases(counts: Iterable[int], make: Callable[[int], Case]) -> dict[str, list[Case]]:
    """The cases that are made of the numbers 0, 1 …, so many of them in each of `SPLITS`."""
    splits, first = {}, 0
    for split, count in zip(SPLITS, counts, strict=True):
        splits[split] = list(map(make, range(first, first + count)))
        first += count
    return splits


def _patient(number: int) -> Case:
    key = f"P{number:03d}"
    return Case(key=key, patient=key, facts={"number": number})


def numbered(case: Case, features: Iterable[dict[str, Any]]) -> Examples:
    """A patient's examples, called after the patient and their number."""
    for i, each in enumerate(features):
        yield case.example(f"{case.key}-{i}", **each)


def slices(case: Case, stacks: dict[str, Any], **same: Any) -> Examples:
    """A patient's slices as examples.

    Args:
        case: the patient.
        stacks: as many images `[H, W, C]`, or `[H, W]` of one channel, or volumes `[D, H, W, C]`,
            under each feature's name.
        same: features that all examples share.
    """
    for i, images in enumerate(zip(*stacks.values(), strict=True)):
        whole = (image if image.ndim > 2 else image[..., None] for image in images)
        features = dict(zip(stacks, whole, strict=True))
        yield case.example(f"{case.key}-{i}", **features, **same)


def _read(case: Case, config: SourceConfig) -> list[Example]:
    return list(config.read(case, config))
