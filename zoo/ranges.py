"""The numbers that the fields of a recipe take, declared with each field's type."""

import dataclasses
import math
from typing import Annotated


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers: `levels: Annotated[int, ranges.Range(1, 16)] = 5`.

    Attributes:
        low: the smallest.
        high: the largest.
        below: what all are smaller than, where no number is the largest.
    """

    low: float
    high: float = math.inf
    below: float = math.inf

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high and value < self.below

    def __str__(self) -> str:
        if self.high < math.inf:
            return f"{self.low} to {self.high}"
        return f"{self.low} or more" + (f" and below {self.below}" if self.below < math.inf else "")


# What fields of many recipes hold. The upper bounds are far beyond what anybody trains; with more
# a network would not be built in a lifetime, or numbers overflow.
Count = Annotated[int, Range(1, below=10**12)]  # steps, or images shown
Batch = Annotated[int, Range(0, below=10**6)]  # images in a step
Positive = Annotated[int, Range(1, below=10**6)]
Filters = Annotated[int, Range(1, 8192)]  # channels of a layer
Levels = Annotated[int, Range(1, 16)]  # resolutions
Layers = Annotated[int, Range(0, 16)]  # that halve the resolution
Classes = Annotated[int, Range(0, 65536)]  # of a label map
Blocks = Annotated[int, Range(0, 1024)]
Pixels = Annotated[int, Range(0, below=10**6)]
# Sides in pixels: one number for all axes, or one for each, (H, W) or (D, H, W).
Sides = Pixels | tuple[Positive, ...]
Tile = Positive | tuple[Positive, ...]
Rate = Annotated[float, Range(0, below=1000)]  # of learning
Weight = Annotated[float, Range(0, below=10**9)]  # of a loss
Fraction = Annotated[float, Range(0, below=1)]
Level = Annotated[float, Range(-(10**9), 10**9)]  # an intensity, in its unit
PAIRS = "pairs"  # of a tuple: LOW, HIGH, and perhaps further pairs
