"""All that a run can change, as one frozen and typed dataclass."""

import dataclasses
import difflib
import math
import typing
from typing import Any, ClassVar, Literal, Self

# Sizes of networks, where a recipe has them: beyond these, building one would not come to an end.
_SIZES = {
    "levels": (1, 16),
    "blocks": (0, 1024),
    "residual_blocks": (0, 1024),
    "discriminator_layers": (0, 16),
    "discriminator_scales": (1, 16),
    "base_filters": (1, 8192),
    "discriminator_filters": (1, 8192),
    "classes": (0, 65536),
}
# Numbers that are no less than 0, beside those called rates and weights of a loss (`lambda_…`).
_POSITIVE = {"shift", "rotation", "noise", "spacing", "gradient_penalty", "drift", "weight_decay"}
_FRACTIONS = {"zoom", "dropout", "ema", "momentum", "rms_decay"}  # 0 and more, below 1


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
class Recipe:
    """Fields that every model has; a plugin's recipe adds its own and sets the paper's defaults.

    Attributes:
        steps: optimisation steps of the whole run, growing included.
        batch_size: images in one step, over all replicas; 0 lets the model choose.
        learning_rate: the optimizer's initial learning rate.
        seed: seeds weights, data order, augmentation and all noise inside a step.
        precision: "auto" takes bfloat16 where the hardware is fast at it.
        crop: sides of the training patch, in pixels of the target; 0 takes whole images.
        flip: mirror left to right at random; like the next three it moves pixels as they are.
        flip_up_down: mirror top to bottom at random.
        turn: turn square images or patches by 0, 90, 180 or 270 degrees at random.
        shift: greatest random shift, in pixels; each shift is of whole pixels.
        rotation: greatest random rotation, in degrees. It interpolates linearly, which takes a
            third of the noise away (the standard deviation of white noise): not for denoising.
        zoom: greatest random change of scale, as a fraction (0.1: 0.9 to 1.1). It interpolates as
            `rotation` does.
        noise: standard deviation of Gaussian noise on the source, in its own unit.
        source_window: intensity window of the source (or only) domain; None: the data set's own.
        target_window: intensity window of the target domain; None: the data set's own.
        spacing: resample the user's files to this pixel spacing, in mm; 0 keeps their own.
        slices: neighbouring slices given as channels, an odd number (`folder` only).
        source_unit, target_unit: what NIfTI, PNG, TIFF, NPY and other files hold that name no unit,
            such as HU or SUV; source_unit is that of single images (`folder` only).
        tile: side of the tiles in which larger images are translated, in pixels.
        allow_shared_patients: permit one patient in both training and test (`folder` only).
        image_every: optimisation steps between image grids.
        checkpoint_every: optimisation steps between checkpoints.
    """

    steps: int = 100_000
    batch_size: int = 1
    learning_rate: float = 2e-4
    seed: int = 0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    crop: int = 0
    flip: bool = False
    flip_up_down: bool = False
    turn: bool = False
    shift: float = 0.0
    rotation: float = 0.0
    zoom: float = 0.0
    noise: float = 0.0
    source_window: tuple[float, float] | None = None
    target_window: tuple[float, float] | None = None
    spacing: float = 0.0
    slices: int = 1
    source_unit: str = ""
    target_unit: str = ""
    tile: int = 512
    allow_shared_patients: bool = False
    image_every: int = 1000
    checkpoint_every: int = 1000

    # What the "small" preset changes: a run that a laptop finishes.
    SMALL: ClassVar[dict[str, Any]] = {}

    # A super-resolution recipe has a field in place of each: output pixels along one input pixel,
    # and axes of an image (3: volumes).
    scale: ClassVar[int] = 1
    dimensions: ClassVar[int] = 2

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            object.__setattr__(self, field.name, _checked(field.name, value, self.hints()))
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"seed: expected a number from 0 to 2^31 - 1. Received: {self.seed}")
        for name, low in (
            ("steps", 1),
            ("batch_size", 0),
            ("crop", 0),
            ("tile", 1),
            ("slices", 1),
            ("image_every", 1),
            ("checkpoint_every", 1),
        ):
            if getattr(self, name) < low:
                raise ValueError(f"{name}: expected {low} or more. Received: {getattr(self, name)}")
        for name, (low, high) in _SIZES.items():
            value = getattr(self, name) if name in self.hints() else low  # not a property
            if not low <= value <= high:
                raise ValueError(f"{name}: expected {low} to {high}. Received: {value}")
        for name in self.hints():
            value = getattr(self, name)
            positive = name in _POSITIVE or name.endswith("_rate") or name.startswith("lambda_")
            if positive and value < 0:
                raise ValueError(f"{name}: expected 0 or more. Received: {value}")
            if name in _FRACTIONS and not 0 <= value < 1:
                raise ValueError(f"{name}: expected 0 or more and below 1. Received: {value}")
        for name in ("source_window", "target_window"):
            window = getattr(self, name)
            if window is not None and not window[0] < window[1]:
                raise ValueError(f"{name}: expected LOW,HIGH, LOW < HIGH. Received: {window}")
        if getattr(self, "classes", 0) == 1:
            raise ValueError("classes: expected 0 (no label maps), or 2 or more. Received: 1")
        if self.slices % 2 == 0:
            raise ValueError(f"slices: expected an odd number. Received: {self.slices}")

    def phases(self) -> list[Phase]:
        """What a run goes through, in order."""
        return [Phase("train", self.steps, self.batch_size)]

    def changed(self, **fields: Any) -> Self:
        """The recipe with some fields set to other values.

        Raises:
            ValueError: for an unknown field or a value of the wrong type.
        """
        unknown = [field for field in fields if field not in self.hints()]
        if unknown:
            raise ValueError(
                f"{type(self).__name__} has no field {unknown[0]!r}; it has "
                f"{', '.join(self.hints())}. Received: {unknown[0]}={fields[unknown[0]]}"
            )
        return dataclasses.replace(self, **fields)

    @property
    def size_multiple(self) -> int:
        """The sides of what the network takes are multiples of this."""
        return 1

    @property
    def extra_features(self) -> tuple[str, ...]:
        """What a training step needs of an example besides its images, such as "label"."""
        return ()

    @classmethod
    def hints(cls) -> dict[str, Any]:
        """Field name to its type, in order of definition."""
        types = typing.get_type_hints(cls)
        return {field.name: types[field.name] for field in dataclasses.fields(cls)}

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> Self:
        """The recipe of `name`, "paper" or "small", with some fields set to other values.

        Raises:
            ValueError: for an unknown preset, an unknown field or a value of the wrong type.
        """
        if name not in ("paper", "small"):
            raise ValueError(f"preset: expected paper or small. Received: {name}")
        return cls(**(cls.SMALL if name == "small" else {})).changed(**overrides)

    @classmethod
    def parse(cls, assignments: list[str]) -> dict[str, Any]:
        """`["steps=20", "flip=true"]` to `{"steps": 20, "flip": True}`, typed by the fields.

        Raises:
            ValueError: for an assignment without `=`, an unknown field or an unreadable value.
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
            values[name] = _checked(name, text, cls.hints())
        return values

    def to_dict(self) -> dict[str, Any]:
        """A JSON-serialisable form that `from_dict` takes back."""
        fields = dataclasses.asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """The recipe that `to_dict` described."""
        return cls.preset("paper", **fields)


def _checked(name: str, value: Any, hints: dict[str, Any]) -> Any:
    """`value` (or its text) as the field's type, or a ValueError that names the field."""
    try:
        return _convert(value, hints[name])
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
        kind = getattr(hints[name], "__name__", None) or str(hints[name])
        if typing.get_args(hints[name]):
            kind = str(hints[name]).replace("typing.", "")
        raise ValueError(f"{name}: expected {kind}. Received: {value!r}") from None


def _convert(value: Any, kind: Any) -> Any:
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is Literal:
        if value not in arguments:
            raise ValueError
        return value
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
        return {"true": True, "1": True, "false": False, "0": False}[value.lower()]
    if isinstance(value, bool) or (kind is int and isinstance(value, float) and value % 1):
        raise ValueError
    if kind is float and not math.isfinite(float(value)):
        raise ValueError
    return kind(value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataFacts:
    """What a recipe may depend on in a data set.

    Attributes:
        source_shape, target_shape: sides of the images, (H, W) or (D, H, W); None where they
            differ. Of single images both are the image's.
        class_names: names of the values of "label", the class of a whole image.
        label_names: names of the values of a label map, the class of each pixel.
    """

    source_shape: tuple[int, ...] | None = None
    target_shape: tuple[int, ...] | None = None
    class_names: tuple[str, ...] = ()
    label_names: tuple[str, ...] = ()
