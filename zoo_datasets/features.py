"""Features and metadata that the builders share."""

from typing import Any

import numpy as np
import tensorflow_datasets as tfds


def image_feature(
    shape: tuple[int | None, ...], dtype: Any = np.int16
) -> tfds.features.FeatureConnector:
    """`[H, W, C]`, stored without loss."""
    return tfds.features.Tensor(shape=shape, dtype=dtype, encoding=tfds.features.Encoding.ZLIB)


def domain(
    modality: str,
    unit: str,
    window: tuple[float, float],
    spacing: tuple[float, float] | None,
    channels: int = 1,
    plane: str | None = "axial",
) -> dict[str, Any]:
    """A `zoo.domain.Domain` as a builder's metadata hold it.

    Volumes are hung as axial slices by `volumes.py`; radiographs and measurements have no plane.
    """
    return {
        "modality": modality,
        "unit": unit,
        "window": list(map(float, window)),
        "channels": channels,
        "spacing": None if spacing is None else list(spacing),
        "plane": plane,
    }
