"""All that a run can change, as one frozen and typed dataclass."""

import dataclasses
import difflib
import functools
import math
import re
import types
import typing
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from zoo import ranges
from zoo.domain import Domain

PRESETS = ("paper", "good", "small")


@dataclasses.dataclass(frozen=True)
class Phase:
    """A stretch of training with one batch shape.

    Attributes:
        name: shown in the progress bar, such as "8x8 fade".
        steps: optimisation steps.
        batch_size: images in a step, over all replicas.
        size: height and width of the images wanted, in pixels; 0 takes them as they come.
    """

    name: str
    steps: int
    batch_size: int
    size: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataFacts:
    """What a data set is: all that a recipe, a run or an evaluation may depend on.

    Attributes:
        kind: "paired", "unpaired" or "single".
        keys: features that hold the images: ("image",), or those of source and target.
        source, target: what the numbers mean; of single images both are the image's.
        source_shape, target_shape: sides of the images, (H, W) or (D, H, W); None where they
            differ. Of single images both are the image's.
        dimensions: axes of an image, 2 or 3.
        scales: of a data set of several resolutions, how many times as large targets are.
        aligned: whether the pixels of a pair show the same place.
        features: names of all features.
        class_names: names of the values of "label", the class of a whole image.
        label_names: names of the values of a label map, the class of each pixel.
        beam: of sinograms, the arguments of `zoo.physics.tomography.ParallelBeam`.
        as_images: of measurements, the config that has them as images; "" where none has.
        note: what figures measured on these data have to be read with.
    """

    kind: str = "paired"
    keys: tuple[str, ...] = ("source", "target")
    source: Domain = Domain()
    target: Domain = Domain()
    source_shape: tuple[int, ...] | None = None
    target_shape: tuple[int, ...] | None = None
    dimensions: int = 2
    scales: tuple[int, ...] = ()
    aligned: bool = True
    features: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    label_names: tuple[str, ...] = ()
    beam: dict[str, Any] | None = None
    as_images: str = ""
    note: str = ""

    def holds_labels(self, key: str) -> bool:
        """Whether the values of a feature are numbers of classes, which have no mean."""
        domain = {self.keys[0]: self.source, self.keys[-1]: self.target}.get(key)
        return key.endswith("_label") or (domain is not None and domain.unit == "class")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """Fields that every model has; a plugin's recipe adds its own and sets the paper's defaults.

    A field's type says what it takes, of numbers with the range (`zoo.ranges`); a bad value is
    refused here, before anything is built. A plugin's `__post_init__` checks what holds between
    fields.

    Attributes:
        steps: optimisation steps of the whole run, growing included.
        batch_size: images in one batch, over all replicas; 0 lets the model choose.
        accumulate: batches whose gradients make one update, by their mean: batches of 4 and
            accumulate=2 learn as batches of 8 do, in the memory of 4. A step is one update and
            takes so many batches, so that all schedules stay. Batch normalisation sees each batch
            alone, and a generator all but the last before its discriminator's update.
        clip: greatest norm of all gradients of an update together, of each optimizer; larger ones
            are scaled down to it. 0 clips nothing.
        learning_rate: the optimizer's initial learning rate.
        rate_schedule: "own" is the publication's; or a constant rate, one that falls on a line to
            zero over the second half of the steps, or on a cosine over all of them.
        seed: seeds weights, data order, augmentation and all noise inside a step.
        precision: what the network computes in; "auto" takes bfloat16 or float16 where the
            hardware is fast at it. Weights and the served output are float32.
        crop: sides of the training patch, in pixels of the target: one number, or one for each
            axis, `96,128` (H, W) or `16,128,128` (D, H, W); 0 takes whole images.
        flip: mirror left to right at random; like the next four it moves pixels as they are.
        flip_up_down: mirror top to bottom at random.
        flip_slices: mirror volumes along their slices at random.
        turn: turn images or patches of square slices by 0, 90, 180 or 270 degrees at random.
        shift: greatest random shift, in pixels; each shift is of whole pixels.
        rotation: greatest random rotation, in degrees. It interpolates linearly, which takes a
            third of the noise away (the standard deviation of white noise): not for denoising.
        zoom: greatest random change of scale, as a fraction (0.1: 0.9 to 1.1). It interpolates as
            `rotation` does.
        gamma: of MR, greatest change of the contrast curve: values in their window are raised to
            a random power between 1 / (1 + gamma) and 1 + gamma. Both images of a pair are changed
            alike where they are of one kind, else the source alone; so the next.
        bias_field: of MR, greatest change of the signal by a smooth random field, as receiver coils
            make one: times 1 / (1 + bias_field) to 1 + bias_field.
        noise: standard deviation of Gaussian noise on the source, in its own unit.
        source_window: intensity window of the source (or only) domain, LOW,HIGH, of several inputs
            that of each in turn; None: the data set's own.
        target_window: intensity window of the target domain; None: the data set's own.
        spacing: resample the user's files to this pixel spacing, in mm; 0 keeps their own.
        slices: neighbouring slices given as channels, an odd number (`folder` only).
        source_unit, target_unit: what NIfTI, PNG, TIFF, NPY and other files hold that name no unit,
            such as HU or SUV; source_unit is that of single images, and of several inputs one for
            all or one for each in turn, as HU,SUV (`folder` only).
        source_series, target_series: patterns of SeriesDescription that pick the series of a DICOM
            study, as source_series=T1=*T1*,T2=*T2* and target_series=FLAIR=*FLAIR*; the model keeps
            them for `predict` (`folder` only).
        target: what a training image is compared with: the data set's own "image"; the "neighbour",
            the slice before or after it in its noisy series where the two agree (`folder` only); or
            the "copy" of pairs that are two noisy copies, either of which may be the source.
        tile: sides of the tiles in which larger images are translated, in pixels: one number, or
            one for each axis. Of volumes a number above 160 stands for 160.
        allow_shared_patients: permit one patient in both training and test (`folder` only).
        fold: "2/5" trains on four of five parts of the patients and validates on the second; ""
            takes the data set's own splits.
        image_every: optimisation steps between image grids.
        checkpoint_every: optimisation steps between checkpoints; each validation has one too.
        validate_every: optimisation steps between validations, by which the best weights are
            chosen (`zoo.validation`); 0: about 20 times, in at most a tenth of the run's time, of a
            run that is too short for that at its end; -1: never, and the last weights are taken.
        validate_images: images of the split "validation" that are looked at; 0: as many as that
            time allows, 64 at most.
        choose_by: the measure. "auto" is psnr of aligned pairs, mae of CT made of something else,
            dice of label maps, and sliced_wasserstein of generators, unaligned data and srgan.
        patience: validations without a better one after which the run ends; 0: it never ends early.
    """

    steps: ranges.Count = 100_000
    batch_size: ranges.Batch = 1
    accumulate: ranges.Positive = 1
    clip: ranges.Weight = 0.0
    learning_rate: ranges.Rate = 2e-4
    rate_schedule: Literal["own", "constant", "linear", "cosine"] = "own"
    seed: Annotated[int, ranges.Range(0, 2**31 - 1)] = 0
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    crop: ranges.Sides = 0
    flip: bool = False
    flip_up_down: bool = False
    flip_slices: bool = False
    turn: bool = False
    shift: Annotated[float, ranges.Range(0, below=10**6)] = 0.0
    rotation: Annotated[float, ranges.Range(0, 360)] = 0.0
    zoom: ranges.Fraction = 0.0
    gamma: Annotated[float, ranges.Range(0, 10)] = 0.0
    bias_field: Annotated[float, ranges.Range(0, 10)] = 0.0
    noise: Annotated[float, ranges.Range(0, below=10**9)] = 0.0
    source_window: Annotated[tuple[ranges.Level, ...], ranges.PAIRS] | None = None
    target_window: tuple[ranges.Level, ranges.Level] | None = None
    spacing: Annotated[float, ranges.Range(0, below=1000)] = 0.0
    slices: Annotated[int, ranges.Range(1, 1023)] = 1
    source_unit: str = ""
    target_unit: str = ""
    source_series: str = ""
    target_series: str = ""
    target: Literal["image", "neighbour", "copy"] = "image"
    tile: ranges.Tile = 512
    allow_shared_patients: bool = False
    fold: str = ""
    image_every: ranges.Count = 1000
    checkpoint_every: ranges.Count = 1000
    validate_every: Annotated[int, ranges.Range(-1, below=10**12)] = 0
    validate_images: Annotated[int, ranges.Range(0, below=10**6)] = 0
    choose_by: Literal[
        "auto", "psnr", "ssim", "mae", "dice", "accuracy", "sliced_wasserstein", "kid"
    ] = "auto"
    patience: Annotated[int, ranges.Range(0, below=10**6)] = 0

    # What the "small" preset changes: a run that a laptop finishes. And the "good" one: an evening
    # on a GPU, a weekend on a CPU; it suits every data set that the model does.
    SMALL: ClassVar[dict[str, Any]] = {}
    GOOD: ClassVar[dict[str, Any]] = {}

    def __post_init__(self):
        for name, kind in self.hints().items():
            object.__setattr__(self, name, _checked(name, getattr(self, name), kind))
        for name in ("crop", "tile"):
            object.__setattr__(self, name, self._sides(name))
        for name in ("source_window", "target_window"):
            window = getattr(self, name) or ()
            pairs = zip(window[::2], window[1::2], strict=True)
            if any(low >= high for low, high in pairs):
                raise ValueError(f"{name}: expected LOW,HIGH, LOW < HIGH. Received: {window}")
        if getattr(self, "classes", 0) == 1:
            raise ValueError("classes: expected 0 (no label maps), or 2 or more. Received: 1")
        if self.fold and not _is_fold(self.fold):
            raise ValueError(
                f"fold: expected such as 2/5, the second of five. Received: {self.fold}"
            )
        if self.patience and self.validate_every < 0:
            raise ValueError(
                f"patience: expected 0 where validate_every is -1. Received: {self.patience}"
            )
        if self.slices % 2 == 0:
            raise ValueError(f"slices: expected an odd number. Received: {self.slices}")
        if self.target != "image" and self.slices > 1:
            why = {"neighbour": "a target among its channels", "copy": "places to change"}
            raise ValueError(
                f"slices: expected 1 with target={self.target}, whose source has "
                f"{why[self.target]}. Received: {self.slices}"
            )

    def _sides(self, name: str) -> int | tuple[int, ...]:
        """A field's sides, as one number where all are equal; refused where an axis has none."""
        given = getattr(self, name)
        if isinstance(given, int):
            return given
        if len(given) != self.dimensions:
            axes = {2: "H,W", 3: "D,H,W"}[self.dimensions]
            raise ValueError(
                f"{name}: expected one number, or {axes} with dimensions={self.dimensions}. "
                f"Received: {','.join(map(str, given))}"
            )
        return given[0] if len(set(given)) == 1 else given

    @property
    def crop_sides(self) -> tuple[int, ...]:
        """Sides of the training patch, (H, W) or (D, H, W); () where whole images are taken."""
        return per_axis(self.crop, self.dimensions) if self.crop else ()

    # What a plugin's recipe may answer in another way. A field of that name does it too.

    @property
    def scale(self) -> int:
        """Output pixels along one input pixel, of super-resolution more than 1."""
        return 1

    @property
    def dimensions(self) -> int:
        """Axes of an image: 2, or 3 for volumes."""
        return 2

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the classes of a label map, where the model learns them and they are known."""
        return ()

    @property
    def output(self) -> str:
        """ "image", "residual" (a correction to the input) or "auto" (that where it can be)."""
        return "image"

    @property
    def chooses_by(self) -> str:
        """What `choose_by` "auto" is for aligned pairs; "" for what suits the data."""
        return ""

    @property
    def size_multiple(self) -> int:
        """The sides of what the network takes are multiples of this."""
        return 1

    @property
    def extra_features(self) -> tuple[str, ...]:
        """What a training step needs of an example besides its images, such as "label"."""
        return ()

    def resolve(self, facts: DataFacts) -> Self:
        """The recipe for a data set, what it left open filled in.

        Raises:
            ValueError: for a recipe that the data do not fit.
        """
        return self

    def phases(self) -> Sequence[Phase]:
        """What a run goes through, in order."""
        return [Phase("train", self.steps, self.batch_size)]

    def changed(self, **fields: Any) -> Self:
        """The recipe with some fields set to other values.

        Raises:
            ValueError: for an unknown field or a bad value.
        """
        unknown = [field for field in fields if field not in self.hints()]
        if unknown:
            raise ValueError(
                f"{type(self).__name__} has no field {unknown[0]!r}; it has "
                f"{', '.join(self.hints())}. Received: {unknown[0]}={fields[unknown[0]]}"
            )
        return dataclasses.replace(self, **fields)

    @classmethod
    @functools.cache
    def hints(cls) -> dict[str, Any]:
        """Field name to its type, with its ranges, in order of definition."""
        types = typing.get_type_hints(cls, include_extras=True)
        return {field.name: types[field.name] for field in dataclasses.fields(cls)}

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> Self:
        """The recipe of a name of `PRESETS`, with some fields set to other values.

        Raises:
            ValueError: for an unknown preset, an unknown field or a bad value.
        """
        presets = dict(zip(PRESETS, ({}, cls.GOOD, cls.SMALL), strict=True))
        if name not in presets:
            raise ValueError(f"preset: expected {', '.join(PRESETS)}. Received: {name}")
        return cls(**presets[name]).changed(**overrides)

    @classmethod
    def parse(cls, assignments: list[str]) -> dict[str, Any]:
        """`["steps=20", "flip=true"]` to `{"steps": 20, "flip": True}`, typed by the fields.

        Raises:
            ValueError: for an assignment without `=`, an unknown field or a bad value.
        """
        values = {}
        for assignment in assignments:
            name, equals, text = assignment.partition("=")
            if not equals or name not in cls.hints():
                near = difflib.get_close_matches(name, cls.hints(), n=1) if equals else []
                hint = f" Did you mean {near[0]}?" if near else ""
                raise ValueError(
                    f"--set: expected field=value with a field of {cls.__name__}: "
                    f"{', '.join(cls.hints())}. Received: {assignment}.{hint}"
                )
            values[name] = _checked(name, text, cls.hints()[name])
        return values

    def to_dict(self) -> dict[str, Any]:
        """A JSON-serialisable form that `from_dict` takes back."""
        fields = dataclasses.asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """The recipe that `to_dict` described."""
        return cls.preset("paper", **fields)


def per_axis(sides: int | tuple[int, ...], axes: int) -> tuple[int, ...]:
    """Sides along each of `axes` axes, of which a recipe gives one number or all."""
    return sides if isinstance(sides, tuple) else (sides,) * axes


def _is_fold(text: str) -> bool:
    """Whether a text is K/N, K of 1 to N and N of 2 to 999."""
    found = re.fullmatch("([1-9][0-9]{0,2})/([1-9][0-9]{0,2})", text)
    return found is not None and int(found[1]) <= int(found[2]) > 1


class _Outside(Exception):
    """A number that its field's range does not hold."""


def _checked(name: str, value: Any, kind: Any) -> Any:
    """`value` (or its text) as the field's type, or a ValueError that names the field."""
    try:
        return _convert(value, kind)
    except _Outside as outside:
        raise ValueError(f"{name}: expected {outside}") from None
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
        raise ValueError(f"{name}: expected {_described(kind)}. Received: {value!r}") from None


def _described(kind: Any) -> str:
    """A type as an error names it; of numbers without their range."""
    arguments = typing.get_args(kind)
    if ranges.PAIRS in arguments:
        return "tuple[float, float]"
    if typing.get_origin(kind) is Annotated:
        return _described(arguments[0])
    if typing.get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if typing.get_origin(kind) is tuple:
        return f"tuple[{', '.join(map(_described, arguments))}]"
    if arguments:  # an optional field
        return " or ".join(map(_described, arguments))
    return {type(None): "none", Ellipsis: "..."}.get(kind) or kind.__name__


_SWITCH: dict[str, Any] = {"true": True, "1": True, "false": False, "0": False}


def _convert(value: Any, kind: Any) -> Any:
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is Annotated:
        number = _convert(value, arguments[0])
        if ranges.PAIRS in arguments and (not number or len(number) % 2):
            raise ValueError
        for limits in arguments[1:]:
            if isinstance(limits, ranges.Range) and number not in limits:
                raise _Outside(f"{limits}. Received: {number}")
        return number
    if typing.get_origin(kind) is Literal:
        choices = {str(choice): choice for choice in arguments}
        if any(choice is True for choice in arguments):  # a switch with an "auto"
            value, choices = str(value).lower(), _SWITCH | choices
        return choices[str(value)]
    if typing.get_origin(kind) in (typing.Union, types.UnionType) and kind != (kind | None):
        single, several = arguments  # sides: one number, or one for each axis
        listed = isinstance(value, tuple | list) or (isinstance(value, str) and "," in value)
        return _convert(value, several if listed else single)
    if type(None) in arguments:  # an optional field
        if value is None or (isinstance(value, str) and value.lower() in ("none", "")):
            return None
        return _convert(value, next(a for a in arguments if a is not type(None)))
    if typing.get_origin(kind) is tuple:
        parts = value.strip("()[]").split(",") if isinstance(value, str) else value
        if arguments[-1] is Ellipsis:
            arguments = arguments[:1] * len(parts)
        if len(parts) != len(arguments):
            raise ValueError
        return tuple(_convert(part, a) for part, a in zip(parts, arguments, strict=True))
    if kind is bool:
        if isinstance(value, bool):
            return value
        return _SWITCH[value.lower()]
    if isinstance(value, bool) or (kind is int and isinstance(value, float) and value % 1):
        raise ValueError
    if kind is str and not isinstance(value, str):  # None is no text "None"
        raise ValueError
    if kind is float and not math.isfinite(float(value)):
        raise ValueError
    return kind(value)
