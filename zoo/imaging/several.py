"""Several volumes of one patient as one, whose channels are their images."""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from zoo.imaging import grids
from zoo.imaging.volume import Volume


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Several(Volume):
    """Grey volumes that are read together; how they lie, and whose they are, the first says.

    Attributes:
        volumes: in the order of the channels; `on_one_grid` brings them onto that of the first.
        names: of the inputs that they are.
    """

    kind: ClassVar[str] = "several"

    volumes: tuple[Volume, ...]
    names: tuple[str, ...]

    @property
    def parts(self) -> tuple[Volume, ...]:
        """See `Volume.parts`."""
        return self.volumes

    @property
    def affine(self) -> np.ndarray | None:
        """See `Volume.affine`."""
        return self.volumes[0].affine

    @property
    def acquired(self) -> str | None:
        """See `Volume.acquired`."""
        return self.volumes[0].acquired

    def presented(self, plane: str | None) -> Volume:
        """See `Volume.presented`."""
        whole = together([part.presented(plane) for part in self.volumes], self.names)
        return dataclasses.replace(whole, name=self.name)

    def read(self, index: int) -> np.ndarray:
        """See `Volume.read`: float32 [H, W, inputs]."""
        return self.stack(index, 1)

    def stack(self, index: int, slices: int) -> np.ndarray:
        """See `Volume.stack`: float32 [H, W, inputs x slices], all slices of the first first."""
        self._check(index)
        stacks = []
        for name, part in zip(self.names, self.volumes, strict=True):
            try:
                stacks.append(part.stack(index, slices))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
        return np.concatenate(stacks, axis=-1)

    def neighbour(self, index: int, offset: int) -> int:
        """See `Volume.neighbour`."""
        return self.volumes[0].neighbour(index, offset)


def together(volumes: Sequence[Volume], names: Sequence[str]) -> Volume:
    """One volume of several, or the only one itself.

    Args:
        volumes: in the order of the channels.
        names: of the inputs; not looked at where there is one.
    """
    first, *others = volumes
    if not others:
        return first
    same: dict[str, Any] = {
        field.name: getattr(first, field.name) for field in dataclasses.fields(Volume)
    }
    paths = [(*part.paths, *part.companions) for part in others]
    same["companions"] = sum(paths, first.companions)
    same["channels"] = sum(part.channels for part in volumes)
    same["patient"] = next((part.patient for part in volumes if part.patient), "")
    return Several(**same, volumes=tuple(volumes), names=tuple(names))


def on_one_grid(volume: Volume, fills: Sequence[float] = ()) -> tuple[Volume, dict[str, float]]:
    """Several volumes on the grid of the first; any other volume as it is.

    Args:
        volume: of `together`.
        fills: of each input, what is read where it does not reach; NaN where none are given.

    Returns:
        The volume, and of each input that is resampled the share of the first that it covers.

    Raises:
        ValueError: where one is in colour or of another patient, where nobody knows how they lie
            to each other, or where they lie apart.
    """
    if not isinstance(volume, Several):
        return volume, {}
    first, *others = volume.volumes
    patients = {part.patient for part in volume.volumes} - {""}
    if len(patients) > 1:
        raise ValueError("inputs: expected those of one patient. Received: several")
    matched, shares = [first], {}
    for number, (name, part) in enumerate(zip(volume.names, volume.volumes, strict=True)):
        if part.channels != 1:
            raise ValueError(f"{name}: expected a grey image. Received: {part.channels} channels")
        if number:
            found, share = _on_first(volume.names[0], first, name, part)
            if isinstance(found, grids.OnGrid) and found is not part:
                found = dataclasses.replace(found, fill=fills[number] if fills else np.nan)
                shares[name] = share
            matched.append(found)
    return together(matched, volume.names), shares


def _on_first(one: str, first: Volume, name: str, part: Volume) -> tuple[Volume, float]:
    """A further input on the grid of the first, and the share of that which it covers."""
    try:
        found, share = grids.on_source(first, part)
    except ValueError as error:
        what = str(error).replace("the target", name).replace("its source", one)
        raise ValueError(f"{one} and {name} {what}") from error
    sizes = [f"{v.length} x {v.shape[0]} x {v.shape[1]}" for v in (first, found)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"{one} and {name} have different sizes, and a file does not say how it lies. "
            f"Received: {sizes[0]} and {sizes[1]}"
        )
    return found, share
