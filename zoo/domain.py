"""What the numbers of an image mean: modality, unit, intensity window and spacing."""

import dataclasses
from typing import Any

# Units of what is not an image yet, and what it is called.
MEASUREMENTS = {"k-space": "k-space", "line integral": "sinograms"}

# Where rows, columns and slices run to (Right, Left, Anterior, Posterior, Superior, Inferior): as
# radiologists hang each plane, slices along the normal of DICOM's row and column directions.
HANGS = {"axial": "PLS", "coronal": "ILP", "sagittal": "IPR"}

_MOST_CHANNELS = 4096  # a damaged record could ask for any number, and the network for the memory


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

    Raises:
        ValueError: for a window that is not two increasing finite numbers, channels that are no
            number of 1 or more, a modality or unit that is no text, or another plane.
    """

    modality: str = "OT"
    unit: str = "1"
    window: tuple[float, float] = (0.0, 1.0)
    channels: int = 1
    spacing: tuple[float, ...] | None = None
    plane: str | None = None

    def __post_init__(self):
        window = tuple(float(value) for value in self.window)
        if len(window) != 2 or not -float("inf") < window[0] < window[1] < float("inf"):
            raise ValueError(
                f"window: expected two finite numbers (low, high), low < high. "
                f"Received: {self.window}"
            )
        if self.plane is not None and self.plane not in HANGS:
            raise ValueError(f"plane: expected one of {', '.join(HANGS)}. Received: {self.plane}")
        object.__setattr__(self, "window", window)
        for name in ("modality", "unit"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name}: expected a text. Received: {getattr(self, name)}")
        if not isinstance(self.channels, int) or not 1 <= self.channels <= _MOST_CHANNELS:
            raise ValueError(f"channels: expected 1 to {_MOST_CHANNELS}. Received: {self.channels}")
        if self.spacing is not None:
            object.__setattr__(self, "spacing", tuple(float(value) for value in self.spacing))

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
        return (images - self.window[0]) * (2.0 / self.span) - 1.0

    def decode(self, values):
        """Network values to physical values, [-1, 1] to the window."""
        return (values + 1.0) * (self.span / 2.0) + self.window[0]

    def clip(self, images):
        """Physical values limited to the window; NumPy arrays and tensors alike."""
        low, high = self.window
        if hasattr(images, "clip"):
            return images.clip(low, high)
        import tensorflow as tf

        return tf.clip_by_value(images, low, high)

    def encode(self, images):
        """Physical values to network values in [-1, 1], clipped to the window."""
        return self.scale(self.clip(images))

    def to_dict(self) -> dict[str, Any]:
        """A JSON-serialisable form that `from_dict` takes back."""
        fields = dataclasses.asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Domain":
        """The domain that `to_dict` described; unknown keys are refused."""
        known: dict[str, Any] = {}
        for name, value in fields.items():
            known[name] = tuple(value) if isinstance(value, list) else value
        return cls(**known)
