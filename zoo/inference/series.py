"""Which DICOM slices are one series, in the input and in what is made of it."""

from typing import Any

from zoo.imaging.dicom import iods, provenance
from zoo.imaging.dicom.series import Series
from zoo.imaging.volume import Volume


def identity(series: Series) -> tuple[str, ...]:
    """What is equal for volumes of one series, whose UID may be that of several patients."""
    return (series.uid, series.patient) if series.uid else (series.name,)


def of_volume(volume: Volume) -> tuple[str, ...]:
    """The `identity` of a volume's first input; () of what is no DICOM series."""
    first = volume.parts[0]
    return identity(first) if isinstance(first, Series) else ()


def output_identities(model: Any, series: Series) -> list[tuple]:
    """Of each part of the input what is equal for slices of one output series.

    That is the input's series. An object of another modality does not say echo, time or b value,
    by which slices of one place would be told apart: there each part of each volume is a series.
    """
    own = identity(series)
    parts = range(1 + max(frame.part for frame in series.frames))
    if changes(model, series):
        return [(*own, series.name, part) for part in parts]
    return [own for _ in parts]


def changes(model: Any, series: Series) -> bool:
    """Whether a series becomes another kind of DICOM object."""
    return iods.changes(series.modality, model.target, same_unit(model))


def same_unit(model: Any) -> bool:
    """Whether the model's output means what its input does, of several the first."""
    (source, _), *_ = model.source.parts.values()
    target = model.target
    return (source.unit, source.modality) == (target.unit, target.modality)


def numbers(model: Any, volumes: list[Volume]) -> dict[tuple, int]:
    """A SeriesNumber for each series of the output, by `output_identities`.

    It is the input's and 1000, or what is free above that: none is another series' here.
    """
    found: dict[tuple, int] = {}
    for volume in volumes:
        if isinstance(volume, Series):
            identities = output_identities(model, volume)
            if not found.keys() >= set(identities):
                number = provenance.series_number(volume.paths[0])
                found.update((each, number) for each in identities)
    taken = set(found.values())
    given = {}
    for each, number in found.items():
        number = number + 1000 if number + 1000 <= provenance.LARGEST_NUMBER else 1000
        while number in taken:
            number += 1
        taken.add(number)
        given[each] = number
    return given
