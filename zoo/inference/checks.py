"""Whether a file suits a model: what is refused, and what is translated with a warning."""

import collections
import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from zoo import guards
from zoo.domain import Domain
from zoo.errors import contained
from zoo.imaging import geometry, several
from zoo.imaging.dicom.series import Series
from zoo.imaging.several import together
from zoo.imaging.volume import Volume


def require_suited(model: Any, volume: Volume) -> None:
    """A ValueError where modality, unit, channels or slices are not what the model takes.

    Of several inputs it names the one.
    """
    for domain, part, of_input in _of_inputs(model, volume):
        with of_input:
            known = {domain.modality, part.modality} - {"OT", ""}
            if len(known) > 1:
                raise ValueError(
                    f"modality: the model takes {domain.modality} images. Received: {part.modality}"
                )
            _require_kind(domain, part)
            _require_channels(model, domain, part)
    if model.dimensions == 3:
        _require_slices(model, volume.parts[0])


def _of_inputs(
    model: Any, volume: Volume
) -> Iterator[tuple[Domain, Volume, contextlib.AbstractContextManager]]:
    """Each input's domain and volume, and a context that puts its name before an error."""
    found = zip(model.source.parts.items(), volume.parts, strict=True)
    for (name, (domain, _)), part in found:
        yield domain, part, _naming(f"{name}: " if model.source.inputs else "")


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{name}{error}") from error


def _require_kind(domain: Domain, volume: Volume) -> None:
    """Images where the model takes images, and measurements where it takes these."""
    if (domain.unit == "k-space") != (volume.unit == "k-space"):
        takes = "images" if volume.unit == "k-space" else "k-space, complex NPY files"
        received = "k-space" if volume.unit == "k-space" else "an image of real numbers"
        raise ValueError(f"unit: the model takes {takes}. Received: {received}")
    if domain.unit == "line integral" and volume.kind != "array":
        raise ValueError(
            "unit: the model takes sinograms, NPY files [views, detectors] of line integrals. "
            f"Received: a {volume.kind} image"
        )


def _require_channels(model: Any, domain: Domain, volume: Volume) -> None:
    expected = 1 if model.recipe.slices > 1 else domain.channels
    if volume.channels != expected:
        kind = "colour (RGB)" if volume.channels == 3 else f"{volume.channels}-channel"
        raise ValueError(f"channels: the model takes {expected}. Received: a {kind} image")
    # k-space becomes a real image, and any image one label map
    written = 1 if model.classes or volume.unit == "k-space" else volume.channels
    if written != model.target.channels:
        raise ValueError(
            f"channels: expected a model that writes {written}, as the file has. "
            f"Received: {model.target.channels}"
        )


def _require_slices(model: Any, volume: Volume) -> None:
    """Several, at equal distances, in files that finer ones can be written beside."""
    if volume.length == 1:
        raise ValueError("slices: the model takes volumes of several. Received: a single slice")
    if isinstance(volume, Series):
        geometry.slice_step([frame.position for frame in volume.frames])
        if model.scale > 1 and len(volume.paths) == 1:
            raise ValueError(
                "slices: the model writes more slices than it reads, which takes a series of "
                f"single-frame files. Received: {volume.length} frames in one file"
            )


def in_unit(model: Any, volume: Volume) -> Volume:
    """The volume with its values in the model's unit; only DICOM headers tell what they are in.

    Raises:
        ValueError: for values in another unit.
    """
    converted = []
    for domain, part, of_input in _of_inputs(model, volume):
        with of_input:
            converted.append(_in_unit(domain.unit, part))
    return together(converted, tuple(model.source.parts))


def _in_unit(wanted: str, volume: Volume) -> Volume:
    if not isinstance(volume, Series) or wanted in ("1", volume.unit):
        return volume
    if wanted == "signal" and volume.unit == "1":  # neither has a scale
        return volume
    return volume.in_unit(wanted)


def on_one_grid(model: Any, volume: Volume) -> tuple[Volume, list[str]]:
    """Several inputs on the grid of the first, and what there is to say of it.

    What an input does not reach is read as the low end of its window.

    Raises:
        ValueError: as `several.on_one_grid`.
    """
    fills = [domain.window[0] for domain, _ in model.source.parts.values()]
    matched, shares = several.on_one_grid(volume, fills)
    first = next(iter(model.source.parts))
    notes = [
        f"{name}: resampled onto the grid of {first}, of which it covers {share:.0%}"
        for name, share in shares.items()
    ]
    return matched, notes


def reasons(model: Any, volume: Volume, alone: bool) -> list[str]:
    """What there is to warn of.

    Neighbours that are not known or lie apart where the model takes several slices, another plane,
    and what `guards.reasons` finds in the first, middle and last slice that can be read.

    Args:
        model: a `zoo.Translator`.
        volume: in its unit.
        alone: whether this is one of several slices of one view whose neighbours are not known.
    """
    first = volume.parts[0]
    found = _gaps(first) if model.recipe.slices > 1 and isinstance(first, Series) else []
    found += guards.plane_reasons(model, first)
    if getattr(model, "trained_on", None) is not None or model.source.inputs:
        found += _unlike(model, volume)
    if model.recipe.slices > 1 and alone:
        taken = f"the model takes {model.recipe.slices} neighbouring ones"
        found.append(f"slices: {taken}. Received: a slice whose neighbours are not known")
    return found


def _gaps(series: Series) -> list[str]:
    """Where one part of a series has neighbours that lie apart; the first is enough."""
    parts = collections.defaultdict(list)
    for frame in series.frames:
        parts[frame.part].append(frame.position)
    for positions in parts.values():
        try:
            geometry.slice_step(positions)
        except ValueError as error:
            if None not in positions and len(positions) > 1:
                return [str(error)]
    return []


def _unlike(model: Any, volume: Volume) -> list[str]:
    """How a few of the slices differ from what the model was trained on."""
    images = []
    # Of several inputs each has its channels, those of its neighbouring slices among them.
    slices = model.recipe.slices if model.source.inputs else 1
    for index in sorted({0, volume.length // 2, volume.length - 1}):
        # the translation itself will come to what cannot be read
        with contextlib.suppress(ValueError), contained("unreadable"):
            images.append(volume.stack(index, slices))
    if not images:
        return []
    first = volume.parts[0]
    bits = 8 if getattr(first, "dtype", "") == "uint8" else None
    if isinstance(first, Series):
        bits = first.frames[0].encoding.bits
    return guards.reasons(model, np.stack(images), volume.spacing, bits)
