"""Writes translated DICOM series as derived images: valid, traceable, in the input's place."""

import collections
import contextlib
import copy
import dataclasses
import functools
import io
import itertools
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pydicom
import pydicom.uid

from zoo.atomic import replacing, scratch
from zoo.domain import Domain
from zoo.errors import contained
from zoo.imaging import geometry
from zoo.imaging.dicom import enlarge, headers, iods, pet, provenance
from zoo.imaging.dicom.encoding import Encoding, decimal
from zoo.imaging.dicom.provenance import Derivation
from zoo.imaging.dicom.series import Series
from zoo.imaging.grids import OnGrid

_PADDING = ("PixelPaddingValue", "PixelPaddingRangeLimit")
# true of the input's bytes or stored values only
# fmt: off
_STALE = (
    "DigitalSignaturesSequence", "MACParametersSequence", "IconImageSequence",
    "InstanceCreatorUID", "SmallestPixelValueInSeries", "LargestPixelValueInSeries",
    "SmallestImagePixelValueInPlane", "LargestImagePixelValueInPlane",
    "EncryptedAttributesSequence", "OriginalAttributesSequence",
)
# fmt: on


def write(
    series: Series,
    paths: list[Path],
    slices: Iterable[tuple[int, np.ndarray]],
    derivation: Derivation,
    skip: Callable[[Path, ValueError], object],
    deidentify: Callable[[pydicom.Dataset], None] | None = None,
    grid: geometry.Grid = geometry.SAME,
) -> tuple[list[Path], list[str]]:
    """Writes slices as a new series in Explicit VR Little Endian.

    Each slice is written as it comes. One encoding must hold them all: the input's where it does,
    else the closest that does (`Encoding.fit`). Where a later slice asks for another one than those
    before had, these are written again, from a temporary file. Memory holds one slice. The files
    appear all at once: of a series that fails, there is none.

    Images of another modality than the input's become objects of that one (`iods.convert`).

    Args:
        series: the input; its headers are read again.
        paths: where each slice goes, or the one path of a multi-frame file.
        slices: pairs of (index, float32 [H, W] in physical units of the target), on the output's
            grid.
        derivation: recorded in the header.
        skip: gets the files whose headers cannot be written, and why, where each slice has its
            own.
        deidentify: changes a header in place.
        grid: how much finer the output's grid is; `depth` above 1 takes single-frame files.

    Returns:
        The files written, those of the slices given, and what there is to say of them.

    Raises:
        ValueError: for slices that are not finite, a header that cannot be written, or slices to
            be interpolated that do not lie at equal distances.
        OSError: where there is no room for the files.
    """
    slices = iter(slices)
    first = next(slices, None)  # what cannot be read needs no room
    if first is None:
        return [], []
    task = _Task(series, derivation, deidentify, grid)
    shape = (series.length * grid.depth, *grid.shape(series.shape))
    with scratch(paths[0].parent, shape, np.float32) as values:
        kept = _Kept(task, values)
        slices = kept.passing(itertools.chain([first], slices))
        # one file of many frames, as the input is
        if task.has_frames and len(paths) == 1:
            collections.deque(slices, maxlen=0)
            _write_frames(task, paths[0], kept)
            return paths, []
        written = _write_slices(task, paths, slices, kept, skip)
    notes = []
    if written and task.changes:
        name = next(iter(written.values())).name
        became = f"{series.modality} became {derivation.target.modality}"
        notes = [f"modality: {became}, written as {name}"]
    return list(written), notes


@dataclasses.dataclass(frozen=True)
class _Task:
    """What is written; see `write`."""

    series: Series
    derivation: Derivation
    deidentify: Callable[[pydicom.Dataset], None] | None
    grid: geometry.Grid

    @property
    def has_frames(self) -> bool:
        """Whether the input is one file of many frames."""
        return len(self.series.paths) < self.series.length

    @property
    def changes(self) -> bool:
        """Whether the output is an object of another class than the input."""
        derivation = self.derivation
        return iods.changes(self.series.modality, derivation.target, derivation.same_unit)


# How values are stored.


class _Kept:
    """Slices in a file, and the encodings that hold them.

    Args:
        task: what is written.
        values: float32 [N, H, W], where they are kept.
    """

    def __init__(self, task: _Task, values: np.ndarray):
        self.task, self.values = task, values
        self._base = _base_encodings(task)
        self._ranges: dict[Encoding, tuple[float, float]] = {}
        self._fitted: dict[Encoding, Encoding] = {}

    def passing(self, slices: Iterable[tuple[int, np.ndarray]]) -> Iterator[tuple[int, np.ndarray]]:
        """The slices, each kept before it goes on."""
        for index, array in slices:
            low, high = float(array.min()), float(array.max())
            if not (math.isfinite(low) and math.isfinite(high)):
                raise ValueError(f"slice {index}: the model's output is not finite")
            self.values[index] = array
            base = self._base[index]
            before = self._ranges.get(base)
            if before is None or low < before[0] or high > before[1]:
                old = before or (low, high)
                self._ranges[base] = min(low, old[0]), max(high, old[1])
                self._fitted = _fit(self.task, self._ranges)
            yield index, array

    def encoding(self, index: int) -> Encoding:
        """Of a slice: the one that holds all that have passed."""
        return self._fitted.get(self._base[index], self._base[index])


def _base_encodings(task: _Task) -> list[Encoding]:
    """The encoding that each slice of the output would keep."""
    derivation = task.derivation
    encodings: list[Encoding] = []
    for frame in task.series.frames:
        encodings += [frame.encoding] * task.grid.depth
    if derivation.classes:  # the numbers themselves
        bits = 8 if encodings[0].bits <= 8 and derivation.classes <= 256 else 16
        return [Encoding(bits=bits, rescaled=encodings[0].rescaled)] * len(encodings)
    if derivation.same_unit:
        return encodings
    # steps of another quantity say nothing: take whole units, or 4096 levels in the window
    if derivation.target.unit == "HU":
        return [Encoding(signed=True, rescaled=True)] * len(encodings)
    slope = min(1.0, 10.0 ** math.floor(math.log10(derivation.target.span / 4096)))
    pet = derivation.target.modality == "PT"
    signed = pet or encodings[0].signed
    rescaled = pet or encodings[0].rescaled or slope != 1
    return [Encoding(slope=slope, signed=signed, rescaled=rescaled)] * len(encodings)


def _fit(task: _Task, ranges: dict[Encoding, tuple[float, float]]) -> dict[Encoding, Encoding]:
    """For each encoding of the input the one that holds the new values."""
    series, derivation = task.series, task.derivation
    padded = not derivation.classes and any(frame.padding for frame in series.frames)
    if padded and not derivation.same_unit:
        # padding becomes the least value of the window
        least = derivation.target.window[0]
        ranges = {old: (min(low, least), max(high, least)) for old, (low, high) in ranges.items()}
        padded = False
    modality = derivation.target.modality if task.changes else series.modality
    if modality == "PT":
        return {old: old.around_zero(*limits) for old, limits in ranges.items()}
    fitted = {old: _roomy(old, *limits, padded) for old, limits in ranges.items()}
    if len({(new.bits, new.signed) for new in fitted.values()}) > 1:  # one layout for all
        signed = any(new.signed for new in fitted.values())
        fitted = {
            old: _roomy(dataclasses.replace(old, bits=16, signed=signed), *limits, padded)
            for old, limits in ranges.items()
        }
    return fitted


def _roomy(old: Encoding, low: float, high: float, padded: bool) -> Encoding:
    """The fitted encoding; a new one leaves the end levels to padding, where it can."""
    new = old.fit(low, high)
    if padded and new != old:
        step = abs(old.slope)
        roomy = old.fit(low - step, high + step)
        return roomy if roomy.slope == old.slope else new
    return new


def _stored(task: _Task, index: int, values: np.ndarray, encoding: Encoding) -> np.ndarray:
    """Stored integers of a slice, with the input's padding put back.

    In a label map it is class 0, and in another unit the least value of the window.
    """
    stored = encoding.encode(values)
    number = index // task.grid.depth
    padding = task.series.frames[number].padding
    if padding:
        source = task.grid.repeat(task.series.stored(number))
        mask = (source >= padding[0]) & (source <= padding[1])
        if task.derivation.classes:
            stored[mask] = 0
        elif task.derivation.same_unit:
            stored[mask] = np.clip(source[mask], *encoding.limits)
        else:
            stored[mask] = encoding.encode(np.array(task.derivation.target.window[0]))
    return stored


def _words(stored: np.ndarray, allocated: int) -> np.ndarray:
    return stored.astype("<i2").astype("<u2") if allocated == 16 else stored.astype(np.uint8)


def _padded(words: np.ndarray) -> bytes:
    """The bytes of Pixel Data, whose number is even."""
    data = words.tobytes()
    return data + b"\0" * (len(data) % 2)


# Files.


def _write_slices(
    task: _Task,
    paths: list[Path],
    slices: Iterable[tuple[int, np.ndarray]],
    kept: _Kept,
    skip: Callable[[Path, ValueError], object],
) -> dict[Path, pydicom.uid.UID]:
    """One file for each slice, which get their names together, and the class of each."""
    classes: dict[int, pydicom.uid.UID] = {}
    files: dict[int, Path] = {}
    encodings: dict[int, Encoding] = {}
    source: Callable[[Path], pydicom.Dataset] = functools.partial(_source, task)
    if task.has_frames:  # the header of many frames is read once
        source = functools.lru_cache(maxsize=1)(source)
    with contextlib.ExitStack() as names:

        def write_one(index: int, values: np.ndarray) -> None:
            path, encoding = task.series.path(index // task.grid.depth), kept.encoding(index)
            try:
                with contained("header"):
                    stored = _stored(task, index, values, encoding)
                    header = _header(task, source(path), index, encoding)
                    _describe_pixels(header, [encoding], int(stored.min()), int(stored.max()))
                    header.PixelData = _padded(_words(stored, header.BitsAllocated))
                    # what cannot be written is found in memory, not on the disk
                    content = io.BytesIO()
                    _save(header, content)
            except ValueError as error:
                if index in files or task.has_frames or task.grid.depth > 1:
                    raise
                skip(path, error)
                return
            if index not in files:
                files[index] = names.enter_context(replacing(paths[index]))
            files[index].write_bytes(content.getbuffer())
            classes[index], encodings[index] = header.SOPClassUID, encoding

        for index, values in slices:
            write_one(index, values)
        for index, encoding in list(encodings.items()):
            if encoding != kept.encoding(index):
                write_one(index, kept.values[index])
    return {paths[index]: kind for index, kind in classes.items()}


def _write_frames(task: _Task, path: Path, kept: _Kept) -> None:
    """One multi-frame file; frames keep their stored order."""
    series, encodings = task.series, [kept.encoding(index) for index in range(task.series.length)]
    with contained("header"):
        header = _header(task, _source(task, series.paths[0]), 0, encodings[0])
        allocated = _allocated(header, encodings[0])
    order = sorted(range(series.length), key=lambda index: series.frames[index].number)
    low, high = 1 << 16, -(1 << 16)
    with tempfile.TemporaryFile(dir=path.parent) as pixels:
        for index in order:
            stored = _stored(task, index, kept.values[index], encodings[index])
            low, high = min(low, int(stored.min())), max(high, int(stored.max()))
            pixels.write(_words(stored, allocated).tobytes())
        pixels.write(b"\0" * (pixels.tell() % 2))
        pixels.seek(0)
        with contained("header"):
            _describe_pixels(header, [encodings[index] for index in order], low, high)
            header.PixelData = pixels
            with replacing(path) as temporary:
                _save(header, temporary)


def _save(header: pydicom.Dataset, file: Path | io.BytesIO) -> None:
    """Writes a header with its pixels in Explicit VR Little Endian."""
    header["PixelData"].VR = "OB" if header.BitsAllocated == 8 else "OW"
    with headers.quiet():
        header.save_as(file, implicit_vr=False, little_endian=True, enforce_file_format=True)


# Headers.


def _source(task: _Task, path: Path) -> pydicom.Dataset:
    """The header of an input file, less its pixels and what is true of them alone."""
    with headers.quiet():
        header = headers.read(path)
        if not header.original_encoding[1]:
            header.walk(headers.swap_words)
            header.set_original_encoding(False, True, header.original_character_set)
        headers.remove(header, _STALE)
        for group in range(0x5000, 0x5020, 2):  # curves, whose VR pydicom leaves open
            if (group, 0x3000) in header:
                header[group, 0x3000].VR = "OW"
        if header.file_meta.TransferSyntaxUID.is_encapsulated:
            headers.remove_encapsulated(header)
        provenance.keep_lossy(header, path)
        iods.complete(header, task.derivation.series[0][0])
        if task.deidentify is not None:
            task.deidentify(header)
        _remove_empty_overlays(header)
    return header


def _header(
    task: _Task, header: pydicom.Dataset, index: int, encoding: Encoding
) -> pydicom.Dataset:
    """The header of output slice `index`, less its pixels, made from the nearest input slice's."""
    series, derivation, grid = task.series, task.derivation, task.grid
    number = index // grid.depth
    with headers.quiet():
        part = series.frames[number].part
        frame = series.frames[number].number if task.changes and task.has_frames else None
        origin = provenance.reference(header, frame)
        if task.changes:
            header = iods.flatten(header, series.frames[number].number)
            parts = [frame.part for frame in series.frames]
            count, first = parts.count(part), parts.index(part)
            iods.convert(header, derivation.target, count, number - first)
        provenance.derive(header, derivation, origin, part, _other_origins(task, number))
        as_suv = series.modality == "PT" and pet.unit(header) != series.unit
        if not derivation.same_unit or as_suv:
            header.remove_private_tags()  # they may hold scales of the old values
            _change_unit(header, derivation.target, encoding.rescaled)
        if derivation.classes or not derivation.same_unit:
            headers.remove(header, _PADDING)
        if grid.depth > 1:
            enlarge.interpolate(header, series, index, grid.depth)
        if grid.scale > 1:
            enlarge.enlarge(header, grid.scale)
    return header


def _other_origins(task: _Task, number: int) -> list[provenance.Origin]:
    """What slice `number` was made of besides, where that is DICOM."""
    found = []
    for other in task.derivation.others:
        series, index = other, number
        if isinstance(other, OnGrid):
            series, index = other.target, other.nearest(number)
        if isinstance(series, Series):
            whole = task.has_frames and not task.changes  # one header for all slices
            paths = series.paths if whole else (series.path(index),)
            for header in (_source(task, path) for path in paths):
                image = provenance.reference(header)
                if image is not None:
                    found.append(provenance.Origin.of(header, image))
    return found


def _remove_empty_overlays(header: pydicom.Dataset) -> None:
    """Removes what describes overlays in unused bits of the pixels, which are not written."""
    for group in range(0x6000, 0x6020, 2):
        if (group, 0x0010) in header and (group, 0x3000) not in header:
            for element in header.group_dataset(group):
                del header[element.tag]


def _change_unit(header: pydicom.Dataset, target: Domain, rescaled: bool) -> None:
    """Unit and window of values that mean something else than the input's."""
    _forget_real_world(header)
    if header.get("PhotometricInterpretation") == "MONOCHROME1":  # of the input's brightness
        header.PhotometricInterpretation = "MONOCHROME2"
        if "PresentationLUTShape" in header:
            header.PresentationLUTShape = "IDENTITY"
    for dataset in _value_groups(header, "FrameVOILUTSequence"):
        dataset.WindowCenter = decimal(sum(target.window) / 2)
        dataset.WindowWidth = decimal(target.span)
        headers.remove(
            dataset, ["WindowCenterWidthExplanation", "VOILUTSequence", "VOILUTFunction"]
        )
    if target.modality == "PT" and "Units" in header:
        iods.set_pet_unit(header, target)
    elif rescaled:
        for dataset in _value_groups(header, "PixelValueTransformationSequence"):
            dataset.RescaleType = "HU" if target.unit == "HU" else "US"


def _forget_real_world(header: pydicom.Dataset) -> None:
    """Removes the units of stored values that are no longer the same."""
    for dataset in (header, *headers.functional_groups(header)):
        headers.remove(dataset, ["RealWorldValueMappingSequence"])


def _value_groups(header: pydicom.Dataset, sequence: str) -> list[pydicom.Dataset]:
    """The functional group's items, or the header itself where there are none."""
    groups = headers.functional_groups(header)
    items = [headers.items(group, sequence) for group in groups]
    return list(itertools.chain.from_iterable(items)) or [header]


def _allocated(header: pydicom.Dataset, encoding: Encoding) -> int:
    return 8 if header.BitsAllocated == 8 and encoding.bits <= 8 else 16


def _rescale_items(header: pydicom.Dataset, differ: bool) -> list[pydicom.Dataset]:
    """What holds the rescale: one item for all frames, or in order one of each, made as needed.

    Args:
        header: of the output.
        differ: whether the frames' encodings do.
    """
    sequence = "PixelValueTransformationSequence"
    own = headers.items(header, "PerFrameFunctionalGroupsSequence")
    shared = [g for g in headers.items(header, "SharedFunctionalGroupsSequence") if sequence in g]
    if not own or not (differ or (shared and any(sequence in group for group in own))):
        return _value_groups(header, sequence)
    common = shared[0][sequence].value[0] if shared else pydicom.Dataset()
    for group in own:
        if sequence not in group:
            group.PixelValueTransformationSequence = [copy.deepcopy(common)]
    for group in shared:
        del group[sequence]
    return [group[sequence].value[0] for group in own]


def _describe_pixels(
    header: pydicom.Dataset, encodings: list[Encoding], low: int, high: int
) -> None:
    """Everything in the header that depends on the stored values."""
    first = encodings[0]
    padding = headers.padding_ends(header)
    header.BitsAllocated = _allocated(header, first)
    header.BitsStored, header.HighBit = first.bits, first.bits - 1
    header.PixelRepresentation = int(first.signed)
    # the rescale, which takes the place of a table
    changed = False
    if "ModalityLUTSequence" in header:
        del header.ModalityLUTSequence
        changed = True
    items = _rescale_items(header, len(set(encodings)) > 1)
    for item, encoding in zip(items, encodings, strict=False):
        if not encoding.rescaled:
            continue
        stated = item.get("RescaleSlope"), item.get("RescaleIntercept")
        if stated != (encoding.slope, encoding.intercept):
            changed = True
            item.RescaleSlope = pydicom.valuerep.format_number_as_ds(encoding.slope)
            item.RescaleIntercept = pydicom.valuerep.format_number_as_ds(encoding.intercept)
            if "RescaleType" not in item and "Units" not in header:  # PET has Units instead
                item.RescaleType = "US"
    if changed:
        _forget_real_world(header)
    # elements that hold stored values
    vr = "SS" if first.signed else "US"
    for keyword, value in (("SmallestImagePixelValue", low), ("LargestImagePixelValue", high)):
        if keyword in header:
            header[keyword] = pydicom.DataElement(keyword, vr, value)
    for keyword, value in zip(_PADDING, padding or (), strict=False):
        if keyword in header:
            value = int(np.clip(value, *first.limits))
            header[keyword] = pydicom.DataElement(keyword, vr, value)
