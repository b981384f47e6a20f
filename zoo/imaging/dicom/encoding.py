"""Stored integers of DICOM images and the physical values they stand for."""

import dataclasses
import math

import numpy as np
import pydicom.valuerep


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoding:
    """How stored integers stand for physical values.

    Attributes:
        slope, intercept: physical = slope x stored + intercept.
        bits: BitsStored, up to 16.
        signed: PixelRepresentation.
        rescaled: whether the header states slope and intercept.
        inverted: whether the least stored value stands for the greatest physical one and so on,
            as it does in a MONOCHROME1 image whose values are mere brightness: then
            physical = slope x (least + greatest - stored) + intercept.
    """

    slope: float = 1.0
    intercept: float = 0.0
    bits: int = 16
    signed: bool = False
    rescaled: bool = False
    inverted: bool = False

    def __post_init__(self):
        if not (math.isfinite(self.slope) and self.slope and math.isfinite(self.intercept)):
            raise ValueError(
                "RescaleSlope, RescaleIntercept: expected finite numbers, the slope not 0. "
                f"Received: {self.slope}, {self.intercept}"
            )

    @property
    def limits(self) -> tuple[int, int]:
        """The least and the greatest stored value."""
        if self.signed:
            return -(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1
        return 0, (1 << self.bits) - 1

    def decode(self, stored: np.ndarray) -> np.ndarray:
        """Stored integers to physical values, float32."""
        levels = stored.astype(np.float64)
        if self.inverted:
            levels = sum(self.limits) - levels
        return (levels * self.slope + self.intercept).astype(np.float32)

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Physical values to the nearest stored integers, int32, saturated at `limits`."""
        stored = np.rint((values.astype(np.float64) - self.intercept) / self.slope)
        stored = np.clip(stored, *self.limits).astype(np.int32)
        return sum(self.limits) - stored if self.inverted else stored

    def fits(self, low: float, high: float) -> bool:
        """Whether the values from `low` to `high` are stored without saturation."""
        ends = [np.rint((end - self.intercept) / self.slope) for end in (low, high)]
        return self.limits[0] <= min(ends) and max(ends) <= self.limits[1]

    def fit(self, low: float, high: float) -> "Encoding":
        """The encoding closest to this one that stores `low` to `high` without saturation.

        In this order: this one; 16 bits; those of the other signedness, where the header states
        no rescale; unsigned with the intercept moved by whole steps, so that values on the old
        steps stay exact. Only where the range takes more than 65535 steps does the step grow.
        """
        wide = dataclasses.replace(self, bits=16)
        if self.inverted and not self.signed:  # so that windows of the display stay where they are
            middle = self.intercept + self.slope * (sum(self.limits) - sum(wide.limits)) / 2
            wide = dataclasses.replace(wide, intercept=middle, rescaled=True)
        candidates = [self, wide]
        if not self.rescaled and not self.inverted:
            candidates.append(dataclasses.replace(wide, signed=not self.signed))
        for candidate in candidates:
            if candidate.fits(low, high):
                return candidate
        # ITK refuses signed words that an intercept moves to 0 ... 65535
        wide = dataclasses.replace(wide, signed=False)
        slope = self.slope
        first, last = sorted((end - self.intercept) / slope for end in (low, high))
        if np.rint(last) - np.rint(first) <= 65535:
            intercept = self.intercept + slope * (np.rint(first) - wide.limits[0])
        else:
            # a DS value has 16 characters: round the step up to what they hold
            slope = math.copysign(float(f"{(high - low) / 65534 * (1 + 1e-8):.8e}"), slope)
            start = low if slope > 0 else high
            intercept = start - slope * wide.limits[0]
        return dataclasses.replace(wide, slope=slope, intercept=decimal(intercept), rescaled=True)

    def around_zero(self, low: float, high: float) -> "Encoding":
        """This encoding where it stores `low` to `high`; else one without an intercept, as PET
        asks for: of 16 signed bits, with greater steps where the range takes them.
        """
        if self.fits(low, high):
            return self
        needed = max(abs(low), abs(high)) / 32767
        slope = abs(self.slope)
        if needed > slope:  # rounded up to what a DS value holds
            slope = float(f"{needed * (1 + 1e-8):.8e}")
        return Encoding(slope=slope, bits=16, signed=True, rescaled=True)


def decimal(value: float) -> float:
    """`value` as a DICOM decimal string (16 characters) holds it."""
    return float(pydicom.valuerep.format_number_as_ds(float(value)))
