"""What the numbers of an image mean: modality, unit, intensity window and spacing."""

import dataclasses
import functools
import re
from typing import Any

# Units of what is not an image yet, and what it is called.
MEASUREMENTS = {"k-space": "k-space", "line integral": "sinograms"}

# Where rows, columns and slices run to (Right, Left, Anterior, Posterior, Superior, Inferior): as
# radiologists hang each plane, slices along the normal of DICOM's row and column directions.
HANGS = {"axial": "PLS", "coronal": "ILP", "sagittal": "IPR"}

_MOST_CHANNELS = 4096  # a damaged record could ask for any number, and the network for the memory
# Of an input: no "=" or ",", which part files on a command line, nor what stands beside it.
_NAME = re.compile(r"(?!(output|target)$)\w[\w.+-]{0,63}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Domain:
    """The physical meaning of one image domain; a part of every model and of every artefact.

    Attributes:
        modality: DICOM modality code: CT, MR, MG, DX, SEG, OT.
        unit: unit of a pixel value: "HU", "signal", "SUV", "k-space", "line integral" (of a
            sinogram), "class" (of a label map), "1".
        window: the two physical values that a network sees as -1 and 1.
        channels: image channels, `C` of `[N, H, W, C]`.
        spacing: pixel spacing (row, column), of volumes (slice, row, column), in mm; None where
            unknown.
        plane: of the slices that were learned from, rows and columns as radiologists hang it:
            "axial", "coronal" or "sagittal". Files that state an affine are presented so. None
            where it was not known: then files are read as they are stored.
        name: of an input among several, such as "T1"; "" for what needs none.
        quick: of an image that its measurement gives in one step, how: filtered back-projection by
            the filter "ramp" or "hann", or "zero filling", on the measurement's own scale; "" of
            any other image. Domains that differ in it alone are equal: the numbers mean the same.
        inputs: where each example has several images of one grid, the domain of each, in the order
            of the channels. The other attributes follow from them: modality and unit where all
            share one (else "OT" and "mixed"), a window around all windows, the sum of the channels.

    Raises:
        ValueError: for a window that is not two increasing finite numbers, channels that are no
            number of 1 or more, a modality or unit that is no text, or another plane; for inputs
            without a name of their own, a single one, and inputs that are no images.
    """

    modality: str = "OT"
    unit: str = "1"
    window: tuple[float, float] = (0.0, 1.0)
    channels: int = 1
    spacing: tuple[float, ...] | None = None
    plane: str | None = None
    name: str = ""
    quick: str = dataclasses.field(default="", compare=False)
    inputs: tuple["Domain", ...] = ()

    def __post_init__(self):
        if self.inputs:
            self._take_from_inputs()
        window = tuple(float(value) for value in self.window)
        if len(window) != 2 or not -float("inf") < window[0] < window[1] < float("inf"):
            raise ValueError(
                f"window: expected two finite numbers (low, high), low < high. "
                f"Received: {self.window}"
            )
        if self.plane is not None and self.plane not in HANGS:
            raise ValueError(f"plane: expected one of {', '.join(HANGS)}. Received: {self.plane}")
        object.__setattr__(self, "window", window)
        for name in ("modality", "unit", "name", "quick"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name}: expected a text. Received: {getattr(self, name)}")
        if not isinstance(self.channels, int) or not 1 <= self.channels <= _MOST_CHANNELS:
            raise ValueError(f"channels: expected 1 to {_MOST_CHANNELS}. Received: {self.channels}")
        if self.spacing is not None:
            object.__setattr__(self, "spacing", tuple(float(value) for value in self.spacing))

    def _take_from_inputs(self) -> None:
        """Sets what follows from the inputs."""
        names = [each.name for each in self.inputs]
        if len(names) < 2 or len(set(names)) < len(names) or not all(map(_NAME.fullmatch, names)):
            raise ValueError(
                "inputs: expected two or more, each with a name of its own, of letters, digits "
                f"and . + - _. Received: {', '.join(map(repr, names))}"
            )
        if any(each.inputs or each.measured or each.classes for each in self.inputs):
            raise ValueError(f"inputs: expected images. Received: {', '.join(names)}")
        first, *others = self.inputs
        values: dict[str, Any] = {name: getattr(first, name) for name in ("spacing", "plane")}
        for name, mixed in (("modality", "OT"), ("unit", "mixed")):
            own = getattr(first, name)
            values[name] = own if all(getattr(each, name) == own for each in others) else mixed
        values["channels"] = sum(each.channels for each in self.inputs)
        ends = [end for each in self.inputs for end in each.window]
        values["window"] = (min(ends), max(ends))
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def parts(self) -> dict[str, tuple["Domain", slice]]:
        """Each input with its channels, by its name; of what is one image "source", with all."""
        if not self.inputs:
            return {"source": (self, slice(None))}
        found, first = {}, 0
        for each in self.inputs:
            found[each.name] = each, slice(first, first + each.channels)
            first += each.channels
        return found

    @property
    def names(self) -> str:
        """The inputs' names in the order of their channels, "T1, T2"; "" of what is one image."""
        return ", ".join(each.name for each in self.inputs)

    def like(self, other: "Domain") -> tuple["Domain", slice] | None:
        """Of several inputs the first of another domain's modality and unit, with its channels.

        None where there is none; what is one image is itself, whatever its modality.
        """
        if not self.inputs:
            return self, slice(None)
        alike = (other.modality, other.unit)
        found = self.parts.values()
        return next((part for part in found if (part[0].modality, part[0].unit) == alike), None)

    def within(self, window: tuple[float, ...]) -> "Domain":
        """The domain with another window: LOW, HIGH, or of several inputs these of each in turn.

        Raises:
            ValueError: for another number of them.
        """
        if len(window) != 2 * len(self.parts):
            each = f"LOW,HIGH of each of {self.names} in turn" if self.inputs else "LOW,HIGH"
            received = ",".join(f"{value:g}" for value in window)
            raise ValueError(f"window: expected {each}. Received: {received}")
        parts = []
        for number, (part, _) in enumerate(self.parts.values()):
            low, high = window[2 * number : 2 * number + 2]
            parts.append(dataclasses.replace(part, window=(low, high)))
        return dataclasses.replace(self, inputs=tuple(parts)) if self.inputs else parts[0]

    @functools.cached_property
    def _limits(self) -> tuple[Any, Any]:
        """The window's ends: numbers, or of several inputs float32 `[C]`, those of each channel."""
        if not self.inputs:
            return self.window
        import numpy as np  # `list` answers without it

        ends = [[each.window] * each.channels for each in self.inputs]
        low, high = np.concatenate(ends).astype(np.float32).T
        return low, high

    @property
    def span(self) -> float:
        """Width of the window, in the domain's unit: the `data_range` of PSNR and SSIM."""
        return self.window[1] - self.window[0]

    @property
    def classes(self) -> int:
        """The number of classes of a label map, whose greatest one ends its window; 0 of images."""
        return round(self.window[1]) + 1 if self.unit == "class" else 0

    @property
    def measured(self) -> bool:
        """Whether the numbers are what a scanner measures, and not an image yet."""
        return self.unit in MEASUREMENTS

    @property
    def words(self) -> str:
        """What the numbers are called: "k-space", "sinograms" or "images"."""
        return MEASUREMENTS.get(self.unit, "images")

    def scale(self, images):
        """Physical values to network values, the window to [-1, 1]; nothing is clipped."""
        low, high = self._limits
        return (images - low) * (2.0 / (high - low)) - 1.0

    def decode(self, values):
        """Network values to physical values, [-1, 1] to the window."""
        low, high = self._limits
        return (values + 1.0) * ((high - low) / 2.0) + low

    def clip(self, images):
        """Physical values limited to the window; NumPy arrays and tensors alike."""
        low, high = self._limits
        if hasattr(images, "clip"):
            return images.clip(low, high)
        import tensorflow as tf

        return tf.clip_by_value(images, low, high)

    def encode(self, images):
        """Physical values to network values in [-1, 1], clipped to the window.

        Of several inputs each channel goes by the window of its own.
        """
        return self.scale(self.clip(images))

    def to_dict(self) -> dict[str, Any]:
        """A JSON-serialisable form that `from_dict` takes back; without those of name, quick and
        inputs that are empty.
        """
        found: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            found[field.name] = list(value) if isinstance(value, tuple) else value
        found["inputs"] = [each.to_dict() for each in self.inputs]
        optional = ("name", "quick", "inputs")
        return {key: value for key, value in found.items() if value or key not in optional}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Domain":
        """The domain that `to_dict` described; unknown keys are refused."""
        known: dict[str, Any] = {}
        for name, value in fields.items():
            known[name] = tuple(value) if isinstance(value, (list, tuple)) else value
        known["inputs"] = tuple(map(cls.from_dict, known.get("inputs", ())))
        return cls(**known)
