"""What the examples hold, and the metadata that say what their numbers mean."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from zoo.domain import Domain

# HU of a chest, an abdomen or a head with their noise (80 HU at a quarter of the dose): scanners
# store nothing below -1024, and only dense cortical bone and metal exceed 1500.
CT_WINDOW = (-1024.0, 1500.0)


@dataclasses.dataclass(frozen=True)
class Image:
    """How an image is stored, and what its numbers mean as a `zoo.domain.Domain` has it.

    Attributes:
        shape: `[H, W, C]` or `[D, H, W, C]`, None for sides that differ.
        dtype: NumPy's type.
        modality, unit, window: as of a `Domain`.
        spacing: mm, of each side; None where it differs or nobody knows it.
        plane: volumes are hung as axial slices by `publishers.volumes`; radiographs and
            measurements have no plane.
        inputs: names of several images of this kind, whose channels the shape counts together.
    """

    shape: tuple[int | None, ...]
    dtype: Any
    modality: str
    unit: str
    window: tuple[float, float]
    spacing: tuple[float, ...] | None = None
    plane: str | None = "axial"
    inputs: tuple[str, ...] = ()


def info(
    builder: tfds.core.DatasetBuilder,
    images: dict[str, Image],
    others: dict[str, Any] | None = None,
    *,
    spacing: bool = False,
    label_names: Sequence[str] = (),
    metadata: dict[str, Any] | None = None,
    supervised: tuple[str, str] | None = None,
    homepage: str | None = None,
) -> tfds.core.DatasetInfo:
    """A data set of pairs, or of single images where one is called "image".

    Args:
        builder: the data set's.
        images: by the names of their features.
        others: features besides these, the patient and the name.
        spacing: whether each example has its own, in mm (row, column).
        label_names: of label maps of source and target, on the target's grid; none without them.
        metadata: besides kind, alignment and domains.
        supervised: names of input and output; of pairs, source and target.
        homepage: of the data.
    """
    single = "image" in images
    features: dict[str, Any] = {name: image_feature(i.shape, i.dtype) for name, i in images.items()}
    features |= {"patient": tfds.features.Text(), "name": tfds.features.Text()}
    facts: dict[str, Any] = {"kind": "single"} if single else {"kind": "paired", "aligned": True}
    # The domain of each image.
    for name, image in images.items():
        count = (image.shape[-1] or 1) // (len(image.inputs) or 1)
        means = (image.modality, image.unit, image.window, image.spacing, count, image.plane)
        facts[name] = domain(*means)
        if image.inputs:
            parts = [Domain.from_dict(domain(*means) | {"name": each}) for each in image.inputs]
            facts[name] = Domain(inputs=tuple(parts)).to_dict()
    # What some data sets have besides.
    if spacing:
        features["spacing"] = tfds.features.Tensor(shape=(2,), dtype=np.float32)
    if label_names:
        label = image_feature(images["target"].shape, np.uint8)
        features |= {"source_label": label, "target_label": label}
        facts["label_names"] = list(label_names)
    return builder.dataset_info_from_configs(
        features=tfds.features.FeaturesDict(features | (others or {})),
        homepage=homepage,
        supervised_keys=supervised or (None if single else ("source", "target")),
        metadata=tfds.core.MetadataDict(facts | (metadata or {})),
    )


def image_feature(
    shape: tuple[int | None, ...], dtype: Any = np.int16
) -> tfds.features.FeatureConnector:
    """`[H, W, C]`, stored without loss."""
    return tfds.features.Tensor(shape=shape, dtype=dtype, encoding=tfds.features.Encoding.ZLIB)


def domain(
    modality: str,
    unit: str,
    window: tuple[float, float],
    spacing: tuple[float, ...] | None,
    channels: int | None = 1,
    plane: str | None = "axial",
) -> dict[str, Any]:
    """A `zoo.domain.Domain` as a builder's metadata hold it."""
    return {
        "modality": modality,
        "unit": unit,
        "window": list(map(float, window)),
        "channels": channels,
        "spacing": None if spacing is None else list(spacing),
        "plane": plane,
    }
